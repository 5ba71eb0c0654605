"""The CUDA neighbour list of periodic structures on the CPU, emulated as test_cuda_emulation says.

The same list as the CPU op's, in the same order, or none where the op asks the CPU.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import pair_ops
from tests import cuda_emulation as emulation

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
PBC = list(itertools.product((True, False), repeat=3))


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "cuda_emulation"


@pytest.fixture(scope="session")
def plain(build_folder: Path) -> Path:
    return emulation.built(build_folder, "plain", "main.cpp", [])


@pytest.fixture(scope="session")
def sanitized(build_folder: Path) -> Path:
    return emulation.built(build_folder, "sanitized", "main.cpp", emulation.SANITIZERS)


def uniform(low: float, high: float, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def scattered(sizes: list[int], cells: Tensor, turns: int, seed: int) -> Tensor:
    """Atoms on shaken grids of fractions, up to ``turns`` cells outside."""
    found = []
    for index, (n, cell) in enumerate(zip(sizes, cells, strict=True)):
        edge = max(1, math.ceil(n ** (1 / 3)))
        grid = torch.cartesian_prod(*[torch.arange(edge)] * 3).double()[:n]
        shaken = (grid + uniform(-0.3, 0.3, (n, 3), seed + index)) / edge
        outside = torch.randint(
            -turns, turns + 1, (n, 3), generator=torch.Generator().manual_seed(seed + index)
        )
        found.append((shaken + outside) @ cell)
    return torch.cat([torch.zeros(0, 3, dtype=torch.float64), *found])


def arguments(
    sizes: list[int],
    cells: Tensor,
    pbc: Any,
    cutoff: float,
    dtype: torch.dtype,
    turns: int = 1,
    seed: int = 0,
) -> tuple[Any, ...]:
    """Of the op: positions, structure_offsets, cell, pbc, cutoff."""
    periodic = torch.as_tensor(pbc, dtype=torch.bool).expand(len(sizes), 3).contiguous()
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    # Whole cells only along the periodic vectors.
    positions = scattered(sizes, cells, 0, seed)
    moved = scattered(sizes, cells * periodic[:, :, None], turns, seed)
    positions = positions + moved - scattered(sizes, cells * periodic[:, :, None], 0, seed)
    return positions.to(dtype), offsets, cells.to(dtype), periodic, cutoff


def skewed(edges: tuple[float, float, float], seed: int) -> Tensor:
    size = sum(edges) / 3
    return torch.diag(torch.tensor(edges, dtype=torch.float64)) + 0.3 * size * torch.tril(
        uniform(-1, 1, (3, 3), seed), -1
    )


def compare(program: Path, folder: Path, given: tuple[Any, ...], seeds: tuple[int, ...]) -> int:
    """The emulated list is the CPU's, for every order of threads; the number of pairs."""
    expected = pair_ops.cell_list(*given)
    for seed in seeds:
        found = emulation.cell_list(program, folder, seed, given)
        assert found is not None, "left to the CPU"
        for name, a, b in zip(("offsets", "neighbors", "shifts"), found, expected, strict=True):
            assert torch.equal(a, b), name
    return len(expected[1])


@BOTH
@pytest.mark.parametrize("pbc", PBC, ids=str)
def test_same_as_the_cpu_op(
    pbc: tuple[bool, bool, bool], dtype: torch.dtype, plain: Path, tmp_path: Path
) -> None:
    """Skewed cells, more than one structure, atoms outside, cells smaller than the cutoff."""
    cells = torch.stack([skewed((9, 11, 13), 1), skewed((4, 3, 5), 2), skewed((6, 6, 30), 3)])
    for cutoff in (1.7, 4.2):
        given = arguments([70, 9, 40], cells, pbc, cutoff, dtype)
        assert compare(plain, tmp_path, given, (1, 2)) > 50


