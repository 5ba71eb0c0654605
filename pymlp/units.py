"""Units: eV and Å inside, every conversion constant of the project in this one place.

The constants are those of ``ase.units`` (CODATA), so that numbers agree with ASE to the last
digit: 1 Hartree = 27.21138602 eV, 1 Bohr = 0.5291772106 Å, 1 eV = 23.0605 kcal/mol.
"""

from __future__ import annotations

import re
from typing import Literal, TypeVar

from ase import units as _ase

__all__ = [
    "BOHR",
    "BOLTZMANN",
    "EV_TO_KCAL_MOL",
    "FEMTOSECOND",
    "HARTREE",
    "KCAL_MOL",
    "KJ_MOL",
    "Quantity",
    "factor",
    "from_internal",
    "known_units",
    "to_internal",
]

Quantity = Literal["energy", "length", "force", "stress", "charge"]

#: eV per Hartree, Å per Bohr, eV per kcal/mol, eV per kJ/mol.
HARTREE = float(_ase.Hartree)
BOHR = float(_ase.Bohr)
KCAL_MOL = float(_ase.kcal / _ase.mol)
KJ_MOL = float(_ase.kJ / _ase.mol)

#: kcal/mol per eV; also kcal/mol/Å per eV/Å. What reports print beside eV.
EV_TO_KCAL_MOL = 1.0 / KCAL_MOL

#: eV/K, and one femtosecond in ASE's unit of time: for molecular dynamics.
BOLTZMANN = float(_ase.kB)
FEMTOSECOND = float(_ase.fs)

_ENERGY = {"eV": 1.0, "meV": 1e-3, "Hartree": HARTREE, "kcal/mol": KCAL_MOL, "kJ/mol": KJ_MOL}
_LENGTH = {"Å": 1.0, "Bohr": BOHR}
_FORCE = {f"{e}/{x}": _ENERGY[e] / _LENGTH[x] for e in _ENERGY for x in _LENGTH}
_STRESS = {"eV/Å^3": 1.0, "GPa": float(_ase.GPa), "Hartree/Bohr^3": HARTREE / BOHR**3}
_CHARGE = {"e": 1.0}
_TABLES: dict[str, dict[str, float]] = {
    "energy": _ENERGY,
    "length": _LENGTH,
    "force": _FORCE,
    "stress": _STRESS,
    "charge": _CHARGE,
}

# Spellings that mean the same, applied to the lower-cased name part by part.
_ALIASES = {
    "ev": "eV",
    "mev": "meV",
    "ha": "Hartree",
    "hartree": "Hartree",
    "hartrees": "Hartree",
    "eh": "Hartree",
    "kcal": "kcal",
    "kj": "kJ",
    "mol": "mol",
    "å": "Å",
    "ang": "Å",
    "angstrom": "Å",
    "angstroms": "Å",
    "ångström": "Å",
    "a": "Å",
    "bohr": "Bohr",
    "bohrs": "Bohr",
    "a0": "Bohr",
    "gpa": "GPa",
    "e": "e",
}

_Value = TypeVar("_Value")


def _canonical(unit: str) -> str:
    parts = re.split(r"([/^*() ])", unit.strip().replace("\u212b", "Å").replace("A\u030a", "Å"))
    return "".join(_ALIASES.get(part.lower(), part) for part in parts).replace(" ", "")


def known_units(quantity: Quantity) -> tuple[str, ...]:
    """Return the names of the units of a quantity, the internal one first.

    Args:
        quantity: ``"energy"``, ``"length"``, ``"force"``, ``"stress"`` or ``"charge"``.

    Raises:
        ValueError: for any other quantity.
    """
    if quantity not in _TABLES:
        raise ValueError(f"quantity must be one of {sorted(_TABLES)}, got {quantity!r}")
    return tuple(_TABLES[quantity])


def factor(unit: str, quantity: Quantity) -> float:
    """Return the number of internal units (eV, Å, eV/Å, eV/Å^3) in one ``unit``.

    >>> round(factor("Hartree/Bohr", "force"), 4)
    51.4221

    Args:
        unit: for instance ``"Hartree"``, ``"kcal/mol"``, ``"Bohr"``, ``"eV/Å"``; spelling in ASCII
            (``"eV/Angstrom"``) and any capitals are understood.
        quantity: what is measured in that unit.

    Raises:
        ValueError: for a unit that the quantity does not have.
        TypeError: if ``unit`` is no string.
    """
    names = known_units(quantity)
    if not isinstance(unit, str):
        raise TypeError(f"unit must be a string, got {type(unit).__name__}")
    # kcal/mol/Å and kcal/(mol*Å) are the same unit.
    name = re.sub(r"/\(mol[*]?(\w+)\)", r"/mol/\1", _canonical(unit))
    if name not in _TABLES[quantity]:
        raise ValueError(f"unknown {quantity} unit {unit!r}; known: {', '.join(names)}")
    return _TABLES[quantity][name]


def to_internal(value: _Value, unit: str, quantity: Quantity) -> _Value:
    """Convert a number, array or tensor from ``unit`` to eV, Å and their quotients.

    Args:
        value: anything that can be multiplied by a float; it is not changed in place.
        unit: the unit it comes in.
        quantity: what is measured.

    Raises:
        ValueError: for a unit that the quantity does not have.
    """
    return value * factor(unit, quantity)  # type: ignore[operator, return-value]


def from_internal(value: _Value, unit: str, quantity: Quantity) -> _Value:
    """Convert a number, array or tensor from eV, Å and their quotients to ``unit``.

    Args:
        value: anything that can be multiplied by a float; it is not changed in place.
        unit: the unit it is wanted in.
        quantity: what is measured.

    Raises:
        ValueError: for a unit that the quantity does not have.
    """
    return value * (1.0 / factor(unit, quantity))  # type: ignore[operator, return-value]
