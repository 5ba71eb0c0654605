"""Random op arguments, beyond what the descriptor modules can ask for: all ops against the oracle.

Channels shared by several types or empty, any weights, products in no grid, padding,
parameter counts around the width of a register, centres with no, one or many neighbours.
"""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests import reference
from tests.cases import Case
from tests.neighbourhoods import Neighbourhood
from tests.reference import AngularTerm, RadialTerm, SymmetryFunctions
from tests.test_ops_contract import check, op, probe

#: of the largest value; sin(theta) of nearly straight triples costs digits in second derivatives
LIMITS = {torch.float64: (1e-11, 1e-9, 1e-6), torch.float32: (3e-5, 3e-4, 1e-1)}


@st.composite
def neighbourhoods(draw: st.DrawFn, n_types: int) -> Neighbourhood:
    """Random vectors between 0.7 and 5 Å, any number per centre, neighbours in any order."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    counts = draw(st.lists(st.integers(0, 20) | st.just(35), max_size=4))
    n_pairs, n_atoms = sum(counts), len(counts)
    directions = torch.randn(n_pairs, 3, generator=generator, dtype=torch.float64)
    lengths = 0.7 + 4.3 * torch.rand(n_pairs, 1, generator=generator, dtype=torch.float64)
    return Neighbourhood(
        directions / directions.norm(dim=1, keepdim=True) * lengths,
        torch.tensor([0, *counts]).cumsum(0),
        torch.randint(max(n_atoms, 1), (n_pairs,), generator=generator),
        torch.randint(n_types, (n_atoms,), generator=generator),
    )


@st.composite
def parameters(draw: st.DrawFn) -> SymmetryFunctions:
    """Random parameter sets; angular terms are sorted by distance factor, as the op wants."""
    ani = draw(st.booleans())
    n_types = draw(st.integers(1, 4))
    n_sets = draw(st.sampled_from([1, n_types]))
    n_radial, n_angular = draw(st.integers(0, 19)), draw(st.integers(0, 19))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    grid = [(uniform(0.0, 3.0 if ani else 0.05), uniform(0.5, 3.0)) for _ in range(5)]
    zetas = [1.0, 2.0, 8.0, 32.0, uniform(1.0, 20.0)]
    thetas = [0.0, math.pi, uniform(0.2, 2.9)]
    radial: list[list[RadialTerm]] = []
    angular: list[list[AngularTerm]] = []
    for _ in range(n_sets):
        radial.append(
            [(uniform(0.0, 9.0), uniform(0.0, 4.0), uniform(-1.0, 1.0)) for _ in range(n_radial)]
        )
        terms: list[tuple[float, ...]] = []
        for _ in range(n_angular):
            eta, shift = grid[int(uniform(0, 5))]
            tail = (zetas[int(uniform(0, 5))], thetas[int(uniform(0, 3))])
            terms.append((eta, shift, *tail) if ani else (eta, *tail))
        row: list[AngularTerm] = [*sorted(terms)]
        kept = len(row) - min(draw(st.integers(0, 4)), len(row))
        row[kept:] = [None] * (len(row) - kept)
        angular.append(row)
    return SymmetryFunctions(
        family="ani" if ani else "behler_parrinello",
        channels=draw(st.lists(st.integers(0, 4), min_size=n_types, max_size=n_types)),
        weights=[uniform(-3.0, 9.0) for _ in range(n_types)],
        radial=radial,
        angular=angular,
        radial_cutoff=draw(st.floats(1.0, 6.0)),
        angular_cutoff=draw(st.floats(1.0, 6.0)),
        smooth=draw(st.booleans()),
        jk_factors=draw(st.booleans()),
        cos_scale=draw(st.sampled_from([1.0, 0.95, 0.5])) if ani else 1.0,
    )


@st.composite
def random_cases(draw: st.DrawFn) -> Case:
    chosen = draw(parameters())
    near = draw(neighbourhoods(len(chosen.weights)))
    return Case("random", chosen, lambda: near)


@settings(max_examples=60)
@given(random_cases(), st.sampled_from([torch.float64, torch.float32]))
def test_random_arguments(case: Case, dtype: torch.dtype) -> None:
    values, first, second = LIMITS[dtype]
    x, rest = case.displacements(dtype), case.rest(dtype)
    exact = x.double().requires_grad_()

    def oracle(d: Tensor) -> Tensor:
        return case.reference(d, dtype)

    features = oracle(exact)
    grad, tangents = probe(features.shape, 1, dtype), probe(x.shape, 2, dtype)
    check("features", case, op(case)(x, *rest), features, values)
    if not case.n_features:
        return
    weights = grad.double().requires_grad_()
    (vjp,) = torch.autograd.grad(
        features, exact, weights, create_graph=True, allow_unused=True, materialize_grads=True
    )
    check("vjp", case, op(case, "_backward")(grad, x, *rest), vjp, first)
    jvp, curvature = torch.autograd.grad(
        vjp, (weights, exact), tangents.double(), allow_unused=True, materialize_grads=True
    )
    check("jvp", case, op(case, "_jvp")(tangents, x, *rest), jvp, first)
    ours = op(case, "_double_backward")(tangents, grad, x, *rest)
    check("double backward: jvp", case, ours[0], jvp, first)
    check("double backward: curvature", case, ours[1], curvature, second)
    jacobian = reference.jacobian(oracle, exact, case.neighbourhood.pair_offsets)
    check("jacobian", case, op(case, "_jacobian")(x, *rest), jacobian, first)
