"""Reading and writing structures: the border where units and conventions are converted, once.

Nothing is guessed. A file that does not fix what its labels mean (extxyz and whatever else ASE
reads) needs their keys and units spelled out; npz files of the layouts in :mod:`pymlp.io.npz`
fix them. What was done is told in ``batch.info["notes"]``.
"""

from pymlp.io.fingerprint import data_hash
from pymlp.io.labels import LabelKeys, Target
from pymlp.io.reading import FileSummary, inspect_file, iread, read
from pymlp.io.tutorial import read_tutorial
from pymlp.io.writing import write

__all__ = [
    "FileSummary",
    "LabelKeys",
    "Target",
    "data_hash",
    "inspect_file",
    "iread",
    "read",
    "read_tutorial",
    "write",
]
