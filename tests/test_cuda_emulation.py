"""The CUDA kernels on the CPU: same results as the CPU ops, no races, nothing outside its memory.

tests/cuda_emulation compiles csrc/loops/cuda with a C++ compiler, runs a fibre for every CUDA
thread, and stops at divergent barriers and deadlocks; outputs and shared memory begin as NaNs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import ops
from tests import cuda_emulation as emulation
from tests.cases import Case, cases

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
ALL = pytest.mark.parametrize("case", cases(), ids=str)
SEEDS = (1, 2, 3)
#: relative to the largest value: features, first, second derivatives
LIMITS = {torch.float32: (5e-6, 2e-5, 2e-4), torch.float64: (1e-13, 1e-12, 1e-9)}
HALF_OF_THE_DIGITS = {dtype: 10 * torch.finfo(dtype).eps ** 0.5 for dtype in DTYPES}
ORDER = {"features": 0, "vjp": 1, "jvp": 1, "double_backward jvp": 1, "curvature": 2, "jacobian": 1}


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    # processes of pytest-xdist have a folder each, below a common one
    return (base.parent if base.name.startswith("popen-") else base) / "cuda_emulation"


@pytest.fixture(scope="session")
def plain(build_folder: Path) -> Path:
    return emulation.built(build_folder, "plain", "main.cpp", [])


@pytest.fixture(scope="session")
def sanitized(build_folder: Path) -> Path:
    return emulation.built(build_folder, "sanitized", "main.cpp", emulation.SANITIZERS)


def probe(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def inputs(case: Case, dtype: torch.dtype) -> dict[str, Any]:
    x = case.displacements(dtype)
    return {
        "family": case.family,
        "displacements": x,
        "rest": case.rest(dtype),
        "grad_features": probe((case.neighbourhood.n_atoms, case.n_features), 1, dtype),
        "tangents": probe(tuple(x.shape), 2, dtype),
    }


def on_cpu(
    family: str,
    displacements: Tensor,
    rest: tuple[Any, ...],
    grad_features: Tensor,
    tangents: Tensor,
) -> dict[str, Tensor]:
    def call(suffix: str, *leading: Tensor) -> Any:
        return getattr(ops, family + suffix)(*leading, displacements, *rest)

    both = call("_double_backward", tangents, grad_features)
    values = (
        call(""),
        call("_backward", grad_features),
        call("_jvp", tangents),
        *both,
        call("_jacobian"),
    )
    return dict(zip(emulation.OUTPUTS, values, strict=True))


def compare(case: Case, dtype: torch.dtype, found: dict[str, Tensor]) -> None:
    expected = on_cpu(**inputs(case, dtype))
    for name, value in found.items():
        reference = expected[name]
        assert value.isfinite().all(), f"{case} {name}: not finite, or never written"
        if not value.numel() or (name == "curvature" and not case.curvature_defined):
            continue
        error = float((value - reference).abs().max())
        largest = float(reference.abs().max())
        order = ORDER[name]
        lost = case.sine_lost and order == 1
        limit = HALF_OF_THE_DIGITS[dtype] if lost else LIMITS[dtype][order]
        assert error <= limit * largest, (
            f"{case} {name}: {error:.2e} of {largest:.2e} > {limit:.0e}"
        )


@BOTH
@ALL
def test_same_as_the_cpu_op(case: Case, dtype: torch.dtype, plain: Path, tmp_path: Path) -> None:
    """All passes agree with the CPU; the order in which threads run does not change a bit."""
    runs = [emulation.symmetry(plain, tmp_path, s, **inputs(case, dtype)) for s in SEEDS]
    compare(case, dtype, runs[0])
    for seed, other in zip(SEEDS[1:], runs[1:], strict=True):
        for name in emulation.OUTPUTS:
            assert torch.equal(runs[0][name], other[name]), f"{case} {name}: seed {seed} differs"


@BOTH
@pytest.mark.parametrize("family", ops.FAMILIES[:2])
def test_under_sanitizers(family: str, dtype: torch.dtype, sanitized: Path, tmp_path: Path) -> None:
    """Nothing outside its memory, no undefined arithmetic, in any row of the table."""
    for case in cases(family=family):
        emulation.symmetry(sanitized, tmp_path, 4, **inputs(case, dtype))
