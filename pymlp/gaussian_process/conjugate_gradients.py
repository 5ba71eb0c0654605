"""Preconditioned conjugate gradients for (K + Λ) α = y, matrix-free.

The preconditioner is the Nyström approximation on all energies and a few random derivative
components of every structure (not all components of a few structures: those leave directions of
every other structure untouched, and CG needs several times as many iterations). With
V = L_cc⁻¹K_cn,

    (VᵀV + Λ)⁻¹ = Λ⁻¹ − Λ⁻¹Vᵀ (I + VΛ⁻¹Vᵀ)⁻¹ VΛ⁻¹.

The structures may be sharded over the ranks of a torch.distributed group: every rank holds the rows
of its own, one all-gather of the sources is the communication of a product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pymlp.covariances import Covariance
from pymlp.gaussian_process.assembly import covariance_block, covariance_matrix
from pymlp.gaussian_process.cholesky import cholesky_, factorize, solve_
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.prediction import multiply, sources_of
from pymlp.gaussian_process.sharding import Shards

__all__ = ["ConjugateGradients", "Preconditioner", "Solution", "State", "random_components"]


def random_components(
    groups: list[Points], components: int, maximum: int, seed: int = 0
) -> list[Points]:
    """All energies and a few random derivative components of every structure.

    Args:
        groups: the training points.
        components: derivative rows per structure, fewer where `maximum` forbids; then of a random
            part of the structures only.
        maximum: rows in total.
        seed: of the choice.

    Returns:
        Points of the same features whose Jacobians hold the chosen rows.
    """
    generator = torch.Generator().manual_seed(seed)
    count = sum(len(points) for points in groups)
    energies = sum(points.n_energies for points in groups)
    share = min(1.0, max(0.0, maximum - energies) / max(1, components * count))
    energy_share = min(1.0, maximum / max(1, energies))
    chosen: list[Points] = []
    for points in groups:
        if points.n_energies:
            keep = torch.randperm(len(points), generator=generator)
            keep = keep[: round(energy_share * len(points))].sort().values
            chosen.append(points[keep.to(points.features.device)].without_derivatives())
        if points.jacobian is None:
            continue
        keep = torch.randperm(len(points), generator=generator)[: round(share * len(points))]
        keep = keep.sort().values
        if not len(keep):
            continue
        r = points.n_directions
        picks = torch.rand((len(keep), r), generator=generator).argsort(1)[:, : min(components, r)]
        device = points.features.device
        part = points[keep.to(device)].without_energies()
        assert part.jacobian is not None
        index = picks.to(device)[:, None, :, None]
        index = index.expand(-1, len(points.types), -1, points.features.shape[2])
        chosen.append(replace(part, jacobian=part.jacobian.gather(2, index)))
    return chosen


_BLOCK = 512


class Preconditioner:
    """The Nyström approximation of the covariance on chosen rows, inverted together with Λ.

    Args:
        groups: the (local) training points.
        chosen: the rows c of all ranks.
        covariance: the unit-variance covariance.
        noise: λ of every local row [m].
        shards: how the structures are distributed.

    Raises:
        ArithmeticError: K_cc is not positive definite in spite of jitter.
    """

    def __init__(
        self,
        groups: list[Points],
        chosen: list[Points],
        covariance: Covariance,
        noise: Tensor,
        shards: Shards,
    ) -> None:
        self.chosen = chosen
        size = sum(points.n_rows for points in chosen)
        floor = noise.new_full((size,), 1e-10)
        self.inner, _ = factorize(lambda: covariance_matrix(chosen, covariance.terms), floor)
        self.columns = noise.new_empty((size, noise.shape[0]))  # V Λ^-½
        start = 0
        for points in chosen:
            stop, left = start + points.n_rows, 0
            for others in groups:
                right = left + others.n_rows
                target = self.columns[start:stop, left:right]
                covariance_block(points, others, covariance.terms, out=target)
                left = right
            start = stop
        solve_(self.inner, self.columns, block=512)
        self.scale = noise.rsqrt()
        self.columns.mul_(self.scale)
        capacitance = noise.new_zeros((size, size))  # its lower triangle, by block rows
        for begin in range(0, size, _BLOCK):
            end = min(begin + _BLOCK, size)
            torch.mm(
                self.columns[begin:end], self.columns[:end].mT, out=capacitance[begin:end, :end]
            )
        shards.sum_(capacitance)
        capacitance.diagonal().add_(1.0)
        self.outer = cholesky_(capacitance)
        self.shards = shards

    def __call__(self, vector: Tensor) -> Tensor:
        """The approximate (K + Λ)⁻¹ v, [m] local rows."""
        scaled = self.scale * vector
        inner = (self.columns @ scaled)[:, None]
        self.shards.sum_(inner)
        solve_(self.outer, inner)
        solve_(self.outer, inner, transposed=True)
        return self.scale * (scaled - self.columns.mT @ inner[:, 0])


@dataclass(frozen=True)
class Solution:
    """α, and how it was reached."""

    weights: Tensor
    iterations: int
    residual: float  # |y − (K + Λ)α| / |y|, the larger of energies' and derivatives'
    converged: bool


class State(NamedTuple):
    """Where an iteration stands; continuing from it repeats what would have followed."""

    weights: Tensor  # [m]
    residual: Tensor  # [m]
    direction: Tensor  # [m]
    slope: Tensor  # rᵀP⁻¹r of the last step, a scalar; 0 before the first


class ConjugateGradients:
    """The solver: build once, run, continue.

    Args:
        groups: the local training points.
        covariance: the unit-variance covariance.
        noise: λ of every local row.
        preconditioner: applied to every residual; None for plain CG.
        shards: how the structures are distributed; one process by default.
    """

    def __init__(
        self,
        groups: list[Points],
        covariance: Covariance,
        noise: Tensor,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
        shards: Shards | None = None,
    ) -> None:
        self.groups = groups
        self.covariance = covariance
        self.noise = noise
        self.precondition = preconditioner or (lambda vector: vector / noise)
        self.shards = shards or Shards()

    def product(self, vector: Tensor) -> Tensor:
        """(K + Λ) v for the local rows, v local too."""
        sources = self.shards.gather_sources(sources_of(self.groups, vector))
        rows = [multiply(points, sources, self.covariance) for points in self.groups]
        return torch.cat(rows).addcmul_(self.noise, vector)

    def _energy_rows(self) -> Tensor:
        """Which local rows are energies, [m] bool."""
        parts = []
        for points in self.groups:
            rows = torch.arange(points.n_rows, device=self.noise.device)
            parts.append(rows < points.n_energies)
        return torch.cat(parts)

    def _norms(self, vector: Tensor, energies: Tensor) -> tuple[float, float]:
        """Norms of the energy rows and of the derivative rows over all ranks."""
        first, second = vector[energies], vector[~energies]
        return self.shards.dot(first, first) ** 0.5, self.shards.dot(second, second) ** 0.5

    def solve(
        self,
        targets: Tensor,
        tolerance: float = 1e-3,
        max_iterations: int = 500,
        start: State | None = None,
        progress: Callable[[int, float, State], None] | None = None,
    ) -> Solution:
        """Iterate until |r| ≤ tolerance·|y|, for energies and for derivatives by themselves.

        Args:
            targets: [m] local observations minus the mean.
            tolerance: on the relative residual.
            max_iterations: after which the best that was reached is returned, not converged.
            start: where an earlier run stood; from zero weights by default.
            progress: called with (iteration, relative residual, state).
        """
        zeros = torch.zeros_like(targets)
        state = start or State(zeros, targets, zeros, targets.new_zeros(()))
        weights, residual, direction = (item.clone() for item in state[:3])
        previous = float(state.slope)
        energies = self._energy_rows()
        scales = [max(norm, 1e-300) for norm in self._norms(targets, energies)]

        def relative() -> float:
            # Few rows are energies: a residual common to all would hide that they lag behind.
            norms = self._norms(residual, energies)
            return max(norm / scale for norm, scale in zip(norms, scales, strict=True))

        error = relative()
        iteration = 0
        while error > tolerance and iteration < max_iterations:
            improved = self.precondition(residual)
            slope = self.shards.dot(residual, improved)
            direction.mul_(slope / previous if previous else 0.0).add_(improved)
            product = self.product(direction)
            step = slope / self.shards.dot(direction, product)
            weights.add_(direction, alpha=step)
            residual.sub_(product, alpha=step)
            previous = slope
            iteration += 1
            error = relative()
            if progress is not None:
                last = State(weights, residual, direction, targets.new_tensor(slope))
                progress(iteration, error, last)
        return Solution(weights, iteration, error, error <= tolerance)
