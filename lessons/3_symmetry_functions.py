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
# # Lesson 3: Symmetry functions describe butane
#
# In lessons 1 and 2 the input of the model was the point $(x, y)$ itself. For a molecule that
# does not work: turn the molecule around and every Cartesian coordinate changes, while the energy
# does not. A model that gets coordinates has to learn from data, approximately and at a price,
# what we know exactly.
#
# So the coordinates are first turned into **features**, numbers that
#
# * do not change when the molecule is moved or rotated,
# * do not depend on the order in which equal atoms are listed,
# * change smoothly when atoms move, because forces are derivatives,
# * are equally many for every atom, however many neighbours it has.
#
# This lesson computes the two classical sets, the symmetry functions of Behler and Parrinello and
# those of ANI, for butane along its torsion, and checks all four points with numbers. It takes
# about ten seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import pymlp
from pymlp.descriptors import ANI, BehlerParrinello
from pymlp.lessons import begin
from pymlp.units import EV_TO_KCAL_MOL

lesson = begin()
COLORS = [f"C{k}" for k in range(6)]

# %% [markdown]
# ## Butane along its torsion
#
# The package ships 73 structures of butane (C₄H₁₀, 14 atoms): the torsion C–C–C–C is held at
# 0°, 5°, …, 360°, and everything else is relaxed with GFN2-xTB, a semi-empirical method. Atoms
# 0 … 3 are the carbon chain. `pymlp.read` gives a `Batch`: positions in Å, energies in eV, forces
# in eV/Å.

# %%
path = pymlp.data.butane_path()
butane = pymlp.read(path)
torsion = np.load(path)["torsion"]
energy = (butane.energies - butane.energies.min()).numpy() * EV_TO_KCAL_MOL
trans, gauche, cis = (int(np.flatnonzero(torsion == angle)[0]) for angle in (180, 65, 0))

lesson.number("structures", len(butane))
lesson.number("gauche above trans", energy[gauche], "kcal/mol")
lesson.number("cis above trans", energy[cis], "kcal/mol")

figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.plot(torsion, energy, "o-", ms=3, lw=1.2, color="C0")
axis.set(xlabel="torsion C-C-C-C (degrees)", ylabel="energy (kcal/mol)", xticks=range(0, 361, 60))
axis.set_ylim(-0.6, 5.4)
for index, name in ((trans, "trans"), (gauche, "gauche"), (cis, "cis")):
    axis.text(torsion[index] + 4, energy[index] - 0.4, name)
lesson.figure(figure, "torsion", "Energy of butane along its torsion, GFN2-xTB.")

# %% [markdown]
# ## The cutoff function
#
# An atom's features are sums over its neighbours. To keep their number and the cost finite,
# neighbours beyond a cutoff radius $R_c$ are not seen. If they vanished suddenly, the energy would
# jump whenever an atom crosses $R_c$; so their weight goes to zero smoothly:
#
# $$ f_c(R) = \begin{cases} \tfrac12\left[\cos\left(\pi R / R_c\right) + 1\right] & R < R_c \\
#    0 & R \ge R_c \end{cases} \tag{2} $$
#
# There is a simple way to see $f_c$ with the package itself: in a molecule of two atoms, the radial
# function of eq 1 below with $\eta = 0$ *is* $f_c(R)$. The second curve is the alternative
# $\exp(1 - 1/(1 - (R/R_c)^2))$, of which all derivatives are continuous.


# %%
def dimers(distances):
    """Two hydrogen atoms at each of the distances (Å)."""
    positions = torch.zeros(len(distances), 2, 3, dtype=torch.float64)
    positions[:, 1, 0] = torch.as_tensor(distances)
    return pymlp.Batch.from_arrays(["H", "H"], positions)


def first_atom(descriptor, batch):
    """Features of the first atom of every structure [B, F]."""
    return descriptor(batch).detach()[batch.structure_offsets[:-1]]


distances = np.linspace(0.3, 7.0, 200)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, color in (("cosine", "C0"), ("smooth", "C1")):
    cutoff = BehlerParrinello(["H"], radial=[(0.0, 0.0)], cutoff=6.0, cutoff_function=name)
    value = first_atom(cutoff, dimers(distances))[:, 0]
    slope = cutoff.jacobian(dimers(distances))[:, 0, 0, 1, 0]  # by the second atom's x
    label = "cosine (eq 2)" if name == "cosine" else name
    axes[0].plot(distances, value, color=color, label=label)
    axes[1].plot(distances, slope, color=color, label=label)
