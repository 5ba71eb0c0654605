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
# # Lesson 7: Gaussian processes learn the Claisen rearrangement
#
# Lesson 2 had a Gaussian process (GP) on the plane. Now it gets the features of lesson 3 and the
# reaction of lesson 5. There are three models, each adding one idea: energies alone; the energy as
# a sum over atoms (GAP); and forces as observations. All of them say how sure they are, which is
# what sets them apart from networks: with few structures they are accurate, and they know where
# they are not.
#
# The whole lesson takes about one and a half minutes on two cores.

# %%
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.calculators.mixing import SumCalculator
from ase.optimize import BFGS

import pymlp
from pymlp.covariances import RBF
from pymlp.data.claisen import BROKEN, FORMED, xi
from pymlp.data.gfn2 import HarmonicRestraint, gfn2_calculator
from pymlp.descriptors import ANI
from pymlp.evaluation import evaluate
from pymlp.gaussian_process import AtomicInputs, ConcatenatedInputs, GaussianProcess
from pymlp.gpr_potential import GaussianProcessPotential
from pymlp.lessons import begin
from pymlp.molecule_view import molecule_html
from pymlp.plotting import plain_log_ticks

lesson = begin()
KCAL = pymlp.units.EV_TO_KCAL_MOL
lower_level = gfn2_calculator(0.1)  # used at the end; needs tblite: pip install 'pymlp[data]'

# %% [markdown]
# ## Data
#
# As in lesson 5: the difference B3LYP − GFN2 (Δ-learning). A GP needs fewer structures, and the
# exact solution costs the third power of the number of observations, so it gets the first of the
# training structures; the test structures are those of lessons 5 and 6.

# %%
data = pymlp.data.claisen_dft_path()
delta = pymlp.read(data)
n, n_validation, n_test = len(delta), 80, 120
pool = delta[n_validation : n - n_test]
test = delta[n - n_test :][: lesson.choose(None, 12)]
test_xi = xi(test.positions.view(len(test), -1, 3).numpy())
n_energies = lesson.choose(len(pool), 30)
n_forces = lesson.choose(150, 6)
path_dft = pymlp.read(pymlp.data.claisen_irc_dft_path(), target="total")
path_gfn2 = pymlp.read(pymlp.data.claisen_irc_dft_path(), target="sqm")
path_positions = path_dft.positions.view(len(path_dft), -1, 3).numpy()
path_xi = xi(path_positions)
symbols = path_dft[0].numbers
lesson.number("structures with energies to learn from", n_energies)
lesson.number("structures with forces to learn from", n_forces)

# %% [markdown]
# ## Energies alone
#
# Before any data, a Gaussian process holds every smooth function possible: the energies of any set
# of structures are normally distributed with a covariance matrix $\mathbf K$,
#
# $$ f \sim \mathcal N(0, \mathbf K), \qquad K_{ab} = k(\mathbf g_a, \mathbf g_b) \tag{15, 16} $$
#
# $$ k(\mathbf g, \mathbf g') = \sigma_f^2
#    \exp\left(-\frac{|\mathbf g - \mathbf g'|^2}{2 l^2}\right) \tag{17} $$
#
# Structures with similar features $\mathbf g$ (here those of all 14 atoms strung together) have
# similar energies, and $l$ says what similar means. Observations have noise,
# $\mathbf K + \sigma_n^2 \mathbf I$ (eq 18). The parameters are those that make the data most
# likely, by maximising
#
# $$ \ln p(\mathbf y) = -\tfrac12 \mathbf y^{\mathsf T} (\mathbf K + \sigma_n^2 \mathbf I)^{-1}
#    \mathbf y - \tfrac12 \ln |\mathbf K + \sigma_n^2 \mathbf I| - \tfrac m2 \ln 2\pi \tag{19} $$
#
# and given the data, the energy of a new structure has the mean and the variance
#
# $$ \mu_* = \mathbf k_*^{\mathsf T} (\mathbf K + \sigma_n^2 \mathbf I)^{-1} \mathbf y \tag{20} $$
#
# $$ \sigma_*^2 = k_{**} - \mathbf k_*^{\mathsf T} (\mathbf K + \sigma_n^2 \mathbf I)^{-1}
#    \mathbf k_* \tag{21} $$
#
# `fit` does eqs 15 to 19 and solves the linear system of eq 20; `predict` does the rest.

