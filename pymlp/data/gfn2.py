"""GFN2-xTB energies, gradients and Hessians of one molecule, through tblite and ASE.

Needs the ``data`` extra (tblite). Units are ASE's: Å, eV, eV/Å.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from pymlp.units import BOHR, HARTREE

__all__ = [
    "GFN2",
    "CalculatorSurface",
    "HarmonicRestraint",
    "gfn2_calculator",
    "reaction_coordinate",
]


def gfn2_calculator(accuracy: float = 1.0) -> Calculator:
    """A silent tblite calculator; ``accuracy`` scales tblite's thresholds (smaller is tighter).

    Raises:
        ImportError: tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise ImportError("GFN2-xTB needs the package tblite: pip install 'pymlp[data]'") from error
    return TBLite(method="GFN2-xTB", accuracy=accuracy, verbosity=0)


class CalculatorSurface:
    """Potential-energy surface of one molecule, for `pymlp.data.saddle`, from an ASE calculator.

    Args:
        numbers: atomic numbers, [N].
        calculator: of energies and forces, a trained potential's or any other.
    """

    def __init__(self, numbers: Sequence[int] | np.ndarray, calculator: Calculator) -> None:
        self.atoms = Atoms(numbers=numbers, positions=np.zeros((len(numbers), 3)))
        self.atoms.calc = calculator

    def energy_gradient(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy (eV) and gradient [N, 3] (eV/Å) at ``positions`` [N, 3] (Å)."""
        self.atoms.positions = positions
        forces = self.atoms.get_forces()
        return float(self.atoms.get_potential_energy()), -forces

    def hessian(self, positions: np.ndarray, step: float = 0.005) -> np.ndarray:
        """Second derivatives [3N, 3N] (eV/Å²): central differences of gradients, symmetrised."""
        flat = np.asarray(positions, dtype=float).reshape(-1)
        hessian = np.empty((flat.size, flat.size))
        for i in range(flat.size):
            ahead, behind = flat.copy(), flat.copy()
            ahead[i] += step
            behind[i] -= step
            upper = self.energy_gradient(ahead.reshape(-1, 3))[1]
            lower = self.energy_gradient(behind.reshape(-1, 3))[1]
            hessian[i] = (upper - lower).reshape(-1) / (2 * step)
        return (hessian + hessian.T) / 2


class GFN2(CalculatorSurface):
    """The surface of GFN2-xTB.

    Args:
        numbers: atomic numbers, [N].
        accuracy: tblite's accuracy; 0.01 converges gradients to about 1e-6 eV/Å.
    """

    def __init__(self, numbers: Sequence[int] | np.ndarray, accuracy: float = 0.01) -> None:
        super().__init__(numbers, gfn2_calculator(accuracy))
        self.accuracy = accuracy

    def labels(self, coordinates: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays of a data file: structures with energies and gradients in atomic units.

        The labels belong to the coordinates as float32 holds them, and to them alone: every
        structure starts from a fresh density, not from that of the structure before.

        Args:
            coordinates: [n, N, 3] Å.

        Returns:
            ``coordinates`` [n, N, 3] Å float32, ``energy`` [n] Hartree float64 (float32 would
            round total energies to 1e-6 Hartree), ``gradient`` [n, N, 3] Hartree/Bohr float32.
        """
        stored = coordinates.astype(np.float32)
        energies, gradients = np.empty(len(stored)), np.empty(stored.shape)
        for i, positions in enumerate(stored):
            self.atoms.calc = gfn2_calculator(self.accuracy)
            energies[i], gradients[i] = self.energy_gradient(positions.astype(float))
        return {
            "coordinates": stored,
            "energy": energies / HARTREE,
            "gradient": (gradients / (HARTREE / BOHR)).astype(np.float32),
        }


def reaction_coordinate(
    positions: np.ndarray, broken: tuple[int, int], formed: tuple[int, int]
) -> np.ndarray:
    """ξ = d(broken bond) − d(formed bond) in Å, for positions [..., N, 3]; returns [...]."""

    def distance(pair: tuple[int, int]) -> np.ndarray:
        return np.linalg.norm(positions[..., pair[0], :] - positions[..., pair[1], :], axis=-1)

    return distance(broken) - distance(formed)


class HarmonicRestraint(Calculator):
    """ASE calculator of a bias ½ k (Σ_p s_p d_p − target)² on a signed sum of distances d_p.

    Args:
        terms: (first atom, second atom, sign s_p) of every distance.
        target: value at which the bias vanishes, Å.
        stiffness: k in eV/Å².
    """

    # ASE declares it as a plain attribute, so a ClassVar it cannot be.
    implemented_properties = ["energy", "forces", "free_energy"]  # noqa: RUF012

    def __init__(
        self, terms: Sequence[tuple[int, int, float]], target: float, stiffness: float
    ) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.target = target
        self.stiffness = stiffness

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces"),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results`` with the bias energy (eV) and forces (eV/Å)."""
        super().calculate(atoms, properties, system_changes)
        if atoms is None:
            raise ValueError("atoms: expected the atoms to evaluate, got None")
        positions = atoms.positions
        value = 0.0
        slope = np.zeros_like(positions)
        for first, second, sign in self.terms:
            vector = positions[first] - positions[second]
            distance = np.linalg.norm(vector)
            value += sign * distance
            slope[first] += sign * vector / distance
            slope[second] -= sign * vector / distance
        stretch = value - self.target
        energy = 0.5 * self.stiffness * stretch**2
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": -self.stiffness * stretch * slope,
        }
