"""What is wrong with a data file: NaN, overlapping atoms, missing labels, duplicate frames.

Works on the raw content of the file, before anything refuses it, and reports every frame.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Frame", "Problem", "check_file", "check_frames", "raw_frames"]

Array = npt.NDArray[Any]

#: Frames named in one line of a report.
_LISTED = 12


@dataclass(frozen=True)
class Frame:
    """One frame as it stands in the file, without any check.

    Attributes:
        numbers: [N] atomic numbers.
        positions: [N, 3] Å.
        cell: [3, 3] Å, or ``None``.
        pbc: which cell vectors are periodic.
        labels: arrays by name (energies, forces, gradients); ``None`` for one that is missing.
    """

    numbers: Array
    positions: Array
    cell: Array | None
    pbc: tuple[bool, bool, bool]
    labels: dict[str, Array | None]


@dataclass(frozen=True)
class Problem:
    """One kind of problem and the frames (counted from 0) that have it."""

    kind: str
    text: str
    frames: tuple[int, ...]

    def __str__(self) -> str:
        shown = ", ".join(str(frame) for frame in self.frames[:_LISTED])
        more = f" and {len(self.frames) - _LISTED} more" if len(self.frames) > _LISTED else ""
        word = "frame" if len(self.frames) == 1 else "frames"
        return f"{self.text}: {word} {shown}{more}"


def check_file(
    path: str | Path,
    *,
    labels: tuple[str, ...] | None = None,
    length_unit: str = "Å",
    closest: float = 0.5,
) -> tuple[int, list[Problem]]:
    """Check a data file; return the number of frames and what is wrong.

    Args:
        path: npz (numbers, coordinates, labels), extxyz or any file that ASE reads.
        labels: names of labels that every frame must have; ``None``: those that any frame has.
        length_unit: of the coordinates in the file.
        closest: Å, atoms nearer than this overlap.

    Raises:
        ValueError: if the file cannot be read as structures at all.
        FileNotFoundError: if it does not exist.
    """
    return check_frames(
        raw_frames(Path(path), length_unit=length_unit), labels=labels, closest=closest
    )


def check_frames(
    frames: Iterable[Frame], *, labels: tuple[str, ...] | None = None, closest: float = 0.5
) -> tuple[int, list[Problem]]:
    """Check frames one after the other; see `check_file`."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    seen: dict[bytes, int] = {}
    twins: list[tuple[int, int]] = []
    present: dict[str, list[int]] = {name: [] for name in labels or ()}
    count = 0
    for index, frame in enumerate(frames):
        count += 1
        for kind, text in _frame_problems(frame, closest):
            found[kind, text].append(index)
        for name, value in frame.labels.items():
            if value is None:
                continue
            if labels is None or name in present:
                present.setdefault(name, []).append(index)
            if not np.isfinite(np.asarray(value, dtype=float)).all():
                found["nan", f"NaN or Inf in {name}"].append(index)
        digest = _digest(frame)
        if digest in seen:
            twins.append((index, seen[digest]))
        else:
            seen[digest] = index
    problems = [Problem(kind, text, tuple(where)) for (kind, text), where in found.items()]
    for name, where in present.items():
        missing = sorted(set(range(count)) - set(where))
        if missing:
            problems.append(Problem("missing", f"no {name}", tuple(missing)))
    if labels is None and not present and count:
        problems.append(Problem("missing", "no labels (energy, forces)", tuple(range(count))))
    if twins:
        of = ", ".join(f"{a} = {b}" for a, b in twins[:_LISTED])
        text = f"the same atoms at the same positions as an earlier frame ({of})"
        problems.append(Problem("duplicate", text, tuple(a for a, _ in twins)))
    if count == 0:
        problems.append(Problem("empty", "the file holds no frames", ()))
    return count, problems


def _frame_problems(frame: Frame, closest: float) -> Iterator[tuple[str, str]]:
    if len(frame.numbers) == 0:
        yield "empty", "no atoms"
        return
    if frame.positions.shape != (len(frame.numbers), 3):
        yield "shape", f"positions do not have the shape [{len(frame.numbers)}, 3]"
        return
    if not np.isfinite(frame.positions).all():
        yield "nan", "NaN or Inf in positions"
        return
    if (frame.numbers < 1).any() or (frame.numbers > 118).any():
        yield "element", "atomic numbers outside 1 to 118"
    if any(frame.pbc) and (frame.cell is None or abs(np.linalg.det(frame.cell)) < 1e-9):
        yield "cell", "periodic, but the cell has no volume"
        return
    distance, i, j = _closest_pair(frame, closest)
    if distance < closest:
        yield "overlap", f"atoms closer than {closest:g} Å (such as {i} and {j}, {distance:.3f} Å)"


