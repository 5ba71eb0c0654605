"""A Gaussian process run from a configuration: data in; model, errors and figures out.

The folder of a run holds what the folder of a network's run holds (``model.json``, weights,
``run.yaml``, ``metrics.json``, ``parity.png``), ``log.txt`` with the progress of the fit, and
while conjugate gradients run ``checkpoint.safetensors``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from pymlp import units
from pymlp.atomic_files import atomic_writer
from pymlp.config.gpr import GaussianProcessRun
from pymlp.covariances import COVARIANCES
from pymlp.devices import chosen_device
from pymlp.evaluation import Evaluation, evaluate
from pymlp.gaussian_process import (
    AtomicInputs,
    CombinedInputs,
    ConcatenatedInputs,
    GaussianProcess,
    InverseDistances,
    SolverOptions,
    StructureInputs,
)
from pymlp.gpr_potential import GaussianProcessPotential
from pymlp.io import data_hash
from pymlp.labelled_data import read_training_data, target_description
from pymlp.model_files import DESCRIPTION
from pymlp.permutations import find_permutations
from pymlp.potential import load
from pymlp.run_folder import claim, with_absolute_paths
from pymlp.structures import Batch
from pymlp.training.build import ani
from pymlp.training.run import TrainingResult

__all__ = ["train"]

#: What may change between a run and its resumption: paths, and where and how it is computed.
_NOT_IDENTITY = {
    "data": {"train", "validation"},
    "gaussian_process": {"device", "threads", "checkpoint_every"},
}


def train(
    config: GaussianProcessRun,
    directory: str | Path,
    *,
    resume: bool = False,
    base: str | Path = ".",
) -> TrainingResult:
    """Fit what a configuration describes.

    Args:
        config: the run.
        directory: folder to write; made if missing.
        resume: go on with an interrupted run in ``directory``. A finished run is left as it is.
        base: folder that the paths in the configuration are relative to.

    Raises:
        ValueError: for data that do not fit the configuration, a device that cannot be computed
            on, a folder that holds another run, a run that cannot be resumed with this
            configuration, a fit that needs more memory than there is.
        ArithmeticError: if no jitter makes the covariance matrix positive definite.
    """
    directory, base = Path(directory), Path(base)
    config = with_absolute_paths(config, base)
    section = config.gaussian_process
    if section.threads is not None:
        torch.set_num_threads(section.threads)
    device = chosen_device(section.device, "gaussian_process.device")
    training, validation = read_training_data(config.data, base)
    identity = {
        "config": config.model_dump(mode="json", exclude=_NOT_IDENTITY),
        "training_data": data_hash(training),
        "validation_data": data_hash(validation),
    }
    claim(directory, config, identity, resume=resume)
    if resume and (directory / DESCRIPTION).exists():
        return _finished(directory, training)
    started = time.perf_counter()
    training = training.to(device=device, dtype=torch.float64)
    process, permutations = _process(config, training)
    log = directory / "log.txt"

    def report(line: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.perf_counter() - started:9.1f} s  {line}\n")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{line}\033[K")
            sys.stderr.flush()

    checkpoint = directory / "checkpoint.safetensors"
    labelled = training.energies is not None and training.forces is not None
    weighted = section.feature_weights and section.features == "whole" and labelled
    fit = process.fit(
        training,
        method=section.method,
        subset=section.likelihood_structures,
        restarts=section.restarts,
        weight_structures=section.likelihood_structures if weighted else None,
        leave_out=40,
        options=SolverOptions(
            tolerance=section.tolerance,
            components=section.components,
            checkpoint_every=section.checkpoint_every,
            seed=section.seed,
            sparse={
                "inducing": section.inducing,
                "approximation": section.approximation,
                "selection": section.selection,
                "seed": section.seed,
            },
        ),
        checkpoint=checkpoint,
        report=report,
    )
    seconds = time.perf_counter() - started
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    potential = GaussianProcessPotential(
        process,
        {
            "target": target_description(config.data),
            "data": {
                "n_training": len(training),
                "n_validation": len(validation),
                "training_hash": identity["training_data"],
                "validation_hash": identity["validation_data"],
            },
            "config": identity["config"],
        },
        uncertainty=False,
    )
    if fit.method != "cholesky" and validation.forces is not None:
        process.calibrate(validation[:50].to(device=device, dtype=torch.float64))
    result = evaluate(potential, validation.to(device=device, dtype=torch.float64))
    metrics = result.summary() | {"training_seconds": round(seconds, 1)}
    potential.metadata["validation"] = metrics
    with atomic_writer(directory / "metrics.json") as file:
        json.dump({**metrics, "fit": asdict(fit)}, file, indent=1)
    figures = _figures(config, result, directory)
    potential.save(directory)  # last: a folder with a model holds a finished run
    checkpoint.unlink(missing_ok=True)
    notes = [*training.info.get("notes", []), *_notes(process, permutations)]
    return TrainingResult(directory, metrics, figures, notes)


def _finished(directory: Path, training: Batch) -> TrainingResult:
    """What a run left that had come to its end."""
    potential = load(directory)
    if not isinstance(potential, GaussianProcessPotential):
        raise ValueError(f"{directory} holds a model of another kind")
    process = potential.process
    notes = [
        *training.info.get("notes", []),
        *_notes(process, process.report.permutations),
        "the run was finished before: nothing was fitted",
    ]
    figures = [path for path in (directory / "parity.png",) if path.exists()]
    return TrainingResult(directory, potential.metadata["validation"], figures, notes)


def _process(config: GaussianProcessRun, training: Batch) -> tuple[GaussianProcess, int]:
    """The process of a configuration, and how many permutations of like atoms it sums over."""
    section = config.gaussian_process
    features = ani(config).to(training.positions.device)
    inputs: StructureInputs
    permutations = None
    if section.features == "atomic":
        inputs = AtomicInputs(features)
    else:
        inputs = ConcatenatedInputs(features)
        lengths = set(training.lengths)
        if section.equivalent_atoms and not training.periodic and len(lengths) == 1:
            n_atoms = lengths.pop()
            positions = training.positions.view(len(training), n_atoms, 3)
            permutations = find_permutations(
                training.numbers[:n_atoms], positions, seed=section.seed
            )
        if section.inverse_distances and not training.periodic and min(training.lengths) > 1:
            inputs = CombinedInputs(inputs, InverseDistances())
    covariance = section.covariance or ("rbf" if section.features == "atomic" else "matern52")
    process = GaussianProcess(
        inputs,
        COVARIANCES[covariance](),
        mean=section.mean,
        drop=section.drop if section.features == "whole" else None,
        permutations=permutations,
    )
    return process, 1 if permutations is None else len(permutations)


def _notes(process: GaussianProcess, permutations: int) -> list[str]:
    """What the fit found, for people."""
    kcal = units.EV_TO_KCAL_MOL
    fit = process.report
    values = ", ".join(f"{name} {value:.4g}" for name, value in fit.hyperparameters.items())
    notes = [
        f"{fit.structures} structures, {fit.observations} observations, {fit.method}",
        f"hyperparameters (eV, Å): {values}",
        f"gradient components without meaning: {fit.discarded_noise * kcal:.3f} kcal/mol/Å rms "
        "(label noise that deflation removed)",
    ]
    if permutations > 1:
        notes.append(f"{permutations} permutations of equivalent atoms")
    if fit.iterations:
        state = "converged" if fit.converged else "NOT converged"
        notes.append(f"{fit.iterations} iterations, residual {fit.residual:.1e}, {state}")
    if process.posterior is not None:
        how = (
            "training structures left out" if fit.method == "cholesky" else "validation structures"
        )
        energy, force = process.deviation_scale
        notes.append(
            f"standard deviations times {energy:.2f} (energies) and {force:.2f} (forces): {how}"
        )
    if fit.jitter:
        notes.append(f"jitter {fit.jitter:.1e} of the signal variance was needed")
    return notes


def _figures(config: GaussianProcessRun, result: Evaluation, directory: Path) -> list[Path]:
    """The parity plot; none without matplotlib."""
    what = "Δ, " if config.data.target == "delta" else ""
    title = f"{config.kind}, {what}{len(result.energies)} validation structures"
    try:
        return [result.draw(directory / "parity.png", title)]
    except ImportError:
        return []
