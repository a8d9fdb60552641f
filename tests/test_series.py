"""Time series from a file to forecasts: reading, splits, the calendar, and the command line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch

import maskedflow as mf
from commands import TREE, call, files, run
from maskedflow.data import Split, calendar, open_series, read_series, windows, write_forecasts
from maskedflow.runs import joined, load_run, score_series
from maskedflow.runs.series import autoregression

BEGIN = np.datetime64("2024-01-01T00:00", "s")  # a Monday


def made(n: int = 600) -> np.ndarray:
    """An hourly AR(1) around a daily wave, and a noisy copy of it."""
    rng = np.random.default_rng(0)
    level, noise = np.empty(n), rng.normal(size=(n, 2))
    level[0] = 0.0
    for t in range(1, n):
        level[t] = 0.8 * level[t - 1] + noise[t, 0]
    wave = 3 * np.sin(2 * np.pi * np.arange(n) / 24)
    return np.stack([level + wave, 50 + level + 0.5 * noise[:, 1]], axis=1)


def write(path: Path, n: int = 600, *, shuffled: bool = True, dates: bool = True) -> Path:
    """The series in a file, its rows in disorder."""
    times = BEGIN + 3600 * np.arange(n) if dates else np.arange(n) / 4
    order = np.random.default_rng(1).permutation(n) if shuffled else np.arange(n)
    x = made(n)[order]
    columns = {"a": x[:, 0], "when": times[order], "b": x[:, 1]}
    table = pa.table(columns)
    (pacsv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return path


# ------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("dates", [True, False])
def test_rows_are_sorted_and_split_by_time(tmp_path: Path, suffix: str, dates: bool) -> None:
    path = write(tmp_path / f"s.{suffix}", dates=dates)
    data = open_series(path, "when")
    assert data.columns == ("a", "b")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [480, 60, 60]
    torch.testing.assert_close(joined(data).x, torch.from_numpy(made()).float())
    assert data.window == 60
    expected = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos") if dates else ()
    assert data.context_columns == expected
    front = data.preprocessing()
    assert front is not None
    torch.testing.assert_close(front()(data.train.x).mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    order = read_series(path, "when").order
    assert sorted(order.tolist()) == list(range(600))


def test_calendar_against_pythons_own() -> None:
    times = np.array(["2024-02-29T18:30", "1969-07-20T20:17", "2026-11-25T00:00"], "datetime64[ns]")
    names = ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos"]
    found = calendar(times, names)
    for row, moment in zip(found, times.astype("datetime64[s]").tolist(), strict=True):
        day = 2 * np.pi * (moment.hour + moment.minute / 60) / 24
        week = 2 * np.pi * moment.weekday() / 7
        expected = [np.sin(day), np.cos(day), np.sin(week), np.cos(week)]
        torch.testing.assert_close(row, torch.tensor(expected).float(), atol=1e-5, rtol=0)


def test_a_daily_series_has_no_hour(tmp_path: Path) -> None:
    days = BEGIN.astype("datetime64[D]") + np.arange(60)
    pq.write_table(pa.table({"day": days, "x": made(60)[:, 0]}), tmp_path / "d.parquet")
    data = open_series(tmp_path / "d.parquet", "day", window=5)
    assert data.context_columns == ("weekday_sin", "weekday_cos")
    series = read_series(tmp_path / "d.parquet", "day")
    assert series.following(2).astype("datetime64[D]").tolist() == [
        days[-1].tolist() + timedelta(days=d) for d in (1, 2)
    ]


@pytest.mark.parametrize(
    ("rows", "time", "message"),
    [
        ("t,x\n1,2\n1,3\n", "t", r"column 't': expected each time once, found 1.0 twice"),
        ("t,x\nmon,2\ntue,3\n", "t", r"expected numbers or dates .*, found 'mon'"),
        ("t,x\n1,2\n,3\n", "t", r"column 't', row 2: expected a time, found none"),
        ("t,x\n1,2\n2,3\n", "u", r"time: .* has no column 'u'; its columns are t, x"),
        ("t\n1\n2\n", "t", r"has no column beside 't'"),
        ("t,x\n", "t", r"expected rows below the header, found none"),
        ("t,x\n1,2\n2,y\n", "t", r"column 'x', row 2: expected a number, found 'y'"),
    ],
)
def test_what_is_no_series_is_one_line(tmp_path: Path, rows: str, time: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(rows)
    with pytest.raises(ValueError, match=message) as caught:
        read_series(path, time)
    assert "\n" not in str(caught.value)


def test_times_may_look_like_integers_at_first(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("t,x\n" + "".join(f"{i},1\n" for i in range(200_000)) + "200000.5,2\n")
    assert read_series(path, "t").times[-2:].tolist() == [199_999.0, 200_000.5]


def test_a_window_must_fit_the_validation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"window: expected 2 steps to 60, .* got 61"):
        open_series(write(tmp_path / "s.csv"), "when", window=61)


def test_windows_are_views_that_end_with_the_series() -> None:
    x = torch.randn(23, 2)
    cut = windows(x, 7, 5)
    starts = [1, 6, 11, 16]
    torch.testing.assert_close(cut, torch.stack([x[s : s + 7] for s in starts]))
    assert cut.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_forecasts_in_a_file_keep_their_times(tmp_path: Path) -> None:
    samples = torch.randn(3, 2, 1)
    times = np.array([0.5, 1.0])
    assert write_forecasts(tmp_path / "f.parquet", "t", times, ["x"], samples) == 6
    table = pq.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["sample"] == [1, 1, 2, 2, 3, 3]
    assert table["t"] == [0.5, 1.0] * 3
    assert table["x"] == samples.flatten().tolist()


# ------------------------------------------------------------------------------------------ scoring


@pytest.mark.parametrize("n", [3, 8, 20, 23, 41])
def test_each_step_is_scored_once_given_half_a_window_or_more(n: int) -> None:
    flow = mf.flows.TemporalMAF(1, 1, hidden_size=4, hidden_features=(8,)).double()
    x, c = torch.randn(n, 1).double(), torch.randn(n, 1).double()
    found = score_series(flow, Split(x, c), 8)
    for t in range(n):
        pasts = range(t + 1) if t < 4 else range(min(4, t), min(t, 8) + 1)
        possible = [flow(c[t - p : t + 1]).log_prob_steps(x[t - p : t + 1])[-1] for p in pasts]
        assert min(abs(found[t] - value) for value in possible) < 1e-10
    assert found.shape == (n,)


def test_autoregression_is_least_squares(tmp_path: Path) -> None:
    data = open_series(write(tmp_path / "s.csv"), "when")
    whole, c = joined(data).x.double().numpy(), joined(data).context.double().numpy()
    rows = np.arange(3, 600)
    known = np.hstack([np.ones((597, 1)), c[3:], whole[2:-1], whole[1:-2], whole[:-3]])
    train, test = rows < 480, rows >= 540
    weights = np.linalg.lstsq(known[train], whole[3:][train], rcond=None)[0]
    residual = whole[3:] - known @ weights
    covariance = residual[train].T @ residual[train] / train.sum()
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(2).double(), torch.from_numpy(covariance)
    )
    expected = normal.log_prob(torch.from_numpy(residual[test]))
    found = autoregression(data, 3)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------- command line


TRAIN = "--time when --window 24 --hidden_dim 16 --num_layers 2 --epochs 3 --batch_size 8".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("series")
    assert run("train", "--data", write(where / "s.csv"), *TRAIN, "--out", where, "--report") == 0
    return where


def test_train_leaves_a_run_that_loads(folder: Path) -> None:
    assert files(folder / "s") == {*TREE, "samples/s_samples.png", "report.html"}
    text = (folder / "s" / "results_summary.txt").read_text()
    assert "nats per step" in text
    assert "linear AR(23)" in text
    found = load_run(folder / "s")
    assert isinstance(found.flow, mf.flows.TemporalMAF)
    assert (found.config.data.time, found.config.data.window) == ("when", 24)
    data = found.dataset()
    assert data.window == 24
    assert found.flow(data.test.context[:9]).log_prob(data.test.x[:9]).isfinite()


def test_evaluate_repeats_what_train_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "s" / "results_summary.txt").read_text()
    code, out, _ = call(capsys, "evaluate", folder / "s")
    assert code == 0
    line = next(line for line in before.splitlines() if line.startswith("log-likelihood"))
    assert line in out


def test_a_report_is_of_forecasts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (folder / "s" / "report.html").read_text("utf-8")
    assert "linear AR(23)" in page
    assert 'id="forecasts"' in page
    assert 'id="columns"' not in page
    code, _, err = call(capsys, "report", folder / "s", "--data", folder / "s.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "time series" in err


def test_scores_are_in_the_files_order(folder: Path) -> None:
    assert run("score", folder / "s", folder / "s.csv", "-o", folder / "scores.parquet") == 0
    shuffled = np.array(pq.read_table(folder / "scores.parquet")["log_prob"])
    plain = write(folder / "plain.csv", shuffled=False)
    assert run("score", folder / "s", plain, "-o", folder / "plain.parquet") == 0
    ordered = np.array(pq.read_table(folder / "plain.parquet")["log_prob"])
    order = np.random.default_rng(1).permutation(600)
    np.testing.assert_allclose(shuffled, ordered[order], rtol=1e-5, atol=1e-5)
    found = load_run(folder / "s")
    test = score_series(found.flow, joined(found.dataset()), 24)[-60:]
    np.testing.assert_allclose(ordered[-60:], test.numpy(), rtol=1e-4, atol=1e-4)


def test_sample_continues_the_series(folder: Path) -> None:
    output = folder / "f.csv"
    assert run("sample", folder / "s", "-n", 5, "--steps", 7, "-o", output) == 0
    table = pacsv.read_csv(output)
    assert table.column_names == ["sample", "when", "a", "b"]
    assert table.num_rows == 35
    last = BEGIN + 3600 * 599
    hours = [last.astype(object) + np.timedelta64(h, "h").astype(object) for h in range(1, 8)]
    assert table["when"].to_pylist() == hours * 5
    values = np.array(table["b"]).reshape(5, 7)
    assert (np.abs(values - 50) < 30).all()
    assert values.std(axis=0).min() > 0
    again = folder / "again.csv"
    assert run("sample", folder / "s", "-n", 5, "--steps", 7, "-o", again) == 0
    assert again.read_text() == output.read_text()
    shorter = write(folder / "shorter.csv", 300)
    command = ("sample", folder / "s", "-n", 1, "--steps", 2, "--data", shorter)
    assert run(*command, "-o", folder / "g.csv") == 0
    assert pacsv.read_csv(folder / "g.csv")["when"][0].as_py() == (BEGIN + 3600 * 300).astype(
        object
    )
    assert run("sample", folder / "s", "-n", 50, "-o", folder / "fan.png") == 0
    assert (folder / "fan.png").stat().st_size > 10_000


def test_resume_goes_on_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    words = ("train", "--data", folder / "s.csv", *TRAIN, "--schedule", "constant")
    assert run(*words, "--out", tmp_path / "whole") == 0
    short = [*words[:-2], "--schedule", "constant"]
    short[short.index("3")] = "2"
    assert run(*short, "--out", tmp_path / "parts") == 0
    assert run(*words, "--out", tmp_path / "parts", "--resume") == 0
    runs = [load_run(tmp_path / name / "s") for name in ("whole", "parts")]
    for one, other in zip(*(found.flow.parameters() for found in runs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "moons", "--time", "t"], "--time t: expected --data FILE"),
        (["--data", "s.csv", "--window", "9"], "--window 9: expected --time COLUMN"),
        (["--data", "s.csv", "--time", "t", "--context", "a"], "--context: a time series"),
        (["--data", "s.csv", "--time", "t", "--batch_norm"], "--batch_norm: it would"),
    ],
)
def test_options_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, err = call(capsys, "train", *words)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
