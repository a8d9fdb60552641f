"""The page on posteriors: its cells run one after the other, and come near to the truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parent.parent / "docs" / "posteriors.md").read_text("utf-8")


@pytest.mark.slow
def test_cells_run_and_come_near_to_the_truth() -> None:
    names: dict[str, Any] = {}
    for code in re.findall(r"```\{code-cell\} python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    assert names["ac"].held_out.p_value > 1e-3
    for found in (names["sampled"], names["harmonic"]):
        assert found.is_trusted
        assert abs(found.log_z - names["log_z"]) < 5 * found.standard_error
    torch.testing.assert_close(names["both"].mean, names["mean"], atol=0.05, rtol=0)
    assert abs(names["better"].log_z - names["log_r"]) < 0.2
    assert abs(names["found"].log_s - names["log_s"]) < 0.3
