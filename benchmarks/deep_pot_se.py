"""DeepPot-SE against DeePMD-kit (networks and tables) and plain PyTorch, one thread, float32.

    python -m benchmarks.deep_pot_se [--only claisen water999 water9999] [--out FILE]

DeePMD-kit is tied to one version of torch and runs in an environment of its own: name its Python in
DEEPMD_PYTHON (tests/data/make_deepmd_reference.py says how to make one); without it, it is left
out. All contestants have the same weights, keep their neighbour lists, and take turns; results are
compared before anything is timed. Times are CPU time, the best of all turns; ratios are medians
over the turns of (contestant / pymlp).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.contestants import batch_of
from benchmarks.workloads import Workload, claisen, water
from pymlp import displacements, neighbor_list
from pymlp.benchmarking import environment
from pymlp.descriptors import DeepPotSE

CUTOFF, SWITCH_START, AXIS = 6.0, 0.5, 16
WORKLOADS: dict[str, Callable[[], Workload]] = {
    "claisen": lambda: claisen(256),
    "water999": lambda: water(999),
    "water9999": lambda: water(9999),
}
#: Networks at every pair; at nodes in s, with interpolation (the default); tables made beforehand.
NODES = ("fwd nodes", "grad nodes", "train nodes")
QUANTITIES = ("fwd", "grad", "train", *NODES, "table fwd", "table grad", "env")
Run = Callable[[], float]


def timed(run: Callable[[], Tensor]) -> Run:
    """Seconds of CPU time of one call."""

    def once() -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    return once


class Ours:
    """The descriptor of this package, its neighbour list kept."""

    def __init__(self, workload: Workload, sel: list[int]) -> None:
        symbols = {1: "H", 6: "C", 8: "O"}
        self.elements = [symbols[z] for z in sorted(set(workload.numbers.tolist()))]
        self.descriptor = DeepPotSE.deepmd_like(
            self.elements, CUTOFF, SWITCH_START, float(sum(sel)), n_axis=AXIS, seed=1
        )
        self.batch = batch_of(workload, torch.float32)
        self.list = neighbor_list(self.batch, CUTOFF)
        self.types = self.descriptor.types(self.batch.numbers)
        d = displacements(
            self.batch.positions, self.list, self.batch.cell, self.batch.structure_index
        )
        self.d = d.detach()
        self.nodes = self.descriptor.interpolation
        self.fast = self.descriptor.tabulated(1e-7, shortest=0.6)
        generator = torch.Generator().manual_seed(1)
        shape = (self.batch.n_atoms, self.descriptor.n_features)
        self.g = torch.randn(shape, generator=generator)
        self.u = torch.randn(self.d.shape, generator=generator)

    def run(self, quantity: str) -> Tensor:
        """Compute one of QUANTITIES: features, pair gradients, or gradients of the weights."""
        if quantity == "env":
            return self.descriptor.environment(self.d)
        made = self.fast if quantity.startswith("table") else self.descriptor
        made.interpolation = self.nodes if quantity in NODES else None
        quantity = quantity.removesuffix(" nodes")
        if quantity == "train":
            rows = made.environment(self.d)
            features, back = made.features_to_train(rows, self.list, self.types)
            pull = made.geometry_vjp(back(self.g), self.d, self.list, self.types)
            total = (pull * self.u).sum() + (features * self.g).sum()
            found = torch.autograd.grad(total, list(made.parameters()), allow_unused=True)
            return torch.cat([f.flatten() for f in found if f is not None])
        with torch.no_grad():
            if quantity.endswith("fwd"):
                return made.features(self.d, self.list, self.types)
            _, pull = made.features_and_pull(self.d, self.list, self.types)
            return pull(self.g[None])[0]


class PlainTorch:
    """The same in PyTorch as one writes it for a lesson: dense over molecules of one kind."""

    def __init__(self, ours: Ours, workload: Workload) -> None:
        self.x = workload.positions.to(torch.float32)
        n = self.x.shape[1]
        self.near = torch.tensor([[j for j in range(n) if j != i] for i in range(n)])
        types = ours.types[:n]
        self.kinds = types[:, None] * len(ours.elements) + types[self.near]
        self.ours, self.g = ours, ours.g
        self.u = torch.randn(self.x.shape, generator=torch.Generator().manual_seed(2))

    def features(self, x: Tensor) -> Tensor:
        d = x[:, self.near] - x[:, :, None]
        r = d.norm(dim=-1)
        t = ((r - SWITCH_START) / (CUTOFF - SWITCH_START)).clamp(0, 1)
        s = (t**3 * (-6 * t**2 + 15 * t - 10) + 1) / r
        rows = torch.cat([s[..., None], (s / r)[..., None] * d], dim=-1)
        embedding = self.ours.descriptor.embedding
        g = x.new_zeros(*s.shape, embedding.n_functions)
        for kind in self.kinds.unique().tolist():
            own = self.kinds == kind
            y = s[:, own][..., None]
            for weight, bias in zip(embedding.weights, embedding.biases, strict=True):
                z = torch.tanh(y @ weight[kind] + bias[kind])
                width = y.shape[-1]
                y = z + torch.cat([y, y], -1) if z.shape[-1] == 2 * width else z
            g[:, own] = y
        moments = torch.einsum("bijm,bijk->bimk", g, rows) / self.ours.descriptor.normalize  # type: ignore[operator]
        return (moments @ moments[:, :, :AXIS].transpose(2, 3)).flatten(0, 1).flatten(1)

    def run(self, quantity: str) -> Tensor:
        if quantity == "fwd":
            with torch.no_grad():
                return self.features(self.x)
        x = self.x.clone().requires_grad_()
        features = self.features(x)
        if quantity == "grad":
            return torch.autograd.grad(features, x, self.g)[0]
        (slope,) = torch.autograd.grad(features, x, self.g, create_graph=True)
        total = (slope * self.u).sum() + (features * self.g).sum()
        weights = list(self.ours.descriptor.embedding.parameters())
        found = torch.autograd.grad(total, weights, allow_unused=True)
        return torch.cat([f.flatten() for f in found if f is not None])


class DeepMD:
    """DeePMD-kit in another process."""

    def __init__(self, python: str, ours: Ours, workload: Workload, sel: list[int]) -> None:
        worker = Path(__file__).with_name("deepmd_worker.py")
        self.process = subprocess.Popen(
            [python, str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.folder = tempfile.TemporaryDirectory()
        made = ours.descriptor
        arrays: dict[str, Any] = {
            "positions": workload.positions.numpy(),
            "types": ours.types[: workload.numbers.numel()].numpy(),
            "cutoff": CUTOFF,
            "switch_start": SWITCH_START,
            "sel": sel,
            "neuron": made.embedding.widths,
            "axis": AXIS,
            "shortest": 0.6,
        }
        if workload.cell is not None:
            arrays["cell"] = workload.cell.numpy()
        for layer, (weight, bias) in enumerate(
            zip(made.embedding.weights, made.embedding.biases, strict=True)
        ):
            for kind in range(made.embedding.n_kinds):
                arrays[f"w{layer}.{kind}"] = weight[kind].detach().numpy()
                arrays[f"b{layer}.{kind}"] = bias[kind].detach().numpy()
        path = Path(self.folder.name) / "setup.npz"
        np.savez(path, **arrays)
        self.ask({"setup": str(path)})

    def ask(self, request: dict[str, str]) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                "DeePMD-kit's process ended: run benchmarks/deepmd_worker.py by hand"
            )
        answer: dict[str, float] = json.loads(line)
        return answer

    def run(self, quantity: str) -> Tensor:
        path = Path(self.folder.name) / "result.npy"
        self.ask({"save": quantity, "to": str(path)})
        return torch.from_numpy(np.load(path))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def check(ours: Ours, quantity: str, result: Tensor) -> float:
    """Largest relative deviation of features from ours."""
    expected = ours.run(quantity)
    found = result.reshape(expected.shape).to(expected.dtype)
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error < 1e-3, f"{quantity}: features differ by {error:.1e}"
    return error


def compare(name: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of one workload."""
    workload = WORKLOADS[name]()
    # DeePMD drops neighbours beyond sel: room for the largest neighbourhood of each type.
    sel = [8, 5, 1] if name == "claisen" else [100, 52]
    ours = Ours(workload, sel)
    contestants: dict[str, dict[str, Run]] = {
        "pymlp": {q: timed(lambda q=q: ours.run(q)) for q in QUANTITIES}  # type: ignore[misc]
    }
    if name == "claisen":
        plain = PlainTorch(ours, workload)
        check(ours, "fwd", plain.run("fwd"))
        contestants["PyTorch"] = {
            q: timed(lambda q=q: plain.run(q.removesuffix(" nodes")))  # type: ignore[misc]
            for q in QUANTITIES[:6]
        }
    python, deepmd = os.environ.get("DEEPMD_PYTHON"), None
    try:
        deepmd = DeepMD(python, ours, workload, sel) if python else None
    except RuntimeError as error:
        # its list of 9 999 atoms asks for 65 GB at once
        print(f"{name:10} DeePMD-kit is left out: {error}")
    if deepmd is not None:
        for quantity in ("fwd", "table fwd"):
            check(ours, quantity, deepmd.run(quantity))
        contestants["DeePMD-kit"] = {
            q: (lambda q=q, peer=deepmd: peer.ask({"run": q.removesuffix(" nodes")})["seconds"])  # type: ignore[misc]
            for q in QUANTITIES
        }
    rows = []
    for quantity in QUANTITIES:
        runs = {who: own[quantity] for who, own in contestants.items() if quantity in own}
        for run in runs.values():
            run()
        samples: dict[str, list[float]] = {who: [] for who in runs}
        for turn in range(rounds):
            order = list(runs) if turn % 2 else list(runs)[::-1]
            for who in order:
                samples[who].append(runs[who]())
        for who, own in samples.items():
            ratio = statistics.median(a / b for a, b in zip(own, samples["pymlp"], strict=True))
            row = {
                "workload": name,
                "quantity": quantity,
                "contestant": who,
                "best_ms": 1e3 * min(own),
                "us_per_atom": 1e6 * min(own) / workload.n_atoms,
                "ratio": ratio,
                "rounds": rounds,
            }
            rows.append(row)
            print(
                f"{name:10} {quantity:11} {who:11} {row['best_ms']:10.2f} ms "
                f"{row['us_per_atom']:8.2f} µs/atom  {ratio:6.2f}x",
                flush=True,
            )
    if deepmd is not None:
        deepmd.close()
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not os.environ.get("DEEPMD_PYTHON"):
        print("DEEPMD_PYTHON is not set: DeePMD-kit is left out")
    rows: list[dict[str, Any]] = []
    for name in options.only:
        rows += compare(name, options.rounds)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"environment": environment(), "rows": rows}, indent=1)
            options.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
