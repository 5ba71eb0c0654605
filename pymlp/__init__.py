"""pymlp: reactive machine-learning potentials on torch, with C++ and CUDA descriptors.

Importing the package loads the op library (``torch.ops.pymlp.*``) and nothing else: every
other name below is imported when it is first used, so that ``import pymlp`` stays cheap.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = frozenset(
    {
        "calculator",
        "cli",
        "config",
        "covariances",
        "data",
        "descriptors",
        "evaluation",
        "gaussian_process",
        "io",
        "lessons",
        "model_files",
        "molecule_view",
        "neighbors",
        "networks",
        "ops",
        "pair_ops",
        "plotting",
        "potential",
        "structures",
        "surfaces",
        "training",
        "units",
    }
)

_NAMES = {
    "Batch": "structures",
    "Structure": "structures",
    "NeighborList": "neighbors",
    "neighbor_list": "neighbors",
    "displacements": "neighbors",
    "ElementNetworks": "networks",
    "Potential": "potential",
    "Prediction": "potential",
    "Calculator": "calculator",
    "load": "potential",
    "train": "runs",
    "read": "io",
    "write": "io",
}

__all__ = [
    "Batch",
    "Calculator",
    "ElementNetworks",
    "NeighborList",
    "Potential",
    "Prediction",
    "Structure",
    "__version__",
    "calculator",
    "cli",
    "config",
    "covariances",
    "data",
    "descriptors",
    "displacements",
    "evaluation",
    "gaussian_process",
    "io",
    "lessons",
    "load",
    "model_files",
    "molecule_view",
    "neighbor_list",
    "neighbors",
    "networks",
    "ops",
    "pair_ops",
    "plotting",
    "potential",
    "read",
    "structures",
    "surfaces",
    "train",
    "training",
    "units",
    "write",
]

if TYPE_CHECKING:
    from pymlp import (
        calculator,
        cli,
        config,
        covariances,
        data,
        descriptors,
        evaluation,
        gaussian_process,
        io,
        lessons,
        model_files,
        molecule_view,
        neighbors,
        networks,
        ops,
        pair_ops,
        plotting,
        potential,
        structures,
        surfaces,
        training,
        units,
    )
    from pymlp.calculator import Calculator
    from pymlp.io import read, write
    from pymlp.neighbors import NeighborList, displacements, neighbor_list
    from pymlp.networks import ElementNetworks
    from pymlp.potential import Potential, Prediction, load
    from pymlp.runs import train
    from pymlp.structures import Batch, Structure

# A library that does not load must not keep `pymlp doctor` from saying why: the ImportError
# (torch version, what was built, the fix) comes again at the first use of anything that computes.
with contextlib.suppress(ImportError):
    importlib.import_module("pymlp.pair_ops")  # and pymlp.ops


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pymlp.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"pymlp.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pymlp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
