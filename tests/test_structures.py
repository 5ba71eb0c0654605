"""Structures and batches: shapes, checks, indexing, round trips; units."""

from __future__ import annotations

import math
import subprocess
import sys

import ase
import ase.data
import ase.units
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pymlp
from pymlp import Batch, Structure, units
from pymlp.structure_checks import SYMBOLS

WATER = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]]


@st.composite
def structures(draw: st.DrawFn) -> list[Structure]:
    """Up to five structures of up to six atoms, some periodic, with labels."""
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    made = []
    for n_atoms in draw(st.lists(st.integers(0, 6), min_size=1, max_size=5)):
        periodic = draw(st.booleans())
        made.append(
            Structure(
                numbers=torch.from_numpy(generator.integers(1, 119, n_atoms)),
                positions=torch.from_numpy(generator.normal(size=(n_atoms, 3))),
                cell=torch.from_numpy(generator.normal(size=(3, 3)) + 4 * np.eye(3))
                if periodic
                else None,
                pbc=(True, draw(st.booleans()), False) if periodic else (False, False, False),
                energy=float(generator.normal()),
                forces=torch.from_numpy(generator.normal(size=(n_atoms, 3))),
            )
        )
    return made


def same(a: Structure, b: Structure) -> bool:
    cells = (a.cell is None) == (b.cell is None) and (
        a.cell is None or b.cell is None or torch.equal(a.cell, b.cell)
    )
    assert a.forces is not None
    assert b.forces is not None
    return (
        torch.equal(a.numbers, b.numbers)
        and torch.equal(a.positions, b.positions)
        and torch.equal(a.forces, b.forces)
        and cells
        and a.pbc == b.pbc
        and a.energy == b.energy
    )


def test_symbols_are_those_of_ase() -> None:
    assert list(SYMBOLS) == ase.data.chemical_symbols[: len(SYMBOLS)]
    assert len(SYMBOLS) == 119


def test_one_structure_from_arrays_and_symbols() -> None:
    batch = Batch.from_arrays(["O", "H", "H"], WATER)
    assert (len(batch), batch.n_atoms, batch.elements) == (1, 3, ("H", "O"))
    assert batch.positions.dtype == torch.float64
    assert batch.numbers.tolist() == [8, 1, 1]
    assert batch.structure_index.tolist() == [0, 0, 0]
    assert not batch.periodic
    assert batch[0].formula == "H2O"


def test_many_structures_from_arrays() -> None:
    positions = np.random.default_rng(0).normal(size=(4, 3, 3))
    batch = Batch.from_arrays(
        [8, 1, 1], positions, np.eye(3) * 5, True, energies=np.arange(4), forces=-positions
    )
    assert batch.structure_offsets.tolist() == [0, 3, 6, 9, 12]
    assert batch.cell.shape == (4, 3, 3)
    assert batch.pbc.all()
    assert batch.energies is not None
    assert batch.energies.dtype == torch.float64
    for k, structure in enumerate(batch):
        assert torch.equal(structure.positions, torch.from_numpy(positions[k]))
        assert structure.energy == k
        assert torch.equal(structure.forces, torch.from_numpy(-positions[k]))


def test_arrays_are_copied_and_tensors_keep_their_graph() -> None:
    array = np.array(WATER)
    batch = Batch.from_arrays([8, 1, 1], array)
    array[:] = 0
    assert batch.positions[1, 1] == 0.76
    leaf = torch.tensor(WATER, requires_grad=True)
    Batch.from_arrays([8, 1, 1], leaf).positions.square().sum().backward()
    assert torch.equal(leaf.grad, 2 * leaf.detach())
    read_only = np.array(WATER)
    read_only.flags.writeable = False
    assert Batch.from_arrays([8, 1, 1], read_only).n_atoms == 3


@given(structures())
def test_split_undoes_concatenation(made: list[Structure]) -> None:
    batch = Batch.from_structures(made)
    assert batch.lengths == [len(s) for s in made]
    assert len(batch.split()) == len(made)
    assert all(same(a, b) for a, b in zip(made, batch.split(), strict=True))
    assert torch.equal(
        batch.structure_index,
        torch.tensor([k for k, s in enumerate(made) for _ in range(len(s))], dtype=torch.int64),
    )


@given(structures(), st.data())
def test_choosing_structures_of_a_batch(made: list[Structure], data: st.DataObject) -> None:
    batch = Batch.from_structures(made)
    index = data.draw(st.lists(st.integers(0, len(made) - 1), max_size=6))
    chosen = batch[torch.tensor(index, dtype=torch.int64)]
    assert len(chosen) == len(index)
    assert all(same(a, made[k]) for a, k in zip(chosen, index, strict=True))
    begin, end = sorted(data.draw(st.tuples(st.integers(-6, 6), st.integers(-6, 6))))
    part = batch[begin:end]
    assert all(same(a, b) for a, b in zip(part, made[begin:end], strict=True))
    mask = torch.tensor([len(s) > 2 for s in made])
    assert batch[mask].lengths == [len(s) for s in made if len(s) > 2]


