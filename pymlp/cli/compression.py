"""`pymlp compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(compress)


def compress(
    model: Annotated[Path, typer.Argument(help="Folder of a trained DeepPot-SE model.")],
    data: Annotated[str, typer.Argument(help="Structures to compare on: file or file@start:stop.")],
    output: Annotated[Path, typer.Argument(help="Folder to write the tabulated model to.")],
    table_tolerance: Annotated[
        float, typer.Option(help="Largest error of the embedding, relative to its largest value.")
    ] = 1e-7,
    shortest: Annotated[
        float, typer.Option(help="Shortest distance in the table, Å; below: the networks.")
    ] = 0.5,
    energy_tolerance: Annotated[
        float, typer.Option(help="Largest deviation to accept, eV per atom.")
    ] = 1e-5,
    force_tolerance: Annotated[
        float, typer.Option(help="Largest deviation of a force component to accept, eV/Å.")
    ] = 1e-4,
    length_unit: Annotated[str | None, typer.Option(help="Of the coordinates in DATA.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replace a model's embedding networks by tables: the same potential, several times as fast.

    Refuses, and writes nothing, where energies or forces of DATA deviate by more than allowed.
    """
    import pymlp
    from pymlp import units
    from pymlp.compression import compress as tabulate
    from pymlp.io import read
    from pymlp.labelled_data import split_selection

    if (output / "model.json").exists():
        raise ValueError(f"{output} already holds a model; choose another folder")
    potential = pymlp.load(model)
    file, start, stop = split_selection(data)
    named: dict[str, Any] = {} if length_unit is None else {"length_unit": length_unit}
    batch = read(file, labels=False, start=start, stop=stop, **named)
    compressed, report = tabulate(
        potential,
        batch,
        table_tolerance=table_tolerance,
        shortest=shortest,
        energy_tolerance=energy_tolerance,
        force_tolerance=force_tolerance,
    )
    compressed.save(output)
    if as_json:
        import json

        typer.echo(json.dumps(compressed.metadata["compression"], indent=2))
        return
    kcal = units.EV_TO_KCAL_MOL
    typer.echo(
        f"{report.n_structures} structures, largest deviation from the exact networks:\n"
        f"  energy {report.energy_deviation:.2e} eV per atom "
        f"({report.energy_deviation * kcal:.2e} kcal/mol)\n"
        f"  force  {report.force_deviation:.2e} eV/Å ({report.force_deviation * kcal:.2e} "
        "kcal/mol/Å)\n"
        f"table: {report.intervals} intervals, relative error of the embedding at most "
        f"{report.table_bound:.1e}\nwritten to {output}"
    )
