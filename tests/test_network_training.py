"""Energies and slopes of networks in one differentiable op, against autograd."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import ElementNetworks
from pymlp.fused_networks import energies_and_slopes_to_train
from pymlp.networks import ACTIVATIONS
from tests.test_fused_networks import F, committee, inputs

SHAPES = [((), False), ((50, 50), False), ((5,), False), ((9, 18, 18), True)]


def by_autograd(network: ElementNetworks, x: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
    energies = network(x, types)
    (slopes,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
    return energies, slopes


def results(make: Any, network: ElementNetworks, x: Tensor, types: Tensor) -> list[Tensor]:
    """Energies, slopes, and the gradient of a product of both with fixed numbers."""
    generator = torch.Generator().manual_seed(5)
    x = x.clone().requires_grad_()
    energies, slopes = make(network, x, types)
    product = (energies * torch.randn(energies.shape, generator=generator).double()).sum()
    product = product + (slopes * torch.randn(x.shape, generator=generator).to(x)).sum()
    leaves = [x, *network.parameters()]
    gradients = torch.autograd.grad(product, leaves, allow_unused=True)
    found = [
        g if g is not None else torch.zeros_like(p) for g, p in zip(gradients, leaves, strict=True)
    ]
    return [energies.detach(), slopes.detach(), *found]


def check(network: ElementNetworks, x: Tensor, types: Tensor) -> None:
    own = results(energies_and_slopes_to_train, network, x, types)
    expected = results(by_autograd, network, x, types)
    relative = 1e-12 if x.dtype == torch.float64 else 3e-5
    for a, b in zip(own, expected, strict=True):
        assert a.dtype == b.dtype
        assert float((a - b).abs().max()) <= relative * (1 + float(b.abs().max()))


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"gelu"}))
def test_every_activation_width_and_precision(activation: str) -> None:
    for (hidden, residual), dtype in itertools.product(SHAPES, (torch.float32, torch.float64)):
        network = committee(activation, hidden, residual, dtype, members=1)[0]
        if activation == "relu" and not hidden:
            continue  # linear: autograd has no second derivative to compare with
        check(network, *inputs(61, dtype))


@pytest.mark.parametrize("n_atoms", [1, 24, 25, 3000])
@pytest.mark.parametrize("n_types", [1, 3])
def test_any_number_of_atoms(n_atoms: int, n_types: int) -> None:
    check(committee(members=1)[0], *inputs(n_atoms, torch.float64, n_types))


def test_no_atoms() -> None:
    network = committee(members=1)[0]
    energies, slopes = energies_and_slopes_to_train(network, *inputs(0, torch.float64))
    (energies.sum() + slopes.sum()).backward()
    assert (energies.shape, slopes.shape) == ((0,), (0, F))
    assert all(not p.grad.any() for p in network.parameters())


def test_other_networks_go_through_autograd() -> None:
    check(committee("gelu", members=1)[0], *inputs(7, torch.float64))
    x, types = inputs(7, torch.float64)
    single = committee(members=1, dtype=torch.float32)[0]
    energies, slopes = energies_and_slopes_to_train(single, x, types)
    assert (energies.dtype, slopes.dtype) == (torch.float64, torch.float64)
    assert slopes.requires_grad


def test_weights_behind_a_fixed_rotation() -> None:
    network = committee(members=1)[0]
    network.whiten(torch.linalg.qr(torch.rand(3, F, F, dtype=torch.float64)).Q)
    check(network, *inputs(20, torch.float64))


def test_the_same_bits_on_two_threads() -> None:
    network, (x, types) = committee(members=1)[0], inputs(3000, torch.float64)
    before = torch.get_num_threads()
    found = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        found.append(results(energies_and_slopes_to_train, network, x, types))
    torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_a_second_derivative_is_refused() -> None:
    network, (x, types) = committee(members=1)[0], inputs(5, torch.float64)
    energies, slopes = energies_and_slopes_to_train(network, x, types)
    (gradient,) = torch.autograd.grad(
        slopes.square().sum() + energies.sum(), network.weights[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiable once"):
        gradient.sum().backward()


def test_what_does_not_fit_is_refused() -> None:
    x, types = inputs(6, torch.float64)
    n = (F + 1) * 5 + 6
    good: dict[str, Any] = {
        "features": x,
        "parameters": torch.zeros(3, n).double(),
        "types": types,
        "scalers": torch.ones(1, 3, 3, F).double(),
        "energy_scales": torch.ones(1, 3, 2).double(),
        "widths": [F, 5],
        "activation": 0,
        "residual": False,
    }
    op = torch.ops.pymlp.element_networks_to_train.default
    op(*good.values())
    wrong: list[tuple[str, Any, str]] = [
        ("features", x[:, 1:], "features"),
        ("features", x.long(), "features"),
        ("parameters", good["parameters"][:, 1:], "parameters"),
        ("parameters", good["parameters"].float(), "parameters"),
        ("types", types[1:], "types"),
        ("types", types + 3, "types"),
        ("types", types - 3, "types"),
        ("scalers", good["scalers"].repeat(2, 1, 1, 1), "scalers"),
        ("energy_scales", good["energy_scales"].float(), "energy_scales"),
        ("widths", [F, 0], "widths"),
        ("widths", [F] * 40, "widths"),
        ("activation", 9, "activation"),
    ]
    for name, value, named in wrong:
        with pytest.raises(ValueError, match=named):
            op(*(good | {name: value}).values())
