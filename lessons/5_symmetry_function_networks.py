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
# # Lesson 5: Networks on symmetry functions learn the Claisen rearrangement
#
# Now everything comes together: the features of lesson 3, a neural network for each element, and
# data of a real reaction. The result is a potential: energies and forces of any structure along
# the reaction, in milliseconds, with the accuracy of density functional theory (DFT) on top of
# a cheap method. You will train it twice, with Behler-Parrinello and with ANI features, judge it on
# structures it has never seen, and use it.
#
# The whole lesson takes about two and a half minutes on two cores.

# %%
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.calculators.mixing import SumCalculator
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

import pymlp
from pymlp.config import configure
from pymlp.data.claisen import BROKEN, FORMED, xi
from pymlp.data.gfn2 import HarmonicRestraint, gfn2_calculator
from pymlp.evaluation import evaluate
from pymlp.lessons import begin
from pymlp.molecule_view import molecule_html
from pymlp.plotting import energy_profile, loss_curve
from pymlp.training import read_log

lesson = begin()
KCAL = pymlp.units.EV_TO_KCAL_MOL
lower_level = gfn2_calculator(0.1)  # used at the end; needs tblite: pip install 'pymlp[data]'

# %% [markdown]
# ## The reaction
#
# Allyl vinyl ether turns into 4-pentenal: a C–O bond breaks while a C–C bond forms, over a
# chair-like transition state with six atoms in the ring. The natural reaction coordinate is
#
# $$ \xi = d(\mathrm{C{-}O}) - d(\mathrm{C{-}C}), $$
#
# negative for the reactant, positive for the product. The package ships the reaction path of
# a semi-empirical method, GFN2-xTB, with DFT energies (B3LYP/6-31G*) of the same structures.

# %%
path_dft = pymlp.read(pymlp.data.claisen_irc_dft_path(), target="total")
path_gfn2 = pymlp.read(pymlp.data.claisen_irc_dft_path(), target="sqm")
path_positions = path_dft.positions.view(len(path_dft), -1, 3)
path_xi = xi(path_positions.numpy())
symbols = path_dft[0].numbers
lesson.view(
    molecule_html(symbols, path_positions[::2], labels=[f"ξ = {x:.2f} Å" for x in path_xi[::2]]),
    "reaction",
)

own_dft = pymlp.read(pymlp.data.claisen_stationary_dft_path(), target="total")
rows = []
for name, batch in (
    ("GFN2-xTB, GFN2 path", path_gfn2),
    ("B3LYP/6-31G*, GFN2 path", path_dft),
    ("B3LYP/6-31G*, its own minima and saddle point", own_dft),
):
    along = (batch.energies - batch.energies[0]) * KCAL
    rows.append(
        {
            "level": name,
            "barrier (kcal/mol)": f"{along.max():.1f}",
            "reaction energy (kcal/mol)": f"{along[-1]:.1f}",
        }
    )
    lesson.number(f"barrier, {name}", along.max(), "kcal/mol")
    lesson.number(f"reaction energy, {name}", along[-1], "kcal/mol")
rows += [
    {
        "level": "B3LYP/6-31+G*, B3LYP geometries (literature)",
        "barrier (kcal/mol)": "27.2",
        "reaction energy (kcal/mol)": "",
    },
    {
        "level": "experiment, activation energy (literature)",
        "barrier (kcal/mol)": "30.6",
        "reaction energy (kcal/mol)": "",
    },
]
lesson.table("barriers", rows)

# %% [markdown]
# GFN2 is fast (milliseconds) and its barrier is about ten kcal/mol too low. B3LYP takes six
# seconds for the same structure. (Its energy at the top of the GFN2 path is higher than its own
# barrier, because the GFN2 transition state is tighter than that of B3LYP: we come back to this at
# the end.)
#
# ## Δ-learning
#
# The data set holds structures from umbrella sampling along ξ at 300 K, made with GFN2, each
# with energy and gradient of both levels. We could train on the DFT energies. It is easier to train
# on the *difference*,
#
# $$ \Delta E = E_{\mathrm{DFT}} - E_{\mathrm{GFN2}}, \qquad
#    \Delta \mathbf F = \mathbf F_{\mathrm{DFT}} - \mathbf F_{\mathrm{GFN2}}, $$
#
# and to add the prediction to a GFN2 calculation later. GFN2 already knows what a bond is; the
# difference is smaller and smoother than either energy. `pymlp.read` gives the difference where
# a file holds two levels, and says so.

