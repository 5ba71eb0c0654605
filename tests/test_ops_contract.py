"""The contract of every descriptor op, for every row of cases.py and every family.

Values and all derivatives against the oracle; what autograd, torch.compile and opcheck must see.
Errors of inputs are in test_ops_errors.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import ops
from tests import reference
from tests.cases import Case, cases

DTYPES = [torch.float32, torch.float64]
BOTH = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
ALL = pytest.mark.parametrize("case", cases(), ids=str)
SMALL = pytest.mark.parametrize("case", cases(small=True), ids=str)
#: largest deviation over largest value: features, first and second derivatives
LIMITS = {torch.float32: (1e-5, 3e-5, 2e-4), torch.float64: (1e-12, 1e-11, 1e-9)}


def limits_of(case: Case, dtype: torch.dtype) -> tuple[float, float, float]:
    values, first, second = LIMITS[dtype]
    half = 10 * torch.finfo(dtype).eps ** 0.5
    return (values, half, second) if case.sine_lost else (values, first, second)


def op(case: Case, suffix: str = "") -> Callable[..., Any]:
    return getattr(ops, case.family + suffix)


def probe(shape: tuple[int, ...] | torch.Size, seed: int, dtype: torch.dtype) -> Tensor:
    """Reproducible direction; drawn in float64, so both dtypes see the same one."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def check(what: str, case: Case, ours: Tensor, oracle: Tensor, limit: float) -> None:
    """Deviation relative to the oracle's largest value, or a message with case and place."""
    ours, oracle = ours.detach(), oracle.detach()
    assert ours.shape == oracle.shape, f"{case} {what}: {tuple(ours.shape)}"
    if not ours.numel():
        return
    assert ours.isfinite().all(), f"{case} {what}: {int((~ours.isfinite()).sum())} not finite"
    difference = (ours.double() - oracle).abs()
    error = float(difference.max() / oracle.abs().max().clamp(min=1e-30))
    place = tuple(int(i) for i in (difference == difference.max()).nonzero()[0])
    assert error <= limit or float(difference.max()) == 0, (
        f"{case} {what} ({ours.dtype}): {error:.2e} > {limit:.0e} at {place}: "
        f"{float(ours[place]):.9g} instead of {float(oracle[place]):.9g}"
    )


def outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def oracle_input(case: Case, dtype: torch.dtype) -> Tensor:
    """The displacements as ``dtype`` holds them, in float64, ready for autograd."""
    return case.displacements(dtype).double().requires_grad_()


def test_every_family_has_cases() -> None:
    assert ops.FAMILIES, "pymlp.ops.FAMILIES is empty"
    missing = set(ops.FAMILIES) - {case.family for case in cases()}
    assert not missing, f"add rows to tests/cases.py for {sorted(missing)}"


@BOTH
@ALL
def test_values(case: Case, dtype: torch.dtype) -> None:
    ours = op(case)(case.displacements(dtype), *case.rest(dtype))
    assert ours.dtype == dtype
    oracle = case.reference(oracle_input(case, dtype), dtype).detach()
    check("features", case, ours, oracle, limits_of(case, dtype)[0])


@BOTH
@ALL
def test_first_derivatives(case: Case, dtype: torch.dtype) -> None:
    """Jᵀg, Ju and J."""
    limit = limits_of(case, dtype)[1]
    x, rest = case.displacements(dtype), case.rest(dtype)
    exact = oracle_input(case, dtype)

    def oracle(d: Tensor) -> Tensor:
        return case.reference(d, dtype)

    features = oracle(exact)
    grad = probe(features.shape, 1, dtype)
    (vjp,) = torch.autograd.grad(features, exact, grad.double())
    check("vjp", case, op(case, "_backward")(grad, x, *rest), vjp, limit)
    tangents = probe(x.shape, 2, dtype)
    jvp = torch.func.jvp(oracle, (exact.detach(),), (tangents.double(),))[1]
    check("jvp", case, op(case, "_jvp")(tangents, x, *rest), jvp, limit)
    jacobian = reference.jacobian(oracle, exact, case.neighbourhood.pair_offsets)
    check("jacobian", case, op(case, "_jacobian")(x, *rest), jacobian, limit)


