"""What happens beside the optimisation: log, checkpoints, progress bar.

All of them are Lightning's ``Checkpoint`` callbacks, since it runs those after the module's own
``on_train_epoch_end``, which completes the row of the epoch. The log comes first in the trainer's
list: an epoch in the checkpoint is then always in the log.
"""

from __future__ import annotations

import csv
import io
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pymlp.atomic_files import atomic_writer
from pymlp.training.log import LOG_COLUMNS, read_log

__all__ = ["AtomicCheckpoints", "CsvLog", "EpochProgress", "PeriodicCheckpoint"]


class AtomicCheckpoints(TorchCheckpointIO):
    """Write a checkpoint beside its final name, flush it to disk, then rename it.

    Whoever reads the name finds the old checkpoint or the new one, never half of one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the checkpoint to ``path``."""
        # Through memory: torch reports a full disk as a RuntimeError, a file as what it is.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_writer(Path(path), "wb") as file:
            file.write(buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint without running any code that it might hold.

        Raises:
            ValueError: for a damaged file.
        """
        try:
            return dict(torch.load(path, map_location=map_location or "cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{path} is truncated or damaged ({reason}); remove it to train anew with --resume"
            ) from None


class PeriodicCheckpoint(Checkpoint):
    """Save the whole state every ``every`` epochs and at the end of the training.

    Args:
        path: the file, replaced each time.
        every: epochs.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Save where it is time to."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 or epoch == trainer.max_epochs or trainer.should_stop:
            trainer.save_checkpoint(str(self.path))


class CsvLog(Checkpoint):
    """One line per epoch, flushed as it is written; a resumed run first drops what it repeats.

    Args:
        path: the CSV file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the time used so far, for the checkpoint."""
        return {"seconds": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.seconds = float(state_dict["seconds"])

    def _elapsed(self) -> float:
        return self.seconds + (time.perf_counter() - self._started if self._started else 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the header, and the rows of the epochs that the checkpoint has behind it."""
        self._started = time.perf_counter()
        rows = [row for row in read_log(self.path) if int(row["epoch"]) <= trainer.current_epoch]
        text = io.StringIO()
        writer = csv.DictWriter(text, LOG_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_writer(self.path, "w") as file:
            file.write(text.getvalue())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Append the row of this epoch."""
        row = {name: f"{value:.10g}" for name, value in pl_module.row.items()}
        row["seconds"] = f"{self._elapsed():.3f}"
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, LOG_COLUMNS, lineterminator="\n").writerow(row)


class EpochProgress(Checkpoint):
    """One bar over all epochs with the newest errors; lines now and then where no terminal is.

    Args:
        label: what is trained, shown before the bar.
    """

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.label = label
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[errors]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the bar."""
        self.task = self.bar.add_task(
            self.label, total=trainer.max_epochs, completed=trainer.current_epoch, errors=""
        )
        self.bar.start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Advance the bar."""
        row, epoch = pl_module.row, trainer.current_epoch + 1
        if "validation_loss" in row:
            errors = (
                f"validation RMSE E {row['validation_energy_rmse_kcal_mol']:.3f} kcal/mol, "
                f"F {row['validation_force_rmse_kcal_mol_A']:.3f} kcal/mol/Å"
            )
            self.bar.update(self.task, errors=errors)
            total = trainer.max_epochs or 1
            if self.bar.disable and (epoch * 10 // total > (epoch - 1) * 10 // total):
                self.console.print(f"{self.label}: epoch {epoch}/{total}, {errors}")
        self.bar.update(self.task, completed=epoch)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Leave the terminal in order, also after an interruption."""
        self.bar.stop()