for axis, title in zip(axes, ("$f_c(R)$", "$df_c/dR$ (1/Å)"), strict=True):
    axis.axvline(6.0, color="grey", lw=0.8, ls=":")
    axis.set(xlabel="R (Å)", ylabel=title)
axes[0].legend(frameon=False)
lesson.figure(figure, "cutoff", "The cutoff function and its derivative, R_c = 6 Å.")

# %% [markdown]
# Value and slope both reach zero at $R_c$: no jump in the energy, none in the forces.
#
# ## Radial functions
#
# How many neighbours are there, and how far away? The radial function of atom $i$ asks this with a
# Gaussian of width $1/\sqrt{2\eta}$ around a distance $R_s$:
#
# $$ G_i^{\mathrm r} = \sum_{j \ne i} e^{-\eta (R_{ij} - R_s)^2} f_c(R_{ij}) \tag{1} $$
#
# One pair $(\eta, R_s)$ is one feature. The two sets differ in how they choose them.
#
# * **Behler-Parrinello** (the paper's set): $R_s = 0$ and six widths; all functions fall with the
#   distance, some faster than others.
# * **ANI-1x**: one width, 16 shifts $R_s = 0.9 \dots 4.93$ Å, a row of peaks like the bins of
#   a histogram.

# %%
bp = BehlerParrinello.paper(["H", "C"])
ani = ANI.ani1x(["H", "C"])
lesson.number("Behler-Parrinello features per atom", bp.n_features)
lesson.number("ANI features per atom", ani.n_features)
print(bp.feature_labels()[:3], "...", ani.feature_labels()[-1:])

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for axis, descriptor, title in (
    (axes[0], BehlerParrinello.paper(["H"]), "Behler-Parrinello, six η, $R_s$ = 0"),
    (axes[1], ANI.ani1x(["H"]), "ANI-1x, η = 16 Å⁻², 16 $R_s$"),
):
    n_radial = sum(label.startswith("radial") for label in descriptor.feature_labels())
    values = first_atom(descriptor, dimers(distances))[:, :n_radial]
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, n_radial))
    for k in range(n_radial):
        axis.plot(distances, values[:, k], color=shades[k], lw=1.2)
    axis.set(xlabel="R (Å)", title=title)
axes[0].set_ylabel("radial function (eq 1)")
lesson.figure(figure, "radial", "Radial functions of one neighbour at distance R.")

# %% [markdown]
# ## Angular functions
#
# Distances alone do not say how the neighbours are arranged. Angular functions look at two
# neighbours $j$, $k$ at a time and at the angle between them,
#
# $$ \theta_{ijk} = \arccos\frac{\mathbf R_{ij} \cdot \mathbf R_{ik}}{R_{ij} R_{ik}}, \qquad
#    \mathbf R_{ij} = \mathbf R_j - \mathbf R_i \tag{4, 5} $$
#
# Behler and Parrinello:
#
# $$ G_i^{\mathrm a} = 2^{1-\zeta} \sum_{j<k} \left(1 + \cos(\theta_{ijk} - \theta_s)\right)^\zeta
#    e^{-\eta (R_{ij}^2 + R_{ik}^2 + R_{jk}^2)} f_c(R_{ij}) f_c(R_{ik}) f_c(R_{jk}) \tag{3} $$
#
# with $\theta_s = 0$ or $\pi$. ANI takes several $\theta_s$, and, instead of a decay with all three
# distances, a Gaussian around the mean distance of the two neighbours:
#
# $$ G_i^{\mathrm a} = 2^{1-\zeta} \sum_{j<k} \left(1 + \cos(\theta_{ijk} - \theta_s)\right)^\zeta
#    e^{-\eta \left(\frac{R_{ij} + R_{ik}}{2} - R_s\right)^2} f_c(R_{ij}) f_c(R_{ik}) \tag{6} $$
#
# The angle factor alone, drawn for three atoms with the angle θ at the first: with $\eta = 0$
# nothing else is left in eq 3 but the cutoff functions, which a very large $R_c$ makes 1.


