"""The examples of latent variables and of inference run, and write what their pages show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("vae", ["vae_samples"]),
        ("posteriors", ["posteriors_funnel", "posteriors_regression", "posteriors_ring"]),
    ],
)
def test_example_runs(name: str, pictures: list[str], tmp_path: Path) -> None:
    command = [sys.executable, ROOT / f"examples/{name}.py", "--quick", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| --- |" in done.stdout or "|---|" in done.stdout
    assert json.loads((tmp_path / f"examples/{name}.json").read_text("utf-8"))
    for picture in pictures:
        assert (tmp_path / f"images/{picture}.png").stat().st_size > 1000
        assert picture in (ROOT / f"docs/examples/{name}.md").read_text("utf-8")
