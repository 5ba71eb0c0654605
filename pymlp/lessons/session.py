"""One run of a lesson: where its pictures, numbers and times go."""

from __future__ import annotations

import html
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pymlp.atomic_files import atomic_path, atomic_writer

__all__ = ["Lesson", "begin", "under_runner"]

_T = TypeVar("_T")

#: Without a runner (in a notebook, say) these say how a lesson runs.
SHORT_VARIABLE, OUTPUT_VARIABLE = "PYMLP_LESSON_SHORT", "PYMLP_LESSON_OUTPUT"


class Lesson:
    """The running lesson.

    Args:
        short: small problems and few epochs: seconds, to see that everything works.
        output: folder for pictures, numbers.json and whatever the lesson writes; a temporary one
            if ``None``.
    """

    def __init__(self, *, short: bool = False, output: str | Path | None = None) -> None:
        self.short = bool(short)
        self.numbers: dict[str, dict[str, float | str]] = {}
        self.tables: dict[str, list[dict[str, float | str]]] = {}
        self.figures: list[Path] = []
        self.views: list[Path] = []
        self.seconds: float | None = None
        self._begun = time.perf_counter()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if output is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="pymlp-lesson-")
            output = self._temporary.name
        self.output = Path(output)
        self.output.mkdir(parents=True, exist_ok=True)

    def choose(self, full: _T, short: _T) -> _T:
        """The first value in a full run, the second in a short one."""
        return short if self.short else full

    def file(self, name: str) -> Path:
        """Path of a file or folder of that name in the output folder."""
        return self.output / name

    # -- what a reader sees ------------------------------------------------------------------

    # These return nothing: a notebook would show it below the cell.

    def figure(self, figure: Any, name: str, caption: str = "") -> None:
        """Save a figure as ``name``.png, and show it in a notebook.

        Args:
            figure: a matplotlib figure, or the path of a PNG that is written already.
            name: without suffix, once per lesson.
            caption: one sentence for those who cannot see the picture; the name if empty.

        Raises:
            ValueError: for a name that is taken or holds more than letters, digits, - and _.
        """
        path = self.file(f"{_checked_name(name)}.png")
        if path in self.figures:
            raise ValueError(f"name of a figure must be new, got {name!r} again")
        if isinstance(figure, (str, Path)):
            if Path(figure) != path:
                path.write_bytes(Path(figure).read_bytes())
        else:
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=150)
            _close(figure)
        self.figures.append(path)
        if _in_notebook():
            from IPython.display import Image, display

            # Twice as many pixels as are shown: sharp on any screen.
            display(Image(path.read_bytes(), format="png", alt=caption or name, retina=True))
        else:
            print(f"figure: {path}")

    def number(self, name: str, value: Any, unit: str = "") -> None:
        """Print a number with its unit and keep it.

        Args:
            name: what it is, once per lesson.
            value: a number, or a tensor or array of one element.
            unit: such as ``"kcal/mol"``; empty for what has none.

        Raises:
            ValueError: for a name that is taken, or a value that is not finite.
        """
        number = float(value)
        if name in self.numbers:
            raise ValueError(f"name of a number must be new, got {name!r} again")
        if not math.isfinite(number):
            raise ValueError(f"{name!r} must be finite, got {number}")
        self.numbers[name] = {"value": number, "unit": unit}
        print(f"{name}: {_shown(number)}{' ' if unit else ''}{unit}")

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show rows with equal columns, and keep them.

        Args:
            name: of the table, once per lesson.
            rows: column title (with its unit) to text or number.

        Raises:
            ValueError: no rows, different columns, a name that is taken.
        """
        columns = list(rows[0]) if rows else []
        if not columns or any(list(row) != columns for row in rows):
            raise ValueError(f"rows of {name!r} must be given and have the same columns")
        if name in self.tables:
            raise ValueError(f"name of a table must be new, got {name!r} again")
        kept = [
            {key: value if isinstance(value, str) else float(value) for key, value in row.items()}
            for row in rows
        ]
        self.tables[name] = kept
        text = [[v if isinstance(v, str) else _shown(v) for v in row.values()] for row in kept]
        if _in_notebook():
            _show_html(_html_table(columns, text, kept))
            return
        widths = [max(map(len, column)) for column in zip(columns, *text, strict=True)]
        for line in (columns, *text):
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))

    def view(self, page: str, name: str) -> None:
        """Save a piece of HTML as ``name``.html, and show it in a notebook.

        Args:
            page: from ``pymlp.molecule_view``; it needs nothing from the network.
            name: without suffix, once per lesson.

        Raises:
            ValueError: for a name that is taken or holds more than letters, digits, - and _.
        """
        path = self.file(f"{_checked_name(name)}.html")
        if path in self.views:
            raise ValueError(f"name of a view must be new, got {name!r} again")
        with atomic_writer(path) as file:
            file.write(
                '<!doctype html><html lang="en"><head><meta charset="utf-8">'
                f"<title>{html.escape(name)}</title></head><body>{page}</body></html>\n"
            )
        self.views.append(path)
        if _in_notebook():
            _show_html(page)
        else:
            print(f"view: {path}")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure a block, and keep its wall time as the number ``"<name>, time"``."""
        begun = time.perf_counter()
        yield
        self.number(f"{name}, time", time.perf_counter() - begun, "s")

    def end(self) -> None:
        """Say how long it took, and write numbers.json."""
        import torch

        self.seconds = time.perf_counter() - self._begun
        threads = torch.get_num_threads()
        mode = "short run" if self.short else "full run"
        plural = "s" if threads > 1 else ""
        print(f"time: {self.seconds:.1f} s ({mode}, {threads} thread{plural})")
        report = {
            "short": self.short,
            "seconds": round(self.seconds, 3),
            "threads": threads,
            "numbers": self.numbers,
            "tables": self.tables,
            "figures": [path.name for path in self.figures],
            "views": [path.name for path in self.views],
        }
        with atomic_writer(self.file("numbers.json")) as file:
            file.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