# %%
def trimers(angles, length=1.0):
    """Three hydrogen atoms, the angles (radians) at the first one."""
    positions = torch.zeros(len(angles), 3, 3, dtype=torch.float64)
    positions[:, 1, 0] = length
    positions[:, 2, 0] = length * torch.as_tensor(np.cos(angles))
    positions[:, 2, 1] = length * torch.as_tensor(np.sin(angles))
    return pymlp.Batch.from_arrays(["H", "H", "H"], positions)


angles = np.linspace(0.02, np.pi, 150)
zetas = (1.0, 4.0, 32.0)
rows = [(0.0, zeta, theta) for zeta in zetas for theta in (0.0, np.pi)]
bp_angle = BehlerParrinello(["H"], angular=rows, cutoff=1e4)
shifts = [np.pi / 16 + k * np.pi / 8 for k in range(8)]
ani_angle = ANI(["H"], 0.0, [], 32.0, shifts, 0.0, [1.0], radial_cutoff=1e4, angular_cutoff=1e4)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
values = first_atom(bp_angle, trimers(angles))
for k, zeta in enumerate(zetas):
    axes[0].plot(np.degrees(angles), values[:, 2 * k], color=COLORS[k], label=f"ζ = {zeta:g}")
    axes[0].plot(np.degrees(angles), values[:, 2 * k + 1], color=COLORS[k], ls="--")
values = first_atom(ani_angle, trimers(angles))
shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, 8))
for k in range(8):
    axes[1].plot(np.degrees(angles), values[:, k], color=shades[k])
axes[0].set(title="Behler-Parrinello: $θ_s$ = 0 (full), π (dashed)", ylabel="angle factor")
axes[1].set(title="ANI-1x: ζ = 32, eight $θ_s$")
for axis in axes:
    axis.set(xlabel="θ (degrees)", xticks=range(0, 181, 30))
axes[0].legend(frameon=False, loc="upper center")
lesson.figure(figure, "angular", "The angle factor of eqs 3 and 6.")

# %% [markdown]
# ## Equations 1, 3 and 6 by hand
#
# The compiled code behind `bp(...)` and `ani(...)` must give just these sums. Here they are, as
# they stand in the equations, for one atom of butane: a carbon atom at the end of the chain. With
# `channels="none"` the sums run over all neighbours, whatever their element.


# %%
def cutoff_function(r, cutoff):
    """Eq 2."""
    return 0.5 * (np.cos(np.pi * r / cutoff) + 1.0) if r < cutoff else 0.0


def by_hand(positions, center, cutoff, eta_1, shift_1, eta_3, zeta, theta_s, shift_6):
    """Eqs 1, 3 and 6 for one atom, one feature each."""
    others = [n for n in range(len(positions)) if n != center]
    vector = {n: positions[n] - positions[center] for n in others}  # eq 5
    r = {n: np.linalg.norm(vector[n]) for n in others}
    fc = {n: cutoff_function(r[n], cutoff) for n in others}
    radial = sum(np.exp(-eta_1 * (r[n] - shift_1) ** 2) * fc[n] for n in others)  # eq 1
    g3 = g6 = 0.0
    for j in others:
        for k in others:
            if j >= k or fc[j] * fc[k] == 0.0:
                continue
            theta = np.arccos(vector[j] @ vector[k] / (r[j] * r[k]))  # eq 4
            angle = 2 ** (1 - zeta) * (1 + np.cos(theta - theta_s)) ** zeta
            r_jk = np.linalg.norm(positions[j] - positions[k])
            decay = np.exp(-eta_3 * (r[j] ** 2 + r[k] ** 2 + r_jk**2))
            g3 += angle * decay * fc[j] * fc[k] * cutoff_function(r_jk, cutoff)  # eq 3
            mean = (r[j] + r[k]) / 2
            g6 += angle * np.exp(-eta_3 * (mean - shift_6) ** 2) * fc[j] * fc[k]  # eq 6
    return np.array([radial, g3, g6])


one_bp = BehlerParrinello(
    ["H", "C"], [(4.0, 1.5)], [(0.3, 4.0, np.pi)], cutoff=4.0, channels="none"
)
one_ani = ANI(["H", "C"], 4.0, [1.5], 4.0, [np.pi], 0.3, [2.0], 4.0, 4.0, channels="none")
molecule = butane[gauche : gauche + 1]
hand = by_hand(molecule.positions.numpy(), 0, 4.0, 4.0, 1.5, 0.3, 4.0, np.pi, 2.0)
package = torch.stack([*one_bp(molecule)[0], one_ani(molecule)[0, 1]]).detach().numpy()
lesson.table(
    "one-atom",
    [
        {"feature": name, "by hand": f"{x:.12f}", "pymlp": f"{y:.12f}"}
        for name, x, y in zip(("eq 1", "eq 3", "eq 6"), hand, package, strict=True)
    ],
)
lesson.number("largest difference by hand - pymlp", np.abs(hand - package).max())

