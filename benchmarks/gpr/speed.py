"""Speed against peers, correctness first: GPyTorch (assembly, likelihood) and sGDML (fit, predict).

    python -m benchmarks.gpr.speed assembly prediction fit -o benchmarks/results/gpr_speed.json

Contestants take turns in one process with one thread; CPU seconds, the median ratio of the rounds.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpr import claisen
from pymlp import units
from pymlp.benchmarking import environment
from pymlp.covariances import RBF, Matern52
from pymlp.gaussian_process import (
    CombinedInputs,
    ConcatenatedInputs,
    GaussianProcess,
    InverseDistances,
    SolverOptions,
)
from pymlp.gaussian_process.assembly import covariance_block, covariance_matrix
from pymlp.gaussian_process.likelihood import log_marginal_likelihood
from pymlp.gaussian_process.points import Points
from pymlp.gaussian_process.prediction import Sources, evaluate
from pymlp.gaussian_process.symmetry import Rotation, character_basis
from pymlp.permutations import find_permutations

#: Of this package's fits; those of accuracy.py are more careful.
LIKELIHOOD_STRUCTURES, TOLERANCE, COMPONENTS = 30, 1e-2, 4


def turns(rounds: int, **contestants: Callable[[], Any]) -> dict[str, Any]:
    """CPU seconds of each contestant in turns; ratios to the first, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values() if rounds > 1 else ():
        run()
    for _ in range(rounds):
        for name, run in contestants.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    first = next(iter(contestants))
    return {
        name: {
            "cpu_s": statistics.median(values),
            "ratio": statistics.median(
                value / max(own, 1e-9) for value, own in zip(values, seconds[first], strict=True)
            ),
        }
        for name, values in seconds.items()
    }


def assembly(n: int = 30, rounds: int = 3, ani: bool = True) -> dict[str, Any]:
    """K of energies and Cartesian gradients, and the likelihood with its gradient."""
    import gpytorch

    batch = claisen.load()[claisen.N_VALIDATION :][:n]
    out: dict[str, Any] = {"structures": n}
    for name, inputs, scale in (
        ("inverse distances", InverseDistances(), 0.5),
        ("ANI-1x", ConcatenatedInputs(claisen.descriptor()), 8.0),
    ):
        if name == "ANI-1x" and not ani:
            continue
        if name == "ANI-1x":  # GPyTorch's kernel holds ((3360 + 1) n)² numbers, several times
            batch, rounds = batch[:2], 1
        features, jacobian = inputs.features(batch), inputs.jacobian(batch, None)
        features = features - features.mean(0)
        points = Points(features, jacobian)
        count, p, q = len(batch), features.shape[2], jacobian.shape[2]
        theirs = gpytorch.kernels.RBFKernelGrad().double()
        theirs.lengthscale = torch.tensor(scale, dtype=torch.float64)

        def projected(
            kernel: Any = theirs,
            x: Any = features,
            j: Any = jacobian,
            count: int = count,
            p: int = p,
            q: int = q,
        ) -> torch.Tensor:
            dense = kernel(x[:, 0]).to_dense().view(count, p + 1, count, p + 1)
            lift = torch.zeros((count, q + 1, p + 1), dtype=torch.float64)
            lift[:, 0, 0] = 1.0
            lift[:, 1:, 1:] = j[:, 0]
            half = torch.einsum("iap,ipjr->iajr", lift, dense)
            return torch.einsum("iajr,jbr->iajb", half, lift).reshape(
                count * (q + 1), count * (q + 1)
            )

        def ours(points: Points = points, scale: float = scale) -> torch.Tensor:
            return covariance_matrix([points], RBF(scale).terms)

        with torch.no_grad():
            index = torch.cat(
                (
                    torch.arange(count)[:, None],
                    count + torch.arange(count * q).view(count, q),
                ),
                dim=1,
            ).flatten()
            block = covariance_block(points, points, RBF(scale).terms)[index][:, index]
            error = float((block - projected()).abs().max() / block.abs().max())
        assert error < 1e-12, error
        targets = torch.randn(points.n_rows, dtype=torch.float64)

        def our_likelihood(points: Points = points, y: Any = targets, scale: float = scale) -> None:
            log_marginal_likelihood([points], y, RBF(scale), 1e-4, 1e-4)

        def their_likelihood(
            projected: Callable[[], torch.Tensor] = projected,
            y: Any = targets,
            kernel: Any = theirs,
        ) -> None:
            matrix = projected()
            matrix = matrix + 1e-4 * torch.eye(len(matrix), dtype=torch.float64)
            normal = torch.distributions.MultivariateNormal(torch.zeros_like(y), matrix)
            kernel.zero_grad()
            normal.log_prob(y).backward()

        with torch.no_grad():
            times = turns(rounds, pymlp=ours, gpytorch=projected)
        out[name] = {
            "structures": count,
            "relative_error": error,
            "assembly": times,
            "likelihood_and_gradient": turns(
                rounds, pymlp=our_likelihood, gpytorch=their_likelihood
            ),
        }
    return out


