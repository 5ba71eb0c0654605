"""Neighbour lists and what carries them to positions: displacements, forces, stress.

The convention, stated once:

* A list is *full*: it holds both i -> j and j -> i. Pair p goes from ``centers[p]`` to
  ``neighbors[p]``, and its displacement is d = r_neighbor - r_center + shift · cell, in Å.
* Pairs are sorted by centre, within a centre by neighbour, within a neighbour by shift. Pairs of
  centre i stand at ``pair_offsets[i] .. pair_offsets[i + 1]``.
* Indices count the atoms of the whole batch. Pairs never join two structures. A periodic image
  of the centre itself is a neighbour like any other (shift other than zero).
* Pairs at a distance below the cutoff are listed. A list made for a longer cutoff serves a
  descriptor with a shorter one, which is zero from its own cutoff on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pymlp import pair_ops
from pymlp.structures import Batch

__all__ = [
    "NeighborList",
    "displacements",
    "forces_from_pairs",
    "neighbor_list",
    "stress_from_pairs",
]

#: Atoms closer than this (Å) are one atom written twice, and have no direction between them.
COINCIDENT = 1e-6

#: Isolated structures up to this size are compared pair by pair, larger ones by a grid of cells:
#: where the two cost the same at a cutoff of 5 Å and molecular density.
ALL_PAIRS_ATOMS = 400


@dataclass(frozen=True, eq=False)
class NeighborList:
    """Pairs of atoms within a cutoff, in the order that this module's head states.

    Attributes:
        pair_offsets: [A + 1] int64, where the pairs of each centre begin.
        neighbors: [P] int64.
        shifts: [P, 3] int32, cell vectors added to the neighbour; ``None`` if all are zero.
        cutoff: Å; infinite where every pair is listed whatever the distance.
    """

    pair_offsets: Tensor
    neighbors: Tensor
    shifts: Tensor | None
    cutoff: float

    @cached_property
    def centers(self) -> Tensor:
        """[P] int64, made from ``pair_offsets`` when first asked for."""
        return pair_ops.centers_of(self.pair_offsets, self.n_pairs)

    @property
    def n_pairs(self) -> int:
        """P, the number of pairs."""
        return len(self.neighbors)

    @property
    def n_atoms(self) -> int:
        """A, the number of centres."""
        return len(self.pair_offsets) - 1

    def to(self, device: torch.device | str) -> NeighborList:
        """Return the list on another device."""
        return NeighborList(
            self.pair_offsets.to(device),
            self.neighbors.to(device),
            None if self.shifts is None else self.shifts.to(device),
            self.cutoff,
        )


def neighbor_list(batch: Batch, cutoff: float) -> NeighborList:
    """List all pairs of atoms of a batch that are closer than ``cutoff``.

    Batches of isolated small structures go through ``torch.ops.pymlp.all_pairs``, others through
    ``torch.ops.pymlp.cell_list``; on the device that they are on.

    On CUDA the host waits for the number of pairs and looks whether atoms coincide. It does neither
    while a CUDA graph is captured, in which isolated structures have all their pairs listed; nor
    does it wait for the number where the cutoff is infinite, and such a list is kept with the batch
    (and with copies of it that have other positions).

    Args:
        batch: structures, any mixture of isolated and periodic ones.
        cutoff: Å, above zero. Infinity lists every pair, for isolated structures only; such a
            list depends on the sizes of the structures alone and never has to be made again.

    Raises:
        ValueError: for a cutoff that is not above zero, an infinite one with periodic structures,
            positions that are not finite, or coincident atoms (named with their structure).
    """
    if not isinstance(cutoff, (int, float)) or not cutoff > 0:
        raise ValueError(f"cutoff must be a number above zero (Å), got {cutoff!r}")
    cutoff = float(cutoff)
    periodic = batch.periodic
    if math.isinf(cutoff) and periodic:
        raise ValueError("cutoff must be finite for periodic structures, got infinity")
    positions = batch.positions.detach()
    small = max(batch.lengths, default=0) <= ALL_PAIRS_ATOMS
    if _is_captured(positions):
        if periodic or not (small or math.isinf(cutoff)):
            raise ValueError(
                "neighbour lists of periodic or large structures cannot be made while a CUDA graph "
                "is captured: make one before and pass it on"
            )
        return _every_pair(batch)
    if not periodic and (small or math.isinf(cutoff)):
        if math.isinf(cutoff) and positions.device.type != "cpu":
            result = _every_pair(batch)
        else:
            offsets, _, neighbors = pair_ops.all_pairs(positions, batch.structure_offsets, cutoff)
            result = NeighborList(offsets, neighbors, None, cutoff)
        if positions.device.type != "cpu":  # there the op looks at this itself
            _check_geometry(batch, result)
        return result
    offsets, neighbors, shifts = pair_ops.cell_list(
        positions,
        batch.structure_offsets,
        batch.cell.detach().to(positions.dtype),
        batch.pbc,
        cutoff,
    )
    return NeighborList(offsets, neighbors, shifts if periodic else None, cutoff)


def _is_captured(positions: Tensor) -> bool:
    return positions.is_cuda and torch.cuda.is_current_stream_capturing()


def _every_pair(batch: Batch) -> NeighborList:
    """List all pairs of isolated structures; the host, which knows how many, does not wait."""
    if "every pair" in batch._topology:
        kept: NeighborList = batch._topology["every pair"]
        return kept
    n_pairs = sum(n * (n - 1) for n in batch.lengths)
    offsets, _, neighbors = pair_ops.all_pairs(
        batch.positions.detach(), batch.structure_offsets, math.inf, n_pairs
    )
    result = NeighborList(offsets, neighbors, None, math.inf)
    # What is made while a graph is captured belongs to the graph, and has no values before it runs.
    if not _is_captured(batch.positions):
        batch._topology["every pair"] = result
    return result


def _check_geometry(batch: Batch, pairs: NeighborList) -> None:
    """Refuse isolated structures with atoms on top of each other or nowhere."""
    positions = batch.positions.detach()
    # A sum is finite only if all its terms are; searches would drop such atoms without a word.
    if not bool(torch.isfinite(positions.sum())):
        finite = torch.isfinite(positions).all(dim=1)
        raise ValueError(
            f"positions must be finite, got NaN or Inf at atom {int((~finite).nonzero()[0])} "
            "of the batch"
        )
    if pairs.n_pairs == 0:
        return
    squares = displacements(positions, pairs).square().sum(dim=1)
    if bool(squares.min() >= COINCIDENT**2):
        return
    pair = int(squares.argmin())
    i, j = int(pairs.centers[pair]), int(pairs.neighbors[pair])
    structure = int(batch.structure_index[i])
    begin = int(batch.structure_offsets[structure])
    raise ValueError(
        f"structure {structure}: atoms {i - begin} and {j - begin} coincide "
        f"(distance {float(squares[pair]) ** 0.5:.1e} Å)"
    )


def displacements(
    positions: Tensor,
    neighbor_list: NeighborList,
    cell: Tensor | None = None,
    structure_index: Tensor | None = None,
) -> Tensor:
    """Return d = r_neighbor - r_center + shift · cell for every pair.

    Differentiable with respect to positions and cell.

    Args:
        positions: [A, 3] Å.
        neighbor_list: the neighbour list.
        cell: [B, 3, 3] or [3, 3] Å, rows are cell vectors; needed where the list has shifts.
        structure_index: [A] the structure of each atom; needed for more than one cell.

    Returns:
        [P, 3] Å.

    Raises:
        ValueError: if the list is of another number of atoms, or has shifts and the cell or the
            structure index is missing.
    """
    if positions.shape[0] != neighbor_list.n_atoms:
        raise ValueError(
            f"neighbor_list must be of these positions: it has {neighbor_list.n_atoms} atoms, "
            f"positions have {positions.shape[0]}"
        )
    offsets, neighbors, shifts = (
        neighbor_list.pair_offsets,
        neighbor_list.neighbors,
        neighbor_list.shifts,
    )
    if shifts is None:
        return pair_ops.pair_differences(positions, offsets, neighbors)
    if cell is None:
        raise ValueError("cell must be given for a neighbour list with shifts, got None")
    if cell.dim() == 2:
        cell = cell[None]
    if structure_index is None:
        if len(cell) != 1:
            raise ValueError("structure_index must be given for more than one cell, got None")
        structure_index = offsets[:0]
    return pair_ops.image_differences(
        positions, cell.to(positions.dtype), structure_index, offsets, neighbors, shifts
    )


def forces_from_pairs(pair_gradients: Tensor, neighbor_list: NeighborList) -> Tensor:
    """Return F = -dE/dr from dE/dd: every pair pulls its centre and pushes its neighbour.

    Args:
        pair_gradients: [P, 3] eV/Å, dE/dd of every pair.
        neighbor_list: the neighbour list of those neighbor_list.

    Returns:
        [A, 3] eV/Å; differentiable, and the same bits every time.
    """
    return -pair_ops.pair_differences_backward(
        pair_gradients, neighbor_list.pair_offsets, neighbor_list.neighbors
    )


def stress_from_pairs(
    pair_gradients: Tensor,
    pair_displacements: Tensor,
    neighbor_list: NeighborList,
    cell: Tensor,
    structure_index: Tensor,
) -> Tensor:
    """Return the stress (1/V) dE/d(strain) = (1/V) Σ_p dE/dd_p ⊗ d_p of every structure.

    The sign is ASE's: a structure under pressure has negative diagonal elements.

    Args:
        pair_gradients: [P, 3] eV/Å.
        pair_displacements: [P, 3] Å.
        neighbor_list: the neighbour list of those neighbor_list.
        cell: [B, 3, 3] Å.
        structure_index: [A] the structure of each atom.

    Returns:
        [B, 3, 3] eV/Å^3, symmetric; NaN for structures without a volume.
    """
    if cell.shape[0] == 1:
        virial = _product(pair_gradients, pair_displacements).reshape(1, 3, 3)
    else:
        outer = pair_gradients[:, :, None] * pair_displacements[:, None, :]
        virial = pair_ops.sum_by_structure(
            outer, structure_index, cell.shape[0], neighbor_list.pair_offsets
        )
    volume = torch.linalg.det(cell).abs()
    volume = torch.where(volume > 0, volume, torch.full_like(volume, math.nan))
    return 0.5 * (virial + virial.transpose(1, 2)) / volume[:, None, None]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Σ_p a_p ⊗ b_p [3, 3]: matrix products of 1024 pairs, whose sums round less than one sum.

    4 million pairs 17 ms, the outer products written and added up 208.
    """
    whole = len(a) // 1024 * 1024
    parts = torch.bmm(a[:whole].view(-1, 1024, 3).transpose(1, 2), b[:whole].view(-1, 1024, 3))
    return parts.sum(dim=0) + a[whole:].T @ b[whole:]
