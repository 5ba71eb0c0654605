"""What `pymlp doctor` looks at: versions, the compiled parts, CUDA, and a small computation."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Finding", "Report", "examine"]

State = Literal["ok", "note", "error"]

_REBUILD = "rebuild in the source folder: pip install . --no-build-isolation"
_PACKAGES = (
    ("numpy", True, "pip install numpy"),
    ("ase", True, "pip install ase"),
    ("safetensors", True, "pip install safetensors"),
    ("pydantic", True, "pip install pydantic"),
    ("ruamel.yaml", True, "pip install ruamel.yaml"),
    ("lightning", False, "training: pip install 'pymlp[train]'"),
    ("matplotlib", False, "plots: pip install 'pymlp[train]'"),
    ("h5py", False, "HDF5 output: pip install 'pymlp[h5]'"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``fix`` says what to do where something is missing."""

    name: str
    value: str
    state: State = "ok"
    fix: str = ""


@dataclass
class Report:
    """All findings; ``ok`` unless one of them is an error."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that is needed works."""
        return all(finding.state != "error" for finding in self.findings)

    def add(self, name: str, value: str, state: State = "ok", fix: str = "") -> None:
        """Append a finding."""
        self.findings.append(Finding(name, value, state, fix))

    def print(self) -> None:
        """Print a table on stdout."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False)
        marks = {"ok": ("ok", "green"), "note": ("--", "yellow"), "error": ("!!", "red")}
        for finding in self.findings:
            table.add_row(Text(*marks[finding.state]), finding.name, finding.value)
            if finding.fix:
                table.add_row("", "", f"fix: {finding.fix}")
        console = Console(markup=False, emoji=False)
        console.print(table)
        console.print("everything works" if self.ok else "something does not work")


def examine() -> Report:
    """Examine this installation; takes about a second, raises nothing."""
    report = Report()
    from pymlp import __version__

    report.add("pymlp", __version__)
    report.add("python", f"{platform.python_version()} on {platform.machine()}, {sys.executable}")
    if not _step(report, "torch", _torch, "pip install 'torch>=2.11'"):
        return report
    built = _step(report, "pymlp._C", _build_info, _REBUILD)
    if built:
        _step(report, "op library", _op_library, _REBUILD)
    for name, needed, fix in _PACKAGES:
        try:
            report.add(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            report.add(name, "not installed", "error" if needed else "note", fix)
    if report.ok:
        _step(report, "self-test", _self_test, _REBUILD)
    if report.ok:
        _step(report, "CUDA", _cuda, _REBUILD)
    return report


def _step(report: Report, name: str, action: Callable[[Report], None], fix: str) -> bool:
    """Run one examination; a failure of any kind becomes a finding."""
    try:
        action(report)
    except Exception as error:
        # The whole point is to say what fails, whatever it is.
        text = str(error).strip() or type(error).__name__
        # The library's own ImportError already ends in the exact fix.
        report.add(name, text, "error", "" if "fix" in text.lower() else fix)
        return False
    return True


def _torch(report: Report) -> None:
    import torch

    report.add("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _build_info(report: Report) -> None:
    from pymlp import _C

    for key, value in _C.build_info().items():
        if isinstance(value, (list, tuple)):
            value = ", ".join(str(item) for item in value) or "none"
        report.add(f"build: {key}", str(value) or "unknown")


def _op_library(report: Report) -> None:
    import torch

    from pymlp import deep_pot_ops, ops, pair_ops

    names = (*ops.OP_NAMES, *pair_ops.OP_NAMES, *deep_pot_ops.OP_NAMES)
    missing = [name for name in names if not hasattr(torch.ops.pymlp, name)]
    if missing:
        raise ImportError(f"torch.ops.pymlp lacks {', '.join(missing)}")
    report.add("op library", f"loaded: {len(names)} ops")


def _check_numbers(device: str) -> str:
    """Compare the features of water with the formula, and J^T v with finite differences."""
    import math

    import torch

    from pymlp.descriptors import BehlerParrinello
    from pymlp.structures import Batch

    eta, cutoff = 0.5, 6.0
    descriptor = BehlerParrinello(
        ["H", "O"], radial=[(eta, 0.0)], angular=[(eta, 2.0, 0.0)], cutoff=cutoff
    ).to(device)
    positions = torch.tensor(
        [[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]], dtype=torch.float64
    )
    batch = Batch.from_arrays([8, 1, 1], positions.to(device))
    features = descriptor(batch)
    # Eq 1 for the oxygen: two hydrogens at the same distance.
    r = float((positions[1] - positions[0]).norm())
    expected = 2 * math.exp(-eta * r * r) * 0.5 * (math.cos(math.pi * r / cutoff) + 1)
    error = abs(float(features[0, 0]) - expected)

    moved = batch.positions.clone().requires_grad_()
    weight = torch.linspace(0.1, 1.0, features.numel(), dtype=torch.float64, device=device)
    total = (descriptor(batch.with_positions(moved)).flatten() * weight).sum()
    (slope,) = torch.autograd.grad(total, moved)
    step = 1e-5
    for atom in range(3):
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                shifted = batch.positions.clone()
                shifted[atom, axis] += sign * step
                ends.append((descriptor(batch.with_positions(shifted)).flatten() * weight).sum())
            numeric = float(ends[0] - ends[1]) / (2 * step)
            error = max(error, abs(numeric - float(slope[atom, axis])))
    if not error < 1e-7:
        raise ArithmeticError(f"features on {device} are wrong by {error:.1e}")
    return f"features and gradients on {device} agree with the formula within {error:.0e}"


def _self_test(report: Report) -> None:
    begin = time.perf_counter()
    text = _check_numbers("cpu")
    report.add("self-test", f"{text} ({time.perf_counter() - begin:.2f} s)")


def _cuda(report: Report) -> None:
    import torch

    from pymlp import _C

    compiled = _C.build_info()["cuda_architectures"]
    if not torch.cuda.is_available():
        wheel = torch.version.cuda is not None
        text = "no GPU is visible" if wheel else "this torch is a CPU build"
        report.add("CUDA", f"{text}; computing on the CPU", "note")
        return
    name = torch.cuda.get_device_name(0)
    if not compiled:
        report.add(
            "CUDA",
            f"{name} is there, but pymlp was built without CUDA kernels",
            "error",
            f"install nvcc, then {_REBUILD} with PYMLP_CUDA=1",
        )
        return
    report.add("CUDA", f"{name}: {_check_numbers('cuda')}")
