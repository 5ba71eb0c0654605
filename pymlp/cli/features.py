"""`pymlp featurize`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pymlp.structures import Batch


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(featurize)


def featurize(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG_OR_MODEL", help="run.yaml, or a model's folder.")
    ],
    data: Annotated[str, typer.Argument(help="Structures: file or file@start:stop.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File: .h5 or .npz.")],
    jacobian: Annotated[
        bool, typer.Option("--jacobian", help="Also dG/dR of every structure (1/Å).")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures computed at once.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
    precision: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    length_unit: Annotated[str | None, typer.Option(help="Of the coordinates in DATA.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
) -> None:
    """Write the features of many structures, with flat memory.

    An interrupted command goes on where it stopped when it is given again.
    """
    import torch
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from pymlp.devices import chosen_device
    from pymlp.featurize import featurize as run
    from pymlp.io import inspect_file, iread
    from pymlp.labelled_data import split_selection

    if precision not in ("float32", "float64"):
        raise ValueError(f"precision must be float32 or float64, got {precision!r}")
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists; choose another name, or give --overwrite")
    where = chosen_device(device, "--device")
    descriptor = _descriptor(source).to(where)
    file, start, stop = split_selection(data)
    summary = inspect_file(file)
    total = summary.n_structures if summary.layout != "ASE" else None
    if start < 0 or (stop is not None and stop < 0):
        if total is None:
            total = sum(len(batch) for batch in iread(file, 1024, labels=False))
        start, stop, _ = slice(start, stop).indices(total)
    if total is not None:
        begin, end, _ = slice(start, stop).indices(total)
        total = max(0, end - begin)
    named: dict[str, Any] = {} if length_unit is None else {"length_unit": length_unit}

    def batches(skip: int) -> Iterator[Batch]:
        for batch in iread(file, batch_size, labels=False, start=start + skip, stop=stop, **named):
            yield batch.to(where)

    identity = f"{_digest(Path(file))} {start}:{stop} {length_unit or 'Å'}"
    console = Console(stderr=True)
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=console,
        disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("featurize", total=total)
        count = run(
            descriptor,
            batches,
            output,
            jacobian=jacobian,
            dtype=getattr(torch, precision),
            source=identity,
            progress=lambda done: bar.update(task, completed=done),
        )
    typer.echo(f"{count} structures, {descriptor.n_features} features each atom, in {output}")


def _descriptor(source: Path) -> Any:
    from pymlp.model_files import DESCRIPTION

    if source.is_dir() or source.name == DESCRIPTION:
        import pymlp

        return pymlp.load(source).descriptor
    from pymlp.config import kind_named, load_config

    config = load_config(source)
    descriptor = kind_named(config.kind).build_descriptor(config)
    if descriptor.trainable:
        typer.echo(
            f"note: {source} describes a {config.kind} before training: these features are those "
            "of random weights. The folder of a trained model gives those of its own",
            err=True,
        )
    return descriptor


def _digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(file.read()).hexdigest()
        )
