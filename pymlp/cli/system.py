"""`pymlp doctor`, `pymlp benchmark` and `pymlp demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )(benchmark)
    app.command()(demo)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions and what was built, compute a small check, and name the fix of a failure.

    Exit code 1 if something does not work.
    """
    from pymlp.cli.application import PROBLEMS_FOUND
    from pymlp.doctor import examine

    report = examine()
    if as_json:
        import json

        findings = [
            {"name": f.name, "value": f.value, "state": f.state, "fix": f.fix}
            for f in report.findings
        ]
        typer.echo(json.dumps({"ok": report.ok, "findings": findings}, indent=2))
    else:
        report.print()
    if not report.ok:
        raise typer.Exit(PROBLEMS_FOUND)


def benchmark(context: typer.Context) -> None:
    """Time the descriptors on this machine, --report FOLDER: beside peers (see its --help)."""
    from pymlp import benchmark_command

    raise typer.Exit(benchmark_command.main(context.args))


def demo(
    directory: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the model and the pictures.")
    ] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 150,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an earlier demo in that folder.")
    ] = False,
) -> None:
    """Train on the data that come with pymlp, evaluate, and draw: some minutes on two cores."""
    from pymlp.demo import run

    run(directory, epochs=epochs, overwrite=overwrite)