@BOTH
def test_under_sanitizers(dtype: torch.dtype, sanitized: Path, tmp_path: Path) -> None:
    """Mixed periodicity, empty and single-atom structures; many images of one atom; no atoms."""
    cells = torch.stack([skewed((5, 6, 7), seed) for seed in range(5)])
    mixed = [[True] * 3, [False] * 3, [True, False, True], [True] * 3, [False, False, True]]
    given = arguments([30, 20, 0, 1, 12], cells, mixed, 3.1, dtype)
    assert compare(sanitized, tmp_path, given, (1,)) > 100
    tiny = torch.tensor([[1.1, 0, 0], [0.3, 1.2, 0], [-0.2, 0.4, 1.0]], dtype=torch.float64)[None]
    assert compare(sanitized, tmp_path, arguments([1], tiny, True, 6.3, dtype), (1,)) > 512
    assert compare(sanitized, tmp_path, arguments([0, 0], cells[:2], True, 2.0, dtype), (1,)) == 0
    apart = torch.tensor([[0.0, 0, 0], [1e5, 0, 0], [1e5, 1e5, 1], [1e5, 1e5, 2.5]]).to(dtype)
    offsets, none = torch.tensor([0, 4]), torch.zeros(1, 3, dtype=torch.bool)
    given = (apart, offsets, torch.zeros(1, 3, 3, dtype=dtype), none, 2.0)
    assert compare(sanitized, tmp_path, given, (1,)) == 2


def test_pairs_at_the_cutoff_are_those_of_the_cpu(plain: Path, tmp_path: Path) -> None:
    """On lattices whose distances are the cutoff but for rounding, here and cells away."""
    for edge, cutoff in ((0.7, 2.1), (1.0, 3.0), (0.1 * 3, 0.9)):
        grid = torch.cartesian_prod(*[torch.arange(4)] * 3).double() * edge
        generator = torch.Generator().manual_seed(7)
        turns = torch.randint(-50, 51, grid.shape, generator=generator)
        cell = 4 * edge * torch.eye(3, dtype=torch.float64)[None]
        offsets, pbc = torch.tensor([0, 64]), torch.ones(1, 3, dtype=torch.bool)
        given = (grid + turns * (4 * edge), offsets, cell, pbc, cutoff)
        assert compare(plain, tmp_path, given, (1,)) >= 64 * 92


def test_far_outside_and_thin(plain: Path, tmp_path: Path) -> None:
    """A million cells outside; a slab with nothing above; a needle of one cell."""
    cells = torch.stack([skewed((7, 8, 9), 4), skewed((8, 8, 60), 5)])
    given = arguments([25, 30], cells, [[True] * 3, [True, True, False]], 3.3, torch.float64, 10**6)
    assert compare(plain, tmp_path, given, (1,)) > 50
    needle = torch.tensor([[0.9, 0, 0], [0, 40.0, 0], [0, 0, 40]], dtype=torch.float64)[None]
    positions = uniform(0, 0.9, (60, 3), 3) * torch.tensor([1.0, 30, 30], dtype=torch.float64)
    given = (positions, torch.tensor([0, 60]), needle, torch.ones(1, 3, dtype=torch.bool), 3.2)
    assert compare(plain, tmp_path, given, (1,)) > 60


def test_what_is_left_to_the_cpu(sanitized: Path, tmp_path: Path) -> None:
    """What it refuses, and what the kernels are not made for; nothing else happens."""
    cells = torch.stack([skewed((7, 8, 9), 4), skewed((6, 6, 6), 5)])
    good = arguments([20, 10], cells, True, 3.0, torch.float64)
    assert emulation.cell_list(sanitized, tmp_path, 1, good) is not None
    flat, lost, same, outside = cells.clone(), good[0].clone(), good[0].clone(), good[0].clone()
    flat[1, 0] = flat[1, 1]
    lost[7, 1] = math.nan
    same[25] = same[22] + cells[1, 2]
    outside[3] += 3e6 * cells[0, 0]
    for index, value in (
        (0, lost),
        (0, same),
        (0, outside),
        (1, torch.tensor([0, 40, 30])),
        (1, torch.tensor([0, 20, 29])),
        (1, torch.tensor([3, 20, 30])),
        (2, flat),
        (4, 1e6),
    ):
        wrong = (*good[:index], value, *good[index + 1 :])
        assert emulation.cell_list(sanitized, tmp_path, 1, wrong) is None, f"argument {index}"