# %%
ani = ANI(
    ["H", "C", "O"],
    radial_eta=16.0,
    radial_shifts=[0.9 + 0.26875 * k for k in range(16)],
    zeta=32.0,
    theta_shifts=[np.pi / 16 + k * np.pi / 8 for k in range(8)],
    angular_eta=8.0,
    angular_shifts=[0.90, 1.55, 2.20, 2.85],
    radial_cutoff=5.2,
    angular_cutoff=3.5,
    radial_prefactor=0.6,  # a covariance sees the sizes of features, networks do not
)
subset = lesson.choose(None, 20)  # structures that the likelihood looks at; None: all
processes = {}
with lesson.timed("fit, energies"):
    process = GaussianProcess(ConcatenatedInputs(ani), RBF())
    some = pool[:n_energies]
    report = process.fit(some, energies=some.energies, subset=subset)
    processes["energies"] = process
lesson.number("length scale l", report.hyperparameters["length_scale"])
lesson.number("signal σ_f", report.hyperparameters["signal_variance"] ** 0.5 * KCAL, "kcal/mol")
lesson.number("noise σ_n", report.hyperparameters["energy_noise"] * KCAL, "kcal/mol")
lesson.number("log marginal likelihood", report.log_likelihood)

# %% [markdown]
# No force was observed, but the model has forces: eq 20 is an analytic function of the features,
# and its derivative is exact,
#
# $$ \mathbf F_* = -\left(\frac{\partial \mathbf g_*}{\partial \mathbf R}\right)^{\mathsf T}
#    \frac{\partial \mathbf k_*^{\mathsf T}}{\partial \mathbf g_*}
#    (\mathbf K + \sigma_n^2 \mathbf I)^{-1} \mathbf y \tag{22} $$
#
# ## A sum over atoms: GAP
#
# Features of the whole molecule only suit this one molecule. In the Gaussian approximation
# potential the energy is a sum of atomic energies $\varepsilon$, each a Gaussian process of the
# atom's own features. They are never observed, their sums are,
# $\mathbf y = \mathbf L^{\mathsf T} \boldsymbol\varepsilon$, and the covariance of two structures
# is a sum over pairs of atoms of the same element:
#
# $$ K_{ab} = \sum_{i \in a} \sum_{j \in b} k(\mathbf g_i, \mathbf g_j) \tag{23} $$
#
# In the code it is another class of inputs.

# %%
with lesson.timed("fit, GAP sum"):
    process = GaussianProcess(AtomicInputs(ani), RBF())
    process.fit(some, energies=some.energies, subset=lesson.choose(100, 20))
    processes["GAP sum"] = process
top = int(path_gfn2.energies.argmax())
ends = path_dft[[0, top]]
atomic = processes["GAP sum"].predict(ends, forces=False, variance=True, atomic_energies=True)
change = atomic.atomic_energies.view(2, -1).diff(dim=0)[0] * KCAL
deviation = atomic.atomic_energies_std.view(2, -1)[1] * KCAL
names = [f"{'HCO'['168'.index(str(int(z)))]}{i + 1}" for i, z in enumerate(symbols)]
lesson.table(
    "atomic-energies",
    [
        {
            "atom": names[i],
            "Δ energy, transition state - reactant (kcal/mol)": f"{float(change[i]):.1f}",
            "σ (kcal/mol)": f"{float(deviation[i]):.1f}",
        }
        for i in range(8)
    ],
)
lesson.number("sum over all atoms", change.sum(), "kcal/mol")
lesson.number("σ of the sum", atomic.energy_std[1] * KCAL, "kcal/mol")

# %% [markdown]
# The sum is known far better than its parts: only sums were observed, so the model can shift energy
# from one atom to another without contradiction. Atomic energies have no meaning of their own.
#
# ## Forces as observations
#
# A derivative of a Gaussian process is a Gaussian process too. Observations are now energies and
# gradient components,
# $\mathbf y_{\mathrm{ext}} = (\mathbf y, \partial \mathbf y / \partial \mathbf Q)$, and the
# covariance matrix gets blocks of derivatives:
#
# $$ \mathbf K_{\mathrm{ext}} = \begin{pmatrix} \mathbf K &
#    \partial \mathbf K / \partial \mathbf Q'^{\mathsf T} \\
#    \partial \mathbf K / \partial \mathbf Q &
#    \partial^2 \mathbf K / \partial \mathbf Q \partial \mathbf Q'^{\mathsf T} \end{pmatrix}
#    \tag{24, 25} $$
#
# The descriptor's Jacobian (lesson 3) carries derivatives by features over to derivatives by
# coordinates. Means and variances follow as in eqs 20 and 21, of energies and of forces
# (eqs 26 to 29). Each structure brings 36 numbers more (42 less three translations and three
# rotations, for which the answer is known), so that far fewer structures do. The price: 150
# structures make a matrix of 5550 rows.

