"""Makes the Claisen data set: allyl vinyl ether -> 4-pentenal, sampled with GFN2-xTB.

Run as ``python -m pymlp.data.claisen -o claisen_gfn2.npz``; needs the ``data`` extra (tblite).
Nothing is read but this file:

1. the chair transition state, from two stacked planar fragments (:func:`chair_guess`);
2. the intrinsic reaction path down both sides, relaxed to the reactant and the product;
3. Langevin dynamics in umbrella windows along ξ = d(C–O) − d(C–C), all in parallel;
4. energies and gradients of the sampled structures again, tightly converged, at the very float32
   positions that are stored; then shuffled and written.

The path and every window are files of their own, so that a killed run continues.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.mixing import SumCalculator
from ase.md.langevin import Langevin
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS

from pymlp.data.archives import claim_folder, read_npz, write_npz
from pymlp.data.gfn2 import GFN2, HarmonicRestraint, gfn2_calculator, reaction_coordinate
from pymlp.data.saddle import find_saddle, frequencies, reaction_path
from pymlp.units import HARTREE, KCAL_MOL

__all__ = [
    "BROKEN",
    "FORMED",
    "NUMBERS",
    "Sampling",
    "bonds",
    "chair_guess",
    "guess_saddle",
    "main",
    "xi",
]

#: C1=C2–O3–C4–C5=C6, then the hydrogens of C1, C2, C4, C5, C6.
NUMBERS = np.array([6, 6, 8, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1])
#: The C–O bond that breaks and the C–C bond that forms, as atom indices.
BROKEN, FORMED = (3, 2), (0, 5)

_HYDROGEN_BONDS = {(0, 6), (0, 7), (1, 8), (3, 9), (3, 10), (4, 11), (5, 12), (5, 13)}
_FRAMEWORK_BONDS = {(0, 1), (1, 2), (3, 4), (4, 5)}
REACTANT_BONDS = frozenset(_HYDROGEN_BONDS | _FRAMEWORK_BONDS | {(2, 3)})
PRODUCT_BONDS = frozenset(_HYDROGEN_BONDS | _FRAMEWORK_BONDS | {(0, 5)})


@dataclass(frozen=True)
class Sampling:
    """The umbrella sampling: 50 windows of 6 × 10³ steps give 2000 structures."""

    windows: int = 50
    frames: int = 40  #: structures kept per window
    interval: int = 125  #: steps between kept structures
    equilibration: int = 1000  #: steps before the first
    margin: float = 0.1  #: Å of ξ beyond the two minima
    stiffness: float = 8.0  #: of the bias ½ k (ξ − ξ_window)², eV/Å²
    temperature: float = 300.0  #: K
    timestep: float = 0.5  #: fs
    friction: float = 0.02  #: 1/fs
    seed: int = 20


def xi(positions: np.ndarray) -> np.ndarray:
    """Reaction coordinate d(C–O) − d(C–C) in Å, positions [..., 14, 3] -> [...]."""
    return reaction_coordinate(positions, BROKEN, FORMED)


def bonds(positions: np.ndarray) -> frozenset[tuple[int, int]]:
    """Pairs (i < j) closer than 1.2 times the sum of their covalent radii."""
    atoms = Atoms(numbers=NUMBERS, positions=positions)
    first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    return frozenset((int(i), int(j)) for i, j in zip(first, second, strict=True) if i < j)


def chair_guess() -> np.ndarray:
    """Positions [14, 3] (Å) near the chair transition state.

    Two planar three-atom fragments, C1–C2–O3 and C6–C5–C4, lie on each other 2.1 Å apart with
    their middle atoms to opposite sides; to the same side it would be the boat. All hydrogens are
    in the planes of their fragments, as for sp² carbon.
    """
    bond, hydrogen, gap = 1.39, 1.08, 2.1
    half, rise = bond * np.sin(np.radians(60)), bond * np.cos(np.radians(60))

    def fragment(side: int, height: float) -> dict[str, np.ndarray]:
        points = {
            "left": (0.0, -half),
            "middle": (rise, 0.0),
            "right": (0.0, half),
            "middle_h": (rise + hydrogen, 0.0),
        }
        cos, sin = hydrogen * np.cos(np.radians(60)), hydrogen * np.sin(np.radians(60))
        for end, sign in (("left", -1), ("right", 1)):
            # One hydrogen continues the zigzag, the other points back below the fragment.
            points[f"{end}_out"] = (cos, sign * (half + sin))
            points[f"{end}_in"] = (-hydrogen, sign * half)
        return {name: np.array([side * x, y, height]) for name, (x, y) in points.items()}

    vinyl, allyl = fragment(1, 0.0), fragment(-1, gap)
    order = [
        *(vinyl[name] for name in ("left", "middle", "right")),  # C1 C2 O3
        *(allyl[name] for name in ("right", "middle", "left")),  # C4 C5 C6
        *(vinyl[name] for name in ("left_out", "left_in", "middle_h")),
        *(allyl[name] for name in ("right_out", "right_in", "middle_h", "left_out", "left_in")),
    ]
    return np.array(order)


def _relaxed(positions: np.ndarray, restraints: Sequence[HarmonicRestraint] = ()) -> np.ndarray:
    """Positions after a BFGS minimisation on GFN2 plus restraints, to 5e-4 eV/Å."""
    atoms = Atoms(numbers=NUMBERS, positions=positions)
    atoms.calc = SumCalculator([gfn2_calculator(0.01), *restraints])
    if not BFGS(atoms, logfile=None).run(fmax=5e-4, steps=2000):
        raise RuntimeError("a geometry optimisation did not converge within 2000 steps")
    return atoms.positions.copy()


def guess_saddle(broken: float, formed: float) -> np.ndarray:
    """Positions [14, 3] (Å) of a chair relaxed on GFN2 with these lengths (Å) of the two bonds."""
    restraints = [
        HarmonicRestraint([(*BROKEN, 1.0)], target=broken, stiffness=100.0),
        HarmonicRestraint([(*FORMED, 1.0)], target=formed, stiffness=100.0),
    ]
    return _relaxed(chair_guess(), restraints)


def find_path() -> dict[str, np.ndarray]:
    """Reactant, transition state, product and the intrinsic reaction path between them.

    Returns:
        ``numbers`` [14]; ``coordinates`` [n,14,3] Å, ``energy`` [n] Hartree, ``gradient``
        [n,14,3] Hartree/Bohr, ``xi`` [n] Å and ``arc_length`` [n] √amu·Å, from the relaxed
        reactant to the relaxed product; ``ts_index``; ``ts_frequencies`` [36] cm⁻¹.

    Raises:
        RuntimeError: the saddle point has not exactly one imaginary frequency, or does not
            connect allyl vinyl ether with 4-pentenal.
    """
    surface = GFN2(NUMBERS)
    masses = surface.atoms.get_masses()
    saddle = find_saddle(surface, guess_saddle(1.95, 2.15))
    waves = frequencies(surface.hessian(saddle), saddle, masses)
    if np.sum(waves < 0) != 1:
        raise RuntimeError(f"expected one imaginary frequency, got {waves[:3]} cm-1")

    sides = [reaction_path(surface, saddle, masses, direction) for direction in (1, -1)]
    # The sign of a mode is arbitrary: the side of larger xi is the product's.
    sides.sort(key=lambda side: float(xi(side[-1].positions)))
    back, ahead = ([(p.positions, abs(p.arc_length)) for p in side] for side in sides)
    for side, wanted in ((back, REACTANT_BONDS), (ahead, PRODUCT_BONDS)):
        last, length = side[-1]
        minimum = _aligned(_relaxed(last), last)
        shift = np.sqrt((masses[:, None] * (minimum - last) ** 2).sum())
        side.append((minimum, length + float(shift)))
        if bonds(minimum) != wanted:
            raise RuntimeError(f"a side of the path ends with the bonds {sorted(bonds(minimum))}")
    points = [
        *((positions, -length) for positions, length in reversed(back)),
        (saddle, 0.0),
        *ahead,
    ]
    coordinates = np.array([_aligned(positions, saddle) for positions, _ in points])
    return {
        "numbers": NUMBERS,
        **surface.labels(coordinates),
        "xi": xi(coordinates),
        "arc_length": np.array([length for _, length in points]),
        "ts_index": np.array(len(back)),
        "ts_frequencies": waves,
    }


def _aligned(positions: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``positions`` turned and moved onto ``target`` by least squares (Kabsch)."""
    left, right = positions - positions.mean(0), target - target.mean(0)
    u, _, vt = np.linalg.svd(left.T @ right)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))  # a rotation, never a mirror image
    return left @ u @ vt + target.mean(0)


