"""Structures and batches of structures: what every file is read into and every model takes.

Units: Å, eV, eV/Å. Atoms of all structures of a batch are concatenated (ragged, no padding);
``structure_offsets`` says where each structure begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from pymlp.structure_checks import (
    SYMBOLS,
    as_float,
    as_numbers,
    as_pbc,
    check_cells,
    check_finite,
)

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Batch", "Structure"]


@dataclass(eq=False)
class Structure:
    """One set of atoms, with its energy and forces where they are known.

    Attributes:
        numbers: [N] int64 atomic numbers (chemical symbols are taken too).
        positions: [N, 3] Å, float64.
        cell: [3, 3] Å, rows are the cell vectors; ``None`` where there is no cell.
        pbc: which cell vectors are periodic.
        energy: eV, or ``None``.
        forces: [N, 3] eV/Å, or ``None``.
        info: anything that belongs to the structure; the package does not read it.

    Raises:
        ValueError: for wrong shapes, numbers that are no elements, NaN or Inf, singular cells.
    """

    numbers: Tensor
    positions: Tensor
    cell: Tensor | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    energy: float | None = None
    forces: Tensor | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.numbers = as_numbers(self.numbers)
        self.positions = as_float(self.positions, "positions", torch.float64)
        n_atoms = len(self.numbers)
        if self.positions.shape != (n_atoms, 3):
            raise ValueError(
                f"positions must have shape [{n_atoms}, 3] (one row per entry of numbers), "
                f"got {list(self.positions.shape)}"
            )
        check_finite(self.positions, "positions", "atom")
        a, b, c = as_pbc(self.pbc).tolist()
        self.pbc = (a, b, c)
        if self.cell is not None:
            self.cell = as_float(self.cell, "cell", torch.float64)
            if self.cell.shape != (3, 3):
                raise ValueError(f"cell must have shape [3, 3], got {list(self.cell.shape)}")
            check_finite(self.cell, "cell")
        if any(self.pbc):
            if self.cell is None:
                raise ValueError("cell must be given where pbc is true, got None")
            check_cells(self.cell[None], torch.tensor([self.pbc]))
        if self.energy is not None:
            self.energy = float(self.energy)
            if not np.isfinite(self.energy):
                raise ValueError(f"energy must be finite, got {self.energy}")
        if self.forces is not None:
            self.forces = as_float(self.forces, "forces", torch.float64)
            if self.forces.shape != (n_atoms, 3):
                raise ValueError(
                    f"forces must have shape [{n_atoms}, 3], got {list(self.forces.shape)}"
                )
            check_finite(self.forces, "forces", "atom")

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def formula(self) -> str:
        """Elements and their counts, carbon and hydrogen first (``"C5H8O"``)."""
        counts: dict[str, int] = {}
        for number in self.numbers.tolist():
            counts[SYMBOLS[number]] = counts.get(SYMBOLS[number], 0) + 1
        first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
        order = first + sorted(s for s in counts if s not in first)
        return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in order)

    def to_atoms(self) -> Atoms:
        """Return the structure as ``ase.Atoms`` (labels in a single-point calculator)."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        cell = None if self.cell is None else self.cell.numpy()
        atoms = Atoms(self.numbers.numpy(), self.positions.numpy(), cell=cell, pbc=self.pbc)
        labels: dict[str, Any] = {}
        if self.energy is not None:
            labels["energy"] = self.energy
        if self.forces is not None:
            labels["forces"] = self.forces.numpy()
        if labels:
            atoms.calc = SinglePointCalculator(atoms, **labels)
        return atoms


