"""Size estimates before anything is allocated, and the refusal that says what to do instead."""

from __future__ import annotations

import os

import torch

__all__ = ["available_memory", "check_memory", "cholesky_bytes", "conjugate_gradients_bytes"]


def available_memory(device: torch.device) -> int:
    """Bytes that can be allocated now on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cholesky_bytes(rows: int, points_bytes: int) -> int:
    """Exact factorisation in place: one matrix in float64, the points, one panel."""
    return 8 * rows * rows + points_bytes + 8 * 1024 * rows


def conjugate_gradients_bytes(rows: int, columns: int, points_bytes: int) -> int:
    """Preconditioner columns, its two factors, the points."""
    return 8 * columns * rows + 3 * 8 * columns * columns + points_bytes


def check_memory(needed: int, limit: int | None, device: torch.device, rows: int) -> None:
    """Refuse an exact fit that does not fit.

    Raises:
        ValueError: naming the size and the two ways out.
    """
    available = available_memory(device) if limit is None else limit
    if needed > available:
        raise ValueError(
            f"the exact Gaussian process of {rows} observations needs {needed / 2**30:.1f} GiB, "
            f"and {available / 2**30:.1f} GiB are available: use method='cg' (matrix-free "
            f"conjugate gradients, the same solution) or method='sparse' (inducing points)"
        )