def sample_window(start: np.ndarray, target: float, window: int, sampling: Sampling) -> np.ndarray:
    """Structures [frames, 14, 3] (Å) of one window, each with its centre of mass at the origin.

    Langevin dynamics on GFN2 plus the bias of the window; the random numbers depend on the seed
    and the window alone, so windows can run in any order and in any process.
    """
    atoms = Atoms(numbers=NUMBERS, positions=start)
    bias = HarmonicRestraint([(*BROKEN, 1.0), (*FORMED, -1.0)], target, sampling.stiffness)
    atoms.calc = SumCalculator([gfn2_calculator(), bias])
    rng = np.random.default_rng([sampling.seed, window])
    thermal = np.sqrt(atoms.get_masses() * units.kB * sampling.temperature)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * thermal[:, None])
    dynamics = Langevin(
        atoms,
        timestep=sampling.timestep * units.fs,
        temperature_K=sampling.temperature,
        friction=sampling.friction / units.fs,
        fixcm=False,  # holding it still would not sample the canonical ensemble
        rng=rng,
    )
    dynamics.run(sampling.equilibration)
    frames = []
    for _ in range(sampling.frames):
        dynamics.run(sampling.interval)
        frames.append(atoms.positions - atoms.get_center_of_mass())
    return np.array(frames)


