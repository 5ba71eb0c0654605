"""Compression of DeepPot-SE potentials: tables instead of networks, and what that changes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pymlp.descriptors import DeepPotSE
from pymlp.networks import ElementNetworks
from pymlp.potential import Potential
from pymlp.structures import Batch

__all__ = ["Compression", "compress"]


@dataclass(frozen=True)
class Compression:
    """How a tabulated potential differs from the exact one.

    Attributes:
        n_structures: structures that both were computed for.
        energy_deviation: eV per atom, the largest.
        force_deviation: eV/Å, the largest of any component.
        table_bound: stated bound of the error of the embedding, relative to its largest value.
        intervals: of the table of each kind of pair.
        shortest: Å, the shortest distance in the table; shorter ones go to the networks.
        shortest_seen: Å, the shortest distance in the structures.
    """

    n_structures: int
    energy_deviation: float
    force_deviation: float
    table_bound: float
    intervals: int
    shortest: float
    shortest_seen: float


def compress(
    potential: Potential,
    batch: Batch,
    *,
    table_tolerance: float = 1e-7,
    shortest: float = 0.5,
    energy_tolerance: float = 1e-5,
    force_tolerance: float = 1e-4,
    batch_size: int = 256,
) -> tuple[Potential, Compression]:
    """Return a potential whose embedding comes from tables, and its deviation from the exact one.

    Args:
        potential: with a DeepPot-SE descriptor.
        batch: structures to compare on; labels are not looked at.
        table_tolerance: largest error of the embedding relative to its largest value.
        shortest: Å, the shortest distance in the table.
        energy_tolerance: eV per atom, largest deviation to accept.
        force_tolerance: eV/Å, largest deviation of a force component to accept.
        batch_size: structures computed at once.

    Raises:
        ValueError: for a potential without a DeepPot-SE descriptor or already compressed, no
            structures, distances that are all below the table, and deviations above a tolerance.
    """
    own = potential._descriptors
    if not all(isinstance(descriptor, DeepPotSE) for descriptor in own):
        raise ValueError(
            "only DeepPot-SE potentials have an embedding to compress, this one has "
            f"{potential.descriptor.family}"
        )
    if not all(descriptor.trainable for descriptor in own):
        raise ValueError("this potential is compressed already")
    if len(batch) == 0:
        raise ValueError("data: at least one structure is needed to compare on, got none")
    distinct = [potential.descriptor, *potential.other_descriptors]
    tables = [d.tabulated(table_tolerance, shortest) for d in distinct]
    networks: list[ElementNetworks] = list(potential.networks)  # type: ignore[arg-type]
    compressed = Potential(tables, networks, dict(potential.metadata))
    compressed.feature_minimum.copy_(potential.feature_minimum)
    compressed.feature_maximum.copy_(potential.feature_maximum)

    energy, force, least = 0.0, 0.0, math.inf
    for begin in range(0, len(batch), batch_size):
        part = batch[begin : begin + batch_size]
        exact, found = potential.compute(part), compressed.compute(part)
        assert exact.forces is not None
        assert found.forces is not None
        sizes = torch.tensor(part.lengths, dtype=torch.float64, device=exact.energy.device)
        energy = max(energy, _largest((found.energy - exact.energy) / sizes))
        force = max(force, _largest(found.forces - exact.forces))
        least = min(least, _shortest_distance(compressed, part))
    if least < shortest:
        raise ValueError(
            f"data: the shortest distance is {least:.3f} Å, the table begins at {shortest} Å, so "
            "some structures were computed by the networks; choose a smaller shortest distance"
        )
    report = Compression(
        n_structures=len(batch),
        energy_deviation=energy,
        force_deviation=force,
        table_bound=max(t.embedding_table().relative_bound for t in tables),
        intervals=max(t.embedding_table().n_intervals for t in tables),
        shortest=shortest,
        shortest_seen=least,
    )
    if not (energy <= energy_tolerance and force <= force_tolerance):
        raise ValueError(
            f"the tabulated potential deviates by {energy:.2e} eV per atom and {force:.2e} eV/Å, "
            f"more than the tolerances {energy_tolerance:g} eV and {force_tolerance:g} eV/Å; "
            "ask for a more exact table"
        )
    compressed.metadata["compression"] = _plain(report)
    return compressed.requires_grad_(False).eval(), report


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _shortest_distance(potential: Potential, batch: Batch) -> float:
    from pymlp import neighbors

    pairs = neighbors.neighbor_list(batch, potential.cutoff)
    d = neighbors.displacements(batch.positions, pairs, batch.cell, batch.structure_index)
    return float(d.norm(dim=1).min()) if len(d) else math.inf


def _plain(report: Compression) -> dict[str, Any]:
    values = asdict(report)
    if math.isinf(report.shortest_seen):  # JSON knows no infinity
        values["shortest_seen"] = None
    return values
