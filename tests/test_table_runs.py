"""Runs on mixed tables: what is read from files, what is held out, and what stands beside it."""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import maskedflow as mf
from commands import SMALL, call, run, table, write_csv
from maskedflow.cli import main
from maskedflow.cli.options import TrainOptions
from maskedflow.cli.train import said
from maskedflow.data import (
    MixedTable,
    TableSplit,
    infer_schema,
    open_mixed,
    open_source,
    write_batches,
)
from maskedflow.runs import (
    DataConfig,
    RunConfig,
    SearchConfig,
    load_run,
    sample_run,
    score_run,
    search_run,
    write_run,
)
from maskedflow.runs.asked import why_search
from maskedflow.runs.prepare import prepare
from maskedflow.tables import Schema, read_source, to_rows, to_table
from table_strategies import tables

FAST = "--flow gaussian --work 1".split()  # noqa: SIM905


@settings(max_examples=3, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.data(), st.booleans())
def test_any_table_is_the_same_in_both_formats(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, missing: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    drawn, known = data.draw(tables(missing))
    if missing:  # in CSV an empty text and a missing one are the same
        drawn = drawn.drop_columns(["word", "word_again"])
    pq.write_table(drawn, folder / "t.parquet")
    whole = pq.read_table(folder / "t.parquet")
    known = {name: known[name] for name in known if name in whole.column_names}
    schema = Schema.infer(whole, "model" if missing else "error", known)
    rows = TableSplit(whole)
    table = MixedTable("t", schema, rows, rows)
    data = DataConfig(table.columns, table.rows, file="t.parquet")
    config = RunConfig("run", data, search=SearchConfig("gaussian", schema.missing, work=0.5))
    write_run(search_run(folder / "run", config, table))
    assert Schema.from_toml((folder / "run" / "schema.toml").read_text()) == schema
    again = load_run(folder / "run")
    for name in ("t", "s"):
        if name == "s":
            write_batches(folder / "s.parquet", *sample_run(again, 20))
        cells = pq.read_table(folder / f"{name}.parquet")
        assert cells.schema.equals(whole.schema)
        write_batches(folder / f"{name}.csv", cells.schema, cells.to_batches())
        expected = again.density.log_prob(cells)
        for suffix in ("parquet", "csv"):
            batches = score_run(again, folder / f"{name}.{suffix}").batches
            found = np.concatenate([batch["log_prob"].to_numpy() for batch in batches])
            np.testing.assert_array_equal(found, expected)


def test_the_rows_held_out_are_those_of_a_table_of_numbers(tmp_path: Path) -> None:
    rows = table(100)
    data = write_csv(tmp_path / "n.csv", ["a", "b", "c"], rows)
    for seed in (0, 5):
        numbers = mf.data.open_table(data, seed=seed)
        part = open_mixed(data, seed=seed)
        ours = np.stack([column.to_numpy() for column in part.test.x.columns], axis=1)
        np.testing.assert_array_equal(ours.astype(np.float32), numbers.test.x.numpy())
        assert len(part.train) == len(numbers.train) + len(numbers.validation)


# ---------------------------------------------------------------------- when it is an estimator


def test_a_table_asks_for_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = write_csv(tmp_path / "n.csv", ["a", "b"], table(40)[:, :2])
    assert why_search(said(TrainOptions(data=numbers))) is None
    assert why_search(said(TrainOptions(data=numbers, flow="auto"))) == "--flow auto"
    assert why_search(said(TrainOptions(data=numbers, missing="error"))) == "--missing"
    _, config, _ = prepare({"data": numbers}, tmp_path / "n")
    assert config.search is None
    dates = ("2020-01-01", "2021-03-05")
    for name, column in (("text", "xy"), ("boolean", ("true", "false")), ("date", dates)):
        path = tmp_path / f"{name}.csv"
        path.write_text("a,b\n" + 20 * "".join(f"{cell},1\n" for cell in column))
        _, config, notes = prepare({"data": path}, tmp_path / name)
        assert config.search is not None
        assert f"{path} is not all finite numbers, so --flow auto is taken" in notes
        assert why_search({"data": path, "flow": "maf"}) is None
    # Whoever shapes a flow wants one, and hears which cell is no number.
    code, _, err = call(capsys, "train", "--data", tmp_path / "text.csv", "--epochs", 3)
    assert (code, err.count("\n")) == (2, 1)
    assert "row 1: expected a number, found 'x'; --flow auto takes columns of every kind" in err


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        (
            "",
            "row 3: expected a finite number, found a missing value (empty, NA or nan); --missing",
        ),
        ("inf", "row 3: expected a finite number within"),
        ("oops", "row 3: expected a number or a date, found 'oops' in a column of numbers"),
        ("$5", "row 3: expected a number or a date, found '$5' (a currency sign; leave it out)"),
    ],
)
def test_one_cell_does_not_change_the_kind_of_model(
    cell: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "t.csv"
    data.write_text(f"a,b\n1,2\n2,3\n{cell},4\n" + "5,6\n" * 20)
    code, _, err = call(capsys, "train", "--data", data, "--out", tmp_path / "runs")
    assert (code, err.count("\n")) == (2, 1)
    assert f"column 'a', {named}" in err
    assert not (tmp_path / "runs").exists()


def test_a_column_may_be_declared_to_be_what_it_is(tmp_path: Path) -> None:
    data, known = tmp_path / "t.csv", tmp_path / "known.toml"
    data.write_text("a,b\n" + "1,2\n2,3\n2A,4\n" * 20)
    known.write_text('[columns.a]\nkind = "categorical"\n')
    with pytest.raises(ValueError, match=r"column 'a', row 3: .* found '2A'"):
        infer_schema(data)
    assert infer_schema(data, known).columns[0].levels == ("1", "2", "2A")


def test_text_alone_makes_an_estimator_and_the_config_trains_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "words.csv"
    data.write_text("word,other\n" + "a,x\nb,y\nb,x\n" * 20)
    code, out, err = call(capsys, "train", "--data", data, "--time_limit", 0.5, "--out", tmp_path)
    assert code == 0
    assert f"note: {data} is not all finite numbers, so --flow auto is taken" in err
    assert "54 rows of 2 columns" in out
    config = tmp_path / "words" / "config.toml"
    assert tomllib.loads(config.read_text())["options"]["flow"] == "auto"
    code, _, err = call(capsys, "train", "--config", config, "--out", tmp_path)
    assert code == 0
    assert "earlier run" in err
    # It keeps the work that there was time for.
    pair = [scores_of(tmp_path / name, data) for name in ("words.1", "words")]
    np.testing.assert_array_equal(pair[0], pair[1])


def test_a_config_keeps_the_schema_and_whether_there_is_a_report(tmp_path: Path) -> None:
    data, known = tmp_path / "t.csv", tmp_path / "known.toml"
    rng = np.random.default_rng(0)
    write_csv(data, ["x", "wind"], rng.uniform(0, 360, (60, 2)))
    known.write_text('[columns.wind]\nkind = "angle"\nperiod = 360\n')
    words = ("--data", data, "--schema", known, *FAST, "--out", tmp_path / "first")
    assert run("train", *words) == 0
    first = tmp_path / "first" / "t"
    text = (first / "config.toml").read_text()
    config = tmp_path / "again.toml"
    config.write_text(text.replace("[options]\n", "[options]\nreport = false\n"))
    with pytest.raises(SystemExit) as done:
        main(["train", "--config", str(config), "--out", str(tmp_path / "again")])
    assert done.value.code == 0
    again = tmp_path / "again" / "t"
    assert (again / "schema.toml").read_text() == (first / "schema.toml").read_text()
    assert not (again / "report.html").exists()
    np.testing.assert_array_equal(scores_of(first, data), scores_of(again, data))


def scores_of(directory: Path, data: Path) -> np.ndarray:
    scores: np.ndarray = (
        load_run(directory).density.log_prob(read_source(open_source(data))).numpy()
    )
    return scores


def test_an_estimator_is_compared_with_a_flow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "n.csv", ["a", "b", "c"], table())
    code, _, err = call(capsys, "train", "--data", data, "--out", tmp_path / "flow", *SMALL)
    assert (code, "--flow auto" in err) == (0, True)
    words = ("--missing", "error", *FAST, "--out", tmp_path)
    assert run("train", "--data", data, *words) == 0
    summary = (tmp_path / "n" / "results_summary.txt").read_text()
    assert "full Gaussian" in summary
    code, out, _ = call(capsys, "compare", tmp_path / "flow" / "n", tmp_path / "n")
    assert code == 0
    assert out.index(str(tmp_path / "n")) < out.index(str(tmp_path / "flow" / "n"))
    found = load_run(tmp_path / "n")
    nll = -found.density.log_prob(found.dataset().test.x).mean()
    assert f"{nll:.1f}"[:3] in out
    # The Gaussian beside it is that of the paper's tables, on the same rows.
    split = mf.data.open_table(data)
    train = torch.cat([split.train.x, split.validation.x])
    gaussian = mf.data.gaussian_log_likelihood(train.double(), split.test.x.double()).mean()
    assert f"{gaussian:.1f}"[:4] in summary
    other = ("--seed", 1, *words[:-1], tmp_path / "other")
    assert run("train", "--data", data, *other) == 0
    code, _, err = call(capsys, "compare", tmp_path / "n", tmp_path / "other" / "n")
    assert (code, err.count("\n")) == (2, 1)
    assert "seed" in err


