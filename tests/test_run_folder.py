"""The folder of a run: its copy of the configuration works from there; other runs are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pymlp.config import load_config
from pymlp.run_folder import claim, with_absolute_paths
from tests.toy_data import small_run


def test_the_copied_configuration_finds_the_data(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace(f"{tmp_path}/", ""), encoding="utf-8")
    config = with_absolute_paths(load_config(path), tmp_path)
    claim(tmp_path / "run", config, {"config": {}}, resume=False)
    copy = load_config(tmp_path / "run" / "run.yaml")
    assert copy.data.train == f"{tmp_path}/data.npz@16:"
    assert copy.data.validation == f"{tmp_path}/data.npz@:16"


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    config = load_config(small_run(tmp_path))
    folder, identity = tmp_path / "run", {"config": {"training": {"seed": 0}}, "training_data": "a"}
    with pytest.raises(ValueError, match="holds no run to resume"):
        claim(folder, config, identity, resume=True)
    claim(folder, config, identity, resume=False)
    claim(folder, config, identity, resume=True)
    with pytest.raises(ValueError, match="already holds a run"):
        claim(folder, config, identity, resume=False)
    other = {"config": {"training": {"seed": 1}}, "training_data": "a"}
    with pytest.raises(ValueError, match=r"changed: training\.seed\. Give the original"):
        claim(folder, config, other, resume=True)
    with pytest.raises(ValueError, match="changed: training data"):
        claim(folder, config, identity | {"training_data": "b"}, resume=True)
