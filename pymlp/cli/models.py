"""`pymlp evaluate`, `pymlp predict` and `pymlp info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(evaluate)
    app.command()(predict)
    app.command()(info)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    data: Annotated[str, typer.Argument(help="Labelled structures: file or file@start:stop.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures computed at once.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
    parity: Annotated[
        Path | None, typer.Option(help="Also draw a parity plot into this file.")
    ] = None,
    energy_key: Annotated[str | None, typer.Option(help="Name of the energies.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Name of the forces.")] = None,
    gradient_key: Annotated[str | None, typer.Option(help="Name of the gradients.")] = None,
    energy_unit: Annotated[str | None, typer.Option(help="eV, Hartree, kcal/mol, ...")] = None,
    force_unit: Annotated[str | None, typer.Option(help="eV/Å, Hartree/Bohr, ...")] = None,
    length_unit: Annotated[str | None, typer.Option(help="Å or Bohr.")] = None,
) -> None:
    """Compare a model with labelled structures: RMSE and MAE of energies and forces.

    The target (total energy, or the difference of two levels of theory) is the model's. Keys and
    units are those given, else those of the file's layout, else those of the training data.
    """
    import pymlp
    from pymlp.devices import chosen_device
    from pymlp.evaluation import evaluate as compare
    from pymlp.labelled_data import read_for_model

    if parity is not None:
        from pymlp.plotting import check_figure_name

        check_figure_name(parity)  # before computing, not after
    where = chosen_device(device, "--device")
    potential = pymlp.load(model, where)
    overrides = {
        "energy": energy_key,
        "forces": forces_key,
        "gradient": gradient_key,
        "energy_unit": energy_unit,
        "force_unit": force_unit,
        "length_unit": length_unit,
    }
    batch = read_for_model(data, _target(potential), overrides)
    result = compare(potential, batch.to(where), batch_size=batch_size)
    metrics = result.summary()
    if parity is not None:
        result.draw(parity, f"{model} on {data}")
    if as_json:
        import json

        typer.echo(json.dumps(metrics | {"target": batch.info.get("target")}, indent=2))
        return
    from pymlp.cli.reports import error_table

    for note in batch.info.get("notes", []):
        typer.echo(f"  {note}")
    error_table(metrics, f"{model} on {data}")
    if parity is not None:
        typer.echo(f"figure {parity}")


def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    data: Annotated[str, typer.Argument(help="Structures: file or file@start:stop.")],
    output: Annotated[Path, typer.Argument(help="File to write: .extxyz or .npz.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Structures computed at once.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
    length_unit: Annotated[str | None, typer.Option(help="Of the coordinates in DATA.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
) -> None:
    """Predict energies (eV) and forces (eV/Å) and write them with the structures.

    A model of a difference of two levels of theory predicts that difference.
    """
    from dataclasses import replace

    import pymlp
    from pymlp.devices import chosen_device
    from pymlp.evaluation import predict_in_batches
    from pymlp.io import read, write
    from pymlp.labelled_data import split_selection

    if output.suffix not in (".npz", ".extxyz", ".xyz"):
        raise ValueError(f"OUTPUT must end in .extxyz, .xyz or .npz, got {output.name!r}")
    # The file there may be DATA itself, and hold the reference labels.
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists; choose another name, or give --overwrite")
    where = chosen_device(device, "--device")
    potential = pymlp.load(model, where)
    file, start, stop = split_selection(data)
    named: dict[str, Any] = {} if length_unit is None else {"length_unit": length_unit}
    batch = read(file, labels=False, start=start, stop=stop, **named)
    energies, forces = predict_in_batches(potential, batch.to(where), batch_size=batch_size)
    write(output, replace(batch, energies=energies, forces=forces))
    what = "differences (Δ)" if potential.target_kind == "delta" else ""
    typer.echo(
        f"{len(batch)} structures: energies (eV) and forces (eV/Å) {what}".rstrip()
        + f" written to {output}"
    )


def info(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole description.")] = False,
) -> None:
    """Show what a model is: elements, descriptor, networks, target, data, versions."""
    from pymlp.model_files import read_model

    description, _ = read_model(model)
    if as_json:
        import json

        typer.echo(json.dumps(description, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    import pymlp

    potential = pymlp.load(model)
    meta, descriptor = potential.metadata, potential.descriptor
    target = _target(potential)
    kind = {"delta": "difference of two levels of theory (Δ)", "total": "total energy"}
    table = Table(box=None, show_header=False)
    rows = [
        ("model", f"{description['kind']}, format {description['format']}"),
        ("elements", " ".join(description["elements"])),
        ("units", ", ".join(f"{k} {v}" for k, v in description["units"].items())),
        # Its own line, and not torch's tree of all modules in it.
        ("descriptor", f"{description['descriptor'].get('family')}: {descriptor.extra_repr()}"),
        _regressor(description, potential),
        ("target", kind.get(potential.target_kind or "", "not recorded")),
    ]
    if target.get("energy"):
        labels = target["energy"]
        if target.get("kind") == "delta":
            labels += f" - {target.get('baseline_energy')}"
        rows.append(("labels", f"{labels}, {target.get('energy_unit')}"))
    for name, value in meta.get("data", {}).items():
        rows.append((name.replace("_", " "), str(value)))
    metrics = meta.get("validation", {})
    if metrics:
        text = f"energy {metrics['energy_rmse_kcal_mol']:.3f} kcal/mol"
        if "force_rmse_kcal_mol_A" in metrics:
            text += f", force {metrics['force_rmse_kcal_mol_A']:.3f} kcal/mol/Å"
        rows.append(("validation RMSE", text))
    rows.append(("versions", ", ".join(f"{k} {v}" for k, v in description["versions"].items())))
    for name, value in rows:
        table.add_row(name, value)
    Console(markup=False, emoji=False).print(table)


def _target(potential: Any) -> dict[str, Any]:
    """What the metadata say of the target, also where they only name its kind."""
    recorded = potential.metadata.get("target")
    if isinstance(recorded, dict):
        return recorded
    return {} if potential.target_kind is None else {"kind": potential.target_kind}


def _regressor(description: Any, potential: Any) -> tuple[str, str]:
    """What makes energies of features: networks, or a Gaussian process."""
    if "gaussian_process" in description:
        process = potential.process
        fit, covariance = process.report, process.hyperparameters.covariance
        text = f"{covariance}, {fit.observations} observations by {fit.method}"
        if fit.permutations > 1:
            text += f", {fit.permutations} permutations of equivalent atoms"
        without = "" if process.posterior is not None else "; saved without standard deviations"
        return "Gaussian process", text + without
    network = description["networks"][0]
    parameters = sum(p.numel() for p in potential.networks.parameters())
    layers = "-".join(str(w) for w in network["hidden"])
    return "networks", (
        f"{potential.n_networks} x {network['n_features']}-{layers}-1 {network['activation']} "
        f"per element, {parameters} weights, {description['dtype']}"
    )
