"""Training of any kind of potential: what ``pymlp train`` calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pymlp.config import RunConfig, kind_named, load_config
from pymlp.run_folder import discard

if TYPE_CHECKING:
    from pymlp.training import TrainingResult

__all__ = ["train"]


def train(
    config: RunConfig | str | Path,
    directory: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    base: str | Path | None = None,
) -> TrainingResult:
    """Train what a configuration describes: networks or a Gaussian process.

    Args:
        config: from :func:`pymlp.config.configure` or :func:`pymlp.config.load_config`, or the
            run.yaml itself.
        directory: folder of the run; made if missing. It then holds model, log, errors, figures.
        resume: go on with an interrupted run in ``directory``, exactly. A finished run is left as
            it is.
        overwrite: begin anew where ``directory`` holds a run; that run is deleted.
        base: folder that paths in the configuration are relative to; ``None``: that of the
            run.yaml, or the working directory.

    Raises:
        ConfigError: for a run.yaml that cannot be used.
        ValueError: for data that do not fit the configuration, a folder that holds another run,
            or both ``resume`` and ``overwrite``.
        ImportError: without the ``train`` extra.
        FloatingPointError: if the training diverges.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other, got both")
    if not isinstance(config, RunConfig):
        path = Path(config)
        config, base = load_config(path), path.parent if base is None else base
    if overwrite:
        discard(Path(directory))
    function = kind_named(config.kind).train_function()
    result: TrainingResult = function(
        config, Path(directory), resume=resume, base=Path("." if base is None else base)
    )
    return result