def _write_path(path: Path) -> None:
    """Find the reaction path and write it; what a worker process calls."""
    write_npz(path, **find_path())


def _write_window(job: tuple[np.ndarray, float, int, Sampling, Path]) -> int:
    """Sample and label one window into its file; what a worker process calls."""
    start, target, window, sampling, path = job
    frames = sample_window(start, target, window, sampling)
    write_npz(path, **GFN2(NUMBERS).labels(frames), target=target)
    return window


def make(output: Path, work: Path, sampling: Sampling, processes: int) -> None:
    """Run all steps and write ``output``, with the reaction path beside it (``*_irc_gfn2.npz``).

    Raises:
        ValueError: the folder ``work`` holds windows of other settings.
    """
    claim_folder(work, asdict(sampling))
    # Fresh interpreters, not forks: tblite reads its number of threads when it is first loaded.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        path_file = output.with_name(output.stem.removesuffix("_gfn2") + "_irc_gfn2.npz")
        if not path_file.exists():
            print("searching the transition state and the reaction path ...", flush=True)
            pool.apply(_write_path, (path_file,))
        path = read_npz(path_file)
        _report(path)

        jobs, files = [], []
        ends = path["xi"][0] - sampling.margin, path["xi"][-1] + sampling.margin
        for window, target in enumerate(np.linspace(*ends, sampling.windows)):
            start = path["coordinates"][np.abs(path["xi"] - target).argmin()].astype(float)
            files.append(work / f"window_{window:03d}.npz")
            if not files[-1].exists():
                jobs.append((start, float(target), window, sampling, files[-1]))
        print(f"sampling {len(jobs)} of {sampling.windows} windows ...", flush=True)
        for done, window in enumerate(pool.imap_unordered(_write_window, jobs), start=1):
            print(f"  window {window} ({done}/{len(jobs)})", flush=True)

    parts = [read_npz(file) for file in files]
    names = ("coordinates", "energy", "gradient")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in names}
    arrays["window"] = np.repeat(np.arange(sampling.windows), sampling.frames)
    arrays["frame"] = np.tile(np.arange(sampling.frames), sampling.windows)
    order = np.random.default_rng(sampling.seed).permutation(len(arrays["energy"]))
    write_npz(output, numbers=NUMBERS, **{name: array[order] for name, array in arrays.items()})
    print(f"wrote {len(order)} structures to {output}")


def _report(path: dict[str, np.ndarray]) -> None:
    """Print barrier, reaction energy and the transition state's numbers."""
    energies = (path["energy"] - path["energy"][0]) * HARTREE / KCAL_MOL
    saddle = int(path["ts_index"])
    print(f"barrier          {energies[saddle]:8.2f} kcal/mol")
    print(f"reaction energy  {energies[-1]:8.2f} kcal/mol")
    for name, index in (("reactant", 0), ("TS", saddle), ("product", -1)):
        print(f"xi of {name:10} {path['xi'][index]:8.3f} Å")
    waves = path["ts_frequencies"]
    print(f"TS wavenumbers   {waves[0]:8.1f}, {waves[1]:.1f}, ... cm⁻¹")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pymlp.data.claisen", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-o", "--output", type=Path, required=True, help="npz file to write")
    parser.add_argument("--work", type=Path, help="folder of the windows (default: OUTPUT.work)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="worker processes")
    for name, value in asdict(Sampling()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default {value}")
    options = parser.parse_args(arguments)
    sampling = Sampling(**{name: getattr(options, name) for name in asdict(Sampling())})
    # One thread per worker: the matrices are too small for more.
    os.environ["OMP_NUM_THREADS"] = "1"
    work = options.work or options.output.with_suffix(".work")
    try:
        make(options.output, work, sampling, max(1, options.processes))
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