_current: list[Lesson] = []


def begin() -> Lesson:
    """The lesson that is running; the first call of every lesson script.

    Under ``pymlp lesson`` it is the runner's; elsewhere (a notebook, ``python lessons/1_...py``)
    it is a new one, short where the environment variable ``PYMLP_LESSON_SHORT`` is 1, writing into
    ``PYMLP_LESSON_OUTPUT``.
    """
    if _current:
        return _current[-1]
    output = os.environ.get(OUTPUT_VARIABLE) or None
    return Lesson(short=os.environ.get(SHORT_VARIABLE, "0") == "1", output=output)


@contextmanager
def under_runner(lesson: Lesson) -> Iterator[Lesson]:
    """Make ``begin`` return this lesson."""
    _current.append(lesson)
    try:
        yield lesson
    finally:
        _current.pop()


def _checked_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        raise ValueError(f"name must be letters, digits, - and _, got {name!r}")
    return name


def _shown(value: float) -> str:
    """Four digits, without an exponent where that is short."""
    if value == int(value) and abs(value) < 1e7:
        return str(int(value))
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.1f}"


def _in_notebook() -> bool:
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _show_html(page: str) -> None:
    from IPython.display import HTML, display

    display(HTML(page))


def _html_table(
    columns: Sequence[str], text: list[list[str]], rows: list[dict[str, float | str]]
) -> str:
    """A table whose numbers stand to the right."""
    side = ["left" if isinstance(rows[0][name], str) else "right" for name in columns]

    def line(tag: str, cells: Sequence[str]) -> str:
        inner = "".join(
            f'<{tag} style="text-align:{align}">{html.escape(cell)}</{tag}>'
            for cell, align in zip(cells, side, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "".join(line("td", cells) for cells in text)
    return f"<table><thead>{line('th', columns)}</thead><tbody>{body}</tbody></table>"


def _close(figure: Any) -> None:
    """Forget a pyplot figure, so that a notebook does not show it twice."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)
