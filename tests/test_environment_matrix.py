"""The ops of the environment matrix: oracle, derivatives, smoothness, autograd, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import deep_pot_ops as ops
from tests import deep_pot_reference as reference

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
SWITCHES = pytest.mark.parametrize("function", ["none", "cosine", "quintic"])
START, CUTOFF = 1.5, 4.0
#: relative to the largest value: rows, first, second derivatives
LIMITS = {torch.float32: (2e-6, 1e-5, 1e-4), torch.float64: (1e-14, 1e-13, 1e-11)}


def vectors(n: int, seed: int, shortest: float = 0.7, longest: float = 5.0) -> Tensor:
    """Displacements of all lengths between the two, float64."""
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    lengths = torch.linspace(shortest, longest, n, dtype=torch.float64)[:, None]
    return d / d.norm(dim=1, keepdim=True) * lengths


def probe(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def rest(function: str) -> tuple[Any, ...]:
    return START, CUTOFF, ops.SWITCH_FUNCTIONS[function]


def close(ours: Tensor, oracle: Tensor, limit: float) -> None:
    assert ours.isfinite().all()
    ours, oracle = ours.detach().double(), oracle.detach()
    error = float((ours - oracle).abs().max() / oracle.abs().max().clamp(min=1e-30))
    assert error <= limit, f"{error:.2e} > {limit:.0e}"


@BOTH
@SWITCHES
@pytest.mark.parametrize("n", [1, 3, 8, 61])
def test_values_and_derivatives(function: str, n: int, dtype: torch.dtype) -> None:
    limits = LIMITS[dtype]
    x = vectors(n, n).to(dtype)
    exact = x.double().requires_grad_()
    rows = reference.environment(exact, START, CUTOFF, function)
    close(ops.environment_matrix(x, *rest(function)), rows.detach(), limits[0])
    g, u = probe((n, 4), 1, dtype), probe((n, 3), 2, dtype)
    exact_g = g.double().requires_grad_()
    (vjp,) = torch.autograd.grad(rows, exact, exact_g, create_graph=True)
    close(ops.environment_matrix_backward(g, x, *rest(function)), vjp.detach(), limits[1])
    jvp, curvature = torch.autograd.grad(vjp, (exact_g, exact), u.double())
    close(ops.environment_matrix_jvp(u, x, *rest(function)), jvp, limits[1])
    both = ops.environment_matrix_double_backward(u, g, x, *rest(function))
    close(both[0], jvp, limits[1])
    close(both[1], curvature, limits[2])
    jacobian = ops.environment_matrix_jacobian(x, *rest(function)).double()
    close(torch.einsum("pr,prx->px", g.double(), jacobian), vjp.detach(), limits[1])
    close(torch.einsum("prx,px->pr", jacobian, u.double()), jvp, limits[1])


@SWITCHES
def test_gradcheck_and_gradgradcheck(function: str) -> None:
    x = vectors(9, 3).requires_grad_()
    call = lambda d: ops.environment_matrix(d, *rest(function))  # noqa: E731
    assert torch.autograd.gradcheck(call, (x,))
    assert torch.autograd.gradgradcheck(call, (x,))


@SWITCHES
@pytest.mark.parametrize("suffix", ["", "_backward", "_jvp", "_double_backward", "_jacobian"])
def test_opcheck(function: str, suffix: str) -> None:
    x, g, u = vectors(5, 4), probe((5, 4), 5), probe((5, 3), 6)
    leading: dict[str, tuple[Tensor, ...]] = {
        "": (x.clone().requires_grad_(),),
        "_backward": (g.clone().requires_grad_(), x.clone().requires_grad_()),
        "_jvp": (u.clone().requires_grad_(), x),
        "_double_backward": (u, g, x),
        "_jacobian": (x,),
    }
    overload = getattr(torch.ops.pymlp, "environment_matrix" + suffix).default
    torch.library.opcheck(overload, (*leading[suffix], *rest(function)))


@pytest.mark.parametrize("function", ["cosine", "quintic"])
@pytest.mark.parametrize("where", [START, CUTOFF])
def test_smooth_where_the_pieces_meet(function: str, where: float) -> None:
    """Value and slope of s are continuous at R_cs and R_c; the quintic's curvature, too."""
    step = 1e-6
    d = torch.zeros(2, 3, dtype=torch.float64)
    d[:, 0] = torch.tensor([where - step, where + step])
    unit = torch.zeros(2, 3, dtype=torch.float64)
    unit[:, 0] = 1.0
    rows = ops.environment_matrix(d, *rest(function))
    g = torch.tensor([[1.0, 0, 0, 0]] * 2, dtype=torch.float64)
    slopes = ops.environment_matrix_jvp(unit, d, *rest(function))[:, 0]
    curvature = ops.environment_matrix_double_backward(unit, g, d, *rest(function))[1][:, 0]
    assert abs(float(rows[0, 0] - rows[1, 0])) < 10 * step
    assert abs(float(slopes[0] - slopes[1])) < 20 * step
    if function == "quintic":
        assert abs(float(curvature[0] - curvature[1])) < 100 * step


