"""Means and deviations over a committee: the op against torch, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pymlp import Batch, Potential, neighbor_list
from pymlp.prediction import _in_torch, committee_statistics
from tests.potentials import crystals, molecules, potential

DTYPES = (torch.float32, torch.float64)


def some(batch: Batch, networks: int, gradients: int, dtype: torch.dtype) -> tuple[Any, ...]:
    pairs = neighbor_list(batch, 3.0)
    generator = torch.Generator().manual_seed(0)
    energies = torch.randn(networks, batch.n_atoms, generator=generator, dtype=torch.float64)
    by_pair = torch.randn(gradients, pairs.n_pairs, 3, generator=generator, dtype=torch.float64)
    return energies, batch, by_pair.to(dtype) if gradients else None, pairs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("networks", [1, 2, 5])
@pytest.mark.parametrize("batch", [molecules(), crystals(), Batch.from_structures([])])
def test_the_op_is_what_torch_says(batch: Batch, networks: int, dtype: torch.dtype) -> None:
    for gradients in (0, 1, networks):
        arguments = some(batch, networks, gradients, dtype)
        for own, plain in zip(committee_statistics(*arguments), _in_torch(*arguments), strict=True):
            assert (own is None) == (plain is None)
            if own is not None:
                torch.testing.assert_close(own, plain)


def test_the_same_bits_on_two_threads() -> None:
    arguments = some(molecules(1500), 3, 3, torch.float32)
    before = torch.get_num_threads()
    results = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        results.append(committee_statistics(*arguments))
    torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_what_does_not_fit_is_refused() -> None:
    energies, batch, by_pair, pairs = some(molecules(), 2, 2, torch.float64)
    for wrong in (
        (energies.float(), batch, by_pair, pairs),
        (energies[0], batch, by_pair, pairs),
        (energies[:0], batch, by_pair, pairs),
        (energies[:, 1:], batch, by_pair, pairs),
        (energies, batch, by_pair[:, 1:], pairs),
        (energies, batch, by_pair[0], pairs),
        (energies, batch, by_pair[:0], pairs),
        (energies, batch, by_pair.long(), pairs),
        (energies, molecules(2), by_pair, pairs),
    ):
        with pytest.raises(ValueError, match="expected"):
            committee_statistics(*wrong)


@pytest.mark.parametrize("batch", [molecules(), crystals()], ids=["molecules", "crystals"])
def test_without_spread_forces_and_stress_are_the_same(batch: Batch) -> None:
    model = potential(members=3)
    full, mean = model.compute(batch), model.compute(batch, spread=False)
    assert mean.forces_std is None
    assert torch.equal(mean.energy_std, full.energy_std)
    assert torch.equal(mean.energy, full.energy)
    torch.testing.assert_close(mean.forces, full.forces, rtol=0, atol=1e-13)
    if full.stress is not None:
        torch.testing.assert_close(mean.stress, full.stress, rtol=0, atol=1e-14)
    alone = Potential(model.descriptor, list(model.networks)[:1])
    assert torch.equal(alone.compute(batch, spread=False).forces, alone.compute(batch).forces)
