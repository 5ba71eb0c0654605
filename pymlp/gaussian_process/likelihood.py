"""The log marginal likelihood (eq 19), its analytic gradient, and its maximum.

With K̃ = K/σ_f² + diag(λ), λ_E = σ_E²/σ_f² on energies and λ_F = σ_F²/σ_f² on derivatives, m
observations y (the mean subtracted) and α = K̃⁻¹y,

    L = −½ yᵀα/σ_f² − ½ ln|K̃| − m/2 ln(2πσ_f²).

Its maximum over σ_f² is at yᵀα/m, and that is the value used unless one is given (the
"concentrated" likelihood: one parameter less to search for). For any other parameter θ

    ∂L/∂θ = ½ tr(W ∂K̃/∂θ),    W = ααᵀ/σ_f² − K̃⁻¹,

and the trace with a covariance derivative is taken tile by tile with recomputed blocks, so no
second matrix of the size of K appears.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pymlp.covariances import Covariance
from pymlp.gaussian_process.assembly import Blocks, add_tile, covariance_matrix, lower_tiles
from pymlp.gaussian_process.cholesky import factorize, solve_
from pymlp.gaussian_process.points import Points, row_slices

__all__ = [
    "Hyperparameters",
    "Likelihood",
    "log_marginal_likelihood",
    "maximize_likelihood",
    "noise_diagonal",
]


@dataclass(frozen=True)
class Hyperparameters:
    """What the likelihood decides.

    Args:
        covariance: the unit-variance covariance function with its parameters.
        signal_variance: σ_f² in eV².
        energy_noise: σ_E in eV.
        force_noise: σ_F in eV/Å (of the derivative rows).
    """

    covariance: Covariance
    signal_variance: float = 1.0
    energy_noise: float = 1e-3
    force_noise: float = 1e-2

    @property
    def relative_energy_noise(self) -> float:
        """λ_E = σ_E²/σ_f²."""
        return self.energy_noise**2 / self.signal_variance

    @property
    def relative_force_noise(self) -> float:
        """λ_F = σ_F²/σ_f²."""
        return self.force_noise**2 / self.signal_variance

    def for_structures(
        self, found_with: int, count: int, label_noise: float = 0.0
    ) -> Hyperparameters:
        """The noises for more structures than those they were found with.

        They are mostly what the covariance cannot follow between so few structures, and shrink as
        there are more: on the Claisen set the likelihood of 40 structures gives 0.82 kcal/mol/Å for
        forces, that of 80 gives 0.65. Taken is 0.6 of them times the inverse square root of the
        number, which is better for the energies of validation structures at N = 100, 200 and 500
        and makes no difference to forces.

        Args:
            found_with: structures that the likelihood saw.
            count: structures to be fitted.
            label_noise: of forces in eV/Å, below which σ_F does not go.
        """
        factor = 0.6 * min(1.0, found_with / max(1, count)) ** 0.5
        force_noise = max(factor * self.force_noise, label_noise)
        return replace(self, energy_noise=factor * self.energy_noise, force_noise=force_noise)


@dataclass(frozen=True)
class Likelihood:
    """L at one point of the hyperparameters, in nats.

    `gradient` holds ∂L/∂ln θ for every covariance parameter, for "energy_noise" and "force_noise"
    (λ_E and λ_F: derivatives by their logarithms) and, where σ_f² was given, "signal_variance".
    """

    value: float
    signal_variance: float
    gradient: dict[str, float] = field(default_factory=dict)
    jitter: float = 0.0


def noise_diagonal(groups: list[Points], energy: float, force: float) -> Tensor:
    """The relative noise λ of every row, [m]."""
    parts = []
    for points in groups:
        parts.append(points.features.new_full((points.n_energies,), energy))
        parts.append(points.features.new_full((points.n_rows - points.n_energies,), force))
    return torch.cat(parts)


def log_marginal_likelihood(
    groups: list[Points],
    targets: Tensor,
    covariance: Covariance,
    energy_noise: float,
    force_noise: float,
    signal_variance: float | None = None,
    gradient: bool = True,
) -> Likelihood:
    """L and its gradient (eq 19).

    Args:
        groups: the points, float64.
        targets: [m] observations minus the mean.
        covariance: the unit-variance covariance.
        energy_noise: λ_E = σ_E²/σ_f².
        force_noise: λ_F = σ_F²/σ_f².
        signal_variance: σ_f², or None for its maximising value yᵀK̃⁻¹y/m.
        gradient: whether to compute the gradient (twice as much work again).

    Raises:
        ArithmeticError: K̃ is not positive definite in spite of jitter.
    """
    noise = noise_diagonal(groups, energy_noise, force_noise)
    factor, jitter = factorize(lambda: covariance_matrix(groups, covariance.terms), noise)
    m = targets.shape[0]
    half = solve_(factor, targets[:, None].clone())
    quadratic = float(half.square().sum())
    alpha = solve_(factor, half, transposed=True).squeeze(1)
    sigma = quadratic / m if signal_variance is None else signal_variance
    log_determinant = 2.0 * float(factor.diagonal().log().sum())
    value = -0.5 * (quadratic / sigma + log_determinant + m * math.log(2.0 * math.pi * sigma))
    if not gradient:
        return Likelihood(value, sigma, jitter=jitter)

    weight = torch.cholesky_inverse(factor.tril_()).neg_()
    del factor
    weight.addr_(alpha, alpha, alpha=1.0 / sigma)
    slopes = _covariance_slopes(groups, covariance, weight)
    energies = noise.new_zeros(m, dtype=torch.bool)
    for points, rows in zip(groups, row_slices(groups), strict=True):
        energies[rows.start : rows.start + points.n_energies] = True
    diagonal = weight.diagonal()
    slopes["energy_noise"] = 0.5 * energy_noise * float(diagonal[energies].sum())
    slopes["force_noise"] = 0.5 * force_noise * float(diagonal[~energies].sum())
    if signal_variance is not None:
        slopes["signal_variance"] = 0.5 * (quadratic / sigma - m)
    return Likelihood(value, sigma, slopes, jitter)


def _covariance_slopes(
    groups: list[Points], covariance: Covariance, weight: Tensor
) -> dict[str, float]:
    """½ tr(W ∂K̃/∂ln θ) of every covariance parameter, tile by tile."""
    slopes = dict.fromkeys(covariance.parameters(), 0.0)
    slices = row_slices(groups)
    for g, h, i, j in lower_tiles(groups):
        rows, columns = groups[g][i], groups[h][j]
        view = Blocks.of(weight[slices[g], slices[h]], groups[g], groups[h]).part(i, j)
        factor = 0.5 if g == h and i == j else 1.0
        scratch = weight.new_empty((rows.n_rows, columns.n_rows))
        blocks = Blocks.of(scratch, rows, columns)
        for name in slopes:
            for count, image in enumerate(columns.images()):
                add_tile(
                    rows,
                    image,
                    lambda s, name=name: covariance.log_derivative(name, s),  # type: ignore[misc]
                    blocks,
                    accumulate=count > 0,
                )
            slopes[name] += factor * view.dot(blocks)
    return slopes


def maximize_likelihood(
    groups: list[Points],
    targets: Tensor,
    start: Hyperparameters,
    restarts: int = 0,
    max_iterations: int = 60,
    fixed: tuple[str, ...] = (),
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> tuple[Hyperparameters, Likelihood]:
    """Maximise the concentrated likelihood with L-BFGS over the logarithms of the parameters.

    Args:
        groups: the points.
        targets: [m] observations minus the mean.
        start: where to begin; its signal variance only enters through λ = σ²/σ_f².
        restarts: further starts, scattered around the first one; the best end wins.
        max_iterations: of one L-BFGS run.
        fixed: names of parameters to leave alone ("length_scale", "energy_noise", ...).
        seed: of the scattered starts.
        report: called with one line per evaluation.

    Returns:
        The best hyperparameters and their likelihood.

    Raises:
        ValueError: an unknown name in `fixed`.
    """
    from scipy.optimize import minimize

    has_energies = any(points.n_energies for points in groups)
    has_forces = any(points.n_directions for points in groups)
    values = {name: math.log(value) for name, value in start.covariance.parameters().items()}
    values["energy_noise"] = math.log(max(start.relative_energy_noise, 1e-14))
    values["force_noise"] = math.log(max(start.relative_force_noise, 1e-14))
    unknown = sorted(set(fixed) - set(values))
    if unknown:
        raise ValueError(f"fixed must name parameters among {sorted(values)}, got {unknown}")
    free = [name for name in values if name not in fixed]
    if not has_energies:
        free = [name for name in free if name != "energy_noise"]
    if not has_forces:
        free = [name for name in free if name != "force_noise"]
    generator = torch.Generator().manual_seed(seed)
    bounds = [
        (math.log(1e-14), math.log(1e4))
        if name.endswith("noise")
        else (values[name] - 7.0, values[name] + 7.0)
        for name in free
    ]

    def unpack(vector: list[float]) -> tuple[Covariance, float, float]:
        point = {**values, **dict(zip(free, vector, strict=True))}
        names = start.covariance.parameters()
        covariance = start.covariance.replace(**{name: math.exp(point[name]) for name in names})
        return covariance, math.exp(point["energy_noise"]), math.exp(point["force_noise"])

    best: tuple[Likelihood, list[float]] | None = None

    def objective(vector: list[float]) -> tuple[float, list[float]]:
        nonlocal best
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                result = log_marginal_likelihood(groups, targets, *unpack(vector))
        except ArithmeticError:
            return 1e30, [0.0] * len(free)
        if best is None or result.value > best[0].value:
            best = (result, list(vector))
        if report is not None:
            shown = ", ".join(f"{n} {math.exp(v):.3g}" for n, v in zip(free, vector, strict=True))
            report(f"log likelihood {result.value:.2f} at {shown}")
        m = targets.shape[0]  # per observation: L-BFGS's tolerances are then of order one
        return -result.value / m, [-result.gradient[name] / m for name in free]

    origin = [values[name] for name in free]
    for attempt in range(restarts + 1):
        shift = torch.randn(len(free), generator=generator, dtype=torch.float64).tolist()
        spread = 0.0 if attempt == 0 else 1.0
        first = [x + spread * dx for x, dx in zip(origin, shift, strict=True)]
        minimize(
            objective,
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": max_iterations, "ftol": 1e-8, "gtol": 1e-5},
        )
    if best is None:
        raise ArithmeticError("the likelihood could not be evaluated at any starting point")
    likelihood, vector = best
    covariance, energy, force = unpack(vector)
    sigma = likelihood.signal_variance
    found = Hyperparameters(covariance, sigma, (energy * sigma) ** 0.5, (force * sigma) ** 0.5)
    return found, likelihood
