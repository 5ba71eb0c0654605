"""Agreement with DeePMD-kit's se_e2_a for the same weights: features and their derivatives.

The numbers come from tests/data/make_deepmd_reference.py (DeePMD-kit 3.2, float64).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from pymlp import Batch
from pymlp.descriptors import DeepPotSE

REFERENCE = Path(__file__).parent / "data" / "deepmd_se_e2_a.npz"
ELEMENTS, NUMBERS = ("H", "C", "O"), np.array([1, 6, 8])
#: relative to the largest value: features, gradients
LIMITS = {torch.float32: (5e-6, 2e-5), torch.float64: (1e-12, 1e-11)}


def descriptor(data: Any, sharing: Literal["type_pair", "neighbor_only"]) -> DeepPotSE:
    made = DeepPotSE.deepmd_like(
        ELEMENTS,
        cutoff=float(data["cutoff"]),
        switch_start=float(data["switch_start"]),
        n_neighbors=float(data["n_neighbors"]),
        embedding=data["neuron"].tolist(),
        n_axis=int(data["axis"]),
        sharing=sharing,
        dtype=torch.float64,
    )
    networks = made.embedding
    with torch.no_grad():
        for layer, (weight, bias) in enumerate(zip(networks.weights, networks.biases, strict=True)):
            for kind in range(networks.n_kinds):
                weight[kind] = torch.from_numpy(data[f"{sharing}.w{layer}.{kind}"])
                bias[kind] = torch.from_numpy(data[f"{sharing}.b{layer}.{kind}"].reshape(-1))
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("label", ["molecule", "box"])
@pytest.mark.parametrize("sharing", ["type_pair", "neighbor_only"])
@pytest.mark.parametrize("table", [False, True], ids=["networks", "table"])
def test_same_numbers_as_deepmd(
    sharing: Literal["type_pair", "neighbor_only"], label: str, dtype: torch.dtype, table: bool
) -> None:
    data = np.load(REFERENCE)
    made = descriptor(data, sharing)
    if table:
        made = made.tabulated(1e-13, shortest=0.8)
    positions = torch.from_numpy(data[f"{label}.positions"]).to(dtype).requires_grad_()
    numbers = NUMBERS[data[f"{label}.types"]]
    if label == "box":
        cell = torch.from_numpy(data["box.cell"]).to(dtype)
        batch = Batch.from_arrays(numbers, positions, cell=cell, pbc=True)
    else:
        batch = Batch.from_arrays(numbers, positions)
    features = made(batch)
    assert features.dtype == dtype
    expected = torch.from_numpy(data[f"{sharing}.{label}.features"])
    error = (features.detach().double() - expected).abs().max() / expected.abs().max()
    assert float(error) < LIMITS[dtype][0]
    g = torch.from_numpy(data[f"{sharing}.{label}.cotangent"]).to(dtype)
    (gradient,) = torch.autograd.grad(features, positions, g)
    expected = torch.from_numpy(data[f"{sharing}.{label}.gradient"])
    error = (gradient.double() - expected).abs().max() / expected.abs().max()
    assert float(error) < LIMITS[dtype][1]
