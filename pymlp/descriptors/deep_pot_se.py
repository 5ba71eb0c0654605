"""DeepPot-SE (eqs 7-11): environment matrix, embedding networks, and their contraction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from pymlp import deep_pot_ops as ops
from pymlp.descriptors.base import Descriptor
from pymlp.descriptors.deep_pot_functions import (
    FusedFunctions,
    Interpolation,
    SortedPairs,
    sorted_pairs,
)
from pymlp.descriptors.deep_pot_parameters import checked_normalize, checked_switch, checked_table
from pymlp.descriptors.symmetry_parameters import choice
from pymlp.embedding import EmbeddingNetworks, EmbeddingTable
from pymlp.neighbors import NeighborList

__all__ = ["DeepPotSE"]

SwitchName: TypeAlias = Literal["none", "cosine", "quintic"]
Sharing: TypeAlias = Literal["type_pair", "neighbor_only"]


class DeepPotSE(Descriptor):
    """DeepPot-SE: D_i = (𝒢₁ᵀ R̃)(R̃ᵀ 𝒢₂), m1 x m2 numbers for each atom.

    Rows of R̃ are (s, s x/R, s y/R, s z/R) of the neighbours (eq 8), rows of 𝒢 embedding networks
    of s (eq 10), 𝒢₂ its first m2 columns. Every neighbour counts, however many there are.

    The embedding has weights that are trained with the network behind it: ``trainable`` is true,
    and a potential keeps one such descriptor for each network of a committee.

    Args:
        elements: chemical symbols of the atoms that may come; their order is that of the types.
        embedding: widths of the embedding networks; the last is m1.
        n_axis: m2, columns of the second factor.
        cutoff: Å, R_c; ``None`` with ``switch="none"``: every atom of an isolated structure.
        switch_start: Å, R_cs.
        switch: ``"cosine"`` (eq 9), ``"quintic"`` (DeePMD's) or ``"none"`` (s = 1/R).
        normalize: ``None``: sums as they are; a number: 𝒢ᵀR̃ is divided by it; ``"neighbors"``: by
            the number of neighbours, for ``switch="none"`` alone, because the energy would jump
            where an atom crosses a cutoff.
        sharing: ``"type_pair"``: a network for each pair of elements (centre, neighbour);
            ``"neighbor_only"``: one for each element of the neighbour.
        use_radial_column: whether s itself stands in the product (eq 11) or, as in the tutorial's
            lesson, the other three columns alone.
        table: ``None``, or ``{"tolerance", "shortest"}``: 𝒢 from a table, see :meth:`tabulated`.
        seed: of the initial weights; ``None`` takes torch's global generator.
        dtype: of the weights; torch's default if ``None``.

    Raises:
        ValueError: for parameters out of range or that exclude each other, m2 > m1 among them, and
            unknown or repeated elements.
    """

    family = "deep_pot_se"
    column_mask: Tensor

    def __init__(
        self,
        elements: Sequence[str],
        embedding: Sequence[int] = (25, 50, 100),
        n_axis: int = 4,
        cutoff: float | None = None,
        switch_start: float | None = None,
        switch: SwitchName = "none",
        normalize: Literal["neighbors"] | float | None = None,
        sharing: Sharing = "type_pair",
        use_radial_column: bool = True,
        table: dict[str, float] | None = None,
        *,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        choice("switch", switch, tuple(ops.SWITCH_FUNCTIONS))
        choice("sharing", sharing, ("type_pair", "neighbor_only"))
        self.switch_start = checked_switch(switch, switch_start, cutoff)
        super().__init__(elements, math.inf if cutoff is None else float(cutoff))
        self.switch: SwitchName = switch
        self.sharing: Sharing = sharing
        self.normalize = checked_normalize(normalize, switch)
        self.use_radial_column = bool(use_radial_column)
        n_types = len(self.elements)
        n_kinds = n_types * n_types if sharing == "type_pair" else n_types
        self.embedding = EmbeddingNetworks(n_kinds, embedding, seed=seed, dtype=dtype)
        self.n_axis = int(n_axis)
        if not 1 <= self.n_axis <= self.embedding.n_functions:
            raise ValueError(
                f"n_axis (m2) must be in 1 ... m1 = {self.embedding.n_functions}, got {n_axis}"
            )
        self.n_features = self.embedding.n_functions * self.n_axis
        self._switch_arguments = (
            self.switch_start,
            self.cutoff,
            ops.SWITCH_FUNCTIONS[switch],
        )
        mask = torch.ones(4, dtype=torch.float64)
        mask[0] = float(self.use_radial_column)
        self.register_buffer("column_mask", mask, persistent=False)
        self.table_options = None if table is None else checked_table(table, use_radial_column)
        self.interpolation: Interpolation | None = Interpolation()
        self._table: EmbeddingTable | None = None
        self._table_casts: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @classmethod
    def paper(cls, elements: Sequence[str], **options: Any) -> DeepPotSE:
        """Return the paper's: 25-50-100, m2 = 4, s = 1/R for every atom, no normalisation."""
        return cls(elements, (25, 50, 100), 4, **options)

    @classmethod
    def deepmd_like(
        cls,
        elements: Sequence[str],
        cutoff: float = 6.0,
        switch_start: float = 0.5,
        n_neighbors: float = 100.0,
        embedding: Sequence[int] = (25, 50, 100),
        n_axis: int = 16,
        **options: Any,
    ) -> DeepPotSE:
        """Return what DeePMD-kit calls se_e2_a: quintic switch, sums over a fixed number.

        Args:
            elements: chemical symbols.
            cutoff: Å, DeePMD's ``rcut``.
            switch_start: Å, DeePMD's ``rcut_smth``.
            n_neighbors: the sum of DeePMD's ``sel``; here no more than what sums are divided by.
            embedding: widths, DeePMD's ``neuron``.
            n_axis: m2, DeePMD's ``axis_neuron``.
            options: ``sharing``, ``seed`` and ``dtype``.
        """
        return cls(
            elements,
            embedding,
            n_axis,
            cutoff,
            switch_start,
            "quintic",
            float(n_neighbors),
            **options,
        )

    # -- features -------------------------------------------------------------------------------

    @property
    def trainable(self) -> bool:
        """Whether there are weights to train: not where 𝒢 comes from a table."""
        return self.table_options is None

    def environment(self, displacements: Tensor) -> Tensor:
        """Return R̃ [P, 4] (eq 8), differentiable twice in the displacements [P, 3]."""
        return ops.environment_matrix(displacements, *self._switch_arguments)

    def geometry(self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor) -> Tensor:
        """Return what does not depend on weights: R̃ [P, 4]."""
        self._check_cutoff(neighbor_list)
        return self.environment(displacements)

    def features_of(self, geometry: Tensor, neighbor_list: NeighborList, types: Tensor) -> Tensor:
        """Return the features [A, F] of R̃ = :meth:`geometry`, twice differentiable in R̃."""
        exact = self.trainable or not self._in_table(geometry)
        if not exact or not torch.is_grad_enabled():
            functions = self._functions(geometry, neighbor_list, types)
            if functions is not None:
                return functions.features(geometry)
        pairs = self._pairs(neighbor_list, types)
        s = geometry[:, 0].index_select(0, pairs.order)
        g = self.embedding(s, pairs.counts)
        features = ops.deep_pot_se(
            g, self._columns(geometry), neighbor_list.pair_offsets, pairs.rows, self.n_axis
        )
        return self._normalized(features, neighbor_list)

    def features_to_train(
        self, geometry: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return features and the function back to R̃, as :meth:`Descriptor.features_to_train`."""
        functions = self._functions(geometry, neighbor_list, types)
        if functions is not None:
            rows = geometry.detach()
            return functions.features(rows), lambda grad: functions.slopes(grad, rows)
        leaf = geometry.detach().requires_grad_()
        features = self.features_of(leaf, neighbor_list, types)

        def pull(grad_features: Tensor) -> Tensor:
            (slope,) = torch.autograd.grad(features, leaf, grad_features, create_graph=True)
            return slope

        return features, pull

    def _functions(
        self, geometry: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> FusedFunctions | None:
        """The one op that makes features: of the table, of an interpolation, or of the networks.

        ``None`` where there is none: for networks on CUDA, without the radial column, or deeper
        than the op knows.
        """
        offsets, kinds = neighbor_list.pair_offsets, self._kinds(neighbor_list, types)
        factor = self._counts_factor(neighbor_list, geometry.dtype)
        table = (ops.deep_pot_se_table, ops.deep_pot_se_table_backward, offsets, kinds)
        if not self.trainable and self._in_table(geometry):
            return FusedFunctions(*table, self._table_arguments(geometry), factor=factor)
        if (
            geometry.device.type != "cpu"
            or not self.use_radial_column
            or len(self.embedding.widths) > ops.MAX_DEPTH
        ):
            return None
        divisor = self.normalize if isinstance(self.normalize, float) else 1.0
        sizes = (self.embedding.n_functions, self.n_axis)
        if self.interpolation is not None:
            found = self.interpolation.polynomials(self.embedding, geometry[:, 0])
            if found is not None:
                coefficients, first, width = found
                coefficients = (coefficients / divisor).to(geometry.dtype)
                return FusedFunctions(*table, (coefficients, first, width, *sizes), factor=factor)
        parameters, standards = self.embedding.flat(geometry.dtype)
        standards = standards * standards.new_tensor([divisor, 1.0])
        return FusedFunctions(
            ops.deep_pot_se_networks,
            ops.deep_pot_se_networks_backward,
            offsets,
            kinds,
            (parameters, standards, list(self.embedding.widths), self.n_axis),
            divisor,
            factor,
        )

    def geometry_vjp(
        self,
        grad_geometry: Tensor,
        displacements: Tensor,
        neighbor_list: NeighborList,
        types: Tensor,
    ) -> Tensor:
        """Return (dR̃/dd)ᵀ g [P, 3] for g [P, 4], differentiable in g."""
        return ops.environment_matrix_backward(
            grad_geometry, displacements, *self._switch_arguments
        )

    def features(self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor) -> Tensor:
        """Return the features from displacements, as :meth:`Descriptor.features`."""
        geometry = self.geometry(displacements, neighbor_list, types)
        return self.features_of(geometry, neighbor_list, types)

    def vjp(
        self,
        grad_features: Tensor,
        displacements: Tensor,
        neighbor_list: NeighborList,
        types: Tensor,
    ) -> Tensor:
        """Return (dG/dd)ᵀ g for every pair, as :meth:`Descriptor.vjp`.

        Differentiable in g, the weights and the displacements where gradients are recorded.
        """
        if not torch.is_grad_enabled():
            pull = self.features_and_pull(displacements, neighbor_list, types)[1]
            return pull(grad_features[None])[0]
        geometry = self.geometry(displacements, neighbor_list, types)
        if not geometry.requires_grad:
            geometry = geometry.requires_grad_()
        features = self.features_of(geometry, neighbor_list, types)
        (slope,) = torch.autograd.grad(features, geometry, grad_features, create_graph=True)
        return self.geometry_vjp(slope, displacements, neighbor_list, types)

    @torch.no_grad()
    def features_and_pull(
        self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return features and the function to pull gradients back, the embedding computed once."""
        geometry = self.geometry(displacements, neighbor_list, types)
        functions = self._functions(geometry, neighbor_list, types)
        back: Callable[[Tensor, Tensor], Tensor]
        if functions is not None:
            features, back = functions.features(geometry), functions.slopes
        else:
            features, back = self._by_chain(geometry, neighbor_list, types)

        @torch.no_grad()
        def pull(grad_features: Tensor) -> Tensor:
            slopes = [back(own, geometry) for own in grad_features]
            by_pair = [
                self.geometry_vjp(slope, displacements, neighbor_list, types) for slope in slopes
            ]
            return torch.stack(by_pair)

        return features, pull

    def _by_chain(
        self, geometry: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """Features from 𝒢 in memory, and what gives the gradient by R̃; without a graph."""
        pairs = self._pairs(neighbor_list, types)
        s = geometry[:, 0].index_select(0, pairs.order)
        g, g_slope = self.embedding.with_slopes(s, pairs.counts)
        arguments = (self._columns(geometry), neighbor_list.pair_offsets, pairs.rows, self.n_axis)

        def back(grad_features: Tensor, _: Tensor) -> Tensor:
            by_function, by_column = torch.ops.pymlp.deep_pot_se_backward.default(
                self._normalized(grad_features, neighbor_list), g, *arguments
            )
            slope = self._columns(by_column)
            along = torch.einsum("pf,pf->p", by_function, g_slope).index_select(0, pairs.rows)
            return torch.cat([(slope[:, 0] + along)[:, None], slope[:, 1:]], dim=1)

        return self._normalized(ops.deep_pot_se(g, *arguments), neighbor_list), back

    @torch.no_grad()
    def pair_jacobian(
        self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> Tensor:
        """Return the derivative of the centre's features by each pair's displacement, [P, F, 3].

        Where 𝒢 comes from a table, this is the derivative of the networks behind it.
        """
        geometry = self.geometry(displacements, neighbor_list, types)
        pairs = self._pairs(neighbor_list, types)
        r = self._columns(geometry)
        s = geometry[:, 0].index_select(0, pairs.order)
        g, g_slope = (x[pairs.rows] for x in self.embedding.with_slopes(s, pairs.counts))
        centers = neighbor_list.centers
        moments = r.new_zeros(neighbor_list.n_atoms, g.shape[1], 4).index_add(
            0, centers, g[:, :, None] * r[:, None, :]
        )[centers]
        # dT/dR̃ of the pair: [P, m1, column of T, column of R̃]
        change = g[:, :, None, None] * torch.diag(self.column_mask.to(g.dtype))
        change[..., 0] += g_slope[:, :, None] * r[:, None, :]
        m2 = self.n_axis
        slope = torch.einsum("pakc,pbk->pabc", change, moments[:, :m2])
        slope += torch.einsum("pak,pbkc->pabc", moments, change[:, :m2])
        rows = ops.environment_matrix_jacobian(displacements, *self._switch_arguments)
        result = torch.einsum("pfc,pcx->pfx", slope.flatten(1, 2), rows)
        factor = self._factor(neighbor_list, result.dtype)
        if isinstance(factor, Tensor):
            return result * factor[centers][:, :, None]
        return result if factor == 1.0 else result * factor

    def _columns(self, geometry: Tensor) -> Tensor:
        if self.use_radial_column:
            return geometry
        return geometry * self.column_mask.to(geometry.dtype)

    def _counts_factor(self, neighbor_list: NeighborList, dtype: torch.dtype) -> Tensor | None:
        """What features are multiplied by for each centre; a number goes into the table."""
        if self.normalize != "neighbors":
            return None
        counts = neighbor_list.pair_offsets.diff().clamp(min=1).to(dtype)
        return counts.reciprocal().square()[:, None]

    def _factor(self, neighbor_list: NeighborList, dtype: torch.dtype) -> Tensor | float:
        if isinstance(self.normalize, float):
            return self.normalize**-2
        factor = self._counts_factor(neighbor_list, dtype)
        return 1.0 if factor is None else factor

    def _normalized(self, features: Tensor, neighbor_list: NeighborList) -> Tensor:
        factor = self._factor(neighbor_list, features.dtype)
        return features if isinstance(factor, float) and factor == 1.0 else features * factor

    def _kinds(self, neighbor_list: NeighborList, types: Tensor) -> Tensor:
        kinds = types.index_select(0, neighbor_list.neighbors)
        if self.sharing == "type_pair":
            kinds = kinds + len(self.elements) * types.index_select(0, neighbor_list.centers)
        return kinds

    def _pairs(self, neighbor_list: NeighborList, types: Tensor) -> SortedPairs:
        return sorted_pairs(self._kinds(neighbor_list, types), self.embedding.n_kinds)

    # -- table ----------------------------------------------------------------------------------

    def tabulated(self, tolerance: float = 1e-7, shortest: float = 0.5) -> DeepPotSE:
        """Return the same descriptor with 𝒢 from a table, several times as fast.

        Distances below ``shortest`` go to the networks, which the descriptor keeps.

        Args:
            tolerance: largest error of 𝒢 relative to its largest value.
            shortest: Å, the shortest distance in the table.

        Raises:
            ValueError: for a tolerance that cannot be reached, or without the radial column.
        """
        config = self.to_config() | {"table": {"tolerance": tolerance, "shortest": shortest}}
        return self._copy(config)

    def exact(self) -> DeepPotSE:
        """Return the same descriptor with 𝒢 from the networks."""
        return self._copy(self.to_config() | {"table": None})

    def _copy(self, config: dict[str, Any]) -> DeepPotSE:
        parameters = {key: value for key, value in config.items() if key != "family"}
        copy = DeepPotSE(**parameters, dtype=self.embedding.weights[0].dtype)
        copy.load_state_dict(self.state_dict())
        copy = copy.to(self.column_mask.device)
        if copy.table_options is not None:
            copy.embedding_table()
        return copy

    def embedding_table(self) -> EmbeddingTable:
        """Return the table, built from the networks when first asked for.

        Raises:
            ValueError: if the descriptor has none, or the tolerance cannot be reached.
        """
        if self.table_options is None:
            raise ValueError("this descriptor has no table; descriptor.tabulated() makes one")
        if self._table is None:
            shortest = self.table_options["shortest"]
            d = torch.tensor([[shortest, 0.0, 0.0]], dtype=torch.float64)
            last = float(ops.environment_matrix(d, *self._switch_arguments)[0, 0])
            if not last > 0:
                raise ValueError(
                    f"table: shortest must be below the cutoff {self.cutoff} Å, got {shortest} Å"
                )
            self._table = EmbeddingTable(self.embedding, last, self.table_options["tolerance"])
        return self._table

    def _in_table(self, geometry: Tensor) -> bool:
        if not len(geometry):
            return True
        # Shorter distances than the table knows: the networks, for all pairs.
        return bool(geometry[:, 0].max() <= self.embedding_table().last)

    def _table_arguments(self, geometry: Tensor) -> tuple[Any, ...]:
        table = self.embedding_table()
        key = (geometry.device, geometry.dtype)
        if key not in self._table_casts:
            number = self.normalize if isinstance(self.normalize, float) else 1.0
            self._table_casts[key] = (table.coefficients / number).to(*key)
        return (
            self._table_casts[key],
            0.0,
            table.width,
            self.embedding.n_functions,
            self.n_axis,
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # The table belongs to the weights that it was built from.
        self._table = None
        self._table_casts = {}

    # -- training -------------------------------------------------------------------------------

    def initialized(self, seed: int, dtype: torch.dtype) -> DeepPotSE:
        """Return the same descriptor with new weights from a seed (standards are kept)."""
        config = {key: value for key, value in self.to_config().items() if key != "family"}
        fresh = DeepPotSE(**config, seed=seed, dtype=dtype)
        fresh.embedding.input_mean.copy_(self.embedding.input_mean)
        fresh.embedding.input_scale.copy_(self.embedding.input_scale)
        return fresh.to(self.column_mask.device)

    @torch.no_grad()
    def fit(self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor) -> None:
        """Standardise what the embedding networks get, by training structures."""
        pairs = self._pairs(neighbor_list, types)
        s = self.geometry(displacements, neighbor_list, types)[:, 0]
        self.embedding.fit_inputs(s.index_select(0, pairs.order), pairs.counts)

    # -- description ----------------------------------------------------------------------------

    def feature_labels(self, center: str | None = None) -> list[str]:
        """Return the name of each feature, ``"D[a, b]"`` with b (m2) running fastest.

        Raises:
            ValueError: for an unknown centre.
        """
        if center is not None and center not in self.elements:
            raise ValueError(f"center must be one of {self.elements}, got {center!r}")
        return [
            f"D[{a}, {b}]" for a in range(self.embedding.n_functions) for b in range(self.n_axis)
        ]

    def to_config(self) -> dict[str, Any]:
        """Return what makes a descriptor of the same shape, as plain JSON; weights are new."""
        return {
            "family": self.family,
            "elements": list(self.elements),
            "embedding": list(self.embedding.widths),
            "n_axis": self.n_axis,
            "cutoff": None if math.isinf(self.cutoff) else self.cutoff,
            "switch_start": None if self.switch == "none" else self.switch_start,
            "switch": self.switch,
            "normalize": self.normalize,
            "sharing": self.sharing,
            "use_radial_column": self.use_radial_column,
            "table": self.table_options,
        }
