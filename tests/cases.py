"""The table of descriptor cases: what every op of every family must compute, and on what.

A new descriptor adds rows here (and its oracle in reference.py); the contract tests come free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from tests import neighbourhoods as near
from tests import reference
from tests.neighbourhoods import Geometry, Neighbourhood
from tests.reference import AngularTerm, RadialTerm, SymmetryFunctions

PI = math.pi


def pack(parameters: SymmetryFunctions, dtype: torch.dtype) -> tuple[Any, ...]:
    """Plain parameters -> the op arguments after ``types`` (contract of csrc/README.md)."""
    ani = parameters.family == "ani"
    distances: list[tuple[float, float]] = []
    angles: list[tuple[float, float]] = []
    for terms in parameters.angular:
        for term in terms:
            if term is not None:
                row = (term[0], term[1] if ani else 0.0)
                distances += [row] if row not in distances else []
                angle = (term[-2], term[-1])
                angles += [angle] if angle not in angles else []
    distances.sort()
    products = []
    for terms in parameters.angular:
        rows = [
            (-1, -1)
            if term is None
            else (distances.index((term[0], term[1] if ani else 0.0)), angles.index(term[-2:]))  # type: ignore[arg-type]
            for term in terms
        ]
        real = [row[0] for row in rows if row[0] >= 0]
        assert real == sorted(real), "list angular terms by (eta, R_s): the op wants them sorted"
        products.append(rows)
    turned = [
        (zeta, math.cos(shift), 0.0 if shift in (0.0, PI) else math.sin(shift))
        for zeta, shift in angles
    ]
    n_sets = len(parameters.radial)
    return (
        torch.tensor(parameters.channels, dtype=torch.int64),
        torch.tensor(parameters.weights, dtype=dtype),
        torch.tensor(parameters.radial, dtype=dtype).reshape(n_sets, -1, 3),
        torch.tensor(distances, dtype=dtype).reshape(-1, 2),
        torch.tensor(turned, dtype=dtype).reshape(-1, 3),
        torch.tensor(products, dtype=torch.int64).reshape(n_sets, -1, 2),
        parameters.n_channels,
        parameters.radial_cutoff,
        parameters.angular_cutoff,
        int(parameters.smooth),
        parameters.cos_scale if ani else parameters.jk_factors,
    )


@dataclass(frozen=True)
class Case:
    """One row: a family, its parameters, and the neighbourhood it is evaluated on.

    ``curvature_defined`` is False where the second derivative does not exist (atoms exactly on a
    cosine cutoff): there the second-order ops must be finite, and only that. ``sine_lost`` marks
    collinear triples with sin(theta) in their terms: 1 - cos² is rounding alone, so that first
    derivatives keep half of the digits and second ones none. ``small`` cases are cheap enough for
    finite differences.
    """

    name: str
    parameters: SymmetryFunctions
    make: Callable[[], Neighbourhood]
    small: bool = False
    curvature_defined: bool = True
    sine_lost: bool = False

    @property
    def family(self) -> str:
        return self.parameters.family

    @cached_property
    def neighbourhood(self) -> Neighbourhood:
        return self.make()

    @property
    def n_features(self) -> int:
        return self.parameters.n_features

    def displacements(self, dtype: torch.dtype) -> Tensor:
        return self.neighbourhood.displacements.to(dtype)

    def rest(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """All op arguments after ``displacements``."""
        n = self.neighbourhood
        return (n.pair_offsets, n.neighbors, n.types, *pack(self.parameters, dtype))

    def reference(self, displacements: Tensor, dtype: torch.dtype) -> Tensor:
        """Oracle [A, F] in float64, with the parameters and epsilon that ``dtype`` has."""
        n = self.neighbourhood
        return reference.symmetry_functions(
            displacements,
            n.pair_offsets,
            n.neighbors,
            n.types,
            rounded(self.parameters, dtype),
            epsilon=math.sqrt(torch.finfo(dtype).eps),
        )

    def __str__(self) -> str:
        return self.name


def rounded(parameters: SymmetryFunctions, dtype: torch.dtype) -> SymmetryFunctions:
    """The parameters as ``dtype`` stores them, so that the oracle judges arithmetic only."""

    def stored(value: float) -> float:
        return value if value == PI else torch.tensor(value, dtype=dtype).item()

    return replace(
        parameters,
        weights=[stored(w) for w in parameters.weights],
        radial=[[tuple(stored(v) for v in row) for row in rows] for rows in parameters.radial],  # type: ignore[misc]
        angular=[
            [term and tuple(stored(v) for v in term) for term in terms]
            for terms in parameters.angular
        ],
    )


def symmetry(
    family: str,
    n_types: int,
    radial: Sequence[RadialTerm] | list[list[RadialTerm]],
    angular: Sequence[AngularTerm] | list[list[AngularTerm]],
    channels: str = "element",
    cutoffs: tuple[float, float] = (6.0, 6.0),
    **options: Any,
) -> SymmetryFunctions:
    """Parameters with ``channels`` spelled as the public classes spell it."""
    per_set = bool(radial) and isinstance(radial[0], list)
    own = [0] * n_types if channels != "element" else list(range(n_types))
    weights = [float(w) for w in ([1, 6, 8, 7, 9, 16, 17, 15, 35])[:n_types]]
    return SymmetryFunctions(
        family=family,
        channels=own,
        weights=weights if channels == "weighted" else [1.0] * n_types,
        radial=radial if per_set else [list(radial)],  # type: ignore[arg-type]
        angular=angular if per_set else [list(angular)],  # type: ignore[arg-type]
        radial_cutoff=cutoffs[0],
        angular_cutoff=cutoffs[1],
        **options,
    )


BP_ETAS = (0.0, 0.04, 0.14, 0.32, 0.71, 1.79)
BP_RADIAL: list[RadialTerm] = [(eta, 0.0, 1.0) for eta in BP_ETAS]
BP_ANGULAR: list[AngularTerm] = [
    (eta, zeta, theta)
    for eta, zeta in zip(BP_ETAS, (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), strict=True)
    for theta in (0.0, PI)
]
FEW_RADIAL: list[RadialTerm] = [(0.5, 0.0, 1.0), (4.0, 1.5, 1.0), (2.0, 3.0, 0.5)]
FEW_ANGULAR: list[AngularTerm] = [(0.01, 1.0, 0.0), (0.05, 4.0, PI), (0.1, 2.0, 0.0)]
ODD_ANGULAR: list[AngularTerm] = [(0.02, 1.0, 0.4), (0.02, 2.5, PI), (0.09, 5.7, 2.0)]


def ani_grid(
    eta: float, shifts: Sequence[float], zeta: float, thetas: Sequence[float]
) -> list[AngularTerm]:
    """ANI's product of distance shifts (slow) and angle shifts (fast)."""
    return [(eta, shift, zeta, theta) for shift in shifts for theta in thetas]


