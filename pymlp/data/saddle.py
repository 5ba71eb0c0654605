"""Saddle points, harmonic frequencies and intrinsic reaction paths from finite-difference Hessians.

Meant for small molecules on a cheap surface, where a whole Hessian costs less than cleverness.
Coordinates are [N, 3] in Å, energies eV, masses amu.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase import units

__all__ = ["PathPoint", "Surface", "find_saddle", "frequencies", "reaction_path"]


class Surface(Protocol):
    """What the functions here need to know of a potential-energy surface."""

    def energy_gradient(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy (eV) and gradient [N, 3] (eV/Å)."""
        ...

    def hessian(self, positions: np.ndarray) -> np.ndarray:
        """Second derivatives [3N, 3N] (eV/Å²)."""
        ...


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

    Every step goes uphill along the lowest mode of a fresh Hessian and downhill along all others
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
        climb = (values[0] + np.sqrt(values[0] ** 2 + 4 * slope[0] ** 2)) / 2
        arrow = np.diag(np.append(values[1:], 0.0))
        arrow[-1, :-1] = arrow[:-1, -1] = slope[1:]
        fall = np.linalg.eigvalsh(arrow)[0]
        shift = np.full(values.size, fall)
        shift[0] = climb
        step = vectors @ (-slope / (values - shift))
        length = np.linalg.norm(step)
        positions += (step * min(1.0, trust / length)).reshape(-1, 3)
    raise RuntimeError(
        f"find_saddle: expected gradients below {tolerance} eV/Å after {max_steps} steps, "
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
