"""The Behler-Parrinello set of the paper against DScribe's ACSF: oracle and descriptor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms

from pymlp import Batch
from pymlp.descriptors import BehlerParrinello
from tests import reference
from tests.cases import BP_ANGULAR, BP_ETAS, BP_RADIAL, symmetry
from tests.neighbourhoods import Geometry, crystal, molecule, neighbourhood

dscribe = pytest.importorskip("dscribe.descriptors", reason="extra `bench` is not installed")

NUMBERS = torch.tensor([1, 6, 8])


def acsf(geometry: Geometry) -> torch.Tensor:
    """DScribe's features in this package's order; its G1 (the sum of cutoffs) is eta = 0."""
    periodic = geometry.cell is not None
    computer = dscribe.ACSF(
        r_cut=6.0,
        species=["H", "C", "O"],
        g2_params=[[eta, 0.0] for eta in BP_ETAS if eta],
        g4_params=[[t[0], t[1], 1 if t[2] == 0 else -1] for t in BP_ANGULAR if t],
        periodic=periodic,
    )
    cell = None if geometry.cell is None else geometry.cell.numpy()
    atoms = Atoms(NUMBERS[geometry.types].numpy(), geometry.positions.numpy(), cell=cell)
    atoms.pbc = periodic
    features = computer.create(atoms)
    n_radial, n_angular = 3 * len(BP_RADIAL), len(BP_ANGULAR)
    blocks = [features[:, :n_radial]]
    for high, low in [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (2, 2)]:
        start = n_radial + (high * (high + 1) // 2 + low) * n_angular
        blocks.append(features[:, start : start + n_angular])
    return torch.as_tensor(np.concatenate(blocks, axis=1))


def wrapped(geometry: Geometry) -> Geometry:
    """Atoms inside the cell: DScribe misses images of atoms outside it."""
    assert geometry.cell is not None
    fractions = geometry.positions @ torch.linalg.inv(geometry.cell)
    return Geometry((fractions - fractions.floor()) @ geometry.cell, geometry.types, geometry.cell)


@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "cell"])
def test_paper_set_is_acsf(periodic: bool) -> None:
    geometry = wrapped(crystal(6, 3, 61, 6.5)) if periodic else molecule(14, 3, 62)
    theirs = acsf(geometry)
    parameters = symmetry("behler_parrinello", 3, radial=BP_RADIAL, angular=BP_ANGULAR)
    near = neighbourhood([geometry], 6.0)
    oracle = reference.symmetry_functions(
        near.displacements, near.pair_offsets, near.neighbors, near.types, parameters
    )
    error = float((oracle - theirs).abs().max() / theirs.abs().max())
    assert error < 1e-12, f"oracle is off by {error:.1e}"
    descriptor = BehlerParrinello(
        ["H", "C", "O"],
        radial=[(row[0], row[1]) for row in BP_RADIAL],
        angular=[(term[0], term[1], term[2]) for term in BP_ANGULAR if term],
        cutoff=6.0,
    )
    cell = geometry.cell
    batch = Batch.from_arrays(
        NUMBERS[geometry.types], geometry.positions, cell=cell, pbc=cell is not None
    )
    error = float((descriptor(batch) - theirs).abs().max() / theirs.abs().max())
    assert error < 1e-12, f"descriptor is off by {error:.1e}"


def test_paper_constructor_has_the_paper_set() -> None:
    """SPEC section 1.1: eta and zeta zipped, both theta_s, R_c = 6: the same numbers, any order."""
    geometry = molecule(8, 3, 63)
    batch = Batch.from_arrays(NUMBERS[geometry.types], geometry.positions)
    ours = BehlerParrinello.paper(["H", "C", "O"])(batch)
    theirs = acsf(geometry)
    assert ours.shape == theirs.shape
    for row in range(len(ours)):
        mine, other = ours[row].sort().values, theirs[row].sort().values
        assert math.isclose(float((mine - other).abs().max()), 0.0, abs_tol=1e-12)
