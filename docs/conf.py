"""Configuration of Sphinx."""

import inspect
import os
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

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
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "jupyter_execute"]

# A page with code cells is run when it is built, and one that fails is an error.
nb_execution_mode = "auto"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
# What a page writes is gone with the folder that it ran in.
nb_execution_in_temp = True
# Libraries warn of their own affairs; what fails is an error anyhow.
nb_output_stderr = "remove"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
os.environ["MATPLOTLIBRC"] = str(Path(__file__).with_name("matplotlibrc"))
# Cells find the command of this Python, of an environment that is not activated too.
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
default_role = "code"
smartquotes_action = "qe"  # two hyphens begin an option, and stay two

html_theme = "furo"
html_title = "maskedflow"
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_dark_style = "github-dark"


def _escape_shapes(_app: Sphinx, _what: str, _name: str, *rest: object) -> None:
    """Keeps the asterisk of a shape such as (*, features) from starting an emphasis."""
    lines = rest[-1]
    assert isinstance(lines, list)
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = re.sub(r"(?<=\()\*(?=[\w,])|(?<=, )\*(?=[\w,)])", r"\\*", line)


def _keep_colons(_app: Sphinx, what: str, *rest: object) -> None:
    """Keeps what stands before a colon in a property's first line from being read as its type."""
    lines = rest[-1]
    assert isinstance(lines, list)
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]  # an empty comment


FOREIGN = torch.distributions.Distribution, torch.distributions.Transform


def _leave_out_foreign(
    _app: Sphinx, _what: str, name: str, obj: object, skip: bool, _options: object
) -> bool | None:
    """Leaves out what has no words of its own, and would be told in those of torch and Python."""
    words = {inspect.getdoc(bool), *(inspect.getdoc(getattr(one, name, None)) for one in FOREIGN)}
    is_foreign = obj.__doc__ is None and (
        hasattr(torch.nn.Module, name) or inspect.getdoc(obj) in words
    )
    return True if skip or is_foreign or isinstance(obj, bool | int | tuple) else None


ANNOTATED = re.compile(r"~?[\w.]*Annotated\[")
SHORTER = {
    r"~?numpy\.ndarray\[tuple\[[^][]+\], ~?numpy\.dtype\[([^][]+)\]\]": r"NDArray[\1]",
    r"(?:~?numpy\._typing[^|]+\| )+complex \| bytes \| str \| ~?numpy\._typing[^][]+\[[^][]+\]": (
        "ArrayLike"
    ),
    # Sphinx lays out what Python can parse.
    r"<class '(?:\w+\.)*(\w+)'>": r"\1",
    r"<[^<>]+>": "...",
}
"""What types and defaults are that Python writes out, and how they are written in code."""


def _bare(annotation: str) -> str:
    """The annotation with the first argument of each Annotated in its place."""
    while begin := ANNOTATED.search(annotation):
        depth, commas = 1, []
        for end in range(begin.end(), len(annotation)):
            depth += (annotation[end] in "[(") - (annotation[end] in ")]")
            if depth == 0:
                break
            if depth == 1 and annotation[end] == ",":
                commas.append(end)
        kind = annotation[begin.end() : commas[0]]
        annotation = annotation[: begin.start()] + kind + annotation[end + 1 :]
    return annotation


def _shorten(*event: object) -> tuple[object, ...]:
    """Writes types as the source does, without the bounds of a number: the text tells those."""
    parts = [part and _bare(str(part)) for part in event[-2:]]
    for written, meant in SHORTER.items():
        parts = [part and re.sub(written, meant, part) for part in parts]
    return tuple(parts)


MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")


def _write_minus(_app: Sphinx, doctree: nodes.document) -> None:
    """Gives numbers in the text a true minus, and keeps a number and its error on one line."""
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.paragraph | nodes.strong):
            new = MINUS.sub("\N{MINUS SIGN}", text).replace(" ± ", "\xa0±\xa0")
            if new != text:
                text.parent.replace(text, nodes.Text(new))


PUNCTUATION = re.compile(r"[.,;:)]+")
LONG = 40
"""The characters of a word of code that a phone may not have room for."""


def _keep_together(_app: Sphinx, doctree: nodes.document) -> None:
    """Keeps a formula and the full stop behind it on one line; lets long words of code break."""
    for math in list(doctree.findall(nodes.math)):
        text = math.next_node(descend=False, siblings=True)
        if isinstance(text, nodes.Text) and (stop := PUNCTUATION.match(text)):
            both = nodes.inline("", "", math.deepcopy(), nodes.Text(stop[0]), classes=["together"])
            math.parent.replace(text, nodes.Text(text[stop.end() :]))
            math.parent.replace(math, both)
    for code in doctree.findall(nodes.literal):
        if max(map(len, code.astext().split()), default=0) > LONG:
            code["classes"].append("long")


logger = logging.getLogger(__name__)


def _check_figures(_app: Sphinx, doctree: nodes.document) -> None:
    """Wants an alternative text of every picture, those that cells draw included."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            logger.warning("a picture without an alternative text", location=image)


LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\ssrc=[\"']?(?:https?:)?//[^>]+>"
    r"|<link\b(?=[^>]*\srel=[\"']?(?:stylesheet|preload|icon))[^>]*\shref=[\"']?(?:https?:)?//[^>]+>"
)


def _ask_no_network(app: Sphinx, error: Exception | None) -> None:
    """Refuses pages that load anything from elsewhere: the documentation is read offline too."""
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            if found := LOADED.search(page.read_text("utf-8")):
                raise ExtensionError(f"{page.name} loads from the network: {found[0]}")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", _leave_out_foreign)
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _escape_shapes)
    app.connect("autodoc-process-signature", _shorten)
    app.connect("doctree-read", _write_minus)
    app.connect("doctree-read", _keep_together)
    app.connect("doctree-read", _check_figures)
    app.connect("build-finished", _ask_no_network)
