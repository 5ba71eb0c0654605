"""The ASE calculator: results, neighbour lists that live on, dynamics that conserve energy."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import full_3x3_to_voigt_6_stress

import pymlp
from pymlp import Batch, Calculator, ElementNetworks, Potential, units
from pymlp.descriptors import BehlerParrinello

ELEMENTS = ["H", "C", "O"]


def potential(members: int = 1, dtype: Any = torch.float64) -> Potential:
    """Random networks over features of moderate size: forces of some eV/Å."""
    seen = BehlerParrinello(
        ELEMENTS,
        radial=[(0.3, 0.0), (1.2, 1.1), (0.8, 2.0)],
        angular=[(0.05, 1.0, 0.0), (0.05, 3.0, np.pi)],
        cutoff=4.0,
        angular_cutoff=3.5,
    )
    nets = [ElementNetworks(seen.n_features, ELEMENTS, (8,), seed=k, dtype=dtype)
            for k in range(members)]  # fmt: skip
    return Potential(seen, nets)


def molecule(n_atoms: int = 6, seed: int = 0) -> ase.Atoms:
    generator = np.random.default_rng(seed)
    side = int(np.ceil(n_atoms ** (1 / 3)))
    grid = np.array(list(itertools.product(range(side), repeat=3)))[:n_atoms] * 1.5
    symbols = (["O", "H", "C", "H", "H", "C"] * n_atoms)[:n_atoms]
    return ase.Atoms(symbols, grid + generator.uniform(-0.2, 0.2, size=(n_atoms, 3)))


def crystal() -> ase.Atoms:
    cell = [[3.1, 0.2, 0.0], [0.3, 3.3, 0.3], [0.4, 0.0, 2.9]]
    positions = [[0, 0, 0], [1.1, 1.2, 0.9], [2.0, 0.1, 1.9]]
    return ase.Atoms("OHC", positions, cell=cell, pbc=True)


def expected(model: Potential, atoms: ase.Atoms) -> pymlp.Prediction:
    return model.compute(Batch.from_atoms(atoms))


@pytest.mark.parametrize("atoms", [molecule(), crystal()], ids=["molecule", "crystal"])
def test_results_are_those_of_the_potential(atoms: ase.Atoms) -> None:
    model = potential()
    atoms = atoms.copy()
    atoms.calc = Calculator(model)
    out = expected(model, atoms)
    assert atoms.get_potential_energy() == pytest.approx(float(out.energy[0]), abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), out.forces, atol=1e-13)
    np.testing.assert_allclose(atoms.get_potential_energies(), out.atomic_energies, atol=1e-13)
    assert atoms.get_forces().dtype == np.float64
    if out.stress is not None:
        voigt = full_3x3_to_voigt_6_stress(out.stress[0].numpy())
        np.testing.assert_allclose(atoms.get_stress(), voigt, atol=1e-14)
    else:
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


def test_forces_and_stress_agree_with_ases_finite_differences() -> None:
    from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

    atoms = crystal()
    atoms.calc = Calculator(potential())
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.05
    np.testing.assert_allclose(calculate_numerical_forces(atoms, eps=1e-4), forces, atol=1e-6)
    stress = atoms.get_stress()
    assert np.abs(stress).max() > 1e-3
    np.testing.assert_allclose(calculate_numerical_stress(atoms, eps=1e-5), stress, atol=1e-8)


def test_committee_uncertainty_is_among_the_results() -> None:
    model = potential(members=3)
    atoms = molecule()
    atoms.calc = Calculator(model)
    atoms.get_potential_energy()
    out = expected(model, atoms)
    assert atoms.calc.results["energy_std"] == pytest.approx(float(out.energy_std[0]))
    np.testing.assert_allclose(atoms.calc.results["forces_std"], out.forces_std, atol=1e-13)
    single = molecule()
    single.calc = Calculator(potential())
    single.get_potential_energy()
    assert "energy_std" not in single.calc.results
    mean = atoms.copy()
    mean.calc = Calculator(atoms.calc.potential, spread=False)
    np.testing.assert_allclose(mean.get_forces(), atoms.get_forces(), atol=1e-13)
    assert "energy_std" in mean.calc.results
    assert "forces_std" not in mean.calc.results


def test_a_model_folder_and_single_precision(tmp_path: Path) -> None:
    model = potential()
    model.save(tmp_path)
    atoms = molecule()
    atoms.calc = Calculator(tmp_path)
    exact = expected(model, atoms)
    assert atoms.get_potential_energy() == float(exact.energy[0])
    atoms.calc = Calculator(str(tmp_path), dtype=torch.float32)
    np.testing.assert_allclose(atoms.get_forces(), exact.forces, atol=1e-5)
    assert not np.array_equal(atoms.get_forces(), exact.forces)


@pytest.mark.parametrize(
    ("atoms", "lists"),
    [(molecule(), 1), (molecule(80), 8), (crystal(), 8)],
    ids=["small molecule", "large molecule", "crystal"],
)
def test_neighbour_lists_live_on_as_long_as_they_hold(
    atoms: ase.Atoms, lists: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = pymlp.neighbors.neighbor_list

    def counted(batch: Batch, cutoff: float) -> Any:
        made.append(cutoff)
        return original(batch, cutoff)

    model = potential()
    atoms = atoms.copy()
    atoms.calc = Calculator(model, skin=0.6)
    monkeypatch.setattr("pymlp.calculator.neighbor_list", counted)
    generator = np.random.default_rng(0)
    n_steps = 40
    for _ in range(n_steps):
        atoms.positions += generator.normal(size=atoms.positions.shape) * 0.03
        forces = atoms.get_forces()
        np.testing.assert_allclose(forces, expected(model, atoms).forces, atol=1e-11)
    assert 1 <= len(made) <= lists
    if lists == 1:
        assert np.isinf(made[0])
    else:
        assert len(made) > 1
        assert set(made) == {4.6}


def test_what_changes_the_list_renews_it() -> None:
    model = potential()
    calculator = Calculator(model, skin=1.0)

    def check(atoms: ase.Atoms) -> None:
        atoms.calc = calculator
        out = expected(model, atoms)
        np.testing.assert_allclose(atoms.get_forces(), out.forces, atol=1e-12)
        assert atoms.get_potential_energy() == pytest.approx(float(out.energy[0]), abs=1e-12)
        if out.stress is not None:
            voigt = full_3x3_to_voigt_6_stress(out.stress[0].numpy())
            np.testing.assert_allclose(atoms.get_stress(), voigt, atol=1e-13)

    atoms = crystal()
    check(atoms)
    atoms.set_cell(atoms.cell.array * 1.02)  # atoms stay where they are
    check(atoms)
    atoms.set_cell(atoms.cell.array * 0.97, scale_atoms=True)
    check(atoms)
    atoms.pbc = [True, True, False]
    check(atoms)
    atoms.pbc = False
    check(atoms)
    atoms.symbols[0] = "C"
    check(atoms)
    del atoms[2]
    check(atoms)
    check(molecule())
    moved = molecule()
    moved.positions += 1000.0
    check(moved)
    with_cell = molecule()
    with_cell.set_cell([9, 9, 9])  # a cell that is not periodic means nothing
    check(with_cell)
    with_cell.set_cell([8, 8, 8])
    check(with_cell)


def test_dynamics_conserve_energy() -> None:
    """NVE: the error of velocity Verlet falls with the square of the step, without drift."""

    def energies(step: float) -> np.ndarray[Any, Any]:
        atoms = molecule()
        atoms.calc = Calculator(model)
        BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
        generator = np.random.default_rng(1)
        momenta = generator.normal(size=(6, 3)) * np.sqrt(
            atoms.get_masses()[:, None] * units.BOLTZMANN * 300
        )
        atoms.set_momenta(momenta - momenta.mean(axis=0))
        dynamics = VelocityVerlet(atoms, step * units.FEMTOSECOND)
        found = []
        for _ in range(25):
            dynamics.run(round(4 / step))
            found.append(atoms.get_total_energy())
        return np.array(found)

    model = potential()
    coarse, fine = energies(0.5), energies(0.125)
    assert np.ptp(coarse) < 1e-3
    assert np.ptp(fine) < np.ptp(coarse) / 8
    drift = np.polyfit(np.arange(25), fine, 1)[0] * 25
    assert abs(drift) < 1e-4


def test_structures_that_cannot_be_computed() -> None:
    calculator = Calculator(potential())
    nitrogen = ase.Atoms("N2", [[0, 0, 0], [0, 0, 1.1]], calculator=calculator)
    with pytest.raises(ValueError, match=r"unknown element N: this descriptor knows"):
        nitrogen.get_potential_energy()
    twice = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0]], calculator=calculator)
    with pytest.raises(ValueError, match="atoms 0 and 1 coincide"):
        twice.get_potential_energy()
    good = molecule()
    good.calc = calculator
    good.get_potential_energy()
    # The list of a small molecule is not made again, and yet:
    good.positions[1] = good.positions[0]
    with pytest.raises(ValueError, match="atoms 0 and 1 coincide"):
        good.get_potential_energy()
    good.positions[1] = np.nan
    with pytest.raises(ValueError, match="positions must be finite"):
        good.get_potential_energy()
    fine = molecule()
    fine.calc = calculator
    assert np.isfinite(fine.get_potential_energy())


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.json"):
        Calculator(tmp_path)
    with pytest.raises(ValueError, match="skin must be at least zero"):
        Calculator(potential(), skin=-0.1)
    with pytest.raises(TypeError, match="dtype must be"):
        Calculator(potential(), dtype=torch.float16)


def test_a_model_of_differences_says_so(recwarn: pytest.WarningsRecorder) -> None:
    """Dynamics on Δ alone would look fine and mean nothing."""
    from ase.calculators.lj import LennardJones
    from ase.calculators.mixing import SumCalculator

    model = potential()
    model.metadata["target"] = {"kind": "total"}
    Calculator(model)
    assert not recwarn.list
    model.metadata["target"] = {"kind": "delta"}
    with pytest.warns(UserWarning, match="difference of two levels .*baseline"):
        difference = Calculator(model)
    lower, atoms = LennardJones(), molecule()
    atoms.calc = SumCalculator([lower, difference])
    total = atoms.get_forces()
    parts = expected(model, atoms).forces.numpy() + lower.get_forces(atoms)  # type: ignore[union-attr]
    np.testing.assert_allclose(total, parts, atol=1e-12)


def test_the_lower_level_is_added_to_a_model_of_differences(
    recwarn: pytest.WarningsRecorder,
) -> None:
    from ase.calculators.lj import LennardJones

    model = potential()
    model.metadata["target"] = {"kind": "delta"}
    atoms, lower = molecule(), LennardJones()
    atoms.calc = Calculator(model, baseline=LennardJones())
    assert not recwarn.list
    difference = expected(model, atoms)
    total = float(difference.energy[0]) + lower.get_potential_energy(atoms)
    assert atoms.get_potential_energy() == pytest.approx(total, abs=1e-12)
    assert atoms.calc.results["delta"] == pytest.approx(float(difference.energy[0]), abs=1e-12)
    forces = difference.forces.numpy() + lower.get_forces(atoms)  # type: ignore[union-attr]
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-12)
    atoms.positions[0, 0] += 0.1  # the baseline follows
    step, before = 1e-5, atoms.get_forces()[0, 0]
    energies = []
    for sign in (1, -2):
        atoms.positions[0, 0] += sign * step
        energies.append(atoms.get_potential_energy())
    assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(before, rel=1e-5)
    model.metadata["target"] = {"kind": "total"}
    with pytest.raises(ValueError, match="baseline is for a model of a difference"):
        Calculator(model, baseline=lower)
