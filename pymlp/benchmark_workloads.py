"""Periodic water of any size, for benchmarks: seeded, so that everybody times the same boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ase.units
import torch
from torch import Tensor

__all__ = ["SIZES", "Workload", "water"]

#: atoms of the scaling series, 10² to 10⁵ in whole molecules
SIZES = (99, 999, 9_999, 99_999)
#: molecules/Å³ at 1 g/cm³ (1e-27 kg/Å³)
WATER_DENSITY = 1e-27 / (18.015 * ase.units._amu)


@dataclass(frozen=True)
class Workload:
    """``positions`` [B, N, 3] float64 of B structures with the same ``numbers`` [N], in Å.

    :param cell: [3, 3] float64 for periodic ones
    """

    name: str
    numbers: Tensor
    positions: Tensor
    cell: Tensor | None = None

    @property
    def n_structures(self) -> int:
        """B."""
        return self.positions.shape[0]

    @property
    def n_atoms(self) -> int:
        """B * N."""
        return self.numbers.numel() * self.n_structures


def water(n_atoms: int, seed: int = 0) -> Workload:
    """Periodic water at 1 g/cm³: a jittered lattice of rigid, randomly turned molecules.

    :param n_atoms: three for each molecule
    :raises ValueError: for parts of molecules
    """
    if n_atoms % 3:
        raise ValueError(f"n_atoms must be a multiple of 3 (whole molecules), got {n_atoms}")
    n_molecules = n_atoms // 3
    length = (n_molecules / WATER_DENSITY) ** (1 / 3)
    per_edge = math.ceil(n_molecules ** (1 / 3))
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    sites = torch.cartesian_prod(*[torch.arange(per_edge, dtype=torch.float64)] * 3)
    chosen = torch.randperm(len(sites), generator=generator)[:n_molecules].sort().values
    oxygens = sites[chosen] * (length / per_edge) + 0.15 * normal(n_molecules, 3)
    turns = torch.linalg.qr(normal(n_molecules, 3, 3)).Q
    shape = torch.tensor([[0, 0, 0], [0.7572, 0.5865, 0], [-0.7572, 0.5865, 0]]).double()
    positions = (oxygens[:, None] + shape @ turns).reshape(1, n_atoms, 3)
    numbers = torch.tensor([8, 1, 1]).repeat(n_molecules)
    cell = torch.eye(3, dtype=torch.float64) * length
    return Workload(f"water {n_atoms}", numbers, positions, cell)
