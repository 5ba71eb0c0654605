"""Feature weights of a process from labelled structures: the start of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pymlp.gaussian_process.feature_weights import (
    GroupProducts,
    WeightedLikelihood,
    maximize_weights,
)
from pymlp.gaussian_process.training_set import Mean, Preparation, TrainingSet, make_transforms
from pymlp.structures import Batch

if TYPE_CHECKING:
    from pymlp.gaussian_process.regression import GaussianProcess

__all__ = ["fit_feature_weights"]


def fit_feature_weights(
    process: GaussianProcess,
    batch: Batch,
    structures: int = 40,
    groups: Tensor | None = None,
    max_iterations: int = 30,
    memory: int = 2 * 2**30,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> tuple[float, int]:
    """Set the feature weights and the hyperparameters of a process by the likelihood.

    Args:
        process: of whole-structure features, with its permutations; not fitted yet.
        batch: structures with the same atoms, with energies and forces.
        structures: at random, fewer where `memory` forbids.
        groups: [p] int64, the group of every raw feature; those of the inputs by default.
        max_iterations: of L-BFGS.
        memory: bytes that the products may take.
        seed: of the choice of structures.
        report: called with one line per evaluation.

    Returns:
        The log likelihood, and how many structures it is of.

    Raises:
        ValueError: no labels; the GAP sum.
    """
    if batch.energies is None or batch.forces is None:
        raise ValueError("batch must hold energies and forces to find feature weights with")
    numbers = batch.numbers[: batch.n_atoms // len(batch)].cpu()
    if len(process.inputs.types(numbers)) != 1:
        raise ValueError("feature weights are found for whole-structure features, not the GAP sum")
    device = batch.positions.device
    groups = (process.inputs.feature_groups(numbers) if groups is None else groups).to(device)
    indices = None
    if process.permutations is not None and len(process.permutations) > 1:
        indices = torch.stack(
            [process.inputs.permutation(p, numbers) for p in process.permutations]
        )
        indices = indices.to(device)
    images = 1 if indices is None else len(indices)
    per_structure = GroupProducts.nbytes(1, 3 * len(numbers), int(groups.max()) + 1, images)
    structures = max(2, min(structures, len(batch), int((memory / per_structure) ** 0.5)))
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    part = batch[order[:structures].sort().values.to(device)]
    transforms, _ = make_transforms(process.inputs, part, None, process.permutations)
    deflate = not batch.periodic if process.deflate is None else process.deflate
    preparation = Preparation(process.inputs, transforms, deflate, numbers, symmetry=indices)
    mean = Mean(process.mean.kind).fitted(part, part.energies)
    training = TrainingSet.build(preparation, mean, part, part.energies, part.forces)
    likelihood = WeightedLikelihood(GroupProducts.of(training.groups[0], groups), training.targets)
    weights, process.hyperparameters, value = maximize_weights(
        likelihood,
        process.hyperparameters.covariance,
        max_iterations=max_iterations,
        report=report,
    )
    process.feature_weights = weights[groups]
    return value, structures