# %%
data = pymlp.data.claisen_dft_path()
delta = pymlp.read(data)
dft, gfn2 = pymlp.read(data, target="total"), pymlp.read(data, target="sqm")
for note in delta.info["notes"]:
    print(note)
n = len(delta)
structures_xi = xi(delta.positions.view(n, -1, 3).numpy())
lesson.number("structures", n)
lesson.number("spread of the DFT energies", dft.energies.std() * KCAL, "kcal/mol")
lesson.number("spread of the differences", delta.energies.std() * KCAL, "kcal/mol")
lesson.number("spread of the DFT force components", dft.forces.std() * KCAL, "kcal/mol/Å")
lesson.number("spread of their differences", delta.forces.std() * KCAL, "kcal/mol/Å")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for batch, along, name, color in (
    (gfn2, path_gfn2, "GFN2-xTB", "C1"),
    (dft, path_dft, "B3LYP/6-31G*", "C0"),
):
    zero = along.energies[0]
    axes[0].plot(structures_xi, (batch.energies - zero) * KCAL, ".", ms=2, alpha=0.5, color=color)
    axes[0].plot(path_xi, (along.energies - zero) * KCAL, color=color, label=name)
difference = path_dft.energies - path_gfn2.energies
axes[1].plot(structures_xi, (delta.energies - difference[0]) * KCAL, ".", ms=2, color="grey")
axes[1].plot(path_xi, (difference - difference[0]) * KCAL, color="C2", label="Δ along the path")
axes[0].set(ylabel="energy (kcal/mol)", title="sampled structures and the GFN2 path")
axes[1].set(ylabel="Δ energy (kcal/mol)", title="the difference")
for axis in axes:
    axis.set_xlabel("ξ = d(C-O) - d(C-C) (Å)")
    axis.legend(frameon=False)
lesson.figure(figure, "data", "Energies of both levels and their difference along the reaction.")

# %% [markdown]
# Hold something back, always. The validation structures decide when training is best; the test
# structures decide nothing and are looked at once, at the end. Rows are in random order.

# %%
n_validation, n_test = 80, 120
train = f"{data}@{n_validation}:{n - n_test}"
validation = f"{data}@:{n_validation}"
test = delta[n - n_test :]
test_xi = structures_xi[n - n_test :]
lesson.number("structures to train on", n - n_validation - n_test)

# %% [markdown]
# ## The model
#
# The energy is a sum over atoms, and the energy of an atom depends on its surroundings, through the
# features, and on its element:
#
# $$ E = \sum_i E_i(\mathbf G_i) \tag{12} $$
#
# All carbon atoms share one network, all hydrogen atoms another. A layer of a network multiplies
# its input with a matrix of weights, adds a bias, and applies a smooth function φ,
#
# $$ \mathbf h^{(l)} = \varphi\left(\mathbf W^{(l)} \mathbf h^{(l-1)} + \mathbf b^{(l)}\right),
#    \qquad \mathbf h^{(0)} = \mathbf G_i \tag{13} $$
#
# and the last one gives the number $E_i$. Weights and biases minimise the error of energies and
# forces on the training structures,
#
# $$ L = w_E\, \frac1B \sum_b \left(E_b - E_b^{\mathrm{ref}}\right)^2
#      + w_F\, \frac1{3A} \sum_{n} \left|\mathbf F_n - \mathbf F_n^{\mathrm{ref}}\right|^2
#    \tag{14} $$
#
# Forces are worth their price: one structure has one energy and 42 force components. Their weight
# is high at first and falls with the learning rate, so that energies get their turn.
#
# All of this stands in a configuration. `configure` makes the one that `pymlp init` would write;
# what we name replaces its values.

# %%
epochs = lesson.choose(300, 2)
common = {
    "network": {"hidden": [64, 64], "activation": "silu"},
    "training": {"epochs": epochs, "batch_size": 32, "learning_rate": 5e-3, "threads": 1},
    "data": {"n_train": lesson.choose(None, 40)},
}
configs = {kind: configure(kind, train, validation, **common) for kind in ("bp-fnn", "ani-fnn")}
print(configs["ani-fnn"].training.loss, configs["ani-fnn"].training.schedule)

