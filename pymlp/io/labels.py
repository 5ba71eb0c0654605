"""Which labels are asked for, in which units, and how they become energies and forces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pymlp import units

__all__ = ["Array", "LabelKeys", "Target", "combined", "notes"]

Array: TypeAlias = NDArray[Any]

#: total: the label itself; delta: label minus baseline; sqm: the baseline itself.
Target: TypeAlias = Literal["total", "delta", "sqm"]

TARGETS = ("total", "delta", "sqm")


@dataclass(frozen=True)
class LabelKeys:
    """Names of the labels in a file, and the units of its numbers.

    Attributes:
        energy: key of the energies.
        forces: key of the forces; or
        gradient: key of the energy gradients, minus the forces.
        baseline_energy: key of the energies of the lower level of theory (Δ-learning).
        baseline_forces: key of its forces; or
        baseline_gradient: key of its gradients.
        energy_unit: eV, meV, Hartree, kcal/mol or kJ/mol.
        force_unit: one of these by Å or by Bohr.
        length_unit: Å or Bohr, of coordinates and cells.

    Raises:
        ValueError: for forces and gradients at once, forces without energies, a label without
            its unit, or an unknown unit.
    """

    energy: str | None = None
    forces: str | None = None
    gradient: str | None = None
    baseline_energy: str | None = None
    baseline_forces: str | None = None
    baseline_gradient: str | None = None
    energy_unit: str | None = None
    force_unit: str | None = None
    length_unit: str = "Å"

    def __post_init__(self) -> None:
        for one, other in (
            ("forces", "gradient"),
            ("baseline_forces", "baseline_gradient"),
        ):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} exclude each other, got a key for both")
        if self.energy is None and any(self.names().values()):
            raise ValueError("energy key must be given where any other label's key is")
        if self.baseline_energy is None and (self.baseline_forces or self.baseline_gradient):
            raise ValueError("baseline_energy key must be given where baseline forces are read")
        if self.energy is not None and self.energy_unit is None:
            raise ValueError(
                f"energy_unit must be given for the energies {self.energy!r}; known: "
                + ", ".join(units.known_units("energy"))
            )
        forces = self.forces or self.gradient or self.baseline_forces or self.baseline_gradient
        if forces is not None and self.force_unit is None:
            raise ValueError(
                f"force_unit must be given for the forces {forces!r}; known: "
                + ", ".join(units.known_units("force"))
            )
        if self.energy_unit is not None:
            units.factor(self.energy_unit, "energy")
        if self.force_unit is not None:
            units.factor(self.force_unit, "force")
        units.factor(self.length_unit, "length")

    def names(self) -> dict[str, str]:
        """Return the keys that are given, by what they stand for."""
        every = {f.name: getattr(self, f.name) for f in fields(self) if "unit" not in f.name}
        return {name: key for name, key in every.items() if key is not None}

    def for_target(self, target: Target) -> LabelKeys:
        """Return the keys that the target needs, and no others.

        Raises:
            ValueError: for an unknown target, or one whose labels have no key.
        """
        if target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
        has_forces = self.forces is not None or self.gradient is not None
        has_baseline = self.baseline_forces is not None or self.baseline_gradient is not None
        if target == "total":
            return replace(self, baseline_energy=None, baseline_forces=None, baseline_gradient=None)
        if self.baseline_energy is None:
            raise ValueError(f"target {target!r} needs a baseline energy key, got none")
        if target == "sqm":
            return replace(self, forces=None, gradient=None)
        if has_forces != has_baseline:
            missing = "baseline forces or gradients" if has_forces else "forces or gradients"
            raise ValueError(f"target 'delta' needs {missing} too: the file's other level has them")
        return self


def combined(
    keys: LabelKeys, target: Target, found: Mapping[str, Array]
) -> tuple[Array, Array | None]:
    """Return energies (eV) and forces (eV/Å, or ``None``) of the target from raw labels.

    Args:
        keys: what :meth:`LabelKeys.for_target` returned.
        target: ``"total"``, ``"delta"`` or ``"sqm"``.
        found: raw arrays by the names of :meth:`LabelKeys.names`, any shapes.
    """
    levels = {"total": ("",), "delta": ("", "baseline_"), "sqm": ("baseline_",)}[target]
    energies, forces = [], []
    for level in levels:
        raw = np.asarray(found[f"{level}energy"], dtype=np.float64)
        energies.append(units.to_internal(raw, str(keys.energy_unit), "energy"))
        for name, sign in (("forces", 1.0), ("gradient", -1.0)):
            if f"{level}{name}" in found:
                raw = np.asarray(found[f"{level}{name}"], dtype=np.float64)
                forces.append(sign * units.to_internal(raw, str(keys.force_unit), "force"))
    if len(levels) == 1:
        return energies[0], forces[0] if forces else None
    return energies[0] - energies[1], forces[0] - forces[1] if forces else None


def notes(keys: LabelKeys, target: Target | None) -> list[str]:
    """Return sentences on what was read and how it was converted, for logs and reports."""
    lines = [f"coordinates: {keys.length_unit}" + (" -> Å" if keys.length_unit != "Å" else "")]
    if target is None:
        return [*lines, "labels: none read"]
    text = {
        "total": f"{keys.energy}",
        "delta": f"{keys.energy} - {keys.baseline_energy} (Δ-learning: the target is the "
        "difference of two levels of theory)",
        "sqm": f"{keys.baseline_energy} (the lower level of theory)",
    }[target]
    lines.append(f"energies: {text}, {keys.energy_unit} -> eV")
    names = keys.names()
    prefix = "baseline_" if target == "sqm" else ""
    for kind, sign in (("forces", ""), ("gradient", "-")):
        if f"{prefix}{kind}" in names:
            first = names[f"{prefix}{kind}"]
            other = names.get("baseline_forces") or names.get("baseline_gradient")
            if target == "delta":
                minus = "-" if "baseline_gradient" in names else ""
                first = (
                    f"({sign}{first}) - ({minus}{other})"
                    if sign or minus
                    else (f"{first} - {other}")
                )
            else:
                first = sign + first
            lines.append(f"forces: {first}, {keys.force_unit} -> eV/Å")
    return lines
