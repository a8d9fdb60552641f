"""The page on switching from other libraries: what stands side by side runs, on either side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "switch.md").read_text("utf-8")
SECTIONS = {text.split("\n", 1)[0]: text for text in PAGE.split("\n## ")[1:]}


@pytest.mark.parametrize("library", ["zuko", "nflows", "normflows"])
def test_both_sides_run(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torch.distributions.Distribution
    monkeypatch.setattr(kind, "_validate_args", kind._validate_args)  # zuko's import turns it off
    pytest.importorskip(library)
    sides = re.findall(r"```python\n(.*?)```", SECTIONS[library], re.DOTALL)
    assert len(sides) == 2
    for code in sides:
        names: dict[str, Any] = {"x": torch.randn(5, 3), "c": torch.randn(5, 2)}
        exec(code, names)
        assert names["loss"].shape == ()
        assert names["loss"].isfinite()
        assert 100 in names["drawn"].shape[:2]
        assert names["drawn"].shape[-1] == 3