@BOTH
@ALL
def test_double_backward(case: Case, dtype: torch.dtype) -> None:
    """(Ju, slope of u.Jᵀg): what force training and Hessian-vector products use."""
    limits = limits_of(case, dtype)
    x, rest = case.displacements(dtype), case.rest(dtype)
    exact = oracle_input(case, dtype)
    features = case.reference(exact, dtype)
    grad, tangents = probe(features.shape, 3, dtype), probe(x.shape, 4, dtype)
    jvp, curvature = op(case, "_double_backward")(tangents, grad, x, *rest)
    exact_grad = grad.double().requires_grad_()
    (vjp,) = torch.autograd.grad(features, exact, exact_grad, create_graph=True)
    wanted = torch.autograd.grad(
        vjp, (exact_grad, exact), tangents.double(), allow_unused=True, materialize_grads=True
    )
    check("double backward: jvp", case, jvp, wanted[0], limits[1])
    if case.curvature_defined:
        check("double backward: curvature", case, curvature, wanted[1], limits[2])
    assert curvature.isfinite().all(), f"{case}: curvature not finite"


@BOTH
@ALL
def test_autograd_uses_the_ops(case: Case, dtype: torch.dtype) -> None:
    """Reverse over reverse through autograd gives the bits of the ops themselves."""
    x, rest = case.displacements(dtype).requires_grad_(), case.rest(dtype)
    features = op(case)(x, *rest)
    grad = probe(features.shape, 5, dtype).requires_grad_()
    tangents = probe(x.shape, 6, dtype)
    (vjp,) = torch.autograd.grad(features, x, grad, create_graph=True)
    assert torch.equal(vjp, op(case, "_backward")(grad.detach(), x.detach(), *rest)), f"{case}"
    jvp, curvature = torch.autograd.grad(vjp, (grad, x), tangents)
    plain = op(case, "_double_backward")(tangents, grad.detach(), x.detach(), *rest)
    assert torch.equal(jvp, plain[0]), f"{case}"
    assert torch.equal(curvature, plain[1]), f"{case}"


@SMALL
def test_gradcheck(case: Case) -> None:
    x, rest = case.displacements(torch.float64).requires_grad_(), case.rest(torch.float64)
    assert torch.autograd.gradcheck(lambda d: op(case)(d, *rest), (x,), fast_mode=True)


@SMALL
def test_gradgradcheck(case: Case) -> None:
    x, rest = case.displacements(torch.float64).requires_grad_(), case.rest(torch.float64)
    grad = probe((case.neighbourhood.n_atoms, case.n_features), 7, torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda d: op(case)(d, *rest), (x,), (grad,), fast_mode=True, atol=1e-4, rtol=1e-3
    )


@BOTH
@SMALL
def test_forward_mode_agrees_with_reverse(case: Case, dtype: torch.dtype) -> None:
    """g.(Ju) = (Jᵀg).u, and J contracted gives both."""
    x, rest = case.displacements(dtype), case.rest(dtype)
    tangents = probe(x.shape, 8, dtype)
    jvp = op(case, "_jvp")(tangents, x, *rest).double()
    grad = probe(jvp.shape, 9, dtype)
    vjp = op(case, "_backward")(grad, x, *rest).double()
    jacobian = op(case, "_jacobian")(x, *rest).double()
    centers = case.neighbourhood.centers
    dense = torch.einsum("pf,pfx->px", grad.double()[centers], jacobian)
    check("jacobian contracted with g", case, vjp, dense, limits_of(case, dtype)[1])
    slopes = torch.einsum("pfx,px->pf", jacobian, tangents.double())
    summed = torch.zeros_like(jvp).index_add(0, centers, slopes)
    check("jacobian contracted with u", case, jvp, summed, limits_of(case, dtype)[1])


