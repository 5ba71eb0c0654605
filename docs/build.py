"""Builds the site: lessons executed as notebooks, guides and reference around them.

``make docs`` (or ``python docs/build.py``) runs every lesson in full, some minutes each; with
``--short`` in seconds. Lessons whose script and package have not changed are not run again. The
site lands in ``site/``, with the executed notebooks under ``site/notebooks/``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "build" / "docs" / "source"
EXECUTED = ROOT / "build" / "docs" / "executed"


def main() -> int:
    """Execute what has to be, then run Sphinx; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="run the lessons in short mode")
    parser.add_argument("--keep", action="store_true", help="only a changed script is run again")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "site", help="[site]")
    arguments = parser.parse_args()

    from pymlp.lessons import scripts

    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE / "lessons").mkdir(parents=True)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    rows, pages = [], []
    for script in scripts():
        notebook = executed(script.path, arguments.short, arguments.keep)
        seconds = notebook.metadata["pymlp"]["seconds"]
        name = script.path.stem
        write_page(notebook, SOURCE / "lessons" / f"{name}.ipynb", name, script.path)
        rows.append(f"| [{script.title}](lessons/{name}.ipynb) | {shown_time(seconds)} |")
        pages.append(f"lessons/{name}")
    prepare_pages(rows, pages, arguments.short)

    from sphinx.cmd.build import build_main

    html = SOURCE.parent / "html"  # not into the site itself: myst-nb writes beside its target
    shutil.rmtree(html, ignore_errors=True)
    code = build_main(["-q", "-W", "--keep-going", "-E", "-b", "html", str(SOURCE), str(html)])
    if code == 0:
        shutil.rmtree(arguments.output, ignore_errors=True)
        leave = shutil.ignore_patterns(".doctrees", ".buildinfo", "_sources")
        shutil.copytree(html, arguments.output, ignore=leave)
        print(f"site: {arguments.output / 'index.html'}")
    return code


def executed(script: Path, short: bool, keep: bool) -> Any:
    """The notebook of a script, run from top to bottom; from the last build where it still holds.

    Raises:
        SystemExit: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config

    from pymlp.lessons import notebook as lesson_notebook

    key = fingerprint([script] if keep else [script, *sorted((ROOT / "pymlp").rglob("*.py"))])
    path = EXECUTED / f"{script.stem}.ipynb"
    if path.is_file():
        notebook = nbformat.read(path, as_version=4)
        known = notebook.metadata.get("pymlp", {})
        if (
            known.get("short") == short
            and (known.get("script") if keep else known.get("all")) == key
        ):
            print(f"{script.stem}: unchanged")
            return notebook
    print(f"{script.stem}: running ...", end=" ", flush=True)
    notebook = nbformat.from_dict(lesson_notebook(script))
    output = EXECUTED / script.stem
    shutil.rmtree(output, ignore_errors=True)
    os.environ["PYMLP_LESSON_SHORT"] = "1" if short else "0"
    os.environ["PYMLP_LESSON_OUTPUT"] = str(output)
    begun = time.perf_counter()
    quiet = Config({"KernelManager": {"transport": "ipc"}})  # no port is opened
    where = {"metadata": {"path": str(ROOT)}}
    client = NotebookClient(notebook, config=quiet, timeout=3600, resources=where)
    try:
        client.execute()
    except CellExecutionError as error:
        raise SystemExit(f"{script.name} failed:\n{error}") from None
    seconds = time.perf_counter() - begun
    print(f"{seconds:.0f} s")
    notebook.metadata["pymlp"] = {
        "short": short,
        "script": fingerprint([script]),
        "all": fingerprint([script, *sorted((ROOT / "pymlp").rglob("*.py"))]),
        "seconds": round(seconds, 1),
    }
    nbformat.write(notebook, path)
    return notebook


def fingerprint(files: list[Path]) -> str:
    """SHA-256 of the contents of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_page(notebook: Any, page: Path, name: str, script: Path) -> None:
    """The notebook with links to itself and to its script below the title."""
    import nbformat

    files = SOURCE / "notebooks"
    files.mkdir(exist_ok=True)
    nbformat.write(notebook, files / f"{name}.ipynb")
    shutil.copyfile(script, files / f"{name}.py")
    copy = nbformat.from_dict(notebook)
    first = copy.cells[0]
    title, _, rest = first.source.partition("\n")
    links = (
        f"*Download: {{download}}`notebook <../notebooks/{name}.ipynb>`, "
        f"{{download}}`script <../notebooks/{name}.py>`*"
    )
    first.source = f"{title}\n\n{links}\n{rest}"
    copy.metadata.pop("pymlp", None)
    nbformat.write(copy, page)


def prepare_pages(rows: list[str], pages: list[str], short: bool) -> None:
    """Index, guides and reference in the source folder."""
    docs = ROOT / "docs"
    shutil.copytree(docs / "_static", SOURCE / "_static", dirs_exist_ok=True)
    for name in ("conf.py", "api.md"):
        shutil.copyfile(docs / name, SOURCE / name)
    mode = "**This site was built in short mode: its numbers mean nothing.**" if short else ""
    table = "\n".join(["| lesson | took, when its page was made |", "| --- | --- |", *rows])
    index = (docs / "index.md").read_text(encoding="utf-8")
    parts = {"lessons": table, "pages": "\n".join(pages), "mode": mode, "reaction": reaction()}
    for name, part in parts.items():
        index = index.replace(f"@{name}@", part)
    (SOURCE / "index.md").write_text(index, encoding="utf-8")
    for source, name in ((ROOT / "README.md", "readme.md"), (docs / "gaussian_process.md", None)):
        text = source.read_text(encoding="utf-8")
        if name == "readme.md":
            text = re.sub(r"\A# .*", "# README", text)
        page = SOURCE / (name or source.name)
        page.write_text(without_links_into_the_checkout(text), encoding="utf-8")


def reaction() -> str:
    """The Claisen rearrangement along its path, to be turned and played."""
    import numpy as np

    from pymlp.data import claisen_irc_path
    from pymlp.molecule_view import molecule_html

    path = np.load(claisen_irc_path())
    order = np.argsort(path["arc_length"])[::2]
    return molecule_html(
        path["numbers"],
        path["coordinates"][order],
        labels=[f"ξ = {xi:.2f} Å" for xi in path["xi"][order]],
        title="The Claisen rearrangement, lessons 5 to 7: drag to turn, ▶ to see it happen.",
        frames_per_second=15,
    )


def without_links_into_the_checkout(text: str) -> str:
    """Markdown whose relative links are plain text: their files are not part of the site."""
    return re.sub(r"\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)


def shown_time(seconds: float) -> str:
    """Rounded for reading: 4 s, 35 s, 2 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    sys.exit(main())
