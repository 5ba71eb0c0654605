"""Figures of a training run: loss curve, parity plots, energy profile along a coordinate.

Each function takes plain arrays with their units named, writes one file atomically and returns its
path. The format follows from the suffix (png, pdf, svg). matplotlib comes with the ``train`` extra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pymlp.atomic_files import atomic_path

__all__ = [
    "check_figure_name",
    "energy_profile",
    "loss_curve",
    "parity",
    "plain_log_ticks",
    "surface_maps",
]

_BLUE, _ORANGE, _GREY = "#2166ac", "#d6604d", "#777777"

Array = npt.ArrayLike


def _figure(**arguments: Any) -> tuple[Any, Any]:
    try:
        # The object-oriented interface: no window system, no global state, safe in any thread.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib; install it with: pip install 'pymlp[train]'"
        ) from error
    width, height = arguments.pop("size")
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(**arguments)
    for axis in np.atleast_1d(axes).flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def check_figure_name(path: str | Path) -> None:
    """Refuse a file name whose suffix names no format of figures.

    Raises:
        ValueError: unless the name ends in .png, .pdf or .svg.
    """
    if Path(path).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"path of a figure must end in .png, .pdf or .svg, got {str(path)!r}")


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    check_figure_name(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=160)
    return path


def loss_curve(rows: Sequence[Mapping[str, str | float]], path: str | Path) -> Path:
    """Draw training and validation errors and the learning rate over the epochs.

    Args:
        rows: of the CSV log (``pymlp.training.read_log``), one mapping per epoch; errors are in
            kcal/mol and kcal/mol/Å. Epochs without validation have empty entries.
        path: file to write.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("the log has no rows to draw")

    def column(name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        points = [
            (float(row["epoch"]), float(row[name]))
            for row in rows
            if row.get(name) not in ("", None)
        ]
        x, y = np.array(points, dtype=float).reshape(-1, 2).T
        keep = np.isfinite(y) & (y > 0)  # without forces their columns hold nan
        return x[keep], y[keep]

    # Single epochs are drawn as points: a line through one point is invisible.
    marker = "o" if len(rows) == 1 else ""
    figure, axes = _figure(nrows=1, ncols=3, size=(11, 3.4))
    panels = (
        ("energy_rmse_kcal_mol", "energy RMSE (kcal/mol)"),
        ("force_rmse_kcal_mol_A", "force RMSE (kcal/mol/Å)"),
    )
    for axis, (name, title) in zip(axes, panels, strict=False):
        drawn = False
        for part, color in (("train", _GREY), ("validation", _BLUE)):
            x, y = column(f"{part}_{name}")
            if len(x):
                axis.plot(x, y, color=color, lw=1.3, marker=marker, label=part)
                drawn = True
        axis.set(xlabel="epoch", ylabel=title)
        if drawn:
            axis.set_yscale("log")
            plain_log_ticks(axis.yaxis)
            axis.legend(frameon=False)
        else:
            axis.text(0.5, 0.5, "not trained on", ha="center", transform=axis.transAxes)
    axes[2].plot(*column("learning_rate"), color=_ORANGE, lw=1.3, marker=marker)
    axes[2].set(xlabel="epoch", ylabel="learning rate", yscale="log")
    return _save(figure, path)


def plain_log_ticks(*axes: Any) -> None:
    """Label short logarithmic axes 0.5, 1, 2 rather than with powers of ten alone.

    Args:
        axes: ``xaxis`` or ``yaxis`` of matplotlib's, with all their curves drawn.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in axes:
        low, high = sorted(axis.get_view_interval())
        subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def parity(
    energies: tuple[Array, Array],
    forces: tuple[Array, Array] | None,
    path: str | Path,
    *,
    title: str = "",
) -> Path:
    """Draw predicted against reference energies and force components, with their RMSE.

    Energies are drawn relative to the mean of the reference; the errors are those of the values
    as given.

    Args:
        energies: reference and predicted, [B] each, kcal/mol.
        forces: reference and predicted, any equal shapes, kcal/mol/Å; ``None`` leaves them out.
        path: file to write.
        title: of the figure.

    Raises:
        ValueError: for different lengths or empty arrays.
    """
    panels = [("energy", "kcal/mol", energies)]
    if forces is not None:
        panels.append(("force component", "kcal/mol/Å", forces))
    figure, axes = _figure(ncols=len(panels), size=(4.4 * len(panels), 4.2))
    for axis, (name, unit, pair) in zip(np.atleast_1d(axes), panels, strict=True):
        reference, predicted = (np.asarray(values, dtype=float).ravel() for values in pair)
        if reference.shape != predicted.shape or not len(reference):
            raise ValueError(
                f"{name}: reference and prediction must have the same length above 0, "
                f"got {len(reference)} and {len(predicted)}"
            )
        rmse = float(np.sqrt(np.mean((predicted - reference) ** 2)))
        shift = float(reference.mean()) if name == "energy" else 0.0
        x, y = reference - shift, predicted - shift
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        margin = 0.04 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        axis.plot(limits, limits, color=_GREY, lw=0.8, zorder=0)
        dense = len(x) > 2000
        axis.plot(x, y, ".", color=_BLUE, ms=2 if dense else 4, alpha=0.3 if dense else 0.7,
                  mew=0, rasterized=dense)  # fmt: skip
        relative = " - mean" if name == "energy" else ""
        axis.set(
            xlim=limits,
            ylim=limits,
            aspect="equal",
            xlabel=f"reference {name}{relative} ({unit})",
            ylabel=f"predicted {name}{relative} ({unit})",
        )
        axis.text(
            0.05, 0.93, f"RMSE {rmse:.3g} {unit}\nn = {len(x)}", transform=axis.transAxes, va="top"
        )
    if title:
        figure.suptitle(title, fontsize="medium")
    return _save(figure, path)


def energy_profile(
    coordinate: Array,
    energies: Mapping[str, Array],
    path: str | Path,
    *,
    label: str = "d(C-O) - d(C-C) (Å)",
    bins: int = 24,
) -> Path:
    """Draw energies along a reaction coordinate: every structure, and the mean of each bin.

    Energies are drawn relative to the lowest bin mean of the first entry.

    Args:
        coordinate: [B] Å, of each structure.
        energies: [B] kcal/mol each, by name; the first is the reference.
        path: file to write.
        label: of the coordinate, with its unit.
        bins: number of bins along the coordinate.

    Raises:
        ValueError: for different lengths or empty arrays.
    """
    x = np.asarray(coordinate, dtype=float).ravel()
    series = {name: np.asarray(values, dtype=float).ravel() for name, values in energies.items()}
    if not len(x) or not series or any(len(values) != len(x) for values in series.values()):
        raise ValueError(
            f"coordinate and energies must have the same length above 0, got {len(x)} and "
            f"{[len(values) for values in series.values()]}"
        )
    edges = np.linspace(x.min(), x.max() + 1e-9, bins + 1)
    which = np.clip(np.digitize(x, edges) - 1, 0, bins - 1)
    filled = [k for k in range(bins) if (which == k).any()]
    centers = np.array([x[which == k].mean() for k in filled])
    means = {
        name: np.array([values[which == k].mean() for k in filled])
        for name, values in series.items()
    }
    zero = next(iter(means.values())).min()
    figure, axis = _figure(size=(6.4, 4.2))
    styles = ((_GREY, "o", "-"), (_BLUE, "s", "--"), (_ORANGE, "^", ":"))
    for (name, values), (color, marker, line) in zip(series.items(), styles, strict=False):
        axis.plot(x, values - zero, ".", color=color, ms=2.5, alpha=0.25, mew=0)
        axis.plot(
            centers, means[name] - zero, line, marker=marker, ms=4, lw=1.4, color=color, label=name
        )
    axis.set(xlabel=label, ylabel="energy (kcal/mol), mean per bin")
    axis.legend(frameon=False)
    return _save(figure, path)


def surface_maps(
    x: Array,
    y: Array,
    panels: Sequence[tuple[str, Array, Literal["value", "difference", "positive"]]],
    path: str | Path,
    *,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    points: Array | None = None,
    columns: int = 3,
) -> Path:
    """Draw functions of two variables side by side as filled contours.

    Values share one colour scale, differences one that is white at zero; what is only positive
    (variances, errors) has its own. The last two end where 99 % of the picture does, and an arrow
    on the colour bar says that there is more. Places without a value (nan) stay grey.

    Args:
        x: [n_x], the first coordinate.
        y: [n_y], the second.
        panels: title, image [n_y, n_x] and kind of each.
        path: file to write.
        unit: of all panels, for the colour bars.
        limits: of the values' colour scale; beyond it the last colour is drawn.
        points: [n, 2] to mark as dots in the first panel.
        columns: panels in a row.

    Raises:
        ValueError: no panels, an image of the wrong shape or without any value.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    images = [(title, np.ma.masked_invalid(image), kind) for title, image, kind in panels]
    if not images:
        raise ValueError("panels must hold at least one image")
    for title, image, _ in images:
        if image.shape != (len(y), len(x)) or image.count() == 0:
            raise ValueError(
                f"image of {title!r} must have shape {(len(y), len(x))} and values in it, "
                f"got {image.shape}"
            )
    width = min(columns, len(images))
    rows = -(-len(images) // width)
    figure, axes = _figure(nrows=rows, ncols=width, size=(3.9 * width, 3.0 * rows), squeeze=False)
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    values = [image for _, image, kind in images if kind == "value"]
    if limits is None and values:
        limits = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    differences = [image for _, image, kind in images if kind == "difference"]
    largest = max((_high(abs(d)) for d in differences), default=1.0)
    for axis, (title, image, kind) in zip(axes.flat, images, strict=False):
        low, high = {
            "value": limits or (0.0, 1.0),
            "difference": (-largest, largest),
            "positive": (0.0, _high(image)),
        }[kind]
        colors = {"value": "viridis", "difference": "RdBu_r", "positive": "magma_r"}[kind]
        levels = np.linspace(low, high, 25)
        axis.set_facecolor("#dddddd")
        beyond = (image.min() < low, image.max() > high)
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
        drawn = axis.contourf(x, y, image, levels=levels, cmap=colors, extend=extend)
        if kind == "value":
            axis.contour(
                x, y, image, levels=levels[::2], colors="white", linewidths=0.4, linestyles="solid"
            )
        ticks = [t for t in MaxNLocator(5).tick_values(low, high) if low <= t <= high]
        bar = figure.colorbar(
            drawn, ax=axis, label=unit, shrink=0.8, aspect=18, ticks=ticks, format=ScalarFormatter()
        )
        bar.formatter.set_powerlimits((-2, 3))
        axis.set(title=title, xlabel="x", ylabel="y", aspect="equal")
    if points is not None:
        axes.flat[0].plot(*np.asarray(points, dtype=float).T, ".", color="black", ms=1.5)
    for axis in list(axes.flat)[len(images) :]:
        axis.set_visible(False)
    return _save(figure, path)


def _high(image: Any) -> float:
    """What 99 % of a picture without negative values lie below; 1 if it is zero."""
    return float(np.percentile(image.compressed(), 99)) or 1.0
