"""The command line on real files: what it prints, writes and refuses, with which exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import pymlp
from pymlp import units
from pymlp.cli import app
from tests.toy_data import NUMBERS, morse, positions, small_run, write_extxyz, write_npz

RUNNER = CliRunner()


def _run(*arguments: object, code: int = 0) -> Result:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def _refused(*arguments: object) -> str:
    """Run a command that must fail with exit code 2 and one message; return the message."""
    result = _run(*arguments, code=2)
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    return re.sub(r"\s+", " ", result.stderr.removeprefix("error: ")).strip()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, by the command line itself."""
    folder = tmp_path_factory.mktemp("model")
    config = small_run(folder, {r"committee: \d+": "committee: 2"})
    result = _run("train", config, "-o", folder / "run")
    assert "energy - energy_sqm" in result.output, "the Δ-target is reported"
    assert "kcal/mol/Å" in result.output
    for name in ("model.json", "loss.png", "parity.png", "metrics.json", "run.yaml"):
        assert (folder / "run" / name).exists()
    return folder / "run"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "data.npz", 20)


# -- init and train -------------------------------------------------------------------------


def test_init_then_train_in_a_real_process(tmp_path: Path) -> None:
    """Two commands, as a user gives them: paths relative to where they are given."""
    write_npz(tmp_path / "claisen.npz")

    def pymlp_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pymlp.cli", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "100"},
        )

    done = pymlp_command(
        *("init", "ani-fnn", "--train", "claisen.npz@16:", "--validation", "claisen.npz@:16"),
        *("-o", "sub/run.yaml"),
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "sub" / "run.yaml").read_text(encoding="utf-8")
    assert '"../claisen.npz@16:"' in text
    text = re.sub(r"epochs: \d+ ", "epochs: 2 ", text)
    (tmp_path / "sub" / "run.yaml").write_text(text, encoding="utf-8")
    done = pymlp_command("train", "sub/run.yaml")
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stderr, "progress where no terminal is"
    assert (tmp_path / "runs" / "run" / "model.json").exists()


def test_init_refuses(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "run.yaml"
    options = ("--validation", f"{data}@:5", "-o", out)
    assert "did you mean `bp-fnn`" in _refused("init", "bp-fn", "--train", data, *options)
    assert "no such file" in _refused("init", "bp-fnn", "--train", tmp_path / "x.npz", *options)
    xyz = write_extxyz(tmp_path / "a.extxyz", 4)
    message = _refused("init", "bp-fnn", "--train", xyz, "--validation", xyz, "-o", out)
    assert "--energy-unit eV --force-unit eV/Å" in message
    assert not out.exists()
    out.write_text("mine")
    assert "exists" in _refused("init", "bp-fnn", "--train", data, *options)
    assert out.read_text() == "mine"
    (tmp_path / "broken.npz").write_bytes(data.read_bytes()[:500])
    message = _refused("init", "bp-fnn", "--train", tmp_path / "broken.npz", *options[:2])
    assert "truncated, damaged or no npz file" in message


def test_init_with_a_target(tmp_path: Path, data: Path) -> None:
    parts = ("--train", f"{data}@5:", "--validation", f"{data}@:5", "-o", tmp_path / "run.yaml")
    _run("init", "bp-fnn", *parts, "--target", "total")
    assert re.search("target: total", (tmp_path / "run.yaml").read_text(encoding="utf-8"))
    message = _refused("init", "bp-fnn", *parts, "--overwrite", "--target", "difference")
    assert "--target must be total or delta, got 'difference'" in message


def test_train_refuses_a_wrong_configuration_with_its_line(tmp_path: Path) -> None:
    config = small_run(tmp_path)
    _run("train", config, "-o", tmp_path / "run")
    assert "already holds a run; continue it with --resume" in _refused(
        "train", config, "-o", tmp_path / "run"
    )
    text = config.read_text(encoding="utf-8").replace("batch_size", "batchsize")
    config.write_text(text, encoding="utf-8")
    line = 1 + text[: text.index("batchsize")].count("\n")
    message = _refused("train", config)
    assert f"run.yaml, line {line}: training.batchsize: unknown key; did you mean `b" in message
    assert "no such file; `pymlp init` writes" in _refused("train", tmp_path / "none.yaml")


def test_interrupted_training_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymlp.training.module import ForceMatching

    config = small_run(tmp_path)
    original = ForceMatching.training_step

    def step(module: ForceMatching, batch: object, index: int) -> object:
        if module.global_step == 10:
            raise KeyboardInterrupt
        return original(module, batch, index)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ForceMatching, "training_step", step)
        result = _run("train", config, "-o", tmp_path / "run", code=130)
    assert f"pymlp train {config} -o {tmp_path / 'run'} --resume" in result.stderr
    assert not (tmp_path / "run" / "model.json").exists()
    _run("train", config, "-o", tmp_path / "run", "--resume")
    assert (tmp_path / "run" / "model.json").exists()


