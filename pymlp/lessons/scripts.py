"""The lesson scripts: found, read cell by cell, run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymlp.lessons.session import Lesson, under_runner

__all__ = ["Cell", "Script", "find", "notebook", "parse", "run", "scripts"]

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cell:
    """One cell of a script.

    Attributes:
        source: of a text cell without the comment signs, of a code cell as it stands.
        text: whether it is a text (markdown) cell.
        line: of the file, 1 is the first, where the source begins.
    """

    source: str
    text: bool
    line: int


@dataclass(frozen=True)
class Script:
    """A lesson script.

    Attributes:
        name: what the command line calls it: ``"1"`` of ``1_mueller_brown_network.py``, and the
            whole stem where no number comes first.
        path: of the file.
        title: its first heading.
    """

    name: str
    path: Path
    title: str


def parse(text: str) -> list[Cell]:
    """Split a script in jupytext's percent format into its cells.

    What stands before the first ``# %%`` (jupytext's header) is left out.
    """
    cells: list[Cell] = []
    kind: bool | None = None
    lines: list[str] = []
    start = 1

    def close() -> None:
        source = "\n".join(lines).strip("\n")
        skipped = next((i for i, line in enumerate(lines) if line.strip()), 0)
        if kind is not None and source:
            if kind:
                source = re.sub(r"(?m)^# ?", "", source)
            cells.append(Cell(source, kind, start + skipped))

    for number, line in enumerate(text.splitlines(), 1):
        marker = re.match(r"# %%(.*)", line)
        if marker is None:
            lines.append(line)
            continue
        close()
        kind, lines, start = "[markdown]" in marker[1], [], number + 1
    close()
    return cells


def notebook(script: Script | Path) -> dict[str, Any]:
    """A script as a Jupyter notebook that has not been run: what ``json.dump`` makes an .ipynb of.

    Args:
        script: from :func:`find`, or any file in percent format.
    """
    path = script.path if isinstance(script, Script) else Path(script)
    cells: list[dict[str, Any]] = []
    for number, cell in enumerate(parse(path.read_text(encoding="utf-8"))):
        entry: dict[str, Any] = {
            "cell_type": "markdown" if cell.text else "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": cell.source,
        }
        cells.append(entry if cell.text else entry | {"execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def folder() -> Path:
    """Where the scripts lie: in an installed package, else in the checkout around it.

    Raises:
        FileNotFoundError: there are none.
    """
    for place in (_PACKAGE / "lesson_scripts", _PACKAGE.parent / "lessons"):
        if any(place.glob("*.py")):
            return place
    raise FileNotFoundError("the lesson scripts are missing: install the package again")


def scripts() -> list[Script]:
    """All lesson scripts, the numbered ones first.

    Raises:
        FileNotFoundError: there are none.
    """
    found = []
    for path in sorted(folder().glob("*.py")):
        number = re.match(r"(\d+)_", path.name)
        headings = (
            line.lstrip("# ")
            for cell in parse(path.read_text(encoding="utf-8"))
            if cell.text
            for line in cell.source.splitlines()
            if line.startswith("# ")
        )
        name = number[1] if number else path.stem
        found.append(Script(name, path, next(headings, path.stem)))
    return sorted(found, key=lambda script: (not script.name.isdigit(), script.path.name))


def find(name: str) -> Script:
    """The script of that name (``"1"`` … ``"7"``, ``"comparison"``).

    Raises:
        ValueError: there is none.
    """
    known = scripts()
    for script in known:
        if str(name) in (script.name, script.path.stem):
            return script
    names = ", ".join(script.name for script in known)
    raise ValueError(f"lesson must be one of {names}, got {name!r}")


def run(
    script: Script | Path,
    output: str | Path | None = None,
    *,
    short: bool = False,
    report: Callable[[str], None] | None = None,
) -> Lesson:
    """Run a script cell by cell in this process.

    Args:
        script: from :func:`find`, or any file in percent format.
        output: folder for what it writes; temporary if ``None``.
        short: seconds instead of minutes.
        report: called with every heading, and with the time of the section before it.

    Returns:
        The ended lesson: numbers, tables, figures, seconds.

    Raises:
        ImportError: without matplotlib.
        BaseException: whatever a cell raises, with the script's own line numbers.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "lessons draw with matplotlib; install it with: pip install 'pymlp[train]'"
        ) from error
    path = script.path if isinstance(script, Script) else Path(script)
    backend = matplotlib.get_backend()
    matplotlib.use("agg")  # no window, in no environment
    namespace: dict[str, Any] = {"__name__": "__main__", "__file__": str(path)}
    begun = time.perf_counter()
    try:
        with under_runner(Lesson(short=short, output=output)) as lesson:
            for cell in parse(path.read_text(encoding="utf-8")):
                if cell.text:
                    for heading in re.findall(r"(?m)^#+ (.*)", cell.source):
                        if report is not None:
                            report(f"[{time.perf_counter() - begun:6.1f} s] {heading}")
                    continue
                # Blank lines in front keep line numbers right in tracebacks.
                code = compile("\n" * (cell.line - 1) + cell.source, str(path), "exec")
                exec(code, namespace)
    finally:
        matplotlib.use(backend)
    if lesson.seconds is None:
        lesson.end()
    return lesson
