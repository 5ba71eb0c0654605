"""Data of our own: what is shipped, and where it lies. README.md beside this file tells the rest.

>>> from pymlp.data import claisen_path
>>> claisen_path().name
'claisen_gfn2.npz'

The modules of this folder made the files and are run as ``python -m pymlp.data.claisen``,
``python -m pymlp.data.butane``, ``python -m pymlp.data.label`` and ``python -m
pymlp.data.stationary``.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "FILES",
    "butane_path",
    "claisen_dft_path",
    "claisen_irc_dft_path",
    "claisen_irc_path",
    "claisen_path",
    "claisen_stationary_dft_path",
    "data_file",
    "listing",
]

#: Name of every shipped file, and one line on what is in it.
FILES = {
    "claisen_gfn2.npz": "Claisen rearrangement, umbrella sampling, GFN2-xTB",
    "claisen_dft.npz": "Claisen rearrangement, 800 of these structures, B3LYP/6-31G* and GFN2-xTB",
    "claisen_irc_gfn2.npz": "Claisen rearrangement, intrinsic reaction path, GFN2-xTB",
    "claisen_irc_dft.npz": "Claisen rearrangement, reaction path, B3LYP/6-31G* and GFN2-xTB",
    "claisen_stationary_dft.npz": "Claisen rearrangement, both minima and the saddle, B3LYP/6-31G*",
    "butane_gfn2.npz": "butane along its torsion, relaxed, GFN2-xTB",
}


def data_file(name: str) -> Path:
    """Path of the shipped file ``name``.

    Raises:
        ValueError: the name is none of :data:`FILES`.
        FileNotFoundError: the file is missing from this installation.
    """
    if name not in FILES:
        raise ValueError(f"name: expected one of {', '.join(FILES)}, got {name!r}")
    path = Path(__file__).resolve().with_name(name)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install the package again")
    return path


def claisen_path() -> Path:
    """2000 structures with GFN2-xTB labels; the first 200 validate, the last 200 test."""
    return data_file("claisen_gfn2.npz")


def claisen_dft_path() -> Path:
    """800 of the 2000 structures, in their order, with B3LYP/6-31G* labels beside GFN2-xTB's."""
    return data_file("claisen_dft.npz")


def claisen_irc_path() -> Path:
    """The intrinsic reaction path from allyl vinyl ether to 4-pentenal, GFN2-xTB."""
    return data_file("claisen_irc_gfn2.npz")


def claisen_irc_dft_path() -> Path:
    """Every second point of :func:`claisen_irc_path` with B3LYP/6-31G* labels beside GFN2-xTB's."""
    return data_file("claisen_irc_dft.npz")


def claisen_stationary_dft_path() -> Path:
    """Reactant, transition state and product relaxed with B3LYP/6-31G*, in this order."""
    return data_file("claisen_stationary_dft.npz")


def butane_path() -> Path:
    """73 relaxed structures at torsions of 0, 5, ..., 360 degrees, GFN2-xTB."""
    return data_file("butane_gfn2.npz")


def listing() -> str:
    """A line for every shipped file: name, size, contents."""
    folder = Path(__file__).resolve().parent
    present = {name: folder / name for name in FILES if (folder / name).is_file()}
    return "\n".join(
        f"{name:22} {path.stat().st_size / 1000:6.0f} kB  {FILES[name]}"
        for name, path in present.items()
    )
