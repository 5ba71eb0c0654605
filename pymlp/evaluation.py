"""Errors of a potential on labelled structures, in eV and in kcal/mol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pymlp import units
from pymlp.structures import Batch

if TYPE_CHECKING:
    from pymlp.potential import Potential

__all__ = ["Evaluation", "evaluate", "predict_in_batches"]


@dataclass(frozen=True)
class Evaluation:
    """Reference and predicted labels of the same structures.

    Attributes:
        energies: [B] eV, reference.
        predicted_energies: [B] eV.
        forces: [A, 3] eV/Å, reference, or ``None`` where the data has none.
        predicted_forces: [A, 3] eV/Å, or ``None``.
        n_atoms: number of atoms of all structures.
    """

    energies: Tensor
    predicted_energies: Tensor
    forces: Tensor | None
    predicted_forces: Tensor | None
    n_atoms: int

    def summary(self) -> dict[str, float | int]:
        """Return the errors under the names that ``pymlp evaluate --json`` prints.

        Force errors are per Cartesian component. Without force labels their keys are left out.
        """
        result: dict[str, float | int] = {
            "n_structures": len(self.energies),
            "n_atoms": self.n_atoms,
        }
        result |= _errors("energy", "", self.predicted_energies - self.energies)
        if self.forces is not None and self.predicted_forces is not None:
            result |= _errors("force", "_A", self.predicted_forces - self.forces)
        return result

    def draw(self, path: str | Path, title: str = "") -> Path:
        """Draw predicted against reference values, in kcal/mol and kcal/mol/Å; return the file.

        Raises:
            ImportError: without matplotlib (the ``train`` extra).
            ValueError: for a suffix that is no format of figures.
        """
        from pymlp.plotting import parity

        kcal = units.EV_TO_KCAL_MOL
        forces = None
        if self.forces is not None and self.predicted_forces is not None:
            forces = ((self.forces * kcal).numpy(), (self.predicted_forces * kcal).numpy())
        energies = ((self.energies * kcal).numpy(), (self.predicted_energies * kcal).numpy())
        return parity(energies, forces, path, title=title)


def _errors(name: str, per_length: str, error: Tensor) -> dict[str, float]:
    error = error.double().flatten()
    n = max(len(error), 1)
    values = {
        "rmse": math.sqrt(float(error.square().sum()) / n),
        "mae": float(error.abs().sum()) / n,
        "max": float(error.abs().max()) if len(error) else math.nan,
    }
    result = {}
    for unit, factor in (("kcal_mol", units.EV_TO_KCAL_MOL), ("eV", 1.0)):
        for kind, value in values.items():
            result[f"{name}_{kind}_{unit}{per_length}"] = value * factor
    return result


def predict_in_batches(
    potential: Potential, batch: Batch, *, forces: bool = True, batch_size: int = 256
) -> tuple[Tensor, Tensor | None]:
    """Return energies [B] (eV) and forces [A, 3] (eV/Å), some structures at a time.

    Raises:
        ValueError: for a batch size below one, and what the potential raises.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    energies, components = [], []
    for begin in range(0, len(batch), batch_size):
        result = potential.compute(batch[begin : begin + batch_size], forces=forces)
        energies.append(result.energy.detach().double().cpu())
        if forces:
            components.append(result.forces.detach().double().cpu())  # type: ignore[union-attr]
    none = torch.zeros(0, 3, dtype=torch.float64)
    return (
        torch.cat(energies) if energies else none[:, 0],
        torch.cat(components or [none]) if forces else None,
    )


def evaluate(potential: Potential, batch: Batch, *, batch_size: int = 256) -> Evaluation:
    """Compare a potential with the labels of a batch.

    Raises:
        ValueError: if the batch is empty or has no energies.
    """
    if len(batch) == 0:
        raise ValueError("the data hold no structures")
    if batch.energies is None:
        raise ValueError("the data hold no energies to compare with")
    with_forces = batch.forces is not None
    energies, forces = predict_in_batches(
        potential, batch, forces=with_forces, batch_size=batch_size
    )
    return Evaluation(
        energies=batch.energies.double().cpu(),
        predicted_energies=energies,
        forces=None if batch.forces is None else batch.forces.double().cpu(),
        predicted_forces=forces,
        n_atoms=batch.n_atoms,
    )
