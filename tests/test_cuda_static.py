"""What nvcc alone can tell: every .cu compiles without a warning, and no kernel spills registers.

Prints registers, stack and spills of every kernel. Needs nvcc (PATH, CUDA_HOME, /usr/local/cuda),
not a GPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "csrc" / "ops").glob("*.cu"))
ARCHITECTURES = ("sm_80", "sm_90")
FLAGS = ["-std=c++20", "-O3", "-prec-div=false", "-prec-sqrt=false"]
FLAGS += ["-DTORCH_TARGET_VERSION=0x020b000000000000"]
WARNINGS = ["-Xptxas=-v", "--Werror=all-warnings"]
#: 32-bit registers of a multiprocessor, and threads of every block (loops/cuda: four warps)
REGISTERS, THREADS = 65536, 128
#: warps of a multiprocessor that the registers of kernels must leave room for; twelve for others
WARPS = {
    r"gather_differences|sum_mutual_pairs|sum_pairs_in_order|lay_out_cells": 64,
    r"bin_atoms": 48,
    r"symmetry_forward<.*<float>, float>|environment_rows|count_images|make_boxes|count_pairs": 32,
    r"symmetry_forward<.*Dual<float>|contraction_of_center<.*float": 28,
    r"symmetry_backward<.*<float>, float>|fill_images": 24,
    r"symmetry_(backward|jacobian)<.*float": 16,
}


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel."""

    name: str
    registers: int
    stack: int
    spilled: int

    @property
    def warps(self) -> int:
        """Warps of a multiprocessor that the registers allow (given out in units of 8)."""
        per_block = -(-self.registers // 8) * 8 * THREADS
        return REGISTERS // per_block * THREADS // 32

    def __str__(self) -> str:
        use = f"{self.registers:4d} registers  {self.warps:2d} warps"
        return f"{use}  {self.stack:3d} B stack  {self.spilled:3d} B spilled  {self.name}"


def nvcc() -> str:
    folders = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    beside = os.pathsep.join([os.environ.get("PATH", ""), *(f"{f}/bin" for f in folders if f)])
    found = shutil.which("nvcc", path=beside)
    if found is None:
        pytest.skip("no nvcc: the CUDA kernels cannot be compiled here")
    return found


def readable(symbols: list[str]) -> list[str]:
    """C++ names without namespaces and arguments, where c++filt is installed."""
    tool = shutil.which("c++filt")
    if tool is None or not symbols:
        return symbols
    text = "\n".join(symbols)
    done = subprocess.run([tool], input=text, capture_output=True, text=True, check=True)
    short = [re.sub(r"pymlp::(cuda::|portable::)?", "", line) for line in done.stdout.split("\n")]
    return [re.sub(r"^void |\(.*$", "", line) for line in short]


def kernels(report: str) -> list[Kernel]:
    """Read ptxas -v."""
    symbols, numbers = [], []
    for block in report.split("Compiling entry function '")[1:]:
        symbols.append(block.split("'")[0])
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", block)
        used = re.search(r"Used (\d+) registers", block)
        assert stack, block
        assert used, block
        spilled = int(stack[2]) + int(stack[3])
        numbers.append((int(used[1]), int(stack[1]), spilled))
    return [Kernel(n, *values) for n, values in zip(readable(symbols), numbers, strict=True)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_compiles_without_spills(
    source: Path, architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings are errors; all values stay in registers; as many warps find room as they should."""
    headers = ["-I", str(ROOT / "csrc"), "-isystem", str(Path(torch.__file__).parent / "include")]
    output = ["-cubin", "-arch", architecture, str(source), "-o", str(tmp_path / "kernel.cubin")]
    command = [nvcc(), *FLAGS, *WARNINGS, *headers, *output]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = kernels(done.stderr + done.stdout)
    assert found, "ptxas reported no kernel"
    with capsys.disabled():
        print(f"\n{source.stem} {architecture}", *found, sep="\n")
    for kernel in found:
        assert kernel.spilled == 0, f"spills: {kernel}"
        assert kernel.stack == 0, f"local memory: {kernel}"
        least = next((n for name, n in WARPS.items() if re.search(name, kernel.name)), 12)
        assert kernel.warps >= least, f"too many registers, {least} warps expected: {kernel}"


def test_reading_of_ptxas() -> None:
    """A spill in the report is seen."""
    report = (
        "ptxas info    : Compiling entry function '_Z1kPf' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z1kPf\n"
        "    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 81 registers, used 1 barriers, 16 bytes cumulative stack size\n"
    )
    (kernel,) = kernels(report)
    assert (kernel.registers, kernel.stack, kernel.spilled, kernel.warps) == (81, 16, 20, 20)


def test_sources_are_those_of_the_build() -> None:
    """CMakeLists.txt lists every .cu file that is judged here."""
    listed = (ROOT / "CMakeLists.txt").read_text()
    missing = [path.name for path in SOURCES if f"csrc/ops/{path.name}" not in listed]
    assert SOURCES
    assert not missing, f"not in CMakeLists.txt: {missing}"
