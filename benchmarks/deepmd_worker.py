"""Times DeePMD-kit in a Python environment of its own; benchmarks/deep_pot_se.py talks to it.

One JSON request a line on stdin, one JSON answer a line on stdout. ``{"setup": file}`` reads the
structures, types and weights that the caller wrote; ``{"run": quantity}`` runs it once and answers
with CPU seconds; ``{"save": quantity, "to": file}`` writes what it computes.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from deepmd.pt.model.descriptor.env_mat import prod_env_mat
from deepmd.pt.model.descriptor.se_a import DescrptSeA
from deepmd.pt.utils.nlist import extend_input_and_build_neighbor_list


class Contestant:
    """The descriptor on one set of structures, its neighbour list kept."""

    def __init__(self, path: str) -> None:
        data = np.load(path)
        self.plain = self._descriptor(data)
        self.fast = self._descriptor(data)
        for parameter in self.fast.parameters():
            parameter.requires_grad_(False)
        self.fast.enable_compression(float(data["shortest"]), 5, 0.01, 0.1, -1)
        cell = dict(data).get("cell")
        n = data["positions"].shape[0]
        box = None if cell is None else torch.tensor(cell).reshape(1, 9).expand(n, -1)
        self.types = torch.tensor(data["types"])[None].expand(n, -1).contiguous()
        positions = torch.tensor(data["positions"]).reshape(n, -1)
        self.x, self.all_types, self.mapping, self.nlist = extend_input_and_build_neighbor_list(
            positions, self.types, float(data["cutoff"]), data["sel"].tolist(), box=box
        )
        self.x = self.x.to(torch.float32).detach()
        features = self.plain(self.x, self.all_types, self.nlist, self.mapping)[0]
        generator = torch.Generator().manual_seed(1)
        self.g = torch.randn(features.shape, generator=generator, dtype=features.dtype)
        self.u = torch.randn(self.x.shape, generator=generator, dtype=self.x.dtype)

    def _descriptor(self, data: Any) -> DescrptSeA:
        made = DescrptSeA(
            float(data["cutoff"]),
            float(data["switch_start"]),
            data["sel"].tolist(),
            data["neuron"].tolist(),
            int(data["axis"]),
            precision="float32",
            type_one_side=False,
            seed=1,
            ntypes=len(data["sel"]),
        )
        n = len(data["sel"])
        for index, network in enumerate(made.sea.filter_layers.networks):
            kind = (index % n) * n + index // n
            for layer, own in enumerate(network.layers):
                own.matrix.data.copy_(torch.tensor(data[f"w{layer}.{kind}"]))
                own.bias.data.copy_(torch.tensor(data[f"b{layer}.{kind}"]))
        return made

    def run(self, quantity: str) -> torch.Tensor:
        """Compute ``fwd``, ``grad``, ``train``, ``table fwd``, ``table grad`` or ``env``."""
        if quantity == "env":
            sea = self.plain.sea
            return prod_env_mat(
                self.x, self.nlist, self.types, sea.mean, sea.stddev, sea.rcut, sea.rcut_smth
            )[0]
        descriptor = self.fast if quantity.startswith("table") else self.plain
        if quantity.endswith("fwd"):
            with torch.no_grad():
                return descriptor(self.x, self.all_types, self.nlist, self.mapping)[0]
        x = self.x.requires_grad_()
        features = descriptor(x, self.all_types, self.nlist, self.mapping)[0]
        if quantity.endswith("grad"):
            return torch.autograd.grad(features, x, self.g)[0]
        (slope,) = torch.autograd.grad(features, x, self.g, create_graph=True)
        weights = list(descriptor.parameters())
        total = (slope * self.u).sum() + (features * self.g).sum()
        found = torch.autograd.grad(total, weights, allow_unused=True)
        return torch.cat([f.flatten() for f in found if f is not None])


def main() -> None:
    """Answer requests until stdin ends."""
    torch.set_num_threads(1)
    made: Contestant | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "setup" in request:
            made = Contestant(request["setup"])
        elif made is not None and "run" in request:
            start = time.process_time()
            made.run(request["run"])
            answer["seconds"] = time.process_time() - start
        elif made is not None:
            np.save(request["to"], made.run(request["save"]).detach().numpy())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
