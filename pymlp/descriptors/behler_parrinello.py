"""Behler-Parrinello symmetry functions (eqs 1-5), with G5 and weighted forms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

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

__all__ = ["BehlerParrinello"]

_Rows: TypeAlias = Sequence[Sequence[float]]
_Sets: TypeAlias = "_Rows | Mapping[str, _Rows]"

_PAPER_ETA = (0.0, 0.04, 0.14, 0.32, 0.71, 1.79)
_PAPER_ZETA = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class BehlerParrinello(Descriptor):
    """Radial (eq 1) and angular (eq 3) symmetry functions.

    G_r = Σ_j exp(-eta (R_ij - R_s)²) f_c(R_ij);
    G_a = 2^(1-zeta) Σ_{j<k} (1 + cos(theta - theta_s))^zeta exp(-eta (R_ij² + R_ik² + R_jk²))
    f_c(R_ij) f_c(R_ik) f_c(R_jk); the G5 form leaves R_jk out of both.

    Args:
        elements: chemical symbols of the atoms that may come; their order is that of the types.
        radial: rows (eta in 1/Å², R_s in Å), or rows for each centre element by symbol.
        angular: rows (eta in 1/Å², zeta, theta_s in radians), or such rows by symbol. Features
            stand in order of their eta's first appearance; rows of one eta keep their order.
        cutoff: Å, of the radial terms.
        angular_cutoff: Å, not above ``cutoff``; ``None`` means the same.
        channels: ``"element"``: one sum per neighbour element (or pair of elements); ``"none"``:
            one sum over all; ``"weighted"``: one sum weighted by atomic numbers (wACSF).
        angular_form: ``"g4"`` (eq 3) or ``"g5"``.
        cutoff_function: ``"cosine"`` (eq 2) or ``"smooth"`` (exp(1 - 1/(1 - (R/R_c)²))).

    Raises:
        ValueError: for parameters out of range (eta < 0, zeta < 1, cutoffs), unknown or repeated
            elements, or sets that leave an element out.
    """

    family = "behler_parrinello"

    def __init__(
        self,
        elements: Sequence[str],
        radial: _Sets = (),
        angular: _Sets = (),
        cutoff: float = 6.0,
        angular_cutoff: float | None = None,
        channels: Channels = "element",
        angular_form: Literal["g4", "g5"] = "g4",
        cutoff_function: CutoffFunction = "cosine",
    ) -> None:
        cutoff, self.angular_cutoff = check_cutoffs(
            cutoff, cutoff if angular_cutoff is None else angular_cutoff
        )
        super().__init__(elements, cutoff)
        choice("angular_form", angular_form, ("g4", "g5"))
        choice("cutoff_function", cutoff_function, tuple(CUTOFF_FUNCTIONS))
        channel, weights, n_channels = channel_tables(channels, self.elements)
        self.channels: Channels = channels
        self.angular_form = angular_form
        self.cutoff_function: CutoffFunction = cutoff_function

        self._radial = self._sets("radial", radial, 2)
        angular_sets = self._sets("angular", angular, 3)
        # Each once: the op computes every distance factor of the list for every triple.
        etas = list(dict.fromkeys(eta for rows in angular_sets for eta, _, _ in rows))
        # The op walks through each distance factor once: features of one eta stand together.
        self._angular = [sorted(rows, key=lambda row: etas.index(row[0])) for rows in angular_sets]
        n_sets = max(len(self._radial), len(self._angular))
        self._radial *= n_sets // len(self._radial)
        self._angular *= n_sets // len(self._angular)

        shapes = {row[1:] for rows in self._angular for row in rows}
        angles = sorted(shapes, key=lambda row: (row[1], row[0]))
        n_radial = max(len(rows) for rows in self._radial)
        n_angular = max(len(rows) for rows in self._angular)
        self.n_radial, self.n_angular = n_radial, n_angular
        none = [(0.0, 0.0, 0.0)]
        float64 = torch.float64
        self._set_arguments(
            {
                "channel": channel,
                "weights": weights,
                "radial": torch.tensor(
                    [
                        [(*row, 1.0) for row in rows] + none * (n_radial - len(rows))
                        for rows in self._radial
                    ],
                    dtype=float64,
                ).reshape(n_sets, n_radial, 3),
                "distances": torch.tensor([(e, 0.0) for e in etas], dtype=float64).reshape(-1, 2),
                "angles": torch.tensor([angle_row(*row) for row in angles], dtype=float64).reshape(
                    -1, 3
                ),
                "products": torch.tensor(
                    [
                        [(etas.index(row[0]), angles.index(row[1:])) for row in rows]
                        + [(-1, -1)] * (n_angular - len(rows))
                        for rows in self._angular
                    ],
                    dtype=torch.int64,
                ).reshape(n_sets, n_angular, 2),
            },
            (
                n_channels,
                self.cutoff,
                self.angular_cutoff,
                CUTOFF_FUNCTIONS[cutoff_function],
                angular_form == "g4",
            ),
        )
        n_pairs = n_channels * (n_channels + 1) // 2
        self.n_features = n_channels * n_radial + n_pairs * n_angular
        if self.n_features == 0:
            raise ValueError("radial and angular must not both be empty")

    def _sets(self, name: str, given: _Sets, width: int) -> list[list[tuple[float, ...]]]:
        """One list of checked rows for all centres, or one for each element."""
        if isinstance(given, Mapping):
            if set(given) != set(self.elements):
                raise ValueError(
                    f"{name} by element must name exactly the elements {self.elements}, "
                    f"got {tuple(given)}"
                )
            return [self._rows(name, given[element], width) for element in self.elements]
        return [self._rows(name, given, width)]

    @staticmethod
    def _rows(name: str, given: _Rows, width: int) -> list[tuple[float, ...]]:
        rows: list[tuple[float, ...]] = []
        for row in given:
            values = tuple(finite_list(name, row))
            if len(values) != width:
                wanted = "(eta, R_s)" if width == 2 else "(eta, zeta, theta_s)"
                raise ValueError(f"{name} rows must be {wanted}, got {tuple(row)}")
            at_least(f"{name}: eta", values[0], 0.0)
            if width == 2:
                at_least("radial: R_s", values[1], 0.0)
            else:
                at_least("angular: zeta", values[1], 1.0)
                if not 0 <= values[2] <= math.pi + 1e-9:
                    raise ValueError(f"angular: theta_s must be in 0 .. pi, got {values[2]}")
            if values in rows:
                raise ValueError(f"{name} has the row {values} twice")
            rows.append(values)
        return rows

    @classmethod
    def paper(cls, elements: Sequence[str], channels: Channels = "element") -> BehlerParrinello:
        """Return the paper's set: 6 radial and 12 angular functions, both cutoffs 6 Å.

        eta = 0, 0.04, 0.14, 0.32, 0.71, 1.79 (1/Å²), R_s = 0, and with these eta in turn
        zeta = 1, 2, 4, 8, 16, 32, each for theta_s = 0 and pi.

        Args:
            elements: chemical symbols.
            channels: as in the constructor.
        """
        return cls(
            elements,
            radial=[(eta, 0.0) for eta in _PAPER_ETA],
            angular=[
                (eta, zeta, theta_shift)
                for eta, zeta in zip(_PAPER_ETA, _PAPER_ZETA, strict=True)
                for theta_shift in (0.0, math.pi)
            ],
            cutoff=6.0,
            channels=channels,
        )

    def feature_labels(self, center: str | None = None) -> list[str]:
        """Return the name of each feature.

        Radial by channel then parameter, angular by pair of channels then parameter, as
        ``"radial H eta=0.04 R_s=0"`` and ``"angular C-H eta=0.04 zeta=2 theta_s=180°"``.

        Args:
            center: the centre's element; needed where elements have their own parameters. A
                set that is shorter than the longest one ends in ``"unused"`` features, always 0.

        Raises:
            ValueError: for an unknown element, or none where one is needed.
        """
        index = 0
        if center is not None:
            if center not in self.elements:
                raise ValueError(f"center must be one of {self.elements}, got {center!r}")
            index = self.elements.index(center) if len(self._radial) > 1 else 0
        elif len(self._radial) > 1:
            raise ValueError("center must be given: every element has its own parameters")
        radial = [f"eta={eta:g} R_s={shift:g}" for eta, shift in self._radial[index]]
        radial += ["unused"] * (self.n_radial - len(radial))
        angular = [
            f"eta={eta:g} zeta={zeta:g} theta_s={math.degrees(theta):g}°"
            for eta, zeta, theta in self._angular[index]
        ]
        angular += ["unused"] * (self.n_angular - len(angular))
        single, pairs = channel_labels(self.channels, self.elements)
        return [f"radial {c} {text}" for c in single for text in radial] + [
            f"angular {c} {text}" for c in pairs for text in angular
        ]

    def to_config(self) -> dict[str, Any]:
        """Return what makes the same descriptor again, as plain JSON values."""

        def plain(sets: list[list[tuple[float, ...]]]) -> Any:
            if len(sets) == 1:
                return [list(row) for row in sets[0]]
            return {
                element: [list(row) for row in rows]
                for element, rows in zip(self.elements, sets, strict=True)
            }

        return {
            "family": self.family,
            "elements": list(self.elements),
            "radial": plain(self._radial),
            "angular": plain(self._angular),
            "cutoff": self.cutoff,
            "angular_cutoff": self.angular_cutoff,
            "channels": self.channels,
            "angular_form": self.angular_form,
            "cutoff_function": self.cutoff_function,
        }
