"""What the compiled CUDA kernels say of themselves, without a GPU: registers, spills, inner loops.

``python -m benchmarks.gpu_static [--library pymlp/_ops.so] [--cuobjdump PATH]`` prints a Markdown
table; README.md holds one. Needs a build with CUDA and cuobjdump (of the CUDA toolkit).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.workloads import ROOT

#: 32-bit registers of a multiprocessor, given out in units of 8 per thread, and its most warps.
REGISTERS, MOST_WARPS = 65536, 64
FLOATS = ("FFMA", "FADD", "FMUL", "DFMA", "DADD", "DMUL")


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions, and how many are of a kind."""

    instructions: int
    arithmetic: int
    special: int
    shared: int
    memory: int

    def __str__(self) -> str:
        return (
            f"{self.instructions}: {self.arithmetic} / {self.special} / "
            f"{self.shared} / {self.memory}"
        )


def run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def readable(symbols: Sequence[str]) -> list[str]:
    """Name and template arguments of each kernel, without namespaces."""
    names = []
    for full in run(["c++filt", *symbols]).splitlines():
        name = re.sub(r"pymlp::|cuda::|portable::", "", full.removeprefix("void "))
        name = re.sub(r"\((Pass|int|bool)\)", "", name)  # the type of an argument that is a number
        names.append(name.split("(")[0].replace(" >", ">"))
    return names


def resources(tool: str, library: str, architecture: str) -> dict[str, dict[str, int]]:
    """REG, STACK, SHARED and LOCAL of every kernel of an architecture."""
    text = run([tool, "--dump-resource-usage", library])
    found: dict[str, dict[str, int]] = {}
    current = symbol = ""
    for line in text.splitlines():
        if match := re.match(r"\s*arch = (sm_\d+)", line):
            current = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            symbol = match[1]
        elif "REG:" in line and current == architecture:
            found[symbol] = {k: int(v) for k, v in re.findall(r"([A-Z]+):(\d+)", line)}
    return found


def inner_loops(tool: str, library: str, architecture: str) -> dict[str, Loop]:
    """The innermost loop of every kernel with most arithmetic: that over pairs or triples."""
    text = run([tool, "-sass", "-arch", architecture, library])
    found = {}
    for part in text.split("Function : ")[1:]:
        symbol, _, body = part.partition("\n")
        lines = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\w+ )?([A-Z0-9_.]+)([^;]*);", body)
        code = [(int(address, 16), op, rest) for address, op, rest in lines]
        spans = []
        for address, op, rest in code:
            target = re.search(r"0x([0-9a-f]+)", rest)
            # A branch to itself pads the end of a kernel.
            if op.startswith("BRA") and target and int(target[1], 16) < address:
                spans.append((int(target[1], 16), address))
        inner = [
            a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)
        ]
        loops = []
        for begin, end in inner:
            ops = [op.split(".")[0] for address, op, _ in code if begin <= address <= end]
            loops.append(
                Loop(
                    len(ops),
                    sum(op in FLOATS for op in ops),
                    ops.count("MUFU"),
                    sum(op in ("LDS", "STS") for op in ops),
                    sum(op in ("LDG", "STG", "LD", "ST") for op in ops),
                )
            )
        if loops:
            found[symbol.strip()] = max(loops, key=lambda loop: loop.arithmetic + loop.special)
    return found


def table(tool: str, library: str, loops_of: str) -> list[str]:
    """Rows of Markdown, float32 kernels first."""
    use = {name: resources(tool, library, name) for name in ("sm_80", "sm_90")}
    loops = inner_loops(tool, library, loops_of)
    symbols = sorted(use["sm_90"])
    rows = [
        f"| kernel | registers sm_80 / sm_90 | warps sm_90 | spilled, B | inner loop, {loops_of} |",
        "|---|---|---|---|---|",
    ]
    for name, symbol in sorted(zip(readable(symbols), symbols, strict=True)):
        both = [use[architecture].get(symbol, {}) for architecture in use]
        registers = both[1]["REG"]
        warps = min(MOST_WARPS, REGISTERS // (-(-registers // 8) * 8 * 32))
        spilled = max(kernel.get("LOCAL", 0) for kernel in both)
        rows.append(
            f"| `{name}` | {both[0].get('REG', '?')} / {registers} | {warps} | {spilled} | "
            f"{loops.get(symbol, '')} |"
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_static", description=__doc__)
    parser.add_argument("--library", default=str(ROOT / "pymlp" / "_ops.so"))
    parser.add_argument("--cuobjdump", default=shutil.which("cuobjdump"))
    options = parser.parse_args(arguments)
    if options.cuobjdump is None:
        parser.error("no cuobjdump on PATH: it comes with the CUDA toolkit")
    rows = table(options.cuobjdump, options.library, "sm_90")
    if len(rows) == 2:
        parser.error(f"{options.library} holds no CUDA kernels: build it with PYMLP_CUDA=1")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
