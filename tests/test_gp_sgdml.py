"""sGDML: its trained models evaluated by our products, its errors reproduced by our fit."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

if importlib.util.find_spec("sgdml") is None:
    pytest.skip("sgdml is not installed", allow_module_level=True)

from benchmarks.gpr.speed import prepare_sgdml, sources_of_sgdml
from pymlp.covariances import Matern52
from pymlp.gaussian_process import GaussianProcess, InverseDistances
from pymlp.gaussian_process.prediction import evaluate
from tests.gp_oracle import molecules
from tests.test_gp_permutations import symmetric_energy


@pytest.fixture(scope="module")
def trained():
    """A small sGDML model with the exchange of two hydrogen atoms as its symmetry."""
    prepare_sgdml()
    from sgdml.train import GDMLTrain

    positions = molecules(25, spread=0.05).positions.view(25, 4, 3)
    positions[::2] = positions[::2][:, [0, 1, 3, 2]]
    energies, forces = symmetric_energy(positions)
    data = {
        "type": "d",
        "code_version": "1.0.3",
        "name": np.array("toy"),
        "theory": np.array("toy"),
        "md5": np.array("0" * 32),
        "z": np.array([6, 8, 1, 1], dtype=np.uint8),
        "R": positions.numpy(),
        "E": energies.numpy(),
        "F": forces.numpy(),
        "r_unit": np.array("Ang"),
        "e_unit": np.array("eV"),
    }
    trainer = GDMLTrain(max_processes=1, use_torch=False)
    task = trainer.create_task(data, 20, data, 5, sig=3, lam=1e-10, use_sym=True)
    model = trainer.train(task)
    return model, positions, energies, forces


def test_our_products_evaluate_its_models(trained) -> None:
    from sgdml.predict import GDMLPredict

    model = trained[0]
    new = molecules(6, seed=5, spread=0.05)
    energy, forces = GDMLPredict(model, max_processes=1, use_torch=False).predict(
        new.positions.view(6, 12).numpy()
    )
    sources, rotation, covariance, (scale, _) = sources_of_sgdml(model)
    assert rotation is not None
    inputs = InverseDistances()
    x, pull = inputs.features_and_pullback(new)
    ours, gradient = evaluate(sources, rotation.forward(x[:, 0]), covariance)
    gradient = rotation.backward(gradient)
    ours_forces = -pull(gradient[:, None]).view(6, 12).numpy()
    np.testing.assert_allclose(scale * ours_forces, forces, rtol=0, atol=1e-8)
    difference = scale * ours.numpy() - energy
    np.testing.assert_allclose(difference - difference.mean(), 0.0, atol=1e-8)


def test_our_fit_reproduces_its_errors(trained) -> None:
    """The same kernel, length scale, symmetry and regularisation, forces alone: same forces."""
    from sgdml.predict import GDMLPredict

    from pymlp.structures import Batch

    model, positions, _, forces = trained
    chosen = torch.tensor(np.asarray(model["idxs_train"], dtype=np.int64))
    train = Batch.from_arrays([6, 8, 1, 1], positions[chosen], forces=forces[chosen])
    process = GaussianProcess(
        InverseDistances(),
        Matern52(float(model["sig"])),
        mean="zero",
        deflate=False,
        permutations=torch.tensor(np.asarray(model["perms"], dtype=np.int64)),
        energy_noise=1.0,
        force_noise=1e-5,
    )
    process.fit(train, forces=train.forces, optimize=False, method="cholesky")
    new = molecules(6, seed=5, spread=0.05)
    theirs = GDMLPredict(model, max_processes=1, use_torch=False).predict(
        new.positions.view(6, 12).numpy()
    )[1]
    ours = process.predict(new).forces.view(6, 12).numpy()
    reference = symmetric_energy(new.positions.view(6, 4, 3))[1].view(6, 12).numpy()
    their_error = np.sqrt(np.mean((theirs - reference) ** 2))
    our_error = np.sqrt(np.mean((ours - reference) ** 2))
    assert our_error == pytest.approx(their_error, rel=0.05)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.2 * their_error)
