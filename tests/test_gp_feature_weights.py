"""Length scales per feature: the closed-form gradient, and what the weights are good for."""

from __future__ import annotations

import math

import pytest
import torch

from pymlp.covariances import RBF, Covariance, Matern52, RationalQuadratic
from pymlp.gaussian_process import GaussianProcess, InverseDistances
from pymlp.gaussian_process.feature_weights import fit_feature_weights, scaled, weight_slopes
from pymlp.gaussian_process.likelihood import Hyperparameters, log_marginal_likelihood
from pymlp.gaussian_process.points import Points
from tests.gp_oracle import molecules


def system() -> tuple[Points, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((12, 1, 5), generator=generator, dtype=torch.float64)
    jacobian = torch.randn((12, 1, 4, 5), generator=generator, dtype=torch.float64)
    points = Points(features, jacobian)
    return points, torch.randn(points.n_rows, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("covariance", [RBF(1.9), Matern52(2.3), RationalQuadratic(1.7, 0.8)])
def test_slopes_against_finite_differences(covariance: Covariance) -> None:
    points, targets = system()
    parameters = Hyperparameters(covariance, 1.3, 0.1, 0.2)
    value, slopes = weight_slopes(points, targets, parameters)
    direct = log_marginal_likelihood(
        [points],
        targets,
        covariance,
        parameters.relative_energy_noise,
        parameters.relative_force_noise,
        1.3,
    )
    assert value == pytest.approx(direct.value, rel=1e-12)
    step = 1e-5
    for feature in range(5):
        values = []
        for sign in (1, -1):
            weights = torch.ones(5, dtype=torch.float64)
            weights[feature] = math.exp(sign * step)
            values.append(weight_slopes(scaled(points, weights), targets, parameters)[0])
        slope = (values[0] - values[1]) / (2 * step)
        assert float(slopes[feature]) == pytest.approx(slope, rel=1e-6, abs=1e-6)
    # All weights together are one over the length scale.
    assert float(slopes.sum()) == pytest.approx(-direct.gradient["length_scale"], rel=1e-9)


def test_weights_raise_the_likelihood_and_lower_the_errors() -> None:
    train, new = molecules(40, spread=0.1), molecules(20, seed=3, spread=0.1)
    plain = GaussianProcess(InverseDistances(), RBF())
    training = plain.prepare(train, train.energies, train.forces)
    plain.optimize(training, subset=20)
    part = training.subset(20)
    lines: list[str] = []
    weights = fit_feature_weights(
        part.groups[0], part.targets, plain.hyperparameters, torch.arange(6), report=lines.append
    )
    values = [float(line.split()[2]) for line in lines]
    assert max(values) > values[0] + 5.0
    weighted = GaussianProcess(InverseDistances(), feature_weights=weights)
    weighted.hyperparameters = plain.hyperparameters
    errors = []
    for process in (plain, weighted):
        process.fit(train, optimize=False, method="cholesky")
        errors.append(float((process.predict(new).forces - new.forces).std()))
    assert errors[1] < errors[0]


def test_what_it_cannot_do_is_refused() -> None:
    points, targets = system()
    parameters = Hyperparameters(RBF(1.0))
    for wrong in (points.without_derivatives(), points.without_energies()):
        with pytest.raises(ValueError, match="whole structures"):
            weight_slopes(wrong, targets, parameters)
