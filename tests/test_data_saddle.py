"""Saddle points, frequencies and reaction paths: ammonia's inversion, and a surface of known form.

The surface is a double well along the distance of two atoms; its saddle, its frequency and its
minima are known in closed form.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pymlp.data.saddle import (
    UpdatedHessian,
    find_minimum,
    find_saddle,
    frequencies,
    reaction_path,
)

MASSES = np.array([3.0, 6.0])
MIDDLE, HALF_WIDTH, HEIGHT = 2.0, 0.5, 0.8


class DoubleWell:
    """V(r) = h ((r - m)² / w² - 1)² of the distance r: a barrier h at m, minima at m ± w."""

    def _parts(self, positions: np.ndarray) -> tuple[np.ndarray, float, float, float, float]:
        vector = positions[1] - positions[0]
        r = float(np.linalg.norm(vector))
        x = (r - MIDDLE) / HALF_WIDTH
        energy = HEIGHT * (x**2 - 1) ** 2
        slope = HEIGHT * 4 * x * (x**2 - 1) / HALF_WIDTH
        curvature = HEIGHT * (12 * x**2 - 4) / HALF_WIDTH**2
        return vector / r, r, energy, slope, curvature

    def energy_gradient(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        unit, _, energy, slope, _ = self._parts(positions)
        return energy, slope * np.array([-unit, unit])

    def hessian(self, positions: np.ndarray) -> np.ndarray:
        unit, r, _, slope, curvature = self._parts(positions)
        along = np.outer(unit, unit)
        block = curvature * along + slope / r * (np.eye(3) - along)
        return np.block([[block, -block], [-block, block]])


def placed(distance: float) -> np.ndarray:
    direction = np.array([2.0, -1.0, 2.0]) / 3
    return np.array([0.3 * np.ones(3), 0.3 * np.ones(3) + distance * direction])


@pytest.mark.parametrize("start", [1.8, 2.25])
def test_saddle_of_a_double_well(start: float) -> None:
    saddle = find_saddle(DoubleWell(), placed(start), tolerance=1e-8)
    assert np.linalg.norm(saddle[1] - saddle[0]) == pytest.approx(MIDDLE, abs=1e-8)


@pytest.mark.parametrize("start", [1.8, 2.25, 2.7])
def test_minimum_of_a_double_well(start: float) -> None:
    minimum = find_minimum(DoubleWell(), placed(start), tolerance=1e-8)
    side = np.sign(start - MIDDLE)
    distance = np.linalg.norm(minimum[1] - minimum[0])
    assert distance == pytest.approx(MIDDLE + side * HALF_WIDTH, abs=1e-8)


class OnlyGradients(DoubleWell):
    def hessian(self, positions: np.ndarray) -> np.ndarray:
        raise AssertionError("asked for a Hessian")


class WrongHessian(DoubleWell):
    def hessian(self, positions: np.ndarray) -> np.ndarray:
        return 0.5 * super().hessian(positions)


@pytest.mark.parametrize(("start", "end"), [(1.9, MIDDLE), (2.7, MIDDLE + HALF_WIDTH)])
def test_stationary_points_from_gradients_and_a_hessian_kept_up(start: float, end: float) -> None:
    surface = UpdatedHessian(OnlyGradients(), WrongHessian())
    find = find_saddle if end == MIDDLE else find_minimum
    found = find(surface, placed(start), tolerance=1e-8, max_steps=30)
    assert np.linalg.norm(found[1] - found[0]) == pytest.approx(end, abs=1e-8)
    # what the gradients taught it: the curvature along the way, not the one that it began with
    unit = (found[1] - found[0]) / end
    stretch = np.concatenate([-unit, unit])
    true = stretch @ DoubleWell().hessian(found) @ stretch
    assert stretch @ surface.hessian(found) @ stretch == pytest.approx(true, rel=0.1)


def test_no_saddle_in_the_allowed_steps_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="after 2 steps"):
        find_saddle(DoubleWell(), placed(2.25), tolerance=1e-8, max_steps=2, trust=0.01)


def test_frequency_of_a_double_well() -> None:
    from ase import units

    reduced = MASSES.prod() / MASSES.sum()
    for distance, curvature in ((MIDDLE, -4 * HEIGHT), (MIDDLE + HALF_WIDTH, 8 * HEIGHT)):
        positions = placed(distance)
        found = frequencies(DoubleWell().hessian(positions), positions, MASSES)
        # ħω in eV from k in eV/Å² and μ in amu, through ASE's time unit.
        omega = np.sqrt(abs(curvature) / HALF_WIDTH**2 / reduced)
        hbar = units._hbar / units._e * units.second
        wanted = np.sign(curvature) * hbar * omega / units.invcm
        assert found == pytest.approx([wanted], rel=1e-6)


def test_path_of_a_double_well_goes_down_to_its_minima() -> None:
    ends = set()
    for direction in (1, -1):
        path = reaction_path(DoubleWell(), placed(MIDDLE), MASSES, direction, step=0.05)
        energies = [point.energy for point in path]
        assert energies == sorted(energies, reverse=True)
        distances = np.array([np.linalg.norm(p.positions[1] - p.positions[0]) for p in path])
        # Arc length in mass-weighted coordinates: √μ |r - m|, as the path is straight.
        reduced = MASSES.prod() / MASSES.sum()
        lengths = np.abs([point.arc_length for point in path])
        travelled = np.sqrt(reduced) * np.abs(distances - MIDDLE)
        np.testing.assert_allclose(travelled, lengths, rtol=1e-9)
        assert np.diff(lengths).max() < 1.01 * 0.05  # the integration is good to a percent
        assert abs(distances[-1] - MIDDLE) == pytest.approx(HALF_WIDTH, abs=0.05)
        ends.add(bool(distances[-1] > MIDDLE))
    assert ends == {True, False}
    with pytest.raises(ValueError, match="direction"):
        reaction_path(DoubleWell(), placed(MIDDLE), MASSES, 0)


def test_ammonia_inverts_through_a_planar_saddle(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="tblite (extra 'data') is not installed")
    from ase.build import molecule
    from ase.vibrations import Vibrations

    from pymlp.data.gfn2 import GFN2, gfn2_calculator

    atoms = molecule("NH3")
    surface = GFN2(atoms.numbers)
    flattened = atoms.positions * np.array([1, 1, 0.1])
    saddle = find_saddle(surface, flattened)
    height = np.linalg.det(saddle[1:] - saddle[0])
    assert abs(height) < 1e-3  # Å³: the four atoms lie in a plane
    masses = atoms.get_masses()
    waves = frequencies(surface.hessian(saddle), saddle, masses)
    assert (waves < 0).sum() == 1
    assert len(waves) == 6

    atoms.positions = saddle
    atoms.calc = gfn2_calculator(0.01)
    oracle = Vibrations(atoms, name=str(tmp_path / "vibrations"), delta=0.005)
    oracle.run()
    expected = oracle.get_frequencies()
    np.testing.assert_allclose(waves[0], -expected[0].imag, rtol=1e-3)
    np.testing.assert_allclose(waves[1:], expected[-5:].real, rtol=1e-3)

    sides = [reaction_path(surface, saddle, masses, direction) for direction in (1, -1)]
    ends = [side[-1].positions for side in sides]
    volumes = [np.linalg.det(positions[1:] - positions[0]) for positions in ends]
    assert volumes[0] * volumes[1] < 0
    assert sides[0][-1].energy == pytest.approx(sides[1][-1].energy, abs=1e-4)
