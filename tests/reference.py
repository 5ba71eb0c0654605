"""Oracle of the descriptors: the equations in plain float64 torch, sharing no code with pymlp.

Written to be read beside the paper, not to be fast: every pair and every triple is listed, every
term is evaluated on its own, and autograd supplies all derivatives. Distances are in Å, angles in
radians.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: eq 1 with its prefactor: (eta, R_s, amplitude)
RadialTerm = tuple[float, float, float]
#: Behler-Parrinello: (eta, zeta, theta_s); ANI: (eta, R_s, zeta, theta_s); None is padding
AngularTerm = tuple[float, ...] | None


@dataclass(frozen=True)
class SymmetryFunctions:
    """Plain parameters of one descriptor; ``radial`` and ``angular`` hold one list per set.

    One set serves every centre; as many sets as types give each centre type its own.
    """

    family: str
    channels: list[int]
    weights: list[float]
    radial: list[list[RadialTerm]]
    angular: list[list[AngularTerm]]
    radial_cutoff: float
    angular_cutoff: float
    smooth: bool = False
    jk_factors: bool = True
    cos_scale: float = 1.0
    n_channels: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_channels", max(self.channels) + 1)

    @property
    def n_features(self) -> int:
        """F: radial [n_channels, R], then angular [n_channels (n_channels + 1) / 2, S]."""
        c = self.n_channels
        return c * len(self.radial[0]) + c * (c + 1) // 2 * len(self.angular[0])


def cutoff(distances: Tensor, radius: float, smooth: bool) -> Tensor:
    """Eq 2 (or the C-infinity variant), exactly 0 from ``radius`` on."""
    inside = distances < radius
    x = torch.where(inside, distances, torch.zeros_like(distances)) / radius
    value: Tensor
    value = torch.exp(1 - 1 / (1 - x * x)) if smooth else 0.5 * (torch.cos(math.pi * x) + 1)
    return torch.where(inside, value, torch.zeros_like(value))


def centers_of(pair_offsets: Tensor) -> Tensor:
    """[P] centre of every pair, from the CSR offsets [A + 1]."""
    counts = pair_offsets[1:] - pair_offsets[:-1]
    return torch.repeat_interleave(torch.arange(counts.numel()), counts)


def triples_of(pair_offsets: Tensor) -> tuple[Tensor, Tensor]:
    """All unordered pairs (p, q), p < q, of displacements that share a centre: [T], [T]."""
    found = [torch.zeros(0, 2, dtype=torch.int64)]
    for start, stop in zip(pair_offsets[:-1].tolist(), pair_offsets[1:].tolist(), strict=True):
        if stop - start > 1:
            found.append(torch.combinations(torch.arange(start, stop), 2))
    first, second = torch.cat(found).unbind(1)
    return first, second


def angular_term(
    term: AngularTerm,
    parameters: SymmetryFunctions,
    cosine: Tensor,
    r_ij: Tensor,
    r_ik: Tensor,
    r_jk: Tensor,
    epsilon: float,
) -> Tensor:
    """Eq 3 (behler_parrinello) or eq 6 (ani) for each triple, without the cutoff factors: [T]."""
    if term is None:
        return torch.zeros_like(cosine)
    zeta, theta_shift = term[-2], term[-1]
    if theta_shift in (0.0, math.pi):
        turned = cosine if theta_shift == 0.0 else -cosine
    else:
        sine = torch.sqrt((1 - cosine * cosine).clamp(min=0.0) + epsilon**2)
        turned = cosine * math.cos(theta_shift) + sine * math.sin(theta_shift)
    # 2^(1-zeta) (1 + cos)^zeta; rounding may push 1 + cos below 0, where a real power is undefined
    angle_factor: Tensor = 2.0 ** (1.0 - zeta) * (1 + turned).clamp(min=0.0) ** zeta
    if parameters.family == "ani":
        eta, shift = term[0], term[1]
        return angle_factor * torch.exp(-eta * ((r_ij + r_ik) / 2 - shift) ** 2)
    squares = r_ij**2 + r_ik**2
    if parameters.jk_factors:
        squares = squares + r_jk**2
    return angle_factor * torch.exp(-term[0] * squares)


def channel_pair(first: Tensor, second: Tensor, n_channels: int) -> Tensor:
    """Index of the unordered channel pair in the order (0,0), (0,1), ..., (1,1), ..."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return low * n_channels - low * (low - 1) // 2 + (high - low)


