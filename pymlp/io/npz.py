"""Npz files, read row by row so that a file larger than the memory can be streamed.

Two layouts are known, by the names of their arrays:

* one set of atoms: ``numbers`` [N], ``coordinates`` [B, N, 3] Å, ``energy`` [B] Hartree,
  ``gradient`` [B, N, 3] Hartree/Bohr (not forces), and optionally ``energy_sqm``,
  ``gradient_sqm`` of a lower level of theory: then the default target is the difference;
* pymlp's own (what :func:`pymlp.io.write` writes): ``structure_offsets`` [B + 1], ``numbers``
  [A], ``positions`` [A, 3] Å, optionally ``cell``, ``pbc``, ``energies`` eV, ``forces`` eV/Å.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from pymlp.io.labels import Array

__all__ = ["MOLECULE", "RAGGED", "NpzFile"]

#: The names of the two layouts.
MOLECULE = "one set of atoms"
RAGGED = "pymlp batch"

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


class NpzFile:
    """An npz file whose arrays are read whole (:meth:`array`) or by rows (:meth:`rows`).

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no npz file, truncated or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no such file: {self.path}")
        try:
            self._archive = zipfile.ZipFile(self.path)
        except _DAMAGE as error:
            raise ValueError(f"{self.path} is truncated, damaged or no npz file: {error}") from None
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()

    def layout(self) -> str | None:
        """Return which known layout the file has, or ``None``."""
        if "structure_offsets" in self.names:
            return RAGGED
        if "coordinates" in self.names and "numbers" in self.names:
            return MOLECULE
        return None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array without reading it."""
        with self._open(name) as (_, shape, _, _):
            return shape

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
        if name not in self.names:
            raise ValueError(f"{self.path} has no array {name!r}; it has: {', '.join(self.names)}")
        try:
            with self._archive.open(name + ".npy") as stream:
                version = np.lib.format.read_magic(stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(stream)
                if dtype.hasobject:
                    raise ValueError("pickled objects are not read")
                yield stream, shape, fortran, dtype
        except _DAMAGE as error:
            raise ValueError(
                f"{self.path}: array {name!r} is truncated or damaged: {error}"
            ) from None

    def array(self, name: str) -> Array:
        """Return an array.

        Raises:
            ValueError: if it is missing, damaged or holds Python objects.
        """
        with self._open(name) as (stream, shape, fortran, dtype):
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            values = np.frombuffer(_exactly(stream, size), dtype=dtype)
            # The checksum is compared when the end has been read.
            if stream.read(1):
                raise ValueError("more data than its header says")
            return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)

    def rows(self, name: str, counts: list[int]) -> Iterator[Array]:
        """Yield the next ``counts[0]``, ``counts[1]`` ... rows of an array.

        Raises:
            ValueError: if the array is missing or damaged.
        """
        with self._open(name) as (stream, shape, fortran, dtype):
            if fortran or not shape:  # rows do not lie together
                whole, begin = self.array(name), 0
                for count in counts:
                    yield whole[begin : begin + count]
                    begin += count
                return
            row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            for count in counts:
                data = _exactly(stream, count * row)
                yield np.frombuffer(data, dtype=dtype).reshape(count, *shape[1:])


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{size} bytes expected, {len(data)} there")
    return data
