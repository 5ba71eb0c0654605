"""The Gaussian process end to end: posterior, deflation, mean functions, forces, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from pymlp.covariances import RBF, Matern52
from pymlp.gaussian_process import (
    AtomicInputs,
    ConcatenatedInputs,
    GaussianProcess,
    InverseDistances,
    SolverOptions,
    StructureInputs,
)
from pymlp.gaussian_process.assembly import covariance_matrix
from pymlp.gaussian_process.cholesky import cholesky_
from pymlp.gaussian_process.deflation import internal_basis, project_gradients
from pymlp.structures import Batch, Structure
from tests.gp_oracle import INPUTS, dense_posterior, molecules, small_ani, springs


@pytest.fixture(params=sorted(INPUTS))
def inputs(request: pytest.FixtureRequest) -> StructureInputs:
    return INPUTS[request.param]()


def fixed(inputs: StructureInputs, **arguments) -> GaussianProcess:
    arguments.setdefault("compression", None)
    return GaussianProcess(
        inputs,
        arguments.pop("covariance", RBF(2.0)),
        energy_noise=2e-3,
        force_noise=2e-2,
        **arguments,
    )


def test_posterior_against_the_dense_oracle() -> None:
    train, new = molecules(8), molecules(3, seed=1)
    process = GaussianProcess(
        InverseDistances(),
        RBF(0.7),
        mean="zero",
        compression=None,
        energy_noise=3e-3,
        force_noise=3e-2,
        signal_variance=1.7,
    )
    process.fit(train, optimize=False, method="cholesky")
    ours = process.predict(new, variance=True)
    energy, gradient, energy_variance, gradient_variance = dense_posterior(
        train, new, 0.7, 1.7, (3e-3, 3e-2)
    )
    np.testing.assert_allclose(ours.energy, energy, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(-ours.forces.reshape(3, -1), gradient, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ours.energy_std**2, energy_variance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        ours.forces_std.reshape(3, -1) ** 2, gradient_variance, rtol=1e-6, atol=1e-9
    )


def test_deflated_and_undeflated_posterior_agree(inputs: StructureInputs) -> None:
    train, new = molecules(7), molecules(3, seed=1)
    results = []
    for deflate in (True, False):
        process = fixed(inputs, deflate=deflate)
        report = process.fit(train, optimize=False, method="cholesky")
        assert report.observations == 7 * (1 + (6 if deflate else 12))
        results.append(process.predict(new, variance=True))
    left, right = results
    for name in ("energy", "forces", "energy_std", "forces_std"):
        torch.testing.assert_close(
            getattr(left, name), getattr(right, name), rtol=1e-6, atol=1e-7, msg=name
        )


def test_forces_are_minus_the_gradient_through_ase(inputs: StructureInputs) -> None:
    from ase.calculators.calculator import Calculator as AseCalculator
    from ase.calculators.fd import calculate_numerical_forces

    process = fixed(inputs)
    process.fit(molecules(10), optimize=False)

    class Wrapped(AseCalculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
            super().calculate(atoms, properties, system_changes)
            result = process.predict(Batch.from_atoms(atoms))
            self.results = {"energy": float(result.energy), "forces": result.forces.numpy()}

    one = molecules(1, seed=4)
    atoms = Atoms([6, 8, 1, 1], one.positions.numpy(), calculator=Wrapped())
    np.testing.assert_allclose(
        atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=2e-6
    )


def test_it_learns_and_says_how_well(inputs: StructureInputs) -> None:
    """Held-out errors far below the spread of the data."""
    train, new = molecules(60, spread=0.08), molecules(40, seed=9, spread=0.08)
    process = GaussianProcess(inputs, RBF())
    report = process.fit(train, subset=25)
    result = process.predict(new, variance=True)
    error = result.energy - new.energies
    force_error = result.forces - new.forces
    assert error.std() < 0.1 * new.energies.std()
    assert force_error.std() < 0.15 * new.forces.std()
    assert report.method == "cholesky"
    assert report.log_likelihood is not None
    assert (result.forces_std > 0).all()


def test_variances_are_calibrated_on_draws_from_the_prior(inputs: StructureInputs) -> None:
    """Functions drawn from the process itself: the errors are what the deviations say."""
    train, new = molecules(30), molecules(12, seed=2)
    both = Batch.from_structures([*train.split(), *new.split()])
    noise = (0.02, 0.05)
    process = GaussianProcess(
        inputs, RBF(2.0), mean="zero", compression=None, energy_noise=noise[0], force_noise=noise[1]
    )
    training = process.prepare(both, both.energies, both.forces)
    (points,) = training.groups
    matrix = covariance_matrix([points], RBF(2.0).terms)
    matrix.diagonal().add_(1e-9)
    factor = cholesky_(matrix).tril()
    generator = torch.Generator().manual_seed(0)
    squares, energy_squares = [], []
    for _ in range(6):
        draw = factor @ torch.randn(points.n_rows, generator=generator, dtype=torch.float64)
        energies, internal = points.split_rows(draw)
        basis = internal_basis(both.positions.view(42, 4, 3))
        forces = -(basis @ internal[..., None]).reshape(42 * 4, 3)
        noisy_energies = energies[:30] + noise[0] * torch.randn(
            30, generator=generator, dtype=torch.float64
        )
        noisy_forces = forces[:120] + noise[1] * torch.randn(
            (120, 3), generator=generator, dtype=torch.float64
        )
        process.fit(train, noisy_energies, noisy_forces, optimize=False)
        result = process.predict(new, variance=True)
        squares.append(((result.forces - forces[120:]) / result.forces_std).square().mean())
        energy_squares.append(((result.energy - energies[30:]) / result.energy_std).square().mean())
    assert 0.85 < float(torch.stack(squares).mean().sqrt()) < 1.15
    assert 0.75 < float(torch.stack(energy_squares).mean().sqrt()) < 1.25


@pytest.mark.parametrize("kind", ["zero", "constant", "linear"])
def test_mean_functions_give_shifted_energies_back(kind: str) -> None:
    train = molecules(10)
    process = fixed(InverseDistances(), mean=kind)
    process.fit(train, train.energies - 5000.0, train.forces, optimize=False)
    near = process.predict(train).energy + 5000.0
    if kind == "zero":
        assert (near - train.energies).abs().max() > 1e-3
    else:
        torch.testing.assert_close(near, train.energies, rtol=0, atol=2e-2)


def test_energies_alone_and_forces_alone(inputs: StructureInputs) -> None:
    train, new = molecules(25), molecules(10, seed=3)
    only_energies = fixed(inputs)
    only_energies.fit(train, energies=train.energies, optimize=False)
    assert only_energies.report.observations == 25
    only_forces = fixed(inputs)
    only_forces.fit(train, forces=train.forces, optimize=False)
    assert only_forces.report.observations == 25 * 6
    predicted = only_forces.predict(new)
    assert (predicted.forces - new.forces).std() < 0.5 * new.forces.std()
    # The energies of a fit to forces are right up to a constant.
    shift = predicted.energy - new.energies
    assert shift.std() < 0.5 * new.energies.std()


def test_atomic_energies_add_up() -> None:
    process = fixed(AtomicInputs(small_ani()), mean="linear")
    process.fit(molecules(8), optimize=False)
    result = process.predict(molecules(3, seed=2), variance=True, atomic_energies=True)
    torch.testing.assert_close(result.atomic_energies.view(3, 4).sum(1), result.energy)
    assert (result.atomic_energies_std > 0).all()
    assert (result.atomic_energies_std < 1.0).all()


def test_molecules_of_different_sizes_share_the_sum() -> None:
    """Training on fragments and whole molecules, in any order of structures."""
    big = molecules(6)
    small_positions = big.positions.view(6, 4, 3)[:, :3]
    energies, forces = springs(small_positions)
    numbers = torch.tensor([6, 8, 1])
    structures = []
    for i, structure in enumerate(big.split()):
        structures.append(structure)
        structures.append(
            Structure(numbers, small_positions[i], energy=float(energies[i]), forces=forces[i])
        )
    batch = Batch.from_structures(structures)
    process = fixed(AtomicInputs(small_ani()), mean="linear")
    report = process.fit(batch, optimize=False)
    assert report.observations == 6 * 7 + 6 * 4
    together = process.predict(batch, variance=True)
    alone = process.predict(batch[3:4], variance=True)
    torch.testing.assert_close(together.energy[3:4], alone.energy)
    torch.testing.assert_close(together.forces[11:14], alone.forces)
    torch.testing.assert_close(together.forces_std[11:14], alone.forces_std)
    error = together.energy - batch.energies
    assert error.abs().max() < 0.05


def test_compression_changes_little_and_stays_consistent(inputs: StructureInputs) -> None:
    train, new = molecules(10), molecules(4, seed=5)
    exact, compressed = fixed(inputs), fixed(inputs, compression=1e-5)
    exact.fit(train, optimize=False)
    report = compressed.fit(train, optimize=False)
    assert report.compression_loss < 1e-4
    left, right = exact.predict(new), compressed.predict(new)
    torch.testing.assert_close(left.energy, right.energy, rtol=0, atol=1e-3)
    torch.testing.assert_close(left.forces, right.forces, rtol=0, atol=1e-2)
    step = 1e-4
    moved = []
    for sign in (1, -1):
        positions = new.positions[:4].clone()
        positions[2, 1] += sign * step
        moved.append(
            float(compressed.predict(Batch.from_arrays(new.numbers[:4], positions)).energy)
        )
    assert -(moved[0] - moved[1]) / (2 * step) == pytest.approx(float(right.forces[2, 1]), abs=1e-6)


def test_single_precision_prediction_states_its_error(inputs: StructureInputs) -> None:
    process = fixed(inputs)
    stated = process.fit(molecules(20), optimize=False).single_precision_error
    new = molecules(10, seed=8)
    double, single = process.predict(new), process.predict(new, dtype=torch.float32)
    assert single.energy.dtype == torch.float64
    assert 0.0 < stated[0] < 5e-3
    assert 0.0 < stated[1] < 5e-2
    torch.testing.assert_close(double.energy, single.energy, rtol=0, atol=10 * stated[0])
    torch.testing.assert_close(double.forces, single.forces, rtol=0, atol=10 * stated[1])


def test_duplicates_without_noise_give_a_reported_jitter() -> None:
    train = molecules(6)
    doubled = train[torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2])]
    process = GaussianProcess(
        InverseDistances(), Matern52(2.0), compression=None, energy_noise=1e-12, force_noise=1e-12
    )
    with pytest.warns(RuntimeWarning, match="jitter"):
        report = process.fit(doubled, optimize=False, method="cholesky")
    assert report.jitter > 0
    result = process.predict(train, variance=True)
    for tensor in (result.energy, result.forces, result.energy_std, result.forces_std):
        assert torch.isfinite(tensor).all()


def test_deflation_finds_the_internal_space() -> None:
    train = molecules(3)
    basis = internal_basis(train.positions.view(3, 4, 3))
    assert basis.shape == (3, 12, 6)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(6, dtype=torch.float64).expand(3, 6, 6))
    internal, discarded = project_gradients(train.forces.view(3, 4, 3), basis)
    assert discarded < 1e-12
    torch.testing.assert_close(internal.norm(dim=1), train.forces.view(3, -1).norm(dim=1))
    torque = train.forces.view(3, 4, 3) + torch.linalg.cross(
        torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(3, 4, 3),
        train.positions.view(3, 4, 3),
        dim=-1,
    )
    assert project_gradients(torque, basis)[1] > 0.1
    line = torch.tensor([[[0.0, 0, 0], [0, 0, 1.1], [0, 0, 2.3]]], dtype=torch.float64)
    assert internal_basis(line).shape == (1, 9, 4)
    assert internal_basis(line, rotations=False).shape == (1, 9, 6)
    with pytest.raises(ValueError, match="positions must be"):
        internal_basis(torch.zeros((4, 3)))


def test_errors_name_the_cure() -> None:
    train = molecules(5)
    process = fixed(InverseDistances())
    with pytest.raises(ValueError, match="must be fitted"):
        process.predict(train)
    with pytest.raises(ValueError, match="energies or forces"):
        process.fit(Batch.from_arrays([6, 8, 1, 1], train.positions.view(5, 4, 3)))
    with pytest.raises(ValueError, match=r"method='cg'.*method='sparse'"):
        process.fit(
            train, optimize=False, method="cholesky", options=SolverOptions(memory_limit=1000)
        )
    with pytest.raises(ValueError, match="method must be"):
        process.fit(train, optimize=False, method="magic")  # type: ignore[arg-type]
    process.fit(train, optimize=False)
    with pytest.raises(ValueError, match="atomic energies"):
        process.predict(train, atomic_energies=True)
    other = Batch.from_arrays(
        [8, 6, 1, 1],
        train.positions.view(5, 4, 3),
        energies=train.energies,
        forces=train.forces.view(5, 4, 3),
    )
    with pytest.raises(ValueError, match="numbers must be"):
        process.predict(other)
    mixed = Batch.from_structures([*train.split(), *other.split()])
    with pytest.raises(ValueError, match="same atoms in the same order"):
        process.fit(mixed, train.energies.repeat(2), train.forces.repeat(2, 1))
    with pytest.raises(ValueError, match="permutations must be None"):
        GaussianProcess(AtomicInputs(small_ani()), permutations=torch.arange(4)[None])


@pytest.mark.slow
def test_variances_are_calibrated_on_the_claisen_data() -> None:
    """100 structures of the Δ data of SPEC section 5, exact posterior, 60 structures held out."""
    from benchmarks.gpr import claisen

    if not claisen.DATA.exists():
        pytest.skip(f"{claisen.DATA} is not here")
    everything = claisen.load()
    process = GaussianProcess(ConcatenatedInputs(claisen.descriptor()), RBF())
    report = process.fit(everything[100:200], subset=50, method="cholesky")
    new = everything[:60]
    result = process.predict(new, variance=True)
    # Label noise lies in the 36 internal components of 42.
    variance = result.forces_std.square() + 36 / 42 * report.hyperparameters["force_noise"] ** 2
    z = (result.forces - new.forces) / variance.sqrt()
    assert 0.9 < float(z.square().mean().sqrt()) < 1.1
    assert 0.93 < float((z.abs() < 1.96).double().mean()) < 0.97
    z = (result.energy - new.energies) / result.energy_std
    assert 0.7 < float(z.square().mean().sqrt()) < 1.3