def prepare_sgdml() -> None:
    """Import sGDML without its side effects, and with the numpy name that 2.4 dropped."""
    import sgdml.predict
    import sgdml.train  # noqa: F401

    logging.setLoggerClass(logging.Logger)  # it makes its own the class of all later loggers
    if not hasattr(np, "in1d"):
        np.in1d = lambda a, b, **options: np.isin(np.ravel(a), b, **options)  # noqa: NPY201


def sgdml_task(n: int) -> tuple[Any, Any, float]:
    """A trained sGDML model on the first n of the pool, and the CPU seconds of its training."""
    from sgdml.train import GDMLTrain

    prepare_sgdml()
    everything = claisen.load()
    part = everything[claisen.N_VALIDATION :][:n]
    kcal = units.EV_TO_KCAL_MOL
    data = {
        "type": "d",
        "code_version": "1.0.3",
        "name": np.array("claisen"),
        "theory": np.array("delta"),
        "md5": np.array("0" * 32),
        "z": part.numbers[:14].numpy().astype(np.uint8),
        "R": part.positions.view(n, 14, 3).numpy(),
        "E": part.energies.numpy() * kcal,
        "F": part.forces.view(n, 14, 3).numpy() * kcal,
        "r_unit": np.array("Ang"),
        "e_unit": np.array("kcal/mol"),
    }
    trainer = GDMLTrain(max_processes=1, use_torch=False)
    started = time.process_time()
    task = trainer.create_task(data, n, data, 0, sig=20, lam=1e-10, use_sym=True)
    model = trainer.train(task)
    return model, data, time.process_time() - started


def sources_of_sgdml(
    model: Any,
) -> tuple[Sources, Rotation | None, Matern52, tuple[float, float]]:
    """An sGDML model in the terms of this package: sources, their basis, covariance, (std, c).

    Its kernel is the Hessian of a Matérn-5/2 function with ρ = √5 r/σ in inverse distances, its
    coefficients are weights on descriptor gradients at every permuted training geometry.
    """
    sigma = float(model["sig"])
    x = torch.tensor(model["R_desc"].T, dtype=torch.float64)
    z = torch.tensor(model["R_d_desc_alpha"], dtype=torch.float64)
    permutations = torch.tensor(model["tril_perms_lin"].astype(np.int64))
    count = len(model["perms"])
    width = x.shape[1]
    index = permutations.view(width, count).mT % width  # its layout: features slow
    alpha = torch.zeros(len(x), dtype=torch.float64)
    scale, constant = float(model["std"]), float(model["c"])
    basis = character_basis(index)
    if basis is None:
        images = [torch.cat([item[:, row] for row in index]) for item in (x, z)]
        return Sources(*images, alpha.repeat(count)), None, Matern52(sigma), (scale, constant)
    rotation, characters = basis
    sources = Sources(rotation.forward(x), rotation.forward(z), alpha, characters)
    return sources, rotation, Matern52(sigma), (scale, constant)


