"""Training runs: what they leave, exact resumption, committees, and what is refused."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pymlp
from pymlp import units
from pymlp.config import NetworkRun, load_config
from pymlp.evaluation import evaluate
from pymlp.model_files import read_model
from pymlp.structures import Batch
from pymlp.training import read_log, train
from tests.toy_data import morse, morse_batch, positions, small_run, write_npz


def _train(path: Path, folder: str = "run", **arguments: bool) -> Path:
    config = load_config(path)
    assert isinstance(config, NetworkRun)
    out = path.parent / folder
    train(config, out, base=path.parent, **arguments)
    return out


@pytest.fixture(autouse=True)
def _figures_only_where_looked_at(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing takes longer than these trainings; test_plotting.py draws.
    if "leaves_everything" not in request.node.name:
        from pymlp import plotting

        monkeypatch.setattr(plotting, "loss_curve", lambda rows, path: path)
        monkeypatch.setattr(plotting, "parity", lambda *values, **more: values[2])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_model(folder)[1]


def _assert_same_model(one: Path, other: Path) -> None:
    a, b = _weights(one), _weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def _log_without_times(folder: Path) -> list[dict[str, str]]:
    return [
        {k: v for k, v in row.items() if k != "seconds"} for row in read_log(folder / "log.csv")
    ]


# -- whole runs -----------------------------------------------------------------------------


def test_a_run_learns_and_leaves_everything(tmp_path: Path) -> None:
    path = small_run(tmp_path, {r"epochs: \d+ ": "epochs: 30 "})
    out = _train(path)
    rows = read_log(out / "log.csv")
    assert [int(row["epoch"]) for row in rows] == list(range(1, 31))
    first, last = (float(rows[k]["validation_force_rmse_kcal_mol_A"]) for k in (0, -1))
    assert last < 0.7 * first
    names = {p.name for p in out.iterdir()}
    assert {"model.json", "run.yaml", "metrics.json", "loss.png", "parity.png"} <= names
    assert not [name for name in names if name.startswith(".")]
    potential = pymlp.load(out)
    meta = potential.metadata
    assert meta["target"]["kind"] == "delta"
    assert meta["data"]["n_training"] == 32
    # What was trained is the difference: 0.3 of the potential (its files hold Hartree).
    r = positions(48)[:16]
    energies, forces = morse(r, 0.3)
    batch = Batch.from_arrays([8, 1, 1], r, energies=energies, forces=forces)
    summary = evaluate(potential, batch).summary()
    assert summary["force_rmse_kcal_mol_A"] == pytest.approx(
        meta["validation"]["force_rmse_kcal_mol_A"], rel=1e-6
    )
    assert summary["energy_rmse_eV"] * units.EV_TO_KCAL_MOL == pytest.approx(
        summary["energy_rmse_kcal_mol"]
    )
    drawn = evaluate(potential, batch).draw(tmp_path / "drawn.svg", "a title")
    assert f"RMSE {summary['energy_rmse_kcal_mol']:.3g} kcal/mol" in drawn.read_text()
    best = min(float(row["validation_loss"]) for row in rows)
    at_best = next(row for row in rows if float(row["validation_loss"]) == best)
    assert summary["force_rmse_kcal_mol_A"] == pytest.approx(
        float(at_best["validation_force_rmse_kcal_mol_A"]), rel=1e-3
    )
    # Ranges seen in training are kept.
    assert bool((potential.feature_minimum <= potential.feature_maximum).all())


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    one, same = _train(path, "one"), _train(path, "same")
    _assert_same_model(one, same)
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    other = _train(path, "other")
    name = "networks.0.weights.0"
    assert not torch.equal(_weights(one)[name], _weights(other)[name])


class _StopAt:
    """Raise in the middle of an epoch, as a crash would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        from pymlp.training.module import ForceMatching

        original = ForceMatching.training_step

        def step_or_crash(module: ForceMatching, batch: object, index: int) -> object:
            if module.global_step == step:
                raise MemoryError("crash")
            return original(module, batch, index)  # type: ignore[arg-type]

        monkeypatch.setattr(ForceMatching, "training_step", step_or_crash)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {r"kind: cosine": "kind: plateau", r"plateau_patience: \d+": "plateau_patience: 1"},
        {r"kind: cosine": "kind: exponential", r"decay_every: \d+": "decay_every: 2",
         r"gradient_clip: [\d.]+": "gradient_clip: 0.5"},
        {r" ema: [\d.]+": " ema: 0.0", r"weight_decay: [\d.]+": "weight_decay: 0.01"},
        {r"validate_every: \d+": "validate_every: 2", r"early_stopping: \d+": "early_stopping: 2",
         r"learning_rate: [\d.]+": "learning_rate: 0.5"},
    ],
    ids=["cosine", "plateau", "exponential-clip", "no-ema-adamw", "early-stopping"],
)  # fmt: skip
def test_an_interrupted_run_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    path = small_run(tmp_path, changes)
    whole = _train(path, "whole")
    for step in (14, 21):  # 4 steps per epoch: in epochs 4 and 6, checkpoints after 2 and 4
        with monkeypatch.context() as patch:
            _StopAt(patch, step)
            try:
                _train(path, "cut", resume=step > 14)
            except MemoryError:
                assert not (tmp_path / "cut" / "model.json").exists()
        # Whatever ran between must not matter.
        torch.manual_seed(step)
    resumed = _train(path, "cut", resume=True)
    _assert_same_model(whole, resumed)
    assert _log_without_times(whole) == _log_without_times(resumed)


