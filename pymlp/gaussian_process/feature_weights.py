"""Length scales per feature, or per group of features (automatic relevance determination).

A length scale l_d = l/w_d for feature d is the same covariance on features and Jacobians scaled by
w_d.
The gradient of the likelihood in all ln w_d takes three matrix products, not one assembly per
feature: with W the weight of `likelihood` (∂L = ½ tr(W ∂K)), δ = x_i − x_j and c = db/ds,

    ∂s = 2δ_d²,    ∂a = −b δ_d²,    ∂b = 2c δ_d²,
    ∂u_ij = 2 J_i[:,d] δ_d,    ∂(J_iJ_jᵀ) = 2 J_i[:,d] J_j[:,d]ᵀ

so ∂L/∂ln w_d = Σ_ij C_ij δ_d² + Σ_ij δ_d J_i[:,d]·v_ij + Σ_ij a J_i[:,d]ᵀ W_ij J_j[:,d] with

    C = −½ a W_EE + b u_ij·W_FE − ½ b ⟨W_FF, J_iJ_jᵀ⟩ + c u_ijᵀ W_FF u_ji
    v = −2a W_FE + 2b W_FF u_ji.

For whole structures, on the subset that hyperparameters are found with; the weights then go into
`GaussianProcess(feature_weights=...)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pymlp.covariances import squared_distances
from pymlp.gaussian_process.assembly import Blocks, covariance_matrix
from pymlp.gaussian_process.cholesky import factorize, solve_
from pymlp.gaussian_process.likelihood import Hyperparameters, noise_diagonal
from pymlp.gaussian_process.points import Points

__all__ = ["fit_feature_weights", "scaled", "weight_slopes"]


def scaled(points: Points, weights: Tensor) -> Points:
    """Features and Jacobians times weights [p]."""
    jacobian = None if points.jacobian is None else points.jacobian * weights
    return replace(points, features=points.features * weights, jacobian=jacobian)


def weight_slopes(
    points: Points, targets: Tensor, hyperparameters: Hyperparameters
) -> tuple[float, Tensor]:
    """The log marginal likelihood and its derivatives by the logarithm of every feature's weight.

    Args:
        points: whole structures with energies and derivatives, no symmetry; already scaled.
        targets: [m] observations minus the mean.
        hyperparameters: at which; the signal variance is the given one.

    Returns:
        L, and ∂L/∂ln w_d [p].

    Raises:
        ValueError: points of the GAP sum, with a symmetry, or without energies or derivatives.
        ArithmeticError: not positive definite in spite of jitter.
    """
    symmetric = points.symmetry is not None or points.characters is not None
    if len(points.types) != 1 or symmetric or points.jacobian is None or not points.energies:
        raise ValueError(
            "points must be whole structures with energies and derivatives, without symmetry"
        )
    covariance, sigma = hyperparameters.covariance, hyperparameters.signal_variance
    noise = noise_diagonal(
        [points], hyperparameters.relative_energy_noise, hyperparameters.relative_force_noise
    )
    factor, _ = factorize(lambda: covariance_matrix([points], covariance.terms), noise)
    half = solve_(factor, targets[:, None].clone())
    quadratic = float(half.square().sum())
    alpha = solve_(factor, half, transposed=True)[:, 0]
    m = len(targets)
    value = -0.5 * (
        quadratic / sigma
        + 2.0 * float(factor.diagonal().log().sum())
        + m * math.log(2.0 * math.pi * sigma)
    )
    weight = torch.cholesky_inverse(factor.tril_()).neg_().addr_(alpha, alpha, alpha=1.0 / sigma)
    blocks = Blocks.of(weight, points, points)
    assert blocks.ee is not None
    assert blocks.fe is not None
    assert blocks.ff is not None

    x, jacobian = points.features[:, 0], points.jacobian[:, 0]  # [n, p], [n, r, p]
    flat = jacobian.flatten(0, 1)
    s = squared_distances(x, x)
    _, a, b = covariance.terms(s)
    c = covariance.curvature_slope(s)
    own = torch.einsum("nrp,np->nr", jacobian, x)
    u = own[:, :, None] - (flat @ x.mT).unflatten(0, own.shape)  # u_ij [n, r, n]
    u_other = u.permute(2, 1, 0)  # u_ji as [i, r', j]
    turned = torch.einsum("irjq,iqj->irj", blocks.ff, u_other)  # W_FF u_ji
    inner = (flat @ flat.mT).view(blocks.ff.shape)
    squares = -0.5 * a * blocks.ee + b * (u * blocks.fe).sum(1)
    squares -= 0.5 * b * torch.einsum("irjq,irjq->ij", blocks.ff, inner)
    squares += c * (u * turned).sum(1)
    v = 2.0 * (b[:, None] * turned - a[:, None] * blocks.fe)
    slopes = (squares.sum(1) + squares.sum(0)) @ x.square() - 2.0 * (x * (squares @ x)).sum(0)
    slopes += (x * torch.einsum("nrp,nr->np", jacobian, v.sum(2))).sum(0)
    slopes -= (flat * (v.flatten(0, 1) @ x)).sum(0)
    both = (blocks.ff * a[:, None, :, None]).flatten(2, 3).flatten(0, 1)
    slopes += (flat * (both @ flat)).sum(0)
    return value, slopes


def fit_feature_weights(
    points: Points,
    targets: Tensor,
    hyperparameters: Hyperparameters,
    groups: Tensor,
    max_iterations: int = 30,
    report: Callable[[str], None] | None = None,
) -> Tensor:
    """Weights of groups of features at the maximum of the likelihood, other parameters fixed.

    Args:
        points: unscaled, as for `weight_slopes`.
        targets: [m].
        hyperparameters: from `maximize_likelihood` with equal weights.
        groups: [p] int64, the group 0 … G−1 of every feature; features of one group share a weight.
        max_iterations: of L-BFGS.
        report: called with one line per evaluation.

    Returns:
        [p] weights, one value per group; multiply a length scale by 1/weight to read them.
    """
    from scipy.optimize import minimize

    count = int(groups.max()) + 1
    best: tuple[float, list[float]] = (-math.inf, [0.0] * count)

    def spread(vector: list[float]) -> Tensor:
        return torch.tensor(vector, dtype=points.features.dtype).exp().to(groups.device)[groups]

    def objective(vector: list[float]) -> tuple[float, list[float]]:
        nonlocal best
        value, slopes = weight_slopes(scaled(points, spread(vector)), targets, hyperparameters)
        if value > best[0]:
            best = (value, list(vector))
        if report is not None:
            report(f"log likelihood {value:.2f} with feature weights")
        total = slopes.new_zeros(count).index_add_(0, groups, slopes)
        m = len(targets)
        return -value / m, [-slope / m for slope in total.tolist()]

    minimize(
        objective,
        [0.0] * count,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-5.0, 5.0)] * count,
        options={"maxiter": max_iterations},
    )
    return spread(best[1])
