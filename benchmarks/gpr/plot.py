"""Draw the learning curve from the JSON files of `benchmarks.gpr.accuracy`.

python -m benchmarks.gpr.plot benchmarks/results/gpr_accuracy_whole.json ... -o curve.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

#: Held-out errors of peers on the same data, measured before (TARGETS section 2).
PEERS = {
    "sGDML": ((200, 500, 1000), (0.73, 0.45, 0.29), (1.97, 1.29, 0.98)),
    "gap_fit SOAP": ((100, 200), (1.10, 0.85), (3.12, 2.69)),
    "FLARE": ((100, 200), (1.19, 0.78), (3.41, 2.65)),
}

_ENERGY, _FORCE = (0.15, 0.2, 0.3, 0.5, 0.7, 1.0), (0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
#: Values and labels of the two error axes.
TICKS = tuple((values, [f"{value:g}" for value in values]) for values in (_ENERGY, _FORCE))


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), constrained_layout=True)
    for name, (sizes, energy, force) in PEERS.items():
        axes[0].plot(sizes, energy, "--", marker="o", ms=3, lw=1, label=name)
        axes[1].plot(sizes, force, "--", marker="o", ms=3, lw=1, label=name)
    for path in given.files:
        rows = json.loads(path.read_text())["rows"]
        name = path.stem.removeprefix("gpr_accuracy_")
        sizes = [row["n"] for row in rows]
        for part, style in (("validation", "-"), ("unseen_pool", ":")):
            chosen = [row[part] for row in rows if part in row]
            label = f"pymlp {name}, {part.replace('_', ' ')}"
            for axis, key in zip(axes, ("energy_rmse", "force_rmse"), strict=True):
                values = [item[key] for item in chosen]
                axis.plot(sizes[: len(values)], values, style, marker="s", ms=4, label=label)
    for axis, title in zip(axes, ("energy, kcal/mol", "force component, kcal/mol/Å"), strict=True):
        axis.set(
            xscale="log", yscale="log", xlabel="training structures", ylabel=f"RMSE of {title}"
        )
        ticks = (100, 200, 500, 1000, 1500)
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.set_yticks(*TICKS[axis is axes[1]])
        axis.minorticks_off()
        axis.grid(alpha=0.3, which="both")
    axes[0].legend(fontsize=7)
    figure.savefig(given.output, dpi=150)


if __name__ == "__main__":
    main()
