"""The torch ops of pymlp: loading, fake kernels, autograd, and one thin function per op.

A descriptor family ``X`` comes as five ops of one schema (csrc/library.cpp), with A atoms, P pairs,
F features and J = dG/d(displacements):

======================  ===============================================================
``X``                   features G [A, F]
``X_backward``          Jᵀg [P, 3] for g [A, F]: what forces are made of; for several,
                        [M, A, F], as many, [M, P, 3], for prediction
``X_jvp``               Ju [A, F] for u [P, 3]: what training on forces needs
``X_double_backward``   Ju and d(Jᵀg)/d(displacements) u
``X_jacobian``          J [P, F, 3]
======================  ===============================================================

``X`` is differentiable twice, ``X_backward`` and ``X_jvp`` once; a third derivative raises
RuntimeError. The same input gives the same bits, on any number of threads.

Common arguments, all on one device (SPEC of the sums: equations 1-6):

* ``displacements`` [P, 3] Å, float32 or float64, from centre to neighbour;
* ``pair_offsets`` [A+1] int64, first pair of every centre; ``neighbors`` [P] int64;
* ``types`` [A] int64, 0 ... n_types-1;
* ``channels`` [n_types] int64 and ``weights`` [n_types]: the channel that a neighbour of a type
  counts for, and its weight;
* ``radial`` [n_sets, R, 3]: rows (eta Å⁻², R_s Å, amplitude); n_sets is 1 or n_types;
* ``distances`` [D, 2]: rows (eta Å⁻², R_s Å); ``angles`` [Z, 3]: rows (zeta, cos theta_s,
  sin theta_s); ``products`` [n_sets, S, 2] int64: rows (distance, angle), sorted by distance,
  (-1, -1) pads;
* ``n_channels``; ``radial_cutoff`` and ``angular_cutoff`` in Å; ``cutoff_function`` 0 (cosine) or
  1 (smooth); at last ``jk_factors`` (Behler-Parrinello: eq 3, or G5) or ``cos_scale`` (ANI).

A row of features holds the radial functions [n_channels, R], then the angular ones [pairs of
channels (0,0), (0,1) ... (1,1) ..., S]. R = 0 or S = 0 gives one kind alone.

Neighbour lists and what carries them to positions: :mod:`pymlp.pair_ops`.

Raises:
    ValueError: for shapes, dtypes, devices, index values or numbers that do not fit; the message
        names the argument. On CUDA index values are not looked at, which would stall the stream.
    TypeError: for displacements or positions that are neither float32 nor float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FAMILIES = ("behler_parrinello", "ani")
"""Names of the descriptor families."""

_FLOATS = (torch.float32, torch.float64)


def _load_library() -> None:
    path = Path(__file__).with_name("_ops.so")
    fix = (
        "Rebuild against the installed torch: `pip install . --no-build-isolation` in the "
        "checkout, with torch>=2.11 installed first."
    )
    if not path.exists():
        raise ImportError(f"pymlp: no op library at {path}; torch is {torch.__version__}. {fix}")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        try:
            from pymlp import _C

            built = str(_C.build_info())
        except ImportError as no_info:
            built = f"unknown ({no_info})"
        raise ImportError(
            f"pymlp: {path.name} does not load with torch {torch.__version__}: {error}\n"
            f"Built: {built}\n{fix}"
        ) from error


_load_library()


def _overload(name: str) -> Callable[..., Any]:
    op: Callable[..., Any] = getattr(torch.ops.pymlp, name).default
    return op


# -- autograd and fake kernels, the same for all families ------------------------------------------
# Positions of arguments: X(displacements, *rest); X_backward(grad_output, displacements, *rest) ...

# Kept alive: the registrations go when the Library object goes.
_library = torch.library.Library("pymlp", "FRAGMENT")


def _inputs(ctx: Any) -> tuple[Any, ...]:
    return (*ctx.saved_tensors, *ctx.numbers)  # tensors come before numbers in every schema


def _with_none(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*gradients, *(None for _ in range(len(ctx.needs_input_grad) - len(gradients))))


def _register_autograd(name: str, derivative: Callable[..., Any], n_inputs: int) -> None:
    """Give an op its derivative by some of its first ``n_inputs`` arguments.

    As ``torch.library.register_autograd``, at less than half its cost per call: features and
    forces of one molecule take 124 µs this way and 203 µs that way, 68 µs of it in the kernels.
    """
    op = _overload(name)

    def forward(ctx: Any, *inputs: Any) -> Any:
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.numbers = inputs[len(tensors) :]
        with torch._C._AutoDispatchBelowAutograd():
            return op(*inputs)

    function = type(
        f"{name}_function",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(derivative)},
    )

    def kernel(*inputs: Any) -> Any:
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs[:n_inputs]):
            return function.apply(*inputs)  # type: ignore[attr-defined]
        with torch._C._AutoDispatchBelowAutograd():
            return op(*inputs)

    _library.impl(name, kernel, "Autograd")


def _register_family(family: str, fake_features: Callable[..., Tensor]) -> None:
    """Autograd and fake kernels of five ops; ``fake_features`` gives the shape of the first's."""
    backward, jvp, double_backward = (
        _overload(f"{family}_{kind}") for kind in ("backward", "jvp", "double_backward")
    )

    def forward_vjp(ctx: Any, grad: Tensor) -> Any:
        return _with_none(ctx, backward(grad, *_inputs(ctx)))

    def backward_vjp(ctx: Any, grad: Tensor) -> Any:
        grad_output, *rest = _inputs(ctx)
        if grad.dim() != 2:
            raise RuntimeError(f"pymlp::{family}_backward of several gradients has no derivative")
        if not ctx.needs_input_grad[1]:  # training on forces: half the work
            return _with_none(ctx, jvp(grad, *rest))
        return _with_none(ctx, *double_backward(grad, grad_output, *rest))

    def jvp_vjp(ctx: Any, grad: Tensor) -> Any:
        tangents, *rest = _inputs(ctx)
        if not ctx.needs_input_grad[1]:
            return _with_none(ctx, backward(grad, *rest))
        _, curvature = double_backward(tangents, grad, *rest)
        return _with_none(ctx, backward(grad, *rest), curvature)

    def refuse(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            f"pymlp::{family}: third derivatives, and derivatives of its Jacobian, are not "
            f"available; {family} is differentiable twice. Detach the displacements, or take the "
            "derivative by finite differences of second derivatives."
        )

    for kind, derivative, n_inputs in (
        ("", forward_vjp, 1),
        ("_backward", backward_vjp, 2),
        ("_jvp", jvp_vjp, 2),
        ("_double_backward", refuse, 3),
        ("_jacobian", refuse, 1),
    ):
        _register_autograd(f"{family}{kind}", derivative, n_inputs)

    def fake_jvp(tangents: Tensor, *inputs: Any) -> Tensor:
        return fake_features(*inputs)

    def fake_backward(grad_output: Tensor, displacements: Tensor, *rest: Any) -> Tensor:
        return displacements.new_empty((*grad_output.shape[:-2], *displacements.shape))

    def fake_double_backward(
        gradients: Tensor, grad_output: Tensor, displacements: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        return fake_features(displacements, *rest), displacements.new_empty(displacements.shape)

    def fake_jacobian(displacements: Tensor, *rest: Any) -> Tensor:
        n_features = fake_features(displacements, *rest).shape[1]
        return displacements.new_empty((displacements.shape[0], n_features, 3))

    fakes: dict[str, Callable[..., Any]] = {
        family: fake_features,
        f"{family}_backward": fake_backward,
        f"{family}_jvp": fake_jvp,
        f"{family}_double_backward": fake_double_backward,
        f"{family}_jacobian": fake_jacobian,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f"pymlp::{name}", fake)


def _fake_symmetry_functions(displacements: Tensor, pair_offsets: Tensor, *rest: Any) -> Tensor:
    radial, products, n_channels = rest[4], rest[7], rest[8]
    pairs_of_channels = n_channels * (n_channels + 1) // 2
    n_features = n_channels * radial.shape[1] + pairs_of_channels * products.shape[1]
    return displacements.new_empty((pair_offsets.shape[0] - 1, n_features))


def _refuse_cuda(name: str) -> Callable[..., Any]:
    def no_kernel(*args: Any) -> Any:
        raise RuntimeError(
            f"pymlp::{name} was called with CUDA tensors, but this build of pymlp has no CUDA "
            "kernels: it was built without them. Install the CUDA toolkit (nvcc) and rebuild with "
            "`PYMLP_CUDA=1 pip install . --no-build-isolation`, or move the tensors to the CPU."
        )

    return no_kernel


for _family in FAMILIES:
    _register_family(_family, _fake_symmetry_functions)

OP_NAMES = tuple(
    family + kind
    for family in FAMILIES
    for kind in ("", "_backward", "_jvp", "_double_backward", "_jacobian")
)
"""Names of the ops that need kernels of this library on every device."""

for _name in OP_NAMES:
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"pymlp::{_name}", "CUDA"):
        _library.impl(_name, _refuse_cuda(_name), "CUDA")


