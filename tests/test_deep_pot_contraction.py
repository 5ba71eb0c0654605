"""The contraction of eq 11 over ragged neighbourhoods: oracle, derivatives, autograd, errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pymlp import deep_pot_ops as ops
from tests import deep_pot_reference as reference

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
LIMITS = {torch.float32: (2e-6, 5e-6, 1e-5), torch.float64: (1e-14, 3e-14, 1e-13)}
#: neighbours of each centre
RAGGED = (3, 0, 1, 13, 0, 7, 40)
SIZES = pytest.mark.parametrize(
    ("functions", "axis"), [(1, 1), (4, 4), (7, 2), (25, 16), (100, 4), (100, 16), (33, 33)]
)


def probe(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def case(counts: tuple[int, ...], functions: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Embedding, environment, offsets, and a permutation of the embedding's rows."""
    offsets = torch.tensor([0, *counts]).cumsum(0)
    pairs = int(offsets[-1])
    rows = torch.randperm(pairs, generator=torch.Generator().manual_seed(1))
    return probe((pairs, functions), 2, dtype), probe((pairs, 4), 3, dtype), offsets, rows


def close(ours: Tensor, oracle: Tensor, limit: float) -> None:
    assert ours.shape == oracle.shape
    assert ours.isfinite().all()
    ours, oracle = ours.detach().double(), oracle.detach()
    error = float((ours - oracle).abs().max() / oracle.abs().max().clamp(min=1e-30))
    assert error <= limit, f"{error:.2e} > {limit:.0e}"


@BOTH
@SIZES
def test_values_and_derivatives(functions: int, axis: int, dtype: torch.dtype) -> None:
    limits = LIMITS[dtype]
    g, r, offsets, rows = case(RAGGED, functions, dtype)
    exact_g, exact_r = g.double().requires_grad_(), r.double().requires_grad_()
    d = reference.contraction(exact_g[rows], exact_r, offsets, axis)
    close(ops.deep_pot_se(g, r, offsets, rows, axis), d.detach(), limits[0])

    v = probe(tuple(d.shape), 4, dtype)
    exact_v = v.double().requires_grad_()
    grads = torch.autograd.grad(d, (exact_g, exact_r), exact_v, create_graph=True)
    ours = torch.ops.pymlp.deep_pot_se_backward(v, g, r, offsets, rows, axis)
    for a, b in zip(ours, grads, strict=True):
        close(a, b.detach(), limits[1])
    u = (probe(tuple(g.shape), 5, dtype), probe(tuple(r.shape), 6, dtype))
    second = torch.autograd.grad(grads, (exact_v, exact_g, exact_r), [x.double() for x in u])
    twice = torch.ops.pymlp.deep_pot_se_double_backward(*u, v, g, r, offsets, rows, axis)
    for a, b in zip(twice, second, strict=True):
        close(a, b, limits[2])


def test_gradcheck_and_gradgradcheck() -> None:
    g, r, offsets, rows = case((2, 0, 3, 1), 5, torch.float64)
    inputs = (g.requires_grad_(), r.requires_grad_())

    def call(a: Tensor, b: Tensor) -> Tensor:
        return ops.deep_pot_se(a, b, offsets, rows, 3)

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("suffix", ["", "_backward", "_double_backward"])
def test_opcheck(suffix: str) -> None:
    g, r, offsets, rows = case((2, 0, 3, 1), 5, torch.float64)
    v = probe((4, 15), 7)
    leading: dict[str, tuple[Tensor, ...]] = {
        "": (g.clone().requires_grad_(), r.clone().requires_grad_()),
        "_backward": tuple(x.clone().requires_grad_() for x in (v, g, r)),
        "_double_backward": (probe((6, 5), 8), probe((6, 4), 9), v, g, r),
    }
    overload = getattr(torch.ops.pymlp, "deep_pot_se" + suffix).default
    torch.library.opcheck(overload, (*leading[suffix], offsets, rows, 3))


@BOTH
def test_threads_strides_and_empty_input(dtype: torch.dtype) -> None:
    g, r, offsets, rows = case((11,) * 300, 25, dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.deep_pot_se(g, r, offsets, rows, 4)
        torch.set_num_threads(2)
        two = ops.deep_pot_se(g, r, offsets, rows, 4)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, two)
    strided = torch.empty(25, len(g), dtype=dtype).T.copy_(g)
    assert torch.equal(ops.deep_pot_se(strided, r, offsets, rows, 4), one)
    nothing = ops.deep_pot_se(g[:0], r[:0], offsets[:1], rows[:0], 4)
    assert nothing.shape == (0, 100)
    lone = ops.deep_pot_se(g[:0], r[:0], torch.zeros(3, dtype=torch.int64), rows[:0], 4)
    assert lone.shape == (2, 100)
    assert not lone.any()


def test_third_derivative_is_refused() -> None:
    g, r, offsets, rows = case((2, 3), 5, torch.float64)
    g.requires_grad_()
    d = ops.deep_pot_se(g, r, offsets, rows, 3)
    (first,) = torch.autograd.grad(d.square().sum(), g, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), g, create_graph=True)
    with pytest.raises(RuntimeError, match=r"third derivatives"):
        torch.autograd.grad(second.sum(), g)


def test_errors_name_the_argument() -> None:
    g, r, offsets, rows = case((2, 3), 5, torch.float64)
    with pytest.raises(ValueError, match=r"n_axis: expected 1 ... M = 5, got 6"):
        ops.deep_pot_se(g, r, offsets, rows, 6)
    with pytest.raises(ValueError, match=r"environment: expected shape \[P, 4\]"):
        ops.deep_pot_se(g, r[:-1], offsets, rows, 3)
    with pytest.raises(ValueError, match=r"environment: expected the dtype of embedding"):
        ops.deep_pot_se(g, r.float(), offsets, rows, 3)
    with pytest.raises(ValueError, match=r"pair_offsets: .*end with P = 5, got 0 and 4"):
        ops.deep_pot_se(g, r, torch.tensor([0, 2, 4]), rows, 3)
    with pytest.raises(ValueError, match=r"pair_offsets: expected ascending"):
        ops.deep_pot_se(g, r, torch.tensor([0, 6, 5]), rows, 3)
    for wrong in ([0, 1, 2, 3, 3], [0, 1, 2, 3, 5], [0, 1, 2, 3, -1]):
        with pytest.raises(ValueError, match=r"pair_rows: expected a permutation"):
            ops.deep_pot_se(g, r, offsets, torch.tensor(wrong), 3)
    with pytest.raises(TypeError, match=r"embedding"):
        ops.deep_pot_se(g.half(), r, offsets, rows, 3)
