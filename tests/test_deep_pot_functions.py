"""The ops that make 𝒢 themselves, from networks or a table, and interpolation.

Oracle, derivatives, autograd, errors; training through interpolation is that of the networks.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import Batch, ElementNetworks, Potential, neighbor_list
from pymlp import deep_pot_ops as ops
from pymlp import displacements as displacements_of
from pymlp.descriptors import DeepPotSE
from pymlp.descriptors.deep_pot_functions import Interpolation
from pymlp.embedding import EmbeddingNetworks
from tests import deep_pot_reference as reference
from tests.test_deep_pot_contraction import BOTH, close, probe

RAGGED = (3, 0, 1, 13, 0, 7, 40)
LIMITS = {torch.float32: (3e-6, 1e-5, 2e-5), torch.float64: (1e-13, 3e-13, 1e-12)}
WIDTHS = [(1,), (2, 4), (3, 3), (5, 10, 20), (7, 3), (25, 50, 100), (4, 8, 16, 16, 9)]
KINDS = 4  # the last without pairs


def networks_case(
    widths: tuple[int, ...], dtype: torch.dtype, counts: tuple[int, ...] = RAGGED
) -> tuple[Any, ...]:
    """Arguments of ``deep_pot_se_networks`` but n_axis."""
    offsets = torch.tensor([0, *counts]).cumsum(0)
    pairs = int(offsets[-1])
    generator = torch.Generator().manual_seed(4)
    kinds = torch.randint(0, KINDS - 1, (pairs,), generator=generator)
    size = sum((a + 1) * b for a, b in pairwise((1, *widths)))
    parameters = 0.5 * probe((KINDS, size), 5)
    standards = torch.stack([1.5 + 0.2 * probe((KINDS,), 6), 0.3 * probe((KINDS,), 7)], 1)
    rows = probe((pairs, 4), 3, dtype)
    return rows, offsets, kinds, parameters.to(dtype), standards.to(dtype), list(widths)


def networks_oracle(
    rows: Tensor, offsets: Tensor, kinds: Tensor, parameters: Tensor, standards: Tensor,
    widths: list[int], n_axis: int,
) -> Tensor:  # fmt: skip
    g = rows.new_zeros(len(rows), widths[-1])
    for kind in range(len(parameters)):
        layers, at = [], 0
        for a, b in pairwise((1, *widths)):
            weight = parameters[kind, at : at + a * b].reshape(a, b)
            layers.append((weight, parameters[kind, at + a * b : at + (a + 1) * b]))
            at += (a + 1) * b
        own = kinds == kind
        s = rows[own, 0] * standards[kind, 0] + standards[kind, 1]
        g = g.index_put((own.nonzero()[:, 0],), reference.embedding(s, layers))
    return reference.contraction(g, rows, offsets, n_axis)


def table_case(dtype: torch.dtype, functions: int = 20) -> tuple[Any, ...]:
    """Arguments of ``deep_pot_se_table`` but n_axis: polynomials of order one."""
    offsets = torch.tensor([0, *RAGGED]).cumsum(0)
    pairs = int(offsets[-1])
    generator = torch.Generator().manual_seed(4)
    kinds = torch.randint(0, KINDS - 1, (pairs,), generator=generator)
    rows = probe((pairs, 4), 3)
    rows[:, 0] = 0.1 + 1.3 * torch.rand(pairs, generator=generator, dtype=torch.float64)
    padded = math.ceil(functions / ops.TABLE_PADDING) * ops.TABLE_PADDING
    table = probe((KINDS, 5, 6, padded), 8)
    table[..., functions:] = 0.0
    return rows.to(dtype), offsets, kinds, table.to(dtype), 0.1, 0.27, functions


def table_oracle(
    rows: Tensor, offsets: Tensor, kinds: Tensor, table: Tensor, first: float, width: float,
    functions: int, n_axis: int,
) -> Tensor:  # fmt: skip
    x = (rows[:, 0] - first) / width
    interval = x.detach().long().clamp(max=table.shape[1] - 1)
    powers = (x - interval)[:, None] ** torch.arange(6)
    g = torch.einsum("pk,pkm->pm", powers, table[kinds, interval])[:, :functions]
    return reference.contraction(g, rows, offsets, n_axis)


CASES = [
    *(pytest.param("networks", widths, id="-".join(map(str, widths))) for widths in WIDTHS),
    *(pytest.param("table", (functions,), id=f"table {functions}") for functions in (16, 20, 100)),
]


def made(name: str, widths: tuple[int, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    case = networks_case(widths, dtype) if name == "networks" else table_case(dtype, widths[0])
    return (*case, max(1, min(16, widths[-1] // 2)))


@BOTH
@pytest.mark.parametrize(("name", "widths"), CASES)
def test_values_and_derivatives(name: str, widths: tuple[int, ...], dtype: torch.dtype) -> None:
    limits = LIMITS[dtype]
    case = made(name, widths, dtype)
    exact: list[Any] = [
        x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in case
    ]
    rows, weights = exact[0].requires_grad_(), exact[3].requires_grad_()
    oracle = networks_oracle if name == "networks" else table_oracle
    d = oracle(*exact)
    op = getattr(torch.ops.pymlp, f"deep_pot_se_{name}")
    close(op(*case), d, limits[0])

    v = probe(tuple(d.shape), 4, dtype)
    exact_v = v.double().requires_grad_()
    by_rows, by_weights = torch.autograd.grad(d, (rows, weights), exact_v, create_graph=True)
    close(getattr(torch.ops.pymlp, f"deep_pot_se_{name}_backward")(v, *case), by_rows, limits[1])
    gradient = getattr(torch.ops.pymlp, f"deep_pot_se_{name}_gradient")(v, *case)
    close(gradient, by_weights, limits[1])
    u = probe(tuple(rows.shape), 6, dtype)
    second = torch.autograd.grad(by_rows, (exact_v, rows, weights), u.double())
    twice = getattr(torch.ops.pymlp, f"deep_pot_se_{name}_double_backward")
    found = twice(u, v, *case, True)
    for a, b in zip(found, second, strict=True):
        close(a, b, limits[2])
    without = twice(u, v, *case, False)
    assert without[1].shape == (0, 4)
    assert torch.equal(without[0], found[0])
    assert torch.equal(without[2], found[2])


@pytest.mark.parametrize(("name", "widths"), [("networks", (3, 6)), ("table", (5,))])
def test_autograd(name: str, widths: tuple[int, ...]) -> None:
    rows, offsets, kinds, weights, *rest = made(name, widths, torch.float64)
    rows, kinds, offsets = rows[:11], kinds[:11], offsets[:4].clamp(max=11)
    offsets[-1] = 11
    op = getattr(torch.ops.pymlp, f"deep_pot_se_{name}").default
    backward = getattr(torch.ops.pymlp, f"deep_pot_se_{name}_backward").default
    inputs = (rows.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda r, w: op(r, offsets, kinds, w, *rest), inputs, fast_mode=True
    )
    v = probe(tuple(op(*(rows, offsets, kinds, weights), *rest).shape), 9).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda g, r, w: backward(g, r, offsets, kinds, w, *rest), (v, *inputs), fast_mode=True
    )
    first = backward(v, rows, offsets, kinds, weights, *rest)
    (second,) = torch.autograd.grad(first.square().sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match=r"third derivatives"):
        torch.autograd.grad(second.sum(), rows)


@pytest.mark.parametrize(("name", "widths"), [("networks", (3, 6)), ("table", (5,))])
@pytest.mark.parametrize("suffix", ["", "_backward", "_gradient", "_double_backward"])
def test_opcheck(name: str, widths: tuple[int, ...], suffix: str) -> None:
    rows, offsets, kinds, weights, *rest = made(name, widths, torch.float64)
    case = (rows, offsets, kinds, weights, *rest)
    v = probe((len(RAGGED), widths[-1] * rest[-1]), 4)
    if suffix in ("", "_backward"):
        rows.requires_grad_()
        weights.requires_grad_()
    arguments: dict[str, tuple[Any, ...]] = {
        "": case,
        "_backward": (v.requires_grad_(), *case),
        "_gradient": (v, *case),
        "_double_backward": (probe(tuple(rows.shape), 6), v, *case, True),
    }
    if suffix in ("_gradient", "_double_backward"):
        arguments[suffix] = tuple(
            x.detach() if isinstance(x, Tensor) else x for x in arguments[suffix]
        )
    op = getattr(torch.ops.pymlp, f"deep_pot_se_{name}{suffix}").default
    torch.library.opcheck(op, arguments[suffix])


@BOTH
@pytest.mark.parametrize(("name", "widths"), [("networks", (25, 50, 100)), ("table", (20,))])
def test_same_bits_on_any_number_of_threads(
    name: str, widths: tuple[int, ...], dtype: torch.dtype
) -> None:
    if name == "networks":
        case: tuple[Any, ...] = (*networks_case(widths, dtype, (9,) * 700), 4)
    else:
        rows, _, kinds, *rest = table_case(dtype)
        offsets = torch.arange(701) * 9
        again = torch.arange(6300) % len(rows)
        case = (rows[again], offsets, kinds[again], *rest, 4)
    v = probe((700, widths[-1] * 4), 4, dtype)
    u = probe((6300, 4), 5, dtype)

    def run() -> list[Tensor]:
        call = {k: getattr(torch.ops.pymlp, f"deep_pot_se_{name}{k}") for k in
                ("", "_backward", "_gradient", "_double_backward")}  # fmt: skip
        return [
            call[""](*case),
            call["_backward"](v, *case),
            call["_gradient"](v, *case),
            *call["_double_backward"](u, v, *case, True),
        ]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run()
        torch.set_num_threads(2)
        two = run()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_centre_with_more_pairs_than_a_block() -> None:
    case = networks_case((5, 10), torch.float64, (2, 700, 0, 300))
    close(ops.deep_pot_se_networks(*case, 3), networks_oracle(*case, 3), 1e-13)
    alone = [case[0][2:702], torch.tensor([0, 700]), case[2][2:702], *case[3:]]
    assert torch.equal(
        ops.deep_pot_se_networks(*alone, 3)[0], ops.deep_pot_se_networks(*case, 3)[1]
    )


def test_nothing_and_nobody() -> None:
    rows, _, kinds, *rest = networks_case((3, 6), torch.float32)
    nothing = ops.deep_pot_se_networks(rows[:0], torch.tensor([0]), kinds[:0], *rest, 2)
    assert nothing.shape == (0, 12)
    lone = ops.deep_pot_se_networks(
        rows[:0], torch.zeros(3, dtype=torch.int64), kinds[:0], *rest, 2
    )
    assert lone.shape == (2, 12)
    assert not lone.any()
    gradient = torch.ops.pymlp.deep_pot_se_networks_gradient(
        torch.zeros(0, 12), rows[:0], torch.tensor([0]), kinds[:0], *rest, 2
    )
    assert gradient.shape == rest[0].shape
    assert not gradient.any()


def test_what_is_not_a_number_stays_visible() -> None:
    rows, *rest = networks_case((3, 6), torch.float32)
    rows[4, 0] = math.nan
    assert ops.deep_pot_se_networks(rows, *rest, 2)[3].isnan().any()
    rows[4, 0] = 1e9  # tanh is 1
    assert ops.deep_pot_se_networks(rows, *rest, 2).isfinite().all()


def test_errors_name_the_argument() -> None:
    rows, offsets, kinds, parameters, standards, widths = networks_case((3, 6), torch.float64)
    call = ops.deep_pot_se_networks
    with pytest.raises(ValueError, match=r"n_axis: expected 1 ... M = 6, got 7"):
        call(rows, offsets, kinds, parameters, standards, widths, 7)
    with pytest.raises(ValueError, match=r"widths: expected 1 ... 8 layers, got 0"):
        call(rows, offsets, kinds, parameters, standards, [], 1)
    with pytest.raises(ValueError, match=r"widths: expected 1 ... 4096, got 0"):
        call(rows, offsets, kinds, parameters, standards, [0, 6], 1)
    with pytest.raises(ValueError, match=r"parameters: expected shape \[kinds, weights"):
        call(rows, offsets, kinds, parameters[:, 1:], standards, widths, 2)
    with pytest.raises(ValueError, match=r"standards: expected shape \[kinds, 2\]"):
        call(rows, offsets, kinds, parameters, standards[1:], widths, 2)
    with pytest.raises(ValueError, match=r"pair_kinds: expected values in 0 ... 3"):
        call(rows, offsets, kinds + 2, parameters, standards, widths, 2)
    with pytest.raises(ValueError, match=r"pair_offsets: .*end with P = 64"):
        call(rows, offsets[:-1], kinds, parameters, standards, widths, 2)
    with pytest.raises(ValueError, match=r"parameters: expected the dtype of environment"):
        call(rows, offsets, kinds, parameters.float(), standards, widths, 2)
    with pytest.raises(TypeError, match=r"environment"):
        call(rows.half(), offsets, kinds, parameters, standards, widths, 2)
    with pytest.raises(ValueError, match=r"grad_grad_environment: expected shape \[P, 4\]"):
        torch.ops.pymlp.deep_pot_se_networks_double_backward(
            rows[1:], torch.zeros(7, 12).double(), rows, offsets, kinds, parameters, standards,
            widths, 2, True,
        )  # fmt: skip


# -- interpolation --------------------------------------------------------------------------------


def many_pairs() -> tuple[Batch, DeepPotSE]:
    """Enough pairs of smooth networks, float32, that interpolation pays."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3) * 1.5
    x = grid + 0.3 * torch.rand(40, 27, 3, generator=generator)
    batch = Batch.from_arrays(torch.tensor([1, 8, 1] * 9), x.double()).to(dtype=torch.float32)
    model = DeepPotSE(["H", "O"], (6, 12), 3, 5.0, 1.0, "cosine", 4.0, seed=3, dtype=torch.float32)
    return batch, model


