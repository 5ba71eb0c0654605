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
# # Lesson 2: A Gaussian process learns the Müller-Brown surface
#
# The same surface as in lesson 1, and another kind of model. A Gaussian process has no weights to
# train: its prediction follows from the data by linear algebra, and with every prediction comes a
# standard deviation that says how far to trust it. What is left to choose are two or three
# hyperparameters, and the data choose those too.
#
# You will see
#
# * what a covariance function assumes, and how observations turn a prior into a posterior;
# * the likelihood as a surface over the hyperparameters, and its maximum;
# * energies, gradients and their variances, with gradients predicted and with gradients observed;
# * how the error falls with the number of points, and what a smoother or rougher covariance does.
#
# Coordinates and energies of this surface have no physical units. The full run takes about a minute
# on two cores.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from pymlp.covariances import RBF, Covariance, Matern52, RationalQuadratic
from pymlp.gaussian_process import Hyperparameters, VectorProcess
from pymlp.lessons import begin
from pymlp.plotting import surface_maps
from pymlp.surfaces import MuellerBrown

lesson = begin()

# %% [markdown]
# ## Covariance functions
#
# A Gaussian process is a probability distribution over functions, $f \sim \mathcal{N}(0, K)$ (eqs
# 15, 16): before anything is known, the values of $f$ at any set of points are normally
# distributed, and the covariance of two of them depends on how far apart the points are. The
# **radial basis function** (RBF) says that the function is infinitely smooth, changes over
# distances of about $l$, and has values of about $\sigma_f$:
#
# $$k(\mathbf{g}, \mathbf{g}') = \sigma_f^2 \exp\left(
# -\frac{\lVert \mathbf{g} - \mathbf{g}' \rVert^2}{2 l^2} \right) \tag{17}$$
#
# The **Matérn** function with 5/2 as its order makes functions that can be differentiated twice, no
# more. The **rational quadratic** (RQ) is a mixture of RBFs of many lengths.

# %%
distance = torch.linspace(0, 3, 200, dtype=torch.float64)
covariances = {"RBF": RBF(), "Matérn 5/2": Matern52(), "RQ, α = 1": RationalQuadratic()}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
for name, covariance in covariances.items():
    left.plot(distance, covariance.terms(distance**2).k, label=name)
left.set(xlabel="distance / l", ylabel="covariance / σ_f²", title="covariance functions")
left.legend(frameon=False)

