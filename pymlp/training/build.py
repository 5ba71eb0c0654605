"""Descriptors and networks from a run configuration."""

from __future__ import annotations

import math

from pymlp.config import AniRun, BehlerParrinelloRun, DeepPotRun
from pymlp.config.gpr import GaussianProcessRun, WeightedAniDescriptor
from pymlp.descriptors import ANI, BehlerParrinello, DeepPotSE

__all__ = ["ani", "behler_parrinello", "deep_pot_se"]


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


def ani(config: AniRun | GaussianProcessRun) -> ANI:
    """Build the ANI descriptor of a configuration (angles there: degrees).

    Raises:
        ValueError: for parameters that the descriptor refuses.
    """
    section = config.descriptor
    prefactor = section.radial_prefactor if isinstance(section, WeightedAniDescriptor) else 1.0
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
        radial_prefactor=prefactor,
        cutoff_function=section.cutoff_function,
    )


def deep_pot_se(config: DeepPotRun) -> DeepPotSE:
    """Build the DeepPot-SE descriptor of a configuration, with weights from its seed.

    Raises:
        ValueError: for parameters that the descriptor refuses.
    """
    section = config.descriptor
    return DeepPotSE(
        config.elements,
        embedding=section.embedding,
        n_axis=section.n_axis,
        cutoff=section.cutoff,
        switch_start=section.switch_start,
        switch=section.switch,
        normalize=section.normalize,
        sharing=section.sharing,
        use_radial_column=section.use_radial_column,
        seed=config.training.seed,
    )