# %%
with lesson.timed("fit, energies and forces"):
    process = GaussianProcess(ConcatenatedInputs(ani), RBF())
    report = process.fit(pool[:n_forces], subset=lesson.choose(50, 4), method="cholesky")
    processes["energies and forces"] = process
lesson.number("observations", report.observations)
lesson.number("length scale l, with forces", report.hyperparameters["length_scale"])
lesson.number("force noise", report.hyperparameters["force_noise"] * KCAL, "kcal/mol/Å")

# %% [markdown]
# ## The test
#
# `GaussianProcessPotential` makes the same kind of object of a fitted process as lessons 5 and 6
# had, with the same calls.

# %%
target = {"target": "delta"}
potentials = {
    name: GaussianProcessPotential(process, target, uncertainty=False)
    for name, process in processes.items()
}
rows = []
for name, potential in potentials.items():
    evaluation = evaluate(potential, test)
    errors = evaluation.summary()
    lesson.number(f"energy RMSE, {name}", errors["energy_rmse_kcal_mol"], "kcal/mol")
    lesson.number(f"force RMSE, {name}", errors["force_rmse_kcal_mol_A"], "kcal/mol/Å")
    rows.append(
        {
            "model": name,
            "structures": potential.process.report.structures,
            "energy RMSE (kcal/mol)": f"{errors['energy_rmse_kcal_mol']:.2f}",
            "force RMSE (kcal/mol/Å)": f"{errors['force_rmse_kcal_mol_A']:.2f}",
        }
    )
    file = "parity-" + name.lower().replace(" ", "-")
    title = f"GP, {name}, {len(test)} test structures"
    figure = evaluation.draw(lesson.file(f"{file}.png"), title)
    lesson.figure(figure, file, f"Predicted and reference Δ energies and forces: {name}.")
lesson.table("test", rows)

# %% [markdown]
# ## The learning curve
#
# How much is a force worth? The same two models, with hyperparameters as found above, for more and
# more structures. For smooth learning problems the error falls as a power of their number: a line
# in this picture.

# %%
curves = {
    "energies": (lesson.choose([25, 50, 100, 200, 400], [10, 20]), processes["energies"]),
    "energies and forces": (
        lesson.choose([10, 20, 40, 80, 150], [3, 6]),
        processes["energies and forces"],
    ),
}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for (name, (sizes, trained)), color in zip(curves.items(), ("C0", "C1"), strict=True):
    known = trained.hyperparameters
    points = []
    for size in (s for s in sizes if s <= len(pool)):
        process = GaussianProcess(
            ConcatenatedInputs(ani),
            known.covariance,
            signal_variance=known.signal_variance,
            energy_noise=known.energy_noise,
            force_noise=known.force_noise,
        )
        some = pool[:size]
        forces = some.forces if "forces" in name else None
        process.fit(some, energies=some.energies, forces=forces, optimize=False)
        errors = evaluate(GaussianProcessPotential(process, uncertainty=False), test).summary()
        points.append((size, errors["energy_rmse_kcal_mol"], errors["force_rmse_kcal_mol_A"]))
    x, energy, force = np.array(points).T
    axes[0].loglog(x, energy, "o-", color=color, label=name)
    axes[1].loglog(x, force, "o-", color=color, label=name)
axes[0].set(ylabel="energy RMSE (kcal/mol)")
axes[1].set(ylabel="force RMSE (kcal/mol/Å)")
for axis in axes:
    axis.set(xlabel="training structures")
    plain_log_ticks(axis.xaxis, axis.yaxis)
    axis.legend(frameon=False)
lesson.figure(figure, "learning-curve", "Test errors over the number of training structures.")

# %% [markdown]
# ## Is the uncertainty right?
#
# Eqs 21, 27 and 29 give a standard deviation σ for every energy and force component. If they are
# right, errors divided by σ are spread like the standard normal distribution: their root mean
# square is 1, and 95 % lie within ± 1.96.

