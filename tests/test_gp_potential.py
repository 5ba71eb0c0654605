"""A Gaussian process as a potential: compute, calculator, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

import pymlp
from pymlp.calculator import Calculator
from pymlp.covariances import RBF
from pymlp.gaussian_process import (
    AtomicInputs,
    CombinedInputs,
    ConcatenatedInputs,
    GaussianProcess,
    InverseDistances,
    SolverOptions,
)
from pymlp.gpr_potential import GaussianProcessPotential
from pymlp.structures import Batch
from tests.gp_oracle import molecules, small_ani

KINDS = {
    "concatenated": ConcatenatedInputs,
    "atomic": AtomicInputs,
    "combined": lambda descriptor: CombinedInputs(
        ConcatenatedInputs(descriptor), InverseDistances()
    ),
}


def fitted(kind: str, method: str = "cholesky", **arguments) -> GaussianProcessPotential:
    process = GaussianProcess(
        KINDS[kind](small_ani()), RBF(2.0), energy_noise=2e-3, force_noise=2e-2, **arguments
    )
    process.fit(
        molecules(10),
        optimize=False,
        method=method,
        options=SolverOptions(sparse={"inducing": 30}, tolerance=1e-9),
    )
    return GaussianProcessPotential(process, {"target": {"kind": "total"}})


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("fewer", [{}, {"compression": 1e-4}, {"drop": 0.1}])
def test_compute_is_the_prediction_of_the_process(kind: str, fewer: dict[str, float]) -> None:
    potential = fitted(kind, mean="linear", **fewer)
    new = molecules(5, seed=3)
    result = potential.compute(new)
    direct = potential.process.predict(new, variance=True)
    torch.testing.assert_close(result.energy, direct.energy)
    torch.testing.assert_close(result.forces, direct.forces)
    torch.testing.assert_close(result.energy_std, direct.energy_std)
    torch.testing.assert_close(result.forces_std, direct.forces_std)
    torch.testing.assert_close(result.atomic_energies.view(5, 4).sum(1), result.energy)
    torch.testing.assert_close(potential(new), result.energy)
    plain = potential.compute(new, forces=False, uncertainty=False)
    assert plain.forces is None
    assert plain.energy_std is None
    single = potential.compute(new, dtype=torch.float32, uncertainty=False)
    torch.testing.assert_close(single.energy, result.energy, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="extrapolation"):
        potential.compute(new, extrapolation=True)
    with pytest.raises(ValueError, match="stress needs"):
        potential.compute(new, stress=True)


@pytest.mark.parametrize("method", ["cholesky", "cg", "sparse"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_files_round_trip_bit_for_bit(kind: str, method: str, tmp_path: Path) -> None:
    permutations = torch.tensor([[0, 1, 2, 3], [0, 1, 3, 2]]) if kind == "concatenated" else None
    potential = fitted(kind, method, permutations=permutations)
    new = molecules(4, seed=3)
    potential.save(tmp_path / "model")
    loaded = pymlp.load(tmp_path / "model")
    assert isinstance(loaded, GaussianProcessPotential)
    assert loaded.metadata == potential.metadata
    assert loaded.process.report == potential.process.report
    before, after = potential.compute(new), loaded.compute(new)
    for name in ("energy", "forces", "energy_std", "forces_std"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name), rtol=0, atol=0)
    potential.save(tmp_path / "small", posterior=False)
    small = pymlp.load(tmp_path / "small")
    assert small.compute(new).energy_std is None
    torch.testing.assert_close(small.compute(new).forces, before.forces, rtol=0, atol=0)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    fitted("atomic").save(tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    del description["gaussian_process"]["covariance"]
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="covariance"):
        pymlp.load(tmp_path)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_calculator_gives_deviations_and_consistent_forces(kind: str) -> None:
    from ase.calculators.fd import calculate_numerical_forces

    atoms = Atoms([6, 8, 1, 1], molecules(1, seed=6).positions.numpy())
    atoms.calc = Calculator(fitted(kind))
    forces = atoms.get_forces()
    assert atoms.calc.results["energy_std"] > 0
    assert atoms.calc.results["forces_std"].shape == (4, 3)
    np.testing.assert_allclose(forces, calculate_numerical_forces(atoms, eps=1e-4), atol=2e-6)


def test_stress_of_a_periodic_sum_is_the_strain_derivative() -> None:
    train = molecules(8)
    cell = 7.0 * torch.eye(3, dtype=torch.float64)
    periodic = Batch.from_arrays(
        [6, 8, 1, 1],
        train.positions.view(8, 4, 3),
        cell=cell,
        pbc=True,
        energies=train.energies,
        forces=train.forces.view(8, 4, 3),
    )
    process = GaussianProcess(AtomicInputs(small_ani()), RBF(2.0), force_noise=2e-2)
    report = process.fit(periodic, optimize=False)
    assert report.observations == 8 * 13  # no rotation may be deflated
    potential = GaussianProcessPotential(process)
    one = periodic[:1]
    stress = potential.compute(one).stress
    step = 1e-5
    strained = []
    for sign in (1, -1):
        strain = torch.eye(3, dtype=torch.float64)
        strain[0, 0] += sign * step
        moved = Batch.from_arrays(one.numbers, one.positions @ strain, cell=cell @ strain, pbc=True)
        strained.append(float(potential.compute(moved, uncertainty=False).energy))
    slope = (strained[0] - strained[1]) / (2 * step) / 343.0
    assert float(stress[0, 0, 0]) == pytest.approx(slope, abs=1e-7)


def test_refusals() -> None:
    process = GaussianProcess(ConcatenatedInputs(small_ani()))
    with pytest.raises(ValueError, match="must be fitted"):
        GaussianProcessPotential(process)
    inverse = GaussianProcess(InverseDistances(), RBF(1.0))
    inverse.fit(molecules(4), optimize=False)
    with pytest.raises(ValueError, match="descriptor"):
        GaussianProcessPotential(inverse)
    potential = fitted("concatenated")
    with pytest.raises(ValueError, match="numbers must be"):
        potential.compute(Batch.from_arrays([8, 6, 1, 1], molecules(1).positions))
