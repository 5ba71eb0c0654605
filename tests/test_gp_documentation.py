"""The page on Gaussian processes runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_gp_run import claisen_layout

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gaussian_process.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claisen_layout(tmp_path / "data.npz", 12)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert (tmp_path / "model" / "model.json").exists()
    assert names["result"].forces_std.shape == (20, 3)  # type: ignore[attr-defined]
