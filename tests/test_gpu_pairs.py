"""The CUDA ops between atoms and pairs on a GPU. Skipped without one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pymlp import Batch, ElementNetworks, Potential, neighbor_list, pair_ops
from pymlp.benchmark_workloads import water
from pymlp.descriptors import ANI, BehlerParrinello
from tests.test_cuda_cells import PBC, skewed
from tests.test_cuda_cells import arguments as cell_arguments
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
    assert torch.autograd.gradcheck(lambda r, c: pair_ops.image_differences(r, c, *rest), leaves)


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


@BOTH
@pytest.mark.parametrize("pbc", PBC, ids=str)
def test_cell_list(pbc: tuple[bool, bool, bool], dtype: torch.dtype) -> None:
    """The CPU's list, in its order, for cells of any shape; the same every time."""
    cells = torch.stack([skewed((9, 11, 13), 1), skewed((4, 3, 5), 2), skewed((30, 40, 50), 3)])
    for cutoff in (1.7, 5.2):
        given = cell_arguments([70, 9, 3000], cells, pbc, cutoff, dtype)
        expected = pair_ops.cell_list(*given)
        for _ in range(2):
            found = pair_ops.cell_list(*on_gpu(*given[:4]), cutoff)
            for name, a, b in zip(("offsets", "neighbors", "shifts"), found, expected, strict=True):
                assert torch.equal(a.cpu(), b), name


def test_lists_of_water_stay_on_the_device() -> None:
    """Features and forces of periodic water agree with the CPU's."""
    workload = water(999)
    batch = Batch.from_arrays(workload.numbers, workload.positions, workload.cell, True)
    descriptor = ANI.ani1x(["H", "O"])

    def features_and_gradient(device: str) -> tuple[Tensor, Tensor]:
        moved = batch.to(device)
        positions = moved.positions.clone().requires_grad_()
        features = descriptor.to(device)(moved.with_positions(positions))
        (weights,) = (probe(tuple(features.shape), 3).to(device),)
        (gradient,) = torch.autograd.grad((features * weights).sum(), positions)
        return features.detach().cpu(), gradient.cpu()

    for found, expected in zip(
        features_and_gradient("cuda"), features_and_gradient("cpu"), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_potential() -> None:
    """Energies, forces and stress of a batch of cells: the CPU's, and the same bits every time."""
    box = water(99)
    cells = box.cell * torch.tensor([1.0, 1.02, 1.04], dtype=torch.float64)[:, None, None]
    batch = Batch.from_arrays(box.numbers, box.positions.expand(3, -1, -1), cells, True)
    elements = ["H", "O"]
    descriptor = BehlerParrinello.paper(elements)
    networks = [ElementNetworks(descriptor.n_features, elements, (8,), seed=s) for s in (1, 2)]
    potential = Potential(descriptor, networks)
    expected = potential.compute(batch)
    on_device, moved = potential.to("cuda"), batch.to("cuda")
    found, again = on_device.compute(moved), on_device.compute(moved)
    for name in ("energy", "forces", "stress", "energy_std", "forces_std"):
        value = getattr(found, name)
        torch.testing.assert_close(value.cpu(), getattr(expected, name), rtol=1e-9, atol=1e-9)
        assert torch.equal(value, getattr(again, name)), name


def test_cells_refuse_in_the_words_of_the_cpu() -> None:
    cells = torch.stack([skewed((7, 8, 9), 4), skewed((6, 6, 6), 5)])
    good = cell_arguments([20, 10], cells, True, 3.0, torch.float64)
    flat, lost, same, far = cells.clone(), good[0].clone(), good[0].clone(), good[0].clone()
    flat[1, 0] = flat[1, 1]
    lost[7, 1] = math.nan
    same[25] = same[22] + cells[1, 2]
    far[3] += 3e6 * cells[0, 0]
    for index, value, message in (
        (0, lost, "positions must be finite, got NaN or Inf at atom 7"),
        (0, same, "structure 1: atoms 2 and 5 coincide"),
        (1, torch.tensor([0, 40, 30]), "structure_offsets: expected to ascend"),
        (2, flat, "cell: expected linearly independent vectors.*structure 1"),
        (4, 1e6, "cutoff: structure 0 has too many atoms and periodic images"),
    ):
        wrong = [*good[:index], value, *good[index + 1 :]]
        with pytest.raises(ValueError, match=message):
            pair_ops.cell_list(*on_gpu(*wrong[:4]), wrong[4])
    found = pair_ops.cell_list(*on_gpu(far, *good[1:4]), 3.0)  # the CPU's, moved back
    assert {part.device.type for part in found} == {"cuda"}
    assert torch.equal(found[1].cpu(), pair_ops.cell_list(far, *good[1:])[1])


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
