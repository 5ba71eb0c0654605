"""The torch ops around the descriptors: neighbour lists, and from atoms to pairs and back.

===================================  ===========================================================
``all_pairs``                        pairs of isolated molecules, every atom against every other
``cell_list``                        pairs of periodic and of large structures, by a grid
``pair_differences``, ``_backward``  r_neighbor - r_center, and its adjoint, which makes forces
``image_differences``                the same with shifts of periodic images
===================================  ===========================================================

The differences are linear, so differentiable any number of times. A atoms, P pairs, B structures;
lengths in Å, indices int64.

Raises:
    ValueError: for shapes, dtypes, devices, index values or numbers that do not fit; the message
        names the argument. On CUDA index values are not looked at, which would stall the stream:
        pairs of an atom that there is not give NaN.
    TypeError: for positions that are neither float32 nor float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pymlp import ops


def _fake_all_pairs(
    positions: Tensor, structure_offsets: Tensor, cutoff: float, n_pairs: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = torch.library.get_ctx().new_dynamic_size() if n_pairs is None else n_pairs
    return (
        structure_offsets.new_empty((positions.shape[0] + 1,)),
        structure_offsets.new_empty((pairs,)),
        structure_offsets.new_empty((pairs,)),
    )


def _fake_cell_list(
    positions: Tensor, structure_offsets: Tensor, cell: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = torch.library.get_ctx().new_dynamic_size()
    return (
        structure_offsets.new_empty((positions.shape[0] + 1,)),
        structure_offsets.new_empty((pairs,)),
        structure_offsets.new_empty((torch.library.get_ctx().new_dynamic_size(), 3)).int(),
    )


def centers_of(pair_offsets: Tensor, n_pairs: int) -> Tensor:
    """Return the centre of every pair, [P] int64."""
    atoms = torch.arange(len(pair_offsets) - 1, device=pair_offsets.device)
    return atoms.repeat_interleave(pair_offsets.diff(), output_size=n_pairs)


class _SegmentSum(torch.autograd.Function):
    """Sums of the rows between offsets [S+1], always in the same order; any derivative."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(offsets)
        ctx.n_rows = len(values)
        # unsafe: without a look at the offsets, for which the host would wait
        return torch.segment_reduce(values, "sum", offsets=offsets, axis=0, unsafe=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (offsets,) = ctx.saved_tensors
        result: Tensor = _SegmentRows.apply(grad, offsets, ctx.n_rows)
        return result, None


class _SegmentRows(torch.autograd.Function):
    """The adjoint: a segment's value in each of its rows."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, offsets: Tensor, n_rows: int) -> Tensor:
        ctx.save_for_backward(offsets)
        return sums.index_select(0, centers_of(offsets, n_rows))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        result: Tensor = _SegmentSum.apply(grad, *ctx.saved_tensors)
        return result, None, None


def sum_by_structure(
    values: Tensor, structure_index: Tensor, n_structures: int, pair_offsets: Tensor | None = None
) -> Tensor:
    """Return sums over each structure's atoms; the same bits every time, on CUDA too.

    Args:
        values: [A, ...], or [P, ...] with ``pair_offsets``: of pairs, which belong to their centre.
        structure_index: [A] int64, the structure of each atom.
        n_structures: B.
        pair_offsets: [A+1] int64, first pair of every centre.

    Returns:
        [B, ...]; differentiable any number of times.
    """
    on_cpu = values.device.type == "cpu"
    if n_structures == 1 and not (on_cpu and pair_offsets is None):
        return values.sum(dim=0, keepdim=True)
    if on_cpu:  # one after the other, on any number of threads
        index = structure_index
        if pair_offsets is not None:
            index = index.index_select(0, centers_of(pair_offsets, len(values)))
        return values.new_zeros(n_structures, *values.shape[1:]).index_add(0, index, values)
    return _without_atomics(values, structure_index, n_structures, pair_offsets)


def _without_atomics(
    values: Tensor, structure_index: Tensor, n_structures: int, pair_offsets: Tensor | None
) -> Tensor:
    if pair_offsets is not None:
        values = _SegmentSum.apply(values, pair_offsets)
    index, order = structure_index.sort(stable=True)
    first = torch.arange(n_structures + 1, device=index.device)
    result: Tensor = _SegmentSum.apply(
        values.index_select(0, order), torch.searchsorted(index, first)
    )
    return result


def _register_pair_differences() -> None:
    # Two linear maps, each the adjoint of the other, so that all derivatives are known.
    forward, backward = (ops._overload(f"pair_differences{kind}") for kind in ("", "_backward"))

    def forward_vjp(ctx: Any, grad: Tensor) -> Any:
        return ops._with_none(ctx, backward(grad, *ops._inputs(ctx)[1:]))

    def backward_vjp(ctx: Any, grad: Tensor) -> Any:
        return ops._with_none(ctx, forward(grad, *ops._inputs(ctx)[1:]))

    def fake_forward(positions: Tensor, pair_offsets: Tensor, neighbors: Tensor) -> Tensor:
        return positions.new_empty((neighbors.shape[0], 3))

    def fake_backward(grad_output: Tensor, pair_offsets: Tensor, neighbors: Tensor) -> Tensor:
        return grad_output.new_empty((pair_offsets.shape[0] - 1, 3))

    for name, derivative, fake in (
        ("pair_differences", forward_vjp, fake_forward),
        ("pair_differences_backward", backward_vjp, fake_backward),
    ):
        ops._register_autograd(name, derivative, n_inputs=1)
        torch.library.register_fake(f"pymlp::{name}", fake)


def _register_image_differences() -> None:
    scatter = ops._overload("pair_differences_backward")

    def vjp(ctx: Any, grad: Tensor) -> Any:
        _, cell, owner, offsets, neighbors, shifts = ops._inputs(ctx)
        by_position = scatter(grad, offsets, neighbors) if ctx.needs_input_grad[0] else None
        by_cell = None
        if ctx.needs_input_grad[1]:
            outer = shifts.to(grad.dtype)[:, :, None] * grad[:, None, :]
            by_cell = sum_by_structure(outer, owner, len(cell), offsets)
        return ops._with_none(ctx, by_position, by_cell)

    ops._register_autograd("image_differences", vjp, n_inputs=2)
    torch.library.register_fake(
        "pymlp::image_differences",
        lambda positions, cell, index, offsets, neighbors, shifts: positions.new_empty(
            (neighbors.shape[0], 3)
        ),
    )


torch.library.register_fake("pymlp::all_pairs", _fake_all_pairs)
torch.library.register_fake("pymlp::cell_list", _fake_cell_list)
_register_pair_differences()
_register_image_differences()

OP_NAMES = (
    "all_pairs",
    "cell_list",
    "pair_differences",
    "pair_differences_backward",
    "image_differences",
)
"""Names of the ops that need kernels of this library on every device."""

for _name in OP_NAMES:
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"pymlp::{_name}", "CUDA"):
        ops._library.impl(_name, ops._refuse_cuda(_name), "CUDA")


def all_pairs(
    positions: Tensor, structure_offsets: Tensor, cutoff: float, n_pairs: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the full neighbour list of isolated structures.

    Args:
        positions: [A, 3] Å, float32 or float64.
        structure_offsets: [B+1] int64, first atom of every structure.
        cutoff: Å; infinity gives all pairs, a topology that depends on the offsets alone.
        n_pairs: P, where the caller knows it. On CUDA, where only cutoff = inf allows that, nothing
            then waits for the host, the offsets are trusted, and a CUDA graph may hold the call.

    Returns:
        pair_offsets [A+1], centers [P], neighbors [P], int64; by centre, then by neighbour.

    Raises:
        ValueError: for shapes, dtypes, devices or a cutoff that do not fit.
        TypeError: for positions that are neither float32 nor float64.
    """
    ops._check_float("positions", positions)
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.pymlp.all_pairs.default(
        positions, structure_offsets, cutoff, n_pairs
    )
    return result


def cell_list(
    positions: Tensor, structure_offsets: Tensor, cell: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the full neighbour list of periodic or large structures.

    The same list on the CPU and on CUDA, where the host waits for the number of pairs.

    Args:
        positions: [A, 3] Å, float32 or float64 (distances are compared in float64).
        structure_offsets: [B+1] int64, first atom of every structure.
        cell: [B, 3, 3] Å, rows are cell vectors, in the dtype of the positions.
        pbc: [B, 3] bool; cell vectors of other directions are not looked at.
        cutoff: Å.

    Returns:
        pair_offsets [A+1] int64, neighbors [P] int64, shifts [P, 3] int32 ([0, 3] where nothing is
        periodic); by centre, neighbour and shift.

    Raises:
        ValueError: for shapes, dtypes, devices, a cutoff or a cell that do not fit, coincident
            atoms, positions that are not finite.
        TypeError: for positions that are neither float32 nor float64.
    """
    ops._check_float("positions", positions)
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.pymlp.cell_list.default(
        positions, structure_offsets, cell, pbc, cutoff
    )
    return result


def pair_differences(positions: Tensor, pair_offsets: Tensor, neighbors: Tensor) -> Tensor:
    """Return r_neighbor - r_center for every pair; differentiable any number of times.

    Args:
        positions: [A, 3], float32 or float64.
        pair_offsets: [A+1] int64, first pair of every centre.
        neighbors: [P] int64.

    Returns:
        [P, 3], in the unit of the positions.

    Raises:
        ValueError: for shapes, dtypes, devices or index values that do not fit.
        TypeError: for positions that are neither float32 nor float64.
    """
    ops._check_float("positions", positions)
    result: Tensor = torch.ops.pymlp.pair_differences.default(positions, pair_offsets, neighbors)
    return result


def image_differences(
    positions: Tensor,
    cell: Tensor,
    structure_index: Tensor,
    pair_offsets: Tensor,
    neighbors: Tensor,
    shifts: Tensor,
) -> Tensor:
    """Return r_neighbor - r_center + shift · cell for every pair; differentiable in both.

    Args:
        positions: [A, 3], float32 or float64.
        cell: [B, 3, 3], rows are cell vectors.
        structure_index: [A] int64, the structure of each atom; any where there is one cell.
        pair_offsets: [A+1] int64, first pair of every centre.
        neighbors: [P] int64.
        shifts: [P, 3] int32.

    Raises:
        ValueError: for shapes, dtypes, devices or index values that do not fit.
        TypeError: for positions that are neither float32 nor float64.
    """
    ops._check_float("positions", positions)
    result: Tensor = torch.ops.pymlp.image_differences.default(
        positions, cell, structure_index, pair_offsets, neighbors, shifts
    )
    return result


def pair_differences_backward(
    grad_output: Tensor, pair_offsets: Tensor, neighbors: Tensor
) -> Tensor:
    """Return dE/dr [A, 3] from dE/dd [P, 3]; differentiable any number of times.

    The same bits every time, on any number of CPU threads. On CUDA fast for lists that hold every
    pair in both directions, rows in ascending order, as :mod:`pymlp.neighbors` makes them; right
    for all. Nothing waits for the host there: a CUDA graph may hold this.

    Args:
        grad_output: [P, 3], float32 or float64.
        pair_offsets: [A+1] int64, first pair of every centre.
        neighbors: [P] int64.

    Raises:
        ValueError: for shapes, dtypes, devices or index values that do not fit.
        TypeError: for a grad_output that is neither float32 nor float64.
    """
    ops._check_float("grad_output", grad_output)
    result: Tensor = torch.ops.pymlp.pair_differences_backward.default(
        grad_output, pair_offsets, neighbors
    )
    return result
