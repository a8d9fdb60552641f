"""Tables larger than memory: read, scored and drawn in pieces that add up to the whole."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskedflow as mf
from commands import SMALL, call, run, table, write_csv
from maskedflow.data import Shard, Source, open_source
from maskedflow.sources.csv import line_starts
from maskedflow.sources.numbers import floats
from maskedflow.sources.source import ROWS

N = 25_500  # two blocks of scores and a half, no multiple of anything


def rows_of(source: Source, columns: list[str], first: int, last: int | None) -> pa.Table:
    types = floats(columns)
    batches = list(source.batches(columns, types, rows=1000, first=first, last=last))
    assert all(batch.num_rows == 1000 for batch in batches[:-1])
    return pa.Table.from_batches(batches, source.types(columns, types)).combine_chunks()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows as CSV, as Parquet, and as a folder of three files."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    a = rng.normal(size=N)
    columns = {
        "name": pa.array(
            [f"n{i}, {'a' * (i % 3)}" if i % 20_000 == 0 else f"{i:07}" for i in range(N)]
        ),
        "c": pa.array(50 + 10 * a + rng.normal(size=N)),
        "a": pa.array(a),
        "b": pa.array(a**2 + 0.3 * rng.normal(size=N)),
        "count": pa.array(np.arange(N)),
    }
    whole = pa.table(columns)
    pacsv.write_csv(whole, folder / "t.csv")
    pq.write_table(whole, folder / "t.parquet", row_group_size=3000)
    (folder / "parts").mkdir()
    for i, (first, last) in enumerate(pairwise((0, 7777, 7778, N))):
        part = whole.slice(first, last - first).select(["b", "a", "count", "name", "c"])
        pq.write_table(part, folder / "parts" / f"part-{i:02}.parquet", row_group_size=5000)
    return folder


KINDS = ["t.csv", "t.parquet", "parts"]


# ---------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, N), st.integers(0, N))
def test_any_rows_of_a_table_are_those_rows(tables: Path, kind: str, one: int, other: int) -> None:
    first, last = sorted((one, other))
    source = open_source(tables / kind)
    found = rows_of(source, ["a", "c"], first, last)
    whole = pq.read_table(tables / "t.parquet", columns=["a", "c"])
    assert found.equals(whole.slice(first, last - first).combine_chunks())
    assert source.count() == N
    assert abs(source.estimate() - N) < 0.02 * N


@pytest.mark.parametrize("kind", KINDS)
def test_reading_may_begin_at_pieces(tables: Path, kind: str) -> None:
    pieces = open_source(tables / kind).pieces()
    assert pieces[0] == 0
    assert all(last - first >= ROWS for first, last in pairwise(pieces))


def test_small_row_groups_are_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.arange(200_000.0)}), path, row_group_size=30_000)
    source = open_source(path)
    assert source.pieces() == [0, 90_000, 180_000]
    assert source.place(89_999) == (path, 90_000)


def test_pieces_of_csv_begin_at_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("i\n" + "".join(f"{i}\n" for i in range(2 * ROWS + 5)))
    source = open_source(path)
    assert source.pieces() == [0, ROWS, 2 * ROWS]
    for first in (ROWS - 1, ROWS, 2 * ROWS, 2 * ROWS + 4):
        found = rows_of(source, ["i"], first, min(first + 3, 2 * ROWS + 5))["i"].to_pylist()
        assert found == list(range(first, min(first + 3, 2 * ROWS + 5)))


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        (b"a,b\n1,2\n3,4\n", [0, 4, 8]),
        (b"a,b\n1,2\n3,4", [0, 4, 8]),
        (b"a,b\r\n1,2\r\n\r\n3,4\r\n\r\n", [0, 5, 12]),
        (b"\n\na\n\n\n1\n\r\n\n2", [2, 6, 11]),
        (b'a,b\n"x\ny",1\n"""\n",2\n', [0, 4, 12]),
        (b"", []),
        (b"\r\n\r\n\r", []),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_lines_are_found_wherever_chunks_end(
    text: bytes, starts: list[int], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskedflow.sources.csv.BYTES", chunk)
    (tmp_path / "t.csv").write_bytes(text)
    assert [int(i) for part in line_starts(tmp_path / "t.csv") for i in part] == starts


def test_files_of_a_folder_may_differ_in_types_of_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1, 2], pa.int32())}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [0.5]}), tmp_path / "1.parquet")
    assert mf.data.read_table(tmp_path).tolist() == [[1.0], [2.0], [0.5]]
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(ValueError, match="different types in different files"):
        open_source(tmp_path)


