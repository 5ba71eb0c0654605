"""Descriptor modules: parameters, order and labels, configurations, Jacobians, precision."""

from __future__ import annotations

import copy
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pymlp import Batch, displacements, neighbor_list
from pymlp.descriptors import ANI, BehlerParrinello, Descriptor
from pymlp.structure_checks import atomic_number

ELEMENTS = ["H", "C", "O"]
SMALL_BP: dict[str, Any] = {
    "radial": [(0.3, 0.0), (1.2, 1.1)],
    "angular": [(0.05, 1.0, 0.0), (0.2, 2.5, math.pi), (0.05, 3.0, math.pi)],
    "cutoff": 3.5,
    "angular_cutoff": 3.0,
}
SMALL_ANI: dict[str, Any] = {
    "radial_eta": 4.0,
    "radial_shifts": [0.9, 1.7],
    "zeta": 7.3,
    "theta_shifts": [math.radians(x) for x in (25, 110, 160)],
    "angular_eta": 3.0,
    "angular_shifts": [1.0, 1.8],
    "radial_cutoff": 3.5,
    "angular_cutoff": 3.0,
}


def small(family: str, channels: Any = "element") -> Descriptor:
    if family == "ani":
        return ANI(ELEMENTS, channels=channels, **SMALL_ANI)
    return BehlerParrinello(ELEMENTS, channels=channels, **SMALL_BP)


def per_element() -> BehlerParrinello:
    return BehlerParrinello(
        ELEMENTS,
        radial={"H": [(0.3, 0.0)], "C": [(1.2, 1.1), (0.5, 0.0)], "O": []},
        angular={"H": [], "C": [(0.1, 1.0, 0.0)], "O": [(0.2, 2.0, math.pi), (0.1, 1.0, 0.0)]},
        cutoff=3.5,
    )


def molecules(n_structures: int = 2, seed: int = 0) -> Batch:
    """Structures of 5 atoms, no two nearer than about 0.9 Å."""
    generator = np.random.default_rng(seed)
    grid = np.array(list(itertools.product(range(2), repeat=3)))[:5] * 1.4
    positions = grid + generator.uniform(-0.25, 0.25, size=(n_structures, 5, 3))
    return Batch.from_arrays([8, 1, 6, 1, 1], positions)


def ragged(periodic: bool) -> Batch:
    """One, three and five atoms; the cells are smaller than the cutoff."""
    five = molecules(1, 3)[0]
    cell = torch.tensor([[3.1, 0.2, 0.0], [0.0, 3.2, 0.3], [0.4, 0.0, 2.9]]).double()
    parts = []
    for n_atoms in (1, 3, 5):
        part = copy.copy(five)
        part.numbers, part.positions = five.numbers[:n_atoms], five.positions[:n_atoms]
        if periodic:
            part.cell, part.pbc = cell, (True, True, n_atoms != 3)
        parts.append(part)
    return Batch.from_structures(parts)


def expected_feature(label: str, batch: Batch, center: int, descriptor: Any) -> float:
    """The feature that a label describes, after eqs 1, 3 and 6, for an isolated structure."""
    kind, channel, *rest = label.split()
    words = dict(word.split("=") for word in rest)
    theta_shift = math.radians(float(words.pop("theta_s", "0").removesuffix("°")))
    values = {key: float(value) for key, value in words.items()}
    r = batch.positions.numpy()
    symbols = [descriptor.elements[t] for t in descriptor.types(batch.numbers).tolist()]
    weight = {"Z": lambda s: float(atomic_number(s))}.get(channel.split("-")[0], lambda s: 1.0)

    def fc(x: float, radius: float) -> float:
        return 0.5 * (math.cos(math.pi * x / radius) + 1) if x < radius else 0.0

    others = [j for j in range(len(r)) if j != center]
    total = 0.0
    if kind == "radial":
        for j in others:
            if channel in ("*", "Z", symbols[j]):
                x = float(np.linalg.norm(r[j] - r[center]))
                term = math.exp(-values["eta"] * (x - values["R_s"]) ** 2)
                total += weight(symbols[j]) * term * fc(x, descriptor.cutoff)
        return total
    for j, k in itertools.combinations(others, 2):
        if channel not in ("*-*", "Z-Z") and sorted(channel.split("-")) != sorted(
            [symbols[j], symbols[k]]
        ):
            continue
        u, v = r[j] - r[center], r[k] - r[center]
        a, b, c = (float(np.linalg.norm(x)) for x in (u, v, v - u))
        theta = math.acos(float(u @ v) / (a * b))
        turn = 1 + math.cos(theta - theta_shift)
        term = 2 ** (1 - values["zeta"]) * turn ** values["zeta"]
        radius = descriptor.angular_cutoff
        term *= fc(a, radius) * fc(b, radius)
        if isinstance(descriptor, ANI):
            term *= math.exp(-values["eta"] * ((a + b) / 2 - values["R_s"]) ** 2)
        else:
            term *= math.exp(-values["eta"] * (a * a + b * b + c * c)) * fc(c, radius)
        total += weight(symbols[j]) * weight(symbols[k]) * term
    return total


