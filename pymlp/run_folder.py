"""The folder of a training run: claimed once, and resumed only by the run that it belongs to.

It holds ``run.yaml``, the configuration with the data files by their full paths, and
``state.json``, what must not change between a run and its resumption.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

from pymlp.atomic_files import atomic_writer
from pymlp.config import RunConfig, render

__all__ = ["claim", "discard", "with_absolute_paths"]

_Config = TypeVar("_Config", bound=RunConfig)


def with_absolute_paths(config: _Config, base: Path) -> _Config:
    """Point the data section at the files themselves: the copy in the run's folder then works.

    Args:
        config: of a run.
        base: folder that its paths are relative to.
    """
    data = config.data.model_copy(
        update={
            "train": str((base / config.data.train).resolve()),
            "validation": str((base / config.data.validation).resolve()),
        }
    )
    return config.model_copy(update={"data": data})


def claim(directory: Path, config: RunConfig, identity: dict[str, Any], *, resume: bool) -> None:
    """Make the folder of the run, or make sure that it holds the run to resume.

    Args:
        directory: made if missing.
        config: written into it as ``run.yaml``.
        identity: plain JSON; ``config`` in it is compared key by key.
        resume: whether the folder must hold this run, or no run at all.

    Raises:
        ValueError: if there is no run to resume, or another one; if there is a run already.
    """
    state = directory / "state.json"
    if resume:
        if not state.exists():
            raise ValueError(f"{directory} holds no run to resume; leave out --resume to begin one")
        saved = json.loads(state.read_text(encoding="utf-8"))
        changed = [name for name in identity if saved.get(name) != identity[name]]
        if changed:
            keys = _differences(saved.get("config", {}), identity["config"])
            what = ", ".join(keys) if keys else " and ".join(c.replace("_", " ") for c in changed)
            raise ValueError(
                f"{directory} was begun with other settings or data and cannot be resumed exactly; "
                f"changed: {what}. Give the original configuration ({directory / 'run.yaml'}), "
                "or another folder without --resume"
            )
        return
    if state.exists() or (directory / "model.json").exists():
        raise ValueError(
            f"{directory} already holds a run; continue it with --resume, or choose another folder "
            "with -o"
        )
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_writer(directory / "run.yaml") as file:
        file.write(render(config, {"": ["The configuration that this run was trained with."]}))
    with atomic_writer(state) as file:
        json.dump(identity, file, indent=1)


def discard(directory: Path) -> None:
    """Delete the folder of a run; one that holds no run is left alone."""
    if (directory / "state.json").exists() and (directory / "run.yaml").exists():
        shutil.rmtree(directory)


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [prefix.rstrip(".")]
    keys = [*old, *(key for key in new if key not in old)]
    return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{prefix}{key}.")]
