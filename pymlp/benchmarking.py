"""Timing of contestants side by side: what ``pymlp benchmark`` and ``benchmarks/`` measure with.

The machines that this runs on are shared, so a time alone says little: contestants take turns in
short blocks, and what counts is the median over the rounds of the ratio within a round. Results
are checked before anything is timed. ``benchmarks/`` of the source tree holds the workloads with
other packages as contestants; they use the same functions.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pymlp.descriptors.base import Descriptor
    from pymlp.neighbors import NeighborList
    from pymlp.structures import Batch

__all__ = [
    "QUANTITIES",
    "Contestant",
    "Measurement",
    "derivatives",
    "environment",
    "measure",
    "ours",
    "print_table",
    "save",
    "threads",
    "time_interleaved",
    "typical",
]

Run = Callable[[], Any]

#: fwd: features. grad: features and Jᵀg. train: grad, then what a force loss needs of the double
#: backward (J u). hvp: grad, then the Hessian-vector product (slope of u·Jᵀg in positions).
QUANTITIES = ("fwd", "grad", "train", "hvp")


@dataclass(frozen=True)
class Contestant:
    """One way to compute a workload; ``runs`` maps quantities to callables without arguments."""

    name: str
    runs: dict[str, Run]


@dataclass
class Samples:
    """Seconds per call in each round, wall clock and CPU time of the process."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Measurement:
    """One line of the result: medians in seconds per call, ratios to the first contestant."""

    workload: str
    quantity: str
    dtype: str
    threads: int
    contestant: str
    wall_s: float
    cpu_s: float
    rounds: int
    items: int
    item: str
    ratio_wall: float
    ratio_cpu: float
    error: float | None = None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch (and the descriptor ops) on ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_interleaved(
    runs: dict[str, Run], rounds: int = 9, block_s: float = 0.04, budget_s: float = 60.0
) -> dict[str, Samples]:
    """Time callables in turns: per round, each runs for about ``block_s`` (at least once).

    Stops after ``rounds`` rounds, or after the round in which ``budget_s`` is used up, but never
    before the second. The order alternates, so that no contestant always follows the same one.
    """
    repeats = {}
    for name, run in runs.items():
        run()  # first call: allocations, lazy initialisation
        start = time.perf_counter()
        run()
        once = max(time.perf_counter() - start, 1e-7)
        repeats[name] = max(1, min(100_000, round(block_s / once)))
    samples = {name: Samples() for name in runs}
    begin = time.perf_counter()
    for index in range(rounds):
        names = list(runs) if index % 2 == 0 else list(reversed(runs))
        for name in names:
            run, count = runs[name], repeats[name]
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                run()
            samples[name].cpu.append((time.process_time() - cpu) / count)
            samples[name].wall.append((time.perf_counter() - wall) / count)
        if index > 0 and time.perf_counter() - begin > budget_s:
            break
    return samples


def measure(
    workload: str,
    contestants: Sequence[Contestant],
    items: int,
    item: str = "structure",
    dtype: str = "float32",
    n_threads: int = 1,
    check: Callable[[str, str, Any], float | None] | None = None,
    **options: Any,
) -> list[Measurement]:
    """Check, then time, every quantity that the contestants offer.

    ``check(quantity, contestant, result)`` returns the relative error, or raises AssertionError
    where the result is wrong; nothing is timed then.
    """
    rows = []
    known = dict.fromkeys(quantity for each in contestants for quantity in each.runs)
    with threads(n_threads):
        for quantity in known:
            runs = {c.name: c.runs[quantity] for c in contestants if quantity in c.runs}
            errors = {
                name: check(quantity, name, run()) if check else None for name, run in runs.items()
            }
            samples = time_interleaved(runs, **options)
            first = samples[next(iter(samples))]
            for name, own in samples.items():
                rows.append(
                    Measurement(
                        workload,
                        quantity,
                        dtype,
                        n_threads,
                        name,
                        statistics.median(own.wall),
                        statistics.median(own.cpu),
                        len(own.wall),
                        items,
                        item,
                        _ratio(own.wall, first.wall),
                        _ratio(own.cpu, first.cpu),
                        errors[name],
                    )
                )
    return rows


def _ratio(own: list[float], first: list[float]) -> float:
    return statistics.median(a / max(b, 1e-9) for a, b in zip(own, first, strict=True))


