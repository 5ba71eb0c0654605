"""Labels structures with density-functional energies and gradients (PySCF).

Run as ``python -m pymlp.data.label IN.npz OUT.npz --method b3lyp --basis '6-31g*'``; needs the
``data`` extra (pyscf). Input and output are npz files in the layout with ``numbers`` [N],
``coordinates`` [n,N,3] (Å), ``energy`` [n] (Hartree) and ``gradient`` [n,N,3] (Hartree/Bohr).
Labels that the input has become ``energy_sqm`` and ``gradient_sqm`` of the output, which is what
Δ-learning wants: target = DFT − semi-empirical.

Every finished structure is a file of its own in the work folder, so that a killed run continues
and several runs can share the work (give each its part with ``--offset`` and ``--limit``). What
OUT.npz already holds counts as done. The order covers the range of the input evenly, whatever
number of structures the time allows.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pymlp.data.archives import claim_folder, read_npz, settings_text, write_npz

__all__ = ["Level", "coverage_order", "label", "main", "single_point"]

#: Arrays of the input that are one entry per structure and are passed on to the output.
_PASSED_ON = ("window", "frame", "xi", "arc_length")


@dataclass(frozen=True)
class Level:
    """Level of theory (closed shell, density fitting) and its numerical settings.

    The default grid is pruned (NWChem's way) from 30 × 110 points on hydrogen and 40 × 302 on
    all other elements. For the Claisen transition state its B3LYP/6-31G* gradient is within 4e-5
    Hartree/Bohr of that on PySCF's grid level 5 (9e-6 root mean square), at a fifth of the cost.
    """

    method: str = "b3lyp"  #: functional, in PySCF's names; "hf" for Hartree-Fock
    basis: str = "6-31g*"
    charge: int = 0
    hydrogen_grid: tuple[int, int] = (30, 110)  #: radial, angular points
    heavy_grid: tuple[int, int] = (40, 302)
    tolerance: float = 1e-7  #: SCF convergence of the energy, Hartree


def single_point(
    numbers: np.ndarray, positions: np.ndarray, level: Level, threads: int = 1
) -> tuple[float, np.ndarray]:
    """Energy (Hartree) and gradient [N, 3] (Hartree/Bohr) of one molecule.

    The orbitals are first converged on a coarse grid, which takes most of the iterations.

    Args:
        numbers: atomic numbers [N].
        positions: [N, 3] Å.
        level: functional, basis set, charge, grids and threshold.
        threads: threads of PySCF.

    Raises:
        ImportError: PySCF is not installed.
        ValueError: the number of electrons is odd.
        RuntimeError: the self-consistent field does not converge.
    """
    try:
        from pyscf import dft, gto, lib
    except ImportError as error:
        raise ImportError("labelling needs the package pyscf: pip install 'pymlp[data]'") from error
    if (int(np.sum(numbers)) - level.charge) % 2:
        raise ValueError(
            f"charge: expected an even number of electrons, got {np.sum(numbers) - level.charge}"
        )
    lib.num_threads(threads)
    atoms = [(int(z), tuple(map(float, r))) for z, r in zip(numbers, positions, strict=True)]
    molecule = gto.M(atom=atoms, basis=level.basis, charge=level.charge, unit="Ang", verbose=0)
    field = dft.RKS(molecule, xc=level.method).density_fit()
    field.conv_check = False  # one more iteration after convergence, for nothing
    field.grids.level = 0
    field.conv_tol = 1e-6
    field.kernel()
    guess = field.make_rdm1()

    field.grids.reset()
    field.grids.atom_grid = {
        molecule.atom_symbol(i): level.hydrogen_grid if z == 1 else level.heavy_grid
        for i, (z, _) in enumerate(atoms)
    }
    field.conv_tol = level.tolerance
    energy = field.kernel(dm0=guess)
    if not field.converged:
        field = field.newton()
        energy = field.kernel(dm0=guess)
    if not field.converged:
        raise RuntimeError("the self-consistent field did not converge")
    return float(energy), np.asarray(field.nuc_grad_method().kernel())


def coverage_order(count: int, windows: np.ndarray | None = None) -> np.ndarray:
    """Order of ``count`` structures of which every prefix covers the whole range.

    With ``windows`` [count], one structure of every window comes per round, the windows of a
    round in the order of bit-reversed numbers (0, 1/2, 1/4, 3/4, 1/8, ... of the range), the last
    one second. Without, every structure is its own window: the file is taken to be in order.

    >>> coverage_order(5).tolist()
    [0, 4, 2, 1, 3]

    Raises:
        ValueError: ``windows`` has another length.
    """
    if windows is None:
        windows = np.arange(count)
    if len(windows) != count:
        raise ValueError(f"windows: expected {count} entries, got {len(windows)}")
    names, place = np.unique(windows, return_inverse=True)
    bits = max(1, (len(names) - 1).bit_length())
    turn = np.array([int(f"{i:0{bits}b}"[::-1], 2) for i in range(len(names))], dtype=float)
    turn[-1] = min(turn[-1], 0.5)  # between the first and all others
    round_number = np.empty(count, dtype=int)
    for window in range(len(names)):
        members = np.flatnonzero(place == window)
        round_number[members] = np.arange(len(members))
    return np.lexsort((turn[place], round_number))


def label(
    source: str | Path,
    output: str | Path,
    level: Level | None = None,
    *,
    limit: int | None = None,
    offset: int = 0,
    threads: int = 1,
    work: str | Path | None = None,
    pack_only: bool = False,
) -> int:
    """Label the structures of ``source`` and write those that are done to ``output``.

    Interrupting it (Ctrl-C) also writes what is done; calling it again continues.

    Args:
        source: npz file to read.
        output: npz file to write: the labelled structures in the order of ``source``, ``index``
            pointing into it, and ``settings`` (JSON) saying how they were made.
        level: level of theory; the default is B3LYP/6-31G*.
        limit: number of structures to do, in the order of :func:`coverage_order`; None for all.
        offset: number of structures of that order to leave out.
        threads: threads of PySCF.
        work: folder of the finished structures; default ``OUTPUT.work``.
        pack_only: compute nothing, only write ``output`` from the work folder.

    Returns:
        the number of structures in ``output``.

    Raises:
        ValueError: arrays are missing or do not fit, or the work folder or ``output`` belong to
            another input or level of theory.
    """
    source, output, level = Path(source), Path(output), level or Level()
    data = _checked(source)
    numbers, coordinates = data["numbers"], data["coordinates"]
    settings = {**asdict(level), "input": _fingerprint(numbers, coordinates)}
    folder = Path(work) if work is not None else output.with_suffix(".work")
    claim_folder(folder, settings)
    note = settings_text(settings)
    _restore(output, folder, note)
    order = coverage_order(len(coordinates), data.get("window"))[offset:][:limit]
    if not pack_only:
        try:
            _label_all(numbers, coordinates, order, level, threads, folder)
        except KeyboardInterrupt:
            print("interrupted; writing what is done", flush=True)
    return _pack(data, folder, output, note)


def _label_all(
    numbers: np.ndarray,
    coordinates: np.ndarray,
    order: np.ndarray,
    level: Level,
    threads: int,
    folder: Path,
) -> None:
    """Compute the structures of ``order`` that have no file yet, one file each."""
    for done, index in enumerate(map(int, order), start=1):
        path = folder / f"{index:06d}.npz"
        if path.exists():
            continue
        started, cpu = time.perf_counter(), time.process_time()
        try:
            positions = coordinates[index].astype(float)
            energy, gradient = single_point(numbers, positions, level, threads)
        except RuntimeError as error:
            print(f"structure {index} left out: {error}", flush=True)
            continue
        cpu = time.process_time() - cpu
        write_npz(path, energy=energy, gradient=gradient, cpu_seconds=cpu)
        print(
            f"{done}/{len(order)}  structure {index}  {energy:.6f} Hartree  "
            f"{time.perf_counter() - started:.1f} s ({cpu:.1f} s CPU)",
            flush=True,
        )


def _pack(data: dict[str, np.ndarray], folder: Path, output: Path, note: str) -> int:
    """Write all finished structures of ``folder`` to ``output``; returns their number."""
    files = sorted(folder.glob("[0-9]*.npz"))
    if not files:
        raise ValueError(f"work: expected finished structures in {folder}, got none")
    index = np.array([int(file.stem) for file in files])
    labels = [read_npz(file) for file in files]
    seconds = np.array([float(entry["cpu_seconds"]) for entry in labels])
    arrays: dict[str, Any] = {
        "numbers": data["numbers"],
        "coordinates": data["coordinates"][index],
        "energy": np.array([float(entry["energy"]) for entry in labels]),
        "gradient": np.array([entry["gradient"] for entry in labels], dtype=np.float32),
        "index": index,
        "cpu_seconds": seconds.astype(np.float32),
        "settings": np.array(note),
    }
    if "energy" in data and "gradient" in data:
        arrays["energy_sqm"] = data["energy"][index]
        arrays["gradient_sqm"] = data["gradient"][index].astype(np.float32)
    arrays.update({name: data[name][index] for name in _PASSED_ON if name in data})
    write_npz(output, **arrays)
    print(
        f"wrote {len(index)} of {len(data['coordinates'])} structures to {output}, "
        f"{seconds.mean():.1f} s CPU each"
    )
    return len(index)


def _restore(output: Path, folder: Path, note: str) -> None:
    """Count what ``output`` holds as done, so that a shipped file can be extended."""
    if not output.exists():
        return
    done = read_npz(output)
    if str(done.get("settings")) != note:
        raise ValueError(
            f"output: expected a file of this input and level of theory, but {output} is of "
            f"others; name another file, or delete it"
        )
    for row, index in enumerate(done["index"]):
        path = folder / f"{index:06d}.npz"
        if not path.exists():
            names = ("energy", "gradient", "cpu_seconds")
            write_npz(path, **{name: done[name][row] for name in names})


def _checked(source: Path) -> dict[str, np.ndarray]:
    """The arrays of the input, after a look at names and shapes."""
    data = read_npz(source)
    missing = sorted({"numbers", "coordinates"} - data.keys())
    if missing:
        raise ValueError(f"source: expected arrays numbers and coordinates, {missing} not there")
    wanted = (data["numbers"].size, 3)
    shape = data["coordinates"].shape
    if len(shape) != 3 or shape[1:] != wanted or shape[0] == 0:
        raise ValueError(f"source: expected coordinates [n, {wanted[0]}, 3], got {list(shape)}")
    if not np.isfinite(data["coordinates"]).all():
        raise ValueError("source: expected finite coordinates, got NaN or Inf")
    return data


def _fingerprint(numbers: np.ndarray, coordinates: np.ndarray) -> str:
    """What tells one input from another: a hash of the structures."""
    digest = hashlib.sha256(np.asarray(numbers, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(coordinates, dtype=np.float64).tobytes())
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    default = Level()
    parser = argparse.ArgumentParser(prog="python -m pymlp.data.label", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, metavar="IN.npz")
    parser.add_argument("output", type=Path, metavar="OUT.npz")
    parser.add_argument("--method", default=default.method, help="functional (b3lyp)")
    parser.add_argument("--basis", default=default.basis, help="basis set (6-31g*)")
    parser.add_argument("--charge", type=int, default=default.charge, help="total charge (0)")
    parser.add_argument("--limit", type=int, help="do so many structures (default: all)")
    parser.add_argument("--offset", type=int, default=0, help="leave out the first so many")
    parser.add_argument("--work", type=Path, help="folder of finished structures (OUT.work)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PySCF (1)")
    parser.add_argument("--pack", action="store_true", help="only write OUT.npz from the folder")
    options = parser.parse_args(arguments)
    level = Level(method=options.method, basis=options.basis, charge=options.charge)
    try:
        label(
            options.source,
            options.output,
            level,
            limit=options.limit,
            offset=options.offset,
            threads=options.threads,
            work=options.work,
            pack_only=options.pack,
        )
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
