"""Checks and tables that both kinds of symmetry function share: channels, cutoffs, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from pymlp.structure_checks import atomic_number

__all__ = [
    "CUTOFF_FUNCTIONS",
    "Channels",
    "CutoffFunction",
    "angle_row",
    "at_least",
    "channel_labels",
    "channel_tables",
    "check_cutoffs",
    "choice",
    "finite_list",
]

Channels: TypeAlias = Literal["element", "none", "weighted"]
CutoffFunction: TypeAlias = Literal["cosine", "smooth"]

#: The op's numbers of the cutoff functions: eq 2, and exp(1 - 1/(1 - (R/R_c)^2)).
CUTOFF_FUNCTIONS = {"cosine": 0, "smooth": 1}


def choice(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not among the known ones."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def finite_list(name: str, values: Sequence[float]) -> list[float]:
    """Return finite floats."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}")
    result = [float(value) for value in values]
    for value in result:
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite numbers, got {value}")
    return result


def at_least(name: str, value: float, least: float) -> float:
    """Return a finite float that is not below ``least``."""
    value = float(value)
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name} must be at least {least:g}, got {value}")
    return value


def check_cutoffs(radial_cutoff: float, angular_cutoff: float) -> tuple[float, float]:
    """Return both cutoffs (Å): above zero, the angular one not above the radial one."""
    radial_cutoff, angular_cutoff = float(radial_cutoff), float(angular_cutoff)
    for name, value in (("cutoff", radial_cutoff), ("angular_cutoff", angular_cutoff)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above zero (Å), got {value}")
    if angular_cutoff > radial_cutoff:
        raise ValueError(
            f"angular_cutoff must not be above the radial cutoff {radial_cutoff} Å, "
            f"got {angular_cutoff} Å"
        )
    return radial_cutoff, angular_cutoff


def channel_tables(channels: str, elements: Sequence[str]) -> tuple[Tensor, Tensor, int]:
    """Return the channel [n_types] and weight [n_types] of each element, and how many channels."""
    choice("channels", channels, ("element", "none", "weighted"))
    n_types = len(elements)
    weights = torch.ones(n_types, dtype=torch.float64)
    if channels == "element":
        return torch.arange(n_types), weights, n_types
    if channels == "weighted":
        weights = torch.tensor([float(atomic_number(e)) for e in elements], dtype=torch.float64)
    return torch.zeros(n_types, dtype=torch.int64), weights, 1


def channel_labels(channels: str, elements: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the neighbour channels and of the neighbour-pair channels, in order."""
    if channels == "element":
        single = list(elements)
        pairs = [f"{a}-{b}" for i, a in enumerate(elements) for b in elements[i:]]
        return single, pairs
    mark = "Z" if channels == "weighted" else "*"
    return [mark], [f"{mark}-{mark}"]


def angle_row(zeta: float, theta_shift: float) -> tuple[float, float, float]:
    """Return (zeta, cos theta_s, sin theta_s); the sine is exactly zero at 0 and pi.

    With an exact zero the op leaves sin(theta) out, whose derivative diverges for collinear
    triples.
    """
    if math.isclose(theta_shift, 0.0, abs_tol=1e-9):
        return zeta, 1.0, 0.0
    if math.isclose(theta_shift, math.pi, abs_tol=1e-9):
        return zeta, -1.0, 0.0
    return zeta, math.cos(theta_shift), math.sin(theta_shift)
