"""A training step on energies and forces: this package beside the lesson's plain PyTorch.

Both train the same per-element networks on the paper's Behler-Parrinello features (summed over
elements, as the lessons do) with Adam and batches of 32 Claisen structures. The plain step computes
features and their double backward anew each time, as a lesson does; ours gathers what does not
depend on the weights. Loss and gradient of the first step are compared before anything is timed.
``python -m benchmarks.training --out benchmarks/results/NAME.json``
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks import contestants as who
from benchmarks.plain_torch import PlainSymmetryFunctions
from benchmarks.workloads import Workload, claisen
from pymlp import Batch, ElementNetworks
from pymlp.benchmarking import Contestant, Measurement, measure, print_table, save
from pymlp.training.dataset import CachedStructures
from pymlp.training.module import energies_and_forces

BATCH, HIDDEN = 32, (50, 50)
ELEMENTS = ("H", "C", "O")
NUMBERS = (1, 6, 8)
#: gradient of the loss: each batch of indices gives the loss and fills the parameters' .grad
Step = Callable[[Tensor], Tensor]


def labels(work: Workload, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Energies [B] and forces [B, N, 3] of no meaning, the same for both."""
    energies = who.direction((work.n_structures,), 3, torch.float64)
    return energies, who.direction(tuple(work.positions.shape), 4, dtype)


def loss_of(energies: Tensor, forces: Tensor, e: Tensor, f: Tensor) -> Tensor:
    return (energies - e).square().mean() + (forces - f).square().mean()


def ours(work: Workload, dtype: torch.dtype) -> tuple[ElementNetworks, Step]:
    energies, forces = labels(work, dtype)
    batch = Batch.from_arrays(
        work.numbers, work.positions, energies=energies, forces=forces.double()
    )
    descriptor = who.bp_descriptor("none")
    data = CachedStructures(batch, descriptor, dtype=dtype)
    network = ElementNetworks(descriptor.n_features, ELEMENTS, HIDDEN, seed=0, dtype=dtype)

    def step(index: Tensor) -> Tensor:
        chosen = data[index]
        e, f = energies_and_forces(network, descriptor, chosen, forces=True, create_graph=True)
        assert f is not None
        assert chosen.forces is not None
        loss = loss_of(e, f, chosen.energies, chosen.forces)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return network, step


def plain(work: Workload, dtype: torch.dtype) -> tuple[nn.ModuleList, Step]:
    energies, forces = labels(work, dtype)
    features = PlainSymmetryFunctions(
        who.plain_parameters("behler_parrinello", dtype), None, len(ELEMENTS)
    )
    positions = who.own_positions(work, dtype)
    n_atoms = work.numbers.numel()
    with torch.no_grad():
        widths = (features(positions[:1]).shape[1], *HIDDEN)
    networks = nn.ModuleList(
        nn.Sequential(
            *(
                layer
                for n_in, n_out in zip(widths, HIDDEN, strict=False)
                for layer in (nn.Linear(n_in, n_out), nn.Tanh())
            ),
            nn.Linear(HIDDEN[-1], 1),
        ).to(dtype)
        for _ in ELEMENTS
    )
    atoms = [(work.numbers == number).nonzero()[:, 0] for number in NUMBERS]

    def step(index: Tensor) -> Tensor:
        r = positions[index].requires_grad_()
        g = features(r).reshape(len(index), n_atoms, -1)
        parts = [net(g[:, own]).sum((1, 2)) for net, own in zip(networks, atoms, strict=True)]
        e = torch.stack(parts).sum(0)
        f = -torch.autograd.grad(e.sum(), r, create_graph=True)[0]
        loss = loss_of(e, f, energies[index], forces[index])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return networks, step


def same_weights(network: ElementNetworks, networks: nn.ModuleList) -> list[tuple[Tensor, Tensor]]:
    """Copy ours into the plain networks; return pairs of what their gradients must be equal in."""
    pairs = []
    for t, net in enumerate(networks):
        linear = [layer for layer in net if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
        for k, layer in enumerate(linear):
            with torch.no_grad():
                layer.weight.copy_(network.weights[k][t])
                layer.bias.copy_(network.biases[k][t])
            pairs += [(network.weights[k], layer.weight), (network.biases[k], layer.bias)]
    return pairs


def check(work: Workload, dtype: torch.dtype) -> float:
    """Compare loss and gradients of the first batch; return the largest relative error."""
    (network, step), (networks, plain_step) = ours(work, dtype), plain(work, dtype)
    pairs = same_weights(network, networks)
    index = torch.arange(BATCH)
    a, b = step(index), plain_step(index)
    errors = [float(abs(a - b) / abs(b))]
    per_element = len(pairs) // len(ELEMENTS)
    for k, (mine, theirs) in enumerate(pairs):
        assert mine.grad is not None
        assert theirs.grad is not None
        own = mine.grad[k // per_element]
        errors.append(float((own - theirs.grad).abs().max() / theirs.grad.abs().max()))
    limit = 1e-3 if dtype == torch.float32 else 1e-6
    assert max(errors) < limit, f"loss or gradient differ by {max(errors)}"
    return max(errors)


def timed(model: nn.Module, step: Step, n_structures: int) -> Callable[[], None]:
    """An optimiser step with the next batch of a shuffled epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    order = torch.randperm(n_structures, generator=torch.Generator().manual_seed(0))
    batches = list(order.split(BATCH)[:-1])
    count = [0]

    def run() -> None:
        optimizer.zero_grad()
        step(batches[count[0] % len(batches)])
        optimizer.step()
        count[0] += 1

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.add_argument("--out")
    parser.add_argument("--structures", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=60.0)
    options = parser.parse_args(arguments)
    work = claisen(options.structures)
    rows: list[Measurement] = []
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        torch.set_num_threads(1)
        error = check(work, dtype)
        begin = time.process_time()
        network, step = ours(work, dtype)
        once = time.process_time() - begin
        networks, plain_step = plain(work, dtype)
        own = timed(network, step, work.n_structures)
        other = timed(networks, plain_step, work.n_structures)
        rows += measure(
            f"BP training step, {BATCH} of {work.name}",
            [
                Contestant("pymlp", {"step": own}),
                Contestant("PyTorch, as in the lessons", {"step": other}),
            ],
            BATCH,
            dtype=name,
            check=lambda quantity, contestant, result, error=error: error,  # type: ignore[misc]
            rounds=options.rounds,
            budget_s=options.budget,
        )
        steps = -(-work.n_structures // BATCH)
        ratio = rows[-1].ratio_cpu
        print(
            f"{name}: epoch of {steps} steps {rows[-2].cpu_s * steps:.2f} s against "
            f"{rows[-1].cpu_s * steps:.2f} s, {ratio:.1f} times as fast; once before: {once:.2f} s"
        )
    print_table(rows)
    if options.out:
        save(options.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
