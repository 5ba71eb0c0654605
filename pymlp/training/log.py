"""The CSV log of a run: one row per epoch."""

from __future__ import annotations

import csv
from pathlib import Path

__all__ = ["LOG_COLUMNS", "read_log"]

LOG_COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "train_energy_rmse_kcal_mol",
    "train_force_rmse_kcal_mol_A",
    "validation_energy_rmse_kcal_mol",
    "validation_force_rmse_kcal_mol_A",
    "validation_loss",
    "seconds",
)


def read_log(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a log; none if there is no file.

    A line cut short by a crash is left out.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row.get("seconds") and row["epoch"].isdigit()]
