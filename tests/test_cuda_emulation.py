"""The CUDA kernels on the CPU: same results as the CPU ops, no races, nothing outside its memory.

tests/cuda_emulation compiles csrc/loops/cuda with a C++ compiler, runs a fibre for every CUDA
thread, and stops at divergent barriers and deadlocks; outputs and shared memory begin as NaNs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import ops, pair_ops
from tests import cuda_emulation as emulation
from tests import neighbourhoods as near
from tests.cases import Case, ani_grid, batch, cases
from tests.reference import SymmetryFunctions

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
FAMILIES = ("behler_parrinello", "ani")
ALL = pytest.mark.parametrize("case", [c for f in FAMILIES for c in cases(family=f)], ids=str)
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


def functions(family: str, n_types: int, radial: list, angular: list) -> SymmetryFunctions:
    """One parameter set for any number of types, each its own channel."""
    return SymmetryFunctions(
        family=family,
        channels=list(range(n_types)),
        weights=[1.0 + 0.1 * t for t in range(n_types)],
        radial=[radial],
        angular=[angular],
        radial_cutoff=5.0,
        angular_cutoff=4.0,
    )


def wide_angular(family: str) -> list[tuple[float, ...]]:
    """So many factors that the tile of a block holds few triples, or few warps fit."""
    terms: list[tuple[float, ...]] = []
    for d in range(45):
        distance = (0.01 + 0.01 * d,) if family == "behler_parrinello" else (2.0, 0.5 + 0.05 * d)
        terms += [(*distance, 1.0 + (d + a) % 5, 0.03 * (2 * d + a)) for a in range(2)]
    return terms


def gpu_cases() -> list[Case]:
    """Sizes at which the kernels take other paths, and which mean nothing to the CPU."""
    found = []
    for family in FAMILIES:
        ani = family == "ani"
        few = [(1.0, 0.5, 2.0, 0.4), (1.0, 2.0, 1.0, 1.0)] if ani else [(0.1, 2.0, 0.0)]
        table = {
            "more-channels-than-lanes": (40, [(1.0, 1.0, 1.0)], few, near.shell(80, 40, 31)),
            "more-functions-than-lanes": (
                2,
                [(1.0, 0.1 * k, 1.0) for k in range(35)],
                ani_grid(3.0, [0.2 * k for k in range(7)], 4.0, [0.3 * k for k in range(10)])
                if ani
                else [(0.01 * (k // 7), 1.0 + k % 7, 0.0) for k in range(70)],
                near.shell(9, 2, 32),
            ),
            "small-tiles": (2, [], wide_angular(family), near.shell(9, 2, 33)),
        }
        for name, (n_types, radial, angular, shell) in table.items():
            parameters = functions(family, n_types, radial, angular)
            found.append(Case(f"{family}-{name}", parameters, lambda shell=shell: shell))
    return found


@BOTH
@pytest.mark.parametrize("case", gpu_cases(), ids=str)
def test_sizes_of_a_gpu(case: Case, dtype: torch.dtype, sanitized: Path, tmp_path: Path) -> None:
    """More channels or functions than lanes; parameters that leave room for few triples."""
    compare(case, dtype, emulation.symmetry(sanitized, tmp_path, 5, **inputs(case, dtype)))


def test_too_many_functions_are_refused(plain: Path, tmp_path: Path) -> None:
    """What no block can hold is not launched (the op says so in words)."""
    angular = [(0.1, 1.0 + 0.001 * k, 0.0) for k in range(7000)]
    parameters = functions("behler_parrinello", 1, [], angular)
    case = Case("too-many", parameters, batch(near.molecule(2, 1, 34)))
    with pytest.raises(AssertionError, match="launch: error 9"):
        emulation.symmetry(plain, tmp_path, 1, **inputs(case, torch.float32))


@BOTH
@pytest.mark.parametrize("family", FAMILIES)
def test_under_sanitizers(family: str, dtype: torch.dtype, sanitized: Path, tmp_path: Path) -> None:
    """Nothing outside its memory, no undefined arithmetic, in any row of the table."""
    for case in cases(family=family):
        emulation.symmetry(sanitized, tmp_path, 4, **inputs(case, dtype))


STRUCTURES = [[], [0], [5], [3, 0, 1, 40, 2, 0], [70], [1, 1, 1], [0, 0]]


@BOTH
@pytest.mark.parametrize("sizes", STRUCTURES, ids=str)
def test_all_pairs(sizes: list[int], dtype: torch.dtype, sanitized: Path, tmp_path: Path) -> None:
    """The same list as the CPU op's, for any batch and cutoff."""
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    positions = 3 * probe((sum(sizes), 3), 3, dtype)
    for cutoff in (0.5, 4.0, math.inf):
        expected = pair_ops.all_pairs(positions, offsets, cutoff)
        for seed in (1, 2):
            found = emulation.all_pairs(sanitized, tmp_path, seed, positions, offsets, cutoff)
            for name, a, b in zip(
                ("offsets", "centers", "neighbors"), found, expected, strict=True
            ):
                assert torch.equal(a, b), f"{name} at cutoff {cutoff}"


def test_no_pair_is_written_beyond_those_that_were_promised(
    sanitized: Path, tmp_path: Path
) -> None:
    """Where the caller says how many there are, the kernels cannot trust it."""
    positions, offsets = probe((9, 3), 3, torch.float32), torch.tensor([0, 4, 9])
    expected = pair_ops.all_pairs(positions, offsets, math.inf, 4 * 3 + 5 * 4)
    for n_pairs in (32, 19):
        found = emulation.all_pairs(sanitized, tmp_path, 1, positions, offsets, math.inf, n_pairs)
        assert torch.equal(found[0], expected[0])
        for a, b in zip(found[1:], expected[1:], strict=True):
            assert torch.equal(a, b[:n_pairs])


def test_layouts(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in shared memory overlaps, for any sizes; what fits and what does not is known."""
    done = emulation.run(plain, 0, "layout", "all")
    assert done.returncode == 0, done.stderr
    with capsys.disabled():
        print("\nshared memory, bytes per block / warps per block\n" + done.stdout)


FAULTS = {
    "barrier_in_a_branch": "threads wait at different places",
    "different_barriers": "threads wait at different places",
    "ballot_in_a_branch": "a warp is not complete",
    "left_early": "a warp is not complete",
    "shared_overrun": "heap-buffer-overflow",
    "global_overrun": "heap-buffer-overflow",
    "overflow": "signed integer overflow",
    "misaligned": "misaligned address",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_mistakes_are_found(fault: str, sanitized: Path) -> None:
    """Kernels with one mistake each: what the emulation is for, it must find."""
    done = emulation.run(sanitized, 1, "fault", fault)
    assert done.returncode != 0, f"{fault} was not noticed"
    assert FAULTS[fault] in done.stderr, done.stderr[:2000]


def test_unset_shared_memory_is_nan(plain: Path) -> None:
    assert emulation.run(plain, 1, "fault", "unset_shared").stdout.strip() == "64"


def test_races_change_with_the_order(plain: Path) -> None:
    sums = {emulation.run(plain, seed, "fault", "race").stdout for seed in range(5)}
    assert len(sums) > 1
