"""Parameters of DeepPot-SE: which go together, and what is refused."""

from __future__ import annotations

import math
from typing import Any, Literal

__all__ = ["checked_normalize", "checked_switch", "checked_table"]


def checked_switch(switch: str, start: float | None, cutoff: float | None) -> float:
    """Return R_cs (0 without a switch).

    Raises:
        ValueError: for lengths (Å) that do not go with the switch.
    """
    if switch == "none":
        if cutoff is not None or start is not None:
            raise ValueError(
                "switch='none' sees every atom of an isolated structure: leave cutoff and "
                f"switch_start out, got cutoff={cutoff}, switch_start={start}; or choose "
                "switch='cosine' or 'quintic'"
            )
        return 0.0
    if cutoff is None or start is None:
        raise ValueError(
            f"switch={switch!r} needs cutoff and switch_start (Å), got {cutoff} and {start}"
        )
    if not (math.isfinite(cutoff) and 0 <= start < cutoff):
        raise ValueError(
            f"switch_start must be in 0 ... cutoff (Å), got switch_start={start}, cutoff={cutoff}"
        )
    return float(start)


def checked_normalize(normalize: Any, switch: str) -> Literal["neighbors"] | float | None:
    """Return what sums over neighbours are divided by, a number as float.

    Raises:
        ValueError: for another word, a number that is not above zero, or "neighbors" with a switch.
    """
    if normalize is None:
        return None
    if normalize == "neighbors":
        if switch != "none":
            raise ValueError(
                "normalize='neighbors' goes with switch='none' alone: the energy would jump where "
                "an atom crosses the cutoff. Give a number, for instance the usual number of "
                "neighbours"
            )
        return "neighbors"
    if isinstance(normalize, (int, float)) and math.isfinite(normalize) and normalize > 0:
        return float(normalize)
    raise ValueError(
        f"normalize must be None, 'neighbors' or a number above zero, got {normalize!r}"
    )


def checked_table(table: dict[str, float], use_radial_column: bool) -> dict[str, float]:
    """Return tolerance and shortest distance (Å) of a table as floats.

    Raises:
        ValueError: for other entries, values not above zero, or no radial column, which a table
            needs.
    """
    if not isinstance(table, dict) or set(table) != {"tolerance", "shortest"}:
        raise ValueError(f"table must hold tolerance and shortest, got {table!r}")
    if not use_radial_column:
        raise ValueError("a table needs use_radial_column=True")
    values = {name: float(value) for name, value in table.items()}
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"table: {name} must be above zero, got {value}")
    return values
