"""Mixed tables from the command line: every kind of column there and back, and what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

import maskedflow as mf
from commands import call, files, run
from maskedflow.data import infer_schema, open_mixed, open_source
from maskedflow.runs import Run, score_run
from maskedflow.tables import Schema, read_source

FAST = "--flow gaussian --work 0.3".split()  # noqa: SIM905

SCHEMA = """
[columns.wind]
kind = "angle"
period = 360

[columns.share]
low = 0
high = 1

[columns.cents]
step = 0.01
"""


def mixed(n: int = 240) -> pa.Table:
    """A table with a column of every kind, and with what is awkward in CSV."""
    rng = np.random.default_rng(0)
    count = rng.integers(0, 400, n)
    return pa.table(
        {
            "real": rng.normal(size=n),
            "positive": np.exp(3 * rng.normal(size=n)),
            "share": rng.uniform(size=n),
            "heavy": rng.standard_t(1.5, size=n),
            "count": count,
            "cents": np.round(rng.normal(10, 5, n), 2),
            "spiked": np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n)),
            "gaps": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.2),
            "wind": rng.uniform(0, 360, n),
            "city": pa.array(rng.choice(["Rome, IT", 'the "Hague"', "NA"], n), mask=count < 30),
            "flag": pa.array(rng.random(n) < 0.4, mask=rng.random(n) < 0.1),
            "born": pa.array(rng.integers(0, 9000, n).astype(np.int32)).cast(pa.date32()),
            "seen": pa.array(60 * rng.integers(0, 10**6, n)).cast(pa.timestamp("s")),
            "unit": ["cm"] * n,
            "again": count,
        }
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table as CSV and as Parquet, and a run on each in `csv` and `parquet`."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "known.toml").write_text(SCHEMA)
    pacsv.write_csv(mixed(), folder / "t.csv")
    pq.write_table(mixed(), folder / "t.parquet", row_group_size=50)
    words = ("--schema", folder / "known.toml", "--missing", "model", *FAST)
    for kind in ("csv", "parquet"):
        data = folder / f"t.{kind}"
        assert run("train", "--data", data, "--out", folder / kind, *words) == 0
    return folder


def opened(path: Path) -> Run:
    return mf.load_run(path)


def scores(path: Path) -> np.ndarray:
    return open_table(path)["log_prob"].to_numpy()


def open_table(path: Path) -> pa.Table:
    return read_source(open_source(path))


# ---------------------------------------------------------------------------------- there and back


def test_a_run_leaves_its_tree_and_says_what_it_found(fitted: Path) -> None:
    for kind in ("csv", "parquet"):
        assert files(fitted / kind / "t") == {
            "config.toml",
            "schema.toml",
            "estimator.safetensors",
            "results_summary.txt",
            f"samples/t_samples.{kind}",
        }
        drawn = open_table(fitted / kind / "t" / "samples" / f"t_samples.{kind}")
        assert (drawn.num_rows, drawn.column_names) == (1000, mixed().column_names)
    summary = (fitted / "csv" / "t" / "results_summary.txt").read_text()
    assert "216 training, 24 test" in summary
    assert "independent columns" in summary
    assert "duplicate of count" in summary
    # Told from text or from types, the columns are the same ones. (Parquet has no whole seconds.)
    schemas = [opened(fitted / kind / "t").density.schema for kind in ("csv", "parquet")]
    assert schemas[0].columns[:12] == schemas[1].columns[:12]
    assert str(schemas[0]) == str(schemas[1]).replace("timestamp[ms]", "timestamp[s]")
    kinds = {column.name: column.kind for column in schemas[0].columns}
    assert kinds == {
        **dict.fromkeys(("real", "heavy", "spiked", "gaps"), "continuous"),
        "positive": "positive",
        "share": "bounded",
        **dict.fromkeys(("count", "cents"), "discretised"),
        "wind": "angle",
        "city": "categorical",
        "flag": "boolean",
        **dict.fromkeys(("born", "seen"), "date"),
        "unit": "constant",
        "again": "duplicate",
    }
    assert set(schemas[0].columns[9].levels) == {"Rome, IT", 'the "Hague"', "NA"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_scores_and_samples_are_the_estimators(fitted: Path, tmp_path: Path, kind: str) -> None:
    directory = fitted / kind / "t"
    estimator = mf.DensityEstimator.load(directory / "estimator.safetensors")
    expected = estimator.score_samples(mixed())
    assert np.isfinite(expected).all()
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"p.{suffix}"
        assert run("score", directory, fitted / f"t.{suffix}", "-o", out) == 0
        np.testing.assert_array_equal(scores(out), expected)
        drawn = tmp_path / f"d.{suffix}"
        assert run("sample", directory, "-n", 1500, "-o", drawn, "--seed", 3) == 0
        assert run("score", directory, drawn, "-o", tmp_path / f"again.{suffix}") == 0
    table = pq.read_table(tmp_path / "d.parquet")
    assert table.schema.equals(pq.read_schema(fitted / "t.parquet"))
    assert table["count"].equals(table["again"])
    assert 0.1 < table["gaps"].null_count / 1500 < 0.3
    # What was read from CSV is what was drawn, cell by cell.
    again = [scores(tmp_path / f"again.{suffix}") for suffix in ("csv", "parquet")]
    np.testing.assert_array_equal(again[0], again[1])
    np.testing.assert_array_equal(again[0], estimator.score_samples(table))
    assert np.isfinite(again[0]).mean() > 0.99


def test_python_fits_the_same(fitted: Path) -> None:
    part = open_mixed(fitted / "t.csv", schema=fitted / "known.toml", missing="model")
    work = opened(fitted / "csv" / "t").config.options["work"]
    estimator = mf.DensityEstimator("gaussian", schema=part.schema, missing="model", work=work)
    mine = estimator.fit(part.train.x).score_samples(part.test.x)
    theirs = opened(fitted / "csv" / "t").density.log_prob(part.test.x)
    assert np.array_equal(mine, theirs)
    found = (fitted / "csv" / "t" / "results_summary.txt").read_text()
    assert f"{theirs.mean():.1f} ± " in found


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pieces_are_the_whole_and_columns_come_along(
    fitted: Path, tmp_path: Path, suffix: str
) -> None:
    directory = fitted / "parquet" / "t"
    large = pa.concat_tables([mixed()] * 45)  # more rows than a block
    data = tmp_path / f"large.{suffix}"
    (pq.write_table if suffix == "parquet" else pacsv.write_csv)(large, data)
    for command in (
        ("score", directory, data, "--keep", "city,born,seen"),
        ("sample", directory, "-n", 2500),
    ):
        assert run(*command, "-o", tmp_path / "whole.csv") == 0
        for i in (1, 2):
            assert run(*command, "--shard", f"{i}/2", "-o", tmp_path / f"{i}.csv") == 0
        pieces = b"".join((tmp_path / f"{i}.csv").read_bytes() for i in (1, 2))
        assert pieces == (tmp_path / "whole.csv").read_bytes()
        if command[0] == "score":
            found = open_table(tmp_path / "whole.csv")
            assert found.column_names == ["city", "born", "seen", "log_prob"]
            assert found["city"].to_pylist() == large["city"].to_pylist()
            expected = opened(directory).density.log_prob(mixed())
            np.testing.assert_array_equal(found["log_prob"].to_numpy(), np.tile(expected, 45))


def test_evaluate_repeats_what_train_found(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = fitted / "csv" / "t"
    before = (directory / "results_summary.txt").read_text().splitlines()[3:7]
    code, out, _ = call(capsys, "evaluate", directory, "--num_samples", 7)
    assert code == 0
    assert all(line in out for line in before)
    assert open_table(directory / "samples" / "t_samples.csv").num_rows == 7
    moved = tmp_path / "short.csv"
    pacsv.write_csv(mixed().slice(0, 100), moved)
    code, _, err = call(capsys, "evaluate", directory, "--data", moved)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{moved}: rows (90, 0, 10)" in err


@pytest.mark.usefixtures("blank")
def test_a_report_is_about_the_rows_held_out_or_others(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = fitted / "csv" / "t"
    page = directory / "report.html"
    for words, rows in (((), 24), (("--data", fitted / "t.parquet"), 240)):
        code, out, _ = call(capsys, "report", directory, *words)
        assert (code, out) == (0, f"report in {page}\n")
        text = page.read_text("utf-8")
        assert f"on {rows} test rows" in text
        assert all(name in text for name in mixed().column_names)
        page.unlink()


# -------------------------------------------------------------------------------- given a context


@pytest.fixture(scope="module")
def conditional(fitted: Path) -> Path:
    """A run given two columns, rows with missing values left out."""
    words = ("--context", "city,real", "--missing", "drop", "--out", fitted / "given", *FAST)
    assert run("train", "--data", fitted / "t.parquet", *words) == 0
    return fitted / "given" / "t"


def test_a_context_goes_by_names(fitted: Path, conditional: Path, tmp_path: Path) -> None:
    found = opened(conditional)
    assert found.context_columns == ("city", "real")
    where = tmp_path / "where.csv"
    where.write_text('other,real,city\n1,0.5,NA\n2,-0.25,"Rome, IT"\n')
    assert (
        run("sample", conditional, "-n", 3, "--context", where, "-o", tmp_path / "d.parquet") == 0
    )
    drawn = pq.read_table(tmp_path / "d.parquet")
    assert drawn.column_names == [*found.columns, "city", "real"]
    assert drawn["city"].to_pylist() == ["NA"] * 3 + ["Rome, IT"] * 3
    assert drawn["real"].to_pylist() == [0.5] * 3 + [-0.25] * 3
    assert run("score", conditional, tmp_path / "d.parquet", "-o", tmp_path / "p.csv") == 0
    expected = found.density.log_prob(
        drawn.select(list(found.columns)), drawn.select(["city", "real"])
    )
    np.testing.assert_array_equal(scores(tmp_path / "p.csv"), expected)
    samples = pq.read_table(conditional / "samples" / "t_samples.parquet")
    assert samples.num_rows == found.config.data.rows[2]


def test_rows_with_gaps_have_no_score_where_they_were_dropped(
    fitted: Path, conditional: Path, tmp_path: Path
) -> None:
    assert run("score", conditional, fitted / "t.csv", "-o", tmp_path / "p.parquet") == 0
    found = pq.read_table(tmp_path / "p.parquet")["log_prob"].to_numpy()
    gaps = np.any([mixed()[name].is_null().to_numpy() for name in ("gaps", "city", "flag")], 0)
    np.testing.assert_array_equal(np.isnan(found), gaps)
    assert np.isfinite(found[~gaps]).all()
    assert sum(opened(conditional).config.data.rows) == (~gaps).sum()


# ---------------------------------------------------------------------------- questions to a run


@pytest.fixture(scope="module")
def few(fitted: Path) -> Path:
    """Some rows of the table with a number of each beside them, as CSV."""
    rows = mixed().slice(0, 5).append_column("id", pa.array(list("abcde")))
    cities = ["Paris", *rows["city"].to_pylist()[1:]]
    rows = rows.set_column(rows.column_names.index("city"), "city", pa.array(cities))
    pacsv.write_csv(rows, fitted / "five.csv")
    return fitted / "five.csv"


def test_answers_are_the_estimators(fitted: Path, few: Path, tmp_path: Path) -> None:
    directory, out = fitted / "csv" / "t", tmp_path / "p.parquet"
    estimator = mf.DensityEstimator.load(directory)
    rows = open_table(few)
    names = mixed().column_names
    words = ("score", directory, few, "-o", out)
    assert run(*words, "--explain", "--tail", "--keep", "id") == 0
    found = pq.read_table(out)
    added = ["log_prob", "standard_error", "reason"]
    assert found.column_names == ["id", *names, *added, "tail_probability"]
    assert found.select([*names, *added]).equals(estimator.explain(rows))
    shares = estimator.tail_probability(rows)
    np.testing.assert_array_equal(found["tail_probability"], shares)
    nats = np.sum([found[name].to_numpy() for name in names], axis=0)
    np.testing.assert_allclose(nats, estimator.score_samples(rows))
    assert found["reason"].to_pylist()[1:] == [""] * 4
    assert found["reason"][0].as_py().startswith("column 'city': expected ")
    assert run(*words, "--tail") == 0
    np.testing.assert_array_equal(pq.read_table(out)["tail_probability"], shares)
    given = [name for name in names if name != "flag"]
    assert run(*words, "--given", ", ".join(given)) == 0
    found = pq.read_table(out)
    assert found.column_names == ["log_prob", "standard_error"]
    for mine, theirs in zip(found, estimator.score_samples_given(rows, given), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert np.isnan(found["log_prob"][0].as_py())


def test_rows_with_gaps_have_no_answers_where_they_were_dropped(
    fitted: Path, conditional: Path, few: Path, tmp_path: Path
) -> None:
    rows = open_table(few).slice(1)
    pq.write_table(rows, tmp_path / "few.parquet")
    gaps = np.any([rows[name].is_null().to_numpy() for name in ("gaps", "city", "flag")], 0)
    assert 0 < gaps.sum() < 4
    words = ("score", conditional, tmp_path / "few.parquet", "-o", tmp_path / "p.parquet")
    for question in (("--tail",), ("--given", "count"), ("--explain",)):
        assert run(*words, *question) == 0
        for name in (found := pq.read_table(tmp_path / "p.parquet")).column_names:
            if name != "reason":
                np.testing.assert_array_equal(np.isnan(found[name]), gaps)
    told = np.array(found["reason"].to_pylist())
    np.testing.assert_array_equal(told == "a cell is missing: such rows were dropped", gaps)


@pytest.mark.parametrize("asked", [{}, {"tail": True}, {"given": ["count"]}, {"explain": True}])
def test_an_error_counts_the_rows_of_the_file_not_those_of_a_block(
    conditional: Path, tmp_path: Path, asked: dict[str, Any]
) -> None:
    rows = mixed().drop_null().slice(0, 4)
    cities = [*rows["city"].to_pylist()[:3], "Paris"]
    rows = rows.set_column(rows.column_names.index("city"), "city", pa.array(cities))
    pq.write_table(rows, tmp_path / "four.parquet")
    found = score_run(opened(conditional), tmp_path / "four.parquet", rows=2, **asked)
    assert len(next(found.batches)) == 2
    with pytest.raises(ValueError, match=r"context: column 'city', row 4: .* found 'Paris'"):
        next(found.batches)


def test_tails_of_a_single_flow(fitted: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    pacsv.write_csv(pa.table({"a": x[:, 0], "b": x[:, 1]}), tmp_path / "n.csv")
    np.save(tmp_path / "n.npy", x)
    small = "--flow maf --epochs 1 --hidden_dim 8 --num_layers 1".split()  # noqa: SIM905
    assert run("train", "--data", tmp_path / "n.csv", "--out", tmp_path, *small) == 0
    for suffix in ("csv", "npy"):
        words = ("score", tmp_path / "n", tmp_path / f"n.{suffix}", "-o", tmp_path / "p.csv")
        assert run(*words, "--tail") == 0
        found = open_table(tmp_path / "p.csv")
        share, rank = found["tail_probability"].to_numpy(), found["log_prob"].to_numpy().argsort()
        assert (np.diff(share[rank]) >= 0).all()
        assert share.min() < 0.1
        assert share.max() > 0.9
        for question in ("--explain", "--given=a"):
            assert run(*words, question) == 2
    assert run("sample", tmp_path / "n", "--given", tmp_path / "n.csv", "-o", words[4]) == 2


def test_rows_are_completed(
    fitted: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskedflow.tables.marginal.REFERENCE", 2**12)
    directory, out = fitted / "csv" / "t", tmp_path / "d.parquet"
    rows = open_table(few).select(["id", "gaps", "city", "wind", "count"])
    rows = rows.set_column(2, "city", pa.array(["NA", None, "NA", None, "Rome, IT"]))
    pacsv.write_csv(rows, tmp_path / "some.csv")
    words = ("sample", directory, "--given", tmp_path / "some.csv", "-o", out)
    assert run(*words, "-n", 3) == 0
    found = pq.read_table(out)
    assert found.schema.equals(pq.read_schema(fitted / "t.parquet").remove_metadata())
    for name in ("gaps", "city", "wind", "count"):
        known = np.repeat(rows[name].is_valid().to_numpy(), 3)
        given = rows[name].take(np.repeat(np.arange(5), 3)).cast(found[name].type)
        assert found[name].filter(pa.array(known)).equals(given.filter(pa.array(known)))
        assert not found[name].null_count
    assert found["again"].equals(found["count"])
    assert run("score", directory, out, "-o", tmp_path / "p.csv") == 0
    assert np.isfinite(scores(tmp_path / "p.csv")).all()
    assert run(*words, "-n", 3, "--seed", 5) == 0
    assert not pq.read_table(out).equals(found)
    assert run(*words) == 0
    assert pq.read_table(out).num_rows == 5


def test_pieces_of_completed_rows_are_the_whole(
    fitted: Path, conditional: Path, tmp_path: Path
) -> None:
    """The context is found beside what is given; codes alone are given, so that draws are fast."""
    data = tmp_path / "t.parquet"
    rows = mixed().filter(mixed()["city"].is_valid()).select(["city", "real"])
    pq.write_table(
        pa.concat_tables([rows] * 6).append_column("unit", pa.array(["cm"] * 6 * len(rows))), data
    )
    words = ("sample", conditional, "--given", data, "-n", 2)
    assert run(*words, "-o", tmp_path / "whole.csv") == 0
    for i in (1, 2):
        assert run(*words, "--shard", f"{i}/2", "-o", tmp_path / f"{i}.csv") == 0
    pieces = b"".join((tmp_path / f"{i}.csv").read_bytes() for i in (1, 2))
    assert pieces == (tmp_path / "whole.csv").read_bytes()
    found = open_table(tmp_path / "whole.csv")
    assert found["city"].to_pylist() == np.repeat(rows["city"].to_pylist() * 6, 2).tolist()


# ------------------------------------------------------------------------------------- the schema


def test_schema_tells_reasons_and_writes_what_train_reads(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = fitted / "t.csv", tmp_path / "s.toml"
    code, told, err = call(capsys, "schema", data, "--schema", fitted / "known.toml", "-o", out)
    assert code == 0
    assert "angle of period 360" in told
    assert "strings; 8.8% missing" in told
    assert "gaps, city, flag may be missing" in err
    written = Schema.from_toml(out.read_text())
    assert written.missing == "error"
    assert replace(written, missing="model") == opened(fitted / "csv" / "t").density.schema
    # The schema of a run is complete, and says no more and no less when it is given back.
    own = fitted / "csv" / "t" / "schema.toml"
    assert Schema.from_toml(own.read_text()) == infer_schema(data, own)


def test_the_command_line_goes_before_the_schema(fitted: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('missing = "model"\n')
    assert open_mixed(fitted / "t.csv", schema=path).schema.missing == "model"
    assert open_mixed(fitted / "t.csv", schema=path, missing="drop").schema.missing == "drop"


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("train --data {f}/t.csv", "'gaps', row "),
        ("train --data {f}/t.csv", "--missing"),
        ("train --data {f}/t.csv --flow auto --epochs 3", "--epochs"),
        ("train --data {f}/t.csv --missing model --no_stream", "--stream"),
        ("train --data {f}/t.csv --missing model --flow glow", "auto, gaussian, maf, nsf"),
        ("train --data {f}/t.csv --missing some", "some"),
        ("train --data {f}/t.csv --missing model --seed 5000000000", "--seed 5000000000"),
        ("train --data {f}/t.csv --seed 99999999999999999999", "--seed"),
        ("train --dataset moons --flow auto", "--data FILE"),
        ("train --data {f}/t.csv --flow auto --context where", "'where'"),
        ("train --data {f}/t.csv --schema {f}/none.toml", "none.toml"),
        ("train --data {f}/t.csv --schema {f}/t.csv", "t.csv"),
        ("train --data {f}/t.csv --schema {f}/unknown.toml", "'height'"),
        ("train --data {f}/t.csv --schema {f}/kind.toml", "kind: expected one of"),
        ("train --data {f}/none.csv --flow auto", "none.csv"),
        ("train --data {f}/few.csv --flow auto", "expected 10"),
        ("train --data {f}/empty.csv --flow auto", "at least one row"),
        ("schema {f}/t.csv -o {f}/s.csv", ".toml"),
        ("schema {f}/t.csv --missing error", "'gaps', row "),
        ("score {f}/csv/t {f}/none.csv -o {f}/o.csv", "none.csv"),
        ("score {f}/csv/t {f}/few.csv -o {f}/o.csv", "'real'"),
        ("score {f}/csv/t {f}/text.csv -o {f}/o.csv", "'real', row 2: expected a number"),
        ("score {f}/csv/t {f}/text.parquet -o {f}/o.csv", "'real': expected numbers"),
        ("score {f}/csv/t {f}/t.csv -o {f}/o.csv --keep height", "'height'"),
        ("score {f}/cut {f}/t.csv -o {f}/o.csv", "truncated"),
        (
            "score {f}/whole {f}/gap.csv -o {f}/o.csv",
            "'real', row 12000: expected a value, found a missing",
        ),
        ("sample {f}/csv/t -n 3 -o {f}/o.npy", ".parquet"),
        ("sample {f}/csv/t -n 3 -o {f}/o.csv --context {f}/t.csv", "no context"),
        ("sample {f}/csv/t -n 3 -o {f}/o.csv --steps 4", "--steps"),
        ("sample {f}/given/t -n 3 -o {f}/o.csv", "--context"),
        (
            "sample {f}/given/t -n 3 -o {f}/o.csv --context {f}/paris.csv",
            "paris.csv: context: column 'city', row 2",
        ),
        (
            "score {f}/given/t {f}/paris.csv -o {f}/o.csv",
            "paris.csv: context: column 'city', row 2",
        ),
        ("score {f}/csv/t {f}/t.csv -o {f}/o.csv --given ctiy", "has no column 'ctiy'"),
        ("score {f}/csv/t {f}/t.csv -o {f}/o.csv --given city --tail", "given: "),
        ("score {f}/csv/t {f}/t.csv -o {f}/o.csv --given city,city", "'city' is given twice"),
        ("score {f}/csv/t {f}/t.csv -o {f}/o.csv --explain --keep city", "'city' itself"),
        ("sample {f}/csv/t --given {f}/none.csv -o {f}/o.csv", "none.csv"),
        ("sample {f}/csv/t --given {f}/few.csv -o {f}/o.csv", "none of the columns real"),
        ("sample {f}/csv/t --given {f}/t.csv --context {f}/t.csv -o {f}/o.csv", "--context"),
        ("sample {f}/given/t --given {f}/w.parquet -o {f}/o.csv", "given: "),
        ("sample {f}/csv/t --given {f}/paris.csv -o {f}/o.csv", "column 'city', row 2: expected "),
        ("sample {f}/csv/t -o {f}/o.csv", "-n"),
        ("compare {f}/csv/t {f}/parquet/t", "file"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    words: str, named: str, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if not words.startswith("train") else ["--out", broken / "z"]
    code, _, err = call(capsys, *words.format(f=broken).split(), *out)
    assert code == 2
    assert err.startswith("maskedflow: ")
    assert err.count("\n") == 1
    assert named in err
    assert not (broken / "z").exists()
    assert not list(broken.glob("o.*"))


@pytest.fixture(scope="module")
def broken(fitted: Path, conditional: Path) -> Path:
    """Files with something wrong, beside the runs."""
    rows = mixed()
    (fitted / "unknown.toml").write_text('[columns.height]\nkind = "positive"\n')
    (fitted / "kind.toml").write_text('[columns.real]\nkind = "wide"\n')
    (fitted / "few.csv").write_text("a,b\nx,1\ny,2\n")
    (fitted / "empty.csv").write_text("a,b\n")
    text = ["0.5", "much", *["1.0"] * (len(rows) - 2)]
    spoilt = rows.set_column(0, "real", pa.array(text))
    pacsv.write_csv(spoilt, fitted / "text.csv")
    pq.write_table(spoilt, fitted / "text.parquet")
    paris = [opened(conditional).density.schema.columns[0].name, "Paris"]
    cities = ["NA", paris[1], *["NA"] * (len(rows) - 2)]
    full = rows.drop_columns(["city", "gaps", "flag"])
    full = full.append_column("city", pa.array(cities)).append_column("gaps", rows["heavy"])
    pacsv.write_csv(full.append_column("flag", pa.array([True] * len(rows))), fitted / "paris.csv")
    cut = fitted / "cut"
    cut.mkdir()
    for name in ("config.toml", "estimator.safetensors"):
        content = (fitted / "csv" / "t" / name).read_bytes()
        (cut / name).write_bytes(content[: len(content) // 2] if name[0] == "e" else content)
    # A run that knows no missing values, and a table with one far behind.
    pq.write_table(
        rows.select(["real", "flag"]).filter(rows["flag"].is_valid()), fitted / "w.parquet"
    )
    words = ("--data", fitted / "w.parquet", "--out", fitted, *FAST, "--missing", "error")
    assert run("train", *words) == 0
    (fitted / "w").rename(fitted / "whole")
    lines = ["0.5,true"] * 11_999 + [",true", "1.5,false"]
    (fitted / "gap.csv").write_text("\n".join(["real,flag", *lines]) + "\n")
    return fitted


def test_what_cannot_be_has_density_zero(fitted: Path, tmp_path: Path) -> None:
    rows = mixed().slice(0, 4)
    strange = {
        "city": ["Paris", *rows["city"].to_pylist()[1:]],
        "share": [0.5, 1.5, 0.5, 0.5],
        "unit": ["cm", "cm", "mm", "cm"],
    }
    for name, cells in strange.items():
        place = rows.column_names.index(name)
        rows = rows.set_column(place, name, pa.array(cells))
    pacsv.write_csv(rows, tmp_path / "t.csv")
    assert run("score", fitted / "csv" / "t", tmp_path / "t.csv", "-o", tmp_path / "p.csv") == 0
    np.testing.assert_array_equal(np.isneginf(scores(tmp_path / "p.csv")), [1, 1, 1, 0])
