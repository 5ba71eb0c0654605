"""Agreement with GPyTorch: RBFKernelGrad, the Müller-Brown surface, the adapter in its models."""

from __future__ import annotations

import pytest
import torch

gpytorch = pytest.importorskip("gpytorch")

from pymlp.covariances import RBF, RationalQuadratic  # noqa: E402
from pymlp.gaussian_process import ConcatenatedInputs, InverseDistances  # noqa: E402
from pymlp.gaussian_process.assembly import covariance_block  # noqa: E402
from pymlp.gaussian_process.likelihood import log_marginal_likelihood  # noqa: E402
from pymlp.gpytorch_adapter import (  # noqa: E402
    DerivativeKernel,
    structure_points,
    vector_points,
)
from tests.gp_oracle import molecules, small_ani  # noqa: E402


def mueller_brown(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """V and its gradient (SPEC section 4, lesson 1)."""
    amplitude = torch.tensor([-200.0, -100, -170, 15], dtype=torch.float64)
    a = torch.tensor([-1.0, -1, -6.5, 0.7], dtype=torch.float64)
    b = torch.tensor([0.0, 0, 11, 0.6], dtype=torch.float64)
    c = torch.tensor([-10.0, -10, -6.5, 0.7], dtype=torch.float64)
    x0 = torch.tensor([1.0, 0, -0.5, -1], dtype=torch.float64)
    y0 = torch.tensor([0.0, 0.5, 1.5, 1], dtype=torch.float64)
    q = points.clone().requires_grad_(True)
    x, y = q[:, :1] - x0, q[:, 1:] - y0
    value = 0.1 * (amplitude * torch.exp(a * x**2 + b * x * y + c * y**2)).sum(1)
    (gradient,) = torch.autograd.grad(value.sum(), q)
    return value.detach(), gradient


def surface(step: float) -> torch.Tensor:
    x = torch.arange(-1.8, 1.41, step, dtype=torch.float64)
    y = torch.arange(-0.4, 2.41, step, dtype=torch.float64)
    grid = torch.cartesian_prod(x, y)
    return grid[mueller_brown(grid)[0] < 10]


def exact(value: float) -> torch.Tensor:
    """A parameter that GPyTorch does not round to float32 on its way."""
    return torch.tensor(value, dtype=torch.float64)


class Model(gpytorch.models.ExactGP):
    def __init__(self, x, y, likelihood, kernel) -> None:
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ConstantMeanGrad()
        self.covar_module = gpytorch.kernels.ScaleKernel(kernel)

    def forward(self, x):
        return gpytorch.distributions.MultitaskMultivariateNormal(
            self.mean_module(x), self.covar_module(x)
        )


def test_blocks_are_those_of_rbf_kernel_grad() -> None:
    x = torch.randn((6, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = gpytorch.kernels.RBFKernelGrad().double()
    theirs.lengthscale = exact(1.3)
    ours = DerivativeKernel(covariance=RBF(1.3))
    torch.testing.assert_close(
        ours(x, x[:4]).to_dense(), theirs(x, x[:4]).to_dense(), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(ours(x, diag=True), theirs(x, diag=True), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["inverse_distances", "concatenated"])
def test_structure_blocks_are_the_projected_kernel(kind: str) -> None:
    inputs = InverseDistances() if kind == "inverse_distances" else ConcatenatedInputs(small_ani())
    batch = molecules(4)
    features, jacobian = inputs.features(batch)[:, 0], inputs.jacobian(batch, None)[:, 0]
    theirs = gpytorch.kernels.RBFKernelGrad().double()
    theirs.lengthscale = exact(1.7)
    dense = theirs(features).to_dense()
    p = features.shape[1]
    blocks = torch.zeros((4, 13, p + 1), dtype=torch.float64)
    blocks[:, 0, 0] = 1.0
    blocks[:, 1:, 1:] = jacobian
    projection = torch.block_diag(*blocks)
    kernel = DerivativeKernel(structure_points(inputs, torch.tensor([6, 8, 1, 1])), RBF(1.7))
    x = batch.positions.view(4, 12)
    projected = projection @ dense @ projection.mT
    torch.testing.assert_close(kernel(x).to_dense(), projected, rtol=0, atol=1e-12)


def test_posterior_and_likelihood_on_the_mueller_brown_surface() -> None:
    x = surface(0.4)
    value, gradient = mueller_brown(x)
    y = torch.cat((value[:, None], gradient), dim=1)
    new = surface(0.35)[::3]
    results, gradients = [], []
    for kernel in (gpytorch.kernels.RBFKernelGrad(), DerivativeKernel(covariance=RBF(0.3))):
        likelihood = gpytorch.likelihoods.MultitaskGaussianLikelihood(num_tasks=3)
        model = Model(x, y, likelihood, kernel).double()
        if isinstance(kernel, gpytorch.kernels.RBFKernelGrad):
            kernel.lengthscale = exact(0.3)
        likelihood.noise = exact(1e-3)
        likelihood.task_noises = torch.full((3,), 1e-3, dtype=torch.float64)
        model.covar_module.outputscale = exact(25.0)
        with gpytorch.settings.fast_computations(False, False, False):
            model.train()
            likelihood.train()
            loss = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)(model(x), y)
            loss.backward()
            raw = (
                kernel.raw_lengthscale
                if hasattr(kernel, "raw_lengthscale")
                and isinstance(kernel, gpytorch.kernels.RBFKernelGrad)
                else kernel.raw_length_scale
            )
            gradients.append((float(loss), float(raw.grad.sum())))
            model.eval()
            likelihood.eval()
            with torch.no_grad():
                results.append(model(new).mean)
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-8)
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-8)
    # And the likelihood of this package, at the same noise (2e-3 in all) and variance.
    points = vector_points(x)
    targets = torch.cat((value, gradient.flatten()))
    ours = log_marginal_likelihood([points], targets, RBF(0.3), 2e-3 / 25, 2e-3 / 25, 25.0)
    assert ours.value / targets.numel() == pytest.approx(gradients[1][0], rel=1e-10)


def test_other_covariances_train() -> None:
    x = surface(0.5)
    kernel = DerivativeKernel(covariance=RationalQuadratic(0.5, 1.0))
    total = kernel(x).to_dense().square().sum()
    total.backward()
    slope = {}
    for name in ("length_scale", "alpha"):
        raw = getattr(kernel, f"raw_{name}")
        step = 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                raw += sign * step
                values.append(float(kernel(x).to_dense().square().sum()))
                raw -= sign * step
        slope[name] = (values[0] - values[1]) / (2 * step)
        assert float(raw.grad) == pytest.approx(slope[name], rel=1e-6)
    points = vector_points(x)
    torch.testing.assert_close(
        kernel(x, diag=True),
        covariance_block(points, points, RationalQuadratic(0.5, 1.0).terms).diagonal()[
            torch.cat(
                [torch.tensor([i, *(len(x) + 2 * i + k for k in range(2))]) for i in range(len(x))]
            )
        ],
    )
    with pytest.raises(RuntimeError, match="batch"):
        kernel(x[None]).to_dense()