# %% [markdown]
# ## Features along the torsion
#
# Now the whole sets, for all 73 structures at once. Only distances between atoms that the torsion
# moves change: the carbon atoms at the ends see each other, and hydrogen atoms of one end see those
# of the other. Each panel shows one kind of feature of one atom: the terminal carbon C1 and one of
# its hydrogen atoms.


# %%
def of_atom(descriptor, batch, atom):
    """Features of one atom of every structure [B, F]."""
    return descriptor(batch).detach().view(len(batch), -1, descriptor.n_features)[:, atom]


def short_label(label):
    """The parameters in the label of a feature, in Greek letters."""
    words = []
    for word in label.split()[2:]:
        name, value = word.split("=")
        degrees = "°" if value.endswith("°") else ""
        greek = {"eta": "η", "zeta": "ζ", "theta_s": "$θ_s$", "R_s": "$R_s$"}[name]
        words.append(f"{greek} {float(value.rstrip('°')):.3g}{degrees}")
    return ", ".join(words)


def draw(axis, descriptor, atom, start, title):
    """All features whose label begins so, as changes from the trans conformer."""
    labels = descriptor.feature_labels()
    values = of_atom(descriptor, butane, atom)
    columns = [k for k, label in enumerate(labels) if label.startswith(start)]
    change = values[:, columns] - values[trans, columns]
    order = change.abs().max(0).values.argsort(descending=True)[:6].sort().values
    for color, k in zip(COLORS, order.tolist(), strict=False):
        axis.plot(torsion, change[:, k], color=color, lw=1.3, label=short_label(labels[columns[k]]))
    axis.set(title=title, xticks=range(0, 361, 60))
    axis.legend(frameon=False, fontsize=6.5)


hydrogen = int(torch.cdist(butane[trans].positions[4:], butane[trans].positions[:1]).argmin()) + 4
carbons = butane.positions.view(len(butane), -1, 3)[:, [0, 3]]
end_to_end = (carbons[:, 1] - carbons[:, 0]).norm(dim=1)
lesson.number("distance C1-C4, trans", end_to_end[trans], "Å")
lesson.number("distance C1-C4, cis", end_to_end[cis], "Å")
seen = torsion[(end_to_end < 3.5).numpy() & (torsion <= 180)].max()
lesson.number("largest torsion with C1-C4 below 3.5 Å", seen, "degrees")

figure, axes = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained", sharex=True)
panels = (
    (bp, 0, "radial C", "BP, C1, neighbours C (eq 1)"),
    (bp, 0, "angular C-C", "BP, C1, pairs C-C (eq 3)"),
    (bp, hydrogen, "radial H", "BP, H on C1, neighbours H (eq 1)"),
    (ani, 0, "radial C eta=16", "ANI, C1, neighbours C (eq 1)"),
    (ani, 0, "angular H-C eta=8", "ANI, C1, pairs H-C (eq 6)"),
    (ani, hydrogen, "radial H eta=16", "ANI, H on C1, neighbours H (eq 1)"),
)
for axis, (descriptor, atom, start, title) in zip(axes.flat, panels, strict=True):
    draw(axis, descriptor, atom, start, title)
    axis.set(xlabel="torsion (degrees)", ylabel="G - G(trans)")
    axis.label_outer()
lesson.figure(figure, "along-torsion", "The features that change most along the torsion.")

# %% [markdown]
# What to see:
#
# * The curves are smooth and symmetric about 180°. Torsions of φ and 360° − φ are mirror images
#   with the same energy, and features made of distances and angles cannot tell them apart, nor
#   should they.
# * Behler-Parrinello functions change all together: $R_s = 0$ makes each of them a differently
#   weighted count of the same neighbours. ANI's peaks answer one after the other as C1 and C4
#   come closer.
# * The angular cutoff of ANI-1x is 3.5 Å: C1 sees C4 in an angle only where they are closer.
#
# ## Element channels
#
# A carbon neighbour is not a hydrogen neighbour. `channels` says how the sums of eqs 1, 3 and 6
# treat that:
#
# * `"element"` (default): one sum per neighbour element, and per pair of elements;
# * `"none"`: a single sum over all neighbours, as in the tutorial's lessons;
# * `"weighted"`: a single sum in which each neighbour counts with its atomic number (wACSF).
#
# A test of what that means: exchange C2 with one of the hydrogen atoms on C1, elements only, the
# positions stay. That is another molecule (and an absurd one), but an atom that looks at its
# neighbours without their elements does not notice. C1 is the centre in both cases.

