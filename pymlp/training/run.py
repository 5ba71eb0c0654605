"""A whole training run: data in, members of the committee trained, model and figures out.

The folder of a run holds ``model.json`` and ``weights-*.safetensors`` (what `pymlp.load` reads),
``run.yaml`` (the configuration), ``log.csv``, ``metrics.json``, ``loss.png`` and ``parity.png``;
while it is trained and after it also ``checkpoint.ckpt`` for resuming. A committee has log and
checkpoint of each member in ``member-k``.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pymlp.atomic_files import atomic_writer
from pymlp.config import NetworkRun, kind_named
from pymlp.descriptors.base import Descriptor
from pymlp.devices import chosen_device
from pymlp.evaluation import evaluate
from pymlp.io import data_hash
from pymlp.labelled_data import read_training_data, target_description
from pymlp.networks import ElementNetworks
from pymlp.run_folder import claim, with_absolute_paths
from pymlp.structures import Batch
from pymlp.training.dataset import CachedStructures, EpochShuffle
from pymlp.training.log import read_log
from pymlp.training.scales import Scales, some_structures

__all__ = ["TrainingResult", "train"]

_VALIDATION_BATCH = 256


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves.

    Attributes:
        directory: the folder of the run.
        metrics: errors on the validation structures, by the keys of ``pymlp evaluate --json``,
            and ``training_seconds``.
        figures: files of the figures drawn.
        notes: what was read and how it was converted.
    """

    directory: Path
    metrics: dict[str, float | int]
    figures: list[Path]
    notes: list[str]


def train(
    config: NetworkRun,
    directory: str | Path,
    *,
    resume: bool = False,
    base: str | Path = ".",
) -> TrainingResult:
    """Train what a configuration describes.

    Args:
        config: the run.
        directory: folder to write; made if missing.
        resume: go on with an interrupted run in ``directory``, to the same bits as if it had not
            been interrupted. A finished run is left as it is.
        base: folder that the paths in the configuration are relative to.

    Raises:
        ValueError: for data that do not fit the configuration, a folder that holds another run,
            or a run that cannot be resumed with this configuration.
        ImportError: without the ``train`` extra.
        FloatingPointError: if the training diverges.
    """
    _require_lightning()
    directory, base = Path(directory), Path(base)
    config = with_absolute_paths(config, base)
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    training, validation = read_training_data(config.data, base)
    if config.trains_on_forces and training.forces is None:
        raise ValueError(f"{config.data.train} holds no forces, but training.loss weights them")
    descriptor: Descriptor = kind_named(config.kind).build_descriptor(config)
    _check_elements(descriptor, training, validation, config)
    device = chosen_device(config.training.device, "training.device")
    identity = {
        "config": _identity(config),
        "training_data": data_hash(training),
        "validation_data": data_hash(validation),
    }
    claim(directory, config, identity, resume=resume)

    descriptor = descriptor.to(device)
    dtype = getattr(torch, config.training.precision)
    limit = config.training.cache_limit_gb * 1e9
    cached = CachedStructures(training, descriptor, dtype=dtype, device=device, cache_limit=limit)
    held_out = CachedStructures(
        validation, descriptor, dtype=dtype, device=device, cache_limit=limit
    )
    part = some_structures(cached)
    descriptor.fit(part.displacements.double(), part.pairs, part.types)
    seconds = 0.0
    models = []
    for member in range(config.network.committee):
        network, own, used = _train_member(
            config, member, directory, descriptor, cached, held_out, training
        )
        models.append((network, own))
        seconds += used
    return _finish(config, directory, models, cached, training, validation, identity, seconds)


# -- preparation ----------------------------------------------------------------------------


def _require_lightning() -> None:
    try:
        import lightning.pytorch  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "training needs Lightning; install it with: pip install 'pymlp[train]'"
        ) from error


def _identity(config: NetworkRun) -> dict[str, Any]:
    """What must not change between a run and its resumption: all but paths and devices."""
    values = config.model_dump(mode="json")
    for name in ("train", "validation"):
        del values["data"][name]
    for name in ("device", "threads", "checkpoint_every"):
        del values["training"][name]
    return values


def _check_elements(
    descriptor: Descriptor, training: Batch, validation: Batch, config: NetworkRun
) -> None:
    for batch, name in ((training, config.data.train), (validation, config.data.validation)):
        unknown = sorted(set(batch.elements) - set(descriptor.elements))
        if unknown:
            raise ValueError(
                f"{name} holds {', '.join(unknown)}, which elements: {config.elements} in the "
                "configuration leaves out"
            )


# -- training -------------------------------------------------------------------------------


def _member_folder(config: NetworkRun, directory: Path, member: int) -> Path:
    return directory if config.network.committee == 1 else directory / f"member-{member}"


