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
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pymlp import ops
from pymlp.structures import Batch

__all__ = [
    "NeighborList",
    "displacements",
    "forces_from_pairs",
    "neighbor_list",
    "stress_from_pairs",
]

_Array: TypeAlias = NDArray[Any]

#: Atoms closer than this (Å) are one atom written twice, and have no direction between them.
COINCIDENT = 1e-6

#: Isolated structures up to this size are compared pair by pair, larger ones by a cell list:
#: where the two cost the same at a cutoff of 5 Å and molecular density.
ALL_PAIRS_ATOMS = 400


@dataclass(frozen=True, eq=False)
class NeighborList:
    """Pairs of atoms within a cutoff, in the order that this module's head states.

    Attributes:
        pair_offsets: [A + 1] int64, where the pairs of each centre begin.
        centers: [P] int64.
        neighbors: [P] int64.
        shifts: [P, 3] int64, cell vectors added to the neighbour; ``None`` if all are zero.
        cutoff: Å; infinite where every pair is listed whatever the distance.
    """

    pair_offsets: Tensor
    centers: Tensor
    neighbors: Tensor
    shifts: Tensor | None
    cutoff: float

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
            self.centers.to(device),
            self.neighbors.to(device),
            None if self.shifts is None else self.shifts.to(device),
            self.cutoff,
        )


def neighbor_list(batch: Batch, cutoff: float) -> NeighborList:
    """List all pairs of atoms of a batch that are closer than ``cutoff``.

    Isolated small structures go through ``torch.ops.pymlp.all_pairs`` together and stay on their
    device; periodic and large ones go through vesin on the CPU, one by one.

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
    if math.isinf(cutoff) and batch.periodic:
        raise ValueError("cutoff must be finite for periodic structures, got infinity")
    # A sum is finite only if all its terms are; searches would drop such atoms without a word.
    if not bool(torch.isfinite(batch.positions.detach().sum())):
        finite = torch.isfinite(batch.positions).all(dim=1)
        raise ValueError(
            f"positions must be finite, got NaN or Inf at atom {int((~finite).nonzero()[0])} "
            "of the batch"
        )
    lengths = batch.lengths
    if not batch.periodic and (math.isinf(cutoff) or max(lengths, default=0) <= ALL_PAIRS_ATOMS):
        offsets, centers, neighbors = ops.all_pairs(
            batch.positions.detach(), batch.structure_offsets, float(cutoff)
        )
        result = NeighborList(offsets, centers, neighbors, None, float(cutoff))
        _refuse_coincident(batch, result)
        return result
    return _mixed_list(batch, lengths, float(cutoff))


def _mixed_list(batch: Batch, lengths: list[int], cutoff: float) -> NeighborList:
    """Structure by structure: vesin where periodic or large, all pairs elsewhere."""
    positions = batch.positions.detach().cpu()
    cells = batch.cell.detach().to("cpu", torch.float64).numpy()
    pbc = batch.pbc.cpu().numpy()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    begin = 0
    for index, n_atoms in enumerate(lengths):
        own = positions[begin : begin + n_atoms]
        if n_atoms == 0:
            continue
        if pbc[index].any() or n_atoms > ALL_PAIRS_ATOMS:
            part = _cell_list(own.double().numpy(), cells[index], pbc[index], cutoff, index)
        else:
            offsets, centers, neighbors = ops.all_pairs(own, torch.tensor([0, n_atoms]), cutoff)
            alone = Batch(own, batch.numbers[begin : begin + n_atoms].cpu(), [0, n_atoms])  # type: ignore[arg-type]
            found = NeighborList(offsets, centers, neighbors, None, cutoff)
            _refuse_coincident(alone, found, index)
            part = centers, neighbors, torch.zeros(len(centers), 3, dtype=torch.int64)
        parts.append((part[0] + begin, part[1] + begin, part[2]))
        begin += n_atoms
    device = batch.positions.device
    centers, neighbors, shifts = (torch.cat(column) for column in zip(*parts, strict=True))
    counts = torch.bincount(centers, minlength=batch.n_atoms)
    return NeighborList(
        pair_offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(device),
        centers=centers.to(device),
        neighbors=neighbors.to(device),
        shifts=shifts.to(device) if batch.periodic else None,
        cutoff=cutoff,
    )


def _cell_list(
    positions: _Array, cell: _Array, pbc: _Array, cutoff: float, structure: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [P], neighbours [P] and shifts [P, 3] of one structure, by vesin, sorted."""
    import vesin

    # The order in which several threads find pairs does not matter: they are sorted below.
    n_threads = torch.get_num_threads() if len(positions) > 1000 else 1
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, n_threads=n_threads)
    box = _complete_cell(cell, pbc) if pbc.any() else np.zeros((3, 3))
    found, moved, distances = search.compute(positions, box, pbc, "PSd", copy=False)
    if len(found) == 0:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none, none.reshape(0, 3)
    if distances.min() < COINCIDENT:
        pair = int(distances.argmin())
        raise _coincident(structure, int(found[pair, 0]), int(found[pair, 1]), distances[pair])
    return _sorted_pairs(found.view(np.int64), moved, len(positions))


