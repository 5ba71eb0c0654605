"""The CUDA ops between atoms and pairs on a GPU. Skipped without one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pymlp import Batch, neighbor_list, pair_ops
from pymlp.descriptors import ANI
from tests.test_cuda_pairs import LISTS, molecules, probe

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])

pytestmark = pytest.mark.gpu


def on_gpu(*tensors: Tensor) -> list[Tensor]:
    return [tensor.cuda() for tensor in tensors]


@BOTH
@pytest.mark.parametrize("name", LISTS)
def test_differences(name: str, dtype: torch.dtype) -> None:
    """The CPU's results for lists of any kind; the same bits every time."""
    (offsets, neighbors, shifts), cells, index = LISTS[name][0]()
    positions, cells = probe((len(offsets) - 1, 3), 1, dtype), cells.to(dtype)
    values = probe((len(neighbors), 3), 2, dtype)
    limit = 1e-5 if dtype == torch.float32 else 1e-13
    for op, arguments in (
        (pair_ops.pair_differences, (positions, offsets, neighbors)),
        (pair_ops.image_differences, (positions, cells, index, offsets, neighbors, shifts)),
        (pair_ops.pair_differences_backward, (values, offsets, neighbors)),
    ):
        found = op(*on_gpu(*arguments))
        torch.testing.assert_close(found.cpu(), op(*arguments), rtol=limit, atol=limit)
        for _ in range(3):
            assert torch.equal(op(*on_gpu(*arguments)), found)


def test_derivatives_and_contract() -> None:
    (offsets, neighbors, shifts), cells, index = molecules()
    offsets, neighbors, shifts, cells, index = on_gpu(
        offsets, neighbors, shifts, cells.double(), index
    )
    positions = probe((len(offsets) - 1, 3), 1).cuda().requires_grad_()
    values = probe((len(neighbors), 3), 2).cuda().requires_grad_()
    for op, arguments in (
        ("pair_differences", (positions, offsets, neighbors)),
        ("pair_differences_backward", (values, offsets, neighbors)),
    ):
        torch.library.opcheck(getattr(torch.ops.pymlp, op).default, arguments)
    leaves = positions[:15].detach().requires_grad_(), cells[:3].detach().requires_grad_()
    rest = (index[:15], offsets[:16], neighbors[: int(offsets[15])], shifts[: int(offsets[15])])
    # torch adds the cells' gradients with atomics.
    assert torch.autograd.gradcheck(
        lambda r, c: pair_ops.image_differences(r, c, *rest), leaves, nondet_tol=1e-12
    )


@BOTH
def test_captured_in_a_graph(dtype: torch.dtype) -> None:
    """There and back, for a good list and for one that needs the slow kernel."""
    for name in ("molecules", "one pair missing"):
        (offsets, neighbors, _), _, _ = LISTS[name][0]()
        offsets, neighbors = on_gpu(offsets, neighbors)
        positions = probe((len(offsets) - 1, 3), 1, dtype).cuda()

        def step(
            positions: Tensor = positions, offsets: Tensor = offsets, neighbors: Tensor = neighbors
        ) -> Tensor:
            d = pair_ops.pair_differences(positions, offsets, neighbors)
            return pair_ops.pair_differences_backward(d, offsets, neighbors)

        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        positions.mul_(1.3)
        graph.replay()
        assert torch.equal(captured, step())


def test_features_of_a_known_topology_are_captured() -> None:
    """The list is made in the graph too; its number of pairs is known on the host."""
    batch = Batch.from_arrays(["H", "C", "O", "H"], 3 * probe((7, 4, 3), 5)).to("cuda")
    descriptor = ANI.ani1x(["H", "C", "O"]).cuda()
    descriptor.batch_types(batch)  # looks for unknown elements, once for each batch
    positions = batch.positions.clone()

    def step() -> Tensor:
        return descriptor(batch.with_positions(positions))

    expected = step()  # with its own cutoff
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.testing.assert_close(captured, expected, rtol=1e-12, atol=1e-12)
    positions.mul_(1.1)
    graph.replay()
    torch.testing.assert_close(captured, step(), rtol=1e-12, atol=1e-12)
    known = neighbor_list(batch, math.inf)
    assert neighbor_list(batch.with_positions(positions), math.inf) is known
    assert torch.equal(known.neighbors.cpu(), neighbor_list(batch.to("cpu"), math.inf).neighbors)


def test_numbers_of_pairs_only_where_they_are_known() -> None:
    positions, offsets = torch.rand(9, 3).cuda(), torch.tensor([0, 4, 9]).cuda()
    for cutoff, n_pairs in ((2.0, 32), (math.inf, -1)):
        with pytest.raises(ValueError, match="n_pairs: expected none, or for cutoff = inf"):
            pair_ops.all_pairs(positions, offsets, cutoff, n_pairs)


def test_wrong_arguments_are_refused() -> None:
    (offsets, neighbors, _), _, _ = molecules()
    positions = torch.rand(len(offsets) - 1, 3)
    with pytest.raises(ValueError, match="device"):
        pair_ops.pair_differences(positions.cuda(), offsets, neighbors)
    with pytest.raises(ValueError, match=r"\[A \+ 1\]"):
        pair_ops.pair_differences(*on_gpu(positions, offsets[:-1], neighbors))
    outside = torch.full_like(neighbors, 10**6)
    found = pair_ops.pair_differences(*on_gpu(positions, offsets, outside))
    assert bool(found.isnan().all())
    assert math.isnan(
        float(pair_ops.pair_differences_backward(found, *on_gpu(offsets, outside))[0, 0])
    )