# %% [markdown]
# `bp-fnn` has Behler-Parrinello functions (eqs 1, 3) with *shifted* radial functions: the paper's
# set of lesson 3, all at $R_s = 0$, does not resolve this reaction well (exercise 1). `ani-fnn` has
# the ANI-1x set (eqs 1, 6).
#
# ## Training
#
# One call each. A folder with model, log and figures is what `pymlp train run.yaml` would leave.

# %%
NAMES = {"bp-fnn": "Behler-Parrinello", "ani-fnn": "ANI"}
results = {}
for kind, config in configs.items():
    with lesson.timed(f"training, {NAMES[kind]}"):
        results[kind] = pymlp.train(config, lesson.file(kind), overwrite=True)
    figure = loss_curve(read_log(lesson.file(kind) / "log.csv"), lesson.file(f"loss-{kind}.png"))
    lesson.figure(figure, f"loss-{kind}", f"Errors and learning rate over the epochs, {kind}.")

# %% [markdown]
# Both errors fall together on training and validation structures. Were the validation curve to turn
# up while the training curve goes on falling, the networks would be learning their examples by
# heart; what is kept is the epoch with the best validation error in any case.
#
# A look inside: eq 12 for one structure.

# %%
potentials = {kind: pymlp.load(result.directory) for kind, result in results.items()}
one = potentials["ani-fnn"].compute(test[:1])
lesson.number("sum of the atomic energies", one.atomic_energies.sum(), "eV")
lesson.number("energy", one.energy, "eV")
lesson.number("net force", one.forces.sum(dim=0).norm(), "eV/Å")

# %% [markdown]
# ## The test
#
# Structures that nothing was chosen by. Errors of the difference are also the errors of the total
# energy, since GFN2 is added exactly.

# %%
rows, evaluations = [], {}
for kind, potential in potentials.items():
    evaluations[kind] = evaluation = evaluate(potential, test)
    errors = evaluation.summary()
    lesson.number(f"energy RMSE, {NAMES[kind]}", errors["energy_rmse_kcal_mol"], "kcal/mol")
    lesson.number(f"force RMSE, {NAMES[kind]}", errors["force_rmse_kcal_mol_A"], "kcal/mol/Å")
    rows.append(
        {
            "features": NAMES[kind],
            "number of features": potential.descriptor.n_features,
            "energy RMSE (kcal/mol)": f"{errors['energy_rmse_kcal_mol']:.2f}",
            "energy MAE (kcal/mol)": f"{errors['energy_mae_kcal_mol']:.2f}",
            "force RMSE (kcal/mol/Å)": f"{errors['force_rmse_kcal_mol_A']:.2f}",
        }
    )
    title = f"{NAMES[kind]}, Δ = B3LYP - GFN2, {n_test} test structures"
    figure = evaluation.draw(lesson.file(f"parity-{kind}.png"), title)
    lesson.figure(figure, f"parity-{kind}", f"Predicted and reference Δ energies, forces: {kind}.")
lesson.table("test", rows)

# %% [markdown]
# ## The energy profile
#
# The Δ model plus GFN2 should give the DFT profile. First the test structures, each with its
# thermal displacements, and their means along ξ (GFN2 shifted by the mean difference); then the
# reaction path, none of whose structures were trained on.

