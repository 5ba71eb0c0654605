"""The ASE calculator of a potential."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from pymlp.devices import chosen_device
from pymlp.neighbors import NeighborList, neighbor_list
from pymlp.potential import Potential, load
from pymlp.structures import Batch

__all__ = ["Calculator"]

#: Isolated structures up to this size keep one list of all pairs, which never has to be renewed;
#: beyond it, pairs past the cutoff would cost more than new lists do.
ALL_PAIRS_ATOMS = 64


class Calculator(AseCalculator):
    """Energies (eV), forces (eV/Å) and stress (eV/Å^3) of a potential, for ASE.

    Results: ``energy``, ``free_energy`` (the same), ``energies`` (per atom), ``forces``;
    ``stress`` for structures periodic in all directions; ``energy_std`` and ``forces_std`` for a
    committee. A small isolated molecule's neighbour list is made once; others are made with a
    skin and renewed when an atom has moved by half of it, or the cell has changed.

    A model of a difference of two levels of theory (Δ-learning) gives that difference alone, and a
    warning says so, unless ``baseline`` is the calculator of the lower level: its energy and forces
    are added, and ``delta`` among the results is the model's own energy.

    Args:
        potential: a potential, or the folder of a model.
        device: where to compute (cpu, cuda, cuda:n, or auto); a potential that is given is moved
            there.
        dtype: precision of positions and features.
        skin: Å, added to the cutoff of lists that have to be renewed.
        baseline: ASE calculator of the lower level of theory, for a model of a difference.
        spread: whether a committee's ``forces_std`` is made at every step; a fourth of the time of
            four networks.

    Raises:
        FileNotFoundError: if there is no model in the folder.
        ValueError: for a damaged model, a device that cannot be computed on, a negative skin; on
            use, for unknown elements, coincident atoms or positions that are not finite.
    """

    implemented_properties: ClassVar[list[str]] = [  # type: ignore[misc]
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]

    def __init__(
        self,
        potential: Potential | str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        skin: float = 1.0,
        baseline: AseCalculator | None = None,
        spread: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not (math.isfinite(skin) and skin >= 0):
            raise ValueError(f"skin must be at least zero (Å), got {skin}")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        self.device = chosen_device(device)
        if not isinstance(potential, Potential):
            potential = load(potential, self.device)
        self.potential = potential.to(self.device)
        kind = self.potential.target_kind
        if baseline is not None and kind == "total":
            raise ValueError("baseline is for a model of a difference; this one gives the total")
        if baseline is None and kind == "delta":
            warnings.warn(
                "this model predicts the difference of two levels of theory (Δ), not an energy "
                "surface: give the calculator of the lower level as baseline",
                stacklevel=2,
            )
        self.baseline = baseline
        self.dtype, self.skin, self.spread = dtype, float(skin), bool(spread)
        self._batch: Batch | None = None
        self._pairs: NeighborList | None = None
        self._made_at = torch.zeros(0)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last evaluation, of what a potential looks at.

        Charges and magnetic moments do not matter here; comparing the rest exactly takes 15 µs
        where ASE's comparison takes 150.
        """
        old: Atoms | None = self.atoms
        if old is None:
            return list(all_changes)
        pairs = {
            "positions": (old.positions, atoms.positions),
            "numbers": (old.numbers, atoms.numbers),
            "cell": (old.cell.array, atoms.cell.array),
            "pbc": (old.pbc, atoms.pbc),
        }
        return [
            name
            for name, (before, now) in pairs.items()
            if before.shape != now.shape or not (before == now).all()
        ]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute everything that one evaluation gives; called by ASE.

        Raises:
            ValueError: for unknown elements, coincident atoms, or positions that are not finite.
        """
        if atoms is not None:
            self.atoms = atoms.copy()
        current: Atoms | None = self.atoms
        if current is None:
            raise ValueError("atoms must be given before anything can be computed")
        batch, pairs = self._prepared(current)
        result = self.potential.compute(batch, neighbor_list=pairs, spread=self.spread)
        energy = float(result.energy[0])
        if not math.isfinite(energy):
            # Cheap for every step; finding out why is only done here.
            neighbor_list(Batch.from_atoms(current), self.potential.cutoff)
            raise ValueError(f"the energy became {energy}: the weights are damaged")
        assert result.forces is not None
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": result.atomic_energies.cpu().numpy(),
            "forces": result.forces.to("cpu", torch.float64).numpy(),
        }
        if result.stress is not None:
            tensor = result.stress[0].to("cpu", torch.float64).numpy()
            self.results["stress"] = full_3x3_to_voigt_6_stress(tensor)
        if result.energy_std is not None:
            self.results["energy_std"] = float(result.energy_std[0])
        if result.forces_std is not None:
            self.results["forces_std"] = result.forces_std.to("cpu", torch.float64).numpy()
        if self.baseline is not None:
            self._add_baseline(self.baseline, current)

    def _add_baseline(self, baseline: AseCalculator, atoms: Atoms) -> None:
        """Make totals of the differences; the atoms' shares of them are not known."""
        self.results["delta"] = self.results["energy"]
        del self.results["energies"]
        for name in ("energy", "forces", "stress"):
            if name in self.results:
                lower = baseline.get_property(name, atoms)
                self.results[name] = self.results[name] + lower
        self.results["free_energy"] = self.results["energy"]

    def _prepared(self, atoms: Atoms) -> tuple[Batch, NeighborList]:
        """Return the batch and a neighbour list that still holds, renewed where it does not."""
        old, pairs = self._batch, self._pairs
        positions = torch.from_numpy(np.array(atoms.positions, dtype=np.float64))
        if not bool(torch.isfinite(positions).all()):
            raise ValueError("positions must be finite, got NaN or Inf")
        numbers = torch.from_numpy(np.asarray(atoms.numbers, dtype=np.int64))
        same = (
            old is not None
            and len(numbers) == old.n_atoms
            and torch.equal(numbers, old.numbers.cpu())
            and bool((np.asarray(atoms.pbc) == old.pbc[0].cpu().numpy()).all())
        )
        if old is None or pairs is None or not same:
            return self._renewed(Batch.from_atoms(atoms))
        if not old.periodic:
            cell = old.cell
        else:
            cell = torch.from_numpy(np.array(atoms.cell.array, dtype=np.float64))[None]
        if math.isinf(pairs.cutoff):
            batch = old.with_positions(positions.to(self.device, self.dtype))
            return batch, pairs
        moved = float((positions - self._made_at).square().sum(dim=1).max())
        changed = old.periodic and not torch.equal(cell.to(old.cell), old.cell)
        if changed or not moved <= (0.5 * self.skin) ** 2:
            return self._renewed(Batch.from_atoms(atoms))
        return old.with_positions(positions.to(self.device, self.dtype)), pairs

    def _renewed(self, batch: Batch) -> tuple[Batch, NeighborList]:
        self._batch = None  # stays unset where the structure is refused
        self.potential.descriptor.types(batch.numbers.to(self.device))
        if not batch.periodic and batch.n_atoms <= ALL_PAIRS_ATOMS:
            cutoff = math.inf
        else:
            cutoff = self.potential.cutoff + self.skin
        pairs = neighbor_list(batch, cutoff).to(self.device)
        self._made_at = batch.positions
        self._batch = batch.to(self.device, self.dtype)
        self._pairs = pairs
        return self._batch, pairs
