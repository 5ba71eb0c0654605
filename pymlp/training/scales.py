"""Scales and shifts that networks get from the training set before they are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pymlp.config import NetworkRun
from pymlp.descriptors.base import Descriptor
from pymlp.networks import ElementNetworks
from pymlp.structures import Batch
from pymlp.training.dataset import CachedStructures, TrainingBatch

__all__ = ["Scales", "some_structures"]

#: Atoms whose features set the scales where not all features are kept.
_SCALING_ATOMS = 50_000


@dataclass(frozen=True)
class Scales:
    """Scales and shifts that the networks get from the training set, and what the loss is in."""

    feature_mean: Tensor  # [n_types, F]
    feature_scale: Tensor  # [n_types, F]
    energy_shift: Tensor  # [n_types] eV
    energy_scale: float  # eV
    rotation: Tensor | None  # [n_types, F, F], principal components
    loss_unit: float  # (eV/Å)^2, or eV^2

    @classmethod
    def fit(
        cls,
        descriptor: Descriptor,
        cached: CachedStructures,
        training: Batch,
        config: NetworkRun,
    ) -> Scales:
        """Fit to the training structures (to a part of them where features are not kept).

        Every feature is scaled by its spread over the atoms of the element, but by no less than
        ``feature_floor`` times the largest spread there: full standardisation blows up features
        that hardly vary, and the network then fits their noise.
        """
        features, types = _some_features(descriptor, cached)
        n_types, n_features = len(config.elements), features.shape[1]
        shape = (n_types, n_features)
        share = config.network.whitening
        rotation = None
        if share > 0.0:
            rotation = torch.eye(n_features, dtype=torch.float64).repeat(n_types, 1, 1)
        mean = torch.zeros(shape, dtype=torch.float64)
        scale = torch.ones(shape, dtype=torch.float64)
        for index in range(n_types):
            own = features[types == index].double().cpu()
            if len(own) == 0:
                continue
            mean[index] = own.mean(0)
            spread = own.std(0, unbiased=False)
            largest = float(spread.max())
            if largest > 0.0:
                floor = max(config.network.feature_floor, 1e-6) * largest
                scale[index] = spread.clamp(min=floor)
                if rotation is not None:
                    rotation[index] = _whitening((own - mean[index]) / scale[index], share)
        network = ElementNetworks(n_features, config.elements, ())
        assert training.energies is not None
        residual = network.fit_energy_shifts(
            training.energies,
            cached.types.cpu(),
            training.structure_index,
            scale=False,
        )
        if config.trains_on_forces and training.forces is not None:
            unit = float(training.forces.square().mean())
        else:
            unit = float(residual.square().mean())
        unit = unit if unit > 0.0 and math.isfinite(unit) else 1.0
        # A network of outputs of order one then gives forces of the size of the labels.
        return cls(mean, scale, network.energy_shift.clone(), math.sqrt(unit), rotation, unit)

    def apply(self, network: ElementNetworks) -> None:
        """Set the buffers of a network."""
        with torch.no_grad():
            network.feature_mean.copy_(self.feature_mean)
            network.feature_scale.copy_(self.feature_scale)
            network.energy_shift.copy_(self.energy_shift)
            network.energy_scale.fill_(self.energy_scale)
        if self.rotation is not None:
            network.whiten(self.rotation)


def _whitening(x: Tensor, share: float) -> Tensor:
    """Matrix [F, F] to principal components of x [n, F] divided by their spread.

    The variance of every component counts as at least ``share`` of the largest.
    """
    variances, directions = torch.linalg.eigh(x.T @ x / len(x))
    return directions / (variances.clamp(min=0) + share * variances[-1]).sqrt()


def some_structures(cached: CachedStructures) -> TrainingBatch:
    """Return the first structures, as many as are enough to measure spreads on."""
    count = int((cached.atom_offsets <= _SCALING_ATOMS).sum()) - 1
    return cached[torch.arange(max(1, count))]


@torch.no_grad()
def _some_features(descriptor: Descriptor, cached: CachedStructures) -> tuple[Tensor, Tensor]:
    if cached.features is not None:
        return cached.features, cached.types
    part = some_structures(cached)
    return descriptor.features_of(part.features, part.pairs, part.types), part.types
