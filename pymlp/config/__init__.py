"""Run configurations: run.yaml in, checked models out (and back again, with comments)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pymlp.config.files import ConfigError, load_config, parse_config
from pymlp.config.gpr import GaussianProcessRun, GaussianProcessSection
from pymlp.config.kinds import KINDS, Kind, kind_named, register_kind
from pymlp.config.models import (
    AniDescriptor,
    AniRun,
    BehlerParrinelloDescriptor,
    BehlerParrinelloRun,
    DataSection,
    DeepPotDescriptor,
    DeepPotRun,
    KeySection,
    LossSection,
    NetworkRun,
    NetworkSection,
    RunConfig,
    ScheduleSection,
    TrainingSection,
    UnitSection,
)
from pymlp.config.template import render

__all__ = [
    "KINDS",
    "AniDescriptor",
    "AniRun",
    "BehlerParrinelloDescriptor",
    "BehlerParrinelloRun",
    "ConfigError",
    "DataSection",
    "DeepPotDescriptor",
    "DeepPotRun",
    "GaussianProcessRun",
    "GaussianProcessSection",
    "KeySection",
    "Kind",
    "LossSection",
    "NetworkRun",
    "NetworkSection",
    "RunConfig",
    "ScheduleSection",
    "TrainingSection",
    "UnitSection",
    "configure",
    "kind_named",
    "load_config",
    "parse_config",
    "register_kind",
    "render",
]

if TYPE_CHECKING:
    from pymlp.config.start import configure


def __getattr__(name: str) -> Any:
    # It reads data files: a configuration alone is checked without the imports for that.
    if name == "configure":
        return importlib.import_module("pymlp.config.start").configure
    raise AttributeError(f"module 'pymlp.config' has no attribute {name!r}")
