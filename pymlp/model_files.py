"""A model on disk: a folder with ``model.json`` and a safetensors file. Never a pickle.

``model.json`` is what makes a folder a model: it names the file of weights, whose name holds the
beginning of its SHA-256. A model is replaced by writing new weights beside the old ones and then
renaming a new ``model.json`` over the old one, so that at every moment, also after an interruption
or with a full disk, the folder holds the old model or the new one. Other files in the folder (logs,
plots, checkpoints) are left alone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pymlp.atomic_files import atomic_writer

__all__ = ["DESCRIPTION", "FORMAT", "read_model", "write_model"]

#: The format of the folder; raised when older versions of the package could not read it.
FORMAT = 1

#: The file that describes a model.
DESCRIPTION = "model.json"


def write_model(
    directory: str | Path, description: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write a model into a folder, replacing the model that is there, if any.

    Args:
        directory: made if missing.
        description: plain JSON values; the keys ``format`` and ``weights`` are set here.
        tensors: by name, any device; written as they are, bit for bit.

    Raises:
        ValueError: for a description that JSON cannot hold (NaN included).
        OSError: if the folder cannot be written to; what was there is then as it was.
    """
    folder = Path(directory)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(plain)
    digest = hashlib.sha256(data).hexdigest()
    entry = {
        "file": f"weights-{digest[:12]}.safetensors",
        "sha256": digest,
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
            for name, tensor in sorted(plain.items())
        },
    }
    complete = {"format": FORMAT, **description, "weights": entry}
    try:
        text = json.dumps(complete, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"description must hold plain, finite JSON values: {error}") from None
    with atomic_writer(folder / str(entry["file"]), "wb") as file:
        file.write(data)
    with atomic_writer(folder / DESCRIPTION) as file:
        file.write(text + "\n")
    for old in folder.glob("weights-*.safetensors"):
        if old.name != entry["file"]:
            old.unlink()


def read_model(directory: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`write_model` wrote.

    Args:
        directory: the folder, or its ``model.json``.

    Returns:
        The description and the tensors (on the CPU).

    Raises:
        FileNotFoundError: if there is no such folder, or no ``model.json`` in it.
        ValueError: for an unknown format version, and for files that are missing, truncated,
            changed or do not belong together.
    """
    folder = Path(directory)
    if folder.name == DESCRIPTION:
        folder = folder.parent
    path = folder / DESCRIPTION
    if not path.is_file():
        why = f"there is no {DESCRIPTION} in it" if folder.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"{folder} is no model: {why}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # includes UnicodeDecodeError
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(description, dict) or "format" not in description:
        raise ValueError(f"{path} describes no model: it has no entry 'format'")
    if description["format"] != FORMAT:
        raise ValueError(
            f"{path} has the format version {description['format']!r}, this pymlp reads {FORMAT}; "
            "read it with the version that wrote it (entry 'versions')"
        )
    entry = description.get("weights")
    if not isinstance(entry, dict) or not {"file", "sha256", "tensors"} <= set(entry):
        raise ValueError(f"{path} is damaged: its entry 'weights' is incomplete")
    weights = folder / Path(str(entry["file"])).name
    if not weights.is_file():
        raise ValueError(f"{path} names the weights {weights.name}, which are missing")
    data = weights.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError(
            f"{weights} is truncated or damaged: its checksum is not the one in {DESCRIPTION}"
        )
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{weights} is damaged: {error}") from None
    _check_tensors(path, entry["tensors"], tensors)
    return description, tensors


def _check_tensors(path: Path, listed: Any, tensors: dict[str, Tensor]) -> None:
    if not isinstance(listed, dict) or set(listed) != set(tensors):
        raise ValueError(f"{path} and its weights do not belong together: other tensors are listed")
    for name, tensor in tensors.items():
        if listed[name].get("shape") != list(tensor.shape):
            raise ValueError(
                f"{path}: {name} must have shape {listed[name].get('shape')}, "
                f"got {list(tensor.shape)}"
            )
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise ValueError(f"{path}: the weights {name} hold NaN")