def test_a_bad_cell_is_told_by_its_file(tmp_path: Path) -> None:
    for i, cell in enumerate((2.0, None)):
        pq.write_table(pa.table({"a": [1.0, cell]}), tmp_path / f"{i}.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet: column 'a', row 2: .* missing"):
        mf.data.read_table(tmp_path)


def test_a_stray_quote_does_not_shift_rows_unseen(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,5" pipe\n2,x\n3,x\n')
    with pytest.raises(ValueError, match="quotation mark within a cell"):
        list(open_source(path).batches(["a"], first=0, last=open_source(path).count()))


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 30))
def test_shards_are_whole_blocks_that_add_up(total: int, rows: int, n: int) -> None:
    parts = [Shard(i, n).part(total, rows) for i in range(1, n + 1)]
    assert parts[0][0] == 0
    assert parts[-1][1] == total
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    assert all(first % rows == 0 or first == total for first, _ in parts)
    sizes = [last - first for first, last in parts]
    assert max(sizes) - min(sizes) < 2 * rows


# ---------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(("kind", "n"), [("t.csv", 3), ("t.parquet", 5), ("parts", 3)])
def test_shards_of_scores_are_byte_for_byte_the_whole(
    kind: str, n: int, tables: Path, folder: Path, tmp_path: Path
) -> None:
    words = ("score", folder / "own", tables / kind, "--keep", "name,b")
    for suffix in ("csv", "parquet"):
        assert run(*words, "-o", tmp_path / f"whole.{suffix}") == 0
        for i in range(1, n + 1):
            assert run(*words, "-o", tmp_path / f"{i}.{suffix}", "--shard", f"{i}/{n}") == 0
    parts = b"".join((tmp_path / f"{i}.csv").read_bytes() for i in range(1, n + 1))
    assert parts == (tmp_path / "whole.csv").read_bytes()
    pieces = [pq.read_table(tmp_path / f"{i}.parquet") for i in range(1, n + 1)]
    whole = pq.read_table(tmp_path / "whole.parquet")
    assert pa.concat_tables(pieces).combine_chunks().equals(whole.combine_chunks())
    assert whole.num_rows == N
    expected = pq.read_table(tables / "t.parquet")
    assert whole["name"].equals(expected["name"])
    assert whole["b"].equals(expected["b"])
    assert whole.column_names == ["name", "b", "log_prob"]


