"""Files in and out: explicit keys and units, layouts, Δ targets, streaming, damage."""

from __future__ import annotations

import io as stdio
import zipfile
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from pymlp import Batch, io, units

NUMBERS = np.array([8, 1, 1])
N_STRUCTURES = 7


def raw_arrays() -> dict[str, Any]:
    generator = np.random.default_rng(3)
    shape = (N_STRUCTURES, 3, 3)
    return {
        "numbers": NUMBERS,
        "coordinates": generator.normal(size=shape) * 2,
        "energy": generator.normal(size=N_STRUCTURES) - 76,
        "gradient": generator.normal(size=shape),
        "energy_sqm": generator.normal(size=N_STRUCTURES),
        "gradient_sqm": generator.normal(size=shape),
        "window": np.arange(N_STRUCTURES),
    }


def molecule_file(folder: Path, *without: str, **changed: Any) -> Path:
    arrays = {k: v for k, v in {**raw_arrays(), **changed}.items() if k not in without}
    path = folder / "molecules.npz"
    np.savez(path, **arrays)
    return path


def labelled_batch(periodic: bool = True) -> Batch:
    """Structures of different sizes with energies and forces, one of them periodic."""
    generator = np.random.default_rng(6)
    parts = []
    for k, n_atoms in enumerate((3, 1, 4)):
        cell = generator.normal(size=(3, 3)) + 5 * np.eye(3) if periodic and k == 1 else None
        positions = generator.normal(size=(n_atoms, 3)) * 3
        parts.append(
            Batch.from_arrays(
                generator.integers(1, 20, n_atoms),
                positions,
                cell,
                None if cell is None else [True, True, False],
                energies=generator.normal() * 1000,
                forces=generator.normal(size=(n_atoms, 3)),
            )[0]
        )
    return Batch.from_structures(parts)


