"""The training of one network (one member of a committee) as a LightningModule.

All that an interrupted run needs to go on exactly (weights, averaged weights, best weights,
optimiser, plateau state, counters, random generators) is in the module or in its checkpoint.
The learning rate and the order of the structures are functions of step and epoch.
"""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from pymlp import units
from pymlp.config import TrainingSection
from pymlp.descriptors.base import Descriptor
from pymlp.fused_networks import energies_and_slopes_to_train
from pymlp.neighbors import forces_from_pairs
from pymlp.networks import ElementNetworks
from pymlp.pair_ops import sum_by_structure
from pymlp.training.dataset import TrainingBatch
from pymlp.training.schedule import LossWeights, PlateauState, learning_rate_factor

__all__ = ["ErrorSums", "ForceMatching", "energies_and_forces"]


def energies_and_forces(
    network: ElementNetworks,
    descriptor: Descriptor,
    batch: TrainingBatch,
    *,
    forces: bool,
    create_graph: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return energies [B] (eV) and forces [A, 3] (eV/Å) of the cached structures.

    With v = dE/dG from the networks, F = -J^T v is one ``descriptor.vjp``. Positions carry no
    gradient: the loss then differentiates F with respect to v alone, which is one ``_jvp``. Where
    the descriptor has weights, it goes back in two steps, and the first one is trained.
    """
    features, pull = descriptor.features_to_train(batch.features, batch.pairs, batch.types)
    if not forces:
        return _sums(network(features, batch.types), batch), None
    atomic, by_feature = energies_and_slopes_to_train(
        network, features, batch.types, create_graph=create_graph
    )
    slopes = pull(by_feature)
    pair_gradients = descriptor.geometry_vjp(slopes, batch.displacements, batch.pairs, batch.types)
    return _sums(atomic, batch), forces_from_pairs(pair_gradients, batch.pairs)


def _sums(atomic: Tensor, batch: TrainingBatch) -> Tensor:
    return sum_by_structure(atomic, batch.structure_index, batch.n_structures)


@dataclass
class ErrorSums:
    """Sums of squared errors, kept as float64 tensors so that no step waits for the device."""

    energy: Tensor | float = 0.0
    force: Tensor | float = 0.0
    n_energies: int = 0
    n_forces: int = 0

    def add(self, energy_errors: Tensor, force_errors: Tensor | None) -> None:
        """Add the errors of one batch: [B] eV and [A, 3] eV/Å."""
        self.energy = self.energy + energy_errors.detach().double().square().sum()
        self.n_energies += energy_errors.numel()
        if force_errors is not None:
            self.force = self.force + force_errors.detach().double().square().sum()
            self.n_forces += force_errors.numel()

    def rmse(self) -> tuple[float, float]:
        """Return the root mean square errors of energies (eV) and force components (eV/Å)."""
        energy = math.sqrt(float(self.energy) / max(self.n_energies, 1))
        force = math.sqrt(float(self.force) / self.n_forces) if self.n_forces else math.nan
        return energy, force


@dataclass
class _Progress:
    """Early stopping and the best epoch; part of every checkpoint."""

    best: float = math.inf
    best_epoch: int = -1
    waited: int = 0
    stopped: bool = False
    weights: dict[str, Tensor] = field(default_factory=dict)


class ForceMatching(LightningModule):
    """One network trained on energies and forces of cached structures.

    Args:
        network: the per-element networks, their feature and energy scales already set.
        descriptor: gives J^T v; trained with the network where it has weights.
        settings: the ``training`` section of the configuration.
        steps_per_epoch: optimiser steps of one epoch.
        loss_unit: (eV/Å)^2 (eV^2 without forces): the loss is divided by it, which makes it, its
            gradient and ``gradient_clip`` independent of the unit of energy.
        seed: of this member; names the member on resuming.
        forces: whether forces are trained on.
    """

    def __init__(
        self,
        network: ElementNetworks,
        descriptor: Descriptor,
        settings: TrainingSection,
        *,
        steps_per_epoch: int,
        loss_unit: float,
        seed: int,
        forces: bool,
    ) -> None:
        super().__init__()
        parts: dict[str, torch.nn.Module] = {"network": network}
        if descriptor.trainable:
            parts["descriptor"] = descriptor
        self.trained = torch.nn.ModuleDict(parts)
        self.averaged = (
            copy.deepcopy(self.trained).requires_grad_(False) if settings.ema else self.trained
        )
        # In a list, so that it is no submodule: without weights it has no place in checkpoints.
        self._descriptor = [descriptor]
        self.settings, self.seed, self.with_forces = settings, seed, forces
        self.steps_per_epoch, self.loss_unit = steps_per_epoch, loss_unit
        loss, schedule = settings.loss, settings.schedule
        self.weights = LossWeights(loss.energy, loss.force_start, loss.force_end)
        self.plateau = PlateauState(
            schedule.plateau_factor, schedule.plateau_patience, schedule.final
        )
        self.progress = _Progress()
        self.train_sums = ErrorSums()
        self.validation_sums = ErrorSums()
        self.row: dict[str, float] = {}

    def _parts(self, modules: torch.nn.ModuleDict) -> tuple[ElementNetworks, Descriptor]:
        network, descriptor = modules["network"], self._descriptor[0]
        if "descriptor" in modules:
            descriptor = modules["descriptor"]  # type: ignore[assignment]
        return network, descriptor  # type: ignore[return-value]

    def best(self) -> tuple[ElementNetworks, Descriptor]:
        """Return network and descriptor with the weights of the best validation."""
        if self.progress.weights:
            self.averaged.load_state_dict(self.progress.weights)
        return self._parts(self.averaged)

    # -- optimisation -----------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, or AdamW where a weight decay is set."""
        # fused: one call for all weights (60 µs, where one by one they take 180).
        weights = [
            {
                "params": [w for w in part.parameters() if w.requires_grad],
                "share": 1.0 if name == "network" else self.settings.descriptor_rate,
            }
            for name, part in self.trained.items()
        ]
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        if decay:
            return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
        return torch.optim.Adam(weights, lr=rate, fused=True)

    @property
    def lr_factor(self) -> float:
        """lr/lr0 of the next optimiser step."""
        schedule = self.settings.schedule
        return self.plateau.scale * learning_rate_factor(
            schedule.kind,
            self.global_step,
            self.settings.epochs * self.steps_per_epoch,
            self.steps_per_epoch,
            final=schedule.final,
            decay=schedule.decay,
            decay_every=schedule.decay_every,
            warmup=schedule.warmup,
        )

    def training_step(self, batch: TrainingBatch, batch_index: int) -> Tensor:
        """Return the loss of one batch, in units of ``loss_unit``."""
        factor = self.lr_factor
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.settings.learning_rate * factor * group["share"]
        energies, forces = energies_and_forces(
            *self._parts(self.trained), batch, forces=self.with_forces, create_graph=True
        )
        energy_errors = energies - batch.energies
        weight_energy, weight_force = self.weights.at(factor)
        loss = weight_energy * energy_errors.square().mean()
        force_errors = None
        if forces is not None and batch.forces is not None:
            force_errors = forces - batch.forces
            loss = loss + weight_force * force_errors.square().mean()
        self.train_sums.add(energy_errors, force_errors)
        return loss / self.loss_unit

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the averaged weights towards the new ones."""
        if not self.settings.ema:
            return
        # The average forgets the random start quickly, then slows down to its final pace.
        step = self.global_step
        keep = min(self.settings.ema, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.averaged.parameters()), list(self.trained.parameters()), 1.0 - keep
            )

    def on_train_epoch_start(self) -> None:
        """Begin new sums of errors."""
        self.train_sums = ErrorSums()

    # -- validation -------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Begin new sums of errors."""
        self.validation_sums = ErrorSums()

    def validation_step(self, batch: TrainingBatch, batch_index: int) -> None:
        """Add the errors of the averaged weights on one batch."""
        with torch.enable_grad():
            energies, forces = energies_and_forces(
                *self._parts(self.averaged), batch, forces=self.with_forces, create_graph=False
            )
        force_errors = (
            forces - batch.forces if forces is not None and batch.forces is not None else None
        )
        self.validation_sums.add(energies - batch.energies, force_errors)

    def on_validation_epoch_end(self) -> None:
        """Keep the best weights; advance the plateau schedule and early stopping."""
        if self.trainer.sanity_checking:
            return
        score = self._score(self.validation_sums)
        if self.settings.schedule.kind == "plateau":
            self.plateau.update(score)
        progress = self.progress
        if score < progress.best:
            progress.best, progress.best_epoch, progress.waited = score, self.current_epoch, 0
            progress.weights = {
                name: value.detach().cpu().clone()
                for name, value in self.averaged.state_dict().items()
            }
        else:
            progress.waited += 1
            if self.settings.early_stopping and progress.waited >= self.settings.early_stopping:
                progress.stopped = True
        if not math.isfinite(score):
            raise FloatingPointError(
                f"the validation error became {score} in epoch {self.current_epoch + 1}; "
                "lower training.learning_rate or set training.gradient_clip"
            )

    def _score(self, sums: ErrorSums) -> float:
        """The loss at zero learning rate: what the last steps minimise, in ``loss_unit``."""
        weight_energy, weight_force = self.weights.at(0.0)
        energy, force = sums.rmse()
        score = weight_energy * energy**2
        if self.with_forces:
            score += weight_force * force**2
        return score / self.loss_unit

    def on_train_epoch_end(self) -> None:
        """Collect the row of the log of this epoch; stop where early stopping said so."""
        to_kcal = units.EV_TO_KCAL_MOL
        energy, force = self.train_sums.rmse()
        self.row = {
            "epoch": self.current_epoch + 1,
            "step": self.global_step,
            "learning_rate": self.settings.learning_rate * self.lr_factor,
            "train_energy_rmse_kcal_mol": energy * to_kcal,
            "train_force_rmse_kcal_mol_A": force * to_kcal,
        }
        if (self.current_epoch + 1) % self.settings.validate_every == 0:
            energy, force = self.validation_sums.rmse()
            self.row |= {
                "validation_energy_rmse_kcal_mol": energy * to_kcal,
                "validation_force_rmse_kcal_mol_A": force * to_kcal,
                "validation_loss": self._score(self.validation_sums),
            }
        if self.progress.stopped:
            self.trainer.should_stop = True

    # -- checkpoints ------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is neither weight nor optimiser: best weights, counters, generators."""
        name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
        checkpoint["pymlp"] = {
            "seed": self.seed,
            "plateau": self.plateau.state_dict(),
            "progress": dict(vars(self.progress)),
            "random": {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "python": random.getstate(),
                # Lists, not arrays: the checkpoint then loads without unpickling any class.
                "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, gauss],
            },
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        state = checkpoint["pymlp"]
        self.plateau.load_state_dict(state["plateau"])
        self.progress = _Progress(**state["progress"])
        generators = state["random"]
        torch.set_rng_state(generators["torch"])
        if generators["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(generators["cuda"])
        version, internal, gauss = generators["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, position, has_gauss, cached = generators["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
