"""Stationary covariance functions of the squared feature distance (eq 17 and its relatives).

A covariance here is a function of s = |g − g'|² with unit variance, k(0) = 1. Everything that a
Gaussian process with derivative observations (eqs 24-29) needs of it is three numbers per pair
of points,

    k = f(s),    a = −2 f′(s),    b = 4 f″(s),

because with δ = g − g'

    ∂k/∂g = −a δ,    ∂k/∂g' = a δ,    ∂²k/∂g∂g'ᵀ = a I − b δ δᵀ.

The signal variance σ_f² multiplies all of it and is kept by the regression, not here. Each class
states (k, a, b), the slope db/ds, and the derivatives of (k, a, b) with respect to the
logarithms of its own parameters, all in closed form. Tensors only; any device, any real dtype.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "COVARIANCES",
    "RBF",
    "Covariance",
    "Matern52",
    "RadialTerms",
    "RationalQuadratic",
    "squared_distances",
]


class RadialTerms(NamedTuple):
    """The three radial numbers (k, a, b) of every pair, each of the shape of s."""

    k: Tensor
    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Covariance(ABC):
    """A unit-variance covariance function of s = |g − g'|².

    Args:
        length_scale: l > 0, in the units of the features.

    Raises:
        ValueError: a parameter is not a positive finite number.
    """

    length_scale: float = 1.0

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for name, value in self.parameters().items():
            if not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a positive finite number, got {value!r}")

    def parameters(self) -> dict[str, float]:
        """The positive parameters by name, `length_scale` first."""
        return {field.name: float(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def replace(self, **parameters: float) -> Covariance:
        """The same function with other parameter values."""
        return dataclasses.replace(self, **parameters)

    @abstractmethod
    def terms(self, s: Tensor) -> RadialTerms:
        """(k, a, b) at the squared distances s ≥ 0 (any shape)."""

    @abstractmethod
    def curvature_slope(self, s: Tensor) -> Tensor:
        """db/ds at s ≥ 0, of the shape of s; needed for length scales per feature only."""

    @abstractmethod
    def log_derivative(self, parameter: str, s: Tensor) -> RadialTerms:
        """∂(k, a, b)/∂ ln(parameter) at s.

        Raises:
            ValueError: the covariance has no parameter of that name.
        """

    def contract(self, s: Tensor, w: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted sums of the matrix-free product, for one tile of pairs.

        Args:
            s: [M, N] squared distances.
            w: [M, N] the derivative weights z_j·(g_i − g_j).
            alpha: [N] the energy weights.

        Returns:
            The energies Σ_j (k α_j + a w) [M], a [M, N], and c = a α + b w [M, N].
        """
        k, a, b = self.terms(s)
        energies = k @ alpha + (a * w).sum(1)
        return energies, a, torch.addcmul(a * alpha, b, w)

    def at_zero(self) -> tuple[float, float, float]:
        """(k, a, b) at s = 0 as plain numbers."""
        k, a, b = self.terms(torch.zeros((), dtype=torch.float64))
        return float(k), float(a), float(b)

    def to_config(self) -> dict[str, Any]:
        """A dictionary that `Covariance.from_config` turns back into this object."""
        return {"name": self.name, **self.parameters()}

    @staticmethod
    def from_config(config: dict[str, Any]) -> Covariance:
        """The inverse of `to_config`.

        Raises:
            ValueError: unknown name or unknown parameter.
        """
        parameters = dict(config)
        name = parameters.pop("name", None)
        if name not in COVARIANCES:
            raise ValueError(f"covariance must be one of {sorted(COVARIANCES)}, got {name!r}")
        kind = COVARIANCES[name]
        known = {field.name for field in dataclasses.fields(kind)}
        unknown = sorted(set(parameters) - known)
        if unknown:
            raise ValueError(
                f"covariance {name!r} has the parameters {sorted(known)}, got {unknown}"
            )
        return kind(**parameters)

    def _no_parameter(self, parameter: str) -> ValueError:
        known = sorted(self.parameters())
        return ValueError(f"parameter of {self.name!r} must be one of {known}, got {parameter!r}")


