"""Potentials: forces and stress against finite differences, training gradients, model folders."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pymlp
from pymlp import Batch, ElementNetworks, Potential, neighbor_list
from pymlp.descriptors import ANI, BehlerParrinello, Descriptor

ELEMENTS = ["H", "C", "O"]


def descriptor(family: str = "ani") -> Descriptor:
    if family == "ani":
        return ANI(ELEMENTS, 4.0, [0.9, 1.7, 2.4], 7.3, [0.4, 1.9, 2.8], 3.0, [1.0, 1.8], 3.5, 3.0)
    return BehlerParrinello(
        ELEMENTS,
        radial=[(0.3, 0.0), (1.2, 1.1)],
        angular=[(0.05, 1.0, 0.0), (0.05, 3.0, np.pi), (0.2, 2.5, np.pi)],
        cutoff=3.5,
    )


def potential(
    family: str = "ani", members: int = 1, activation: str = "tanh", dtype: Any = torch.float64
) -> Potential:
    """Random networks with the scalers of random structures: energies differ by some eV."""
    seen = descriptor(family)
    made = []
    batch = molecules(20, seed=99)
    features, types = seen(batch), seen.types(batch.numbers)
    for seed in range(members):
        net = ElementNetworks(seen.n_features, ELEMENTS, (8, 6), activation, seed=seed, dtype=dtype)
        net.fit_scaler(features, types)
        net.energy_scale.fill_(1.7)
        net.energy_shift.copy_(torch.tensor([-13.6, -1030.0, -2042.0]))
        made.append(net)
    whole = Potential(seen, made, {"target": "total"})
    whole.record_ranges(features, types)
    return whole


def molecules(n_structures: int = 3, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    grid = np.array(list(itertools.product(range(2), repeat=3)))[:6] * 1.4
    positions = grid + generator.uniform(-0.25, 0.25, size=(n_structures, 6, 3))
    return Batch.from_arrays([8, 1, 6, 1, 1, 6], positions)


def crystals() -> Batch:
    """Two triclinic crystals of different sizes, cells smaller than the cutoff."""
    cell = [[3.1, 0.2, 0.0], [0.3, 3.3, 0.3], [0.4, 0.0, 2.9]]
    frames = [
        ase.Atoms("OHC", [[0, 0, 0], [1.1, 1.2, 0.9], [2.0, 0.1, 1.9]], cell=cell, pbc=True),
        ase.Atoms("OHHCH", np.array([[0.1, 0, 0], [1.2, 1.2, 0.9], [2.0, 0.2, 1.9], [0.2, 2.0, 1.7],
                  [1.4, 2.6, 2.4]]), cell=np.array(cell) * 1.1, pbc=True),
    ]  # fmt: skip
    return Batch.from_atoms(frames)


# ---------------------------------------------------------------------- energies and derivatives
@pytest.mark.parametrize("batch", [molecules(), crystals()], ids=["molecules", "crystals"])
@pytest.mark.parametrize("family", ["ani", "behler_parrinello"])
def test_forces_are_minus_the_slope_of_the_energy(family: str, batch: Batch) -> None:
    model = potential(family, members=2)
    out = model.compute(batch)
    assert out.forces is not None
    assert float(out.forces.abs().max()) > 0.1
    step = 3e-5
    for atom in range(0, batch.n_atoms, 2):
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = batch.positions.clone()
                moved[atom, axis] += sign * step
                energies.append(float(model.compute(batch.with_positions(moved)).energy.sum()))
            slope = (energies[0] - energies[1]) / (2 * step)
            assert float(out.forces[atom, axis]) == pytest.approx(-slope, rel=1e-6, abs=2e-6)


@pytest.mark.parametrize("family", ["ani", "behler_parrinello"])
def test_stress_is_the_slope_in_the_strain(family: str) -> None:
    model = potential(family)
    batch = crystals()
    out = model.compute(batch)
    assert out.stress is not None
    volume = torch.linalg.det(batch.cell).abs()
    step = 1e-5
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        energies = []
        for sign in (1, -1):
            deform = torch.eye(3, dtype=torch.float64)
            deform[i, j] += sign * step / 2
            deform[j, i] += sign * step / 2
            strained = batch.with_positions(batch.positions @ deform, batch.cell @ deform)
            energies.append(model.compute(strained, forces=False).energy)
        slope = (energies[0] - energies[1]) / (2 * step)
        assert torch.allclose(out.stress[:, i, j], slope / volume, atol=1e-8)
        assert torch.equal(out.stress[:, i, j], out.stress[:, j, i])
    assert float(out.stress.abs().max()) > 1e-3


def test_energies_are_sums_of_atomic_energies_with_their_shifts() -> None:
    out = potential().compute(molecules())
    sums = out.atomic_energies.reshape(3, 6).sum(1)
    assert torch.allclose(out.energy, sums, rtol=1e-14)
    assert float(out.energy[0]) == pytest.approx(-2042 - 3 * 13.6 - 2 * 1030, abs=20)
    assert out.energy.dtype == torch.float64


@pytest.mark.parametrize("batch", [molecules(), crystals()], ids=["molecules", "crystals"])
def test_a_batch_is_its_structures_one_by_one(batch: Batch) -> None:
    model = potential(members=2)
    out = model.compute(batch)
    for k, structure in enumerate(batch):
        alone = model.compute(Batch.from_structures([structure]))
        begin, end = batch.structure_offsets[k : k + 2].tolist()
        assert float(alone.energy[0]) == pytest.approx(float(out.energy[k]), abs=1e-10)
        assert torch.allclose(alone.forces, out.forces[begin:end], atol=1e-12)
        assert (alone.stress is None) == (out.stress is None)
        if alone.stress is not None:
            assert torch.allclose(alone.stress[0], out.stress[k], atol=1e-13)
    assert torch.equal(model.compute(batch).forces, out.forces)


@settings(max_examples=10)
@given(st.integers(0, 10**4))
def test_invariance(seed: int) -> None:
    model = potential()
    batch = molecules(1, seed)
    out = model.compute(batch)
    generator = np.random.default_rng(seed)
    rotation = torch.from_numpy(np.linalg.qr(generator.normal(size=(3, 3)))[0])
    order = torch.from_numpy(generator.permutation(6))
    moved = (batch.positions @ rotation + torch.from_numpy(generator.normal(size=3)))[order]
    turned = model.compute(Batch.from_arrays(batch.numbers[order], moved))
    assert float(turned.energy[0]) == pytest.approx(float(out.energy[0]), abs=1e-9)
    assert torch.allclose(turned.forces, (out.forces @ rotation)[order], atol=1e-9)
    assert torch.allclose(out.forces.sum(0), torch.zeros(3).double(), atol=1e-11)


def test_the_prediction_carries_no_graph_and_leaves_none() -> None:
    model = potential()
    batch = molecules()
    batch.positions.requires_grad_()
    out = model.compute(batch)
    assert not out.energy.requires_grad
    assert not out.forces.requires_grad
    assert all(p.grad is None for p in model.parameters())
    energy = model(batch)
    assert torch.allclose(energy, out.energy, atol=1e-10)
    (slope,) = torch.autograd.grad(energy.sum(), batch.positions)
    assert torch.allclose(-slope, out.forces, atol=1e-11)


def test_what_is_not_asked_for_is_not_computed() -> None:
    model = potential()
    out = model.compute(molecules(), forces=False)
    assert (out.forces, out.stress, out.energy_std, out.forces_std) == (None,) * 4
    assert out.extrapolation is None
    assert model.compute(crystals(), forces=False).stress is None
    assert model.compute(crystals(), stress=False).stress is None
    alone = model.compute(crystals(), forces=False, stress=True)
    assert alone.forces is None
    assert torch.equal(alone.stress, model.compute(crystals()).stress)
    with pytest.raises(ValueError, match="stress needs structures that are periodic"):
        model.compute(molecules(), stress=True)
    slab = Batch.from_arrays([8], [[0.0, 0, 0]], np.diag([3.0, 3.0, 9.0]), [True, True, False])
    assert model.compute(slab).stress is None


def test_single_precision_is_near_and_energies_stay_double() -> None:
    model = potential(dtype=torch.float32)
    exact = potential().compute(molecules())
    out = model.compute(molecules(), dtype=torch.float32)
    assert out.forces.dtype == torch.float32
    assert out.energy.dtype == torch.float64
    assert torch.allclose(out.energy, exact.energy, atol=1e-4)
    assert torch.allclose(out.forces.double(), exact.forces, atol=1e-3)


def test_no_structures() -> None:
    out = potential().compute(Batch.from_structures([]))
    assert (out.energy.shape, out.forces.shape) == ((0,), (0, 3))


# ------------------------------------------------------------------------------------- committees
def test_committee_is_mean_and_standard_deviation_of_its_members() -> None:
    model = potential(members=3)
    batch = molecules()
    out = model.compute(batch)
    alone = [Potential(model.descriptor, net).compute(batch) for net in model.networks]
    energies = torch.stack([a.energy for a in alone])
    forces = torch.stack([a.forces for a in alone])
    assert torch.allclose(out.energy, energies.mean(0), atol=1e-10)
    assert torch.allclose(out.forces, forces.mean(0), atol=1e-12)
    assert torch.allclose(out.energy_std, energies.std(0), atol=1e-10)
    assert torch.allclose(out.forces_std, forces.std(0), atol=1e-12)
    assert float(out.energy_std.min()) > 1e-3
    single = model.compute(batch, forces=False)
    assert torch.equal(single.energy_std, out.energy_std)


def test_parts_that_do_not_belong_together() -> None:
    seen = descriptor()
    with pytest.raises(ValueError, match="networks must take the descriptor's"):
        Potential(seen, ElementNetworks(seen.n_features, ["C", "H", "O"]))
    with pytest.raises(ValueError, match="networks must take the descriptor's"):
        Potential(seen, ElementNetworks(seen.n_features + 1, ELEMENTS))
    with pytest.raises(ValueError, match="at least one network"):
        Potential(seen, [])


# ----------------------------------------------------------------------------------- extrapolation
def test_extrapolation_counts_features_outside_their_range() -> None:
    model = potential()
    batch = molecules(20, seed=99)
    inside = model.compute(batch, extrapolation=True).extrapolation
    assert torch.equal(inside, torch.zeros(batch.n_atoms).double())
    squeezed = batch.with_positions(batch.positions * 0.6)
    outside = model.compute(squeezed, extrapolation=True).extrapolation
    assert outside.shape == (batch.n_atoms,)
    assert float(outside.mean()) > 0.2
    assert float(outside.max()) <= 1
    with pytest.raises(ValueError, match="ranges of features.*not known"):
        Potential(model.descriptor, model.networks[0]).compute(batch, extrapolation=True)


# --------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("batch", [molecules(), crystals()], ids=["molecules", "crystals"])
def test_training_gradients_are_those_of_autograd_through_everything(batch: Batch) -> None:
    """The loss on forces, differentiated by the weights: J^T v route against second derivatives."""
    model = potential(members=2)
    pairs = neighbor_list(batch, model.cutoff)
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(batch.n_atoms, 3, generator=generator, dtype=torch.float64)
    weights = [*model.parameters()]

    energies, forces = model.energy_and_forces(batch, pairs, create_graph=True)
    out = model.compute(batch)
    assert torch.allclose(energies, out.energy, atol=1e-10)
    assert torch.allclose(forces, out.forces, atol=1e-11)
    loss = energies.square().mean() * 1e-6 + (forces - target).square().mean()
    ours = torch.autograd.grad(loss, weights, allow_unused=True)

    leaf = batch.with_positions(batch.positions.clone().requires_grad_())
    energies = model(leaf, pairs)
    (slope,) = torch.autograd.grad(energies.sum(), leaf.positions, create_graph=True)
    loss = energies.square().mean() * 1e-6 + (-slope - target).square().mean()
    expected = torch.autograd.grad(loss, weights, allow_unused=True)
    # The last biases move energies alone; all others must get a gradient from both.
    for a, b in zip(ours, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10)
    assert sum(float(a.abs().max()) > 1e-6 for a in ours) == len(weights)


def test_training_on_known_features_and_one_member() -> None:
    model = potential(members=2)
    batch = molecules()
    pairs = neighbor_list(batch, model.cutoff)
    features = model.descriptor(batch, pairs)
    one = model.energy_and_forces(batch, pairs, features=features, member=1)
    alone = Potential(model.descriptor, model.networks[1]).compute(batch)
    assert torch.allclose(one[0], alone.energy, atol=1e-10)
    assert torch.allclose(one[1], alone.forces, atol=1e-12)


def test_relu_serves_energies_alone() -> None:
    model = potential(activation="relu")
    batch = molecules()
    pairs = neighbor_list(batch, model.cutoff)
    assert not model.trains_on_forces
    with pytest.raises(ValueError, match="relu has no second derivative"):
        model.energy_and_forces(batch, pairs, create_graph=True)
    _, forces = model.energy_and_forces(batch, pairs)
    assert torch.allclose(forces, model.compute(batch).forces, atol=1e-12)


def test_energy_and_forces_compile_into_one_graph() -> None:
    model = potential()
    batch = molecules()
    pairs = neighbor_list(batch, model.cutoff)
    types = model.descriptor.types(batch.numbers)

    groups = pymlp.networks.group_by_element(types, 3)
    expected = model.compute(batch)
    for given_groups in (groups, None):

        def energy_and_forces(
            positions: torch.Tensor, groups: Any = given_groups
        ) -> tuple[torch.Tensor, torch.Tensor]:
            d = pymlp.displacements(positions, pairs)
            energies, (pull,), _ = model.evaluate(d, pairs, types, groups)
            return energies[0], pymlp.neighbors.forces_from_pairs(pull, pairs)

        compiled = torch.compile(energy_and_forces, fullgraph=True, backend="aot_eager")
        energies, forces = compiled(batch.positions)
        assert torch.allclose(energies, expected.atomic_energies, atol=1e-10)
        assert torch.allclose(forces, expected.forces, atol=1e-11)


# ------------------------------------------------------------------------------------ model folders
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
