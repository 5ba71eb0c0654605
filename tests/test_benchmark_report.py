"""The report of benchmarks: complete, finite, and plain about who was skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import benchmarks.__main__ as everything
from benchmarks import contestants, features, memory, report
from pymlp import benchmark_command
from pymlp.benchmark_report import draw_ratios, draw_scaling, read, write_report
from pymlp.benchmark_workloads import SIZES, water
from pymlp.benchmarking import Measurement, environment, save

FILES = {"report.md", "results.json", "ratios.png", "scaling.png"}


def row(contestant: str, n_atoms: int, ratio: float, threads: int = 1) -> Measurement:
    work, seconds = f"ANI-1x, water {n_atoms}", n_atoms * ratio * 1e-6
    return Measurement(
        work, "fwd", "float32", threads, contestant, seconds, seconds, 2, n_atoms, "atom",
        ratio + 1, ratio,
    )  # fmt: skip


ROWS = [row(name, n, ratio) for n in (99, 999) for name, ratio in (("pymlp", 1.0), ("peer", 20.0))]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = contestants.installed
    monkeypatch.setattr(contestants, "installed", lambda name: name != package and there(name))


def test_sizes_are_whole_molecules() -> None:
    assert [round(math.log10(size)) for size in SIZES] == [2, 3, 4, 5]
    for size in SIZES[:2]:
        work = water(size)
        assert work.positions.shape == (1, size, 3)
        assert torch.equal(work.positions, water(size).positions)
    with pytest.raises(ValueError, match="multiple of 3"):
        water(100)


def test_command_writes_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark_command, "SIZES", (99, 198, 297))
    without("torchani", monkeypatch)
    arguments = ["--report", str(tmp_path), "--quick", "--structures", "2", "--rounds", "1"]
    assert benchmark_command.main(arguments) == 0
    assert names(tmp_path) == FILES
    text = (tmp_path / "report.md").read_text()
    where = environment()
    for part in (where["machine"], where["commit"], where["packages"]["torch"], "Threads: 1"):
        assert part in text
    assert "torchani is not installed and is skipped" in text
    assert "torchani is not installed and is skipped" in capsys.readouterr().out
    assert "water 198" in text
    assert "water 297" not in text
    rows, (stated,) = read([tmp_path / "results.json"])
    assert stated["packages"] == where["packages"]
    assert {"pymlp", "PyTorch, element channels"} <= {each.contestant for each in rows}
    for each in rows:
        numbers = (each.wall_s, each.cpu_s, each.ratio_wall, each.ratio_cpu)
        assert all(math.isfinite(number) and number > 0 for number in numbers), each
        assert text.count(f"| {each.workload} | {each.quantity} | {each.dtype} |") > 0


def test_outside_a_checkout_peers_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_command, "CHECKOUT", tmp_path)
    rows, notes = benchmark_command.compare((99, 198), 2, 1)
    assert {each.contestant for each in rows} == {"pymlp"}
    assert [each.quantity for each in rows] == ["fwd", "grad"] * 2
    assert all(each.error is not None and 0 < each.error < 1e-4 for each in rows)
    assert len(notes) == 1
    assert "from a checkout" in notes[0]
    (tmp_path / "ratios.png").write_text("of an earlier run")
    write_report(tmp_path, rows, [environment()], notes)
    assert names(tmp_path) == FILES - {"ratios.png"}
    assert "ratios.png: not drawn, no peer was timed" in (tmp_path / "report.md").read_text()


def test_wrong_numbers_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = benchmark_command.ours

    def wrong(descriptor: object, batch: object, *rest: torch.Tensor) -> dict[str, object]:
        runs = right(descriptor, batch, *rest)  # type: ignore[arg-type]
        if rest[0].dtype == torch.float64:
            return runs
        return {**runs, "fwd": lambda: runs["fwd"]() * 1.01}

    monkeypatch.setattr(benchmark_command, "ours", wrong)
    with pytest.raises(AssertionError, match="fwd: wrong by"):
        benchmark_command.scaling_rows([99], 1)


def test_peers_stop_at_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchani")
    monkeypatch.setattr(features, "PEER_ATOMS", 198)
    rows, notes = features.compare([99, 198], structures=2, rounds=1)
    timed = {(each.workload, each.contestant) for each in rows}
    assert ("ANI-1x, water 99", "TorchANI") in timed
    assert ("ANI-1x, water 198", "TorchANI") not in timed
    assert ("ANI-1x, water 198", "pymlp") in timed
    assert notes == ["TorchANI is skipped from 198 atoms on (memory)."]


def test_pictures_show_peers_and_sizes(tmp_path: Path) -> None:
    more = [*ROWS, row("peer", 999, 20.0, threads=2)]
    assert draw_ratios(more, tmp_path / "a.png") == 2
    assert draw_scaling(more, tmp_path / "b.png") == 2
    assert draw_scaling(ROWS[:2], tmp_path / "none.png") == 0
    assert draw_ratios(ROWS[:1], tmp_path / "none.png") == 0
    assert names(tmp_path) == {"a.png", "b.png"}


def test_table_takes_wall_time_of_threads(tmp_path: Path) -> None:
    write_report(tmp_path, [*ROWS, row("peer", 999, 7.0, threads=2)], [environment()])
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "| ANI-1x, water 99 | fwd | float32 | 1 | peer | 20 / atom | 20 |  |" in lines
    assert "| ANI-1x, water 999 | fwd | float32 | 2 | peer | 7 / atom | 8 |  |" in lines


def test_report_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    for file, part in zip(files, (ROWS[:2], ROWS[2:]), strict=True):
        save(file, part)
    assert report.main([*files, "--out", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == FILES
    assert read([tmp_path / "out" / "results.json"])[0] == ROWS
    assert "scaling.png" in capsys.readouterr().out
    Path(files[0]).write_text(json.dumps({"rows": [{"contestant": "pymlp"}]}))
    with pytest.raises(ValueError, match=r"a\.json is no file of timings"):
        read(files)


def test_all_benchmarks_end_with_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(arguments: Sequence[str]) -> int:
        save(arguments[-1], ROWS)
        return 0

    stand_in = SimpleNamespace(main=timed)
    monkeypatch.setattr(everything, "RESULTS", tmp_path)
    monkeypatch.setattr(everything, "TIMED", {"features": stand_in, "training": stand_in})
    monkeypatch.setattr(memory, "main", lambda arguments: 0)
    without("dscribe", monkeypatch)
    assert everything.main(["--name", "new"]) == 0
    assert names(tmp_path / "new") == FILES
    assert "dscribe is not installed and is skipped" in (tmp_path / "new/report.md").read_text()
    assert len(read([tmp_path / "new" / "results.json"])[0]) == 2 * len(ROWS)
