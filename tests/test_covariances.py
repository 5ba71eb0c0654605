"""Covariance functions against autograd and finite differences; blocks against autograd."""

from __future__ import annotations

import math

import pytest
import torch

from pymlp.covariances import (
    RBF,
    Covariance,
    Matern52,
    RationalQuadratic,
    squared_distances,
)
from pymlp.gaussian_process.assembly import covariance_block, covariance_matrix, prior_blocks
from pymlp.gaussian_process.points import Points

FUNCTIONS = [RBF(1.7), Matern52(2.1), RationalQuadratic(1.5, 0.7)]
NAMES = [function.name for function in FUNCTIONS]


@pytest.fixture(params=FUNCTIONS, ids=NAMES)
def covariance(request: pytest.FixtureRequest) -> Covariance:
    return request.param


def textbook(covariance: Covariance, s: torch.Tensor) -> torch.Tensor:
    """The functions as any book writes them."""
    scale, r = covariance.length_scale, s.sqrt()
    if isinstance(covariance, RBF):
        return torch.exp(-(r**2) / (2 * scale**2))
    if isinstance(covariance, Matern52):
        x = math.sqrt(5) * r / scale
        return (1 + x + 5 * r**2 / (3 * scale**2)) * torch.exp(-x)
    assert isinstance(covariance, RationalQuadratic)
    return (1 + r**2 / (2 * covariance.alpha * scale**2)) ** (-covariance.alpha)


