"""The tutorial's own arrays: a folder of npy files of one molecule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pymlp import units
from pymlp.io.labels import Array, LabelKeys, Target, combined, notes
from pymlp.structure_checks import as_numbers
from pymlp.structures import Batch

__all__ = ["read_tutorial"]


def read_tutorial(
    directory: str | Path,
    numbers: Sequence[int] | Sequence[str] | None = None,
    target: Target | None = None,
    *,
    energy_unit: str = "Hartree",
    force_unit: str = "Hartree/Bohr",
    length_unit: str = "Å",
) -> Batch:
    """Read the arrays of the tutorial's lessons 5-7.

    Files: ``qm_coord.npy`` [B, N, 3], ``energy.npy`` and ``energy_sqm.npy`` [B],
    ``qm_grad.npy`` and ``qm_grad_sqm.npy`` [B, N, 3], and ``qm_elem.txt``, the N atomic numbers.
    Gradients become forces, all units eV and Å.

    Args:
        directory: the folder.
        numbers: atomic numbers or symbols [N], in place of ``qm_elem.txt``.
        target: ``"delta"`` (the default where the ``_sqm`` arrays are there), ``"total"`` or
            ``"sqm"``.
        energy_unit: of the energies; the tutorial's are Hartree.
        force_unit: of the gradients; the tutorial's are Hartree/Bohr.
        length_unit: of the coordinates, Å (the tutorial's) or Bohr.

    Raises:
        ValueError: for an unknown unit, a missing or damaged array, or mismatched lengths.
    """
    folder = Path(directory)
    if numbers is None:
        path = folder / "qm_elem.txt"
        if not path.is_file():
            raise ValueError(f"numbers must be given: there is no {path}")
        try:
            numbers = [int(float(word)) for word in path.read_text(encoding="utf-8").split()]
        except ValueError as error:
            raise ValueError(f"{path} must hold atomic numbers: {error}") from None
    positions = _load(folder, "qm_coord")
    if target is None:
        target = "delta" if (folder / "energy_sqm.npy").is_file() else "total"
    keys = LabelKeys(
        energy="energy",
        gradient="qm_grad",
        baseline_energy="energy_sqm",
        baseline_gradient="qm_grad_sqm",
        energy_unit=energy_unit,
        force_unit=force_unit,
        length_unit=length_unit,
    ).for_target(target)
    found = {name: _load(folder, key) for name, key in keys.names().items()}
    n_structures = len(positions)
    for name, key in keys.names().items():
        found[name] = found[name].squeeze() if "energy" in name else found[name]
        wanted = (n_structures,) if "energy" in name else positions.shape
        if found[name].shape != wanted:
            raise ValueError(
                f"{folder / key}.npy must have shape {list(wanted)} for {n_structures} "
                f"structures, got {list(found[name].shape)}"
            )
    energies, forces = combined(keys, target, found)
    try:
        batch = Batch.from_arrays(
            as_numbers(list(numbers)),
            units.to_internal(positions.astype(np.float64), length_unit, "length"),
            energies=energies,
            forces=forces,
        )
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    batch.info.update(file=str(folder), layout="tutorial", target=target, notes=notes(keys, target))
    return batch


def _load(folder: Path, name: str) -> Array:
    path = folder / f"{name}.npy"
    try:
        with path.open("rb") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {name}.npy") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from None
