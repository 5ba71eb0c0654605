"""Training of potentials on energies and forces.

Lightning, which does the loop, comes with the ``train`` extra and is imported when training
starts, not with this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "train": "run",
    "TrainingResult": "run",
    "CachedStructures": "dataset",
    "EpochShuffle": "dataset",
    "ForceMatching": "module",
    "LossWeights": "schedule",
    "read_log": "log",
}

__all__ = ["CachedStructures", "EpochShuffle", "ForceMatching", "LossWeights", "TrainingResult",
           "read_log", "train"]  # fmt: skip

if TYPE_CHECKING:
    from pymlp.training.dataset import CachedStructures, EpochShuffle
    from pymlp.training.log import read_log
    from pymlp.training.module import ForceMatching
    from pymlp.training.run import TrainingResult, train
    from pymlp.training.schedule import LossWeights


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"pymlp.training.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'pymlp.training' has no attribute {name!r}")
