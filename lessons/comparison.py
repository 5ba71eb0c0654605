# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The same model twice: plain PyTorch, and pymlp
#
# The equations of a potential fit on a page, and so does a program that follows them in plain
# PyTorch. Here is one, as a lesson would write it: Behler-Parrinello symmetry functions over all
# pairs and triples, a network for each element, automatic differentiation for everything else.
# Beside it stands the same model in pymlp. We first make sure that both give the same numbers, and
# only then take the time.
#
# The full run takes about a quarter of a minute.

# %%
import math
import time
from itertools import combinations

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import pymlp
from pymlp.descriptors import BehlerParrinello
from pymlp.lessons import begin

lesson = begin()
threads = torch.get_num_threads()
torch.set_num_threads(1)  # one core for each, so that the times compare

# %% [markdown]
# ## Plain PyTorch
#
# Eqs 1 to 5, with the paper's parameters; like the textbook's, the sums run over all neighbours
# whatever their element:
#
# $$G_i^r = \sum_{j \ne i} e^{-\eta R_{ij}^2} f_c(R_{ij}), \qquad
# f_c(R) = \tfrac{1}{2}\left[\cos(\pi R / R_c) + 1\right] \tag{1, 2}$$
#
# $$G_i^a = 2^{1-\zeta} \sum_{j<k} \left(1 + \cos(\theta_{ijk} - \theta_s)\right)^{\zeta}
# e^{-\eta (R_{ij}^2 + R_{ik}^2 + R_{jk}^2)} f_c(R_{ij}) f_c(R_{ik}) f_c(R_{jk}) \tag{3}$$

# %%
ETA = [0.0, 0.04, 0.14, 0.32, 0.71, 1.79]
ZETA = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
CUTOFF = 6.0


def cutoff(r: Tensor) -> Tensor:
    return torch.where(r < CUTOFF, 0.5 * (torch.cos(math.pi * r / CUTOFF) + 1), torch.zeros_like(r))


def plain_features(positions: Tensor) -> Tensor:
    """Symmetry functions [B, N, 18] of B molecules [B, N, 3]."""
    n = positions.shape[1]
    eta_r = positions.new_tensor(ETA)
    eta_a = positions.new_tensor([eta for eta in ETA for _ in range(2)])
    zeta = positions.new_tensor([zeta for zeta in ZETA for _ in range(2)])
    theta_s = positions.new_tensor([0.0, math.pi] * 6)
    others = torch.tensor([[j for j in range(n) if j != i] for i in range(n)])
    first, second = torch.tensor(list(combinations(range(n - 1), 2))).T

    vectors = positions[:, others] - positions[:, :, None]  # [B, N, N-1, 3]
    r = vectors.norm(dim=-1)
    radial = (torch.exp(-eta_r * r[..., None] ** 2) * cutoff(r)[..., None]).sum(2)

    r_ij, r_ik = r[..., first, None], r[..., second, None]
    r_jk = (vectors[..., first, :] - vectors[..., second, :]).norm(dim=-1, keepdim=True)
    dot = (vectors[..., first, :] * vectors[..., second, :]).sum(-1, keepdim=True)
    theta = torch.acos((dot / (r_ij * r_ik)).clamp(-1 + 1e-7, 1 - 1e-7))
    angular = 2 ** (1 - zeta) * (1 + torch.cos(theta - theta_s)) ** zeta
    angular = angular * torch.exp(-eta_a * (r_ij**2 + r_ik**2 + r_jk**2))
    angular = angular * cutoff(r_ij) * cutoff(r_ik) * cutoff(r_jk)
    return torch.cat([radial, angular.sum(2)], dim=-1)


class PlainPotential(nn.Module):
    """E = Σ_i E_i, one tanh network per element (eqs 12, 13); forces by autograd."""

    def __init__(self, numbers: Tensor, width: int = 50) -> None:
        super().__init__()
        self.elements = sorted(set(numbers.tolist()))
        self.atoms = [(numbers == z).nonzero()[:, 0] for z in self.elements]
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(18, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
                nn.Linear(width, 1),
            )
            for _ in self.elements
        )  # fmt: skip

    def forward(self, positions: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        positions = positions.detach().requires_grad_()
        features = plain_features(positions)
        pairs = zip(self.atoms, self.networks, strict=True)
        energy = sum(net(features[:, atoms]).sum((1, 2)) for atoms, net in pairs)
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=training)
        return energy, -gradient


