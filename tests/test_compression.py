"""Compression of DeepPot-SE potentials, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import pymlp
from pymlp import Batch, ElementNetworks, Potential
from pymlp.cli import app
from pymlp.compression import compress
from pymlp.descriptors import BehlerParrinello, DeepPotSE
from tests.toy_data import positions, write_npz

ELEMENTS = ["H", "O"]


def exact(members: int = 1) -> Potential:
    descriptors = [
        DeepPotSE(ELEMENTS, (5, 10, 20), 3, seed=k, dtype=torch.float64) for k in range(members)
    ]
    networks = [
        ElementNetworks(60, ELEMENTS, (8, 8), residual=True, seed=k, dtype=torch.float64)
        for k in range(members)
    ]
    return Potential(descriptors, networks, {"target": {"kind": "total"}})


def water(n: int = 12) -> Batch:
    return Batch.from_arrays([8, 1, 1], positions(n))


@pytest.mark.parametrize("members", [1, 2])
def test_compressed_is_the_same_potential(tmp_path: Path, members: int) -> None:
    model, batch = exact(members), water()
    fast, report = compress(model, batch)
    assert not fast.descriptor.trainable
    assert report.n_structures == 12
    assert 0 < report.energy_deviation < 1e-7
    assert 0 < report.force_deviation < 1e-6
    one, other = model.compute(batch), fast.compute(batch)
    assert one.forces is not None and other.forces is not None  # noqa: PT018
    assert report.force_deviation == float((one.forces - other.forces).abs().max())
    assert report.energy_deviation == float((one.energy - other.energy).abs().max()) / 3
    assert fast.metadata["compression"]["intervals"] == report.intervals
    fast.save(tmp_path / "fast")
    again = pymlp.load(tmp_path / "fast").compute(batch)
    assert torch.equal(again.energy, other.energy)
    assert torch.equal(again.forces, other.forces)


def test_what_is_refused() -> None:
    model, batch = exact(), water()
    with pytest.raises(ValueError, match=r"deviates by .* more than the tolerances"):
        compress(model, batch, table_tolerance=1e-2, force_tolerance=1e-16)
    with pytest.raises(ValueError, match=r"shortest distance is 0\.\d+ Å, the table begins at 2"):
        compress(model, batch, shortest=2.0)
    with pytest.raises(ValueError, match=r"compressed already"):
        compress(compress(model, batch)[0], batch)
    with pytest.raises(ValueError, match=r"at least one structure"):
        compress(model, batch[:0])
    plain = BehlerParrinello.paper(ELEMENTS)
    other = Potential(plain, ElementNetworks(plain.n_features, ELEMENTS, (4,)))
    with pytest.raises(ValueError, match=r"only DeepPot-SE potentials"):
        compress(other, batch)


def test_command_line(tmp_path: Path) -> None:
    model, data = tmp_path / "model", write_npz(tmp_path / "data.npz", 10)
    exact().save(model)
    runner = CliRunner()
    command = ["compress", str(model), f"{data}@:6", str(tmp_path / "fast")]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "6 structures" in done.output
    assert isinstance(pymlp.load(tmp_path / "fast").descriptor, DeepPotSE)
    again = runner.invoke(app, command)
    assert again.exit_code == 2
    assert "already holds a model" in again.output
    refused = runner.invoke(app, [*command[:3], str(tmp_path / "no"), "--force-tolerance", "1e-30"])
    assert refused.exit_code == 2
    assert "more than the tolerances" in refused.output
    assert not (tmp_path / "no").exists()
    printed = runner.invoke(app, [*command[:3], str(tmp_path / "json"), "--json"])
    assert json.loads(printed.output)["n_structures"] == 6
    assert np.isfinite(json.loads(printed.output)["force_deviation"])
