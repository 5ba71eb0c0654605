"""Random batches and random descriptors: oracle, batch = separate, gradients; by hypothesis."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from pymlp import Batch, ElementNetworks, Potential, Structure, neighbor_list
from pymlp.descriptors import ANI, BehlerParrinello
from pymlp.descriptors.base import Descriptor
from tests import reference
from tests.cases import ani_grid, symmetry
from tests.neighbourhoods import Geometry, crystal, molecule, neighbourhood
from tests.reference import SymmetryFunctions

SYMBOLS = ["H", "C", "O", "N"]
NUMBERS = torch.tensor([1, 6, 8, 7])
WEIGHTS = {1: 1.0, 6: 6.0, 8: 8.0, 7: 7.0}


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """A molecule of 1 to 9 atoms, or a cell shorter or longer than the cutoff."""
    seed = draw(st.integers(0, 10_000))
    n_types = draw(st.integers(1, 4))
    if draw(st.booleans()):
        return molecule(draw(st.integers(1, 9)), n_types, seed)
    return crystal(draw(st.integers(1, 4)), n_types, seed, draw(st.floats(3.0, 7.0)))


@st.composite
def descriptors(draw: st.DrawFn) -> tuple[Descriptor, SymmetryFunctions]:
    """A descriptor of either family, and the plain parameters that the oracle takes."""
    channels = draw(st.sampled_from(["element", "none", "weighted"]))
    smooth = draw(st.booleans())
    function = "smooth" if smooth else "cosine"
    radial_cutoff = draw(st.floats(2.5, 5.0))
    angular_cutoff = radial_cutoff * draw(st.floats(0.5, 1.0))
    etas = draw(st.lists(st.floats(0.0, 8.0), max_size=4, unique=True))
    zeta = draw(st.sampled_from([1.0, 2.0, 4.0, 7.3, 32.0]))
    cutoffs = (radial_cutoff, angular_cutoff)
    if draw(st.booleans()):
        shifts = draw(st.lists(st.floats(0.5, 3.0), min_size=1, max_size=3, unique=True))
        thetas = draw(st.lists(st.floats(0.1, 3.0), max_size=3, unique=True))
        scale = draw(st.sampled_from([1.0, 0.95]))
        prefactor = draw(st.floats(0.1, 2.0))
        ani = ANI(
            SYMBOLS,
            radial_eta=4.0,
            radial_shifts=shifts,
            zeta=zeta,
            theta_shifts=thetas,
            angular_eta=2.0,
            angular_shifts=sorted(shifts),
            radial_cutoff=radial_cutoff,
            angular_cutoff=angular_cutoff,
            channels=channels,  # type: ignore[arg-type]
            cos_scale=scale,
            radial_prefactor=prefactor,
            cutoff_function=function,  # type: ignore[arg-type]
        )
        plain = symmetry(
            "ani",
            4,
            radial=[(4.0, shift, prefactor) for shift in shifts],
            angular=ani_grid(2.0, sorted(shifts), zeta, thetas),
            channels=channels,
            cutoffs=cutoffs,
            smooth=smooth,
            cos_scale=scale,
        )
        return ani, _with_weights(plain, channels)
    g4 = draw(st.booleans())
    angular = sorted((eta / 20, zeta, theta) for eta in set(etas) for theta in (0.0, math.pi))
    bp = BehlerParrinello(
        SYMBOLS,
        radial=[(0.7, 1.0), *((eta, 0.3) for eta in etas)],
        angular=angular,
        cutoff=radial_cutoff,
        angular_cutoff=angular_cutoff,
        channels=channels,  # type: ignore[arg-type]
        angular_form="g4" if g4 else "g5",
        cutoff_function=function,  # type: ignore[arg-type]
    )
    plain = symmetry(
        "behler_parrinello",
        4,
        radial=[(0.7, 1.0, 1.0), *((eta, 0.3, 1.0) for eta in etas)],
        angular=list(angular),
        channels=channels,
        cutoffs=cutoffs,
        smooth=smooth,
        jk_factors=g4,
    )
    return bp, _with_weights(plain, channels)


def _with_weights(plain: SymmetryFunctions, channels: str) -> SymmetryFunctions:
    if channels == "weighted":
        plain.weights[:] = [WEIGHTS[int(number)] for number in NUMBERS]
    return plain


def batch_of(structures: list[Geometry]) -> Batch:
    return Batch.from_structures(
        Structure(NUMBERS[g.types], g.positions, g.cell, (g.cell is not None,) * 3)
        for g in structures
    )


@given(st.lists(geometries(), max_size=4), descriptors())
def test_descriptors_are_the_oracle(
    structures: list[Geometry], pair: tuple[Descriptor, SymmetryFunctions]
) -> None:
    descriptor, plain = pair
    near = neighbourhood(structures, descriptor.cutoff)
    oracle = reference.symmetry_functions(
        near.displacements, near.pair_offsets, near.neighbors, near.types, plain, epsilon=1.5e-8
    )
    ours = descriptor(batch_of(structures))
    assert ours.shape == oracle.shape
    if ours.numel():
        error = float((ours - oracle).abs().max() / oracle.abs().max().clamp(min=1e-3))
        # images of one atom on a line: sin(theta) there has half of the digits
        assert error < 3e-7, f"{descriptor}: off by {error:.1e}"


@given(st.lists(geometries(), min_size=1, max_size=4), descriptors(), st.booleans())
def test_batch_is_its_structures(
    structures: list[Geometry], pair: tuple[Descriptor, SymmetryFunctions], single: bool
) -> None:
    """Features, energies and forces of a batch are those of its structures alone."""
    descriptor, _ = pair
    batch = batch_of(structures)
    if single:
        batch = batch.to(dtype=torch.float32)
    networks = ElementNetworks(
        descriptor.n_features, descriptor.elements, hidden=(5,), seed=1, dtype=torch.float64
    )
    potential = Potential(descriptor, networks)
    together = potential.compute(batch)
    assert together.forces is not None
    features = descriptor(batch)
    limit = 2e-4 if single else 1e-10
    for index in range(len(batch)):
        alone = batch[index : index + 1]
        rows = slice(int(batch.structure_offsets[index]), int(batch.structure_offsets[index + 1]))
        assert torch.allclose(descriptor(alone), features[rows], rtol=limit, atol=limit)
        own = potential.compute(alone)
        assert own.forces is not None
        difference = abs(float(own.energy[0] - together.energy[index]))
        assert difference < limit * max(1.0, abs(float(own.energy[0]))), f"{index}: {difference}"
        scale = max(1.0, float(own.forces.abs().max()))
        error = float((own.forces - together.forces[rows]).abs().max()) / scale
        assert error < limit, f"forces of structure {index} differ by {error:.1e} in the batch"


@given(st.lists(geometries(), min_size=1, max_size=3), descriptors())
def test_longer_lists_change_nothing(
    structures: list[Geometry], pair: tuple[Descriptor, SymmetryFunctions]
) -> None:
    """A list with a skin, as molecular dynamics keeps it, gives the same features."""
    descriptor, _ = pair
    batch = batch_of(structures)
    skin = neighbor_list(batch, descriptor.cutoff + 0.7)
    assert torch.allclose(descriptor(batch, skin), descriptor(batch), rtol=1e-11, atol=1e-11)
