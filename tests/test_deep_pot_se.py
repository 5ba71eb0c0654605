"""The DeepPot-SE descriptor: equations, derivatives, invariances, smoothness, table, potential."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pymlp
from pymlp import Batch, ElementNetworks, Potential, neighbor_list
from pymlp import displacements as displacements_of
from pymlp.descriptors import DeepPotSE, Descriptor
from tests import deep_pot_reference as reference
from tests import neighbourhoods as near

ELEMENTS = ("H", "C", "O")
NUMBERS = torch.tensor([1, 6, 8])
SMALL: dict[str, Any] = {"embedding": (3, 6, 6), "n_axis": 2, "seed": 1, "dtype": torch.float64}
SWITCHED = {"cutoff": 4.0, "switch_start": 1.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "no cutoff": {},
    "cosine": {**SWITCHED, "switch": "cosine"},
    "quintic": {**SWITCHED, "switch": "quintic"},
    "normalized": {**SWITCHED, "switch": "quintic", "normalize": 9.0},
    "by neighbors": {"normalize": "neighbors"},
    "neighbor_only": {"sharing": "neighbor_only"},
    "angular columns": {"use_radial_column": False},
}
EVERY = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
EXACT = [o for o in VARIANTS.values() if o.get("use_radial_column", True)]


def molecules(*sizes: int, seed: int = 3) -> Batch:
    """Random molecules of H, C and O."""
    parts = []
    for k, n in enumerate(sizes):
        made = near.molecule(n, 3, seed + k)
        parts.append((made.positions, NUMBERS[made.types]))
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return Batch(
        positions=torch.cat([p for p, _ in parts]),
        numbers=torch.cat([n for _, n in parts]),
        structure_offsets=offsets,
        cell=torch.zeros(len(sizes), 3, 3, dtype=torch.float64),
        pbc=torch.zeros(len(sizes), 3, dtype=torch.bool),
    )


def water_box(n: int = 3, length: float = 4.5) -> Batch:
    made = near.crystal(2 * n, 3, 11, length)
    assert made.cell is not None
    return Batch.from_arrays(NUMBERS[made.types], made.positions, cell=made.cell, pbc=True)


def descriptor(**options: Any) -> DeepPotSE:
    return DeepPotSE(ELEMENTS, **{**SMALL, **options})


def potential(made: DeepPotSE, seed: int = 2) -> Potential:
    networks = ElementNetworks(
        made.n_features, ELEMENTS, (12, 24, 24), residual=True, seed=seed, dtype=torch.float64
    )
    return Potential(made, networks)


def by_the_equations(d: DeepPotSE, batch: Batch) -> Tensor:
    """Eqs 7-11 atom by atom with the descriptor's weights; isolated structures."""
    e = d.embedding
    types = {int(z): t for t, z in enumerate(NUMBERS)}
    rows = []
    for begin, end in zip(batch.structure_offsets[:-1], batch.structure_offsets[1:], strict=True):
        for i in range(int(begin), int(end)):
            total = torch.zeros(e.n_functions, 4, dtype=torch.float64)
            count = 0
            for j in range(int(begin), int(end)):
                x = (batch.positions[j] - batch.positions[i])[None]
                if i == j or float(x.norm()) >= d.cutoff:
                    continue
                count += 1
                r = reference.environment(x, d.switch_start, d.cutoff, d.switch)
                own, other = types[int(batch.numbers[i])], types[int(batch.numbers[j])]
                kind = other if d.sharing == "neighbor_only" else len(types) * own + other
                layers = [(w[kind], b[kind]) for w, b in zip(e.weights, e.biases, strict=True)]
                s = (r[:, 0] - e.input_mean[kind]) / e.input_scale[kind]
                if not d.use_radial_column:
                    r = r * torch.tensor([0.0, 1, 1, 1])
                total = total + reference.embedding(s, layers).T @ r
            if d.normalize is not None:
                total = total / (max(count, 1) if d.normalize == "neighbors" else d.normalize)
            rows.append((total @ total[: d.n_axis].T).flatten())
    return torch.stack(rows)


@EVERY
def test_the_equations(options: dict[str, Any]) -> None:
    made, batch = descriptor(**options), molecules(5, 1, 7)
    made.embedding.input_mean += 0.3
    made.embedding.input_scale *= 1.7
    torch.testing.assert_close(made(batch), by_the_equations(made, batch), rtol=1e-12, atol=1e-13)
    rounded = made(batch.to(dtype=torch.float32))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), made(batch), rtol=1e-4, atol=1e-5)


