"""Saddle points, harmonic frequencies and intrinsic reaction paths from finite-difference Hessians.

Meant for small molecules on a cheap surface, where a whole Hessian costs less than cleverness.
Coordinates are [N, 3] in Å, energies eV, masses amu.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase import units

__all__ = [
    "PathPoint",
    "Surface",
    "UpdatedHessian",
    "find_minimum",
    "find_saddle",
    "frequencies",
    "reaction_path",
]


class Surface(Protocol):
    """What the functions here need to know of a potential-energy surface."""

    def energy_gradient(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy (eV) and gradient [N, 3] (eV/Å)."""
        ...

    def hessian(self, positions: np.ndarray) -> np.ndarray:
        """Second derivatives [3N, 3N] (eV/Å²)."""
        ...


class UpdatedHessian:
    """A surface of costly gradients whose Hessian is kept up with them, never computed.

    It begins as that of a cheaper surface, and learns from every gradient by Bofill's mixture of
    the symmetric rank-one and the Powell update, which lets curvatures be negative (J. Comput.
    Chem. 15, 1 (1994)).

    Args:
        costly: energies and gradients; its Hessian is not asked for.
        cheap: the first Hessian, at the first positions.
    """

    def __init__(self, costly: Surface, cheap: Surface) -> None:
        self.costly, self.cheap = costly, cheap
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._hessian: np.ndarray | None = None

    def energy_gradient(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy (eV) and gradient [N, 3] (eV/Å) of the costly surface."""
        energy, gradient = self.costly.energy_gradient(positions)
        if self._last is not None and self._hessian is not None:
            step = (positions - self._last[0]).reshape(-1)
            miss = (gradient - self._last[1]).reshape(-1) - self._hessian @ step
            if step @ step > 0 and miss @ miss > 0:
                along, square = miss @ step, step @ step
                powell = (np.outer(miss, step) + np.outer(step, miss)) / square
                powell -= along * np.outer(step, step) / square**2
                share = along**2 / (miss @ miss * square)
                rank_one = np.outer(miss, miss) / along if share > 0 else 0.0
                self._hessian = self._hessian + share * rank_one + (1 - share) * powell
        self._last = (np.array(positions, dtype=float), gradient)
        return energy, gradient

    def hessian(self, positions: np.ndarray) -> np.ndarray:
        """Second derivatives [3N, 3N] (eV/Å²), as known from the gradients so far."""
        if self._hessian is None:
            self._hessian = self.cheap.hessian(positions)
        return self._hessian


@dataclass(frozen=True)
class PathPoint:
    """A point of a reaction path: positions [N, 3] Å, energy eV, arc length √amu·Å.

    The arc length is the sum of the straight pieces between the points.
    """

    positions: np.ndarray
    energy: float
    arc_length: float


def _internal_projector(positions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Projector [3N, 3N] that removes translations and rotations; ``weights`` are √mass, [N]."""
    centered = positions - np.average(positions, axis=0, weights=weights**2)
    rigid = []
    for axis in np.eye(3):
        rigid.append((weights[:, None] * axis).reshape(-1))
        rigid.append((weights[:, None] * np.cross(axis, centered)).reshape(-1))
    # A linear molecule does not feel the rotation about its axis: five rigid motions, not six.
    directions, sizes, _ = np.linalg.svd(np.array(rigid).T, full_matrices=False)
    basis = directions[:, sizes > 1e-6 * sizes[0]]
    return np.eye(positions.size) - basis @ basis.T


def _normal_modes(
    hessian: np.ndarray, positions: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors (columns) of the weighted Hessian, rigid motions left out."""
    scale = np.repeat(weights, 3)
    projector = _internal_projector(positions, weights)
    values, vectors = np.linalg.eigh(projector @ (hessian / np.outer(scale, scale)) @ projector)
    # The rigid motions have eigenvalue zero to rounding: drop by overlap, not by size.
    inside = np.einsum("ij,ij->j", vectors, projector @ vectors) > 0.5
    return values[inside], vectors[:, inside]


def frequencies(hessian: np.ndarray, positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Harmonic wavenumbers (cm⁻¹) in rising order; imaginary ones are negative.

    [3N-6], or [3N-5] for a linear molecule.
    """
    values, _ = _normal_modes(hessian, positions, np.sqrt(masses))
    energies = units._hbar * 1e10 / np.sqrt(units._e * units._amu) * np.sqrt(np.abs(values))
    return np.sign(values) * energies / units.invcm


def find_saddle(
    surface: Surface,
    positions: np.ndarray,
    *,
    tolerance: float = 1e-4,
    trust: float = 0.15,
    max_steps: int = 100,
) -> np.ndarray:
    """First-order saddle point near ``positions`` by partitioned rational-function steps.

    Every step goes uphill along the lowest mode of the Hessian and downhill along all others
    (Banerjee et al., J. Phys. Chem. 89, 52 (1985)).

    Args:
        surface: energies, gradients and Hessians.
        positions: the guess, [N, 3] Å, with one negative curvature or nearly so.
        tolerance: largest gradient component at the end, eV/Å.
        trust: longest step, Å.
        max_steps: give up after so many.

    Returns:
        positions [N, 3] of the saddle point, Å.

    Raises:
        RuntimeError: not converged within ``max_steps``.
    """
    return _walk("find_saddle", surface, positions, 1, tolerance, trust, max_steps)


def find_minimum(
    surface: Surface,
    positions: np.ndarray,
    *,
    tolerance: float = 1e-4,
    trust: float = 0.15,
    max_steps: int = 100,
) -> np.ndarray:
    """Minimum near ``positions``, by the steps of `find_saddle` with no mode uphill.

    Arguments, result and errors as there.
    """
    return _walk("find_minimum", surface, positions, 0, tolerance, trust, max_steps)


def _walk(
    name: str,
    surface: Surface,
    positions: np.ndarray,
    uphill: int,
    tolerance: float,
    trust: float,
    max_steps: int,
) -> np.ndarray:
    """To the stationary point that is a maximum along the lowest ``uphill`` (0 or 1) modes."""
    positions = np.array(positions, dtype=float)
    ones = np.ones(len(positions))
    largest = np.inf
    for _ in range(max_steps):
        _, gradient = surface.energy_gradient(positions)
        largest = np.abs(gradient).max()
        if largest < tolerance:
            return positions
        values, vectors = _normal_modes(surface.hessian(positions), positions, ones)
        slope = vectors.T @ gradient.reshape(-1)
        arrow = np.diag(np.append(values[uphill:], 0.0))
        arrow[-1, :-1] = arrow[:-1, -1] = slope[uphill:]
        shift = np.full(values.size, np.linalg.eigvalsh(arrow)[0])
        # the upper root of the same problem in the uphill mode alone
        climb = (values[:uphill] + np.sqrt(values[:uphill] ** 2 + 4 * slope[:uphill] ** 2)) / 2
        shift[:uphill] = climb
        step = vectors @ (-slope / (values - shift))
        length = np.linalg.norm(step)
        positions += (step * min(1.0, trust / length)).reshape(-1, 3)
    raise RuntimeError(
        f"{name}: expected gradients below {tolerance} eV/Å after {max_steps} steps, "
        f"got {largest:.2e}"
    )


def reaction_path(
    surface: Surface,
    saddle: np.ndarray,
    masses: np.ndarray,
    direction: int,
    *,
    step: float = 0.15,
    max_steps: int = 200,
    tolerance: float = 5e-3,
) -> list[PathPoint]:
    """Intrinsic reaction path from a saddle point down one side, the saddle left out.

    Follows ẋ = −∇V in mass-weighted coordinates x, exactly on the local quadratic model of V
    (Page and McIver, J. Chem. Phys. 88, 922 (1988)), with a fresh Hessian at every point.

    Args:
        surface: energies, gradients and Hessians.
        saddle: the saddle point, [N, 3] Å.
        masses: [N] amu.
        direction: +1 or -1: along or against the imaginary mode (its sign is arbitrary).
        step: arc length between points, √amu·Å.
        max_steps: stop after so many points.
        tolerance: stop where the largest gradient component falls below this, eV/Å.

    Returns:
        The points in order; their arc lengths carry the sign of ``direction``.
    """
    if direction not in (1, -1):
        raise ValueError(f"direction: expected 1 or -1, got {direction!r}")
    weights = np.sqrt(masses)
    positions = np.array(saddle, dtype=float)
    _, vectors = _normal_modes(surface.hessian(positions), positions, weights)
    displacement = direction * step * vectors[:, 0]
    points: list[PathPoint] = []
    lowest, _ = surface.energy_gradient(positions)
    length = 0.0
    for _ in range(max_steps):
        length += float(np.linalg.norm(displacement))
        positions = positions + displacement.reshape(-1, 3) / weights[:, None]
        energy, gradient = surface.energy_gradient(positions)
        if energy > lowest:  # the floor of a valley: the next step would only oscillate
            break
        lowest = energy
        points.append(PathPoint(positions, energy, direction * length))
        if np.abs(gradient).max() < tolerance:
            break
        values, vectors = _normal_modes(surface.hessian(positions), positions, weights)
        slope = vectors.T @ (gradient / weights[:, None]).reshape(-1)
        displacement = vectors @ _quadratic_descent(values, slope, step)
    return points


def _quadratic_descent(values: np.ndarray, slope: np.ndarray, length: float) -> np.ndarray:
    """Displacement along ẋ = −(g + h x) until the arc ``length`` is used up, mode by mode."""
    time, travelled = 0.0, 0.0
    # Time steps that move by 1/200 of the length: the arc is then exact to about a percent.
    for _ in range(20_000):
        velocity = np.linalg.norm(slope * np.exp(-values * time))
        if velocity * length < 1e-12:  # at rest in the minimum of the model
            break
        interval = length / 200 / velocity
        # Never step past the relaxation of the stiffest mode that still moves.
        interval = min(interval, 0.1 / np.abs(values).max())
        time += interval
        travelled += velocity * interval
        if travelled >= length:
            break
    safe = np.where(np.abs(values) > 1e-9, values, 1.0)
    decay = np.where(np.abs(values) > 1e-9, -np.expm1(-safe * time) / safe, time)
    return -slope * decay