def test_all_kinds_of_tables_have_the_same_scores(
    tables: Path, folder: Path, tmp_path: Path
) -> None:
    for kind in KINDS:
        assert run("score", folder / "own", tables / kind, "-o", tmp_path / f"{kind}.npy") == 0
    first, *others = (np.load(tmp_path / f"{kind}.npy") for kind in KINDS)
    assert first.shape == (N, 1)
    for other in others:
        np.testing.assert_array_equal(first, other)
    rows = mf.data.read_table(tables / "t.parquet", ["a", "b", "c"])
    expected = mf.load_run(folder / "own").flow().log_prob(rows).detach()
    np.testing.assert_allclose(first[:, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flow", ["nsf", "gf", "maf-mog", "modern"])
def test_shards_add_up_whatever_the_flow(
    flow: str, tables: Path, folder: Path, tmp_path: Path
) -> None:
    options = ["--flow", flow, "--epochs", 1, "--batch_size", 100, "--out", tmp_path]
    assert run("train", "--data", folder / "own.csv", *options) == 0
    rows = tmp_path / "rows.parquet"  # a block and some
    pq.write_table(pq.read_table(tables / "t.parquet").slice(0, 10_500), rows)
    words = ("score", tmp_path / "own", rows, "-o")
    assert run(*words, tmp_path / "whole.csv") == 0
    for i in (1, 2):
        assert run(*words, tmp_path / f"{i}.csv", "--shard", f"{i}/2") == 0
    parts = b"".join((tmp_path / f"{i}.csv").read_bytes() for i in (1, 2))
    assert parts == (tmp_path / "whole.csv").read_bytes()


def test_all_columns_are_carried_along_as_they_are(
    tables: Path, folder: Path, tmp_path: Path
) -> None:
    for kind in ("t.csv", "t.parquet"):
        words = ("score", folder / "own", tables / kind, "--keep", "all", "-o")
        assert run(*words, tmp_path / "s.csv") == 0
        text = pacsv.ConvertOptions(column_types={"name": pa.string()})
        found = pacsv.read_csv(tmp_path / "s.csv", convert_options=text)
        expected = pq.read_table(tables / "t.parquet")
        assert found.drop_columns("log_prob").equals(expected)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[10_002].startswith("0010001,")  # as text; no quotes where no cell needs them


def test_shards_of_an_array_add_up(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.tile(table(), (60, 1)))
    words = ("score", folder / "own", tmp_path / "x.npy", "-o")
    assert run(*words, tmp_path / "whole.csv") == 0
    for i in (1, 2, 3):
        assert run(*words, tmp_path / f"{i}.csv", "--shard", f"{i}/3") == 0
    parts = [(tmp_path / f"{i}.csv").read_bytes() for i in (1, 2, 3)]
    assert b"".join(parts) == (tmp_path / "whole.csv").read_bytes()
    assert all(parts)


def test_more_shards_than_blocks_are_empty_files(folder: Path, tmp_path: Path) -> None:
    words = ("score", folder / "own", folder / "own.csv", "-o")
    sizes = []
    for i in range(1, 4):
        assert run(*words, tmp_path / f"{i}.csv", "--shard", f"{i}/3") == 0
        sizes.append(len((tmp_path / f"{i}.csv").read_text().splitlines()))
    assert sum(sizes) == 401


def test_the_rate_is_told_and_no_bar_is_drawn_off_a_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.csv"
    code, told, errors = call(capsys, "score", folder / "own", folder / "own.csv", "-o", out)
    assert (code, errors) == (0, "")
    assert told.startswith(f"400 rows in {out} (")
    assert told.endswith(" rows/s)\n")


def test_a_bar_is_drawn_on_a_terminal(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    for words in (("score", folder / "own", folder / "own.csv"), ("sample", folder / "own", "-n9")):
        code, _, errors = call(capsys, *words, "-o", tmp_path / "s.csv")
        assert code == 0
        assert "rows/s" in errors
        assert "%" in errors


def test_a_killed_score_leaves_no_output(tables: Path, folder: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    for i in range(200):
        (big / f"{i:03}.parquet").symlink_to(tables / "t.parquet")
    out = tmp_path / "s.csv"
    words = ["score", folder / "own", big, "-o", out]
    process = subprocess.Popen([sys.executable, "-m", "maskedflow", *map(str, words)])
    until = time.monotonic() + 300
    while not list(tmp_path.glob(".s.csv.*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("score {folder}/own {folder}/own.csv --shard 0/4 -o {out}", "0/4"),
        ("score {folder}/own {folder}/own.csv --shard 5/4 -o {out}", "5/4"),
        ("score {folder}/own {folder}/own.csv --shard half -o {out}", "'half'"),
        ("score {folder}/own {folder}/own.csv --keep q -o {out}", "'q'"),
        ("score {folder}/own {folder}/own.csv --keep a,a -o {out}", "'a' is given twice"),
        ("score {folder}/own {tables}/t.csv --keep name -o {folder}/bad.npy", "bad.npy"),
        ("score {folder}/own {tables}/scored.csv --keep all -o {out}", "'log_prob'"),
        ("score {folder}/own {tables}/empty -o {out}", "a folder without any"),
        ("score {folder}/own {tables}/lacking.csv -o {out}", "'c'"),
        ("score {folder}/own {tables}/text.csv -o {out}", "column 'b', row 20001: "),
        ("score {folder}/own {tables}/text.csv --shard 2/2 -o {out}", "column 'b', row 20001: "),
        ("score {folder}/own {tables}/unlike -o {out}", "1.parquet"),
        ("sample {folder}/own -n 9 --shard 3/2 -o {out}", "3/2"),
        ("sample {folder}/own -n 9 --shard 1/2 -o {folder}/s.png", "--shard"),
        ("train --data {folder}/none.csv --stream --out {folder}/z", "none.csv"),
        ("train --dataset moons --stream --out {folder}/z", "--stream"),
        ("train --data {tables}/text.csv --stream --out {folder}/z", "row 20001"),
    ],
)
def test_a_users_error_is_one_line(
    words: str, named: str, tables: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tables / "empty").mkdir(exist_ok=True)
    (tables / "unlike").mkdir(exist_ok=True)
    for i, name in enumerate("cd"):
        columns = {"a": [1.0], "b": [1.0], name: [1.0]}
        pq.write_table(pa.table(columns), tables / "unlike" / f"{i}.parquet")
    write_csv(tables / "lacking.csv", ["a", "b"], table(5)[:, :2])
    write_csv(tables / "scored.csv", ["a", "b", "c", "log_prob"], table(5)[:, [0, 1, 2, 2]])
    (tables / "text.csv").write_text("a,b,c\n" + 20_000 * "1,2,3\n" + "1,low,3\n")
    out = folder / "out.csv"
    code, _, err = call(capsys, *words.format(folder=folder, tables=tables, out=out).split())
    assert code == 2
    assert err.startswith("maskedflow: ")
    assert err.count("\n") == 1
    assert named in err
    assert not out.exists()
    assert not (folder / "z").exists()


# --------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("name", ["own", "given"])
def test_shards_of_samples_are_byte_for_byte_the_whole(
    name: str, folder: Path, tmp_path: Path
) -> None:
    context = ["--context", folder / "given.csv"] if name == "given" else []
    words = ("sample", folder / name, "-n", 11 if context else 4500, *context, "--seed", 3, "-o")
    for suffix in ("csv", "npy"):
        assert run(*words, tmp_path / f"whole.{suffix}") == 0
        for i in (1, 2, 3):
            assert run(*words, tmp_path / f"{i}.{suffix}", "--shard", f"{i}/3") == 0
    parts = [(tmp_path / f"{i}.csv").read_bytes() for i in (1, 2, 3)]
    assert b"".join(parts) == (tmp_path / "whole.csv").read_bytes()
    arrays = [np.load(tmp_path / f"{i}.npy") for i in (1, 2, 3)]
    np.testing.assert_array_equal(np.concatenate(arrays), np.load(tmp_path / "whole.npy"))
    assert len(np.unique(arrays[2], axis=0)) > 1000  # each block has draws of its own


# ----------------------------------------------------------------------------------------- memory


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process's peak of memory")
def test_memory_does_not_grow_with_the_table(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    peaks = {}
    for rows in (200_000, 2_000_000):
        x = rng.normal(size=(rows, 3))
        whole = pa.table(dict(zip("abc", x.T, strict=True)))
        pq.write_table(whole, tmp_path / f"{rows}.parquet", row_group_size=100_000)
        pacsv.write_csv(whole, tmp_path / f"{rows}.csv")
        for suffix in ("parquet", "csv"):
            source, out = tmp_path / f"{rows}.{suffix}", tmp_path / f"out.{suffix}"
            words = ("score", folder / "own", source, "--keep", "all", "-o", out)
            peaks[suffix, rows] = peak(*words)
            assert mf.data.open_source(out).count() == rows
        words = ("sample", folder / "own", "-n", rows, "-o", tmp_path / "s.parquet")
        peaks["sample", rows] = peak(*words)
        words = ("train", "--data", tmp_path / f"{rows}.parquet", "--stream", "--no_report")
        words = (*words, "--out", tmp_path, *SMALL[:4], "--epochs", 1, "--batch_size", 5000)
        peaks["train", rows] = peak(*words)
    for kind in ("parquet", "csv", "sample", "train"):
        assert peaks[kind, 2_000_000] < 1.1 * peaks[kind, 200_000], peaks


def peak(*words: object) -> int:
    """The most memory that a command had, in kB."""
    # Not `ru_maxrss`: that begins at what the process had that started it.
    code = (
        "import pathlib, re, sys; from maskedflow.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', "
        "pathlib.Path('/proc/self/status').read_text())[1])"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])
