"""Rows that a density was made with are known again, and what is then said of them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import torch
from scipy.stats import norm

import maskedflow as mf
from commands import SMALL, call, run, table, write_csv
from maskedflow.data import Fingerprint, Seen, Trace
from maskedflow.report import Column, Subject, write_report
from maskedflow.runs import load_run
from maskedflow.tables import to_arrow
from maskedflow.training import checkpoint
from small_runs import gaussian, trained


def rows(n: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(2, n)).astype(np.float32))


# --------------------------------------------------------------------------------- fingerprints


def test_few_rows_are_all_known_again_in_any_order_and_precision() -> None:
    x = rows(3000)
    trace = Trace(Fingerprint.of(x, x))
    mixed = [
        np.append(one[::-1].astype(np.float64), other)
        for one, other in zip(x, rows(500, 1), strict=True)
    ]
    seen = trace.seen(mixed)
    assert (seen.rows, seen.trained, seen.known, seen.spoilt, seen.new) == (
        3500,
        3000,
        True,
        True,
        False,
    )
    fresh = trace.seen(rows(500, 1))
    assert (fresh.trained, fresh.new, fresh.spoilt) == (0, True, False)
    again = Trace.from_plain(json.loads(json.dumps(trace.to_plain())))
    assert again is not None
    assert again.seen(mixed) == seen


def test_of_many_rows_a_sample_is_known() -> None:
    x = rows(60_000)
    fingerprint = Fingerprint.of(x, x)
    assert len(json.dumps(fingerprint.to_plain())) < 90_000
    half = [np.append(one[:10_000], other) for one, other in zip(x, rows(10_000, 1), strict=True)]
    seen = Trace(fingerprint).seen(half)
    assert seen.trained == pytest.approx(10_000, rel=0.1)
    assert str(seen).startswith("about ")
    assert Trace(fingerprint).seen(rows(10_000, 1)).new
    few = Trace(fingerprint).seen(rows(100, 1))  # of which a dozen are looked up
    assert (few.known, few.trained, few.new) == (True, 0, False)


def test_rows_of_few_values_are_not_told_apart() -> None:
    throws = list(np.random.default_rng(0).integers(1, 7, size=(2, 1000)))
    seen = Trace(Fingerprint.of(throws, throws)).seen(throws)
    assert (seen.known, seen.trained) == (False, 0)
    assert str(seen) == "it is not known whether some of these rows were trained on"


def test_what_is_no_fingerprint_is_refused() -> None:
    x = rows(10)
    good = Trace(Fingerprint.of(x, x)).to_plain()
    assert Trace.from_plain(None) is None
    for bad in (
        7,
        {},
        {"train": 3},
        {"train": {**good["train"], "bound": "-1"}},
        {"train": {**good["train"], "hashes": "?"}},
    ):
        with pytest.raises(ValueError, match="no fingerprint"):
            Trace.from_plain(bad)


def test_words() -> None:
    assert str(Seen(500, 1, 0, 500, True)) == "1 of these 500 rows was trained on"
    assert str(Seen(500, 9, 0, 60, False)) == "about 9 of these 500 rows were trained on"
    assert str(Seen(500, 9, 0, 500, False)) == "at least 9 of these 500 rows were trained on"
    assert "none of these 500 rows was trained on, as far as 60 of them tell" in str(
        Seen(500, 0, 0, 60, True)
    )
    assert str(Seen(9, 5, 2, 9, True, "images")).endswith("trained on, and 2 chose when to stop")


# ----------------------------------------------------------------------------------- estimators


def people(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)).astype(np.float32)
    return pd.DataFrame(
        {
            "x": x.astype(np.float64),
            "turn": rng.uniform(0, 360, n).astype(np.float32).astype(np.float64),
            "town": rng.choice(["Bonn", "Oslo"], n),
            "visits": rng.poisson(3, n),
            "y": rng.gamma(2.0, size=n).astype(np.float32).astype(np.float64),
        }
    )


def _from_csv(frame: pd.DataFrame) -> pa.Table:
    return pacsv.read_csv(io.BytesIO(frame.to_csv(index=False).encode()))


CONTAINERS: dict[str, Callable[[pd.DataFrame], object]] = {
    "pandas": lambda frame: frame,
    "float32": lambda frame: frame.astype({"x": "float32", "turn": "float32", "y": "float32"}),
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "csv": _from_csv,
    "category": lambda frame: frame.astype({"town": "category", "visits": "float64"}),
}


@pytest.fixture(scope="module")
def fitted() -> mf.DensityEstimator:
    known = {"turn": {"kind": "angle", "period": 360}}
    found = mf.DensityEstimator("gaussian", schema=known, missing="model", work=0.2)
    frame = people(400)
    return found.fit(frame.drop(columns="y"), context=frame[["y"]])


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_estimator_knows_its_rows_in_any_frame(name: str, fitted: mf.DensityEstimator) -> None:
    frame = pd.concat([people(400)[::-1], people(100, 1)])
    whole = to_arrow(CONTAINERS[name](frame))
    seen = fitted.fitted_.seen(whole.drop_columns(["y"]), whole.select(["y"]))
    assert seen is not None
    assert seen.rows == 500
    assert 398 <= seen.trained <= 400  # where an angle is at an edge of its parts
    other = whole.select(["y"]).slice(1).to_pydict()["y"] + [0.1]
    moved = fitted.fitted_.seen(whole.drop_columns(["y"]), pa.table({"y": other}))
    assert moved is not None
    assert moved.trained <= 4


def test_a_file_keeps_it_and_an_older_file_says_that_it_is_not_known(
    fitted: mf.DensityEstimator, tmp_path: Path
) -> None:
    path, frame = tmp_path / "e.safetensors", people(400)
    fitted.save(path)
    again = mf.DensityEstimator.load(path)
    assert again.fitted_.trace is not None
    x, c = (to_arrow(part) for part in (frame.drop(columns="y"), frame[["y"]]))
    assert again.fitted_.seen(x, c) == fitted.fitted_.seen(x, c)
    # None of the numbers is in there.
    assert np.float32(frame["y"][0]).tobytes() not in path.read_bytes()
    tensors, header = checkpoint.read(path)
    plain = json.loads(header[checkpoint.METADATA])
    del plain["estimator"]["trace"]
    checkpoint.write(path, tensors, {checkpoint.METADATA: json.dumps(plain)})
    older = mf.DensityEstimator.load(path)
    assert older.fitted_.seen(x, c) is None
    np.testing.assert_array_equal(
        older.score_samples(x, context=c), fitted.score_samples(x, context=c)
    )


# ----------------------------------------------------------------------------------------- pages


def text_of(path: Path) -> str:
    return " ".join(path.read_text("utf-8").split())


@pytest.mark.usefixtures("blank")
def test_a_page_on_the_rows_of_fit_says_so(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    estimator = mf.DensityEstimator("gaussian").fit(x[:200])
    path = tmp_path / "r.html"
    page = estimator.report(x, path, train=x[:200])
    assert page.seen == "200 of these 300 rows were trained on."
    assert (page.new, page.spoilt) == (False, True)
    text = text_of(path)
    assert "on 300 rows. 200 of these 300 rows were trained on." in text
    assert "This is no test." in text
    assert "not trained on" not in text
    assert page.likelihood.found[0].fitted == 200  # whatever is handed over
    page = estimator.report(x[200:], path)
    assert (page.seen, page.new, page.spoilt) == ("", True, False)
    assert "on 100 test rows that it was not trained on." in text_of(path)
    assert "This is no test." not in text_of(path)
    page = estimator.report(x[200:], path, train=x)
    assert page.new
    assert re.search(r"Other densities were fitted to \d\d of them\.$", page.seen)


@pytest.mark.usefixtures("blank")
def test_a_density_of_ones_own_is_taken_at_its_word_no_further(tmp_path: Path) -> None:
    subject = Subject(
        "normal",
        (Column("x"),),
        log_prob=lambda x: norm.logpdf(x[:, 0]),
        sample=lambda n, generator: torch.randn(n, 1, generator=generator).numpy(),
    )
    x = np.random.default_rng(0).normal(size=(300, 1))
    path, some, none = tmp_path / "r.html", x[40:80], x[:0]
    page = write_report(subject, none, none, x, path)
    assert page.seen == "It is not known whether some of these rows were trained on."
    assert (page.new, page.spoilt) == (False, False)
    page = write_report(subject, x[:100], some, x[200:], path)
    assert page.seen.endswith("None is among the 100 training rows that were given.")
    assert not page.new
    page = write_report(subject, x[:100], some, x[80:], path)
    assert page.seen == "20 of these 220 rows were trained on."
    assert page.spoilt


# ------------------------------------------------------------------------------------------ runs


def test_a_run_knows_which_rows_trained_and_which_chose(tmp_path: Path) -> None:
    dataset = gaussian(400, context=True)
    trained(tmp_path / "g", dataset)
    found = load_run(tmp_path / "g")
    for part, (fitted, chose) in {
        "train": (200, 0),
        "validation": (0, 100),
        "test": (0, 0),
    }.items():
        rows = getattr(dataset, part)
        seen = found.density.seen(rows.x, rows.context)
        assert seen is not None
        assert (seen.trained, seen.validated, seen.known) == (fitted, chose, True)
    assert dataset.train.context is not None
    turned = found.density.seen(dataset.train.x, dataset.train.context.flip(0))
    assert turned is not None
    assert turned.new


def test_a_series_is_known_by_its_stretches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).cumsum(0)
    when = torch.arange(300.0)[:, None]
    data = write_csv(tmp_path / "s.csv", ["when", "a"], torch.hstack([when, steps]))
    words = ("--time", "when", "--window", 12, "--hidden_dim", 8, "--num_layers", 1)
    assert run("train", "--data", data, *words, "--epochs", 1, "--out", tmp_path) == 0
    summary = tmp_path / "s" / "results_summary.txt"
    assert "none of these 23 stretches of 8 steps was trained on" in summary.read_text()
    write_csv(tmp_path / "s.csv", ["when", "a"], torch.hstack([when, steps.roll(60, 0)]))
    code, _, err = call(capsys, "evaluate", tmp_path / "s")
    assert (code, err.count("\n")) == (0, 1)
    assert "stretches of 8 steps" in err


@pytest.mark.parametrize("words", [SMALL, "--flow gaussian --missing error --work 1".split()])  # noqa: SIM905
def test_evaluating_on_a_file_that_was_shuffled_warns(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, numbers = ["a", "b", "c"], table(300)
    data = write_csv(tmp_path / "n.csv", names, numbers)
    code, _, err = call(capsys, "train", "--data", data, "--out", tmp_path, *words)
    assert code == 0
    assert "trained on" not in err
    summary = tmp_path / "n" / "results_summary.txt"
    assert "seen before     none of these 30 rows was trained on" in summary.read_text()
    write_csv(data, names, numbers[::-1])
    code, _, err = call(capsys, "evaluate", tmp_path / "n")
    assert (code, err.count("\n")) == (0, 1)
    assert "of these 30 rows were trained on" in err
    assert "of these 30 rows were trained on" in summary.read_text()
    code, _, err = call(capsys, "compare", tmp_path / "n", tmp_path / "n")
    assert (code, err.count("were trained on")) == (0, 2)


def test_copies_in_a_table_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_csv(tmp_path / "n.csv", ["a", "b", "c"], table(100).repeat(4, axis=0))
    for words in (SMALL, "--flow gaussian --work 1 --missing error".split()):  # noqa: SIM905
        code, _, err = call(capsys, "train", "--data", data, "--out", tmp_path / "o", *words)
        assert code == 0
        assert "100 of 400 rows distinct, copies on one side" in err
        summary = (tmp_path / "o" / "n" / "results_summary.txt").read_text()
        assert "100 of 400 rows distinct" in summary
        assert "none of these 40 rows was trained on" in summary
