"""What all tests share: the markers, how they are skipped, and repeatable hypothesis runs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples at every run and on every machine; no deadline, since machines differ.
settings.register_profile(
    "pymlp",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pymlp")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that take minutes")


def missing_gpu() -> str | None:
    """Why tests marked gpu cannot run here, or None when they can."""
    if not torch.cuda.is_available():
        return "no CUDA GPU, or a torch without CUDA"
    from pymlp import _C

    if _C.build_info()["nvcc"] is None:
        return "pymlp was built without CUDA"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "gpu" in item.keywords and (reason := missing_gpu()):
        pytest.skip(f"gpu: {reason}")
    if "slow" in item.keywords and not item.config.getoption("--slow"):
        pytest.skip("slow: runs with --slow")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for marker, cure in (("gpu", "run them on a machine with a GPU"), ("slow", "add --slow")):
        count = sum(marker in getattr(report, "keywords", ()) for report in skipped)
        if count:
            terminalreporter.write_line(f"{count} tests marked {marker} were skipped: {cure}")
