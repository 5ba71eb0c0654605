"""Gather and scatter between atoms and pairs: two linear ops, each the adjoint of the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pymlp import pair_ops
from pymlp.pair_ops import centers_of


def pairs(n_atoms: int, n_pairs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random centres (sorted), offsets and neighbours."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randint(n_atoms, (n_pairs,), generator=generator).sort().values
    counts = torch.bincount(centers, minlength=n_atoms)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return centers, offsets, torch.randint(n_atoms, (n_pairs,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_atoms", "n_pairs"), [(1, 0), (5, 17), (9000, 30000)])
def test_both_agree_with_plain_indexing(dtype: torch.dtype, n_atoms: int, n_pairs: int) -> None:
    centers, offsets, neighbors = pairs(n_atoms, n_pairs)
    positions = torch.randn(n_atoms, 3, dtype=dtype)
    torch.testing.assert_close(
        pair_ops.pair_differences(positions, offsets, neighbors),
        positions[neighbors] - positions[centers],
        rtol=0,
        atol=0,
    )
    values = torch.randn(n_pairs, 3, dtype=dtype)
    expected = torch.zeros(n_atoms, 3, dtype=torch.float64)
    expected.index_add_(0, neighbors, values.double()).index_add_(0, centers, -values.double())
    sums = pair_ops.pair_differences_backward(values, offsets, neighbors)
    assert sums.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(sums.double(), expected, rtol=tolerance, atol=tolerance)


def test_no_atoms() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert pair_ops.pair_differences(torch.zeros(0, 3), torch.zeros(1).long(), none).shape == (0, 3)
    assert pair_ops.pair_differences_backward(
        torch.zeros(0, 3), torch.zeros(1).long(), none
    ).shape == (
        0,
        3,
    )


def test_same_bits_on_one_and_two_threads() -> None:
    _, offsets, neighbors = pairs(20_000, 60_000)
    values = torch.randn(60_000, 3)
    before = torch.get_num_threads()
    try:
        sums = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            sums.append(pair_ops.pair_differences_backward(values, offsets, neighbors))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[1], sums[2])


def test_derivatives() -> None:
    _, offsets, neighbors = pairs(4, 9)
    positions = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    values = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    for op, x in (
        (pair_ops.pair_differences, positions),
        (pair_ops.pair_differences_backward, values),
    ):

        def function(x: Tensor, op=op) -> Tensor:
            return op(x, offsets, neighbors)

        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))


def test_opcheck() -> None:
    _, offsets, neighbors = pairs(4, 9)
    for name, rows in (("pair_differences", 4), ("pair_differences_backward", 9)):
        x = torch.randn(rows, 3, requires_grad=True)
        torch.library.opcheck(getattr(torch.ops.pymlp, name).default, (x, offsets, neighbors))


def test_positions_need_not_be_contiguous() -> None:
    _, offsets, neighbors = pairs(4, 9)
    positions = torch.randn(3, 4).T
    expected = pair_ops.pair_differences(positions.contiguous(), offsets, neighbors)
    assert torch.equal(pair_ops.pair_differences(positions, offsets, neighbors), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(4, 2)}, r"positions: expected shape \[A, 3\]"),
        ({"offsets": torch.tensor([0, 5, 3, 9, 9])}, "pair_offsets: expected to ascend"),
        ({"offsets": torch.tensor([0, 9])}, r"pair_offsets: expected shape \[A \+ 1\]"),
        ({"neighbors": torch.full((9,), 4)}, r"neighbors: expected values in 0 ... A - 1 = 3"),
        ({"neighbors": torch.full((9,), -1)}, r"neighbors: expected values in 0 ... A - 1 = 3"),
        ({"neighbors": torch.zeros(9)}, "neighbors: expected dtype int64"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor], message: str) -> None:
    _, offsets, neighbors = pairs(4, 9)
    arguments = {"positions": torch.zeros(4, 3), "offsets": offsets, "neighbors": neighbors}
    with pytest.raises(ValueError, match=message):
        pair_ops.pair_differences(*(arguments | change).values())


def test_integer_positions_are_a_type_error() -> None:
    _, offsets, neighbors = pairs(4, 9)
    with pytest.raises(TypeError, match="positions: expected a float32 or float64 tensor"):
        pair_ops.pair_differences(torch.zeros(4, 3, dtype=torch.int64), offsets, neighbors)


@pytest.mark.parametrize("n_cells", [1, 3])
def test_images_are_moved_by_their_cells(n_cells: int) -> None:
    _, offsets, neighbors = pairs(7, 40)
    generator = torch.Generator().manual_seed(3)
    cell = torch.rand(n_cells, 3, 3, generator=generator, dtype=torch.float64)
    index = torch.tensor([0, 0, 0, 1, 1, 2, 2]) % n_cells
    shifts = torch.randint(-2, 3, (40, 3), generator=generator, dtype=torch.int32)
    positions = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    moved = torch.einsum("pk,pkx->px", shifts.double(), cell[index[centers_of(offsets, 40)]])
    expected = pair_ops.pair_differences(positions, offsets, neighbors) + moved

    def image_differences(r: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return pair_ops.image_differences(r, c, index, offsets, neighbors, shifts)

    assert torch.allclose(image_differences(positions, cell), expected, rtol=1e-14)
    single = image_differences(positions.float(), cell.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single, expected.float(), atol=1e-5)
    leaves = positions.requires_grad_(), cell.requires_grad_()
    assert torch.autograd.gradcheck(image_differences, leaves)
    assert torch.autograd.gradgradcheck(image_differences, leaves)
    arguments = positions.detach(), cell.detach(), index, offsets, neighbors, shifts
    torch.library.opcheck(
        torch.ops.pymlp.image_differences.default,
        arguments,
        test_utils=["test_schema", "test_faketensor"],
    )


@pytest.mark.parametrize("of_pairs", [False, True])
def test_sums_of_structures_without_atomics(of_pairs: bool) -> None:
    """What CUDA does, here on the CPU: any order of structures, some without atoms."""
    _, offsets, _ = pairs(7, 40)
    index = torch.tensor([3, 0, 0, 5, 3, 3, 1])
    values = torch.randn(40 if of_pairs else 7, 2, 3, dtype=torch.float64, requires_grad=True)
    given = (index, 6, offsets if of_pairs else None)
    expected = pair_ops.sum_by_structure(values, *given)
    assert torch.allclose(pair_ops._without_atomics(values, *given), expected, rtol=1e-14)
    assert bool((expected[torch.tensor([2, 4])] == 0).all())

    def sums(values: Tensor) -> Tensor:
        return pair_ops._without_atomics(values, *given)

    assert torch.autograd.gradcheck(sums, (values,))
    assert torch.autograd.gradgradcheck(sums, (values,))
    none = values[:0].detach()
    empty = (index[:0], 2, offsets[:1] if of_pairs else None)
    assert pair_ops._without_atomics(none, *empty).tolist() == torch.zeros(2, 2, 3).tolist()


def test_images_refuse_what_does_not_fit() -> None:
    _, offsets, neighbors = pairs(4, 6)
    good = {
        "positions": torch.zeros(4, 3),
        "cell": torch.zeros(2, 3, 3),
        "structure_index": torch.zeros(4, dtype=torch.int64),
        "pair_offsets": offsets,
        "neighbors": neighbors,
        "shifts": torch.zeros(6, 3, dtype=torch.int32),
    }
    for change, message in (
        ({"cell": torch.zeros(2, 3)}, r"cell: expected shape \[B, 3, 3\]"),
        ({"cell": torch.zeros(2, 3, 3).double()}, "cell: expected the dtype of positions"),
        ({"structure_index": torch.full((4,), 2)}, "structure_index: expected values in 0"),
        ({"structure_index": torch.zeros(3).long()}, r"structure_index: expected shape \[A\]"),
        ({"shifts": torch.zeros(6, 3).long()}, "shifts: expected dtype int32"),
        ({"shifts": torch.zeros(5, 3).int()}, r"shifts: expected shape \[P, 3\]"),
        ({"neighbors": torch.full((6,), 4)}, "neighbors: expected values in 0"),
        ({"positions": torch.zeros(4, 3).long()}, "positions: expected"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            pair_ops.image_differences(*(good | change).values())
