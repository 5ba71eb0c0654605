"""What a potential says: means over the networks of a committee, and how far these differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pymlp.neighbors import NeighborList, forces_from_pairs
from pymlp.pair_ops import sum_by_structure
from pymlp.structures import Batch

__all__ = ["Prediction", "committee_statistics"]


@dataclass(frozen=True)
class Prediction:
    """What a potential says about B structures with A atoms; nothing carries a graph.

    Attributes:
        energy: [B] eV, float64.
        forces: [A, 3] eV/Å, or ``None`` if not asked for.
        stress: [B, 3, 3] eV/Å^3 (sign as in ASE), or ``None``.
        atomic_energies: [A] eV, float64; they add up to ``energy``.
        energy_std: [B] eV, standard deviation over the committee; ``None`` for one network.
        forces_std: [A, 3] eV/Å, likewise; ``None`` where it was not asked for.
        extrapolation: [A] share of an atom's features outside the range seen in training, or
            ``None`` if not asked for.
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    atomic_energies: Tensor
    energy_std: Tensor | None
    forces_std: Tensor | None
    extrapolation: Tensor | None = None


def committee_statistics(
    energies: Tensor,
    batch: Batch,
    pair_gradients: Tensor | None,
    neighbor_list: NeighborList,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """Return energies and forces with their standard deviations (n - 1) over the networks.

    Args:
        energies: [M, A] eV, float64, of the atoms by each of M networks.
        batch: the B structures of these atoms.
        pair_gradients: [M, P, 3] eV/Å, dE/dd of every network, or [1, P, 3], that of their mean;
            ``None`` leaves the forces out.
        neighbor_list: of those pairs.

    Returns:
        Energies [B] eV and their deviations (``None`` for one network), the atoms' mean energies
        [A] eV, forces [A, 3] eV/Å and theirs (``None`` for one gradient). No graph.

    Raises:
        ValueError: for shapes, dtypes, devices or index values that do not fit.
    """
    several = len(energies) > 1
    spread = pair_gradients is not None and len(pair_gradients) > 1
    offsets, neighbors = neighbor_list.pair_offsets, neighbor_list.neighbors
    if energies.device.type == "cpu":
        energy, energy_std, atomic, forces, forces_std = (
            torch.ops.pymlp.committee_statistics.default(
                energies, batch.structure_offsets, pair_gradients, offsets, neighbors
            )
        )
        return (
            energy,
            energy_std if several else None,
            atomic,
            None if pair_gradients is None else forces,
            forces_std if spread else None,
        )
    return _in_torch(energies, batch, pair_gradients, neighbor_list)


def _in_torch(
    energies: Tensor,
    batch: Batch,
    pair_gradients: Tensor | None,
    neighbor_list: NeighborList,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """The same for any device."""
    totals = sum_by_structure(energies.T, batch.structure_index, len(batch)).T
    several = len(energies) > 1
    energy_std = totals.std(dim=0) if several else None
    forces, forces_std = None, None
    if pair_gradients is not None:
        own = torch.stack([forces_from_pairs(g, neighbor_list) for g in pair_gradients])
        if len(own) > 1:
            forces_std, forces = torch.std_mean(own, dim=0)
        else:
            forces = own[0]
    return totals.mean(dim=0), energy_std, energies.mean(dim=0), forces, forces_std
