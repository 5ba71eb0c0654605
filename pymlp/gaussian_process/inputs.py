"""From structures to points: what a Gaussian process sees of a batch.

`StructureInputs` turns structures with equal atomic numbers into features and Jacobian rows, and
feature gradients back into Cartesian ones. There are three kinds: the atomic features of a
descriptor strung together into one vector per structure, the same features kept apart for the
GAP sum (eq 23), and inverse distances. What follows them is in `feature_transform`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pymlp import neighbors
from pymlp.descriptors import Descriptor
from pymlp.structures import Batch

__all__ = [
    "AtomicInputs",
    "CombinedInputs",
    "ConcatenatedInputs",
    "InverseDistances",
    "StructureInputs",
]


class StructureInputs(nn.Module):
    """Features of structures with equal atomic numbers (positions of one `Batch`)."""

    kind: ClassVar[str]

    @abstractmethod
    def types(self, numbers: Tensor) -> tuple[int, ...]:
        """The type of each of the E environments of a structure with these atomic numbers."""

    @abstractmethod
    def features(self, batch: Batch) -> Tensor:
        """[n, E, p]."""

    @abstractmethod
    def jacobian(self, batch: Batch, basis: Tensor | None) -> Tensor:
        """Derivatives of the features along the columns of a basis.

        Args:
            batch: n structures of N atoms.
            basis: [n, 3N, r]; None for all Cartesian directions (r = 3N).

        Returns:
            [n, E, r, p].
        """

    @abstractmethod
    def gradient(self, batch: Batch, feature_gradient: Tensor) -> Tensor:
        """(∂g/∂R)ᵀ ∂E/∂g as [n, N, 3], from ∂E/∂g [n, E, p]."""

    def features_and_pullback(self, batch: Batch) -> tuple[Tensor, Any]:
        """Features, and a function from ∂E/∂g to ∂E/∂R that shares their intermediate results."""
        return self.features(batch), lambda gradient: self.gradient(batch, gradient)

    @abstractmethod
    def permutation(self, permutation: Tensor, numbers: Tensor) -> Tensor:
        """The index [p] that a permutation of atoms [N] induces on whole-structure features.

        Feature f of the permuted structure (atom i taken from `permutation[i]`) is feature
        `index[f]` of the original one.

        Raises:
            ValueError: the inputs are invariant already.
        """

    @abstractmethod
    def feature_groups(self, numbers: Tensor) -> Tensor:
        """The group [p], 0 … G−1, of every feature that may share a length scale with others.

        Groups follow elements, so that exchanges of like atoms never mix them.
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """A dictionary that `StructureInputs.from_config` turns back into this object."""

    @staticmethod
    def from_config(config: dict[str, Any]) -> StructureInputs:
        """The inverse of `to_config`.

        Raises:
            ValueError: unknown kind.
        """
        kinds = {kind.kind: kind for kind in (ConcatenatedInputs, AtomicInputs)}
        name = config.get("kind")
        if name == InverseDistances.kind:
            return InverseDistances()
        if name == CombinedInputs.kind:
            return CombinedInputs(*(StructureInputs.from_config(one) for one in config["parts"]))
        if name not in kinds:
            known = sorted([*kinds, InverseDistances.kind, CombinedInputs.kind])
            raise ValueError(f"inputs kind must be one of {known}, got {name!r}")
        return kinds[name](Descriptor.from_config(config["descriptor"]))


def atoms_per_structure(batch: Batch) -> int:
    """N of a batch whose structures all have N atoms."""
    return batch.n_atoms // max(1, len(batch))


