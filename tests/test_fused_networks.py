"""All networks in one op against the networks one by one; weights that change; what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pymlp import ElementNetworks, Potential
from pymlp.fused_networks import FusedNetworks, element_networks
from pymlp.networks import ACTIVATIONS, group_by_element
from tests.potentials import descriptor, molecules

ELEMENTS = ("H", "C", "O")
F = 9


def committee(
    activation: str = "tanh",
    hidden: tuple[int, ...] = (5, 7),
    residual: bool = False,
    dtype: torch.dtype = torch.float64,
    members: int = 2,
) -> list[ElementNetworks]:
    """Networks with scalers and biases that are not trivial."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for seed in range(members):
        net = ElementNetworks(F, ELEMENTS, hidden, activation, residual, seed=seed, dtype=dtype)
        for name in ("feature_mean", "feature_scale", "energy_scale", "energy_shift"):
            buffer = getattr(net, name)
            buffer += torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            for bias in net.biases:
                bias += torch.rand(bias.shape, generator=generator).to(dtype)
        made.append(net)
    return made


def inputs(n_atoms: int, dtype: torch.dtype, n_types: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n_atoms)
    features = 3 * torch.randn(n_atoms, F, generator=generator, dtype=torch.float64)
    return features.to(dtype), torch.randint(0, n_types, (n_atoms,), generator=generator)


def check(fused: FusedNetworks, features: Tensor, types: Tensor) -> None:
    energies, slopes = fused.energies_and_slopes(features, types)
    expected, expected_slopes = fused._one_by_one(features, types, None, True)
    exact = features.dtype == fused.networks[0].dtype == torch.float64
    tolerance = 1e-11 if exact else 2e-5
    assert energies.dtype == torch.float64
    assert torch.allclose(energies, expected, rtol=0, atol=tolerance)
    assert len(slopes) == len(expected_slopes) == len(fused.networks)
    for own, slope in zip(slopes, expected_slopes, strict=True):
        assert own.dtype == features.dtype
        assert torch.allclose(own, slope, rtol=tolerance, atol=tolerance)
    alone, none = fused.energies_and_slopes(features, types, None, False)
    assert torch.equal(alone, energies)
    assert none is None


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_width_and_precision(activation: str) -> None:
    dtypes = (torch.float32, torch.float64)
    shapes = [((), False), ((50, 50), False), ((5,), False), ((9, 18, 18), True)]
    for (hidden, residual), dtype, weights in itertools.product(shapes, dtypes, dtypes):
        fused = FusedNetworks(committee(activation, hidden, residual, weights))
        assert fused._alike == (activation != "gelu")
        check(fused, *inputs(23, dtype))


@pytest.mark.parametrize("n_atoms", [0, 1, 6, 7, 400])
def test_any_number_of_atoms_and_threads(n_atoms: int) -> None:
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            for n_types in (1, 3):
                check(FusedNetworks(committee()), *inputs(n_atoms, torch.float64, n_types))
    finally:
        torch.set_num_threads(before)


def test_changed_weights_are_seen() -> None:
    networks = committee()
    fused = FusedNetworks(networks)
    features, types = inputs(8, torch.float64)
    check(fused, features, types)
    with torch.no_grad():
        networks[1].weights[0].mul_(1.1)
    check(fused, features, types)
    networks[0].feature_mean += 0.3
    check(fused, features, types)
    networks[0].load_state_dict(networks[1].state_dict())
    check(fused, features, types)
    networks[0].whiten(torch.linalg.qr(torch.rand(3, F, F, dtype=torch.float64)).Q)
    check(fused, features, types)
    for network in networks:
        network.float()
    check(fused, features, types)
    networks[0].double()  # no longer alike: one by one
    check(fused, features, types)


def test_a_potential_follows_its_networks() -> None:
    parts = descriptor()
    networks = [
        ElementNetworks(parts.n_features, parts.elements, (6,), seed=k, dtype=torch.float64)
        for k in range(3)
    ]
    model = Potential(parts, networks)
    batch = molecules()
    for _ in range(2):
        out = model.compute(batch)
        batch.positions.requires_grad_()
        energy = model(batch)
        (slope,) = torch.autograd.grad(energy.sum(), batch.positions)
        batch.positions.requires_grad_(False)
        assert torch.allclose(out.energy, energy, rtol=0, atol=1e-10)
        assert torch.allclose(out.forces, -slope, rtol=0, atol=1e-10)
        model.networks[2] = ElementNetworks(
            parts.n_features, parts.elements, (6,), seed=9, dtype=torch.float64
        )


def test_what_does_not_fit_is_refused() -> None:
    fused = FusedNetworks(committee())
    features, types = inputs(8, torch.float64)
    fused.energies_and_slopes(features, types)
    order = group_by_element(types, 3).order
    good = {
        "features": features,
        "types": types,
        "order": order,
        "weights": fused._weights,
        "scalers": fused._scalers[torch.float64],
        "energy_scales": fused._energy_scales,
        "widths": fused._widths,
        "activation": 0,
        "residual": False,
        "with_slopes": True,
    }
    element_networks(**good)
    for change, message in (
        ({"features": features[:, :-1]}, r"features: expected shape \[A, widths\[0\]\]"),
        ({"features": features.long()}, "features: expected a float32 or float64 tensor"),
        ({"types": types + 3}, "types: expected values in 0"),
        ({"types": types[:-1]}, r"types: expected shape \[A\]"),
        ({"order": order - 1}, "order: expected values in 0"),
        ({"weights": fused._weights[..., :-1]}, r"weights: expected shape \[M, n_types"),
        ({"scalers": good["scalers"].float()}, "scalers: expected the dtype of features"),
        ({"energy_scales": fused._energy_scales.float()}, "energy_scales: expected float64"),
        ({"widths": torch.tensor([9, 0])}, "widths: expected positive numbers"),
        ({"widths": torch.full((17,), 9)}, "widths: expected 1 to 16 numbers"),
        ({"activation": 6}, "activation: expected 0 ... 5"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            element_networks(**(good | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("fused", [False, True])
def test_steps_of_optimisers_are_noticed(fused: bool) -> None:
    """Fused optimisers change weights and not their version."""
    nets = committee(members=1)
    networks = FusedNetworks(nets)
    features, types = inputs(11, torch.float64)
    check(networks, features, types)
    optimizer = torch.optim.Adam(nets[0].parameters(), lr=0.3, fused=fused)
    nets[0](features, types).sum().backward()
    optimizer.step()
    check(networks, features, types)