def _sorted_pairs(pairs: _Array, shifts: _Array, n_atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort pairs [P, 2] with shifts [P, 3] by centre, neighbour and shift.

    Each pair is packed into one integer that sorts as it should, and unpacked afterwards: four
    times as fast as sorting indices and gathering by them.
    """
    centers, neighbors = np.ascontiguousarray(pairs.T)
    moved = np.ascontiguousarray(shifts.T)
    low, high = moved.min(axis=1), moved.max(axis=1)
    atom_bits = (n_atoms - 1).bit_length()
    bits = [int(span).bit_length() for span in high - low]
    if 2 * atom_bits + sum(bits) > 62:
        order = np.lexsort([*moved[::-1], neighbors, centers])
        unpacked = shifts[order].astype(np.int64)
        centers, neighbors = centers[order], neighbors[order]
    else:
        key = centers << atom_bits
        key |= neighbors
        for axis in range(3):
            key <<= bits[axis]
            key += moved[axis]
            key -= low[axis]
        # Torch sorts integers by digits, three times as fast as numpy compares them.
        key = torch.from_numpy(key).sort().values.numpy()
        unpacked = np.empty((len(key), 3), dtype=np.int64)
        for axis in (2, 1, 0):
            np.bitwise_and(key, (1 << bits[axis]) - 1, out=unpacked[:, axis])
            key >>= bits[axis]
        unpacked += low
        centers, neighbors = key >> atom_bits, key & ((1 << atom_bits) - 1)
    return torch.from_numpy(centers), torch.from_numpy(neighbors), torch.from_numpy(unpacked)


def _complete_cell(cell: _Array, pbc: _Array) -> _Array:
    """Replace the vectors that are not periodic by unit vectors orthogonal to all others."""
    if pbc.all():
        return cell
    box = np.where(pbc[:, None], cell, 0.0)
    # The last right singular vectors span what the periodic vectors leave.
    free = list(np.linalg.svd(box)[2][int(pbc.sum()) :])
    for axis in np.flatnonzero(~pbc):
        box[axis] = free.pop()
    return box


def _refuse_coincident(batch: Batch, pairs: NeighborList, structure: int | None = None) -> None:
    """Refuse isolated structures with atoms on top of each other."""
    if pairs.n_pairs == 0:
        return
    squares = displacements(batch.positions.detach(), pairs).square().sum(dim=1)
    if bool(squares.min() >= COINCIDENT**2):
        return
    pair = int(squares.argmin())
    i, j = int(pairs.centers[pair]), int(pairs.neighbors[pair])
    own = int(batch.structure_index[i])
    begin = int(batch.structure_offsets[own])
    distance = float(squares[pair]) ** 0.5
    raise _coincident(own if structure is None else structure, i - begin, j - begin, distance)


def _coincident(structure: int, i: int, j: int, distance: float) -> ValueError:
    return ValueError(
        f"structure {structure}: atoms {i} and {j} coincide (distance {distance:.1e} Å)"
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
    d = ops.pair_differences(positions, neighbor_list.pair_offsets, neighbor_list.neighbors)
    if neighbor_list.shifts is None:
        return d
    if cell is None:
        raise ValueError("cell must be given for a neighbour list with shifts, got None")
    shifts = neighbor_list.shifts.to(positions.dtype)
    if cell.dim() == 3 and cell.shape[0] == 1:
        cell = cell[0]
    if cell.dim() == 2:
        return d.addmm_(shifts, cell)
    if structure_index is None:
        raise ValueError("structure_index must be given for more than one cell, got None")
    own = cell.index_select(0, structure_index.index_select(0, neighbor_list.centers))
    return d + torch.bmm(shifts[:, None, :], own)[:, 0]


def forces_from_pairs(pair_gradients: Tensor, neighbor_list: NeighborList) -> Tensor:
    """Return F = -dE/dr from dE/dd: every pair pulls its centre and pushes its neighbour.

    Args:
        pair_gradients: [P, 3] eV/Å, dE/dd of every pair.
        neighbor_list: the neighbour list of those neighbor_list.

    Returns:
        [A, 3] eV/Å; differentiable, and the same bits every time on a CPU.
    """
    return -ops.pair_differences_backward(
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
    outer = pair_gradients[:, :, None] * pair_displacements[:, None, :]
    virial = outer.new_zeros(cell.shape[0], 9)
    if cell.shape[0] == 1:
        virial = outer.sum(dim=0).reshape(1, 9)
    else:
        owner = structure_index.index_select(0, neighbor_list.centers)
        virial = virial.index_add(0, owner, outer.reshape(-1, 9))
    virial = virial.reshape(-1, 3, 3)
    volume = torch.linalg.det(cell).abs()
    volume = torch.where(volume > 0, volume, torch.full_like(volume, math.nan))
    return 0.5 * (virial + virial.transpose(1, 2)) / volume[:, None, None]