def assert_same(a: Batch, b: Batch) -> None:
    for name in ("structure_offsets", "numbers", "positions", "cell", "pbc", "energies", "forces"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        assert left is None or torch.equal(left, right), name


# ------------------------------------------------------------------------------ one set of atoms
def test_the_difference_of_two_levels_is_the_default_target(tmp_path: Path) -> None:
    raw = raw_arrays()
    batch = io.read(molecule_file(tmp_path))
    energy = (raw["energy"] - raw["energy_sqm"]) * units.HARTREE
    forces = (raw["gradient_sqm"] - raw["gradient"]) * units.HARTREE / units.BOHR
    assert batch.positions.dtype == torch.float64
    assert np.array_equal(batch.positions.reshape(-1, 3, 3), raw["coordinates"])
    np.testing.assert_allclose(batch.energies, energy, rtol=1e-13)
    np.testing.assert_allclose(batch.forces.reshape(-1, 3, 3), forces, rtol=1e-12, atol=1e-12)
    assert batch.info["target"] == "delta"
    text = " ".join(batch.info["notes"])
    assert "Δ-learning" in text
    assert "Hartree -> eV" in text
    assert "-gradient" in text


@pytest.mark.parametrize(("target", "level"), [("total", ""), ("sqm", "_sqm")])
def test_one_level_of_theory(tmp_path: Path, target: io.Target, level: str) -> None:
    raw = raw_arrays()
    batch = io.read(molecule_file(tmp_path), target=target)
    np.testing.assert_allclose(batch.energies, raw["energy" + level] * units.HARTREE, rtol=1e-14)
    expected = -raw["gradient" + level] * units.HARTREE / units.BOHR
    np.testing.assert_allclose(batch.forces.reshape(-1, 3, 3), expected, rtol=1e-14)
    assert batch.info["target"] == target


def test_without_a_baseline_the_target_is_the_total(tmp_path: Path) -> None:
    path = molecule_file(tmp_path, "energy_sqm", "gradient_sqm")
    assert io.read(path).info["target"] == "total"
    assert io.inspect_file(path).target == "total"
    energies_alone = io.read(molecule_file(tmp_path, "gradient", "gradient_sqm"))
    assert energies_alone.forces is None
    assert energies_alone.info["target"] == "delta"
    with pytest.raises(ValueError, match=r"'delta' needs a baseline"):
        io.read(molecule_file(tmp_path, "energy_sqm", "gradient_sqm"), target="delta")
    with pytest.raises(ValueError, match=r"needs baseline forces or gradients"):
        io.read(molecule_file(tmp_path, "gradient_sqm"))
    assert io.read(molecule_file(tmp_path, "gradient_sqm"), target="total").forces is not None


def test_units_can_be_overridden_and_keys_be_ones_own(tmp_path: Path) -> None:
    raw = raw_arrays()
    path = molecule_file(tmp_path, reference=raw["energy"], push=-raw["gradient"])
    batch = io.read(path, energy_unit="kcal/mol", force_unit="eV/Å", target="total")
    np.testing.assert_allclose(batch.energies, raw["energy"] * units.KCAL_MOL, rtol=1e-14)
    batch = io.read(path, energy="reference", forces="push", energy_unit="eV", force_unit="eV/Bohr")
    np.testing.assert_array_equal(batch.energies, raw["energy"])
    expected = -raw["gradient"].reshape(-1, 3) / units.BOHR
    np.testing.assert_allclose(batch.forces, expected, rtol=1e-13)
    # The layout fixes the units of its own names only.
    with pytest.raises(ValueError, match=r"energy_unit must be given for the energies 'reference'"):
        io.read(path, energy="reference")
    assert io.read(path, energy="energy").forces is None
    bohr = io.read(path, length_unit="Bohr")
    np.testing.assert_allclose(
        bohr.positions.reshape(-1, 3, 3), raw["coordinates"] * units.BOHR, rtol=1e-15
    )


def test_parts_of_a_file(tmp_path: Path) -> None:
    path = molecule_file(tmp_path)
    everything = io.read(path)
    assert_same(io.read(path, start=2, stop=5), everything[2:5])
    assert_same(io.read(path, start=-3), everything[-3:])
    assert_same(io.read(path, stop=-2), everything[:-2])
    assert_same(io.read(path, stop=100), everything)
    with pytest.raises(ValueError, match=r"no structures in 9:"):
        io.read(path, start=9)


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(0, 8), st.integers(0, 9), st.sampled_from("fF"))
def test_streaming_gives_the_same_as_reading(
    tmp_path_factory: pytest.TempPathFactory, size: int, start: int, stop: int, order: str
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    arrays = raw_arrays()
    if order == "F":  # an array whose rows do not lie together
        arrays["coordinates"] = np.asfortranarray(arrays["coordinates"])
    one = molecule_file(folder, **arrays)
    other = folder / "batch.npz"
    io.write(other, io.read(one))
    assert_same(io.read(other), io.read(one))
    for path in (one, other):
        parts = list(io.iread(path, size, start=start, stop=stop))
        expected = io.read(one)[start:stop]
        assert [len(p) for p in parts] == [
            min(size, len(expected) - k) for k in range(0, len(expected), size)
        ]
        for k, part in enumerate(parts):
            assert_same(part, expected[k * size : (k + 1) * size])


def test_compressed_and_single_precision_files(tmp_path: Path) -> None:
    arrays = raw_arrays()
    arrays["coordinates"] = arrays["coordinates"].astype(np.float32)
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    batch = io.read(tmp_path / "a.npz")
    assert batch.positions.dtype == torch.float64
    assert np.array_equal(batch.positions.reshape(-1, 3, 3), arrays["coordinates"].astype(float))


# --------------------------------------------------------------------------------- ASE's formats
def extxyz_file(folder: Path) -> Path:
    frames = []
    generator = np.random.default_rng(8)
    for k in range(5):
        atoms = ase.Atoms("OH2", generator.normal(size=(3, 3)), cell=np.eye(3) * (6 + k), pbc=True)
        atoms.info["REF_energy"] = -76.0 - k
        atoms.arrays["REF_forces"] = generator.normal(size=(3, 3))
        atoms.info["low_energy"] = -70.0
        atoms.arrays["low_gradient"] = generator.normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(k), forces=np.ones((3, 3)))
        frames.append(atoms)
    path = folder / "frames.extxyz"
    ase.io.write(path, frames)
    return path