class _DescriptorInputs(StructureInputs):
    """What the two uses of an atomic descriptor share."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__()
        self.descriptor = descriptor

    def to_config(self) -> dict[str, Any]:
        """Kind and descriptor."""
        return {"kind": self.kind, "descriptor": self.descriptor.to_config()}

    def _words(self) -> Tensor:
        """[F] the group of an atom's features by what kind they are: "radial", "angular"."""
        words = [label.split()[0] for label in self.descriptor.feature_labels()]
        return torch.tensor([sorted(set(words)).index(word) for word in words])

    def _atomic(self, batch: Batch) -> Tensor:
        features: Tensor = self.descriptor(batch)
        return features.view(len(batch), atoms_per_structure(batch), -1)

    def _pullback(self, batch: Batch) -> tuple[Tensor, Any]:
        """Atomic features [n, N, F] and ∂E/∂G [n, N, F] -> ∂E/∂R [n, N, 3], one neighbour list."""
        pairs = neighbors.neighbor_list(batch, self.descriptor.cutoff)
        index = batch.structure_index if pairs.shifts is not None else None
        d = neighbors.displacements(batch.positions, pairs, batch.cell, index)
        types = self.descriptor.batch_types(batch)
        shape = (len(batch), atoms_per_structure(batch), -1)

        def pull(gradient: Tensor) -> Tensor:
            flat = gradient.reshape(batch.n_atoms, -1).contiguous()
            by_pair = self.descriptor.vjp(flat, d, pairs, types)
            forces = neighbors.forces_from_pairs(by_pair, pairs)
            return -forces.view(len(batch), atoms_per_structure(batch), 3)

        return self.descriptor.features(d, pairs, types).view(shape), pull

    def _atomic_jacobian(self, batch: Batch, basis: Tensor | None) -> Tensor:
        """[n, N, r, F]."""
        raw = self.descriptor.jacobian(batch)
        assert isinstance(raw, Tensor)  # equal numbers of atoms
        n, atoms, features = raw.shape[:3]
        if basis is None:
            return raw.permute(0, 1, 3, 4, 2).reshape(n, atoms, 3 * atoms, features)
        directions = basis.view(n, 1, atoms, 3, -1).flatten(2, 3).mT  # [n, 1, r, 3N]
        stacked = raw.permute(0, 1, 3, 4, 2).reshape(n, atoms, 3 * atoms, features)
        return directions @ stacked


class ConcatenatedInputs(_DescriptorInputs):
    """The atomic features of all atoms strung together, one vector of N·F per structure.

    Every structure must list its atoms in the same order; permutations of equivalent atoms are a
    symmetry to be added, not one that is built in.
    """

    kind = "concatenated"

    def types(self, numbers: Tensor) -> tuple[int, ...]:
        """One environment, the structure."""
        return (0,)

    def features(self, batch: Batch) -> Tensor:
        """[n, 1, N·F]."""
        return self._atomic(batch).flatten(1)[:, None]

    def jacobian(self, batch: Batch, basis: Tensor | None) -> Tensor:
        """[n, 1, r, N·F]."""
        return self._atomic_jacobian(batch, basis).transpose(1, 2).flatten(2)[:, None]

    def gradient(self, batch: Batch, feature_gradient: Tensor) -> Tensor:
        """[n, N, 3] by the descriptor's vector-Jacobian product."""
        return self._pullback(batch)[1](feature_gradient)

    def features_and_pullback(self, batch: Batch) -> tuple[Tensor, Any]:
        """One neighbour list for both."""
        atomic, pull = self._pullback(batch)
        return atomic.flatten(1)[:, None], pull

    def permutation(self, permutation: Tensor, numbers: Tensor) -> Tensor:
        """Blocks of F features move with their atoms; within a block nothing changes."""
        features = self.descriptor.n_features
        return (permutation[:, None] * features + torch.arange(features)).flatten()

    def feature_groups(self, numbers: Tensor) -> Tensor:
        """By element of the centre and kind of feature."""
        words = self._words()
        elements = torch.unique(numbers, return_inverse=True)[1]
        return (elements[:, None] * (int(words.max()) + 1) + words).flatten()


