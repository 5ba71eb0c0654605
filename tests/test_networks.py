"""Per-element networks: grouping, derivatives, scalers, atomic energies."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pymlp import ElementNetworks
from pymlp.networks import ACTIVATIONS, group_by_element

ELEMENTS = ("H", "C", "O")
SMOOTH = [name for name in ACTIVATIONS if name != "relu"]


def networks(activation: str = "tanh", hidden: tuple[int, ...] = (5, 4)) -> ElementNetworks:
    """Networks with scalers that are not trivial."""
    made = ElementNetworks(6, ELEMENTS, hidden, activation, seed=7, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for name in ("feature_mean", "feature_scale", "energy_scale", "energy_shift"):
        buffer = getattr(made, name)
        buffer += torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
    return made


def inputs(n_atoms: int, seed: int = 0, n_types: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_atoms, 6, generator=generator, dtype=torch.float64)
    return features, torch.randint(0, n_types, (n_atoms,), generator=generator)


def by_hand(net: ElementNetworks, features: Tensor, types: Tensor) -> Tensor:
    """Atom by atom, after eqs 12 and 13."""
    energies = []
    for x, t in zip(features, types.tolist(), strict=True):
        x = (x - net.feature_mean[t]) / net.feature_scale[t]
        last = len(net.weights) - 1
        for layer in range(last + 1):
            x = net.weights[layer][t] @ x + net.biases[layer][t]
            if layer < last:
                x = ACTIVATIONS[net.activation][0](x)
        energies.append(x[0] * net.energy_scale[t] + net.energy_shift[t])
    return torch.stack(energies) if energies else torch.zeros(0, dtype=torch.float64)


@given(st.integers(0, 12), st.integers(0, 100), st.integers(1, 3), st.sampled_from([(), (5, 4)]))
def test_grouped_evaluation_is_atom_by_atom(
    n_atoms: int, seed: int, n_types: int, hidden: tuple[int, ...]
) -> None:
    net = networks(hidden=hidden)
    features, types = inputs(n_atoms, seed, n_types)
    expected = by_hand(net, features, types)
    groups = group_by_element(types, 3)
    assert torch.allclose(net(features, types), expected, atol=1e-13)
    assert torch.equal(net(features, types, groups), net(features, types))
    energies, slopes = net.energies_and_slopes(features, types, groups)
    assert torch.allclose(energies, expected, atol=1e-13)
    assert slopes is not None
    assert slopes.shape == features.shape


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_slopes_by_hand_are_those_of_autograd(activation: str) -> None:
    net = networks(activation)
    features, types = inputs(40)
    features.requires_grad_()
    energies = net(features, types)
    (expected,) = torch.autograd.grad(energies.sum(), features)
    groups = group_by_element(types, 3)
    found, slopes = net.energies_and_slopes(features.detach(), types, groups)
    assert torch.allclose(found, energies, atol=1e-14)
    assert torch.allclose(slopes, expected, atol=1e-13)
    assert net.energies_and_slopes(features.detach(), types, groups, False)[1] is None
    assert not found.requires_grad


@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_activations_have_two_derivatives(activation: str) -> None:
    net = networks(activation, (3,))
    features, types = inputs(4)
    features.requires_grad_()
    assert net.trains_on_forces

    def energy(x: Tensor, *_: Tensor) -> Tensor:
        return net(x, types).square().sum()

    arguments = (features, *net.parameters())
    assert torch.autograd.gradcheck(energy, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(energy, arguments, fast_mode=True)
    assert not networks("relu").trains_on_forces


def test_all_parameters_of_present_elements_get_a_gradient() -> None:
    net = networks()
    features, _ = inputs(5)
    net(features, torch.tensor([0, 0, 2, 2, 2])).sum().backward()
    for weight in net.weights:
        assert bool((weight.grad[[0, 2]] != 0).any())
        assert bool((weight.grad[1] == 0).all())


def test_seeds() -> None:
    first, again, other = (ElementNetworks(6, ELEMENTS, seed=s) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.weights, again.weights, strict=True))
    assert not torch.equal(first.weights[0], other.weights[0])
    assert not torch.equal(first.weights[0][0], first.weights[0][1])
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ElementNetworks(6, ELEMENTS, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_scaler_standardises_each_element() -> None:
    net = ElementNetworks(6, ELEMENTS, (4,), seed=0, dtype=torch.float64)
    features, types = inputs(300, n_types=2)
    features = features * torch.arange(1, 7) + 5 * types[:, None]
    features[:, 3] = 0.1  # constant, and no binary fraction
    net.fit_scaler(features, types)
    for index in (0, 1):
        own = features[types == index]
        scaled = (own - net.feature_mean[index]) / net.feature_scale[index]
        moving = [0, 1, 2, 4, 5]
        assert torch.allclose(scaled.mean(0), torch.zeros(6).double(), atol=1e-12)
        assert torch.allclose(scaled[:, moving].square().mean(0), torch.ones(5).double())
        assert float(net.feature_scale[index, 3]) == 1.0
    assert torch.equal(net.feature_scale[2], torch.ones(6).double())
    assert torch.equal(net.feature_mean[2], torch.zeros(6).double())
    with pytest.raises(ValueError, match="features must be finite"):
        net.fit_scaler(features * math.nan, types)


def compositions(counts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Types and structure index of structures with the given numbers of H, C, O."""
    types = [t for row in counts for t, n in enumerate(row) for _ in range(n)]
    index = [k for k, row in enumerate(counts) for n in row for _ in range(n)]
    return torch.tensor(types), torch.tensor(index)


