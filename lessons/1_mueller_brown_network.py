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
# # Lesson 1: A neural network learns the Müller-Brown surface
#
# A molecule's potential energy is a function of all its coordinates. Before we learn one of those,
# we learn a function of two coordinates that can be drawn: the surface of Müller and Brown, with
# three valleys and two passes between them. Everything that matters later is here already: the
# network, the loss, what gradients add, and how much depends on the way a network is trained.
#
# You will see
#
# * a feed-forward network of 81 parameters and its loss;
# * training on energies alone, and on energies with gradients;
# * why the same network, on the same data, can be seven times better.
#
# The surface has no physical units: coordinates and energies are plain numbers. The full run takes
# about two minutes on two cores.

# %%
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from pymlp import ElementNetworks
from pymlp.lessons import begin
from pymlp.networks import group_by_element
from pymlp.plotting import surface_maps
from pymlp.surfaces import MuellerBrown

lesson = begin()

# %% [markdown]
# ## The surface
#
# $$V(x, y) = \frac{1}{10} \sum_{k=1}^{4} A_k \exp\left[a_k (x - x_k)^2
# + b_k (x - x_k)(y - y_k) + c_k (y - y_k)^2\right]$$
#
# The factor 1/10 is ours: it makes the numbers as large as reaction energies in kcal/mol. We know
# $V$ and $\nabla V$ on a grid of step 0.1 over $-1.8 \le x < 1.4$, $-0.4 \le y < 2.4$, and keep the
# points with $V < 10$: what lies higher no reaction ever visits. This is the **training region**.
# To see whether a model has learned the surface or only the points, we also ask it **between**
# them, on the same grid shifted by half a step.

# %%
surface = MuellerBrown()
train = surface.low_points(surface.grid())
between = surface.low_points(surface.grid().shifted())
energies, gradients = surface.energy(train), surface.gradient(train)
lesson.number("training points with V < 10", len(train))
lesson.number("points between them", len(between))
lesson.number("spread (standard deviation) of the energies", energies.std())
lesson.number("spread of the gradient components", gradients.std())

# For pictures: twice as fine, and grey where the surface is higher than 10.
grid = surface.grid(lesson.choose(0.05, 0.1))
reference = grid.image(surface.energy(grid.points()))
outside = reference >= 10


def inside(image: Tensor) -> Tensor:
    return image.masked_fill(outside, float("nan"))


figure, axis = plt.subplots(figsize=(5.6, 4.3), layout="constrained")
drawn = axis.contourf(grid.x, grid.y, inside(reference), levels=30)
axis.contour(grid.x, grid.y, inside(reference), levels=15, colors="white", linewidths=0.4,
             linestyles="solid")  # fmt: skip
axis.plot(*train.T, ".", color="black", ms=1.2, label="training points")
axis.plot(*zip(*surface.minima, strict=True), "o", color="white", mec="black", label="minima")
axis.plot(*zip(*surface.saddles, strict=True), "X", color="red", mec="black", label="saddle points")
figure.colorbar(drawn, label="V (arbitrary units)")
axis.set(xlabel="x", ylabel="y", facecolor="#dddddd")
axis.legend(loc="upper right", fontsize="small")
lesson.figure(figure, "reference", "The Müller-Brown surface below 10, with the training points.")

# %% [markdown]
# ## The network
#
# The energy of a molecule will be a sum over its atoms (eq 12); here there is one "atom", and its
# features are $(x, y)$. The network (eq 13) has one hidden layer of 20 neurons and tanh as
# activation:
#
# $$E(\mathbf{g}) = b^{(2)} + \sum_{m=1}^{20} w^{(2)}_m
# \tanh\left(b^{(1)}_m + \sum_{i} w^{(1)}_{mi}\, g_i\right) \tag{12, 13}$$
#
# $20 \times 2 + 20$ numbers in the first layer and $20 + 1$ in the second make 81 parameters.
# `ElementNetworks` is the class that all potentials of this package use; it holds one network for
# each element, so we tell it that there is a single kind of atom.


