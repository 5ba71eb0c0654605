"""The observations of a Gaussian process in feature space: points with Jacobian rows.

A structure enters as E environments of p features each. A whole-structure descriptor is the case
E = 1; the GAP sum (eq 23) has one environment per atom, and its energy is the sum over them. With
each structure come r directions along which its energy derivative is observed or predicted: the
rows of `jacobian` are the derivatives of every feature along those directions, J_a = ∂g_a/∂R for
Cartesian components, or J_a Q for the internal ones (see `deflation`).

Rows of one `Points` object in vectors and matrices: the n energies first, then the n·r
derivatives, structure by structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pymlp.gaussian_process.symmetry import Characters

__all__ = ["Points", "concatenate_rows", "row_slices", "transformed"]


@dataclass(frozen=True)
class Points:
    """n structures with equal numbers and types of environments.

    Args:
        features: [n, E, p].
        jacobian: [n, E, r, p], or None where energies alone are meant.
        types: the E environment types; only environments of one type have a covariance.
        energies: whether the energies are among the rows.
        symmetry: a permutation group acting on the features of whole structures (E = 1), as
            indices [S, p] or orthogonal matrices [S, p, p]; the covariance is summed over the
            images of its second argument. None stands for the identity alone.
        characters: the same for features in the basis of `symmetry.character_basis`, instead of
            `symmetry`.

    Raises:
        ValueError: shapes disagree.
    """

    features: Tensor
    jacobian: Tensor | None = None
    types: tuple[int, ...] = (0,)
    energies: bool = True
    symmetry: Tensor | None = None
    characters: Characters | None = None

    def __post_init__(self) -> None:
        if self.features.dim() != 3 or self.features.shape[1] != len(self.types):
            raise ValueError(
                f"features must be [n, {len(self.types)}, p] for {len(self.types)} types, "
                f"got {tuple(self.features.shape)}"
            )
        if self.jacobian is not None:
            n, environments, p = self.features.shape
            shape = tuple(self.jacobian.shape)
            if len(shape) != 4 or shape[:2] != (n, environments) or shape[3] != p:
                raise ValueError(f"jacobian must be [{n}, {environments}, r, {p}], got {shape}")
        if (self.symmetry is not None or self.characters is not None) and len(self.types) != 1:
            raise ValueError("symmetry is defined for whole-structure features (E = 1) only")

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def n_directions(self) -> int:
        """r, the derivatives per structure."""
        return 0 if self.jacobian is None else self.jacobian.shape[2]

    @property
    def n_energies(self) -> int:
        """Energy rows."""
        return len(self) if self.energies else 0

    @property
    def n_rows(self) -> int:
        """All rows: energies and derivatives."""
        return self.n_energies + len(self) * self.n_directions

    def __getitem__(self, index: slice | Tensor) -> Points:
        jacobian = None if self.jacobian is None else self.jacobian[index]
        return replace(self, features=self.features[index], jacobian=jacobian)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Points:
        """All tensors moved or converted."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device=device, dtype=dtype)

        symmetry = self.symmetry
        if symmetry is not None:
            symmetry = symmetry.to(device) if symmetry.dim() == 2 else move(symmetry)
        features = self.features.to(device=device, dtype=dtype)
        characters = None if self.characters is None else self.characters.to(device, dtype)
        return replace(
            self,
            features=features,
            jacobian=move(self.jacobian),
            symmetry=symmetry,
            characters=characters,
        )

    def image(self, operation: Tensor) -> Points:
        """The points transformed by one symmetry operation."""
        jacobian = None if self.jacobian is None else transformed(self.jacobian, operation)
        features = transformed(self.features, operation)
        return replace(self, features=features, jacobian=jacobian, symmetry=None)

    def images(self) -> list[Points]:
        """All images under `symmetry`; the points themselves where there is none."""
        if self.symmetry is None:
            return [self]
        return [self.image(operation) for operation in self.symmetry]

    def without_energies(self) -> Points:
        """The derivative rows alone."""
        return replace(self, energies=False)

    def without_derivatives(self) -> Points:
        """The energy rows alone."""
        return replace(self, jacobian=None)

    def environments_of(self, kind: int) -> list[int] | slice:
        """The positions of the environments of one type; a slice, and so views, where adjacent."""
        which = [index for index, value in enumerate(self.types) if value == kind]
        if which == list(range(which[0], which[0] + len(which))):
            return slice(which[0], which[0] + len(which))
        return which

    def split_rows(self, vector: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """A vector [n_rows, ...] as energies [n, ...] and derivatives [n, r, ...]."""
        energies = vector[: self.n_energies] if self.energies else None
        if self.n_directions == 0:
            return energies, None
        derivatives = vector[self.n_energies :].unflatten(0, (len(self), self.n_directions))
        return energies, derivatives


def row_slices(groups: list[Points]) -> list[slice]:
    """The rows of each group in the common vector."""
    slices, start = [], 0
    for points in groups:
        slices.append(slice(start, start + points.n_rows))
        start += points.n_rows
    return slices


def transformed(features: Tensor, operation: Tensor) -> Tensor:
    """Features [..., p] under one symmetry operation, an index [p] or a matrix [p, p]."""
    return features[..., operation] if operation.dim() == 1 else features @ operation


def concatenate_rows(points: Points, energies: Tensor | None, derivatives: Tensor | None) -> Tensor:
    """The inverse of `Points.split_rows`: [n] and [n, r] to [n_rows]."""
    parts = []
    if points.energies:
        if energies is None:
            raise ValueError("energies are among the rows of these points, but None came")
        parts.append(energies)
    if points.n_directions:
        if derivatives is None:
            raise ValueError("derivatives are among the rows of these points, but None came")
        parts.append(derivatives.flatten(0, 1))
    return torch.cat(parts)
