"""Model surfaces against autograd and what is known of them."""

from __future__ import annotations

import pytest
import torch

from pymlp.surfaces import MuellerBrown

SURFACE = MuellerBrown()


def test_gradient_is_the_slope_of_the_energy() -> None:
    points = SURFACE.grid(0.4).points().requires_grad_()
    (slope,) = torch.autograd.grad(SURFACE.energy(points).sum(), points)
    torch.testing.assert_close(SURFACE.gradient(points.detach()), slope, rtol=1e-12, atol=1e-12)


def test_minima_and_saddles_are_stationary_and_of_their_kind() -> None:
    for kind, places in (("minimum", SURFACE.minima), ("saddle", SURFACE.saddles)):
        points = torch.tensor(places, dtype=torch.float64)
        assert SURFACE.gradient(points).abs().max() < 0.02
        for point in points:
            hessian = torch.autograd.functional.hessian(lambda p: SURFACE.energy(p[None])[0], point)
            negative = int((torch.linalg.eigvalsh(hessian) < 0).sum())
            assert negative == (0 if kind == "minimum" else 1)
    depths = SURFACE.energy(torch.tensor(SURFACE.minima, dtype=torch.float64))
    # The literature's -146.7, -108.2 and -80.8, a tenth of them.
    expected = torch.tensor([-14.67, -10.82, -8.08], dtype=torch.float64)
    torch.testing.assert_close(depths, expected, atol=0.01, rtol=0)


def test_grid_of_the_lessons() -> None:
    grid = SURFACE.grid()
    assert grid.shape == (28, 32)
    assert len(SURFACE.low_points(grid)) == 696
    points = grid.points()
    torch.testing.assert_close(grid.image(points[:, 0])[3], grid.x)
    torch.testing.assert_close(grid.image(points[:, 1])[:, 5], grid.y)
    torch.testing.assert_close(grid.shifted().x[0], grid.x[0] + 0.05)
    assert grid.shifted().shape == (27, 31)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="step must be above 0"):
        SURFACE.grid(0.0)
    with pytest.raises(ValueError, match=r"points must have shape \[n, 2\]"):
        SURFACE.energy(torch.zeros(3))