ANI1X: dict[str, Any] = {
    "radial": [(16.0, 0.9 + k * 0.26875, 0.25) for k in range(16)],
    "angular": ani_grid(
        8.0, [0.9, 1.55, 2.2, 2.85], 32.0, [PI / 16 + k * PI / 8 for k in range(8)]
    ),
    "cutoffs": (5.2, 3.5),
}
ANI2X: dict[str, Any] = {
    "radial": [(19.7, 0.8 + k * 4.3 / 16, 0.25) for k in range(16)],
    "angular": ani_grid(
        12.5, [0.8 + k * 2.7 / 8 for k in range(8)], 14.1, [PI / 8 + k * PI / 4 for k in range(4)]
    ),
    "cutoffs": (5.1, 3.5),
}
FEW_GRID = ani_grid(3.0, [1.0, 2.2], 4.0, [0.3, 1.2, 2.6])
EVEN_GRID = ani_grid(3.0, [1.0, 2.2], 4.0, [0.0, PI])


def batch(*structures: Geometry, cutoff: float = 6.0) -> Callable[[], Neighbourhood]:
    return lambda: near.neighbourhood(structures, cutoff)


def _padded() -> dict[str, Any]:
    """Three centre types with sets of different length."""
    radial = [FEW_RADIAL, [(1.0, 0.5, 1.0), (1.0, 1.5, 1.0), (0.0, 0.0, 0.0)], [(0.3, 1.0, 1.0)]]
    radial[2] = [*radial[2], (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)]
    angular = [FEW_ANGULAR, [(0.05, 2.0, 0.0), None, None], [None, None, None]]
    return {"radial": radial, "angular": angular}


LONE = Geometry(torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))
PAIR = Geometry(torch.tensor([[0.0, 0, 0], [0.3, 0.9, 0.5]]).double(), torch.tensor([1, 0]))
FAR = Geometry(torch.eye(3, dtype=torch.float64) * 50, torch.tensor([0, 1, 0]))


