"""The log marginal likelihood: its value, its gradient, its maximum."""

from __future__ import annotations

import math

import pytest
import torch

from pymlp.covariances import RBF, Covariance, Matern52, RationalQuadratic
from pymlp.gaussian_process.assembly import covariance_matrix
from pymlp.gaussian_process.likelihood import (
    Hyperparameters,
    log_marginal_likelihood,
    maximize_likelihood,
    noise_diagonal,
)
from pymlp.gaussian_process.points import Points

FUNCTIONS = [RBF(1.7), Matern52(2.1), RationalQuadratic(1.5, 0.7)]
SWAP = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4]])


def system(types: tuple[int, ...], symmetry: torch.Tensor | None = None) -> list[Points]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((30, len(types), 5), generator=generator, dtype=torch.float64)
    jacobian = torch.randn((30, len(types), 6, 5), generator=generator, dtype=torch.float64)
    points = Points(features, jacobian, types, symmetry=symmetry)
    return [points[:17], points[17:]]


def full(groups: list[Points], covariance: Covariance) -> torch.Tensor:
    lower = covariance_matrix(groups, covariance.terms).tril()
    return lower + lower.tril(-1).mT


def targets_for(groups: list[Points]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    size = sum(points.n_rows for points in groups)
    return torch.randn(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("covariance", FUNCTIONS, ids=[f.name for f in FUNCTIONS])
@pytest.mark.parametrize(
    ("types", "symmetry"),
    [((0,), None), ((0,), SWAP), ((0, 0, 1), None)],
    ids=["whole", "symmetric", "sum"],
)
def test_value_and_gradient(
    covariance: Covariance, types: tuple[int, ...], symmetry: torch.Tensor | None
) -> None:
    groups = system(types, symmetry)
    y = targets_for(groups)

    def value(function: Covariance, energy: float, force: float, sigma: float | None) -> float:
        return log_marginal_likelihood(
            groups, y, function, energy, force, sigma, gradient=False
        ).value

    for sigma in (None, 1.4):
        result = log_marginal_likelihood(groups, y, covariance, 1e-2, 3e-2, sigma)
        noise = torch.diag(noise_diagonal(groups, 1e-2, 3e-2))
        normal = torch.distributions.MultivariateNormal(
            torch.zeros_like(y), result.signal_variance * (full(groups, covariance) + noise)
        )
        assert result.value == pytest.approx(float(normal.log_prob(y)), rel=1e-10)
        h = 1e-5
        up, down = math.exp(h), math.exp(-h)
        for name, parameter in covariance.parameters().items():
            slope = (
                value(covariance.replace(**{name: parameter * up}), 1e-2, 3e-2, sigma)
                - value(covariance.replace(**{name: parameter * down}), 1e-2, 3e-2, sigma)
            ) / (2 * h)
            assert result.gradient[name] == pytest.approx(slope, rel=1e-6, abs=1e-5)
        slope = (
            value(covariance, 1e-2 * up, 3e-2, sigma) - value(covariance, 1e-2 * down, 3e-2, sigma)
        ) / (2 * h)
        assert result.gradient["energy_noise"] == pytest.approx(slope, rel=1e-6, abs=1e-5)
        slope = (
            value(covariance, 1e-2, 3e-2 * up, sigma) - value(covariance, 1e-2, 3e-2 * down, sigma)
        ) / (2 * h)
        assert result.gradient["force_noise"] == pytest.approx(slope, rel=1e-6, abs=1e-5)
        if sigma is not None:
            slope = (
                value(covariance, 1e-2, 3e-2, sigma * up)
                - value(covariance, 1e-2, 3e-2, sigma * down)
            ) / (2 * h)
            assert result.gradient["signal_variance"] == pytest.approx(slope, rel=1e-6, abs=1e-5)


def test_the_concentrated_variance_is_the_maximum() -> None:
    groups = system((0,))
    y = targets_for(groups)
    best = log_marginal_likelihood(groups, y, RBF(1.7), 1e-2, 3e-2)
    at_best = log_marginal_likelihood(groups, y, RBF(1.7), 1e-2, 3e-2, best.signal_variance)
    assert at_best.value == pytest.approx(best.value)
    assert at_best.gradient["signal_variance"] == pytest.approx(0.0, abs=1e-8)


def test_the_maximum_recovers_what_the_data_were_drawn_with() -> None:
    groups = system((0,))
    truth = Hyperparameters(RBF(2.5), 4.0, 0.2, 0.3)
    noise = noise_diagonal(groups, truth.relative_energy_noise, truth.relative_force_noise)
    factor = torch.linalg.cholesky(full(groups, truth.covariance) + torch.diag(noise))
    y = truth.signal_variance**0.5 * (factor @ targets_for(groups))
    lines: list[str] = []
    found, likelihood = maximize_likelihood(
        groups, y, Hyperparameters(RBF(1.0), 1.0, 0.03, 0.03), restarts=1, report=lines.append
    )
    assert lines
    assert found.covariance.length_scale == pytest.approx(2.5, rel=0.15)
    assert found.force_noise == pytest.approx(0.3, rel=0.5)
    at_truth = log_marginal_likelihood(
        groups,
        y,
        truth.covariance,
        truth.relative_energy_noise,
        truth.relative_force_noise,
        gradient=False,
    )
    assert likelihood.value >= at_truth.value - 1e-6
    kept, _ = maximize_likelihood(groups, y, truth, fixed=("length_scale",))
    assert kept.covariance.length_scale == pytest.approx(2.5)
    with pytest.raises(ValueError, match="fixed must name"):
        maximize_likelihood(groups, y, truth, fixed=("lengthscale",))
