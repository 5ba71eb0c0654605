"""Features (and their Jacobians) of large files, with flat memory, to HDF5 or npz.

Structures are read, featurized and appended in chunks to raw files in a folder beside the output
(``OUT.parts``). A small state file there, replaced atomically after every chunk, counts what is
safely on disk: an interrupted run goes on from it, whatever was half written behind the count is
cut off. At the end the parts are streamed into the final file, which appears under its name whole.

Layout of the final file, F features, A atoms of B structures in all:

* ``features`` [A, F]; ``numbers`` [A]; ``structure_offsets`` [B + 1]; ``feature_labels`` [F]
* with the Jacobian: ``jacobian`` [R, F, 3] (1/Å) and ``jacobian_offsets`` [B + 1]. For a structure
  of N atoms, row ``jacobian_offsets[b] + i N + n`` is the derivative of the features of its atom i
  by the position of its atom n. Where all structures have N atoms, this is [B, N, N, F, 3].
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from pymlp.atomic_files import atomic_path, atomic_writer, named_when_full
from pymlp.descriptors.base import Descriptor
from pymlp.structures import Batch

__all__ = ["featurize"]

_STATE = "state.json"
_COPY_BYTES = 1 << 24


def featurize(
    descriptor: Descriptor,
    batches: Callable[[int], Iterable[Batch]],
    output: str | Path,
    *,
    jacobian: bool = False,
    dtype: torch.dtype = torch.float64,
    source: str = "",
    progress: Callable[[int], None] | None = None,
) -> int:
    """Compute features of all batches and write them to ``output``; return B.

    Args:
        descriptor: gives the features.
        batches: called with the number of structures to skip; yields batches from there on, on
            the device of the descriptor.
        output: file ending in ``.h5``, ``.hdf5`` or ``.npz``.
        jacobian: whether to write Jacobians.
        dtype: of the output and of the computation.
        source: what identifies the input (a hash); an interrupted run is continued only if this,
            the descriptor and the options are the same.
        progress: called with the number of structures done.

    Raises:
        ValueError: for another suffix, parts of a different run beside the output, or an empty
            input.
        ImportError: if HDF5 is asked for and h5py is missing.
        OSError: if the disk is full; what is done so far is kept and continued later.
    """
    output = Path(output)
    if output.suffix not in (".h5", ".hdf5", ".npz"):
        raise ValueError(f"output must end in .h5, .hdf5 or .npz, got {output.name!r}")
    if output.suffix != ".npz":
        _h5py()  # before hours of work, not after
    identity = {
        "descriptor": descriptor.to_config(),
        "weights": _weights_digest(descriptor),
        "jacobian": jacobian,
        "dtype": str(dtype).removeprefix("torch."),
        "source": source,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    parts = _Parts.open(output.with_name(output.name + ".parts"), key)
    done = parts.structures
    if progress is not None:
        progress(done)
    for batch in batches(done):
        batch = batch.to(dtype=dtype)
        arrays = {
            "features": descriptor(batch).detach().cpu().numpy(),
            "numbers": batch.numbers.cpu().numpy(),
            "structure_offsets": np.asarray(batch.lengths, dtype=np.int64),
        }
        if jacobian:
            arrays |= _jacobian_rows(descriptor, batch)
        parts.append(arrays, len(batch))
        if progress is not None:
            progress(parts.structures)
    if parts.structures == 0:
        parts.remove()
        raise ValueError("the input holds no structures")
    labels = np.array(_labels(descriptor), dtype=np.str_)
    notes = {"descriptor": json.dumps(descriptor.to_config()), "source": source}
    _assemble(output, parts, labels, notes)
    parts.remove()
    return parts.structures


def _weights_digest(descriptor: Descriptor) -> str:
    """Identify trained weights: another model of the same configuration has other features."""
    digest = hashlib.sha256()
    for name, tensor in sorted(descriptor.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _labels(descriptor: Descriptor) -> list[str]:
    try:
        return descriptor.feature_labels()
    except ValueError:  # every centre has parameters of its own
        return [f"feature {k}" for k in range(descriptor.n_features)]


def _jacobian_rows(descriptor: Descriptor, batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    dense = descriptor.jacobian(batch)
    blocks = list(dense)
    n_features = descriptor.n_features
    return {
        "jacobian": np.concatenate(
            [b.transpose(1, 2).reshape(-1, n_features, 3).cpu().numpy() for b in blocks]
        ),
        "jacobian_offsets": np.asarray([n * n for n in batch.lengths], dtype=np.int64),
    }


@dataclass
class _Parts:
    """Raw arrays that grow row by row, with a count of what is complete."""

    folder: Path
    key: str
    structures: int
    #: name -> (dtype string, shape of one row, complete rows)
    arrays: dict[str, tuple[str, tuple[int, ...], int]]

    @classmethod
    def open(cls, folder: Path, key: str) -> _Parts:
        state = folder / _STATE
        if not folder.exists():
            folder.mkdir(parents=True)
            return cls(folder, key, 0, {})
        if not state.exists():
            # A run killed before its first count leaves rows and what was to become that count.
            unfinished = f".{Path(_STATE).stem}."
            others = [
                p.name
                for p in folder.iterdir()
                if p.suffix != ".raw" and not p.name.startswith(unfinished)
            ]
            if others:
                raise ValueError(
                    f"{folder} exists and holds other files; remove it or choose another output"
                )
            return cls(folder, key, 0, {})
        saved = json.loads(state.read_text(encoding="utf-8"))
        if saved["key"] != key:
            raise ValueError(
                f"{folder} belongs to an interrupted run with other data, descriptor or options; "
                "run that again, or remove the folder"
            )
        arrays = {
            name: (kind, tuple(shape), rows)
            for name, (kind, shape, rows) in saved["arrays"].items()
        }
        return cls(folder, key, int(saved["structures"]), arrays)

    def append(self, arrays: dict[str, np.ndarray[Any, Any]], n_structures: int) -> None:
        grown = dict(self.arrays)
        for name, values in arrays.items():
            values = np.ascontiguousarray(values)
            kind, shape, rows = grown.get(name, (values.dtype.str, values.shape[1:], 0))
            path = self._file(name)
            with (
                named_when_full(path, "; the same command goes on from what is done"),
                path.open("r+b" if path.exists() else "wb") as file,
            ):
                # Rows behind the count are from a run that was interrupted while writing them.
                file.truncate(rows * _row_bytes(kind, shape))
                file.seek(0, os.SEEK_END)
                file.write(values.data)
                file.flush()
                os.fsync(file.fileno())
            grown[name] = (kind, shape, rows + len(values))
        state = {
            "key": self.key,
            "structures": self.structures + n_structures,
            "arrays": grown,
        }
        with atomic_writer(self.folder / _STATE) as file:
            json.dump(state, file)
        self.arrays, self.structures = grown, self.structures + n_structures

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.raw"

    def shape(self, name: str) -> tuple[int, ...]:
        _, shape, rows = self.arrays[name]
        return (rows, *shape)

    def chunks(self, name: str) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """Yield the first row and the rows of one piece after the other.

        Read, not mapped: the pages of a mapped file count as memory of this process.
        """
        kind, shape, rows = self.arrays[name]
        bytes_per_row = _row_bytes(kind, shape)
        step = max(1, _COPY_BYTES // max(1, bytes_per_row))
        with self._file(name).open("rb") as file:
            for begin in range(0, rows, step):
                count = min(step, rows - begin)
                piece = np.frombuffer(file.read(count * bytes_per_row), dtype=kind)
                yield begin, piece.reshape(count, *shape)

    def whole(self, name: str) -> np.ndarray[Any, Any]:
        pieces = [piece for _, piece in self.chunks(name)]
        kind, shape, _ = self.arrays[name]
        return np.concatenate(pieces) if pieces else np.zeros((0, *shape), dtype=kind)

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _row_bytes(kind: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(kind).itemsize * np.prod(shape, dtype=np.int64))


def _assemble(
    output: Path, parts: _Parts, labels: np.ndarray[Any, Any], notes: dict[str, str]
) -> None:
    small = {"feature_labels": labels}
    for name in [name for name in parts.arrays if name.endswith("_offsets")]:
        small[name] = np.concatenate([[0], np.cumsum(parts.whole(name))]).astype(np.int64)
    large = [name for name in parts.arrays if name not in small]
    with atomic_path(output) as temporary:
        if output.suffix == ".npz":
            small |= {name: np.array(text) for name, text in notes.items()}
            # Stored, not deflated: features hardly compress, and numpy can then map them.
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name, array in small.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
                for name in large:
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        _stream_npy(entry, parts, name)
            return
        with _h5py().File(temporary, "w") as file:
            for name, text in notes.items():
                file.attrs[name] = text
            strings = _h5py().string_dtype()
            file.create_dataset("feature_labels", data=labels.astype(object), dtype=strings)
            for name, array in small.items():
                if name != "feature_labels":
                    file.create_dataset(name, data=array)
            for name in large:
                kind = parts.arrays[name][0]
                target = file.create_dataset(name, shape=parts.shape(name), dtype=kind)
                for begin, piece in parts.chunks(name):
                    target[begin : begin + len(piece)] = piece


def _stream_npy(entry: IO[bytes], parts: _Parts, name: str) -> None:
    kind = parts.arrays[name][0]
    header = {"descr": kind, "fortran_order": False, "shape": parts.shape(name)}
    np.lib.format.write_array_header_2_0(entry, header)
    for _, piece in parts.chunks(name):
        entry.write(piece.data)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 output needs h5py; install it with: pip install 'pymlp[h5]', "
            "or write to a file ending in .npz"
        ) from error
    return h5py
