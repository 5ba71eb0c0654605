"""Posterior variances of energies and gradient components (eqs 21, 27, 29).

With K* the covariance of new rows with the training rows and K̃ = LLᵀ, T = L⁻¹K*ᵀ and

    Cov = σ_f² (K** − TᵀT),

block by block: one block per structure holds its energy and all its derivatives. For inducing rows
u (DTC), Cov = σ_f² (K** − T₁ᵀT₁ + T₂ᵀT₂) with T₁ = L_uu⁻¹K_u*, T₂ = R⁻ᵀT₁ and RᵀR = 1 + V Λ⁻¹ Vᵀ,
V = L_uu⁻¹K_uf; the same code with one factor more. The noise of an observation is not included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pymlp.covariances import Covariance
from pymlp.gaussian_process.assembly import covariance_block, prior_blocks
from pymlp.gaussian_process.cholesky import solve_
from pymlp.gaussian_process.points import Points

__all__ = ["Posterior"]


@dataclass(frozen=True)
class Posterior:
    """What the posterior covariance needs.

    Args:
        groups: the conditioning rows (training rows, or inducing ones).
        subtract: lower-triangular factor L of what reduces the prior.
        add: lower-triangular Rᵀ of what is given back (inducing rows), or None.
    """

    groups: list[Points]
    subtract: Tensor
    add: Tensor | None = None

    def covariance(self, points: Points, covariance: Covariance) -> Tensor:
        """Posterior covariance of every structure's own rows.

        Args:
            points: the new points (energies and any directions).
            covariance: the unit-variance covariance.

        Returns:
            [n, w, w] at unit signal variance, w = 1 + r (without the 1 where energies are off).
        """
        prior = prior_blocks(points, covariance.terms)
        n, width = prior.shape[:2]
        cross = prior.new_empty((self.subtract.shape[0], points.n_rows))
        start = 0
        for group in self.groups:
            covariance_block(
                group, points, covariance.terms, out=cross[start : start + group.n_rows]
            )
            start += group.n_rows
        solve_(self.subtract, cross)
        result = prior - _own_products(cross, points, n, width)
        if self.add is not None:
            result += _own_products(solve_(self.add, cross), points, n, width)
        return result


def _own_products(columns: Tensor, points: Points, n: int, width: int) -> Tensor:
    """TᵀT of every structure's own columns, [n, w, w]."""
    parts = []
    if points.energies:
        parts.append(columns[:, :n, None])
    if points.n_directions:
        parts.append(columns[:, points.n_energies :].unflatten(1, (n, points.n_directions)))
    stacked = torch.cat(parts, dim=2).transpose(0, 1)  # [n, m, w]
    return (stacked.mT @ stacked).view(n, width, width)
