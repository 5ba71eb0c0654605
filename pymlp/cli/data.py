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


@app.command()
def label(
    source: Annotated[Path, typer.Argument(metavar="IN.npz", help="Structures to label.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.npz", help="File to write.")],
    method: Annotated[str, typer.Option(help="Functional, in PySCF's names.")] = "b3lyp",
    basis: Annotated[str, typer.Option(help="Basis set.")] = "6-31g*",
    charge: Annotated[int, typer.Option(help="Total charge.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Label so many structures; all if not given.")
    ] = None,
    offset: Annotated[int, typer.Option(min=0, help="Leave out the first so many.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="Folder of finished structures.", show_default="OUT.work")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PySCF.")] = 1,
    pack: Annotated[
        bool, typer.Option("--pack", help="Compute nothing; write what is done to OUT.npz.")
    ] = False,
) -> None:
    """Label structures with density-functional energies and gradients (needs pyscf).

    Labels that the input has become those of the lower level of theory, as Δ-learning wants
    them. An interrupted command goes on where it stopped when it is given again.
    """
    from pymlp.data.label import Level
    from pymlp.data.label import label as compute

    level = Level(method=method, basis=basis, charge=charge)
    compute(
        source,
        output,
        level,
        limit=limit,
        offset=offset,
        threads=threads,
        work=work,
        pack_only=pack,
    )
