"""Model surfaces: energies and gradients as formulas, for learning and for tests.

The Müller-Brown surface has no physical units: its coordinates and energies are plain numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Grid", "MuellerBrown"]


@dataclass(frozen=True)
class Grid:
    """Points of a rectangular grid.

    Attributes:
        x: [n_x], the first coordinate.
        y: [n_y], the second.
    """

    x: Tensor
    y: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(n_y, n_x): rows of a picture have equal y."""
        return len(self.y), len(self.x)

    def points(self) -> Tensor:
        """All points, [n_y·n_x, 2], x running fastest."""
        y, x = torch.meshgrid(self.y, self.x, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], dim=1)

    def image(self, values: Tensor) -> Tensor:
        """Values at :meth:`points`, [n_y·n_x], as a picture [n_y, n_x]."""
        return values.detach().reshape(self.shape)

    def shifted(self) -> Grid:
        """The centres of the grid's squares: the same grid moved by half a step."""
        return Grid((self.x[1:] + self.x[:-1]) / 2, (self.y[1:] + self.y[:-1]) / 2)


class MuellerBrown:
    """The Müller-Brown surface, a tenth of its usual height.

    V(x, y) = 0.1·Σ_k A_k exp(a_k (x−x_k)² + b_k (x−x_k)(y−y_k) + c_k (y−y_k)²): three minima, two
    saddle points between them, and steep walls (Theor. Chim. Acta 53, 75 (1979)).
    """

    amplitude = (-200.0, -100.0, -170.0, 15.0)
    a = (-1.0, -1.0, -6.5, 0.7)
    b = (0.0, 0.0, 11.0, 0.6)
    c = (-10.0, -10.0, -6.5, 0.7)
    x_center = (1.0, 0.0, -0.5, -1.0)
    y_center = (0.0, 0.5, 1.5, 1.0)
    height = 0.1

    #: Minima and saddle points (x, y), to four digits, from the deepest minimum upwards.
    minima = ((-0.5582, 1.4417), (0.6235, 0.0280), (-0.0500, 0.4667))
    saddles = ((-0.8220, 0.6243), (0.2125, 0.2930))

    def energy(self, points: Tensor) -> Tensor:
        """V at points [n, 2], [n]."""
        return self._terms(points)[0].sum(1)

    def gradient(self, points: Tensor) -> Tensor:
        """(∂V/∂x, ∂V/∂y) at points [n, 2], [n, 2]."""
        terms, dx, dy = self._terms(points)
        a, b, c = (points.new_tensor(values) for values in (self.a, self.b, self.c))
        slope_x = (terms * (2 * a * dx + b * dy)).sum(1)
        slope_y = (terms * (b * dx + 2 * c * dy)).sum(1)
        return torch.stack([slope_x, slope_y], dim=1)

    @staticmethod
    def grid(step: float = 0.1) -> Grid:
        """−1.8 ≤ x < 1.4, −0.4 ≤ y < 2.4; at the lessons' step 32 × 28 points, 696 below 10.

        Raises:
            ValueError: a step that is not above 0, or leaves fewer than two points a side.
        """
        if not 0 < step <= 1.4:
            raise ValueError(f"step must be above 0 and at most 1.4, got {step}")
        n_x, n_y = round(3.2 / step), round(2.8 / step)
        return Grid(
            -1.8 + step * torch.arange(n_x, dtype=torch.float64),
            -0.4 + step * torch.arange(n_y, dtype=torch.float64),
        )

    def low_points(self, grid: Grid, below: float = 10.0) -> Tensor:
        """The grid's points with V < below, [n, 2]."""
        points = grid.points()
        return points[self.energy(points) < below]

    def _terms(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The four summands [n, 4], and x − x_k, y − y_k."""
        if points.dim() != 2 or points.shape[1] != 2:
            raise ValueError(f"points must have shape [n, 2], got {list(points.shape)}")
        names = (self.amplitude, self.a, self.b, self.c, self.x_center, self.y_center)
        amplitude, a, b, c, x, y = (points.new_tensor(values) for values in names)
        dx, dy = points[:, :1] - x, points[:, 1:] - y
        exponent = a * dx * dx + b * dx * dy + c * dy * dy
        return self.height * amplitude * torch.exp(exponent), dx, dy
