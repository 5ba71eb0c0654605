"""Generators of neighbourhoods for the descriptor tests: float64, seeded, no package code.

The lists are brute force over lattice shifts, so that they also judge the package's own lists.
Lengths in Å.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """One structure: positions [N, 3], types [N], and a cell [3, 3] where it is periodic."""

    positions: Tensor
    types: Tensor
    cell: Tensor | None = None


@dataclass(frozen=True)
class Neighbourhood:
    """Full list of one batch, pairs sorted by centre, neighbour, shift."""

    displacements: Tensor
    pair_offsets: Tensor
    neighbors: Tensor
    types: Tensor

    @property
    def n_atoms(self) -> int:
        return self.types.numel()

    @property
    def n_pairs(self) -> int:
        return self.neighbors.numel()

    @property
    def centers(self) -> Tensor:
        counts = self.pair_offsets.diff()
        return torch.repeat_interleave(torch.arange(counts.numel()), counts)


def lattice_shifts(cell: Tensor | None, cutoff: float) -> Tensor:
    """[K, 3] integer shifts that can bring an image within ``cutoff``, in lexical order."""
    if cell is None:
        return torch.zeros(1, 3, dtype=torch.int64)
    heights = 1 / torch.linalg.inv(cell).norm(dim=0)
    # one more on each side: positions need not lie inside the cell
    reach = [math.ceil(cutoff / height) + 1 for height in heights.tolist()]
    return torch.tensor(list(itertools.product(*(range(-n, n + 1) for n in reach))))


def neighbourhood(structures: Sequence[Geometry], cutoff: float) -> Neighbourhood:
    """Brute-force full list with all pairs at distance <= ``cutoff`` (on it included)."""
    displacements = [torch.zeros(0, 3, dtype=torch.float64)]
    neighbors = [torch.zeros(0, dtype=torch.int64)]
    counts = [torch.zeros(0, dtype=torch.int64)]
    types = [torch.zeros(0, dtype=torch.int64)]
    first = 0
    for structure in structures:
        n_atoms = structure.types.numel()
        shifts = lattice_shifts(structure.cell, cutoff)
        images = torch.zeros(shifts.shape[0], 3, dtype=torch.float64)
        if structure.cell is not None:
            images = shifts.to(torch.float64) @ structure.cell
        for center in range(n_atoms):
            d = structure.positions[:, None] + images[None] - structure.positions[center]
            keep = d.norm(dim=2) <= cutoff
            origin = (shifts == 0).all(1)
            keep[center, origin] = False
            displacements.append(d[keep])
            neighbors.append(first + keep.nonzero()[:, 0])
            counts.append(keep.sum().reshape(1))
        types.append(structure.types)
        first += n_atoms
    offsets = torch.zeros(first + 1, dtype=torch.int64)
    offsets[1:] = torch.cat(counts).cumsum(0)
    return Neighbourhood(torch.cat(displacements), offsets, torch.cat(neighbors), torch.cat(types))


def molecule(n_atoms: int, n_types: int, seed: int, spacing: float = 0.9) -> Geometry:
    """Random compact molecule; no two atoms closer than ``spacing``."""
    generator = torch.Generator().manual_seed(seed)
    radius = 0.9 * spacing * max(n_atoms, 2) ** (1 / 3)
    placed: list[Tensor] = []
    while len(placed) < n_atoms:
        trial = (torch.rand(3, generator=generator, dtype=torch.float64) * 2 - 1) * radius
        if all((trial - other).norm() > spacing for other in placed):
            placed.append(trial)
        else:
            radius *= 1.002  # widens slowly, so that any number of atoms finds room
    types = torch.randint(n_types, (n_atoms,), generator=generator)
    types[: min(n_types, n_atoms)] = torch.arange(min(n_types, n_atoms))  # every type occurs
    positions = torch.stack(placed) if placed else torch.zeros(0, 3, dtype=torch.float64)
    return Geometry(positions, types)


def distorted(of: Neighbourhood, seed: int) -> Neighbourhood:
    """The same list with displacements that belong to no set of positions."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(of.displacements.shape, generator=generator, dtype=torch.float64)
    return replace(of, displacements=of.displacements + 0.05 * noise)


def crystal(n_atoms: int, n_types: int, seed: int, length: float) -> Geometry:
    """Triclinic cell with edges near ``length``; atoms partly outside it, as users have them."""
    generator = torch.Generator().manual_seed(seed)
    skew = torch.rand(3, 3, generator=generator, dtype=torch.float64) * 0.3
    cell = torch.eye(3, dtype=torch.float64) * length + torch.tril(skew, -1) * length
    placed: list[Tensor] = []
    shifts = lattice_shifts(cell, 1.0).to(torch.float64) @ cell
    while len(placed) < n_atoms:
        trial = (torch.rand(3, generator=generator, dtype=torch.float64) * 1.6 - 0.3) @ cell
        if all((trial + shifts - other).norm(dim=1).min() > 0.9 for other in placed):
            placed.append(trial)
    types = torch.arange(n_atoms) % n_types
    return Geometry(torch.stack(placed), types, cell)


def collinear(n_types: int = 2) -> Geometry:
    """Four atoms on a line along z, exactly representable: angles of exactly 0 and pi."""
    positions = torch.zeros(4, 3, dtype=torch.float64)
    positions[:, 2] = torch.tensor([0.0, 1.25, 2.75, -1.5])
    return Geometry(positions, torch.arange(4) % n_types)


def on_the_cutoff(radius: float) -> Geometry:
    """Neighbours exactly at, just inside and just outside ``radius`` (and a close one)."""
    inside, outside = radius * (1 - 2**-20), radius * (1 + 2**-20)
    positions = torch.tensor(
        [[0, 0, 0], [radius, 0, 0], [0, radius, 0], [0, 0, inside], [-outside, 0, 0], [1, 1, 0.5]],
        dtype=torch.float64,
    )
    return Geometry(positions, torch.tensor([0, 1, 0, 1, 0, 1]))


def shell(n_neighbors: int, n_types: int, seed: int) -> Neighbourhood:
    """One centre with many neighbours between 1 and 4 Å, and as many centres without any."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_neighbors, 3, generator=generator, dtype=torch.float64)
    lengths = 1 + 3 * torch.rand(n_neighbors, 1, generator=generator, dtype=torch.float64)
    n_atoms = n_neighbors + 1
    offsets = torch.full((n_atoms + 1,), n_neighbors)
    offsets[0] = 0
    return Neighbourhood(
        directions / directions.norm(dim=1, keepdim=True) * lengths,
        offsets,
        torch.arange(1, n_atoms),
        torch.randint(n_types, (n_atoms,), generator=generator),
    )
