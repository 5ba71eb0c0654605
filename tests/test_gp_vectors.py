"""A Gaussian process over plain points, against eqs 19-29 by automatic differentiation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pymlp.covariances import RBF, Matern52, RationalQuadratic
from pymlp.gaussian_process import Hyperparameters, VectorProcess
from pymlp.surfaces import MuellerBrown

SURFACE = MuellerBrown()
LENGTH, VARIANCE, SIGMA, SIGMA_GRADIENT = 0.4, 30.0, 0.05, 0.1


def points(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = SURFACE.low_points(SURFACE.grid())
    return low[torch.randperm(len(low), generator=generator)[:n]]


def covariance(a: Tensor, b: Tensor) -> Tensor:
    """Of value and both slopes at one point with those at another, eq 24, [3, 3]."""

    def k(x: Tensor, y: Tensor) -> Tensor:
        return VARIANCE * torch.exp(-(x - y).square().sum() / (2 * LENGTH**2))

    def row(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([k(x, y)[None], torch.func.jacrev(k, 1)(x, y)])

    return torch.stack([row(a, b), *torch.func.jacrev(row, 0)(a, b).T])


def blocks(x: Tensor, y: Tensor) -> Tensor:
    """[3 n, 3 m], point by point."""
    one = torch.func.vmap(torch.func.vmap(covariance, (None, 0)), (0, None))(x, y)
    return one.permute(0, 2, 1, 3).reshape(3 * len(x), 3 * len(y))


def oracle(train: Tensor, new: Tensor, keep: list[int]) -> tuple[Tensor, Tensor, float]:
    """Mean and standard deviation [m, 3], and the log likelihood; `keep`: what is observed."""
    value, slope = SURFACE.energy(train), SURFACE.gradient(train)
    offset = value.mean() if 0 in keep else 0.0
    rows = torch.cat([(value - offset)[:, None], slope], dim=1)[:, keep].flatten()
    seen = torch.tensor([3 * i + k for i in range(len(train)) for k in keep])
    noise = torch.tensor([SIGMA if k == 0 else SIGMA_GRADIENT for k in keep]).repeat(len(train))
    full = blocks(train, train)[seen][:, seen] + torch.diag(noise.to(torch.float64) ** 2)
    cross = blocks(new, train)[:, seen]
    mean = (cross @ torch.linalg.solve(full, rows)).view(-1, 3)
    spread = blocks(new, new) - cross @ torch.linalg.solve(full, cross.T)
    likelihood = -0.5 * (
        rows @ torch.linalg.solve(full, rows)
        + torch.linalg.slogdet(full)[1]
        + len(rows) * math.log(2 * math.pi)
    )
    mean[:, 0] += offset
    return mean, spread.diagonal().view(-1, 3).sqrt(), float(likelihood)


@pytest.mark.parametrize(
    "keep", [[0], [1, 2], [0, 1, 2]], ids=["values", "gradients", "values and gradients"]
)
def test_prediction_variance_and_likelihood(keep: list[int]) -> None:
    train, new = points(25, 0), points(8, 1) + 0.03
    process = VectorProcess(
        RBF(LENGTH),
        signal_variance=VARIANCE,
        value_noise=SIGMA,
        gradient_noise=SIGMA_GRADIENT,
    ).observe(
        train,
        SURFACE.energy(train) if 0 in keep else None,
        SURFACE.gradient(train) if 1 in keep else None,
    )
    mean, std, likelihood = oracle(train, new, keep)
    result = process.predict(new, variance=True, chunk=3)
    torch.testing.assert_close(result.values, mean[:, 0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(result.gradients, mean[:, 1:], rtol=1e-8, atol=1e-7)
    torch.testing.assert_close(result.values_std, std[:, 0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(result.gradients_std, std[:, 1:], rtol=1e-6, atol=1e-7)
    assert process.log_likelihood().value == pytest.approx(likelihood, rel=1e-8)


@pytest.mark.parametrize("kind", [RBF(0.6), Matern52(0.6), RationalQuadratic(0.6)])
def test_optimize_finds_a_maximum(kind) -> None:
    train = points(60, 2)
    process = VectorProcess(
        kind, signal_variance=50.0, value_noise=0.01, gradient_noise=0.1
    ).observe(train, SURFACE.energy(train), SURFACE.gradient(train))
    before = process.log_likelihood().value
    best = process.optimize(fixed=("energy_noise", "force_noise"))
    assert best.value > before
    found = process.hyperparameters
    assert process.log_likelihood().value == pytest.approx(best.value, rel=1e-9)
    for factor in (0.9, 1.1):
        other = found.covariance.replace(length_scale=factor * found.covariance.length_scale)
        moved = Hyperparameters(other, found.signal_variance, found.energy_noise, found.force_noise)
        assert process.log_likelihood(moved).value < best.value


def test_subset_of_all_points_is_all_of_them() -> None:
    train = points(30, 3)
    fits = []
    for subset in (None, 30, 12):
        process = VectorProcess(RBF(0.5)).observe(train, SURFACE.energy(train))
        process.optimize(subset=subset)
        fits.append(process.hyperparameters)
    assert fits[0] == fits[1]
    assert fits[2] != fits[0]


def test_the_lessons_targets() -> None:
    """Müller-Brown, 696 energies: below 0.1; with gradients below 0.02 and 0.2, everywhere."""
    train = SURFACE.low_points(SURFACE.grid())
    between = SURFACE.low_points(SURFACE.grid().shifted())
    for gradients, limit, slope_limit in ((None, 0.1, 1.0), (SURFACE.gradient(train), 0.02, 0.2)):
        process = VectorProcess(
            RBF(0.31), signal_variance=33.0, value_noise=6e-5, gradient_noise=6e-4
        ).observe(train, SURFACE.energy(train), gradients)
        for where in (train, between):
            result = process.predict(where)
            error = result.values - SURFACE.energy(where)
            slope_error = result.gradients - SURFACE.gradient(where)
            assert error.square().mean().sqrt() < limit
            assert slope_error.square().mean().sqrt() < slope_limit


def test_what_is_refused() -> None:
    x = points(4, 0)
    with pytest.raises(ValueError, match="observations must be given first"):
        VectorProcess().predict(x)
    with pytest.raises(ValueError, match="values or gradients must be given"):
        VectorProcess().observe(x)
    with pytest.raises(ValueError, match=r"values must have shape \[4\]"):
        VectorProcess().observe(x, x)
    with pytest.raises(ValueError, match=r"gradients must have shape \[4, 2\]"):
        VectorProcess().observe(x, gradients=x[:, :1])
    with pytest.raises(ValueError, match="must have 2 coordinates"):
        VectorProcess().observe(x, x[:, 0]).predict(x[:, :1])
    with pytest.raises(ValueError, match="mean must be"):
        VectorProcess(mean="median")  # type: ignore[arg-type]