def _closest_pair(frame: Frame, cutoff: float) -> tuple[float, int, int]:
    """Return the shortest distance below ``cutoff`` and its atoms (infinity: none)."""
    if len(frame.numbers) < 2 and not any(frame.pbc):
        return np.inf, 0, 0
    if not any(frame.pbc) and len(frame.numbers) <= 400:
        d = np.linalg.norm(frame.positions[:, None] - frame.positions[None], axis=-1)
        np.fill_diagonal(d, np.inf)
        i, j = np.unravel_index(np.argmin(d), d.shape)
        return float(d[i, j]), int(min(i, j)), int(max(i, j))
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    i, j, d = neighbor_list("ijd", atoms, cutoff)
    if not len(d):
        return np.inf, 0, 0
    k = int(np.argmin(d))
    return float(d[k]), int(min(i[k], j[k])), int(max(i[k], j[k]))


def _digest(frame: Frame) -> bytes:
    """Hash elements, cell and positions; differences far below 1e-5 Å mostly go unseen."""
    cell = np.zeros((3, 3)) if frame.cell is None else frame.cell
    parts = [
        np.asarray(frame.numbers, dtype=np.int64),
        # + 0.0 turns -0.0 into 0.0, which has another bit pattern.
        np.round(np.asarray(frame.positions, dtype=float), 5) + 0.0,
        np.round(np.asarray(cell, dtype=float), 5) + 0.0,
    ]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()


def raw_frames(path: Path, *, length_unit: str = "Å") -> Iterator[Frame]:
    """Read a file frame by frame without judging it.

    Raises:
        ValueError: if it is no npz with numbers and coordinates, and nothing that ASE reads.
        FileNotFoundError: if it does not exist.
    """
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    if path.suffix == ".npz":
        return _npz_frames(path, length_unit)
    return _ase_frames(path, length_unit)


def _npz_frames(path: Path, length_unit: str) -> Iterator[Frame]:
    from pymlp import units

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a readable npz file ({error})") from None
    missing = [name for name in ("numbers", "coordinates") if name not in arrays]
    if missing:
        raise ValueError(
            f"{path}: the npz layout needs the arrays numbers and coordinates; "
            f"missing {', '.join(missing)}, found {', '.join(sorted(arrays))}"
        )
    numbers = np.asarray(arrays.pop("numbers"))
    positions = np.asarray(arrays.pop("coordinates"), dtype=float)
    if positions.ndim != 3:
        raise ValueError(
            f"{path}: coordinates must have the shape [B, N, 3], got {list(positions.shape)}"
        )
    positions = positions * units.factor(length_unit, "length")
    cells = arrays.pop("cell", None)
    pbc = arrays.pop("pbc", None)
    labels = {
        name: values
        for name, values in arrays.items()
        if name.startswith(("energy", "forces", "gradient"))
    }
    for name, values in labels.items():
        if len(values) != len(positions):
            raise ValueError(
                f"{path}: {name} has {len(values)} rows for {len(positions)} structures"
            )
    for index, own in enumerate(positions):
        cell = None if cells is None else np.asarray(cells if cells.ndim == 2 else cells[index])
        flags = np.zeros(3, dtype=bool) if pbc is None else np.atleast_1d(pbc)
        flags = np.broadcast_to(flags[index] if flags.ndim == 2 else flags, 3)
        yield Frame(
            numbers=numbers if numbers.ndim == 1 else numbers[index],
            positions=own,
            cell=cell,
            pbc=(bool(flags[0]), bool(flags[1]), bool(flags[2])),
            labels={name: values[index] for name, values in labels.items()},
        )


def _ase_frames(path: Path, length_unit: str) -> Iterator[Frame]:
    import ase.io

    from pymlp import units

    scale = units.factor(length_unit, "length")
    try:
        frames = ase.io.read(path, index=":")
    except Exception as error:
        # ASE's readers fail with whatever their parsing runs into.
        raise ValueError(f"{path}: ASE cannot read it ({type(error).__name__}: {error})") from None
    for atoms in frames if isinstance(frames, list) else [frames]:
        labels: dict[str, Array | None] = {}
        if atoms.calc is not None:
            labels |= {
                name: np.asarray(value)
                for name, value in atoms.calc.results.items()
                if name in ("energy", "forces") and value is not None
            }
        for source in (atoms.info, atoms.arrays):
            for name, value in source.items():
                known = any(word in name.lower() for word in ("energy", "force", "grad"))
                if known and np.asarray(value).dtype.kind in "fi":
                    labels[name] = np.asarray(value)
        cell = np.asarray(atoms.cell.array) * scale
        pbc = tuple(bool(flag) for flag in atoms.pbc)
        yield Frame(
            numbers=np.asarray(atoms.numbers),
            positions=np.asarray(atoms.positions) * scale,
            cell=cell if cell.any() else None,
            pbc=pbc,  # type: ignore[arg-type]
            labels=labels,
        )
