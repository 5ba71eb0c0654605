"""The torch ops of DeepPot-SE: autograd, fake kernels, and one thin function per op.

With A atoms, P pairs, M embedding functions, of which the first ``n_axis`` stand on the other side:

============================  ==================================================================
``environment_matrix``        rows (s, s x/R, s y/R, s z/R) [P, 4] of displacements (eqs 8, 9);
                              its ``_backward``, ``_jvp``, ``_double_backward``, ``_jacobian`` are
                              those of :mod:`pymlp.ops`, with a row per pair
``deep_pot_se``               D = T T₂ᵀ, T = 𝒢ᵀR̃ (eq 11) [A, M·n_axis] from embedding 𝒢 [P, M] and
                              environment R̃ [P, 4]; ``_backward``, ``_double_backward``
``deep_pot_se_table``         the same with 𝒢 from a table in s, never stored; ``_backward``
============================  ==================================================================

``environment_matrix`` is differentiable twice in the displacements, ``deep_pot_se`` twice in
``embedding`` and ``environment``, ``deep_pot_se_table`` once in ``environment``; more raises
RuntimeError. The same input gives the same bits, on any number of threads.

Common arguments: ``pair_offsets`` [A+1] int64, first pair of every centre; ``pair_rows`` [P] int64,
the row of ``embedding`` that belongs to each pair (a permutation: the embedding is computed sorted
by kind of pair, and never copied); ``pair_kinds`` [P] int64, the table of each pair;
``switch_function`` 0 (none), 1 (cosine) or 2 (quintic), from ``switch_start`` to ``cutoff`` in Å.

Raises:
    ValueError: for shapes, dtypes, devices, index values or numbers that do not fit, and for an s
        outside the table; the message names the argument. On CUDA values are not looked at, which
        would stall the stream: there an s outside the table gives NaN.
    TypeError: for displacements, embedding or environment that are neither float32 nor float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymlp import ops

OP_NAMES = (
    *(f"environment_matrix{k}" for k in ("", "_backward", "_jvp", "_double_backward", "_jacobian")),
    *(f"deep_pot_se{k}" for k in ("", "_backward", "_double_backward")),
    *(f"deep_pot_se_table{k}" for k in ("", "_backward")),
)
"""Names of the ops under ``torch.ops.pymlp``."""

SWITCH_FUNCTIONS = {"none": 0, "cosine": 1, "quintic": 2}
"""Values of ``switch_function`` by name."""

TABLE_PADDING = 16
"""Rows of a table are padded with zeros to a multiple of this."""


def _overload(name: str) -> Any:
    return getattr(torch.ops.pymlp, name).default


def _refuse(text: str) -> Any:
    def refuse(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(text)

    return refuse


# -- environment matrix -------------------------------------------------------------------------


def _register_environment() -> None:
    name = "environment_matrix"
    backward, jvp, double_backward = (
        _overload(f"{name}_{kind}") for kind in ("backward", "jvp", "double_backward")
    )
    none = (None, None, None)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
        ctx.numbers = inputs[-3:]

    def forward_vjp(ctx: Any, grad: Tensor) -> Any:
        return (backward(grad, *ctx.saved_tensors, *ctx.numbers), *none)

    def backward_vjp(ctx: Any, grad: Tensor) -> Any:
        grad_output, displacements = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:  # training on forces
            return (jvp(grad, displacements, *ctx.numbers), None, *none)
        return (*double_backward(grad, grad_output, displacements, *ctx.numbers), *none)

    def jvp_vjp(ctx: Any, grad: Tensor) -> Any:
        tangents, displacements = ctx.saved_tensors
        along = backward(grad, displacements, *ctx.numbers)
        if not ctx.needs_input_grad[1]:
            return (along, None, *none)
        return (along, double_backward(tangents, grad, displacements, *ctx.numbers)[1], *none)

    refuse = _refuse(
        f"pymlp::{name}: third derivatives, and derivatives of its Jacobian, are not available; "
        f"{name} is differentiable twice. Detach the displacements, or take the derivative by "
        "finite differences of second derivatives."
    )
    derivatives = {
        "": forward_vjp,
        "_backward": backward_vjp,
        "_jvp": jvp_vjp,
        "_double_backward": refuse,
        "_jacobian": refuse,
    }
    for kind, derivative in derivatives.items():
        torch.library.register_autograd(f"pymlp::{name}{kind}", derivative, setup_context=save)

    def rows(displacements: Tensor, *_: Any) -> Tensor:
        return displacements.new_empty((displacements.shape[0], 4))

    def vectors(grad_output: Tensor, displacements: Tensor, *_: Any) -> Tensor:
        return displacements.new_empty(displacements.shape)

    fakes: dict[str, Any] = {
        "": rows,
        "_backward": vectors,
        "_jvp": lambda tangents, displacements, *_: rows(displacements),
        "_double_backward": lambda u, g, displacements, *_: (
            rows(displacements),
            vectors(g, displacements),
        ),
        "_jacobian": lambda displacements, *_: displacements.new_empty(
            (displacements.shape[0], 4, 3)
        ),
    }
    for kind, fake in fakes.items():
        torch.library.register_fake(f"pymlp::{name}{kind}", fake)


# -- contraction --------------------------------------------------------------------------------


def _register_contraction() -> None:
    name = "deep_pot_se"
    backward, double_backward = (
        _overload(f"{name}_{kind}") for kind in ("backward", "double_backward")
    )

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.save_for_backward(*inputs[:-1])
        ctx.n_axis = inputs[-1]

    def forward_vjp(ctx: Any, grad: Tensor) -> Any:
        return (*backward(grad, *ctx.saved_tensors, ctx.n_axis), None, None, None)

    def backward_vjp(ctx: Any, functions: Tensor | None, numbers: Tensor | None) -> Any:
        grad_output, embedding, environment, *rest = ctx.saved_tensors
        functions = torch.zeros_like(embedding) if functions is None else functions
        numbers = torch.zeros_like(environment) if numbers is None else numbers
        both = double_backward(
            functions, numbers, grad_output, embedding, environment, *rest, ctx.n_axis
        )
        return (*both, None, None, None)

    refuse = _refuse(
        f"pymlp::{name}: third derivatives are not available; {name} is differentiable twice. "
        "Detach embedding and environment, or take the derivative by finite differences."
    )
    for kind, derivative in (
        ("", forward_vjp),
        ("_backward", backward_vjp),
        ("_double_backward", refuse),
    ):
        torch.library.register_autograd(f"pymlp::{name}{kind}", derivative, setup_context=save)

    def features(embedding: Tensor, environment: Tensor, offsets: Tensor, *rest: Any) -> Tensor:
        return embedding.new_empty((offsets.shape[0] - 1, embedding.shape[1] * rest[-1]))

    def gradients(
        grad_output: Tensor, embedding: Tensor, environment: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor]:
        return embedding.new_empty(embedding.shape), environment.new_empty(environment.shape)

    def second(
        functions: Tensor, numbers: Tensor, grad_output: Tensor, *inputs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        return features(*inputs), *gradients(grad_output, *inputs)

    for kind, fake in (("", features), ("_backward", gradients), ("_double_backward", second)):
        torch.library.register_fake(f"pymlp::{name}{kind}", fake)


def _register_table() -> None:
    name = "deep_pot_se_table"
    backward = _overload(f"{name}_backward")

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.save_for_backward(*inputs[:-4])
        ctx.numbers = inputs[-4:]

    def forward_vjp(ctx: Any, grad: Tensor) -> Any:
        return (backward(grad, *ctx.saved_tensors, *ctx.numbers), *(None,) * 7)

    refuse = _refuse(
        f"pymlp::{name}: second derivatives of a tabulated embedding are not available. "
        "Use the exact networks: descriptor.exact()."
    )
    torch.library.register_autograd(f"pymlp::{name}", forward_vjp, setup_context=save)
    torch.library.register_autograd(f"pymlp::{name}_backward", refuse, setup_context=save)

    def features(environment: Tensor, pair_offsets: Tensor, *rest: Any) -> Tensor:
        return environment.new_empty((pair_offsets.shape[0] - 1, rest[-2] * rest[-1]))

    def gradient(grad_output: Tensor, environment: Tensor, *_: Any) -> Tensor:
        return environment.new_empty(environment.shape)

    torch.library.register_fake(f"pymlp::{name}", features)
    torch.library.register_fake(f"pymlp::{name}_backward", gradient)


_register_environment()
_register_contraction()
_register_table()

# Kept alive: the registrations go when the Library object goes.
_cuda_refusals = torch.library.Library("pymlp", "FRAGMENT")
for _name in OP_NAMES:
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"pymlp::{_name}", "CUDA"):
        _cuda_refusals.impl(_name, ops._refuse_cuda(_name), "CUDA")


# -- functions ----------------------------------------------------------------------------------


def environment_matrix(
    displacements: Tensor, switch_start: float, cutoff: float, switch_function: int
) -> Tensor:
    """Environment matrix (eqs 8, 9): rows (s, s x/R, s y/R, s z/R) [P, 4], 1/Å."""
    ops._check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.environment_matrix.default(
        displacements, switch_start, cutoff, switch_function
    )
    return result


def environment_matrix_backward(grad_output: Tensor, displacements: Tensor, *rest: Any) -> Tensor:
    """Jᵀg [P, 3] of :func:`environment_matrix` for grad_output [P, 4]."""
    ops._check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.environment_matrix_backward.default(
        grad_output, displacements, *rest
    )
    return result


def environment_matrix_jvp(tangents: Tensor, displacements: Tensor, *rest: Any) -> Tensor:
    """Ju [P, 4] of :func:`environment_matrix` for tangents [P, 3]."""
    ops._check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.environment_matrix_jvp.default(tangents, displacements, *rest)
    return result


def environment_matrix_double_backward(
    grad_grad_displacements: Tensor, grad_output: Tensor, displacements: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Ju [P, 4] and d(Jᵀg)/d(displacements) u [P, 3], u = grad_grad_displacements [P, 3]."""
    ops._check_float("displacements", displacements)
    result: tuple[Tensor, Tensor] = torch.ops.pymlp.environment_matrix_double_backward.default(
        grad_grad_displacements, grad_output, displacements, *rest
    )
    return result