# -- functions -------------------------------------------------------------------------------------


def _check_float(name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype not in _FLOATS:
        came = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name}: expected a float32 or float64 tensor, got {came}")


def behler_parrinello(displacements: Tensor, *rest: Any) -> Tensor:
    """Behler-Parrinello symmetry functions (eqs 1-5), [A, F]; see the module for arguments."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.behler_parrinello.default(displacements, *rest)
    return result


def behler_parrinello_backward(grad_output: Tensor, displacements: Tensor, *rest: Any) -> Tensor:
    """Jᵀg [P, 3] of :func:`behler_parrinello` for grad_output [A, F]."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.behler_parrinello_backward.default(
        grad_output, displacements, *rest
    )
    return result


def behler_parrinello_jvp(tangents: Tensor, displacements: Tensor, *rest: Any) -> Tensor:
    """Ju [A, F] of :func:`behler_parrinello` for tangents [P, 3]."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.behler_parrinello_jvp.default(tangents, displacements, *rest)
    return result


def behler_parrinello_double_backward(
    grad_grad_displacements: Tensor, grad_output: Tensor, displacements: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Ju [A, F] and d(Jᵀg)/d(displacements) u [P, 3], u = grad_grad_displacements [P, 3]."""
    _check_float("displacements", displacements)
    result: tuple[Tensor, Tensor] = torch.ops.pymlp.behler_parrinello_double_backward.default(
        grad_grad_displacements, grad_output, displacements, *rest
    )
    return result


