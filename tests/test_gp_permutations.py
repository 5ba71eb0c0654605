"""Equivalent atoms: found, closed to a group, and made a symmetry of the covariance."""

from __future__ import annotations

import pytest
import torch

from pymlp.covariances import RBF, Matern52
from pymlp.descriptors import ANI
from pymlp.gaussian_process import ConcatenatedInputs, GaussianProcess, InverseDistances
from pymlp.gaussian_process.assembly import covariance_block
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.prediction import multiply, sources_of
from pymlp.gaussian_process.symmetry import character_basis
from pymlp.permutations import close_group, find_permutations
from pymlp.structures import Batch
from tests.gp_oracle import molecules, springs

SWAP = torch.tensor([0, 1, 3, 2])


def scrambled(n: int) -> torch.Tensor:
    """Molecules in half of which the two hydrogen atoms changed names."""
    positions = molecules(n, spread=0.05).positions.view(n, 4, 3)
    positions[:, 2, 1] += 0.2  # tell the two apart
    positions[::2] = positions[::2][:, SWAP]
    return positions


def symmetric_energy(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    energy, forces = springs(positions)
    other, turned = springs(positions[:, SWAP])
    return energy + other, forces + turned[:, SWAP]


def test_the_exchange_of_like_atoms_is_found() -> None:
    numbers = torch.tensor([6, 8, 1, 1])
    group = find_permutations(numbers, scrambled(30))
    assert group.tolist() == [[0, 1, 2, 3], [0, 1, 3, 2]]
    unscrambled = molecules(30, spread=0.03).positions.view(30, 4, 3).clone()
    unscrambled[:, 2] *= 1.3
    assert find_permutations(numbers, unscrambled).tolist() == [[0, 1, 2, 3]]
    different = torch.tensor([6, 8, 1, 9])
    assert find_permutations(different, scrambled(30)).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match="positions must be"):
        find_permutations(numbers, torch.zeros((2, 3, 3)))


def test_a_group_is_closed() -> None:
    cycle = torch.tensor([[1, 2, 0, 3], [1, 0, 2, 3]])
    group = close_group(cycle)
    assert group is not None
    assert len(group) == 6
    assert group[0].tolist() == [0, 1, 2, 3]
    members = {tuple(row) for row in group.tolist()}
    for left in group:
        for right in group:
            assert tuple(left[right].tolist()) in members
    assert close_group(cycle, maximum=5) is None


@pytest.mark.parametrize("compression", [None, 1e-6])
@pytest.mark.parametrize("kind", ["inverse_distances", "concatenated"])
def test_predictions_are_invariant_and_better(kind: str, compression: float | None) -> None:
    ani = ANI(
        ["H", "C", "O"],
        radial_eta=4.0,
        radial_shifts=[0.9, 1.5, 2.1],
        zeta=8.0,
        theta_shifts=[0.8, 2.3],
        angular_eta=4.0,
        angular_shifts=[1.0, 1.8],
        radial_cutoff=5.0,
        angular_cutoff=4.0,
    )
    positions = molecules(24).positions.view(24, 4, 3)
    energies, forces = symmetric_energy(positions)
    train = Batch.from_arrays([6, 8, 1, 1], positions, energies=energies, forces=forces)
    new_positions = molecules(12, seed=7).positions.view(12, 4, 3)
    new = Batch.from_arrays([6, 8, 1, 1], new_positions)
    turned = Batch.from_arrays([6, 8, 1, 1], new_positions[:, SWAP])
    errors = []
    for permutations in (None, torch.stack((torch.arange(4), SWAP))):
        inputs = InverseDistances() if kind == "inverse_distances" else ConcatenatedInputs(ani)
        process = GaussianProcess(
            inputs, RBF(2.0), compression=compression, permutations=permutations, force_noise=3e-2
        )
        report = process.fit(train, optimize=False, method="cholesky")
        result, mirrored = (
            process.predict(new, variance=True),
            process.predict(turned, variance=True),
        )
        errors.append(float((result.forces - symmetric_energy(new_positions)[1].view(-1, 3)).std()))
        if permutations is not None:
            assert report.permutations == 2
            torch.testing.assert_close(result.energy, mirrored.energy, rtol=0, atol=1e-8)
            torch.testing.assert_close(
                result.forces.view(12, 4, 3)[:, SWAP],
                mirrored.forces.view(12, 4, 3),
                rtol=0,
                atol=1e-8,
            )
            torch.testing.assert_close(result.energy_std, mirrored.energy_std, rtol=0, atol=1e-7)
    assert errors[1] < errors[0]
    iterative = GaussianProcess(
        inputs, RBF(2.0), compression=compression, permutations=permutations, force_noise=3e-2
    )
    from pymlp.gaussian_process import SolverOptions

    iterative.fit(train, optimize=False, method="cg", options=SolverOptions(tolerance=1e-10))
    torch.testing.assert_close(iterative.predict(new).energy, result.energy, rtol=0, atol=1e-7)


