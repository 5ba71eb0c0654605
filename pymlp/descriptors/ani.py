"""ANI features: radial symmetry functions (eq 1) and ANI's angular ones (eq 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from pymlp.descriptors.base import Descriptor
from pymlp.descriptors.symmetry_parameters import (
    CUTOFF_FUNCTIONS,
    Channels,
    CutoffFunction,
    angle_row,
    at_least,
    channel_labels,
    channel_tables,
    check_cutoffs,
    choice,
    finite_list,
)

__all__ = ["ANI"]

_ANI1X_ELEMENTS = ("H", "C", "N", "O")
_ANI2X_ELEMENTS = ("H", "C", "N", "O", "S", "F", "Cl")

# TorchANI shrinks cos(theta) before its acos and scales radial terms.
_TORCHANI_COS_SCALE = 0.95
_TORCHANI_RADIAL_PREFACTOR = 0.25


class ANI(Descriptor):
    """ANI features with one set of parameters for all elements.

    G_r = a Σ_j exp(-eta_r (R_ij - R_s)²) f_c(R_ij);
    G_a = 2^(1-zeta) Σ_{j<k} (1 + cos(theta - theta_s))^zeta
    exp(-eta_a ((R_ij + R_ik)/2 - R_s)²) f_c(R_ij) f_c(R_ik) (eq 6).

    Angular features of one pair of elements: distance shift slow, angle shift fast.

    Args:
        elements: chemical symbols of the atoms that may come; their order is that of the types.
        radial_eta: 1/Å², eta_r.
        radial_shifts: Å, R_s of the radial terms.
        zeta: at least 1, need not be an integer.
        theta_shifts: radians, theta_s.
        angular_eta: 1/Å², eta_a.
        angular_shifts: Å, R_s of the angular terms.
        radial_cutoff: Å.
        angular_cutoff: Å, not above ``radial_cutoff``.
        channels: ``"element"``: one sum per neighbour element (or pair of elements); ``"none"``:
            one sum over all; ``"weighted"``: one sum weighted by atomic numbers.
        cos_scale: factor of cos(theta), in 0 .. 1; TorchANI has 0.95.
        radial_prefactor: the factor a of the radial terms; TorchANI has 0.25.
        cutoff_function: ``"cosine"`` (eq 2) or ``"smooth"`` (exp(1 - 1/(1 - (R/R_c)²))).

    Raises:
        ValueError: for parameters out of range (eta < 0, zeta < 1, cutoffs), and unknown or
            repeated elements.
    """

    family = "ani"

    def __init__(
        self,
        elements: Sequence[str],
        radial_eta: float,
        radial_shifts: Sequence[float],
        zeta: float,
        theta_shifts: Sequence[float],
        angular_eta: float,
        angular_shifts: Sequence[float],
        radial_cutoff: float,
        angular_cutoff: float,
        channels: Channels = "element",
        cos_scale: float = 1.0,
        radial_prefactor: float = 1.0,
        cutoff_function: CutoffFunction = "cosine",
    ) -> None:
        radial_cutoff, self.angular_cutoff = check_cutoffs(radial_cutoff, angular_cutoff)
        super().__init__(elements, radial_cutoff)
        choice("cutoff_function", cutoff_function, tuple(CUTOFF_FUNCTIONS))
        self.channels: Channels = channels
        self.cutoff_function: CutoffFunction = cutoff_function
        self.radial_eta = at_least("radial_eta", radial_eta, 0.0)
        self.angular_eta = at_least("angular_eta", angular_eta, 0.0)
        self.zeta = at_least("zeta", zeta, 1.0)
        self.radial_shifts = finite_list("radial_shifts", radial_shifts)
        self.angular_shifts = finite_list("angular_shifts", angular_shifts)
        self.theta_shifts = finite_list("theta_shifts", theta_shifts)
        self.cos_scale = float(cos_scale)
        if not 0 < self.cos_scale <= 1:
            raise ValueError(f"cos_scale must be above 0 and at most 1, got {cos_scale}")
        self.radial_prefactor = float(radial_prefactor)
        if not math.isfinite(self.radial_prefactor) or self.radial_prefactor == 0:
            raise ValueError(f"radial_prefactor must be finite, not zero, got {radial_prefactor}")

        channel, weights, n_channels = channel_tables(channels, self.elements)
        n_angles, n_distances = len(self.theta_shifts), len(self.angular_shifts)
        float64 = torch.float64
        self._set_arguments(
            {
                "channel": channel,
                "weights": weights,
                "radial": torch.tensor(
                    [(self.radial_eta, s, self.radial_prefactor) for s in self.radial_shifts],
                    dtype=float64,
                ).reshape(1, -1, 3),
                "distances": torch.tensor(
                    [(self.angular_eta, s) for s in self.angular_shifts], dtype=float64
                ).reshape(-1, 2),
                "angles": torch.tensor(
                    [angle_row(self.zeta, t) for t in self.theta_shifts], dtype=float64
                ).reshape(-1, 3),
                "products": torch.tensor(
                    [(d, a) for d in range(n_distances) for a in range(n_angles)],
                    dtype=torch.int64,
                ).reshape(1, -1, 2),
            },
            (
                n_channels,
                self.cutoff,
                self.angular_cutoff,
                CUTOFF_FUNCTIONS[cutoff_function],
                self.cos_scale,
            ),
        )
        n_pairs = n_channels * (n_channels + 1) // 2
        n_angular = n_angles * n_distances
        self.n_features = n_channels * len(self.radial_shifts) + n_pairs * n_angular
        if self.n_features == 0:
            raise ValueError("radial_shifts and the angular shifts must not both be empty")

    @classmethod
    def ani1x(
        cls, elements: Sequence[str] = _ANI1X_ELEMENTS, channels: Channels = "element"
    ) -> ANI:
        """Return the features of ANI-1x: 16 radial per element, 32 angular per pair of elements.

        Args:
            elements: chemical symbols, any (ANI-1x itself: H, C, N, O).
            channels: as in the constructor.
        """
        return cls(
            elements,
            radial_eta=16.0,
            radial_shifts=[0.9 + 0.26875 * k for k in range(16)],
            zeta=32.0,
            theta_shifts=[math.pi / 16 + math.pi / 8 * k for k in range(8)],
            angular_eta=8.0,
            angular_shifts=[0.90, 1.55, 2.20, 2.85],
            radial_cutoff=5.2,
            angular_cutoff=3.5,
            channels=channels,
        )

    @classmethod
    def ani2x(
        cls, elements: Sequence[str] = _ANI2X_ELEMENTS, channels: Channels = "element"
    ) -> ANI:
        """Return the features of ANI-2x: 16 radial per element, 32 angular per pair of elements.

        Args:
            elements: chemical symbols; ANI-2x's seven if not given.
            channels: as in the constructor.
        """
        return cls(
            elements,
            radial_eta=19.7,
            radial_shifts=[0.8 + (5.1 - 0.8) / 16 * k for k in range(16)],
            zeta=14.1,
            theta_shifts=[math.pi / 8 + math.pi / 4 * k for k in range(4)],
            angular_eta=12.5,
            angular_shifts=[0.8 + (3.5 - 0.8) / 8 * k for k in range(8)],
            radial_cutoff=5.1,
            angular_cutoff=3.5,
            channels=channels,
        )

    @classmethod
    def like_torchani(
        cls, model: Literal["1x", "2x"], elements: Sequence[str] | None = None
    ) -> ANI:
        """Return features that agree with TorchANI's AEVs of ANI-1x or ANI-2x.

        TorchANI multiplies cos(theta) by 0.95 and radial terms by 0.25.

        Args:
            model: ``"1x"`` (H, C, N, O) or ``"2x"`` (H, C, N, O, S, F, Cl).
            elements: other elements than the model's, in TorchANI's order.

        Raises:
            ValueError: for another model.
        """
        choice("model", model, ("1x", "2x"))
        plain = cls.ani1x() if model == "1x" else cls.ani2x()
        config = plain.to_config()
        config["cos_scale"] = _TORCHANI_COS_SCALE
        config["radial_prefactor"] = _TORCHANI_RADIAL_PREFACTOR
        if elements is not None:
            config["elements"] = list(elements)
        del config["family"]
        return cls(**config)

    def feature_labels(self, center: str | None = None) -> list[str]:
        """Return the name of each feature.

        Radial by channel then shift, angular by pair of channels, then distance shift, then angle
        shift, as ``"radial H eta=16 R_s=0.9"`` and
        ``"angular H-C eta=8 R_s=0.9 zeta=32 theta_s=11.25°"``.

        Args:
            center: taken as for the other descriptors; ANI's features are the same for all.

        Raises:
            ValueError: for an unknown centre.
        """
        if center is not None and center not in self.elements:
            raise ValueError(f"center must be one of {self.elements}, got {center!r}")
        single, pairs = channel_labels(self.channels, self.elements)
        return [
            f"radial {c} eta={self.radial_eta:g} R_s={shift:g}"
            for c in single
            for shift in self.radial_shifts
        ] + [
            f"angular {c} eta={self.angular_eta:g} R_s={shift:g} "
            f"zeta={self.zeta:g} theta_s={math.degrees(theta):g}°"
            for c in pairs
            for shift in self.angular_shifts
            for theta in self.theta_shifts
        ]

    def to_config(self) -> dict[str, Any]:
        """Return what makes the same descriptor again, as plain JSON values."""
        return {
            "family": self.family,
            "elements": list(self.elements),
            "radial_eta": self.radial_eta,
            "radial_shifts": list(self.radial_shifts),
            "zeta": self.zeta,
            "theta_shifts": list(self.theta_shifts),
            "angular_eta": self.angular_eta,
            "angular_shifts": list(self.angular_shifts),
            "radial_cutoff": self.cutoff,
            "angular_cutoff": self.angular_cutoff,
            "channels": self.channels,
            "cos_scale": self.cos_scale,
            "radial_prefactor": self.radial_prefactor,
            "cutoff_function": self.cutoff_function,
        }
