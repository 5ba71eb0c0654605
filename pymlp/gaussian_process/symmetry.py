"""Permutational symmetry at the price of none, where exchanges commute.

The covariance summed over a permutation group G, k_sym(x, y) = Σ_g k(x, g y), takes |G| times
the products of k when the images g y are formed. Exchanges of disjoint sets of like atoms form an
elementary abelian group: every element is its own inverse and all commute. In an orthonormal
basis of features that transform by its characters χ = ±1 every g is a sign per block of features,

    x·(g y) = Σ_χ χ(g) x_χ·y_χ,

so the blocks' products, taken once and together as long as x·y, serve all g; the same holds for
Jacobian products and for what multiplies weights. Only radial functions are evaluated |G| times.
Other groups go through their images (`Points.images`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Characters", "Rotation", "character_basis"]


class Characters(NamedTuple):
    """How blocks of features transform.

    Args:
        table: [S, B] of ±1: the sign of block b under operation s; the identity comes first.
        widths: features in each block.
    """

    table: Tensor
    widths: tuple[int, ...]

    def products(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """left_χ · right_χᵀ of every block, for left [M, p] and right [N, p]."""
        parts = zip(left.split(self.widths, 1), right.split(self.widths, 1), strict=True)
        return [x @ y.mT for x, y in parts]

    def images(self, products: list[Tensor]) -> Iterator[Tensor]:
        """Σ_χ χ(g) products_χ for every g: the products with the images."""
        for signs in self.table.tolist():
            total = products[0] * signs[0]
            for sign, product in zip(signs[1:], products[1:], strict=True):
                total.add_(product, alpha=sign)
            yield total

    def blocks(self, images: list[Tensor]) -> list[Tensor]:
        """Σ_g χ(g) images_g for every χ: the transpose of `images`."""
        result = []
        for signs in self.table.mT.tolist():
            total = images[0] * signs[0]
            for sign, image in zip(signs[1:], images[1:], strict=True):
                total.add_(image, alpha=sign)
            result.append(total)
        return result

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Characters:
        """Moved or converted."""
        return Characters(self.table.to(device=device, dtype=dtype), self.widths)


class Rotation(NamedTuple):
    """An orthonormal matrix with few entries per row, as gathers.

    Args:
        forward_index: [K, p] raw features that make a new one.
        forward_coefficient: [K, p] their weights.
        back_index: [K', p] new features that make a raw one.
        back_coefficient: [K', p] their weights.
    """

    forward_index: Tensor
    forward_coefficient: Tensor
    back_index: Tensor
    back_coefficient: Tensor

    def forward(self, raw: Tensor) -> Tensor:
        """[..., p] raw to new features."""
        return _gathered(raw, self.forward_index, self.forward_coefficient)

    def backward(self, new: Tensor) -> Tensor:
        """[..., p] new to raw features (the transpose, and the inverse)."""
        return _gathered(new, self.back_index, self.back_coefficient)

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Rotation:
        """Moved or converted; indices stay integers."""
        return Rotation(
            self.forward_index.to(device),
            self.forward_coefficient.to(device=device, dtype=dtype),
            self.back_index.to(device),
            self.back_coefficient.to(device=device, dtype=dtype),
        )


def _gathered(features: Tensor, index: Tensor, coefficient: Tensor) -> Tensor:
    total = features[..., index[0]] * coefficient[0]
    for which, weight in zip(index[1:], coefficient[1:], strict=True):
        total.addcmul_(features[..., which], weight)
    return total


def character_basis(operations: Tensor) -> tuple[Rotation, Characters] | None:
    """The basis in which a group of feature permutations is diagonal.

    Args:
        operations: [S, p] indices, a closed group, the identity first.

    Returns:
        The rotation and the characters, or None where the group is not elementary abelian.
    """
    operations = operations.cpu()
    count, p = operations.shape
    identity = torch.arange(p)
    if not all(torch.equal(operation[operation], identity) for operation in operations):
        return None  # every element its own inverse: then all commute
    table = _characters(operations)
    representative = operations.min(0).values
    roots = torch.nonzero(representative == identity).squeeze(1)
    stabilizer = (operations[:, roots] == roots).to(torch.float64)  # [S, R]
    index, coefficient, widths = [], [], []
    position = torch.zeros((count, p), dtype=torch.int64)  # of (χ, root) among the new features
    exists = torch.zeros((count, p), dtype=torch.float64)
    start = 0
    for number, signs in enumerate(table):
        # Σ_g χ(g) e_{g(root)} vanishes unless χ is 1 on everything that leaves the root alone.
        alive = ((signs[:, None] * stabilizer).sum(0) > 0.5) & (stabilizer.sum(0) > 0)
        mine = roots[alive]
        norm = (count * stabilizer[:, alive].sum(0)).sqrt()
        index.append(operations[:, mine])
        coefficient.append(signs[:, None] / norm)
        position[number, mine] = start + torch.arange(len(mine))
        exists[number, mine] = 1.0
        start += len(mine)
        widths.append(len(mine))
    together = torch.cat(index, 1), torch.cat(coefficient, 1)
    # A raw feature f = g(root): its share of (χ, root) is χ(g) √(|stabilizer| / |G|).
    reaching = (operations[:, representative] == identity).to(torch.int8).argmax(0)  # [p] a g
    size = torch.zeros(p, dtype=torch.float64)
    size[roots] = stabilizer.sum(0)
    weight = (size[representative] / count).sqrt()
    back_index = position[:, representative]
    back = exists[:, representative] * table[:, reaching] * weight
    used = [number for number, width in enumerate(widths) if width]
    rotation = Rotation(*together, back_index[used], back[used])
    kept = table[used].mT.contiguous()  # [S, B]
    return rotation, Characters(kept, tuple(widths[number] for number in used))


def _characters(operations: Tensor) -> Tensor:
    """All real characters [S, S] (character, element) of an elementary abelian group."""
    keys = {tuple(row): number for number, row in enumerate(operations.tolist())}
    count = len(operations)
    # Coordinates of every element in terms of independent generators, over the two-element field.
    words = {0: 0}
    generators = 0
    for number in range(count):
        if number in words:
            continue
        bit = 1 << generators
        generators += 1
        for other, word in list(words.items()):
            product = keys[tuple(operations[number][operations[other]].tolist())]
            words[product] = word | bit
    table = torch.empty((count, count), dtype=torch.float64)
    for character in range(count):
        for element in range(count):
            odd = (character & words[element]).bit_count() % 2
            table[character, element] = -1.0 if odd else 1.0
    return table
