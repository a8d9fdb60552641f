"""CSV files that are written in other ways: what is told of them, what is refused, what is read."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from commands import SMALL, call, run, table, write_csv
from maskedflow import data
from maskedflow.data import Dialect, open_source
from maskedflow.runs import RunConfig

ROWS = [[1.5, 2.0], [-3.0, 4.0]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """What a pipe has."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# ------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("content", "dialect"),
    [
        (b"a:b\n1.5:2\n-3:4\n", Dialect(delimiter=":")),
        (b"a\tb\n1.5\t2\n-3\t4\n", Dialect(delimiter="tab")),
        (b'a,b\n"1,5",2\n-3,4\n', Dialect(decimal=",")),
        (b"a;b\n1,500;2\n-3;4\n", Dialect(decimal=",")),
        ("a;b\n1,5;2\n-3;4\n".encode("utf-16"), Dialect(encoding="utf-16")),
        (
            gzip.compress("é,b\n1.5,2\n-3,4\n".encode("latin-1"), mtime=0),
            Dialect(encoding="latin-1"),
        ),
        (b"1.5,2\n-3,4\n", Dialect(header=False)),
        (b"1.5;2\n-3;4\n", Dialect(header=False)),
        (b"1,2\n1.5,2\n-3,4\n", Dialect(header=True)),
    ],
)
def test_a_dialect_that_is_said_is_read(path: Path, content: bytes, dialect: Dialect) -> None:
    path.write_bytes(content)
    source = open_source(path, dialect)
    assert data.read_table(source).tolist() == ROWS
    assert source.count() == 2
    last, name = source.names[-1], source.names[0]
    batch = next(source.batches([last], {last: pa.float64()}, first=1, last=2))
    assert batch.column(0).to_pylist() == [4.0]
    wanted = {False: "x0", True: "1", None: "é" if dialect.encoding == "latin-1" else "a"}
    assert name == wanted[dialect.header]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv.gz", "t.tsv.gz", "-"])
def test_other_names_of_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = b"a\tb\n1.5\t2\n-3\t4\n" if "tsv" in name else b"a,b\n1.5,2\n-3,4\n"
    content = gzip.compress(text) if name.endswith(".gz") else text
    path = tmp_path / name
    if name == "-":
        path = Path(name)
        stdin(monkeypatch, content)
    else:
        path.write_bytes(content)
    source = open_source(path)
    assert source.name == ("stdin" if name == "-" else "t")
    assert data.read_table(source).tolist() == ROWS
    copied = name != "t.tsv"
    assert [note.startswith(f"{path} is read from a copy") for note in source.notes] == [
        True
    ] * copied


