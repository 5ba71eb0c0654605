"""Large outputs of ops: their memory is kept for later ones, and never shared by two at a time."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from pymlp import pair_ops

#: pairs whose displacements are larger than what is left to torch (4 MiB)
N_PAIRS = 400_000


def star(n_pairs: int = N_PAIRS) -> tuple[Tensor, Tensor]:
    """Offsets and neighbours of one centre beside another atom, many times the same pair."""
    return torch.tensor([0, n_pairs, n_pairs]), torch.ones(n_pairs, dtype=torch.int64)


def differences(x: float, dtype: torch.dtype = torch.float32) -> Tensor:
    positions = torch.tensor([[0.0, 0, 0], [x, 2 * x, 3 * x]], dtype=dtype)
    return pair_ops.pair_differences(positions, *star())


def expected(x: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([x, 2 * x, 3 * x], dtype=dtype).expand(N_PAIRS, 3)


def test_outputs_that_live_at_the_same_time_share_no_memory() -> None:
    alive = []
    for index in range(6):
        alive.append(differences(float(index)))
        if index == 2:
            del alive[1]  # its memory goes to the next one
    for tensor, index in zip(alive, (0, 2, 3, 4, 5), strict=True):
        assert torch.equal(tensor, expected(float(index)))


def test_views_keep_the_memory() -> None:
    view = differences(1.0)[5:7]
    others = [differences(float(index)) for index in range(2, 5)]
    assert torch.equal(view, expected(1.0)[5:7])
    assert len({tensor.data_ptr() for tensor in others}) == len(others)


def test_outputs_behave_as_any_tensor() -> None:
    for dtype in (torch.float32, torch.float64):
        tensor = differences(1.0, dtype)
        assert tensor.is_contiguous()
        assert tensor.dtype == dtype
        tensor.mul_(2)
        assert torch.equal(tensor, 2 * expected(1.0, dtype))
        assert torch.equal(tensor.clone().resize_(3), tensor.flatten()[:3])


def test_threads_take_and_give_back_at_the_same_time() -> None:
    wrong: list[float] = []

    def work(x: float) -> None:
        for _ in range(20):
            if not torch.equal(differences(x), expected(x)):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=(float(x),)) for x in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
