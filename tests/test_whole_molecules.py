"""What csrc/loops/cpu/molecule.h must not do: the cases in which a shared sum could go wrong."""

from __future__ import annotations

import pytest
import torch

from pymlp import ops
from tests import neighbourhoods as near
from tests.cases import BP_ANGULAR, BP_RADIAL, Case, batch, symmetry
from tests.neighbourhoods import Geometry


def paper(make: object, n_types: int = 3, **options: object) -> Case:
    parameters = {"radial": BP_RADIAL, "angular": BP_ANGULAR, **options}
    return Case("whole", symmetry("behler_parrinello", n_types, **parameters), make)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_is_zero_whatever_was_in_memory(dtype: torch.dtype) -> None:
    """An element's set is the paper's, another one's is longer and of the same factors."""
    more = [*BP_ANGULAR, *((1.79, zeta, 0.0) for zeta in (1.0, 2.0, 4.0, 8.0, 16.0))]
    padded = [*BP_ANGULAR, *[None] * 5]
    case = paper(
        batch(*(near.molecule(9, 2, 100 + n) for n in range(40))),
        2,
        radial=[BP_RADIAL, BP_RADIAL],
        angular=[padded, more],
    )
    x, rest = case.displacements(dtype), case.rest(dtype)
    wanted = case.reference(x.double(), dtype)
    for _ in range(3):
        poison = torch.full(wanted.shape, torch.nan, dtype=dtype)
        del poison
        features = ops.behler_parrinello(x, *rest)
        assert torch.allclose(features.double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e7, 3e19])
def test_an_atom_far_away_costs_the_others_no_digits(distance: float) -> None:
    whole = near.molecule(10, 3, 7)
    positions = whole.positions.float()
    positions[0] += distance
    moved = Geometry(positions.double(), whole.types)
    case = paper(batch(moved, cutoff=1e21))
    x = case.displacements(torch.float32)
    features = ops.behler_parrinello(x, *case.rest(torch.float32))
    wanted = case.reference(x.double(), torch.float32)
    assert float((features.double() - wanted).abs().max() / wanted.abs().max()) < 3e-6


@pytest.mark.parametrize("size", [3, 4, 5, 7])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_cotangent_that_is_not_finite_stays_in_its_molecule(size: int, bad: float) -> None:
    case = paper(batch(near.molecule(size, 1, 3), near.molecule(10, 3, 4)))
    for dtype in (torch.float32, torch.float64):
        x, rest = case.displacements(dtype), case.rest(dtype)
        g = torch.ones(case.neighbourhood.n_atoms, case.n_features, dtype=dtype)
        own = ops.behler_parrinello_backward(g, x, *rest)[size * (size - 1) :]
        g[size - 1] = bad
        assert torch.equal(ops.behler_parrinello_backward(g, x, *rest)[size * (size - 1) :], own)
        both = ops.behler_parrinello_double_backward(torch.ones_like(x), g, x, *rest)
        assert both[1][size * (size - 1) :].isfinite().all()
