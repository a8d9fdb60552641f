"""Configuration of Sphinx."""

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "maskedflow"
author = "The maskedflow developers"
copyright = f"2026, {author}"
release = version = version_of(project)

extensions = [
    "cyclopts.ext.sphinx",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "jupyter_execute"]

# A page with code cells is run when it is built, and one that fails is an error.
nb_execution_mode = "auto"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
# Libraries warn of their own affairs; what fails is an error anyhow.
nb_output_stderr = "remove"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
default_role = "code"

html_theme = "furo"
html_title = "maskedflow"


def _escape_shapes(_app: Sphinx, _what: str, _name: str, *rest: object) -> None:
    """Keeps the asterisk of a shape such as (*, features) from starting an emphasis."""
    lines = rest[-1]
    assert isinstance(lines, list)
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = re.sub(r"\([^()`]*\)", lambda shape: shape[0].replace("*", r"\*"), line)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _escape_shapes)
