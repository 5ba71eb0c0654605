"""The tutorial's own arrays: a folder of npy files of one molecule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pymlp.io.labels import Array, LabelKeys, Target, combined, notes
from pymlp.structure_checks import as_numbers
from pymlp.structures import Batch

__all__ = ["read_tutorial"]

_KEYS = LabelKeys(
    energy="energy",
    gradient="qm_grad",
    baseline_energy="energy_sqm",
    baseline_gradient="qm_grad_sqm",
    energy_unit="Hartree",
    force_unit="Hartree/Bohr",
)


def read_tutorial(
    directory: str | Path,
    numbers: Sequence[int] | Sequence[str] | None = None,
    target: Target | None = None,
) -> Batch:
    """Read the arrays of the tutorial's lessons 5-7.

    Files: ``qm_coord.npy`` [B, N, 3] Å, ``energy.npy`` and ``energy_sqm.npy`` [B] Hartree,
    ``qm_grad.npy`` and ``qm_grad_sqm.npy`` [B, N, 3] Hartree/Bohr, and ``qm_elem.txt``, the N
    atomic numbers. Gradients become forces, all units eV and Å.

    Args:
        directory: the folder.
        numbers: atomic numbers or symbols [N], in place of ``qm_elem.txt``.
        target: ``"delta"`` (the default where the ``_sqm`` arrays are there), ``"total"`` or
            ``"sqm"``.

    Raises:
        ValueError: for a missing or damaged array, or mismatched lengths.
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
    keys = _KEYS.for_target(target)
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
            positions.astype(np.float64),
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