@dataclass(eq=False)
class Batch:
    """Structures with their atoms concatenated.

    Attributes:
        positions: [A, 3] Å, float32 or float64.
        numbers: [A] int64 atomic numbers.
        structure_offsets: [B + 1] int64; atoms of structure b are offsets[b] .. offsets[b+1].
        cell: [B, 3, 3] Å, rows are cell vectors; zeros where a structure has no cell.
        pbc: [B, 3] bool.
        energies: [B] eV, float64, or ``None``.
        forces: [A, 3] eV/Å, or ``None``.
        info: where the batch came from (set by :mod:`pymlp.io`).

    Raises:
        ValueError: for wrong shapes, numbers that are no elements, NaN or Inf, singular cells.
    """

    positions: Tensor
    numbers: Tensor
    structure_offsets: Tensor
    # Both may be left out; after construction both are tensors.
    cell: Tensor = None  # type: ignore[assignment]
    pbc: Tensor = None  # type: ignore[assignment]
    energies: Tensor | None = None
    forces: Tensor | None = None
    info: dict[str, Any] = field(default_factory=dict)

    # What depends on numbers and offsets alone (structure index, types ...), kept between calls.
    _topology: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.positions = as_float(self.positions, "positions")
        self.numbers = as_numbers(self.numbers)
        offsets = torch.as_tensor(self.structure_offsets)
        if offsets.dim() != 1 or len(offsets) < 1 or offsets.is_floating_point():
            raise ValueError("structure_offsets must be integers of shape [B + 1]")
        self.structure_offsets = offsets.to(torch.int64)
        n_atoms, n_structures = len(self.numbers), len(offsets) - 1
        steps = self.structure_offsets.diff()
        if int(offsets[0]) != 0 or int(offsets[-1]) != n_atoms or bool((steps < 0).any()):
            raise ValueError(
                f"structure_offsets must rise from 0 to the number of atoms {n_atoms}, "
                f"got {offsets.tolist() if len(offsets) < 10 else 'other values'}"
            )
        if self.positions.shape != (n_atoms, 3):
            raise ValueError(
                f"positions must have shape [{n_atoms}, 3] (one row per entry of numbers), "
                f"got {list(self.positions.shape)}"
            )
        check_finite(self.positions.detach(), "positions", "atom")
        device, dtype = self.positions.device, self.positions.dtype
        self.numbers = self.numbers.to(device)
        self.structure_offsets = self.structure_offsets.to(device)

        pbc = torch.zeros(3, dtype=torch.bool) if self.pbc is None else as_pbc(self.pbc)
        if pbc.dim() == 2 and len(pbc) != n_structures:
            raise ValueError(f"pbc must have shape [{n_structures}, 3], got {list(pbc.shape)}")
        self.pbc = pbc.to(device).expand(n_structures, 3)
        if self.cell is None:
            if bool(self.pbc.any()):
                raise ValueError("cell must be given where pbc is true, got None")
            self.cell = torch.zeros(n_structures, 3, 3, dtype=dtype, device=device)
        else:
            cell = as_float(self.cell, "cell", dtype).to(device)
            if cell.shape not in ((3, 3), (n_structures, 3, 3)):
                raise ValueError(
                    f"cell must have shape [3, 3] or [{n_structures}, 3, 3], got {list(cell.shape)}"
                )
            check_finite(cell.detach(), "cell")
            self.cell = cell.expand(n_structures, 3, 3)
        check_cells(self.cell, self.pbc)

        if self.energies is not None:
            self.energies = as_float(self.energies, "energies", torch.float64).to(device)
            if self.energies.shape != (n_structures,):
                raise ValueError(
                    f"energies must have shape [{n_structures}] (one per structure), "
                    f"got {list(self.energies.shape)}"
                )
            check_finite(self.energies, "energies", "structure")
        if self.forces is not None:
            self.forces = as_float(self.forces, "forces", dtype).to(device)
            if self.forces.shape != (n_atoms, 3):
                raise ValueError(
                    f"forces must have shape [{n_atoms}, 3], got {list(self.forces.shape)}"
                )
            check_finite(self.forces, "forces", "atom")

    # -- makers -----------------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        numbers: Any,
        positions: Any,
        cell: Any = None,
        pbc: Any = None,
        energies: Any = None,
        forces: Any = None,
    ) -> Batch:
        """Make a batch of one structure, or of B structures with the same atoms.

        Args:
            numbers: [N] atomic numbers or chemical symbols.
            positions: [N, 3] or [B, N, 3] Å.
            cell: [3, 3] or [B, 3, 3] Å.
            pbc: one bool, [3] or [B, 3]; ``None`` means not periodic, also with a cell.
            energies: a number or [B], eV.
            forces: like ``positions``, eV/Å.

        Raises:
            ValueError: for mismatched lengths, NaN or Inf, unknown elements, singular cells.
        """
        numbers = as_numbers(numbers)
        positions = as_float(positions, "positions")
        n_atoms = len(numbers)
        shape = tuple(positions.shape)
        if positions.dim() not in (2, 3) or shape[-2:] != (n_atoms, 3):
            raise ValueError(
                f"positions must have shape [{n_atoms}, 3] or [B, {n_atoms}, 3] for {n_atoms} "
                f"atomic numbers, got {list(shape)}"
            )
        n_structures = 1 if positions.dim() == 2 else shape[0]
        if forces is not None:
            forces = as_float(forces, "forces", positions.dtype)
            if tuple(forces.shape) not in (shape, (n_structures, n_atoms, 3)):
                raise ValueError(
                    f"forces must have the shape of positions {list(shape)}, "
                    f"got {list(forces.shape)}"
                )
            forces = forces.reshape(-1, 3)
        if energies is not None:
            energies = as_float(energies, "energies", torch.float64)
            if energies.dim() == 0:
                energies = energies[None]
        return cls(
            positions=positions.reshape(-1, 3),
            numbers=numbers.repeat(n_structures),
            structure_offsets=torch.arange(n_structures + 1) * n_atoms,
            cell=cell,
            pbc=pbc,
            energies=energies,
            forces=forces,
        )

    @classmethod
    def from_structures(cls, structures: Iterable[Structure]) -> Batch:
        """Concatenate structures; labels are kept if every structure has them.

        Raises:
            ValueError: if only some of the structures have an energy (or forces).
        """
        structures = list(structures)
        n_energies = sum(s.energy is not None for s in structures)
        n_forces = sum(s.forces is not None for s in structures)
        for name, count in (("energy", n_energies), ("forces", n_forces)):
            if count not in (0, len(structures)):
                raise ValueError(
                    f"{name} must be known for all structures or for none, "
                    f"got {count} of {len(structures)}"
                )
        lengths = torch.tensor([0, *(len(s) for s in structures)], dtype=torch.int64)
        none = torch.zeros(3, 3, dtype=torch.float64)
        return cls(
            positions=torch.cat([none[:0], *(s.positions for s in structures)]),
            numbers=torch.cat([lengths[:0], *(s.numbers for s in structures)]),
            structure_offsets=lengths.cumsum(0),
            cell=torch.stack([none if s.cell is None else s.cell for s in structures])
            if structures
            else none.expand(0, 3, 3),
            pbc=torch.tensor([s.pbc for s in structures]).reshape(-1, 3).to(torch.bool),
            energies=torch.tensor([s.energy for s in structures], dtype=torch.float64)
            if n_energies
            else None,
            forces=torch.cat([s.forces for s in structures if s.forces is not None])
            if n_forces
            else None,
        )

    @classmethod
    def from_atoms(cls, atoms: Atoms | Sequence[Atoms]) -> Batch:
        """Make a batch from ``ase.Atoms`` (one or several): atoms, cells and periodicity.

        Labels are not taken, since their meaning is not known here; files with labels go
        through :func:`pymlp.io.read`, which asks for keys and units.

        Raises:
            TypeError: if something else than ``Atoms`` comes.
        """
        if not isinstance(atoms, Iterable):
            raise TypeError(f"atoms must be ase.Atoms or a sequence of them, got {atoms!r}")
        frames: list[Any] = [atoms] if hasattr(atoms, "get_positions") else list(atoms)
        structures = []
        for index, frame in enumerate(frames):
            if not hasattr(frame, "get_positions"):
                raise TypeError(
                    f"atoms must be ase.Atoms or a sequence of them, got "
                    f"{type(frame).__name__} at index {index}"
                )
            matrix = np.asarray(frame.cell.array)
            try:
                structures.append(
                    Structure(
                        numbers=torch.as_tensor(np.asarray(frame.numbers, dtype=np.int64)),
                        positions=torch.as_tensor(frame.get_positions()),
                        cell=torch.as_tensor(matrix.copy()) if matrix.any() else None,
                        pbc=tuple(bool(p) for p in frame.pbc),  # type: ignore[arg-type]
                    )
                )
            except ValueError as error:
                raise ValueError(f"structure {index}: {error}") from None
        return cls.from_structures(structures)

    def _derived(self, **changes: Any) -> Batch:
        """Copy with some fields replaced, without checking again what was checked before."""
        new = object.__new__(Batch)
        new.__dict__.update(self.__dict__)
        new.__dict__.update(changes)
        return new

    # -- sizes and indices ------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.structure_offsets) - 1

    @property
    def n_structures(self) -> int:
        """B, the number of structures."""
        return len(self.structure_offsets) - 1

    @property
    def n_atoms(self) -> int:
        """A, the number of atoms of all structures together."""
        return len(self.numbers)

    @property
    def periodic(self) -> bool:
        """Whether any structure is periodic in any direction."""
        if "periodic" not in self._topology:
            self._topology["periodic"] = bool(self.pbc.any())
        return bool(self._topology["periodic"])

    @property
    def lengths(self) -> list[int]:
        """Number of atoms of each structure."""
        if "lengths" not in self._topology:
            self._topology["lengths"] = self.structure_offsets.diff().tolist()
        return list(self._topology["lengths"])

    @property
    def structure_index(self) -> Tensor:
        """[A] int64: the structure that each atom belongs to."""
        if "structure_index" not in self._topology:
            index = torch.arange(len(self), device=self.numbers.device)
            self._topology["structure_index"] = torch.repeat_interleave(
                index, self.structure_offsets.diff(), output_size=self.n_atoms
            )
        result: Tensor = self._topology["structure_index"]
        return result

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements that occur, by rising atomic number."""
        return tuple(SYMBOLS[number] for number in torch.unique(self.numbers).tolist())

    # -- derived batches --------------------------------------------------------------------

    def with_positions(self, positions: Tensor, cell: Tensor | None = None) -> Batch:
        """Return the same atoms at other positions (and in other cells), without labels.

        The check for NaN is left out: this is the path of every step of a simulation.

        Args:
            positions: [A, 3] Å.
            cell: [B, 3, 3] Å; ``None`` keeps the cells.

        Raises:
            ValueError: for a wrong shape.
        """
        if positions.shape != self.positions.shape:
            raise ValueError(
                f"positions must have shape {list(self.positions.shape)}, "
                f"got {list(positions.shape)}"
            )
        return self._derived(
            positions=positions,
            cell=self.cell.to(positions.dtype) if cell is None else cell,
            energies=None,
            forces=None,
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Batch:
        """Return the batch on another device and/or with another precision.

        Energies stay float64: a total energy in float32 is off by millielectronvolts.

        Raises:
            TypeError: for a dtype other than float32 and float64.
        """
        if dtype not in (None, torch.float32, torch.float64):
            raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        target = torch.device(device or self.positions.device)
        kind = dtype or self.positions.dtype
        if (target, kind) == (self.positions.device, self.positions.dtype):
            return self
        known = {"periodic": self.periodic, "lengths": self.lengths}  # to the host, without asking
        return self._derived(
            positions=self.positions.to(target, kind),
            numbers=self.numbers.to(target),
            structure_offsets=self.structure_offsets.to(target),
            cell=self.cell.to(target, kind),
            pbc=self.pbc.to(target),
            energies=None if self.energies is None else self.energies.to(target),
            forces=None if self.forces is None else self.forces.to(target, kind),
            _topology=known if target != self.positions.device else self._topology,
        )

    @overload
    def __getitem__(self, index: int) -> Structure: ...

    @overload
    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Batch: ...

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Structure | Batch:
        """Return one structure (integer), or a batch of some (slice, indices, boolean mask)."""
        if isinstance(index, (int, np.integer)):
            return self._structure(int(index))
        everything = torch.arange(len(self), device=self.numbers.device)
        if isinstance(index, slice):
            chosen = everything[index]
        else:
            chosen = everything[torch.as_tensor(index, device=everything.device)]
            if chosen.dim() != 1:
                raise ValueError(f"index must have one dimension, got {chosen.dim()}")
        starts = self.structure_offsets[:-1][chosen]
        lengths = self.structure_offsets.diff()[chosen]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        n_atoms = int(offsets[-1])
        shift = torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=n_atoms)
        atoms = torch.arange(n_atoms, device=shift.device) + shift
        return self._derived(
            positions=self.positions.index_select(0, atoms),
            numbers=self.numbers[atoms],
            structure_offsets=offsets,
            cell=self.cell[chosen],
            pbc=self.pbc[chosen],
            energies=None if self.energies is None else self.energies[chosen],
            forces=None if self.forces is None else self.forces[atoms],
            info=dict(self.info),
            _topology={},
        )

    def _structure(self, index: int) -> Structure:
        if not -len(self) <= index < len(self):
            raise IndexError(f"structure {index} of a batch of {len(self)}")
        index %= len(self)
        begin, end = self.structure_offsets[index : index + 2].tolist()
        cell = self.cell[index].detach().cpu()
        a, b, c = self.pbc[index].tolist()
        return Structure(
            numbers=self.numbers[begin:end].cpu(),
            positions=self.positions[begin:end].detach().cpu(),
            cell=cell if bool(cell.any()) else None,
            pbc=(a, b, c),
            energy=None if self.energies is None else float(self.energies[index]),
            forces=None if self.forces is None else self.forces[begin:end].detach().cpu(),
        )

    def __iter__(self) -> Iterator[Structure]:
        return (self._structure(index) for index in range(len(self)))

    def split(self) -> list[Structure]:
        """Return the structures one by one, on the CPU and in float64."""
        return list(self)

    def to_atoms(self) -> list[Atoms]:
        """Return the structures as ``ase.Atoms``."""
        return [structure.to_atoms() for structure in self]
