"""From a labelled batch to points and targets: grouping, mean, deflation, transform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pymlp.gaussian_process.deflation import internal_basis, project_gradients
from pymlp.gaussian_process.feature_transform import (
    FeatureTransform,
    features_to_keep,
    spanning_basis,
)
from pymlp.gaussian_process.inputs import StructureInputs
from pymlp.gaussian_process.points import Points, concatenate_rows
from pymlp.gaussian_process.symmetry import Characters, character_basis
from pymlp.structures import Batch

__all__ = [
    "Mean",
    "Preparation",
    "TrainingSet",
    "equal_numbers",
    "make_transforms",
    "with_symmetry",
]

_CHUNK = 32  # structures whose raw Jacobians exist at one time


def equal_numbers(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """The structures of a batch by their atomic numbers.

    Returns:
        (numbers [N], indices of the structures) of every distinct sequence of atomic numbers.
    """
    offsets = batch.structure_offsets.tolist()
    if len(set(batch.lengths)) == 1:
        table = batch.numbers.view(len(batch), -1)
        if bool((table == table[0]).all()):
            return [(table[0], torch.arange(len(batch), device=table.device))]
    numbers = batch.numbers.cpu()
    members: dict[tuple[int, ...], list[int]] = {}
    for index in range(len(batch)):
        key = tuple(numbers[offsets[index] : offsets[index + 1]].tolist())
        members.setdefault(key, []).append(index)
    device = batch.numbers.device
    return [
        (torch.tensor(key, device=device), torch.tensor(which, device=device))
        for key, which in members.items()
    ]


@dataclass(frozen=True)
class Mean:
    """The mean function: a constant per structure plus energies per element (eV).

    Args:
        kind: "zero", "constant" (the mean energy), or "linear" (least-squares atomic energies).
        constant: eV per structure.
        elements: eV per atom by atomic number.
    """

    kind: Literal["zero", "constant", "linear"] = "constant"
    constant: float = 0.0
    elements: tuple[tuple[int, float], ...] = ()

    def fitted(self, batch: Batch, energies: Tensor | None) -> Mean:
        """The mean of training energies [B].

        Raises:
            ValueError: unknown kind.
        """
        if self.kind not in ("zero", "constant", "linear"):
            raise ValueError(f"mean must be zero, constant or linear, got {self.kind!r}")
        if self.kind == "zero" or energies is None:
            return Mean(self.kind)
        if self.kind == "constant":
            return Mean(self.kind, float(energies.mean()))
        present = sorted(set(batch.numbers.tolist()))
        counts = self._counts(batch, present).to(energies.dtype).cpu()
        # The minimum-norm solution: compositions may not tell all elements apart.
        solution = torch.linalg.lstsq(counts, energies[:, None].cpu(), driver="gelsd").solution
        return Mean(self.kind, 0.0, tuple(zip(present, solution[:, 0].tolist(), strict=True)))

    @staticmethod
    def _counts(batch: Batch, present: list[int]) -> Tensor:
        counts = torch.zeros((len(batch), len(present)), device=batch.positions.device)
        for column, number in enumerate(present):
            is_element = (batch.numbers == number).to(counts.dtype)
            counts[:, column].index_add_(0, batch.structure_index, is_element)
        return counts

    def __call__(self, batch: Batch) -> Tensor:
        """[B] in eV, float64."""
        values = batch.positions.new_full((len(batch),), self.constant, dtype=torch.float64)
        if self.elements:
            counts = self._counts(batch, [number for number, _ in self.elements])
            weights = torch.tensor([value for _, value in self.elements], dtype=torch.float64)
            values += counts.to(torch.float64) @ weights.to(values.device)
        return values

    def per_atom(self, batch: Batch) -> Tensor:
        """The share of every atom [A]; a constant is spread evenly over a structure's atoms."""
        lengths = batch.structure_offsets.diff().to(torch.float64)
        shares = self.constant / lengths[batch.structure_index]
        for number, value in self.elements:
            shares = shares + value * (batch.numbers == number)
        return shares


