"""Every flow that `maskedflow train --flow` knows: trained, loaded, sampled, scored."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import maskedflow as mf
from commands import call, files, run, table, write_csv
from maskedflow.recipes import RECIPES, SHAPES
from maskedflow.runs import FlowConfig, build_flow
from maskedflow.runs.settings import settle

#: Those that take a table; test_glow.py has a run of images.
TABLES = {name: made for name, made in RECIPES.items() if not made.images}
QUICK = ("--epochs", 1, "--batch_size", 40, "--lr", 1e-3)
SMALL = {"hidden_dim": 8, "num_layers": 2}

# A fresh process scores the rows of each folder: whatever a flow needs is in its folder.
FRESH = """
import sys, numpy as np, maskedflow as mf
for name in sys.argv[2:]:
    folder = f"{sys.argv[1]}/{name}"
    found = mf.load_run(f"{folder}/t")
    rows = mf.data.read_table(f"{folder}/s.csv")
    x, c = rows[:, :2], rows[:, 2:]
    np.save(f"{folder}/fresh.npy", found.flow(c if c.shape[1] else None).log_prob(x).detach())
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each flow in a folder of its name, every second one conditional, and its samples."""
    root = tmp_path_factory.mktemp("recipes")
    rows = table(60)
    for number, (name, made) in enumerate(TABLES.items()):
        folder = root / name
        folder.mkdir()
        conditional = number % 2 == 1
        takes = made.shaped_by(conditional)
        small = [w for k, v in SMALL.items() if k in takes for w in (f"--{k}", v)]
        data = write_csv(folder / "t.csv", ["a", "b", "c"], rows)
        context = ["--context", "c"] if conditional else []
        if not conditional:
            write_csv(data, ["a", "b"], rows[:, :2])
        words = ("train", "--data", data, "--flow", name, "--out", folder, *QUICK)
        assert run(*words, *small, *context) == 0, name
        given = ["--context", data] if conditional else []
        rows_each = 1 if conditional else 60
        assert run("sample", folder / "t", "-n", rows_each, *given, "-o", folder / "s.csv") == 0
        assert run("score", folder / "t", folder / "s.csv", "-o", folder / "p.npy") == 0
    words = [sys.executable, "-c", FRESH, str(root), *TABLES]
    subprocess.run(words, check=True)
    return root


@pytest.mark.parametrize("name", TABLES)
def test_a_flow_trains_loads_samples_and_scores(name: str, trained: Path) -> None:
    folder = trained / name
    assert "samples/t_samples.png" in files(folder / "t")
    text = (folder / "t" / "results_summary.txt").read_text()
    assert RECIPES[name].constructor in text
    scores = np.load(folder / "p.npy")[:, 0]
    assert scores.shape == (60,)
    assert np.isfinite(scores).all()
    # Rows are written as text, and scored in blocks.
    np.testing.assert_allclose(np.load(folder / "fresh.npy"), scores, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", TABLES)
def test_a_record_holds_plain_values_that_shape_the_flow(name: str, trained: Path) -> None:
    document = tomllib.loads((trained / name / "t" / "config.toml").read_text())
    record, options = document["flow"], document["options"]
    takes = RECIPES[name].shaped_by(record["arguments"]["context"] > 0)
    assert record["name"] == RECIPES[name].constructor
    assert SHAPES & options.keys() == set(takes)
    assert set(RECIPES[name].arguments) <= record["arguments"].keys()


def test_a_run_of_any_flow_is_resumed_by_its_record(trained: Path) -> None:
    for name in ("gmm", "realnvp", "maf-mog"):
        words = ("train", "--data", trained / name / "t.csv", "--out", trained / name, "--resume")
        assert run(*words, "--epochs", 2) == 0, name
        assert len(mf.load_run(trained / name / "t").metrics) == 2


def test_the_gaussian_starts_at_the_gaussian_of_the_data(trained: Path) -> None:
    again = mf.load_run(trained / "gaussian" / "t")
    rows = again.dataset()
    expected = mf.data.gaussian_log_likelihood(rows.train.x, rows.test.x).mean()
    found = mf.training.evaluate(again.flow, rows.test).mean()
    assert abs(found - expected) < 0.3  # one epoch of training later


def test_help_lists_the_flows_and_an_unknown_one_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, text, _ = call(capsys, "train", "--help")
    for name, made in RECIPES.items():
        assert f"  {name} " in text
        assert made.title.split()[0] in text
    code, _, err = call(capsys, "train", "--dataset", "moons", "--flow", "glew")
    assert (code, err.count("\n")) == (2, 1)
    assert "'glew'" in err
    assert all(name in err for name in RECIPES)


@pytest.mark.parametrize(
    ("flow", "option"),
    [("made", "num_layers"), ("gmm", "hidden_dim"), ("realnvp", "degrees"), ("gf", "batch_norm")],
)
def test_an_option_that_shapes_nothing_is_refused(flow: str, option: str) -> None:
    value = {"degrees": "random", "batch_norm": True}.get(option, 3)
    with pytest.raises(ValueError, match=f"--{option} {value}: --flow {flow}"):
        settle({"dataset": "moons", "flow": flow, option: value})


def test_a_flow_has_settings_of_its_own_below_those_that_are_given() -> None:
    assert settle({"dataset": "power", "flow": "realnvp"})["batch_norm"]
    assert not settle({"dataset": "power", "flow": "realnvp", "batch_norm": False})["batch_norm"]
    assert not settle({"dataset": "mnist", "flow": "modern"})["batch_norm"]
    assert settle({"dataset": "power", "flow": "modern"})["residual"]


@pytest.mark.parametrize("name", TABLES)
def test_only_narrow_masked_layers_get_a_note(name: str) -> None:
    settings = {**settle({"flow": name}), "hidden_dim": 5}
    made = RECIPES[name]
    config = FlowConfig(made.constructor, made.build(9, 2, settings))
    masked = "degrees" in made.takes and made.arguments.get("passes") != 2
    assert (config.note is not None) == masked
    assert build_flow(config)(torch.zeros(3, 2)).batch_shape == (3,)


@pytest.mark.parametrize("base", ["student-t", "mixture", "made"])
def test_a_base_by_name(base: str, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "t.csv", ["a", "b"], table(60)[:, :2])
    words = ("--base", base, "--hidden_dim", 8, "--num_layers", 1, *QUICK)
    assert run("train", "--data", data, "--out", tmp_path, *words) == 0
    found = mf.load_run(tmp_path / "t")
    assert found.config.flow.arguments["base"]["name"] == base
    assert type(found.flow().base).__name__ != "DiagNormal"
    assert found.flow().log_prob(found.dataset().test.x).isfinite().all()


@pytest.mark.parametrize("key", ["activation", "between", "first", "univariate"])
def test_an_unknown_name_in_a_record_is_told(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected one of .*, got 'nothing'"):
        build_flow(FlowConfig("MAF", {"features": 2, key: "nothing"}))


def test_the_readme_names_the_flows() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    named = readme.split("`maskedflow train --flow NAME`")[1].split("[All flows compared]")[0]
    assert all(f"`{name}`" in named for name in RECIPES)
