"""Prediction of a fitted Gaussian process, structure group by structure group.

Features and the descriptor's vector-Jacobian product bracket the four GEMMs of `prediction`: the
Jacobian of a new structure is needed for its variances only, never for its forces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pymlp.gaussian_process.fit_report import GaussianProcessPrediction
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.training_set import equal_numbers
from pymlp.structures import Batch

if TYPE_CHECKING:
    from pymlp.gaussian_process.regression import GaussianProcess

__all__ = ["predict"]


def predict(
    process: GaussianProcess,
    batch: Batch,
    forces: bool,
    variance: bool,
    atomic: bool,
    dtype: torch.dtype,
    chunk: int,
) -> GaussianProcessPrediction:
    """See `GaussianProcess.predict`."""
    device = batch.positions.device

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    energy, gradients = zeros(len(batch)), zeros(batch.n_atoms, 3)
    energy_std = zeros(len(batch)) if variance else None
    forces_std = zeros(batch.n_atoms, 3) if variance and forces else None
    atoms_energy = zeros(batch.n_atoms) if atomic else None
    atoms_std = zeros(batch.n_atoms) if atomic and variance else None
    for _, members in equal_numbers(batch):
        for start in range(0, len(members), chunk):
            which = members[start : start + chunk].to(device)
            part = batch if len(which) == len(batch) else batch[which]
            n_atoms = part.n_atoms // len(part)
            local = torch.arange(n_atoms, device=device)
            rows = (batch.structure_offsets[which, None] + local).flatten()
            e, g = _means(process, part.to(dtype=dtype), forces)
            energy[which] = e.sum(1).to(torch.float64)
            if g is not None:
                gradients[rows] = g.reshape(-1, 3).to(torch.float64)
            if atoms_energy is not None:
                atoms_energy[rows] = e.flatten().to(torch.float64)
            if energy_std is not None:
                own_energy, own_forces = _deviations(process, part.to(dtype=torch.float64), forces)
                energy_std[which] = own_energy
                if forces_std is not None and own_forces is not None:
                    forces_std[rows] = own_forces
            if atoms_std is not None:
                atoms_std[rows] = _atomic_deviations(process, part.to(dtype=torch.float64))
    energy += process.mean(batch)
    if energy_std is not None:
        energy_std *= process.deviation_scale[0]
    if atoms_std is not None:
        atoms_std *= process.deviation_scale[0]
    if forces_std is not None:
        forces_std *= process.deviation_scale[1]
    if atoms_energy is not None:
        atoms_energy += process.mean.per_atom(batch)
    return GaussianProcessPrediction(
        energy, -gradients if forces else None, energy_std, forces_std, atoms_energy, atoms_std
    )


def _means(process: GaussianProcess, part: Batch, forces: bool) -> tuple[Tensor, Tensor | None]:
    """Environment energies [n, E] without mean, and ∂E/∂R [n, N, 3]."""
    sources, preparation = process.at_precision(part.positions.dtype)
    types = preparation.types(part.numbers[: part.n_atoms // len(part)])
    if forces:
        raw, pull = process.inputs.features_and_pullback(part)
    else:
        raw, pull = process.inputs.features(part), None
    x = preparation.transform(raw, types)
    energies, slopes = process.atomic_means(sources, x, types, forces)
    if slopes is None or pull is None:
        return energies, None
    return energies, pull(preparation.pull_transform(slopes, types))


def _deviations(
    process: GaussianProcess, part: Batch, forces: bool
) -> tuple[Tensor, Tensor | None]:
    """Standard deviations of energies [n] and force components [n·N, 3]."""
    assert process.posterior is not None
    assert process.preparation is not None
    hyperparameters = process.hyperparameters
    basis = process.preparation.basis(part) if forces else None
    energies, components = [], []
    step = 16  # a block of about 600 right-hand sides
    for start in range(0, len(part), step):
        some = part[start : start + step]
        directions = None if basis is None else basis[start : start + step]
        points = process.preparation.points(some, directions, derivatives=forces)
        blocks = process.posterior.covariance(points, hyperparameters.covariance)
        energies.append(blocks[:, 0, 0])
        inner = blocks[:, 1:, 1:]
        if directions is None:
            components.append(inner.diagonal(dim1=1, dim2=2))
        else:
            components.append(((directions @ inner) * directions).sum(2))
    scale = hyperparameters.signal_variance
    energy_std = (torch.cat(energies).clamp(min=0.0) * scale).sqrt()
    if not forces:
        return energy_std, None
    return energy_std, (torch.cat(components).clamp(min=0.0) * scale).sqrt().view(-1, 3)


def _atomic_deviations(process: GaussianProcess, part: Batch) -> Tensor:
    """Standard deviations of atomic energies [n·N]: every environment as a structure of its own."""
    assert process.posterior is not None
    assert process.preparation is not None
    preparation, hyperparameters = process.preparation, process.hyperparameters
    types = preparation.types(part.numbers[: part.n_atoms // len(part)])
    x = preparation.transform(process.inputs.features(part), types)
    result = x.new_zeros(x.shape[:2])
    for position, kind in enumerate(types):
        single = Points(x[:, position : position + 1], None, (kind,))
        blocks = process.posterior.covariance(single, hyperparameters.covariance)
        result[:, position] = blocks[:, 0, 0].clamp(min=0.0)
    return (result * hyperparameters.signal_variance).sqrt().flatten()
