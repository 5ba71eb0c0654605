"""The three ways from a training set to weights: Cholesky, conjugate gradients, inducing points."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pymlp.gaussian_process.assembly import covariance_matrix
from pymlp.gaussian_process.checkpoints import load_state, save_state
from pymlp.gaussian_process.cholesky import factorize, solve_
from pymlp.gaussian_process.conjugate_gradients import (
    ConjugateGradients,
    Preconditioner,
    State,
    random_components,
)
from pymlp.gaussian_process.fit_report import FitReport
from pymlp.gaussian_process.likelihood import Hyperparameters, noise_diagonal
from pymlp.gaussian_process.memory import (
    available_memory,
    check_memory,
    cholesky_bytes,
    conjugate_gradients_bytes,
)
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.sharding import Shards
from pymlp.gaussian_process.sparse import SparseOptions, inducing_points, solve_sparse
from pymlp.gaussian_process.training_set import TrainingSet
from pymlp.gaussian_process.variance import Posterior

__all__ = ["SolverOptions", "solve"]


@dataclass(frozen=True)
class SolverOptions:
    """What the solvers can be told.

    Args:
        tolerance: of conjugate gradients, on the relative residual.
        max_iterations: of conjugate gradients.
        components: derivative components per structure in the preconditioner.
        max_columns: rows of the preconditioner; None for what a quarter of the memory holds.
        checkpoint_every: iterations between checkpoints.
        memory_limit: bytes that an exact fit may take; None for what is available.
        sparse: keyword arguments of `sparse.SparseOptions`.
        seed: of random choices.
    """

    tolerance: float = 1e-3
    max_iterations: int = 500
    components: int = 4
    max_columns: int | None = None
    checkpoint_every: int = 10
    memory_limit: int | None = None
    sparse: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """Weights on the rows of groups (at unit signal variance), and the posterior."""

    groups: list[Points]
    weights: Tensor
    posterior: Posterior | None


def solve(
    method: str,
    training: TrainingSet,
    hyperparameters: Hyperparameters,
    options: SolverOptions,
    report: FitReport,
    checkpoint: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Solve K̃ α = y by the named method; fills in the report.

    Raises:
        ValueError: unknown method; too large for the memory.
    """
    if method == "cholesky":
        return _cholesky(training, hyperparameters, options, report, progress)
    if method == "cg":
        return _conjugate_gradients(
            training, hyperparameters, options, report, checkpoint, progress
        )
    if method == "sparse":
        return _sparse(training, hyperparameters, options, report)
    raise ValueError(f"method must be auto, cholesky, cg or sparse, got {method!r}")


def _sparse(
    training: TrainingSet,
    hyperparameters: Hyperparameters,
    options: SolverOptions,
    report: FitReport,
) -> Result:
    chosen = SparseOptions(**options.sparse)
    inducing = inducing_points(training.groups, chosen)
    solution = solve_sparse(training, inducing, hyperparameters, chosen.approximation)
    report.inducing = len(solution.weights)
    report.jitter = solution.jitter
    posterior = Posterior(inducing, solution.inner, solution.outer)
    return Result(inducing, solution.weights, posterior)


def _noise(training: TrainingSet, hyperparameters: Hyperparameters) -> Tensor:
    return noise_diagonal(
        training.groups,
        hyperparameters.relative_energy_noise,
        hyperparameters.relative_force_noise,
    )


def _cholesky(
    training: TrainingSet,
    hyperparameters: Hyperparameters,
    options: SolverOptions,
    report: FitReport,
    progress: Callable[[str], None] | None,
) -> Result:
    rows = len(training.targets)
    check_memory(cholesky_bytes(rows, 0), options.memory_limit, training.targets.device, rows)
    radial = hyperparameters.covariance.terms

    def show(fraction: float) -> None:
        if progress is not None:
            progress(f"Cholesky factorisation {100 * fraction:.0f} %")

    factor, report.jitter = factorize(
        lambda: covariance_matrix(training.groups, radial),
        _noise(training, hyperparameters),
        progress=show,
    )
    weights = training.targets[:, None].clone()
    solve_(factor, weights)
    solve_(factor, weights, transposed=True)
    return Result(training.groups, weights[:, 0], Posterior(training.groups, factor))


def _conjugate_gradients(
    training: TrainingSet,
    hyperparameters: Hyperparameters,
    options: SolverOptions,
    report: FitReport,
    checkpoint: str | Path | None,
    progress: Callable[[str], None] | None,
) -> Result:
    shards = Shards()
    noise = _noise(training, hyperparameters)
    rows = len(training.targets)
    columns = options.max_columns
    if columns is None:
        budget = options.memory_limit or available_memory(training.targets.device)
        columns = max(500, int(budget / 4 / 8 / max(rows, 1)))
        while columns > 500 and conjugate_gradients_bytes(rows, columns, 0) > budget / 2:
            columns = int(0.9 * columns)
    chosen = random_components(
        training.groups, options.components, columns // shards.size, options.seed + shards.rank
    )
    chosen = shards.gather_points(chosen)
    preconditioner = Preconditioner(
        training.groups, chosen, hyperparameters.covariance, noise, shards
    )
    solver = ConjugateGradients(
        training.groups, hyperparameters.covariance, noise, preconditioner, shards
    )
    start = None
    if checkpoint is not None:
        start = load_state(checkpoint, hyperparameters, training.targets)

    def show(iteration: int, residual: float, state: State) -> None:
        if progress is not None:
            progress(f"conjugate gradients {iteration}: residual {residual:.2e}")
        if checkpoint is not None and iteration % options.checkpoint_every == 0:
            save_state(checkpoint, hyperparameters, training.targets, state)

    solution = solver.solve(
        training.targets, options.tolerance, options.max_iterations, start, show
    )
    report.iterations = solution.iterations
    report.residual = solution.residual
    report.converged = solution.converged
    if not solution.converged:
        warnings.warn(
            f"conjugate gradients stopped after {solution.iterations} iterations at a relative "
            f"residual of {solution.residual:.1e}: raise max_iterations, components or the noise",
            RuntimeWarning,
            stacklevel=2,
        )
    report.inducing = len(preconditioner.inner)
    posterior = Posterior(chosen, preconditioner.inner, preconditioner.outer)
    return Result(training.groups, solution.weights, posterior)
