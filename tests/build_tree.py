"""The build folder that `make build` left, for tests that build more in it."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / f"cmake-{sysconfig.get_platform()}-{sys.implementation.cache_tag}"


def tool(name: str) -> str:
    """The program beside this Python, else the one on PATH."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is needed; `make build` installs it"
    return found


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run to the end, keeping what was printed, stdout and stderr together."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Waits while another worker of this run is in here with the same file."""
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_target(target: str) -> None:
    """Build one CMake target; waits while somebody else builds in the folder."""
    assert (BUILD / "build.ninja").exists(), f"{BUILD} is missing; run `make build`"
    with alone(BUILD / ".lock"):
        result = run([tool("cmake"), "--build", str(BUILD), "--target", target])
    assert result.returncode == 0, result.stdout