# -- evaluate, predict, info ----------------------------------------------------------------


def _expected_errors(model: Path, n: int, factor: float) -> dict[str, float]:
    r = positions(n)
    energies, forces = morse(r, factor)
    out = pymlp.load(model).compute(pymlp.Batch.from_arrays(NUMBERS, r))
    assert out.forces is not None
    de = out.energy.numpy() - energies
    df = out.forces.numpy().reshape(n, 3, 3) - forces
    return {
        "energy_rmse_eV": float(np.sqrt((de**2).mean())),
        "energy_mae_eV": float(np.abs(de).mean()),
        "force_rmse_eV_A": float(np.sqrt((df**2).mean())),
        "force_mae_eV_A": float(np.abs(df).mean()),
    }


def test_evaluate_json(model: Path, data: Path) -> None:
    report = json.loads(_run("evaluate", model, data, "--json").stdout)
    assert report["n_structures"] == 20
    assert report["target"] == "delta"
    for name, value in _expected_errors(model, 20, 0.3).items():
        assert report[name] == pytest.approx(value, rel=1e-6)
        in_kcal = name.replace("eV", "kcal_mol")
        assert report[in_kcal] == pytest.approx(value / units.KCAL_MOL, rel=1e-6)
    assert {
        "energy_rmse_kcal_mol",
        "energy_mae_kcal_mol",
        "force_rmse_kcal_mol_A",
        "force_mae_kcal_mol_A",
    } <= report.keys()


def test_evaluate_table_parity_and_part_of_a_file(model: Path, data: Path, tmp_path: Path) -> None:
    figure = tmp_path / "p.png"
    result = _run("evaluate", model, f"{data}@5:15", "--parity", figure, "--batch-size", 3)
    assert "10 structures" in result.output
    assert "Hartree -> eV" in result.output
    assert figure.exists()


def test_evaluate_extxyz_with_keys_and_units(tmp_path: Path) -> None:
    """A model of total energies, trained on npz, evaluated on extxyz in eV."""
    config = small_run(tmp_path)
    text = config.read_text(encoding="utf-8").replace("target: delta", "target: total")
    config.write_text(text, encoding="utf-8")
    _run("train", config, "-o", tmp_path / "total")
    xyz = write_extxyz(tmp_path / "a.extxyz", 10)
    keys = ("--energy-key", "ref_energy", "--forces-key", "ref_forces")
    report = json.loads(
        _run(
            *("evaluate", tmp_path / "total", xyz, "--json", *keys),
            *("--energy-unit", "eV", "--force-unit", "eV/Å"),
        ).stdout
    )
    for name, value in _expected_errors(tmp_path / "total", 10, 1.0).items():
        assert report[name] == pytest.approx(value, rel=1e-5)
    assert "no label 'energy'" in _refused("evaluate", tmp_path / "total", xyz)


def test_evaluate_refuses(model: Path, data: Path, tmp_path: Path) -> None:
    assert "no such folder" in _refused("evaluate", tmp_path / "nothing", data)
    assert "no such file" in _refused("evaluate", model, tmp_path / "nothing.npz")
    total = write_npz(tmp_path / "total.npz", 5, baseline=False)
    assert "baseline" in _refused("evaluate", model, total), "the model's target is a difference"
    bad = write_npz(tmp_path / "nan.npz", 5, energy=np.full(5, np.nan))
    assert "finite" in _refused("evaluate", model, bad)
    other = write_npz(tmp_path / "c.npz", 5, numbers=np.array([6, 1, 1]))
    assert "unknown element C" in _refused("evaluate", model, other)
    message = _refused("evaluate", tmp_path / "no model", data, "--parity", tmp_path / "figure")
    assert "must end in .png, .pdf or .svg" in message, "said before anything is read"
    (model / "copy").mkdir()
    weights = next(model.glob("weights-*"))
    for name in ("model.json", weights.name):
        (model / "copy" / name).write_bytes((model / name).read_bytes())
    (model / "copy" / weights.name).write_bytes(weights.read_bytes()[:-100])
    assert "truncated or damaged" in _refused("evaluate", model / "copy", data)