def test_the_copy_of_a_file_goes_with_what_reads_it(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a,b\n1,2\n3,4\n", mtime=0))
    source = open_source(path)
    weighed, copy = source.weighed_by("b"), source._file  # type: ignore[attr-defined]
    del source
    assert weighed.count() == 2
    del weighed
    assert not copy.exists()


def test_a_row_of_a_file_without_a_header_keeps_its_number(path: Path) -> None:
    path.write_text("1,2\n3,tall\n")
    with pytest.raises(ValueError, match="column 'x1', row 2: expected a number, found 'tall'"):
        data.read_table(open_source(path, Dialect(header=False)))


def test_dates_are_read_as_is_said(path: Path) -> None:
    path.write_text("when,x\n31/12/2024 23:00,1\n01/02/2024 00:00,2\n")
    source = open_source(path, Dialect(date_format="%d/%m/%Y %H:%M"))
    times = source.table(["when"]).column(0)
    assert [str(time) for time in times.to_pylist()] == [
        "2024-12-31 23:00:00",
        "2024-02-01 00:00:00",
    ]


# ------------------------------------------------------------------------------ telling, refusing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2.5\n3,4\n", "found numbers in the first row, 1, 2.5; .* --no_header"),
        (
            "5.1,3.5,setosa\n4.9,3,setosa\n4.7,3.2,virginica\n",
            "found cells like those below in the first row, 5.1, 3.5, setosa; .* --no_header",
        ),
        ("a b\n1 2\n3 4\n", "found one, 'a b', .* '1 2'; --delimiter ' ' reads 2"),
        ("a;b\n1,234;2\n", "column 'a', row 1: .*; --decimal , reads the first"),
        ('a,b\n"1,5",2\n', "a decimal comma; --decimal , reads it"),
        ("a,b\n1,é\n", "line 2 is not UTF-8 text; --encoding cp1252"),
        ("a,b\n1,31/12/2024\n", "found '31/12/2024' .a date; --date_format %d/%m/%Y reads it"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_option(
    path: Path, text: str, message: str
) -> None:
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message) as caught:
        data.read_table(path)
    assert "\n" not in str(caught.value)


def test_names_may_be_numbers_where_rows_differ(path: Path) -> None:
    for text in ("year,2019.5\na,1\n", "name,2019,2020\na,1,2\nb,3,4\n", "2,a\n1,5\n2,6\n"):
        path.write_text(text)
        assert "is taken for names of columns (--header)" in open_source(path).notes[0]


def test_a_column_of_dates_tells_days_from_months(path: Path) -> None:
    path.write_text("when,x\n" + "".join(f"01/{day:02}/2024,{day}\n" for day in range(1, 31)))
    with pytest.raises(ValueError, match=r"'01/01/2024' .a date; --date_format %m/%d/%Y reads it"):
        data.infer_schema(path)
    schema = data.infer_schema(open_source(path, Dialect(date_format="%m/%d/%Y")))
    assert schema.columns[0].kind == "date"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"delimiter": ";;"}, "delimiter: expected one ASCII character, got ';;'"),
        ({"encoding": "utf-7a"}, "encoding: expected a name .* got 'utf-7a'"),
        ({"date_format": "day first"}, "date_format: expected a format .* got 'day first'"),
    ],
)
def test_a_dialect_that_cannot_be_is_refused(said: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dialect(**said)  # type: ignore[arg-type]


def test_other_files_have_no_dialect(tmp_path: Path) -> None:
    data.write_table(tmp_path / "t.parquet", ["a"], [torch.randn(3, 1)])
    with pytest.raises(ValueError, match=r"is no CSV file, .* leave out --delimiter, --header"):
        open_source(tmp_path / "t.parquet", Dialect(delimiter=";", header=True))


# ------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("name", ["t.tsv", "t.csv.gz", "t.tsv.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    x = torch.randn(50, 2)
    for part in ("1", "2"):
        data.write_table(tmp_path / f"{part}{name}", ["a, b", "c"], [x], header=part == "1")
    both = tmp_path / name
    both.write_bytes(b"".join((tmp_path / f"{part}{name}").read_bytes() for part in "12"))
    assert open_source(both).names == ("a, b", "c")
    assert torch.equal(data.read_table(both), torch.cat([x, x]))


# ------------------------------------------------------------------------------------- the commands


def test_a_run_knows_how_its_table_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    rows = table(60)[:, :2]
    lines = [";".join(f"{x}".replace(".", ",") for x in row) for row in rows.tolist()]
    content = "\n".join(lines).encode("utf-16")
    (tmp_path / "t.csv").write_bytes(content)
    words = "--no_header --delimiter ; --decimal , --encoding utf-16".split()  # noqa: SIM905
    out = tmp_path / "runs"
    assert run("train", "--data", tmp_path / "t.csv", *words, "--out", out, *SMALL) == 0
    assert run("evaluate", out / "t") == 0
    options = RunConfig.read(out / "t" / "config.toml").options
    assert {name: options[name] for name in ("delimiter", "decimal", "encoding", "header")} == {
        "delimiter": ";",
        "decimal": ",",
        "encoding": "utf-16",
        "header": False,
    }
    assert run("score", out / "t", tmp_path / "t.csv", *words, "-o", tmp_path / "s.csv") == 0
    plain = write_csv(tmp_path / "plain.csv", ["x0", "x1"], rows)
    capsysbinary.readouterr()
    stdin(monkeypatch, plain.read_bytes())
    assert run("score", out / "t", "-", "-o", "-") == 0
    written, told = capsysbinary.readouterr()
    assert written == (tmp_path / "s.csv").read_bytes()
    assert b"- is read from a copy" in told


def test_options_of_csv_files_want_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "train", "--dataset", "moons", "--delimiter", ";")
    assert (code, err) == (2, "maskedflow: --delimiter: expected --data FILE with it\n")
