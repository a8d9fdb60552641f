"""The examples of latent variables and of inference run, and write what their pages show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        pytest.param("vae", ["vae_samples"], marks=pytest.mark.slow),
        pytest.param(
            "posteriors",
            ["posteriors_funnel", "posteriors_regression", "posteriors_ring"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_example_runs(name: str, pictures: list[str], tmp_path: Path) -> None:
    page, written = ROOT / f"docs/examples/{name}.md", tmp_path / f"examples/{name}.md"
    written.parent.mkdir()
    shutil.copy(page, written)
    command = [sys.executable, ROOT / f"examples/{name}.py", "--quick", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = (path.read_text("utf-8") for path in (page, written))
    assert before != after
    tables = re.compile(r"<!-- (?!end)\w+ -->\n(.*?)<!-- end -->", re.DOTALL)
    assert tables.sub("", before) == tables.sub("", after)
    assert len(tables.findall(after)) >= 1
    assert all(table in done.stdout for table in tables.findall(after))
    assert json.loads((tmp_path / f"examples/{name}.json").read_text("utf-8"))
    for picture in pictures:
        assert (tmp_path / f"images/{picture}.png").stat().st_size > 1000
        assert picture in before
