"""Descriptors: from displacements to features of each atom's surroundings (SPEC §1)."""

from pymlp.descriptors.ani import ANI
from pymlp.descriptors.base import Descriptor
from pymlp.descriptors.behler_parrinello import BehlerParrinello
from pymlp.descriptors.deep_pot_se import DeepPotSE

__all__ = ["ANI", "BehlerParrinello", "DeepPotSE", "Descriptor"]