@pytest.mark.parametrize("overlapping", [False, True])
def test_characters_are_the_sum_over_images(overlapping: bool) -> None:
    """Commuting exchanges as signs of blocks: blocks, products and gradients are unchanged."""
    first = [1, 0, 3, 2, 4, 5, 6, 7]
    second = [2, 3, 0, 1, 4, 5, 7, 6] if overlapping else [0, 1, 2, 3, 5, 4, 6, 7]
    operations = close_group(torch.tensor([first, second]))
    assert operations is not None
    assert len(operations) == 4
    basis = character_basis(operations)
    assert basis is not None
    rotation, characters = basis
    eye = torch.eye(8, dtype=torch.float64)
    matrix = rotation.forward(eye)
    torch.testing.assert_close(matrix.mT @ matrix, eye)
    torch.testing.assert_close(rotation.backward(matrix), eye)
    generator = torch.Generator().manual_seed(0)

    def points(n: int, r: int) -> Points:
        features = torch.randn((n, 1, 8), generator=generator, dtype=torch.float64)
        jacobian = torch.randn((n, 1, r, 8), generator=generator, dtype=torch.float64)
        return Points(features, jacobian, symmetry=operations)

    def rotated(item: Points) -> Points:
        return Points(
            rotation.forward(item.features),
            rotation.forward(item.jacobian),
            characters=characters,
        )

    left, right = points(4, 3), points(5, 2)
    for covariance in (RBF(2.0), Matern52(2.5)):
        plain = covariance_block(left, right, covariance.terms)
        signs = covariance_block(rotated(left), rotated(right), covariance.terms)
        torch.testing.assert_close(signs, plain, rtol=1e-12, atol=1e-12)
        weights = torch.randn(right.n_rows, generator=generator, dtype=torch.float64)
        product = multiply(rotated(left), sources_of([rotated(right)], weights), covariance)
        torch.testing.assert_close(product, plain @ weights, rtol=1e-12, atol=1e-12)
    assert character_basis(close_group(torch.tensor([[1, 2, 0]]))) is None


def test_a_group_that_does_not_commute_goes_through_images() -> None:
    """Three like atoms and all their permutations."""
    numbers = torch.tensor([7, 1, 1, 1])
    group = close_group(torch.tensor([[0, 2, 3, 1], [0, 2, 1, 3]]))
    assert group is not None
    assert len(group) == 6
    positions = molecules(12).positions.view(12, 4, 3)
    energies, forces = springs(positions)
    train = Batch.from_arrays(numbers, positions, energies=energies, forces=forces)
    process = GaussianProcess(InverseDistances(), RBF(2.0), permutations=group)
    process.fit(train, optimize=False)
    new = molecules(4, seed=3).positions.view(4, 4, 3)
    results = [
        process.predict(Batch.from_arrays(numbers, new[:, operation])).energy for operation in group
    ]
    for result in results:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-8)
