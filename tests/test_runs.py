"""Training from Python: one call for all kinds of potential."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pymlp
from pymlp.config import configure
from pymlp.gpr_potential import GaussianProcessPotential
from pymlp.run_folder import discard
from tests.test_gp_run import claisen_layout
from tests.toy_data import small_run


def test_a_run_yaml_and_its_configuration_train_the_same(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    first = pymlp.train(path, tmp_path / "a")
    config = pymlp.config.load_config(path)
    second = pymlp.train(config, tmp_path / "b", base=tmp_path)
    batch = pymlp.read(tmp_path / "data.npz")[:4]
    one, other = (pymlp.load(run.directory).compute(batch) for run in (first, second))
    assert torch.equal(one.energy, other.energy)
    again = pymlp.train(path, tmp_path / "a", resume=True)
    assert again.metrics["energy_rmse_eV"] == first.metrics["energy_rmse_eV"]
    with pytest.raises(ValueError, match="already holds a run"):
        pymlp.train(path, tmp_path / "a")
    (tmp_path / "a" / "leftover").touch()
    pymlp.train(path, tmp_path / "a", overwrite=True)
    assert not (tmp_path / "a" / "leftover").exists()
    with pytest.raises(ValueError, match="exclude each other"):
        pymlp.train(path, tmp_path / "a", overwrite=True, resume=True)


def test_overwriting_deletes_runs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    discard(tmp_path)
    discard(tmp_path / "none")
    assert (tmp_path / "state.json").exists()


def test_a_gaussian_process_is_trained_by_the_same_call(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    claisen_layout(data, 14)
    config = configure(
        "gpr", f"{data}@4:", f"{data}@:4", gaussian_process={"likelihood_structures": 4}
    )
    result = pymlp.train(config, tmp_path / "run")
    assert isinstance(pymlp.load(result.directory), GaussianProcessPotential)
    assert result.metrics["n_structures"] == 4