# %%
exact = processes["energies and forces"].predict(test, variance=True)
pairs = {
    "energy": ((exact.energy - test.energies), exact.energy_std, "kcal/mol"),
    "force": ((exact.forces - test.forces), exact.forces_std, "kcal/mol/Å"),
}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for axis, (name, (error, deviation, unit)) in zip(axes, pairs.items(), strict=True):
    ratio = (error / deviation).flatten()
    lesson.number(f"rms of error / σ, {name}", ratio.square().mean().sqrt())
    lesson.number(f"within 1.96 σ, {name}", 100 * (ratio.abs() < 1.96).double().mean(), "%")
    x, y = deviation.flatten() * KCAL, error.abs().flatten() * KCAL
    axis.loglog(x, y, ".", ms=4 if name == "energy" else 2, alpha=0.5)
    line = np.array([float(x.min()), float(x.max())])
    axis.plot(line, line, "k", lw=0.8, label="σ")
    axis.plot(line, 1.96 * line, "k--", lw=0.8, label="1.96 σ")
    axis.set(xlabel=f"predicted σ of the {name} ({unit})", ylabel=f"|error| ({unit})")
    axis.set_ylim(bottom=float(x.min()) / 30)
    plain_log_ticks(axis.xaxis, axis.yaxis)
    axis.legend(frameon=False, loc="lower right")
lesson.figure(figure, "calibration", "Errors of the test structures over the predicted deviation.")

# %% [markdown]
# ## The energy profile, with its uncertainty
#
# Along the GFN2 path, none of whose structures were observed: GFN2 plus the predicted difference.
# At the scale of the barrier a band of two standard deviations is hardly wider than the line; to
# the right are the errors of both models, each with its band.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
zero = path_dft.energies[0]
reference = (path_dft.energies - zero) * KCAL
axes[0].plot(path_xi, (path_gfn2.energies - path_gfn2.energies[0]) * KCAL, "C1", label="GFN2")
axes[0].plot(path_xi, reference, "k", lw=2.5, alpha=0.4, label="B3LYP")
for name, color in (("energies", "C0"), ("energies and forces", "C2")):
    result = processes[name].predict(path_dft, forces=False, variance=True)
    middle = (path_gfn2.energies + result.energy - zero) * KCAL
    error, width = middle - reference, 2 * result.energy_std * KCAL
    label = f"{name}, {processes[name].report.structures}"
    axes[0].plot(path_xi, middle, "--", color=color, label=f"GFN2 + Δ ({name})")
    axes[1].plot(path_xi, error, color=color, label=label)
    axes[1].fill_between(path_xi, error - width, error + width, color=color, alpha=0.2, lw=0)
    if name == "energies":
        axes[0].fill_between(path_xi, middle - width, middle + width, color=color, alpha=0.2)
    rmse = error.square().mean().sqrt()
    lesson.number(f"energy RMSE on the path, {name}", rmse, "kcal/mol")
    lesson.number(f"largest σ on the path, {name}", width.max() / 2, "kcal/mol")
axes[1].axhline(0, color="k", lw=0.8)
axes[0].set(ylabel="energy (kcal/mol)", title="along the GFN2 path")
axes[1].set(ylabel="prediction - B3LYP (kcal/mol)", title="error, with 2 σ")
for axis in axes:
    axis.set(xlabel="ξ = d(C-O) - d(C-C) (Å)")
    axis.legend(frameon=False)
lesson.figure(figure, "profile", "The learned profile with two standard deviations, and its error.")

# %% [markdown]
# ## Using it, and knowing when not to
#
# Save, load, and give it to ASE with GFN2 as its baseline, as in lesson 5. There the relaxed
# profile of the learned surface had a barrier of its own, at a structure that GFN2's sampling
# hardly visits. Here is the same scan, and the Gaussian process says what it knows about each point
# of it.

# %%
best = GaussianProcessPotential(processes["energies and forces"], target, uncertainty=False)
best.save(lesson.file("model"))
calculator = pymlp.Calculator(lesson.file("model"), baseline=lower_level)
calculator.potential.uncertainty = False  # while optimising: it costs more than the energy
scan = np.linspace(-2.2, 1.0, lesson.choose(17, 2))
relaxed, structures = [], []
for value in scan:
    start = path_positions[int(np.abs(path_xi - value).argmin())]
    restraint = HarmonicRestraint([(*BROKEN, 1.0), (*FORMED, -1.0)], value, stiffness=100.0)
    atoms = Atoms(symbols, start, calculator=SumCalculator([calculator, restraint]))
    BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.03, steps=lesson.choose(60, 1))
    relaxed.append(calculator.get_potential_energy(atoms) * KCAL)
    structures.append(atoms)
