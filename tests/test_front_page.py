"""The ways from the front page: each is one click away, and the page it leads to runs as it is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
CODE = re.compile(r"^```(?:\{code-cell\} )?(python|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def code(page: str, language: str = "python") -> str:
    """All code of a page, without what it says of cells."""
    text = (DOCS / page).read_text("utf-8")
    blocks = [block for kind, block in CODE.findall(text) if kind == language]
    assert blocks
    return re.sub(r"^:(?:tags|mystnb): .*\n", "", "\n".join(blocks), flags=re.MULTILINE)


def run(page: str) -> dict[str, Any]:
    """Runs the Python code of a page from top to bottom; the names that it leaves."""
    names: dict[str, Any] = {}
    exec(compile(code(page), page, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def test_every_way_is_one_click_from_the_front_page() -> None:
    front = (DOCS / "index.md").read_text("utf-8")
    ways = set(re.findall(r"^- \*\*\[[^]]+\]\(([^)]+)\)\*\*$", front, re.MULTILINE))
    assert {"howto/csv.md", "tutorials/posterior.md", "howto/univariate.md"} <= ways
    assert {"serving.md", "export.md"} <= ways


def test_a_first_density() -> None:
    lines = [line for line in code("index.md").splitlines() if line]
    assert len(lines) <= 10
    names = run("index.md")
    assert -2.8 < names["log_prob"].mean() < -2.2


def test_a_univariate_map_of_ones_own() -> None:
    """The page itself compares its slope with autograd's, and its inverse."""
    flow = run("howto/univariate.md")["flow"]
    x = flow().sample((100,))
    torch.testing.assert_close(flow().transform.inv(flow().transform(x)), x, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_density_of_a_csv_file(inside: Path) -> None:
    names = run("howto/csv.md")
    assert list(names["drawn"].columns) == ["age", "income", "city"]
    assert names["log_prob"].shape == (200,)
    for line in re.findall(r"^\$ maskedflow (.+)$", code("howto/csv.md", "console"), re.M):
        words = shlex.split(line.replace("--time_limit 60", "--time_limit 10"))
        command = [sys.executable, "-m", "maskedflow", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len((inside / "scores.csv").read_text("utf-8").splitlines()) == 2001
    assert (inside / "maf_results" / "people" / "report.html").is_file()


@pytest.mark.slow
def test_a_posterior_of_a_simulator() -> None:
    """It is near to the exact posterior, which the page has on a grid."""
    names = run("tutorials/posterior.md")
    exact, grid = names["exact"].flatten(), names["grid"]
    mean = exact @ grid
    deviation = (exact @ (grid - mean) ** 2).sqrt()
    samples = names["samples"]
    assert ((samples.mean(0) - mean).abs() < 0.6 * deviation).all()
    assert (samples.std(0) < 1.6 * deviation).all()
    assert (samples.std(0) > 0.7 * deviation).all()