def test_a_killed_process_resumes_to_the_same_bits(tmp_path: Path) -> None:
    path = small_run(tmp_path, {r"epochs: \d+ ": "epochs: 40 "})
    whole = _train(path, "whole")
    command = [sys.executable, "-m", "pymlp.cli", "train", str(path), "-o", str(tmp_path / "cut")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    log, checkpoint = tmp_path / "cut" / "log.csv", tmp_path / "cut" / "checkpoint.ckpt"
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if checkpoint.exists() and len(read_log(log)) >= 5:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (tmp_path / "cut" / "model.json").exists()
    resumed = _train(path, "cut", resume=True)
    _assert_same_model(whole, resumed)
    assert _log_without_times(whole) == _log_without_times(resumed)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    out = _train(path)
    before = (_weights(out), (out / "log.csv").read_text())
    _train(path, resume=True)
    assert before[0].keys() == _weights(out).keys()
    assert all(torch.equal(value, before[0][name]) for name, value in _weights(out).items())
    assert (out / "log.csv").read_text() == before[1]


def test_a_committee_is_trained_resumed_and_gives_a_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_run(tmp_path, {r"committee: \d+": "committee: 2"})
    whole = _train(path, "whole")
    with monkeypatch.context() as patch:
        from pymlp.training import run

        original = run._train_member

        def second_fails(config: object, member: int, *rest: object) -> object:
            if member == 1:
                raise MemoryError("crash")
            return original(config, member, *rest)  # type: ignore[arg-type]

        patch.setattr(run, "_train_member", second_fails)
        with pytest.raises(MemoryError):
            _train(path, "cut")
    _assert_same_model(whole, _train(path, "cut", resume=True))
    potential = pymlp.load(whole)
    result = potential.compute(morse_batch(4))
    assert result.energy_std is not None
    assert bool((result.energy_std > 0).all())
    # Member 1 is the single network of seed 1.
    single = small_run(tmp_path, {r"seed: \d+": "seed: 1"})
    alone = _weights(_train(single, "single"))
    both = _weights(whole)
    assert torch.equal(alone["networks.0.weights.0"], both["networks.1.weights.0"])


def test_early_stopping_stops_and_keeps_the_best(tmp_path: Path) -> None:
    path = small_run(
        tmp_path,
        {
            r"epochs: \d+ ": "epochs: 50 ",
            r"early_stopping: \d+": "early_stopping: 3",
            r"learning_rate: [\d.]+": "learning_rate: 0.5",
            r"kind: cosine": "kind: constant",
            r" ema: [\d.]+": " ema: 0.0",
        },
    )
    out = _train(path)
    rows = read_log(out / "log.csv")
    losses = [float(row["validation_loss"]) for row in rows]
    assert len(rows) < 50
    assert losses.index(min(losses)) == len(rows) - 4
    metrics = pymlp.load(out).metadata["validation"]
    best = rows[losses.index(min(losses))]
    assert metrics["force_rmse_kcal_mol_A"] == pytest.approx(
        float(best["validation_force_rmse_kcal_mol_A"]), rel=1e-3
    )


def test_energies_alone_with_relu(tmp_path: Path) -> None:
    path = small_run(
        tmp_path,
        {
            r"force_start: [\d.]+": "force_start: 0.0",
            r"force_end: [\d.]+": "force_end: 0.0",
            r"activation: \w+ ": "activation: relu ",
        },
    )
    out = _train(path)
    row = read_log(out / "log.csv")[-1]
    assert math.isnan(float(row["train_force_rmse_kcal_mol_A"]))
    assert float(row["train_energy_rmse_kcal_mol"]) > 0


def test_float64_training_and_features_anew_for_each_batch(tmp_path: Path) -> None:
    cached = _train(small_run(tmp_path, {r"precision: \w+": "precision: float64"}), "cached")
    anew = _train(
        small_run(
            tmp_path,
            {r"precision: \w+": "precision: float64", r"limit_gb: [\d.]+": "limit_gb: 0.0"},
        ),
        "anew",
    )
    a, b = _weights(cached), _weights(anew)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-7, atol=1e-9)


