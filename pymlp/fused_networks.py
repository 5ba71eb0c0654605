"""Atomic networks in one call: of a committee, for prediction; of one member, for training.

``torch.ops.pymlp.element_networks`` computes atoms of one element six at a time, through all layers
and back, for all networks: no graph, no sorted copies, one call where torch needs ten for each
layer, element and network. Energies and slopes of one 14-atom molecule (BP set, 2 x 50 tanh) take
15 µs where the networks one by one in torch take 190, and 30 for a committee of four where they
take 730.

``torch.ops.pymlp.element_networks_to_train`` gives energies and slopes that are differentiable once
in weights and features, which is what a loss on energies and forces needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook

from pymlp import ops
from pymlp.networks import ElementGroups, ElementNetworks, group_by_element

__all__ = ["FusedNetworks", "element_networks", "energies_and_slopes_to_train"]

#: Numbers of the activations that the op knows (csrc/formulas/activation.h).
ACTIVATIONS = {"tanh": 0, "sigmoid": 1, "sin": 2, "silu": 3, "celu": 4, "relu": 5}


#: Hidden layers that the ops have room for.
MOST_LAYERS = 15


def _known(network: ElementNetworks) -> bool:
    return network.activation in ACTIVATIONS and len(network.hidden) <= MOST_LAYERS


def element_networks(
    features: Tensor,
    types: Tensor,
    order: Tensor,
    weights: Tensor,
    scalers: Tensor,
    energy_scales: Tensor,
    widths: Tensor,
    activation: int,
    residual: bool,
    with_slopes: bool,
) -> tuple[Tensor, Tensor]:
    """Energies of atoms, and their slopes in the features, of M networks; CPU tensors, no graph.

    Args:
        features: [A, F], float32 or float64.
        types: [A] int64.
        order: [A] int64, the atoms sorted by type (in blocks at least).
        weights: [M, n_types, n], as :func:`packed` lays them out.
        scalers: [M, n_types, 3, F] in the features' dtype: mean, width, and what turns a slope of
            the output in the standardised feature into dE/dG.
        energy_scales: [M, n_types, 2] float64: scale and shift, eV.
        widths: [1 + hidden layers] int64: F, then of the hidden layers.
        activation: its number in :data:`ACTIVATIONS`.
        residual: as of the networks.
        with_slopes: ``False`` leaves the slopes empty.

    Returns:
        Energies [M, A] eV, float64; slopes [M, A, F] eV in the features' dtype.

    Raises:
        ValueError: for shapes, dtypes, devices or numbers that do not fit.
    """
    ops._check_float("features", features)
    result: tuple[Tensor, Tensor] = torch.ops.pymlp.element_networks.default(
        features,
        types,
        order,
        weights,
        scalers,
        energy_scales,
        widths,
        activation,
        residual,
        with_slopes,
    )
    return result


def packed(networks: Sequence[ElementNetworks]) -> Tensor:
    """Weights of networks of one shape as the op wants them, [M, n_types, n].

    For each hidden layer its matrix [in, padded out], bias [padded out] and the matrix [out, padded
    in]; then the last layer's row and bias. Rows are padded with zeros to a multiple of 8.
    """

    def rows(matrix: Tensor) -> Tensor:
        full = functional.pad(matrix, (0, -matrix.shape[-1] % 8))
        return full.reshape(*matrix.shape[:-2], -1)

    members = []
    for network in networks:
        *hidden, last = zip(network.effective_weights(), network.biases, strict=True)
        parts = []
        for weight, bias in (*hidden, last):
            if weight is not last[0]:
                parts += [rows(weight.transpose(1, 2)), rows(bias[:, None]), rows(weight)]
            else:
                parts += [rows(weight), rows(bias[:, None])]
        members.append(torch.cat(parts, dim=1))
    return torch.stack(members)


def _scalers(network: ElementNetworks, dtype: torch.dtype) -> Tensor:
    """Mean, width, and what turns a slope by the standardised feature into dE/dG."""
    mean, scale = network.feature_mean.to(dtype), network.feature_scale.to(dtype)
    width = (network.energy_scale[:, None] / network.feature_scale).to(dtype)
    return torch.stack([mean, scale, width], dim=1)


#: of all optimisers: fused ones change weights without changing their version
_optimizer_steps = 0


def _count_step(*_: Any) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


register_optimizer_step_post_hook(_count_step)


class FusedNetworks:
    """Networks that take the same features, computed together where the op can.

    The op's copy of the weights is made at the first call, and again when a weight has changed.
    Other devices, other activations (gelu), networks of different shapes, and ``torch.compile``
    take the networks one by one.

    Args:
        networks: at least one.
    """

    def __init__(self, networks: Sequence[ElementNetworks]) -> None:
        self.networks = list(networks)
        first = self.networks[0]
        self._alike = _known(first) and all(
            network.to_config() == first.to_config() for network in self.networks
        )
        self._modules = [m for n in self.networks for m in (n, n.weights, n.biases)]
        self._made_of: list[int] = []
        self._weights = torch.zeros(0)
        self._scalers: dict[torch.dtype, Tensor] = {}
        self._energy_scales = torch.zeros(0)
        self._widths = torch.tensor([first.n_features, *first.hidden])

    @torch.no_grad()
    def energies_and_slopes(
        self,
        features: Tensor,
        types: Tensor,
        groups: ElementGroups | None = None,
        slopes: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Return energies and dE/dG of every network.

        Args:
            features: [A, F].
            types: [A] int64.
            groups: the atoms sorted by element; made here if ``None``.
            slopes: ``False`` leaves dE/dG out.

        Returns:
            Energies [M, A] eV, float64, and slopes [M, A, F] in the features' precision
            or ``None``.
        """
        if torch.compiler.is_compiling() or not self._alike or not features.is_cpu:
            return self._one_by_one(features, types, groups, slopes)
        if groups is None:
            groups = group_by_element(types, len(self.networks[0].elements))
        state = self._state()
        if state != self._made_of:
            if len({network.dtype for network in self.networks}) > 1:
                return self._one_by_one(features, types, groups, slopes)
            self._prepare()
            self._made_of = state
        scalers = self._scalers.get(features.dtype)
        if scalers is None:
            scalers = self._scalers[features.dtype] = self._make_scalers(features.dtype)
        first = self.networks[0]
        energies, found = element_networks(
            features,
            types,
            groups.order,
            self._weights,
            scalers,
            self._energy_scales,
            self._widths,
            ACTIVATIONS[first.activation],
            first.residual,
            slopes,
        )
        return energies, found if slopes else None

    def _state(self) -> list[int]:
        """Address and version of all weights and scalers: another where one has changed."""
        state = [_optimizer_steps]
        for module in self._modules:  # the dictionaries, since nn.Module takes longer to ask
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    state += (tensor.data_ptr(), tensor._version)
        return state

    def _prepare(self) -> None:
        self._weights = packed(self.networks)
        self._energy_scales = torch.stack(
            [torch.stack([n.energy_scale, n.energy_shift], dim=1) for n in self.networks]
        )
        self._scalers = {}

    def _make_scalers(self, dtype: torch.dtype) -> Tensor:
        return torch.stack([_scalers(network, dtype) for network in self.networks])

    def _one_by_one(
        self, features: Tensor, types: Tensor, groups: ElementGroups | None, slopes: bool
    ) -> tuple[Tensor, Tensor | None]:
        found = [n.energies_and_slopes(features, types, groups, slopes) for n in self.networks]
        by_feature = [slope for _, slope in found if slope is not None]
        return torch.stack([e for e, _ in found]), torch.stack(by_feature) if slopes else None


