"""Structures from files that ASE reads, labels under keys that the caller names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pymlp import units
from pymlp.io.labels import Array, LabelKeys, Target, combined
from pymlp.structures import Batch, Structure

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["ase_keys", "read_ase"]


def read_ase(
    path: Path, keys: LabelKeys, target: Target | None, batch_size: int, start: int, stop: int
) -> Iterator[Batch]:
    """Yield batches of frames ``start`` .. ``stop`` of a file.

    Args:
        path: any file whose format ASE finds out by itself.
        keys: what :meth:`LabelKeys.for_target` returned; labels are looked for among the results
            of the frame's calculator, in ``info`` and in ``arrays``.
        target: ``None`` reads no labels.
        batch_size: structures per batch.
        start: first frame.
        stop: the frame before which to stop.

    Raises:
        ValueError: naming file, frame and field.
    """
    structures: list[Structure] = []
    names = {} if target is None else keys.names()
    if target == "sqm":
        del names["energy"]
    for index, atoms in enumerate(_frames(path, stop)):
        if index < start:
            continue
        if index >= stop:
            break
        try:
            structures.append(_structure(atoms, names, keys, target))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, frame {index}: {error}") from None
        if len(structures) == batch_size:
            yield Batch.from_structures(structures)
            structures = []
    if structures:
        yield Batch.from_structures(structures)


def _frames(path: Path, stop: int) -> Iterator[Atoms]:
    from ase.io import iread

    index = 0
    try:
        for atoms in iread(str(path), index=":" if stop >= 2**62 else f":{stop}"):
            yield atoms
            index += 1
    except Exception as error:  # ASE raises whatever its format readers raise
        if isinstance(error.__cause__, StopIteration):
            # A reader that runs out of lines: inside a generator that is a RuntimeError.
            raise ValueError(f"{path} ends in the middle of frame {index}") from error
        text = str(error) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read (frame {index}): {type(error).__name__}: {text}"
        ) from error


def _structure(
    atoms: Atoms, names: dict[str, str], keys: LabelKeys, target: Target | None
) -> Structure:
    found: dict[str, Array] = {}
    for name, key in names.items():
        value = _lookup(atoms, key)
        if value is None:
            raise ValueError(f"no label {key!r}; labels there: {', '.join(_keys(atoms)) or 'none'}")
        try:
            array = np.asarray(value, dtype=np.float64)
        except (ValueError, TypeError):
            raise ValueError(f"label {key!r} must be numbers, got {value!r}") from None
        wanted: tuple[int, ...] = () if name.endswith("energy") else (len(atoms), 3)
        if array.shape != wanted:
            raise ValueError(
                f"label {key!r} must have shape {list(wanted)} for {len(atoms)} atoms, "
                f"got {list(array.shape)}"
            )
        found[name] = array
    energy, forces = combined(keys, target, found) if target is not None else (None, None)
    cell = np.asarray(atoms.cell.array, dtype=np.float64)
    length = units.factor(keys.length_unit, "length")
    a, b, c = (bool(p) for p in atoms.pbc)
    return Structure(
        numbers=torch.as_tensor(np.asarray(atoms.numbers, dtype=np.int64)),
        positions=torch.as_tensor(atoms.get_positions() * length),
        cell=torch.as_tensor(cell * length) if cell.any() else None,
        pbc=(a, b, c),
        energy=None if energy is None else float(energy),
        forces=None if forces is None else torch.as_tensor(forces),
    )


def _lookup(atoms: Atoms, key: str) -> Any:
    results = {} if atoms.calc is None else atoms.calc.results
    for place in (results, atoms.info, atoms.arrays):
        if key in place:
            return place[key]
    return None


def _keys(atoms: Atoms) -> dict[str, str]:
    """The names of all that could be a label, with shapes."""
    results = {} if atoms.calc is None else atoms.calc.results
    found: dict[str, str] = {}
    for place in (results, atoms.info, atoms.arrays):
        for key, value in place.items():
            if key not in ("numbers", "positions"):
                shape = list(np.shape(value))
                found.setdefault(str(key), str(shape) if shape else "scalar")
    return found


def ase_keys(path: Path) -> dict[str, str]:
    """Return the names of all that could be a label in the first frame, with shapes."""
    first = next(_frames(path, 1), None)
    return {} if first is None else _keys(first)
