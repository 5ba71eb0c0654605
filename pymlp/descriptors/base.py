"""What all descriptors share: element types, calls of the ops, Jacobians, configurations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pymlp import neighbors, ops
from pymlp.neighbors import NeighborList
from pymlp.structure_checks import MAX_ATOMIC_NUMBER, SYMBOLS, atomic_number
from pymlp.structures import Batch

__all__ = ["Descriptor"]


class Descriptor(nn.Module):
    """Features of every atom's neighbourhood, computed by one family of ``torch.ops.pymlp``.

    Parameters are float64 buffers that follow ``.to(device)`` and keep their precision under
    ``.to(dtype)``; features come in the precision of the positions.

    Attributes:
        family: name of the op; ``_backward`` and ``_jacobian`` belong to it.
        elements: chemical symbols; their positions are the types 0 .. n-1.
        cutoff: Å, beyond which no atom is seen.
        n_features: F.
    """

    family: ClassVar[str] = ""
    elements: tuple[str, ...]
    cutoff: float
    n_features: int
    type_of_number: Tensor

    _families: ClassVar[dict[str, type[Descriptor]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.family:
            Descriptor._families[cls.family] = cls

    def __init__(self, elements: Sequence[str], cutoff: float) -> None:
        super().__init__()
        self.elements = check_elements(elements)
        self.cutoff = cutoff
        self.n_features = 0
        table = torch.full((MAX_ATOMIC_NUMBER + 1,), -1, dtype=torch.int64)
        for index, symbol in enumerate(self.elements):
            table[atomic_number(symbol)] = index
        self.register_buffer("type_of_number", table, persistent=False)
        self._tensors: dict[str, Tensor] = {}
        self._scalars: tuple[int | float | bool, ...] = ()
        self._arguments: dict[torch.dtype, tuple[Any, ...]] = {}

    def _set_arguments(
        self, tensors: dict[str, Tensor], scalars: tuple[int | float | bool, ...]
    ) -> None:
        """Take what the op gets after ``types``: tensors (float64 or int64), then numbers."""
        self._tensors = tensors
        self._scalars = scalars
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.clone(), persistent=False)
        self._prepare_arguments()

    def _prepare_arguments(self) -> None:
        # Made once per device, not per call: one molecule's features take less time than a cast.
        device = self.type_of_number.device
        for dtype in (torch.float32, torch.float64):
            cast = tuple(
                tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
                for tensor in self._tensors.values()
            )
            self._arguments[dtype] = (*cast, *self._scalars)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Descriptor:
        super()._apply(fn, recurse)
        # A cast to float32 and back must not round the parameters: only the device is followed.
        for name, tensor in self._tensors.items():
            setattr(self, name, tensor.to(getattr(self, name).device, copy=True))
        self._prepare_arguments()
        return self

    # -- features ---------------------------------------------------------------------------

    def forward(self, batch: Batch, neighbor_list: NeighborList | None = None) -> Tensor:
        """Return the features of every atom.

        Args:
            batch: A atoms; features are differentiable twice in ``batch.positions`` (and once or
                twice in ``batch.cell``).
            neighbor_list: a neighbour list for this batch; made here if ``None``.

        Returns:
            [A, F] in the precision of the positions, ordered as :meth:`feature_labels` says.

        Raises:
            ValueError: for elements that the descriptor does not know, coincident atoms, or a
                neighbour list with a shorter cutoff than the descriptor's.
        """
        if neighbor_list is None:
            neighbor_list = neighbors.neighbor_list(batch, self.cutoff)
        index = batch.structure_index if neighbor_list.shifts is not None else None
        d = neighbors.displacements(batch.positions, neighbor_list, batch.cell, index)
        return self.features(d, neighbor_list, self.batch_types(batch))

    def features(self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor) -> Tensor:
        """Return features from displacements; no control flow depends on the data.

        Args:
            displacements: [P, 3] Å, from centre to neighbour.
            neighbor_list: the neighbour list of those neighbor_list.
            types: [A] int64, see :meth:`types`.

        Returns:
            [A, F].
        """
        self._check_cutoff(neighbor_list)
        arguments = self._arguments[displacements.dtype]
        result: Tensor = getattr(ops, self.family)(
            displacements, neighbor_list.pair_offsets, neighbor_list.neighbors, types, *arguments
        )
        return result

    def vjp(
        self,
        grad_features: Tensor,
        displacements: Tensor,
        neighbor_list: NeighborList,
        types: Tensor,
    ) -> Tensor:
        """Return dE/dd = (dG/dd)ᵀ dE/dG for every pair.

        Differentiable with respect to ``grad_features`` (by the op's ``_jvp``) and, where
        ``displacements`` require a gradient, with respect to them too.

        Args:
            grad_features: [A, F]; of descriptors without weights also several, [M, A, F], whose
                result is not differentiable.
            displacements: [P, 3] Å.
            neighbor_list: the neighbour list of those neighbor_list.
            types: [A] int64.

        Returns:
            [P, 3], or [M, P, 3].
        """
        self._check_cutoff(neighbor_list)
        arguments = self._arguments[displacements.dtype]
        result: Tensor = getattr(ops, self.family + "_backward")(
            grad_features,
            displacements,
            neighbor_list.pair_offsets,
            neighbor_list.neighbors,
            types,
            *arguments,
        )
        return result

    # -- weights ----------------------------------------------------------------------------
    # A descriptor with weights is trained with the network behind it. Its features are then made
    # in two steps, and forces are differentiated from the second back to the first:
    #   displacements --geometry--> R --features_of--> G,   dE/dd = geometry_vjp(dE/dR).
    # Without weights the first step is all of it.

    @property
    def trainable(self) -> bool:
        """Whether the descriptor has weights to train."""
        return False

    def geometry(self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor) -> Tensor:
        """Return what does not depend on weights: here the features [A, F] themselves."""
        return self.features(displacements, neighbor_list, types)

    def features_of(self, geometry: Tensor, neighbor_list: NeighborList, types: Tensor) -> Tensor:
        """Return the features [A, F] from :meth:`geometry`, twice differentiable in it."""
        return geometry

    def features_to_train(
        self, geometry: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return features [A, F] and the function from dE/dG [A, F] to dE/d(geometry).

        For training on forces: features are differentiable in the weights once, the function's
        result in dE/dG and the weights once. The geometry is a constant.
        """

        def pull(grad_features: Tensor) -> Tensor:
            return grad_features

        return geometry.detach(), pull

    def geometry_vjp(
        self,
        grad_geometry: Tensor,
        displacements: Tensor,
        neighbor_list: NeighborList,
        types: Tensor,
    ) -> Tensor:
        """Return dE/dd [P, 3] from dE/d(geometry), differentiable in it."""
        return self.vjp(grad_geometry, displacements, neighbor_list, types)

    def initialized(self, seed: int, dtype: torch.dtype) -> Descriptor:
        """Return the descriptor with new weights from a seed: itself, where it has none."""
        del seed, dtype
        return self

    def fit(self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor) -> None:
        """Take from training structures what the weights are scaled by: nothing here."""

    # -- Jacobian ---------------------------------------------------------------------------

    def features_and_pull(
        self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return features [A, F] and, as a function of dE/dG [M, A, F], dE/dd [M, P, 3].

        For prediction: a descriptor may keep what both need, and what the M networks of a
        committee share. Without a graph.
        """

        def pull(grad_features: Tensor) -> Tensor:
            return self.vjp(grad_features, displacements, neighbor_list, types)

        return self.features(displacements, neighbor_list, types), pull

    def pair_jacobian(
        self, displacements: Tensor, neighbor_list: NeighborList, types: Tensor
    ) -> Tensor:
        """Return the derivative of the centre's features by each pair's displacement, [P, F, 3]."""
        self._check_cutoff(neighbor_list)
        arguments = self._arguments[displacements.dtype]
        result: Tensor = getattr(ops, self.family + "_jacobian")(
            displacements, neighbor_list.pair_offsets, neighbor_list.neighbors, types, *arguments
        )
        return result

    @torch.no_grad()
    def jacobian(
        self, batch: Batch, neighbor_list: NeighborList | None = None
    ) -> Tensor | list[Tensor]:
        """Return dG/dR of every structure: element [i, f, n, :] is dG_f of atom i by r_n.

        Args:
            batch: B structures.
            neighbor_list: a neighbour list for this batch; made here if ``None``.

        Returns:
            [B, N, F, N, 3] (1/Å) if all structures have N atoms, else one [N, F, N, 3] for each.
            The values lie in memory as [.., N, N, F, 3].

        Raises:
            ValueError: as :meth:`forward`.
        """
        if neighbor_list is None:
            neighbor_list = neighbors.neighbor_list(batch, self.cutoff)
        index = batch.structure_index
        d = neighbors.displacements(batch.positions, neighbor_list, batch.cell, index)
        by_pair = self.pair_jacobian(d, neighbor_list, self.batch_types(batch))
        by_pair = by_pair.reshape(len(d), self.n_features * 3)
        # Moving the centre is moving all its neighbours the other way.
        by_center = -torch.segment_reduce(
            by_pair, "sum", offsets=neighbor_list.pair_offsets, axis=0
        )

        # Rows of all structures one after the other: row (i, n) of a structure of N atoms stands
        # at block start + local i · N + local n.
        lengths = batch.structure_offsets.diff()
        blocks = torch.cat([lengths.new_zeros(1), (lengths * lengths).cumsum(0)])
        atoms = torch.arange(batch.n_atoms, device=d.device)
        local = atoms - batch.structure_offsets[index]
        starts = blocks[index] + local * lengths[index]
        rows = starts[neighbor_list.centers] + local[neighbor_list.neighbors]
        dense = d.new_zeros(int(blocks[-1]), by_pair.shape[1])
        if neighbor_list.shifts is None:
            dense.index_copy_(0, rows, by_pair)
            dense.index_copy_(0, starts + local, by_center)
        else:  # several images of one neighbour
            dense.index_add_(0, rows, by_pair)
            dense.index_add_(0, starts + local, by_center)

        sizes = batch.lengths
        if len(set(sizes)) == 1:
            n = sizes[0]
            return dense.reshape(len(sizes), n, n, self.n_features, 3).transpose(2, 3)
        parts = dense.split([n * n for n in sizes])
        return [
            part.reshape(n, n, self.n_features, 3).transpose(1, 2)
            for part, n in zip(parts, sizes, strict=True)
        ]

    def _check_cutoff(self, neighbor_list: NeighborList) -> None:
        if neighbor_list.cutoff < self.cutoff:
            raise ValueError(
                f"the neighbour list's cutoff must be at least the descriptor's "
                f"{self.cutoff} Å, got {neighbor_list.cutoff} Å"
            )

    # -- types ------------------------------------------------------------------------------

    def types(self, numbers: Tensor) -> Tensor:
        """Return the type (position in ``elements``) of each atomic number.

        Args:
            numbers: [A] int64 atomic numbers.

        Raises:
            ValueError: naming the elements that the descriptor does not know.
        """
        types = self.type_of_number[numbers]
        if not torch.compiler.is_compiling() and bool((types < 0).any()):
            unknown = torch.unique(numbers[types < 0]).tolist()
            names = ", ".join(SYMBOLS[n] for n in unknown)
            raise ValueError(f"unknown element {names}: this descriptor knows {self.elements}")
        return types

    def batch_types(self, batch: Batch) -> Tensor:
        """Return :meth:`types` of the batch's atoms, kept with the batch for the next call."""
        if torch.compiler.is_compiling():
            return self.types(batch.numbers)
        key = ("types", self.elements)
        if key not in batch._topology:
            batch._topology[key] = self.types(batch.numbers)
        result: Tensor = batch._topology[key]
        return result

    # -- description ------------------------------------------------------------------------

    @abstractmethod
    def feature_labels(self, center: str | None = None) -> list[str]:
        """Return the name of each feature, in order."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return what makes the same descriptor again, as plain JSON values."""

    @staticmethod
    def from_config(config: dict[str, Any]) -> Descriptor:
        """Make a descriptor from what :meth:`to_config` returned.

        Raises:
            ValueError: for an unknown family, or missing, unknown or wrong parameters.
        """
        parameters = dict(config)
        family = parameters.pop("family", None)
        if family not in Descriptor._families:
            raise ValueError(
                f"descriptor family must be one of {sorted(Descriptor._families)}, got {family!r}"
            )
        try:
            return Descriptor._families[family](**parameters)
        except TypeError as error:
            raise ValueError(f"descriptor {family!r}: {error}") from None

    def extra_repr(self) -> str:
        """Say what the descriptor sees, in one line."""
        return f"{' '.join(self.elements)}, cutoff={self.cutoff:g} Å, {self.n_features} features"


def check_elements(elements: Sequence[str]) -> tuple[str, ...]:
    """Return the elements as a tuple, refusing unknown ones and repetitions."""
    if isinstance(elements, str):
        raise TypeError(f"elements must be a sequence of symbols, got the string {elements!r}")
    names = tuple(elements)
    if not names:
        raise ValueError("elements must name at least one element, got none")
    for name in names:
        atomic_number(name)
        if names.count(name) > 1:
            raise ValueError(f"elements must differ, got {name!r} twice")
    return names