# %%
test_gfn2 = gfn2.energies[n - n_test :]
figure = energy_profile(
    test_xi,
    {
        "B3LYP": dft.energies[n - n_test :] * KCAL,
        "GFN2": (test_gfn2 + (dft.energies - gfn2.energies).mean()) * KCAL,
        "GFN2 + Δ (ANI)": (test_gfn2 + evaluations["ani-fnn"].predicted_energies) * KCAL,
    },
    lesson.file("profile.png"),
    bins=14,
)
lesson.figure(figure, "profile", "Energies of the test structures along the reaction coordinate.")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
reference = (path_dft.energies - path_dft.energies[0]) * KCAL
axes[0].plot(path_xi, (path_gfn2.energies - path_gfn2.energies[0]) * KCAL, "C1", label="GFN2")
axes[0].plot(path_xi, reference, "k", lw=2.5, alpha=0.4, label="B3LYP")
for (kind, potential), color in zip(potentials.items(), ("C0", "C2"), strict=True):
    total = path_gfn2.energies + potential.compute(path_dft, forces=False).energy
    # Relative to the same zero as the reference: a constant error would show.
    profile = (total - path_dft.energies[0]) * KCAL
    axes[0].plot(path_xi, profile, "--", color=color, label=f"GFN2 + Δ ({NAMES[kind]})")
    axes[1].plot(path_xi, profile - reference, color=color, label=NAMES[kind])
    lesson.number(f"barrier, GFN2 + Δ ({NAMES[kind]})", (total - total[0]).max() * KCAL, "kcal/mol")
    error = (profile - reference).square().mean().sqrt()
    lesson.number(f"energy RMSE on the path, {NAMES[kind]}", error, "kcal/mol")
axes[1].axhline(0, color="grey", lw=0.8)
axes[0].set(ylabel="energy (kcal/mol)", title="along the GFN2 path")
axes[1].set(ylabel="prediction - B3LYP (kcal/mol)", title="error")
for axis in axes:
    axis.set_xlabel("ξ = d(C-O) - d(C-C) (Å)")
    axis.legend(frameon=False)
lesson.figure(figure, "path", "The learned energy along the reaction path, and its error.")

# %% [markdown]
# ## Using the model
#
# The folder of a run is the model: copy it, load it, give it to ASE. A Δ model needs GFN2 added:
# `Calculator(folder, baseline=...)` is then a potential with the accuracy of DFT for all of ASE's
# optimisers and dynamics.
#
# A short molecular dynamics at constant energy, from the transition state of GFN2. If the forces
# were not the exact derivative of the energy, the total energy would drift.

# %%
calculator = pymlp.Calculator(lesson.file("ani-fnn"), baseline=lower_level)
top = int(path_gfn2.energies.argmax())
atoms = Atoms(symbols, path_positions[top].numpy(), calculator=calculator)
thermal = np.sqrt(units.kB * 300 * atoms.get_masses())[:, None]  # of momenta at 300 K
atoms.set_momenta(thermal * np.random.default_rng(5).normal(size=(len(atoms), 3)))
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
times, total, kinetic, coordinate, frames = [], [], [], [], []


def record():
    times.append(0.5 * len(times))  # fs
    total.append(atoms.get_total_energy() * KCAL)
    kinetic.append(atoms.get_kinetic_energy() * KCAL)
    coordinate.append(float(xi(atoms.positions)))
    frames.append(atoms.positions.copy())


dynamics.attach(record)
dynamics.run(lesson.choose(240, 4))
lesson.number("largest change of the total energy", np.ptp(total), "kcal/mol")
lesson.number("largest change of the kinetic energy", np.ptp(kinetic), "kcal/mol")
labels = [f"{time:.0f} fs, ξ = {x:.2f} Å" for time, x in zip(times, coordinate, strict=True)]
lesson.view(molecule_html(symbols, np.array(frames[::4]), labels=labels[::4]), "dynamics")

# %% [markdown]
# Where is the transition state of the *learned* surface? On it, all coordinates but ξ are relaxed,
# point by point: a restraint holds ξ, an optimiser does the rest.

# %%
points = np.linspace(-2.2, 1.0, lesson.choose(17, 2))
relaxed, distances = [], []
for target in points:
    start = path_positions[int(np.abs(path_xi - target).argmin())].numpy()
    restraint = HarmonicRestraint([(*BROKEN, 1.0), (*FORMED, -1.0)], target, stiffness=100.0)
    atoms = Atoms(symbols, start, calculator=SumCalculator([calculator, restraint]))
    BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.03, steps=lesson.choose(60, 2))
    relaxed.append(calculator.get_potential_energy(atoms) * KCAL)
    distances.append([float(atoms.get_distance(*pair)) for pair in (BROKEN, FORMED)])