@SMALL
@pytest.mark.parametrize("suffix", ["", "_backward", "_jvp", "_double_backward", "_jacobian"])
def test_opcheck(case: Case, suffix: str) -> None:
    x, rest = case.displacements(torch.float64), case.rest(torch.float64)
    features = (case.neighbourhood.n_atoms, case.n_features)
    grad, tangents = probe(features, 10, torch.float64), probe(x.shape, 11, torch.float64)
    leading: dict[str, tuple[Tensor, ...]] = {
        "": (x.requires_grad_(),),
        "_backward": (grad.requires_grad_(), x),
        "_jvp": (tangents, x),
        "_double_backward": (tangents, grad.detach(), x),
        "_jacobian": (x,),
    }
    if suffix != "":
        x.requires_grad_(suffix == "_backward")
    overload = getattr(torch.ops.pymlp, case.family + suffix).default
    torch.library.opcheck(overload, (*leading[suffix], *rest))


@ALL
def test_fake_shapes(case: Case) -> None:
    """Fake kernels give the shapes, dtypes and devices that the real ops give."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    x, rest = case.displacements(torch.float32), case.rest(torch.float32)
    features = (case.neighbourhood.n_atoms, case.n_features)
    calls: dict[str, tuple[Tensor, ...]] = {
        "": (x,),
        "_backward": (probe(features, 12, torch.float32), x),
        "_jvp": (probe(x.shape, 13, torch.float32), x),
        "_double_backward": (probe(x.shape, 14, torch.float32), probe(features, 15, x.dtype), x),
        "_jacobian": (x,),
    }
    for suffix, leading in calls.items():
        real = op(case, suffix)(*leading, *rest)
        with FakeTensorMode() as mode:
            fake = op(case, suffix)(
                *(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in (*leading, *rest))
            )
        for have, promised in zip(outputs(real), outputs(fake), strict=True):
            assert (have.shape, have.dtype) == (promised.shape, promised.dtype), f"{case}{suffix}"
            assert have.stride() == promised.stride(), f"{case}{suffix}: strides"


@SMALL
def test_third_derivative_is_refused(case: Case) -> None:
    x, rest = case.displacements(torch.float64).requires_grad_(), case.rest(torch.float64)
    features = op(case)(x, *rest)
    (vjp,) = torch.autograd.grad(features.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(vjp.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"(?i)third"):
        torch.autograd.grad(second.sum(), x)


@BOTH
@pytest.mark.parametrize("case", [c for c in cases(small=True) if "pair" not in c.name], ids=str)
def test_non_contiguous_inputs(case: Case, dtype: torch.dtype) -> None:
    """Strided and transposed inputs give the bits of their contiguous copies."""

    def spread(tensor: Tensor) -> Tensor:
        """Same values, every stride doubled, first and last dimension swapped in memory."""
        wide = tensor.new_zeros([2 * n for n in tensor.shape]).transpose(0, -1).contiguous()
        view = wide.transpose(0, -1)[tuple(slice(None, None, 2) for _ in tensor.shape)]
        return view.copy_(tensor)

    x, rest = case.displacements(dtype), case.rest(dtype)
    grad = probe((case.neighbourhood.n_atoms, case.n_features), 16, dtype)
    tangents = probe(x.shape, 17, dtype)
    strided = [spread(item) if isinstance(item, Tensor) else item for item in rest]
    calls: dict[str, tuple[Tensor, ...]] = {
        "": (x,),
        "_backward": (grad, x),
        "_jvp": (tangents, x),
        "_double_backward": (tangents, grad, x),
        "_jacobian": (x,),
    }
    for suffix, leading in calls.items():
        plain = op(case, suffix)(*leading, *rest)
        views = [spread(tensor) for tensor in leading]
        assert not views[-1].is_contiguous()
        other = op(case, suffix)(*views, *strided)
        for a, b in zip(outputs(plain), outputs(other), strict=True):
            assert torch.equal(a, b), f"{case}{suffix}: strided input, off by {(a - b).abs().max()}"
    # an expanded (stride 0) gradient is what .sum().backward() sends
    ones = torch.ones((), dtype=dtype).expand(grad.shape)
    backward = op(case, "_backward")
    assert torch.equal(backward(ones, x, *rest), backward(ones.contiguous(), x, *rest))


@BOTH
@ALL
def test_bits_repeat(case: Case, dtype: torch.dtype) -> None:
    """Run to run, and with 1 or 2 threads, the same bits."""
    x, rest = case.displacements(dtype), case.rest(dtype)
    grad = probe((case.neighbourhood.n_atoms, case.n_features), 18, dtype)
    tangents = probe(x.shape, 19, dtype)

    def run() -> list[Tensor]:
        return [
            op(case)(x, *rest),
            op(case, "_backward")(grad, x, *rest),
            op(case, "_jvp")(tangents, x, *rest),
            *op(case, "_double_backward")(tangents, grad, x, *rest),
            op(case, "_jacobian")(x, *rest),
        ]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first, again = run(), run()
        torch.set_num_threads(2)
        both = run()
    finally:
        torch.set_num_threads(threads)
    names = ["features", "vjp", "jvp", "double backward: jvp", "curvature", "jacobian"]
    for name, a, b, c in zip(names, first, again, both, strict=True):
        assert torch.equal(a, b), f"{case}: {name} differs between two runs"
        assert torch.equal(a, c), f"{case}: {name} differs between 1 and 2 threads"


@BOTH
@ALL
def test_batch_is_separate_centres(case: Case, dtype: torch.dtype) -> None:
    """Features, vjp and jvp of one centre alone are those of its row in the batch."""
    near = case.neighbourhood
    if not near.n_atoms:
        return
    x, rest = case.displacements(dtype), case.rest(dtype)
    features = op(case)(x, *rest)
    grad, tangents = probe(features.shape, 20, dtype), probe(x.shape, 21, dtype)
    vjp = op(case, "_backward")(grad, x, *rest)
    jvp = op(case, "_jvp")(tangents, x, *rest)
    limits = limits_of(case, dtype)
    for center in sorted({0, near.n_atoms // 2, near.n_atoms - 1}):
        rows = slice(int(near.pair_offsets[center]), int(near.pair_offsets[center + 1]))
        offsets = near.pair_offsets.clone()
        offsets[: center + 1], offsets[center + 1 :] = 0, rows.stop - rows.start
        own = (offsets, near.neighbors[rows], near.types, *rest[3:])
        alone = op(case)(x[rows], *own)
        check(f"centre {center} alone", case, alone[center], features[center].double(), limits[0])
        others = torch.cat([alone[:center], alone[center + 1 :]])
        assert not others.any(), f"{case}: centres without neighbours have features"
        back = op(case, "_backward")(grad, x[rows], *own)
        check(f"centre {center} alone: vjp", case, back, vjp[rows].double(), limits[1])
        forward = op(case, "_jvp")(tangents[rows], x[rows], *own)
        check(f"centre {center} alone: jvp", case, forward[center], jvp[center].double(), limits[1])


@BOTH
@ALL
def test_order_of_neighbours_is_free(case: Case, dtype: torch.dtype) -> None:
    """Pairs of a centre may come in any order: rounding apart, nothing changes."""
    near = case.neighbourhood
    generator = torch.Generator().manual_seed(22)
    shuffled = torch.argsort(near.centers + torch.rand(near.n_pairs, generator=generator))
    x, rest = case.displacements(dtype), case.rest(dtype)
    other = (rest[0], near.neighbors[shuffled], *rest[2:])
    features = op(case)(x, *rest)
    check(
        "shuffled",
        case,
        op(case)(x[shuffled], *other),
        features.double(),
        limits_of(case, dtype)[0],
    )
    grad = probe(features.shape, 23, dtype)
    vjp = op(case, "_backward")(grad, x, *rest)
    back = op(case, "_backward")(grad, x[shuffled], *other)
    check("shuffled vjp", case, back, vjp[shuffled].double(), limits_of(case, dtype)[1])
