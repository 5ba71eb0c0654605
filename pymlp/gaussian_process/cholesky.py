"""Exact factorisation in place, with progress, and with jitter only where it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["NotPositiveDefinite", "cholesky_", "factorize", "solve_"]

_BLOCK = 512


class NotPositiveDefinite(ArithmeticError):
    """A leading minor of the matrix is not positive."""


def cholesky_(
    matrix: Tensor, block: int = _BLOCK, progress: Callable[[float], None] | None = None
) -> Tensor:
    """Lower Cholesky factor in place of the lower triangle; the upper one is never touched.

    Left-looking by block columns, all its work in GEMMs on views of the matrix: it runs wherever
    torch does, needs no second matrix, and leaves the memory pages above the diagonal of a fresh
    allocation uncommitted.

    Args:
        matrix: [m, m], row-major; only the lower triangle is read.
        block: columns per step.
        progress: called with the done fraction of the work after every step.

    Returns:
        The same tensor.

    Raises:
        NotPositiveDefinite: naming the leading minor; the matrix is then destroyed.
    """
    size = matrix.shape[0]
    for start in range(0, size, block):
        end = min(start + block, size)
        if start:
            matrix[start:, start:end].addmm_(
                matrix[start:, :start], matrix[start:end, :start].mT, alpha=-1.0
            )
        factor, info = torch.linalg.cholesky_ex(matrix[start:end, start:end])
        if int(info):
            raise NotPositiveDefinite(
                f"leading minor {start + int(info)} of {size} is not positive"
            )
        matrix[start:end, start:end] = factor
        if end < size:
            below = torch.linalg.solve_triangular(
                factor.mT, matrix[end:, start:end], upper=True, left=False
            )
            matrix[end:, start:end] = below
        if progress is not None:
            progress(1.0 - (1.0 - end / size) ** 3)
    return matrix


def solve_(factor: Tensor, right: Tensor, transposed: bool = False, block: int = 4096) -> Tensor:
    """L⁻¹B (or L⁻ᵀB) in place of B, reading the lower triangle of L only.

    Args:
        factor: [m, m] from `cholesky_`.
        right: [m, t].
        transposed: solve with Lᵀ.
        block: rows per step.
    """
    size = factor.shape[0]
    starts = list(range(0, size, block))
    for start in reversed(starts) if transposed else starts:
        end = min(start + block, size)
        diagonal = factor[start:end, start:end]
        if transposed:
            if end < size:
                right[start:end].addmm_(factor[end:, start:end].mT, right[end:], alpha=-1.0)
            solved = torch.linalg.solve_triangular(diagonal.mT, right[start:end], upper=True)
        else:
            if start:
                right[start:end].addmm_(factor[start:end, :start], right[:start], alpha=-1.0)
            solved = torch.linalg.solve_triangular(diagonal, right[start:end], upper=False)
        right[start:end] = solved
    return right


def factorize(
    assemble: Callable[[], Tensor],
    noise: Tensor,
    progress: Callable[[float], None] | None = None,
    attempts: int = 5,
) -> tuple[Tensor, float]:
    """The Cholesky factor of assemble() + diag(noise), with as little jitter as it takes.

    The first attempt adds none. Then 1e-12 of the mean diagonal is added, and ten times as much
    at every further attempt; each assembles again, since the factorisation is in place.

    Returns:
        The factor and the jitter that was added (0.0 as a rule; a warning says otherwise).

    Raises:
        ArithmeticError: not positive definite after all attempts.
    """
    jitter = 0.0
    for attempt in range(attempts + 1):
        matrix = assemble()
        diagonal = matrix.diagonal()
        scale = float(diagonal.mean())
        if not bool(torch.isfinite(diagonal).all()):
            raise ArithmeticError("the covariance matrix has entries that are not finite")
        jitter = 0.0 if attempt == 0 else scale * 10.0 ** (attempt - 13)
        diagonal.add_(noise).add_(jitter)
        try:
            cholesky_(matrix, progress=progress)
        except NotPositiveDefinite as error:
            if attempt == attempts:
                raise ArithmeticError(
                    f"the covariance matrix is not positive definite even with a jitter of "
                    f"{jitter:.1e} on its diagonal ({error}): raise the noise, or remove "
                    f"duplicate structures"
                ) from error
            del matrix, diagonal  # before the next one is made
            continue
        if jitter:
            warnings.warn(
                f"a jitter of {jitter:.1e} (unit signal variance) was added to the diagonal of "
                f"the covariance matrix to make it positive definite",
                RuntimeWarning,
                stacklevel=2,
            )
        return matrix, jitter
    raise AssertionError("unreachable")
