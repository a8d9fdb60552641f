"""The examples of images run in seconds, and write what their pages show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "picture"),
    [("conditional_digits", "conditional_digits"), ("anomaly", "anomaly_pixels")],
)
def test_example_runs(name: str, picture: str, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / f"examples/{name}.py", "--quick", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "|---|" in done.stdout
    assert (tmp_path / f"images/{picture}.png").stat().st_size > 1000
    result = json.loads((tmp_path / f"examples/{name}.json").read_text("utf-8"))
    if name == "conditional_digits":
        assert result["accuracy"] > 0.5  # by chance it is 0.1
        assert result["logistic accuracy"] > 0.9
        # The evidence is at least the joint density of the true class.
        assert result["bpd"] < result["conditional bpd"] + 0.06
    else:
        assert all(area > 0.8 for row in result["areas"].values() for area in row.values())
        assert set(result["areas"]) == {"0", "1"}
        assert result["pixels"]["the class"][1] == 0.5
        assert result["pixels"]["noise"][1] > 0.99
    page = (ROOT / f"docs/examples/{name}.md").read_text("utf-8")
    assert picture in page
    assert f"python examples/{name}.py" in page


@pytest.mark.parametrize(
    "name", ["conditional_digits", pytest.param("anomaly", marks=pytest.mark.slow)]
)
def test_without_data_it_says_where_they_are(name: str, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / f"examples/{name}.py", "--out", tmp_path]
    environment = {"MASKEDFLOW_DATA": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "data set 'mnist' not found" in done.stderr
    assert "--quick" in done.stderr
