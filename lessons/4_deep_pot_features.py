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
# # Lesson 4: DeepPot-SE learns its own features of butane
#
# The symmetry functions of lesson 3 were chosen by hand: which $\eta$, which $R_s$, which angles.
# DeepPot-SE ("smooth edition") leaves that to training. It starts from a matrix that holds
# *everything* about an atom's neighbours, and lets small networks, trained together with the energy
# model behind them, decide what to read from it. Only the invariance is built in.
#
# You will see the four steps from positions to features, on the butane structures of lesson 3, and
# what training changes. The lesson takes about half a minute.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import pymlp
from pymlp.config import configure
from pymlp.descriptors import ANI, BehlerParrinello, DeepPotSE
from pymlp.lessons import begin
from pymlp.molecule_view import molecule_html

lesson = begin()

path = pymlp.data.butane_path()
butane = pymlp.read(path)
torsion = np.load(path)["torsion"]
trans, gauche, cis = (int(np.flatnonzero(torsion == angle)[0]) for angle in (180, 65, 0))
frames = butane.positions.view(len(butane), -1, 3)
lesson.view(
    molecule_html(
        butane[0].numbers, frames[::3], labels=[f"torsion {angle}°" for angle in torsion[::3]]
    ),
    "butane",
)

# %% [markdown]
# ## Step 1: the environment matrix
#
# All neighbours $j$ of atom $i$ are seen from $i$:
#
# $$ \mathbf R_{ji} = \mathbf R_j - \mathbf R_i = (x_{ji}, y_{ji}, z_{ji}), \qquad
#    R_{ji} = |\mathbf R_{ji}| \tag{7} $$
#
# Each neighbour becomes one row of four numbers, a weight $s$ that falls with the distance, and the
# direction times that weight:
#
# $$ \tilde{\mathcal R}^i_j = \left( s(R_{ji}),\; \frac{s(R_{ji})\, x_{ji}}{R_{ji}},\;
#    \frac{s(R_{ji})\, y_{ji}}{R_{ji}},\; \frac{s(R_{ji})\, z_{ji}}{R_{ji}} \right) \tag{8} $$
#
# The weight is $1/R$, switched off between $R_{cs}$ and the cutoff $R_c$:
#
# $$ s(R) = \begin{cases} 1/R & R < R_{cs} \\
#    \frac1R \left\{ \tfrac12 \cos\left[\pi \frac{R - R_{cs}}{R_c - R_{cs}}\right] + \tfrac12
#    \right\} & R_{cs} \le R < R_c \\ 0 & R \ge R_c \end{cases} \tag{9} $$
#
# For a single small molecule the cutoff can be left out: `switch="none"` is $s = 1/R$ for every
# atom, and what the lessons use. `"quintic"` is a polynomial with continuous second derivative (the
# one of the DeePMD-kit).

# %%
r = torch.linspace(0.8, 7.0, 400, dtype=torch.float64)
along_x = torch.stack([r, 0 * r, 0 * r], dim=1)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for switch, label in (("none", "1/R"), ("cosine", "eq 9, cosine"), ("quintic", "quintic")):
    limits = {} if switch == "none" else {"switch_start": 2.0, "cutoff": 6.0}
    s = DeepPotSE(["H", "C"], switch=switch, **limits).environment(along_x)[:, 0]
    axes[0].plot(r, s, label=label)
    axes[1].plot(r, torch.gradient(s, spacing=(r,))[0], label=label)
axes[0].set(xlabel="R (Å)", ylabel="s(R) (1/Å)")
axes[1].set(xlabel="R (Å)", ylabel="ds/dR (1/Å²)")
for axis in axes:
    for place in (2.0, 6.0):
        axis.axvline(place, color="grey", lw=0.8, ls=":")
axes[0].legend(frameon=False)
lesson.figure(figure, "switch", "The weight s(R) with R_cs = 2 Å and R_c = 6 Å, and its slope.")

# %% [markdown]
# The environment matrix of C1, the carbon atom at the end of the chain: 13 neighbours, 13 rows.
# `descriptor.environment` takes the vectors of eq 7, which `pymlp.displacements` makes for all
# pairs of a neighbour list.

# %%
descriptor = DeepPotSE.paper(["H", "C"], seed=4, dtype=torch.float64)


def environment_of(batch, atom):
    """R̃ [neighbours, 4] of one atom of the first structure, and the neighbours."""
    pairs = pymlp.neighbor_list(batch, descriptor.cutoff)
    rows = pairs.centers == atom
    d = pymlp.displacements(batch.positions, pairs)
    return descriptor.environment(d[rows]), pairs.neighbors[rows]


