"""Reading structures with their labels from npz files and from whatever ASE reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pymlp import units
from pymlp.io.ase_files import ase_keys, read_ase
from pymlp.io.labels import Array, LabelKeys, Target, combined, notes
from pymlp.io.npz import MOLECULE, RAGGED, NpzFile
from pymlp.structures import Batch

__all__ = ["FileSummary", "inspect_file", "iread", "read"]

_ALL = 2**62

# What the layouts fix: the names of their labels and the units of these.
_MOLECULE_KEYS = LabelKeys(
    energy="energy",
    gradient="gradient",
    baseline_energy="energy_sqm",
    baseline_gradient="gradient_sqm",
    energy_unit="Hartree",
    force_unit="Hartree/Bohr",
)
_RAGGED_KEYS = LabelKeys(energy="energies", forces="forces", energy_unit="eV", force_unit="eV/Å")


@dataclass(frozen=True)
class FileSummary:
    """What a file holds, as far as can be told without being told its keys.

    Attributes:
        path: the file.
        layout: ``"one set of atoms"``, ``"pymlp batch"`` (npz) or ``"ASE"``.
        n_structures: number of structures; for ASE files of the part that was looked at.
        elements: symbols, by atomic number.
        names: arrays (npz) or keys (ASE) that the file holds, with their shapes.
        keys: labels and units that the layout fixes; ``None`` where nothing is fixed.
        target: the target that is read by default; ``None`` where no labels are known.
        notes: what reading would do, in sentences.
    """

    path: Path
    layout: str
    n_structures: int
    elements: tuple[str, ...]
    names: dict[str, str]
    keys: LabelKeys | None
    target: Target | None
    notes: list[str] = field(default_factory=list)


def read(
    path: str | Path,
    *,
    keys: LabelKeys | None = None,
    target: Target | None = None,
    labels: bool = True,
    start: int = 0,
    stop: int | None = None,
    **named: Any,
) -> Batch:
    """Read structures, and their energies and forces, from one file.

    ``read("a.extxyz", energy="REF_energy", energy_unit="eV")``, ``read("claisen.npz")``,
    ``read("POSCAR", labels=False)``.

    Args:
        path: an npz file of a known layout (see :mod:`pymlp.io.npz`), or a file that ASE reads.
        keys: names and units of the labels; needed unless the layout fixes them. Its fields can
            be given one by one as keywords instead.
        target: ``"total"``, ``"delta"`` (label minus baseline) or ``"sqm"`` (the baseline);
            by default the difference where a baseline is known, else the total.
        labels: ``False`` reads no labels and asks for no keys.
        start: first structure to read.
        stop: the structure before which to stop (negative: from the end); ``None``: all.
        **named: fields of :class:`LabelKeys`, in place of ``keys``.

    Returns:
        A float64 batch; ``info`` holds ``file``, ``layout``, ``target`` and ``notes``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for missing labels (with the names of those there), labels without units,
            mismatched lengths, truncated or damaged files; file and field are named.
    """
    if start < 0 or (stop is not None and stop < 0):
        n_structures = sum(len(b) for b in iread(path, 4096, labels=False))
        start, stop, _ = slice(start, stop).indices(n_structures)
    parts = list(
        iread(path, _ALL, keys=keys, target=target, labels=labels, start=start, stop=stop, **named)
    )
    if not parts:
        raise ValueError(f"{path} holds no structures in {start}:{'' if stop is None else stop}")
    return parts[0]


def iread(
    path: str | Path,
    batch_size: int,
    *,
    keys: LabelKeys | None = None,
    target: Target | None = None,
    labels: bool = True,
    start: int = 0,
    stop: int | None = None,
    **named: Any,
) -> Iterator[Batch]:
    """Read a file in batches of ``batch_size`` structures, holding one at a time in memory.

    Arguments, contents and errors are those of :func:`read`; ``start`` and ``stop`` must not be
    negative here.

    Raises:
        ValueError: also for a batch size below one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if start < 0 or (stop is not None and stop < 0):
        raise ValueError(f"start and stop must not be negative, got {start}, {stop}")
    if named:
        if keys is not None:
            raise TypeError("give either keys or their fields by name, not both")
        unknown = set(named) - set(LabelKeys.__dataclass_fields__)
        if unknown:
            raise TypeError(f"unexpected argument(s) {', '.join(sorted(unknown))}")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    stop = _ALL if stop is None else stop
    if path.suffix == ".npz":
        yield from _read_npz(path, batch_size, keys, named, target, labels, start, stop)
        return
    keys = keys if keys is not None else LabelKeys(**named)
    if labels and keys.energy is None:
        raise ValueError(
            f"{path}: energy key and unit must be given (energy=..., energy_unit=...): this "
            f"format does not say what its numbers mean. Keys in the file: {ase_keys(path)}. "
            "labels=False reads the positions alone"
        )
    chosen: Target | None = None
    if labels:
        chosen = target or ("delta" if keys.baseline_energy is not None else "total")
        keys = keys.for_target(chosen)
    for batch in read_ase(path, keys, chosen, batch_size, start, stop):
        batch.info.update(file=str(path), layout="ASE", target=chosen, notes=notes(keys, chosen))
        yield batch


