"""Potentials: forces and stress against finite differences, committees, training gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pymlp
from pymlp import Batch, ElementNetworks, Potential, neighbor_list
from tests.potentials import ELEMENTS, crystals, descriptor, molecules, potential


# ---------------------------------------------------------------------- energies and derivatives
@pytest.mark.parametrize("batch", [molecules(), crystals()], ids=["molecules", "crystals"])
@pytest.mark.parametrize("family", ["ani", "behler_parrinello"])
def test_forces_are_minus_the_slope_of_the_energy(family: str, batch: Batch) -> None:
    model = potential(family, members=2)
    out = model.compute(batch)
    assert out.forces is not None
    assert float(out.forces.abs().max()) > 0.1
    step = 3e-5
    for atom in range(0, batch.n_atoms, 2):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = batch.positions.clone()
                moved[atom, axis] += sign * step
                energies.append(float(model.compute(batch.with_positions(moved)).energy.sum()))
            slope = (energies[0] - energies[1]) / (2 * step)
            assert float(out.forces[atom, axis]) == pytest.approx(-slope, rel=1e-6, abs=2e-6)


@pytest.mark.parametrize("family", ["ani", "behler_parrinello"])
def test_stress_is_the_slope_in_the_strain(family: str) -> None:
    model = potential(family)
    batch = crystals()
    out = model.compute(batch)
    assert out.stress is not None
    volume = torch.linalg.det(batch.cell).abs()
    step = 1e-5
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        energies = []
        for sign in (1, -1):
            deform = torch.eye(3, dtype=torch.float64)
            deform[i, j] += sign * step / 2
            deform[j, i] += sign * step / 2
            strained = batch.with_positions(batch.positions @ deform, batch.cell @ deform)
            energies.append(model.compute(strained, forces=False).energy)
        slope = (energies[0] - energies[1]) / (2 * step)
        assert torch.allclose(out.stress[:, i, j], slope / volume, atol=1e-8)
        assert torch.equal(out.stress[:, i, j], out.stress[:, j, i])
    assert float(out.stress.abs().max()) > 1e-3


def test_energies_are_sums_of_atomic_energies_with_their_shifts() -> None:
    out = potential().compute(molecules())
    sums = out.atomic_energies.reshape(3, 6).sum(1)
    assert torch.allclose(out.energy, sums, rtol=1e-14)
    assert float(out.energy[0]) == pytest.approx(-2042 - 3 * 13.6 - 2 * 1030, abs=20)
    assert out.energy.dtype == torch.float64


@pytest.mark.parametrize("batch", [molecules(), crystals()], ids=["molecules", "crystals"])
def test_a_batch_is_its_structures_one_by_one(batch: Batch) -> None:
    model = potential(members=2)
    out = model.compute(batch)
    for k, structure in enumerate(batch):
        alone = model.compute(Batch.from_structures([structure]))
        begin, end = batch.structure_offsets[k : k + 2].tolist()
        assert float(alone.energy[0]) == pytest.approx(float(out.energy[k]), abs=1e-10)
        assert torch.allclose(alone.forces, out.forces[begin:end], atol=1e-12)
        assert (alone.stress is None) == (out.stress is None)
        if alone.stress is not None:
            assert torch.allclose(alone.stress[0], out.stress[k], atol=1e-13)
    assert torch.equal(model.compute(batch).forces, out.forces)


@settings(max_examples=10)
@given(st.integers(0, 10**4))
def test_invariance(seed: int) -> None:
    model = potential()
    batch = molecules(1, seed)
    out = model.compute(batch)
    generator = np.random.default_rng(seed)
    rotation = torch.from_numpy(np.linalg.qr(generator.normal(size=(3, 3)))[0])
    order = torch.from_numpy(generator.permutation(6))
    moved = (batch.positions @ rotation + torch.from_numpy(generator.normal(size=3)))[order]
    turned = model.compute(Batch.from_arrays(batch.numbers[order], moved))
    assert float(turned.energy[0]) == pytest.approx(float(out.energy[0]), abs=1e-9)
    assert torch.allclose(turned.forces, (out.forces @ rotation)[order], atol=1e-9)
    assert torch.allclose(out.forces.sum(0), torch.zeros(3).double(), atol=1e-11)


def test_the_prediction_carries_no_graph_and_leaves_none() -> None:
    model = potential()
    batch = molecules()
    batch.positions.requires_grad_()
    out = model.compute(batch)
    assert not out.energy.requires_grad
    assert not out.forces.requires_grad
    assert all(p.grad is None for p in model.parameters())
    energy = model(batch)
    assert torch.allclose(energy, out.energy, atol=1e-10)
    (slope,) = torch.autograd.grad(energy.sum(), batch.positions)
    assert torch.allclose(-slope, out.forces, atol=1e-11)


def test_what_is_not_asked_for_is_not_computed() -> None:
    model = potential()
    out = model.compute(molecules(), forces=False)
    assert (out.forces, out.stress, out.energy_std, out.forces_std) == (None,) * 4
    assert out.extrapolation is None
    assert model.compute(crystals(), forces=False).stress is None
    assert model.compute(crystals(), stress=False).stress is None
    alone = model.compute(crystals(), forces=False, stress=True)
    assert alone.forces is None
    assert torch.equal(alone.stress, model.compute(crystals()).stress)
    with pytest.raises(ValueError, match="stress needs structures that are periodic"):
        model.compute(molecules(), stress=True)
    slab = Batch.from_arrays([8], [[0.0, 0, 0]], np.diag([3.0, 3.0, 9.0]), [True, True, False])
    assert model.compute(slab).stress is None


def test_single_precision_is_near_and_energies_stay_double() -> None:
    model = potential(dtype=torch.float32)
    exact = potential().compute(molecules())
    out = model.compute(molecules(), dtype=torch.float32)
    assert out.forces.dtype == torch.float32
    assert out.energy.dtype == torch.float64
    assert torch.allclose(out.energy, exact.energy, atol=1e-4)
    assert torch.allclose(out.forces.double(), exact.forces, atol=1e-3)


def test_no_structures() -> None:
    out = potential().compute(Batch.from_structures([]))
    assert (out.energy.shape, out.forces.shape) == ((0,), (0, 3))


# ------------------------------------------------------------------------------------- committees
def test_committee_is_mean_and_standard_deviation_of_its_members() -> None:
    model = potential(members=3)
    batch = molecules()
    out = model.compute(batch)
    alone = [Potential(model.descriptor, net).compute(batch) for net in model.networks]
    energies = torch.stack([a.energy for a in alone])
    forces = torch.stack([a.forces for a in alone])
    assert torch.allclose(out.energy, energies.mean(0), atol=1e-10)
    assert torch.allclose(out.forces, forces.mean(0), atol=1e-12)
    assert torch.allclose(out.energy_std, energies.std(0), atol=1e-10)
    assert torch.allclose(out.forces_std, forces.std(0), atol=1e-12)
    assert float(out.energy_std.min()) > 1e-3
    single = model.compute(batch, forces=False)
    assert torch.equal(single.energy_std, out.energy_std)


def test_parts_that_do_not_belong_together() -> None:
    seen = descriptor()
    with pytest.raises(ValueError, match="networks must take the descriptor's"):
        Potential(seen, ElementNetworks(seen.n_features, ["C", "H", "O"]))
    with pytest.raises(ValueError, match="networks must take the descriptor's"):
        Potential(seen, ElementNetworks(seen.n_features + 1, ELEMENTS))
    with pytest.raises(ValueError, match="at least one network"):
        Potential(seen, [])


# ----------------------------------------------------------------------------------- extrapolation
def test_extrapolation_counts_features_outside_their_range() -> None:
    model = potential()
    batch = molecules(20, seed=99)
    inside = model.compute(batch, extrapolation=True).extrapolation
    assert torch.equal(inside, torch.zeros(batch.n_atoms).double())
    squeezed = batch.with_positions(batch.positions * 0.6)
    outside = model.compute(squeezed, extrapolation=True).extrapolation
    assert outside.shape == (batch.n_atoms,)
    assert float(outside.mean()) > 0.2
    assert float(outside.max()) <= 1
    with pytest.raises(ValueError, match="ranges of features.*not known"):
        Potential(model.descriptor, model.networks[0]).compute(batch, extrapolation=True)


# --------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("batch", [molecules(), crystals()], ids=["molecules", "crystals"])
def test_training_gradients_are_those_of_autograd_through_everything(batch: Batch) -> None:
    """The loss on forces, differentiated by the weights: J^T v route against second derivatives."""
    model = potential(members=2)
    pairs = neighbor_list(batch, model.cutoff)
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(batch.n_atoms, 3, generator=generator, dtype=torch.float64)
    weights = [*model.parameters()]

    energies, forces = model.energy_and_forces(batch, pairs, create_graph=True)
    out = model.compute(batch)
    assert torch.allclose(energies, out.energy, atol=1e-10)
    assert torch.allclose(forces, out.forces, atol=1e-11)
    loss = energies.square().mean() * 1e-6 + (forces - target).square().mean()
    ours = torch.autograd.grad(loss, weights, allow_unused=True)

    leaf = batch.with_positions(batch.positions.clone().requires_grad_())
    energies = model(leaf, pairs)
    (slope,) = torch.autograd.grad(energies.sum(), leaf.positions, create_graph=True)
    loss = energies.square().mean() * 1e-6 + (-slope - target).square().mean()
    expected = torch.autograd.grad(loss, weights, allow_unused=True)
    # The last biases move energies alone; all others must get a gradient from both.
    for a, b in zip(ours, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10)
    assert sum(float(a.abs().max()) > 1e-6 for a in ours) == len(weights)


def test_training_on_known_features_and_one_member() -> None:
    model = potential(members=2)
    batch = molecules()
    pairs = neighbor_list(batch, model.cutoff)
    features = model.descriptor(batch, pairs)
    one = model.energy_and_forces(batch, pairs, features=features, member=1)
    alone = Potential(model.descriptor, model.networks[1]).compute(batch)
    assert torch.allclose(one[0], alone.energy, atol=1e-10)
    assert torch.allclose(one[1], alone.forces, atol=1e-12)


def test_relu_serves_energies_alone() -> None:
    model = potential(activation="relu")
    batch = molecules()
    pairs = neighbor_list(batch, model.cutoff)
    assert not model.trains_on_forces
    with pytest.raises(ValueError, match="relu has no second derivative"):
        model.energy_and_forces(batch, pairs, create_graph=True)
    _, forces = model.energy_and_forces(batch, pairs)
    assert torch.allclose(forces, model.compute(batch).forces, atol=1e-12)


def test_energy_and_forces_compile_into_one_graph() -> None:
    model = potential()
    batch = molecules()
    pairs = neighbor_list(batch, model.cutoff)
    types = model.descriptor.types(batch.numbers)

    groups = pymlp.networks.group_by_element(types, 3)
    expected = model.compute(batch)
    for given_groups in (groups, None):

        def energy_and_forces(
            positions: torch.Tensor, groups: Any = given_groups
        ) -> tuple[torch.Tensor, torch.Tensor]:
            d = pymlp.displacements(positions, pairs)
            energies, pulls, _ = model.evaluate(d, pairs, types, groups)
            return energies[0], pymlp.neighbors.forces_from_pairs(pulls[0], pairs)

        compiled = torch.compile(energy_and_forces, fullgraph=True, backend="aot_eager")
        energies, forces = compiled(batch.positions)
        assert torch.allclose(energies, expected.atomic_energies, atol=1e-10)
        assert torch.allclose(forces, expected.forces, atol=1e-11)
