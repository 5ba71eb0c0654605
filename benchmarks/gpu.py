"""Speed on a GPU: many molecules, one molecule, large periodic water; eager and in CUDA graphs.

``python -m benchmarks.gpu [--out FILE.json]`` prints a table and writes it with GPU, versions and
commit; ``make gpu`` runs it after the tests on a GPU. Features are compared with the CPU in float64
first. Times are the median over repetitions between CUDA events, float32. TorchANI and plain
PyTorch run on the same GPU, beside the rows that they belong to. ``--device cpu`` with small sizes
tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import contestants as who
from benchmarks.plain_torch import PlainSymmetryFunctions
from benchmarks.workloads import Workload, claisen, water
from pymlp import ElementNetworks, NeighborList, Potential, displacements, neighbor_list
from pymlp.benchmarking import environment
from pymlp.descriptors import ANI, BehlerParrinello, DeepPotSE, Descriptor
from pymlp.neighbors import forces_from_pairs

#: relative to the largest feature
LIMIT = 1e-5
SECONDS = 2.0
Run = Callable[[], Any]


def milliseconds(run: Run, device: torch.device) -> float:
    """Median time of a call, after three to warm up; about SECONDS altogether."""
    gpu = device.type == "cuda"
    times: list[float] = []
    for _ in range(3):
        run()
    end = time.perf_counter() + SECONDS
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 200):
        if gpu:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            run()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last))
        else:
            begin = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def captured(run: Run, device: torch.device) -> Run:
    """The same as a CUDA graph."""
    if device.type != "cuda":
        return run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class Case:
    """A descriptor on structures on the device: list, displacements, and the passes."""

    def __init__(self, descriptor: Descriptor, workload: Workload, device: torch.device) -> None:
        self.batch = who.batch_of(workload, torch.float32).to(device)
        self.descriptor = descriptor.to(device)
        self.list: NeighborList = neighbor_list(self.batch, descriptor.cutoff)
        self.types = self.descriptor.batch_types(self.batch)
        self.d = self.gather()
        rows = (self.batch.n_atoms, descriptor.n_features)
        self.g = torch.ones(rows, device=device)

    def gather(self) -> Tensor:
        """Displacements of all pairs."""
        batch = self.batch
        return displacements(batch.positions, self.list, batch.cell, batch.structure_index)

    def make_list(self) -> NeighborList:
        """The list, from positions."""
        return neighbor_list(self.batch, self.descriptor.cutoff)

    def features(self) -> Tensor:
        """G from displacements."""
        return self.descriptor.features(self.d, self.list, self.types)

    def pull(self) -> Tensor:
        """Jᵀv from displacements."""
        return self.descriptor.vjp(self.g, self.d, self.list, self.types)

    def forces(self) -> Tensor:
        """Sums of pair gradients at the atoms."""
        return forces_from_pairs(self.d, self.list)

    def check(self) -> None:
        """Features of the first atoms against the CPU in float64."""
        few = self.batch[:1].to("cpu", torch.float64)
        expected = type(self.descriptor).from_config(self.descriptor.to_config())(few)
        error = (self.features()[: few.n_atoms].cpu() - expected).abs().max()
        assert error <= LIMIT * expected.abs().max(), f"features are off by {float(error):.1e}"


def many(n_molecules: int, device: torch.device) -> Iterator[tuple[str, Run]]:
    """Molecules in one batch: every step, and peers on a part of them."""
    unit = claisen(256)
    copies = -(-n_molecules // unit.n_structures)
    positions = unit.positions.repeat(copies, 1, 1)[:n_molecules]
    workload = Workload("molecules", unit.numbers, positions)
    for name, made in (("ANI-1x", ANI.like_torchani("1x")), ("BP", who.bp_descriptor())):
        case = Case(made, workload, device)
        case.check()
        title = f"{n_molecules} molecules, {name}"
        yield f"{title}: displacements", case.gather
        yield f"{title}: G", case.features
        yield f"{title}: Jᵀv", case.pull
        yield f"{title}: J u", lambda case=case: _jvp(case)
        yield f"{title}: double backward", lambda case=case: _double_backward(case)
        yield f"{title}: forces from pairs", case.forces
        del case


def _jvp(case: Case) -> Tensor:
    return _op(case, "_jvp", case.d)


def _double_backward(case: Case) -> Any:
    return _op(case, "_double_backward", case.d, case.g)


def _op(case: Case, kind: str, *leading: Tensor) -> Any:
    op = getattr(torch.ops.pymlp, case.descriptor.family + kind).default
    rest = case.descriptor._arguments[torch.float32]
    return op(*leading, case.d, case.list.pair_offsets, case.list.neighbors, case.types, *rest)


def peers(n_molecules: int, device: torch.device) -> Iterator[tuple[str, Run]]:
    """TorchANI's PyTorch path and plain PyTorch, ANI-1x, on the same device."""
    unit = claisen(256)
    copies = -(-n_molecules // unit.n_structures)
    positions = unit.positions.repeat(copies, 1, 1)[:n_molecules].float().to(device)
    positions.requires_grad_()
    types = torch.tensor([who.ANI_ELEMENTS.index(z) for z in unit.numbers.tolist()], device=device)
    with torch.device(device):  # plain PyTorch makes its indices where it runs
        plain = PlainSymmetryFunctions(who.plain_parameters("ani", torch.float32), types, 4)
    found: dict[str, Callable[[], Tensor]] = {"plain PyTorch": lambda: plain(positions)}
    if who.installed("torchani"):
        computer = who.torchani_computer(torch.float32).to(device)
        species = types.expand(n_molecules, -1).contiguous()
        found["TorchANI"] = lambda: computer(species, positions)
    for name, features in found.items():

        def forward(features: Callable[[], Tensor] = features) -> Tensor:
            with torch.no_grad(), torch.device(device):
                return features()

        def gradient(features: Callable[[], Tensor] = features) -> Any:
            with torch.device(device):
                return torch.autograd.grad(features().sum(), positions)

        yield f"{n_molecules} molecules, {name}: G", forward
        yield f"{n_molecules} molecules, {name}: G and forces", gradient


def single(device: torch.device) -> Iterator[tuple[str, Run]]:
    """One molecule: features, and a whole potential; 2560 of them as in training."""
    one = Case(ANI.like_torchani("1x"), claisen(1), device)
    yield "1 molecule, ANI-1x: G, eager", one.features
    yield "1 molecule, ANI-1x: G, CUDA graph", captured(one.features, device)
    unit = claisen(256)
    batch = Workload("batch", unit.numbers, unit.positions.repeat(10, 1, 1))
    some = Case(ANI.like_torchani("1x"), batch, device)
    yield "2560 molecules, ANI-1x: G, CUDA graph", captured(some.features, device)
    descriptor = BehlerParrinello.paper(["H", "C", "O"])
    networks = ElementNetworks(descriptor.n_features, ["H", "C", "O"], (50, 50))
    potential = Potential(descriptor, networks).to(device)
    molecule, kept = one.batch, neighbor_list(one.batch, float("inf"))
    yield (
        "1 molecule, BP potential: energy and forces, eager",
        lambda: potential.compute(molecule, neighbor_list=kept, dtype=torch.float32),
    )


def large(n_atoms: int, device: torch.device) -> Iterator[tuple[str, Run]]:
    """Periodic water: lists, features, forces; DeepPot-SE exact and from its table."""
    workload = water(n_atoms)
    case = Case(ANI.like_torchani("1x"), workload, device)
    title = f"water of {n_atoms} atoms"
    yield f"{title}, ANI-1x: list", case.make_list
    yield f"{title}, ANI-1x: displacements", case.gather
    yield f"{title}, ANI-1x: G", case.features
    yield f"{title}, ANI-1x: Jᵀv", case.pull
    yield f"{title}, ANI-1x: forces from pairs", case.forces
    exact = DeepPotSE.deepmd_like(["H", "O"], 6.0, 0.5, 138.0, n_axis=16, seed=1)
    for name, made in (("exact", exact), ("table", exact.tabulated(1e-7, shortest=0.6))):
        deep = Case(made, workload, device)

        def both(deep: Case = deep) -> Tensor:
            with torch.no_grad():
                given = (deep.d, deep.list, deep.types)
                _, pull = deep.descriptor.features_and_pull(*given)
                return pull(deep.g[None])[0]

        yield f"{title}, DeepPot-SE {name}: features and gradient", both


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--molecules", type=int, default=10**6)
    parser.add_argument("--atoms", type=int, default=99_999)
    parser.add_argument("--peers", type=int, default=2560, help="molecules for the peers; 0: none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device; --device cpu tries the script with small sizes")
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    found: list[dict[str, Any]] = []
    parts = [single(device), large(options.atoms, device), many(options.molecules, device)]
    if options.peers:
        parts.append(peers(options.peers, device))
    print(f"| {gpu}, float32 | ms |\n|---|---|")
    for part in parts:
        try:
            for name, run in part:
                found.append({"name": name, "ms": milliseconds(run, device)})
                print(f"| {name} | {found[-1]['ms']:.3g} |", flush=True)
        except torch.cuda.OutOfMemoryError as error:  # a smaller GPU: the rows that are left
            found.append({"name": "out of memory", "error": str(error)})
            print("| (out of memory: choose fewer --molecules) | |")
    if options.out is not None:
        report = {"gpu": gpu, "environment": environment(), "rows": found}
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
