"""A cell that is not what its column is: named alike by every command and function."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import SMALL, call, run, table, write_csv
from maskedflow import data
from maskedflow.data.table import open_if_numbers
from maskedflow.estimator import tell_schema
from maskedflow.sources import CellError

GAP = "a missing value (empty, NA or nan)"
CELLS = {"much": "'much'", "$5": "'$5' (a currency sign; leave it out)", "": GAP, "inf": "inf"}
"""Cells of a column of numbers, and how they are called."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow, an estimator, and files with a bad cell in the third row of every column."""
    folder = tmp_path_factory.mktemp("bad")
    rows = table(120)
    good = write_csv(folder / "t.csv", ["a", "b", "c"], rows)
    words = ("train", "--data", good, "--context", "c", "--out")
    assert run(*words, folder / "flow", "--flow", "maf", *SMALL) == 0
    assert run(*words, folder / "auto", "--flow", "gaussian", "--missing", "error") == 0
    lines = good.read_text().splitlines()
    for name, cell in zip(("text", "money", "gap", "inf"), CELLS, strict=True):
        for i, column in enumerate("abc"):
            cells = lines[3].split(",")
            cells[i] = cell
            spoilt = [*lines[:3], ",".join(cells), *lines[4:]]
            (folder / f"{name}_{column}.csv").write_text("\n".join(spoilt))
    return folder


FILES = dict(zip(("text", "money", "gap", "inf"), CELLS.values(), strict=True))


@pytest.mark.parametrize("run_", ["flow", "auto"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("words", "column"),
    [
        ("score {run} {file} -o {out}", "a"),
        ("score {run} {file} -o {out} --shard 1/1", "b"),
        ("sample {run} -n 2 --context {file} -o {out}", "c"),
        ("report {run} --data {file}", "b"),
        ("evaluate {run} --data {file}", "a"),
    ],
)
def test_every_command_names_the_cell(
    words: str,
    column: str,
    name: str,
    run_: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = folder / f"{name}_{column}.csv"
    filled = words.format(run=folder / run_ / "t", file=file, out=tmp_path / "o.csv")
    code, _, err = call(capsys, *filled.split())
    assert (code, err.count("\n")) == (2, 1)
    assert f"{file}: column {column!r}, row 3: expected a" in err
    assert f", found {FILES[name]}" in err
    assert not (tmp_path / "o.csv").exists()


OPENERS: dict[str, Callable[[Path], Any]] = {
    "read_table": data.read_table,
    "iter_batches": lambda path: list(data.iter_batches(path, rows=2)),
    "open_table": data.open_table,
    "open_streamed": data.open_streamed,
    "open_series": lambda path: data.open_series(path, "b"),
    "open_if_numbers": lambda path: open_if_numbers(data.open_source(path)),
    "streamed if numbers": lambda path: open_if_numbers(data.open_source(path), stream=True),
    "tell_schema": lambda path: tell_schema(path, missing="error"),
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("name", ["text", "money"])
def test_every_function_names_the_cell(opener: str, name: str, folder: Path) -> None:
    with pytest.raises(CellError) as caught:
        OPENERS[opener](folder / f"{name}_a.csv")
    error = caught.value
    assert (error.path, error.column, error.row) == (folder / f"{name}_a.csv", "a", 3)
    assert error.expected in ("a number", "a number or a date")
    assert error.found.startswith(FILES[name])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (CellError, str(error))


def test_text_in_place_of_numbers_is_named_by_its_column(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "text.parquet"
    pq.write_table(pa.table({"a": ["u"] * 120, "b": [1.0] * 120, "c": [1.0] * 120}), file)
    for kind in ("flow", "auto"):
        for command in ("report", "evaluate"):
            code, _, err = call(capsys, command, folder / kind / "t", "--data", file)
            assert (code, err.count("\n")) == (2, 1)
            assert f"{file}: column 'a': expected numbers, found type string" in err


# ------------------------------------------------------------------------------- opening only once


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_is_a_data_set_if_all_its_columns_are_numbers(
    suffix: str, stream: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"t{suffix}"
    source = write_csv(tmp_path / "t.csv", ["a", "b"], table()[:, :2])
    frame = data.open_source(source).table(["a", "b"])
    pq.write_table(frame, tmp_path / "t.parquet")
    found = open_if_numbers(data.open_source(path), stream=stream, context=["b"], seed=3)
    asked = data.open_streamed if stream else data.open_table
    expected = asked(path, context=["b"], seed=3)
    assert isinstance(found, data.Dataset)
    assert found.train.x.equal(expected.train.x)
    assert found.test.x.equal(expected.test.x)
    assert (found.notes, found.context_columns) == (expected.notes, ("b",))


@pytest.mark.parametrize("stream", [False, True])
def test_other_tables_are_read(stream: bool, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1,x\n2,y\n" * 50)
    found = open_if_numbers(data.open_source(tmp_path / "t.csv"), stream=stream)
    assert isinstance(found, pa.Table)
    assert found.schema.types == [pa.int64(), pa.string()]
