"""The command line ``pymlp``: one module per group of commands.

Reading this package imports neither torch nor Lightning: every command imports what it needs.
"""

from __future__ import annotations

from pymlp.cli.application import app, main

__all__ = ["app", "main"]