def test_ase_atoms_and_back() -> None:
    molecule = ase.Atoms("OH2", WATER)
    crystal = ase.Atoms("NaCl", [[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 5.6, 5.6], pbc=[1, 1, 0])
    batch = Batch.from_atoms([molecule, crystal])
    back = batch.to_atoms()
    assert back[0] == molecule
    assert back[1] == crystal
    assert batch.pbc.tolist() == [[False] * 3, [True, True, False]]
    assert len(Batch.from_atoms(molecule)) == 1
    with pytest.raises(TypeError, match="index 1"):
        Batch.from_atoms([molecule, "H2O"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"atoms must be ase\.Atoms.*got None"):
        Batch.from_atoms(None)  # type: ignore[arg-type]


def test_another_precision_and_new_positions() -> None:
    batch = Batch.from_arrays([8, 1, 1], WATER, energies=-2000.0, forces=WATER)
    single = batch.to(dtype=torch.float32)
    assert single.positions.dtype == single.forces.dtype == single.cell.dtype == torch.float32
    assert single.energies.dtype == torch.float64
    assert batch.to(dtype=torch.float64) is batch
    moved = batch.with_positions(batch.positions + 1)
    assert moved.energies is None
    assert moved.forces is None
    assert batch.energies is not None
    with pytest.raises(ValueError, match=r"shape \[3, 3\]"):
        batch.with_positions(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="float16"):
        batch.to(dtype=torch.float16)


def test_no_structures_and_no_atoms() -> None:
    empty = Batch.from_structures([])
    assert (len(empty), empty.n_atoms, empty.split()) == (0, 0, [])
    assert Batch.from_arrays([], np.zeros((0, 3))).lengths == [0]
    assert Batch.from_arrays([1], np.zeros((0, 1, 3))).lengths == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([8, 1], WATER), ValueError, r"positions must have shape \[2, 3\].*got \[3, 3\]"),
        (([8, 1, 1], [[0.0, 0.0]] * 3), ValueError, "positions must have shape"),
        (([8, 1, 0], WATER), ValueError, "1..118, got 0"),
        (([8, 1, 119], WATER), ValueError, "1..118, got 119"),
        (([8.0, 1.0, 1.0], WATER), TypeError, "numbers must be integers"),
        ((None, WATER), TypeError, "numbers must be a sequence .*got NoneType"),
        ((torch.tensor(8), WATER[:1]), TypeError, "numbers must be a sequence .*got Tensor"),
        ((["O", "H", "Xy"], WATER), ValueError, "element 'Xy'"),
        (([8, 1, 1], [["a", "b", "c"]] * 3), TypeError, "positions"),
        (([8, 1, 1], np.array(WATER) * 1j), TypeError, "positions must be real"),
        (([8, 1, 1], [*WATER[:2], [0.0, math.nan, 0.0]]), ValueError, "positions.*atom 2"),
        (([8, 1, 1], [*WATER[:2], [0.0, math.inf, 0.0]]), ValueError, "positions.*atom 2"),
        (([8, 1, 1], WATER, None, True), ValueError, "cell must be given"),
        (([8, 1, 1], WATER, np.ones((3, 3)), True), ValueError, "structure 0 is singular"),
        (([8, 1, 1], WATER, np.zeros((3, 3)), [0, 0, 1]), ValueError, "singular"),
        (([8, 1, 1], WATER, np.eye(2), True), ValueError, "cell must have shape"),
        (([8, 1, 1], WATER, np.full((3, 3), np.nan), True), ValueError, "cell must be finite"),
        (([8, 1, 1], WATER, np.eye(3), [True, False]), ValueError, "pbc must have shape"),
        (([8, 1, 1], WATER, np.eye(3), 2), ValueError, "pbc must be booleans"),
        (([8, 1, 1], WATER, None, None, [1.0, 2.0]), ValueError, r"energies.*\[1\].*got \[2\]"),
        (([8, 1, 1], WATER, None, None, math.nan), ValueError, "energies.*structure 0"),
        (([8, 1, 1], WATER, None, None, 0.0, WATER[:2]), ValueError, "forces must have the shape"),
        (
            ([8, 1, 1], WATER, None, None, 0.0, np.full((3, 3), np.inf)),
            ValueError,
            "forces must be finite",
        ),
    ],
)
def test_bad_arrays_are_refused(
    arguments: tuple[object, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Batch.from_arrays(*arguments)  # type: ignore[arg-type]


@given(st.integers(0, 10**6), st.integers(1, 3), st.floats(-3, 6))
def test_cells_of_any_size_are_sound_unless_flat(seed: int, n_periodic: int, power: float) -> None:
    generator = np.random.default_rng(seed)
    pbc = np.isin(np.arange(3), generator.permutation(3)[:n_periodic])
    cell = (np.linalg.qr(generator.normal(size=(3, 3)))[0] + 0.3 * np.eye(3)) * 10**power
    cell[~pbc] = 0
    assert Batch.from_arrays([1], np.zeros((1, 3)), cell, pbc).periodic
    first = int(np.flatnonzero(pbc)[0])
    flat = cell.copy()
    flat[first] = generator.normal(size=3 - (~pbc).sum() - 1) @ cell[pbc][1:]
    with pytest.raises(ValueError, match="structure 1 is singular"):
        Batch.from_arrays([1], np.zeros((2, 1, 3)), np.stack([cell, flat]), pbc)


def test_bad_structures_are_refused() -> None:
    numbers, positions = torch.tensor([8, 1, 1]), torch.tensor(WATER)
    with pytest.raises(ValueError, match="energy must be finite"):
        Structure(numbers, positions, energy=math.inf)
    with pytest.raises(ValueError, match=r"forces must have shape \[3, 3\]"):
        Structure(numbers, positions, forces=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="cell must be given"):
        Structure(numbers, positions, pbc=(True, False, False))
    with pytest.raises(ValueError, match=r"cell must have shape \[3, 3\]"):
        Structure(numbers, positions, cell=torch.ones(3))
    labelled = Structure(numbers, positions, energy=1.0)
    with pytest.raises(ValueError, match=r"energy must be known for all.*1 of 2"):
        Batch.from_structures([labelled, Structure(numbers, positions)])
    with pytest.raises(ValueError, match="structure_offsets must rise from 0"):
        Batch(positions, numbers, torch.tensor([0, 2]))
    with pytest.raises(IndexError):
        Batch.from_structures([labelled])[1]


def test_units_agree_with_the_papers_constants_and_with_ase() -> None:
    assert pytest.approx(27.211386, abs=1e-6) == units.factor("Hartree", "energy")
    assert pytest.approx(0.52917721, abs=1e-8) == units.factor("Bohr", "length")
    assert pytest.approx(627.5095, abs=1e-4) == units.HARTREE * units.EV_TO_KCAL_MOL
    assert ase.units.Hartree / ase.units.Bohr == units.factor("Hartree/Bohr", "force")
    assert units.factor("kcal/mol", "energy") * units.EV_TO_KCAL_MOL == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("one", "other", "quantity"),
    [
        ("eV/Angstrom", "eV/Å", "force"),
        ("ev/a", "eV/Å", "force"),
        ("Ha/a0", "Hartree/Bohr", "force"),
        ("kcal/(mol*Å)", "kcal/mol/Å", "force"),
        ("KCAL/MOL", "kcal/mol", "energy"),
        ("A\u030a", "Å", "length"),
        ("\u212b", "Å", "length"),
    ],
)
def test_spellings_of_units(one: str, other: str, quantity: units.Quantity) -> None:
    assert units.factor(one, quantity) == units.factor(other, quantity)


@given(st.sampled_from(["energy", "length", "force", "stress"]), st.data())
def test_conversion_there_and_back(quantity: units.Quantity, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(units.known_units(quantity)))
    value = data.draw(st.floats(-1e6, 1e6))
    back = units.from_internal(units.to_internal(value, unit, quantity), unit, quantity)
    assert back == pytest.approx(value, rel=1e-14)
    assert units.factor(units.known_units(quantity)[0], quantity) == 1.0


def test_unknown_units_name_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown energy unit 'eV/Å'; known: eV, meV, Hartree"):
        units.factor("eV/Å", "energy")
    with pytest.raises(ValueError, match="quantity must be one of"):
        units.factor("eV", "mass")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unit must be a string"):
        units.factor(None, "energy")  # type: ignore[arg-type]


def test_importing_the_package_imports_only_what_computes() -> None:
    code = (
        "import torch, sys; before = set(sys.modules); import pymlp;"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "pymlp" in loaded
    assert not loaded & {"ase", "vesin", "lightning", "matplotlib", "pydantic", "safetensors"}


def test_every_name_of_the_package_can_be_had() -> None:
    for name in pymlp.__all__:
        if name not in ("training", "plotting"):  # need the extra `train`
            assert getattr(pymlp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pymlp.nothing  # noqa: B018
    assert set(pymlp.__all__) <= set(dir(pymlp))
