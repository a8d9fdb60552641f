"""What earlier builds and releases wrote opens, and answers what it answered then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pytest

from commands import run
from golden_files import ANSWERS, GOLDEN, ask

TABLES = {
    "flow_numbers": "numbers.csv",
    "flow_images": "digits.npy",
    "flow_series": "series.csv",
    "estimator_mixed": "mixed.parquet",
}
RELEASES = sorted(path.parent.name for path in GOLDEN.glob(f"*/{ANSWERS}"))
THERE = {
    release: json.loads((GOLDEN / release / ANSWERS).read_text("utf-8")) for release in RELEASES
}


@pytest.mark.parametrize("name", TABLES)
def test_golden_runs_score_what_they_did(name: str, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    assert run("score", GOLDEN / name, GOLDEN / TABLES[name], "-o", output) == 0
    scores = pacsv.read_csv(output)["log_prob"].to_pylist()
    wanted = json.loads((GOLDEN / "scores.json").read_text())[name]
    # Flows are in single precision, whose sums other processors round otherwise.
    assert scores == pytest.approx(wanted, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize(
    ("release", "name"), [(release, name) for release in RELEASES for name in THERE[release]]
)
def test_what_a_release_wrote_answers_as_it_did(release: str, name: str) -> None:
    found, wanted = ask(GOLDEN / release, name), THERE[release][name]
    assert same(found, wanted), (found, wanted)


def same(found: Any, wanted: Any) -> bool:
    """Whether two answers are alike, numbers but for how other processors round."""
    if isinstance(wanted, list):
        pairs = zip(found, wanted, strict=True)
        return len(found) == len(wanted) and all(same(*pair) for pair in pairs)
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, float):
        return found == pytest.approx(wanted, rel=1e-4, abs=1e-4, nan_ok=True)
    return found == wanted


def test_all_that_is_made_is_there() -> None:
    assert RELEASES
    for answers in THERE.values():
        assert len(answers) >= 24
        assert all(answer["scores"] and answer["draws"] for answer in answers.values())
