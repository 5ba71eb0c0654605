"""Equivalent atoms: the permutations that structures of a data set undergo, found and closed.

A whole-structure covariance does not know that the two hydrogen atoms of a rotating CH₂ group are
alike. The permutations that matter are those that the data realise: structure A resembles structure
B only after some like atoms of B change names. They are found as sGDML finds them (matching of
distance matrices by their eigenvectors and a linear assignment), refined by swaps of like atoms,
accepted along the minimum spanning tree of the best matches, and closed to a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["close_group", "find_permutations"]


def find_permutations(
    numbers: Tensor,
    positions: Tensor,
    sample: int = 60,
    improvement: float = 0.5,
    maximum: int = 120,
    seed: int = 0,
) -> Tensor:
    """The group of permutations of equivalent atoms that a set of structures realises.

    Args:
        numbers: [N] atomic numbers.
        positions: [n, N, 3] in Å, isolated molecules.
        sample: structures that are compared with each other, at random.
        improvement: a permutation counts where it lowers the distance between two structures'
            distance matrices below this share of what it is without it.
        maximum: order of the group above which rarely seen permutations are left out.
        seed: of the sample.

    Returns:
        [S, N] int64: atom i of the permuted structure is atom `permutation[i]` of the original;
        the identity comes first.

    Raises:
        ValueError: shapes disagree.
    """
    if positions.dim() != 3 or positions.shape[1] != len(numbers):
        raise ValueError(
            f"positions must be [n, {len(numbers)}, 3] for {len(numbers)} atomic numbers, "
            f"got {tuple(positions.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(positions), generator=generator)[:sample]
    points = positions[chosen].detach().to("cpu", torch.float64)
    numbers = numbers.cpu()
    distances = torch.cdist(points, points)
    vectors = torch.linalg.eigh(distances).eigenvectors.abs()
    n, atoms = len(points), len(numbers)
    identity = torch.arange(atoms)
    costs = torch.zeros((n, n), dtype=torch.float64)
    best: dict[tuple[int, int], Tensor] = {}
    for i in range(n):
        for j in range(i):
            plain = float((distances[i] - distances[j]).square().sum())
            permutation, cost = _match(
                distances[i], distances[j], vectors[i], vectors[j], numbers, plain
            )
            if cost > improvement * plain:
                permutation, cost = identity, plain
            costs[i, j] = costs[j, i] = cost
            best[i, j] = permutation
    counts: dict[tuple[int, ...], int] = {}
    for i, j in _spanning_tree(costs):
        key = tuple(best[max(i, j), min(i, j)].tolist())
        counts[key] = counts.get(key, 0) + 1
    # The most often seen ones first: a group that grows too large drops the rest.
    group = identity[None]
    for key, _ in sorted(counts.items(), key=lambda item: -item[1]):
        grown = close_group(torch.cat((group, torch.tensor([key]))), maximum)
        if grown is not None:
            group = grown
    return group


def close_group(generators: Tensor, maximum: int = 120) -> Tensor | None:
    """All products of some permutations [G, N], identity first; None where more than `maximum`."""
    identity = tuple(range(generators.shape[1]))
    steps = [tuple(row) for row in generators.tolist() if tuple(row) != identity]
    members = {identity: None}
    frontier = [identity]
    while frontier:
        new = []
        for member in frontier:
            for step in steps:
                product = tuple(member[k] for k in step)
                if product not in members:
                    members[product] = None
                    new.append(product)
                    if len(members) > maximum:
                        return None
        frontier = new
    return torch.tensor(list(members))


def _match(
    target: Tensor, other: Tensor, left: Tensor, right: Tensor, numbers: Tensor, plain: float
) -> tuple[Tensor, float]:
    """The permutation that brings `other` closest to `target`, and the squared distance left."""
    from scipy.optimize import linear_sum_assignment

    identity = torch.arange(len(numbers))
    score = left @ right.mT
    score = torch.where(numbers[:, None] == numbers[None, :], score, -1e6)
    _, assigned = linear_sum_assignment(-score.numpy())
    best, cost = identity, plain
    for start in (identity, torch.from_numpy(assigned).to(torch.int64)):
        candidate, value = _swaps(target, other, start, numbers)
        if value < cost - 1e-12:
            best, cost = candidate, value
    return best, cost


def _swaps(
    target: Tensor, other: Tensor, permutation: Tensor, numbers: Tensor
) -> tuple[Tensor, float]:
    """Greedy exchange of like atoms while it brings the distance matrices closer."""
    i, j = torch.triu_indices(len(numbers), len(numbers), 1)
    like = numbers[i] == numbers[j]
    i, j = i[like], j[like]
    current = permutation.clone()
    value = float((target - other[current][:, current]).square().sum())
    while len(i):
        moved = other[current][:, current]
        # Exchanging a and b changes rows (and columns) a and b alone, entries (a, b) not at all.
        error = (target[:, None, :] - moved[None, :, :]).square()  # row a of one, row b of other
        both = error.sum(2)
        gain = both[i, i] + both[j, j] - both[i, j] - both[j, i]
        # Entries in columns a and b of those rows are not part of the exchange.
        for column in (i, j):
            gain -= error[i, i, column] + error[j, j, column]
            gain += error[i, j, column] + error[j, i, column]
        pick = int(gain.argmax())
        if float(gain[pick]) <= 1e-12:
            break
        a, b = int(i[pick]), int(j[pick])
        current[a], current[b] = current[b].clone(), current[a].clone()
        updated = float((target - other[current][:, current]).square().sum())
        if updated >= value - 1e-12:
            current[a], current[b] = current[b].clone(), current[a].clone()
            break
        value = updated
    return current, value


def _spanning_tree(costs: Tensor) -> list[tuple[int, int]]:
    """Edges of the minimum spanning tree of a complete graph (Prim)."""
    n = len(costs)
    if n < 2:
        return []
    distance, parent = costs[0].clone(), torch.zeros(n, dtype=torch.int64)
    inside = torch.zeros(n, dtype=torch.bool)
    inside[0] = True
    edges = []
    for _ in range(n - 1):
        step = int(torch.where(inside, torch.inf, distance).argmin())
        edges.append((int(parent[step]), step))
        inside[step] = True
        closer = costs[step] < distance
        distance = torch.where(closer, costs[step], distance)
        parent = torch.where(closer, torch.tensor(step), parent)
    return edges