# ------------------------------------------------------------------------------- order and labels
@pytest.mark.parametrize("channels", ["element", "none", "weighted"])
@pytest.mark.parametrize("family", ["behler_parrinello", "ani"])
def test_every_feature_is_what_its_label_says(family: str, channels: str) -> None:
    descriptor = small(family, channels)
    batch = molecules(1)
    features = descriptor(batch)
    labels = descriptor.feature_labels()
    assert features.shape == (5, descriptor.n_features)
    assert len(labels) == len(set(labels)) == descriptor.n_features
    for center in range(5):
        wanted = [expected_feature(label, batch, center, descriptor) for label in labels]
        # sin(theta) is regularised by the square root of epsilon
        np.testing.assert_allclose(features[center], wanted, rtol=1e-7, atol=1e-12)
    assert float(features.abs().max()) > 1e-2


def test_elements_with_their_own_parameters() -> None:
    descriptor = per_element()
    batch = molecules(1)
    features = descriptor(batch)
    for center, symbol in enumerate(["O", "H", "C", "H", "H"]):
        labels = descriptor.feature_labels(symbol)
        assert len(labels) == descriptor.n_features
        wanted = [
            0.0 if label.endswith("unused") else expected_feature(label, batch, center, descriptor)
            for label in labels
        ]
        np.testing.assert_allclose(features[center], wanted, rtol=1e-9, atol=1e-14)
    with pytest.raises(ValueError, match=r"center must be given"):
        descriptor.feature_labels()
    with pytest.raises(ValueError, match=r"center must be one of"):
        descriptor.feature_labels("N")


def test_order_of_the_features() -> None:
    labels = ANI.ani1x(["H", "C"]).feature_labels()
    assert labels[0] == "radial H eta=16 R_s=0.9"
    assert labels[16].startswith("radial C")
    # Pairs of elements; distance shift slow, angle shift fast.
    angular = labels[32:]
    assert [angular[k].split()[1] for k in (0, 32, 64)] == ["H-H", "H-C", "C-C"]
    assert [angular[k].split()[3] for k in (0, 7, 8)] == ["R_s=0.9", "R_s=0.9", "R_s=1.55"]
    assert angular[0].split()[-1] != angular[1].split()[-1]


def test_parameter_sets() -> None:
    paper = BehlerParrinello.paper(["H"]).to_config()
    assert [row[0] for row in paper["radial"]] == [0, 0.04, 0.14, 0.32, 0.71, 1.79]
    assert {row[1] for row in paper["radial"]} == {0.0}
    assert sorted(map(tuple, paper["angular"])) == sorted(
        (eta, zeta, theta)
        for eta, zeta in zip([0, 0.04, 0.14, 0.32, 0.71, 1.79], [1, 2, 4, 8, 16, 32], strict=True)
        for theta in (0.0, math.pi)
    )
    assert (paper["cutoff"], paper["angular_cutoff"]) == (6.0, 6.0)
    # Every distance factor once, however many features share it: the op computes them all.
    distances = BehlerParrinello.paper(["H"])._arguments[torch.float64][3]
    assert distances[:, 0].tolist() == [0, 0.04, 0.14, 0.32, 0.71, 1.79]
    one = ANI.ani1x().to_config()
    assert one["elements"] == ["H", "C", "N", "O"]
    assert (one["radial_cutoff"], one["angular_cutoff"]) == (5.2, 3.5)
    np.testing.assert_allclose(one["radial_shifts"], np.arange(0.9, 5.0, 0.26875), atol=1e-12)
    assert one["radial_shifts"][-1] == pytest.approx(4.93125)
    assert one["angular_shifts"] == [0.90, 1.55, 2.20, 2.85]
    assert np.allclose(np.diff(one["theta_shifts"]), math.pi / 8)
    assert one["theta_shifts"][0] == math.pi / 16
    two = ANI.ani2x().to_config()
    assert two["elements"] == ["H", "C", "N", "O", "S", "F", "Cl"]
    assert (two["radial_eta"], two["zeta"], two["angular_eta"]) == (19.7, 14.1, 12.5)
    assert len(two["radial_shifts"]) == 16
    assert len(two["angular_shifts"]) == 8
    assert ANI.ani2x().n_features == 1008
    assert ANI.ani1x().n_features == 384
    like = ANI.like_torchani("2x").to_config()
    assert (like["cos_scale"], like["radial_prefactor"]) == (0.95, 0.25)
    assert {**like, "cos_scale": 1.0, "radial_prefactor": 1.0} == two
    with pytest.raises(ValueError, match=r"model must be one of 1x, 2x"):
        ANI.like_torchani("3x")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- configuration