@EVERY
def test_derivatives(options: dict[str, Any]) -> None:
    """Vjp by hand and by autograd, the Jacobian, and second derivatives by finite differences."""
    made, batch = descriptor(**options), molecules(4, 3)
    list_ = neighbor_list(batch, made.cutoff)
    types = made.types(batch.numbers)
    d = displacements_of(batch.positions, list_).detach()
    g = torch.randn(7, made.n_features, generator=torch.Generator().manual_seed(1)).double()
    moving = d.clone().requires_grad_()
    (expected,) = torch.autograd.grad((made.features(moving, list_, types) * g).sum(), moving)
    with torch.no_grad():
        torch.testing.assert_close(made.vjp(g, d, list_, types), expected)
    torch.testing.assert_close(made.vjp(g, d, list_, types).detach(), expected)
    by_pair = made.pair_jacobian(d, list_, types)
    dense = torch.einsum("pf,pfx->px", g[list_.centers], by_pair)
    torch.testing.assert_close(dense, expected)

    weights = list(made.parameters())

    def pulled(x: Tensor) -> Tensor:
        return made.vjp(g, x, list_, types)

    assert torch.autograd.gradcheck(pulled, (d.clone().requires_grad_(),), fast_mode=True)
    loss = pulled(d).square().sum()
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    for weight, slope in zip(weights, slopes, strict=True):
        if slope is None:  # the bias of no layer: only where nothing of its kind is there
            continue
        step = 1e-6 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * step
                values.append(float(pulled(d).square().sum()))
                weight -= sign * step
        assert values[0] - values[1] == pytest.approx(
            2 * float((slope * step).sum()), rel=1e-4, abs=1e-10
        )


@EVERY
def test_invariances(options: dict[str, Any]) -> None:
    made, batch = descriptor(**options), molecules(8)
    features = made(batch)
    generator = torch.Generator().manual_seed(4)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    moved = batch.with_positions(batch.positions @ turn.T + torch.tensor([1.0, -2.0, 3.0]))
    torch.testing.assert_close(made(moved), features, rtol=1e-11, atol=1e-12)
    order = torch.randperm(8, generator=generator)
    shuffled = Batch.from_arrays(batch.numbers[order], batch.positions[order])
    torch.testing.assert_close(made(shuffled), features[order], rtol=1e-11, atol=1e-12)
    both = molecules(8, 5)
    torch.testing.assert_close(made(both)[:8], features, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("switch", ["cosine", "quintic"])
@pytest.mark.parametrize("where", [1.5, 4.0], ids=["R_cs", "R_c"])
def test_energy_is_smooth_where_an_atom_crosses(switch: str, where: float) -> None:
    """Energy and force along the way of one atom through R_cs and R_c, normalised sums included."""
    made = descriptor(**{**SWITCHED, "switch": switch, "normalize": 5.0})
    model = potential(made)

    def at(distance: float) -> tuple[float, float]:
        positions = torch.tensor(
            [[0.0, 0, 0], [distance, 0, 0], [0, -9.0, 0], [0, -9.9, 0.4]], dtype=torch.float64
        )
        result = model.compute(Batch.from_arrays(torch.tensor([6, 1, 8, 1]), positions))
        assert result.forces is not None
        return float(result.energy[0]), float(result.forces[1, 0])

    step = 1e-5
    inner, outer = at(where - step), at(where + step)
    assert abs(inner[0] - outer[0]) < 1e-3 * step + 2 * step * abs(inner[1])
    assert abs(inner[1] - outer[1]) < 500 * step
    if where == 4.0:
        assert at(where + 1)[1] == 0.0


def test_a_pair_far_away_changes_nothing_without_a_cutoff_it_does() -> None:
    positions = torch.tensor([[0.0, 0, 0], [1.1, 0, 0], [30.0, 0, 0]], dtype=torch.float64)
    numbers = torch.tensor([6, 1, 8])
    two, three = (Batch.from_arrays(numbers[:n], positions[:n]) for n in (2, 3))
    switched = descriptor(**SWITCHED, switch="cosine")
    assert torch.equal(switched(two), switched(three)[:2])
    endless = descriptor()
    assert not torch.allclose(endless(two), endless(three)[:2])


# -- table --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", EXACT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_table_agrees_with_the_networks(options: dict[str, Any], dtype: torch.dtype) -> None:
    made, batch = descriptor(**{**options, "embedding": (5, 10, 20)}), molecules(9, 1, 4)
    fast = made.tabulated(1e-9, shortest=0.6)
    assert not fast.trainable
    table = fast.embedding_table()
    assert 0 < table.relative_bound <= 1e-9
    model, quick = potential(made), potential(fast)
    exact = model.compute(batch, dtype=dtype)
    found = quick.compute(batch, dtype=dtype)
    limit = 1e-7 if dtype == torch.float64 else 3e-4
    largest = float(exact.forces.abs().max())  # type: ignore[union-attr]
    assert float((exact.energy - found.energy).abs().max()) < limit * max(1, largest)
    assert float((exact.forces - found.forces).abs().max()) < limit * max(1, largest)  # type: ignore[operator]


def test_the_stated_bound_holds_everywhere() -> None:
    made = descriptor(embedding=(5, 10, 20))
    for tolerance in (1e-3, 1e-5, 1e-8):
        table = made.tabulated(tolerance).embedding_table()
        s = torch.rand(4000, generator=torch.Generator().manual_seed(5)).double() * table.last
        x = s / table.width
        interval = x.long().clamp(max=table.n_intervals - 1)
        powers = (x - interval)[:, None] ** torch.arange(6)
        for kind in range(made.embedding.n_kinds):
            found = torch.einsum("nk,nkm->nm", powers, table.coefficients[kind, interval])
            exact = made.embedding.values(s)[kind].detach()
            assert float((found[:, :20] - exact).abs().max()) <= table.bound
            assert not found[:, 20:].any()


def test_distances_below_the_table_go_to_the_networks() -> None:
    made = descriptor()
    fast = made.tabulated(1e-8, shortest=1.0)
    close = Batch.from_arrays(
        torch.tensor([6, 1, 1]),
        torch.tensor([[0.0, 0, 0], [0.7, 0, 0], [0, 1.5, 0]], dtype=torch.float64),
    )
    assert torch.equal(fast(close), made(close))
    exact, found = (potential(d).compute(close) for d in (made, fast))
    assert exact.forces is not None and found.forces is not None  # noqa: PT018
    torch.testing.assert_close(found.forces, exact.forces, rtol=1e-10, atol=1e-12)
    d = torch.tensor([[0.7, 0.0, 0.0]], dtype=torch.float64)
    rows = fast.environment(d)
    with pytest.raises(ValueError, match=r"environment: expected s between 0 and 1 1/Angstrom"):
        pymlp.deep_pot_ops.deep_pot_se_table(
            rows, torch.tensor([0, 1]), torch.tensor([0]), *fast._table_arguments(rows)
        )


def test_table_ops_derivatives() -> None:
    made = descriptor(embedding=(5, 10, 17)).tabulated(1e-8)
    batch = molecules(5, 2)
    list_ = neighbor_list(batch, made.cutoff)
    types = made.types(batch.numbers)
    d = displacements_of(batch.positions, list_).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: made.features(x, list_, types), (d,), fast_mode=True)
    features = made.features(d, list_, types)
    (first,) = torch.autograd.grad(features.square().sum(), d, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), d, create_graph=True)
    with pytest.raises(RuntimeError, match=r"third derivatives"):
        torch.autograd.grad(second.sum(), d)
    rows = made.environment(d.detach())
    arguments = (rows, list_.pair_offsets, made._kinds(list_, types), *made._table_arguments(rows))
    rows.requires_grad_()
    torch.library.opcheck(torch.ops.pymlp.deep_pot_se_table.default, arguments)


