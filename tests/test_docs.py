"""What makes the site: its reference names what exists, and scripts are notebooks."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from pymlp.lessons import parse, scripts

DOCS = Path(__file__).parent.parent / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="no docs/ beside an installed package")


def build() -> ModuleType:
    """The script docs/build.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_names_what_exists() -> None:
    text = (DOCS / "api.md").read_text()
    names = re.findall(r"\.\. auto(?:class|function):: ([\w.]+)\.(\w+)", text)
    assert len(names) > 20
    for module, name in names:
        documented = getattr(importlib.import_module(module), name)
        assert documented.__doc__, f"{module}.{name} has no docstring"


def test_links_into_the_checkout_become_text() -> None:
    text = "[one](csrc/README.md), [two](https://example.org), [three](#four), [`five`](a/b.yaml#c)"
    assert build().without_links_into_the_checkout(text) == (
        "one, [two](https://example.org), [three](#four), `five`"
    )


def test_times_are_rounded() -> None:
    assert [build().shown_time(t) for t in (3.7, 61.2, 125.0)] == ["4 s", "61 s", "2 min"]


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.path.stem)
def test_jupytext_sees_the_same_cells(script) -> None:
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(script.path, fmt="py:percent")
    theirs = [(cell.source.strip(), cell.cell_type == "markdown") for cell in notebook.cells]
    ours = [(cell.source.strip(), cell.text) for cell in parse(script.path.read_text())]
    assert ours == [cell for cell in theirs if cell[0]]
