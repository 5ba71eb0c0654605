"""Small systems and a dense oracle for the tests of Gaussian processes, straight from eqs 20-29."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pymlp.descriptors import ANI
from pymlp.gaussian_process import (
    AtomicInputs,
    CombinedInputs,
    ConcatenatedInputs,
    InverseDistances,
)
from pymlp.structures import Batch


def small_ani() -> ANI:
    """Few features, for molecules of H, C and O."""
    return ANI(
        ["H", "C", "O"],
        radial_eta=4.0,
        radial_shifts=[0.9, 1.5, 2.1],
        zeta=8.0,
        theta_shifts=[0.8, 2.3],
        angular_eta=4.0,
        angular_shifts=[1.0, 1.8],
        radial_cutoff=5.0,
        angular_cutoff=4.0,
    )


#: The inputs that a Gaussian process can have, by name.
INPUTS = {
    "concatenated": lambda: ConcatenatedInputs(small_ani()),
    "atomic": lambda: AtomicInputs(small_ani()),
    "inverse_distances": InverseDistances,
    "combined": lambda: CombinedInputs(ConcatenatedInputs(small_ani()), InverseDistances()),
}


def molecules(n: int, seed: int = 0, spread: float = 0.15) -> Batch:
    """Distorted H2CO-like molecules with energies and forces of pairwise Morse-like springs."""
    base = torch.tensor(
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2], [0.95, 0.0, -0.55], [-0.95, 0.0, -0.55]],
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((n, 4, 3), generator=generator, dtype=torch.float64)
    positions = base + spread * noise
    energies, forces = springs(positions)
    return Batch.from_arrays([6, 8, 1, 1], positions, energies=energies, forces=forces)


def springs(positions: Tensor) -> tuple[Tensor, Tensor]:
    """A smooth invariant energy, in eV, and its forces."""
    x = positions.detach().clone().requires_grad_(True)
    i, j = torch.triu_indices(positions.shape[1], positions.shape[1], 1)
    distance = (x[:, i] - x[:, j]).norm(dim=-1)
    weight = torch.linspace(0.5, 1.5, len(i), dtype=x.dtype)
    energy = (weight * (1.0 - torch.exp(-(distance - 1.3))) ** 2).sum(1)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    return energy.detach(), -gradient


def inverse_distances(positions: Tensor) -> Tensor:
    """[n, p] with p = N(N−1)/2, written independently of the package."""
    i, j = torch.tril_indices(positions.shape[-2], positions.shape[-2], -1)
    return 1.0 / (positions[..., i, :] - positions[..., j, :]).norm(dim=-1)


def dense_posterior(
    train: Batch, new: Batch, length_scale: float, variance: float, sigma: tuple[float, float]
) -> tuple[np.ndarray, ...]:
    """Mean and covariance of energies and all gradients under an RBF of inverse distances.

    Everything by automatic differentiation of eq 17 in Cartesian coordinates and explicit
    inverses (eqs 20-29): no deflation, no structure.

    Returns:
        Energies [n], gradients [n, 3N], their variances [n] and [n, 3N].
    """

    def stacked(batch: Batch) -> Tensor:
        return batch.positions.view(len(batch), -1)

    def covariance(x: Tensor, y: Tensor) -> Tensor:
        s = (inverse_distances(x.view(-1, 3)) - inverse_distances(y.view(-1, 3))).square().sum()
        return variance * torch.exp(-0.5 * s / length_scale**2)

    by_x, by_y = torch.func.grad(covariance, 0), torch.func.grad(covariance, 1)
    by_both = torch.func.jacfwd(by_x, 1)

    def pairwise(function, x: Tensor, y: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.vmap(function, (None, 0)), (0, None))(x, y)

    def matrix(x: Tensor, y: Tensor) -> np.ndarray:
        n, q, n2 = len(x), x.shape[1], len(y)
        ee = pairwise(covariance, x, y)
        fe = pairwise(by_x, x, y).permute(0, 2, 1).reshape(n * q, n2)
        ef = pairwise(by_y, x, y).reshape(n, n2 * q)
        ff = pairwise(by_both, x, y).permute(0, 2, 1, 3).reshape(n * q, n2 * q)
        return torch.cat((torch.cat((ee, ef), 1), torch.cat((fe, ff), 1))).numpy()

    x, z = stacked(train), stacked(new)
    n, q = x.shape
    noise = np.concatenate((np.full(n, sigma[0] ** 2), np.full(n * q, sigma[1] ** 2)))
    inverse = np.linalg.inv(matrix(x, x) + np.diag(noise))
    y = torch.cat((train.energies, -train.forces.reshape(-1))).numpy()
    cross = matrix(z, x)
    mean = cross @ inverse @ y
    spread = np.diag(matrix(z, z) - cross @ inverse @ cross.T)
    m = len(z)
    return mean[:m], mean[m:].reshape(m, q), spread[:m], spread[m:].reshape(m, q)
