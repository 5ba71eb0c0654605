"""Write deepmd_se_e2_a.npz: DeePMD-kit's se_e2_a descriptor and its derivatives, to compare with.

DeePMD-kit is tied to one version of torch, so it runs in an environment of its own, never in the
project's:

    python -m venv ENV && ENV/bin/pip install deepmd-kit==3.2.0 torch==2.11.0 mpich e3nn
    ENV/bin/python tests/data/make_deepmd_reference.py

Weights, structures and results are in float64; tests/test_deepmd.py reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepmd.pt.model.descriptor.se_a import DescrptSeA
from deepmd.pt.utils.nlist import extend_input_and_build_neighbor_list

OUTPUT = Path(__file__).with_name("deepmd_se_e2_a.npz")
CUTOFF, SWITCH_START = 4.5, 0.8
#: room for neighbours of each type; the sum is what DeePMD divides by
SEL = [14, 14, 14]
NEURON, AXIS = [6, 12, 24], 5


def structures() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Positions [N, 3] (Å), types [N] and cell of a molecule and of a periodic box."""
    rng = np.random.default_rng(7)

    def spread(n: int, edge: float, periodic: bool) -> np.ndarray:
        found: list[np.ndarray] = []
        while len(found) < n:
            trial = rng.uniform(0, edge, 3)
            away = np.array([trial - other for other in found]).reshape(-1, 3)
            if periodic:
                away -= edge * np.round(away / edge)
            if (np.linalg.norm(away, axis=1) > 0.9).all():
                found.append(trial)
        return np.array(found)

    cell = np.eye(3) * 5.0
    return {
        "molecule": (spread(9, 4.0, False), np.arange(9) % 3, None),
        "box": (spread(8, 5.0, True), np.arange(8) % 3, cell),
    }


def main() -> None:
    """Compute and write everything."""
    arrays: dict[str, Any] = {
        "cutoff": CUTOFF,
        "switch_start": SWITCH_START,
        "n_neighbors": float(sum(SEL)),
        "neuron": NEURON,
        "axis": AXIS,
    }
    for one_side in (False, True):
        descriptor = DescrptSeA(
            CUTOFF, SWITCH_START, SEL, NEURON, AXIS, type_one_side=one_side, seed=3, ntypes=3
        )
        name = "neighbor_only" if one_side else "type_pair"
        networks = descriptor.serialize()["embeddings"]["networks"]
        for index, network in enumerate(networks):
            # without one_side the neighbour's type is the slow index
            kind = index if one_side else (index % 3) * 3 + index // 3
            for layer, values in enumerate(network["layers"]):
                for part in ("w", "b"):
                    arrays[f"{name}.{part}{layer}.{kind}"] = values["@variables"][part]
        for label, (positions, types, cell) in structures().items():
            x = torch.tensor(positions).reshape(1, -1).requires_grad_()
            box = None if cell is None else torch.tensor(cell).reshape(1, 9)
            t = torch.tensor(types)[None]
            extended, extended_types, mapping, nlist = extend_input_and_build_neighbor_list(
                x, t, CUTOFF, SEL, mixed_types=False, box=box
            )
            features = descriptor(extended, extended_types, nlist, mapping)[0][0]
            rng = np.random.default_rng(8)
            cotangent = rng.standard_normal(features.shape)
            (gradient,) = torch.autograd.grad((features * torch.tensor(cotangent)).sum(), x)
            arrays |= {
                f"{label}.positions": positions,
                f"{label}.types": types,
                f"{name}.{label}.features": features.detach().numpy(),
                f"{name}.{label}.cotangent": cotangent,
                f"{name}.{label}.gradient": gradient.reshape(-1, 3).numpy(),
            }
            if cell is not None:
                arrays[f"{label}.cell"] = cell
    np.savez_compressed(OUTPUT, **arrays)
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
