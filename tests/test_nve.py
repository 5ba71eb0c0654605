"""Energy conservation of molecular dynamics through ASE, with a smooth untrained potential.

Velocity Verlet errs by O(dt²) in the energy: halving the step must quarter the deviation. A force
that is not the slope of the energy, a step at the cutoff, or a stale neighbour list would not.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from pymlp import Calculator, ElementNetworks, Potential
from pymlp.descriptors import ANI, BehlerParrinello
from pymlp.descriptors.base import Descriptor
from tests.neighbourhoods import crystal, molecule

SYMBOLS = ("H", "C", "O")


def potential(descriptor: Descriptor) -> Potential:
    """Random tanh networks, their energies scaled to those of weak bonds."""
    networks = ElementNetworks(
        descriptor.n_features, SYMBOLS, hidden=(12,), seed=71, dtype=torch.float64
    )
    with torch.no_grad():
        for weight in networks.weights:
            weight.mul_(0.5)
    return Potential(descriptor, networks)


def atoms_of(periodic: bool) -> Atoms:
    geometry = crystal(8, 3, 72, 5.2) if periodic else molecule(9, 3, 73)
    atoms = Atoms(
        [SYMBOLS[t] for t in geometry.types.tolist()],
        geometry.positions.numpy(),
        cell=None if geometry.cell is None else geometry.cell.numpy(),
        pbc=periodic,
    )
    # 300 K
    spread = np.sqrt(atoms.get_masses() * 300 * units.kB)[:, None]
    momenta = spread * np.random.default_rng(74).standard_normal((len(atoms), 3))
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    return atoms


def deviation(atoms: Atoms, calculator: Calculator, step_fs: float, time_fs: float) -> float:
    """Largest change of the total energy, eV per atom, and the kinetic energy must have moved."""
    atoms.calc = calculator
    energies, kinetic = [], []
    dynamics = VelocityVerlet(atoms, timestep=step_fs * units.fs)

    def record() -> None:
        energies.append(atoms.get_total_energy())
        kinetic.append(atoms.get_kinetic_energy())

    dynamics.attach(record)
    dynamics.run(round(time_fs / step_fs))
    assert max(kinetic) - min(kinetic) > 1e-3, "nothing happened in the trajectory"
    return float(np.abs(np.array(energies) - energies[0]).max()) / len(atoms)


@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "cell"])
@pytest.mark.parametrize("family", ["behler_parrinello", "ani"])
def test_energy_is_conserved(family: str, periodic: bool) -> None:
    descriptor: Descriptor
    descriptor = ANI.ani1x(SYMBOLS) if family == "ani" else BehlerParrinello.paper(SYMBOLS)
    model = potential(descriptor)
    # 60 fs: atoms pass cutoffs and, in the cell, the skin of the list is used up
    long, short = (
        deviation(atoms_of(periodic), Calculator(model, skin=0.3), step, 60.0)
        for step in (0.5, 0.25)
    )
    assert long < 1e-3, f"{family}: the energy changes by {long:.1e} eV/atom"
    assert short < 0.4 * long + 1e-9, f"{family}: {long:.2e} at 0.5 fs, {short:.2e} at 0.25 fs"
