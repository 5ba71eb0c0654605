"""Energy conservation over a long run: 100 ps of NVE at 300 K with a trained potential.

``python -m benchmarks.nve MODEL --out benchmarks/results/NAME-nve.json``; MODEL is a folder that
``pymlp train`` or ``make demo`` wrote (runs/demo/model) for total energies of the shipped Claisen
set. The molecule starts at the potential's own minimum nearest to an allyl vinyl ether of the set,
with velocities that leave 300 K after equipartition; velocity Verlet by ASE, float64.

Reported: the drift (slope of a straight line through the total energy, times the time, per atom),
the root mean square around that line, and the time per step, ASE included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation, force_temperature
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from pymlp import Calculator, read
from pymlp.benchmarking import environment
from pymlp.data import claisen_path
from pymlp.data.claisen import xi

RECORD_EVERY = 20  # steps between two samples of the energy


def reactant() -> Atoms:
    """The structure of the shipped set with the shortest C-O and the longest C-C distance."""
    batch = read(claisen_path())
    positions = batch.positions.reshape(len(batch), -1, 3).numpy()
    row = int(np.argmin(xi(positions)))
    n_atoms = positions.shape[1]
    return Atoms(batch.numbers[:n_atoms].numpy(), positions[row])


def run(model: str, picoseconds: float, step_fs: float, temperature: float, seed: int) -> dict:
    """One trajectory; the figures that are reported, energies in meV, times as named."""
    atoms = reactant()
    atoms.calc = Calculator(model)
    if not BFGS(atoms, logfile=None).run(fmax=0.01, steps=500):
        raise RuntimeError("the starting structure did not relax; is the model a whole potential?")
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(seed).standard_normal((len(atoms), 3)))
    Stationary(atoms)
    ZeroRotation(atoms)
    force_temperature(atoms, 2 * temperature)  # half of it goes into the potential energy

    times, energies, temperatures = [], [], []
    dynamics = VelocityVerlet(atoms, timestep=step_fs * units.fs)

    def record() -> None:
        times.append(dynamics.get_time() / (1000 * units.fs))
        energies.append(1000 * atoms.get_total_energy() / len(atoms))
        temperatures.append(atoms.get_temperature())

    dynamics.attach(record, interval=RECORD_EVERY)
    steps = round(1000 * picoseconds / step_fs)
    begin, cpu = time.perf_counter(), time.process_time()
    dynamics.run(steps)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu

    if not np.isfinite(energies).all():
        raise RuntimeError("the trajectory left the range of the model: energies are not finite")
    slope, offset = np.polyfit(times, energies, 1)
    return {
        "picoseconds": picoseconds,
        "step_fs": step_fs,
        "mean_temperature_K": float(np.mean(temperatures)),
        "drift_meV_per_atom": float(slope * picoseconds),
        "rms_around_line_meV_per_atom": float(
            np.std(energies - (slope * np.array(times) + offset))
        ),
        "largest_deviation_meV_per_atom": float(np.abs(np.array(energies) - energies[0]).max()),
        "ms_per_step_wall": 1000 * wall / steps,
        "ms_per_step_cpu": 1000 * cpu / steps,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.nve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("--ps", type=float, default=100.0, help="length, ps (100)")
    parser.add_argument("--step", type=float, default=0.5, help="time step, fs (0.5)")
    parser.add_argument("--temperature", type=float, default=300.0, help="K (300)")
    parser.add_argument("--seed", type=int, default=0, help="of the velocities (0)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    row = run(options.model, options.ps, options.step, options.temperature, options.seed)
    for name, value in row.items():
        print(f"{name:32} {value:.4g}")
    if options.out:
        content = {"environment": environment(), "model": Path(options.model).name, **row}
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
