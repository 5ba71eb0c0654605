"""The linear map between raw features and those the covariance sees.

x = (g − centre) T with T = diag(weights) Q. Q is an orthonormal basis of what the features and the
Jacobians of the training set span, to a tolerance: fewer dimensions make every product cheaper
(ANI-1x features of 100 structures of 14 atoms: 3360, of which 1563 hold all but 1e-3 of the
Jacobians). The covariance of the projected features is a covariance like any other, so energies
and forces stay exactly consistent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.symmetry import Rotation

__all__ = ["FeatureTransform", "features_to_keep", "spanning_basis"]


@dataclass(frozen=True)
class FeatureTransform:
    """x = (g − centre) T.

    Args:
        center: [p] raw features.
        matrix: [p, p'], a vector of weights [p], or None for the identity.
        rotation: into the basis of a symmetry's characters, after a vector of weights or none.
        keep: [p'] the raw features that are not left out, before anything else; weights are then
            those of the features kept.
    """

    center: Tensor
    matrix: Tensor | None = None
    rotation: Rotation | None = None
    keep: Tensor | None = None

    @property
    def width(self) -> int:
        """p', the features that the covariance sees."""
        if self.matrix is not None:
            return self.matrix.shape[-1]
        return len(self.center if self.keep is None else self.keep)

    def features(self, raw: Tensor) -> Tensor:
        """[..., p] to [..., p']."""
        return self.jacobian(raw - self.center)

    def jacobian(self, raw: Tensor) -> Tensor:
        """[..., p] to [..., p'], the linear part alone."""
        if self.keep is not None:
            raw = raw[..., self.keep]
        if self.matrix is not None:
            raw = raw * self.matrix if self.matrix.dim() == 1 else raw @ self.matrix
        return raw if self.rotation is None else self.rotation.forward(raw)

    def gradient(self, gradient: Tensor) -> Tensor:
        """∂E/∂x [..., p'] to ∂E/∂g [..., p]."""
        if self.rotation is not None:
            gradient = self.rotation.backward(gradient)
        if self.matrix is not None:
            flat = self.matrix.dim() == 1
            gradient = gradient * self.matrix if flat else gradient @ self.matrix.mT
        if self.keep is None:
            return gradient
        full = gradient.new_zeros((*gradient.shape[:-1], len(self.center)))
        full[..., self.keep] = gradient
        return full

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> FeatureTransform:
        """Moved or converted."""
        matrix = None if self.matrix is None else self.matrix.to(device=device, dtype=dtype)
        rotation = None if self.rotation is None else self.rotation.to(device, dtype)
        keep = None if self.keep is None else self.keep.to(device)
        return FeatureTransform(self.center.to(device=device, dtype=dtype), matrix, rotation, keep)


def features_to_keep(
    strengths: Tensor, tolerance: float, images: Tensor | None = None
) -> tuple[Tensor, float]:
    """The features that carry the Jacobians.

    Of ANI features many are nearly or exactly constant: shells that no neighbour ever enters, pairs
    of an element that occurs once.

    Args:
        strengths: [p] the summed squares of every feature's derivatives.
        tolerance: root of the share of that sum that the features left out may have.
        images: permutation indices [S, p] that must not lead out of what is kept.

    Returns:
        Sorted indices [p'], and the root of the share that was lost.
    """
    if images is not None:
        strengths = strengths[images.to(strengths.device)].mean(0)
    values, order = strengths.sort()
    share = (values.cumsum(0) / values.sum().clamp(min=1e-300)).sqrt()
    last = int((share <= tolerance).sum())
    if last and last < len(values):  # all images of a feature go or stay
        last = int((values < values[last] * (1.0 - 1e-9)).sum())
    lost = float(share[last - 1]) if last else 0.0
    return order[last:].sort().values, lost


def spanning_basis(
    points: list[Points],
    tolerance: float,
    images: Tensor | None = None,
    maximum_sample: int = 2000,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """An orthonormal basis of what features and Jacobian rows of one type span.

    Args:
        points: whole structures (E = 1) or environments of one type; centred features.
        tolerance: root of the share of the Jacobians' squared norm that may be lost.
        images: permutation indices [S, p] under which the subspace must be closed.
        maximum_sample: random combinations of rows that the subspace is found from, the images
            included: an upper bound of p'.
        seed: of the random combinations.

    Returns:
        Q [p, p'], and the share (root of the lost squared norm of the Jacobian rows).
    """
    rows = []
    for item in points:
        if item.jacobian is not None:
            rows.append(item.jacobian.flatten(0, 2))
        else:
            rows.append(item.features.flatten(0, 1))
    matrix = torch.cat(rows)
    p = matrix.shape[1]
    if images is not None:
        maximum_sample //= len(images)
    if matrix.shape[0] > maximum_sample:
        # Sums of rows with random signs span the same space and weigh all rows alike.
        generator = torch.Generator().manual_seed(seed)
        count = matrix.shape[0] // maximum_sample * maximum_sample
        order = torch.randperm(matrix.shape[0], generator=generator)[:count].to(matrix.device)
        signs = (torch.randint(0, 2, (count, 1), generator=generator) * 2 - 1).to(matrix)
        sample = (matrix[order] * signs).view(-1, maximum_sample, p).sum(0)
    else:
        sample = matrix
    if images is not None:
        sample = torch.cat([sample[:, index] for index in images])
    energy, right = _leading(sample)
    lost = (energy.sum() - energy.cumsum(0)).clamp(min=0.0) / energy.sum()
    keep = int((lost > tolerance**2).sum()) + 1
    basis = right[:, :keep].contiguous()
    total = float(matrix.square().sum())
    kept = float((matrix @ basis).square().sum())
    return basis, max(0.0, 1.0 - kept / total) ** 0.5


def _leading(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values, falling, and right singular vectors [p, k] of [M, p].

    Through the smaller Gram matrix: its square root of machine precision is far below any
    tolerance of use.
    """
    rows, p = sample.shape
    if rows >= p:
        values, vectors = torch.linalg.eigh(sample.mT @ sample)
        return values.flip(0).clamp(min=0.0), vectors.flip(1)
    values, vectors = torch.linalg.eigh(sample @ sample.mT)
    good = values > 1e-13 * values[-1]
    values, vectors = values[good].flip(0), vectors[:, good].flip(1)
    return values, torch.linalg.qr((sample.mT @ vectors) * values.rsqrt()).Q
