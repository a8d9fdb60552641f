"""Answers as folders of files, and the scorer that others' workers call."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from commands import call, run
from maskedflow import DensityEstimator
from maskedflow.files import atomic_folder
from maskedflow.files.writing import open_locked
from maskedflow.runs import Scorer, load_run
from maskedflow.tables import FittedTable
from maskedflow.tables.together import by_one_thread, spread_by
from scale_tables import ROWS, RUN, contents, run_with_level, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale") / "rows"
    write_rows(folder)
    return folder


def test_a_folder_has_the_rows_of_a_file_and_the_bytes_of_shards(
    rows: Path, tmp_path: Path
) -> None:
    options = "--keep", "id", "-o"
    assert run("score", RUN, rows, *options, tmp_path / "scores") == 0
    assert run("score", RUN, rows, *options, tmp_path / "scores.parquet") == 0
    assert run("score", RUN, rows, *options, tmp_path / "3.parquet", "--shard", "3/4") == 0
    parts = contents(tmp_path / "scores")
    assert list(parts) == [f"part-0000{number}.parquet" for number in (1, 2, 3, 4)]
    assert parts["part-00003.parquet"] == (tmp_path / "3.parquet").read_bytes()
    whole = pq.read_table(tmp_path / "scores.parquet")
    assert pq.read_table(tmp_path / "scores").equals(whole)
    assert whole["id"].to_pylist() == list(range(ROWS))


def test_draws_of_a_folder_are_those_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = run_with_level(tmp_path / "run", level=-9.0)
    told = []
    for output in ("draws", "draws.parquet"):
        words = "sample", again, "-n", 20_500, "--seed", 3, "--within", "-o", tmp_path / output
        code, _, err = call(capsys, *words)
        assert code == 0
        told.append(err)
    assert len(contents(tmp_path / "draws")) == 2
    assert pq.read_table(tmp_path / "draws").equals(pq.read_table(tmp_path / "draws.parquet"))
    assert "others took their places" in told[0]  # one note, of all parts
    assert told[0] == told[1]


@pytest.mark.slow
def test_rows_completed_into_a_folder_are_those_of_a_file(tmp_path: Path) -> None:
    mixed = RUN.parent / "mixed.parquet"
    table = pq.read_table(mixed).drop_columns(["income"])
    given = tmp_path / "given.parquet"
    pq.write_table(pa.concat_tables([table] * (1100 // len(table) + 1)), given)
    for output in ("rows", "rows.parquet"):
        words = "sample", RUN.parent / "estimator_mixed", "--given", given, "-n", 20
        assert run(*words, "-o", tmp_path / output) == 0
    assert len(contents(tmp_path / "rows")) == 2
    assert pq.read_table(tmp_path / "rows").equals(pq.read_table(tmp_path / "rows.parquet"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "scores.csv", "--engine", "ray"], "expected a folder, a name without an ending"),
        (["-o", "scores", "--shard", "1/2"], "--shard 1/2: a folder has all pieces; leave it out"),
        (["-o", "full"], "full: expected a folder that is new or empty, found something there"),
        (["-o", "scores", "--engine", "ray"], "ray: not here; pip install 'maskedflow[ray]'"),
    ],
)
def test_what_cannot_be_a_folder_is_one_line(
    words: list[str],
    said: str,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").touch()
    code, _, err = call(capsys, "score", RUN, rows, *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_what_is_not_in_pieces_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = RUN.parent / "flow_series", RUN.parent / "series.csv"
    code, _, err = call(capsys, "score", *series, "-o", tmp_path / "scores")
    assert (code, "a time series is scored as a whole, into one file" in err) == (2, True)
    words = "--flow", "maf", "--engine", "ray", "--out", tmp_path
    code, _, err = call(capsys, "train", "--data", RUN.parent / "numbers.csv", *words)
    assert code == 2
    assert "--engine ray: spreads the members of a search; expected --flow auto" in err
    assert not any(tmp_path.iterdir())


def test_a_bad_cell_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_rows(tmp_path / "rows").slice(0, 100)
    bad = table.set_column(1, "a", pa.array([*range(99), None], pa.float64()))
    pq.write_table(bad, tmp_path / "rows" / "3.parquet")
    code, _, err = call(capsys, "score", RUN, tmp_path / "rows", "-o", tmp_path / "scores")
    assert code == 2
    assert "3.parquet: column 'a', row 100: expected a finite number" in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_what_a_killed_process_left_is_removed_and_a_living_one_is_not_disturbed(
    tmp_path: Path,
) -> None:
    left = tmp_path / ".scores.tmp"
    (left / "deep").mkdir(parents=True)
    (left / "part-00009.parquet").touch()
    with atomic_folder(tmp_path / "scores") as beside:
        assert not any(beside.iterdir())
        (beside / "part-00001.parquet").touch()
    assert list(contents(tmp_path / "scores")) == ["part-00001.parquet"]
    lock = open_locked(tmp_path / ".other.tmp")
    assert lock is not None
    with (
        pytest.raises(ValueError, match="another process is writing"),
        atomic_folder(tmp_path / "other"),
    ):
        pass
    os.close(lock)


# ----------------------------------------------------------------------------------------- scorer


def test_a_scorer_says_what_a_file_of_these_rows_has(rows: Path, tmp_path: Path) -> None:
    part = rows / "0.parquet"
    assert run("score", RUN, part, "-o", tmp_path / "scores.parquet") == 0
    wanted = pq.read_table(tmp_path / "scores.parquet")["log_prob"]
    scorer = pickle.loads(pickle.dumps(Scorer(RUN)))
    table = pq.read_table(part)
    scored = scorer(table)
    assert scored.column_names == ["id", "a", "b", "c", "log_prob"]
    assert scored["log_prob"].equals(wanted)
    batch = scorer(table.combine_chunks().to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    assert batch["log_prob"].equals(wanted.combine_chunks())
    frame = table.to_pandas().set_index("id").iloc[::-1].iloc[::-1]
    assert scorer(frame).index.equals(frame.index)
    assert scorer(frame)["log_prob"].tolist() == wanted.to_pylist()
    arrays = {name: table[name].to_numpy() for name in "cab"}
    assert np.array_equal(scorer(arrays)["log_prob"], wanted.to_numpy())
    assert scorer(table.slice(0, 0))["log_prob"].to_pylist() == []


def test_the_pickle_of_a_scorer_has_no_weights_and_a_run_that_changed_is_opened_again(
    rows: Path, tmp_path: Path
) -> None:
    copytree(RUN, tmp_path / "run")
    scorer = Scorer(tmp_path / "run")
    assert len(pickle.dumps(scorer)) < 1000
    table = pq.read_table(rows / "0.parquet").slice(0, 5)
    before = scorer(table)["log_prob"]
    run_with_level(tmp_path / "other", level=-1.0)
    for name in ("config.toml", "checkpoints/best.safetensors"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "other" / "config.toml").rename(tmp_path / "run" / "config.toml")
    with pytest.raises(FileNotFoundError, match="best"):
        scorer(table)
    assert Scorer(RUN)(table)["log_prob"].equals(before)


def test_what_a_scorer_cannot_do_is_told(rows: Path) -> None:
    table = pq.read_table(rows / "0.parquet").slice(0, 5)
    with pytest.raises(ValueError, match="table: has a column 'log_prob' itself"):
        Scorer(RUN)(Scorer(RUN)(table))
    with pytest.raises(ValueError, match="columns: table has no column 'b'"):
        Scorer(RUN)(table.drop_columns(["b"]))
    with pytest.raises(TypeError, match="one of Arrow or pandas, or a mapping"):
        Scorer(RUN)(np.zeros((2, 3)))
    with pytest.raises(FileNotFoundError, match=r"0\.parquet: no such run$"):
        Scorer(rows / "0.parquet")(table)
    with pytest.raises(ValueError, match=r"explain: .* is a single flow"):
        Scorer(RUN, explain=True)(table)


@pytest.mark.slow
def test_a_scorer_answers_other_questions() -> None:
    mixed = pq.read_table(RUN.parent / "mixed.parquet").slice(0, 3).to_pandas()
    scored = Scorer(RUN.parent / "estimator_mixed", given=["kind"])(mixed)
    assert isinstance(scored, pd.DataFrame)
    assert [*scored.columns[-2:]] == ["log_prob", "standard_error"]
    assert np.isfinite(scored["log_prob"]).all()


@pytest.mark.slow
def test_a_scorer_explains_in_the_places_of_the_cells() -> None:
    table = pq.read_table(RUN.parent / "mixed.parquet").slice(0, 3)
    table = table.add_column(0, "id", pa.array(["u", "v", "w"]))
    mixed = RUN.parent / "estimator_mixed"
    scorer, names = Scorer(mixed, explain=True), load_run(mixed).columns
    wanted = DensityEstimator.load(mixed).explain(table, table)
    added = ["log_prob", "standard_error", "reason"]
    batch = table.combine_chunks().to_batches()[0]
    for one in (table, batch, table.to_pandas(), table.to_pydict()):
        scored = scorer(one)
        found = scored if isinstance(scored, pa.Table) else pa.table(scored)
        assert found.column_names == [*table.column_names, *added]
        assert found["id"].to_pylist() == ["u", "v", "w"]
        for name in [*names, *added]:
            assert found[name].to_pylist() == wanted[name].to_pylist()
    with pytest.raises(ValueError, match="table: has a column 'log_prob' itself"):
        scorer(scored)


# ----------------------------------------------------------------------------------------- search


def test_a_call_elsewhere_has_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert by_one_thread(torch.get_num_threads) == 1
        with pytest.raises(ZeroDivisionError):
            by_one_thread(lambda: 1 / 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_search_in_other_processes_finds_the_same() -> None:
    made = []

    def elsewhere(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        made.append(len(calls))
        return [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(one))())) for one in calls]

    a, b = np.random.default_rng(0).normal(size=(2, 200))
    table = pa.table({"a": a, "b": a**2 + 0.3 * b})
    with spread_by(elsewhere):
        there = FittedTable.fit(table, flow="nsf", work=1.0, seed=3)
    here = FittedTable.fit(table, flow="nsf", work=1.0, seed=3)
    assert made[0] == 2  # the kinds of flows
    assert here.density.plan == there.density.plan
    one, other = here.density.state_dict(), there.density.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
