"""`pymlp lesson`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(lesson)


def lesson(
    name: Annotated[str | None, typer.Argument(help="1 … 7, or comparison.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for figures and numbers.json [runs/lesson-N]."),
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="Seconds instead of minutes: small sets, few epochs.")
    ] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the lessons.")] = False,
    where: Annotated[
        bool, typer.Option("--path", help="Print where the script lies, and run nothing.")
    ] = False,
) -> None:
    """Run a lesson: print its numbers, save its figures.

    The scripts are notebooks in jupytext's percent format: read them, change them, open them in
    Jupyter.
    """
    from pymlp.lessons import find, run, scripts

    if show_list or name is None:
        for script in scripts():
            typer.echo(f"{script.name:12} {script.title}")
        return
    script = find(name)
    if where:
        typer.echo(str(script.path))
        return
    folder = output if output is not None else Path("runs") / f"lesson-{script.name}"
    run(script, folder, short=short, report=typer.echo)