def _npz_keys(
    file: NpzFile, keys: LabelKeys | None, named: dict[str, Any], labels: bool
) -> LabelKeys:
    """The keys to read by: those given, and what the layout fixes for its own names."""
    layout = file.layout()
    if layout is None:
        raise ValueError(
            f"{file.path} has no known layout: expected the arrays numbers and coordinates, "
            f"or structure_offsets, numbers and positions; it has: {', '.join(file.names)}"
        )
    fixed = _MOLECULE_KEYS if layout == MOLECULE else _RAGGED_KEYS
    own = fixed.names()
    if keys is not None:
        return keys
    if not labels:
        return LabelKeys(length_unit=named.get("length_unit", fixed.length_unit))
    given = {name: named[name] for name in named if "unit" not in name}
    if any(key is not None and key not in own.values() for key in given.values()):
        return LabelKeys(**named)  # names of the user's own: the layout does not fix their units
    if given:
        chosen = {**dict.fromkeys(own), **given}
    else:
        chosen = {name: key if key in file.names else None for name, key in own.items()}
        if chosen["energy"] is None:
            raise ValueError(
                f"{file.path} has no labels: no array {own['energy']!r}; it has: "
                f"{', '.join(file.names)}. labels=False reads the coordinates alone"
            )
    unit_names = {name: value for name, value in named.items() if "unit" in name}
    return replace(fixed, **chosen, **unit_names)


def _read_npz(
    path: Path,
    batch_size: int,
    keys: LabelKeys | None,
    named: dict[str, Any],
    target: Target | None,
    labels: bool,
    start: int,
    stop: int,
) -> Iterator[Batch]:
    with NpzFile(path) as file:
        keys = _npz_keys(file, keys, named, labels)
        chosen: Target | None = None
        if labels:
            if keys.energy is None:
                raise ValueError(f"{path}: energy key must be given, or labels=False")
            chosen = target or ("delta" if keys.baseline_energy is not None else "total")
            try:
                keys = keys.for_target(chosen)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        info = {"file": str(path), "layout": file.layout(), "target": chosen}
        make = _molecule_batches if file.layout() == MOLECULE else _ragged_batches
        for batch in make(file, keys, chosen, batch_size, start, stop):
            batch.info.update(info, notes=notes(keys, chosen))
            yield batch


def _chunks(start: int, stop: int, size: int) -> list[int]:
    """The numbers of rows to read one after the other: first those to skip, then the batches."""
    return [start] + [min(size, stop - k) for k in range(start, stop, size)]


def _wanted_labels(keys: LabelKeys, target: Target | None) -> dict[str, str]:
    if target is None:
        return {}
    names = keys.names()
    if target == "sqm":
        del names["energy"]
    return names


def _molecule_batches(
    file: NpzFile,
    keys: LabelKeys,
    target: Target | None,
    batch_size: int,
    start: int,
    stop: int,
) -> Iterator[Batch]:
    numbers = file.array("numbers")
    shape = file.shape("coordinates")
    if numbers.ndim != 1 or shape[1:] != (len(numbers), 3):
        raise ValueError(
            f"{file.path}: coordinates must have shape [B, {numbers.size}, 3] for numbers of shape "
            f"{list(numbers.shape)}, got {list(shape)}"
        )
    names = _wanted_labels(keys, target)
    for name, key in names.items():
        wanted = shape[:1] if name.endswith("energy") else shape
        if file.shape(key) != wanted:
            raise ValueError(
                f"{file.path}: {key} must have shape {list(wanted)} for coordinates of shape "
                f"{list(shape)}, got {list(file.shape(key))}"
            )
    counts = _chunks(min(start, shape[0]), min(stop, shape[0]), batch_size)
    streams = {name: file.rows(key, counts) for name, key in names.items()}
    coordinates = file.rows("coordinates", counts)
    for index, rows in enumerate(coordinates):
        found = {name: next(stream) for name, stream in streams.items()}
        if index == 0:
            continue
        positions = units.to_internal(rows.astype(np.float64), keys.length_unit, "length")
        energies, forces = combined(keys, target, found) if target else (None, None)
        first = sum(counts[:index])
        try:
            yield Batch.from_arrays(numbers, positions, energies=energies, forces=forces)
        except ValueError as error:
            raise ValueError(
                f"{file.path}, structures {first} .. {first + len(rows) - 1}: {error}"
            ) from None