@pytest.mark.parametrize("far", [-1e100, 1e100])
def test_draws_from_far_away_can_be_read_again(tmp_path: Path, far: float) -> None:
    days = pa.array(np.arange(-40, 40, dtype=np.int32)).cast(pa.date32())
    kinds = {f"time{i}": pa.timestamp(*k) for i, k in enumerate([["s"], ["us", "UTC"], ["ns"]])}
    cells = {name: days.cast(kind) for name, kind in {**kinds, "day": pa.date64()}.items()}
    whole = pa.table({**cells, "large": np.arange(80) ** 7, "small": np.arange(80).astype(np.int8)})
    schema = Schema.infer(whole)
    rows = to_rows(schema, whole)
    drawn = to_table(schema, replace(rows, values=torch.full_like(rows.values, far)))
    write_batches(tmp_path / "far.csv", drawn.schema, drawn.to_batches())
    types = {column.name: column.type for column in schema.arrow_schema}
    source = open_source(tmp_path / "far.csv")
    again = pa.Table.from_batches(source.batches(schema.names, types))
    assert again.select([*kinds, "day"]).equals(drawn.select([*kinds, "day"]))
    assert torch.equal(to_rows(schema, again).values, to_rows(schema, drawn).values)


# ----------------------------------------------------------------------------------- changed files


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "e.safetensors"
    frame = pa.table({"a": table()[:, 0], "word": ["u", "v"] * 200})
    mf.DensityEstimator("gaussian", work=1).fit(frame).save(path)
    return path


