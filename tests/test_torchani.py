"""Agreement with TorchANI's atomic environment vectors: oracle and descriptors, both ANI sets.

TorchANI's buffers hold float32 parameters; here they are set to the float64 values, so that the
comparison in float64 is one of arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pymlp
from tests import reference
from tests.cases import ANI1X, ANI2X, symmetry
from tests.neighbourhoods import Geometry, molecule, neighbourhood

torchani = pytest.importorskip("torchani", reason="extra `test` is not installed")

NUMBERS = {"1x": [1, 6, 7, 8], "2x": [1, 6, 7, 8, 16, 9, 17]}
PARAMETERS = {"1x": ANI1X, "2x": ANI2X}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


def torchani_aev(model: str, dtype: torch.dtype) -> Any:
    """TorchANI's AEV computer with parameters exact in ``dtype``."""
    computer = getattr(torchani.aev.AEVComputer, f"like_{model}")().to(dtype)
    radial, angular = PARAMETERS[model]["radial"], PARAMETERS[model]["angular"]
    exact = {
        "radial.eta": [radial[0][0]],
        "radial.shifts": [shift for _, shift, _ in radial],
        "angular.eta": [angular[0][0]],
        "angular.zeta": [angular[0][2]],
        "angular.shifts": sorted({term[1] for term in angular}),
        "angular.sections": sorted({term[3] for term in angular}),
    }
    for name, values in exact.items():
        buffer = computer.get_buffer(name)
        exact_values = torch.tensor(values, dtype=dtype)
        assert torch.allclose(buffer, exact_values, rtol=1e-6), f"{name}: not {model}'s parameters"
        buffer.copy_(exact_values)
    return computer


def structures(model: str) -> dict[str, Geometry]:
    n_types = len(NUMBERS[model])
    water = water_box()
    return {
        "molecule": molecule(14, n_types, 41),
        "crowded": molecule(30, n_types, 42, spacing=0.8),
        "periodic": water,
        "periodic, outside the cell": Geometry(
            water.positions + torch.tensor([31.0, -17.0, 5.0]).double(), water.types, water.cell
        ),
    }


def water_box() -> Geometry:
    """27 jittered molecules at 1 g/cm³ in a slightly sheared cell; types H 0 and O 3."""
    generator = torch.Generator().manual_seed(43)
    length = 9.31
    sites = torch.cartesian_prod(*[torch.arange(3).double()] * 3) * (length / 3)
    sites = sites + 0.2 * torch.randn(27, 3, generator=generator, dtype=torch.float64)
    rotations = torch.linalg.qr(torch.randn(27, 3, 3, generator=generator, dtype=torch.float64)).Q
    shape = torch.tensor([[0.0, 0.0, 0.0], [0.757, 0.586, 0.0], [-0.757, 0.586, 0.0]]).double()
    positions = (sites[:, None] + shape @ rotations.transpose(1, 2)).reshape(-1, 3)
    cell = torch.eye(3, dtype=torch.float64) * length
    cell[1, 0] = 0.7
    return Geometry(positions, torch.tensor([3, 0, 0]).repeat(27), cell)


def their_features(computer: Any, structure: Geometry, positions: Tensor) -> Tensor:
    cell, pbc = structure.cell, None
    if cell is not None:
        cell, pbc = cell.to(positions.dtype), torch.ones(3, dtype=torch.bool)
    return computer(structure.types[None], positions[None], cell, pbc)[0]


def worst(ours: Tensor, theirs: Tensor) -> float:
    """Largest deviation, relative to the largest value."""
    assert ours.shape == theirs.shape, f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)}"
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


@pytest.mark.parametrize("kind", ["molecule", "crowded", "periodic", "periodic, outside the cell"])
@pytest.mark.parametrize("model", ["1x", "2x"])
def test_oracle_is_torchani(model: str, kind: str) -> None:
    structure = structures(model)[kind]
    parameters = symmetry("ani", len(NUMBERS[model]), **PARAMETERS[model], cos_scale=0.95)
    near = neighbourhood([structure], parameters.radial_cutoff)
    ours = reference.symmetry_functions(
        near.displacements, near.pair_offsets, near.neighbors, near.types, parameters
    )
    theirs = their_features(torchani_aev(model, torch.float64), structure, structure.positions)
    assert worst(ours, theirs) < 1e-12, f"oracle, {model}, {kind}: off by {worst(ours, theirs):.2e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("kind", ["molecule", "crowded", "periodic", "periodic, outside the cell"])
@pytest.mark.parametrize("model", ["1x", "2x"])
def test_descriptor_is_torchani(model: str, kind: str, dtype: torch.dtype) -> None:
    structure = structures(model)[kind]
    descriptor = pymlp.descriptors.ANI.like_torchani(model).to(dtype)  # type: ignore[arg-type]
    numbers = torch.tensor(NUMBERS[model])[structure.types]
    assert torch.equal(descriptor.types(numbers), structure.types), "elements in another order"
    batch = pymlp.Batch.from_arrays(
        numbers, structure.positions, cell=structure.cell, pbc=structure.cell is not None
    ).to(dtype=dtype)
    batch.positions.requires_grad_()
    ours = descriptor(batch)
    positions = structure.positions.to(dtype).requires_grad_()
    theirs = their_features(torchani_aev(model, dtype), structure, positions)
    limit = TOLERANCE[dtype]
    if "outside" in kind and dtype == torch.float32:
        limit = 1e-4  # at 30 Å float32 resolves 2e-6 Å, and TorchANI wraps before it subtracts
    error = worst(ours.detach(), theirs.detach())
    assert error < limit, f"features, {model}, {kind}, {dtype}: {error:.2e} > {limit:.0e}"

    generator = torch.Generator().manual_seed(44)
    probe = torch.randn(theirs.shape, generator=generator, dtype=torch.float64).to(dtype)
    (our_slope,) = torch.autograd.grad(ours, batch.positions, probe)
    (their_slope,) = torch.autograd.grad(theirs, positions, probe)
    error = worst(our_slope, their_slope)
    assert error < limit, f"gradient, {model}, {kind}, {dtype}: {error:.2e} > {limit:.0e}"


def test_published_parameters() -> None:
    """The numbers of SPEC section 1.1 against TorchANI's own, both sets."""
    for model in ("1x", "2x"):
        torchani_aev(model, torch.float64)  # asserts inside
    assert math.isclose(ANI1X["radial"][-1][1], 4.93125), "ANI-1x: last radial shift"
