"""Tests beside partner libraries, installed by `make interop`: test_x.py is skipped without x."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"


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