def test_extxyz_with_keys_and_units(tmp_path: Path) -> None:
    path = extxyz_file(tmp_path)
    frames = ase.io.read(path, ":")
    batch = io.read(
        path,
        energy="REF_energy",
        forces="REF_forces",
        energy_unit="Hartree",
        force_unit="Hartree/Bohr",
    )
    assert len(batch) == 5
    assert bool(batch.pbc.all())
    np.testing.assert_array_equal(batch.positions[3:6], frames[1].positions)
    np.testing.assert_array_equal(batch.cell[4], np.eye(3) * 10)
    assert float(batch.energies[2]) == -78.0 * units.HARTREE
    expected = frames[2].arrays["REF_forces"] * (units.HARTREE / units.BOHR)
    np.testing.assert_allclose(batch.forces[6:9], expected, rtol=1e-15)
    # ASE moves "energy" and "forces" into a calculator: they are found there.
    plain = io.read(path, energy="energy", forces="forces", energy_unit="eV", force_unit="eV/Å")
    assert plain.energies.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert bool((plain.forces == 1).all())


def test_extxyz_difference_of_levels(tmp_path: Path) -> None:
    path = extxyz_file(tmp_path)
    keys = io.LabelKeys(
        energy="REF_energy",
        forces="REF_forces",
        baseline_energy="low_energy",
        baseline_gradient="low_gradient",
        energy_unit="eV",
        force_unit="eV/Å",
    )
    batch = io.read(path, keys=keys)
    assert batch.info["target"] == "delta"
    np.testing.assert_allclose(batch.energies, -6.0 - np.arange(5), rtol=1e-14)
    frames = ase.io.read(path, ":")
    expected = frames[0].arrays["REF_forces"] + frames[0].arrays["low_gradient"]
    np.testing.assert_allclose(batch.forces[:3], expected, rtol=1e-13)
    parts = list(io.iread(path, 2, keys=keys, start=1))
    assert [len(p) for p in parts] == [2, 2]
    assert_same(parts[1], batch[3:])


def test_nothing_is_guessed(tmp_path: Path) -> None:
    path = extxyz_file(tmp_path)
    with pytest.raises(ValueError, match=r"must be given.*REF_energy.*labels=False"):
        io.read(path)
    with pytest.raises(ValueError, match=r"energy_unit must be given.*known: eV"):
        io.read(path, energy="REF_energy")
    with pytest.raises(ValueError, match=r"force_unit must be given"):
        io.read(path, energy="REF_energy", energy_unit="eV", forces="REF_forces")
    with pytest.raises(ValueError, match=r"unknown energy unit 'Rydberg'"):
        io.read(path, energy="REF_energy", energy_unit="Rydberg")
    with pytest.raises(ValueError, match=r"frame 0: no label 'DFT'; labels there:.*REF_energy"):
        io.read(path, energy="DFT", energy_unit="eV")
    with pytest.raises(ValueError, match=r"'REF_forces' must have shape \[\]"):
        io.read(path, energy="REF_forces", energy_unit="eV")
    with pytest.raises(ValueError, match=r"forces and gradient exclude each other"):
        io.LabelKeys("e", "f", "g", energy_unit="eV", force_unit="eV/Å")
    with pytest.raises(ValueError, match=r"energy key must be given"):
        io.LabelKeys(forces="f", force_unit="eV/Å")
    with pytest.raises(TypeError, match=r"unexpected argument.*energy_key"):
        io.read(path, energy_key="REF_energy")
    with pytest.raises(ValueError, match=r"target must be one of"):
        io.read(path, energy="REF_energy", energy_unit="eV", target="half")  # type: ignore[arg-type]
    positions = io.read(path, labels=False)
    assert positions.energies is None
    assert positions.info["target"] is None
    assert len(positions) == 5


def test_a_frame_without_its_label_is_named(tmp_path: Path) -> None:
    path = extxyz_file(tmp_path)
    text = path.read_text().splitlines()
    text[5 * 3 + 1] = text[5 * 3 + 1].replace("REF_energy", "other_energy")
    path.write_text("\n".join(text) + "\n")
    with pytest.raises(ValueError, match=r"frames.extxyz, frame 3: no label 'REF_energy'"):
        io.read(path, energy="REF_energy", energy_unit="eV")


