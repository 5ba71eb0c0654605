"""What a fit says of structures left out of it one at a time, without fitting again.

With K̃⁻¹ restricted to the rows B of one structure (its energy and derivatives), M = [K̃⁻¹]_BB, the
posterior without that structure errs on it by and has the covariance, noise included,

    y_B − f_B = M⁻¹ α_B,    Cov = σ_f² M⁻¹.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pymlp.gaussian_process.cholesky import solve_
from pymlp.gaussian_process.points import Points, row_slices

__all__ = ["LeftOut", "deviation_scale", "left_out"]

_CHUNK = 16  # structures: about 600 right-hand sides


class LeftOut(NamedTuple):
    """Errors and noise-free variances (at unit signal variance) of structures left out."""

    energy_errors: Tensor  # [c]
    energy_variances: Tensor  # [c]
    derivative_errors: Tensor  # [c r]
    derivative_variances: Tensor  # [c r]


def left_out(
    groups: list[Points],
    factor: Tensor,
    weights: Tensor,
    noise: Tensor,
    count: int = 40,
    seed: int = 0,
) -> LeftOut:
    """Errors and variances of a random part of the training structures.

    Args:
        groups: the training points.
        factor: the Cholesky factor of K̃ [m, m].
        weights: α [m].
        noise: λ of every row [m].
        count: structures, about.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    total = sum(len(points) for points in groups)
    found: list[list[Tensor]] = [[], [], [], []]
    for points, rows in zip(groups, row_slices(groups), strict=True):
        share = min(len(points), max(1, round(count * len(points) / total)))
        chosen = torch.randperm(len(points), generator=generator)[:share].to(factor.device)
        r, first = points.n_directions, 1 if points.energies else 0
        for some in chosen.split(_CHUNK):
            index = some[:, None] * r + torch.arange(r, device=some.device) + points.n_energies
            if points.energies:
                index = torch.cat((some[:, None], index), 1)
            index = index + rows.start  # [c, w]
            unit = factor.new_zeros((factor.shape[0], index.numel()))
            unit[index.flatten(), torch.arange(index.numel(), device=some.device)] = 1.0
            own = solve_(factor, unit).view(factor.shape[0], *index.shape).transpose(0, 1)
            inverse = torch.linalg.inv(own.mT @ own)  # [c, w, w]
            errors = (inverse @ weights[index][..., None])[..., 0]
            variances = (inverse.diagonal(dim1=1, dim2=2) - noise[index]).clamp(min=0.0)
            found[0].append(errors[:, :first].flatten())
            found[1].append(variances[:, :first].flatten())
            found[2].append(errors[:, first:].flatten())
            found[3].append(variances[:, first:].flatten())
    return LeftOut(*(torch.cat(parts) for parts in found))


def deviation_scale(result: LeftOut, signal_variance: float) -> tuple[float, float]:
    """The rms of error/σ of energies and of derivatives: the factors that would make them 1."""

    def scale(errors: Tensor, variances: Tensor) -> float:
        if not len(errors):
            return 1.0
        known = variances > 1e-12 * variances.max()  # an exact copy elsewhere says nothing
        z = errors[known].square() / (variances[known] * signal_variance)
        return float(z.mean().sqrt()) if len(z) else 1.0

    return (
        scale(result.energy_errors, result.energy_variances),
        scale(result.derivative_errors, result.derivative_variances),
    )
