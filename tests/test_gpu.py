"""The CUDA ops on a GPU: the CPU's results, streams, CUDA graphs, devices. Skipped without one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import ops, pair_ops
from tests.cases import Case, cases

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
ALL = pytest.mark.parametrize("case", cases(), ids=str)
SMALL = pytest.mark.parametrize("case", cases(small=True), ids=str)
#: relative to the largest value: features, first, second derivatives
LIMITS = {torch.float32: (1e-5, 3e-5, 2e-4), torch.float64: (1e-12, 1e-11, 1e-9)}
NAMES = ("features", "vjp", "jvp", "double_backward jvp", "curvature", "jacobian")
ORDER = dict(zip(NAMES, (0, 1, 1, 1, 2, 1), strict=True))

pytestmark = pytest.mark.gpu


def probe(shape: tuple[int, ...] | torch.Size, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def on(device: str | torch.device, *items: Any) -> list[Any]:
    return [item.to(device) if isinstance(item, Tensor) else item for item in items]


def passes(case: Case, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Every op of the case's family, with inputs drawn from fixed seeds."""
    x = case.displacements(dtype)
    grad = probe((case.neighbourhood.n_atoms, case.n_features), 1, dtype)
    tangents = probe(x.shape, 2, dtype)
    x, grad, tangents, *rest = on(device, x, grad, tangents, *case.rest(dtype))

    def call(suffix: str, *leading: Tensor) -> Any:
        return getattr(ops, case.family + suffix)(*leading, x, *rest)

    both = call("_double_backward", tangents, grad)
    values = (call(""), call("_backward", grad), call("_jvp", tangents), *both, call("_jacobian"))
    return dict(zip(NAMES, values, strict=True))


@BOTH
@ALL
def test_same_as_the_cpu(case: Case, dtype: torch.dtype) -> None:
    expected, found = passes(case, dtype, "cpu"), passes(case, dtype, "cuda")
    for name, value in found.items():
        assert value.device.type == "cuda"
        assert value.isfinite().all(), f"{case} {name}: not finite"
        if not value.numel() or (name == "curvature" and not case.curvature_defined):
            continue
        reference = expected[name]
        limit = LIMITS[dtype][ORDER[name]]
        if case.sine_lost and ORDER[name] == 1:
            limit = 10 * torch.finfo(dtype).eps ** 0.5
        error, largest = (value.cpu() - reference).abs().max(), reference.abs().max()
        assert error <= limit * largest, f"{case} {name}: {error:.2e} of {largest:.2e}"


@BOTH
@ALL
def test_bits_repeat(case: Case, dtype: torch.dtype) -> None:
    first, again = passes(case, dtype, "cuda"), passes(case, dtype, "cuda")
    for name in NAMES:
        assert torch.equal(first[name], again[name]), f"{case} {name}"


@BOTH
@SMALL
def test_second_derivatives_by_autograd(case: Case, dtype: torch.dtype) -> None:
    """A force loss: gradients with respect to the network's side and to the displacements."""

    def run(device: str) -> tuple[Tensor, ...]:
        x, *rest = on(device, case.displacements(dtype), *case.rest(dtype))
        x.requires_grad_()
        features = getattr(ops, case.family)(x, *rest)
        (weights,) = on(device, probe(features.shape, 3, dtype))
        weights.requires_grad_()
        (force,) = torch.autograd.grad((features * weights).sum(), x, create_graph=True)
        return torch.autograd.grad(force.square().sum(), (weights, x))

    for found, expected, limit in zip(run("cuda"), run("cpu"), LIMITS[dtype][1:], strict=True):
        assert (found.cpu() - expected).abs().max() <= limit * expected.abs().max()


@BOTH
@SMALL
def test_captured_in_a_graph(case: Case, dtype: torch.dtype) -> None:
    """Features and forces replay on new displacements without touching the host."""
    x, *rest = on("cuda", case.displacements(dtype), *case.rest(dtype))
    op, backward = getattr(ops, case.family), getattr(ops, case.family + "_backward")

    def step() -> tuple[Tensor, Tensor]:
        features = op(x, *rest)
        return features, backward(features, x, *rest)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    x.mul_(1.05)
    graph.replay()
    for replayed, eager in zip(captured, step(), strict=True):
        assert torch.equal(replayed, eager)


