"""Featurizing files: layout, restart after an interruption at any point, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pymlp.descriptors import ANI, BehlerParrinello, DeepPotSE
from pymlp.featurize import featurize
from pymlp.structures import Batch
from tests.toy_data import positions

DESCRIPTOR = BehlerParrinello.paper(["H", "O"])


def _structures(n: int = 10, *, ragged: bool = False) -> Batch:
    batch = Batch.from_arrays([8, 1, 1], positions(n))
    if not ragged:
        return batch
    pairs = Batch.from_arrays([1, 8], [[0.0, 0.0, 0.0], [0.97, 0.0, 0.0]])
    single = Batch.from_arrays([8], [[0.0, 0.0, 0.0]])
    return Batch.from_structures([*batch.split(), *pairs.split(), *single.split()])


def _source(batch: Batch, size: int, stop_at: int | None = None):  # type: ignore[no-untyped-def]
    def batches(skip: int) -> Iterator[Batch]:
        for begin in range(skip, len(batch), size):
            if stop_at is not None and begin >= stop_at:
                raise KeyboardInterrupt
            yield batch[begin : begin + size]

    return batches


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:
        return {name: np.asarray(file[name]) for name in file} | dict(file.attrs)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("ragged", [False, True])
def test_layout_and_values(tmp_path: Path, suffix: str, ragged: bool) -> None:
    batch = _structures(ragged=ragged)
    out = tmp_path / f"f{suffix}"
    assert featurize(DESCRIPTOR, _source(batch, 4), out, jacobian=True) == len(batch)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    found = _read(out)
    np.testing.assert_array_equal(found["features"], DESCRIPTOR(batch).numpy())
    np.testing.assert_array_equal(found["numbers"], batch.numbers.numpy())
    np.testing.assert_array_equal(found["structure_offsets"], batch.structure_offsets.numpy())
    labels = [x.decode() if isinstance(x, bytes) else str(x) for x in found["feature_labels"]]
    assert labels == DESCRIPTOR.feature_labels()
    assert json.loads(str(found["descriptor"])) == DESCRIPTOR.to_config()
    jacobians = DESCRIPTOR.jacobian(batch)
    offsets = found["jacobian_offsets"]
    for b, n in enumerate(batch.lengths):
        rows = found["jacobian"][offsets[b] : offsets[b + 1]].reshape(n, n, -1, 3)
        np.testing.assert_array_equal(rows.transpose(0, 2, 1, 3), jacobians[b].numpy())
    # Against finite differences: atom 1 of structure 0, along y.
    moved = []
    for sign in (1, -1):
        r = batch.positions.clone()
        r[1, 1] += sign * 1e-5
        moved.append(DESCRIPTOR(batch.with_positions(r))[:3])
    slope = ((moved[0] - moved[1]) / 2e-5).numpy()
    own = found["jacobian"][:9].reshape(3, 3, -1, 3)[:, 1, :, 1]
    np.testing.assert_allclose(own, slope, atol=1e-8)


def test_precision(tmp_path: Path) -> None:
    featurize(DESCRIPTOR, _source(_structures(), 4), tmp_path / "f.npz", dtype=torch.float32)
    assert _read(tmp_path / "f.npz")["features"].dtype == np.float32


@pytest.mark.parametrize("stop_at", [4, 8])
def test_an_interrupted_run_goes_on(tmp_path: Path, stop_at: int) -> None:
    batch, out = _structures(ragged=True), tmp_path / "f.npz"
    with pytest.raises(KeyboardInterrupt):
        featurize(DESCRIPTOR, _source(batch, 4, stop_at), out, jacobian=True)
    assert not out.exists()
    # As if it had been killed while writing the next chunk.
    with (tmp_path / "f.npz.parts" / "features.raw").open("ab") as file:
        file.write(b"half a row")
    done: list[int] = []
    featurize(DESCRIPTOR, _source(batch, 4), out, jacobian=True, progress=done.append)
    assert done[0] == stop_at
    assert done[-1] == len(batch)
    whole = tmp_path / "whole.npz"
    featurize(DESCRIPTOR, _source(batch, 5), whole, jacobian=True)
    one, other = _read(out), _read(whole)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    assert not (tmp_path / "f.npz.parts").exists()


def test_parts_of_another_run_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    with pytest.raises(KeyboardInterrupt):
        featurize(DESCRIPTOR, _source(_structures(), 4, 8), out)
    with pytest.raises(ValueError, match="belongs to an interrupted run with other data"):
        featurize(ANI.ani1x(["H", "O"]), _source(_structures(), 4), out)
    with pytest.raises(ValueError, match="belongs to an interrupted run with other data"):
        featurize(DESCRIPTOR, _source(_structures(), 4), out, source="another file")


def test_parts_of_other_weights_are_refused(tmp_path: Path) -> None:
    """Two trained models of one configuration: half of each would be the features of none."""
    out = tmp_path / "f.npz"
    one, other = (DeepPotSE(["H", "O"], embedding=(4, 8), n_axis=2, seed=k) for k in (1, 2))
    assert one.to_config() == other.to_config()
    with pytest.raises(KeyboardInterrupt):
        featurize(one, _source(_structures(), 4, 8), out)
    with pytest.raises(ValueError, match="belongs to an interrupted run with other data"):
        featurize(other, _source(_structures(), 4), out)
    featurize(one, _source(_structures(), 4), out)
    np.testing.assert_array_equal(
        _read(out)["features"], one(_structures()).detach().numpy(), "continued with its own"
    )


def test_a_folder_of_the_users_own_is_not_touched(tmp_path: Path) -> None:
    parts = tmp_path / "f.npz.parts"
    parts.mkdir()
    (parts / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        featurize(DESCRIPTOR, _source(_structures(), 4), tmp_path / "f.npz")
    assert (parts / "thesis.tex").read_text() == "mine"


def test_a_run_killed_in_its_first_count_goes_on(tmp_path: Path) -> None:
    parts = tmp_path / "f.npz.parts"
    parts.mkdir()
    (parts / "features.raw").write_bytes(b"rows that no count knows of")
    (parts / ".state.4711.part.json").write_text('{"key": "')
    assert featurize(DESCRIPTOR, _source(_structures(10), 4), tmp_path / "f.npz") == 10
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]
    found = _read(tmp_path / "f.npz")["features"]
    np.testing.assert_array_equal(found, DESCRIPTOR(_structures(10)).numpy())


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.h5, \.hdf5 or \.npz, got 'f\.txt'"):
        featurize(DESCRIPTOR, _source(_structures(), 4), tmp_path / "f.txt")
    with pytest.raises(ValueError, match="no structures"):
        featurize(DESCRIPTOR, lambda skip: iter(()), tmp_path / "f.npz")
    carbon = Batch.from_arrays([6], [[0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="unknown element C"):
        featurize(DESCRIPTOR, _source(carbon, 4), tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()


def test_hdf5_without_h5py_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'pymlp\[h5\]'"):
        featurize(DESCRIPTOR, _source(_structures(), 4), tmp_path / "f.h5")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from pymlp import featurize as module

    batch, out = _structures(), tmp_path / "f.npz"
    original = module._stream_npy

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_stream_npy", full)
    with pytest.raises(OSError, match=r"disk full while writing .*f\.npz"):
        featurize(DESCRIPTOR, _source(batch, 4), out)
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz.parts"]
    monkeypatch.setattr(module, "_stream_npy", original)
    started: list[int] = []
    featurize(DESCRIPTOR, _source(batch, 4), out, progress=started.append)
    assert started[0] == len(batch), "nothing is computed twice"


def test_a_disk_that_fills_while_computing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    batch, out = _structures(), tmp_path / "f.npz"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"disk full while writing .*\.raw; the same command"):
            featurize(DESCRIPTOR, _source(batch, 4), out)
    whole = tmp_path / "whole.npz"
    featurize(DESCRIPTOR, _source(batch, 4), whole)
    featurize(DESCRIPTOR, _source(batch, 4), out)
    with np.load(out) as a, np.load(whole) as b:
        np.testing.assert_array_equal(a["features"], b["features"])
