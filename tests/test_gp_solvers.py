"""Conjugate gradients, inducing points, distributed runs and checkpoints against Cholesky."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing

from pymlp.covariances import RBF
from pymlp.gaussian_process import (
    GaussianProcess,
    SolverOptions,
)
from pymlp.gaussian_process.assembly import covariance_matrix
from pymlp.gaussian_process.cholesky import NotPositiveDefinite, cholesky_, solve_
from pymlp.gaussian_process.conjugate_gradients import ConjugateGradients, Preconditioner
from pymlp.gaussian_process.likelihood import log_marginal_likelihood, noise_diagonal
from pymlp.gaussian_process.prediction import matrix_product
from pymlp.gaussian_process.sharding import Shards
from pymlp.gaussian_process.sparse import SparseOptions, inducing_points, select, solve_sparse
from pymlp.structures import Batch
from tests.gp_oracle import INPUTS, molecules

KINDS = sorted(INPUTS)


def process_of(kind: str, **arguments) -> GaussianProcess:
    arguments.setdefault("compression", None)
    return GaussianProcess(
        INPUTS[kind](), RBF(2.0), energy_noise=5e-3, force_noise=5e-2, **arguments
    )


def test_cholesky_in_place_and_solves() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn((150, 150), generator=generator, dtype=torch.float64)
    matrix = root @ root.mT + 10 * torch.eye(150, dtype=torch.float64)
    upper_garbage = matrix.tril() + torch.full_like(matrix, torch.nan).triu(1)
    fractions: list[float] = []
    factor = cholesky_(upper_garbage, block=32, progress=fractions.append)
    assert factor.data_ptr() == upper_garbage.data_ptr()
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    torch.testing.assert_close(factor.tril(), torch.linalg.cholesky(matrix))
    right = torch.randn((150, 3), generator=generator, dtype=torch.float64)
    solved = solve_(factor, solve_(factor, right.clone(), block=40), transposed=True, block=40)
    torch.testing.assert_close(matrix @ solved, right)
    with pytest.raises(NotPositiveDefinite, match="leading minor"):
        cholesky_(matrix - 200 * torch.eye(150, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_free_product(kind: str) -> None:
    process, train = process_of(kind), molecules(9)
    training = process.prepare(train, train.energies, train.forces)
    covariance = process.hyperparameters.covariance
    lower = covariance_matrix(training.groups, covariance.terms).tril()
    matrix = lower + lower.tril(-1).mT
    vector = torch.randn(
        len(matrix), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    product = matrix_product(training.groups, vector, covariance)
    torch.testing.assert_close(product, matrix @ vector, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_conjugate_gradients_reach_the_cholesky_solution(kind: str) -> None:
    train, new = molecules(20), molecules(4, seed=3)
    exact, iterative = process_of(kind), process_of(kind)
    exact.fit(train, optimize=False, method="cholesky")
    lines: list[str] = []
    report = iterative.fit(
        train,
        optimize=False,
        method="cg",
        options=SolverOptions(tolerance=1e-10, components=3),
        report=lines.append,
    )
    assert report.converged
    assert report.iterations == sum("conjugate gradients" in line for line in lines)
    left, right = exact.predict(new, variance=True), iterative.predict(new, variance=True)
    torch.testing.assert_close(left.energy, right.energy, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(left.forces, right.forces, rtol=1e-6, atol=1e-7)
    # The posterior is that of the preconditioner's rows (DTC): close to the exact one, no bound.
    assert 0.7 < float(right.energy_std.mean() / left.energy_std.mean()) < 1.5
    assert 0.7 < float(right.forces_std.mean() / left.forces_std.mean()) < 1.5


def test_the_preconditioner_pays() -> None:
    process, train = process_of("inverse_distances"), molecules(30)
    training = process.prepare(train, train.energies, train.forces)
    parameters = process.hyperparameters
    noise = noise_diagonal(
        training.groups, parameters.relative_energy_noise, parameters.relative_force_noise
    )
    plain = ConjugateGradients(training.groups, parameters.covariance, noise)
    from pymlp.gaussian_process.conjugate_gradients import random_components

    chosen = random_components(training.groups, 3, 10_000)
    assert sum(points.n_rows for points in chosen) == 30 * 4
    helped = ConjugateGradients(
        training.groups,
        parameters.covariance,
        noise,
        Preconditioner(training.groups, chosen, parameters.covariance, noise, Shards()),
    )
    without = plain.solve(training.targets, 1e-6, 400)
    with_it = helped.solve(training.targets, 1e-6, 400)
    assert with_it.converged
    assert with_it.iterations < 0.5 * without.iterations
    limited = random_components(training.groups, 3, 50)
    assert sum(points.n_rows for points in limited) <= 52


def test_an_interrupted_fit_resumes(tmp_path: Path) -> None:
    train = molecules(20)
    path = tmp_path / "fit" / "weights.safetensors"
    options = {"components": 1, "checkpoint_every": 1}
    first = process_of("concatenated")
    with pytest.warns(RuntimeWarning, match="stopped after 60 iterations"):
        cut = first.fit(
            train,
            optimize=False,
            method="cg",
            options=SolverOptions(tolerance=1e-9, max_iterations=60, **options),
            checkpoint=path,
        )
    assert not cut.converged
    assert path.exists()
    resumed, fresh = process_of("concatenated"), process_of("concatenated")
    again = resumed.fit(
        train,
        optimize=False,
        method="cg",
        options=SolverOptions(tolerance=1e-9, **options),
        checkpoint=path,
    )
    full = fresh.fit(
        train, optimize=False, method="cg", options=SolverOptions(tolerance=1e-9, **options)
    )
    assert again.converged
    assert again.iterations == full.iterations - 60
    torch.testing.assert_close(
        resumed.predict(train).energy, fresh.predict(train).energy, rtol=0, atol=1e-12
    )
    # A checkpoint of other data is not taken.
    other = process_of("concatenated")
    report = other.fit(
        molecules(20, seed=5),
        optimize=False,
        method="cg",
        options=SolverOptions(tolerance=1e-9, **options),
        checkpoint=path,
    )
    assert report.converged
    path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read"):
        process_of("concatenated").fit(train, optimize=False, method="cg", checkpoint=path)


def test_deviations_can_be_calibrated_on_other_structures() -> None:
    process, train = process_of("inverse_distances"), molecules(30)
    process.fit(train, optimize=False, method="cg", options=SolverOptions(components=1))
    held_out, new = molecules(20, seed=5), molecules(20, seed=6)
    before = process.predict(new, variance=True)
    scale = process.calibrate(held_out)
    after = process.predict(new, variance=True)
    torch.testing.assert_close(after.energy_std, scale[0] * before.energy_std)
    torch.testing.assert_close(after.forces_std, scale[1] * before.forces_std)
    again = process.predict(held_out, variance=True)
    z = (again.forces - held_out.forces) / again.forces_std
    assert float(z.square().mean().sqrt()) == pytest.approx(1.0)
    bare = Batch.from_arrays(held_out.numbers[:4], held_out.positions[:4])
    with pytest.raises(ValueError, match="energies and forces"):
        process.calibrate(bare)


def _distributed_fit(rank: int, size: int, file: str, results: dict) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    try:
        process, train = process_of("concatenated"), molecules(21)
        training = process.prepare(train, train.energies, train.forces)
        weights, iterations = _solve_sharded(process, training)
        results[rank] = (weights, iterations, *_whole_fit())
    finally:
        distributed.destroy_process_group()


def _solve_sharded(process: GaussianProcess, training) -> tuple[torch.Tensor, int]:
    from pymlp.gaussian_process.conjugate_gradients import random_components

    shards = Shards()
    (points,) = training.groups
    part = shards.part(len(points))
    energies, derivatives = points.split_rows(training.targets)
    mine = points[part]
    targets = torch.cat((energies[part], derivatives[part].flatten()))
    parameters = process.hyperparameters
    noise = noise_diagonal(
        [mine], parameters.relative_energy_noise, parameters.relative_force_noise
    )
    # The same rows whatever the number of ranks: chosen from all, cut by rank.
    chosen = random_components([points], 3, 10_000)
    preconditioner = Preconditioner([mine], chosen, parameters.covariance, noise, shards)
    solver = ConjugateGradients([mine], parameters.covariance, noise, preconditioner, shards)
    solution = solver.solve(targets, 1e-11)
    weights_e, weights_f = mine.split_rows(solution.weights)
    gathered = torch.cat((shards.gather(weights_e), shards.gather(weights_f).flatten()))
    return gathered, solution.iterations


def _whole_fit() -> tuple[torch.Tensor, torch.Tensor, dict]:
    """The public call, hyperparameters included, on however many ranks there are."""
    process, train = process_of("inverse_distances"), molecules(21)
    report = process.fit(
        train, method="cg", subset=21, options=SolverOptions(tolerance=1e-9, components=6)
    )
    result = process.predict(molecules(4, seed=3), variance=True)
    return result.energy, result.forces_std, report.hyperparameters


def test_two_ranks_are_one_process(tmp_path: Path) -> None:
    process, train = process_of("concatenated"), molecules(21)
    alone, iterations = _solve_sharded(
        process, process.prepare(train, train.energies, train.forces)
    )
    energy, deviations, hyperparameters = _whole_fit()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(
            _distributed_fit, args=(2, str(tmp_path / "rendezvous"), results), nprocs=2
        )
        for rank in range(2):
            weights, steps, energy_there, deviations_there, found = results[rank]
            assert found == pytest.approx(hyperparameters)
            torch.testing.assert_close(energy_there, energy, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(deviations_there, deviations, rtol=1e-3, atol=1e-4)
            assert abs(steps - iterations) <= 0.05 * iterations + 1
            torch.testing.assert_close(weights, alone, rtol=1e-6, atol=1e-8)


# -- inducing points ---------------------------------------------------------------------------


@pytest.mark.parametrize("approximation", ["dtc", "fitc", "pitc"])
@pytest.mark.parametrize("kind", KINDS)
def test_sparse_is_exact_when_every_row_is_inducing(kind: str, approximation: str) -> None:
    train, new = molecules(7), molecules(3, seed=2)
    exact, sparse = process_of(kind), process_of(kind)
    exact.fit(train, optimize=False, method="cholesky")
    options = {
        "inducing": 10_000,
        "kind": "components",
        "components": 100,
        "approximation": approximation,
    }
    report = sparse.fit(
        train, optimize=False, method="sparse", options=SolverOptions(sparse=options)
    )
    assert report.inducing == report.observations
    left, right = exact.predict(new, variance=True), sparse.predict(new, variance=True)
    torch.testing.assert_close(left.energy, right.energy, rtol=0, atol=1e-5)
    torch.testing.assert_close(left.forces, right.forces, rtol=0, atol=1e-4)
    torch.testing.assert_close(left.energy_std, right.energy_std, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left.forces_std, right.forces_std, rtol=1e-3, atol=1e-3)
    training = sparse.prepare(train, train.energies, train.forces)
    parameters = sparse.hyperparameters
    solution = solve_sparse(
        training,
        inducing_points(training.groups, SparseOptions(**options)),
        parameters,
        approximation,
    )
    direct = log_marginal_likelihood(
        training.groups,
        training.targets,
        parameters.covariance,
        parameters.relative_energy_noise,
        parameters.relative_force_noise,
        parameters.signal_variance,
        gradient=False,
    )
    assert solution.log_likelihood == pytest.approx(direct.value, rel=1e-4)


@pytest.mark.parametrize("selection", ["farthest", "cur", "random"])
def test_inducing_environments_learn(selection: str) -> None:
    train, new = molecules(60, spread=0.08), molecules(20, seed=4, spread=0.08)
    process = process_of("atomic")
    report = process.fit(
        train,
        optimize=False,
        method="sparse",
        options=SolverOptions(sparse={"inducing": 120, "selection": selection}),
    )
    assert report.inducing == 120
    result = process.predict(new, variance=True)
    assert (result.forces - new.forces).std() < 0.3 * new.forces.std()
    assert (result.energy_std > 0).all()


def test_selection_spreads_points() -> None:
    generator = torch.Generator().manual_seed(0)
    cluster = 0.01 * torch.randn((50, 3), generator=generator, dtype=torch.float64)
    far = 10 * torch.eye(3, dtype=torch.float64)
    features = torch.cat((cluster, far))
    assert {50, 51, 52} <= set(select(features, 4, "farthest").tolist())
    assert {50, 51, 52} <= set(select(features, 3, "cur").tolist())
    assert len(set(select(features, 20, "random").tolist())) == 20
    with pytest.raises(ValueError, match="approximation must be one of"):
        SparseOptions(approximation="vfe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inducing must be"):
        SparseOptions(inducing=0)