def test_whatever_ase_reads(tmp_path: Path) -> None:
    crystal = ase.Atoms("NaCl", [[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 5.7, 5.8], pbc=True)
    ase.io.write(tmp_path / "POSCAR", crystal, format="vasp")
    batch = io.read(tmp_path / "POSCAR", labels=False)
    assert batch.elements == ("Na", "Cl")
    np.testing.assert_allclose(batch.cell[0].diagonal(), [5.6, 5.7, 5.8])
    summary = io.inspect_file(tmp_path / "POSCAR")
    assert (summary.layout, summary.n_structures, summary.keys) == ("ASE", 1, None)


# --------------------------------------------------------------------------------------- writing
@pytest.mark.parametrize("name", ["a.npz", "a.extxyz", "a.xyz"])
def test_written_files_read_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    batch = labelled_batch()
    io.write(tmp_path / name, batch)
    keys = {"energy": "energy", "forces": "forces", "energy_unit": "eV", "force_unit": "eV/Å"}
    again = io.read(tmp_path / name, **({} if name.endswith("npz") else keys))
    assert_same(again, batch)
    assert io.data_hash(again) == io.data_hash(batch)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_written_files_without_labels(tmp_path: Path) -> None:
    batch = Batch.from_arrays(NUMBERS, raw_arrays()["coordinates"])
    for name in ("a.npz", "a.extxyz"):
        io.write(tmp_path / name, batch)
        assert_same(io.read(tmp_path / name, labels=False), batch)
    with pytest.raises(ValueError, match=r"has no labels: no array 'energies'"):
        io.read(tmp_path / "a.npz")
    assert io.inspect_file(tmp_path / "a.npz").keys is None


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    io.write(path, labelled_batch())
    before = path.read_bytes()

    def full_disk(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match=r"disk full while writing .*a\.npz"):
        io.write(path, labelled_batch(periodic=False))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    with pytest.raises(ValueError, match=r"must end in"):
        io.write(tmp_path / "a.pdb", labelled_batch())


# ---------------------------------------------------------------------------------------- damage
def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = molecule_file(tmp_path)
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"molecules.npz is truncated, damaged or no npz"):
            io.read(path)


def test_changed_bytes_are_noticed_and_the_array_is_named(tmp_path: Path) -> None:
    path = molecule_file(tmp_path)
    data = bytearray(path.read_bytes())
    needle = raw_arrays()["coordinates"][3].tobytes()
    data[data.index(needle) + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"molecules.npz: array 'coordinates' is.*damaged"):
        io.read(path)


