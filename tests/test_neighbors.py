"""Neighbour lists against brute force and ASE; displacements, forces and stress from pairs."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import vesin
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbor_list
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from pymlp import Batch, NeighborList, displacements, neighbor_list, neighbors, pair_ops
from pymlp.neighbors import forces_from_pairs, stress_from_pairs


def brute_force(batch: Batch, cutoff: float) -> list[tuple[int, ...]]:
    """(center, neighbor, shift) of every pair, sorted: all images that could be near enough."""
    rows = []
    begin = 0
    for structure in batch:
        r = structure.positions.numpy()
        cell = np.zeros((3, 3)) if structure.cell is None else structure.cell.numpy()
        periodic = np.array(structure.pbc)
        reach = [0, 0, 0]
        if periodic.any():
            spread = np.linalg.norm(r[:, None] - r[None], axis=2).max() + cutoff
            vectors = cell[periodic]
            # Any image within `spread` has coefficients bounded by the dual vectors' lengths.
            bound = spread * np.linalg.norm(np.linalg.pinv(vectors), axis=0)
            for axis, value in zip(np.flatnonzero(periodic), bound, strict=True):
                reach[axis] = math.ceil(value)
        images = list(itertools.product(*(range(-n, n + 1) for n in reach)))
        between = r[None] - r[:, None]  # [centre, neighbour, 3]
        for shift in images:
            near = np.linalg.norm(between + np.array(shift) @ cell, axis=2) < cutoff
            if not any(shift):
                np.fill_diagonal(near, False)
            rows += [(begin + i, begin + j, *shift) for i, j in np.argwhere(near).tolist()]
        begin += len(r)
    return sorted(rows)


def rows_of(pairs: NeighborList) -> list[tuple[int, ...]]:
    shifts = (
        torch.zeros(pairs.n_pairs, 3, dtype=torch.int64) if pairs.shifts is None else (pairs.shifts)
    )
    both = torch.cat([pairs.centers[:, None], pairs.neighbors[:, None], shifts], dim=1)
    return [tuple(row) for row in both.tolist()]


def check(batch: Batch, cutoff: float) -> NeighborList:
    pairs = neighbor_list(batch, cutoff)
    assert rows_of(pairs) == brute_force(batch, cutoff)
    counts = torch.bincount(pairs.centers, minlength=batch.n_atoms)
    assert pairs.pair_offsets.tolist() == [0, *counts.cumsum(0).tolist()]
    assert {t.dtype for t in (pairs.pair_offsets, pairs.centers, pairs.neighbors)} == {torch.int64}
    assert pairs.cutoff == cutoff
    return pairs


@st.composite
def atoms(draw: st.DrawFn) -> Atoms:
    """1-5 atoms, isolated or periodic in any directions, triclinic, far outside the cell too."""
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_atoms = draw(st.integers(1, 5))
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    cell = generator.normal(size=(3, 3)) + np.diag(generator.uniform(2.5, 6, 3))
    if any(pbc):  # in a nearly flat cell images are countless, and ASE takes minutes
        heights = 1 / np.linalg.norm(np.linalg.pinv(cell[np.array(pbc)]), axis=0)
        assume(heights.min() > 0.5)
    if draw(st.booleans()):  # ASE leaves out the vectors that are not periodic
        cell = np.where(np.array(pbc)[:, None], cell, 0.0)
    # Random points keep their distance by standing on a shaken grid.
    grid = np.array(list(itertools.product(range(2), repeat=3)))[:n_atoms] * 1.3
    positions = grid + generator.uniform(-0.2, 0.2, size=(n_atoms, 3))
    positions += generator.integers(-2, 3, size=(n_atoms, 3)) @ np.where(
        np.array(pbc)[:, None], cell, 0.0
    )
    return Atoms(["H"] * n_atoms, positions, cell=cell, pbc=pbc)


@contextlib.contextmanager
def drawn_badly() -> Iterator[None]:
    """Have hypothesis draw again where images fall onto each other or the cell is flat."""
    try:
        yield
    except ValueError as error:
        if "coincide" in str(error) or "singular" in str(error):
            reject()
        raise


@given(st.lists(atoms(), min_size=1, max_size=3), st.floats(1.0, 6.0))
def test_lists_agree_with_brute_force(frames: list[Atoms], cutoff: float) -> None:
    with drawn_badly():
        check(Batch.from_atoms(frames), cutoff)


@given(atoms(), st.floats(1.0, 12.0))
def test_lists_agree_with_ase(frame: Atoms, cutoff: float) -> None:
    with drawn_badly():
        pairs = neighbor_list(Batch.from_atoms(frame), cutoff)
    i, j, shift = ase_neighbor_list("ijS", frame, cutoff)
    expected = sorted(zip(i, j, *shift.T, strict=True))
    assert rows_of(pairs) == [tuple(int(x) for x in row) for row in expected]


def test_isolated_and_periodic_structures_in_one_batch() -> None:
    water = Atoms("OH2", [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    sodium = Atoms("Na", [[9.0, -3.0, 2.0]], cell=np.eye(3) * 2.1, pbc=True)
    slab = Atoms("Cu2", [[0, 0, 0], [1.1, 0.9, 1.8]], cell=[2.5, 2.5, 0], pbc=[1, 1, 0])
    pairs = check(Batch.from_atoms([water, sodium, water, slab]), 4.5)
    # 4.5 Å reaches over two cells: the sodium atom sees only its own images.
    own = pairs.centers == 3
    assert bool((pairs.neighbors[own] == 3).all())
    assert int(own.sum()) > 26


def test_large_isolated_structures_take_the_cell_list(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    grid = np.array(list(itertools.product(range(8), repeat=3))) * 1.6
    batch = Batch.from_arrays([6] * 512, grid + generator.uniform(-0.3, 0.3, grid.shape))
    by_cells = neighbor_list(batch, 4.0)
    monkeypatch.setattr(neighbors, "ALL_PAIRS_ATOMS", 10**6)
    by_pairs = neighbor_list(batch, 4.0)
    assert by_cells.shifts is None
    assert rows_of(by_cells) == rows_of(by_pairs)
    assert torch.equal(by_cells.pair_offsets, by_pairs.pair_offsets)


# ------------------------------------------------------------------------------ the list of cells
def by_vesin(batch: Batch, cutoff: float) -> list[tuple[int, ...]]:
    """The same list by another program, which needs vectors across those that are periodic."""
    rows = []
    begin = 0
    for structure in batch:
        r, pbc = structure.positions.numpy(), np.array(structure.pbc)
        box = np.zeros((3, 3))
        if structure.cell is not None and pbc.any():
            box = np.where(pbc[:, None], structure.cell.numpy(), 0.0)
            free = list(np.linalg.svd(box)[2][int(pbc.sum()) :])
            for axis in np.flatnonzero(~pbc):
                box[axis] = free.pop()
        found, shifts = vesin.NeighborList(cutoff=cutoff, full_list=True).compute(r, box, pbc, "PS")
        ends = found.astype(np.int64) + begin
        rows += [tuple(row) for row in np.concatenate([ends, shifts], axis=1).tolist()]
        begin += len(r)
    return sorted(rows)


def scattered(generator: np.random.Generator, n_atoms: int, box: np.ndarray) -> np.ndarray:
    """Points in the cell, no two on top of each other: a shaken grid of fractions."""
    edge = math.ceil(n_atoms ** (1 / 3))
    grid = np.array(list(itertools.product(range(edge), repeat=3)))
    chosen = generator.permutation(grid)[:n_atoms]
    return (chosen + generator.uniform(-0.3, 0.3, chosen.shape)) / edge @ box


@st.composite
def large_batches(draw: st.DrawFn) -> Batch:
    """Cells of 20 to 70 atoms: skewed, flat, partly periodic."""
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    frames = []
    for _ in range(draw(st.integers(1, 2))):
        n_atoms = draw(st.integers(20, 70))
        edges = generator.uniform(0.6, 1.6, 3) * (8.0 * n_atoms) ** (1 / 3)
        skew = draw(st.sampled_from([0.0, 0.3, 1.0])) * edges.mean()
        box = np.diag(edges) + skew * np.tril(generator.uniform(-1, 1, (3, 3)), -1)
        pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
        positions = scattered(generator, n_atoms, box)
        frames.append(Atoms(["C"] * n_atoms, positions, cell=box, pbc=pbc))
    return Batch.from_atoms(frames)


def by_cells(batch: Batch, cutoff: float) -> NeighborList:
    offsets, neighbors, shifts = pair_ops.cell_list(
        batch.positions, batch.structure_offsets, batch.cell, batch.pbc, cutoff
    )
    assert shifts.dtype == torch.int32
    return NeighborList(offsets, neighbors, shifts if batch.periodic else None, cutoff)


@settings(max_examples=25)
@given(large_batches(), st.floats(1.5, 5.0), st.sampled_from([1, 10**6]))
def test_cells_agree_with_brute_force(batch: Batch, cutoff: float, far: int) -> None:
    pairs = by_cells(batch, cutoff)
    assert rows_of(pairs) == brute_force(batch, cutoff)
    if not batch.periodic:
        return
    # Atoms that leave their cell take their pairs with them.
    index = batch.structure_index
    turns = torch.randint(-far, far + 1, (batch.n_atoms, 3)) * batch.pbc[index]
    moved = torch.einsum("ak,akx->ax", turns.double(), batch.cell[index])
    outside = by_cells(batch.with_positions(batch.positions + moved), cutoff)
    assert torch.equal(outside.pair_offsets, pairs.pair_offsets)
    assert outside.shifts is not None
    assert pairs.shifts is not None
    back = outside.shifts + turns[outside.neighbors] - turns[outside.centers]
    # The order stays: all shifts between two atoms have changed by the same vector.
    assert torch.equal(outside.neighbors, pairs.neighbors)
    assert torch.equal(back, pairs.shifts.long())


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 0, 1), (0, 0, 1), (0, 0, 0)])
def test_cells_agree_with_vesin(pbc: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(sum(pbc))
    box = np.array([[18.0, 0, 0], [5.0, 16.0, 0], [-3.0, 4.0, 21.0]])
    frames = []
    for n_atoms in (700, 900):
        positions = scattered(generator, n_atoms, box)
        positions += generator.integers(-2, 3, positions.shape) * np.array(pbc) @ box
        frames.append(Atoms(["C"] * n_atoms, positions, cell=box, pbc=pbc))
    batch = Batch.from_atoms(frames)
    for cutoff in (3.0, 7.5):
        assert rows_of(neighbor_list(batch, cutoff)) == by_vesin(batch, cutoff)


def test_one_atom_in_a_tiny_cell_sees_hundreds_of_images() -> None:
    """More neighbours than are sorted by counting."""
    cell = [[1.1, 0, 0], [0.3, 1.2, 0], [-0.2, 0.4, 1.0]]
    pairs = check(Batch.from_arrays([1], [[17.0, -3, 5]], cell, True), 6.3)
    assert pairs.n_pairs > 512
    generator = np.random.default_rng(6)
    box = np.array([[0.02, 0, 0], [0, 60.0, 0], [0, 0, 60]])
    grid = np.array(list(itertools.product([0.0], range(20), range(20)))) * 3
    grid[:, 0] += generator.uniform(0, 0.02, len(grid))
    batch = Batch.from_arrays([1] * len(grid), grid, box, True)
    assert rows_of(neighbor_list(batch, 3.2)) == by_vesin(batch, 3.2)


def test_pairs_at_the_cutoff_are_in_both_directions_or_in_none() -> None:
    """On lattices whose distances are the cutoff but for rounding, here and cells away."""
    for edge, cutoff in ((0.7, 2.1), (1.0, 3.0), (0.1 * 3, 0.9)):
        generator = np.random.default_rng(7)
        grid = np.array(list(itertools.product(range(4), repeat=3))) * edge
        grid += generator.integers(-50, 51, grid.shape) * (4 * edge)
        batch = Batch.from_arrays([1] * 64, grid, np.eye(3) * 4 * edge, True)
        pairs = neighbor_list(batch, cutoff)
        rows = rows_of(pairs)
        assert sorted((j, i, -a, -b, -c) for i, j, a, b, c in rows) == rows
        d = displacements(batch.positions, pairs, batch.cell)
        assert float(d.norm(dim=1).max()) <= cutoff
        assert pairs.n_pairs >= 64 * 92


def test_a_few_atoms_far_apart_need_little_memory() -> None:
    positions = [[0.0, 0, 0], [1e6, 0, 0], [1e6, 1e6, 1], [1e6, 1e6, 2.5], [-1e6, 3, -1e6]]
    batch = Batch.from_arrays([1] * 5, positions)
    _, neighbors, shifts = pair_ops.cell_list(
        batch.positions, batch.structure_offsets, batch.cell, batch.pbc, 2.0
    )
    assert neighbors.tolist() == [3, 2]
    assert shifts.shape == (0, 3)


def test_cells_refuse_what_they_cannot_serve() -> None:
    batch = mixed_batch()
    good = [batch.positions, batch.structure_offsets, batch.cell, batch.pbc, 3.0]
    flat = batch.cell.clone()
    flat[1, 0] = flat[1, 1]
    for index, value, message in (
        (0, batch.positions.long(), "float32 or float64"),
        (0, batch.positions * 1e12, "more than 1e9 cells away"),
        (0, batch.positions[:-1], "structure_offsets: expected to ascend"),
        (2, batch.cell[:2], r"cell: expected shape \[B, 3, 3\], got \[2, 3, 3\]"),
        (2, batch.cell.float(), "cell: expected the dtype of positions"),
        (2, flat, "cell: expected linearly independent vectors.*structure 1"),
        (3, batch.pbc.int(), "pbc: expected dtype bool"),
        (4, math.inf, "cutoff: expected a finite length"),
        (4, -1.0, "cutoff: expected a positive length"),
        (4, 1e6, "cutoff: structure 1 has too many atoms and periodic images"),
    ):
        wrong = [*good[:index], value, *good[index + 1 :]]
        with pytest.raises((ValueError, TypeError), match=message):
            pair_ops.cell_list(*wrong)  # type: ignore[arg-type]


def test_no_neighbours_no_atoms_no_structures() -> None:
    far = Batch.from_arrays([1, 1], [[0.0, 0, 0], [9.0, 0, 0]])
    assert check(far, 5.0).pair_offsets.tolist() == [0, 0, 0]
    lone = Batch.from_arrays([1], [[0.0, 0, 0]], np.eye(3) * 9, True)
    assert check(lone, 5.0).n_pairs == 0
    for empty in (Batch.from_structures([]), Batch.from_arrays([], np.zeros((0, 3)))):
        assert check(empty, 5.0).pair_offsets.tolist() == [0]


def test_an_infinite_cutoff_lists_every_pair() -> None:
    positions = np.random.default_rng(1).normal(size=(2, 4, 3)) * 100
    pairs = neighbor_list(Batch.from_arrays([1] * 4, positions), math.inf)
    assert pairs.n_pairs == 2 * 4 * 3
    with pytest.raises(ValueError, match="finite for periodic"):
        neighbor_list(Batch.from_arrays([1], [[0.0, 0, 0]], np.eye(3), True), math.inf)


@pytest.mark.parametrize("cutoff", [0, -1.0, math.nan, "5", None])
def test_a_cutoff_that_is_no_length_is_refused(cutoff: object) -> None:
    with pytest.raises(ValueError, match="cutoff must be a number above zero"):
        neighbor_list(Batch.from_arrays([1], [[0.0, 0, 0]]), cutoff)  # type: ignore[arg-type]


def test_coincident_atoms_are_named() -> None:
    good = np.random.default_rng(0).normal(size=(3, 3))
    bad = good.copy()
    bad[2] = bad[0] + 1e-8
    with pytest.raises(ValueError, match=r"structure 1: atoms 0 and 2 coincide"):
        neighbor_list(Batch.from_arrays([1] * 3, np.stack([good, bad])), 5.0)
    cell = np.eye(3) * 3
    image = [[0.1, 0.2, 0.3], [3.1, 0.2, 0.3]]
    with pytest.raises(ValueError, match=r"structure 0: atoms 0 and 1 coincide"):
        neighbor_list(Batch.from_arrays([1, 1], image, cell, True), 5.0)
    crystal = Atoms("H2", image, cell=cell, pbc=True)
    molecule = Atoms("H3", bad)
    with pytest.raises(ValueError, match=r"structure 1: atoms 0 and 2 coincide"):
        neighbor_list(Batch.from_atoms([Atoms("H", cell=cell, pbc=True), molecule]), 5.0)
    with pytest.raises(ValueError, match=r"structure 1: atoms 0 and 1 coincide"):
        neighbor_list(Batch.from_atoms([Atoms("H3", good), crystal]), 5.0)
    batch = Batch.from_arrays([1] * 3, good)
    for value in (math.nan, math.inf):
        moved = batch.positions.clone()
        moved[2, 1] = value
        for cutoff in (3.0, math.inf):
            with pytest.raises(ValueError, match=r"positions must be finite.*atom 2"):
                neighbor_list(batch.with_positions(moved), cutoff)


def mixed_batch(dtype: torch.dtype = torch.float64) -> Batch:
    generator = np.random.default_rng(5)
    frames = [
        Atoms("H3", generator.normal(size=(3, 3)) * 2),
        Atoms("H2", [[0, 0, 0], [1.2, 0.9, 0.7]], cell=[[3, 0.2, 0], [0, 3.1, 0.4], [0.3, 0, 2.9]],
              pbc=True),
        Atoms("H2", [[0, 0, 0], [1.0, 1.1, 0.7]], cell=[3.3, 3.1, 2.8], pbc=True),
    ]  # fmt: skip
    return Batch.from_atoms(frames).to(dtype=dtype)


def pair_energy(d: Tensor) -> Tensor:
    """A smooth function of the vector, not of its length alone: transposition errors show."""
    return torch.exp(-0.3 * (d * d).sum(1)) * (1 + 0.1 * d[:, 0] * d[:, 1] ** 2 + 0.2 * d[:, 2])


def test_displacements_reach_from_centre_to_image_and_carry_gradients() -> None:
    batch = mixed_batch()
    pairs = neighbor_list(batch, 4.0)
    assert pairs.shifts is not None
    index = batch.structure_index
    d = displacements(batch.positions, pairs, batch.cell, index)
    for p in range(0, pairs.n_pairs, 7):
        i, j = int(pairs.centers[p]), int(pairs.neighbors[p])
        moved = pairs.shifts[p].double() @ batch.cell[index[i]]
        expected = batch.positions[j] - batch.positions[i] + moved
        assert torch.allclose(d[p], expected, atol=1e-14)
    assert float(d.norm(dim=1).max()) < 4.0
    positions = batch.positions.clone().requires_grad_()
    cell = batch.cell.clone().requires_grad_()

    def energy(r: Tensor, c: Tensor) -> Tensor:
        return pair_energy(displacements(r, pairs, c, index)).sum()

    assert torch.autograd.gradcheck(energy, (positions, cell))
    # One cell needs no structure index; several do.
    single = batch[1]
    one = Batch.from_structures([single])
    alone = neighbor_list(one, 4.0)
    expected = d[(index[pairs.centers] == 1)]
    for cells in (one.cell, one.cell[0]):
        assert torch.allclose(displacements(one.positions, alone, cells), expected, atol=1e-14)
    with pytest.raises(ValueError, match="cell must be given"):
        displacements(batch.positions, pairs)
    with pytest.raises(ValueError, match="structure_index must be given"):
        displacements(batch.positions, pairs, batch.cell)
    with pytest.raises(
        ValueError, match="neighbor_list must be of these positions: it has 7 atoms"
    ):
        displacements(batch.positions[:6], pairs, batch.cell, index)


def test_forces_from_pairs_are_minus_the_gradient() -> None:
    batch = mixed_batch()
    pairs = neighbor_list(batch, 4.0)
    positions = batch.positions.clone().requires_grad_()
    d = displacements(positions, pairs, batch.cell, batch.structure_index)
    (expected,) = torch.autograd.grad(pair_energy(d).sum(), positions)
    leaf = d.detach().requires_grad_()
    (pair_gradients,) = torch.autograd.grad(pair_energy(leaf).sum(), leaf)
    forces = forces_from_pairs(pair_gradients, pairs)
    assert torch.allclose(forces, -expected, atol=1e-13)
    assert torch.equal(forces, forces_from_pairs(pair_gradients, pairs))


def test_stress_is_the_strain_derivative_of_the_energy_per_volume() -> None:
    batch = mixed_batch()[1:]
    pairs = neighbor_list(batch, 4.0)
    index = batch.structure_index
    strain = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
    # Symmetric, so that rotations, for which pair_energy is not invariant, do not come in.
    deform = torch.eye(3, dtype=torch.float64) + 0.5 * (strain + strain.transpose(1, 2))
    positions = torch.einsum("ai,aij->aj", batch.positions, deform[index])
    d = displacements(positions, pairs, batch.cell @ deform, index)
    (slope,) = torch.autograd.grad(pair_energy(d).sum(), strain)
    expected = slope / torch.linalg.det(batch.cell).abs()[:, None, None]
    leaf = d.detach().requires_grad_()
    (pair_gradients,) = torch.autograd.grad(pair_energy(leaf).sum(), leaf)
    stress = stress_from_pairs(pair_gradients, leaf.detach(), pairs, batch.cell, index)
    assert torch.allclose(stress, expected, atol=1e-13)
    mixed = mixed_batch()
    every = neighbor_list(mixed, 4.0)
    d = displacements(mixed.positions, every, mixed.cell, mixed.structure_index)
    tensor = stress_from_pairs(d, d, every, mixed.cell, mixed.structure_index)
    assert bool(tensor[0].isnan().all())
    assert bool(tensor[1:].isfinite().all())


@pytest.mark.parametrize("n_pairs", [0, 5, 1024, 2500])
def test_the_virial_of_one_cell_is_the_sum_over_its_pairs(n_pairs: int) -> None:
    generator = torch.Generator().manual_seed(n_pairs)
    g, d = torch.randn(2, n_pairs, 3, generator=generator, dtype=torch.float64)
    offsets, index = torch.tensor([0, n_pairs]), torch.zeros(n_pairs, dtype=torch.int64)
    pairs = NeighborList(offsets, index, None, 4.0)
    cell = torch.eye(3, dtype=torch.float64)[None] * 2
    stress = stress_from_pairs(g, d, pairs, cell, index[:1])
    virial = torch.einsum("pi,pj->ij", g, d)
    torch.testing.assert_close(stress[0], (virial + virial.T) / 16)


def test_the_same_list_from_any_number_of_threads() -> None:
    generator = np.random.default_rng(2)
    grid = np.array(list(itertools.product(range(11), repeat=3))) * 2.0
    positions = grid + generator.uniform(-0.5, 0.5, grid.shape)
    batch = Batch.from_arrays([6] * len(grid), positions, np.eye(3) * 22, True)
    before = torch.get_num_threads()
    try:
        found = []
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found.append(neighbor_list(batch, 4.0))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(other.neighbors, found[0].neighbors)
        assert torch.equal(other.shifts, found[0].shifts)
        assert torch.equal(other.pair_offsets, found[0].pair_offsets)