def _train_member(
    config: NetworkRun,
    member: int,
    directory: Path,
    descriptor: Descriptor,
    cached: CachedStructures,
    held_out: CachedStructures,
    training: Batch,
) -> tuple[ElementNetworks, Descriptor, float]:
    """Train one network (and its descriptor, where that has weights), or go on with it.

    Returns network and descriptor with their best weights, and the seconds that it took.
    """
    from lightning.pytorch import Trainer
    from torch.utils.data import DataLoader

    from pymlp.training.callbacks import (
        AtomicCheckpoints,
        CsvLog,
        EpochProgress,
        PeriodicCheckpoint,
    )
    from pymlp.training.module import ForceMatching

    settings = config.training
    seed = settings.seed + member
    torch.manual_seed(seed)
    dtype = getattr(torch, settings.precision)
    descriptor = descriptor.initialized(seed, dtype)
    network = ElementNetworks(
        descriptor.n_features,
        config.elements,
        config.network.hidden,
        config.network.activation,
        config.network.residual,
        seed=seed,
        dtype=dtype,
    )
    scales = Scales.fit(descriptor, cached, training, config)
    scales.apply(network)
    order = EpochShuffle(len(cached), settings.batch_size, seed)
    module = ForceMatching(
        network,
        descriptor,
        settings,
        steps_per_epoch=len(order),
        loss_unit=scales.loss_unit,
        seed=seed,
        forces=config.trains_on_forces,
    )
    folder = _member_folder(config, directory, member)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.ckpt"
    label = f"{config.kind} {member + 1}/{config.network.committee}"
    device = cached.types.device
    with _quiet_lightning():
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            max_epochs=settings.epochs,
            check_val_every_n_epoch=settings.validate_every,
            gradient_clip_val=settings.gradient_clip or None,
            num_sanity_val_steps=0,
            inference_mode=False,  # forces are a derivative, in validation too
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[AtomicCheckpoints()],
            callbacks=[
                CsvLog(folder / "log.csv"),
                PeriodicCheckpoint(checkpoint, settings.checkpoint_every),
                EpochProgress(label),
            ],
        )
        try:
            trainer.fit(
                module,
                DataLoader(cached, sampler=order, batch_size=None),
                DataLoader(
                    held_out,
                    sampler=EpochShuffle(len(held_out), _VALIDATION_BATCH, shuffle=False),
                    batch_size=None,
                ),
                ckpt_path=str(checkpoint) if checkpoint.exists() else None,
            )
        except SystemExit:
            # Lightning turns Ctrl-C into this after it has put everything away.
            raise KeyboardInterrupt from None
    if trainer.interrupted:
        raise KeyboardInterrupt
    network, best = module.best()
    # A descriptor of its own: the cached structures still need theirs on the training device.
    own = Descriptor.from_config(best.to_config()).to(torch.float64)
    own.load_state_dict(best.state_dict())
    rows = read_log(folder / "log.csv")
    seconds = float(rows[-1]["seconds"]) if rows else 0.0
    return network.cpu().to(torch.float64).fold(), own, seconds


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice (loggers, workers, hardware found) out of the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# -- results --------------------------------------------------------------------------------


def _finish(
    config: NetworkRun,
    directory: Path,
    models: list[tuple[ElementNetworks, Descriptor]],
    cached: CachedStructures,
    training: Batch,
    validation: Batch,
    identity: dict[str, Any],
    seconds: float,
) -> TrainingResult:
    """Save the model, its errors on the validation structures, and the figures."""
    from pymlp.plotting import loss_curve
    from pymlp.potential import Potential

    descriptors = [descriptor for _, descriptor in models]
    potential = Potential(
        descriptors if descriptors[0].trainable else descriptors[0],
        [network for network, _ in models],
        metadata={
            "target": target_description(config.data),
            "data": {
                "n_training": len(training),
                "n_validation": len(validation),
                "training_hash": identity["training_data"],
                "validation_hash": identity["validation_data"],
            },
            "config": identity["config"],
        },
    )
    for begin in range(0, len(cached), _VALIDATION_BATCH):
        part = cached[range(begin, min(begin + _VALIDATION_BATCH, len(cached)))]
        pairs, types = part.pairs.to("cpu"), part.types.cpu()
        features = potential.descriptor.features_of(part.features.cpu(), pairs, types)
        potential.record_ranges(features.detach(), types)
    result = evaluate(potential, validation)
    metrics = result.summary() | {"training_seconds": round(seconds, 1)}
    potential.metadata["validation"] = metrics
    potential.save(directory)
    with atomic_writer(directory / "metrics.json") as file:
        json.dump(metrics, file, indent=1)
    log = read_log(_member_folder(config, directory, 0) / "log.csv")
    what = "Δ, " if config.data.target == "delta" else ""
    figures = [
        loss_curve(log, directory / "loss.png"),
        result.draw(
            directory / "parity.png",
            f"{config.kind}, {what}{len(validation)} validation structures",
        ),
    ]
    notes = list(training.info.get("notes", []))
    return TrainingResult(directory, metrics, figures, notes)
