"""A Gaussian process over points of a plain space: values and gradients of a function of ℝᵖ.

The machinery of `regression` without structures: every point is its own feature vector, so its
Jacobian is the identity and the directions are the coordinates. For model surfaces, collective
variables, and to see what the equations do (eqs 15-29).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pymlp.covariances import RBF, Covariance
from pymlp.gaussian_process.assembly import covariance_matrix
from pymlp.gaussian_process.cholesky import factorize, solve_
from pymlp.gaussian_process.likelihood import (
    Hyperparameters,
    Likelihood,
    log_marginal_likelihood,
    maximize_likelihood,
    noise_diagonal,
)
from pymlp.gaussian_process.points import Points, concatenate_rows
from pymlp.gaussian_process.prediction import Sources, evaluate, sources_of
from pymlp.gaussian_process.variance import Posterior

__all__ = ["VectorPrediction", "VectorProcess"]


@dataclass(frozen=True)
class VectorPrediction:
    """Predictions at n points; standard deviations (without noise) where they were asked for."""

    values: Tensor  # [n]
    gradients: Tensor | None = None  # [n, p]
    values_std: Tensor | None = None  # [n]
    gradients_std: Tensor | None = None  # [n, p]


class VectorProcess:
    """A Gaussian process over points of ℝᵖ, in float64.

    Args:
        covariance: with its parameters, or where the search for them begins; a length scale in
            the units of the points.
        mean: subtracted from the values: their mean, or nothing.
        signal_variance: σ_f².
        value_noise: σ_n of observed values, a standard deviation (eq 18).
        gradient_noise: that of observed gradient components.
    """

    def __init__(
        self,
        covariance: Covariance | None = None,
        *,
        mean: Literal["constant", "zero"] = "constant",
        signal_variance: float = 1.0,
        value_noise: float = 1e-3,
        gradient_noise: float = 1e-2,
    ) -> None:
        if mean not in ("constant", "zero"):
            raise ValueError(f"mean must be 'constant' or 'zero', got {mean!r}")
        self.mean = mean
        self.hyperparameters = Hyperparameters(
            covariance or RBF(), signal_variance, value_noise, gradient_noise
        )
        self.offset = 0.0
        self.center: Tensor | None = None
        self.jitter = 0.0
        self._groups: list[Points] = []
        self._targets: Tensor | None = None
        self._sources: Sources | None = None
        self._posterior: Posterior | None = None

    def observe(
        self, points: Tensor, values: Tensor | None = None, gradients: Tensor | None = None
    ) -> VectorProcess:
        """Take observations, in place of earlier ones; nothing is computed yet.

        Args:
            points: [n, p].
            values: [n], or None.
            gradients: [n, p], or None.

        Returns:
            The process itself.

        Raises:
            ValueError: neither values nor gradients, or shapes that do not fit.
        """
        n, p = _shape(points)
        if values is None and gradients is None:
            raise ValueError("values or gradients must be given, got neither")
        if values is not None and values.shape != (n,):
            raise ValueError(f"values must have shape [{n}], got {list(values.shape)}")
        if gradients is not None and gradients.shape != (n, p):
            raise ValueError(f"gradients must have shape [{n}, {p}], got {list(gradients.shape)}")
        x = points.detach().to(torch.float64)
        self.center = x.mean(0)  # squared distances are exact near the origin
        self.offset = 0.0
        if values is not None and self.mean == "constant":
            self.offset = float(values.detach().mean())
        group = self._points(x, gradients is not None)
        if values is None:
            group = group.without_energies()
        self._groups = [group]
        self._targets = concatenate_rows(
            group,
            None if values is None else values.detach().to(torch.float64) - self.offset,
            None if gradients is None else gradients.detach().to(torch.float64),
        )
        self._sources = self._posterior = None
        return self

    def log_likelihood(
        self, hyperparameters: Hyperparameters | None = None, gradient: bool = False
    ) -> Likelihood:
        """The log marginal likelihood (eq 19) of the observations.

        Args:
            hyperparameters: other than the process's own.
            gradient: also its derivatives by the logarithms of the hyperparameters.

        Raises:
            ValueError: nothing has been observed.
        """
        h = hyperparameters or self.hyperparameters
        return log_marginal_likelihood(
            self._groups,
            self._observed(),
            h.covariance,
            h.relative_energy_noise,
            h.relative_force_noise,
            h.signal_variance,
            gradient,
        )

    def optimize(
        self,
        *,
        subset: int | None = None,
        fixed: tuple[str, ...] = (),
        restarts: int = 0,
        report: Callable[[str], None] | None = None,
    ) -> Likelihood:
        """Maximise the likelihood; sets `hyperparameters`.

        Args:
            subset: points to look at, drawn at random (always the same); None for all.
            fixed: parameters to leave alone: of the covariance ("length_scale", ...), and
                "energy_noise", "force_noise" (of values and gradients, relative to σ_f²).
            restarts: further starts, scattered around the first.
            report: called with a line for every evaluation.

        Raises:
            ValueError: nothing has been observed, an unknown name in `fixed`.
        """
        targets = self._observed()
        (group,) = self._groups
        if subset is not None and subset < len(group):
            generator = torch.Generator().manual_seed(0)
            keep = torch.randperm(len(group), generator=generator)[:subset].to(targets.device)
            values, slopes = (
                None if part is None else part[keep] for part in group.split_rows(targets)
            )
            group = group[keep]
            targets = concatenate_rows(group, values, slopes)
        self.hyperparameters, likelihood = maximize_likelihood(
            [group],
            targets,
            self.hyperparameters,
            restarts=restarts,
            fixed=fixed,
            report=report,
        )
        self._sources = self._posterior = None
        return likelihood

    def predict(
        self, points: Tensor, *, gradients: bool = True, variance: bool = False, chunk: int = 256
    ) -> VectorPrediction:
        """Mean (eqs 20, 22, 26, 28) and standard deviation (eqs 21, 27, 29).

        Args:
            points: [n, p].
            gradients: whether those are wanted.
            variance: whether standard deviations are wanted.
            chunk: points at a time.

        Raises:
            ValueError: nothing has been observed, another number of coordinates.
            ArithmeticError: a covariance matrix that no jitter makes positive definite.
        """
        observed = self._observed()
        p = self._groups[0].features.shape[2]
        if _shape(points)[1] != p:
            raise ValueError(f"points must have {p} coordinates, got {points.shape[1]}")
        if self._sources is None:
            self._condition(observed)
        h, parts = self.hyperparameters, []
        for x in points.detach().to(torch.float64).split(chunk):
            new = self._points(x, gradients)
            parts.append(self._mean_and_deviation(new, h, gradients, variance))
        mean, slope, std, slope_std = zip(*parts, strict=True)
        return VectorPrediction(
            torch.cat(mean) + self.offset,
            torch.cat(slope) if gradients else None,
            torch.cat(std) if variance else None,
            torch.cat(slope_std) if gradients and variance else None,
        )

    def _mean_and_deviation(
        self, new: Points, h: Hyperparameters, gradients: bool, variance: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert self._sources is not None
        assert self._posterior is not None
        mean, slope = evaluate(self._sources, new.features[:, 0], h.covariance, gradients)
        none = mean.new_zeros(0)
        if not variance:
            return mean, none if slope is None else slope, none, none
        blocks = self._posterior.covariance(new, h.covariance)
        own = blocks.diagonal(dim1=1, dim2=2).clamp(min=0.0) * h.signal_variance
        return mean, none if slope is None else slope, own[:, 0].sqrt(), own[:, 1:].sqrt()

    def _condition(self, targets: Tensor) -> None:
        """K̃α = y by Cholesky."""
        h = self.hyperparameters
        noise = noise_diagonal(self._groups, h.relative_energy_noise, h.relative_force_noise)
        factor, self.jitter = factorize(
            lambda: covariance_matrix(self._groups, h.covariance.terms), noise
        )
        weights = targets[:, None].clone()
        solve_(factor, weights)
        solve_(factor, weights, transposed=True)
        self._sources = sources_of(self._groups, weights[:, 0])[0]
        self._posterior = Posterior(self._groups, factor)

    def _observed(self) -> Tensor:
        if self._targets is None:
            raise ValueError("observations must be given first, by observe()")
        return self._targets

    def _points(self, x: Tensor, derivatives: bool) -> Points:
        """Points with the identity as the Jacobian of each."""
        n, p = x.shape
        jacobian = None
        if derivatives:
            jacobian = torch.eye(p, dtype=x.dtype, device=x.device).expand(n, 1, p, p).contiguous()
        assert self.center is not None
        return Points((x - self.center)[:, None], jacobian)


def _shape(points: Tensor) -> tuple[int, int]:
    if points.dim() != 2 or not len(points):
        raise ValueError(f"points must have shape [n, p] with n above 0, got {list(points.shape)}")
    return points.shape[0], points.shape[1]