@cache
def all_cases() -> tuple[Case, ...]:
    """Every row; the seeds only make the rows differ from each other."""
    bp, ani = "behler_parrinello", "ani"
    few = {"radial": FEW_RADIAL, "angular": FEW_ANGULAR}
    grid = {"radial": FEW_RADIAL, "angular": FEW_GRID}
    short = {**grid, "cutoffs": (5.0, 3.2)}

    def make(family: str, n_types: int, **options: Any) -> SymmetryFunctions:
        return symmetry(family, n_types, **options)

    ragged = batch(
        near.molecule(7, 3, 1), LONE, near.molecule(12, 3, 2), PAIR, near.molecule(5, 2, 3)
    )
    return (
        Case("bp-molecule", make(bp, 3, **few), batch(near.molecule(6, 3, 4)), small=True),
        Case(
            "bp-paper-claisen-size",
            make(bp, 3, radial=BP_RADIAL, angular=BP_ANGULAR),
            batch(near.molecule(14, 3, 5), near.molecule(14, 3, 6)),
        ),
        # Complete lists: summed molecule by molecule, up to 32 atoms, some beyond the cutoff.
        Case(
            "bp-paper-complete-lists",
            make(bp, 3, radial=BP_RADIAL, angular=BP_ANGULAR),
            batch(*(near.molecule(n, 3, 30 + n) for n in (3, 33, 32, 19)), cutoff=30.0),
        ),
        Case(
            "bp-complete-lists-own-cutoffs",
            make(bp, 3, **few, cutoffs=(5.0, 3.5)),
            batch(*(near.molecule(n, 3, 70 + n) for n in (17, 4, 9)), cutoff=30.0),
        ),
        Case(
            "bp-paper-complete-one-channel",
            make(bp, 2, radial=BP_RADIAL, angular=BP_ANGULAR, channels="weighted"),
            batch(*(near.molecule(n, 2, 80 + n) for n in (16, 9, 5, 4)), cutoff=30.0),
        ),
        Case(
            "bp-complete-but-no-molecule",
            make(bp, 3, radial=BP_RADIAL, angular=BP_ANGULAR),
            lambda: near.distorted(near.neighbourhood([near.molecule(8, 3, 90)], 30.0), 91),
        ),
        Case("bp-ragged-no-channels", make(bp, 3, **few, channels="none"), ragged),
        Case("bp-ragged", make(bp, 3, **few), ragged),
        Case(
            "bp-weighted-g5",
            make(bp, 3, **few, channels="weighted", jk_factors=False),
            batch(near.molecule(6, 3, 7)),
            small=True,
        ),
        Case(
            "bp-small-cell-own-sets",
            make(bp, 3, **_padded(), cutoffs=(4.2, 3.4)),
            batch(near.crystal(4, 3, 8, 3.6), near.molecule(6, 3, 9), cutoff=4.2),
        ),
        Case(
            "bp-own-sets-weighted-smooth",
            make(bp, 3, **_padded(), channels="weighted", smooth=True),
            batch(near.molecule(6, 3, 10)),
            small=True,
        ),
        Case(
            "bp-smooth-cutoff",
            make(bp, 2, **few, smooth=True, cutoffs=(3.0, 2.5)),
            batch(near.molecule(8, 2, 11), cutoff=4.0),
            small=True,
        ),
        Case(
            "bp-odd-angles-and-zetas",
            make(bp, 2, radial=FEW_RADIAL, angular=ODD_ANGULAR),
            batch(near.molecule(6, 2, 12)),
            small=True,
        ),
        Case("bp-radial-alone", make(bp, 2, radial=FEW_RADIAL, angular=[]), ragged_two()),
        Case("bp-angular-alone", make(bp, 2, radial=[], angular=FEW_ANGULAR), ragged_two()),
        Case("bp-empty", make(bp, 2, **few), batch()),
        Case("bp-lone-atom", make(bp, 2, **few), batch(LONE)),
        Case("bp-pair", make(bp, 2, **few), batch(PAIR), small=True),
        Case("bp-zero-neighbours", make(bp, 2, **few), batch(FAR, PAIR)),
        Case("bp-collinear", make(bp, 2, **few), batch(near.collinear())),
        Case(
            "bp-on-the-cutoff",
            make(bp, 2, **few, cutoffs=(3.0, 3.0)),
            batch(near.on_the_cutoff(3.0)),
            curvature_defined=False,
        ),
        Case(
            "bp-on-the-smooth-cutoff",
            make(bp, 2, **few, cutoffs=(3.0, 3.0), smooth=True),
            batch(near.on_the_cutoff(3.0)),
        ),
        Case("bp-many-neighbours", make(bp, 3, **few), lambda: near.shell(67, 3, 13)),
        Case("bp-many-elements", make(bp, 9, **few), batch(near.molecule(13, 9, 14))),
        Case(
            "bp-longer-angular-cutoff",
            make(bp, 2, **few, cutoffs=(2.5, 4.0)),
            batch(near.molecule(7, 2, 15), cutoff=4.0),
            small=True,
        ),
        Case("ani-molecule", make(ani, 3, **grid), batch(near.molecule(6, 3, 16)), small=True),
        Case(
            "ani-1x-claisen-size",
            make(ani, 4, **ANI1X),
            batch(near.molecule(14, 4, 17), near.molecule(14, 3, 18), cutoff=5.2),
        ),
        Case(
            "ani-1x-like-torchani",
            make(ani, 4, **ANI1X, cos_scale=0.95),
            batch(near.molecule(9, 4, 19), near.molecule(14, 4, 20), cutoff=5.2),
        ),
        Case(
            "ani-2x-like-torchani",
            make(ani, 7, **ANI2X, cos_scale=0.95),
            batch(near.molecule(12, 7, 21), cutoff=5.1),
        ),
        Case("ani-ragged-no-channels", make(ani, 3, **short, channels="none"), ragged),
        Case("ani-ragged-weighted", make(ani, 3, **short, channels="weighted"), ragged),
        Case(
            "ani-small-cell",
            make(ani, 3, **short, cos_scale=0.95),
            batch(near.crystal(4, 3, 22, 3.6), near.crystal(3, 3, 23, 5.5), cutoff=5.0),
        ),
        Case(
            "ani-smooth-cutoff",
            make(ani, 2, radial=FEW_RADIAL, angular=FEW_GRID, smooth=True, cutoffs=(3.0, 2.5)),
            batch(near.molecule(8, 2, 24), cutoff=4.0),
            small=True,
        ),
        Case("ani-radial-alone", make(ani, 2, radial=FEW_RADIAL, angular=[]), ragged_two()),
        Case("ani-angular-alone", make(ani, 2, radial=[], angular=FEW_GRID), ragged_two()),
        Case("ani-empty", make(ani, 2, **grid), batch()),
        Case("ani-lone-atom", make(ani, 2, **grid), batch(LONE)),
        Case("ani-pair", make(ani, 2, **grid), batch(PAIR), small=True),
        Case("ani-zero-neighbours", make(ani, 2, **grid), batch(FAR, PAIR)),
        Case(
            "ani-collinear",
            make(ani, 2, **grid),
            batch(near.collinear()),
            curvature_defined=False,
            sine_lost=True,
        ),
        Case(
            "ani-collinear-even",
            make(ani, 2, radial=FEW_RADIAL, angular=EVEN_GRID),
            batch(near.collinear()),
        ),
        Case(
            "ani-on-the-cutoff",
            make(ani, 2, **grid, cutoffs=(3.0, 3.0)),
            batch(near.on_the_cutoff(3.0)),
            curvature_defined=False,
        ),
        Case("ani-many-neighbours", make(ani, 3, **grid), lambda: near.shell(67, 3, 25)),
        Case("ani-many-elements", make(ani, 9, **short), batch(near.molecule(13, 9, 26))),
        Case(
            "ani-non-separable-sets",
            make(
                ani,
                2,
                radial=[FEW_RADIAL, FEW_RADIAL],
                angular=[[FEW_GRID[0], FEW_GRID[4], None], [FEW_GRID[2], FEW_GRID[3], FEW_GRID[5]]],
            ),
            batch(near.molecule(6, 2, 27)),
            small=True,
        ),
    )


def ragged_two() -> Callable[[], Neighbourhood]:
    return batch(near.molecule(6, 2, 28), LONE, PAIR, near.molecule(9, 2, 29))


def cases(*, small: bool = False, family: str | None = None) -> list[Case]:
    """Rows filtered; ``small`` keeps those cheap enough for finite differences."""
    return [
        case
        for case in all_cases()
        if (case.small or not small) and (family is None or case.family == family)
    ]
