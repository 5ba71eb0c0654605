"""A fingerprint of structures and labels, to tell which data a model was trained on."""

from __future__ import annotations

import hashlib

import torch

from pymlp.structures import Batch

__all__ = ["data_hash"]


def data_hash(batch: Batch) -> str:
    """Return the SHA-256 of a batch's atoms, positions, cells, energies and forces, 64 hex digits.

    It depends on values, shapes and order, not on the file format, the device or the precision
    in which equal values are held.
    """
    digest = hashlib.sha256(b"pymlp data 1")
    for name in ("structure_offsets", "numbers", "positions", "cell", "pbc", "energies", "forces"):
        value = getattr(batch, name)
        if value is None:
            digest.update(f"{name}:none;".encode())
            continue
        value = value.detach().cpu()
        value = value.to(torch.float64 if value.is_floating_point() else torch.int64)
        digest.update(f"{name}:{list(value.shape)};".encode())
        digest.update(value.contiguous().numpy().astype(value.numpy().dtype.newbyteorder("<")))
    return digest.hexdigest()
