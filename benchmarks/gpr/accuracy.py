"""Learning curve on the Claisen Δ data: errors, calibration, CPU time and memory by N.

    python -m benchmarks.gpr.accuracy 100 200 500 1000 --features whole -o benchmarks/results/...

Hyperparameters are found once, by the likelihood of structures among the first 100 of the pool,
and used for every N (for whole structures the noises shrink as N grows, see
`Hyperparameters.for_structures`). Errors are those on the validation structures, and on the part
of the pool beyond every N asked for (at most the last 500): neither is trained on. Standard
deviations (--variance) are scaled by training structures left out one at a time after Cholesky, and
by the validation structures after conjugate gradients.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpr import claisen
from pymlp import units
from pymlp.benchmarking import environment
from pymlp.covariances import RBF, Matern52
from pymlp.gaussian_process import (
    AtomicInputs,
    CombinedInputs,
    ConcatenatedInputs,
    GaussianProcess,
    InverseDistances,
    SolverOptions,
    StructureInputs,
)
from pymlp.gaussian_process.weight_search import fit_feature_weights
from pymlp.permutations import find_permutations
from pymlp.structures import Batch


def errors(process: GaussianProcess, batch: Batch, variance: int) -> dict[str, float]:
    """RMSE in kcal/mol and kcal/mol/Å; calibration on the first `variance` structures."""
    kcal = units.EV_TO_KCAL_MOL
    started = time.process_time()
    result = process.predict(batch)
    seconds = time.process_time() - started
    energy, force = result.energy - batch.energies, result.forces - batch.forces
    out = {
        "structures": len(batch),
        "energy_rmse": float(energy.square().mean().sqrt()) * kcal,
        "force_rmse": float(force.square().mean().sqrt()) * kcal,
        "predict_ms": 1000 * seconds / len(batch),
    }
    if variance:
        part = batch[:variance]
        sure = process.predict(part, variance=True)
        e = (sure.energy - part.energies) / sure.energy_std
        f = (sure.forces - part.forces) / sure.forces_std
        for name, z in (("energy", e), ("force", f)):
            out[f"{name}_rms_z"] = float(z.square().mean().sqrt())
            out[f"{name}_coverage_95"] = float((z.abs() < 1.96).double().mean())
        out["variance_structures"] = len(part)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--features", choices=("whole", "atomic"), default="whole")
    parser.add_argument("--likelihood", type=int, default=40)
    parser.add_argument("--tolerance", type=float, default=3e-3)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--method", default="cg")
    parser.add_argument("--variance", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    everything = claisen.load()
    validation = everything[: claisen.N_VALIDATION]
    pool = everything[claisen.N_VALIDATION :]
    rest = pool[max(*given.sizes, len(pool) - 500) :]
    started = time.process_time()
    permutations = None
    inputs: StructureInputs = AtomicInputs(claisen.descriptor())
    if given.features == "whole":
        inputs = CombinedInputs(ConcatenatedInputs(claisen.descriptor()), InverseDistances())
        positions = pool[:100].positions.view(100, -1, 3)
        permutations = find_permutations(pool.numbers[: positions.shape[1]], positions)

    def process() -> GaussianProcess:
        covariance = RBF() if given.features == "atomic" else Matern52()
        drop = None if given.features == "atomic" else 1e-2
        return GaussianProcess(inputs, covariance, permutations=permutations, drop=drop)

    def show(line: str) -> None:
        print(line, flush=True)

    first, few = process(), pool[:100]
    found_with = 0
    if given.features == "whole":
        with torch.no_grad():
            _, found_with = fit_feature_weights(first, few, given.likelihood, report=show)
    else:
        training = first.prepare(few, few.energies, few.forces)
        first.optimize(training, subset=given.likelihood, report=show)
    likelihood_seconds = time.process_time() - started
    rows = []
    for size in given.sizes:
        one = process()
        one.hyperparameters = first.hyperparameters
        if found_with:
            one.hyperparameters = first.hyperparameters.for_structures(found_with, size)
        one.feature_weights = first.feature_weights
        started = time.process_time()
        fit = one.fit(
            pool[:size],
            optimize=False,
            method=given.method,
            leave_out=40 if given.variance else None,
            options=SolverOptions(tolerance=given.tolerance, components=given.components),
            report=show,
        )
        fit_seconds = time.process_time() - started
        if given.variance and fit.method != "cholesky":
            one.calibrate(validation[: given.variance])
        row = {
            "n": size,
            "fit_cpu_s": fit_seconds,
            "likelihood_cpu_s": likelihood_seconds,
            "peak_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "validation": errors(one, validation, given.variance),
            "fit": asdict(fit),
            "deviation_scale": one.deviation_scale,
        }
        if len(rest):
            row["unseen_pool"] = errors(one, rest, given.variance)
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
        content = {
            "environment": environment(),
            "settings": {k: v for k, v in vars(given).items() if k != "output"},
            "units": "kcal/mol, kcal/mol/Å; CPU seconds of one thread",
            "rows": rows,
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
