"""Own tables: what is read, what is refused and how, and what is written."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from maskedflow import data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def columns_file(path: Path, suffix: str, n: int = 200) -> Path:
    frame = pd.DataFrame(
        {"age": np.arange(n) % 90, "height": np.linspace(1.2, 2.1, n), "dose": np.arange(n) / 7}
    )
    path = path.with_suffix(suffix)
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    return path


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_row_lands_in_one_split(path: Path, suffix: str) -> None:
    path = columns_file(path, suffix)
    table = data.open_table(path, context=["dose", "age"], validation=0.2, test=0.1)
    assert (table.name, table.columns) == ("table", ("height",))
    assert table.context_columns == ("dose", "age")
    splits = (table.train, table.validation, table.test)
    assert [len(split) for split in splits] == [140, 40, 20]
    rows = torch.cat([torch.cat([s.x, s.context], 1) for s in splits if s.context is not None])
    rows = rows[rows[:, 0].argsort()]
    wanted = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    np.testing.assert_allclose(rows.numpy(), wanted[["height", "dose", "age"]].to_numpy("float32"))


def test_the_seed_decides_the_rows(path: Path) -> None:
    path = columns_file(path, ".csv")
    first, again, other = (data.open_table(path, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test.x, again.test.x)
    assert not torch.equal(first.test.x, other.test.x)


def test_standardising_uses_the_training_rows_only(path: Path) -> None:
    table = data.open_table(columns_file(path, ".csv"), context=["dose"])
    preprocessing, embedding = table.preprocessing(), table.embedding()
    assert preprocessing is not None
    assert embedding is not None
    z, ladj = preprocessing().call_and_ladj(table.train.x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(2))
    wanted = -table.train.x.double().std(0, correction=0).log().sum()
    torch.testing.assert_close(ladj, wanted.float().expand(len(z)))
    c = embedding(table.train.context)
    torch.testing.assert_close(c.var(0, correction=0), torch.ones(1))
    assert embedding(table.test.context).mean().abs() > 1e-4


def test_what_is_fitted_once_is_given_each_time_anew(path: Path) -> None:
    table = data.open_table(columns_file(path, ".csv"), context=["dose"])
    for make in (table.preprocessing, table.embedding):
        first, second = make(), make()
        assert first is not None
        assert second is not None
        for one, other in zip(first.buffers(), second.buffers(), strict=True):
            one.zero_()  # as loading other weights would
            assert other.count_nonzero() == other.numel()


def test_a_constant_context_is_only_centred(path: Path) -> None:
    x = torch.cat([torch.randn(50, 1), torch.full((50, 1), 0.1)], 1)
    data.write_table(path, ["x", "c"], [x])
    table = data.open_table(path, context=["c"])
    embedding = table.embedding()
    assert embedding is not None
    c = embedding(table.train.context)
    assert c.isfinite().all()
    assert c.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(50, 3.5), r"column 'b' is constant \(3.5 in all 40 training rows\)"),
        (1e14 + np.arange(50) / 16, "is 1e\\+14 nearly everywhere, .* float64; .* an offset"),
    ],
)
def test_a_feature_without_spread_is_refused(path: Path, values: np.ndarray, message: str) -> None:
    pd.DataFrame({"a": np.arange(50), "b": values}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        data.open_table(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": ["weight"]}, "no column 'weight'; its columns are age, height, dose"),
        ({"context": ["age", "age"]}, "'age' is given twice"),
        ({"context": ["age", "height", "dose"]}, "none is left to model"),
        ({"validation": 0.6, "test": 0.4}, "expected fractions in .* got 0.6 and 0.4"),
        ({"test": -0.1}, "expected fractions in"),
        ({"test": 0.001}, "test: 0.001 of the 200 rows of .* is less than one row"),
    ],
)
def test_bad_arguments_are_named(path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.open_table(columns_file(path, ".csv"), **arguments)  # type: ignore[arg-type]


# ---------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n1,tall\n", "column 'b', row 2: expected a number, found 'tall'"),
        ("a,b\n1,true\n", "column 'b', row 1: expected a number, found 'true'"),
        ("a,b\n1,2020-01-31\n", "column 'b', row 1: expected a number, found '2020-01-31'"),
        ('a,b\n"1,000",2\n', "column 'a', row 1: expected a number, found '1,000'"),
        ("a,b\n1,2\n,3\n", "column 'a', row 2: expected a finite number, found a missing"),
        ("a,b\n1,2\n3,NaN\n", "column 'b', row 2: expected a finite number, found a missing"),
        ("a,b\n1,2\n3,-inf\n", "column 'b', row 2: expected a finite number .* found -inf"),
        ("a,b\n1e300,2\n", r"column 'a', row 1: .* range of float32, found 1e\+300"),
        ("a;b\n1,234;2\n", "column 'a', row 1: .* decimal comma or a separator of thousands"),
        ("a;b\n1,5;2.5\n", r"column 'a', row 1: .* found '1,5' \(a decimal comma"),
        ("a,b\n1,2\n3\n", "row 2: expected 2 cells, as in the header, found 1"),
        ("1,2.5\n3,4\n", "expected a header, found numbers in the first row, 1, 2.5"),
        ("# by hand\na,b\n1,2\n", "found a comment, '# by hand'"),
        ("a,b\n1,9007199254740993\n", "column 'b', row 1: expected a number of at most 15 digits"),
        ("<html></html>", "found HTML"),
        ("a,b\n1,2\n".encode("utf-16"), "found UTF-16 text"),
        (b"\x1f\x8b\x08\0", "found a damaged gzip file"),
        ("a,a\n1,2\n", "'a' twice"),
        (",a\n0,2\n", "column 1 has no name"),
        ("", "is empty"),
        ("a,é\n1,2\n".encode("latin-1"), "cannot be read as csv"),
        ("a,b\n1,é\n".encode("latin-1"), "cannot be read as csv"),
    ],
)
def test_a_bad_csv_is_refused_in_one_line(path: Path, text: str | bytes, message: str) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["tall", "low"], "column 'a': expected numbers, found type string"),
        ([True, False], "column 'a': expected numbers, found type bool"),
        ([dt.date(2020, 1, 31)] * 2, "column 'a': expected numbers, found type date"),
        ([[1.0], [2.0]], "column 'a': expected numbers, found type list"),
        ([1, None], "column 'a', row 2: expected a finite number, found a missing"),
        ([1.0, float("nan")], "column 'a', row 2: expected a finite number .* found nan"),
    ],
)
def test_a_bad_parquet_column_is_refused(path: Path, values: list[object], message: str) -> None:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.table({"a": values}), path)
    with pytest.raises(ValueError, match=message):
        data.read_table(path)


def test_a_bad_cell_late_in_the_file_keeps_its_row_number(path: Path) -> None:
    path.write_text("a,b\n" + 300_000 * "1,2\n" + "1.5,oops\n")
    with pytest.raises(ValueError, match=r"column 'b', row 300001: .* 'oops'"):
        list(data.iter_batches(path, rows=1000))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        data.read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="found a folder"):
        data.read_table(tmp_path)
    for name, message in (
        ("a.xlsx", r"ending in .csv, .tsv, .parquet, .*or .nc"),
        ("a.parquet", "as parquet"),
    ):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match=message):
            data.read_table(tmp_path / name)


# ---------------------------------------------------------------- streaming


def test_floats_after_a_long_run_of_integers_are_read(path: Path) -> None:
    path.write_text("a\n" + 600_000 * "1\n" + "1.5\n")  # more than one block of pyarrow's
    assert data.read_table(path)[-1].item() == 1.5


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_batches_are_the_table_in_order(path: Path, suffix: str) -> None:
    path = columns_file(path, suffix)
    batches = list(data.iter_batches(path, ["dose", "age"], rows=33))
    assert max(len(batch) for batch in batches) == 33
    assert torch.equal(torch.cat(batches), data.read_table(path)[:, [2, 0]])
    with pytest.raises(ValueError, match=r"columns: .* no column 'x'"):
        next(data.iter_batches(path, ["x"]))
    with pytest.raises(ValueError, match="at least one row"):
        next(data.iter_batches(path, rows=0))


def test_numbers_of_every_kind_are_floats(path: Path) -> None:
    path = path.with_suffix(".parquet")
    columns = {
        "byte": pa.array([1, 2], pa.uint8()),
        "half": pa.array([0.5, 1.5], pa.float16()),
        "exact": pa.array([decimal.Decimal("1.25")] * 2),
        "nested.name": pa.array([1.0, 2.0]),
    }
    pq.write_table(pa.table(columns), path)
    wanted = torch.tensor([[1, 0.5, 1.25, 1], [2, 1.5, 1.25, 2]])
    assert torch.equal(data.read_table(path), wanted)


def test_windows_files_are_read(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    assert data.column_names(path) == ("a", "b")
    assert data.read_table(path).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a;b\n1.5;2\n-3;4\n", "columns of {} are separated by semicolons (--delimiter ';')"),
        ("a\tb\n1.5\t2\n-3\t4\n", "columns of {} are separated by tabs (--delimiter tab)"),
        ("a;b\n1,5;2\n-3;4\n", "decimals in {} are written with commas (--decimal ,)"),
        ("a,b\n1.5,2\n\n-3,4\n", None),
    ],
)
def test_other_dialects_are_read_and_told(path: Path, text: str, note: str | None) -> None:
    path.write_text(text)
    assert data.read_table(path).tolist() == [[1.5, 2.0], [-3.0, 4.0]]
    source = data.open_source(path)
    assert source.notes[-1:] == (() if note is None else (note.format(path),))
    assert source.names == ("a", "b")
    last = next(source.batches(["b"], {"b": pa.float64()}, first=1, last=2))  # from its own place
    assert last.column(0).to_pylist() == [4.0]


def test_names_that_look_like_numbers_are_told(path: Path) -> None:
    for header, notes in (("0,1", 0), ("2019,2020", 1), ("a,2.5", 1)):
        path.write_text(f"{header}\n1,2\n")
        assert len(data.open_source(path).notes) == notes


def test_hidden_files_of_a_folder_are_no_parts(tmp_path: Path) -> None:
    for name in ("0", "_metadata", ".0.crc"):
        pq.write_table(pa.table({"a": [1.0]}), tmp_path / f"{name}.parquet")
    assert data.open_source(tmp_path).count() == 1


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_what_is_written_is_read_back_exactly(path: Path, suffix: str, dtype: torch.dtype) -> None:
    path = path.with_suffix(suffix)
    x = torch.randn(1000, 3, dtype=dtype)
    assert data.write_table(path, ["a", "b, c", "d"], x.split(300)) == 1000
    match suffix:
        case ".csv":
            frame = pl.read_csv(path).to_pandas()
        case ".parquet":
            frame = pd.read_parquet(path)
        case _:
            frame = pd.DataFrame(np.load(path, allow_pickle=False), columns=["a", "b, c", "d"])
    assert list(frame) == ["a", "b, c", "d"]
    np.testing.assert_array_equal(frame.to_numpy().astype(x.numpy().dtype), x.numpy())
    if suffix != ".npy":
        assert torch.equal(data.read_table(path), x.float())


def test_polars_reads_what_is_written(path: Path) -> None:
    data.write_table(path, ["log_prob"], [torch.tensor([[-1.5], [2.0]])])
    assert pl.read_csv(path)["log_prob"].to_list() == [-1.5, 2.0]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_no_rows_make_an_empty_table(path: Path, suffix: str) -> None:
    path = path.with_suffix(suffix)
    assert data.write_table(path, ["a", "b"], []) == 0
    shape = np.load(path).shape if suffix == ".npy" else tuple(data.read_table(path).shape)
    assert shape == (0, 2)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_a_failure_leaves_the_old_file_and_no_other(path: Path, suffix: str) -> None:
    path = path.with_suffix(suffix)
    path.write_text("precious")

    def failing() -> Iterator[Tensor]:
        yield torch.zeros(2, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_table(path, ["a"], failing())
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "precious"


def test_bad_output_is_named(tmp_path: Path) -> None:
    rows = [torch.zeros(2, 2)]
    with pytest.raises(ValueError, match=r"ending in .csv, .tsv, .csv.gz, .tsv.gz, .parquet, .npy"):
        data.write_table(tmp_path / "a.txt", ["a", "b"], rows)
    with pytest.raises(ValueError, match=r"expected shape \(n, 1\), .* got \(2, 2\)"):
        data.write_table(tmp_path / "a.csv", ["a"], rows)
    with pytest.raises(ValueError, match=r"expected all of torch.float32, got torch.float64"):
        data.write_table(tmp_path / "a.csv", ["a", "b"], [*rows, rows[0].double()])