@pytest.mark.parametrize(
    "descriptor",
    [
        small("behler_parrinello", "weighted"),
        small("ani"),
        per_element(),
        BehlerParrinello.paper(ELEMENTS, "none"),
        BehlerParrinello(ELEMENTS, angular=[(0.1, 1.5, 0.0)], angular_form="g5"),
        BehlerParrinello(ELEMENTS, radial=[(0.1, 1.5)], cutoff_function="smooth"),
        ANI.like_torchani("1x", ELEMENTS),
    ],
    ids=str,
)
def test_a_configuration_makes_the_same_descriptor(descriptor: Descriptor) -> None:
    config = descriptor.to_config()
    again = Descriptor.from_config(json.loads(json.dumps(config)))
    assert type(again) is type(descriptor)
    assert again.to_config() == config
    assert torch.equal(again(molecules()), descriptor(molecules()))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"family": "soap"}, "family must be one of"),
        ({"family": None}, "family must be one of"),
        ({"zeta": 0.5}, "zeta must be at least 1"),
        ({"radial_eta": -1.0}, "radial_eta must be at least 0"),
        ({"angular_eta": math.nan}, "angular_eta must be at least 0"),
        ({"radial_shifts": [math.inf]}, "radial_shifts must be finite"),
        ({"radial_cutoff": 0.0}, "cutoff must be above zero"),
        ({"angular_cutoff": -3.0}, "angular_cutoff must be above zero"),
        ({"angular_cutoff": 9.0}, "angular_cutoff must not be above"),
        ({"cos_scale": 1.5}, "cos_scale must be above 0"),
        ({"radial_prefactor": 0.0}, "radial_prefactor must be finite"),
        ({"channels": "pairs"}, "channels must be one of element, none, weighted"),
        ({"cutoff_function": "step"}, "cutoff_function must be one of"),
        ({"elements": []}, "at least one element"),
        ({"elements": ["H", "H"]}, "elements must differ"),
        ({"elements": ["H", "Q"]}, "unknown chemical element 'Q'"),
        ({"radial_shifts": [], "angular_shifts": []}, "must not both be empty"),
        ({"widths": 3}, "descriptor 'ani'.*widths"),
    ],
)
def test_ani_parameters_out_of_range(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Descriptor.from_config({**small("ani").to_config(), **changed})


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"radial": [(-0.1, 0.0)]}, "radial: eta must be at least 0"),
        ({"radial": [(0.1, -1.0)]}, "R_s must be at least 0"),
        ({"radial": [(0.1,)]}, r"radial rows must be \(eta, R_s\)"),
        ({"angular": [(0.1, 0.9, 0.0)]}, "zeta must be at least 1"),
        ({"angular": [(0.1, 1.0, 180.0)]}, "theta_s must be in 0 .. pi"),
        ({"angular": [(0.1, 1.0)]}, r"angular rows must be \(eta, zeta, theta_s\)"),
        ({"radial": [(0.1, 0.0), (0.1, 0.0)]}, "twice"),
        ({"radial": {"H": [(0.1, 0.0)]}}, "radial by element must name exactly"),
        ({"radial": [(math.nan, 0.0)]}, "radial must be finite"),
        ({"angular_form": "g6"}, "angular_form must be one of g4, g5"),
        ({"cutoff": math.inf}, "cutoff must be above zero"),
        ({"radial": [], "angular": []}, "must not both be empty"),
    ],
)
def test_behler_parrinello_parameters_out_of_range(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        BehlerParrinello(ELEMENTS, **{**SMALL_BP, **changed})
    with pytest.raises(TypeError, match=r"elements must be a sequence"):
        BehlerParrinello("HCO", **SMALL_BP)


# ------------------------------------------------------------------------------------- derivatives
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("descriptor", [small("behler_parrinello"), small("ani"), per_element()],
                         ids=["bp", "ani", "per element"])  # fmt: skip
def test_jacobian_of_structures_of_different_sizes(descriptor: Descriptor, periodic: bool) -> None:
    batch = ragged(periodic)
    found = descriptor.jacobian(batch)
    assert isinstance(found, list)
    pairs = neighbor_list(batch, descriptor.cutoff)
    index = batch.structure_index

    def features(positions: torch.Tensor) -> torch.Tensor:
        d = displacements(positions, pairs, batch.cell, index)
        return descriptor.features(d, pairs, descriptor.types(batch.numbers))

    whole = torch.autograd.functional.jacobian(features, batch.positions)
    offsets = batch.structure_offsets.tolist()
    for own, begin, end in zip(found, offsets, offsets[1:], strict=False):
        assert own.shape == (end - begin, descriptor.n_features, end - begin, 3)
        assert torch.allclose(own, whole[begin:end, :, begin:end], atol=1e-12)
    if periodic:
        assert float(found[1].abs().max()) > 1e-3


@pytest.mark.parametrize("family", ["behler_parrinello", "ani"])
def test_jacobian_of_equal_structures_against_finite_differences(family: str) -> None:
    descriptor = small(family)
    batch = molecules(3)
    found = descriptor.jacobian(batch)
    assert isinstance(found, torch.Tensor)
    assert found.shape == (3, 5, descriptor.n_features, 5, 3)
    step = 1e-5
    for atom, axis in itertools.product(range(5), range(3)):
        moved = torch.zeros(3, 5, 3, dtype=torch.float64)
        moved[:, atom, axis] = step
        plus = descriptor(batch.with_positions(batch.positions + moved.reshape(-1, 3)))
        minus = descriptor(batch.with_positions(batch.positions - moved.reshape(-1, 3)))
        slope = ((plus - minus) / (2 * step)).reshape(3, 5, -1)
        assert torch.allclose(found[..., atom, axis], slope, atol=1e-7)


@pytest.mark.parametrize("family", ["behler_parrinello", "ani"])
def test_vjp_is_the_gradient_and_differentiable(family: str) -> None:
    descriptor = small(family)
    batch = ragged(True)
    pairs = neighbor_list(batch, descriptor.cutoff)
    d = displacements(batch.positions, pairs, batch.cell, batch.structure_index)
    types = descriptor.types(batch.numbers)
    generator = torch.Generator().manual_seed(0)
    shape = (batch.n_atoms, descriptor.n_features)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    leaf = d.clone().requires_grad_()
    (expected,) = torch.autograd.grad(descriptor.features(leaf, pairs, types), leaf, weights)
    own = descriptor.vjp(weights, d, pairs, types)
    assert torch.allclose(own, expected, atol=1e-13)
    several = torch.stack([weights, 0 * weights, -weights]).requires_grad_()
    each = descriptor.vjp(several, d, pairs, types)
    assert torch.equal(each, torch.stack([own, 0 * own, -own]))
    assert descriptor.vjp(several[:0], d, pairs, types).shape == (0, *d.shape)
    with pytest.raises(RuntimeError, match="has no derivative"):
        each.sum().backward()

    def vjp(grad_features: torch.Tensor) -> torch.Tensor:
        return descriptor.vjp(grad_features, d, pairs, types)

    # J^T is linear in the gradient: its derivative along u is J^T u, and backward gives J w.
    weights.requires_grad_()
    direction = torch.randn(d.shape, generator=generator, dtype=torch.float64)
    (slope,) = torch.autograd.grad(vjp(weights), weights, direction)
    jacobian = descriptor.pair_jacobian(d, pairs, types)
    by_pair = torch.einsum("pfx,px->pf", jacobian, direction)
    expected = torch.zeros_like(slope).index_add(0, pairs.centers, by_pair)
    assert torch.allclose(slope, expected, atol=1e-12)


def test_features_are_differentiable_twice_in_positions_and_cell() -> None:
    descriptor = BehlerParrinello(["H"], radial=[(0.4, 0.3)], angular=[(0.1, 2.0, math.pi)],
                                  cutoff=2.6, cutoff_function="smooth")  # fmt: skip
    batch = Batch.from_arrays([1, 1], [[0.0, 0, 0], [0.9, 0.8, 0.7]], np.eye(3) * 2.3, True)
    pairs = neighbor_list(batch, 2.6)

    def energy(positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        return descriptor(batch.with_positions(positions, cell), pairs).sum(0).square().sum()

    inputs = (batch.positions.clone().requires_grad_(), batch.cell.clone().requires_grad_())
    assert torch.autograd.gradcheck(energy, inputs)
    assert torch.autograd.gradgradcheck(energy, inputs)


# --------------------------------------------------------------------------------------- behaviour
@given(st.integers(0, 1000), st.sampled_from(["behler_parrinello", "ani"]))
def test_invariances(seed: int, family: str) -> None:
    descriptor = small(family)
    batch = molecules(1, seed)
    generator = np.random.default_rng(seed)
    features = descriptor(batch)
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    moved = batch.positions.numpy() @ rotation + generator.normal(size=3) * 10
    assert torch.allclose(descriptor(Batch.from_arrays(batch.numbers, moved)), features, atol=1e-11)
    order = torch.from_numpy(generator.permutation(5))
    permuted = Batch.from_arrays(batch.numbers[order], batch.positions[order])
    assert torch.allclose(descriptor(permuted), features[order], atol=1e-12)


@pytest.mark.parametrize("periodic", [False, True])
def test_a_batch_is_its_structures_one_by_one(periodic: bool) -> None:
    descriptor = small("ani")
    batch = ragged(periodic)
    alone = torch.cat([descriptor(Batch.from_structures([s])) for s in batch])
    assert torch.equal(descriptor(batch), alone)


def test_a_longer_list_gives_the_same_and_a_shorter_one_is_refused() -> None:
    descriptor = small("behler_parrinello")
    batch = molecules(2)
    features = descriptor(batch)
    for cutoff in (6.0, math.inf):
        assert torch.allclose(descriptor(batch, neighbor_list(batch, cutoff)), features, atol=1e-14)
    with pytest.raises(ValueError, match=r"cutoff must be at least the descriptor's 3.5"):
        descriptor(batch, neighbor_list(batch, 3.4))


def test_unknown_elements_and_coincident_atoms() -> None:
    descriptor = small("ani")
    with pytest.raises(ValueError, match=r"unknown element N, Cl: this descriptor knows"):
        descriptor(Batch.from_arrays([1, 7, 17], np.diag([1.0, 2.0, 3.0])))
    with pytest.raises(ValueError, match=r"structure 0: atoms 0 and 1 coincide"):
        descriptor(Batch.from_arrays([1, 1], np.zeros((2, 3))))


def test_no_atoms_and_no_neighbours() -> None:
    for descriptor in (small("ani"), small("behler_parrinello")):
        empty = descriptor(Batch.from_structures([]))
        assert empty.shape == (0, descriptor.n_features)
        lone = Batch.from_arrays([1], [[0.0, 0, 0]])
        assert torch.equal(descriptor(lone), torch.zeros(1, descriptor.n_features).double())
        assert torch.equal(
            torch.as_tensor(descriptor.jacobian(lone)),
            torch.zeros(1, 1, descriptor.n_features, 1, 3).double(),
        )


def test_precision_follows_the_positions_and_parameters_keep_theirs() -> None:
    descriptor = ANI.ani2x(ELEMENTS)
    batch = molecules(2)
    exact = descriptor(batch)
    single = descriptor(batch.to(dtype=torch.float32))
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, atol=1e-5)
    # A trip through float32 must not round the parameters.
    for module in (descriptor.to(torch.float32), copy.deepcopy(descriptor).half().double()):
        assert torch.equal(module(batch), exact)
    assert torch.equal(copy.deepcopy(descriptor)(batch), exact)
    assert descriptor.state_dict() == {}


def test_types_are_kept_with_the_batch() -> None:
    descriptor = small("ani")
    batch = molecules(1)
    types = descriptor.batch_types(batch)
    assert types.tolist() == [2, 0, 1, 0, 0]
    assert descriptor.batch_types(batch.with_positions(batch.positions + 1)) is types
    other = ANI(["O", "C", "H"], **SMALL_ANI)
    assert other.batch_types(batch).tolist() == [0, 2, 1, 2, 2]
