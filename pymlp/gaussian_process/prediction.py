"""The matrix-free product of the covariance with a vector: the predictor and the CG operator.

Let α be weights on the rows of the training points: α_E,j on energies, α_F,j on derivatives. With
z_j = J_jᵀ α_F,j in feature space, w_ij = z_j·(g_i − g_j) and c = a α_E + b w (eqs 20, 22 and 26,
28 written in feature space),

    E(g_i)      = Σ_j k α_E,j + a w_ij
    ∂E/∂g (g_i) = Σ_j a z_j − c g_i + c g_j

so n* structures cost four GEMMs n*×n×p, and nothing of the size of the covariance matrix exists.
Cartesian gradients follow from ∂E/∂g by one product with the Jacobian of the new structure, or by
the descriptor's vector-Jacobian product. In the GAP sum environments take the place of
structures, and energies are summed over them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pymlp.covariances import Covariance, squared_distances
from pymlp.gaussian_process.points import Points, concatenate_rows, row_slices, transformed
from pymlp.gaussian_process.symmetry import Characters

__all__ = ["Sources", "evaluate", "matrix_product", "multiply", "sources_of"]

_TILE_ENTRIES = {"cpu": 2**17, "cuda": 2**26}


class Sources(NamedTuple):
    """Everything a prediction needs of the training set, for one environment type."""

    x: Tensor  # [M, p] features g_j
    z: Tensor  # [M, p] derivative weights J_jᵀ α_F,j
    alpha: Tensor  # [M] energy weights
    characters: Characters | None = None  # of a symmetry that is summed over

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Sources:
        """All tensors moved or converted."""
        x, z, alpha = (tensor.to(device=device, dtype=dtype) for tensor in self[:3])
        characters = None if self.characters is None else self.characters.to(device, dtype)
        return Sources(x, z, alpha, characters)


def sources_of(groups: list[Points], weights: Tensor) -> dict[int, Sources]:
    """The sources of weights on all rows of all groups.

    Args:
        groups: the training points.
        weights: [m], in the order of the groups' rows.

    Returns:
        One `Sources` per environment type; the images under a symmetry are included.
    """
    parts: dict[int, list[Sources]] = {}
    for points, rows in zip(groups, row_slices(groups), strict=True):
        energies, derivatives = points.split_rows(weights[rows])
        if derivatives is None or points.jacobian is None:
            z = torch.zeros_like(points.features)
        else:
            z = (derivatives[:, None, None, :] @ points.jacobian).squeeze(2)  # [n, E, p]
        if energies is None:
            energies = z.new_zeros(len(points))
        for kind in sorted(set(points.types)):
            index = points.environments_of(kind)
            x_kind, z_kind = points.features[:, index].flatten(0, 1), z[:, index].flatten(0, 1)
            alpha = energies.repeat_interleave(len(x_kind) // len(points))
            if points.symmetry is None:
                one = Sources(x_kind, z_kind, alpha, points.characters)
                parts.setdefault(kind, []).append(one)
                continue
            for operation in points.symmetry:
                x_image, z_image = (transformed(item, operation) for item in (x_kind, z_kind))
                parts.setdefault(kind, []).append(Sources(x_image, z_image, alpha))
    return {
        kind: Sources(
            torch.cat([item.x for item in several]),
            torch.cat([item.z for item in several]),
            torch.cat([item.alpha for item in several]),
            several[0].characters,
        )
        for kind, several in parts.items()
    }


def evaluate(
    sources: Sources, x: Tensor, covariance: Covariance, gradient: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Energies and feature gradients at new points of one environment type.

    Args:
        sources: from `sources_of`; the same dtype and device as x.
        x: [M*, p] features, centred as the training features are.
        covariance: the unit-variance covariance function.
        gradient: whether ∂E/∂g is wanted.

    Returns:
        Energies [M*] (without mean) and ∂E/∂g [M*, p] or None.
    """
    energies = x.new_zeros(x.shape[0])
    gradients = torch.zeros_like(x) if gradient else None
    if sources.x.shape[0] == 0:
        return energies, gradients
    own = (sources.x * sources.z).sum(1)  # z_j·g_j
    entries = _TILE_ENTRIES.get(x.device.type, _TILE_ENTRIES["cpu"])
    columns = min(sources.x.shape[0], 1024)
    rows = max(16, entries // columns)
    for start in range(0, x.shape[0], rows):
        part = slice(start, start + rows)
        queries = x[part]
        for first in range(0, sources.x.shape[0], columns):
            some = slice(first, first + columns)
            y, z = sources.x[some], sources.z[some]
            if sources.characters is not None:
                slope = None if gradients is None else gradients[part]
                energies[part] += _symmetric_tile(
                    queries,
                    Sources(y, z, sources.alpha[some], sources.characters),
                    own[some],
                    covariance,
                    slope,
                )
                continue
            w = torch.addmm(own[None, some], queries, z.mT, beta=-1.0)
            s = squared_distances(queries, y, refine=False)
            e, a, c = covariance.contract(s, w, sources.alpha[some])
            energies[part] += e
            if gradients is not None:
                gradients[part].addmm_(a, z).addmm_(c, y)
                gradients[part].addcmul_(queries, c.sum(1, keepdim=True), value=-1.0)
    return energies, gradients


def _symmetric_tile(
    queries: Tensor,
    sources: Sources,
    own: Tensor,
    covariance: Covariance,
    gradient: Tensor | None,
) -> Tensor:
    """One tile of `evaluate` summed over a symmetry: products once, radial functions |G| times.

    Returns the energies; ∂E/∂g is added to `gradient`.
    """
    y, z, alpha, characters = sources
    assert characters is not None
    lengths = queries.square().sum(1)[:, None] + y.square().sum(1)
    overlaps = characters.images(characters.products(queries, y))
    derivatives = characters.images(characters.products(queries, z))
    energies = queries.new_zeros(len(queries))
    all_a, all_c = [], []
    for overlap, w in zip(overlaps, derivatives, strict=True):
        s = torch.add(lengths, overlap, alpha=-2.0).clamp_(min=0.0)
        e, a, c = covariance.contract(s, w.sub_(own), alpha)
        energies += e
        all_a.append(a)
        all_c.append(c)
    if gradient is None:
        return energies
    widths = characters.widths
    parts = zip(
        characters.blocks(all_a),
        characters.blocks(all_c),
        gradient.split(widths, 1),
        z.split(widths, 1),
        y.split(widths, 1),
        strict=True,
    )
    for a_block, c_block, target, z_block, y_block in parts:
        target.addmm_(a_block, z_block).addmm_(c_block, y_block)
    gradient.addcmul_(queries, torch.stack(all_c).sum((0, 2))[:, None], value=-1.0)
    return energies


def multiply(points: Points, sources: dict[int, Sources], covariance: Covariance) -> Tensor:
    """The product of the covariance rows of some points with the weights behind the sources.

    Returns:
        [points.n_rows], at unit signal variance.
    """
    energies = points.features.new_zeros(len(points))
    derivatives = points.features.new_zeros((len(points), points.n_directions))
    for kind in sorted(set(points.types) & set(sources)):
        index = points.environments_of(kind)
        x = points.features[:, index]
        want = points.jacobian is not None
        e, g = evaluate(sources[kind], x.flatten(0, 1), covariance, gradient=want)
        energies += e.view(x.shape[:2]).sum(1)
        if points.jacobian is not None and g is not None:
            jacobian = points.jacobian[:, index]
            derivatives += (jacobian @ g.view(x.shape)[..., None]).squeeze(-1).sum(1)
    return concatenate_rows(points, energies, derivatives)


def matrix_product(groups: list[Points], weights: Tensor, covariance: Covariance) -> Tensor:
    """K·weights for the whole training set, without K: [m] to [m]."""
    sources = sources_of(groups, weights)
    return torch.cat([multiply(points, sources, covariance) for points in groups])
