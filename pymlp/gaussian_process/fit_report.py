"""What a fit and a prediction give back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["FitReport", "GaussianProcessPrediction"]


@dataclass
class FitReport:
    """What a fit did, in internal units (eV, Å); plain values that go into a model file."""

    structures: int = 0
    observations: int = 0
    method: str = ""
    hyperparameters: dict[str, float] = field(default_factory=dict)
    log_likelihood: float | None = None
    likelihood_structures: int = 0
    features: int = 0
    compression_loss: float = 0.0
    discarded_noise: float = 0.0
    permutations: int = 1
    jitter: float = 0.0
    iterations: int = 0
    residual: float = 0.0
    converged: bool = True
    inducing: int = 0
    single_precision_error: tuple[float, float] = (0.0, 0.0)  # eV, eV/Å; on training structures
    cpu_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GaussianProcessPrediction:
    """Predictions for B structures with A atoms; standard deviations where they were asked for."""

    energy: Tensor  # [B] eV
    forces: Tensor | None = None  # [A, 3] eV/Å
    energy_std: Tensor | None = None  # [B] eV
    forces_std: Tensor | None = None  # [A, 3] eV/Å
    atomic_energies: Tensor | None = None  # [A] eV, GAP sum only
    atomic_energies_std: Tensor | None = None  # [A] eV, GAP sum only