def test_terms_are_the_derivatives_of_the_textbook_function(covariance: Covariance) -> None:
    s = torch.linspace(0.05, 9.0, 40, dtype=torch.float64, requires_grad=True)
    k = textbook(covariance, s)
    (first,) = torch.autograd.grad(k.sum(), s, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), s, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), s)
    terms = covariance.terms(s.detach())
    torch.testing.assert_close(terms.k, k.detach(), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(terms.a, -2 * first.detach(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(terms.b, 4 * second.detach(), rtol=1e-11, atol=1e-14)
    slope = covariance.curvature_slope(s.detach())
    torch.testing.assert_close(slope, 4 * third, rtol=1e-9, atol=1e-12)


def test_values_at_zero_distance_are_finite(covariance: Covariance) -> None:
    k, a, b = covariance.at_zero()
    assert k == 1.0
    assert a > 0
    assert b > 0
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.isfinite(covariance.curvature_slope(zero)).all()


def test_logarithmic_derivatives_against_finite_differences(covariance: Covariance) -> None:
    s = torch.linspace(0.0, 9.0, 40, dtype=torch.float64)
    step = 1e-5
    for name, value in covariance.parameters().items():
        above = covariance.replace(**{name: value * math.exp(step)}).terms(s)
        below = covariance.replace(**{name: value * math.exp(-step)}).terms(s)
        for up, down, exact in zip(above, below, covariance.log_derivative(name, s), strict=True):
            torch.testing.assert_close((up - down) / (2 * step), exact, rtol=1e-8, atol=1e-9)


def test_contract_is_the_sum_of_its_parts(covariance: Covariance) -> None:
    generator = torch.Generator().manual_seed(1)
    s = torch.rand((4, 6), generator=generator, dtype=torch.float64)
    w = torch.randn((4, 6), generator=generator, dtype=torch.float64)
    alpha = torch.randn(6, generator=generator, dtype=torch.float64)
    k, a, b = covariance.terms(s)
    energies, a_again, c = covariance.contract(s, w, alpha)
    torch.testing.assert_close(energies, (k * alpha + a * w).sum(1))
    torch.testing.assert_close(a_again, a)
    torch.testing.assert_close(c, a * alpha + b * w)


def test_rational_quadratic_becomes_rbf() -> None:
    s = torch.linspace(0, 5, 20, dtype=torch.float64)
    for left, right in zip(RationalQuadratic(1.3, 1e8).terms(s), RBF(1.3).terms(s), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-9)


def test_configuration_round_trip_and_errors(covariance: Covariance) -> None:
    assert Covariance.from_config(covariance.to_config()) == covariance
    with pytest.raises(ValueError, match="covariance must be one of"):
        Covariance.from_config({"name": "cosine"})
    with pytest.raises(ValueError, match="has the parameters"):
        Covariance.from_config({**covariance.to_config(), "beta": 1.0})
    with pytest.raises(ValueError, match="length_scale must be a positive"):
        covariance.replace(length_scale=-1.0)
    with pytest.raises(ValueError, match="must be one of"):
        covariance.log_derivative("beta", torch.ones(1))


def test_squared_distances_of_duplicates_are_exactly_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 100.0 + torch.randn((30, 7), generator=generator, dtype=torch.float64)
    s = squared_distances(x, torch.cat((x, x + 1e-9)))
    assert (s[:, :30].diagonal() == 0).all()
    near = s[:, 30:].diagonal()
    torch.testing.assert_close(near, torch.full_like(near, 7e-18), rtol=1e-4, atol=0.0)
    direct = (x[:, None] - x[None]).square().sum(-1)
    torch.testing.assert_close(s[:, :30], direct, rtol=1e-9, atol=1e-10)


# -- blocks against autograd -------------------------------------------------------------------


def random_points(n: int, r: int, types: tuple[int, ...], seed: int) -> Points:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((n, len(types), 5), generator=generator, dtype=torch.float64)
    jacobian = torch.randn((n, len(types), r, 5), generator=generator, dtype=torch.float64)
    return Points(features, jacobian, types)


def autograd_block(rows: Points, columns: Points, covariance: Covariance) -> torch.Tensor:
    """Eqs 23-25 by differentiating the covariance of energies along every direction."""
    out = torch.zeros((rows.n_rows, columns.n_rows), dtype=torch.float64)
    n, n2, r, r2 = len(rows), len(columns), rows.n_directions, columns.n_directions
    for i in range(n):
        for j in range(n2):
            along = torch.zeros(r, dtype=torch.float64, requires_grad=True)
            other = torch.zeros(r2, dtype=torch.float64, requires_grad=True)
            x = rows.features[i] + torch.einsum("erp,r->ep", rows.jacobian[i], along)
            y = columns.features[j] + torch.einsum("erp,r->ep", columns.jacobian[j], other)
            value = torch.zeros((), dtype=torch.float64)
            for e, kind in enumerate(rows.types):
                for f, kind2 in enumerate(columns.types):
                    if kind == kind2:
                        value = value + textbook(covariance, (x[e] - y[f]).square().sum())
            by_row, by_column = torch.autograd.grad(value, (along, other), create_graph=True)
            out[i, j] = value.detach()
            out[n + i * r : n + (i + 1) * r, j] = by_row.detach()
            out[i, n2 + j * r2 : n2 + (j + 1) * r2] = by_column.detach()
            for c in range(r):
                (second,) = torch.autograd.grad(by_row[c], other, retain_graph=True)
                out[n + i * r + c, n2 + j * r2 : n2 + (j + 1) * r2] = second
    return out


@pytest.mark.parametrize("types", [(0,), (0, 0, 1), (1, 0, 1)], ids=["whole", "sum", "scattered"])
def test_blocks_against_autograd(covariance: Covariance, types: tuple[int, ...]) -> None:
    rows, columns = random_points(3, 4, types, 0), random_points(2, 3, types, 1)
    block = covariance_block(rows, columns, covariance.terms)
    oracle = autograd_block(rows, columns, covariance)
    torch.testing.assert_close(block, oracle, rtol=1e-12, atol=1e-13)
    reduced = covariance_block(
        rows.without_energies(), columns.without_derivatives(), covariance.terms
    )
    torch.testing.assert_close(reduced, block[3:, :2])


def test_tiles_and_groups_make_one_symmetric_matrix(covariance: Covariance) -> None:
    points = random_points(37, 30, (0,), 3)  # several tiles
    whole = covariance_block(points, points, covariance.terms)
    torch.testing.assert_close(whole, whole.mT, rtol=0, atol=1e-12)
    matrix = covariance_matrix([points], covariance.terms)
    torch.testing.assert_close(matrix.tril(), whole.tril(), rtol=1e-12, atol=1e-12)
    groups = [points[:15], points[15:]]
    split = covariance_matrix(groups, covariance.terms)
    order = [*range(15), *range(37, 37 + 450), *range(15, 37), *range(37 + 450, 37 * 31)]
    torch.testing.assert_close(split.tril(), whole[order][:, order].tril(), rtol=1e-12, atol=1e-12)
    own = prior_blocks(points[:2], covariance.terms)
    rows = [1, *range(37 + 30, 37 + 60)]
    torch.testing.assert_close(own[1], whole[rows][:, rows], rtol=1e-12, atol=1e-12)


def test_sum_covariance_of_one_environment_is_the_whole_structure(covariance: Covariance) -> None:
    """The two code paths meet: one environment, beside one of another type that is alone."""
    left, right = random_points(3, 4, (0,), 5), random_points(3, 4, (0,), 6)
    plain = covariance_block(left, right, covariance.terms)

    def beside(points: Points, kind: int) -> Points:
        assert points.jacobian is not None
        return Points(
            torch.cat((points.features, torch.ones_like(points.features)), dim=1),
            torch.cat((points.jacobian, torch.ones_like(points.jacobian)), dim=1),
            (0, kind),
        )

    summed = covariance_block(beside(left, 1), beside(right, 2), covariance.terms)
    torch.testing.assert_close(summed, plain, rtol=1e-12, atol=1e-13)


def test_symmetry_sums_over_images(covariance: Covariance) -> None:
    swap = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4]])
    left, right = random_points(3, 4, (0,), 7), random_points(2, 4, (0,), 8)
    by_index = Points(right.features, right.jacobian, symmetry=swap)
    eye = torch.eye(5, dtype=torch.float64)
    by_matrix = Points(
        right.features, right.jacobian, symmetry=torch.stack((eye, eye[[1, 0, 2, 3, 4]]))
    )
    total = sum(covariance_block(left, image, covariance.terms) for image in by_index.images())
    for points in (by_index, by_matrix):
        block = covariance_block(left, points, covariance.terms)
        torch.testing.assert_close(block, total)


def test_points_refuse_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match="features must be"):
        Points(torch.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="jacobian must be"):
        Points(torch.zeros((2, 1, 3)), torch.zeros((2, 1, 4, 2)))
    with pytest.raises(ValueError, match="symmetry"):
        Points(torch.zeros((2, 2, 3)), types=(0, 0), symmetry=torch.zeros((1, 3)))
