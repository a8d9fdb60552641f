"""The page on extending the library: its code is put into a copy of the source tree, and run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
SECTIONS = {text.split("\n", 1)[0]: text for text in PAGE.split("\n## ")[1:]}
LIMITS = {"A univariate map": 2, "A kind of column": 1, "An option": 2, "A section of a report": 2}
"""The most files to touch; a section's template is one of its own."""

BLOCK = re.compile(r"```\{code-block\} (\w+)\n:caption: ([^\n]+)\n\n(.*?)```", re.DOTALL)
PATCH = re.compile(r"```diff\n--- a/[^\n]+\n\+\+\+ b/([^\n]+)\n(.*?)```", re.DOTALL)


def apply(tree: Path, section: str) -> set[str]:
    """Writes the files of a section, and changes others as it says; their names."""
    touched = set()
    for _, name, code in BLOCK.findall(section):
        if name.startswith("src/"):
            assert not (tree / name).exists()
            (tree / name).write_text(code, "utf-8")
            touched.add(name)
    for name, hunks in PATCH.findall(section):
        text = (tree / name).read_text("utf-8")
        for hunk in re.split(r"^@@ [^\n]*\n", hunks, flags=re.MULTILINE)[1:]:
            lines = [(line[:1], line[1:]) for line in hunk.splitlines()]
            before, after = (
                "\n".join(line for sign, line in lines if sign != left) for left in "+-"
            )
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        (tree / name).write_text(text, "utf-8")
        touched.add(name)
    return touched


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    tree = tmp_path_factory.mktemp("extended")
    shutil.copytree(
        ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "kernels")
    )
    return tree, {title: apply(tree, SECTIONS[title]) for title in LIMITS}


def test_few_files_are_touched(extended: tuple[Path, dict[str, set[str]]]) -> None:
    for title, most in LIMITS.items():
        assert 0 < len(extended[1][title]) <= most, title


def test_what_was_added_works(extended: tuple[Path, dict[str, set[str]]]) -> None:
    tree = extended[0]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    runs = [(kind, code) for kind, name, code in BLOCK.findall(PAGE) if name == "now this runs"]
    assert [kind for kind, _ in runs] == ["python", "python", "console"]
    words = shlex.split(runs.pop()[1].removeprefix("$ maskedflow"))
    # Kernels are the tree's own, which have been compiled already.
    own = f"import maskedflow; maskedflow.__path__.append({str(ROOT / 'src' / 'maskedflow')!r})"
    lines = [own, *(code for _, code in runs)]
    code = "\n".join([*lines, "from maskedflow.cli import main", f"main({words})"])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tree, env=environment)
    folder = tree / "maf_results" / "x"
    assert "\nweight_decay = 0.01\n" in (folder / "config.toml").read_text("utf-8")
    page = (folder / "report.html").read_text("utf-8")
    assert page.index("The least likely test row has a log-density of") > page.index("extremes")
