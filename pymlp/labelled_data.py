"""Labelled structures as configurations, command line and models name them.

A part of a file is written ``file@start:stop`` (as in Python and ASE): ``claisen.npz@100:`` leaves
out the first hundred structures.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymlp.io import LabelKeys, inspect_file, read

if TYPE_CHECKING:
    from pymlp.config import DataSection
    from pymlp.structures import Batch, Structure

__all__ = [
    "label_keys",
    "read_for_model",
    "read_training_data",
    "split_selection",
    "target_description",
]


def split_selection(name: str) -> tuple[str, int, int | None]:
    """Split ``file@start:stop`` into file, start and stop.

    >>> split_selection("a.npz@100:"), split_selection("a.npz")
    (('a.npz', 100, None), ('a.npz', 0, None))

    Raises:
        ValueError: for a malformed part after the ``@``.
    """
    # A name that holds an @ itself counts as a file, unless what follows looks like a selection.
    file, at, part = name.rpartition("@")
    if not at or not re.fullmatch(r"[-\d:]*", part):
        return name, 0, None
    match = re.fullmatch(r"(-?\d+)?:(-?\d+)?", part)
    if match is None:
        raise ValueError(f"{name}: expected file@start:stop, got {part!r} after the @")
    start, stop = match.groups()
    return file, int(start or 0), None if stop is None else int(stop)


def label_keys(data: DataSection) -> LabelKeys:
    """Return the keys and units of a configuration's ``data`` section.

    Raises:
        ValueError: for keys that exclude each other or unknown units.
    """
    keys, units = data.keys, data.units
    return LabelKeys(
        energy=keys.energy,
        forces=keys.forces,
        gradient=keys.gradient,
        baseline_energy=keys.baseline_energy,
        baseline_forces=keys.baseline_forces,
        baseline_gradient=keys.baseline_gradient,
        energy_unit=units.energy,
        force_unit=units.force,
        length_unit=units.length,
    )


def read_training_data(data: DataSection, base: Path) -> tuple[Batch, Batch]:
    """Read the training and the validation structures of a configuration.

    Args:
        data: the section; its paths are relative to ``base``.
        base: folder of the configuration file.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for what `pymlp.io.read` refuses, fewer training structures than ``n_train``,
            and validation structures that are trained on.
    """
    keys = label_keys(data)
    if data.target == "total":
        keys = keys.for_target("total")
    batches = []
    for name in (data.train, data.validation):
        file, start, stop = split_selection(name)
        batches.append(read(base / file, keys=keys, target=data.target, start=start, stop=stop))
    train, validation = batches
    if data.n_train is not None:
        if len(train) < data.n_train:
            raise ValueError(
                f"data.n_train asks for {data.n_train} training structures, "
                f"{data.train} holds {len(train)}"
            )
        train = train[: data.n_train]
    _refuse_common(train, validation, data)
    return train, validation


def _refuse_common(train: Batch, validation: Batch, data: DataSection) -> None:
    """Refuse a validation set of which more than a twentieth is trained on.

    Fewer may be honest duplicates of a trajectory, which ``pymlp data check`` reports.
    """
    seen = {_positions_key(structure) for structure in train}
    common = [k for k, structure in enumerate(validation) if _positions_key(structure) in seen]
    if len(common) * 20 > len(validation):
        raise ValueError(
            f"{len(common)} of {len(validation)} structures of data.validation "
            f"({data.validation}) are also in data.train ({data.train}), the first is number "
            f"{common[0]}; separate them, for instance as file@100: and file@:100"
        )


def _positions_key(structure: Structure) -> tuple[bytes, bytes]:
    return structure.numbers.numpy().tobytes(), structure.positions.numpy().tobytes()


def target_description(data: DataSection) -> dict[str, Any]:
    """Return what a model remembers of its target: which labels, in which units, total or Δ."""
    return {"kind": data.target, **asdict(label_keys(data))}


def read_for_model(name: str, target: dict[str, Any], overrides: dict[str, Any]) -> Batch:
    """Read labelled structures to compare a model with.

    Keys and units are those given in ``overrides``, else those that the file's layout fixes
    (npz), else those that the model was trained with. The target (total energy, or difference of
    two levels of theory) is always the model's.

    Args:
        name: file, or ``file@start:stop``.
        target: what `target_description` returned when the model was trained.
        overrides: fields of `pymlp.io.LabelKeys`; those that are ``None`` are not given.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for missing labels and what else `pymlp.io.read` refuses.
    """
    file, start, stop = split_selection(name)
    kind = target.get("kind", "total")
    given = {field: value for field, value in overrides.items() if value is not None}
    trained = {field: value for field, value in target.items() if field != "kind"}
    keys = None
    if Path(file).suffix == ".npz":
        keys = inspect_file(file).keys
    if keys is None:
        keys = LabelKeys(**trained) if trained.get("energy") else None
    fields = asdict(keys) if keys is not None else {}
    # A given key replaces its alternative: forces in place of gradients and the other way round.
    for one, other in (("forces", "gradient"), ("baseline_forces", "baseline_gradient")):
        if given.get(one) or given.get(other):
            fields |= {one: None, other: None}
    merged = LabelKeys(**(fields | given))
    return read(file, keys=merged, target=kind, start=start, stop=stop)