def test_exact_and_tabulated_keep_the_weights() -> None:
    made, batch = descriptor(), molecules(6)
    there_and_back = made.tabulated(1e-6).exact()
    assert there_and_back.trainable
    assert torch.equal(there_and_back(batch), made(batch))


# -- potential ----------------------------------------------------------------------------------


@EVERY
def test_forces_are_minus_the_gradient(options: dict[str, Any]) -> None:
    model, batch = potential(descriptor(**options)), molecules(6, 4)
    result = model.compute(batch)
    x = batch.positions.clone().requires_grad_()
    energies = model(batch.with_positions(x))
    (gradient,) = torch.autograd.grad(energies.sum(), x)
    torch.testing.assert_close(result.forces, -gradient)
    torch.testing.assert_close(result.energy, energies.detach())
    list_ = neighbor_list(batch, model.cutoff)
    energies, forces = model.energy_and_forces(batch, list_, create_graph=True)
    torch.testing.assert_close(forces.detach(), result.forces)
    slopes = torch.autograd.grad(forces.square().sum(), list(model.descriptor.parameters()))
    assert all(bool(s.isfinite().all()) for s in slopes)
    assert any(bool(s.any()) for s in slopes)


def test_stress_of_a_periodic_structure() -> None:
    model, box = potential(descriptor(**SWITCHED, switch="quintic")), water_box()
    result = model.compute(box)
    assert result.stress is not None
    volume = float(torch.linalg.det(box.cell[0]).abs())
    strain = torch.zeros(3, 3, dtype=torch.float64)
    strain[0, 1] = strain[1, 0] = 1e-5
    energies = []
    for sign in (1, -1):
        bent = torch.eye(3, dtype=torch.float64) + sign * strain
        moved = Batch.from_arrays(
            box.numbers, box.positions @ bent, cell=box.cell[0] @ bent, pbc=True
        )
        energies.append(float(model.compute(moved).energy[0]))
    slope = (energies[0] - energies[1]) / (2 * 1e-5) / volume
    assert float(result.stress[0, 0, 1] + result.stress[0, 1, 0]) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("members", [1, 2])
