"""Run configurations: run.yaml in, checked models out (and back again, with comments)."""

from __future__ import annotations

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
    "kind_named",
    "load_config",
    "parse_config",
    "register_kind",
    "render",
]
