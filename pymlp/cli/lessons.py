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
    as_notebook: Annotated[
        Path | None,
        typer.Option("--notebook", help="Write it as this Jupyter notebook, and run nothing."),
    ] = None,
    where: Annotated[
        bool, typer.Option("--path", help="Print where the script lies, and run nothing.")
    ] = False,
) -> None:
    """Run a lesson: print its numbers, save its figures.

    The scripts are notebooks in jupytext's percent format: read them, change them, open them in
    Jupyter.
    """
    import json

    from pymlp.atomic_files import atomic_writer
    from pymlp.lessons import find, notebook, run, scripts

    if show_list or name is None:
        for script in scripts():
            typer.echo(f"{script.name:12} {script.title}")
        return
    script = find(name)
    if where:
        typer.echo(str(script.path))
        return
    if as_notebook is not None:
        with atomic_writer(as_notebook) as file:
            json.dump(notebook(script), file, indent=1, ensure_ascii=False)
        typer.echo(f"notebook: {as_notebook}")
        return
    folder = output if output is not None else Path("runs") / f"lesson-{script.name}"
    run(script, folder, short=short, report=typer.echo)
