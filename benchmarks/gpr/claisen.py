"""The Claisen Δ data of SPEC section 5: the target is B3LYP − PM3, in eV and eV/Å.

The first 100 structures are for validation, the other 1500 the training pool; N training
structures are the first N of the pool. The file is used where it lies, never copied.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from pymlp import units
from pymlp.descriptors import ANI
from pymlp.structures import Batch

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "claisen.npz"
N_VALIDATION = 100


def load(path: Path = DATA) -> Batch:
    """All 1600 structures with the difference of the two levels as labels."""
    data = np.load(path)
    energy = (data["energy"] - data["energy_sqm"]) * units.factor("Hartree", "energy")
    gradient = (data["gradient"] - data["gradient_sqm"]) * units.factor("Hartree/Bohr", "force")
    return Batch.from_arrays(
        data["numbers"],
        torch.tensor(data["coordinates"], dtype=torch.float64),
        energies=torch.tensor(energy, dtype=torch.float64),
        forces=torch.tensor(-gradient, dtype=torch.float64),
    )


def descriptor() -> ANI:
    """ANI-1x with element channels; radial features at 0.6, which the likelihood prefers to 1."""
    return ANI(
        ["H", "C", "O"],
        radial_eta=16.0,
        radial_shifts=[0.9 + 0.26875 * k for k in range(16)],
        zeta=32.0,
        theta_shifts=[math.pi * (2 * k + 1) / 16 for k in range(8)],
        angular_eta=8.0,
        angular_shifts=[0.9, 1.55, 2.2, 2.85],
        radial_cutoff=5.2,
        angular_cutoff=3.5,
        radial_prefactor=0.6,
    )
