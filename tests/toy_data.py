"""A small labelled data set with an analytic potential: water with Morse bonds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pymlp import Batch, units

NUMBERS = np.array([8, 1, 1])
_REFERENCE = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
#: depth (eV), range (1/Å) and length (Å) of the Morse bonds between atoms i and j.
_BONDS = {(0, 1): (4.0, 2.0, 0.96), (0, 2): (4.0, 2.0, 0.96), (1, 2): (0.5, 1.5, 1.52)}


def morse(positions: np.ndarray, depth_factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Energies [B] (eV) and forces [B, 3, 3] (eV/Å) of positions [B, 3, 3] (Å)."""
    energies = np.zeros(len(positions))
    forces = np.zeros_like(positions)
    for (i, j), (depth, width, length) in _BONDS.items():
        d = positions[:, j] - positions[:, i]
        r = np.linalg.norm(d, axis=-1)
        x = np.exp(-width * (r - length))
        energies += depth_factor * depth * (1 - x) ** 2
        slope = depth_factor * 2 * depth * width * (1 - x) * x
        pull = (slope / r)[:, None] * d
        forces[:, i] += pull
        forces[:, j] -= pull
    return energies, forces


def positions(n: int, seed: int = 0) -> np.ndarray:
    """[n, 3, 3] Å: water, randomly deformed."""
    rng = np.random.default_rng(seed)
    return _REFERENCE + 0.08 * rng.standard_normal((n, 3, 3))


def morse_batch(n: int = 6) -> Batch:
    """The first structures with their energies and forces."""
    r = positions(n)
    energies, forces = morse(r)
    return Batch.from_arrays([8, 1, 1], r, energies=energies, forces=forces)


def write_npz(path: Path, n: int = 48, *, baseline: bool = True, **changes: np.ndarray) -> Path:
    """Write a file in the Hartree layout; with a baseline of 0.7 times the potential."""
    r = positions(n)
    energy, forces = morse(r)
    arrays = {
        "numbers": NUMBERS,
        "coordinates": r,
        "energy": energy / units.HARTREE,
        "gradient": -forces / (units.HARTREE / units.BOHR),
    }
    if baseline:
        arrays["energy_sqm"] = 0.7 * arrays["energy"]
        arrays["gradient_sqm"] = 0.7 * arrays["gradient"]
    np.savez(path, **(arrays | changes))
    return path


def write_extxyz(path: Path, n: int = 48) -> Path:
    """Write the same structures with energies (eV) ``ref_energy`` and forces ``ref_forces``."""
    from ase import Atoms
    from ase.io import write

    r = positions(n)
    energies, forces = morse(r)
    frames = []
    for own, energy, force in zip(r, energies, forces, strict=True):
        atoms = Atoms(NUMBERS, own)
        atoms.info["ref_energy"] = energy
        atoms.arrays["ref_forces"] = force
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path


def small_run(
    folder: Path, text_changes: dict[str, str] | None = None, kind: str = "bp-fnn"
) -> Path:
    """Write data.npz and a run.yaml for a tiny network; return the path of run.yaml."""
    from pymlp.config import kind_named
    from pymlp.config.start import starting_configuration

    data = write_npz(folder / "data.npz")
    path = folder / "run.yaml"
    text, _ = starting_configuration(kind_named(kind), f"{data}@16:", f"{data}@:16", path, {})
    changes = {
        r"hidden: \[.*?\]": "hidden: [8]",
        r"epochs: \d+ ": "epochs: 6 ",
        r"batch_size: \d+": "batch_size: 8",
        r"checkpoint_every: \d+": "checkpoint_every: 2",
    } | (text_changes or {})
    import re

    for pattern, value in changes.items():
        text, count = re.subn(pattern, value, text, count=1)
        assert count == 1, pattern
    path.write_text(text, encoding="utf-8")
    return path
