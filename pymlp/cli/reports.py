"""Tables that several commands print."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["error_table"]


def error_table(metrics: Mapping[str, float | int], title: str) -> None:
    """Print the errors of `pymlp.evaluation.Evaluation.summary` in eV and kcal/mol."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(f"{title}: {metrics['n_structures']} structures")
    table = Table(title=heading, title_justify="left")
    for name in ("", "RMSE", "MAE", "largest"):
        table.add_column(name, justify="right" if name else "left")
    for quantity, label, per_length, unit_end in (
        ("energy", "energy", "", ""),
        ("force", "force component", "_A", "/Å"),
    ):
        if f"{quantity}_rmse_eV{per_length}" not in metrics:
            continue
        for unit, shown in (("eV", "eV"), ("kcal_mol", "kcal/mol")):
            values = [metrics[f"{quantity}_{k}_{unit}{per_length}"] for k in ("rmse", "mae", "max")]
            table.add_row(f"{label} ({shown}{unit_end})", *(f"{value:.4f}" for value in values))
    Console(markup=False, emoji=False).print(table)
