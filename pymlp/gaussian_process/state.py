"""A fitted Gaussian process as plain JSON values and tensors, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from pymlp.covariances import Covariance
from pymlp.gaussian_process.feature_transform import FeatureTransform
from pymlp.gaussian_process.fit_report import FitReport
from pymlp.gaussian_process.inputs import StructureInputs
from pymlp.gaussian_process.likelihood import Hyperparameters
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.prediction import Sources
from pymlp.gaussian_process.regression import GaussianProcess
from pymlp.gaussian_process.symmetry import Characters, Rotation
from pymlp.gaussian_process.training_set import Mean, Preparation
from pymlp.gaussian_process.variance import Posterior

__all__ = ["from_state", "posterior_bytes", "to_state"]


def posterior_bytes(process: GaussianProcess) -> int:
    """What the posterior covariance takes in a file."""
    if process.posterior is None:
        return 0
    total = process.posterior.subtract.numel()
    total += 0 if process.posterior.add is None else process.posterior.add.numel()
    for points in process.posterior.groups:
        total += points.features.numel()
        total += 0 if points.jacobian is None else points.jacobian.numel()
    return 8 * total


def to_state(
    process: GaussianProcess, posterior: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a fitted process.

    Args:
        process: fitted.
        posterior: include what standard deviations need (the Cholesky factor).

    Raises:
        ValueError: not fitted.
    """
    preparation = process.preparation
    if preparation is None or not process.sources:
        raise ValueError("the Gaussian process must be fitted before it can be saved")
    hyperparameters = process.hyperparameters
    config: dict[str, Any] = {
        "inputs": process.inputs.to_config(),
        "covariance": hyperparameters.covariance.to_config(),
        "signal_variance": hyperparameters.signal_variance,
        "energy_noise": hyperparameters.energy_noise,
        "force_noise": hyperparameters.force_noise,
        "mean": {**asdict(process.mean), "elements": [list(e) for e in process.mean.elements]},
        "deflate": preparation.deflate,
        "deviation_scale": list(process.deviation_scale),
        "types": sorted(process.sources),
        "report": asdict(process.report),
        "posterior": [],
    }
    tensors: dict[str, Tensor] = {}
    if preparation.numbers is not None:
        tensors["numbers"] = preparation.numbers
    if preparation.symmetry is not None:
        tensors["symmetry"] = preparation.symmetry
    if preparation.characters is not None:
        tensors["characters"] = preparation.characters.table
        config["character_widths"] = list(preparation.characters.widths)
    for kind, transform in preparation.transforms.items():
        tensors[f"center.{kind}"] = transform.center
        if transform.matrix is not None:
            tensors[f"matrix.{kind}"] = transform.matrix
        if transform.keep is not None:
            tensors[f"keep.{kind}"] = transform.keep
        if transform.rotation is not None:
            for name, tensor in transform.rotation._asdict().items():
                tensors[f"rotation.{kind}.{name}"] = tensor
    for kind, sources in process.sources.items():
        for name in ("x", "z", "alpha"):
            tensors[f"sources.{kind}.{name}"] = getattr(sources, name)
    if posterior and process.posterior is not None:
        tensors["posterior.subtract"] = process.posterior.subtract.tril()
        if process.posterior.add is not None:
            tensors["posterior.add"] = process.posterior.add.tril()
        for index, points in enumerate(process.posterior.groups):
            config["posterior"].append({"types": list(points.types), "energies": points.energies})
            tensors[f"posterior.{index}.features"] = points.features
            if points.jacobian is not None:
                tensors[f"posterior.{index}.jacobian"] = points.jacobian
    return config, tensors


def from_state(config: dict[str, Any], tensors: dict[str, Tensor]) -> GaussianProcess:
    """The inverse of `to_state`.

    Raises:
        ValueError: entries or tensors that are missing or do not fit.
    """
    try:
        inputs = StructureInputs.from_config(config["inputs"])
        process = GaussianProcess(inputs)
        process.hyperparameters = Hyperparameters(
            Covariance.from_config(config["covariance"]),
            config["signal_variance"],
            config["energy_noise"],
            config["force_noise"],
        )
        mean = dict(config["mean"])
        elements = tuple((int(number), float(value)) for number, value in mean.pop("elements"))
        process.mean = Mean(**mean, elements=elements)
        scale = config["deviation_scale"]
        process.deviation_scale = (float(scale[0]), float(scale[1]))
        report = dict(config["report"])
        report["single_precision_error"] = tuple(report["single_precision_error"])
        process.report = FitReport(**report)
        transforms = {int(kind): _transform(tensors, int(kind)) for kind in config["types"]}
        numbers, symmetry = tensors.get("numbers"), tensors.get("symmetry")
        characters = None
        if "characters" in tensors:
            characters = Characters(tensors["characters"], tuple(config["character_widths"]))
        process.preparation = Preparation(
            inputs, transforms, config["deflate"], numbers, symmetry, characters
        )
        for kind in config["types"]:
            x, z, alpha = (tensors[f"sources.{kind}.{name}"] for name in ("x", "z", "alpha"))
            process.sources[int(kind)] = Sources(x, z, alpha, characters)
        if config["posterior"]:
            groups = [
                Points(
                    tensors[f"posterior.{index}.features"],
                    tensors.get(f"posterior.{index}.jacobian"),
                    tuple(entry["types"]),
                    entry["energies"],
                    symmetry,
                    characters,
                )
                for index, entry in enumerate(config["posterior"])
            ]
            process.posterior = Posterior(
                groups, tensors["posterior.subtract"], tensors.get("posterior.add")
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the Gaussian process is damaged: missing or wrong {error}") from None
    for kind, sources in process.sources.items():
        if sources.x.shape != sources.z.shape or len(sources.x) != len(sources.alpha):
            raise ValueError(f"the sources of type {kind} have shapes that do not fit")
    return process


def _transform(tensors: dict[str, Tensor], kind: int) -> FeatureTransform:
    rotation = None
    if f"rotation.{kind}.forward_index" in tensors:
        rotation = Rotation(*(tensors[f"rotation.{kind}.{name}"] for name in Rotation._fields))
    matrix, keep = tensors.get(f"matrix.{kind}"), tensors.get(f"keep.{kind}")
    return FeatureTransform(tensors[f"center.{kind}"], matrix, rotation, keep)


def moved(process: GaussianProcess, device: torch.device | str) -> None:
    """Move a fitted process to a device, in place."""
    process.inputs.to(device)
    process.sources = {kind: item.to(device) for kind, item in process.sources.items()}
    if process.preparation is not None:
        old = process.preparation
        symmetry = None if old.symmetry is None else old.symmetry.to(device)
        transforms = {kind: item.to(device) for kind, item in old.transforms.items()}
        characters = None if old.characters is None else old.characters.to(device, None)
        process.preparation = Preparation(
            old.inputs, transforms, old.deflate, old.numbers, symmetry, characters
        )
    if process.posterior is not None:
        add = process.posterior.add
        process.posterior = Posterior(
            [points.to(device) for points in process.posterior.groups],
            process.posterior.subtract.to(device),
            None if add is None else add.to(device),
        )
    process.forget_precisions()
