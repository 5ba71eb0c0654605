"""Writing structures and labels: extxyz and npz, in eV and Å, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np

from pymlp.atomic_files import atomic_writer
from pymlp.structure_checks import SYMBOLS
from pymlp.structures import Batch, Structure

__all__ = ["write"]


def write(
    path: str | Path,
    batch: Batch,
    *,
    energy_key: str = "energy",
    forces_key: str = "forces",
) -> None:
    """Write a batch to ``.npz`` (pymlp's layout) or ``.extxyz``/``.xyz``; eV, Å, eV/Å.

    Numbers are written with all their digits. The file appears whole or not at all.

    Args:
        path: its ending says the format.
        batch: structures; energies and forces are written where they are known.
        energy_key: name of the energies in an extxyz file.
        forces_key: name of the forces in an extxyz file.

    Raises:
        ValueError: for another ending.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix == ".npz":
        with atomic_writer(path, "wb") as file:
            _write_npz(file, batch)
    elif path.suffix in (".extxyz", ".xyz"):
        with atomic_writer(path) as file:
            for structure in batch:
                _write_extxyz(file, structure, energy_key, forces_key)
    else:
        raise ValueError(f"path must end in .npz, .extxyz or .xyz, got {path.name!r}")


def _write_npz(file: IO[bytes], batch: Batch) -> None:
    names = ["structure_offsets", "numbers", "positions", "energies", "forces"]
    if bool(batch.cell.any()):
        names += ["cell", "pbc"]
    arrays: dict[str, Any] = {
        name: getattr(batch, name).detach().cpu().numpy()
        for name in names
        if getattr(batch, name) is not None
    }
    np.savez_compressed(file, **arrays)


def _write_extxyz(file: IO[str], structure: Structure, energy_key: str, forces_key: str) -> None:
    properties = "species:S:1:pos:R:3"
    columns = [structure.positions.tolist()]
    if structure.forces is not None:
        properties += f":{forces_key}:R:3"
        columns.append(structure.forces.tolist())
    words = []
    if structure.cell is not None:
        words.append(f'Lattice="{" ".join(map(repr, structure.cell.flatten().tolist()))}"')
    words.append(f"Properties={properties}")
    if structure.energy is not None:
        words.append(f"{energy_key}={structure.energy!r}")
    words.append(f'pbc="{" ".join("T" if p else "F" for p in structure.pbc)}"')
    file.write(f"{len(structure)}\n{' '.join(words)}\n")
    for index, number in enumerate(structure.numbers.tolist()):
        row = " ".join(repr(value) for column in columns for value in column[index])
        file.write(f"{SYMBOLS[number]:<2} {row}\n")
