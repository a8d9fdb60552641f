"""Runs and estimator files that an earlier build wrote open, and score what they scored then."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.csv as pacsv
import pytest

from commands import run

GOLDEN = Path(__file__).parent / "golden"
TABLES = {
    "flow_numbers": "numbers.csv",
    "flow_images": "digits.npy",
    "flow_series": "series.csv",
    "estimator_mixed": "mixed.parquet",
}


@pytest.mark.parametrize("name", TABLES)
def test_golden_runs_score_what_they_did(name: str, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    assert run("score", GOLDEN / name, GOLDEN / TABLES[name], "-o", output) == 0
    scores = pacsv.read_csv(output)["log_prob"].to_pylist()
    wanted = json.loads((GOLDEN / "scores.json").read_text())[name]
    # Flows are in single precision, whose sums other processors round otherwise.
    assert scores == pytest.approx(wanted, rel=1e-6, abs=1e-5)
