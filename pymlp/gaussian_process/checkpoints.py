"""The state of a long fit in a file: written atomically, found again only by the same fit."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pymlp.gaussian_process.conjugate_gradients import State
from pymlp.gaussian_process.likelihood import Hyperparameters

__all__ = ["load_state", "save_state"]


def _fingerprint(hyperparameters: Hyperparameters, targets: Tensor) -> str:
    text = json.dumps(
        [
            hyperparameters.covariance.to_config(),
            hyperparameters.signal_variance,
            hyperparameters.energy_noise,
            hyperparameters.force_noise,
        ]
    )
    digest = hashlib.sha256(text.encode())
    digest.update(targets.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def save_state(
    path: str | Path, hyperparameters: Hyperparameters, targets: Tensor, state: State
) -> None:
    """Write the state of conjugate gradients (safetensors; a rename makes it atomic)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    tensors = {name: item.detach().cpu().contiguous() for name, item in state._asdict().items()}
    save_file(tensors, partial, metadata={"fingerprint": _fingerprint(hyperparameters, targets)})
    os.replace(partial, path)


def load_state(path: str | Path, hyperparameters: Hyperparameters, targets: Tensor) -> State | None:
    """The state of an interrupted fit of the same data with the same hyperparameters.

    Returns:
        None where there is no file, or where it belongs to another fit.

    Raises:
        ValueError: the file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != _fingerprint(hyperparameters, targets):
                return None
            return State(*(file.get_tensor(name).to(targets) for name in State._fields))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from error