x = torch.linspace(0, 6, 200, dtype=torch.float64)
for seed, (name, covariance) in enumerate(covariances.items()):
    k = covariance.terms((x[:, None] - x) ** 2).k + 1e-8 * torch.eye(len(x))
    noise = torch.randn(len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    right.plot(x, torch.linalg.cholesky(k) @ noise, label=name)
right.set(xlabel="x / l", ylabel="f / σ_f", title="a function drawn from each prior")
lesson.figure(figure, "priors", "Three covariance functions, and a function drawn from each.")

# %% [markdown]
# ## From prior to posterior
#
# Now some values $\mathbf{y}$ are observed at points $X$, with a noise of variance $\sigma_n^2$
# (eq 18). What was a cloud of functions is narrowed to those that pass through the observations.
# Their mean and variance at new points $X_*$ are
#
# $$\bar{f}_* = K_* \left(K + \sigma_n^2 I\right)^{-1} \mathbf{y} \tag{20}$$
#
# $$\mathrm{cov}(f_*) = K_{**} - K_* \left(K + \sigma_n^2 I\right)^{-1} K_*^T \tag{21}$$
#
# First along a line, $y = 0.5$ on the Müller-Brown surface, from six values:

# %%
surface = MuellerBrown()
line = torch.linspace(-1.6, 0.9, 200, dtype=torch.float64)
height = torch.full_like(line, 0.5)
exact = surface.energy(torch.stack([line, height], dim=1))

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained", sharey=True)
for axis, count in zip(axes, (6, 9), strict=True):
    some = torch.linspace(-1.6, 0.9, count, dtype=torch.float64)
    values = surface.energy(torch.stack([some, torch.full_like(some, 0.5)], dim=1))
    process = VectorProcess(RBF(0.35), signal_variance=40.0).observe(some[:, None], values)
    along = process.predict(line[:, None], gradients=False, variance=True)
    low, high = (along.values + sign * 2 * along.values_std for sign in (-1, 1))
    axis.fill_between(line, low, high, color="C0", alpha=0.2, label="mean ± 2 σ")
    axis.plot(line, along.values, color="C0", label="mean")
    axis.plot(line, exact, "--", color="black", lw=1, label="reference")
    axis.plot(some, values, "o", color="C1", label="observed")
    axis.set(xlabel="x", title=f"{count} observations")
axes[0].set(ylabel="V(x, 0.5) (arbitrary units)")
axes[0].legend(frameon=False, fontsize="small")
lesson.figure(figure, "posterior", "Posterior along a line from six and from nine values.")

# %% [markdown]
# ## The surface, and its training points
#
# The grid of lesson 1: 696 points below $V = 10$, the **training region**, and the points
# **between** them, half a step away, for judging.

# %%
train = surface.low_points(surface.grid(lesson.choose(0.1, 0.2)))
between = surface.low_points(surface.grid().shifted())
energies, gradients = surface.energy(train), surface.gradient(train)
lesson.number("training points with V < 10", len(train))
lesson.number("points between them", len(between))

# %% [markdown]
# ## The likelihood decides
#
# Which $l$ and $\sigma_f$? Those that make the observations most probable. The logarithm of that
# probability weighs the fit to the data against the freedom of the model:
#
# $$\ln p(\mathbf{y} | X) = -\tfrac{1}{2} \mathbf{y}^T \tilde{K}^{-1} \mathbf{y}
# - \tfrac{1}{2} \ln \lvert \tilde{K} \rvert - \tfrac{n}{2} \ln 2\pi, \qquad
# \tilde{K} = K + \sigma_n^2 I \tag{19}$$
#
# Our values come from a formula and have no noise. Exactly zero would make $\tilde{K}$ singular in
# the computer's arithmetic, so we set $\sigma_n^2 = 10^{-10}\, \sigma_f^2$ and leave it there. Then
# the likelihood is a surface over two hyperparameters, and can be drawn. Its maximum is found from
# its analytic gradient by L-BFGS, in a few dozen steps; `optimize` does that.

# %%
NOISE = {"signal_variance": 100.0, "value_noise": 1e-4, "gradient_noise": 1e-3}
fixed = ("energy_noise", "force_noise")

process = VectorProcess(RBF(0.4), **NOISE).observe(train, energies)
with lesson.timed("maximum of the likelihood"):
    likelihood = process.optimize(fixed=fixed)
found = process.hyperparameters
lesson.number("length scale l", found.covariance.length_scale)
lesson.number("signal variance σ_f²", found.signal_variance)
lesson.number("log likelihood", likelihood.value, "nats")

# %%
count = lesson.choose(17, 5)
lengths = torch.logspace(-0.9, 0.0, count, dtype=torch.float64)
signals = torch.logspace(-1, 4, count, dtype=torch.float64)
with lesson.timed("likelihood surface"):
    heights = torch.tensor(
        [
            [
                process.log_likelihood(
                    Hyperparameters(RBF(float(length)), float(signal), 1e-5 * float(signal) ** 0.5)
                ).value
                for length in lengths
            ]
            for signal in signals
        ]
    )

figure, axis = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
best = float(likelihood.value)
drop = (best - heights).clamp(min=10.0)
levels = torch.linspace(1, 6, 21)
drawn = axis.contourf(lengths, signals, drop.log10(), levels, cmap="viridis_r", extend="max")
figure.colorbar(drawn, label="log₁₀ (maximum - log likelihood)", ticks=[1, 2, 3, 4, 5, 6])
axis.plot(found.covariance.length_scale, found.signal_variance, "*", color="red", ms=14)
axis.set(xscale="log", yscale="log", xlabel="length scale l", ylabel="signal variance σ_f²")
axis.set_xticks([0.15, 0.2, 0.3, 0.5, 1.0], ["0.15", "0.2", "0.3", "0.5", "1"])
axis.minorticks_off()
axis.set_title("likelihood; the star is the maximum found")
lesson.figure(figure, "likelihood", "Log likelihood over length scale and signal variance.")

# %% [markdown]
# Too short a length, and the model treats every point as if
# it stood alone; too long, and it cannot follow the walls of the valleys, which the first term
# punishes without mercy. Along the ridge a larger $\sigma_f$ goes with a longer $l$. The search
# goes uphill from where it starts, here $l = 0.4$: from far out on the right it could get lost.
#
# ## Energies, and how sure they are
#
# With these hyperparameters the process is conditioned on all 696 energies: one Cholesky
# factorisation.


# %%
def rmse(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


def judge(process: VectorProcess) -> dict[str, float]:
    """Errors in the training region and between its points, and how well they were foreseen."""
    row = {}
    for where, points in (("", train), (" between", between)):
        result = process.predict(points)
        row[f"energy RMSE{where}"] = rmse(result.values - surface.energy(points))
        row[f"gradient RMSE{where}"] = rmse(result.gradients - surface.gradient(points))
    return row


def covered(process: VectorProcess) -> float:
    """Share of the points between whose error is within 1.96 predicted standard deviations."""
    result = process.predict(between, gradients=False, variance=True)
    error = (result.values - surface.energy(between)).abs()
    return 100 * float((error < 1.96 * result.values_std).double().mean())


row = judge(process)
for name, value in row.items():
    lesson.number(f"energies observed: {name}", value)

# %% [markdown]
# On the points themselves the error is no more than the noise that we allowed. The honest number is
# the one between the points. What a Gaussian process adds is the fourth picture: it is unsure where
# there are few points, at the edge, and it is unsure in the same places where it is wrong. To see
# that, we take only a seventh of the points (the dots).

# %%
grid = surface.grid(lesson.choose(0.05, 0.1))
reference = grid.image(surface.energy(grid.points()))
outside = reference >= 10


def inside(image: Tensor) -> Tensor:
    return image.masked_fill(outside, float("nan"))


def picture(process: VectorProcess, name: str, points: Tensor | None, caption: str) -> None:
    result = process.predict(grid.points(), gradients=False, variance=True)
    predicted = grid.image(result.values)
    path = surface_maps(
        grid.x,
        grid.y,
        [
            ("reference", inside(reference), "value"),
            ("prediction", inside(predicted), "value"),
            ("prediction - reference", inside(predicted - reference), "difference"),
            ("standard deviation", inside(grid.image(result.values_std)), "positive"),
        ],
        lesson.file(f"{name}.png"),
        unit="arbitrary units",
        limits=(-15.0, 10.0),
        points=points,
        columns=2,
    )
    lesson.figure(path, name, caption)


order = torch.randperm(len(train), generator=torch.Generator().manual_seed(4))
few = order[: lesson.choose(100, 60)]
sparse = VectorProcess(RBF(0.4), **NOISE).observe(train[few], energies[few])
sparse.optimize(fixed=fixed)
lesson.number("100 energies: energy RMSE between", judge(sparse)["energy RMSE between"])
lesson.number("100 energies: errors within 1.96 σ", covered(sparse), "%")
picture(sparse, "few_energies", train[few], "Reference, prediction, difference, deviation, few.")

# %%
lesson.number("all energies: errors within 1.96 σ", covered(process), "%")
picture(process, "energies", None, "Reference, prediction, difference, deviation: 696 energies.")

# %% [markdown]
# ## Gradients, predicted
#
# The mean of eq 20 is a sum of covariance functions, and can be differentiated: the gradient of the
# prediction is exact (eq 22), and with it come the forces.
#
# $$\frac{\partial \bar{f}_*}{\partial \mathbf{q}} = \frac{\partial K_*}{\partial \mathbf{q}}
# \left(K + \sigma_n^2 I\right)^{-1} \mathbf{y} \tag{22}$$


# %%
def gradient_picture(process: VectorProcess, name: str, caption: str) -> None:
    slopes = process.predict(grid.points()).gradients
    true = surface.gradient(grid.points())
    panels = []
    for k, coordinate in enumerate("xy"):
        title = f"∂V/∂{coordinate}"
        panels.append((f"{title}, reference", inside(grid.image(true[:, k])), "value"))
        panels.append((f"{title}, prediction", inside(grid.image(slopes[:, k])), "value"))
        error = inside(grid.image(slopes[:, k] - true[:, k]))
        panels.append((f"{title}, difference", error, "difference"))
    path = surface_maps(
        grid.x,
        grid.y,
        panels,
        lesson.file(f"{name}.png"),
        unit="arbitrary units",
        limits=(-60.0, 60.0),
    )
    lesson.figure(path, name, caption)


gradient_picture(sparse, "few_gradients_predicted", "Gradients predicted from 100 energies.")

# %% [markdown]
# ## Gradients, observed
#
# Derivatives of a Gaussian process are normally distributed with it, so observed gradients join the
# observed energies as further rows of the covariance matrix:
#
# $$\mathbf{y}_{\text{ext}} = \begin{pmatrix} \mathbf{y} \\ \partial \mathbf{y} / \partial Q
# \end{pmatrix}, \qquad
# K_{\text{ext}} = \begin{pmatrix} K & \dfrac{\partial K}{\partial Q'^T} \\
# \dfrac{\partial K}{\partial Q} & \dfrac{\partial^2 K}{\partial Q\, \partial Q'^T}
# \end{pmatrix} \tag{24, 25}$$
#
# Mean and variance are eqs 20 and 21 with these (eqs 26-29). Three numbers for each point make a
# matrix of 2088 rows; the hyperparameters are looked for with 150 of the points, which is enough
# for two of them.

# %%
subset = lesson.choose(150, 40)
extended = VectorProcess(RBF(0.4), **NOISE).observe(train, energies, gradients)
with lesson.timed("hyperparameters with gradients"):
    extended.optimize(subset=subset, fixed=fixed)
with lesson.timed("energies and gradients of all points"):
    row = judge(extended)
for name, value in row.items():
    lesson.number(f"gradients observed: {name}", value)
result = extended.predict(between, variance=True)
error = ((result.gradients - surface.gradient(between)) / result.gradients_std).abs()
within = 100 * float((error < 1.96).double().mean())
lesson.number("gradients observed: gradient errors within 1.96 σ", within, "%")

sparse_extended = VectorProcess(RBF(0.4), **NOISE)
sparse_extended.observe(train[few], energies[few], gradients[few]).optimize(fixed=fixed)
picture(
    sparse_extended,
    "few_gradients",
    train[few],
    "Reference, prediction, difference, deviation: few energies and gradients.",
)
gradient_picture(sparse_extended, "few_gradients_observed", "Gradients, few of them observed.")

# %% [markdown]
# The gradients of the same 100 points, 300 numbers where there were 100, make the error three or
# four times smaller. That is little compared with what they do when there are a few more points:
#
# ## How many points?
#
# The same random order of points, cut at different lengths; hyperparameters anew for each size.

# %%
sizes = [size for size in (100, 150, 200, 300, 400, 500, 600, 696) if size <= len(train)]
sizes = lesson.choose(sizes, sizes[:2])
rows = []
with lesson.timed("learning curves"):
    for size in sizes:
        part = order[:size]
        line_of: dict[str, float] = {"points": size}
        for name, slopes in (("energies", None), ("with gradients", gradients[part])):
            process = VectorProcess(RBF(0.4), **NOISE).observe(train[part], energies[part], slopes)
            process.optimize(fixed=fixed, subset=None if slopes is None else subset)
            errors = judge(process)
            line_of[f"{name}: energy RMSE"] = errors["energy RMSE between"]
            line_of[f"{name}: gradient RMSE"] = errors["gradient RMSE between"]
        rows.append(line_of)
lesson.table("learning curves, errors between the points", rows)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for axis, kind in zip(axes, ("energy RMSE", "gradient RMSE"), strict=True):
    for name, marker in (("energies", "o-"), ("with gradients", "s-")):
        axis.loglog(sizes, [row[f"{name}: {kind}"] for row in rows], marker, label=name)
    axis.set(xlabel="training points", ylabel=f"{kind} (arbitrary units)")
    axis.set_xticks([100, 200, 400, 700], ["100", "200", "400", "700"])
    axis.minorticks_off()
    axis.legend(frameon=False)
lesson.figure(figure, "learning_curves", "Errors between the points over the number of points.")

# %% [markdown]
# Seven times as many points, and the error is five hundred times smaller, with gradients five
# thousand times: so it goes for a smooth function and a covariance that knows it to be smooth. A
# network does not do that, and neither will a Gaussian process for a molecule, whose points never
# come to lie as densely in 3N dimensions.
#
# ## RBF, Matérn or rational quadratic?


# %%
def compare(kind: Covariance, slopes: Tensor | None) -> dict[str, float]:
    process = VectorProcess(kind, **NOISE).observe(train, energies, slopes)
    likelihood = process.optimize(fixed=fixed, subset=subset if slopes is not None else None)
    return {
        "log likelihood (nats)": likelihood.value,
        "length scale": process.hyperparameters.covariance.length_scale,
        **{name: value for name, value in judge(process).items() if "between" in name},
        "errors within 1.96 σ (%)": covered(process),
    }


rows = []
for kind in (RBF(0.4), Matern52(0.4), RationalQuadratic(0.4)):
    for observed, slopes in (("energies", None), ("with gradients", gradients)):
        name = kind.name.replace("_", " ").replace("matern52", "matern 5/2")
        rows.append({"covariance": name, "observed": observed, **compare(kind, slopes)})
lesson.table("covariances", rows)
lesson.number("Matérn, energies: energy RMSE between", rows[2]["energy RMSE between"])

# %% [markdown]
# The surface is a sum of Gaussians, so the RBF has the right idea of it, and the rational quadratic
# ends close to an RBF (its α has become large). The Matérn function expects kinks in the second
# derivative that are not there: its errors are larger, and its standard deviations larger still
# (they cover more than 95 %: it is too modest). The likelihood, which has seen the training points
# only, tells the same: higher is better. (Compare rows with the same kind of observations; with
# gradients it is that of 150 points.) Lesson 7 asks again, for a molecule.
#
# ## Exercises
#
# 1. Set `value_noise` to 1 and look at the likelihood again. Is there still one peak? Let the
#    likelihood find the noise as well (leave `fixed` out): what does it find, and why?
# 2. Observe gradients only (`observe(points, gradients=...)`), no energy. Up to what is the surface
#    known then?
# 3. Add random noise of 0.5 to the energies. Does the likelihood find it? Do the standard
#    deviations still cover 95 % of the errors?
# 4. Start with 10 points, and add the point with the largest standard deviation again and again.
#    How many do you need for an error of 0.1, and how many when they are drawn at random? This is
#    active learning.
# 5. Predict at $(1.2, 2.2)$, outside the region, with its standard deviation. Compare with what the
#    network of lesson 1 says there.

# %%
lesson.end()
