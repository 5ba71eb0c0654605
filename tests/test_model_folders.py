"""Model folders: what is written comes back bit for bit; damaged and edited ones are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import pymlp
from pymlp import Potential
from tests.potentials import ELEMENTS, molecules, potential


def saved(folder: Path, members: int = 2) -> Potential:
    model = potential(members=members, dtype=torch.float32)
    model.save(folder)
    return model


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_a_new_process_predicts_the_same_bits(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    batch = molecules()
    np.save(tmp_path / "positions.npy", batch.positions.reshape(3, 6, 3).numpy())
    code = (
        "import sys, numpy, pymlp\n"
        "r = numpy.load(sys.argv[2])\n"
        "batch = pymlp.Batch.from_arrays([8, 1, 6, 1, 1, 6], r)\n"
        "out = pymlp.load(sys.argv[1]).compute(batch)\n"
        "numpy.savez(sys.argv[3], e=out.energy, f=out.forces, s=out.forces_std)\n"
    )
    arguments = [tmp_path / "model", tmp_path / "positions.npy", tmp_path / "out.npz"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    found, out = np.load(tmp_path / "out.npz"), model.compute(batch)
    assert np.array_equal(found["e"], out.energy)
    assert np.array_equal(found["f"], out.forces)
    assert np.array_equal(found["s"], out.forces_std)


def test_everything_comes_back(tmp_path: Path) -> None:
    model = saved(tmp_path)
    again = pymlp.load(tmp_path)
    assert again.metadata == {"target": "total"}
    assert again.elements == tuple(ELEMENTS)
    assert again.descriptor.to_config() == model.descriptor.to_config()
    assert again.networks[0].dtype == torch.float32
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert torch.equal(Potential.load(tmp_path / "model.json").feature_minimum,
                       model.feature_minimum)  # fmt: skip
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["units"] == {"energy": "eV", "length": "Å", "forces": "eV/Å"}
    assert {"pymlp", "torch", "python"} <= set(description["versions"])
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_saving_again_replaces_the_model_and_leaves_other_files(tmp_path: Path) -> None:
    saved(tmp_path, members=1)
    (tmp_path / "log.csv").write_text("epoch\n")
    model = saved(tmp_path, members=3)
    assert torch.equal(pymlp.load(tmp_path).compute(molecules()).energy,
                       model.compute(molecules()).energy)  # fmt: skip
    assert (tmp_path / "log.csv").exists()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("interrupted", ["weights", "model.json"])
def test_an_interrupted_save_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    old = saved(tmp_path, members=1)
    replace = pymlp.atomic_files.os.replace  # type: ignore[attr-defined]

    def stop(source: Any, target: Any) -> None:
        if Path(target).name.startswith(interrupted):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("pymlp.atomic_files.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        potential(members=2, activation="silu").save(tmp_path)
    monkeypatch.undo()
    energy = pymlp.load(tmp_path).compute(molecules()).energy
    assert torch.equal(energy, old.compute(molecules()).energy)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = weights_file(tmp_path)
    data = path.read_bytes()
    for damaged in (data[:-1], data[:100], b"", data[:-50] + b"\x00" * 50):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"truncated or damaged: its checksum"):
            pymlp.load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"weights-.*which are missing"):
        pymlp.load(tmp_path)


def edited(folder: Path, **changed: Any) -> None:
    path = folder / "model.json"
    description = json.loads(path.read_text())
    for name, value in changed.items():
        if value is None:
            del description[name]
        else:
            description[name] = value
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"format": 99}, "format version 99, this pymlp reads 1"),
        ({"format": "1.0"}, "format version '1.0'"),
        ({"format": None}, "no entry 'format'"),
        ({"weights": None}, "'weights' is incomplete"),
        ({"weights": {"file": "weights.safetensors"}}, "'weights' is incomplete"),
        ({"descriptor": None}, "missing or wrong entry 'descriptor'"),
        ({"descriptor": {"family": "soap"}}, "family must be one of"),
        ({"descriptor": []}, "model.json"),
        ({"networks": []}, "at least one network"),
        ({"networks": {}}, "at least one network"),
        ({"dtype": "float16"}, "missing or wrong entry 'float16'"),
        ({"metadata": None}, "missing or wrong entry 'metadata'"),
    ],
)
def test_an_edited_description_is_refused(
    tmp_path: Path, changed: dict[str, Any], text: str
) -> None:
    saved(tmp_path)
    edited(tmp_path, **changed)
    with pytest.raises(ValueError, match=text):
        pymlp.load(tmp_path)


def test_networks_of_another_shape_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    configs = [net.to_config() for net in model.networks]
    configs[1]["hidden"] = [8, 7]
    edited(tmp_path, networks=configs)
    with pytest.raises(ValueError, match=r"networks.1.weights.1 must have shape \[3, 7, 8\]"):
        pymlp.load(tmp_path)
    edited(tmp_path, networks=configs[:1])
    with pytest.raises(ValueError, match="which no part of it has"):
        pymlp.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\xff\xfe"])
def test_a_description_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    saved(tmp_path)
    (tmp_path / "model.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"model.json (is damaged|describes no model)"):
        pymlp.load(tmp_path)


def test_weights_with_nan_are_neither_written_nor_read(tmp_path: Path) -> None:
    model = saved(tmp_path)
    model.networks[0].weights[0].data[0, 0, 0] = torch.nan
    before = weights_file(tmp_path).read_bytes()
    with pytest.raises(ValueError, match="NaN in networks.0.weights.0 is not written"):
        model.save(tmp_path)
    assert weights_file(tmp_path).read_bytes() == before
    # A file written by other means, with its checksum.
    pymlp.model_files.write_model(
        tmp_path / "other", json.loads((tmp_path / "model.json").read_text()), model.state_dict()
    )
    with pytest.raises(ValueError, match=r"weights networks.0.weights.0 hold NaN"):
        pymlp.load(tmp_path / "other")


def test_weights_of_another_model(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    tensors = safetensors.torch.load_file(weights_file(tmp_path))
    pymlp.model_files.write_model(
        tmp_path, description, {k: v for k, v in tensors.items() if "bias" not in k}
    )
    with pytest.raises(ValueError, match=r"biases.0 must have shape \[3, 8\], got none"):
        pymlp.load(tmp_path)
    listed = json.loads(path.read_text())["weights"]
    listed["tensors"].pop("feature_minimum")
    edited(tmp_path, weights=listed)
    with pytest.raises(ValueError, match="do not belong together"):
        pymlp.load(tmp_path)


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        pymlp.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"there is no model.json in it"):
        pymlp.load(tmp_path)


def test_metadata_that_json_cannot_hold(tmp_path: Path) -> None:
    model = potential()
    model.metadata["error"] = float("nan")
    with pytest.raises(ValueError, match="finite JSON values"):
        model.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
