"""Pictures of results: how many times as fast as each peer, and time per atom against size.

``python -m benchmarks.report results/A.json results/B.json --out FOLDER`` writes ratios.png and,
where there is water of several sizes, scaling.png.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read(files: Sequence[str | Path]) -> list[Row]:
    """Rows of result files, those on one thread."""
    rows = [row for file in files for row in json.loads(Path(file).read_text())["rows"]]
    return [row for row in rows if row["threads"] == 1]


def draw_ratios(rows: Sequence[Row], path: Path) -> int:
    """One bar for each peer on each workload; returns how many there are."""
    from matplotlib.figure import Figure

    peers = [row for row in rows if not row["contestant"].startswith("pymlp")]
    if not peers:
        return 0
    names = list(dict.fromkeys(row["contestant"] for row in peers))
    figure = Figure(figsize=(8, 0.8 + 0.27 * len(peers)), layout="constrained")
    axes = figure.subplots()
    places = range(len(peers))[::-1]
    ratios = [row["ratio_cpu"] for row in peers]
    colors = [f"C{names.index(row['contestant'])}" for row in peers]
    bars = axes.barh(places, ratios, color=colors, height=0.75)
    axes.bar_label(bars, [f" {ratio:.3g}x" for ratio in ratios], fontsize=8)
    labels = [
        f"{row['workload']}, {row['quantity']}, {row['dtype']}: {row['contestant']}"
        for row in peers
    ]
    axes.set_yticks(places, labels, fontsize=8)
    axes.axvline(1, color="black", lw=0.8)
    axes.set(xscale="log", xlim=(0.7, 2.5 * max(ratios)), xlabel="time of the peer / time of pymlp")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return len(peers)


def draw_scaling(rows: Sequence[Row], path: Path) -> int:
    """Time per atom of periodic water against the number of atoms; returns how many curves."""
    from matplotlib.figure import Figure

    curves: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        match = re.fullmatch(r"ANI-1x, water (\d+)", row["workload"])
        if match and row["dtype"] == "float32":
            atoms = int(match[1])
            point = atoms, row["cpu_s"] / atoms * 1e6
            curves[row["contestant"], row["quantity"]].append(point)
    curves = {name: sorted(points) for name, points in curves.items() if len(points) > 1}  # type: ignore[assignment]
    if not curves:
        return 0
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (contestant, quantity), points in curves.items():
        axes.plot(*zip(*points, strict=True), "o-", label=f"{contestant}, {quantity}")
    axes.set(xscale="log", yscale="log", xlabel="atoms", ylabel="µs per atom (float32, one thread)")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return len(curves)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args(arguments)
    rows = read(options.files)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("ratios.png", draw_ratios), ("scaling.png", draw_scaling)):
        if draw(rows, options.out / name):
            print(options.out / name)
        else:
            print(f"nothing to draw for {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
