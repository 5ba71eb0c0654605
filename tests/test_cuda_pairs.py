"""The CUDA kernels between atoms and pairs on the CPU, emulated as test_cuda_emulation.py says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pymlp import Batch, neighbor_list, pair_ops
from tests import cuda_emulation as emulation

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "cuda_emulation"


@pytest.fixture(scope="session", params=["plain", "sanitized"])
def program(request: pytest.FixtureRequest, build_folder: Path) -> Path:
    flags = emulation.SANITIZERS if request.param == "sanitized" else []
    return emulation.built(build_folder, request.param, "main.cpp", flags)


def probe(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def periodic_pairs() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Three structures: images of one neighbour side by side, an atom among its own images."""
    cells = torch.stack([torch.eye(3) * 4 + 0.3 * probe((3, 3), 8).float(), torch.eye(3) * 2.5])
    cells = torch.cat([cells, 30 * torch.eye(3)[None]]).double()
    sizes = torch.tensor([0, 9, 1, 21])
    batch = Batch(
        positions=2 * probe((31, 3), 9),
        numbers=torch.ones(31, dtype=torch.int64),
        structure_offsets=sizes.cumsum(0),
        cell=cells,
        pbc=torch.tensor([[True, True, True], [True, True, False], [False, False, False]]),
    )
    found = neighbor_list(batch, 3.4)
    assert found.shifts is not None
    return (found.pair_offsets, found.neighbors, found.shifts), cells, batch.structure_index


def molecules() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Sizes around those of a group of lanes, an empty and a single one among them."""
    sizes = torch.tensor([0, 14, 0, 1, 9, 40, 2])
    offsets, _, neighbors = pair_ops.all_pairs(torch.rand(66, 3), sizes.cumsum(0), math.inf)
    index = torch.arange(6).repeat_interleave(sizes[1:])
    return (offsets, neighbors, torch.zeros(len(neighbors), 3).int()), torch.rand(6, 3, 3), index


def any_pairs(n_atoms: int, n_pairs: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Neighbours in no order and without their counterparts: no list that is ever made."""
    generator = torch.Generator().manual_seed(n_pairs)
    counts = torch.bincount(
        torch.randint(n_atoms, (n_pairs,), generator=generator), minlength=n_atoms
    )
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    neighbors = torch.randint(n_atoms, (n_pairs,), generator=generator)
    shifts = torch.randint(-2, 3, (n_pairs, 3), generator=generator, dtype=torch.int32)
    return (offsets, neighbors, shifts), torch.rand(1, 3, 3), torch.zeros(n_atoms).long()


def without_one() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """A good list but for one pair, which has no counterpart."""
    (offsets, neighbors, shifts), cells, index = molecules()
    kept = torch.arange(len(neighbors)) != 100
    offsets = offsets - (offsets > 100).long()
    return (offsets, neighbors[kept], shifts[kept]), cells, index


LISTS = {
    "periodic": (periodic_pairs, False),
    "molecules": (molecules, False),
    "none": (lambda: any_pairs(3, 0), False),
    "unordered": (lambda: any_pairs(70, 300), True),
    "few atoms": (lambda: any_pairs(2, 41), True),
    "one pair missing": (without_one, True),
}


@BOTH
@pytest.mark.parametrize("name", LISTS)
def test_differences(name: str, dtype: torch.dtype, program: Path, tmp_path: Path) -> None:
    """The CPU's results, the same bits in any order of threads; who needs the slow kernel."""
    make, slow = LISTS[name]
    pairs, cells, index = make()
    offsets, neighbors, shifts = pairs
    positions, cells = probe((len(offsets) - 1, 3), 1, dtype), cells.to(dtype)
    values = probe((len(neighbors), 3), 2, dtype)
    runs = [
        emulation.differences(program, tmp_path, seed, positions, cells, index, pairs, values)
        for seed in (1, 2)
    ]
    for a, b in zip(runs[0][:3], runs[1][:3], strict=True):
        assert torch.equal(a, b), "the order of threads matters"
    plain, moved, sums, one_way = runs[0]
    assert one_way == slow
    assert torch.equal(plain, pair_ops.pair_differences(positions, offsets, neighbors))
    expected = pair_ops.image_differences(positions, cells, index, offsets, neighbors, shifts)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(moved, expected, **close)
    expected = pair_ops.pair_differences_backward(values, offsets, neighbors)
    torch.testing.assert_close(sums, expected, **close)
    if slow:  # in the order of the CPU
        assert torch.equal(sums, expected)


def test_atoms_that_are_not_there_give_nan(program: Path, tmp_path: Path) -> None:
    """Nothing is read outside the arrays, whatever the indices say."""
    pairs, cells, index = periodic_pairs()
    offsets, neighbors, shifts = (t.clone() for t in pairs)
    neighbors[5], neighbors[-1], index[30] = 31, -7, 3
    positions, values = probe((31, 3), 1), probe((len(neighbors), 3), 2)
    pairs = offsets, neighbors, shifts
    plain, moved, sums, one_way = emulation.differences(
        program, tmp_path, 1, positions, cells, index, pairs, values
    )
    assert one_way
    assert plain[5].isnan().all()
    assert plain[-1].isnan().all()
    assert moved[offsets[30] :].isnan().all()
    assert sums[0].isnan().all()
    offsets[3], offsets[7] = offsets[3] + 1000, -20  # rows of no length, and beyond the list
    emulation.differences(program, tmp_path, 1, positions, cells, index, pairs, values)