# %%
def new_network(seed: int, dtype: torch.dtype = torch.float32) -> ElementNetworks:
    return ElementNetworks(2, ["X"], hidden=(20,), activation="tanh", seed=seed, dtype=dtype)


lesson.number("parameters", sum(p.numel() for p in new_network(0).parameters()))


def predict(network: ElementNetworks, points: Tensor, for_training: bool = False):
    """Energies [n], and their gradients [n, 2] by automatic differentiation."""
    points = points.detach().requires_grad_()
    types = torch.zeros(len(points), dtype=torch.int64)
    energy = network(points, types, group_by_element(types, 1))
    (gradient,) = torch.autograd.grad(energy.sum(), points, create_graph=for_training)
    return (energy, gradient) if for_training else (energy.detach(), gradient.detach())


# %% [markdown]
# ## The loss
#
# We minimise the mean squared error of the energies, and of their gradients where those are known
# (eq 14; forces are gradients with the other sign):
#
# $$L = w_E \frac{1}{n} \sum_{i} \left(E_i - E_i^{\text{ref}}\right)^2
# + w_F \frac{1}{2n} \sum_{i} \left\lVert \nabla E_i - \nabla E_i^{\text{ref}} \right\rVert^2
# \tag{14}$$
#
# To change the weights of the network, the gradient of $L$ by the weights is needed; $L$ itself
# contains $\nabla E$, so the network is differentiated twice. That is why an activation must have
# two derivatives (tanh has, ReLU has not).


# %%
def loss(network: ElementNetworks, which: Tensor, w_gradient: float) -> Tensor:
    if w_gradient == 0:
        types = torch.zeros(len(which), dtype=torch.int64)
        energy = network(train[which], types, group_by_element(types, 1))
        return (energy - energies[which]).square().mean()
    energy, gradient = predict(network, train[which], for_training=True)
    error = (energy - energies[which]).square().mean()
    return error + w_gradient * (gradient - gradients[which]).square().mean()


