"""The first configuration for a data set: what `pymlp init` writes, and the same from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pymlp.config.kinds import Kind, kind_named
from pymlp.config.models import RunConfig
from pymlp.config.template import render
from pymlp.io import FileSummary, inspect_file, iread
from pymlp.io.labels import notes as describe
from pymlp.labelled_data import split_selection

__all__ = ["configure", "starting_configuration"]

_KEY_FIELDS = (
    "energy",
    "forces",
    "gradient",
    "baseline_energy",
    "baseline_forces",
    "baseline_gradient",
)
_OPTIONS = {"energy": "--energy-key", "forces": "--forces-key", "gradient": "--gradient-key"}


def configure(
    kind: str,
    train: str | Path,
    validation: str | Path,
    *,
    target: Literal["total", "delta"] | None = None,
    **changes: Mapping[str, Any],
) -> RunConfig:
    """Return the configuration that ``pymlp init`` would write, with some values changed.

    >>> from pymlp.data import claisen_path
    >>> data = claisen_path()
    >>> config = configure("bp-fnn", f"{data}@200:", f"{data}@:200", training={"epochs": 50})
    >>> config.elements, config.training.epochs, config.data.units.energy
    (['H', 'C', 'O'], 50, 'Hartree')

    Args:
        kind: of the potential, one of :data:`pymlp.config.KINDS`.
        train: training file, or a part of it (``file@start:stop``).
        validation: validation file or part.
        target: ``"total"`` or ``"delta"``; ``None`` takes ``"delta"`` where there is a baseline.
        changes: sections of the configuration by name, each with the values that differ; a section
            in a section is changed likewise, anything else is replaced.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for an unknown kind, key or value, data that cannot be read, and labels or
            units that the file's layout does not fix and ``data={"keys": ..., "units": ...}``
            does not name.
    """
    chosen = kind_named(kind)
    data = changes.get("data", {})
    names = {f"{unit}_unit": name for unit, name in data.get("units", {}).items()}
    given = {name: value for name, value in data.get("keys", {}).items() if value} | names
    values, _, _ = _values(chosen, str(train), str(validation), Path("."), given, target, changes)
    return chosen.config.model_validate(_changed(values, changes))


def starting_configuration(
    kind: Kind,
    train: str,
    validation: str,
    output: Path,
    given: dict[str, str | None],
    target: Literal["total", "delta"] | None = None,
) -> tuple[str, list[str]]:
    """Return the text of a complete commented configuration, and what was found in the data.

    Args:
        kind: of the potential.
        train: training file, or a part of it (``file@start:stop``).
        validation: validation file or part.
        output: where the configuration will be written; paths in it are relative to its folder.
        given: keys and units that the user gave, fields of `pymlp.io.LabelKeys`; ``None``: not.
        target: ``"total"`` or ``"delta"``; ``None`` takes ``"delta"`` where there is a baseline.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: if a file cannot be read, or if keys or units are not fixed by its layout and
            not given; the message lists what the file holds; for another target, or a
            difference without a baseline.
    """
    values, notes, first = _values(kind, train, validation, output.parent, given, target, {})
    config = kind.config.model_validate(values)
    why = ["Found in the data:", *(f"  {note}" for note in notes)]
    if config.data.target == "delta":
        why.append(
            "The file holds a lower level of theory, so the potential learns the difference "
            "(Δ-learning). Its errors are also those of the total."
        )
    elif config.data.keys.baseline_energy is not None:
        why.append("The lower level of theory in the file is not used: target total was asked for.")
    loss_note = {}
    if config.data.keys.forces is None and config.data.keys.gradient is None:
        where = "training.loss" if "training" in kind.config.model_fields else "data.keys"
        loss_note = {where: ["The data hold no forces: trained on energies alone."]}
    head = [
        f"pymlp run configuration: {kind.summary}.",
        f"Train with:  pymlp train {output.name} -o runs/{kind.name}",
        "Angles are in degrees, lengths in Å and energies in eV unless a comment says otherwise.",
        "Paths are relative to the folder of this file; file@start:stop is a part of a file.",
    ]
    text = render(config, {"": head, "data.target": why, **loss_note})
    return text, [f"{first.path}: {first.layout}", *notes, f"elements: {' '.join(config.elements)}"]


def _values(
    kind: Kind,
    train: str,
    validation: str,
    folder: Path,
    given: Mapping[str, str | None],
    target: Literal["total", "delta"] | None,
    changes: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], list[str], FileSummary]:
    """Return a configuration's values, notes on the labels, and the summary of the first file."""
    if target not in (None, "total", "delta"):
        raise ValueError(f"target must be total or delta, got {target!r}")
    summaries = []
    elements: set[str] = set()
    for name in (train, validation):
        file, _, _ = split_selection(name)
        summary = inspect_file(file)
        summaries.append(summary)
        elements |= set(_all_elements(summary))
    first = summaries[0]
    keys, units, notes = _labels(first, given, target)
    if target == "delta" and keys["baseline_energy"] is None:
        raise ValueError(
            f"target delta needs the energies of a lower level of theory, and {first.path} has "
            "none that its layout names; name them with --baseline-energy-key"
        )
    sections = kind.defaults()
    keys |= changes.get("data", {}).get("keys", {})
    no_forces = keys["forces"] is None and keys["gradient"] is None
    if no_forces and "training" in kind.config.model_fields:
        training = sections.setdefault("training", {})
        training["loss"] = {"force_start": 0.0, "force_end": 0.0}
    from ase.data import atomic_numbers

    values: dict[str, Any] = {
        "kind": kind.name,
        "elements": sorted(elements, key=lambda symbol: atomic_numbers[symbol]),
        "data": {
            "train": _relative(train, folder),
            "validation": _relative(validation, folder),
            "target": target or ("delta" if keys["baseline_energy"] is not None else "total"),
            "keys": keys,
            "units": units,
        },
        **sections,
    }
    return values, notes, first


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with some of them replaced."""
    result = dict(values)
    for name, change in changes.items():
        old = result.get(name)
        both = isinstance(change, Mapping) and (old is None or isinstance(old, Mapping))
        result[name] = _changed(old or {}, change) if both else change
    return result


def _all_elements(summary: FileSummary) -> tuple[str, ...]:
    if summary.layout != "ASE":
        return summary.elements
    # The summary of such a file knows only its first frames.
    found: set[str] = set()
    for batch in iread(summary.path, 1024, labels=False):
        found |= set(batch.elements)
    return tuple(found)


def _relative(name: str, folder: Path) -> str:
    file, _, _ = split_selection(name)
    part = name[len(file) :]
    if Path(file).is_absolute():
        return name
    return os.path.relpath(file, folder) + part


def _labels(
    summary: FileSummary,
    given: Mapping[str, str | None],
    target: Literal["total", "delta"] | None,
) -> tuple[dict[str, str | None], dict[str, str], list[str]]:
    """Return keys, units and notes: those given, else those of the layout, else the only ones."""
    keys: dict[str, str | None] = dict.fromkeys(_KEY_FIELDS)
    units: dict[str, str | None] = {"length": given.get("length_unit") or "Å"}
    if summary.keys is not None and not any(given.get(field) for field in _KEY_FIELDS):
        for field in _KEY_FIELDS:
            keys[field] = getattr(summary.keys, field)
        names = ("energy_unit", "force_unit", "length_unit")
        own: dict[str, Any] = {name: given[name] for name in names if given.get(name)}
        read = replace(summary.keys, **own)
        units["energy"], units["force"] = read.energy_unit, read.force_unit
        # Not the summary's own notes, which name the layout's units whatever was given.
        return keys, _complete(units), describe(read, target or summary.target)
    keys |= {field: given.get(field) for field in _KEY_FIELDS}
    notes = []
    if keys["energy"] is None:
        keys["energy"] = _only(summary, "energy", "scalar")
        notes.append(f"energy key: {keys['energy']} (the only one in the file)")
    if keys["forces"] is None and keys["gradient"] is None:
        forces = _candidates(summary, "force", "3]")
        if len(forces) == 1:
            keys["forces"] = forces[0]
            notes.append(f"forces key: {forces[0]} (the only one in the file)")
        elif forces:
            raise ValueError(
                f"{summary.path} holds several forces ({', '.join(forces)}); choose with "
                f"{_OPTIONS['forces']}"
            )
    needed = [("energy_unit", "--energy-unit", "eV")]
    if keys["forces"] or keys["gradient"]:
        needed.append(("force_unit", "--force-unit", "eV/Å"))
    missing = [f"{option} {example}" for field, option, example in needed if not given.get(field)]
    if missing:
        raise ValueError(
            f"{summary.path} does not say in which units its labels are; give them, "
            f"for instance: {' '.join(missing)}"
        )
    units["energy"] = given["energy_unit"]
    units["force"] = given.get("force_unit")
    what = [f"energies {keys['energy']} in {units['energy']}"]
    if slope := keys["forces"] or keys["gradient"]:
        sign = "" if keys["forces"] else "-"
        what.append(f"forces {sign}{slope} in {units['force']}")
    notes.append(f"as given: {', '.join(what)}, coordinates in {units['length']}")
    return keys, _complete(units), notes


def _complete(units: dict[str, str | None]) -> dict[str, str]:
    """Leave out units of labels that are not there: the model's defaults then stand."""
    return {name: unit for name, unit in units.items() if unit is not None}


def _candidates(summary: FileSummary, word: str, shape_end: str) -> list[str]:
    return [
        name
        for name, shape in summary.names.items()
        if word in name.lower() and shape.endswith(shape_end)
    ]


def _only(summary: FileSummary, word: str, shape: str) -> str:
    found = _candidates(summary, word, shape)
    # ASE's readers offer the same energy twice under these names.
    found = [name for name in found if name != "free_energy"] or found
    if len(found) == 1:
        return found[0]
    held: Any = ", ".join(f"{name} {shape}" for name, shape in summary.names.items()) or "none"
    what = f"several ({', '.join(found)})" if found else "none that is called so"
    raise ValueError(
        f"{summary.path}: which label is the energy is not clear, {what}; "
        f"choose with {_OPTIONS['energy']}. Labels in the file: {held}"
    )
