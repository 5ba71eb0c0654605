"""The descriptors in plain PyTorch, as one would write them for a lesson: the yardstick of speed.

Dense over all pairs and triples of molecules of one size, every term evaluated with broadcasting
as the equation is printed, autograd for the rest. Molecules are taken in chunks of the tutorial's
training batch, which is also faster on a CPU than one large batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 32


@dataclass(frozen=True)
class PlainParameters:
    """Parameters as [R] and [S] tensors; ``ani`` chooses eq 6, otherwise eq 3."""

    ani: bool
    radial_eta: Tensor
    radial_shift: Tensor
    radial_prefactor: float
    angular_eta: Tensor
    angular_shift: Tensor
    zeta: Tensor
    theta_shift: Tensor
    radial_cutoff: float
    angular_cutoff: float
    cos_scale: float


class PlainSymmetryFunctions:
    """Features [B * N, F] of B molecules with the same N atoms.

    :param species: [N] channel of every atom; ``None`` sums over all neighbours, as the lessons do
    :param n_species: number of channels
    """

    def __init__(self, parameters: PlainParameters, species: Tensor | None, n_species: int) -> None:
        self.p = parameters
        self.radial_channels: Tensor | None = None
        self.n_species = n_species
        self.species = species

    def __call__(self, positions: Tensor) -> Tensor:
        """Features of ``positions`` [B, N, 3]."""
        return torch.cat([self._features(chunk) for chunk in positions.split(CHUNK)])

    def _cutoff(self, distances: Tensor, radius: float) -> Tensor:
        inside = 0.5 * (torch.cos(math.pi * distances / radius) + 1)
        return torch.where(distances < radius, inside, torch.zeros_like(inside))

    def _features(self, positions: Tensor) -> Tensor:
        p, (n_structures, n_atoms, _) = self.p, positions.shape
        # the N - 1 neighbours of every atom, and their unordered pairs
        neighbors = torch.tensor([[j for j in range(n_atoms) if j != i] for i in range(n_atoms)])
        first, second = torch.combinations(torch.arange(n_atoms - 1), 2).unbind(1)

        vectors = positions[:, neighbors] - positions[:, :, None]  # [B, N, N-1, 3]
        distances = vectors.norm(dim=-1)
        gaussians = torch.exp(-p.radial_eta * (distances[..., None] - p.radial_shift) ** 2)
        cutoffs = self._cutoff(distances, p.radial_cutoff)
        radial_terms = p.radial_prefactor * gaussians * cutoffs[..., None]

        r_ij, r_ik = distances[..., first, None], distances[..., second, None]
        products = (vectors[..., first, :] * vectors[..., second, :]).sum(-1, keepdim=True)
        # the lessons' acos needs |cos| < 1
        cosines = (p.cos_scale * products / (r_ij * r_ik)).clamp(-1 + 1e-7, 1 - 1e-7)
        theta = torch.acos(cosines)
        terms = 2 ** (1 - p.zeta) * (1 + torch.cos(theta - p.theta_shift)) ** p.zeta
        f_ij = self._cutoff(r_ij, p.angular_cutoff)
        f_ik = self._cutoff(r_ik, p.angular_cutoff)
        if p.ani:
            terms = terms * torch.exp(-p.angular_eta * ((r_ij + r_ik) / 2 - p.angular_shift) ** 2)
            terms = terms * (f_ij * f_ik)
        else:
            between = vectors[..., second, :] - vectors[..., first, :]
            r_jk = between.norm(dim=-1, keepdim=True)
            terms = terms * torch.exp(-p.angular_eta * (r_ij**2 + r_ik**2 + r_jk**2))
            terms = terms * (f_ij * f_ik * self._cutoff(r_jk, p.angular_cutoff))
        if self.species is None:
            features = [radial_terms.sum(2), terms.sum(2)]
        else:
            species = self.species[neighbors]  # [N, N-1]
            low = torch.minimum(species[:, first], species[:, second])
            high = torch.maximum(species[:, first], species[:, second])
            n = self.n_species
            features = [
                _by_channel(radial_terms, species, n),
                _by_channel(terms, low * n - low * (low - 1) // 2 + high - low, n * (n + 1) // 2),
            ]
        return torch.cat([f.reshape(n_structures * n_atoms, -1) for f in features], dim=1)


def _by_channel(terms: Tensor, channels: Tensor, n_channels: int) -> Tensor:
    """Sum terms [B, N, M, S] over the M of one channel each [N, M]: [B, N, channels, S]."""
    one_hot = torch.nn.functional.one_hot(channels, n_channels).to(terms.dtype)
    return torch.einsum("bnms,nmc->bncs", terms, one_hot)