class AtomicInputs(_DescriptorInputs):
    """The atomic features of every atom by itself: the GAP sum over same-element pairs (eq 23)."""

    kind = "atomic"

    def types(self, numbers: Tensor) -> tuple[int, ...]:
        """The element type of every atom."""
        return tuple(self.descriptor.types(numbers).tolist())

    def features(self, batch: Batch) -> Tensor:
        """[n, N, F]."""
        return self._atomic(batch)

    def jacobian(self, batch: Batch, basis: Tensor | None) -> Tensor:
        """[n, N, r, F]."""
        return self._atomic_jacobian(batch, basis)

    def gradient(self, batch: Batch, feature_gradient: Tensor) -> Tensor:
        """[n, N, 3] by the descriptor's vector-Jacobian product."""
        return self._pullback(batch)[1](feature_gradient)

    def features_and_pullback(self, batch: Batch) -> tuple[Tensor, Any]:
        """One neighbour list for both."""
        return self._pullback(batch)

    def permutation(self, permutation: Tensor, numbers: Tensor) -> Tensor:
        """The sum over atoms is invariant: there is nothing to permute."""
        raise ValueError("the GAP sum is invariant under permutations of equal atoms already")

    def feature_groups(self, numbers: Tensor) -> Tensor:
        """By kind of feature; all elements alike."""
        return self._words()