@pytest.mark.parametrize("suffix", ["npz", "extxyz"])
def test_predict(model: Path, data: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    result = _run("predict", model, f"{data}@2:9", out)
    assert "7 structures" in result.output
    assert "Δ" in result.output
    named = {} if suffix == "npz" else {
        "energy": "energy", "forces": "forces", "energy_unit": "eV", "force_unit": "eV/Å"
    }  # fmt: skip
    batch = pymlp.read(out, **named)
    expected = pymlp.load(model).compute(batch)
    torch.testing.assert_close(batch.energies, expected.energy)
    torch.testing.assert_close(batch.forces, expected.forces)


def test_predict_keeps_what_is_there(model: Path, data: Path) -> None:
    """Least of all are reference labels replaced by predictions."""
    before = data.read_bytes()
    assert "exists; choose another name" in _refused("predict", model, data, data)
    assert data.read_bytes() == before
    _run("predict", model, data, data, "--overwrite")
    assert data.read_bytes() != before


def test_predict_refuses_another_format_before_computing(model: Path, tmp_path: Path) -> None:
    assert "must end in .extxyz" in _refused("predict", model, "no.npz", tmp_path / "out.txt")


def test_info(model: Path) -> None:
    text = _run("info", model).output
    for part in ("H O", "difference of two levels", "2 x", "validation RMSE", "Hartree"):
        assert part in text
    assert json.loads(_run("info", model, "--json").stdout)["elements"] == ["H", "O"]
    assert "is no model" in _refused("info", model.parent)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("total", "total energy"),
        ("delta", "difference of two levels"),
        ({"kind": "delta"}, "difference of two levels"),
        (None, "not recorded"),
        (["total"], "not recorded"),
    ],
)
def test_models_whose_target_a_user_described(
    model: Path, data: Path, tmp_path: Path, target: object, kind: str
) -> None:
    potential = pymlp.load(model)
    potential.metadata["target"] = target
    potential.save(tmp_path / "own")
    assert kind in _run("info", tmp_path / "own").output
    result = _run("predict", tmp_path / "own", data, tmp_path / "out.npz")
    assert ("Δ" in result.output) == (potential.target_kind == "delta")
    found = json.loads(_run("evaluate", tmp_path / "own", data, "--json").stdout)
    assert found["target"] == (potential.target_kind or "total")


# -- featurize ------------------------------------------------------------------------------


@pytest.mark.parametrize("from_model", [True, False])
def test_featurize(model: Path, data: Path, tmp_path: Path, from_model: bool) -> None:
    source = model if from_model else model / "run.yaml"
    out = tmp_path / "f.npz"
    _run("featurize", source, f"{data}@-8:", out, "--jacobian", "--batch-size", 3)
    with np.load(out) as file:
        batch = pymlp.read(data, labels=False, start=12)
        expected = pymlp.load(model).descriptor(batch).numpy()
        np.testing.assert_array_equal(file["features"], expected)
        assert file["jacobian"].shape == (8 * 9, expected.shape[1], 3)
    assert "exists" in _refused("featurize", source, data, out)
    _run("featurize", source, data, out, "--overwrite", "--precision", "float32")
    assert "precision must be" in _refused(
        "featurize", source, data, tmp_path / "g.npz", "--precision", "half"
    )


def test_features_of_untrained_weights_are_said_to_be_such(data: Path, tmp_path: Path) -> None:
    config = small_run(tmp_path, {r"epochs: \d+": "epochs: 1"}, kind="deeppot-fnn")
    result = _run("featurize", config, f"{data}@:2", tmp_path / "random.npz")
    assert "before training: these features are those of random weights" in result.stderr
    _run("train", config, "-o", tmp_path / "deep")
    result = _run("featurize", tmp_path / "deep", f"{data}@:2", tmp_path / "trained.npz")
    assert "random" not in result.stderr
    text = _run("info", tmp_path / "deep").output
    assert "ParameterList" not in text, "one line for the descriptor"


# -- data check -----------------------------------------------------------------------------


def test_data_check_of_good_data(data: Path, tmp_path: Path) -> None:
    assert "20 frames, nothing found" in _run("data", "check", data).output
    xyz = write_extxyz(tmp_path / "a.extxyz", 5)
    assert "5 frames, nothing found" in _run("data", "check", xyz).output


