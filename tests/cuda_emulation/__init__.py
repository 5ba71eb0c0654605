"""Builds and calls the emulation of the CUDA kernels (see cuda_emulation.h)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FLAGS = ["-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]
#: What a run of ``symmetry`` returns, in order.
OUTPUTS = ("features", "vjp", "jvp", "double_backward jvp", "curvature", "jacobian")


def compiler() -> str:
    """The C++ compiler; skips the test where there is none."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        pytest.skip("no g++ (or $CXX): the CUDA kernels cannot be emulated")
    return found


def built(directory: Path, name: str, source: str, flags: list[str]) -> Path:
    """Compile ``source`` of this folder to ``directory/name``, once for all test processes."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name
    with open(directory / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            partial = directory / f"{name}.partial"
            includes = [f"-I{ROOT / 'csrc'}", f"-I{HERE}"]
            command = [
                compiler(),
                *FLAGS,
                *flags,
                *includes,
                str(HERE / source),
                "-o",
                str(partial),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            partial.rename(program)
    return program


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # Fibres end where they are: what they still hold is no leak of the kernels.
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def _write(path: Path, items: list[Any]) -> None:
    """Write ints, floats and tensors as they are."""
    with open(path, "wb") as file:
        for item in items:
            if isinstance(item, Tensor):
                file.write(item.contiguous().numpy().tobytes())
            else:
                file.write(np.float64(item) if isinstance(item, float) else np.int64(item))


def _call(program: Path, folder: Path, seed: int, what: str, items: list[Any]) -> bytes:
    """Return what the program wrote."""
    source, target = folder / "in", folder / "out"
    _write(source, items)
    done = run(program, seed, what, source, target)
    assert done.returncode == 0, f"{what}: exit status {done.returncode}\n{done.stderr[-4000:]}"
    return target.read_bytes()


def symmetry(
    program: Path,
    folder: Path,
    seed: int,
    family: str,
    displacements: Tensor,
    rest: tuple[Any, ...],
    grad_features: Tensor,
    tangents: Tensor,
) -> dict[str, Tensor]:
    """All passes of one descriptor op, by the emulated kernels. ``rest`` as the op takes it."""
    items, shapes = _symmetry_items(family, displacements, rest, grad_features, tangents)
    dtype = np.float32 if displacements.dtype == torch.float32 else np.float64
    values = np.frombuffer(_call(program, folder, seed, family, items), dtype=dtype)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    assert values.size == ends[-1]
    parts = np.split(values, ends[:-1])
    return {
        name: torch.from_numpy(part.reshape(shape).copy())
        for name, part, shape in zip(OUTPUTS, parts, shapes, strict=True)
    }


def _symmetry_items(
    family: str,
    displacements: Tensor,
    rest: tuple[Any, ...],
    grad_features: Tensor,
    tangents: Tensor,
) -> tuple[list[Any], tuple[tuple[int, ...], ...]]:
    """What the program reads, and the shapes of what it writes."""
    (offsets, neighbors, types, channels, weights, radial, distances, angles, products) = rest[:9]
    n_channels, radial_cutoff, angular_cutoff, cutoff_function, variant = rest[9:]
    n_atoms, n_pairs = types.numel(), neighbors.numel()
    n_features = _n_features(rest)
    sizes = [
        displacements.element_size(),
        n_atoms,
        n_pairs,
        channels.numel(),
        n_channels,
        radial.shape[0],
        radial.shape[1],
        distances.shape[0],
        angles.shape[0],
        products.shape[1],
        cutoff_function,
        int(variant) if family == "behler_parrinello" else 0,
    ]
    reals = [radial_cutoff, angular_cutoff, float(variant) if family == "ani" else 1.0]
    arrays = [displacements, offsets, neighbors, types, channels, weights]
    arrays += [radial, distances, angles, products, grad_features, tangents]
    rows, vectors = (n_atoms, n_features), (n_pairs, 3)
    shapes = (rows, vectors, rows, rows, vectors, (n_pairs, n_features, 3))
    return [*sizes, *map(float, reals), *arrays], shapes


def counted(
    program: Path,
    folder: Path,
    family: str,
    displacements: Tensor,
    rest: tuple[Any, ...],
    costs: tuple[float, ...],
) -> dict[str, dict[str, float]]:
    """The arithmetic of every pass but the Jacobian, for float32 numbers; see count.cpp."""
    shape = (len(rest[0]) - 1, _n_features(rest))
    ones, tangents = torch.ones(shape), torch.ones_like(displacements)
    items, _ = _symmetry_items(family, displacements, rest, ones, tangents)
    source = folder / "in"
    # A number that is counted holds where it comes from, too: nowhere.
    counted = [_with_origin(item) for item in items]
    _write(source, counted)
    done = run(program, family, source, *costs)
    assert done.returncode == 0, done.stderr
    result: dict[str, dict[str, float]] = json.loads(done.stdout)
    return result


def _with_origin(item: Any) -> Any:
    if not isinstance(item, Tensor) or item.dtype != torch.float32:
        return item
    return torch.stack([item, torch.zeros_like(item)], dim=-1)


def _n_features(rest: tuple[Any, ...]) -> int:
    radial, products, n_channels = rest[5], rest[8], rest[9]
    pairs: int = n_channels * (n_channels + 1) // 2
    return int(n_channels * radial.shape[1] + pairs * products.shape[1])


def all_pairs(
    program: Path,
    folder: Path,
    seed: int,
    positions: Tensor,
    offsets: Tensor,
    cutoff: float,
    n_pairs: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op of that name, by the emulated kernels."""
    n_atoms, n_structures = positions.shape[0], offsets.numel() - 1
    known = -1 if n_pairs is None else n_pairs
    sizes = [positions.element_size(), n_atoms, n_structures, known]
    items = [*sizes, float(cutoff), positions, offsets]
    values = np.frombuffer(_call(program, folder, seed, "pairs", items), dtype=np.int64).copy()
    first, lists = np.split(values, [n_atoms + 1])
    centers, neighbors = np.split(lists, 2)
    return torch.from_numpy(first), torch.from_numpy(centers), torch.from_numpy(neighbors)