def test_interpolated_training_is_that_of_the_networks() -> None:
    batch, model = many_pairs()
    network = ElementNetworks(36, ["H", "O"], (8,), seed=2, dtype=torch.float32)
    potential = Potential(model, network)
    pairs = neighbor_list(batch, 5.0)
    rows = model.environment(displacements_of(batch.positions, pairs))
    assert model.interpolation is not None
    assert model.interpolation.polynomials(model.embedding, rows[:, 0]) is not None

    def gradients() -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        energies, forces = potential.energy_and_forces(batch, pairs, create_graph=True)
        loss = energies.square().mean() + forces.square().mean()
        return energies, forces, torch.autograd.grad(loss, list(potential.parameters()))

    found = gradients()
    model.interpolation = None
    exact = gradients()
    torch.testing.assert_close(found[0], exact[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], exact[1], rtol=1e-3, atol=1e-5)
    for a, b in zip(found[2], exact[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_interpolation_where_it_pays_and_holds() -> None:
    embedding = EmbeddingNetworks(2, (6, 12), seed=1, dtype=torch.float32)
    s = torch.rand(20000, generator=torch.Generator().manual_seed(2)) + 0.1
    found = Interpolation(1e-6).polynomials(embedding, s)
    assert found is not None
    coefficients, first, width = found
    coefficients = coefficients.detach()
    x = (s.double() - first) / width
    interval = x.long()
    assert int(interval.min()) >= 0
    assert int(interval.max()) < coefficients.shape[1]
    powers = (x - interval)[:, None] ** torch.arange(6)
    for kind in range(2):
        value = torch.einsum("pk,pkm->pm", powers, coefficients[kind, interval])[:, :12]
        exact = embedding.values(s)[kind].detach()
        assert float((value - exact).abs().max()) <= 2e-6 * float(exact.abs().max())
    assert Interpolation(1e-30).polynomials(embedding, s) is None
    assert Interpolation().polynomials(embedding, s[:50]) is None
    assert Interpolation().polynomials(embedding, s.double()) is None


def test_deep_networks_go_through_torch() -> None:
    batch, _ = many_pairs()
    model = DeepPotSE(["H", "O"], (3,) * 9, 2, seed=3, dtype=torch.float32)
    part = batch[:2]
    pairs = neighbor_list(part, model.cutoff)
    d = displacements_of(part.positions, pairs)
    types = model.types(part.numbers)
    features, pull = model.features_and_pull(d, pairs, types)
    x = d.clone().requires_grad_()
    plain = model.features(x, pairs, types)
    torch.testing.assert_close(features, plain.detach(), rtol=1e-4, atol=1e-5)
    v = torch.ones_like(features)
    (slope,) = torch.autograd.grad(plain, x, v)
    by_pair = pull(torch.stack([v, 2 * v]))
    torch.testing.assert_close(by_pair, torch.stack([slope, 2 * slope]), rtol=1e-3, atol=2e-4)