def test_saved_and_loaded_bit_for_bit(tmp_path: Path, members: int, table: bool) -> None:
    batch = molecules(6, 3)
    descriptors = [descriptor(seed=k) for k in range(members)]
    if table:
        descriptors = [d.tabulated(1e-7) for d in descriptors]
    networks = [potential(d, seed=k).networks[0] for k, d in enumerate(descriptors)]
    model = Potential(descriptors, networks)  # type: ignore[arg-type]
    model.save(tmp_path / "model")
    again = pymlp.load(tmp_path / "model")
    assert isinstance(again.descriptor, DeepPotSE)
    assert again.descriptor.to_config() == model.descriptor.to_config()
    before, after = model.compute(batch), again.compute(batch)
    for name in ("energy", "forces", "energy_std", "forces_std"):
        a, b = getattr(before, name), getattr(after, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    if members == 2:
        alone = [Potential(d, n).compute(batch) for d, n in zip(descriptors, networks, strict=True)]  # type: ignore[arg-type]
        torch.testing.assert_close(before.energy, (alone[0].energy + alone[1].energy) / 2)
        assert before.energy_std is not None
        assert bool((before.energy_std > 0).all())


def test_ase_calculator(tmp_path: Path) -> None:
    from ase import Atoms

    model = potential(descriptor())
    model.save(tmp_path / "model")
    batch = molecules(6)
    atoms = Atoms(batch.numbers.numpy(), batch.positions.numpy())
    atoms.calc = pymlp.Calculator(tmp_path / "model")
    result = model.compute(batch)
    assert atoms.get_potential_energy() == pytest.approx(float(result.energy[0]), abs=1e-9)
    assert result.forces is not None
    assert abs(atoms.get_forces() - result.forces.numpy()).max() < 1e-9


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_axis": 7}, r"n_axis \(m2\) must be in 1 ... m1 = 6, got 7"),
        ({"n_axis": 0}, r"n_axis"),
        ({"embedding": ()}, r"embedding must be a list of widths"),
        ({"embedding": (4, 0)}, r"embedding must be a list of widths"),
        ({"switch": "tanh"}, r"switch must be one of"),
        ({"switch": "cosine"}, r"needs cutoff and switch_start"),
        ({"cutoff": 5.0}, r"switch='none' sees every atom"),
        ({"switch": "cosine", "cutoff": 3.0, "switch_start": 3.0}, r"switch_start must be in"),
        ({**SWITCHED, "switch": "quintic", "normalize": "neighbors"}, r"energy would jump"),
        ({"normalize": -1.0}, r"normalize must be"),
        ({"normalize": math.nan}, r"normalize must be"),
        ({"sharing": "all"}, r"sharing must be one of"),
        ({"table": {"tolerance": 1e-6}}, r"table must hold tolerance and shortest"),
        ({"table": {"tolerance": 0.0, "shortest": 1.0}}, r"tolerance must be above zero"),
        (
            {"table": {"tolerance": 1e-6, "shortest": 1.0}, "use_radial_column": False},
            r"use_radial_column",
        ),
    ],
)
def test_bad_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        descriptor(**options)


def test_bad_structures() -> None:
    made = descriptor()
    alien = Batch.from_arrays(torch.tensor([1, 7]), torch.eye(3, dtype=torch.float64)[:2])
    with pytest.raises(ValueError, match=r"unknown element N"):
        made(alien)
    with pytest.raises(ValueError, match=r"finite for periodic"):
        made(water_box())
    switched = descriptor(**SWITCHED, switch="cosine")
    with pytest.raises(ValueError, match=r"cutoff must be at least the descriptor's 4.0"):
        switched(molecules(3), neighbor_list(molecules(3), 3.0))
    with pytest.raises(ValueError, match=r"shortest must be below the cutoff"):
        switched.tabulated(1e-6, shortest=4.5)
    with pytest.raises(ValueError, match=r"does not reach the tolerance"):
        made.tabulated(1e-30)
    with pytest.raises(ValueError, match=r"descriptor must be one, or one of the same kind"):
        Potential([made, made, made], [potential(made).networks[0]] * 2)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"has no table"):
        made.embedding_table()


def test_configuration_makes_the_same_descriptor() -> None:
    for options in VARIANTS.values():
        made = descriptor(**options)
        again = Descriptor.from_config(made.to_config())
        assert again.to_config() == made.to_config()
        assert len(made.feature_labels()) == made.n_features
    assert DeepPotSE.paper(["H"]).n_features == 400
    deepmd = DeepPotSE.deepmd_like(["H", "O"], n_neighbors=40.0)
    assert (deepmd.n_features, deepmd.normalize, deepmd.switch) == (1600, 40.0, "quintic")
