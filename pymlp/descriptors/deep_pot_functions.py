"""How DeepPot-SE gets its functions 𝒢(s) and contracts them in one op: networks or polynomials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pymlp.embedding import EmbeddingNetworks

__all__ = ["FusedFunctions", "Interpolation", "SortedPairs", "sorted_pairs"]

#: Pairs that there must be for each node of each kind. A node, with two derivatives, in float64,
#: costs as much as four pairs; what is tried and found too coarse is then a quarter at most.
_PAIRS_PER_NODE = 32

#: 1/Å, the widest spacing of nodes.
_WIDEST = 1 / 32


@dataclass(frozen=True)
class FusedFunctions:
    """One op from R̃ to features, 𝒢 never stored, and its backward.

    Attributes:
        op: forward; ``op(R̃, pair_offsets, pair_kinds, *arguments)``.
        op_backward: ``op_backward(gradient, R̃, ...)``.
        pair_offsets: [A+1] int64.
        pair_kinds: [P] int64.
        arguments: the others.
        divisor: R̃ is divided by it, and the op knows; features are then of sums divided by it.
        factor: [A, 1], what features are multiplied by, or ``None``.
    """

    op: Callable[..., Tensor]
    op_backward: Callable[..., Tensor]
    pair_offsets: Tensor
    pair_kinds: Tensor
    arguments: tuple[Any, ...]
    divisor: float = 1.0
    factor: Tensor | None = None

    def features(self, environment: Tensor) -> Tensor:
        """Return the features [A, F] of R̃ [P, 4]."""
        rows = self._divided(environment)
        found = self.op(rows, self.pair_offsets, self.pair_kinds, *self.arguments)
        return found if self.factor is None else found * self.factor

    def slopes(self, grad_features: Tensor, environment: Tensor) -> Tensor:
        """Return the gradient [P, 4] by R̃ for that by the features [A, F]."""
        grad = grad_features if self.factor is None else grad_features * self.factor
        rows = self._divided(environment)
        found = self.op_backward(grad, rows, self.pair_offsets, self.pair_kinds, *self.arguments)
        return self._divided(found)

    def _divided(self, x: Tensor) -> Tensor:
        return x if self.divisor == 1.0 else x / self.divisor


class Interpolation:
    """Polynomials in s instead of a network at every pair, made anew in each call.

    A batch holds thousands of pairs of a kind, but 𝒢 is a function of one number: networks are
    evaluated, in float64, at nodes in s with two derivatives, pairs take the quintic through them,
    and the gradient of the weights goes back through the nodes. In each call the difference from
    the networks is measured in the middle of all intervals, and the spacing halved until it is
    small enough. Measured with networks 25-50-100 and m2 = 16, one thread: features, forces and the
    gradients of the weights of 256 Claisen structures take 0.4 of the time with a network at every
    pair, of 999 atoms of water 0.15.

    Args:
        tolerance: largest difference relative to the largest value. The default is below what
            rounding does to the networks in float32.
    """

    def __init__(self, tolerance: float = 1e-6) -> None:
        self.tolerance = float(tolerance)

    def polynomials(
        self, embedding: EmbeddingNetworks, s: Tensor
    ) -> tuple[Tensor, float, float] | None:
        """Return coefficients (float64, differentiable), where they begin, and width of intervals.

        ``None`` where there is nothing to gain: pairs [P] that hardly outnumber the nodes, and in
        float64.
        """
        if s.dtype != torch.float32 or not len(s):
            return None
        low, high = (float(x) for x in s.aminmax())
        spacing = _WIDEST
        while (1 + (high - low) / spacing) * _PAIRS_PER_NODE * embedding.n_kinds <= len(s):
            coefficients, first, error = embedding.interpolated(low, high, spacing)
            if error <= self.tolerance:
                return coefficients, first, spacing
            spacing /= 2
        return None


@dataclass(frozen=True)
class SortedPairs:
    """The pairs of a list by kind: sorted order, its inverse, and pairs of each kind."""

    order: Tensor
    rows: Tensor
    counts: tuple[int, ...]


def sorted_pairs(kinds: Tensor, n_kinds: int) -> SortedPairs:
    """Sort pairs [P] by kind, stably."""
    order = torch.argsort(kinds, stable=True)
    rows = torch.empty_like(order)
    rows[order] = torch.arange(len(order), device=order.device)
    counts = torch.bincount(kinds, minlength=n_kinds).tolist()
    return SortedPairs(order, rows, tuple(counts))