def test_nothing_beyond_the_cutoff() -> None:
    d = torch.tensor([[CUTOFF, 0, 0], [0, 4.5, 0], [0, 0, 100.0]], dtype=torch.float64)
    for function in ("cosine", "quintic"):
        assert not ops.environment_matrix(d, *rest(function)).any()
        assert not ops.environment_matrix_jacobian(d, *rest(function)).any()
    none = ops.environment_matrix(d, *rest("none"))
    assert torch.equal(none[:, 0], 1 / d.norm(dim=1))


@BOTH
def test_never_negative(dtype: torch.dtype) -> None:
    """Close to the cutoff rounding leaves s positive: a table begins at 0."""
    d = torch.zeros(4000, 3, dtype=dtype)
    d[:, 0] = CUTOFF - torch.logspace(-7, -1, 4000, dtype=torch.float64).to(dtype)
    for function in ("cosine", "quintic"):
        s = ops.environment_matrix(d, *rest(function))[:, 0]
        assert bool((s >= 0).all())
        exact = reference.switch(d[:, 0].double(), START, CUTOFF, function)
        assert float((s.double() - exact).abs().max()) < 4 * torch.finfo(dtype).eps


def test_one_over_r_below_the_switch() -> None:
    d = vectors(20, 7, 0.6, 1.49)
    for function in ("cosine", "quintic"):
        rows = ops.environment_matrix(d, *rest(function))
        torch.testing.assert_close(rows[:, 0], 1 / d.norm(dim=1), rtol=1e-14, atol=0)


@BOTH
def test_threads_strides_and_empty_input(dtype: torch.dtype) -> None:
    x = vectors(9000, 8).to(dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.environment_matrix(x, *rest("cosine"))
        torch.set_num_threads(2)
        two = ops.environment_matrix(x, *rest("cosine"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, two)
    spread = x.new_zeros(9000, 6)
    spread[:, ::2] = x
    assert torch.equal(ops.environment_matrix(spread[:, ::2], *rest("cosine")), one)
    assert ops.environment_matrix(x[:0], *rest("cosine")).shape == (0, 4)
    assert ops.environment_matrix_jacobian(x[:0], *rest("cosine")).shape == (0, 4, 3)


def test_third_derivative_is_refused() -> None:
    x = vectors(4, 9).requires_grad_()
    rows = ops.environment_matrix(x, *rest("cosine"))
    (first,) = torch.autograd.grad(rows.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"third derivatives"):
        torch.autograd.grad(second.sum(), x)


def test_errors_name_the_argument() -> None:
    x = vectors(4, 10)
    with pytest.raises(ValueError, match=r"displacements: expected shape \[P, 3\]"):
        ops.environment_matrix(x[:, :2], *rest("cosine"))
    with pytest.raises(TypeError, match=r"displacements"):
        ops.environment_matrix(x.half(), *rest("cosine"))
    with pytest.raises(ValueError, match=r"switch_function"):
        ops.environment_matrix(x, START, CUTOFF, 3)
    with pytest.raises(ValueError, match=r"cutoff: .*got switch_start 4 and cutoff 4"):
        ops.environment_matrix(x, 4.0, 4.0, 1)
    with pytest.raises(ValueError, match=r"grad_output: expected shape \[P, 4\]"):
        ops.environment_matrix_backward(x, x, *rest("cosine"))
    with pytest.raises(ValueError, match=r"grad_output: expected the dtype of displacements"):
        ops.environment_matrix_backward(probe((4, 4), 1, torch.float32), x, *rest("cosine"))
