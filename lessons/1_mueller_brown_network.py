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

# %%
import matplotlib.pyplot as plt

from pymlp.lessons import begin
from pymlp.surfaces import MuellerBrown

lesson = begin()

# %% [markdown]
# ## The surface

# %%
surface = MuellerBrown()
grid = surface.grid()
points = surface.low_points(grid)
lesson.number("training points with V < 10", len(points))

figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
image = grid.image(surface.energy(grid.points()))
drawn = axis.contourf(grid.x, grid.y, image.clamp(max=10), levels=24)
figure.colorbar(drawn, label="V (arbitrary units)")
axis.set(xlabel="x", ylabel="y")
lesson.figure(figure, "reference", "The Müller-Brown surface below V = 10.")

# %% [markdown]
# ## Exercises

# %%
lesson.end()
