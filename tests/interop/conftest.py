"""Tests beside partner libraries, installed by `make interop`: test_x.py is skipped without x."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import maskedflow as mf
from commands import run as run_command

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "interop.md"


@pytest.fixture
def snippet() -> Callable[[str], dict[str, Any]]:
    """Runs the Python of a section of the page `docs/interop.md`, and gives its names."""

    def run(section: str) -> dict[str, Any]:
        text = PAGE.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
        names: dict[str, Any] = {}
        torch.manual_seed(0)
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, f"docs/interop.md: {section}", "exec"), names)
        return names

    return run


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs our commands and the Python of a page, where there is a `people.csv`, for its names."""
    monkeypatch.chdir(tmp_path)
    age = 10 + 60 * torch.rand(500, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([age, 174 - age / 10 + torch.linspace(-9, 9, 500)], dim=1)
    mf.data.write_table("people.csv", ["age", "height"], [rows])

    def run(page: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        text = (DOCS / page).read_text("utf-8")
        for language, block in re.findall(r"```(console|python)\n(.*?)```", text, re.DOTALL):
            if language == "python":
                exec(compile(block, page, "exec"), names)
            for line in re.findall(r"^\$ maskedflow (.+)$", block, re.MULTILINE):
                assert run_command(*shlex.split(line)) == 0
        return names

    return run
