"""A molecule in three dimensions on a static page: HTML that needs nothing from the network.

The page holds a still picture (SVG) and a small script (molecule_view.js) that replaces it by a
canvas which turns with the mouse. Where scripts are not allowed the still picture remains.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["bonds", "molecule_html", "molecule_svg"]

Array = npt.NDArray[np.float64]

# Bonds: whole up to this multiple of the sum of covalent radii, fading out to the second.
_WHOLE, _BROKEN = 1.2, 1.5
# The viewer's distance from the middle of the molecule, in its own largest radius.
_DISTANCE = 6.0


def bonds(numbers: npt.ArrayLike, positions: npt.ArrayLike) -> list[tuple[int, int, float]]:
    """Pairs of bonded atoms by their distance, and how whole the bond is.

    Args:
        numbers: [N] atomic numbers.
        positions: [N, 3] Å.

    Returns:
        (i, j, strength) with i < j and 0 < strength ≤ 1: 1 up to 1.2 times the sum of the covalent
        radii, falling to 0 at 1.5 times (bonds that form or break).
    """
    from ase.data import covalent_radii

    z, r = np.asarray(numbers, dtype=int), np.asarray(positions, dtype=float)
    i, j = np.triu_indices(len(z), 1)
    ratio = np.linalg.norm(r[i] - r[j], axis=1) / (covalent_radii[z[i]] + covalent_radii[z[j]])
    strength = np.clip((_BROKEN - ratio) / (_BROKEN - _WHOLE), 0.0, 1.0)
    return [
        (int(a), int(b), round(float(s), 3))
        for a, b, s in zip(i, j, strength, strict=True)
        if s > 0
    ]


def molecule_html(
    numbers: npt.ArrayLike,
    positions: npt.ArrayLike,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
    width: int = 480,
    height: int = 340,
    frames_per_second: float = 10.0,
) -> str:
    """HTML of a molecule that can be turned; of several frames with a slider and a play button.

    Drag to turn, double-click to return; with the keyboard: arrows, + and -.

    Args:
        numbers: [N] atomic numbers.
        positions: [N, 3] Å, or [n, N, 3] for frames, which are laid over each other.
        labels: a text for every frame; its number if ``None``.
        title: shown below the picture, and read out instead of it.
        width: of the picture in pixels.
        height: of the picture in pixels.
        frames_per_second: when played.

    Returns:
        A ``<div>`` with everything in it, the same for the same input.

    Raises:
        ValueError: shapes or numbers of labels that do not fit, positions that are not finite.
    """
    z, frames = _checked(numbers, positions)
    if labels is not None and len(labels) != len(frames):
        raise ValueError(f"labels must be {len(frames)}, one per frame, got {len(labels)}")
    names = [
        str(label) for label in labels or [f"{k + 1} / {len(frames)}" for k in range(len(frames))]
    ]
    frames = _superposed(frames)
    rotation = _principal_axes(frames)
    scale, distance = _scale(z, frames, width, height)
    data: dict[str, Any] = {
        "width": width,
        "height": height,
        "scale": round(scale, 3),
        "distance": round(distance, 3),
        "rotation": np.round(rotation, 5).tolist(),
        "radii": np.round(_radii(z), 3).tolist(),
        "colors": _colors(z).tolist(),
        "frames": np.round(frames, 3).tolist(),
        "bonds": [bonds(z, frame) for frame in frames],
        "labels": names,
        "pause": round(1000 / frames_per_second),
    }
    # "</script>" inside a label must not end the script.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    key = "molecule-" + sha256(text.encode()).hexdigest()[:12]
    said = html.escape(title or "molecule", quote=True)
    controls = ""
    if len(frames) > 1:
        controls = (
            '<div style="display:flex;gap:0.6em;align-items:center">'
            '<button type="button" aria-label="play or pause" style="width:2.4em">▶</button>'
            f'<input type="range" min="0" max="{len(frames) - 1}" value="0" step="1" '
            f'aria-label="frame" style="flex:1"><output style="min-width:7em">'
            f"{html.escape(names[0])}</output></div>"
        )
    caption = f'<div style="font-size:0.9em">{html.escape(title)}</div>' if title else ""
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8").strip()
    still = _svg(z, frames[0] @ rotation.T, scale, distance, width, height)
    return (
        f'<div id="{key}" style="max-width:{width}px;font-family:sans-serif">'
        f'<div class="still">{still}</div>'
        f'<canvas tabindex="0" role="img" aria-label="{said}: drag to turn" '
        f'style="display:none;width:{width}px;height:{height}px;touch-action:none;cursor:grab">'
        f"</canvas>{controls}{caption}"
        f'<script>\n{script}(document.getElementById("{key}"), {text});\n</script></div>'
    )


def molecule_svg(
    numbers: npt.ArrayLike, positions: npt.ArrayLike, *, width: int = 480, height: int = 340
) -> str:
    """A still picture of one structure, flattened along its shortest axis.

    Args:
        numbers: [N] atomic numbers.
        positions: [N, 3] Å.
        width: in pixels.
        height: in pixels.

    Raises:
        ValueError: shapes that do not fit, positions that are not finite.
    """
    z, frames = _checked(numbers, positions)
    if len(frames) > 1:
        raise ValueError(f"positions must be of one structure, got {len(frames)}")
    frames = _superposed(frames)
    scale, distance = _scale(z, frames, width, height)
    rotated = frames[0] @ _principal_axes(frames).T
    return _svg(z, rotated, scale, distance, width, height)


def _checked(
    numbers: npt.ArrayLike, positions: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], Array]:
    z = np.asarray(numbers, dtype=np.int64)
    r = np.asarray(positions, dtype=float)
    frames = r[None] if r.ndim == 2 else r
    if z.ndim != 1 or not len(z) or frames.ndim != 3 or frames.shape[1:] != (len(z), 3):
        raise ValueError(
            f"positions must be [N, 3] or [n, N, 3] for numbers [N], got {r.shape} for {z.shape}"
        )
    if not len(frames) or not np.isfinite(frames).all():
        raise ValueError("positions must be finite, and of one frame at least")
    return z, frames


def _superposed(frames: Array) -> Array:
    """Every frame centred, and turned as near as it can be to the one before."""
    centred = frames - frames.mean(axis=1, keepdims=True)
    for before, frame in pairwise(centred):
        u, _, vt = np.linalg.svd(frame.T @ before)
        u[:, -1] *= np.sign(np.linalg.det(u @ vt))  # a rotation, no mirror image
        frame[:] = frame @ (u @ vt)
    return centred


def _principal_axes(frames: Array) -> Array:
    """Rows: the directions of largest, middle and smallest spread of all frames, right-handed."""
    _, _, axes = np.linalg.svd(frames.reshape(-1, 3), full_matrices=True)
    # The sign of an axis means nothing to the SVD: its largest component points up.
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(3), largest])[:, None]
    axes[2] *= np.sign(np.linalg.det(axes))
    return np.asarray(axes)


def _radii(z: npt.NDArray[np.int64]) -> Array:
    from ase.data import covalent_radii

    return np.asarray(0.14 + 0.36 * covalent_radii[z])


def _colors(z: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    from ase.data.colors import jmol_colors

    return np.round(255 * jmol_colors[z]).astype(np.int64)


def _scale(z: npt.NDArray[np.int64], frames: Array, width: int, height: int) -> tuple[float, float]:
    """Pixels per Å, so that no frame leaves the picture however it is turned; and the distance."""
    radius = float((np.linalg.norm(frames, axis=2) + _radii(z)).max())
    distance = _DISTANCE * radius
    # The outline of a sphere in perspective.
    return 0.5 * min(width, height) * (1 - 1 / _DISTANCE**2) ** 0.5 / radius, distance


def _svg(
    z: npt.NDArray[np.int64], r: Array, scale: float, distance: float, width: int, height: int
) -> str:
    def seen(points: Array) -> tuple[Array, Array, Array]:
        near = 1 / (1 - points[:, 2] / distance)
        x, y = width / 2 + scale * points[:, 0] * near, height / 2 - scale * points[:, 1] * near
        return x, y, near

    radii, parts = _radii(z), []
    for i, j, strength in bonds(z, r):
        way = (r[j] - r[i]) / np.linalg.norm(r[j] - r[i])
        x, y, _ = seen(np.stack([r[i] + 0.9 * radii[i] * way, r[j] - 0.9 * radii[j] * way]))
        thick = 0.2 * scale * (0.45 + 0.55 * strength)
        dash = "" if strength > 0.999 else ' stroke-dasharray="6 5"'
        line = (
            f'<line x1="{x[0]:.1f}" y1="{y[0]:.1f}" x2="{x[1]:.1f}" y2="{y[1]:.1f}" '
            f'stroke="#888" stroke-width="{thick:.1f}"{dash}/>'
        )
        parts.append(((r[i, 2] + r[j, 2]) / 2, line))
    x, y, near = seen(r)
    for i, (red, green, blue) in enumerate(_colors(z)):
        circle = (
            f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="{radii[i] * scale * near[i]:.1f}" '
            f'fill="#{red:02x}{green:02x}{blue:02x}" stroke="#444" stroke-width="0.8"/>'
        )
        parts.append((r[i, 2], circle))
    inner = "".join(part for _, part in sorted(parts, key=lambda item: item[0]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">{inner}</svg>'
    )
