"""Lists of isolated structures whose number of pairs the host knows before they are made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pymlp import Batch, neighbor_list, neighbors, pair_ops


def test_while_a_graph_is_captured_all_pairs_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number follows from the sizes, which the host knows; others have to be made before."""
    batch = Batch.from_arrays(["H"] * 5, np.arange(30.0).reshape(2, 5, 3))
    expected = neighbor_list(batch, math.inf)
    monkeypatch.setattr(neighbors, "_is_captured", lambda positions: True)
    found = neighbor_list(batch, 2.0)
    assert torch.equal(found.neighbors, expected.neighbors)
    assert torch.equal(found.pair_offsets, expected.pair_offsets)
    assert found.cutoff == math.inf
    assert "every pair" not in batch._topology, "it has values only when the graph runs"
    monkeypatch.setattr(neighbors, "_is_captured", lambda positions: False)
    kept = neighbors._every_pair(batch)
    assert neighbors._every_pair(batch.with_positions(batch.positions + 1)) is kept
    monkeypatch.setattr(neighbors, "_is_captured", lambda positions: True)
    assert neighbor_list(batch, 2.0) is kept
    monkeypatch.setattr(neighbors, "ALL_PAIRS_ATOMS", 4)
    for other in (batch, Batch.from_arrays(["H"], [[0.0, 0, 0]], np.eye(3), True)):
        with pytest.raises(ValueError, match="while a CUDA graph is captured: make one before"):
            neighbor_list(other, 2.0)


def test_the_number_of_pairs_can_be_given() -> None:
    positions, offsets = torch.rand(9, 3), torch.tensor([0, 4, 9])
    found = pair_ops.all_pairs(positions, offsets, math.inf, 32)
    for a, b in zip(found, pair_ops.all_pairs(positions, offsets, math.inf), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="n_pairs: expected P = 32 or none, got 31"):
        pair_ops.all_pairs(positions, offsets, math.inf, 31)