def prediction(model: Any, data: Any, rounds: int = 5) -> dict[str, Any]:
    """The same sGDML model evaluated by its own predictor and by our four products."""
    from sgdml.predict import GDMLPredict

    everything = claisen.load()
    batch = everything[: claisen.N_VALIDATION]
    positions = batch.positions.view(len(batch), -1).numpy()
    predictor = GDMLPredict(model, max_processes=1, use_torch=False)
    sources, rotation, covariance, (scale, constant) = sources_of_sgdml(model)
    inputs = InverseDistances()

    def raw() -> tuple[torch.Tensor, torch.Tensor]:
        x, pull = inputs.features_and_pullback(batch)
        x = x[:, 0] if rotation is None else rotation.forward(x[:, 0])
        energy, gradient = evaluate(sources, x, covariance)
        if rotation is not None:
            gradient = rotation.backward(gradient)
        return energy, -pull(gradient[:, None])

    their_energy, their_forces = predictor.predict(positions)
    energy, forces = raw()
    # Sign and prefactor conventions differ: one factor for all, then equality is checked.
    flat = forces.reshape(len(batch), -1).numpy()
    factor = float((flat * their_forces).sum() / (flat * flat).sum())
    error_f = float(np.abs(factor * flat - their_forces).max() / np.abs(their_forces).max())
    shifted = factor * energy.numpy()
    shifted = shifted - shifted.mean() + their_energy.mean()
    error_e = float(np.abs(shifted - their_energy).max() / np.abs(their_energy).std())
    kcal = units.EV_TO_KCAL_MOL
    reference = batch.forces.view(len(batch), -1).numpy() * kcal
    return {
        "training_structures": len(model["idxs_train"]),
        "permutations": len(model["perms"]),
        "factor": factor,
        "model_scale": scale,
        "model_constant": constant,
        "relative_error": {"forces": error_f, "energies": error_e},
        "sgdml_force_rmse": float(np.sqrt(np.mean((their_forces - reference) ** 2))),
        "times_for_100": turns(rounds, pymlp=raw, sgdml=lambda: predictor.predict(positions)),
    }


def fit(n: int) -> tuple[dict[str, Any], Any, Any]:
    """Training of this package's default (likelihood included) and of sGDML, CPU seconds."""
    model, data, theirs = sgdml_task(n)
    pool = claisen.load()[claisen.N_VALIDATION :][:n]
    started = time.process_time()
    few = pool[:100].positions.view(-1, 14, 3)
    permutations = find_permutations(pool.numbers[:14], few)
    process = GaussianProcess(
        CombinedInputs(ConcatenatedInputs(claisen.descriptor()), InverseDistances()),
        Matern52(),
        permutations=permutations,
        drop=1e-2,
    )
    report = process.fit(
        pool,
        method="cg",
        weight_structures=LIKELIHOOD_STRUCTURES,
        options=SolverOptions(tolerance=TOLERANCE, components=COMPONENTS),
    )
    ours = time.process_time() - started
    validation = claisen.load()[: claisen.N_VALIDATION]
    result = process.predict(validation)
    kcal = units.EV_TO_KCAL_MOL
    return (
        {
            "n": n,
            "pymlp_cpu_s": ours,
            "pymlp_parts": report.cpu_seconds,
            "sgdml_cpu_s": theirs,
            "ratio": theirs / ours,
            "pymlp_validation": [
                float((result.energy - validation.energies).square().mean().sqrt()) * kcal,
                float((result.forces - validation.forces).square().mean().sqrt()) * kcal,
            ],
        },
        model,
        data,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=("assembly", "fit"))
    parser.add_argument("-n", type=int, default=200, help="training structures of the fits")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    content: dict[str, Any] = {"environment": environment(), "units": "CPU s, kcal/mol, Å"}
    if "assembly" in given.what:
        content["assembly"] = assembly()
    if "fit" in given.what:
        content["fit"], model, data = fit(given.n)
        content["prediction"] = prediction(model, data)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