one = butane[gauche : gauche + 1]
matrix, neighbors = environment_of(one, 0)
symbols = [{1: "H", 6: "C"}[int(n)] for n in one.numbers]
lesson.table(
    "environment",
    [
        {"neighbour": f"{symbols[n]}{n + 1}"}
        | {
            name: f"{float(x):.4f}"
            for name, x in zip(("s", "s x/R", "s y/R", "s z/R"), row, strict=True)
        }
        for n, row in list(zip(neighbors.tolist(), matrix, strict=True))[:5]
    ],
)

# %% [markdown]
# ## Step 2: rotations and the order of atoms
#
# These rows are no features yet: rotate the molecule and three of their columns change; list the
# atoms in another order and the rows come in another order. But
#
# * $\tilde{\mathcal R} \tilde{\mathcal R}^{\mathsf T}$, the matrix of scalar products between rows,
#   does not change under rotation: a rotation $O$ acts on the last three columns, and
#   $O O^{\mathsf T} = 1$;
# * a sum over rows does not change under permutation of the neighbours.

# %%
generator = np.random.default_rng(4)
rotation, upper = np.linalg.qr(generator.normal(size=(3, 3)))
rotation = torch.as_tensor(rotation * np.sign(np.diag(upper)))
rotation[:, 0] *= torch.linalg.det(rotation).sign()
rotated = one.with_positions(one.positions @ rotation.T)
turned, _ = environment_of(rotated, 0)
products, turned_products = matrix @ matrix.T, turned @ turned.T
lesson.number("largest change of R̃ on rotation", (turned - matrix).abs().max(), "1/Å")
lesson.number(
    "largest change of R̃ R̃ᵀ on rotation", (turned_products - products).abs().max(), "1/Å²"
)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", width_ratios=(1, 1, 2.2))
names = [f"{symbols[n]}{n + 1}" for n in neighbors.tolist()]
limit = float(matrix.abs().max())
for axis, values, title in zip(
    axes, (matrix, turned, products), ("R̃ of C1", "R̃, rotated", "R̃ R̃ᵀ, both"), strict=True
):
    image = axis.imshow(values.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axis.set(title=title, yticks=range(13), yticklabels=names)
for axis in axes[:2]:
    axis.set_xticks(range(4), ["s", "x", "y", "z"])
axes[2].set_xticks(range(13), names, rotation=90)
figure.colorbar(image, ax=axes, label="1/Å or 1/Å²")
lesson.figure(figure, "environment-matrix", "Environment matrix of C1, before and after rotation.")

# %% [markdown]
# ## Step 3: the embedding
#
# $\tilde{\mathcal R} \tilde{\mathcal R}^{\mathsf T}$ still depends on the order and the number of
# the neighbours. So the rows are summed up, with weights: a small network, one for each pair of
# elements (centre, neighbour), turns the number $s(R_{ji})$ into $m_1$ numbers,
#
# $$ \mathcal G^i_j = \mathcal N^{\,e_i, e_j}\left(s(R_{ji})\right) \in \mathbb R^{m_1}
#    \tag{10} $$
#
# with layers of 25, 50 and 100 neurons in the paper. Where a layer doubles the width, its input
# (twice, side by side) is added to the output, which makes deep networks easier to train.
#
# An embedding function of the distance is what a radial symmetry function was in lesson 3, except
# that training bends it. Here are some of a new network, with random weights, for a hydrogen
# neighbour of a carbon atom.

# %%
pairs = pymlp.neighbor_list(butane, descriptor.cutoff)
d = pymlp.displacements(butane.positions, pairs)
types = descriptor.types(butane.numbers)
descriptor.fit(d, pairs, types)  # the range of s in these data: the networks' input is scaled by it
lesson.number("embedding functions m1", descriptor.embedding.n_functions)
lesson.number("weights to train", sum(w.numel() for w in descriptor.parameters()))


def draw_embedding(axis, some_descriptor, title):
    """Twelve embedding functions of a hydrogen neighbour of carbon."""
    r = torch.linspace(1.0, 5.0, 200, dtype=torch.float64)
    kind = 0 + len(some_descriptor.elements) * 1  # neighbour H, centre C
    values = some_descriptor.embedding.values(1 / r)[kind].detach()
    spread = values.std(dim=0)
    for k in spread.argsort(descending=True)[:12].sort().values.tolist():
        axis.plot(r, values[:, k], lw=1.2)
    axis.set(xlabel="R (Å)", ylabel=r"$\mathcal{G}$ (eq 10)", title=title)


figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
draw_embedding(axis, descriptor, "C with neighbour H, untrained")
lesson.figure(figure, "embedding", "Embedding functions of a new network.")

# %% [markdown]
# ## Step 4: the features
#
# The embedding weights the rows, and the scalar products take out the orientation:
#
# $$ \mathcal D^i = (\mathcal G_1^i)^{\mathsf T}\, \tilde{\mathcal R}^i\,
#    (\tilde{\mathcal R}^i)^{\mathsf T}\, \mathcal G_2^i \tag{11} $$
#
# $\mathcal G_1$ is all of $\mathcal G$ and $\mathcal G_2$ its first $m_2 = 4$ columns, so that
# $\mathcal D$ has $100 \times 4$ numbers. Both factors are sums over neighbours
# ($\mathcal G^{\mathsf T} \tilde{\mathcal R}$ is a $100 \times 4$ matrix): whatever their order
# and number, the size of $\mathcal D$ is the same. And angles are in it, without any loop over
# pairs of neighbours: multiplied out, eq 11 is a sum over $j$ and $k$ of terms with
# $1 + \cos\theta_{ijk}$.
#
# By hand, for C1:

# %%
s = matrix[:, 0]
kinds = descriptor.types(one.numbers[neighbors]) + 2 * descriptor.types(one.numbers[:1])
every = descriptor.embedding.values(s)  # eq 10: [kinds, neighbours, m1]
g = every[kinds, torch.arange(len(s))]  # of each neighbour the network of its kind
by_hand = (g.T @ matrix) @ (matrix.T @ g[:, :4])  # eq 11
by_pymlp = descriptor(one).detach()[0].view(100, 4)
lesson.number("features per atom", descriptor.n_features)
lesson.number("largest difference by hand - pymlp", (by_hand - by_pymlp).abs().max())
print(descriptor.feature_labels()[:5], "...")

# %% [markdown]
# And the invariances, as in lesson 3. Elements need no channels here: each pair of elements has an
# embedding network of its own.

# %%
order = torch.as_tensor(np.r_[generator.permutation(4), 4 + generator.permutation(10)])
mirror = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
features = descriptor(one).detach()
moved = one.positions.clone()
moved[0, 0] += 0.01
shift = torch.tensor([11.1, -4.3, 0.7], dtype=torch.float64)
rows = []
for what, numbers, positions, expected in (
    ("rotated", one.numbers, rotated.positions, features),
    ("rotated and translated", one.numbers, rotated.positions + shift, features),
    ("reflected", one.numbers, one.positions * mirror, features),
    ("other order", one.numbers[order], one.positions[order], features[order]),
    ("one atom moved by 0.01 Å", one.numbers, moved, features),
):
    change = descriptor(pymlp.Batch.from_arrays(numbers, positions)).detach() - expected
    largest = float(change.abs().max() / features.abs().max())
    rows.append({"change of the molecule": what, "largest |ΔD| / largest |D|": f"{largest:.1e}"})
lesson.table("invariance", rows)
net = descriptor.jacobian(one).sum(dim=3)
lesson.number("largest net derivative (translation)", net.abs().max() / features.abs().max(), "1/Å")

# %% [markdown]
# ## What training does
#
# The features of a new network mean nothing in particular. To see them become something, here is
# a small potential for butane: DeepPot-SE features, and per element a network that turns them into
# atomic energies (lesson 5 explains that part). Every second torsion trains, the others validate.
# `configure` writes the configuration that `pymlp init` would write; `pymlp.train` does what
# `pymlp train` does.

# %%
pymlp.write(lesson.file("train.npz"), butane[1::2])
pymlp.write(lesson.file("validation.npz"), butane[::2])
config = configure(
    "deeppot-fnn",
    lesson.file("train.npz"),
    lesson.file("validation.npz"),
    descriptor={"embedding": [12, 24, 48], "n_axis": 4},
    network={"hidden": [48, 48], "activation": "tanh"},
    training={
        "weight_decay": 0.0,
        "epochs": lesson.choose(300, 4),
        "batch_size": 12,
        "loss": {"force_start": 1.0, "force_end": 0.1},
        "ema": 0.99,
        "threads": 1,
    },
)
with lesson.timed("training"):
    result = pymlp.train(config, lesson.file("model"), overwrite=True)
potential = pymlp.load(result.directory)
trained = potential.descriptor
lesson.number("energy RMSE, validation", result.metrics["energy_rmse_kcal_mol"], "kcal/mol")
lesson.number("force RMSE, validation", result.metrics["force_rmse_kcal_mol_A"], "kcal/mol/Å")

# %% [markdown]
# Many features say nearly the same. Their principal components are the few independent things that
# they say together: here are the first three of the features of C1 along the torsion, before and
# after training, each divided by its largest value. To the right, the energy that the network makes
# of the features of all atoms.

# %%
fresh = trained.initialized(seed=1, dtype=torch.float64)
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for axis, some, title in ((axes[0], fresh, "untrained"), (axes[1], trained, "trained")):
    values = some(butane).detach().view(len(butane), 14, -1)[:, 0]
    left, sizes, _ = torch.linalg.svd(values - values.mean(dim=0), full_matrices=False)
    shares = sizes.square() / sizes.square().sum()
    for k in range(3):
        component = left[:, k] * left[trans, k].sign()
        label = f"{100 * float(shares[k]):.1f} % of the variance"
        axis.plot(torsion, component / component.abs().max(), lw=1.3, label=label)
    axis.set(title=f"features of C1, {title}", ylabel="principal component, scaled", ylim=(-1.1, 2))
    axis.legend(frameon=False, fontsize=8)
kcal = pymlp.units.EV_TO_KCAL_MOL
energies = potential.compute(butane, forces=False).energy
axes[2].plot(torsion, (butane.energies - butane.energies.min()) * kcal, color="grey", label="GFN2")
axes[2].plot(torsion, (energies - butane.energies.min()) * kcal, "C1--", label="DeepPot-SE")
axes[2].set(title="energy", ylabel="energy (kcal/mol)")
axes[2].legend(frameon=False)
for axis in axes:
    axis.set(xlabel="torsion (degrees)", xticks=range(0, 361, 60))
lesson.figure(figure, "training", "Features before and after training, and the learned energy.")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
draw_embedding(axes[0], fresh, "C with neighbour H, untrained")
draw_embedding(axes[1], trained, "C with neighbour H, trained")
lesson.figure(figure, "embedding-trained", "Embedding functions before and after training.")

# %% [markdown]
# ## Symmetry functions and DeepPot-SE
#
# | | symmetry functions | DeepPot-SE |
# | --- | --- | --- |
# | chosen by hand | $\eta$, $R_s$, $\zeta$, $\theta_s$, cutoff | sizes of the networks, cutoff |
# | trained | nothing | the embedding |
# | computed once for training | features and their derivatives | environment matrix only |
# | elements | a channel per element and pair | a network per pair of elements |
# | angles | a loop over pairs of neighbours | in the product of two sums |
#
# A descriptor without weights can be computed once before training; one with weights is computed
# anew in every step, which is why lesson 6 takes longer than lesson 5. The times of one evaluation,
# for 256 structures:

# %%
batch = pymlp.Batch.from_arrays(butane[0].numbers, frames[torch.arange(256) % len(butane)])
rows = []
for name, some in (
    ("Behler-Parrinello, paper's set", BehlerParrinello.paper(["H", "C"])),
    ("ANI-1x", ANI.ani1x(["H", "C"])),
    ("DeepPot-SE, paper's sizes", descriptor),
):
    best = {"features": np.inf, "with derivative": np.inf}
    for _ in range(lesson.choose(5, 2)):
        begun = time.perf_counter()
        some(batch)
        best["features"] = min(best["features"], time.perf_counter() - begun)
        begun = time.perf_counter()
        positions = batch.positions.clone().requires_grad_()
        some(batch.with_positions(positions)).square().sum().backward()
        best["with derivative"] = min(best["with derivative"], time.perf_counter() - begun)
    row = {"descriptor": name, "features per atom": some.n_features}
    rows.append(row | {f"{what} (ms)": 1e3 * value for what, value in best.items()})
lesson.table("cost", rows)

# %% [markdown]
# ## Exercises
#
# 1. `DeepPotSE(..., use_radial_column=False)` leaves the column $s$ out of the product, as the
#    tutorial's own lesson does. Show with eq 11 that two neighbours in opposite directions then
#    cancel in $\mathcal G^{\mathsf T} \tilde{\mathcal R}$ if they are equally far away. What does
#    the first column add?
# 2. Use `switch="cosine", switch_start=2.0, cutoff=3.5`. How do the features of C1 along the
#    torsion change, and at which torsion does C4 disappear?
# 3. With `normalize="neighbors"` the sums are divided by the number of neighbours. Why is that
#    refused together with a cutoff?
# 4. The reflected molecule has the same features. Which part of eq 11 loses the handedness?
# 5. Train with `n_axis=16` in `descriptor={...}`. Do energy and force errors change? And the time?

# %%
lesson.end()
