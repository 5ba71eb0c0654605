"""Structures sharded over the ranks of torch.distributed; one process without it.

Every rank holds the points and the vector rows of its own structures. What the solver needs of
the others is small: sums of scalars and of preconditioner-sized arrays, and the sources (features
and weights in feature space) of all structures, of which only the weights change.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.distributed as distributed
from torch import Tensor

from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.prediction import Sources

__all__ = ["Shards"]


class Shards:
    """The collective operations of the solver.

    Args:
        active: whether to talk to other ranks; by default, whether torch.distributed is
            initialised with more than one.
    """

    def __init__(self, active: bool | None = None) -> None:
        running = distributed.is_available() and distributed.is_initialized()
        self.active = running and distributed.get_world_size() > 1 if active is None else active
        self.rank = distributed.get_rank() if self.active else 0
        self.size = distributed.get_world_size() if self.active else 1
        self._features: dict[int, Tensor] = {}

    def part(self, count: int) -> slice:
        """The contiguous share of `count` structures that belongs to this rank."""
        start, end = self.rank * count // self.size, (self.rank + 1) * count // self.size
        return slice(start, end)

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if self.active:
            distributed.all_reduce(tensor)
        return tensor

    def dot(self, left: Tensor, right: Tensor) -> float:
        """The scalar product of two sharded vectors."""
        return float(self.sum_(left.dot(right)))

    def gather(self, tensor: Tensor) -> Tensor:
        """The concatenation over ranks along the first dimension (lengths may differ)."""
        if not self.active:
            return tensor
        length = torch.tensor([tensor.shape[0]], device=tensor.device)
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        distributed.all_gather(lengths, length)
        sizes = [int(item) for item in lengths]
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: tensor.shape[0]] = tensor
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def gather_sources(self, sources: dict[int, Sources]) -> dict[int, Sources]:
        """The sources of all ranks; features are gathered once and kept."""
        if not self.active:
            return sources
        gathered = {}
        for kind in sorted(sources):
            mine = sources[kind]
            if kind not in self._features:
                self._features[kind] = self.gather(mine.x)
            packed = self.gather(torch.cat((mine.z, mine.alpha[:, None]), dim=1))
            gathered[kind] = Sources(
                self._features[kind],
                packed[:, :-1].contiguous(),
                packed[:, -1].contiguous(),
                mine.characters,
            )
        return gathered

    def gather_points(self, groups: list[Points]) -> list[Points]:
        """The points of all ranks (each rank must hold the same kinds of groups)."""
        if not self.active:
            return groups
        gathered = []
        for points in groups:
            jacobian = None if points.jacobian is None else self.gather(points.jacobian)
            features = self.gather(points.features)
            gathered.append(replace(points, features=features, jacobian=jacobian))
        return gathered
