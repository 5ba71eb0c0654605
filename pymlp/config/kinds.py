"""The kinds of potential that `pymlp init` and `pymlp train` know.

A kind is one entry of `KINDS`: its configuration model, the values that `pymlp init` writes, and
the function that trains it, named as a string so that reading a configuration imports no torch.
Adding a kind (a descriptor with networks, a Gaussian process) needs no change in the command line.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pymlp.config.models import AniRun, BehlerParrinelloRun, DeepPotRun, RunConfig

__all__ = ["KINDS", "Kind", "kind_named", "register_kind"]


@dataclass(frozen=True)
class Kind:
    """One kind of potential.

    :param name: what run.yaml calls it
    :param summary: one line for ``pymlp init --help``
    :param config: its configuration model
    :param defaults: sections (nested dicts) that ``pymlp init`` writes besides ``data``
    :param trainer: ``"module:function"``; called as ``function(config, directory, resume=...,
        base=...)``, returns the folder of the trained model
    :param descriptor: ``"module:function"``; called with the configuration, returns the descriptor
    """

    name: str
    summary: str
    config: type[RunConfig]
    defaults: Callable[[], dict[str, Any]]
    trainer: str
    descriptor: str

    def train_function(self) -> Callable[..., Any]:
        """Import and return the function that trains this kind."""
        return _imported(self.trainer)

    def build_descriptor(self, config: RunConfig) -> Any:
        """Import the descriptor's module and build the descriptor of a configuration."""
        return _imported(self.descriptor)(config)


def _imported(reference: str) -> Callable[..., Any]:
    module, _, function = reference.partition(":")
    return getattr(importlib.import_module(module), function)


KINDS: dict[str, Kind] = {}


def register_kind(kind: Kind) -> Kind:
    """Add a kind.

    :raises ValueError: if the name is taken
    """
    if kind.name in KINDS:
        raise ValueError(f"the kind {kind.name!r} is already registered")
    KINDS[kind.name] = kind
    return kind


def kind_named(name: str) -> Kind:
    """Return the kind called ``name``.

    :raises ValueError: for an unknown name, with the known ones and the closest
    """
    if name in KINDS:
        return KINDS[name]
    close = difflib.get_close_matches(name, list(KINDS), n=1, cutoff=0.5)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    raise ValueError(f"unknown kind {name!r}, expected one of {', '.join(sorted(KINDS))}{hint}")


def _behler_parrinello_defaults() -> dict[str, Any]:
    # Not the paper's set (R_s = 0, eta and zeta in step), which does not resolve a reaction: see
    # benchmarks/accuracy/README.md.
    return {
        "descriptor": {
            "cutoff": 5.2,
            "radial": [(16.0, round(0.9 + 0.26875 * k, 5)) for k in range(16)],
            "angular": [
                (eta, zeta, theta)
                for eta in (0.01, 0.08, 0.3)
                for theta in (0.0, 180.0)
                for zeta in (1.0, 4.0, 16.0)
            ],
        },
        # Steps of such small networks take a millisecond: a second thread mostly waits.
        "training": {"threads": 1},
    }


def _ani1x_defaults() -> dict[str, Any]:
    return {
        "descriptor": {
            "radial_shifts": [round(0.9 + 0.26875 * k, 5) for k in range(16)],
            "angular_shifts": [0.9, 1.55, 2.2, 2.85],
            "theta_shifts": [11.25 + 22.5 * k for k in range(8)],
        },
        # Steps of such small networks take a millisecond: a second thread mostly waits.
        "training": {"threads": 1},
    }


def _deep_pot_defaults() -> dict[str, Any]:
    # Not the paper's sizes (25-50-100, m2 = 4, 240-240-240 tanh): on the data of one reaction these
    # reach lower errors in less time, and so do small batches: see benchmarks/accuracy/README.md.
    return {
        "descriptor": {"embedding": [24, 48], "n_axis": 8},
        "network": {
            "hidden": [100, 100],
            "residual": True,
            "activation": "silu",
            "whitening": 0.01,
        },
        "training": {
            "epochs": 140,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "descriptor_rate": 0.2,
            "weight_decay": 0.01,
            "ema": 0.99,
            # Steps of such small networks take milliseconds: a second thread mostly waits.
            "threads": 1,
        },
    }


register_kind(
    Kind(
        name="bp-fnn",
        summary="Behler-Parrinello symmetry functions + a network per element",
        config=BehlerParrinelloRun,
        defaults=_behler_parrinello_defaults,
        trainer="pymlp.training:train",
        descriptor="pymlp.training.build:behler_parrinello",
    )
)
register_kind(
    Kind(
        name="ani-fnn",
        summary="ANI features (ANI-1x parameters) + a network per element",
        config=AniRun,
        defaults=_ani1x_defaults,
        trainer="pymlp.training:train",
        descriptor="pymlp.training.build:ani",
    )
)
register_kind(
    Kind(
        name="deeppot-fnn",
        summary="DeepPot-SE (24-48, m2 = 8) + a residual network per element",
        config=DeepPotRun,
        defaults=_deep_pot_defaults,
        trainer="pymlp.training:train",
        descriptor="pymlp.training.build:deep_pot_se",
    )
)