def test_data_check_names_the_frames(tmp_path: Path) -> None:
    r = positions(8)
    r[1, 0, 0] = np.nan
    r[2, 2] = r[2, 1] + 0.01
    r[6] = r[3]
    energy = np.zeros(8)
    energy[4] = np.inf
    path = write_npz(tmp_path / "bad.npz", 8, coordinates=r, energy=energy)
    result = _run("data", "check", path, "--json", code=1)
    kinds = [(p["kind"], p["frames"]) for p in json.loads(result.stdout)["problems"]]
    assert ("nan", [1]) in kinds
    assert ("nan", [4]) in kinds
    assert ("overlap", [2]) in kinds
    assert ("duplicate", [6]) in kinds
    assert len(kinds) == 4
    text = _run("data", "check", path, code=1).output
    assert "frame 2" in text
    assert "(6 = 3)" in text


def test_data_check_of_missing_labels_and_files(tmp_path: Path) -> None:
    xyz = tmp_path / "a.extxyz"
    lines = write_extxyz(xyz, 3).read_text().replace("ref_energy=", "other=", 1)
    xyz.write_text(lines)
    result = _run("data", "check", xyz, code=1)
    assert "no ref_energy: frame 0" in result.output
    assert (
        "no stress: frames 0, 1, 2"
        in _run("data", "check", xyz, "--require", "stress", code=1).output
    )
    assert "no such file" in _refused("data", "check", tmp_path / "none.npz").lower()
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 nothing")
    assert "not a readable npz" in _refused("data", "check", tmp_path / "x.npz")
    (tmp_path / "x.xyz").write_text("not an xyz file")
    assert "cannot read it" in _refused("data", "check", tmp_path / "x.xyz")


# -- demo and benchmark ---------------------------------------------------------------------


def test_demo_trains_evaluates_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    text = _run("demo", "-o", out, "--epochs", 1).output
    assert "test (never used before): 200 structures" in text
    for name in ("run.yaml", "model/model.json", "model/loss.png", "model/parity.png",
                 "parity_test.png", "profile.png"):  # fmt: skip
        assert (out / name).is_file()
        assert str(out / name) in re.sub(r"\s*\n\s*", "", text) or name == "model/model.json"
    log = (out / "model" / "log.csv").read_text()
    _run("demo", "-o", out, "--epochs", 1)
    assert (out / "model" / "log.csv").read_text() == log, "a finished demo is not trained again"
    assert "--overwrite" in _refused("demo", "-o", out, "--epochs", 2)


def test_benchmark_passes_its_arguments_on() -> None:
    done = RUNNER.invoke(app, ["benchmark", "--help"])
    assert done.exit_code == 0
    assert "--structures" in done.output


# -- doctor and the frame -------------------------------------------------------------------


def test_doctor() -> None:
    report = json.loads(_run("doctor", "--json").stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert report["ok"]
    assert found["self-test"]["state"] == "ok"
    assert found["build: simd_level"]["value"] in ("baseline", "avx2", "avx512")
    assert "everything works" in _run("doctor").output


def test_doctor_names_the_fix_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    original = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("pydantic", "h5py"):
            raise importlib.metadata.PackageNotFoundError(name)
        return original(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    report = json.loads(_run("doctor", "--json", code=1).stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["pydantic"]["state"] == "error"
    assert found["pydantic"]["fix"] == "pip install pydantic"
    assert found["h5py"]["state"] == "note"


def test_doctor_finds_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymlp.descriptors import BehlerParrinello

    original = BehlerParrinello.forward
    monkeypatch.setattr(
        BehlerParrinello, "forward", lambda self, batch: original(self, batch) * 1.001
    )
    result = _run("doctor", code=1)
    assert "are wrong by" in re.sub(r"\s+", " ", result.output)


def test_help_of_every_command() -> None:
    text = _run("--help").output
    commands = ("init", "train", "evaluate", "featurize", "predict", "info", "doctor",
                "benchmark", "demo", "data")  # fmt: skip
    for command in commands:
        assert command in text
        if command != "benchmark":
            assert "Usage" in _run(command, "--help").output
    for command in ("check", "label"):
        assert "Usage" in _run("data", command, "--help").output
    assert pymlp.__version__ in _run("--version").output


def test_unexpected_errors_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    from pymlp import data_checks

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(data_checks, "check_file", broken)
    result = RUNNER.invoke(app, ["data", "check", str(data)])
    assert isinstance(result.exception, RuntimeError)

    def foreign(*_: object, **__: object) -> None:
        int("no number")  # a ValueError that nothing in pymlp raised on purpose

    monkeypatch.setattr(data_checks, "check_file", foreign)
    assert isinstance(RUNNER.invoke(app, ["data", "check", str(data)]).exception, ValueError)


def test_commands_that_only_read_import_no_lightning() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from pymlp.cli import app; "
        "CliRunner().invoke(app, ['--help']); "
        "assert not {'lightning', 'matplotlib', 'h5py'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
