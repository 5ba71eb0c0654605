"""Which device is computed on, and what is said where there is none of that name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import pymlp
from pymlp import _C
from pymlp.cli import app
from pymlp.descriptors import BehlerParrinello
from pymlp.devices import chosen_device
from tests.toy_data import write_npz


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A torch with two GPUs; what pymlp has kernels for, to be changed."""
    info = _C.build_info() | {"cuda_architectures": ["90"]}
    monkeypatch.setattr(_C, "build_info", lambda: info)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return info


def test_a_gpu_is_used_only_by_a_build_with_kernels(build: dict[str, list[str]]) -> None:
    """Else every op would fail; which device it is, is said aloud."""
    assert chosen_device("auto") == torch.device("cuda")
    assert chosen_device("cuda:1") == torch.device("cuda:1")
    build["cuda_architectures"] = []
    with pytest.warns(UserWarning, match="there is a GPU, but .* no CUDA kernels; rebuild with"):
        assert chosen_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"training\.device is cuda:1, but .* no CUDA kernels"):
        chosen_device("cuda:1", "training.device")
    assert chosen_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there(
    build: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"device is cuda:2, but torch sees 2 CUDA device"):
        chosen_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="device is cuda, but torch sees no CUDA device; use cpu"):
        chosen_device(torch.device("cuda"))


@pytest.mark.parametrize("name", ["nvidia", "mps", "cuda:x", "", "meta"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"device must be auto, cpu, cuda or cuda:n, got '{name}'"):
        chosen_device(name)


def test_models_and_calculators_name_the_device_they_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    descriptor = BehlerParrinello.paper(["H", "O"])
    network = pymlp.ElementNetworks(descriptor.n_features, ["H", "O"], (4,))
    model = pymlp.Potential(descriptor, network)
    model.save(tmp_path)
    for use in (pymlp.load, pymlp.Potential.load):
        with pytest.raises(ValueError, match="device is cuda, but torch sees no CUDA device"):
            use(tmp_path, "cuda")
    for potential in (model, tmp_path):
        with pytest.raises(ValueError, match="device is cuda:0, but torch sees no CUDA device"):
            pymlp.Calculator(potential, device="cuda:0")
    assert pymlp.Calculator(tmp_path, device="auto").device == torch.device("cpu")


@pytest.mark.parametrize("command", ["evaluate", "predict", "featurize"])
def test_commands_compute_on_the_device_that_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    descriptor = BehlerParrinello.paper(["H", "O"])
    network = pymlp.ElementNetworks(descriptor.n_features, ["H", "O"], (4,))
    pymlp.Potential(descriptor, network, {"target": {"kind": "total"}}).save(tmp_path / "model")
    data = write_npz(tmp_path / "data.npz", 5)
    output = [] if command == "evaluate" else [str(tmp_path / "out.npz")]
    arguments = [command, str(tmp_path / "model"), str(data), *output, "--device"]
    for device in ("cpu", "auto"):
        more = ["--overwrite"] if output and device == "auto" else []
        result = CliRunner().invoke(app, [*arguments, device, *more])
        assert result.exit_code == 0, result.output
    for device, text in (("cuda", "torch sees no CUDA"), ("gpu", "must be auto, cpu, cuda")):
        result = CliRunner().invoke(app, [*arguments, device, *(["--overwrite"] if output else [])])
        assert result.exit_code == 2
        assert result.stderr.startswith("error: --device ")
        assert text in result.stderr
