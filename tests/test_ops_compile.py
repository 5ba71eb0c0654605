"""torch.compile(fullgraph=True): features, and energy with forces, without a graph break."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pymlp import ops
from tests.cases import Case, cases

CHOSEN = ["bp-molecule", "bp-ragged", "ani-molecule", "ani-1x-like-torchani"]
EACH = pytest.mark.parametrize("case", [c for c in cases() if c.name in CHOSEN], ids=str)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def energy_and_forces(case: Case, weight: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """A nonlinear readout and its slope along the displacements, as a potential has them."""
    features = getattr(ops, case.family)(x, *rest)
    energy = torch.tanh(features @ weight).sum()
    return energy, torch.autograd.grad(energy, x, create_graph=True)[0]


@EACH
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_features_compile(case: Case, dynamic: bool) -> None:
    x, rest = case.displacements(torch.float64), case.rest(torch.float64)
    run = getattr(ops, case.family)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    assert torch.equal(compiled(x, *rest), run(x, *rest)), f"{case}: compiled features differ"


@EACH
def test_training_step_compiles(case: Case) -> None:
    """Energy and forces inside the graph, the gradient of a force loss through it."""
    x, rest = case.displacements(torch.float64), case.rest(torch.float64)
    generator = torch.Generator().manual_seed(31)
    start = torch.randn(case.n_features, generator=generator, dtype=torch.float64) * 0.1

    def forces_via_ops(weight: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        features = getattr(ops, case.family)(d, *rest)
        value = torch.tanh(features @ weight)
        slope = (1 - value * value)[:, None] * weight
        return value.sum(), getattr(ops, case.family + "_backward")(slope, d, *rest)

    compiled = torch.compile(forces_via_ops, fullgraph=True, backend="aot_eager")
    results = []
    for run in (forces_via_ops, compiled):
        weight = start.clone().requires_grad_()
        energy, forces = run(weight, x)
        (energy**2 + forces.square().sum()).backward()
        assert weight.grad is not None
        results.append((energy.detach(), forces.detach(), weight.grad))
    for name, eager, fused in zip(("energy", "forces", "loss gradient"), *results, strict=True):
        assert torch.allclose(eager, fused, rtol=1e-12, atol=1e-12), f"{case}: {name}"
    # the same numbers as autograd through the features
    weight = start.clone().requires_grad_()
    energy, slope = energy_and_forces(case, weight, x.clone().requires_grad_(), *rest)
    (energy**2 + slope.square().sum()).backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, results[0][2], rtol=1e-10, atol=1e-12), f"{case}"


@pytest.mark.parametrize("family", ops.FAMILIES)
def test_inductor(family: str) -> None:
    """The default backend: generated code around the op gives the eager numbers."""
    case = cases(small=True, family=family)[0]
    x, rest = case.displacements(torch.float32), case.rest(torch.float32)

    def readout(d: Tensor) -> Tensor:
        return torch.tanh(getattr(ops, case.family)(d, *rest)).sum(1)

    compiled = torch.compile(readout, fullgraph=True)
    assert torch.allclose(compiled(x), readout(x), rtol=1e-6, atol=1e-6), f"{case}"
