"""The command line of a Gaussian process: init, train, evaluate, info, resume, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pymlp
from pymlp import units
from pymlp.cli.application import app
from pymlp.config import load_config, parse_config
from pymlp.gaussian_process import GaussianProcess
from pymlp.gpr_potential import GaussianProcessPotential
from pymlp.gpr_training import train
from tests.gp_oracle import molecules
from tests.test_gp_permutations import symmetric_energy


def claisen_layout(path: Path, n: int) -> None:
    """A file in the layout of SPEC section 5: Hartree, Hartree/Bohr, gradients, and a baseline."""
    data = molecules(n, spread=0.08)
    hartree, per_bohr = units.factor("Hartree", "energy"), units.factor("Hartree/Bohr", "force")
    # Alike under exchange of the two hydrogen atoms, and a little noise, as real labels have.
    energies, forces = symmetric_energy(data.positions.view(n, 4, 3))
    forces += 0.02 * torch.randn(
        (n, 4, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    energy, gradient = energies.numpy() / hartree, -forces.numpy() / per_bohr
    np.savez(
        path,
        numbers=np.array([6, 8, 1, 1]),
        coordinates=data.positions.view(n, 4, 3).numpy(),
        energy=energy - 100.0,
        gradient=1.5 * gradient,
        energy_sqm=np.full(n, -100.0),
        gradient_sqm=0.5 * gradient,
    )


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("features", ["whole", "atomic"])
def test_init_train_evaluate_info(features: str, tmp_path: Path) -> None:
    claisen_layout(tmp_path / "data.npz", 40)
    data, config = str(tmp_path / "data.npz"), tmp_path / "run.yaml"
    run("init", "gpr", "--train", f"{data}@10:", "--validation", f"{data}@:10", "-o", str(config))
    text = config.read_text()
    assert "target: delta" in text
    text = text.replace("features: whole", f"features: {features}")
    text = text.replace("likelihood_structures: 40", "likelihood_structures: 8")
    config.write_text(text)
    assert load_config(config).gaussian_process.features == features
    model = tmp_path / "model"
    output = run("train", str(config), "-o", str(model))
    assert "hyperparameters" in output
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["fit"]["method"] == "cholesky"
    assert metrics["fit"]["observations"] == 30 * 7
    assert metrics["force_rmse_eV_A"] < 0.5
    again = json.loads(run("evaluate", str(model), f"{data}@:10", "--json"))
    assert again["energy_rmse_eV"] == pytest.approx(metrics["energy_rmse_eV"], rel=1e-6)
    info = run("info", str(model))
    assert "Gaussian process" in info
    assert "210 observations by cholesky" in " ".join(info.split())
    potential = pymlp.load(model)
    assert isinstance(potential, GaussianProcessPotential)
    assert potential.compute(molecules(2)).energy_std is not None
    with pytest.raises(ValueError, match="already holds a run"):
        train(load_config(config), model, base=tmp_path)


def test_an_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claisen_layout(tmp_path / "data.npz", 40)
    data, config = str(tmp_path / "data.npz"), tmp_path / "run.yaml"
    run("init", "gpr", "--train", f"{data}@10:", "--validation", f"{data}@:10", "-o", str(config))
    text = config.read_text().replace("method: auto", "method: cg")
    text = text.replace("likelihood_structures: 40", "likelihood_structures: 8")
    text = text.replace("components: 4", "components: 1").replace(
        "checkpoint_every: 10", "checkpoint_every: 1"
    )
    checked = parse_config(text)
    from pymlp.gaussian_process import checkpoints, solvers

    calls = 0
    original = checkpoints.save_state

    def interrupted(*arguments: object) -> None:
        nonlocal calls
        original(*arguments)  # type: ignore[arg-type]
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(solvers, "save_state", interrupted)
    model = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        train(checked, model, base=tmp_path)
    assert (model / "checkpoint.safetensors").exists()
    monkeypatch.setattr(solvers, "save_state", original)
    other = checked.model_copy(deep=True)
    other.gaussian_process.tolerance = 1e-2
    with pytest.raises(ValueError, match="cannot be resumed"):
        train(other, model, resume=True, base=tmp_path)
    elsewhere = checked.model_copy(deep=True)  # what it is computed on is no other run
    elsewhere.gaussian_process.threads = torch.get_num_threads()
    resumed = train(elsewhere, model, resume=True, base=tmp_path)
    fresh = train(checked, tmp_path / "fresh", base=tmp_path)
    assert not (model / "checkpoint.safetensors").exists()
    assert resumed.metrics["force_rmse_eV_A"] == pytest.approx(fresh.metrics["force_rmse_eV_A"])
    steps = [
        json.loads((folder / "metrics.json").read_text())["fit"]["iterations"]
        for folder in (model, tmp_path / "fresh")
    ]
    assert steps[0] == steps[1] - 3
    new = molecules(3, seed=5)
    torch.testing.assert_close(
        pymlp.load(model).compute(new).energy, pymlp.load(tmp_path / "fresh").compute(new).energy
    )


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claisen_layout(tmp_path / "data.npz", 20)
    data, config = str(tmp_path / "data.npz"), tmp_path / "run.yaml"
    run("init", "gpr", "--train", f"{data}@8:", "--validation", f"{data}@:8", "-o", str(config))
    text = config.read_text().replace("likelihood_structures: 40", "likelihood_structures: 8")
    checked, model = parse_config(text), tmp_path / "model"

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GaussianProcessPotential, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(checked, model, base=tmp_path)
    assert not (model / "model.json").exists(), "figures and errors alone finish no run"
    first = train(checked, model, resume=True, base=tmp_path)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    monkeypatch.setattr(GaussianProcess, "fit", stop)
    again = train(checked, model, resume=True, base=tmp_path)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert (again.metrics, again.figures) == (first.metrics, first.figures)
    assert again.notes == [*first.notes, "the run was finished before: nothing was fitted"]


def test_the_configuration_refuses_what_cannot_be(tmp_path: Path) -> None:
    claisen_layout(tmp_path / "data.npz", 20)
    data, config = str(tmp_path / "data.npz"), tmp_path / "run.yaml"
    run("init", "gpr", "--train", f"{data}@10:", "--validation", f"{data}@:10", "-o", str(config))
    text = config.read_text().replace("method: auto", "method: sparse")
    with pytest.raises(ValueError, match="set gaussian_process.features to atomic"):
        parse_config(text)
    text = config.read_text().replace("covariance: null", "covariance: linear")
    with pytest.raises(ValueError, match="rbf"):
        parse_config(text)
    text = config.read_text().replace("device: cpu", "device: gpu")
    with pytest.raises(ValueError, match=r"gaussian_process.device: device must be auto, cpu"):
        parse_config(text)
    if not torch.cuda.is_available():
        checked = parse_config(config.read_text().replace("device: cpu", "device: cuda"))
        with pytest.raises(ValueError, match=r"gaussian_process.device is cuda, but torch sees no"):
            train(checked, tmp_path / "nothing", base=tmp_path)
        assert not (tmp_path / "nothing").exists()
    with pytest.raises(ValueError, match="holds no run to resume"):
        train(load_config(config), tmp_path / "nothing", resume=True, base=tmp_path)