@dataclass(frozen=True)
class Preparation:
    """How structures become points; fixed by the training set, used for every prediction.

    Args:
        inputs: the raw features.
        transforms: the feature transform of every environment type.
        deflate: project derivative rows onto internal coordinates.
        numbers: the atomic numbers [N] that whole-structure features belong to; None for the GAP
            sum, which takes any.
        symmetry: permutations of equivalent atoms acting on transformed features, from
            `with_symmetry`.
        characters: the same where they commute and the features are in their basis.
    """

    inputs: StructureInputs
    transforms: dict[int, FeatureTransform]
    deflate: bool = True
    numbers: Tensor | None = None
    symmetry: Tensor | None = None
    characters: Characters | None = None

    def basis(self, batch: Batch) -> Tensor | None:
        """The internal basis of structures with equal numbers; None where all 3N are kept."""
        if not self.deflate:
            return None
        return internal_basis(batch.positions.detach().view(len(batch), -1, 3))

    def types(self, numbers: Tensor) -> tuple[int, ...]:
        """The environment types of a structure.

        Raises:
            ValueError: whole-structure features, and other atoms than those of the training set.
        """
        if self.numbers is not None and not torch.equal(self.numbers, numbers.cpu()):
            raise ValueError(
                f"numbers must be {self.numbers.tolist()} in this order, as in the training set of "
                f"this whole-structure Gaussian process, got {numbers.tolist()}"
            )
        return self.inputs.types(numbers)

    def transform(self, raw: Tensor, types: tuple[int, ...], linear: bool = False) -> Tensor:
        """Raw features [n, E, p] (or Jacobian rows [n, E, r, p]) to transformed ones."""
        if len(set(types)) == 1:
            transform = self.transforms[types[0]]
            return transform.jacobian(raw) if linear else transform.features(raw)
        parts = []
        for position, kind in enumerate(types):
            transform = self.transforms[kind]
            one = raw[:, position]
            parts.append(transform.jacobian(one) if linear else transform.features(one))
        width = max(part.shape[-1] for part in parts)
        padded = [torch.nn.functional.pad(part, (0, width - part.shape[-1])) for part in parts]
        return torch.stack(padded, dim=1)

    def pull_transform(self, gradient: Tensor, types: tuple[int, ...]) -> Tensor:
        """∂E/∂x [n, E, p'] to ∂E/∂g [n, E, p]."""
        if len(set(types)) == 1:
            return self.transforms[types[0]].gradient(gradient)
        parts = []
        for position, kind in enumerate(types):
            transform = self.transforms[kind]
            parts.append(transform.gradient(gradient[:, position, : transform.width]))
        return torch.stack(parts, dim=1)

    def points(self, batch: Batch, basis: Tensor | None, derivatives: bool = True) -> Points:
        """The points of structures with equal numbers.

        Args:
            batch: the structures.
            basis: directions [n, 3N, r], or None for all Cartesian ones.
            derivatives: whether Jacobian rows are wanted.
        """
        types = self.types(batch.numbers[: batch.n_atoms // len(batch)])
        features, jacobians = [], []
        for start in range(0, len(batch), _CHUNK):
            part = batch[start : start + _CHUNK]
            raw = self.inputs.features(part)
            features.append(self.transform(raw, types))
            if derivatives:
                directions = None if basis is None else basis[start : start + _CHUNK]
                rows = self.inputs.jacobian(part, directions)
                jacobians.append(self.transform(rows, types, linear=True))
        return Points(
            torch.cat(features),
            torch.cat(jacobians) if derivatives else None,
            types,
            symmetry=self.symmetry,
            characters=self.characters,
        )


def with_symmetry(preparation: Preparation, permutations: Tensor, numbers: Tensor) -> Preparation:
    """Add atom permutations [S, N] of equivalent atoms to whole-structure features.

    Commuting exchanges become signs in a basis of their own; other groups, and compressed
    features, are summed over images.
    """
    if len(permutations) < 2:
        return preparation
    transform = preparation.transforms[0]
    device = transform.center.device
    indices = torch.stack([preparation.inputs.permutation(p, numbers) for p in permutations])
    if transform.keep is not None:  # in the numbering of the features kept
        keep = transform.keep.cpu()
        position = torch.full((len(transform.center),), -1)
        position[keep] = torch.arange(len(keep))
        indices = position[indices[:, keep]]
    matrix = transform.matrix
    if matrix is not None and matrix.dim() == 2:
        # T op = T with permuted rows, exact since the subspace is closed
        inverse = torch.linalg.pinv(matrix)
        operations = [inverse @ matrix[index.argsort().to(device)] for index in indices]
        return replace(preparation, symmetry=torch.stack(operations))
    basis = character_basis(indices)
    if basis is None:
        return replace(preparation, symmetry=indices.to(device))
    rotation = basis[0].to(device, transform.center.dtype)
    characters = basis[1].to(device, transform.center.dtype)
    rotated = {0: replace(transform, rotation=rotation)}
    return replace(preparation, transforms=rotated, characters=characters)


def make_transforms(
    inputs: StructureInputs,
    batch: Batch,
    compression: float | None,
    permutations: Tensor | None = None,
    weights: Tensor | None = None,
    drop: float | None = None,
    sample: int = 100,
) -> tuple[dict[int, FeatureTransform], float]:
    """Centres and subspaces of every environment type, from a sample of the training set.

    Args:
        inputs: the raw features.
        batch: the training structures.
        compression: tolerance of `spanning_basis`, or None to keep all features.
        permutations: under which centre and subspace must be closed (whole structures).
        weights: [p] factors on raw features, for length scales of their own; whole structures or
            all types alike.
        drop: tolerance of `features_to_keep`, or None to keep all features; not with compression.
        sample: structures that are looked at.

    Returns:
        The transform by type, and the largest share of the Jacobian that is lost.

    Raises:
        ValueError: features both compressed and dropped.
    """
    if compression is not None and drop is not None:
        raise ValueError("compression and drop must not both be given")
    strengths: dict[int, Tensor] = {}
    features: dict[int, list[Tensor]] = {}
    jacobians: dict[int, list[Tensor]] = {}
    images = None
    for numbers, members in equal_numbers(batch):
        types = inputs.types(numbers)
        if permutations is not None and len(permutations) > 1:
            images = torch.stack([inputs.permutation(p, numbers) for p in permutations])
        share = max(1, round(sample * len(members) / len(batch)))
        chosen = members[:: max(1, len(members) // share)][:share]
        for start in range(0, len(chosen), _CHUNK):
            part = batch[chosen[start : start + _CHUNK]]
            raw = inputs.features(part)
            rows = None
            if compression is not None or drop is not None:
                rows = inputs.jacobian(part, internal_basis(part.positions.view(len(part), -1, 3)))
            for kind in sorted(set(types)):
                which = [index for index, value in enumerate(types) if value == kind]
                features.setdefault(kind, []).append(raw[:, which].flatten(0, 1))
                if rows is not None and drop is not None:
                    total = rows[:, which].square().sum((0, 1, 2))
                    strengths[kind] = strengths[kind] + total if kind in strengths else total
                elif rows is not None:
                    jacobians.setdefault(kind, []).append(rows[:, which].flatten(0, 2))
    transforms, worst = {}, 0.0
    for kind, several in features.items():
        center = torch.cat(several).mean(0)
        if images is not None:
            center = center[images.to(center.device)].mean(0)
        matrix = weights
        if compression is not None:
            rows = torch.cat(jacobians.pop(kind))
            if weights is not None:
                rows = rows * weights
            points = Points(center[None, None], rows[None, None])
            matrix, lost = spanning_basis([points], compression, images)
            worst = max(worst, lost)
            if weights is not None:
                matrix = weights[:, None] * matrix
        keep = None
        if drop is not None:
            strength = strengths[kind] if weights is None else strengths[kind] * weights.square()
            keep, lost = features_to_keep(strength, drop, images)
            worst = max(worst, lost)
            matrix = None if weights is None else weights[keep]
        transforms[kind] = FeatureTransform(center, matrix, keep=keep)
    return transforms, worst


@dataclass(frozen=True)
class TrainingSet:
    """Points and targets of a labelled batch.

    Args:
        groups: one `Points` per sequence of atomic numbers.
        targets: [m] energies minus the mean, and projected gradients.
        members: the structures (indices into the batch) of each group.
        discarded: rms of the gradient components that deflation removed, eV/Å.
    """

    groups: list[Points]
    targets: Tensor
    members: list[Tensor]
    discarded: float = 0.0

    @staticmethod
    def build(
        preparation: Preparation,
        mean: Mean,
        batch: Batch,
        energies: Tensor | None,
        forces: Tensor | None,
    ) -> TrainingSet:
        """Points and targets; forces [A, 3] in eV/Å, energies [B] in eV; either may be None."""
        groups, targets, members, discarded = [], [], [], []
        offset = mean(batch)
        for _, which in equal_numbers(batch):
            part = batch[which]
            n = len(part)
            basis = preparation.basis(part) if forces is not None else None
            points = preparation.points(part, basis, derivatives=forces is not None)
            derivatives = None
            if forces is not None:
                atoms = part.n_atoms // n
                local = torch.arange(atoms, device=which.device)
                index = batch.structure_offsets[which, None] + local
                gradients = -forces.to(part.positions)[index]
                if basis is None:
                    derivatives = gradients.flatten(1)
                else:
                    derivatives, noise = project_gradients(gradients, basis)
                    discarded.append(noise)
            shifted = None
            if energies is None:
                points = points.without_energies()
            else:
                shifted = (energies.to(offset) - offset)[which].to(part.positions)
            groups.append(points)
            targets.append(concatenate_rows(points, shifted, derivatives))
            members.append(which)
        noise = max(discarded) if discarded else 0.0
        return TrainingSet(groups, torch.cat(targets), members, noise)

    def subset(self, count: int, seed: int = 0) -> TrainingSet:
        """A random part of the structures, about `count` in all."""
        total = sum(len(points) for points in self.groups)
        if count >= total:
            return self
        generator = torch.Generator().manual_seed(seed)
        groups, targets, members, start = [], [], [], 0
        for points, which in zip(self.groups, self.members, strict=True):
            share = max(1, round(count * len(points) / total))
            keep = torch.randperm(len(points), generator=generator)[:share].sort().values
            part = points[keep.to(points.features.device)]
            energies, derivatives = points.split_rows(self.targets[start : start + points.n_rows])
            start += points.n_rows
            groups.append(part)
            targets.append(
                concatenate_rows(
                    part,
                    None if energies is None else energies[keep],
                    None if derivatives is None else derivatives[keep],
                )
            )
            members.append(which[keep])
        return TrainingSet(groups, torch.cat(targets), members, self.discarded)
