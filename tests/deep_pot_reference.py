"""Oracle of DeepPot-SE: equations 7-11 in plain float64 torch, sharing no code with pymlp.

Written to be read beside the paper, one centre and one kind of pair at a time; autograd supplies
the derivatives. Lengths in Å.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: one layer: weights [n_in, n_out], biases [n_out]
Layer = tuple[Tensor, Tensor]


def switch(distances: Tensor, start: float, cutoff: float, function: str) -> Tensor:
    """Eq 9: s(R)."""
    if function == "none":
        return 1 / distances
    inner = distances < start
    inside = distances < cutoff
    x = torch.where(inside, (distances - start) / (cutoff - start), torch.zeros_like(distances))
    if function == "cosine":
        weight = 0.5 * torch.cos(math.pi * x) + 0.5
    else:
        weight = x**3 * (-6 * x**2 + 15 * x - 10) + 1
    weight = torch.where(inner, torch.ones_like(weight), weight)
    return torch.where(inside, weight / distances, torch.zeros_like(distances))


def environment(displacements: Tensor, start: float, cutoff: float, function: str) -> Tensor:
    """Eq 8: rows (s, s x/R, s y/R, s z/R), [P, 4]."""
    distances = displacements.norm(dim=1)
    s = switch(distances, start, cutoff, function)
    return torch.cat([s[:, None], s[:, None] * displacements / distances[:, None]], dim=1)


def embedding(s: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Eq 10 with residual layers where the width stays or doubles: s [n] -> [n, m1]."""
    x = s[:, None]
    for weight, bias in layers:
        y = torch.tanh(x @ weight + bias)
        if y.shape[1] == x.shape[1]:
            y = y + x
        elif y.shape[1] == 2 * x.shape[1]:
            y = y + torch.cat([x, x], dim=1)
        x = y
    return x


def contraction(g: Tensor, r: Tensor, pair_offsets: Tensor, n_axis: int) -> Tensor:
    """Eq 11: D = G^T R (R^T G_2) of each centre, [A, m1 * m2]."""
    rows = [
        ((own := g[a:b].T @ r[a:b]) @ own[:n_axis].T).flatten()
        for a, b in zip(pair_offsets[:-1].tolist(), pair_offsets[1:].tolist(), strict=True)
    ]
    return torch.stack(rows) if rows else g.new_zeros(0, g.shape[1] * n_axis)
