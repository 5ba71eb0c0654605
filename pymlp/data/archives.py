"""Files of the data scripts: npz files that are complete or absent, and folders of finished parts.

That is what lets a killed run resume.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pymlp.atomic_files import atomic_writer

__all__ = ["claim_folder", "read_npz", "settings_text", "write_npz"]


def write_npz(path: str | Path, **arrays: Any) -> None:
    """Write ``arrays`` to the compressed npz file ``path``, the whole of it or nothing.

    Raises:
        OSError: the folder cannot be written, or the disk is full; ``path`` is then untouched.
    """
    with atomic_writer(path, "wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of the npz file ``path`` in memory, with the file closed again.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no npz file, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"path: expected a whole npz file, got {path}: {error}") from error


def settings_text(settings: dict[str, Any]) -> str:
    """Settings as JSON that is the same text whenever they are the same."""
    return json.dumps(settings, indent=1, sort_keys=True)


def claim_folder(folder: str | Path, settings: dict[str, Any]) -> None:
    """Make a folder of finished parts and note in it what they are parts of.

    Raises:
        ValueError: the folder is there already, with other settings.
    """
    note = Path(folder) / "settings.json"
    text = settings_text(settings)
    if not note.exists():
        with atomic_writer(note) as stream:
            stream.write(text)
    elif note.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"work: expected a folder of this run's settings, but {note} tells of others; "
            f"name another folder, or delete it"
        )
