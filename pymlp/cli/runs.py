"""`pymlp init` and `pymlp train`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, cast

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    from pymlp.config.kinds import KINDS

    lines = "\n\n".join(f"{kind.name}: {kind.summary}" for kind in KINDS.values())
    app.command(help=f"{inspect.cleandoc(init.__doc__ or '')}\n\n{lines}")(init)
    app.command()(train)


def init(
    kind: Annotated[str, typer.Argument(help="Kind of potential (see above).")],
    train: Annotated[
        str, typer.Option(help="Training structures: a file, or a part of it: file@start:stop.")
    ],
    validation: Annotated[str, typer.Option(help="Validation structures: file or part.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Configuration to write.")] = Path(
        "run.yaml"
    ),
    target: Annotated[
        str | None,
        typer.Option(
            help="total, or delta: labels minus those of a lower level of theory.",
            show_default="delta where DATA has a lower level",
        ),
    ] = None,
    energy_key: Annotated[str | None, typer.Option(help="Name of the energies.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Name of the forces.")] = None,
    gradient_key: Annotated[
        str | None, typer.Option(help="Name of the gradients (minus the forces).")
    ] = None,
    baseline_energy_key: Annotated[
        str | None, typer.Option(help="Energies of a lower level of theory (Δ-learning).")
    ] = None,
    baseline_forces_key: Annotated[str | None, typer.Option(help="Its forces.")] = None,
    baseline_gradient_key: Annotated[str | None, typer.Option(help="Or its gradients.")] = None,
    energy_unit: Annotated[str | None, typer.Option(help="eV, Hartree, kcal/mol, ...")] = None,
    force_unit: Annotated[str | None, typer.Option(help="eV/Å, Hartree/Bohr, ...")] = None,
    length_unit: Annotated[str | None, typer.Option(help="Å or Bohr.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing configuration.")] = False,
) -> None:
    """Write a complete commented configuration for a data set.

    Keys and units of npz files are found by their layout; other formats do not fix them, and
    units must be given.
    """
    from pymlp.atomic_files import atomic_writer
    from pymlp.config.kinds import kind_named
    from pymlp.config.start import starting_configuration

    if target not in (None, "total", "delta"):
        raise ValueError(f"--target must be total or delta, got {target!r}")
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists; choose another name with -o, or give --overwrite")
    given = {
        "energy": energy_key,
        "forces": forces_key,
        "gradient": gradient_key,
        "baseline_energy": baseline_energy_key,
        "baseline_forces": baseline_forces_key,
        "baseline_gradient": baseline_gradient_key,
        "energy_unit": energy_unit,
        "force_unit": force_unit,
        "length_unit": length_unit,
    }
    text, found = starting_configuration(
        kind_named(kind), train, validation, output, given, cast(Any, target)
    )
    with atomic_writer(output) as file:
        file.write(text)
    for line in found:
        typer.echo(f"  {line}")
    typer.echo(f"wrote {output}; train with: pymlp train {output} -o runs/{kind}")


def train(
    config: Annotated[Path, typer.Argument(help="Configuration, from pymlp init.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of the run.", show_default="runs/<config>"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, exactly.")
    ] = False,
) -> None:
    """Train a potential; the folder of the run then holds model, log, figures and errors."""
    from pymlp.runs import train as run

    directory = output if output is not None else Path("runs") / config.stem
    try:
        result = run(config, directory, resume=resume)
    except KeyboardInterrupt:
        again = f"pymlp train {config} -o {directory} --resume"
        typer.echo(f"interrupted; go on with: {again}", err=True)
        raise typer.Exit(130) from None
    for note in result.notes:
        typer.echo(f"  {note}")
    from pymlp.cli.reports import error_table

    error_table(result.metrics, f"validation of {directory}")
    typer.echo(f"model in {directory} (pymlp evaluate {directory} DATA)")
    for figure in result.figures:
        typer.echo(f"figure {figure}")