def _register_training() -> None:
    name = "element_networks_to_train"
    gradient = ops._overload(f"{name}_backward")

    def vjp(ctx: Any, grad_energies: Tensor, grad_slopes: Tensor) -> Any:
        with_features = ctx.needs_input_grad[0]
        by_feature, by_weight = gradient(
            grad_energies, grad_slopes, *ops._inputs(ctx), with_features
        )
        return ops._with_none(ctx, by_feature if with_features else None, by_weight)

    def refuse(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "energies and slopes of networks in training are differentiable once; for more, call "
            "the networks and differentiate their energies"
        )

    ops._register_autograd(name, vjp, n_inputs=2)
    ops._register_autograd(f"{name}_backward", refuse, n_inputs=4)


_register_training()


def energies_and_slopes_to_train(
    network: ElementNetworks,
    features: Tensor,
    types: Tensor,
    groups: ElementGroups | None = None,
    *,
    create_graph: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return energies and dE/dG, both differentiable once in the weights and the features.

    In one op where it can be: on the CPU, features and weights in one precision, activations that
    the op knows. Otherwise by autograd.

    Args:
        network: of one member.
        features: [A, F].
        types: [A] int64.
        groups: the atoms sorted by element; made here where they are needed.
        create_graph: ``False`` where nothing will be differentiated.

    Returns:
        Energies [A] eV, float64, and slopes [A, F] in the features' precision.
    """
    if not _known(network) or not features.is_cpu or network.dtype != features.dtype:
        x = features if features.requires_grad else features.detach().requires_grad_()
        atomic = network(x, types, groups)
        (slopes,) = torch.autograd.grad(atomic.sum(), x, create_graph=create_graph)
        return atomic, slopes
    n_types = len(network.elements)
    layers = zip(network.effective_weights(), network.biases, strict=True)
    rows = [tensor.reshape(n_types, -1) for layer in layers for tensor in layer]
    result: tuple[Tensor, Tensor] = torch.ops.pymlp.element_networks_to_train.default(
        features,
        torch.cat(rows, dim=1),
        types,
        _scalers(network, features.dtype)[None],
        torch.stack([network.energy_scale, network.energy_shift], dim=1)[None],
        [network.n_features, *network.hidden],
        ACTIVATIONS[network.activation],
        network.residual,
    )
    return result