def symmetry_functions(
    displacements: Tensor,
    pair_offsets: Tensor,
    neighbors: Tensor,
    types: Tensor,
    parameters: SymmetryFunctions,
    epsilon: float = 0.0,
) -> Tensor:
    """Features [A, F] of eqs 1, 3 and 6; ``epsilon`` regularises sin(theta)."""
    p = parameters
    n_atoms, n_channels = types.numel(), p.n_channels
    centers = centers_of(pair_offsets)
    channel = torch.tensor(p.channels)[types[neighbors]]
    weight = torch.tensor(p.weights, dtype=torch.float64)[types[neighbors]]
    distances = displacements.norm(dim=1)

    def per_center(values: list[Tensor], center: Tensor) -> Tensor:
        """The value of the set that belongs to each centre's type."""
        result = values[0]
        for which, value in enumerate(values[1:], start=1):
            result = torch.where(types[center] == which, value, result)
        return result

    columns = []
    n_radial, n_angular = len(p.radial[0]), len(p.angular[0])
    damping = weight * cutoff(distances, p.radial_cutoff, p.smooth)
    for index in range(n_radial):
        values = [
            amplitude * torch.exp(-eta * (distances - shift) ** 2)
            for eta, shift, amplitude in (rows[index] for rows in p.radial)
        ]
        term = per_center(values, centers) * damping
        column = displacements.new_zeros(n_atoms * n_channels)
        columns.append(column.index_add(0, centers * n_channels + channel, term))
    radial = _stack(columns, n_atoms, n_channels, displacements)

    first, second = triples_of(pair_offsets)
    d_ij, d_ik = displacements[first], displacements[second]
    r_ij, r_ik = distances[first], distances[second]
    r_jk = (d_ik - d_ij).norm(dim=1)
    cosine = p.cos_scale * (d_ij * d_ik).sum(1) / (r_ij * r_ik)
    damping = weight[first] * weight[second]
    damping = damping * cutoff(r_ij, p.angular_cutoff, p.smooth)
    damping = damping * cutoff(r_ik, p.angular_cutoff, p.smooth)
    if p.family == "behler_parrinello" and p.jk_factors:
        damping = damping * cutoff(r_jk, p.angular_cutoff, p.smooth)
    n_pairs = n_channels * (n_channels + 1) // 2
    slot = centers[first] * n_pairs + channel_pair(channel[first], channel[second], n_channels)
    columns = []
    for index in range(n_angular):
        values = [
            angular_term(rows[index], p, cosine, r_ij, r_ik, r_jk, epsilon) for rows in p.angular
        ]
        term = per_center(values, centers[first]) * damping
        column = displacements.new_zeros(n_atoms * n_pairs)
        columns.append(column.index_add(0, slot, term))
    angular = _stack(columns, n_atoms, n_pairs, displacements)
    return torch.cat([radial, angular], dim=1)


def _stack(columns: list[Tensor], n_atoms: int, n_channels: int, like: Tensor) -> Tensor:
    """Columns [A * channels] -> [A, channels * len(columns)], parameters fastest."""
    if not columns:
        return like.new_zeros(n_atoms, 0)
    return torch.stack(columns, dim=1).reshape(n_atoms, n_channels * len(columns))


def jacobian(
    features: Callable[[Tensor], Tensor], displacements: Tensor, pair_offsets: Tensor
) -> Tensor:
    """J [P, F, 3]: slope of the features of a pair's centre along that pair's displacement.

    The k-th pairs of all centres move at once: a displacement reaches its centre's row alone.
    """
    x = displacements.detach()
    centers = centers_of(pair_offsets)
    if not len(centers):
        return x.new_zeros(0, features(x).shape[1], 3)
    rank = torch.arange(len(centers)) - pair_offsets[centers]
    n_moves = int(rank.max()) + 1
    tangents = x.new_zeros(n_moves, 3, len(centers), 3)
    for axis in range(3):
        tangents[rank, axis, torch.arange(len(centers)), axis] = 1.0
    # [n_moves * 3, A, F]
    slopes: Tensor = torch.func.vmap(
        lambda tangent: torch.func.jvp(features, (x,), (tangent,))[1], chunk_size=64
    )(tangents.flatten(0, 1))
    result: Tensor = slopes.reshape(n_moves, 3, *slopes.shape[1:])[rank, :, centers]
    return result.transpose(1, 2)
