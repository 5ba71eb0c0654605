"""The CUDA kernels of DeepPot-SE on the CPU, emulated as test_cuda_emulation.py describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pymlp import deep_pot_ops as ops
from pymlp.descriptors import DeepPotSE
from tests import cuda_emulation as emulation

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
SEEDS = (1, 2)
LIMITS = {torch.float32: 2e-5, torch.float64: 1e-12}
#: neighbours of each centre
RAGGED = (3, 0, 13, 1)


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "cuda_emulation"


@pytest.fixture(scope="session", params=["plain", "sanitized"])
def program(request: pytest.FixtureRequest, build_folder: Path) -> Path:
    flags = emulation.SANITIZERS if request.param == "sanitized" else []
    return emulation.built(build_folder, request.param, "main.cpp", flags)


def probe(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def split(written: bytes, shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    values = torch.from_numpy(
        np.frombuffer(written, np.float32 if dtype == torch.float32 else np.float64).copy()
    )
    parts = values.split([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def compare(
    program: Path, folder: Path, what: str, items: list[Any], expected: list[Tensor]
) -> None:
    """Same numbers as the CPU, the same bits in any order of threads."""
    dtype, shapes = expected[0].dtype, [tuple(e.shape) for e in expected]
    seeds = SEEDS if program.name == "plain" else SEEDS[:1]
    runs = [emulation._call(program, folder, seed, what, items) for seed in seeds]
    assert runs[0] == runs[-1], f"{what}: the order of threads matters"
    for index, (found, right) in enumerate(
        zip(split(runs[0], shapes, dtype), expected, strict=True)
    ):
        assert found.isfinite().all(), f"{what} {index}: not finite, or never written"
        if not right.numel():
            continue
        largest = float(right.abs().max())
        error = float((found - right).abs().max())
        assert error <= LIMITS[dtype] * largest, f"{what} {index}: {error:.1e} of {largest:.1e}"


@BOTH
@pytest.mark.parametrize("function", [0, 1, 2], ids=["none", "cosine", "quintic"])
@pytest.mark.parametrize("n", [1, 150])
def test_environment_matrix(
    program: Path, tmp_path: Path, n: int, function: int, dtype: torch.dtype
) -> None:
    d = probe((n, 3), 1, dtype)
    d = d / d.norm(dim=1, keepdim=True) * torch.linspace(0.7, 5, n).to(dtype)[:, None]
    g, u = probe((n, 4), 2, dtype), probe((n, 3), 3, dtype)
    rest = (1.5, 4.0, function)
    expected = [
        ops.environment_matrix(d, *rest),
        ops.environment_matrix_backward(g, d, *rest),
        ops.environment_matrix_jvp(u, d, *rest),
        *ops.environment_matrix_double_backward(u, g, d, *rest),
        ops.environment_matrix_jacobian(d, *rest),
    ]
    items = [d.element_size(), n, function, 1.5, 4.0, d, g, u]
    compare(program, tmp_path, "environment", items, expected)


@BOTH
@pytest.mark.parametrize(("functions", "axis"), [(7, 2), (100, 4), (130, 5)])
@pytest.mark.parametrize("counts", [RAGGED, ()], ids=["ragged", "empty"])
def test_contraction(
    program: Path,
    tmp_path: Path,
    counts: tuple[int, ...],
    functions: int,
    axis: int,
    dtype: torch.dtype,
) -> None:
    offsets = torch.tensor([0, *counts]).cumsum(0)
    pairs, centers = int(offsets[-1]), len(counts)
    rows = torch.randperm(pairs, generator=torch.Generator().manual_seed(1))
    g, r = probe((pairs, functions), 2, dtype), probe((pairs, 4), 3, dtype)
    v = probe((centers, functions * axis), 4, dtype)
    u, w = probe((pairs, functions), 5, dtype), probe((pairs, 4), 6, dtype)
    inputs = (g, r, offsets, rows, axis)
    expected = [
        ops.deep_pot_se(*inputs),
        *torch.ops.pymlp.deep_pot_se_backward(v, *inputs),
        *torch.ops.pymlp.deep_pot_se_double_backward(u, w, v, *inputs),
    ]
    items = [g.element_size(), centers, pairs, functions, axis, offsets, rows, g, r, v, u, w]
    compare(program, tmp_path, "contraction", items, expected)


@BOTH
@pytest.mark.parametrize(("widths", "axis"), [((5, 10), 3), ((9, 18, 36), 16)])
def test_table(
    program: Path, tmp_path: Path, widths: tuple[int, ...], axis: int, dtype: torch.dtype
) -> None:
    descriptor = DeepPotSE(["H", "O"], widths, axis, seed=1, dtype=torch.float64).tabulated(1e-6)
    offsets = torch.tensor([0, *RAGGED]).cumsum(0)
    pairs = int(offsets[-1])
    rows = probe((pairs, 4), 7, dtype)
    rows[:, 0] = torch.rand(pairs, generator=torch.Generator().manual_seed(2)) * 1.9
    rows[0, 0], rows[1, 0] = 0.0, 2.0  # both ends of the table
    kinds = torch.arange(pairs) % 4
    table = descriptor._table_arguments(rows)
    v = probe((len(RAGGED), widths[-1] * axis), 8, dtype)
    expected = [
        ops.deep_pot_se_table(rows, offsets, kinds, *table),
        ops.deep_pot_se_table_backward(v, rows, offsets, kinds, *table),
    ]
    coefficients = table[0]
    sizes = [len(RAGGED), pairs, 4, widths[-1], axis, coefficients.shape[1], coefficients.shape[3]]
    items = [rows.element_size(), *sizes, 0.0, table[2], offsets, kinds, rows, coefficients, v]
    compare(program, tmp_path, "table", items, expected)


def test_outside_of_the_table_there_is_nan(program: Path, tmp_path: Path) -> None:
    descriptor = DeepPotSE(["H"], (4, 8), 2, seed=1, dtype=torch.float64).tabulated(1e-3)
    rows = probe((2, 4), 9, torch.float64).abs()
    rows[:, 0] = torch.tensor([2.5, 0.5])
    table = descriptor._table_arguments(rows)
    v = probe((2, 16), 8, torch.float64)
    offsets, kinds = torch.arange(3), torch.zeros(2, dtype=torch.int64)
    coefficients = table[0]
    sizes = [2, 2, 1, 8, 2, coefficients.shape[1], coefficients.shape[3]]
    items = [8, *sizes, 0.0, table[2], offsets, kinds, rows, coefficients, v]
    written = emulation._call(program, tmp_path, 1, "table", items)
    features, gradients = split(written, [(2, 16), (2, 4)], torch.float64)
    assert features[0].isnan().all()
    assert gradients[0].isnan().any()
    assert features[1].isfinite().all()