# %%
numbers = butane[trans].numbers.clone()
numbers[[1, hydrogen]] = numbers[[hydrogen, 1]]
swapped = pymlp.Batch.from_arrays(numbers, butane[trans].positions)
rows = []
for channels in ("element", "none", "weighted"):
    for make, name in ((BehlerParrinello.paper, "Behler-Parrinello"), (ANI.ani1x, "ANI-1x")):
        descriptor = make(["H", "C"], channels=channels)
        before = of_atom(descriptor, butane[trans : trans + 1], 0)
        change = float((of_atom(descriptor, swapped, 0) - before).abs().max())
        row = {"channels": channels, "set": name, "features": descriptor.n_features}
        rows.append(row | {"largest |ΔG| of C1": change})
lesson.table("channels", rows)

# %% [markdown]
# Without channels the two environments are the same to the last digit, and no network behind the
# features could give them different energies. (In one molecule the environments differ in other
# ways too, which is why the tutorial's lessons still work; the errors are several times as large.)
# Channels cost features: the number grows with the square of the number of elements.
#
# ## Invariance
#
# Rotation and translation: the features must not change at all. Permutation: if equal atoms are
# listed in another order, the rows of the feature matrix come in that order and are otherwise the
# same; a sum over atoms, like the energy in lesson 5, does not change.

# %%
generator = np.random.default_rng(3)
rotation, upper = np.linalg.qr(generator.normal(size=(3, 3)))
rotation = torch.as_tensor(rotation * np.sign(np.diag(upper)))
rotation[:, 0] *= torch.linalg.det(rotation).sign()  # a rotation, not a reflection
shift = torch.tensor([11.1, -4.3, 0.7], dtype=torch.float64)  # Å
order = torch.as_tensor(np.r_[generator.permutation(4), 4 + generator.permutation(10)])
flip = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)

molecule = butane[gauche]
moves = {
    "rotated": (molecule.numbers, molecule.positions @ rotation.T, None),
    "rotated and translated": (molecule.numbers, molecule.positions @ rotation.T + shift, None),
    "reflected": (molecule.numbers, molecule.positions * flip, None),
    "atoms listed in another order": (molecule.numbers[order], molecule.positions[order], order),
    "one atom moved by 0.01 Å": (molecule.numbers, molecule.positions.clone(), None),
}
moves["one atom moved by 0.01 Å"][1][0, 0] += 0.01
rows = []
for what, (numbers, positions, permuted) in moves.items():
    row = {"change of the molecule": what}
    for name, descriptor in (("Behler-Parrinello", bp), ("ANI-1x", ani)):
        before = descriptor(butane[gauche : gauche + 1]).detach()
        after = descriptor(pymlp.Batch.from_arrays(numbers, positions)).detach()
        before = before if permuted is None else before[permuted]
        row[f"largest |ΔG|, {name}"] = f"{float((after - before).abs().max()):.1e}"
    rows.append(row)
lesson.table("invariance", rows)

# %% [markdown]
# The first four rows are rounding errors of double precision; the last one is there for comparison.
#
# ## Derivatives: where forces come from
#
# If the energy is a function of the features, the chain rule gives the forces:
#
# $$ \mathbf F_n = -\frac{\partial E}{\partial \mathbf R_n}
#    = -\sum_{i, f} \frac{\partial E}{\partial G_{if}}
#      \frac{\partial G_{if}}{\partial \mathbf R_n} $$
#
# The first factor is the model's business (lessons 5 to 7), the second is the descriptor's. The
# package has it as `jacobian` (all of it, element `[i, f, n, :]`), and, cheaper, as the product
# with the first factor, which is what a force calculation needs: automatic differentiation of
# `bp(batch)` calls it. A finite difference confirms both.

