"""Structures left out of a fit, against fits without them."""

from __future__ import annotations

import pytest
import torch

from pymlp.covariances import RBF
from pymlp.gaussian_process import GaussianProcess, InverseDistances, SolverOptions
from pymlp.gaussian_process.leave_one_out import LeftOut, deviation_scale, left_out
from pymlp.gaussian_process.likelihood import noise_diagonal
from pymlp.gaussian_process.solvers import solve
from pymlp.structures import Batch
from tests.gp_oracle import molecules


def fitted(batch: Batch) -> GaussianProcess:
    process = GaussianProcess(
        InverseDistances(), RBF(0.6), mean="zero", energy_noise=2e-3, force_noise=2e-2
    )
    process.fit(batch, optimize=False, method="cholesky")
    return process


def test_errors_and_variances_are_those_of_a_fit_without() -> None:
    batch = molecules(8)
    process = GaussianProcess(
        InverseDistances(), RBF(0.6), mean="zero", energy_noise=2e-3, force_noise=2e-2
    )
    training = process.prepare(batch, batch.energies, batch.forces)
    parameters = process.hyperparameters
    noise = noise_diagonal(
        training.groups, parameters.relative_energy_noise, parameters.relative_force_noise
    )
    result = solve("cholesky", training, parameters, SolverOptions(), process.report)
    assert result.posterior is not None
    found = left_out(result.groups, result.posterior.subtract, result.weights, noise, 8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    for position, index in enumerate(order.tolist()):
        others = [k for k in range(8) if k != index]
        without = fitted(batch[torch.tensor(others)])
        one = batch[torch.tensor([index])]
        prediction = without.predict(one, variance=True)
        error = float(one.energies - prediction.energy)
        assert float(found.energy_errors[position]) == pytest.approx(error, rel=1e-6, abs=1e-9)
        assert float(found.energy_variances[position]) == pytest.approx(
            float(prediction.energy_std) ** 2, rel=1e-6
        )
        # The six internal components turn among themselves: their norm is the Cartesian one.
        own = slice(6 * position, 6 * position + 6)
        difference = one.forces - prediction.forces
        net = found.derivative_errors[own].square().sum()
        assert prediction.forces_std is not None
        total = prediction.forces_std.square().sum()
        assert float(found.derivative_variances[own].sum()) == pytest.approx(float(total), rel=1e-6)
        assert float(net) == pytest.approx(float(difference.square().sum()), rel=1e-4)


def test_the_scale_makes_the_mean_square_one() -> None:
    errors = torch.tensor([0.2, -0.4], dtype=torch.float64)
    variances = torch.tensor([0.02, 0.08], dtype=torch.float64)
    result = LeftOut(errors, variances, 3 * errors, variances)
    assert deviation_scale(result, 2.0) == pytest.approx((1.0, 3.0))
    nothing = torch.zeros(0, dtype=torch.float64)
    assert deviation_scale(LeftOut(nothing, nothing, errors, variances), 2.0)[0] == 1.0


def test_a_fit_scales_its_deviations() -> None:
    batch, new = molecules(30, spread=0.08), molecules(40, seed=7, spread=0.08)
    process = GaussianProcess(
        InverseDistances(), RBF(0.6), energy_noise=2e-3, force_noise=2e-2, signal_variance=100.0
    )
    deviations = []
    for leave_out in (None, 30):
        process.fit(batch, optimize=False, method="cholesky", leave_out=leave_out)
        deviations.append(process.predict(new, variance=True))
    energy, force = process.deviation_scale
    assert energy < 0.9, "a signal variance far too large makes deviations far too wide"
    assert deviations[0].energy_std is not None
    torch.testing.assert_close(deviations[1].energy_std, energy * deviations[0].energy_std)
    torch.testing.assert_close(deviations[1].forces_std, force * deviations[0].forces_std)
    z = (deviations[1].energy - new.energies) / deviations[1].energy_std
    assert 0.4 < float(z.square().mean().sqrt()) < 2.5
    assert process.report.cpu_seconds["leave_one_out"] >= 0.0
