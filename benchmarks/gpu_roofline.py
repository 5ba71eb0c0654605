"""How fast the CUDA kernels could be on an H200, from counted operations; without a GPU.

``python -m benchmarks.gpu_roofline [--nvcc PATH] [--cuobjdump PATH]`` prints Markdown tables;
README.md holds them. The arithmetic is counted by running the kernels themselves on the CPU
(tests/cuda_emulation/count.cpp) with numbers that write down what is done with them: what no output
needs is left out, products that go into one sum are fused with it, and lanes of a warp wait for the
busiest. What a division or a function takes is read from compiled code. Bytes are those of inputs
and outputs, each moved once. Loads, stores and integer arithmetic are not counted: these are
floors.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.workloads import claisen, water
from pymlp import Batch, NeighborList, neighbor_list
from pymlp.descriptors import ANI, BehlerParrinello, Descriptor
from pymlp.neighbors import displacements
from tests import cuda_emulation as emulation

#: an H200: copied bytes, lane instructions (half of 67 TFLOP/s) and special functions per second
BYTES, INSTRUCTIONS, SPECIAL = 4.3e12, 33.5e12, 4.2e12
#: what is counted, in the order of count.cpp, as CUDA code of x; sums and the like are one each
OPERATIONS = {
    "sums": "",
    "products": "",
    "comparisons": "",
    "quotients": "1.0f / x",
    "roots": "sqrtf(x)",
    "exponentials": "__expf(x)",
    "logarithms": "logf(x)",
    "sines": "[&] { float s, c; sincospif(x, &s, &c); return s + c; }()",
}
#: how CMakeLists.txt compiles divisions and roots
FLAGS = ("-prec-div=false", "-prec-sqrt=false")
PASSES = ("forward", "backward", "jvp", "double_backward")
TITLES = dict(zip(PASSES, ("G", "Jᵀv", "J u", "double backward"), strict=True))


@dataclass(frozen=True)
class Cost:
    """Instructions of one operation, and how many of them are special functions."""

    instructions: float
    special: float


def compiled_costs(nvcc: str, cuobjdump: str, architecture: str = "sm_90") -> dict[str, Cost]:
    """Instructions up to the end of a kernel that does nothing else, less those of one that adds.

    What a division or a root does for numbers out of the ordinary stands behind that end.
    """
    code = {name: code for name, code in OPERATIONS.items() if code} | {"nothing": "x + 1.0f"}
    kernels = [
        f"__global__ void k_{name}(float* p) {{ const float x = p[threadIdx.x]; "
        f"p[threadIdx.x] = {body}; }}"
        for name, body in code.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "costs.cu"), Path(folder, "costs.cubin")
        source.write_text("\n".join(kernels))
        command = [
            nvcc,
            "-O3",
            *FLAGS,
            "-cubin",
            "-arch",
            architecture,
            str(source),
            "-o",
            str(cubin),
        ]
        subprocess.run(command, check=True)
        sass = subprocess.run(
            [cuobjdump, "-sass", str(cubin)], check=True, capture_output=True, text=True
        ).stdout
    found = {}
    for part in sass.split("Function : ")[1:]:
        name = re.search(r"k_([a-z]+)", part.split("\n")[0])
        assert name, part
        ops = re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?([A-Z0-9_.]+)", part)
        ops = ops[: ops.index("EXIT")]
        found[name[1]] = Cost(len(ops), sum(op.startswith("MUFU") for op in ops))
    # The kernel to compare with has one sum; that for cos and sin one of its own.
    base = found.pop("nothing").instructions - 1
    costs = {name: Cost(1, 0) for name in OPERATIONS}
    for name, cost in found.items():
        own = 1 if name == "sines" else 0
        costs[name] = Cost(cost.instructions - base - own, cost.special)
    return costs


@dataclass(frozen=True)
class System:
    """A descriptor's op on some structures; what the kernels get."""

    descriptor: Descriptor
    batch: Batch
    pairs: NeighborList

    @staticmethod
    def of(descriptor: Descriptor, batch: Batch) -> System:
        return System(descriptor, batch, neighbor_list(batch, descriptor.cutoff))

    @property
    def displacements(self) -> Tensor:
        batch = self.batch
        return displacements(batch.positions, self.pairs, batch.cell, batch.structure_index)

    @property
    def n_triples(self) -> int:
        """Pairs of neighbours inside the angular cutoff."""
        cutoff = getattr(self.descriptor, "angular_cutoff", None) or self.descriptor.cutoff
        near = self.displacements.norm(dim=1) < cutoff
        n = torch.bincount(self.pairs.centers[near], minlength=self.pairs.n_atoms)
        return int((n * (n - 1) // 2).sum())

    def bytes(self, kind: str) -> int:
        """Inputs read once and outputs written once, float32 with int64 indices."""
        atoms, pairs = self.pairs.n_atoms, self.pairs.n_pairs
        rows, vectors = 4 * atoms * self.descriptor.n_features, 12 * pairs
        given = vectors + 8 * pairs + 8 * (atoms + 1) + 8 * atoms
        moved = {"forward": rows, "backward": rows + vectors, "jvp": vectors + rows}
        moved["double_backward"] = 2 * rows + 2 * vectors
        return given + moved[kind]

    def arguments(self, angular: bool = True) -> tuple[Tensor, tuple[object, ...]]:
        """Displacements, and the rest of the op's arguments; with radial functions alone."""
        parameters = list(self.descriptor._arguments[torch.float32])
        if not angular:
            parameters[5] = parameters[5][:, :0]  # no products
        types = self.descriptor.batch_types(self.batch)
        pairs = self.pairs
        return self.displacements, (pairs.pair_offsets, pairs.neighbors, types, *parameters)


def counted(program: Path, system: System, costs: dict[str, Cost], angular: bool = True) -> dict:
    """What count.cpp counts, and FLOP and special functions from it, of every pass."""
    given, rest = system.arguments(angular)
    with tempfile.TemporaryDirectory() as folder:
        instructions = tuple(costs[name].instructions for name in OPERATIONS)
        family = system.descriptor.family
        found = emulation.counted(program, Path(folder), family, given, rest, instructions)
    for count in found.values():
        count["flop"] = count["sums"] + count["products"]
        count["special"] = sum(count[name] * cost.special for name, cost in costs.items())
    return found


def terms_table(program: Path, systems: dict[str, System], costs: dict[str, Cost]) -> list[str]:
    """Cost of a pair and of a triple in every pass, and how many lanes are at work."""
    rows = [
        "| | pass | a pair: FLOP, instructions, special | a triple: FLOP, instructions, special "
        "| lanes at work |",
        "|---|---|---|---|---|",
    ]
    for title, system in systems.items():
        every, radial = (counted(program, system, costs, angular) for angular in (True, False))
        for kind in PASSES:
            columns = []
            for n, whole, part in (
                (system.pairs.n_pairs, radial[kind], None),
                (system.n_triples, every[kind], radial[kind]),
            ):
                values = [
                    (whole[key] - (part[key] if part else 0)) / n
                    for key in ("flop", "cost", "special")
                ]
                columns.append(", ".join(f"{value:.0f}" for value in values))
            busy = every[kind]["cost"] / every[kind]["slots"]
            rows.append(
                f"| {title} | {TITLES[kind]} | {' | '.join(columns)} | {100 * busy:.0f} % |"
            )
    return rows


def floor_row(title: str, n_bytes: float, instructions: float, special: float) -> str:
    """Times in ms for memory, arithmetic (idle lanes too), special functions; the longest."""
    times = (n_bytes / BYTES, instructions / INSTRUCTIONS, special / SPECIAL)
    columns = " | ".join(f"{1e3 * time:.3g}" for time in times)
    return f"| {title} | {columns} | **{1e3 * max(times):.2g}** |"


def floors_table(program: Path, systems: dict[str, System], costs: dict[str, Cost]) -> list[str]:
    """Floors of the passes over many copies of each system."""
    rows = [
        "| float32 | memory, ms | arithmetic, ms | special functions, ms | floor, ms |",
        "|---|---|---|---|---|",
    ]
    for title, (system, copies) in {
        "1e6 molecules, ANI-1x": (systems["ANI-1x, Claisen"], 10**6),
        "2 560 molecules, ANI-1x": (systems["ANI-1x, Claisen"], 2560),
        "1e6 molecules, BP": (systems["BP, Claisen"], 10**6),
        "water, 99 999 atoms, ANI-1x": (systems["ANI-1x, water"], 99_999 / 999),
    }.items():
        found = counted(program, system, costs)
        atoms, pairs = copies * system.pairs.n_atoms, copies * system.pairs.n_pairs
        if system.pairs.shifts is not None:
            # Of positions, offsets, neighbours, shifts; the atoms sorted by cells are read twice.
            listed = (12 + 2 * 16 + 8) * atoms + (8 + 12) * pairs
            rows.append(floor_row(f"{title}: list", listed, 0, 0))
        shifts = 0 if system.pairs.shifts is None else 12 * pairs
        rows.append(floor_row(f"{title}: displacements", 20 * atoms + 20 * pairs + shifts, 0, 0))
        for kind in PASSES:
            count = found[kind]
            rows.append(
                floor_row(
                    f"{title}: {TITLES[kind]}",
                    copies * system.bytes(kind),
                    copies * count["slots"],
                    copies * count["special"],
                )
            )
        rows.append(floor_row(f"{title}: forces from pairs", 20 * atoms + 20 * pairs, 0, 0))
    return rows


def chosen_systems() -> dict[str, System]:
    """A molecule, and a box of water that is a part of the large one."""
    molecule, box = claisen(1), water(999)
    one = Batch.from_arrays(molecule.numbers, molecule.positions).to(dtype=torch.float32)
    many = Batch.from_arrays(box.numbers, box.positions, box.cell, True).to(dtype=torch.float32)
    return {
        "ANI-1x, Claisen": System.of(ANI.ani1x(), one),
        "BP, Claisen": System.of(BehlerParrinello.paper(["H", "C", "O"]), one),
        "ANI-1x, water": System.of(ANI.ani1x(), many),
    }


def report(costs: dict[str, Cost]) -> list[str]:
    """Both tables, and what the functions cost."""
    with tempfile.TemporaryDirectory() as folder:
        program = emulation.built(Path(folder), "count", "count.cpp", ["-O2"])
        systems = chosen_systems()
        found = ", ".join(
            f"{name} {cost.instructions:.0f} ({cost.special:.0f})"
            for name, cost in costs.items()
            if cost.instructions != 1
        )
        return [
            f"Instructions (special ones) in sm_90 code: {found}.",
            "",
            *terms_table(program, systems, costs),
            "",
            *floors_table(program, systems, costs),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_roofline", description=__doc__)
    parser.add_argument("--nvcc", default=shutil.which("nvcc"))
    parser.add_argument("--cuobjdump", default=shutil.which("cuobjdump"))
    options = parser.parse_args(arguments)
    for tool in ("nvcc", "cuobjdump"):
        if getattr(options, tool) is None:
            parser.error(f"no {tool} on PATH: it comes with the CUDA toolkit")
    print("\n".join(report(compiled_costs(options.nvcc, options.cuobjdump))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
