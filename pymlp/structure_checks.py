"""What a structure is checked against: element names, shapes, finite numbers, sound cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "MAX_ATOMIC_NUMBER",
    "SYMBOLS",
    "as_float",
    "as_numbers",
    "as_pbc",
    "atomic_number",
    "check_cells",
    "check_finite",
]

_TABLE = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge "
    "As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm "
    "Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U "
    "Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
#: Chemical symbols by atomic number; ``SYMBOLS[0]`` is a placeholder.
SYMBOLS: tuple[str, ...] = tuple(_TABLE.split())
MAX_ATOMIC_NUMBER = len(SYMBOLS) - 1
_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}

# Cell vectors whose directions depend on each other to this degree span no cell.
_SINGULAR_CELL = 1e-6


def atomic_number(symbol: str) -> int:
    """Return the atomic number of a chemical symbol.

    Raises:
        ValueError: if there is no such element.
    """
    if symbol not in _NUMBERS:
        raise ValueError(f"unknown chemical element {symbol!r}")
    return _NUMBERS[symbol]


def _own_tensor(value: Any) -> Tensor:
    """Tensors as they are, with their gradient; all else is copied, floats as float64."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def as_float(value: Any, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Floating-point tensor of ``value``; floats keep their precision, all else is float64."""
    try:
        tensor = _own_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be an array of numbers: {error}") from None
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be real numbers, got {tensor.dtype}")
    if dtype is None:
        dtype = tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float64
    return tensor.to(dtype)


def as_numbers(value: Any) -> Tensor:
    """Int64 atomic numbers 1..118 from integers or chemical symbols."""
    if np.ndim(value) == 0 and not isinstance(value, str):
        raise TypeError(
            f"numbers must be a sequence of atomic numbers or symbols, got {type(value).__name__}"
        )
    if isinstance(value, str) or (len(value) and isinstance(value[0], str)):
        symbols = [value] if isinstance(value, str) else list(value)
        return torch.tensor([atomic_number(symbol) for symbol in symbols], dtype=torch.int64)
    tensor = _own_tensor(value)
    if tensor.numel() == 0:
        return tensor.to(torch.int64)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"numbers must be integers or chemical symbols, got {tensor.dtype}")
    tensor = tensor.to(torch.int64)
    if tensor.dim() != 1:
        raise ValueError(f"numbers must have shape [N], got {list(tensor.shape)}")
    low, high = int(tensor.min()), int(tensor.max())
    if low < 1 or high > MAX_ATOMIC_NUMBER:
        raise ValueError(
            f"numbers must be atomic numbers 1..{MAX_ATOMIC_NUMBER}, got {low if low < 1 else high}"
        )
    return tensor


def check_finite(tensor: Tensor, name: str, what: str = "row") -> None:
    """Refuse NaN and Inf, naming the first entry along dimension 0 that has one."""
    if not bool(torch.isfinite(tensor).all()):
        bad = (~torch.isfinite(tensor)).reshape(tensor.shape[0], -1).any(dim=1)
        first = int(bad.nonzero()[0])
        raise ValueError(f"{name} must be finite, got NaN or Inf in {what} {first}")


def check_cells(cell: Tensor, pbc: Tensor) -> None:
    """Refuse cells whose periodic vectors are zero or linearly dependent."""
    cell, pbc = cell.detach().to("cpu", torch.float64), pbc.cpu()
    vectors = torch.where(pbc[:, :, None], cell, torch.zeros_like(cell))
    lengths = vectors.norm(dim=2, keepdim=True)
    # k independent directions have k singular values above zero; rows of zeros add zeros.
    values = torch.linalg.svdvals(vectors / lengths.clamp(min=1e-300))
    n_periodic = pbc.sum(dim=1)
    smallest = values.gather(1, (n_periodic - 1).clamp(min=0)[:, None])[:, 0]
    flat = (n_periodic > 0) & ~(smallest > _SINGULAR_CELL)
    if bool(flat.any()):
        index = int(flat.nonzero()[0])
        bad = cell[index][pbc[index]]
        raise ValueError(
            f"cell of structure {index} is singular: its periodic vectors {bad.tolist()} "
            f"do not span {len(bad)} dimension(s)"
        )


def as_pbc(value: Any) -> Tensor:
    """Boolean [3] or [B, 3] from one bool, three bools or an array of them."""
    tensor = _own_tensor(value)
    if tensor.dtype != torch.bool:
        if not bool(((tensor == 0) | (tensor == 1)).all()):
            raise ValueError(f"pbc must be booleans, got {value!r}")
        tensor = tensor.to(torch.bool)
    if tensor.dim() == 0:
        tensor = tensor.expand(3)
    if tensor.shape[-1] != 3 or tensor.dim() > 2:
        raise ValueError(f"pbc must have shape [3] or [B, 3], got {list(tensor.shape)}")
    return tensor
