"""The counting of operations behind benchmarks/gpu_roofline.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_roofline
from benchmarks.gpu_roofline import OPERATIONS, Cost, System
from benchmarks.workloads import claisen
from pymlp import Batch
from pymlp.descriptors import ANI, BehlerParrinello
from tests import cuda_emulation as emulation

COSTS = {name: Cost(1, float(name in ("roots", "exponentials"))) for name in OPERATIONS}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulation.built(tmp_path_factory.mktemp("count"), "count", "count.cpp", ["-O1"])


def molecule(descriptor: ANI | BehlerParrinello) -> System:
    work = claisen(1)
    batch = Batch.from_arrays(work.numbers, work.positions).to(dtype=torch.float32)
    return System.of(descriptor, batch)


def test_counts_follow_from_pairs_and_triples(program: Path) -> None:
    """One exponential for a pair and a radial function, or a triple and a distance factor."""
    system = molecule(ANI.ani1x())
    near = int((system.displacements.norm(dim=1) < 5.2).sum())
    radial = gpu_roofline.counted(program, system, COSTS, angular=False)
    every = gpu_roofline.counted(program, system, COSTS)
    for kind in ("forward", "backward", "jvp"):
        assert radial[kind]["exponentials"] == 16 * near
        assert every[kind]["exponentials"] == 16 * near + 4 * system.n_triples
    # Eight angles and a root in each triple, (1 + cos)^32 by five products; 32 products of factors.
    more = every["forward"]["products"] - radial["forward"]["products"]
    assert more >= system.n_triples * (8 * 5 + 32)
    assert every["double_backward"]["cost"] > every["backward"]["cost"] + every["jvp"]["cost"]
    for count in every.values():
        assert 0 < count["fused"] <= min(count["products"], count["sums"])
        assert count["cost"] == sum(count[name] for name in OPERATIONS) - count["fused"]
        assert count["cost"] < count["slots"] < 4 * count["cost"]
        assert count["special"] == count["roots"] + count["exponentials"]


def test_bytes_are_those_of_inputs_and_outputs() -> None:
    system = molecule(BehlerParrinello.paper(["H", "C", "O"]))
    atoms, pairs, features = 14, system.pairs.n_pairs, system.descriptor.n_features
    given = 20 * pairs + 8 * (atoms + 1) + 8 * atoms
    assert system.bytes("forward") == given + 4 * atoms * features
    both = 2 * (4 * atoms * features + 12 * pairs)
    assert system.bytes("double_backward") == given + both


def test_the_longest_time_is_the_floor() -> None:
    row = gpu_roofline.floor_row("x", 4.3e9, 67e9, 4.2e9)
    assert row == "| x | 1 | 2 | 1 | **2** |"


TOOL = """#!/bin/sh
case "$1" in
-sass)
  for name in nothing quotients sines; do
    echo " Function : _Z9k_${name}Pf"
    echo "  /*0000*/  LDG.E R2, [R4.64] ;"
    test $name = nothing || echo "  /*0010*/  @P0 MUFU.RCP R2, R2 ;"
    test $name = nothing || echo "  /*0020*/  FFMA R2, R2, R3, R2 ;"
    echo "  /*0030*/  FADD R2, R2, R3 ;"
    echo "  /*0040*/  STG.E [R4.64], R2 ;"
    echo "  /*0050*/  EXIT ;"
    echo "  /*0060*/  FFMA R2, R2, R3, R2 ;"
  done ;;
esac
"""


def test_costs_are_read_from_compiled_code(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text(TOOL)
    tool.chmod(0o755)
    costs = gpu_roofline.compiled_costs(str(tool), str(tool))
    # Load, store and what comes behind the end are not counted, nor the sum of sine and cosine.
    assert costs["quotients"] == Cost(3, 1)
    assert costs["sines"] == Cost(2, 1)
    assert costs["sums"] == Cost(1, 0)


def test_report(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    """Every row of both tables, from small systems."""
    small = {
        name: molecule(ANI.ani1x()) for name in ("ANI-1x, Claisen", "BP, Claisen", "ANI-1x, water")
    }
    monkeypatch.setattr(gpu_roofline, "chosen_systems", lambda: small)
    monkeypatch.setattr(emulation, "built", lambda *_: program)
    text = "\n".join(gpu_roofline.report(COSTS))
    for row in ("| ANI-1x, Claisen | Jᵀv |", "| 1e6 molecules, BP: double backward |"):
        assert row in text