@dataclass(frozen=True)
class RBF(Covariance):
    """Radial basis function (eq 17): k = exp(−s/2l²), a = k/l², b = k/l⁴."""

    name: ClassVar[str] = "rbf"

    def terms(self, s: Tensor) -> RadialTerms:
        """(k, a, b) of eq 17."""
        inverse_square = self.length_scale**-2
        k = torch.exp(s * (-0.5 * inverse_square))
        a = k * inverse_square
        return RadialTerms(k, a, a * inverse_square)

    def contract(self, s: Tensor, w: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As in the base class, with a = k/l² and b = a/l² factored out: one exponential."""
        inverse_square = self.length_scale**-2
        k = torch.exp(s * (-0.5 * inverse_square))
        c = torch.add(alpha, w, alpha=inverse_square).mul_(k)
        energies = c.sum(1)
        return energies, k.mul_(inverse_square), c.mul_(inverse_square)

    def curvature_slope(self, s: Tensor) -> Tensor:
        """db/ds = −b/2l²."""
        return self.terms(s).b * (-0.5 * self.length_scale**-2)

    def log_derivative(self, parameter: str, s: Tensor) -> RadialTerms:
        """∂/∂ln l: k s/l², a (s/l² − 2), b (s/l² − 4)."""
        if parameter != "length_scale":
            raise self._no_parameter(parameter)
        k, a, b = self.terms(s)
        scaled = s * self.length_scale**-2
        return RadialTerms(k * scaled, a * (scaled - 2.0), b * (scaled - 4.0))


@dataclass(frozen=True)
class Matern52(Covariance):
    """Matérn covariance of smoothness 5/2, with ρ = √(5s)/l.

    k = (1 + ρ + ρ²/3) e^−ρ, a = (5/3l²)(1 + ρ) e^−ρ, b = (25/3l⁴) e^−ρ, all finite at s = 0.
    """

    name: ClassVar[str] = "matern52"

    def _rho(self, s: Tensor) -> Tensor:
        return torch.sqrt(s * (5.0 * self.length_scale**-2))

    def terms(self, s: Tensor) -> RadialTerms:
        """(k, a, b) as in the class docstring."""
        inverse_square = self.length_scale**-2
        rho = self._rho(s)
        decay = torch.exp(-rho)
        return RadialTerms(
            (1.0 + rho * (1.0 + rho / 3.0)) * decay,
            (5.0 / 3.0 * inverse_square) * (1.0 + rho) * decay,
            (25.0 / 3.0 * inverse_square**2) * decay,
        )

    def contract(self, s: Tensor, w: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As in the base class, in place where it can be; without k where all α are zero."""
        inverse_square = self.length_scale**-2
        rho = self._rho(s)
        decay = rho.neg().exp_()
        with_energies = bool(alpha.any())
        k = (1.0 + rho * (1.0 + rho / 3.0)).mul_(decay) if with_energies else None
        a = rho.add_(1.0).mul_(decay).mul_(5.0 / 3.0 * inverse_square)
        c = decay.mul_(w).mul_(25.0 / 3.0 * inverse_square**2)
        energies = torch.linalg.vecdot(a, w)
        if k is not None:
            energies += k @ alpha
            c.addcmul_(a, alpha)
        return energies, a, c

    def curvature_slope(self, s: Tensor) -> Tensor:
        """db/ds = −(5/2l²) b/ρ; it diverges as 1/ρ, and 0 is returned at s = 0.

        Every use multiplies it by a squared difference that vanishes faster.
        """
        rho = self._rho(s)
        slope = self.terms(s).b * (-2.5 * self.length_scale**-2) / rho
        return torch.where(rho > 0, slope, torch.zeros_like(slope))

    def log_derivative(self, parameter: str, s: Tensor) -> RadialTerms:
        """∂/∂ln l through ∂ρ/∂ln l = −ρ: a s, s b − 2a, b (ρ − 4)."""
        if parameter != "length_scale":
            raise self._no_parameter(parameter)
        _, a, b = self.terms(s)
        return RadialTerms(a * s, s * b - 2.0 * a, b * (self._rho(s) - 4.0))


@dataclass(frozen=True)
class RationalQuadratic(Covariance):
    """Rational quadratic, a mixture of RBFs, with t = 1 + s/2αl².

    k = t^−α, a = t^(−α−1)/l², b = (α+1)/α · t^(−α−2)/l⁴; α → ∞ is the RBF.

    Args:
        length_scale: l > 0, in the units of the features.
        alpha: α > 0, the mixture exponent.
    """

    alpha: float = 1.0

    name: ClassVar[str] = "rational_quadratic"

    def _log_base(self, s: Tensor) -> tuple[Tensor, Tensor]:
        excess = s * (0.5 / self.alpha * self.length_scale**-2)  # t − 1
        return torch.log1p(excess), excess / (1.0 + excess)

    def terms(self, s: Tensor) -> RadialTerms:
        """(k, a, b) as in the class docstring."""
        inverse_square = self.length_scale**-2
        log_t, _ = self._log_base(s)
        k = torch.exp(-self.alpha * log_t)
        inverse_t = torch.exp(-log_t)
        a = k * inverse_t * inverse_square
        b = a * inverse_t * (inverse_square * (self.alpha + 1.0) / self.alpha)
        return RadialTerms(k, a, b)

    def curvature_slope(self, s: Tensor) -> Tensor:
        """db/ds = −(α+2)/(2αl²) · b/t."""
        log_t, _ = self._log_base(s)
        factor = -0.5 * (self.alpha + 2.0) / self.alpha * self.length_scale**-2
        return self.terms(s).b * torch.exp(-log_t) * factor

    def log_derivative(self, parameter: str, s: Tensor) -> RadialTerms:
        """∂/∂ln l: a s, s b − 2a, −4b − 2s db/ds; ∂/∂ln α through ∂t/∂ln α = 1 − t."""
        k, a, b = self.terms(s)
        if parameter == "length_scale":
            return RadialTerms(a * s, s * b - 2.0 * a, -4.0 * b - 2.0 * s * self.curvature_slope(s))
        if parameter != "alpha":
            raise self._no_parameter(parameter)
        log_t, ratio = self._log_base(s)  # ln t and (t − 1)/t
        alpha = self.alpha
        common = -alpha * log_t
        return RadialTerms(
            k * (common + alpha * ratio),
            a * (common + (alpha + 1.0) * ratio),
            b * (common + (alpha + 2.0) * ratio - 1.0 / (alpha + 1.0)),
        )


COVARIANCES: dict[str, type[Covariance]] = {
    kind.name: kind for kind in (RBF, Matern52, RationalQuadratic)
}


def squared_distances(x: Tensor, y: Tensor, refine: bool = True) -> Tensor:
    """Return s = |x_i − y_j|² by one GEMM, exact where the GEMM form cancels.

    Pairs closer than 1e-5 of their length (duplicates above all) are recomputed from the
    difference, so that the square root in the Matérn function sees no rounding noise. Centre
    the features before calling: the rounding error scales with their length.

    Args:
        x: [M, p].
        y: [N, p].
        refine: recompute close pairs; a prediction does without, where the terms that see the
            noise vanish with the distance.

    Returns:
        [M, N], never negative.
    """
    lengths = (x * x).sum(-1)[:, None] + (y * y).sum(-1)[None, :]
    s = torch.addmm(lengths, x, y.mT, alpha=-2.0)
    if not refine:
        return s.clamp_(min=0.0)
    threshold = 1e-10 if s.dtype == torch.float64 else 1e-5
    close = torch.nonzero(s < threshold * lengths)
    if close.numel():
        rows, columns = close.unbind(1)
        s[rows, columns] = (x[rows] - y[columns]).square().sum(-1)
    return s.clamp_(min=0.0)
