"""The torch ops of DeepPot-SE: autograd, fake kernels, and one thin function per op.

With A atoms, P pairs, M embedding functions, of which the first ``n_axis`` stand on the other side:

============================  ==================================================================
``environment_matrix``        rows (s, s x/R, s y/R, s z/R) [P, 4] of displacements (eqs 8, 9);
                              its ``_backward``, ``_jvp``, ``_double_backward``, ``_jacobian`` are
                              those of :mod:`pymlp.ops`, with a row per pair
``deep_pot_se``               D = T T₂ᵀ, T = 𝒢ᵀR̃ (eq 11) [A, M·n_axis] from embedding 𝒢 [P, M] and
                              environment R̃ [P, 4]; ``_backward``, ``_double_backward``
``deep_pot_se_table``         the same with 𝒢 from a table in s, never stored; ``_backward``, and on
                              the CPU ``_gradient`` (by the table) and ``_double_backward``
``deep_pot_se_networks``      the same with 𝒢 from networks, never stored, on the CPU alone;
                              ``_backward``, ``_gradient`` (by the weights), ``_double_backward``
============================  ==================================================================

``environment_matrix`` is differentiable twice in the displacements, ``deep_pot_se`` twice in
``embedding`` and ``environment``, ``deep_pot_se_table`` twice in ``environment`` and once more by
``table``, which is linear (on CUDA once in ``environment``), ``deep_pot_se_networks`` twice in
``environment`` and once, after either of these, in ``parameters``; more raises RuntimeError. The
same input gives the same bits, on any number of threads.

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

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pymlp import ops
from pymlp.ops import _inputs, _register_autograd, _with_none

OP_NAMES = (
    *(f"environment_matrix{k}" for k in ("", "_backward", "_jvp", "_double_backward", "_jacobian")),
    *(f"deep_pot_se{k}" for k in ("", "_backward", "_double_backward")),
    *(f"deep_pot_se_table{k}" for k in ("", "_backward")),
)
"""Names of the ops under ``torch.ops.pymlp`` that every device has."""

CPU_OP_NAMES = (
    *(f"deep_pot_se_table_{kind}" for kind in ("gradient", "double_backward")),
    *(f"deep_pot_se_networks{kind}" for kind in ("", "_backward", "_gradient", "_double_backward")),
)
"""Names of those that the CPU alone has."""

SWITCH_FUNCTIONS = {"none": 0, "cosine": 1, "quintic": 2}
"""Values of ``switch_function`` by name."""

MAX_DEPTH = 8
"""Layers that ``deep_pot_se_networks`` takes."""

TABLE_PADDING = 16
"""Rows of a table are padded with zeros to a multiple of this."""


def _overload(name: str) -> Any:
    return getattr(torch.ops.pymlp, name).default


def _refuse(text: str) -> Any:
    def refuse(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(text)

    return refuse


# -- environment matrix -------------------------------------------------------------------------


def _fake_rows(displacements: Tensor, *_: Any) -> Tensor:
    return displacements.new_empty((displacements.shape[0], 4))


# -- contraction --------------------------------------------------------------------------------


def _register_contraction() -> None:
    name = "deep_pot_se"
    backward, double_backward = (
        _overload(f"{name}_{kind}") for kind in ("backward", "double_backward")
    )

    def forward_vjp(ctx: Any, grad: Tensor) -> Any:
        return _with_none(ctx, *backward(grad, *_inputs(ctx)))

    def backward_vjp(ctx: Any, functions: Tensor | None, numbers: Tensor | None) -> Any:
        grad_output, embedding, environment, *rest = _inputs(ctx)
        functions = torch.zeros_like(embedding) if functions is None else functions
        numbers = torch.zeros_like(environment) if numbers is None else numbers
        both = double_backward(functions, numbers, grad_output, embedding, environment, *rest)
        return _with_none(ctx, *both)

    refuse = _refuse(
        f"pymlp::{name}: third derivatives are not available; {name} is differentiable twice. "
        "Detach embedding and environment, or take the derivative by finite differences."
    )
    for kind, derivative, n_inputs in (
        ("", forward_vjp, 2),
        ("_backward", backward_vjp, 3),
        ("_double_backward", refuse, 5),
    ):
        _register_autograd(f"{name}{kind}", derivative, n_inputs)

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


def _register_functions(name: str, weights: str, n_functions: Callable[..., int]) -> None:
    """Table or networks: (environment, pair_offsets, pair_kinds, weights, ...)."""
    backward, gradient, double_backward = (
        _overload(f"{name}_{kind}") for kind in ("backward", "gradient", "double_backward")
    )

    def forward_vjp(ctx: Any, grad: Tensor) -> Any:
        inputs, needed = _inputs(ctx), ctx.needs_input_grad
        return _with_none(
            ctx,
            backward(grad, *inputs) if needed[0] else None,
            None,
            None,
            gradient(grad, *inputs) if needed[3] else None,
        )

    def backward_vjp(ctx: Any, grad: Tensor) -> Any:
        grad_output, *rest = _inputs(ctx)
        needed = ctx.needs_input_grad[1]
        along, second, by_weights = double_backward(grad, grad_output, *rest, needed)
        return _with_none(ctx, along, second if needed else None, None, None, by_weights)

    refuse = _refuse(
        f"pymlp::{name}: third derivatives, and second ones by the {weights}, are not available. "
        "Evaluate the networks by torch: descriptor.exact().features_of()."
    )
    for kind, derivative, n_inputs in (
        ("", forward_vjp, 4),
        ("_backward", backward_vjp, 5),
        ("_gradient", refuse, 5),
        ("_double_backward", refuse, 6),
    ):
        _register_autograd(f"{name}{kind}", derivative, n_inputs)

    def features(environment: Tensor, pair_offsets: Tensor, *rest: Any) -> Tensor:
        size = n_functions(*rest) * rest[-1]
        return environment.new_empty((pair_offsets.shape[0] - 1, size))

    def rows(grad_output: Tensor, environment: Tensor, *_: Any) -> Tensor:
        return environment.new_empty(environment.shape)

    def of_weights(grad_output: Tensor, *inputs: Any) -> Tensor:
        return inputs[3].new_empty(inputs[3].shape)

    def second(grad: Tensor, grad_output: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        *inputs, with_environment = rest
        n_pairs = inputs[0].shape[0] if with_environment else 0
        return (
            features(*inputs),
            inputs[0].new_empty((n_pairs, 4)),
            of_weights(grad_output, *inputs),
        )

    for kind, fake in (
        ("", features),
        ("_backward", rows),
        ("_gradient", of_weights),
        ("_double_backward", second),
    ):
        torch.library.register_fake(f"pymlp::{name}{kind}", fake)


ops._register_family("environment_matrix", _fake_rows)
_register_contraction()
_register_functions("deep_pot_se_table", "table", lambda *rest: rest[-2])
_register_functions("deep_pot_se_networks", "weights", lambda *rest: rest[-2][-1])

# Kept alive: the registrations go when the Library object goes.
_cuda_refusals = torch.library.Library("pymlp", "FRAGMENT")
for _name in OP_NAMES:
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"pymlp::{_name}", "CUDA"):
        _cuda_refusals.impl(_name, ops._refuse_cuda(_name), "CUDA")


def _cpu_only(name: str) -> Any:
    def no_kernel(*args: Any) -> Any:
        raise RuntimeError(
            f"pymlp::{name} runs on the CPU alone; on CUDA, and for more derivatives, the networks "
            "are torch's and their contraction is deep_pot_se: descriptor.exact().features_of()"
        )

    return no_kernel


for _name in CPU_OP_NAMES:
    _cuda_refusals.impl(_name, _cpu_only(_name), "CUDA")


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
    """Gradient [P, 4] by ``environment`` of :func:`deep_pot_se_table`, its slope in s included.

    On the CPU differentiable in ``grad_output``, ``environment`` and the table.
    """
    ops._check_float("environment", environment)
    result: Tensor = torch.ops.pymlp.deep_pot_se_table_backward.default(
        grad_output, environment, *rest
    )
    return result


def deep_pot_se_networks(
    environment: Tensor,
    pair_offsets: Tensor,
    pair_kinds: Tensor,
    parameters: Tensor,
    standards: Tensor,
    widths: Sequence[int],
    n_axis: int,
) -> Tensor:
    """DeepPot-SE features (eqs 10, 11), [A, M·n_axis], with 𝒢 from residual tanh networks of s.

    Args:
        environment: R̃ [P, 4].
        pair_offsets: [A+1] int64.
        pair_kinds: [P] int64, which network.
        parameters: [kinds, Q]: layer after layer the weight [n_in, n_out] and the bias [n_out].
        standards: [kinds, 2]: the networks are given s · first + second.
        widths: of the layers, 1 to 8 of them; the last is M.
        n_axis: m2, in 1 ... M.

    Raises:
        RuntimeError: on CUDA, which has the op chain alone.
    """
    ops._check_float("environment", environment)
    result: Tensor = torch.ops.pymlp.deep_pot_se_networks.default(
        environment, pair_offsets, pair_kinds, parameters, standards, list(widths), n_axis
    )
    return result


def deep_pot_se_networks_backward(grad_output: Tensor, environment: Tensor, *rest: Any) -> Tensor:
    """Gradient [P, 4] by ``environment`` of :func:`deep_pot_se_networks`.

    Differentiable in ``grad_output``, ``environment`` and ``parameters``.
    """
    ops._check_float("environment", environment)
    result: Tensor = torch.ops.pymlp.deep_pot_se_networks_backward.default(
        grad_output, environment, *rest
    )
    return result
