"""Gaussian process regression of energies and forces (eqs 15-29), fit and prediction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pymlp.covariances import RBF, Covariance
from pymlp.gaussian_process import solvers
from pymlp.gaussian_process.fit_report import FitReport, GaussianProcessPrediction
from pymlp.gaussian_process.inputs import AtomicInputs, StructureInputs
from pymlp.gaussian_process.leave_one_out import deviation_scale, left_out
from pymlp.gaussian_process.likelihood import (
    Hyperparameters,
    maximize_likelihood,
    noise_diagonal,
)
from pymlp.gaussian_process.prediction import Sources, evaluate, sources_of
from pymlp.gaussian_process.sharding import Shards
from pymlp.gaussian_process.training_set import (
    Mean,
    Preparation,
    TrainingSet,
    equal_numbers,
    make_transforms,
    with_symmetry,
)
from pymlp.gaussian_process.variance import Posterior
from pymlp.gaussian_process.weight_search import fit_feature_weights
from pymlp.structures import Batch

__all__ = ["FitReport", "GaussianProcess", "GaussianProcessPrediction"]


class GaussianProcess:
    """A Gaussian process over structures.

    Args:
        inputs: the features: `ConcatenatedInputs`, `AtomicInputs` (GAP sum) or `InverseDistances`.
        covariance: with its starting parameters; a length scale of None in `fit` means a start
            from the data.
        mean: "zero", "constant", or "linear" (per element).
        deflate: project gradients onto internal coordinates; None: where no structure is
            periodic.
        compression: share of the Jacobians (root of squared norm) that a projection of the
            features may lose; None keeps all features.
        drop: the same for leaving out single features, which is cheaper and keeps the symmetry
            cheap; not together with `compression`.
        permutations: atom permutations [S, N] of equivalent atoms, a closed group with the
            identity, for whole-structure features; see `pymlp.permutations`.
        feature_weights: [p] factors on raw features, length scales of their own; `fit` can find
            them (`weight_structures`).
        energy_noise: σ_E in eV, start or fixed value.
        force_noise: σ_F in eV/Å, start or fixed value.
        signal_variance: σ_f² in eV², used where hyperparameters are not optimised.
    """

    def __init__(
        self,
        inputs: StructureInputs,
        covariance: Covariance | None = None,
        *,
        mean: Literal["zero", "constant", "linear"] = "constant",
        deflate: bool | None = None,
        compression: float | None = None,
        drop: float | None = None,
        permutations: Tensor | None = None,
        feature_weights: Tensor | None = None,
        energy_noise: float = 1e-3,
        force_noise: float = 1e-2,
        signal_variance: float = 1.0,
    ) -> None:
        if permutations is not None and isinstance(inputs, AtomicInputs):
            raise ValueError("permutations must be None for the GAP sum, which is invariant")
        self.inputs = inputs
        self.mean = Mean(mean)
        self.deflate = deflate
        self.compression = compression
        self.drop = drop
        self.permutations = permutations
        self.feature_weights = feature_weights
        self.hyperparameters = Hyperparameters(
            covariance or RBF(), signal_variance, energy_noise, force_noise
        )
        self.preparation: Preparation | None = None
        self.sources: dict[int, Sources] = {}
        self.posterior: Posterior | None = None
        self.report = FitReport()
        self.deviation_scale = (1.0, 1.0)
        self._fast: dict[torch.dtype, tuple[dict[int, Sources], Preparation]] = {}

    # -- fit ---------------------------------------------------------------------------------

    def prepare(
        self,
        batch: Batch,
        energies: Tensor | None,
        forces: Tensor | None,
        shards: Shards | None = None,
    ) -> TrainingSet:
        """Fix mean, deflation and feature transform; return points and targets.

        With several ranks the training set holds this rank's part of the structures.

        Raises:
            ValueError: neither energies nor forces; whole-structure features and structures with
                different atoms.
        """
        if energies is None and forces is None:
            raise ValueError("energies or forces must be given, got neither")
        kinds = equal_numbers(batch)
        whole = not isinstance(self.inputs, AtomicInputs)
        if whole and len(kinds) > 1:
            raise ValueError(
                "whole-structure features need the same atoms in the same order in all "
                f"structures, got {len(kinds)} different sequences; use the GAP sum"
            )
        started = time.process_time()
        deflate = not batch.periodic if self.deflate is None else self.deflate
        transforms, lost = make_transforms(
            self.inputs,
            batch,
            self.compression,
            self.permutations,
            self.feature_weights,
            self.drop,
        )
        numbers = kinds[0][0].cpu() if whole else None
        self.preparation = Preparation(self.inputs, transforms, deflate, numbers)
        if self.permutations is not None:
            self.preparation = with_symmetry(self.preparation, self.permutations, kinds[0][0].cpu())
        self.mean = self.mean.fitted(batch, energies)
        own = _labelled(batch, energies, forces)
        if shards is not None and shards.active:
            own = own[shards.part(len(batch))]
        training = TrainingSet.build(self.preparation, self.mean, own, own.energies, own.forces)
        self.report = FitReport(
            structures=len(batch),
            observations=len(training.targets),
            features=max(points.features.shape[2] for points in training.groups),
            compression_loss=lost,
            discarded_noise=training.discarded,
            permutations=1 if self.permutations is None else len(self.permutations),
        )
        self.report.cpu_seconds["features"] = time.process_time() - started
        return training

    def fit(
        self,
        batch: Batch,
        energies: Tensor | None = None,
        forces: Tensor | None = None,
        *,
        method: Literal["auto", "cholesky", "cg", "sparse"] = "auto",
        optimize: bool = True,
        subset: int | None = 50,
        restarts: int = 0,
        start_from_data: bool = True,
        weight_structures: int | None = None,
        leave_out: int | None = None,
        options: solvers.SolverOptions | None = None,
        checkpoint: str | Path | None = None,
        report: Callable[[str], None] | None = None,
    ) -> FitReport:
        """Condition on labelled structures.

        Where torch.distributed is initialised, every rank calls this with the same batch; each
        holds and multiplies its own part of the structures ("cg" only), and all end up with the
        same fitted process.

        Args:
            batch: B structures.
            energies: [B] in eV; the batch's own where neither labels are given.
            forces: [A, 3] in eV/Å; likewise.
            method: "cholesky" (exact), "cg" (the same solution, matrix-free), "sparse"
                (inducing points), or "auto": Cholesky up to 10 000 observations, else CG.
            optimize: maximise the likelihood first; else use the parameters as they are.
            subset: structures for the likelihood, at random; None for all. Absolute noises are
                kept when the number of structures grows.
            restarts: of the likelihood's maximisation.
            start_from_data: start the search at a length scale and noises read off the data, not
                at the constructor's.
            weight_structures: find a length scale for every group of features, and with them all
                other hyperparameters, by the likelihood of so many random structures (whole
                structures with energies and forces); takes the place of `subset`.
            leave_out: scale the standard deviations to the errors on so many random training
                structures, each left out of the fit by itself (Cholesky only; `leave_one_out`).
            options: of the solver.
            checkpoint: file where conjugate gradients save their state and find it again; one
                per rank.
            report: called with lines of progress.

        Returns:
            The report, also kept as `self.report`.

        Raises:
            ValueError: no labels, unknown method, a fit that does not fit into memory.
            ArithmeticError: a covariance matrix that no jitter makes positive definite.
        """
        if energies is None and forces is None:
            energies, forces = batch.energies, batch.forces
        options = options or solvers.SolverOptions()
        shards = Shards()
        if shards.active and method != "cg":
            raise ValueError(f"method must be 'cg' over several ranks, got {method!r}")
        with torch.no_grad():
            weighted = None
            if optimize and weight_structures is not None:
                started = time.process_time()
                weighted = fit_feature_weights(
                    self, _labelled(batch, energies, forces), weight_structures, report=report
                )
                likelihood_seconds = time.process_time() - started
            training = self.prepare(batch, energies, forces, shards)
            if weighted is not None:
                self.report.log_likelihood, found_with = weighted
                self.report.likelihood_structures = found_with
                self.hyperparameters = self.hyperparameters.for_structures(
                    found_with, len(batch), training.discarded
                )
                self.report.cpu_seconds["likelihood"] = likelihood_seconds
            elif optimize:
                part = training
                if shards.active:  # the same structures on every rank
                    part = self._labelled_subset(batch, energies, forces, subset)
                self.optimize(part, subset, restarts, start_from_data, report)
            started = time.process_time()
            chosen: str = method
            if chosen == "auto":
                chosen = "cholesky" if len(training.targets) <= 10_000 else "cg"
            result = solvers.solve(
                chosen, training, self.hyperparameters, options, self.report, checkpoint, report
            )
            self.report.cpu_seconds["solve"] = time.process_time() - started
            self.sources = Shards().gather_sources(sources_of(result.groups, result.weights))
            self.posterior = result.posterior
            self.deviation_scale = (1.0, 1.0)
            if leave_out is not None and chosen == "cholesky" and self.posterior is not None:
                started = time.process_time()
                parameters = self.hyperparameters
                noise = noise_diagonal(
                    result.groups,
                    parameters.relative_energy_noise,
                    parameters.relative_force_noise,
                )
                errors = left_out(
                    result.groups, self.posterior.subtract, result.weights, noise, leave_out
                )
                self.deviation_scale = deviation_scale(errors, parameters.signal_variance)
                self.report.cpu_seconds["leave_one_out"] = time.process_time() - started
            self._fast.clear()
            self.report.single_precision_error = self._single_precision_error(batch)
        self.report.method = chosen
        self.report.hyperparameters = {
            **self.hyperparameters.covariance.parameters(),
            "signal_variance": self.hyperparameters.signal_variance,
            "energy_noise": self.hyperparameters.energy_noise,
            "force_noise": self.hyperparameters.force_noise,
        }
        return self.report

    def _labelled_subset(
        self, batch: Batch, energies: Tensor | None, forces: Tensor | None, subset: int | None
    ) -> TrainingSet:
        """Random structures of the whole batch, the same on every rank."""
        assert self.preparation is not None
        count = len(batch) if subset is None else min(subset, len(batch))
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
        part = _labelled(batch, energies, forces)[order[:count].sort().values]
        return TrainingSet.build(self.preparation, self.mean, part, part.energies, part.forces)

    def calibrate(self, batch: Batch) -> tuple[float, float]:
        """Scale all standard deviations to the errors on labelled structures not trained on.

        For posteriors of conjugate gradients and inducing points, which are too wide (about twice
        at 500 structures): they are conditioned on part of the observations. An exact posterior
        needs no such factor.

        Args:
            batch: B labelled structures.

        Returns:
            The factors of energy and force deviations, also kept for all later predictions.

        Raises:
            ValueError: no labels, or no posterior.
        """
        if batch.energies is None or batch.forces is None:
            raise ValueError("batch must hold energies and forces to calibrate with")
        self.deviation_scale = (1.0, 1.0)
        result = self.predict(batch, variance=True)
        assert result.forces is not None
        assert result.energy_std is not None
        assert result.forces_std is not None
        pairs = (
            (result.energy - batch.energies, result.energy_std),
            (result.forces - batch.forces, result.forces_std),
        )
        energy, force = (
            float(((error / std.clamp(min=1e-300)).square().mean()).sqrt()) for error, std in pairs
        )
        self.deviation_scale = (energy, force)
        return self.deviation_scale

    def optimize(
        self,
        training: TrainingSet,
        subset: int | None = 50,
        restarts: int = 0,
        start_from_data: bool = True,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Maximise the likelihood of (a part of) a training set; sets `hyperparameters`."""
        started = time.process_time()
        part = training if subset is None else training.subset(subset)
        start = self.hyperparameters
        if start_from_data:
            start = data_driven_start(start, part)
        self.hyperparameters, likelihood = maximize_likelihood(
            part.groups, part.targets, start, restarts=restarts, report=report
        )
        self.report.log_likelihood = likelihood.value
        self.report.likelihood_structures = sum(len(points) for points in part.groups)
        self.report.cpu_seconds["likelihood"] = time.process_time() - started

    # -- prediction --------------------------------------------------------------------------

    def predict(
        self,
        batch: Batch,
        *,
        forces: bool = True,
        variance: bool = False,
        atomic_energies: bool = False,
        dtype: torch.dtype = torch.float64,
        chunk: int = 256,
    ) -> GaussianProcessPrediction:
        """Mean and, where asked for, standard deviation (eqs 20-22, 26-29).

        Args:
            batch: B structures.
            forces: whether forces are wanted.
            variance: standard deviations of energies and, with forces, of every force component;
                without the observation noise.
            atomic_energies: energies of the atoms (GAP sum), with their standard deviations
                where `variance` is set.
            dtype: float32 is faster; `report.single_precision_error` says what it costs (the
                largest change of an energy and of a force component on training structures).
            chunk: structures at a time.

        Raises:
            ValueError: not fitted; atomic energies of whole-structure features; a variance
                without a posterior.
        """
        if self.preparation is None or not self.sources:
            raise ValueError("the Gaussian process must be fitted before it can predict")
        if atomic_energies and not isinstance(self.inputs, AtomicInputs):
            raise ValueError("atomic energies exist in the GAP sum (AtomicInputs) only")
        if variance and self.posterior is None:
            raise ValueError("this Gaussian process was saved without its posterior covariance")
        from pymlp.gaussian_process.predictor import predict

        with torch.no_grad():
            return predict(self, batch, forces, variance, atomic_energies, dtype, chunk)

    def _single_precision_error(self, batch: Batch) -> tuple[float, float]:
        """The largest changes of energies and forces that float32 brings, on some structures."""
        part = batch[:: max(1, len(batch) // 16)]
        double, single = self.predict(part), self.predict(part, dtype=torch.float32)
        assert double.forces is not None
        assert single.forces is not None
        return (
            float((double.energy - single.energy).abs().max()),
            float((double.forces - single.forces).abs().max()),
        )

    def forget_precisions(self) -> None:
        """Drop converted copies of the weights, after the weights moved or changed."""
        self._fast.clear()

    def at_precision(self, dtype: torch.dtype) -> tuple[dict[int, Sources], Preparation]:
        """Sources and transforms in the precision of a prediction, made once."""
        if self.preparation is None:
            raise ValueError("the Gaussian process must be fitted before it can predict")
        if dtype not in self._fast:
            sources = {kind: item.to(dtype=dtype) for kind, item in self.sources.items()}
            transforms = {
                kind: item.to(dtype=dtype) for kind, item in self.preparation.transforms.items()
            }
            self._fast[dtype] = (sources, replace(self.preparation, transforms=transforms))
        return self._fast[dtype]

    def atomic_means(
        self, sources: dict[int, Sources], x: Tensor, types: tuple[int, ...], gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Energies [n, E] and ∂E/∂x [n, E, p'] of transformed features [n, E, p']."""
        energies = x.new_zeros(x.shape[:2])
        gradients = torch.zeros_like(x) if gradient else None
        for kind in sorted(set(types) & set(sources)):
            which = [index for index, value in enumerate(types) if value == kind]
            part = x if len(which) == len(types) else x[:, which]
            e, g = evaluate(
                sources[kind], part.flatten(0, 1), self.hyperparameters.covariance, gradient
            )
            energies[:, which] = e.view(part.shape[:2])
            if gradients is not None and g is not None:
                gradients[:, which] = g.view(part.shape)
        return energies, gradients


def _labelled(batch: Batch, energies: Tensor | None, forces: Tensor | None) -> Batch:
    """The batch with these labels in place of its own."""
    return replace(batch, energies=energies, forces=forces)


def data_driven_start(start: Hyperparameters, training: TrainingSet) -> Hyperparameters:
    """A length scale of the size of the data and small noises, where a search may begin."""
    by_type: dict[int, list[Tensor]] = {}
    for points in training.groups:
        for position, kind in enumerate(points.types):
            by_type.setdefault(kind, []).append(points.features[:50, position])
    distances = []
    for several in by_type.values():
        x = torch.cat(several)[:400]
        if len(x) > 1:
            distances.append(torch.pdist(x).median())
    typical = float(torch.stack(distances).max()) if distances else 1.0
    covariance = start.covariance.replace(length_scale=3.0 * typical if typical > 0 else 1.0)
    slopes = [
        points.jacobian.square().sum((1, 3)).mean()
        for points in training.groups
        if points.jacobian is not None
    ]
    scale = float(torch.stack(slopes).mean()) if slopes else 1.0
    relative = 1e-4 * covariance.at_zero()[1] * max(scale, 1e-12)
    return Hyperparameters(covariance, 1.0, 1e-5**0.5, relative**0.5)