# %% [markdown]
# ## The same in pymlp

# %%
data = pymlp.read(pymlp.data.claisen_path(), stop=lesson.choose(256, 16))
numbers = data[0].numbers
elements = ["H", "C", "O"]


def new_potential(dtype: torch.dtype) -> pymlp.Potential:
    descriptor = BehlerParrinello.paper(elements, channels="none")
    networks = pymlp.ElementNetworks(
        descriptor.n_features, elements, hidden=(50, 50), seed=1, dtype=dtype
    )
    return pymlp.Potential(descriptor, networks)


def with_the_same_weights(plain: PlainPotential, potential: pymlp.Potential) -> PlainPotential:
    networks = potential.networks[0]
    for kind, sequence in enumerate(plain.networks):
        for layer, weight, bias in zip(
            sequence[::2], networks.weights, networks.biases, strict=True
        ):
            layer.weight.data.copy_(weight[kind])
            layer.bias.data.copy_(bias[kind])
    return plain


# %% [markdown]
# ## The same numbers?
#
# In double precision, for molecules of the Claisen rearrangement: features, energies, forces, and
# what training needs, the derivatives of a loss on the forces by every weight.

# %%
check = data[: lesson.choose(32, 8)]
positions = check.positions.view(len(check), -1, 3)
potential = new_potential(torch.float64)
plain = with_the_same_weights(PlainPotential(numbers).double(), potential)


def largest(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


ours = potential.descriptor(check).view(len(check), -1, 18)
lesson.number("features, largest relative difference", largest(ours, plain_features(positions)))

energy, forces = plain(positions, training=True)
result = potential.compute(check)
lesson.number("energies, largest relative difference", largest(result.energy, energy.detach()))
flat = forces.detach().reshape(-1, 3)
lesson.number("forces, largest relative difference", largest(result.forces, flat))


def gradients_of(loss: Tensor, model: nn.Module) -> list[Tensor]:
    # The last bias shifts the energy and leaves the forces alone: its derivative is 0.
    return list(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))


near = pymlp.neighbor_list(check, potential.cutoff)
_, trained = potential.energy_and_forces(check, near, create_graph=True)
mine = gradients_of(trained.square().mean(), potential)
theirs = gradients_of(forces.square().mean(), plain)
# pymlp keeps one tensor per layer for all elements; torch's Sequential has its own order.
weights = [torch.stack([theirs[6 * kind + 2 * k] for kind in range(3)]) for k in range(3)]
worst = max(largest(a, b) for a, b in zip(mine[:3], weights, strict=True))
lesson.number("weight gradients of a force loss, largest relative difference", worst)
agree = [entry["value"] for name, entry in lesson.numbers.items() if "difference" in name]
if max(agree) > 1e-6:
    raise ArithmeticError("the two programs do not compute the same: times would mean nothing")

# %% [markdown]
# The differences are rounding: the same sums, in another order.
#
# ## The same time?
#
# Single precision, one core, batches of 32 molecules of 14 atoms. The two programs take turns, and
# the best of several rounds counts: what else the machine does then disturbs both alike. It is
# processor time. pymlp's includes its list of neighbours, except in the row where list and features
# are kept from epoch to epoch, as `pymlp train` does (the plain program cannot: its forces need the
# graph of the features).

# %%
batch = 32
potential = new_potential(torch.float32)
plain = with_the_same_weights(PlainPotential(numbers), potential)
single = data.to(dtype=torch.float32)
parts = [single[start : start + batch] for start in range(0, len(single), batch)]
lists = [pymlp.neighbor_list(part, potential.cutoff) for part in parts]
features = [potential.descriptor(part, near) for part, near in zip(parts, lists, strict=True)]
dense = [part.positions.view(len(part), -1, 3) for part in parts]
targets = [
    (part.energies - part.energies.mean(), part.forces.view(len(part), -1, 3)) for part in parts
]


