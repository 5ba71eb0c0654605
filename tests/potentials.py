"""Small potentials with random weights, and structures for them."""

from __future__ import annotations

import itertools
from typing import Any

import ase
import numpy as np
import torch

from pymlp import Batch, ElementNetworks, Potential
from pymlp.descriptors import ANI, BehlerParrinello, Descriptor

ELEMENTS = ["H", "C", "O"]


def descriptor(family: str = "ani") -> Descriptor:
    if family == "ani":
        return ANI(ELEMENTS, 4.0, [0.9, 1.7, 2.4], 7.3, [0.4, 1.9, 2.8], 3.0, [1.0, 1.8], 3.5, 3.0)
    return BehlerParrinello(
        ELEMENTS,
        radial=[(0.3, 0.0), (1.2, 1.1)],
        angular=[(0.05, 1.0, 0.0), (0.05, 3.0, np.pi), (0.2, 2.5, np.pi)],
        cutoff=3.5,
    )


def potential(
    family: str = "ani", members: int = 1, activation: str = "tanh", dtype: Any = torch.float64
) -> Potential:
    """Random networks with the scalers of random structures: energies differ by some eV."""
    seen = descriptor(family)
    made = []
    batch = molecules(20, seed=99)
    features, types = seen(batch), seen.types(batch.numbers)
    for seed in range(members):
        net = ElementNetworks(seen.n_features, ELEMENTS, (8, 6), activation, seed=seed, dtype=dtype)
        net.fit_scaler(features, types)
        net.energy_scale.fill_(1.7)
        net.energy_shift.copy_(torch.tensor([-13.6, -1030.0, -2042.0]))
        made.append(net)
    whole = Potential(seen, made, {"target": "total"})
    whole.record_ranges(features, types)
    return whole


def molecules(n_structures: int = 3, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    grid = np.array(list(itertools.product(range(2), repeat=3)))[:6] * 1.4
    positions = grid + generator.uniform(-0.25, 0.25, size=(n_structures, 6, 3))
    return Batch.from_arrays([8, 1, 6, 1, 1, 6], positions)


def crystals() -> Batch:
    """Two triclinic crystals of different sizes, cells smaller than the cutoff."""
    cell = [[3.1, 0.2, 0.0], [0.3, 3.3, 0.3], [0.4, 0.0, 2.9]]
    frames = [
        ase.Atoms("OHC", [[0, 0, 0], [1.1, 1.2, 0.9], [2.0, 0.1, 1.9]], cell=cell, pbc=True),
        ase.Atoms("OHHCH", np.array([[0.1, 0, 0], [1.2, 1.2, 0.9], [2.0, 0.2, 1.9], [0.2, 2.0, 1.7],
                  [1.4, 2.6, 2.4]]), cell=np.array(cell) * 1.1, pbc=True),
    ]  # fmt: skip
    return Batch.from_atoms(frames)