# -- what is refused ------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    out = _train(path)
    before = _weights(out)
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        _train(path)
    assert all(torch.equal(value, before[name]) for name, value in _weights(out).items())


def test_resuming_with_other_settings_or_data_names_them(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    _train(path)
    text = path.read_text()
    path.write_text(text.replace("learning_rate: 0", "learning_rate: 1"))
    with pytest.raises(ValueError, match=r"changed: training\.learning_rate"):
        _train(path, resume=True)
    path.write_text(text)
    write_npz(tmp_path / "data.npz", 47)
    with pytest.raises(ValueError, match="changed: training data"):
        _train(path, resume=True)
    with pytest.raises(ValueError, match="holds no run to resume"):
        _train(path, "nothing", resume=True)


def test_data_that_do_not_fit(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    text = path.read_text()

    def refused(old: str, new: str, message: str) -> None:
        changed, count = re.subn(old, new, text, count=1)
        assert count == 1
        path.write_text(changed)
        with pytest.raises(ValueError, match=message):
            _train(path, "bad")
        assert not (tmp_path / "bad").exists()

    refused(r"elements: .*\]", "elements: [H, C]", r"holds O, which elements: \['H', 'C'\]")
    refused(r"n_train: null", "n_train: 100", "asks for 100 training structures, .* holds 32")
    refused(r"data.npz@:16", "data.npz@16:", "32 of 32 structures of data.validation")
    refused(r"data.npz@:16", "data.npz@7", r"expected file@start:stop, got '7'")
    refused(r"gradient: gradient", "gradient: slope", "'slope'")
    if not torch.cuda.is_available():
        refused(r"device: auto", "device: cuda", "torch sees no CUDA device; use cpu")


def test_divergence_is_named(tmp_path: Path) -> None:
    path = small_run(
        tmp_path,
        {
            r"learning_rate: [\d.]+": "learning_rate: 1.0e+30",
            r"activation: \w+ ": "activation: silu ",
        },
    )
    with pytest.raises(FloatingPointError, match="lower training.learning_rate"):
        _train(path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = small_run(tmp_path)
    checkpoint = _train(path) / "checkpoint.ckpt"
    data = checkpoint.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"nothing like it"):
        checkpoint.write_bytes(broken)
        with pytest.raises(ValueError, match=r"checkpoint.ckpt is truncated or damaged"):
            _train(path, resume=True)


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from pymlp.training import callbacks

    path = small_run(tmp_path)
    whole = _train(path, "whole")
    calls = []
    original = callbacks.atomic_writer

    def full_at_second(target: Path, mode: str = "w") -> object:
        if Path(target).name == "checkpoint.ckpt":
            calls.append(target)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, f"disk full while writing {target}")
        return original(target, mode)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "atomic_writer", full_at_second)
        with pytest.raises(OSError, match="disk full"):
            _train(path, "cut")
    assert (tmp_path / "cut" / "checkpoint.ckpt").exists()
    _assert_same_model(whole, _train(path, "cut", resume=True))
