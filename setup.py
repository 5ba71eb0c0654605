"""Builds the compiled parts with CMake and Ninja; pyproject.toml describes the package itself.

Sources, flags and GPU architectures are listed in CMakeLists.txt alone. This file says where
torch, Python and pybind11 are. torch is located, never imported: reading the package's metadata
stays cheap.

Environment variables: ``PYMLP_CUDA=auto|0|1``; ``MAX_JOBS`` or ``CMAKE_BUILD_PARALLEL_LEVEL``,
the number of compilers run at a time.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def package_dir(name: str, advice: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"pymlp: {name} is not installed in {sys.prefix}. {advice}")
    return Path(spec.origin).parent


def program(name: str) -> str:
    """The program beside this Python, else the one on PATH."""
    beside = shutil.which(name, path=sysconfig.get_path("scripts"))
    found = beside or shutil.which(name)
    if found is None:
        raise SystemExit(f"pymlp: no {name} found; run `pip install {name}`.")
    return found


def call(what: str, command: list[str], environment: dict[str, str]) -> None:
    """Run a step of the build; what it printed is the error message, not a Python traceback."""
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise SystemExit(f"pymlp: {what} failed, see above. The command: {shlex.join(command)}")


class CMakeBuild(build_ext):
    """Runs CMake once for all compiled parts and installs them beside the Python files."""

    def run(self) -> None:
        """Configure, build and install; repeated runs compile only what has changed."""
        in_place = self.inplace or self.editable_mode
        prefix = ROOT if in_place else Path(self.build_lib).resolve()
        # One folder per Python: builds for a wheel and for an editable install share it.
        build = ROOT / "build" / f"cmake-{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        build.mkdir(parents=True, exist_ok=True)
        torch = package_dir(
            "torch", "Install torch>=2.11 first, and build with --no-build-isolation."
        )
        pybind11 = package_dir("pybind11", "Run `pip install pybind11`.")
        environment = dict(os.environ)
        if "MAX_JOBS" in environment:
            environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", environment["MAX_JOBS"])
        cmake = program("cmake")
        configure = [
            *(cmake, "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={program('ninja')}",
            f"-DPYMLP_VERSION={self.distribution.get_version()}",
            f"-DPYMLP_CUDA={os.environ.get('PYMLP_CUDA', 'auto')}",
            f"-DPYMLP_TORCH_DIR={torch}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11 / 'share' / 'cmake' / 'pybind11'}",
        ]
        with open(build / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds in one folder would corrupt each other
            call("configuring", configure, environment)
            call("compiling", [cmake, "--build", str(build)], environment)
            call("copying", [cmake, "--install", str(build), "--prefix", str(prefix)], environment)

    def get_outputs(self) -> list[str]:
        """None by name: CMake's install step puts the files where setuptools packs them from."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """None: an in-place build installs straight into the source tree."""
        return {}


class FreshBuildPy(build_py):
    """Collects the Python files in an empty folder, so that no deleted file gets into a wheel."""

    def run(self) -> None:
        """Empty the folder of an earlier build, then copy, the lesson scripts too."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode:  # a checkout has them in lessons/
            target = Path(self.build_lib) / "pymlp" / "lesson_scripts"
            target.mkdir(parents=True, exist_ok=True)
            for script in sorted((ROOT / "lessons").glob("*.py")):
                shutil.copyfile(script, target / script.name)


setup(
    ext_modules=[Extension("pymlp._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": FreshBuildPy},
)