def differences(
    program: Path,
    folder: Path,
    seed: int,
    positions: Tensor,
    cells: Tensor,
    structure_index: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor],
    values: Tensor,
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """``pair_differences``, ``image_differences`` and ``pair_differences_backward``.

    ``pairs`` are offsets, neighbours and shifts; the last result says whether the list needed the
    kernel that serves any list.
    """
    offsets, neighbors, shifts = pairs
    n_atoms, n_pairs = positions.shape[0], neighbors.numel()
    sizes = [positions.element_size(), n_atoms, n_pairs, cells.shape[0]]
    index = structure_index[: 0 if cells.shape[0] == 1 else n_atoms]
    items = [*sizes, offsets, neighbors, positions, cells, index, shifts, values]
    written = _call(program, folder, seed, "differences", items)
    dtype = np.float32 if positions.dtype == torch.float32 else np.float64
    numbers = torch.from_numpy(np.frombuffer(written[:-8], dtype=dtype).copy())
    parts = numbers.split([3 * n_pairs, 3 * n_pairs, 3 * n_atoms])
    plain, moved, sums = (part.reshape(-1, 3) for part in parts)
    return plain, moved, sums, bool(np.frombuffer(written[-8:], dtype=np.int64)[0])


def cell_list(
    program: Path, folder: Path, seed: int, arguments: tuple[Any, ...]
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The op of that name, by the emulated kernels; ``None`` where they leave it to the CPU."""
    positions, offsets, cell, pbc, cutoff = arguments
    n_atoms, n_structures = positions.shape[0], offsets.numel() - 1
    sizes = [positions.element_size(), n_atoms, n_structures]
    items = [*sizes, float(cutoff), 1e-6, positions, offsets, cell, pbc]
    written = _call(program, folder, seed, "cells", items)
    trouble, periodic = np.frombuffer(written[:16], dtype=np.int64)
    if trouble:
        return None
    first = np.frombuffer(written, np.int64, n_atoms + 1, 16).copy()
    at, n_pairs = 16 + first.nbytes, int(first[-1])
    neighbors = np.frombuffer(written, np.int64, n_pairs, at).copy()
    n_shifts = 3 * n_pairs if periodic else 0
    shifts = np.frombuffer(written, np.int32, n_shifts, at + neighbors.nbytes).copy()
    parts = (first, neighbors, shifts.reshape(-1, 3))
    return tuple(torch.from_numpy(part) for part in parts)  # type: ignore[return-value]
