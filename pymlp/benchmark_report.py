"""The report of a benchmark: a table, how many times as fast as each peer, time against size.

``pymlp benchmark --report``, ``python -m benchmarks`` and ``python -m benchmarks.report`` write it
with these functions.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pymlp.benchmarking import Measurement, typical

__all__ = ["draw_ratios", "draw_scaling", "read", "write_report"]

Environment = dict[str, Any]


def read(files: Iterable[str | Path]) -> tuple[list[Measurement], list[Environment]]:
    """Rows of result files, and where they were measured.

    :raises ValueError: for a file that :func:`pymlp.benchmarking.save` or :func:`write_report` did
        not write
    """
    rows: list[Measurement] = []
    environments: list[Environment] = []
    for file in files:
        content = json.loads(Path(file).read_text())
        try:
            rows += [Measurement(**row) for row in content["rows"]]
            environments += content.get("environments") or [content["environment"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is no file of timings: {error}") from error
    return rows, environments


def draw_ratios(rows: Sequence[Measurement], path: str | Path) -> int:
    """One bar for each peer on each workload, on one thread.

    :returns: number of bars; without any, nothing is written
    """
    from matplotlib.figure import Figure

    peers = [row for row in rows if row.threads == 1 and not row.contestant.startswith("pymlp")]
    if not peers:
        return 0
    names = list(dict.fromkeys(row.contestant for row in peers))
    figure = Figure(figsize=(8, 0.8 + 0.27 * len(peers)), layout="constrained")
    axes = figure.subplots()
    places = range(len(peers))[::-1]
    ratios = [row.ratio_cpu for row in peers]
    colors = [f"C{names.index(row.contestant)}" for row in peers]
    bars = axes.barh(places, ratios, color=colors, height=0.75)
    axes.bar_label(bars, [f" {ratio:.3g}x" for ratio in ratios], fontsize=8)
    labels = [f"{row.workload}, {row.quantity}, {row.dtype}: {row.contestant}" for row in peers]
    axes.set_yticks(places, labels, fontsize=8)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_ylim(-0.7, len(peers) - 0.3)
    limits = min(0.7, 0.8 * min(ratios)), 2.5 * max(ratios)
    axes.set(xscale="log", xlim=limits, xlabel="time of the peer / time of pymlp")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return len(peers)


def draw_scaling(rows: Sequence[Measurement], path: str | Path) -> int:
    """Time per atom of periodic water against the number of atoms, float32 on one thread.

    :returns: number of curves (two sizes or more); without any, nothing is written
    """
    from matplotlib.figure import Figure

    curves: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        match = re.fullmatch(r"ANI-1x, water (\d+)", row.workload)
        if match and row.dtype == "float32" and row.threads == 1:
            atoms = int(match[1])
            curves[row.contestant, row.quantity].append((atoms, row.cpu_s / atoms * 1e6))
    lines = {name: sorted(points) for name, points in curves.items() if len(points) > 1}
    if not lines:
        return 0
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (contestant, quantity), points in lines.items():
        axes.plot(*zip(*points, strict=True), "o-", label=f"{contestant}, {quantity}")
    axes.set(xscale="log", yscale="log", xlabel="atoms", ylabel="µs per atom (float32, one thread)")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return len(lines)


def write_report(
    folder: str | Path,
    rows: Sequence[Measurement],
    environments: Sequence[Environment],
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write report.md, results.json, ratios.png and scaling.png; return what was written.

    A picture that there is nothing to draw in is left out (one of an earlier run is removed), and
    report.md says why.

    :param environments: :func:`pymlp.benchmarking.environment` of the runs that gave the rows
    :param notes: sentences for the report, such as which peers were skipped
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    notes, pictures = list(notes), []
    for name, draw, missing in (
        ("ratios.png", draw_ratios, "no peer was timed"),
        ("scaling.png", draw_scaling, "water of one size or none was timed"),
    ):
        path = folder / name
        path.unlink(missing_ok=True)
        if importlib.util.find_spec("matplotlib") is None:
            notes.append(f"{name}: not drawn, matplotlib is not installed (pymlp[train]).")
        elif draw(rows, path):
            pictures.append(path)
        else:
            notes.append(f"{name}: not drawn, {missing}.")
    content = {
        "environments": list(environments),
        "notes": notes,
        "rows": [asdict(row) for row in rows],
    }
    results, report = folder / "results.json", folder / "report.md"
    results.write_text(json.dumps(content, indent=1) + "\n")
    report.write_text(_markdown(rows, environments, notes, [path.name for path in pictures]))
    return [report, results, *pictures]


def _markdown(
    rows: Sequence[Measurement],
    environments: Sequence[Environment],
    notes: Sequence[str],
    pictures: Sequence[str],
) -> str:
    lines = ["# Benchmark", ""]
    for description in dict.fromkeys(_where(environment) for environment in environments):
        lines += [description, ""]
    threads = ", ".join(str(count) for count in sorted({row.threads for row in rows}))
    lines += [
        f"Threads: {threads or 'none'}. Results are checked before they are timed (error: largest "
        "relative one, where there is something to compare with); contestants take turns. Ratio: "
        "median over the rounds of time / time of the first contestant, CPU time on one thread, "
        "wall time on more.",
        "",
        *(f"* {note}" for note in notes),
        *([""] if notes else []),
        "| workload | quantity | dtype | threads | contestant | µs per item | ratio | error |",
        "|---|---|---|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        seconds, ratio = typical(row)
        error = "" if row.error is None else f"{row.error:.0e}"
        cells = [row.workload, row.quantity, row.dtype, str(row.threads), row.contestant]
        cells += [f"{seconds / row.items * 1e6:.3g} / {row.item}", f"{ratio:.3g}", error]
        lines.append(f"| {' | '.join(cells)} |")
    for name in pictures:
        lines += ["", f"![{Path(name).stem}]({name})"]
    return "\n".join(lines) + "\n"


def _where(environment: Environment) -> str:
    """Machine, versions and commit of a run in a sentence or two."""
    packages = environment["packages"].items()
    versions = ", ".join(f"{name} {version}" for name, version in packages)
    build = environment["build"]
    if isinstance(build, dict):
        built = f"{build.get('compiler')}, {build.get('simd_level')}, of {build.get('commit')}"
    else:
        built = str(build)
    return (
        f"{environment['machine']}, {environment['cores']} cores; python {environment['python']}, "
        f"{versions}; commit {environment['commit']}; build: {built}."
    )
