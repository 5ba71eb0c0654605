"""Feed-forward networks, one per element: atomic energies from features (eqs 12, 13).

E_i = scale_t · net_t((G_i - mean_t) / width_t) + shift_t for an atom of element t. The means,
widths, scales and shifts are float64 buffers, set from the training set, not trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ACTIVATIONS", "ElementGroups", "ElementNetworks", "group_by_element"]


def _sigmoid_slope(x: Tensor, y: Tensor) -> Tensor:
    return y * (1 - y)


def _silu_slope(x: Tensor, y: Tensor) -> Tensor:
    share = torch.sigmoid(x)
    return share * (1 + x * (1 - share))


def _gelu_slope(x: Tensor, y: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density


_Function: TypeAlias = Callable[[Tensor], Tensor]
_Slope: TypeAlias = Callable[[Tensor, Tensor], Tensor]

#: Activation functions by name: y(x), and dy/dx as a function of x and y (for prediction, which
#: does without autograd). All but relu have the second derivative that force training needs.
ACTIVATIONS: dict[str, tuple[_Function, _Slope]] = {
    "tanh": (torch.tanh, lambda x, y: 1 - y * y),
    "sigmoid": (torch.sigmoid, _sigmoid_slope),
    "sin": (torch.sin, lambda x, y: torch.cos(x)),
    "silu": (functional.silu, _silu_slope),
    "celu": (functional.celu, lambda x, y: torch.where(x > 0, torch.ones_like(x), y + 1)),
    "gelu": (functional.gelu, _gelu_slope),
    "relu": (functional.relu, lambda x, y: (x > 0).to(x.dtype)),
}

# Features whose spread is below this share of their size are constant, up to rounding.
_CONSTANT = 1e-10


@dataclass(frozen=True)
class ElementGroups:
    """The atoms of a batch sorted by element.

    Attributes:
        order: [A] int64, atoms of type 0 first, then of type 1 ...
        inverse: [A] int64, where each atom stands in ``order``.
        counts: atoms of each type.
    """

    order: Tensor
    inverse: Tensor
    counts: tuple[int, ...]


def group_by_element(types: Tensor, n_types: int) -> ElementGroups:
    """Sort atoms by type, stably.

    Args:
        types: [A] int64 in 0 .. n_types - 1.
        n_types: number of types.
    """
    order = torch.argsort(types, stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    counts = torch.bincount(types, minlength=n_types).tolist()
    return ElementGroups(order, inverse, tuple(counts))


class ElementNetworks(nn.Module):
    """One feed-forward network for each element.

    Atoms are sorted by element, so that each layer of each element is one matrix product.

    Args:
        n_features: F.
        elements: chemical symbols; their positions are the types.
        hidden: widths of the hidden layers; none gives a linear model.
        activation: ``"tanh"``, ``"sigmoid"``, ``"sin"``, ``"silu"``, ``"celu"``, ``"gelu"``, or
            ``"relu"``, which has no second derivative and serves training on energies alone.
        residual: whether a hidden layer's input is added to its output where the width stays, and
            the input beside itself where it doubles.
        seed: of the initial weights; ``None`` takes torch's global generator.
        dtype: of the weights; torch's default if ``None``.

    Raises:
        ValueError: for sizes below one, an unknown activation, or no elements.
    """

    feature_mean: Tensor
    feature_scale: Tensor
    energy_scale: Tensor
    energy_shift: Tensor

    rotation: Tensor | None

    _FLOAT64 = ("feature_mean", "feature_scale", "energy_scale", "energy_shift")

    def __init__(
        self,
        n_features: int,
        elements: Sequence[str],
        hidden: Sequence[int] = (50, 50),
        activation: str = "tanh",
        residual: bool = False,
        *,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.n_features = int(n_features)
        self.elements = tuple(elements)
        self.hidden = tuple(int(width) for width in hidden)
        if isinstance(elements, str) or not self.elements:
            raise ValueError(f"elements must be a sequence of symbols, got {elements!r}")
        if self.n_features < 1 or any(width < 1 for width in self.hidden):
            raise ValueError(
                f"n_features and hidden must be at least 1, got {n_features}, {self.hidden}"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        self.activation = activation
        self.residual = bool(residual)
        self._function, self._slope = ACTIVATIONS[activation]
        generator = None if seed is None else torch.Generator().manual_seed(int(seed))

        n_types = len(self.elements)
        widths = [self.n_features, *self.hidden, 1]
        # One tensor per layer for all elements: a third of the parameters for an optimiser to walk.
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for n_in, n_out in pairwise(widths):
            # Drawn in float64 and then rounded: a seed means the same network in any precision.
            weight = torch.empty(n_types, n_out, n_in, dtype=torch.float64)
            for own in weight:
                # Glorot's width keeps the variance through layers of odd activations (tanh, sin).
                nn.init.xavier_uniform_(own, generator=generator)
            self.weights.append(nn.Parameter(weight.to(dtype or torch.get_default_dtype())))
            self.biases.append(nn.Parameter(torch.zeros(n_types, n_out, dtype=dtype)))

        float64 = torch.float64
        self.register_buffer("feature_mean", torch.zeros(n_types, self.n_features, dtype=float64))
        self.register_buffer("feature_scale", torch.ones(n_types, self.n_features, dtype=float64))
        self.register_buffer("rotation", None, persistent=False)
        self.register_buffer("energy_scale", torch.ones(n_types, dtype=float64))
        self.register_buffer("energy_shift", torch.zeros(n_types, dtype=float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ElementNetworks:
        kept = {name: getattr(self, name) for name in self._FLOAT64}
        super()._apply(fn, recurse)
        # A cast of the weights must not round total energies: scalers follow the device alone.
        for name, value in kept.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    @property
    def trains_on_forces(self) -> bool:
        """Whether the activation has the second derivative that a force loss needs."""
        return self.activation != "relu"

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.weights[0].dtype

    def forward(
        self, features: Tensor, types: Tensor, groups: ElementGroups | None = None
    ) -> Tensor:
        """Return the energy of each atom.

        Args:
            features: [A, F].
            types: [A] int64.
            groups: the atoms sorted by element; made here if ``None``. Give it where the same
                atoms come again, and under ``torch.compile``, where without it every network
                computes every atom.

        Returns:
            [A] eV, float64 (weights and hidden layers keep their own precision).

        Raises:
            ValueError: for a wrong number of features.
        """
        if features.shape[1] != self.n_features:
            raise ValueError(f"features must have shape [A, {self.n_features}], "
                             f"got {list(features.shape)}")  # fmt: skip
        if groups is None:
            if torch.compiler.is_compiling():
                return self._all_networks(features, types)
            groups = group_by_element(types, len(self.elements))
        x = self._standardised(features, types).index_select(0, groups.order)
        layers = [
            (w.unbind(0), b.unbind(0))
            for w, b in zip(self.effective_weights(), self.biases, strict=True)
        ]
        parts = [
            self._network([(w[index], b[index]) for w, b in layers], part)
            for index, part in enumerate(x.split(groups.counts))
            if part.shape[0]
        ]
        if not parts:
            return features.new_zeros(0, dtype=torch.float64)
        return self._energies(torch.cat(parts).index_select(0, groups.inverse), types)

    def _all_networks(self, features: Tensor, types: Tensor) -> Tensor:
        """Every network on every atom: no shape depends on the data."""
        x = self._standardised(features, types)
        every = [
            self._network(
                [(w[i], b[i]) for w, b in zip(self.effective_weights(), self.biases, strict=True)],
                x,
            )
            for i in range(len(self.elements))
        ]
        return self._energies(torch.stack(every).gather(0, types[None])[0], types)

    def whiten(self, rotation: Tensor) -> None:
        """Let training see standardised features through a fixed matrix for each element.

        The first layer's weights then act on ``x @ rotation[t]``, which may be better conditioned.
        :meth:`fold` makes plain networks of it, which compute the same.

        Args:
            rotation: [n_types, F, F].

        Raises:
            ValueError: for another shape, and where the first hidden layer is residual.
        """
        shape = (len(self.elements), self.n_features, self.n_features)
        if rotation.shape != shape:
            raise ValueError(f"rotation must have shape {shape}, got {tuple(rotation.shape)}")
        if (
            self.residual
            and self.hidden
            and self.hidden[0]
            in (
                self.n_features,
                2 * self.n_features,
            )
        ):
            raise ValueError("rotation must be left out where the first hidden layer is residual")
        self.rotation = rotation.to(self.feature_mean.device, self.dtype)

    @torch.no_grad()
    def fold(self) -> ElementNetworks:
        """Make what :meth:`whiten` set a part of the first layer's weights."""
        self.weights[0].copy_(self.effective_weights()[0])
        self.rotation = None
        return self

    def effective_weights(self) -> list[Tensor]:
        """Return the weights of the layers, the first as it acts on standardised features."""
        first, *others = self.weights
        if self.rotation is not None:
            first = torch.bmm(first, self.rotation.transpose(1, 2))
        return [first, *others]

    def _standardised(self, features: Tensor, types: Tensor) -> Tensor:
        # In the features' own precision first, then cast to the weights'.
        mean = self.feature_mean.to(features.dtype).index_select(0, types)
        scale = self.feature_scale.to(features.dtype).index_select(0, types)
        return ((features - mean) / scale).to(self.dtype)

    def _network(self, layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        """Output of one network for its atoms, [A_t]."""
        for weight, bias in layers[:-1]:
            y = self._function(functional.linear(x, weight, bias))
            x = self._with_input(x, y)
        return functional.linear(x, *layers[-1])[:, 0]

    def _energies(self, outputs: Tensor, types: Tensor) -> Tensor:
        scale = self.energy_scale.index_select(0, types)
        return torch.addcmul(
            self.energy_shift.index_select(0, types), outputs.to(torch.float64), scale
        )

    @torch.no_grad()
    def energies_and_slopes(
        self,
        features: Tensor,
        types: Tensor,
        groups: ElementGroups | None = None,
        slopes: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Return energies and dE/dG for prediction: the chain rule by hand, without a graph.

        Half the time of autograd for one molecule, where calls and not arithmetic count, and a
        plain function for ``torch.compile`` and CUDA graphs.

        Args:
            features: [A, F].
            types: [A] int64.
            groups: the atoms sorted by element, as in :meth:`forward`.
            slopes: ``False`` leaves dE/dG out.

        Returns:
            Energies [A] eV, float64, and slopes [A, F] in the features' precision, or ``None``.
        """
        x = self._standardised(features, types)
        layers = [
            (w.unbind(0), b.unbind(0))
            for w, b in zip(self.effective_weights(), self.biases, strict=True)
        ]
        own = [[(w[i], b[i]) for w, b in layers] for i in range(len(self.elements))]
        if groups is None and torch.compiler.is_compiling():
            every = [self._with_slope(network, x, slopes) for network in own]
            atoms = torch.arange(types.shape[0], device=types.device)
            output = torch.stack([out for out, _ in every])[types, atoms]
            slope = torch.stack([grad for _, grad in every])[types, atoms] if slopes else x
        else:
            if groups is None:
                groups = group_by_element(types, len(self.elements))
            parts = [
                self._with_slope(network, part, slopes)
                for network, part in zip(
                    own, x.index_select(0, groups.order).split(groups.counts), strict=True
                )
                if part.shape[0]
            ]
            if not parts:
                return features.new_zeros(0, dtype=torch.float64), torch.zeros_like(features)
            output = torch.cat([out for out, _ in parts]).index_select(0, groups.inverse)
            slope = x
            if slopes:
                slope = torch.cat([grad for _, grad in parts]).index_select(0, groups.inverse)
        energies = self._energies(output, types)
        if not slopes:
            return energies, None
        width = (self.energy_scale[:, None] / self.feature_scale).to(features.dtype)
        return energies, slope.to(features.dtype) * width.index_select(0, types)

    def _with_slope(
        self, layers: Sequence[tuple[Tensor, Tensor]], x: Tensor, slopes: bool
    ) -> tuple[Tensor, Tensor]:
        """Output [A_t] of one network, and its gradient [A_t, F] (``x`` where not asked for)."""
        kept = []
        for weight, bias in layers[:-1]:
            before = torch.addmm(bias, x, weight.T)
            after = self._function(before)
            kept.append((before, after))
            x = self._with_input(x, after)
        last, bias = layers[-1]
        output = torch.addmm(bias, x, last.T)[:, 0]
        if not slopes:
            return output, x
        gradient = last.expand(x.shape[0], -1)
        for (weight, _), (before, after) in zip(layers[-2::-1], kept[::-1], strict=True):
            direct = self._to_input(gradient, weight.shape[1])
            gradient = (gradient * self._slope(before, after)) @ weight
            if direct is not None:
                gradient = gradient + direct
        return output, gradient

    def _with_input(self, x: Tensor, y: Tensor) -> Tensor:
        """Output of a hidden layer: with its input x added where the networks are residual."""
        if not self.residual or y.shape[1] not in (x.shape[1], 2 * x.shape[1]):
            return y
        return y + x if y.shape[1] == x.shape[1] else y + torch.cat([x, x], dim=1)

    def _to_input(self, gradient: Tensor, n_in: int) -> Tensor | None:
        """What of a layer's gradient reaches its input past the activation."""
        if not self.residual or gradient.shape[1] not in (n_in, 2 * n_in):
            return None
        if gradient.shape[1] == n_in:
            return gradient
        return gradient[:, :n_in] + gradient[:, n_in:]

    # -- scalers ----------------------------------------------------------------------------

    @torch.no_grad()
    def fit_scaler(self, features: Tensor, types: Tensor) -> None:
        """Set mean and spread of each feature for each element from the training set.

        Constant features get the scale 1; so do all features of an element that does not occur.

        Args:
            features: [A, F].
            types: [A] int64.

        Raises:
            ValueError: for NaN or Inf among the features.
        """
        if not bool(torch.isfinite(features).all()):
            raise ValueError("features must be finite, got NaN or Inf")
        for index in range(len(self.elements)):
            own = features[types == index].to(torch.float64)
            if len(own) == 0:
                continue
            mean = own.mean(dim=0)
            spread = (own - mean).square().mean(dim=0).sqrt()
            constant = spread <= _CONSTANT * own.abs().amax(dim=0).clamp(min=1e-30)
            self.feature_mean[index] = mean
            self.feature_scale[index] = torch.where(constant, torch.ones_like(spread), spread)

    @torch.no_grad()
    def fit_energy_shifts(
        self, energies: Tensor, types: Tensor, structure_index: Tensor, *, scale: bool = True
    ) -> Tensor:
        """Set atomic energies by least squares, and the spread that the networks describe.

        Where compositions do not determine all atomic energies (all structures of one formula),
        the solution nearest to equal energies per atom is taken.

        Args:
            energies: [B] eV.
            types: [A] int64.
            structure_index: [A] int64.
            scale: also set the energy scale, to the standard deviation of what is left per
                square root of the number of atoms.

        Returns:
            [B] eV, energies less their atoms' shifts.

        Raises:
            ValueError: for NaN or Inf, or no structures.
        """
        energies = energies.to(torch.float64)
        if len(energies) == 0 or not bool(torch.isfinite(energies).all()):
            raise ValueError("energies must be finite and at least one")
        n_types = len(self.elements)
        flat = structure_index * n_types + types
        counts = torch.bincount(flat, minlength=len(energies) * n_types)
        composition = counts.reshape(len(energies), n_types).to(torch.float64)
        n_atoms = composition.sum(dim=1)
        # What is common to all atoms first: the minimum-norm solution is then near to it.
        mean = energies.sum() / n_atoms.sum()
        left = energies - n_atoms * mean
        # gelsd truncates small singular values, which gelsy and gels do not.
        solution = torch.linalg.lstsq(
            composition.cpu(), left.cpu()[:, None], rcond=1e-10, driver="gelsd"
        ).solution[:, 0]
        shift = solution.to(energies.device) + mean
        # Elements that never occur would get the mean: zero says that nothing is known.
        shift = torch.where(composition.sum(dim=0) > 0, shift, torch.zeros_like(shift))
        self.energy_shift.copy_(shift)
        residual = energies - composition @ shift
        if scale:
            per_atom = (residual / n_atoms.sqrt()).square().mean().sqrt()
            smallest = 1e-10 * max(1.0, float(energies.abs().max()))
            value = float(per_atom) if float(per_atom) > smallest else 1.0
            self.energy_scale.fill_(value)
        return residual

    # -- description ------------------------------------------------------------------------

    def to_config(self) -> dict[str, Any]:
        """Return what makes networks of the same shape, as plain JSON values."""
        return {
            "n_features": self.n_features,
            "elements": list(self.elements),
            "hidden": list(self.hidden),
            "activation": self.activation,
            "residual": self.residual,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], dtype: torch.dtype | None = None
    ) -> ElementNetworks:
        """Make networks from what :meth:`to_config` returned; weights are new.

        Raises:
            ValueError: for missing, unknown or wrong entries.
        """
        try:
            return cls(**config, dtype=dtype)
        except TypeError as error:
            raise ValueError(f"network: {error}") from None

    def extra_repr(self) -> str:
        """Say the shape in one line."""
        widths = "-".join(str(w) for w in (self.n_features, *self.hidden, 1))
        return f"{' '.join(self.elements)}: {widths}, {self.activation}"
