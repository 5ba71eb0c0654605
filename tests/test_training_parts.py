"""What training is made of: schedules, the order of structures, cached structures, the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pymlp.descriptors import ANI, BehlerParrinello
from pymlp.networks import ElementNetworks
from pymlp.structures import Batch
from pymlp.training import CachedStructures, EpochShuffle
from pymlp.training.module import energies_and_forces
from pymlp.training.schedule import LossWeights, PlateauState, learning_rate_factor
from tests.toy_data import morse_batch

# -- schedule and loss ----------------------------------------------------------------------


def test_loss_weights_are_the_tutorials() -> None:
    weights = LossWeights()
    for factor in (1.0, 0.3, 0.0):
        energy, force = weights.at(factor)
        assert energy + force == pytest.approx(1.0)
        assert force / energy == pytest.approx(1 + 99 * factor)


def test_learning_rates() -> None:
    def factor(kind: str, step: int, **more: float) -> float:
        return learning_rate_factor(kind, step, 1000, 10, **more)  # type: ignore[arg-type]

    assert factor("cosine", 0) == 1.0
    assert factor("cosine", 500, final=0.0) == pytest.approx(0.5)
    assert factor("cosine", 1000, final=0.01) == pytest.approx(0.01)
    assert factor("exponential", 99) == 1.0
    assert factor("exponential", 100) == 0.95
    assert factor("exponential", 999) == pytest.approx(0.95**9)
    assert factor("constant", 7) == factor("plateau", 7) == 1.0
    assert factor("constant", 49, warmup=0.1) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="kind must be"):
        factor("steps", 1)


def test_plateau_reduces_after_patience_and_survives_a_checkpoint() -> None:
    state = PlateauState(factor=0.5, patience=2, final=0.2)
    values = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]
    scales = []
    for value in values:
        copy = PlateauState(factor=0.5, patience=2, final=0.2)
        copy.load_state_dict(state.state_dict())
        state = copy
        state.update(value)
        scales.append(state.scale)
    assert scales == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]


def test_epoch_order_depends_on_seed_and_epoch_alone() -> None:
    order = EpochShuffle(23, 5, seed=3)
    order.set_epoch(4)
    torch.rand(3)
    first = list(order)
    assert list(order) == first
    assert sorted(index for part in first for index in part) == list(range(23))
    assert {len(part) for part in first} == {4, 5}
    order.set_epoch(5)
    assert list(order) != first
    assert len(order) == len(first) == 5


# -- cached structures ----------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_cached_batches_are_the_structures_themselves(cache: bool) -> None:
    batch = morse_batch()
    other = Batch.from_arrays(
        [1, 1], [[0.0, 0, 0], [0.7, 0, 0]], energies=1.0, forces=np.zeros((2, 3))
    )
    mixed = Batch.from_structures([*batch.split(), *other.split()])
    descriptor = BehlerParrinello.paper(["H", "O"])
    cached = CachedStructures(
        mixed, descriptor, dtype=torch.float64, cache_limit=1e9 if cache else 0.0
    )
    assert (cached.features is not None) == cache
    part = cached[[6, 2]]
    expected = mixed[[6, 2]]
    torch.testing.assert_close(part.features, descriptor(expected), rtol=1e-12, atol=1e-12)
    assert torch.equal(part.structure_index, expected.structure_index)
    assert torch.equal(part.forces, expected.forces)
    assert torch.equal(part.energies, expected.energies)
    assert torch.equal(part.types, descriptor.types(expected.numbers))


def test_periodic_structures_keep_their_images() -> None:
    r = np.random.default_rng(1).random((4, 3)) * 3
    batch = Batch.from_arrays([8, 1, 1, 8], r, cell=np.eye(3) * 4.0, pbc=True, energies=0.0)
    descriptor = BehlerParrinello.paper(["H", "O"])
    cached = CachedStructures(batch, descriptor, dtype=torch.float64)
    torch.testing.assert_close(cached[[0]].features, descriptor(batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_forces_and_gradients_of_the_loss_are_those_of_autograd(activation: str) -> None:
    batch = morse_batch(3)
    descriptor = ANI.ani1x(["H", "O"])
    network = ElementNetworks(
        descriptor.n_features, ["H", "O"], (6, 5), activation, seed=1
    ).double()
    cached = CachedStructures(batch, descriptor, dtype=torch.float64)
    energies, forces = energies_and_forces(
        network, descriptor, cached[range(3)], forces=True, create_graph=True
    )
    assert forces is not None
    loss = energies.square().sum() + forces.square().sum()
    weights = list(network.parameters())
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)

    r = batch.positions.clone().requires_grad_()
    atomic = network(descriptor(batch.with_positions(r)), descriptor.types(batch.numbers))
    plain = torch.zeros(3, dtype=torch.float64).index_add(0, batch.structure_index, atomic)
    (slope,) = torch.autograd.grad(plain.sum(), r, create_graph=True)
    torch.testing.assert_close(energies, plain)
    torch.testing.assert_close(forces, -slope)
    plain_loss = plain.square().sum() + slope.square().sum()
    for mine, reference in zip(
        gradients, torch.autograd.grad(plain_loss, weights, allow_unused=True), strict=True
    ):
        if reference is not None:
            torch.testing.assert_close(mine, reference)