def rmse(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


results: list[dict[str, str | float]] = []


def judge(name: str, network: ElementNetworks) -> dict[str, str | float]:
    row: dict[str, str | float] = {"model": name}
    for where, points in (("", train), (" between", between)):
        energy, gradient = predict(network, points)
        row[f"energy RMSE{where}"] = rmse(energy - surface.energy(points))
        row[f"gradient RMSE{where}"] = rmse(gradient - surface.gradient(points))
    results.append(row)
    return row


# %% [markdown]
# ## Training on energies, as one first would
#
# Coordinates and energies go into the network as they are. **Adam** takes a step of at most about
# 0.01 in every parameter, 1000 times, each with all points. **Stochastic gradient descent** (SGD)
# follows the slope itself, computed from 32 points at a time: 22 small steps in each of its 1000
# epochs.

# %%
epochs = lesson.choose(1000, 20)


def descend(optimizer, network, w_gradient: float = 0.0, batch: int | None = None) -> list[float]:
    """Train; the loss after every epoch."""
    shuffled = torch.Generator().manual_seed(0)
    history = []
    for _ in range(epochs):
        order = torch.randperm(len(train), generator=shuffled)
        total = 0.0
        for which in order.split(batch or len(train)):
            optimizer.zero_grad()
            value = loss(network, which, w_gradient)
            value.backward()
            optimizer.step()
            total += float(value.detach()) * len(which) / len(train)
        history.append(total)
    return history


adam = new_network(seed=0)
with lesson.timed("Adam, energies"):
    adam_loss = descend(torch.optim.Adam(adam.parameters(), lr=0.01), adam)

sgd = new_network(seed=0)
with lesson.timed("SGD, energies"):
    sgd_loss = descend(torch.optim.SGD(sgd.parameters(), lr=0.01), sgd, batch=32)

for name, network in (("Adam, energies", adam), ("SGD, energies", sgd)):
    row = judge(name, network)
    lesson.number(f"{name}: energy RMSE", row["energy RMSE"])
    lesson.number(f"{name}: gradient RMSE", row["gradient RMSE"])

# %%
figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
axis.semilogy(adam_loss, color="C0", label="Adam, all points at a time")
axis.semilogy(sgd_loss, color="C1", label="SGD, 32 points at a time")
axis.set(xlabel="epoch", ylabel="loss (arbitrary units squared)")
axis.legend(frameon=False)
lesson.figure(figure, "loss", "Loss of Adam and SGD over the epochs.")


# %%
def picture(name: str, network: ElementNetworks, caption: str) -> None:
    predicted = grid.image(predict(network, grid.points())[0])
    path = surface_maps(
        grid.x,
        grid.y,
        [
            ("reference", inside(reference), "value"),
            ("network", inside(predicted), "value"),
            ("network - reference", inside(predicted - reference), "difference"),
        ],
        lesson.file(f"{name}.png"),
        unit="arbitrary units",
        limits=(-15.0, 10.0),
    )
    lesson.figure(path, name, caption)


picture("energies_adam", adam, "Reference, network trained on energies by Adam, difference.")

# %% [markdown]
# The valleys are there, and the walls. But the difference has a pattern as large as the passes that
# a chemist would ask about, and the gradients (the forces, in a simulation) are off by a third of
# their spread: an error in the energy that changes sign over a short distance is a large error in
# its slope.
#
# ## Training on energies and gradients
#
# Each point now gives three numbers instead of one. The same network, the same 1000 steps of Adam,
# $w_E = w_F = 1$:

# %%
both = new_network(seed=0)
with lesson.timed("Adam, energies and gradients"):
    descend(torch.optim.Adam(both.parameters(), lr=0.01), both, w_gradient=1.0)
row = judge("Adam, energies and gradients", both)
lesson.number("Adam, energies and gradients: energy RMSE", row["energy RMSE"])
lesson.number("Adam, energies and gradients: gradient RMSE", row["gradient RMSE"])
picture("gradients_adam", both, "Reference, network trained on energies and gradients, difference.")

# %% [markdown]
# The gradients have become better, the energies have not. Is the network too small? Did we need
# more data? Neither: it has not been trained.
#
# ## The same network, trained properly
#
# Three changes, each of them ordinary:
#
# 1. **Standardise.** The network sees coordinates with mean 0 and standard deviation 1, and its
#    output is multiplied by the spread of the energies before their mean is added. Otherwise the
#    second layer first has to grow by a factor of five, with steps of 0.01.
# 2. **Weigh.** Both parts of the loss in units of their own spread:
#    $w_F/w_E = \mathrm{var}(E)/\mathrm{var}(\nabla E)$.
# 3. **Use curvature.** L-BFGS estimates the second derivatives of the loss from the steps that it
#    has taken, and finds the length of each step by a line search. For a few hundred parameters,
#    all points at a time and in double precision nothing simple is better. (Networks with 100 000
#    parameters are trained with Adam all the same, for longer and with a falling step.)


# %%
def train_properly(seed: int, w_gradient: float) -> tuple[ElementNetworks, float]:
    network = new_network(seed, torch.float64)
    network.feature_mean.copy_(train.mean(0)[None])
    network.feature_scale.copy_(train.std(0)[None])
    network.energy_shift.fill_(energies.mean())
    network.energy_scale.fill_(energies.std())
    steps = lesson.choose(2000, 30)
    optimizer = torch.optim.LBFGS(
        network.parameters(),
        max_iter=steps,
        max_eval=2 * steps,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
    )
    everything = torch.arange(len(train))

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(network, everything, w_gradient) / energies.var()
        value.backward()
        return value

    optimizer.step(closure)
    return network, float(closure().detach())


w_gradient = float(energies.var() / gradients.var())
lesson.number("weight of the gradients w_F/w_E", w_gradient)

with lesson.timed("L-BFGS, energies"):
    energies_only, _ = train_properly(0, 0.0)
judge("L-BFGS, energies", energies_only)

seeds = range(lesson.choose(3, 1))
with lesson.timed("L-BFGS, energies and gradients, all starts"):
    trained = [train_properly(seed, w_gradient) for seed in seeds]
for seed, (network, _) in zip(seeds, trained, strict=True):
    judge(f"L-BFGS, energies and gradients, start {seed + 1}", network)
best = min(trained, key=lambda pair: pair[1])[0]  # by the loss on the training points

lesson.table("networks", results)

# %% [markdown]
# All rows have the same 81 parameters and the same 696 points. The starts differ by the random
# numbers that the weights began with: a loss of this kind has many minima. We go on with the start
# that has the lowest loss on the training points (the points between are for judging only).

# %%
row = judge("best start", best)
lesson.number("trained properly: energy RMSE", row["energy RMSE"])
lesson.number("trained properly: gradient RMSE", row["gradient RMSE"])
lesson.number("trained properly: energy RMSE between", row["energy RMSE between"])
lesson.number("trained properly: gradient RMSE between", row["gradient RMSE between"])
picture("trained_properly", best, "Reference, network trained properly, difference.")

# %% [markdown]
# The errors between the points are those on the points: with gradients known everywhere, 81
# parameters cannot fit the points and miss what lies between.
#
# ## What a chemist asks
#
# Energies of the valleys and passes, relative to the deepest valley:

# %%
places = torch.tensor([*surface.minima, *surface.saddles], dtype=torch.float64)
names = ["minimum 1", "minimum 2", "minimum 3", "saddle 1-3", "saddle 3-2"]
columns = {"reference": surface.energy(places)}
for name, network in (("Adam, energies", adam), ("Adam, with gradients", both)):
    columns[name] = predict(network, places)[0]
columns["trained properly"] = predict(best, places)[0]
lesson.table(
    "stationary points",
    [
        {"place": name, **{key: float(value[k] - value[0]) for key, value in columns.items()}}
        for k, name in enumerate(names)
        if k > 0
    ],
)
barrier = columns["trained properly"][3] - columns["trained properly"][0]
exact = columns["reference"][3] - columns["reference"][0]
lesson.number("error of the barrier 1-3, trained properly", barrier - exact)

# %%
arrows = surface.low_points(surface.grid(0.2))
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
shown = ((adam, "Adam, energies"), (best, "trained properly"))
for axis, (network, name) in zip(axes, shown, strict=True):
    axis.contour(grid.x, grid.y, inside(reference), levels=12, colors="#bbbbbb", linewidths=0.6)
    force = -predict(network, arrows)[1]
    error = force + surface.gradient(arrows)
    drawn = axis.quiver(*arrows.T, *error.T, error.norm(dim=1), cmap="magma_r", clim=(0, 12),
                        scale=120, width=0.005)  # fmt: skip
    axis.set(title=name, xlabel="x", ylabel="y", aspect="equal")
figure.colorbar(drawn, ax=axes, label="error of the force (arbitrary units)")
lesson.figure(figure, "force_errors", "Errors of the forces of two networks as arrows.")

# %% [markdown]
# ## Exercises
#
# 1. Train the Adam network for ten times as many epochs. Does it reach the network trained
#    properly? Which of the three changes helps most, one at a time?
# 2. Replace tanh by `"relu"` and train on energies. Look at the map of the prediction: why would it
#    be useless for dynamics?
# 3. Give the network 10 and 40 neurons. When do the errors between the points leave those on the
#    points?
# 4. Train on 100 of the points only, with and without gradients. How many energies is one gradient
#    worth?
# 5. Ask the network outside its region, at $(1.2, 2.2)$. What would tell you that it does not know?
#    (Lesson 2 has an answer.)
#
# The 10 lines of `descend` are what `pymlp train` does for molecules in lessons 5 and 6, with
# shuffled batches, a falling learning rate, averaged weights, and validation on the side.

# %%
lesson.end()
