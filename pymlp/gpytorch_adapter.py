"""Our features and covariance blocks as a ``gpytorch.kernels.Kernel``, for people who live there.

The kernel's outputs per input are the energy and its derivatives along D directions, ordered as
GPyTorch's own ``RBFKernelGrad`` orders them (point by point), so that its means, likelihoods and
models for derivative observations fit without change. Values come from `gaussian_process.assembly`,
the derivative with respect to the length scale (and other parameters of the covariance) from
the closed forms of `covariances`; nothing is differentiated through.

GPyTorch is not a dependency of this package: install it to import this module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gpytorch
import torch
from torch import Tensor

from pymlp.covariances import RBF, Covariance
from pymlp.gaussian_process.assembly import covariance_block, prior_blocks
from pymlp.gaussian_process.inputs import StructureInputs
from pymlp.gaussian_process.points import Points
from pymlp.structures import Batch

__all__ = ["DerivativeKernel", "structure_points", "vector_points"]

PointMaker = Callable[[Tensor], Points]


def vector_points(x: Tensor) -> Points:
    """Points whose features are the inputs themselves: x [n, D], derivatives by every component."""
    n, width = x.shape
    eye = torch.eye(width, dtype=x.dtype, device=x.device)
    return Points(x[:, None], eye.expand(n, 1, width, width))


def structure_points(inputs: StructureInputs, numbers: Tensor) -> PointMaker:
    """Points of structures given as flat Cartesian coordinates x [n, 3N] in Å.

    Args:
        inputs: the features, for example `ConcatenatedInputs(descriptor)`.
        numbers: [N] atomic numbers of every structure.
    """

    def points(x: Tensor) -> Points:
        batch = Batch.from_arrays(numbers, x.view(len(x), -1, 3))
        return Points(
            inputs.features(batch),
            inputs.jacobian(batch, None),
            inputs.types(batch.numbers[: len(numbers)]),
        )

    return points


class _Block(torch.autograd.Function):
    """A covariance block, differentiable in the covariance's parameters alone."""

    @staticmethod
    def forward(
        ctx: Any, rows: Points, columns: Points, covariance: Covariance, *parameters: Tensor
    ) -> Tensor:
        values = dict(zip(covariance.parameters(), (float(p) for p in parameters), strict=True))
        ctx.points, ctx.covariance = (rows, columns), covariance.replace(**values)
        return covariance_block(rows, columns, ctx.covariance.terms)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        slopes: list[Tensor] = []
        for name, value in ctx.covariance.parameters().items():
            rows, columns = ctx.points
            radial = partial(ctx.covariance.log_derivative, name)
            block = covariance_block(rows, columns, radial)
            slopes.append((gradients[0] * block).sum() / value)
        return (None, None, None, *slopes)


class DerivativeKernel(gpytorch.kernels.Kernel):
    """Energies and their derivatives under one of our covariance functions.

    Multiply by a ``ScaleKernel`` for the signal variance.

    Args:
        points: from inputs x [n, D] to `Points` with D directions; `vector_points` (the default),
            or `structure_points(...)`.
        covariance: the function, with starting parameters; they become the kernel's.

    Raises:
        RuntimeError: for batch dimensions, which the kernel does not have.
    """

    has_lengthscale = False

    def __init__(
        self,
        points: PointMaker = vector_points,
        covariance: Covariance | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.points = points
        self.covariance = covariance or RBF()
        for name, value in self.covariance.parameters().items():
            start = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
            self.register_parameter(f"raw_{name}", start)
            self.register_constraint(f"raw_{name}", gpytorch.constraints.Positive())
            constraint = getattr(self, f"raw_{name}_constraint")
            with torch.no_grad():
                start.copy_(constraint.inverse_transform(torch.tensor(value, dtype=torch.float64)))

    def parameter_value(self, name: str) -> Tensor:
        """A parameter of the covariance ("length_scale", ...) as a positive tensor."""
        constraint = getattr(self, f"raw_{name}_constraint")
        value: Tensor = constraint.transform(getattr(self, f"raw_{name}"))
        return value

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """1 + D."""
        return 1 + int(x1.shape[-1])

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **options: Any) -> Tensor:
        """The covariance [n (1 + D), n' (1 + D)], or its diagonal."""
        if x1.dim() != 2 or x2.dim() != 2:
            raise RuntimeError("DerivativeKernel takes inputs [n, D] without batch dimensions")
        with torch.no_grad():
            rows, columns = self.points(x1), self.points(x2)
        names = self.covariance.parameters()
        parameters = [self.parameter_value(name) for name in names]
        if diag:
            values = {name: float(p) for name, p in zip(names, parameters, strict=True)}
            own = prior_blocks(rows, self.covariance.replace(**values).terms)
            return own.diagonal(dim1=1, dim2=2).flatten()
        block = _Block.apply(rows, columns, self.covariance, *parameters)
        return block[_interleaved(rows)][:, _interleaved(columns)]


def _interleaved(points: Points) -> Tensor:
    """Our rows (energies first) in GPyTorch's order (point by point)."""
    n, r = len(points), points.n_directions
    index = torch.arange(n, device=points.features.device)
    derivatives = n + index[:, None] * r + torch.arange(r, device=index.device)
    return torch.cat((index[:, None], derivatives), dim=1).flatten()
