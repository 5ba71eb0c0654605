"""DeepPot-SE through the same training, configuration and command line as the other kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pymlp
from pymlp import ElementNetworks
from pymlp.config import ConfigError, NetworkRun, load_config, parse_config
from pymlp.descriptors import DeepPotSE
from pymlp.model_files import read_model
from pymlp.networks import group_by_element
from pymlp.structures import Batch
from pymlp.training import CachedStructures, read_log, train
from pymlp.training.module import ForceMatching, energies_and_forces
from tests.toy_data import morse, positions, small_run

CHANGES = {
    r"embedding: \[.*?\]": "embedding: [4, 8]",
    r"n_axis: \d+": "n_axis: 2",
    r"hidden: \[.*?\]": "hidden: [8, 8]",
}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymlp import plotting

    monkeypatch.setattr(plotting, "loss_curve", lambda rows, path: path)
    monkeypatch.setattr(plotting, "parity", lambda *values, **more: values[2])


def run_file(folder: Path, changes: dict[str, str] | None = None) -> Path:
    return small_run(folder, CHANGES | (changes or {}), "deeppot-fnn")


def run(path: Path, folder: str = "run", **arguments: bool) -> Path:
    config = load_config(path)
    assert isinstance(config, NetworkRun)
    out = path.parent / folder
    train(config, out, base=path.parent, **arguments)
    return out


def test_a_run_learns_energies_and_forces_of_a_difference(tmp_path: Path) -> None:
    out = run(run_file(tmp_path, {r"epochs: \d+ ": "epochs: 40 "}))
    rows = read_log(out / "log.csv")
    first, last = (float(rows[k]["validation_force_rmse_kcal_mol_A"]) for k in (0, -1))
    assert last < 0.7 * first
    potential = pymlp.load(out)
    assert isinstance(potential.descriptor, DeepPotSE)
    assert potential.metadata["target"]["kind"] == "delta"
    assert bool((potential.feature_minimum <= potential.feature_maximum).all())
    assert potential.networks[0].residual
    # the embedding is trained, too, from where its seed put it
    fresh = potential.descriptor.initialized(0, torch.float64)
    trained = potential.descriptor.embedding.weights[0].detach()
    assert not torch.allclose(trained, fresh.embedding.weights[0].detach(), atol=1e-3)


def test_the_gradient_of_the_loss_is_that_of_plain_autograd() -> None:
    r = positions(3)
    energies, forces = morse(r)
    batch = Batch.from_arrays([8, 1, 1], r, energies=energies, forces=forces)
    descriptor = DeepPotSE(["H", "O"], (3, 6), 2, seed=1, dtype=torch.float64)
    network = ElementNetworks(12, ["H", "O"], (6, 12), residual=True, seed=1, dtype=torch.float64)
    cached = CachedStructures(batch, descriptor, dtype=torch.float64)
    weights = [*descriptor.parameters(), *network.parameters()]
    part = cached[range(3)]
    found, pull = energies_and_forces(network, descriptor, part, forces=True, create_graph=True)
    assert pull is not None
    mine = torch.autograd.grad(found.square().sum() + pull.square().sum(), weights)
    x = batch.positions.clone().requires_grad_()
    atomic = network(descriptor(batch.with_positions(x)), descriptor.types(batch.numbers))
    plain = atomic.reshape(3, 3).sum(1)
    (slope,) = torch.autograd.grad(plain.sum(), x, create_graph=True)
    torch.testing.assert_close(pull, -slope)
    theirs = torch.autograd.grad(plain.square().sum() + slope.square().sum(), weights)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_an_interrupted_committee_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_file(tmp_path, {r"committee: \d+": "committee: 2"})
    whole = run(path, "whole")
    original = ForceMatching.training_step

    def crash(module: ForceMatching, batch: object, index: int) -> object:
        if module.seed == 1 and module.global_step == 14:
            raise MemoryError("crash")
        return original(module, batch, index)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ForceMatching, "training_step", crash)
        with pytest.raises(MemoryError):
            run(path, "cut")
    resumed = run(path, "cut", resume=True)
    one, other = read_model(whole)[1], read_model(resumed)[1]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    # each network of the committee has an embedding of its own
    name = "embedding.weights.0"
    assert not torch.equal(one[f"descriptor.{name}"], one[f"other_descriptors.0.{name}"])
    potential = pymlp.load(whole)
    batch = Batch.from_arrays([8, 1, 1], positions(2))
    result = potential.compute(batch)
    assert result.energy_std is not None
    assert bool((result.energy_std > 0).all())


def test_energies_alone(tmp_path: Path) -> None:
    out = run(
        run_file(
            tmp_path,
            {r"force_start: [\d.]+": "force_start: 0.0", r"force_end: [\d.]+": "force_end: 0.0"},
        )
    )
    assert "force_rmse_kcal_mol_A" not in read_log(out / "log.csv")[0]


def test_init_writes_the_potential_of_the_accuracy_benchmark() -> None:
    from ruamel.yaml import YAML

    from pymlp.config import kind_named

    folder = Path(__file__).parent.parent / "benchmarks" / "accuracy"
    benchmark = YAML(typ="safe").load(folder / "deeppot-fnn.yaml")
    sections = kind_named("deeppot-fnn").defaults()
    for name, values in sections.items():
        assert values == {key: benchmark[name][key] for key in values}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({r"n_axis: \d+": "n_axis: 9"}, r"n_axis \(9\) must not exceed the last width"),
        ({r"switch: none": "switch: cosine"}, "switch: cosine needs switch_start and cutoff"),
        ({r"cutoff: null": "cutoff: 5.0"}, "switch: none takes neither"),
        ({r"embedding: \[.*?\]": "embedding: []"}, "embedding"),
        ({r"sharing: type_pair": "sharing: pair"}, "did you mean `type_pair`"),
        (
            {
                r"switch: none": "switch: quintic",
                r"switch_start: null": "switch_start: 5.0",
                r"cutoff: null": "cutoff: 4.0",
            },
            "must be below cutoff",
        ),
    ],
)
def test_configurations_that_cannot_be(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    text = run_file(tmp_path, changes).read_text()
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


@pytest.mark.parametrize("hidden", [(4, 4), (4, 8), (12, 5), (6, 12, 12)])
def test_residual_networks(hidden: tuple[int, ...]) -> None:
    """Layer by layer, and the slopes without a graph against autograd."""
    net = ElementNetworks(6, ["H"], hidden, residual=True, seed=3, dtype=torch.float64)
    plain = ElementNetworks(6, ["H"], hidden, seed=3, dtype=torch.float64)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    types = torch.zeros(5, dtype=torch.int64)
    y = x
    for weight, bias in list(zip(net.weights, net.biases, strict=True))[:-1]:
        out = torch.tanh(y @ weight[0].T + bias[0])
        if out.shape[1] == y.shape[1]:
            out = out + y
        elif out.shape[1] == 2 * y.shape[1]:
            out = out + torch.cat([y, y], dim=1)
        y = out
    expected = (y @ net.weights[-1][0].T + net.biases[-1][0])[:, 0]
    torch.testing.assert_close(net(x, types), expected)
    assert not torch.allclose(net(x, types), plain(x, types))
    (slope,) = torch.autograd.grad(expected.sum(), x)
    _, found = net.energies_and_slopes(x.detach(), types, group_by_element(types, 1))
    torch.testing.assert_close(found, slope)


def test_whitening_is_another_road_to_the_same_networks() -> None:
    net = ElementNetworks(6, ["H", "O"], (4, 8), residual=True, seed=3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    types = torch.tensor([0, 1, 1, 0, 1])
    turn = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    turned = torch.einsum("af,afk->ak", x, turn[types])
    expected = net(turned, types)
    net.whiten(turn)
    groups = group_by_element(types, 2)
    torch.testing.assert_close(net(x, types), expected)
    torch.testing.assert_close(net.energies_and_slopes(x, types, groups)[0], expected.detach())
    assert net.fold().rotation is None
    torch.testing.assert_close(net(x, types), expected)
    with pytest.raises(ValueError, match=r"rotation must have shape"):
        net.whiten(turn[:1])
    first = ElementNetworks(6, ["H"], (6,), residual=True)
    with pytest.raises(ValueError, match=r"first hidden layer is residual"):
        first.whiten(turn[:1])


def test_whitened_components_have_unit_spread() -> None:
    from pymlp.training.scales import _whitening

    generator = torch.Generator().manual_seed(2)
    mix = torch.diag(torch.tensor([3.0, 1.0, 0.1, 1e-6])).double()
    x = torch.randn(4000, 4, generator=generator, dtype=torch.float64) @ mix
    y = x @ _whitening(x, 1e-4)
    spread = (y.T @ y / len(y)).diag()
    torch.testing.assert_close(spread[-2:], torch.ones(2).double(), rtol=2e-3, atol=0)
    assert float(spread[0]) < 1e-3


def test_the_descriptor_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    """With rate almost zero the embedding stays where its seed put it."""
    out = run(run_file(tmp_path, {r"descriptor_rate: [\d.]+": "descriptor_rate: 1.0e-12"}))
    made = pymlp.load(out).descriptor
    assert isinstance(made, DeepPotSE)
    fresh = made.initialized(0, torch.float32)
    torch.testing.assert_close(made.embedding.weights[0].float(), fresh.embedding.weights[0])
