"""Covariance blocks between energies and derivatives (eqs 24, 25), carried to Cartesian space.

For whole structures i, j with Jacobian rows J_i = ∂g_i/∂R_i, s = |g_i − g_j|², the radial terms
(k, a, b) of `covariances`, and u_ij = J_i (g_i − g_j):

    cov(E_i, E_j)    = k
    cov(∂_iE, E_j)   = −a u_ij
    cov(E_i, ∂_jE)   = −a u_ji
    cov(∂_iE, ∂_jE)  = a J_i J_jᵀ + b u_ij u_jiᵀ

and for the GAP sum (eq 23) the same, summed over all pairs of environments of one type. One GEMM
gives J_i J_jᵀ for a tile of structures and one gives every u; the p×p feature Hessian never
exists. The functions take a `radial` callable s -> (k, a, b), so that the derivative of a block
with respect to a hyperparameter is the same code with the derivative of the radial terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pymlp.covariances import RadialTerms, squared_distances
from pymlp.gaussian_process.points import Points, row_slices
from pymlp.gaussian_process.symmetry import Characters

__all__ = [
    "Blocks",
    "Radial",
    "add_tile",
    "covariance_block",
    "covariance_matrix",
    "lower_tiles",
    "prior_blocks",
]

Radial = Callable[[Tensor], RadialTerms]

# Entries of one tile: its products stay in a CPU core's second-level cache; a GPU wants more.
_TILE_ENTRIES = {"cpu": 2**17, "cuda": 2**26}


class Blocks(NamedTuple):
    """The four blocks of a matrix between two sets of points, as views."""

    ee: Tensor | None  # [n, n']
    ef: Tensor | None  # [n, n', r']
    fe: Tensor | None  # [n, r, n']
    ff: Tensor | None  # [n, r, n', r']

    @staticmethod
    def of(matrix: Tensor, rows: Points, columns: Points) -> Blocks:
        """Views of [rows.n_rows, columns.n_rows]."""
        top, left = rows.n_energies, columns.n_energies
        upper, lower = matrix[:top], matrix[top:]
        shape_f = (len(rows), rows.n_directions)
        shape_g = (len(columns), columns.n_directions)
        derivatives, others = rows.n_directions > 0, columns.n_directions > 0
        fe = lower[:, :left].unflatten(0, shape_f) if derivatives and left else None
        ff = None
        if derivatives and others:
            ff = lower[:, left:].unflatten(0, shape_f).unflatten(2, shape_g)
        return Blocks(
            upper[:, :left] if top and left else None,
            upper[:, left:].unflatten(1, shape_g) if top and others else None,
            fe,
            ff,
        )

    def part(self, rows: slice, columns: slice) -> Blocks:
        """The blocks of some of the structures."""
        return Blocks(
            None if self.ee is None else self.ee[rows, columns],
            None if self.ef is None else self.ef[rows, columns],
            None if self.fe is None else self.fe[rows, :, columns],
            None if self.ff is None else self.ff[rows, :, columns],
        )

    def dot(self, other: Blocks) -> float:
        """The sum over all entries of the product with another set of blocks."""
        total = 0.0
        for mine, theirs in zip(self, other, strict=True):
            if mine is not None and theirs is not None:
                total += float((mine * theirs).sum())
        return total

    def zero_(self) -> None:
        """Set every block to zero."""
        for block in self:
            if block is not None:
                block.zero_()


def covariance_block(
    rows: Points, columns: Points, radial: Radial, out: Tensor | None = None
) -> Tensor:
    """The covariance of all rows of one set of points with all rows of another.

    Args:
        rows: the first argument of the covariance; its `symmetry` is ignored.
        columns: the second; its `symmetry` is summed over.
        radial: s -> (k, a, b).
        out: [rows.n_rows, columns.n_rows] to overwrite, possibly a view of something larger.

    Returns:
        [rows.n_rows, columns.n_rows]; `out` where it was given.
    """
    if out is None:
        out = rows.features.new_empty((rows.n_rows, columns.n_rows))
    blocks = Blocks.of(out, rows, columns)
    row_step, column_step = _tile_length(rows), _tile_length(columns)
    for count, image in enumerate(columns.images()):
        for i in _ranges(len(rows), row_step):
            for j in _ranges(len(columns), column_step):
                add_tile(rows[i], image[j], radial, blocks.part(i, j), accumulate=count > 0)
    return out


def covariance_matrix(groups: list[Points], radial: Radial, out: Tensor | None = None) -> Tensor:
    """The symmetric covariance matrix [m, m] of all rows of all groups; its lower triangle.

    What stands above the diagonal is unspecified, and may be left uninitialised.
    """
    slices = row_slices(groups)
    size = slices[-1].stop
    if out is None:
        out = groups[0].features.new_empty((size, size))
    for g, h, i, j in lower_tiles(groups):
        blocks = Blocks.of(out[slices[g], slices[h]], groups[g], groups[h]).part(i, j)
        if g == h and i != j:  # the transposed energy-derivative block lies below the diagonal
            mirror = Blocks.of(out[slices[g], slices[g]], groups[g], groups[g]).part(j, i)
        else:
            mirror = None
        for count, image in enumerate(groups[h][j].images()):
            add_tile(groups[g][i], image, radial, blocks, accumulate=count > 0)
        if mirror is not None and mirror.fe is not None and blocks.ef is not None:
            mirror.fe.copy_(blocks.ef.permute(1, 2, 0))
    return out


def lower_tiles(groups: list[Points]) -> Iterator[tuple[int, int, slice, slice]]:
    """Pairs of tiles (group, group', structures, structures') covering each pair once.

    Tiles off the diagonal stand for themselves and their transpose.
    """
    for g, rows in enumerate(groups):
        for h in range(g + 1):
            columns = groups[h]
            for i in _ranges(len(rows), _tile_length(rows)):
                for j in _ranges(len(columns), _tile_length(columns)):
                    if g == h and j.start > i.start:
                        break
                    yield g, h, i, j


def prior_blocks(points: Points, radial: Radial) -> Tensor:
    """The covariance of each structure with itself, [n, w, w] with w = (energy) + r rows."""
    width = (1 if points.energies else 0) + points.n_directions
    out = points.features.new_empty((len(points), width, width))
    for index in range(len(points)):
        one = points[index : index + 1]
        covariance_block(one, one, radial, out=out[index])
    return out


def add_tile(
    rows: Points, columns: Points, radial: Radial, target: Blocks, accumulate: bool = False
) -> None:
    """Write or add the blocks between two small sets of points (no symmetry, no tiling)."""
    if len(rows.types) == 1 and rows.types == columns.types:
        if columns.characters is not None:
            _symmetric_structures(rows, columns, columns.characters, radial, target)
            return
        _whole_structures(rows, columns, radial, target, accumulate)
        return
    if not accumulate:
        target.zero_()
    for kind in sorted(set(rows.types) & set(columns.types)):
        _environment_sums(rows, columns, kind, radial, target)


def _put(target: Tensor, value: Tensor, accumulate: bool) -> None:
    if accumulate:
        target.add_(value)
    else:
        target.copy_(value)


def _whole_structures(
    rows: Points, columns: Points, radial: Radial, target: Blocks, accumulate: bool
) -> None:
    x, y = rows.features[:, 0], columns.features[:, 0]
    k, a, b = radial(squared_distances(x, y))
    if target.ee is not None:
        _put(target.ee, k, accumulate)
    u_rows = u_columns = None
    if rows.jacobian is not None:
        flat = rows.jacobian.flatten(0, 2)  # [n r, p]
        own = torch.einsum("nrp,np->nr", rows.jacobian[:, 0], x)
        u_rows = own[:, :, None] - (flat @ y.mT).unflatten(0, own.shape)  # [n, r, n']
    if columns.jacobian is not None:
        other = columns.jacobian.flatten(0, 2)
        own = torch.einsum("nrp,np->nr", columns.jacobian[:, 0], y)
        u_columns = own - (x @ other.mT).unflatten(1, own.shape)  # [n, n', r']
    if target.fe is not None and u_rows is not None:
        _put(target.fe, -a[:, None, :] * u_rows, accumulate)
    if target.ef is not None and u_columns is not None:
        _put(target.ef, -a[:, :, None] * u_columns, accumulate)
    if target.ff is None or u_rows is None or u_columns is None:
        return
    if accumulate:
        product = (flat @ other.mT).view(target.ff.shape)
        target.ff.addcmul_(product, a[:, None, :, None])
    else:
        plane = target.ff.flatten(2, 3).flatten(0, 1)  # a view: rows of one matrix
        torch.mm(flat, other.mT, out=plane)
        target.ff.mul_(a[:, None, :, None])
    target.ff.addcmul_((u_rows * b[:, None, :])[..., None], u_columns[:, None])


def _symmetric_structures(
    rows: Points, columns: Points, characters: Characters, radial: Radial, target: Blocks
) -> None:
    """`_whole_structures` summed over the images of the columns, products taken once."""
    x, y = rows.features[:, 0], columns.features[:, 0]
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    target.zero_()
    k, a, b = [], [], []
    for number, product in enumerate(characters.images(characters.products(x, y))):
        if number == 0:  # the identity, which duplicates are found under
            s = squared_distances(x, y)
        else:
            s = torch.add(lengths, product, alpha=-2.0).clamp_(min=0.0)
        terms = radial(s)
        k.append(terms.k)
        a.append(terms.a)
        b.append(terms.b)
    if target.ee is not None:
        target.ee.add_(torch.stack(k).sum(0))
    u_rows, u_columns = [], []
    if rows.jacobian is not None:
        flat = rows.jacobian.flatten(0, 2)
        own = torch.einsum("nrp,np->nr", rows.jacobian[:, 0], x)
        for product in characters.images(characters.products(flat, y)):
            u_rows.append(own[:, :, None] - product.unflatten(0, own.shape))
            if target.fe is not None:
                target.fe.sub_(a[len(u_rows) - 1][:, None, :] * u_rows[-1])
    if columns.jacobian is not None:
        other = columns.jacobian.flatten(0, 2)
        own = torch.einsum("nrp,np->nr", columns.jacobian[:, 0], y)
        for product in characters.images(characters.products(x, other)):
            u_columns.append(own - product.unflatten(1, own.shape))
            if target.ef is not None:
                target.ef.sub_(a[len(u_columns) - 1][:, :, None] * u_columns[-1])
    if target.ff is None:
        return
    parts = zip(
        characters.blocks(a),
        flat.split(characters.widths, 1),
        other.split(characters.widths, 1),
        strict=True,
    )
    for weight, left, right in parts:
        product = (left @ right.mT).view(target.ff.shape)
        target.ff.addcmul_(product, weight[:, None, :, None])
    for b_image, u_row, u_column in zip(b, u_rows, u_columns, strict=True):
        target.ff.addcmul_((u_row * b_image[:, None, :])[..., None], u_column[:, None])


def _environment_sums(
    rows: Points, columns: Points, kind: int, radial: Radial, target: Blocks
) -> None:
    mine, theirs = rows.environments_of(kind), columns.environments_of(kind)
    x, y = rows.features[:, mine], columns.features[:, theirs]  # [n, e, p], [n', e', p]
    pairs = (*x.shape[:2], *y.shape[:2])
    flat_x, flat_y = x.flatten(0, 1), y.flatten(0, 1)
    k, a, b = (
        term.view(pairs) for term in radial(squared_distances(flat_x, flat_y))
    )  # [n, e, n', e']
    if target.ee is not None:
        target.ee.add_(k.sum((1, 3)))
    u_rows = u_columns = None
    if rows.jacobian is not None:
        jacobian = rows.jacobian[:, mine]  # [n, e, r, p]
        own = torch.einsum("nerp,nep->ner", jacobian, x)
        product = (jacobian.flatten(0, 2) @ flat_y.mT).view(*own.shape, *pairs[2:])
        u_rows = own[..., None, None] - product  # [n, e, r, n', e']
        if target.fe is not None:
            target.fe.sub_(torch.einsum("iajb,iarjb->irj", a, u_rows))
    if columns.jacobian is not None:
        other = columns.jacobian[:, theirs]
        own = torch.einsum("nerp,nep->ner", other, y)
        product = (flat_x @ other.flatten(0, 2).mT).view(*pairs[:2], *own.shape)
        u_columns = own - product  # [n, e, n', e', r']
        if target.ef is not None:
            target.ef.sub_(torch.einsum("iajb,iajbr->ijr", a, u_columns))
    if target.ff is None or u_rows is None or u_columns is None:
        return
    # Rank-one terms of all environment pairs of two structures: one product of length e e'.
    left = (u_rows * b[:, :, None]).permute(0, 3, 2, 1, 4).flatten(3)  # [n, n', r, e e']
    right = u_columns.permute(0, 2, 1, 3, 4).flatten(2, 3)  # [n, n', e e', r']
    target.ff.add_((left @ right).permute(0, 2, 1, 3))
    # a contracted with the row Jacobians first, then one GEMM per column environment.
    block = x.new_empty((pairs[2], jacobian.shape[2], other.shape[2]))
    for i in range(pairs[0]):
        weighted = a[i].flatten(1).mT @ jacobian[i].flatten(1)  # [n' e', r p]
        weighted = weighted.view(*pairs[2:], *jacobian.shape[2:])
        torch.bmm(weighted[:, 0], other[:, 0].mT, out=block)
        for e in range(1, pairs[3]):
            block.baddbmm_(weighted[:, e], other[:, e].mT)
        target.ff[i].add_(block.transpose(0, 1))


def _tile_length(points: Points) -> int:
    """Structures per tile side."""
    entries = _TILE_ENTRIES.get(points.features.device.type, _TILE_ENTRIES["cpu"])
    environments = len(points.types)
    return max(1, int((entries / environments) ** 0.5) // (1 + points.n_directions))


def _ranges(count: int, step: int) -> Iterator[slice]:
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