def loss_of(energy: Tensor, forces: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    """Eq 14 with both weights 1."""
    forces = forces.view(target[1].shape)
    return (energy - target[0]).square().mean() + (forces - target[1]).square().mean()


def plain_training() -> None:
    for x, target in zip(dense, targets, strict=True):
        loss_of(*plain(x, training=True), target).backward()


def our_training() -> None:
    for part, target in zip(parts, targets, strict=True):
        near = pymlp.neighbor_list(part, potential.cutoff)
        energy, forces = potential.energy_and_forces(part, near, create_graph=True)
        loss_of(energy, forces, target).backward()


def our_later_epochs() -> None:
    for part, near, known, target in zip(parts, lists, features, targets, strict=True):
        energy, forces = potential.energy_and_forces(part, near, True, features=known)
        loss_of(energy, forces, target).backward()


one = parts[0][:1]
work = {
    "features": (
        lambda: [plain_features(x) for x in dense],
        lambda: [potential.descriptor(part) for part in parts],
    ),
    "energies and forces": (
        lambda: [plain(x) for x in dense],
        lambda: [potential.compute(part) for part in parts],
    ),
    "step of training on forces": (plain_training, our_training),
    "…, features kept": (plain_training, our_later_epochs),
    "one molecule, energy and forces": (
        lambda: [plain(dense[0][:1]) for _ in range(20)],
        lambda: [potential.compute(one) for _ in range(20)],
    ),
}
counts = {name: len(single) for name in work} | {"one molecule, energy and forces": 20}
rounds = lesson.choose(7, 1)
best: dict[str, list[float]] = {name: [math.inf, math.inf] for name in work}
for _ in range(rounds):
    for name, programs in work.items():
        for which, program in enumerate(programs):
            begun = time.process_time()
            program()
            spent = time.process_time() - begun
            best[name][which] = min(best[name][which], spent)

rows = []
for name, (slow, fast) in best.items():
    plain_ms, our_ms = (1000 * seconds / counts[name] for seconds in (slow, fast))
    rows.append(
        {
            "per molecule": name,
            "plain PyTorch (ms)": plain_ms,
            "pymlp (ms)": our_ms,
            "ratio": f"{plain_ms / our_ms:.1f}",
        }
    )
    lesson.number(f"{name}: plain PyTorch / pymlp", plain_ms / our_ms)
lesson.table("time per molecule", rows)
torch.set_num_threads(threads)

# %%
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
place = torch.arange(len(rows))
for shift, column, color in ((-0.2, "plain PyTorch (ms)", "C1"), (0.2, "pymlp (ms)", "C0")):
    values = [float(row[column]) for row in rows]
    bars = axis.barh(place + shift, values, 0.38, color=color, label=column.removesuffix(" (ms)"))
    axis.bar_label(bars, [f" {value:.3g}" for value in values], fontsize="small")
axis.set_yticks(place, [row["per molecule"] for row in rows])
axis.set(xscale="log", xlabel="processor time per molecule (ms), one core")
axis.margins(x=0.15)
axis.invert_yaxis()
axis.legend(frameon=False)
lesson.figure(figure, "times", "Processor time of both programs, for five tasks.")

# %% [markdown]
# ## Where the time went
#
# Nothing in the model has changed. What has:
#
# * Plain PyTorch evaluates every term of eq 3 as it is printed, with `acos`, `cos` and `pow` for
#   every triple and parameter, and writes each intermediate result to memory, and once more for its
#   derivative. The op computes what a pair or a triple shares once, keeps it in registers, needs no
#   `acos`, and writes features only.
# * Its derivatives are written down beside the formulas instead of recorded: forces cost about as
#   much as the features themselves, and nothing is kept between forward and backward.
# * Training on forces needs $\partial \mathbf{F} / \partial w$. pymlp gets forces from
#   $\mathbf{F} = -J^T\, \partial E / \partial G$, where only $\partial E / \partial G$ knows the
#   weights: the geometry is not differentiated a second time.
#
# The benchmarks of the project (see README) compare with other packages,
# TorchANI among them, not only with a page of PyTorch.

# %%
lesson.end()