# -- what is timed --------------------------------------------------------------------------------


def derivatives(
    features: Callable[[], Tensor], positions: Tensor, cotangents: Tensor, tangents: Tensor
) -> dict[str, Run]:
    """Runs of all :data:`QUANTITIES` for anything that autograd differentiates twice.

    :param features: no arguments, computes features from ``positions``
    :param positions: leaf that requires a gradient
    :param cotangents: like the features
    :param tangents: like ``positions``
    """
    weights = cotangents.clone().requires_grad_()

    def fwd() -> Tensor:
        with torch.no_grad():
            return features()

    def grad() -> Tensor:
        return torch.autograd.grad(features(), positions, cotangents)[0]

    def slope(target: Tensor) -> Tensor:
        vjp = torch.autograd.grad(features(), positions, weights, create_graph=True)[0]
        return torch.autograd.grad(vjp, target, tangents)[0]

    return {
        "fwd": fwd,
        "grad": grad,
        "train": lambda: slope(weights),
        "hvp": lambda: slope(positions),
    }


def ours(
    descriptor: Descriptor,
    batch: Batch,
    cotangents: Tensor,
    tangents: Tensor,
    neighbor_list: NeighborList | None = None,
) -> dict[str, Run]:
    """Runs of :data:`QUANTITIES` for a descriptor of this package, from positions on.

    Without ``neighbor_list`` the list is made in every call. ``grad`` and ``train`` take the path
    that a potential takes: features and Jᵀg outside autograd, and for training only J u through
    the graph.
    """
    from pymlp.neighbors import displacements, forces_from_pairs
    from pymlp.neighbors import neighbor_list as make_list

    batch.positions.requires_grad_()
    runs = derivatives(
        lambda: descriptor(batch, neighbor_list), batch.positions, cotangents, tangents
    )
    types = descriptor.types(batch.numbers)
    weights = cotangents.clone().requires_grad_()

    def forces(with_respect_to: Tensor) -> Tensor:
        with torch.no_grad():
            near = neighbor_list or make_list(batch, descriptor.cutoff)
            d = displacements(batch.positions, near, batch.cell, batch.structure_index)
            descriptor.features(d, near, types)
        return forces_from_pairs(descriptor.vjp(with_respect_to, d, near, types), near)

    def train() -> Tensor:
        return torch.autograd.grad(forces(weights), weights, -tangents)[0]

    return {**runs, "grad": lambda: -forces(cotangents), "train": train}


# -- where it ran, and output ---------------------------------------------------------------------


def environment() -> dict[str, Any]:
    """Machine, versions, commit and SIMD level: what a result needs beside it to be read."""
    packages = {}
    for name in ("pymlp", "torch", "numpy", "vesin", "torchani", "dscribe"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "not installed"
    try:
        from pymlp import _C

        build: Any = _C.build_info()
    except ImportError as error:
        build = f"no build information: {error}"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": _cpu_name(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "packages": packages,
        "commit": _commit(),
        "build": build,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def save(path: str | Path, rows: Sequence[Measurement], **extra: Any) -> None:
    """Write the rows and :func:`environment` as JSON."""
    content = {"environment": environment(), **extra, "rows": [asdict(row) for row in rows]}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=1) + "\n")


def typical(row: Measurement) -> tuple[float, float]:
    """Seconds per call and ratio to the first contestant: CPU time of one thread, wall of more.

    CPU time does not count what neighbours on the machine do; with threads, wall is the point.
    """
    if row.threads == 1:
        return row.cpu_s, row.ratio_cpu
    return row.wall_s, row.ratio_wall


def print_table(rows: Sequence[Measurement], title: str = "") -> None:
    """Print the rows; times are per item (µs), ratios against the first contestant."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None)
    for name in ("workload", "quantity", "dtype", "threads", "contestant"):
        table.add_column(name)
    for name in ("µs per item", "ms per call", "ratio", "error"):
        table.add_column(name, justify="right")
    for row in rows:
        seconds, ratio = typical(row)
        table.add_row(
            row.workload,
            row.quantity,
            row.dtype,
            str(row.threads),
            row.contestant,
            f"{seconds / row.items * 1e6:.3g}",
            f"{seconds * 1e3:.3g}",
            f"{ratio:.3g}x",
            "" if row.error is None else f"{row.error:.0e}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
