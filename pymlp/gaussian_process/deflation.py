"""Rigid-body deflation: gradient rows projected onto the internal degrees of freedom.

The features of an isolated molecule do not change under translation and rotation, so six
combinations of its 3N gradient components (five where it is linear) have exactly zero covariance
with everything. Observed, they carry the labels' noise only, and mislead the likelihood about it.
With Q an orthonormal basis of the complement, rows J Q and targets Qᵀ ∂E/∂R lose nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["internal_basis", "project_gradients"]


def internal_basis(positions: Tensor, rotations: bool = True) -> Tensor:
    """Orthonormal bases of the internal displacements of n structures.

    Args:
        positions: [n, N, 3] in Å.
        rotations: False where a cell or an external field breaks rotational symmetry: then the
            translations alone are removed.

    Returns:
        [n, 3N, r]: r = 3N − 6; 3N − 5 as soon as one of the structures is linear (a direction
        too many only adds a row without covariance); 3N − 3 without rotations or for one atom.

    Raises:
        ValueError: positions are not [n, N, 3].
    """
    if positions.dim() != 3 or positions.shape[2] != 3:
        raise ValueError(f"positions must be [n, N, 3], got {tuple(positions.shape)}")
    n, atoms, _ = positions.shape
    eye = torch.eye(3, dtype=positions.dtype, device=positions.device)
    modes = (eye / atoms**0.5).expand(n, atoms, 3, 3).reshape(n, 3 * atoms, 3)
    n_null = 3
    if rotations and atoms > 1:
        centered = positions - positions.mean(1, keepdim=True)
        # Columns e_c × R: the displacement of every atom under a rotation about axis c.
        turns = torch.linalg.cross(eye.expand(n, atoms, 3, 3), centered[:, :, None, :], dim=-1)
        turns = turns.transpose(2, 3).reshape(n, 3 * atoms, 3)
        left, singular, _ = torch.linalg.svd(turns, full_matrices=False)
        linear = bool((singular[:, 2] < 1e-6 * singular[:, 0]).any())
        modes = torch.cat((modes, left[:, :, : 2 if linear else 3]), dim=2)
        n_null = modes.shape[2]
    full, _ = torch.linalg.qr(modes, mode="complete")
    return full[:, :, n_null:].contiguous()


def project_gradients(gradients: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    """Qᵀ ∂E/∂R, and what the discarded components amounted to.

    Args:
        gradients: [n, N, 3] in eV/Å.
        basis: [n, 3N, r] from `internal_basis`.

    Returns:
        The internal gradients [n, r], and the root mean square of the discarded components
        (zero but for noise in the labels) in eV/Å.
    """
    flat = gradients.flatten(1)
    internal = torch.einsum("nqr,nq->nr", basis, flat)
    discarded = flat.square().sum() - internal.square().sum()
    count = flat.numel() - internal.numel()
    noise = float(discarded.clamp(min=0.0) / count) ** 0.5 if count else 0.0
    return internal, noise