# %%
one = butane[gauche : gauche + 1]
jacobian = bp.jacobian(one)[0]  # [atoms, features, atoms, 3], 1/Å
lesson.number("entries of the Jacobian", jacobian.numel())

weights = torch.as_tensor(generator.normal(size=(14, bp.n_features)))  # stands for dE/dG
positions = one.positions.clone().requires_grad_()
(bp(one.with_positions(positions)) * weights).sum().backward()
by_jacobian = torch.einsum("if,ifnx->nx", weights, jacobian)
step = 1e-4  # Å
ahead, behind = one.positions.clone(), one.positions.clone()
ahead[5, 1] += step
behind[5, 1] -= step
difference = (bp(one.with_positions(ahead)) - bp(one.with_positions(behind))).detach()
finite = float((difference * weights).sum()) / (2 * step)
values = (
    ("automatic differentiation", positions.grad[5, 1]),
    ("Jacobian", by_jacobian[5, 1]),
    ("finite difference", finite),
)
lesson.table("derivative", [{"way": a, "dE/dy of atom 5": f"{b:.9f}"} for a, b in values])
total = jacobian.sum(dim=2)
torque = torch.linalg.cross(one.positions.expand_as(jacobian), jacobian, dim=-1).sum(dim=2)
lesson.number("largest net derivative (translation)", total.abs().max(), "1/Å")
lesson.number("largest net torque (rotation)", torque.abs().max())

# %% [markdown]
# The last two numbers are the invariances once more, in the form of forces: a feature that does
# not change when the molecule is moved or rotated exerts no net force and no torque.
#
# As a picture: the derivative of a single feature is an arrow on every atom, the way to move it
# for a larger feature. Left, the ANI shell of C1 that holds C4: it looks at this one neighbour.
# Right, a slowly decaying Behler-Parrinello function: it sees all carbon atoms, the next one most.
# If the energy fell with the feature, these would be the directions of the forces.

# %%
chosen = (ani, "radial C eta=16 R_s=3.05"), (bp, "radial C eta=0.14 R_s=0")
# The plane in which the molecule is widest.
centered = one.positions - one.positions.mean(0)
axes_of_molecule = torch.linalg.svd(centered, full_matrices=False)[2][:2].T
flat = (centered @ axes_of_molecule).numpy()
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
bonded = torch.cdist(one.positions, one.positions)[:4].lt(1.7).nonzero().tolist()
for axis, (descriptor, label) in zip(axes, chosen, strict=True):
    feature = descriptor.feature_labels().index(label)
    arrows = (descriptor.jacobian(one)[0, 0, feature] @ axes_of_molecule).numpy()
    for pair in bonded:
        axis.plot(*flat[pair].T, color="#cccccc", lw=2, zorder=0)
    axis.scatter(*flat[4:].T, s=60, color="white", edgecolor="grey", zorder=2)
    axis.scatter(*flat[:4].T, s=160, color="#444444", zorder=2)
    for n in range(4):
        axis.text(flat[n, 0], flat[n, 1] - 0.3, f"C{n + 1}", ha="center")
    lengths = np.linalg.norm(arrows, axis=1)
    large = lengths > 0.02 * lengths.max()
    axis.quiver(
        *flat[large].T, *(arrows[large] / lengths.max()).T, color="C1", zorder=3, angles="xy",
        width=0.008, scale_units="xy", scale=1,
    )  # fmt: skip
    axis.set(aspect="equal", title=f"radial, C1, neighbours C, {short_label(label)}")
    axis.margins(0.12)
    axis.set_axis_off()
lesson.figure(
    figure, "derivative", "Derivative of one feature of C1 by the positions of all atoms."
)

# %% [markdown]
# ## Exercises
#
# 1. Add the two functions `(4.0, 1.5)` and `(4.0, 2.5)` to the radial list of
#    `BehlerParrinello(...)`, with $R_s$ in the second place, and draw them along the torsion for a
#    hydrogen atom.
# 2. Set `cutoff=3.0` in `BehlerParrinello`. Which features of C1 no longer depend on the torsion,
#    and why?
# 3. The reflection did not change the features. Think of two molecules with different energies
#    that such features cannot distinguish. (Not butane: a mirror image of the whole molecule has
#    the same energy.)
# 4. `ani.jacobian(butane)` holds derivatives of every feature by every coordinate. How much
#    memory would that be for 2000 structures of the Claisen rearrangement, and why does force
#    training never compute it?

# %%
lesson.end()
