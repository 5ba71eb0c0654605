"""Files appear whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk and renamed: an
interruption or a full disk leaves the old file, or none, and nothing half written.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

__all__ = ["atomic_path", "atomic_writer", "named_when_full"]


@contextlib.contextmanager
def named_when_full(path: str | Path, advice: str = "") -> Iterator[None]:
    """Make the error of a full disk name the file (and what to do): the system's own does not.

    Raises:
        OSError: ENOSPC or EDQUOT, with ``path`` and ``advice`` in its message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"disk full while writing {path}{advice}") from error


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; on success rename it to ``path``.

    For writers that want a name (h5py, numpy, matplotlib). Parent folders are made.

    Raises:
        OSError: if the folder cannot be written to or the disk is full; the temporary file is
            then removed, and what stood at ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: matplotlib and numpy look at it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with named_when_full(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_writer(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` for writing; on success rename it to ``path``.

    Text is written as UTF-8. Raises as `atomic_path`.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file,
    ):
        yield file