def _ragged_batches(
    file: NpzFile,
    keys: LabelKeys,
    target: Target | None,
    batch_size: int,
    start: int,
    stop: int,
) -> Iterator[Batch]:
    offsets = file.array("structure_offsets").astype(np.int64)
    n_structures = len(offsets) - 1
    if offsets.ndim != 1 or n_structures < 0 or (np.diff(offsets) < 0).any() or offsets[0] != 0:
        raise ValueError(f"{file.path}: structure_offsets must rise from 0, one entry more than B")
    per_structure = {"cell", "pbc"} & set(file.names)
    names = {"numbers": "numbers", "positions": "positions", **{n: n for n in per_structure}}
    names |= _wanted_labels(keys, target)
    for name, key in names.items():
        by_structure = name in per_structure or name.endswith("energy")
        wanted = n_structures if by_structure else int(offsets[-1])
        if file.shape(key)[:1] != (wanted,):
            raise ValueError(
                f"{file.path}: {key} must have {wanted} rows for its structure_offsets, "
                f"got shape {list(file.shape(key))}"
            )
    counts = _chunks(min(start, n_structures), min(stop, n_structures), batch_size)
    ends = np.cumsum(counts)
    atoms = np.diff(offsets[np.concatenate([[0], ends])]).tolist()
    streams: dict[str, Iterator[Array]] = {}
    for name, key in names.items():
        by_structure = name in per_structure or name.endswith("energy")
        streams[name] = file.rows(key, counts if by_structure else atoms)
    for index, end in enumerate(ends.tolist()):
        found = {name: next(stream) for name, stream in streams.items()}
        if index == 0:
            continue
        energies, forces = combined(keys, target, found) if target else (None, None)
        first = end - counts[index]
        lengths = {
            name: units.to_internal(found[name].astype(np.float64), keys.length_unit, "length")
            for name in ("positions", "cell")
            if name in found
        }
        try:
            yield Batch(
                positions=torch.from_numpy(lengths["positions"]),
                numbers=torch.from_numpy(found["numbers"].astype(np.int64)),
                structure_offsets=torch.from_numpy(offsets[first : end + 1] - offsets[first]),
                cell=torch.from_numpy(lengths["cell"]) if "cell" in lengths else None,  # type: ignore[arg-type]
                pbc=torch.from_numpy(found["pbc"].copy()) if "pbc" in found else None,  # type: ignore[arg-type]
                energies=None if energies is None else torch.from_numpy(energies),
                forces=None if forces is None else torch.from_numpy(forces),
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file.path}, structures {first} .. {end - 1}: {error}") from None


def inspect_file(path: str | Path) -> FileSummary:
    """Say what a file holds, which labels its layout fixes, and what :func:`read` would do.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or is an npz file of no known layout.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix != ".npz":
        first = next(iread(path, 100, labels=False), None)
        if first is None:
            raise ValueError(f"{path} holds no structures")
        return FileSummary(path, "ASE", len(first), first.elements, ase_keys(path), None, None)
    with NpzFile(path) as file:
        labelled = _MOLECULE_KEYS.energy in file.names or _RAGGED_KEYS.energy in file.names
        keys = _npz_keys(file, None, {}, labelled)
        layout = file.layout()
        names = {name: str(list(file.shape(name))) for name in file.names}
        numbers = torch.unique(torch.from_numpy(file.array("numbers").astype(np.int64)))
        n_structures = (
            file.shape("structure_offsets")[0] - 1
            if layout == RAGGED
            else file.shape("coordinates")[0]
        )
    target: Target | None = None
    if labelled:
        target = "delta" if keys.baseline_energy is not None else "total"
    elements = Batch.from_arrays(numbers, torch.zeros(len(numbers), 3)).elements
    return FileSummary(
        path, str(layout), n_structures, elements, names, keys if labelled else None, target,
        notes(keys, target),
    )  # fmt: skip
