"""Length scales per group of features: the closed-form gradient, what the weights are good for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pymlp.covariances import RBF, Covariance, Matern52, RationalQuadratic
from pymlp.gaussian_process import (
    AtomicInputs,
    CombinedInputs,
    ConcatenatedInputs,
    GaussianProcess,
    InverseDistances,
    StructureInputs,
)
from pymlp.gaussian_process.feature_weights import (
    GroupProducts,
    WeightedLikelihood,
    maximize_weights,
)
from pymlp.gaussian_process.likelihood import Hyperparameters, log_marginal_likelihood
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.weight_search import fit_feature_weights
from tests.gp_oracle import molecules, small_ani
from tests.test_gp_permutations import symmetric_energy

GROUPS = torch.tensor([0, 0, 1, 2, 1])
SWAP = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 4, 3, 2]])


def system(symmetric: bool = True) -> tuple[Points, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((9, 1, 5), generator=generator, dtype=torch.float64)
    jacobian = torch.randn((9, 1, 4, 5), generator=generator, dtype=torch.float64)
    points = Points(features, jacobian, symmetry=SWAP if symmetric else None)
    return points, torch.randn(points.n_rows, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("covariance", [RBF(), Matern52(), RationalQuadratic(1.0, 0.8)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_value_and_slopes(covariance: Covariance, symmetric: bool) -> None:
    points, targets = system(symmetric)
    likelihood = WeightedLikelihood(GroupProducts.of(points, GROUPS), targets)
    weights = torch.tensor([0.4, 0.7, 0.5], dtype=torch.float64)
    own = {name: value for name, value in covariance.parameters().items() if name == "alpha"}
    result, slopes = likelihood(covariance, weights, 0.02, 0.05)
    assert points.jacobian is not None
    scaled = replace(
        points,
        features=points.features * weights[GROUPS],
        jacobian=points.jacobian * weights[GROUPS],
    )
    direct = log_marginal_likelihood([scaled], targets, covariance, 0.02, 0.05)
    assert result.value == pytest.approx(direct.value, rel=1e-12)
    assert result.signal_variance == pytest.approx(direct.signal_variance, rel=1e-12)
    for name in ("energy_noise", "force_noise", *own):
        assert result.gradient[name] == pytest.approx(direct.gradient[name], rel=1e-9)
    # All weights together are one over the length scale.
    assert float(slopes.sum()) == pytest.approx(-direct.gradient["length_scale"], rel=1e-9)
    step = 1e-5
    for group in range(3):
        values = []
        for sign in (1, -1):
            moved = weights.clone()
            moved[group] *= math.exp(sign * step)
            values.append(likelihood(covariance, moved, 0.02, 0.05)[0].value)
        slope = (values[0] - values[1]) / (2 * step)
        assert float(slopes[group]) == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_the_maximum_is_one() -> None:
    points, targets = system()
    likelihood = WeightedLikelihood(GroupProducts.of(points, GROUPS), targets)
    lines: list[str] = []
    weights, found, value = maximize_weights(likelihood, Matern52(), report=lines.append)
    assert value == pytest.approx(max(float(line.split()[2]) for line in lines), abs=0.01)
    again, _ = likelihood(
        found.covariance, weights, found.relative_energy_noise, found.relative_force_noise
    )
    assert again.value == pytest.approx(value, rel=1e-9)
    assert found.covariance.length_scale == 1.0


def combined() -> CombinedInputs:
    return CombinedInputs(ConcatenatedInputs(small_ani()), InverseDistances())


def test_weights_lower_the_errors_of_a_fit() -> None:
    train, new = molecules(40, spread=0.1), molecules(20, seed=3, spread=0.1)
    errors, likelihoods = [], []
    for inputs, count in ((ConcatenatedInputs(small_ani()), None), (combined(), 16)):
        process = GaussianProcess(inputs, Matern52())
        report = process.fit(train, method="cholesky", subset=16, weight_structures=count)
        assert report.likelihood_structures == 16
        assert report.log_likelihood is not None
        likelihoods.append(report.log_likelihood)
        errors.append(float((process.predict(new).forces - new.forces).std()))
    assert likelihoods[1] > likelihoods[0] + 5.0
    assert errors[1] < errors[0]
    assert process.feature_weights is not None
    assert len(set(process.feature_weights.tolist())) == 3 * 2 + 4  # and O-O does not exist


def test_exchanged_atoms_share_their_weights() -> None:
    train = molecules(12, spread=0.1)
    energies, forces = symmetric_energy(train.positions.view(12, 4, 3))
    train = replace(train, energies=energies, forces=forces.reshape(-1, 3))
    swap = torch.tensor([[0, 1, 2, 3], [0, 1, 3, 2]])
    process = GaussianProcess(combined(), Matern52(), permutations=swap)
    process.fit(train, method="cholesky", weight_structures=8)
    positions = train.positions.view(12, 4, 3)
    turned = replace(train, positions=positions[:, swap[1]].reshape(-1, 3))
    one, other = process.predict(train), process.predict(turned)
    assert torch.allclose(one.energy, other.energy, atol=1e-9)
    assert one.forces is not None
    assert other.forces is not None
    moved = one.forces.view(12, 4, 3)[:, swap[1]].reshape(-1, 3)
    assert torch.allclose(moved, other.forces, atol=1e-8)


@pytest.mark.parametrize("symmetric", [True, False])
def test_features_without_weight_are_left_out(symmetric: bool) -> None:
    train = molecules(10, spread=0.1)
    swap = torch.tensor([[0, 1, 2, 3], [0, 1, 3, 2]]) if symmetric else None
    weights = torch.ones(combined().feature_groups(train.numbers[:4]).shape, dtype=torch.float64)
    groups = combined().feature_groups(train.numbers[:4])
    weights[groups == 2] = 0.0
    weights[groups == 7] = 1e-6
    predictions = []
    for drop in (None, 1e-3):
        process = GaussianProcess(
            combined(),
            Matern52(3.0),
            permutations=swap,
            feature_weights=weights,
            drop=drop,
            force_noise=0.03,
        )
        report = process.fit(train, optimize=False, method="cholesky")
        predictions.append(process.predict(molecules(5, seed=2)))
    gone = int((groups == 2).sum() + (groups == 7).sum())
    assert report.features <= len(groups) - gone
    assert 0.0 <= report.compression_loss <= 1e-3
    torch.testing.assert_close(predictions[0].energy, predictions[1].energy, rtol=0, atol=1e-3)
    torch.testing.assert_close(predictions[0].forces, predictions[1].forces, rtol=0, atol=1e-2)
    with pytest.raises(ValueError, match="both"):
        GaussianProcess(combined(), drop=1e-3, compression=1e-3).fit(train)


def test_the_memory_bounds_the_structures() -> None:
    train = molecules(20)
    process = GaussianProcess(InverseDistances(), Matern52())
    memory = GroupProducts.nbytes(6, 12, 3, 1)
    _, structures = fit_feature_weights(process, train, 20, max_iterations=2, memory=memory)
    assert 4 <= structures <= 6


def test_combined_inputs_are_their_parts() -> None:
    batch, inputs = molecules(3), combined()
    parts = [ConcatenatedInputs(small_ani()), InverseDistances()]
    expected = torch.cat([part.jacobian(batch, None) for part in parts], -1)
    assert torch.equal(inputs.jacobian(batch, None), expected)
    features, pull = inputs.features_and_pullback(batch)
    gradient = torch.randn(features.shape, dtype=torch.float64)
    direct = (expected[:, 0] @ gradient[:, 0, :, None]).view(3, 4, 3)
    assert torch.allclose(pull(gradient), direct)
    assert torch.allclose(inputs.gradient(batch, gradient), direct)
    numbers, order = batch.numbers[:4], torch.tensor([0, 1, 3, 2])
    moved = replace(batch, positions=batch.positions.view(3, 4, 3)[:, order].reshape(-1, 3))
    index = inputs.permutation(order, numbers)
    assert torch.allclose(inputs.features(moved), inputs.features(batch)[..., index])
    again = StructureInputs.from_config(inputs.to_config())
    assert torch.equal(again.features(batch), features)


def test_what_it_cannot_do_is_refused() -> None:
    points, _ = system()
    for wrong in (points.without_derivatives(), points.without_energies()):
        with pytest.raises(ValueError, match="whole structures"):
            GroupProducts.of(wrong, GROUPS)
    with pytest.raises(ValueError, match="separate"):
        GroupProducts.of(points, torch.tensor([0, 1, 2, 2, 2]))
    with pytest.raises(ValueError, match="GAP sum"):
        fit_feature_weights(GaussianProcess(AtomicInputs(small_ani())), molecules(3))
    periodic = molecules(2)
    periodic = replace(
        periodic, cell=9.0 * torch.eye(3).double().expand(2, 3, 3), pbc=periodic.pbc | True
    )
    with pytest.raises(ValueError, match="isolated"):
        InverseDistances().features(periodic)
    with pytest.raises(ValueError, match="parts"):
        CombinedInputs(InverseDistances())
    with pytest.raises(ValueError, match="parts"):
        CombinedInputs(AtomicInputs(small_ani()), InverseDistances())


def test_noises_shrink_with_the_number_of_structures() -> None:
    found = Hyperparameters(Matern52(), 2.0, 1e-3, 0.04)
    more = found.for_structures(40, 160)
    assert (more.energy_noise, more.force_noise) == pytest.approx((3e-4, 0.012))
    assert more.signal_variance == 2.0
    assert found.for_structures(40, 160, label_noise=0.02).force_noise == 0.02
    # Fewer structures than the likelihood saw do not raise them.
    assert found.for_structures(40, 10) == found.for_structures(40, 40)