reactant = Atoms(symbols, path_positions[0], calculator=calculator)
BFGS(reactant, logfile=None).run(fmax=0.03, steps=lesson.choose(60, 1))
relaxed = np.array(relaxed) - reactant.get_potential_energy() * KCAL
highest = int(relaxed.argmax())
process = calculator.potential.process
width = process.predict(pymlp.Batch.from_atoms(structures), variance=True).energy_std * KCAL
lesson.number("barrier of the learned surface", relaxed[highest], "kcal/mol")
lesson.number("its σ", width[highest], "kcal/mol")
lesson.number("its d(C-O)", structures[highest].get_distance(*BROKEN), "Å")
lesson.number("its d(C-C)", structures[highest].get_distance(*FORMED), "Å")
lesson.view(
    molecule_html(
        symbols,
        np.array([atoms.positions for atoms in structures]),
        labels=[f"ξ = {x:.2f} Å, {e:.1f} kcal/mol" for x, e in zip(scan, relaxed, strict=True)],
    ),
    "relaxed",
)

# %% [markdown]
# B3LYP itself, relaxed with its own gradients (`pymlp.data.claisen_stationary_dft_path()`), has a
# barrier of 27.4 kcal/mol. (The 27.2 of the literature is with diffuse functions in the basis set.)
#
# For comparison, structures that no one has sampled: a C–H bond of the transition state is
# stretched, step by step. The model has never seen a bond break there. Its energies mean less and
# less, and σ says so.

# %%
stretch = np.linspace(-0.2, 0.8, lesson.choose(21, 4))
stretched = []
for extra in stretch:
    atoms = Atoms(symbols, path_positions[top])
    atoms.set_distance(0, 6, atoms.get_distance(0, 6) + extra, fix=0)
    stretched.append(atoms)
doubt = process.predict(pymlp.Batch.from_atoms(stretched), forces=False, variance=True).energy_std
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
axes[0].plot(path_xi, reference, "k", lw=2.5, alpha=0.4, label="B3LYP on the GFN2 path")
axes[0].errorbar(scan, relaxed, 2 * width, fmt="o-", ms=3, capsize=2, label="relaxed, 2 σ")
axes[0].set(xlabel="ξ (Å)", ylabel="energy (kcal/mol)", title="relaxed on the learned surface")
axes[0].legend(frameon=False)
axes[1].semilogy(stretch, doubt * KCAL, "o-", ms=3)
axes[1].axhline(float(exact.energy_std.median()) * KCAL, color="grey", ls=":", label="test, median")
axes[1].set(xlabel="stretch of a C-H bond (Å)", ylabel="σ (kcal/mol)", title="out of the data")
plain_log_ticks(axes[1].yaxis)
axes[1].legend(frameon=False)
lesson.figure(figure, "use", "The relaxed profile with its uncertainty, and a bond stretched.")
lesson.number("σ at a stretch of 0.8 Å", doubt[-1] * KCAL, "kcal/mol")

# %% [markdown]
# ## The same from the command line
#
# ```
# pymlp init gpr --train claisen_dft.npz@200: --validation claisen_dft.npz@:80 -o run.yaml
# pymlp train run.yaml -o runs/gpr          # conjugate gradients where the matrix is too large
# pymlp evaluate runs/gpr claisen_dft.npz@80:200
# ```
#
# ## Exercises
#
# 1. `Matern52()` or `RationalQuadratic()` from `pymlp.covariances` in place of `RBF()`: which has
#    the largest likelihood, which the smallest test error?
# 2. Exchange of the two hydrogen atoms of a CH₂ group leaves the energy as it is, but not the
#    features strung together. `find_permutations` in `pymlp.permutations` finds such exchanges, and
#    `GaussianProcess(..., permutations=...)` sums over them. How much does it help?
# 3. `AtomicInputs` with forces, 50 structures: compare with whole-structure features.
# 4. Active learning: fit 20 structures, then add, one at a time, the structure of the pool with the
#    largest σ. Compare the errors with those of 40 random structures.
# 5. Why does σ not fall to zero at the training structures? What decides how far it falls?

# %%
lesson.end()
