"""The demonstration behind ``make demo`` and ``pymlp demo``: train, evaluate, draw, in minutes.

Data: the Claisen rearrangement of allyl vinyl ether at GFN2-xTB that the package ships; of its
2000 structures the first 200 validate, the last 200 are looked at only at the end.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymlp.evaluation import Evaluation
    from pymlp.structures import Batch

__all__ = ["main", "run"]

_VALIDATION, _TEST = 200, 200


def run(
    directory: str | Path = "runs/demo", *, epochs: int = 150, overwrite: bool = False
) -> dict[str, float | int]:
    """Train a Behler-Parrinello network on the shipped data and report on unseen structures.

    Args:
        directory: for configuration, model and figures.
        epochs: passes over the training data.
        overwrite: replace an earlier demo there; otherwise it is continued.

    Returns:
        Errors on the test structures, by the keys of ``pymlp evaluate --json``.

    Raises:
        FileNotFoundError: if the data are missing from this installation.
        ValueError: if the folder holds a demo with other settings.
        ImportError: without the ``train`` extra.
    """
    from pymlp.atomic_files import atomic_writer
    from pymlp.cli.reports import error_table
    from pymlp.config import kind_named, parse_config
    from pymlp.config.start import starting_configuration
    from pymlp.data import claisen_path
    from pymlp.evaluation import evaluate
    from pymlp.io import inspect_file, read
    from pymlp.model_files import read_model
    from pymlp.potential import load
    from pymlp.training import train

    directory = Path(directory)
    data = claisen_path()
    begin = time.perf_counter()
    n = inspect_file(data).n_structures
    model = directory / "model"
    if overwrite and (model / "state.json").exists():
        shutil.rmtree(model)
    yaml = directory / "run.yaml"
    text, found = starting_configuration(
        kind_named("bp-fnn"),
        f"{data}@{_VALIDATION}:{n - _TEST}",
        f"{data}@:{_VALIDATION}",
        yaml,
        {},
    )
    text = re.sub(r"(?m)^  epochs: \d+ ", f"  epochs: {epochs} ", text, count=1)
    config = parse_config(text, str(yaml))
    with atomic_writer(yaml) as file:
        file.write(text)
    for line in found:
        print(f"  {line}")
    print(f"training {config.kind} for {epochs} epochs ...", flush=True)
    resume = (model / "state.json").exists()
    try:
        result = train(config, model, resume=resume, base=directory)  # type: ignore[arg-type]
    except ValueError as error:
        if not resume:
            raise
        raise ValueError(f"{error} (pymlp demo --overwrite begins anew)") from None
    test = read(data, start=n - _TEST)
    potential = load(model)
    evaluation = evaluate(potential, test)
    metrics = evaluation.summary()
    figures = [
        *result.figures,
        evaluation.draw(
            directory / "parity_test.png",
            f"Claisen rearrangement, GFN2-xTB, {len(test)} test structures",
        ),
        _draw_profile(directory, test, evaluation),
    ]
    error_table(result.metrics, "validation")
    error_table(metrics, "test (never used before)")
    description, _ = read_model(model)
    print(f"features: {potential.descriptor}")
    print(f"time: {result.metrics['training_seconds']:.0f} s training, "
          f"{time.perf_counter() - begin:.0f} s in all")  # fmt: skip
    print(f"model: {model} (format {description['format']}); configuration: {yaml}")
    for figure in figures:
        print(f"figure: {figure}")
    return metrics


def _draw_profile(directory: Path, test: Batch, evaluation: Evaluation) -> Path:
    from pymlp import units
    from pymlp.data.claisen import xi
    from pymlp.plotting import energy_profile

    kcal = units.EV_TO_KCAL_MOL
    return energy_profile(
        xi(test.positions.reshape(len(test), -1, 3).numpy()),
        {
            "GFN2-xTB": evaluation.energies * kcal,
            "network": evaluation.predicted_energies * kcal,
        },
        directory / "profile.png",
    )


def main() -> None:
    """Run the demo with its defaults; ``python -m pymlp.demo``."""
    run()


if __name__ == "__main__":
    main()
