"""Does what a page of the documentation says, where there is the table that it is about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import torch

import maskedflow as mf
from commands import run

DOCS = Path(__file__).parents[1] / "docs"


def write_people() -> None:
    """Writes `people.csv` where we are."""
    age = 10 + 60 * torch.rand(500, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([age, 174 - age / 10 + torch.linspace(-9, 9, 500)], dim=1)
    mf.data.write_table("people.csv", ["age", "height"], [rows])


def type_commands(page: str) -> None:
    """Runs our commands of a page."""
    for line in re.findall(r"^\$ maskedflow (.+)$", (DOCS / page).read_text("utf-8"), re.MULTILINE):
        assert run(*shlex.split(line)) == 0


def run_python(page: str) -> dict[str, Any]:
    """Runs the Python of a page, for its names."""
    names: dict[str, Any] = {}
    text = (DOCS / page).read_text("utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names
