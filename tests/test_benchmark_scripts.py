"""Scripts of benchmarks/: the contestants of the training benchmark agree; kernels are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_static, training
from benchmarks.workloads import claisen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_training_steps_have_the_same_loss_and_gradient(dtype: torch.dtype) -> None:
    assert training.check(claisen(32), dtype) < (1e-4 if dtype == torch.float32 else 1e-10)


def test_a_wrong_step_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = training.ours

    def wrong(work: training.Workload, dtype: torch.dtype) -> object:
        network, step = right(work, dtype)
        return network, lambda index: step(index) * 1.01

    monkeypatch.setattr(training, "ours", wrong)
    with pytest.raises(AssertionError, match="loss or gradient differ"):
        training.check(claisen(32), torch.float64)


def test_training_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "training.json"
    arguments = ["--structures", "64", "--rounds", "2", "--budget", "0", "--out", str(out)]
    assert training.main(arguments) == 0
    assert "times as fast" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert {row["contestant"] for row in rows} == {"pymlp", "PyTorch, as in the lessons"}


TOOL = """#!/bin/sh
case "$1" in
--dump-resource-usage)
  for arch in sm_80 sm_90; do
    echo "arch = $arch"
    echo " Function _ZN5pymlp4cuda11count_pairsIfEEvNS0_10PairSearchIT_EEPl:"
    echo "  REG:44 STACK:0 SHARED:0 LOCAL:8 CONSTANT[0]:664"
  done ;;
-sass)
  echo " Function : _ZN5pymlp4cuda11count_pairsIfEEvNS0_10PairSearchIT_EEPl"
  echo "        /*0000*/                   MOV R1, c[0x0][0x28] ;"
  echo "        /*0010*/                   LDG.E R2, [R4.64] ;"
  echo "        /*0020*/                   FFMA R2, R2, R3, R2 ;"
  echo "        /*0030*/                   MUFU.EX2 R2, R2 ;"
  echo "        /*0040*/               @P0 BRA 0x10 ;"
  echo "        /*0050*/                   BRA 0x50 ;" ;;
esac
"""


def test_kernels_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = tmp_path / "cuobjdump"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    assert gpu_static.main(["--library", "none.so", "--cuobjdump", str(tool)]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == "| `count_pairs<float>` | 44 / 44 | 42 | 8 | 4: 1 / 1 / 0 / 1 |"
    tool.write_text("#!/bin/sh\n")
    with pytest.raises(SystemExit):
        gpu_static.main(["--cuobjdump", str(tool)])


def test_gpu_script_runs_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cases and checks, on the CPU with small sizes."""
    monkeypatch.setattr(gpu, "SECONDS", 0.0)
    out = tmp_path / "gpu.json"
    sizes = ["--device", "cpu", "--molecules", "3", "--atoms", "9", "--peers", "2"]
    assert gpu.main([*sizes, "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    names = {row["name"] for row in report["rows"]}
    assert {"3 molecules, ANI-1x: Jᵀv", "1 molecule, ANI-1x: G, CUDA graph"} <= names
    assert all(row["ms"] > 0 for row in report["rows"])
    assert "commit" in report["environment"]
    monkeypatch.setattr(gpu, "LIMIT", 0.0)
    with pytest.raises(AssertionError, match="features are off"):
        gpu.main(sizes)
