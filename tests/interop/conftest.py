"""Tests beside partner libraries, installed by `make interop`: test_x.py is skipped without x."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from scale_tables import RUN, write_rows

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which recipes run: a run in `maf_results/people`, and a table in `people`."""
    copytree(RUN, tmp_path / "maf_results" / "people")
    write_rows(tmp_path / "people")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def snippet() -> Callable[..., dict[str, Any]]:
    """Runs the Python of a section of a page, `docs/interop.md` by default, and gives its names."""

    def run(section: str, page: str = "interop.md") -> dict[str, Any]:
        text = (DOCS / page).read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
        names: dict[str, Any] = {}
        torch.manual_seed(0)
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, f"docs/{page}: {section}", "exec"), names)
        return names

    return run
