"""Sparse Gaussian process: inducing points, solved by streamed QR.

With inducing rows u, K_uu = L_uu L_uuᵀ and T = L_uu⁻¹ K_uf, the training covariance is approximated
by Q = TᵀT plus a block-diagonal remainder D:

    DTC   D = Λ
    FITC  D = Λ + diag(K_ff − Q)
    PITC  D = Λ + (K_ff − Q) within each structure: its energy and derivatives stay coupled

and the mean is the least-squares solution of [D^-½ Tᵀ; 1] β = [D^-½ y; 0], α_u = L_uu^−ᵀ β. It is
taken by QR, block of structures after block, never by the normal equations, and nothing larger than
M × (M + one block) exists. The last row of the triangular factor is yᵀ(Q + D)⁻¹y, the diagonal
gives |Q + D|: the likelihood comes free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pymlp.gaussian_process.assembly import (
    Radial,
    covariance_block,
    covariance_matrix,
    prior_blocks,
)
from pymlp.gaussian_process.cholesky import factorize, solve_
from pymlp.gaussian_process.conjugate_gradients import random_components
from pymlp.gaussian_process.likelihood import Hyperparameters
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.training_set import TrainingSet

__all__ = ["SparseOptions", "SparseSolution", "inducing_points", "select", "solve_sparse"]


@dataclass(frozen=True)
class SparseOptions:
    """How inducing points are chosen and used.

    Args:
        inducing: M, rows altogether.
        approximation: "dtc", "fitc" or "pitc".
        kind: "environments" (energies of environments, or of whole structures), or
            "components" (energies and `components` derivatives per structure).
        selection: of environments: "farthest" points, "cur" (leverage scores) or "random".
        components: derivatives per structure where `kind` is "components".
        seed: of random choices.
    """

    inducing: int = 1000
    approximation: Literal["dtc", "fitc", "pitc"] = "pitc"
    kind: Literal["environments", "components"] = "environments"
    selection: Literal["farthest", "cur", "random"] = "farthest"
    components: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.inducing < 1:
            raise ValueError(f"inducing must be at least 1, got {self.inducing}")
        choices = {
            "approximation": ("dtc", "fitc", "pitc"),
            "kind": ("environments", "components"),
            "selection": ("farthest", "cur", "random"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class SparseSolution:
    """Weights on the inducing rows, the factors of the posterior, and the likelihood."""

    weights: Tensor
    inner: Tensor  # L_uu
    outer: Tensor  # Rᵀ of the whitened least-squares problem, lower triangular
    log_likelihood: float
    jitter: float


def select(
    features: Tensor, count: int, how: Literal["farthest", "cur", "random"], seed: int = 0
) -> Tensor:
    """Indices [count] of representative rows of features [M, p].

    Farthest points start at the row next to the mean and always add the row with the largest
    distance to those chosen. CUR adds the rows with the largest leverage in the leading `count`
    singular vectors.
    """
    count = min(count, len(features))
    generator = torch.Generator().manual_seed(seed)
    if how == "random":
        return torch.randperm(len(features), generator=generator)[:count].to(features.device)
    if how == "cur":
        left, _, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
        leverage = left[:, : min(count, left.shape[1])].square().sum(1)
        return leverage.topk(count).indices
    first = int((features - features.mean(0)).square().sum(1).argmin())
    chosen = [first]
    distance = (features - features[first]).square().sum(1)
    while len(chosen) < count:
        step = int(distance.argmax())
        chosen.append(step)
        distance = torch.minimum(distance, (features - features[step]).square().sum(1))
    return torch.tensor(chosen, device=features.device)


def inducing_points(groups: list[Points], options: SparseOptions) -> list[Points]:
    """The inducing rows of a training set.

    Environments are shared among the types in proportion to how many there are.
    """
    if options.kind == "components":
        return random_components(groups, options.components, options.inducing, options.seed)
    features: dict[int, list[Tensor]] = {}
    for points in groups:
        for kind in sorted(set(points.types)):
            which = points.environments_of(kind)
            features.setdefault(kind, []).append(points.features[:, which].flatten(0, 1))
    together = {kind: torch.cat(parts) for kind, parts in features.items()}
    total = sum(len(item) for item in together.values())
    chosen = []
    for kind, item in together.items():
        share = max(1, round(options.inducing * len(item) / total))
        picked = item[select(item, share, options.selection, options.seed)]
        one = Points(picked[:, None], None, (kind,))
        if len(groups[0].types) == 1:
            one = replace(one, symmetry=groups[0].symmetry, characters=groups[0].characters)
        chosen.append(one)
    return chosen


def solve_sparse(
    training: TrainingSet,
    inducing: list[Points],
    hyperparameters: Hyperparameters,
    approximation: Literal["dtc", "fitc", "pitc"] = "pitc",
    block: int = 16,
) -> SparseSolution:
    """Weights of the inducing rows at unit signal variance.

    Args:
        training: points and targets.
        inducing: from `inducing_points`.
        hyperparameters: of the covariance and the noises.
        approximation: what of K_ff − Q is kept.
        block: structures at a time.

    Raises:
        ArithmeticError: K_uu is not positive definite in spite of jitter.
    """
    radial = hyperparameters.covariance.terms
    targets = training.targets
    size = sum(points.n_rows for points in inducing)
    # The floor keeps K_uu invertible where inducing points nearly coincide.
    floor = targets.new_full((size,), 1e-10)
    inner, jitter = factorize(lambda: covariance_matrix(inducing, radial), floor)
    # The whitened normal problem, with the right-hand side as one more column.
    triangle = torch.eye(size + 1, dtype=targets.dtype, device=targets.device)
    triangle[size, size] = 0.0
    log_determinant, start = 0.0, 0
    for points in training.groups:
        energies, derivatives = points.split_rows(targets[start : start + points.n_rows])
        start += points.n_rows
        for first in range(0, len(points), block):
            some = slice(first, first + block)
            part = points[some]
            rows = _projected(part, inducing, inner, radial)  # [n, w, M]
            y = _by_structure(
                None if energies is None else energies[some],
                None if derivatives is None else derivatives[some],
            )
            noise = _noise_blocks(part, hyperparameters)
            if approximation == "dtc":
                scale = noise.rsqrt()
                log_determinant += float(noise.log().sum())
                rows, y = rows * scale[..., None], y * scale
            else:
                remainder = prior_blocks(part, radial) - rows @ rows.mT
                if approximation == "fitc":
                    diagonal = remainder.diagonal(dim1=1, dim2=2).clamp(min=0.0) + noise
                    scale = diagonal.rsqrt()
                    log_determinant += float(diagonal.log().sum())
                    rows, y = rows * scale[..., None], y * scale
                else:
                    remainder.diagonal(dim1=1, dim2=2).add_(noise)
                    factor = torch.linalg.cholesky(remainder)
                    logs = factor.diagonal(dim1=1, dim2=2).log()
                    log_determinant += 2.0 * float(logs.sum())
                    both = torch.cat((rows, y[..., None]), dim=2)
                    both = torch.linalg.solve_triangular(factor, both, upper=False)
                    rows, y = both[..., :-1], both[..., -1]
            stacked = torch.cat((rows, y[..., None]), dim=2).flatten(0, 1)
            triangle = torch.linalg.qr(torch.cat((triangle, stacked)), mode="r").R
    upper = triangle[:size, :size]
    log_determinant += 2.0 * float(upper.diagonal().abs().log().sum())
    quadratic = float(triangle[size, size].square())
    weights = torch.linalg.solve_triangular(upper, triangle[:size, size:], upper=True)
    solve_(inner, weights, transposed=True)
    sigma, m = hyperparameters.signal_variance, len(targets)
    likelihood = -0.5 * (quadratic / sigma + log_determinant + m * math.log(2.0 * math.pi * sigma))
    return SparseSolution(weights[:, 0], inner, upper.mT.contiguous(), likelihood, jitter)


def _projected(part: Points, inducing: list[Points], inner: Tensor, radial: Radial) -> Tensor:
    """(L_uu⁻¹ K_uf)ᵀ of every structure's rows, [n, w, M]."""
    columns = inner.new_empty((len(inner), part.n_rows))
    start = 0
    for points in inducing:
        stop = start + points.n_rows
        covariance_block(points, part, radial, out=columns[start:stop])
        start = stop
    solve_(inner, columns)
    energies, derivatives = part.split_rows(columns.mT)
    pieces = [] if energies is None else [energies[:, None]]
    if derivatives is not None:
        pieces.append(derivatives)
    return torch.cat(pieces, dim=1)


def _by_structure(energies: Tensor | None, derivatives: Tensor | None) -> Tensor:
    pieces = [] if energies is None else [energies[:, None]]
    if derivatives is not None:
        pieces.append(derivatives)
    return torch.cat(pieces, dim=1)


def _noise_blocks(part: Points, hyperparameters: Hyperparameters) -> Tensor:
    """λ of every structure's rows, [n, w]."""
    energies = part.features.new_full((len(part), 1), hyperparameters.relative_energy_noise)
    shape = (len(part), part.n_directions)
    derivatives = part.features.new_full(shape, hyperparameters.relative_force_noise)
    return torch.cat((energies, derivatives) if part.energies else (derivatives,), dim=1)
