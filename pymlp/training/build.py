"""Descriptors and networks from a run configuration."""

from __future__ import annotations

import math

from pymlp.config import AniRun, BehlerParrinelloRun
from pymlp.descriptors import ANI, BehlerParrinello

__all__ = ["ani", "behler_parrinello"]


def behler_parrinello(config: BehlerParrinelloRun) -> BehlerParrinello:
    """Build the Behler-Parrinello descriptor of a configuration (angles there: degrees).

    Raises:
        ValueError: for parameters that the descriptor refuses.
    """
    section = config.descriptor
    return BehlerParrinello(
        config.elements,
        radial=section.radial,
        angular=[(eta, zeta, math.radians(theta)) for eta, zeta, theta in section.angular],
        cutoff=section.cutoff,
        angular_cutoff=section.angular_cutoff,
        channels=section.channels,
        angular_form=section.angular_form,
        cutoff_function=section.cutoff_function,
    )


def ani(config: AniRun) -> ANI:
    """Build the ANI descriptor of a configuration (angles there: degrees).

    Raises:
        ValueError: for parameters that the descriptor refuses.
    """
    section = config.descriptor
    return ANI(
        config.elements,
        radial_eta=section.radial_eta,
        radial_shifts=section.radial_shifts,
        zeta=section.zeta,
        theta_shifts=[math.radians(theta) for theta in section.theta_shifts],
        angular_eta=section.angular_eta,
        angular_shifts=section.angular_shifts,
        radial_cutoff=section.radial_cutoff,
        angular_cutoff=section.angular_cutoff,
        channels=section.channels,
        cutoff_function=section.cutoff_function,
    )
