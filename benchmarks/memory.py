"""Peak memory beside what is there before the call: features and forces of a Claisen batch.

Each contestant runs in a process of its own, since peaks do not go down again; the peak is reset
through /proc (Linux only) after a first small call. ``python -m benchmarks.memory``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import contestants as who
from benchmarks.workloads import claisen
from pymlp.benchmarking import Contestant, environment

NAMES = ["pymlp", "TorchANI", "PyTorch, as in the lessons"]


def make(name: str, n_structures: int) -> Contestant:
    work, kind = claisen(n_structures), torch.float32
    if name == "pymlp":
        return who.pymlp_contestant(who.ani_descriptor(), work, kind)
    if name == "TorchANI":
        return who.torchani_contestants(work, kind)[0]
    return who.plain_contestant("ani", work, kind, "none")


def status(field: str) -> int:
    """A memory field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak(name: str, n_structures: int, quantity: str) -> int:
    """Bytes above the resting size during one call, input and output of the call included."""
    torch.set_num_threads(1)
    make(name, 2).runs[quantity]()
    run = make(name, n_structures).runs[quantity]
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("--out")
    parser.add_argument("--structures", type=int, default=256)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "QUANTITY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(peak(options.child[0], options.structures, options.child[1]))
        return 0
    rows = []
    for quantity in ("fwd", "grad", "train"):
        for name in NAMES:
            command = [sys.executable, "-m", "benchmarks.memory", "--child", name, quantity]
            command += ["--structures", str(options.structures)]
            # every tensor in pages of its own, so that freed ones are not in the resting size
            pages = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=pages)
            if done.returncode:
                print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}")
                continue
            extra = int(done.stdout.split()[-1])
            rows.append({"contestant": name, "quantity": quantity, "peak_extra_bytes": extra})
            print(f"{quantity:6} {name:28} {extra / 2**20:8.1f} MiB")
    if options.out:
        content = {"environment": environment(), "structures": options.structures, "rows": rows}
        Path(options.out).write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