def test_work_is_queued_on_the_current_stream() -> None:
    """An op waits for what its own stream did before, and nothing else orders them."""
    case = cases(small=True)[0]
    x, *rest = on("cuda", case.displacements(torch.float32), *case.rest(torch.float32))
    op = getattr(ops, case.family)
    expected = op(x, *rest)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        found = op(late, *rest)
    stream.synchronize()
    assert torch.equal(found, expected)


def test_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    case = cases(small=True)[0]
    args = (case.displacements(torch.float64), *case.rest(torch.float64))
    op = getattr(ops, case.family)
    with torch.cuda.device(0):
        found = op(*on("cuda:1", *args))
        assert found.device.index == 1
        assert torch.cuda.current_device() == 0
    assert torch.equal(found.cpu(), op(*on("cuda:0", *args)).cpu())


@BOTH
@pytest.mark.parametrize("sizes", [[], [0], [5], [3, 0, 1, 40, 2, 0], [300]], ids=str)
def test_all_pairs(sizes: list[int], dtype: torch.dtype) -> None:
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    positions = 3 * probe((sum(sizes), 3), 4, dtype)
    for cutoff in (0.5, 4.0, math.inf):
        found = pair_ops.all_pairs(positions.cuda(), offsets.cuda(), cutoff)
        for a, b in zip(found, pair_ops.all_pairs(positions, offsets, cutoff), strict=True):
            assert torch.equal(a.cpu(), b), f"cutoff {cutoff}"


@pytest.mark.parametrize("offsets", [[0, 4], [1, 5], [0, 6], [0]])
def test_wrong_structure_offsets_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="ascend from 0 to A = 5"):
        pair_ops.all_pairs(torch.rand(5, 3, device="cuda"), torch.tensor(offsets).cuda(), 2.0)


def test_mixed_devices_are_refused() -> None:
    case = cases(small=True)[0]
    x, *rest = case.displacements(torch.float32), *case.rest(torch.float32)
    with pytest.raises(ValueError, match="device"):
        getattr(ops, case.family)(x.cuda(), *rest)


def test_more_functions_than_shared_memory_holds() -> None:
    """Said in words, before anything is launched."""
    case = next(c for c in cases(small=True, family="behler_parrinello") if c.n_features > 10)
    rest = list(case.rest(torch.float32))
    rest[8] = rest[8][:, :1].expand(-1, 7000, -1)
    with pytest.raises(ValueError, match="shared memory"):
        ops.behler_parrinello(*on("cuda", case.displacements(torch.float32), *rest))


@BOTH
def test_more_outputs_than_32_bits_count(dtype: torch.dtype) -> None:
    """The last row of 2^31 + elements is that of the same centre alone."""
    case = next(c for c in cases(family="ani") if "1x" in c.name)
    x, *rest = on("cuda", case.displacements(dtype), *case.rest(dtype))
    n_atoms, n_pairs = case.neighbourhood.n_atoms, case.neighbourhood.n_pairs
    copies = 2**31 // (n_atoms * case.n_features) + 2
    size = copies * n_atoms * case.n_features * x.element_size()
    if torch.cuda.mem_get_info()[0] < 3 * size:
        pytest.skip(f"needs {3e-9 * size:.0f} GB of free GPU memory")
    step = torch.arange(copies, device="cuda").repeat_interleave(n_pairs)
    offsets = torch.arange(copies, device="cuda").repeat_interleave(n_atoms) * n_pairs
    offsets += rest[0][:-1].repeat(copies)
    offsets = torch.cat([offsets, torch.tensor([copies * n_pairs], device="cuda")])
    many = [offsets, rest[1].repeat(copies) + step * n_atoms, rest[2].repeat(copies), *rest[3:]]
    found = ops.ani(x.repeat(copies, 1), *many)
    assert found.numel() > 2**31
    assert torch.equal(found[-n_atoms:], ops.ani(x, *rest))
