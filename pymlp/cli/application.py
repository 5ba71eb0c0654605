"""The typer application, and how errors leave it.

What a user can put right (a ValueError, TypeError or ImportError that pymlp raises itself, a file
that cannot be read or written) is printed as one message, with exit code 2. Anything else is a
mistake in the program and keeps its traceback. ``PYMLP_TRACEBACK=1`` shows the traceback always.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

__all__ = ["ErrorReportingGroup", "app", "main"]

#: Exit codes: problems found by a check; a mistake of the user; interrupted by Ctrl-C.
PROBLEMS_FOUND, USER_ERROR, INTERRUPTED = 1, 2, 130


class ErrorReportingGroup(TyperGroup):
    """Turn users' mistakes into one message on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if os.environ.get("PYMLP_TRACEBACK") or not _is_user_error(error):
                raise
            typer.echo(f"error: {_message(error)}", err=True)
            raise typer.Exit(USER_ERROR) from None


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, BrokenPipeError):
        return False
    if isinstance(error, OSError):
        return True
    kinds = (ValueError, TypeError, ImportError, FloatingPointError)
    # The same classes come from bugs in this package or below it; what pymlp raises on purpose
    # is raised in pymlp's own source.
    return isinstance(error, kinds) and _raised_by_pymlp(error.__traceback__)


def _raised_by_pymlp(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    package = Path(__file__).resolve().parent.parent
    return package in Path(code.co_filename).resolve().parents


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


app = typer.Typer(
    name="pymlp",
    cls=ErrorReportingGroup,
    help="Machine-learning potentials for reactive systems: train, evaluate, use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        from pymlp import __version__

        typer.echo(f"pymlp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# The command modules add themselves to `app`; imported last, since they need it.
import pymlp.cli.compression as _compression  # noqa: E402
import pymlp.cli.data as _data  # noqa: E402
import pymlp.cli.features as _features  # noqa: E402
import pymlp.cli.lessons as _lessons  # noqa: E402
import pymlp.cli.models as _models  # noqa: E402
import pymlp.cli.runs as _runs  # noqa: E402
import pymlp.cli.system as _system  # noqa: E402

app.add_typer(_data.app, name="data", help="Check data files, compute labels.")
for _module in (_runs, _models, _compression, _features, _lessons, _system):
    _module.register(app)


def main() -> None:
    """Run the command line; the entry point of the ``pymlp`` script."""
    # Reports hold Å and Δ: a terminal without UTF-8 shows a replacement rather than failing.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()
