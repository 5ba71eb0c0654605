"""Correctness before timing: every contestant's result against the tests' oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants import ANI_ELEMENTS, BP_ELEMENTS, direction
from benchmarks.workloads import Workload
from tests import reference
from tests.cases import ANI1X, BP_ANGULAR, BP_RADIAL, symmetry
from tests.neighbourhoods import Geometry, lattice_shifts, neighbourhood
from tests.reference import SymmetryFunctions

#: molecules of a batch, or centres of a periodic system, that the oracle computes
MOLECULES, CENTERS = 3, 24
#: relative to the largest value; float32 contestants use acos, which costs them digits
LIMITS = {torch.float32: 2e-3, torch.float64: 1e-7}

Check = Callable[[str, str, Any], float | None]


def parameters(family: str, channels: str) -> SymmetryFunctions:
    if family == "ani":
        return symmetry("ani", 4, **ANI1X, channels=channels, cos_scale=0.95)
    return symmetry("behler_parrinello", 3, radial=BP_RADIAL, angular=BP_ANGULAR, channels=channels)


def types_of(workload: Workload, family: str) -> Tensor:
    elements = ANI_ELEMENTS if family == "ani" else BP_ELEMENTS
    return torch.tensor([elements.index(z) for z in workload.numbers.tolist()])


def channels_of(contestant: str) -> str:
    """Contestants written as in the lessons sum over all elements; their names say so."""
    return "none" if "lessons" in contestant or "no channels" in contestant else "element"


def molecule_check(family: str, workload: Workload, dtype: torch.dtype) -> Check:
    """Features and all derivatives of the first molecules."""
    known: dict[tuple[str, str], Tensor] = {}
    count = min(MOLECULES, workload.n_structures)
    types = types_of(workload, family)
    stored = workload.positions[:count].to(dtype).double()
    near = neighbourhood([Geometry(x, types) for x in stored], 6.0)

    def expected(channels: str) -> None:
        chosen = parameters(family, channels)
        x = stored.reshape(-1, 3).clone().requires_grad_()
        features = reference.symmetry_functions(
            x[near.neighbors] - x[near.centers],
            near.pair_offsets,
            near.neighbors,
            near.types,
            chosen,
        )
        g = direction((workload.n_atoms, chosen.n_features), 1, dtype).double()[: len(x)]
        u = direction((workload.n_atoms, 3), 2, dtype).double()[: len(x)]
        g.requires_grad_()
        (vjp,) = torch.autograd.grad(features, x, g, create_graph=True)
        train, hvp = torch.autograd.grad(vjp, (g, x), u)
        found = {"fwd": features, "grad": vjp, "train": train, "hvp": hvp}
        known.update({(channels, name): value.detach() for name, value in found.items()})

    def check(quantity: str, contestant: str, result: Tensor) -> float:
        channels = channels_of(contestant)
        if (channels, quantity) not in known:
            expected(channels)
        oracle = known[channels, quantity]
        rows = result.reshape(-1, result.shape[-1])[: len(oracle)]
        return compare(quantity, contestant, rows, oracle, dtype)

    return check


def periodic_check(family: str, workload: Workload, dtype: torch.dtype) -> Check:
    """Features of some centres by the oracle; derivatives against the first contestant's."""
    assert workload.cell is not None
    chosen = parameters(family, "element")
    stored = workload.positions[0].to(dtype).double()
    cell = workload.cell.to(dtype).double()
    types = types_of(workload, family)
    radius = chosen.radial_cutoff
    shifts = lattice_shifts(cell, radius)
    images = shifts.double() @ cell
    found, neighbors, counts = [], [], [0]
    for center in range(CENTERS):
        rows = []
        for shift in images:
            d = stored + shift - stored[center]
            distances = d.norm(dim=1)
            keep = (distances < radius) & (distances > 1e-6)
            found.append(d[keep])
            rows.append(keep.nonzero()[:, 0])
        neighbors += rows
        counts.append(counts[-1] + sum(len(row) for row in rows))
    offsets = torch.full((len(types) + 1,), counts[-1])
    offsets[: len(counts)] = torch.tensor(counts)
    # only these centres: the oracle would spend its time on empty rows of a large system
    members = torch.cat(neighbors)
    sub_types = torch.cat([types[:CENTERS], types[members]])
    sub_offsets = torch.full((len(sub_types) + 1,), counts[-1])
    sub_offsets[: len(counts)] = torch.tensor(counts)
    oracle = reference.symmetry_functions(
        torch.cat(found), sub_offsets, CENTERS + torch.arange(len(members)), sub_types, chosen
    )[:CENTERS]
    first: dict[str, Tensor] = {}

    def check(quantity: str, contestant: str, result: Tensor) -> float:
        rows = result.reshape(-1, result.shape[-1]).detach()
        if quantity == "fwd":
            return compare(quantity, contestant, rows[:CENTERS], oracle, dtype)
        return compare(quantity, contestant, rows, first.setdefault(quantity, rows.double()), dtype)

    return check


def same_as_first(dtype: torch.dtype) -> Check:
    """For results that the oracle is too slow for: contestants must agree with each other."""
    first: dict[str, Tensor] = {}

    def check(quantity: str, contestant: str, result: Tensor) -> float:
        return compare(
            quantity, contestant, result, first.setdefault(quantity, result.double()), dtype
        )

    return check


def compare(
    quantity: str, contestant: str, result: Tensor, oracle: Tensor, dtype: torch.dtype
) -> float:
    assert result.shape == oracle.shape, (
        f"{contestant}, {quantity}: shape {tuple(result.shape)}, expected {tuple(oracle.shape)}"
    )
    error = float((result.double() - oracle).abs().max() / oracle.abs().max())
    assert error < LIMITS[dtype], f"{contestant}, {quantity}: wrong by {error:.1e}, {dtype}"
    return error
