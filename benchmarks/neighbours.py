"""Neighbour lists of periodic water: ours, vesin alone, TorchANI's cell list.

Ours and vesin give full lists (both directions), TorchANI half of one.
``python -m benchmarks.neighbours --out benchmarks/results/NAME.json``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.contestants import batch_of
from benchmarks.workloads import claisen, water
from pymlp import neighbor_list
from pymlp.benchmarking import Contestant, Measurement, Run, measure, print_table, save

CUTOFF = 5.2


def contestants(n_atoms: int, dtype: torch.dtype) -> list[Contestant]:
    """Each returns the number of directed pairs."""
    work = water(n_atoms)
    batch = batch_of(work, dtype)
    runs: dict[str, Run] = {"pymlp": lambda: neighbor_list(batch, CUTOFF).n_pairs}
    import vesin

    points, cell = work.positions[0].numpy(), work.cell
    assert cell is not None
    box = cell.numpy()
    search = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
    runs["vesin"] = lambda: len(search.compute(points, box, True, "PS")[0])
    try:
        from torchani.neighbors import CellList
    except ImportError:
        print("torchani is not installed and is left out")
    else:
        theirs = CellList()
        species = torch.zeros(1, n_atoms, dtype=torch.int64)
        coordinates, pbc = work.positions.to(dtype), torch.ones(3, dtype=torch.bool)
        their_box = cell.to(dtype)
        runs["TorchANI cell list"] = lambda: (
            2 * theirs(CUTOFF, species, coordinates, their_box, pbc).indices.shape[1]
        )
    return [Contestant(name, {"list": run}) for name, run in runs.items()]


def same_count(tolerance: float) -> Any:
    """Check that all find the same number of pairs, but for those at the cutoff to rounding."""
    first: list[int] = []

    def check(quantity: str, contestant: str, count: int) -> float:
        first.append(count)
        error = abs(count - first[0]) / first[0]
        assert error <= tolerance, f"{contestant} finds {count} pairs instead of {first[0]}"
        return error

    return check


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.neighbours", description=__doc__)
    parser.add_argument("--out")
    parser.add_argument("--atoms", nargs="+", type=int, default=[99, 999, 9_999, 99_999])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=20.0)
    options = parser.parse_args(arguments)
    rows: list[Measurement] = []
    for n_atoms in options.atoms:
        rows += measure(
            f"list, water {n_atoms}",
            contestants(n_atoms, torch.float32),
            n_atoms,
            "atom",
            check=same_count(1e-4),
            rounds=options.rounds,
            budget_s=options.budget,
        )
    batch = batch_of(claisen(256), torch.float32)
    runs = {"list": lambda: neighbor_list(batch, CUTOFF).n_pairs}
    rows += measure("list, Claisen x256", [Contestant("pymlp", runs)], 256, rounds=options.rounds)
    print_table(rows)
    if options.out:
        save(options.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
