"""Descriptors and potentials: translation, rotation, permutation, images, smooth cutoffs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pymlp import Batch, ElementNetworks, Potential, Structure
from pymlp.descriptors import ANI, BehlerParrinello
from pymlp.descriptors.base import Descriptor
from tests.cases import BP_ANGULAR, BP_RADIAL
from tests.neighbourhoods import crystal, molecule

NUMBERS = torch.tensor([1, 6, 8])
RADIAL = [(row[0], row[1]) for row in BP_RADIAL]
ANGULAR = [(term[0], term[1], term[2]) for term in BP_ANGULAR if term]

MAKERS: dict[str, Callable[[], Descriptor]] = {
    "bp paper": lambda: BehlerParrinello.paper(["H", "C", "O"]),
    "bp no channels, g5": lambda: BehlerParrinello(
        ["H", "C", "O"], RADIAL, ANGULAR, cutoff=4.0, channels="none", angular_form="g5"
    ),
    "bp weighted, smooth": lambda: BehlerParrinello(
        ["H", "C", "O"],
        RADIAL,
        ANGULAR,
        cutoff=4.5,
        angular_cutoff=3.5,
        channels="weighted",
        cutoff_function="smooth",
    ),
    "bp own sets": lambda: BehlerParrinello(
        ["H", "C", "O"],
        {"H": RADIAL[:2], "C": RADIAL, "O": RADIAL[3:]},
        {"H": ANGULAR[:3], "C": ANGULAR, "O": []},
        cutoff=4.0,
    ),
    "ani-1x": lambda: ANI.ani1x(["H", "C", "O"]),
    "ani-2x like torchani": lambda: ANI.like_torchani("2x"),
}
EACH = pytest.mark.parametrize("name", MAKERS)


def sample(seed: int = 51) -> Batch:
    """Two molecules and one small periodic cell."""
    pieces = [molecule(9, 3, seed), crystal(5, 3, seed + 1, 4.3), molecule(6, 3, seed + 2)]
    return Batch.from_structures(
        Structure(NUMBERS[g.types], g.positions, g.cell, (g.cell is not None,) * 3) for g in pieces
    )


def moved(batch: Batch, change: Callable[[Structure], Structure]) -> Batch:
    return Batch.from_structures([change(structure) for structure in batch.split()])


def same(what: str, ours: Tensor, expected: Tensor, limit: float = 1e-11) -> None:
    error = float((ours - expected).detach().abs().max() / expected.detach().abs().max())
    assert error < limit, f"{what}: changed by {error:.2e} (relative; limit {limit:.0e})"


def rotation(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q


@EACH
def test_translation(name: str) -> None:
    descriptor, batch = MAKERS[name](), sample()
    shift = torch.tensor([0.37, -1.9, 12.4]).double()
    other = moved(batch, lambda s: Structure(s.numbers, s.positions + shift, s.cell, s.pbc))
    same(f"{name}, translation", descriptor(other), descriptor(batch))


@EACH
def test_rotation_and_reflection(name: str) -> None:
    """Features stay, gradients turn along; a reflection has no effect on features either."""
    descriptor, batch = MAKERS[name](), sample()
    turn = rotation(52)
    for matrix in (turn, -turn):
        other = moved(
            batch,
            lambda s, m=matrix: Structure(  # type: ignore[misc]
                s.numbers, s.positions @ m, None if s.cell is None else s.cell @ m, s.pbc
            ),
        )
        slopes = []
        for each in (batch, other):
            each.positions.requires_grad_()
            features = descriptor(each)
            weights = torch.cos(torch.arange(features.numel(), dtype=torch.float64))
            slopes.append(
                torch.autograd.grad((features * weights.view_as(features)).sum(), each.positions)[0]
            )
        same(f"{name}, rotation", descriptor(other), descriptor(batch))
        same(f"{name}, rotated gradient", slopes[1], slopes[0] @ matrix, 1e-9)


@EACH
def test_permutation(name: str) -> None:
    """Rows follow their atoms; the order of structures does not matter."""
    descriptor, batch = MAKERS[name](), sample()
    orders = [torch.randperm(len(s), generator=torch.Generator().manual_seed(53)) for s in batch]
    structures = [
        Structure(s.numbers[order], s.positions[order], s.cell, s.pbc)
        for s, order in zip(batch.split(), orders, strict=True)
    ]
    rows = torch.cat(
        [start + order for start, order in zip(batch.structure_offsets, orders, strict=False)]
    )
    features = descriptor(batch)
    same(f"{name}, atoms", descriptor(Batch.from_structures(structures)), features[rows])
    backwards = Batch.from_structures(batch.split()[::-1])
    parts = features.split([len(s) for s in batch.split()])
    same(f"{name}, structures", descriptor(backwards), torch.cat(parts[::-1]))


@EACH
def test_images_and_supercells(name: str) -> None:
    """Atoms moved by lattice vectors, and cells doubled along one vector, see the same."""
    descriptor = MAKERS[name]()
    geometry = crystal(5, 3, 54, 4.3)
    cell = geometry.cell
    assert cell is not None
    numbers, positions = NUMBERS[geometry.types], geometry.positions
    expected = descriptor(Batch.from_arrays(numbers, positions, cell=cell, pbc=True))
    jumps = torch.tensor([[0, 0, 0], [1, 0, 0], [0, -2, 1], [3, 1, -1], [0, 0, 5]]).double()
    jumped = Batch.from_arrays(numbers, positions + jumps @ cell, cell=cell, pbc=True)
    same(f"{name}, images", descriptor(jumped), expected)
    doubled = cell.clone()
    doubled[1] *= 2
    both = torch.cat([positions, positions + cell[1]])
    supercell = Batch.from_arrays(numbers.repeat(2), both, cell=doubled, pbc=True)
    same(f"{name}, supercell", descriptor(supercell), expected.repeat(2, 1))


def approach(distance: float) -> Batch:
    """C-H ... O with the O at ``distance`` from C: a pair and a triple cross the cutoff."""
    rows = [[0.0, 0.0, 0.0], [0.3, 1.0, 0.2], [distance, 0.0, 0.0]]
    positions = torch.tensor(rows, dtype=torch.float64)
    return Batch.from_arrays(torch.tensor([6, 1, 8]), positions)


@EACH
def test_smooth_at_the_cutoff(name: str) -> None:
    """No step in value or slope where a neighbour enters; exactly nothing beyond."""
    descriptor = MAKERS[name]()
    angular = float(getattr(descriptor, "angular_cutoff", descriptor.cutoff))
    beyond = approach(descriptor.cutoff * (1 + 1e-9))
    alone = descriptor(approach(descriptor.cutoff * 3))[0]
    assert torch.equal(descriptor(beyond)[0], alone), f"{name}: a feature beyond the cutoff"
    for radius in {descriptor.cutoff, angular}:
        steps = [radius * (1 + s) for s in (-1e-7, -1e-12, 0.0, 1e-7)]
        values = [descriptor(approach(step))[0] for step in steps]
        # of the C's features along the O's x
        slopes = [descriptor.jacobian(approach(step))[0][0, :, 2, 0] for step in steps]
        for step, value, slope in zip(steps, values, slopes, strict=True):
            change = float((value - values[-1]).abs().max())
            assert change < 1e-5, f"{name}: step of {change:.1e} in a feature at {step} Å"
            change = float((slope - slopes[-1]).abs().max())
            assert change < 1e-3, f"{name}: step of {change:.1e} in a slope at {step} Å"


@pytest.mark.parametrize("name", ["bp weighted, smooth"])
def test_smooth_variant_has_smooth_curvature(name: str) -> None:
    """The second derivative of the C-infinity cutoff vanishes at the cutoff, too."""
    descriptor = MAKERS[name]()
    batch = approach(descriptor.cutoff * (1 - 1e-3))
    batch.positions.requires_grad_()
    total = descriptor(batch)[2].sum()  # of the O: the C is its only neighbour within reach
    (slope,) = torch.autograd.grad(total, batch.positions, create_graph=True)
    (curvature,) = torch.autograd.grad(slope[2, 0], batch.positions)
    size = float(curvature[0].abs().max())
    assert size < 1e-12, f"{name}: curvature {size:.1e}"


@EACH
def test_slopes_are_finite_differences_of_positions(name: str) -> None:
    """Through neighbour list, displacements and op, with periodic images of the same atom."""
    descriptor, batch = MAKERS[name](), sample(55)
    batch.positions.requires_grad_()
    features = descriptor(batch)
    weights = torch.sin(torch.arange(features.numel(), dtype=torch.float64)).view_as(features)
    (slope,) = torch.autograd.grad((features * weights).sum(), batch.positions)
    direction = torch.randn(
        slope.shape, generator=torch.Generator().manual_seed(56), dtype=torch.float64
    )
    step, energies = 1e-5, []
    for sign in (1, -1):
        there = moved(batch, lambda s: s)
        there.positions = (batch.positions + sign * step * direction).detach()
        energies.append(float((descriptor(there) * weights).sum()))
    numeric = (energies[0] - energies[1]) / (2 * step)
    analytic = float((slope * direction).sum())
    assert math.isclose(numeric, analytic, rel_tol=1e-6), f"{name}: {analytic} and {numeric}"


@EACH
def test_potential_has_no_net_force_or_torque(name: str) -> None:
    descriptor, batch = MAKERS[name](), sample(57)
    networks = ElementNetworks(
        descriptor.n_features, descriptor.elements, hidden=(8,), seed=58, dtype=torch.float64
    )
    forces = Potential(descriptor, networks).compute(batch).forces
    assert forces is not None
    scale = float(forces.abs().max())
    for index, structure in enumerate(batch.split()):
        own = forces[batch.structure_offsets[index] : batch.structure_offsets[index + 1]]
        net = float(own.sum(0).abs().max())
        assert net < 1e-12 * scale * len(own), f"{name}: net force {net:.1e} on structure {index}"
        if structure.cell is None:
            torque = float(torch.linalg.cross(structure.positions, own).sum(0).abs().max())
            assert torque < 1e-11 * scale * len(own), f"{name}: torque {torque:.1e}"
