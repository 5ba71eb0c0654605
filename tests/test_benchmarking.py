"""The benchmark harness: checks first, takes turns, reports ratios; and `pymlp benchmark`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from pymlp import Batch, benchmark_command, benchmarking, neighbor_list
from pymlp.benchmarking import Contestant, derivatives, measure, ours, time_interleaved
from pymlp.descriptors import ANI, BehlerParrinello
from tests.neighbourhoods import molecule


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    runs: dict[str, benchmarking.Run] = {name: partial(calls.append, name) for name in "ab"}
    samples = time_interleaved(runs, rounds=3, block_s=0.0)
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab"
    for own in samples.values():
        assert len(own.wall) == len(own.cpu) == 3
        assert min(own.wall) > 0


def test_budget_ends_the_rounds() -> None:
    samples = time_interleaved({"a": lambda: None}, rounds=50, block_s=0.0, budget_s=0.0)
    assert len(samples["a"].wall) == 2


def test_wrong_results_are_not_timed() -> None:
    def check(quantity: str, contestant: str, result: int) -> float:
        assert result == 1, f"{contestant}, {quantity}"
        return 0.0

    right = Contestant("right", {"fwd": lambda: 1})
    wrong = Contestant("wrong", {"fwd": lambda: 2})
    (row,) = measure("work", [right], items=4, check=check, rounds=2)
    assert (row.contestant, row.quantity, row.items, row.rounds) == ("right", "fwd", 4, 2)
    assert row.ratio_wall == 1
    assert row.error == 0
    with pytest.raises(AssertionError, match="wrong, fwd"):
        measure("work", [right, wrong], items=4, check=check, rounds=2)


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    other = before % 2 + 1
    with benchmarking.threads(other):
        assert torch.get_num_threads() == other
    with pytest.raises(ZeroDivisionError), benchmarking.threads(other):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("kept", [False, True], ids=["list made", "list kept"])
@pytest.mark.parametrize("family", ["ani", "bp"])
def test_both_paths_compute_the_same(family: str, kept: bool) -> None:
    """The potential's path (`ours`) and plain autograd give the same gradients."""
    make = ANI.ani1x if family == "ani" else BehlerParrinello.paper
    descriptor = make(["H", "C", "O"])
    geometry = molecule(7, 3, 91)
    batch = Batch.from_arrays(torch.tensor([1, 6, 8])[geometry.types], geometry.positions)
    generator = torch.Generator().manual_seed(92)
    g = torch.randn(7, descriptor.n_features, generator=generator, dtype=torch.float64)
    u = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    near = neighbor_list(batch, descriptor.cutoff) if kept else None
    runs = ours(descriptor, batch, g, u, near)
    plain = derivatives(lambda: descriptor(batch), batch.positions, g, u)
    assert set(runs) == set(benchmarking.QUANTITIES)
    for quantity, run in runs.items():
        assert torch.allclose(run(), plain[quantity](), rtol=1e-10, atol=1e-10), quantity


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "result.json"
    arguments = ["--structures", "3", "--rounds", "1", "--out", str(out)]
    assert benchmark_command.main(arguments) == 0
    assert "ANI-1x, 3 structures" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert {"machine", "commit", "packages", "build"} <= set(content["environment"])
    rows = content["rows"]
    assert {row["quantity"] for row in rows} == set(benchmarking.QUANTITIES)
    assert {row["dtype"] for row in rows} == {"float32", "float64"}
    assert all(row["wall_s"] > 0 for row in rows)


@pytest.mark.parametrize("arguments", [["--structures", "0"], ["--rounds", "-1"], ["--quick"]])
def test_command_refuses(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_command.main(arguments)
