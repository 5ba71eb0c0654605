"""Reactant, transition state and product of the Claisen rearrangement at the DFT level.

Run as ``python -m pymlp.data.stationary -o claisen_stationary_dft.npz``; needs the ``data`` extra
(tblite, pyscf). Starts from the GFN2 path that is shipped and relaxes with DFT gradients alone; the
first Hessian is GFN2's, and is kept up with the gradients. About 60 gradients. Every point is a
file of its own, so that a killed run continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pymlp.data import claisen_irc_path
from pymlp.data.archives import claim_folder, read_npz, settings_text, write_npz
from pymlp.data.claisen import NUMBERS, guess_saddle, xi
from pymlp.data.gfn2 import GFN2
from pymlp.data.label import Level, single_point
from pymlp.data.saddle import UpdatedHessian, find_minimum, find_saddle
from pymlp.units import BOHR, EV_TO_KCAL_MOL, HARTREE

__all__ = ["POINTS", "DensityFunctional", "main", "make"]

#: The rows of the file, in order.
POINTS = ("reactant", "transition state", "product")

#: Largest gradient component at the end, eV/Å: what the integration grid's noise allows.
TOLERANCE = 4e-3


class DensityFunctional:
    """Energies and gradients of `pymlp.data.label.single_point`, in eV and Å; no Hessian."""

    def __init__(self, level: Level) -> None:
        self.level = level

    def energy_gradient(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy (eV) and gradient [N, 3] (eV/Å)."""
        energy, gradient = single_point(NUMBERS, positions, self.level)
        largest = np.abs(gradient).max() * HARTREE / BOHR
        print(f"  {energy:.6f} Hartree, largest gradient {largest:.4f} eV/Å", flush=True)
        return energy * HARTREE, gradient * HARTREE / BOHR

    def hessian(self, positions: np.ndarray) -> np.ndarray:
        """Refused: too costly by finite differences."""
        raise RuntimeError("DensityFunctional has no Hessian: use it inside UpdatedHessian")


def make(output: Path, level: Level) -> dict[str, np.ndarray]:
    """Find the three points and write them to ``output``, in the layout of the other files.

    Returns:
        What is written: ``numbers`` [14], ``coordinates`` [3,14,3] Å, ``energy`` [3] Hartree,
        ``gradient`` [3,14,3] Hartree/Bohr, ``energy_sqm`` and ``gradient_sqm`` (GFN2-xTB), ``xi``
        [3] Å, ``settings``.

    Raises:
        RuntimeError: a search does not converge.
        ValueError: the work folder belongs to another level of theory.
    """
    settings = asdict(level)
    work = output.with_suffix(".work")
    claim_folder(work, settings)
    path = read_npz(claisen_irc_path())["coordinates"].astype(float)
    cheap = GFN2(NUMBERS)
    found = []
    for name in POINTS:
        file = work / f"{name.replace(' ', '_')}.npz"
        if not file.exists():
            print(name, flush=True)
            surface = UpdatedHessian(DensityFunctional(level), cheap)
            if name == "transition state":
                # between GFN2's tight transition state and the loose one of DFT
                positions = find_saddle(surface, guess_saddle(1.95, 2.3), tolerance=TOLERANCE)
            else:
                start = path[0] if name == "reactant" else path[-1]
                positions = find_minimum(surface, start, tolerance=TOLERANCE)
            write_npz(file, positions=positions)
        found.append(read_npz(file)["positions"])
    coordinates = np.array(found, dtype=np.float32)
    labels = [single_point(NUMBERS, positions.astype(float), level) for positions in coordinates]
    lower = cheap.labels(coordinates)
    arrays = {
        "numbers": NUMBERS,
        "coordinates": coordinates,
        "energy": np.array([energy for energy, _ in labels]),
        "gradient": np.array([gradient for _, gradient in labels], dtype=np.float32),
        "energy_sqm": lower["energy"],
        "gradient_sqm": lower["gradient"],
        "xi": xi(coordinates.astype(float)),
        "settings": np.array(settings_text(settings)),
    }
    write_npz(output, **arrays)
    return arrays


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pymlp.data.stationary", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-o", "--output", type=Path, default=Path("claisen_stationary_dft.npz"))
    try:
        arrays = make(parser.parse_args(arguments).output, Level())
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    energies = (arrays["energy"] - arrays["energy"][0]) * HARTREE * EV_TO_KCAL_MOL
    for name, energy, place in zip(POINTS, energies, arrays["xi"], strict=True):
        print(f"{name:18} {energy:8.2f} kcal/mol  xi {place:6.3f} Å")
    return 0


if __name__ == "__main__":
    sys.exit(main())
