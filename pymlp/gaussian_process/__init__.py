"""Gaussian process regression on energies and forces (SPEC section 3, eqs 15-29).

From structures to predictions: `inputs` (features and Jacobians), `training_set` (deflation,
mean, transform), `points`, `assembly` (covariance blocks) or `prediction` (the matrix-free
product), `solvers` (Cholesky, conjugate gradients, inducing points), and at the top
`regression.GaussianProcess`. `vectors.VectorProcess` is the same for functions of plain points.
"""

from pymlp.gaussian_process.fit_report import FitReport, GaussianProcessPrediction
from pymlp.gaussian_process.inputs import (
    AtomicInputs,
    CombinedInputs,
    ConcatenatedInputs,
    InverseDistances,
    StructureInputs,
)
from pymlp.gaussian_process.likelihood import Hyperparameters, log_marginal_likelihood
from pymlp.gaussian_process.regression import GaussianProcess
from pymlp.gaussian_process.solvers import SolverOptions
from pymlp.gaussian_process.vectors import VectorPrediction, VectorProcess

__all__ = [
    "AtomicInputs",
    "CombinedInputs",
    "ConcatenatedInputs",
    "FitReport",
    "GaussianProcess",
    "GaussianProcessPrediction",
    "Hyperparameters",
    "InverseDistances",
    "SolverOptions",
    "StructureInputs",
    "VectorPrediction",
    "VectorProcess",
    "log_marginal_likelihood",
]