def behler_parrinello_jacobian(displacements: Tensor, *rest: Any) -> Tensor:
    """J [P, F, 3] of :func:`behler_parrinello`; pairs of other centres are 0 by construction."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.behler_parrinello_jacobian.default(displacements, *rest)
    return result


def ani(displacements: Tensor, *rest: Any) -> Tensor:
    """ANI symmetry functions (eqs 1 and 6), [A, F]; see the module for the arguments."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.ani.default(displacements, *rest)
    return result


def ani_backward(grad_output: Tensor, displacements: Tensor, *rest: Any) -> Tensor:
    """Jᵀg [P, 3] of :func:`ani` for grad_output [A, F]."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.ani_backward.default(grad_output, displacements, *rest)
    return result


def ani_jvp(tangents: Tensor, displacements: Tensor, *rest: Any) -> Tensor:
    """Ju [A, F] of :func:`ani` for tangents [P, 3]."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.ani_jvp.default(tangents, displacements, *rest)
    return result


def ani_double_backward(
    grad_grad_displacements: Tensor, grad_output: Tensor, displacements: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Ju [A, F] and d(Jᵀg)/d(displacements) u [P, 3], u = grad_grad_displacements [P, 3]."""
    _check_float("displacements", displacements)
    result: tuple[Tensor, Tensor] = torch.ops.pymlp.ani_double_backward.default(
        grad_grad_displacements, grad_output, displacements, *rest
    )
    return result


def ani_jacobian(displacements: Tensor, *rest: Any) -> Tensor:
    """J [P, F, 3] of :func:`ani`; pairs of other centres are 0 by construction."""
    _check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.ani_jacobian.default(displacements, *rest)
    return result
