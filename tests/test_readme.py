"""README and CONTRIBUTING are executed as far as they can be: example, commands, links."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "csrc" / "README.md"]
TEXT = {file: file.read_text() for file in DOCUMENTS}
EACH = pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))


def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", TEXT[ROOT / "README.md"], re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        test = doctest.DocTestParser().get_doctest(example, {}, f"README {number}", None, 0)
        report: list[str] = []
        result = doctest.DocTestRunner().run(test, out=report.append)
        assert result.attempted > 0
        assert result.failed == 0, "".join(report)


@EACH
def test_links_lead_somewhere(file: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT[file])
    assert links
    missing = [link for link in links if not (file.parent / link).exists()]
    assert not missing


@EACH
def test_make_targets_exist(file: Path) -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:^|`)make ([a-z]+)", TEXT[file], re.MULTILINE)
    assert set(named) <= set(rules)


def test_commands_exist() -> None:
    from pymlp.cli.application import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    text = TEXT[ROOT / "README.md"]
    named = set(re.findall(r"^pymlp ([a-z]+)", text, re.MULTILINE))
    also = re.search(r"^Also (.*); each has", text, re.MULTILINE)
    assert also
    named |= {name.split()[0] for name in re.findall(r"`([a-z ]+)`", also[1])}
    assert named == commands


def test_descriptors_of_the_table_exist() -> None:
    from pymlp import descriptors

    classes = set(re.findall(r"`descriptors\.(\w+)`", TEXT[ROOT / "README.md"]))
    assert classes == set(descriptors.__all__) - {"Descriptor"}