class InverseDistances(StructureInputs):
    """1/R_ij of all pairs i < j of isolated molecules (sGDML's descriptor), p = N(N−1)/2."""

    kind = "inverse_distances"

    def types(self, numbers: Tensor) -> tuple[int, ...]:
        """One environment, the structure."""
        return (0,)

    @staticmethod
    def _pairs(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if batch.periodic:
            raise ValueError("inverse distances need isolated structures, got periodic ones")
        atoms = atoms_per_structure(batch)
        i, j = torch.tril_indices(atoms, atoms, -1, device=batch.positions.device)
        positions = batch.positions.view(-1, atoms, 3)
        difference = positions[:, i] - positions[:, j]
        inverse = difference.square().sum(-1).rsqrt()
        return i, j, inverse, difference

    def features(self, batch: Batch) -> Tensor:
        """[n, 1, p]."""
        return self._pairs(batch)[2][:, None]

    def jacobian(self, batch: Batch, basis: Tensor | None) -> Tensor:
        """[n, 1, r, p]: ∂(1/R_ij)/∂R_i = −(R_i − R_j)/R_ij³."""
        i, j, inverse, difference = self._pairs(batch)
        n, pairs = inverse.shape
        atoms = atoms_per_structure(batch)
        slope = -difference * inverse[..., None] ** 3
        if basis is None:
            dense = slope.new_zeros((n, pairs, atoms, 3))
            index = torch.arange(pairs, device=i.device)
            dense[:, index, i] = slope
            dense[:, index, j] = -slope
            return dense.flatten(2).mT[:, None].contiguous()
        moves = basis.view(n, atoms, 3, -1)
        relative = moves[:, i] - moves[:, j]  # [n, p, 3, r]
        return (slope[:, :, None, :] @ relative).squeeze(2).mT[:, None].contiguous()

    def gradient(self, batch: Batch, feature_gradient: Tensor) -> Tensor:
        """[n, N, 3]."""
        return self._pull(self._pairs(batch), feature_gradient)

    def features_and_pullback(self, batch: Batch) -> tuple[Tensor, Any]:
        """The differences are computed once for both."""
        pairs = self._pairs(batch)
        return pairs[2][:, None], lambda gradient: self._pull(pairs, gradient)

    @staticmethod
    def _pull(pairs: tuple[Tensor, Tensor, Tensor, Tensor], feature_gradient: Tensor) -> Tensor:
        i, j, inverse, difference = pairs
        scaled = difference * (-feature_gradient[:, 0] * inverse**3)[..., None]
        atoms = int(i[-1]) + 1 if len(i) else 1
        result = difference.new_zeros((len(difference), atoms, 3))
        result.index_add_(1, i, scaled)
        return result.index_add_(1, j, -scaled)

    def permutation(self, permutation: Tensor, numbers: Tensor) -> Tensor:
        """Pair (i, j) of the permuted structure is pair (π(i), π(j)) of the original one."""
        atoms = len(permutation)
        i, j = torch.tril_indices(atoms, atoms, -1)
        position = torch.zeros((atoms, atoms), dtype=torch.int64)
        position[i, j] = position[j, i] = torch.arange(len(i))
        return position[permutation[i], permutation[j]]

    def feature_groups(self, numbers: Tensor) -> Tensor:
        """By the two elements of the pair."""
        i, j = torch.tril_indices(len(numbers), len(numbers), -1)
        pairs = torch.stack((numbers[i], numbers[j])).sort(0).values
        return torch.unique(pairs, dim=1, return_inverse=True)[1]

    def to_config(self) -> dict[str, Any]:
        """The kind alone."""
        return {"kind": self.kind}


class CombinedInputs(StructureInputs):
    """Several whole-structure features strung together: one covariance sees all of them.

    Local features and inverse distances do better together than either alone, provided that the
    weights of their groups are found by the likelihood (`feature_weights`).

    Args:
        parts: two or more of `ConcatenatedInputs` and `InverseDistances`.

    Raises:
        ValueError: fewer, or the GAP sum among them.
    """

    kind = "combined"

    def __init__(self, *parts: StructureInputs) -> None:
        super().__init__()
        if len(parts) < 2 or any(
            isinstance(part, (AtomicInputs, CombinedInputs)) for part in parts
        ):
            raise ValueError("parts must be two or more whole-structure features")
        self.parts = nn.ModuleList(parts)

    def _each(self) -> list[StructureInputs]:
        return [part for part in self.parts if isinstance(part, StructureInputs)]

    def types(self, numbers: Tensor) -> tuple[int, ...]:
        """One environment, the structure; elements that a part does not know are refused."""
        for part in self._each():
            part.types(numbers)
        return (0,)

    def features(self, batch: Batch) -> Tensor:
        """[n, 1, Σp]."""
        return torch.cat([part.features(batch) for part in self._each()], dim=-1)

    def jacobian(self, batch: Batch, basis: Tensor | None) -> Tensor:
        """[n, 1, r, Σp]."""
        return torch.cat([part.jacobian(batch, basis) for part in self._each()], dim=-1)

    def gradient(self, batch: Batch, feature_gradient: Tensor) -> Tensor:
        """[n, N, 3], the sum over the parts."""
        return self.features_and_pullback(batch)[1](feature_gradient)

    def features_and_pullback(self, batch: Batch, first: int = 0) -> tuple[Tensor, Any]:
        """Those of the parts, from part number `first` on."""
        pairs = [part.features_and_pullback(batch) for part in self._each()[first:]]
        widths = [features.shape[-1] for features, _ in pairs]

        def pull(gradient: Tensor) -> Tensor:
            pieces = zip(pairs, gradient.split(widths, -1), strict=True)
            return torch.stack([one(piece) for (_, one), piece in pieces]).sum(0)

        return torch.cat([features for features, _ in pairs], dim=-1), pull

    def permutation(self, permutation: Tensor, numbers: Tensor) -> Tensor:
        """Every part's own, one after the other."""
        return _stacked([part.permutation(permutation, numbers) for part in self._each()])

    def feature_groups(self, numbers: Tensor) -> Tensor:
        """Every part's own, numbered on."""
        groups, start = [], 0
        for part in self._each():
            groups.append(part.feature_groups(numbers) + start)
            start = int(groups[-1].max()) + 1
        return torch.cat(groups)

    def to_config(self) -> dict[str, Any]:
        """The kind, and the parts' configurations."""
        return {"kind": self.kind, "parts": [part.to_config() for part in self._each()]}


def _stacked(indices: list[Tensor]) -> Tensor:
    """Index vectors of blocks as one over all of them."""
    starts = [0]
    for index in indices[:-1]:
        starts.append(starts[-1] + len(index))
    return torch.cat([index + start for index, start in zip(indices, starts, strict=True)])
