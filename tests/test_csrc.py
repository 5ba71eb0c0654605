"""Builds and runs the C++ tests of tests/csrc, one program per SIMD level, without torch."""

from __future__ import annotations

import pytest

from pymlp import _C
from tests.build_tree import BUILD, ROOT, build_target, run

NAMES = sorted(file.stem for file in (ROOT / "tests" / "csrc").glob("*.cpp"))
LEVELS = _C.build_info()["simd_levels"]
# The levels are in ascending order, so this machine runs all up to the one that it picked.
RUNNABLE = LEVELS[: LEVELS.index(_C.build_info()["best_simd_level"]) + 1]


@pytest.fixture(scope="module")
def _programs() -> None:
    build_target("pymlp_csrc_tests")


@pytest.mark.usefixtures("_programs")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_csrc(name: str, level: str) -> None:
    program = BUILD / "tests" / "csrc" / f"{name}_{level}"
    assert program.exists(), f"tests/csrc/CMakeLists.txt does not list {name}"
    if level not in RUNNABLE:
        pytest.skip(f"this processor has no {level}")
    result = run([str(program)])
    assert result.returncode == 0, result.stdout
