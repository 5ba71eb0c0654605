"""Learning rate and loss weights: pure functions of the step, so that a resumed run repeats them.

The tutorial's loss (SPEC section 2, eq 14) is L = w_E MSE(E) + w_F MSE(F) with w_E = 1 and
w_F = 1 + 99 lr/lr0, both divided by their sum. MSE(E) is in energy^2, MSE(F) in (energy/length)^2:
the ratio of the two does not depend on the unit of energy (eV or kcal/mol give the same minimum),
only on that of length, which is Å here as it is in the tutorial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LossWeights", "PlateauState", "learning_rate_factor"]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the energy and the force error as functions of the learning rate.

    :param energy: w_E
    :param force_start: w_F while the learning rate has its initial value
    :param force_end: w_F as the learning rate goes to zero
    """

    energy: float = 1.0
    force_start: float = 100.0
    force_end: float = 1.0

    def at(self, lr_factor: float) -> tuple[float, float]:
        """Return (w_E, w_F), normalised to the sum 1, for lr/lr0 = ``lr_factor``."""
        force = self.force_end + (self.force_start - self.force_end) * lr_factor
        total = self.energy + force
        return self.energy / total, force / total


def learning_rate_factor(
    kind: str,
    step: int,
    total_steps: int,
    steps_per_epoch: int,
    *,
    final: float = 1e-3,
    decay: float = 0.95,
    decay_every: int = 10,
    warmup: float = 0.0,
) -> float:
    """Return lr/lr0 before optimiser step ``step`` (counted from 0).

    ``"cosine"`` falls from 1 to ``final`` along half a cosine over ``total_steps``;
    ``"exponential"`` multiplies by ``decay`` every ``decay_every`` epochs (the tutorial's: 0.95
    every 10); ``"constant"`` and ``"plateau"`` (its reductions are in `PlateauState`) give 1.
    The first ``warmup`` part of all steps rises linearly.

    :raises ValueError: for an unknown kind
    """
    if kind == "cosine":
        progress = min(step / max(total_steps, 1), 1.0)
        factor = final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    elif kind == "exponential":
        factor = decay ** (step // max(steps_per_epoch, 1) // decay_every)
    elif kind in ("constant", "plateau"):
        factor = 1.0
    else:
        raise ValueError(f"kind must be cosine, exponential, plateau or constant, got {kind!r}")
    rise = warmup * total_steps
    return factor * min(1.0, (step + 1) / rise) if rise > 0 else factor


@dataclass
class PlateauState:
    """The part of a plateau schedule that depends on the past; part of every checkpoint.

    :param factor: what one reduction multiplies the learning rate by
    :param patience: validations without improvement before a reduction
    :param final: the smallest lr/lr0
    """

    factor: float = 0.5
    patience: int = 20
    final: float = 1e-3
    scale: float = field(default=1.0, init=False)
    best: float = field(default=math.inf, init=False)
    waited: int = field(default=0, init=False)

    def update(self, value: float) -> None:
        """Take the newest validation error; reduce the scale after ``patience`` without a gain."""
        if value < self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = max(self.scale * self.factor, self.final), 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scale, self.best = float(state["scale"]), float(state["best"])
        self.waited = int(state["waited"])