FRONT = {"knots": 0, "whiten": True}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("params", "random_state"), "a text", "random_state: expected an integer"),
        (("params", "time_limit"), math.inf, "time_limit: expected a finite number"),
        (("params", "other"), 1, "other: unknown"),
        (("kind",), "spark", "kind: expected 'numpy'"),
        (("n_features_in",), -2, "n_features_in: expected at least 1, got -2"),
        (("feature_names_in",), [1], "feature_names_in.0: expected text"),
        (("schema",), "[", "TOMLDecodeError"),
        (("schema",), "[columns.a]\nkind = 'continuous'\ntype = 5", "name of an Arrow type"),
        (("schema",), "[columns.a]\nkind = 'continuous'\ntype = 'decimal9(1, 2)'", "Arrow type"),
        (("context_schema",), "", "at least one"),
        (("plan", "context"), 10**15, "numbers at least"),
        (("plan", "given"), -1, "plan.given: expected at least 0, got -1"),
        (("plan", "members"), None, "plan.members: expected a list"),
        (("plan", "members"), [{"front": {"knots": 10**10, "whiten": True}}], "numbers at least"),
        (("plan", "members"), [{"front": FRONT, "components": 10**9}], "numbers at least"),
        (("plan", "members"), [{"front": FRONT, "layers": "s" * 10**5}], "layers: expected"),
        (("plan", "members"), [{"front": FRONT, "layers": "s", "hidden": 10**6}], "numbers at"),
        (("plan", "members"), [{"front": FRONT, "layers": "x"}], "layers: expected"),
    ],
    ids=str,
)
def test_an_estimator_that_cannot_be_is_refused_before_it_is_built(
    saved: Path, place: tuple[str, ...], value: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "e.safetensors"
    with safe_open(saved, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = file.metadata()
    document = json.loads(header["maskedflow"])
    inner = document["estimator"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    changed = {"maskedflow": json.dumps(document)}
    for metadata, wanted in (
        (header | changed, "changed since it was written"),
        (changed, message),  # as in files of earlier builds, which had no checksum
    ):
        save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match=rf"e\.safetensors: .*{wanted}") as error:
            mf.DensityEstimator.load(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 0", 'seed = "a text"'),
        ("seed = 0", "seed = -1"),
        ("[search]", "[searches]"),
        ('name = "n"', 'name = "../n"'),
        ("seconds = ", "seconds = nan #"),
        ("rows = [", "rows = [ 1,"),
    ],
)
def test_a_changed_record_of_a_table_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    data = DataConfig(("a",), (9, 0, 1), file="n.csv")
    RunConfig("n", data, search=SearchConfig("auto"), options={"flow": "auto"}).write(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        load_run(tmp_path)
    assert "\n" not in str(error.value)
