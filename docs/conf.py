"""Sphinx's settings; `make docs` runs it through docs/build.py, which prepares the sources."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

import pymlp

project = "pymlp"
author = "pymlp developers"
release = pymlp.__version__
html_title = f"pymlp {release}"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["notebooks"]  # downloads, not pages
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks come executed
nb_merge_streams = True
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and units, which types do not
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pymlp.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False

# Formulas without the network: one script of MathJax with all its extensions, SVG, no fonts.
_offline = (
    Path(sysconfig.get_path("purelib")) / "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js"
)
if _offline.is_file():
    shutil.copyfile(_offline, Path(__file__).parent / "_static" / "tex-svg-full.js")
    mathjax_path = "tex-svg-full.js"
else:
    print("formulas will be fetched from the network: pip install sphinx-mathjax-offline",
          file=sys.stderr)  # fmt: skip
mathjax3_config = {"tex": {"tags": "none"}}


def _keep_tags(app: Sphinx, document: nodes.document, name: str) -> None:
    """Hand numbered formulas over as they stand.

    Sphinx would put those with a line break in them (matrices, cases) into an environment that
    allows no number.
    """
    for formula in document.findall(nodes.math_block):
        if r"\tag" in formula.astext() and not formula.get("no-wrap"):
            formula["no-wrap"] = formula["nowrap"] = True
            formula.children = [nodes.Text(rf"\[{formula.astext()}\]")]


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("doctree-resolved", _keep_tags)
