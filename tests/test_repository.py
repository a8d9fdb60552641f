"""What the repository says of itself is so: versions, pins, and all that the README shows."""

from __future__ import annotations

import ast
import math
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import maskedflow
from maskedflow import data

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {_normal(name): pinned for name, pinned in pairs}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_one_version_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    cited = re.search(r"^version: (.+)$", citation, re.MULTILINE)
    assert cited is not None
    assert PROJECT["version"] == maskedflow.__version__ == version("maskedflow") == cited[1]


def test_constraints_pin_what_is_required() -> None:
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    names = {_normal(re.split(r"[<>=\[;]", requirement)[0]) for requirement in requirements}
    assert pins()["torch"] == "2.13.0"
    assert names <= pins().keys()


def test_make_targets_of_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    documents = README + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"^\$? ?make ([a-z-]+)", documents, re.MULTILINE))
    assert {"demo", "test", "check"} <= named <= targets


SCRIPTS = sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").glob("*.py")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_import_what_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "maskedflow":
            exec(ast.unparse(node), {})


def test_links_of_the_readme_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_lists_the_data_sets() -> None:
    table = README.split("\n## Data\n")[1].split("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`[^|]+)\|", table, re.MULTILINE) for name in row.split()
    }
    assert {name.strip("`") for name in named} == set(data.NAMES)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_tour_is_true(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    flow, gaussian = re.findall(r"(-\d+\.\d+) nats", capsys.readouterr().out)
    assert gaussian == "-3.30"
    assert -2.6 < float(flow) < -2.4
    assert names["log_prob"].shape == (1000,)
    assert (inside / "moons.safetensors").stat().st_size > 0


@pytest.mark.slow
def test_command_line_tour_is_true(inside: Path) -> None:
    table = next(block for block in blocks("python") if "people.csv" in block)
    exec(table.split("\n\n")[0], {"mf": maskedflow, "torch": torch})
    hours = np.arange(np.datetime64("2026-01-01T00"), np.datetime64("2026-02-01T00"))
    load = np.sin(np.arange(len(hours)) * math.tau / 24)
    rows = [f"{hour},{x:.4f}" for hour, x in zip(hours, load, strict=True)]
    Path("hourly.csv").write_text("\n".join(["date,load", *rows]) + "\n", "utf-8")
    for line in re.findall(r"^\$ maskedflow (.+)$", README, re.MULTILINE):
        command = [sys.executable, "-m", "maskedflow", *shlex.split(line)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    drawn = (inside / "drawn.csv").read_text("utf-8").splitlines()
    assert drawn[0] == "height,weight,age"
    assert len(drawn) == 5001


FACE = """
import sys, matplotlib
# Asking for the backend would choose one.
settings = lambda: {k: v for k, v in dict.items(matplotlib.rcParams) if k != "backend"}
before = settings()
import maskedflow as mf
assert dir(mf) == sorted([*mf.__all__, "__version__"]), dir(mf)
for name in mf.__all__: getattr(mf, name)
from maskedflow.report import new_figure
new_figure(1, 1).subplots().plot([0, 1])
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""


def test_the_face_imports_each_name_when_used_and_leaves_matplotlib_alone() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", FACE], check=True)


def objects(room: ModuleType) -> set[int]:
    """What a room shows, and what rooms within it show."""
    shown = [getattr(room, name) for name in room.__all__]
    rooms = [thing for thing in shown if isinstance(thing, ModuleType)]
    return {id(thing) for thing in shown if thing not in rooms}.union(*map(objects, rooms))


DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (\S+)\n(?:   :exclude-members: (.+)\n)?", re.MULTILINE)


def test_every_public_object_is_on_one_page_of_the_reference() -> None:
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    seen: Counter[int] = Counter()
    for kind, path, left_out in DIRECTIVE.findall("".join(map(Path.read_text, pages))):
        thing = pkgutil.resolve_name(path)
        if kind == "module":
            names = set(thing.__all__) - set(left_out.split(", "))
            seen.update({id(getattr(thing, name)) for name in names})
        else:
            seen[id(thing)] += 1
    torchs = {id(getattr(torch.distributions, f"{name}Transform")) for name in TORCHS}
    assert objects(maskedflow) - torchs == set(seen)
    assert set(seen.values()) == {1}


TORCHS = ("Exp", "Sigmoid", "Tanh")
