"""Configuration of Sphinx."""

from importlib.metadata import version as version_of

project = "maskedflow"
author = "The maskedflow developers"
copyright = f"2026, {author}"
release = version = version_of(project)

extensions = [
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
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
default_role = "code"

html_theme = "furo"
html_title = "maskedflow"
