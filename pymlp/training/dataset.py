"""The training data in the form that an epoch needs: all that does not depend on the weights.

Displacements, neighbour lists and (where memory allows) the features themselves are computed once.
A step then gathers the rows of its structures, runs the networks, and gets forces from one
``descriptor.vjp``; backward needs only the descriptor's ``_jvp``.

The Jacobian is not kept: for 32 Claisen structures vjp and jvp by the op take 2.6 ms (ANI-1x) and
3.7 ms (bp-fnn's default set) of one core, products with a stored dense Jacobian 5.2 and 3.3 ms,
and 780 and 510 MB for the 1500 training structures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from pymlp.descriptors.base import Descriptor
from pymlp.neighbors import NeighborList, displacements, neighbor_list
from pymlp.structures import Batch

__all__ = ["CachedStructures", "EpochShuffle", "TrainingBatch"]

#: Structures whose features are computed at one time while the cache is filled.
_CHUNK = 256


@dataclass(frozen=True)
class TrainingBatch:
    """What one optimiser step reads.

    Attributes:
        features: what the descriptor's ``geometry`` gives: the features [A, F], or for a
            descriptor with weights what they are made of.
        types: [A] int64, index of the element of each atom.
        structure_index: [A] int64.
        displacements: [P, 3] Å.
        pairs: the neighbour list, its indices counted within this batch.
        energies: [B] eV, float64.
        forces: [A, 3] eV/Å, or ``None``.
        n_atoms: [B] atoms per structure.
    """

    features: Tensor
    types: Tensor
    structure_index: Tensor
    displacements: Tensor
    pairs: NeighborList
    energies: Tensor
    forces: Tensor | None
    n_atoms: Tensor

    @property
    def n_structures(self) -> int:
        """B, the number of structures."""
        return len(self.energies)

    def to(self, device: torch.device | str, **_: object) -> TrainingBatch:
        """Return the batch on ``device``; it is gathered there, so this moves nothing."""
        if self.features.device != torch.device(device):
            raise ValueError(
                f"the training batch lies on {self.features.device}, the model on {device}; "
                "give CachedStructures the device of the trainer"
            )
        return self


class CachedStructures(torch.utils.data.Dataset[TrainingBatch]):
    """Structures with their geometry, features and labels, gathered into batches by index.

    Args:
        batch: all structures, with energies (and forces, unless trained on energies alone).
        descriptor: gives the features.
        dtype: precision of features, displacements and forces in training; energies stay float64.
        device: where everything is kept.
        cache_limit: bytes; features larger than this are computed anew for every batch.

    Raises:
        ValueError: if the batch has no energies; and from neighbour list and descriptor (coincident
            atoms, unknown elements), naming the structure.
    """

    def __init__(
        self,
        batch: Batch,
        descriptor: Descriptor,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        cache_limit: float = 2e9,
    ) -> None:
        if batch.energies is None:
            raise ValueError("the structures have no energies to train on")
        device = torch.device(device)
        self.descriptor = descriptor
        pairs = neighbor_list(batch, descriptor.cutoff)
        # Differences of coordinates in float64; only then rounded.
        vectors = displacements(
            batch.positions.to(torch.float64),
            pairs,
            batch.cell.to(torch.float64),
            batch.structure_index,
        )
        self.types = descriptor.types(batch.numbers).to(device)
        self.displacements = vectors.to(device, dtype)
        self.atom_offsets = batch.structure_offsets.to(device)
        counts = pairs.pair_offsets.diff()
        self.pair_counts = counts.to(device)
        self.pair_offsets = pairs.pair_offsets[batch.structure_offsets].to(device)
        # Indices within the structure, so that a batch only adds its own offsets.
        first = batch.structure_offsets[:-1][batch.structure_index]
        self.neighbors = (pairs.neighbors - first[pairs.centers]).to(device)
        self.energies = batch.energies.to(device, torch.float64)
        self.forces = None if batch.forces is None else batch.forces.to(device, dtype)
        size = batch.n_atoms * descriptor.n_features * torch.finfo(dtype).bits // 8
        self.features: Tensor | None = None
        if size <= cache_limit and not descriptor.trainable:
            self.features = self._all_features(batch.n_atoms, dtype, device)

    def _all_features(self, n_atoms: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        features = torch.empty(n_atoms, self.descriptor.n_features, dtype=dtype, device=device)
        for begin in range(0, len(self), _CHUNK):
            index = torch.arange(begin, min(begin + _CHUNK, len(self)), device=device)
            chunk = self[index]
            end = int(self.atom_offsets[index[-1] + 1])
            features[int(self.atom_offsets[begin]) : end] = chunk.features
        return features

    def __len__(self) -> int:
        return len(self.energies)

    def __getitem__(self, index: Tensor | Sequence[int]) -> TrainingBatch:
        """Gather the structures ``index`` into one batch."""
        chosen = torch.as_tensor(index, device=self.types.device)
        atoms, lengths, starts = _ranges(self.atom_offsets, chosen)
        rows, pair_lengths, _ = _ranges(self.pair_offsets, chosen)
        n_atoms = len(atoms)
        counts = self.pair_counts[atoms]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = torch.repeat_interleave(starts, pair_lengths, output_size=len(rows))
        pairs = NeighborList(
            pair_offsets=offsets,
            neighbors=self.neighbors[rows] + shift,
            shifts=None,  # periodicity is in the displacements
            cutoff=self.descriptor.cutoff,
        )
        types = self.types[atoms]
        vectors = self.displacements.index_select(0, rows)
        if self.features is not None:
            features = self.features.index_select(0, atoms)
        else:
            with torch.no_grad():
                features = self.descriptor.geometry(vectors, pairs, types)
        return TrainingBatch(
            features=features,
            types=types,
            structure_index=torch.repeat_interleave(
                torch.arange(len(chosen), device=atoms.device), lengths, output_size=n_atoms
            ),
            displacements=vectors,
            pairs=pairs,
            energies=self.energies[chosen],
            forces=None if self.forces is None else self.forces.index_select(0, atoms),
            n_atoms=lengths,
        )


def _ranges(offsets: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the concatenated ranges offsets[b] .. offsets[b+1], their lengths and new starts."""
    begin = offsets[:-1][chosen]
    lengths = offsets[1:][chosen] - begin
    ends = lengths.cumsum(0)
    starts = ends - lengths
    total = int(ends[-1]) if len(ends) else 0
    shift = torch.repeat_interleave(begin - starts, lengths, output_size=total)
    return torch.arange(total, device=offsets.device) + shift, lengths, starts


class EpochShuffle(Sampler[list[int]]):
    """Batches of indices in an order that depends on the seed and the epoch alone.

    No generator state outlives an epoch: a run resumed at epoch k shuffles as if never stopped.
    Batch sizes of one epoch differ by one at most, so that no small last batch adds noise.

    Args:
        n: number of structures.
        batch_size: largest number of structures per batch.
        seed: of the run (of the committee's member).
        shuffle: ``False`` keeps the order, for validation.
    """

    def __init__(self, n: int, batch_size: int, seed: int = 0, *, shuffle: bool = True) -> None:
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives (the trainer calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            # 2^31 epochs per seed before two runs could share an order.
            generator = torch.Generator().manual_seed(self.seed * 2**31 + self.epoch)
            order = torch.randperm(self.n, generator=generator)
        else:
            order = torch.arange(self.n)
        for part in order.tensor_split(len(self)):
            yield part.tolist()