def test_an_array_shorter_than_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    buffer = stdio.BytesIO()
    np.save(buffer, raw_arrays()["energy"])
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("numbers", "coordinates", "gradient"):
            whole = stdio.BytesIO()
            np.save(whole, raw_arrays()[name])
            archive.writestr(f"{name}.npy", whole.getvalue())
        archive.writestr("energy.npy", buffer.getvalue()[:-8])
    with pytest.raises(ValueError, match=r"array 'energy' is truncated"):
        io.read(path)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"energy": np.zeros(6)}, r"energy must have shape \[7\].*got \[6\]"),
        ({"gradient": np.zeros((7, 2, 3))}, r"gradient must have shape \[7, 3, 3\]"),
        ({"numbers": np.array([1, 1])}, r"coordinates must have shape \[B, 2, 3\]"),
        ({"numbers": np.array([1, 1, 0])}, "structures 0 .. 6: numbers must be atomic numbers"),
        ({"energy_sqm": np.full(7, np.nan)}, "structures 0 .. 6: energies must be finite"),
        ({"energy": np.array([{}] * 7)}, "array 'energy' .*pickled objects are not read"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        io.read(molecule_file(tmp_path, **changed))
    assert "molecules.npz" in str(caught.value)


def test_an_extxyz_file_that_ends_early_says_so(tmp_path: Path) -> None:
    path = extxyz_file(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    for cut in (4, 1):  # all but the count of the last frame is lost; then its last atom alone
        path.write_text("".join(lines[:-cut]))
        text = "ends in the middle of frame 4$" if cut == 4 else "Frame has 2 atoms, expected 3"
        with pytest.raises(ValueError, match=rf"frames\.extxyz .*{text}"):
            io.read(path, labels=False)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing.npz"):
        io.read(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError, match=r"nothing.xyz"):
        io.read(tmp_path / "nothing.xyz", labels=False)
    with pytest.raises(ValueError, match=r"no labels: no array 'energy'; it has: numbers"):
        io.read(molecule_file(tmp_path, "energy", "gradient"))
    with pytest.raises(ValueError, match=r"no known layout.*it has: window"):
        io.read(molecule_file(tmp_path, "numbers", *list(raw_arrays())[:-1]))
    (tmp_path / "text.extxyz").write_text("3\nnot atoms\nO 0 0\n")
    with pytest.raises(ValueError, match=r"text.extxyz cannot be read \(frame 0\)"):
        io.read(tmp_path / "text.extxyz", labels=False)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1"):
        next(io.iread(molecule_file(tmp_path), 0))


# -------------------------------------------------------------------------------------- the rest
def test_inspection_says_what_reading_would_do(tmp_path: Path) -> None:
    summary = io.inspect_file(molecule_file(tmp_path))
    assert summary.layout == "one set of atoms"
    assert (summary.n_structures, summary.elements) == (N_STRUCTURES, ("H", "O"))
    assert summary.target == "delta"
    assert summary.names["gradient"] == "[7, 3, 3]"
    assert summary.keys is not None
    assert summary.keys.energy_unit == "Hartree"
    assert summary.notes == io.read(molecule_file(tmp_path)).info["notes"]
    # What it found, given explicitly, reads the same.
    again = io.read(summary.path, keys=summary.keys)
    assert_same(again, io.read(summary.path))
    listed = io.inspect_file(extxyz_file(tmp_path))
    assert listed.names["REF_forces"] == "[3, 3]"
    assert listed.keys is None


def test_the_tutorials_own_arrays(tmp_path: Path) -> None:
    raw = raw_arrays()
    names = {"coordinates": "qm_coord", "gradient": "qm_grad", "gradient_sqm": "qm_grad_sqm"}
    for name in ("coordinates", "energy", "gradient", "energy_sqm", "gradient_sqm"):
        np.save(tmp_path / f"{names.get(name, name)}.npy", raw[name])
    with pytest.raises(ValueError, match=r"numbers must be given: there is no .*qm_elem.txt"):
        io.read_tutorial(tmp_path)
    expected = io.read(molecule_file(tmp_path))
    assert_same(io.read_tutorial(tmp_path, ["O", "H", "H"]), expected)
    (tmp_path / "qm_elem.txt").write_text("8\n1\n1\n")
    assert_same(io.read_tutorial(tmp_path), expected)
    spelled = {"energy_unit": "Hartree", "force_unit": "Hartree/Bohr", "length_unit": "Å"}
    assert_same(io.read_tutorial(tmp_path, **spelled), expected)
    other = io.read_tutorial(
        tmp_path, energy_unit="kcal/mol", force_unit="kcal/mol/Å", length_unit="Bohr"
    )
    assert other.energies is not None
    kcal, hartree = (units.factor(unit, "energy") for unit in ("kcal/mol", "Hartree"))
    torch.testing.assert_close(other.energies, expected.energies * (kcal / hartree))
    torch.testing.assert_close(other.forces, expected.forces * (kcal / hartree * units.BOHR))
    torch.testing.assert_close(other.positions, expected.positions * units.BOHR)
    assert "kcal/mol -> eV" in " ".join(other.info["notes"])
    with pytest.raises(ValueError, match="unit"):
        io.read_tutorial(tmp_path, length_unit="ell")
    total = io.read_tutorial(tmp_path, target="total")
    assert_same(total, io.read(molecule_file(tmp_path), target="total"))
    np.save(tmp_path / "qm_grad.npy", raw["gradient"][:2])
    with pytest.raises(ValueError, match=r"qm_grad.npy must have shape \[7, 3, 3\]"):
        io.read_tutorial(tmp_path)
    (tmp_path / "qm_grad.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"qm_grad.npy is truncated or damaged"):
        io.read_tutorial(tmp_path)
    (tmp_path / "energy.npy").unlink()
    with pytest.raises(ValueError, match=r"has no energy.npy"):
        io.read_tutorial(tmp_path)


def test_the_hash_tells_data_apart() -> None:
    batch = labelled_batch()
    hashes = {io.data_hash(batch)}
    hashes.add(io.data_hash(batch[:2]))
    hashes.add(io.data_hash(batch[[1, 0, 2]]))
    hashes.add(io.data_hash(batch.with_positions(batch.positions)))
    moved = batch.with_positions(batch.positions + 1e-12)
    hashes.add(io.data_hash(moved))
    assert len(hashes) == 5
    single = batch.to(dtype=torch.float32)
    assert io.data_hash(single) == io.data_hash(single.to(dtype=torch.float64))
