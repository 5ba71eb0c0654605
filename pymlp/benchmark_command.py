"""``pymlp benchmark``: the descriptors on the shipped data, and a report with peers and sizes.

Peers (TorchANI, plain PyTorch) stand in ``benchmarks/`` of the source tree, which is used where
this package runs from a checkout; an installed wheel times itself alone and says so.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pymlp.benchmark_report import write_report
from pymlp.benchmark_workloads import SIZES, water
from pymlp.benchmarking import (
    Contestant,
    Measurement,
    Run,
    environment,
    measure,
    ours,
    print_table,
    save,
)

if TYPE_CHECKING:
    from pymlp.descriptors.base import Descriptor
    from pymlp.structures import Batch

__all__ = ["compare", "main", "scaling_rows", "shipped_rows"]

CHECKOUT = Path(__file__).resolve().parent.parent
#: relative to the largest value
FLOAT32_LIMIT = 1e-3


def shipped_rows(n_structures: int, rounds: int) -> list[Measurement]:
    """Time ANI-1x and the paper's Behler-Parrinello set on shipped structures, one and many."""
    from pymlp.descriptors import ANI, BehlerParrinello

    rows: list[Measurement] = []
    elements = ["H", "C", "O"]
    for title, make in (("ANI-1x", ANI.ani1x), ("BP, paper's set", BehlerParrinello.paper)):
        for dtype in (torch.float32, torch.float64):
            descriptor = make(elements)
            for n_threads in sorted({1, min(2, os.cpu_count() or 1)}):
                # one molecule has nothing to share between threads
                for count in sorted({1, n_structures} if n_threads == 1 else {n_structures}):
                    batch = _shipped_batch(count, dtype)
                    runs, g, u = _runs(descriptor, batch)
                    _slopes_agree(runs, batch, g, u)
                    rows += measure(
                        f"{title}, {len(batch)} structures",
                        [Contestant("pymlp", runs)],
                        items=len(batch),
                        dtype=str(dtype).removeprefix("torch."),
                        n_threads=n_threads,
                        rounds=rounds,
                    )
    return rows


def scaling_rows(sizes: Sequence[int], rounds: int, budget_s: float = 20.0) -> list[Measurement]:
    """Time features and gradients of periodic water, float32 on one thread, this package alone.

    Checked against the same in float64, and the gradient against the double backward.
    """
    from pymlp.descriptors import ANI
    from pymlp.structures import Batch

    rows: list[Measurement] = []
    descriptor = ANI.like_torchani("1x")
    for n_atoms in sizes:
        work = water(n_atoms)
        assert work.cell is not None
        # rounded for both: what is checked is the arithmetic
        rounded, cell = work.positions.float(), work.cell.float()
        single, exact = (
            Batch.from_arrays(work.numbers, rounded.to(kind), cell=cell.to(kind), pbc=True)
            for kind in (torch.float32, torch.float64)
        )
        reference = _runs(descriptor, exact)[0]
        runs, g, u = _runs(descriptor, single)
        _slopes_agree(runs, single, g, u)
        rows += measure(
            f"ANI-1x, {work.name}",
            [Contestant("pymlp", {name: runs[name] for name in ("fwd", "grad")})],
            n_atoms,
            "atom",
            check=_near(reference),
            rounds=rounds,
            budget_s=budget_s,
        )
    return rows


def compare(
    sizes: Sequence[int], n_structures: int, rounds: int
) -> tuple[list[Measurement], list[str]]:
    """Time the scaling series, and in a checkout the peers; also say who was skipped, and why."""
    if not (CHECKOUT / "benchmarks" / "contestants.py").is_file():
        return scaling_rows(sizes, rounds), [
            "Peers are skipped: they are compared from a checkout of the source."
        ]
    if str(CHECKOUT) not in sys.path:  # of an editable install, the console script sees no more
        sys.path.insert(0, str(CHECKOUT))
    features: Any = importlib.import_module("benchmarks.features")
    rows, notes = features.compare(sizes, n_structures, rounds)
    return list(rows), list(notes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the descriptors on the shipped Claisen structures; with --report beside peers.

    Returns the exit status.
    """
    parser = argparse.ArgumentParser(
        prog="pymlp benchmark",
        description="Time the descriptors on the shipped structures. With --report also on "
        "periodic water of 100 to 100 000 atoms and, from a checkout, beside TorchANI and plain "
        "PyTorch; `python -m benchmarks` of a checkout times more.",
    )
    parser.add_argument("--structures", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", help="also write the result as JSON to this file")
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="write report.md, results.json, ratios.png and scaling.png there",
    )
    parser.add_argument(
        "--quick", action="store_true", help="leave the largest water box out of the report"
    )
    options = parser.parse_args(arguments)
    if options.structures < 1 or options.rounds < 1:
        parser.error("--structures and --rounds must be at least 1")
    if options.quick and not options.report:
        parser.error("--quick is for --report")
    notes: list[str] = []
    rows = shipped_rows(options.structures, options.rounds)
    if options.report:
        sizes = SIZES[:-1] if options.quick else SIZES
        more, notes = compare(sizes, options.structures, options.rounds)
        rows += more
    where = environment()
    print_table(rows, f"pymlp {importlib.metadata.version('pymlp')}, {where['machine']}")
    for note in notes:
        print(note)
    if options.out:
        save(options.out, rows)
    if options.report:
        for path in write_report(options.report, rows, [where], notes):
            print(path)
    return 0


def _shipped_batch(n_structures: int, dtype: torch.dtype) -> Batch:
    """Structures of the data set that the package carries."""
    import numpy as np

    from pymlp.data import claisen_path
    from pymlp.structures import Batch

    with np.load(claisen_path()) as data:
        coordinates = torch.as_tensor(data["coordinates"][:n_structures])
        numbers = torch.as_tensor(data["numbers"]).to(torch.int64)
    return Batch.from_arrays(numbers, coordinates.to(dtype))


def _runs(descriptor: Descriptor, batch: Batch) -> tuple[dict[str, Run], Tensor, Tensor]:
    """Runs with seeded cotangents and tangents, the same to rounding in every dtype."""
    generator = torch.Generator().manual_seed(0)
    dtype = batch.positions.dtype
    shape = (len(batch.numbers), descriptor.n_features)
    g = torch.randn(shape, generator=generator).to(dtype)
    u = torch.randn(batch.positions.shape, generator=generator).to(dtype)
    return ours(descriptor, batch, g, u), g, u


def _slopes_agree(runs: dict[str, Run], batch: Batch, cotangents: Tensor, tangents: Tensor) -> None:
    """g·(J u), by the double backward and by Jᵀg, are one number."""
    forward = float((runs["train"]() * cotangents).double().sum())
    reverse = float((runs["grad"]() * tangents).double().sum())
    limit = 1e-3 if batch.positions.dtype == torch.float32 else 1e-9
    assert abs(forward - reverse) <= limit * abs(reverse), (
        f"J u and J^T g disagree: {forward} and {reverse}; run `pymlp doctor`"
    )


def _near(reference: dict[str, Run]) -> Callable[[str, str, Any], float]:
    """Check of results against those of other runs, relative to the largest value."""

    def check(quantity: str, contestant: str, result: Tensor) -> float:
        expected = reference[quantity]()
        error = float((result.double() - expected).abs().max() / expected.abs().max())
        assert error < FLOAT32_LIMIT, (
            f"{contestant}, {quantity}: wrong by {error:.1e}; run `pymlp doctor`"
        )
        return error

    return check


if __name__ == "__main__":
    sys.exit(main())