@given(st.integers(0, 1000))
def test_atomic_energies_are_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 5, size=(8, 3))
    counts[:3] = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    atomic = torch.tensor([-13.6, -1030.0, -2042.0], dtype=torch.float64)
    types, index = compositions(counts.tolist())
    energies = torch.from_numpy(counts).double() @ atomic
    net = ElementNetworks(6, ELEMENTS, seed=0)
    left = net.fit_energy_shifts(energies, types, index)
    assert torch.allclose(net.energy_shift, atomic, rtol=1e-10)
    assert float(left.abs().max()) < 1e-8


def test_one_formula_leaves_atomic_energies_open_and_takes_the_smallest() -> None:
    types, index = compositions([[8, 5, 1]] * 20)
    generator = torch.Generator().manual_seed(0)
    energies = -7000 + torch.randn(20, generator=generator, dtype=torch.float64)
    net = ElementNetworks(6, ELEMENTS, seed=0)
    left = net.fit_energy_shifts(energies, types, index)
    assert torch.allclose(left, energies - energies.mean(), atol=1e-9)
    # What the formula fixes is shared evenly: each atom gets the mean.
    assert torch.allclose(net.energy_shift, energies.mean() / 14 * torch.ones(3).double())
    spread = float((left / math.sqrt(14)).square().mean().sqrt())
    assert net.energy_scale.tolist() == pytest.approx([spread] * 3)
    # Oxygen in no structure; equal energies leave no spread to take as the scale.
    types, index = compositions([[4, 1, 0]] * 3)
    left = net.fit_energy_shifts(torch.full((3,), -40.0).double(), types, index)
    assert float(net.energy_shift[2]) == 0.0
    assert net.energy_scale.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="energies must be finite"):
        net.fit_energy_shifts(torch.tensor([math.nan] * 3), types, index)


def test_the_scale_can_be_left_alone() -> None:
    net = networks()
    before = net.energy_scale.clone()
    types, index = compositions([[2, 0, 1], [4, 1, 0]])
    net.fit_energy_shifts(torch.tensor([-76.0, -40.0]), types, index, scale=False)
    assert torch.equal(net.energy_scale, before)


def test_scalers_keep_float64_and_weights_follow() -> None:
    net = networks()
    shift, mean = net.energy_shift.clone(), net.feature_mean.clone()
    features, types = inputs(9)
    exact = net(features, types)
    net = net.to(torch.float32)
    assert net.dtype == torch.float32
    assert torch.equal(net.energy_shift, shift)
    assert torch.equal(net.feature_mean, mean)
    energies = net(features.float(), types)
    assert energies.dtype == torch.float64
    assert torch.allclose(energies, exact, atol=1e-5)
    # Total energies of thousands of eV keep their digits.
    net.energy_shift -= 2042.0
    assert torch.allclose(net(features.float(), types), exact - 2042, atol=1e-5)
    _, slopes = net.energies_and_slopes(features.float(), types, group_by_element(types, 3))
    assert slopes is not None
    assert slopes.dtype == torch.float32


def test_configuration_and_state() -> None:
    net = networks("silu", (4,))
    again = ElementNetworks.from_config(json.loads(json.dumps(net.to_config())), torch.float64)
    again.load_state_dict(net.state_dict())
    features, types = inputs(9)
    assert torch.equal(again(features, types), net(features, types))
    with pytest.raises(ValueError, match="network:.*layers"):
        ElementNetworks.from_config({**net.to_config(), "layers": 2})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, ELEMENTS), "n_features and hidden must be at least 1"),
        ((6, ELEMENTS, (5, 0)), "n_features and hidden must be at least 1"),
        ((6, ()), "elements must be a sequence"),
        ((6, "HCO"), "elements must be a sequence"),
        ((6, ELEMENTS, (5,), "cos"), "activation must be one of tanh, .*got 'cos'"),
    ],
)
def test_bad_networks(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ElementNetworks(*arguments)  # type: ignore[arg-type]


def test_a_wrong_number_of_features() -> None:
    with pytest.raises(ValueError, match=r"features must have shape \[A, 6\], got \[2, 7\]"):
        networks()(torch.zeros(2, 7).double(), torch.tensor([0, 1]))
