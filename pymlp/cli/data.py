"""`pymlp data`: check and label data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="npz, extxyz, or any file that ASE reads.")],
    require: Annotated[
        list[str] | None,
        typer.Option(help="A label that every frame must have (may be given several times)."),
    ] = None,
    length_unit: Annotated[str, typer.Option(help="Unit of the coordinates.")] = "Å",
    closest: Annotated[
        float, typer.Option(min=0.0, help="Atoms nearer than this (Å) count as overlapping.")
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for NaN, overlapping atoms, missing labels and duplicate frames.

    Frames are counted from 0. Exit code 1 if anything is found.
    """
    from pymlp.cli.application import PROBLEMS_FOUND
    from pymlp.data_checks import check_file

    count, problems = check_file(
        file,
        labels=tuple(require) if require else None,
        length_unit=length_unit,
        closest=closest,
    )
    if as_json:
        import json

        report = {
            "file": str(file),
            "n_frames": count,
            "problems": [
                {"kind": p.kind, "text": p.text, "frames": list(p.frames)} for p in problems
            ],
        }
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    elif problems:
        typer.echo(f"{file}: {count} frames")
        for problem in problems:
            typer.echo(f"  {problem}")
    else:
        typer.echo(f"{file}: {count} frames, nothing found")
    if problems:
        raise typer.Exit(PROBLEMS_FOUND)