atoms = Atoms(symbols, path_positions[0].numpy(), calculator=calculator)
BFGS(atoms, logfile=None).run(fmax=0.03, steps=lesson.choose(60, 2))
zero = atoms.get_potential_energy() * KCAL
relaxed = np.array(relaxed) - zero
best = int(relaxed.argmax())
lesson.number("barrier of the learned surface", relaxed[best], "kcal/mol")
lesson.number("its ξ", points[best], "Å")
lesson.number("its d(C-O)", distances[best][0], "Å")
lesson.number("its d(C-C)", distances[best][1], "Å")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
axes[0].plot(times, total - total[0], label="total")
axes[0].plot(times, np.array(kinetic) - kinetic[0], lw=0.8, label="kinetic")
axes[0].set(xlabel="time (fs)", ylabel="change of energy (kcal/mol)", title="dynamics")
axes[1].plot(path_xi, reference, "k", alpha=0.4, lw=2.5, label="B3LYP on the GFN2 path")
axes[1].plot(points, relaxed, "C0o-", ms=3, label="GFN2 + Δ, relaxed")
axes[1].set(xlabel="ξ (Å)", ylabel="energy (kcal/mol)", title="relaxed on the learned surface")
for axis in axes:
    axis.legend(frameon=False)
lesson.figure(figure, "use", "Dynamics on the learned surface, and its relaxed energy profile.")

# %% [markdown]
# The relaxed profile lies below the energies on the GFN2 path, and its transition state is the
# loose one that B3LYP itself finds: d(C–O) 1.90 Å, d(C–C) 2.31 Å, 27.4 kcal/mol. This is worth a
# second look, for GFN2 sampled few structures of that kind, and a network gives no warning where
# it extrapolates. Lesson 7 has a model that does.
#
# ## Bring your own files
#
# Those who come from the tutorial have its arrays: `qm_coord.npy`, `energy.npy`, `energy_sqm.npy`,
# `qm_grad.npy`, `qm_grad_sqm.npy` and `qm_elem.txt`. One function reads them, with the units
# spelled out, and turns gradients into forces; `pymlp.write` makes a file to train on. Here it
# reads arrays that we write in that form first.

# %%
from pymlp.io import read_tutorial

folder = lesson.file("tutorial")
folder.mkdir(exist_ok=True)
with np.load(data) as file:
    np.savetxt(folder / "qm_elem.txt", file["numbers"], fmt="%d")
    for ours, theirs in (
        ("coordinates", "qm_coord"),
        ("energy", "energy"),
        ("energy_sqm", "energy_sqm"),
        ("gradient", "qm_grad"),
        ("gradient_sqm", "qm_grad_sqm"),
    ):
        np.save(folder / f"{theirs}.npy", file[ours])

mine = read_tutorial(
    folder, energy_unit="Hartree", force_unit="Hartree/Bohr", length_unit="Å", target="delta"
)
pymlp.write(lesson.file("mine.npz"), mine)
difference = (mine.forces - delta.forces).abs().max() + (mine.energies - delta.energies).abs().max()
lesson.number("difference from pymlp.read", difference)

# %% [markdown]
# ## The same from the command line
#
# ```
# pymlp init ani-fnn --train claisen_dft.npz@200: --validation claisen_dft.npz@:80 -o run.yaml
# pymlp train run.yaml -o runs/claisen
# pymlp evaluate runs/claisen claisen_dft.npz@80:200 --parity parity.png
# ```
#
# ## Exercises
#
# 1. Train with the paper's Behler-Parrinello set: `descriptor={"cutoff": 6.0, "radial": [[0.0, 0],
#    [0.04, 0], ...], "angular": [[0.0, 1, 0], [0.0, 1, 180], [0.04, 2, 0], ...]}` in `configure`.
#    How much worse is it?
# 2. `data={"keys": {"gradient": None, "baseline_gradient": None}}` trains on energies alone.
#    Compare energy and force errors. Which forces would you trust?
# 3. `configure(..., target="total")` learns the DFT energy itself. How large are the errors with
#    the same data, and along the path?
# 4. Train with `"n_train": 100`, 200, 400 and plot the test errors over the number of structures,
#    both axes logarithmic. Do they fall on a line?
# 5. `network={"committee": 3}` trains three networks, and predictions have a standard deviation.
#    Plot it along the relaxed profile.

# %%
lesson.end()