def environment_matrix_jacobian(displacements: Tensor, *rest: Any) -> Tensor:
    """J [P, 4, 3] of :func:`environment_matrix`."""
    ops._check_float("displacements", displacements)
    result: Tensor = torch.ops.pymlp.environment_matrix_jacobian.default(displacements, *rest)
    return result


def deep_pot_se(
    embedding: Tensor, environment: Tensor, pair_offsets: Tensor, pair_rows: Tensor, n_axis: int
) -> Tensor:
    """DeepPot-SE features (eq 11), [A, M·n_axis], ``n_axis`` fastest.

    Args:
        embedding: 𝒢 [P, M].
        environment: R̃ [P, 4].
        pair_offsets: [A+1] int64.
        pair_rows: [P] int64, the row of ``embedding`` of each pair.
        n_axis: m2, in 1 ... M.
    """
    ops._check_float("embedding", embedding)
    result: Tensor = torch.ops.pymlp.deep_pot_se.default(
        embedding, environment, pair_offsets, pair_rows, n_axis
    )
    return result


def deep_pot_se_table(
    environment: Tensor,
    pair_offsets: Tensor,
    pair_kinds: Tensor,
    table: Tensor,
    first: float,
    width: float,
    n_functions: int,
    n_axis: int,
) -> Tensor:
    """DeepPot-SE features (eq 11), [A, M·n_axis], with 𝒢 from a table in s.

    Args:
        environment: R̃ [P, 4].
        pair_offsets: [A+1] int64.
        pair_kinds: [P] int64, which table.
        table: [kinds, intervals, 6, M padded to a multiple of 16]: coefficients of polynomials in
            the position within the interval (0 ... 1), constant first.
        first: 1/Å, s at which the table begins.
        width: 1/Å, of an interval.
        n_functions: M.
        n_axis: m2, in 1 ... M.

    Raises:
        ValueError: besides, for an s outside the table.
    """
    ops._check_float("environment", environment)
    result: Tensor = torch.ops.pymlp.deep_pot_se_table.default(
        environment, pair_offsets, pair_kinds, table, first, width, n_functions, n_axis
    )
    return result


def deep_pot_se_table_backward(grad_output: Tensor, environment: Tensor, *rest: Any) -> Tensor:
    """Gradient [P, 4] by ``environment`` of :func:`deep_pot_se_table`, its slope in s included."""
    ops._check_float("environment", environment)
    result: Tensor = torch.ops.pymlp.deep_pot_se_table_backward.default(
        grad_output, environment, *rest
    )
    return result
