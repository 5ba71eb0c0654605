"""Structures that the benchmarks run on; all seeded, Å. Water stands in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pymlp.benchmark_workloads import Workload, water

__all__ = ["Workload", "claisen", "water"]

ROOT = Path(__file__).resolve().parent.parent
#: kept beside the checkout, since it has no licence to be shipped
REFERENCE_DATA = ROOT.parent / "shared" / "data" / "claisen.npz"
SHIPPED_DATA = ROOT / "pymlp" / "data" / "claisen_gfn2.npz"


def claisen(n_structures: int = 256) -> Workload:
    """Claisen rearrangement, 14 atoms: the reference set where present, else the shipped one."""
    source = REFERENCE_DATA if REFERENCE_DATA.exists() else SHIPPED_DATA
    with np.load(source) as data:
        positions = torch.as_tensor(data["coordinates"][:n_structures]).to(torch.float64)
        numbers = torch.as_tensor(data["numbers"]).to(torch.int64)
    return Workload(f"Claisen x{n_structures}", numbers, positions)
