"""Runs of tables with columns of measurement errors."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import maskedflow as mf
from commands import SMALL, call, run, write_csv
from maskedflow.data import Split, open_streamed, open_table
from maskedflow.runs import RunConfig, load_run
from maskedflow.runs.measured import gaussian_baseline
from maskedflow.training import evaluate

COLUMNS = ["mag", "colour", "mag_err", "age"]
ERROR = ["--error", "mag=mag_err", "--context", "age"]


def stars(n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    age, errors = rng.random(n), 0.2 + rng.random(n)
    x = rng.normal(size=(n, 2)) + age[:, None]
    return np.stack([x[:, 0] + errors * rng.normal(size=n), x[:, 1], errors, age], axis=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stars")
    table = write_csv(folder / "stars.csv", COLUMNS, stars())
    assert run("train", "--data", table, *ERROR, *SMALL, "--out", folder) == 0
    return folder / "stars", table


def test_record_and_summary_tell_of_errors(trained: tuple[Path, Path]) -> None:
    directory, _ = trained
    config = RunConfig.read(directory / "config.toml")
    assert config.data.columns == ("mag", "colour")
    assert config.data.context_columns == ("age",)
    assert config.data.errors == {"mag": "mag_err"}
    assert config.options["error"] == ["mag=mag_err"]
    text = (directory / "results_summary.txt").read_text()
    assert "deconvolved Gaussian" in text
    assert "errors          1: mag_err of mag" in text
    assert "as they were measured, given their errors, given the context" in text


def test_rows_with_errors_are_scored_as_measured(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, table = trained
    code, _, err = call(capsys, "score", directory, table, "-o", tmp_path / "s.csv")
    assert code == 0
    assert err == "note: log_prob is the density of rows as measured, with the errors mag_err\n"
    found = np.loadtxt(tmp_path / "s.csv", skiprows=1)
    opened, rows = load_run(directory), torch.from_numpy(stars()).float()
    context = rows[:, [3, 2]]
    assert opened.density.measured is not None
    expected = evaluate(opened.density.measured, Split(rows[:, :2], context))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)
    test = opened.dataset().test
    assert test.context is not None
    value = opened.density.log_prob(test.x, test.context).mean()
    assert f"log-likelihood         {value:.2f}" in (directory / "results_summary.txt").read_text()


def test_rows_without_errors_are_scored_without_noise(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, _ = trained
    free = write_csv(tmp_path / "free.csv", ["mag", "colour", "age"], stars()[:, [0, 1, 3]])
    code, _, err = call(capsys, "score", directory, free, "-o", tmp_path / "s.csv")
    assert code == 0
    assert "has no errors (mag_err): log_prob is the density without noise" in err
    rows = torch.from_numpy(stars()).float()
    expected = load_run(directory).flow(rows[:, 3:]).log_prob(rows[:, :2]).detach()
    np.testing.assert_allclose(np.loadtxt(tmp_path / "s.csv", skiprows=1), expected, rtol=1e-4)
    assert run("sample", directory, "-n", 1, "--context", free, "-o", tmp_path / "x.csv") == 0
    drawn = load_run(directory).density.sample(200, rows[:, 3:], seed=0)
    assert (tmp_path / "x.csv").read_text().startswith("mag,colour,age\n")
    assert drawn.shape == (200, 2)


def test_drawn_with_errors_rows_are_wider(trained: tuple[Path, Path]) -> None:
    density = load_run(trained[0]).density
    age = torch.full((4000, 1), 0.5)
    free = density.sample(4000, age, seed=0)
    noisy = density.sample(4000, torch.hstack([age, torch.full_like(age, 10.0)]), seed=0)
    assert noisy[:, 0].std() > 9
    assert free[:, 0].std() < 3
    torch.testing.assert_close(noisy[:, 1].std(), free[:, 1].std(), rtol=0.1, atol=0)


def test_resumed_and_compared(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, table = trained
    words = ["train", "--data", table, *ERROR, *SMALL, "--out", tmp_path]
    assert run(*words) == 0
    more = [*words[: words.index("--epochs")], "--epochs", "3", "--out", tmp_path, "--resume"]
    assert run(*more[:-1], "--batch_size", 50, "--lr", "1e-2", "--resume") == 0
    wrong = ["train", "--data", table, "--error", "colour=mag_err", "--context", "age", *SMALL]
    code, _, err = call(capsys, *wrong, "--out", tmp_path, "--resume")
    assert code == 2
    assert "--resume: errors is {'colour': 'mag_err'}, but" in err
    given = [*words[:3], "--context", "age,mag_err", *SMALL, "--out", tmp_path / "given"]
    assert run(*given) == 0  # another density of mag and colour, given the same
    code, out, _ = call(capsys, "compare", tmp_path / "stars", tmp_path / "given/stars")
    assert code == 0
    assert out.count("/stars") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--error", "mag"], "--error mag: expected COLUMN=COLUMN_OF_ITS_ERRORS"),
        (["--error", "mag=no"], "errors: "),
        (["--error", "mag=mag_err", "--error", "mag=age"], "has errors already"),
        (["--error", "age=mag_err", "--context", "age"], "'age' of .* is a context; expected"),
        (["--error", "mag=age", "--weights", "age"], "errors: .*'age' of .* is that of weights;"),
        (["--error", "mag=mag_err", "--flow", "auto"], "--error: not with --flow auto"),
        (["--error", "mag=mag_err", "--batch_norm"], "--batch_norm: its rows would be draws"),
        (["--error", "mag=mag_err", "--time", "age"], "--error: not with --time"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    words: list[str],
    message: str,
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = call(capsys, "train", "--data", trained[1], *words, "--out", tmp_path)
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(message, err)


@pytest.mark.parametrize("stream", ["--stream", "--no_stream"])
@pytest.mark.parametrize(("cell", "found"), [(-1.0, "found -1"), (np.nan, "found a missing value")])
def test_an_error_that_cannot_be_is_told_by_column_and_row(
    stream: str, cell: float, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = stars(60)
    rows[16, 2] = cell
    table = write_csv(tmp_path / "t.csv", COLUMNS, rows)
    code, _, err = call(capsys, "train", "--data", table, stream, *ERROR, "--out", tmp_path)
    assert code == 2
    assert "t.csv: column 'mag_err', row 17: expected a " in err
    assert found in err
    assert "--missing" not in err


def test_tables_give_errors_behind_the_context(tmp_path: Path) -> None:
    rows = stars(300)
    rows[:, 0] = rows[:, 0].round(0)  # a grid, which noise has blurred
    rows[:, 1] = rows[:, 1].round(0)
    table = write_csv(tmp_path / "t.csv", COLUMNS, rows)
    for opened in (
        open_table(table, context=["age"], errors={"mag": "mag_err"}),
        open_streamed(table, context=["age"], errors={"mag": "mag_err"}),
    ):
        assert opened.columns == ("mag", "colour")
        assert (opened.context_columns, opened.errors) == (("age",), {"mag": "mag_err"})
        assert opened.train.context is not None
        assert opened.train.context.shape[1] == 2
        assert opened.cells is not None
        assert opened.cells.step.tolist() == [0.0, 1.0]
        embedding = opened.embedding()
        assert embedding is not None
        assert embedding(opened.train.context[:, :1]).shape[1] == 1
        assert opened.without_context().errors == {}


def test_what_is_measured_may_lie_beyond_a_bound(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    errors = np.where(np.arange(300) % 2, 0.2, 0.0)
    x = rng.uniform(0.01, 0.99, 300)
    y = x + errors * rng.normal(size=300)
    assert ((y < 0) | (y > 1)).any()
    cells = np.stack([0.1 + rng.random(300), np.zeros(300), y, rng.normal(size=300), errors], 1)
    (tmp_path / "chain.paramnames").write_text("y\nz\nerror\n")
    (tmp_path / "chain.ranges").write_text("y 0 1\n")

    np.savetxt(tmp_path / "chain.txt", cells)
    opened = open_table(tmp_path / "chain.txt", errors={"y": "error"})
    assert opened.bounds == {"y": (0, 1)}
    assert run("train", "--data", tmp_path / "chain.txt", "--error", "y=error", *SMALL,
               "--out", tmp_path) == 0  # fmt: skip
    trained, test = load_run(tmp_path / "chain"), opened.test
    assert trained.density.log_prob(test.x, test.context).isfinite().all()
    assert trained.density.sample(1000, seed=0)[:, 0].min() > 0
    assert trained.density.sample(1000, seed=0)[:, 0].max() < 1

    cells[2, 2] = 1.5  # without an error
    np.savetxt(tmp_path / "chain.txt", cells)
    with pytest.raises(ValueError, match=r"column 'y': .* above 0 and below 1, .* found 1\.5"):
        open_table(tmp_path / "chain.txt", errors={"y": "error"})


def test_the_gaussian_beside_measured_rows_counts_them_by_their_weights(tmp_path: Path) -> None:
    counts = np.random.default_rng(1).integers(0, 4, 200)
    table = write_csv(tmp_path / "t.csv", [*COLUMNS, "w"], np.c_[stars(), 0.5 * counts])
    opened = open_table(table, context=["age"], errors={"mag": "mag_err"}, weights="w")
    assert opened.train.weight is not None
    times = (2 * opened.train.weight).long()
    again = opened.train[torch.arange(len(times)).repeat_interleave(times)]
    repeated = replace(opened, train=Split(again.x, again.context))
    found = gaussian_baseline(opened, opened.test)
    torch.testing.assert_close(found, gaussian_baseline(repeated, opened.test))


@pytest.mark.slow
def test_reports_draw_as_measured(trained: tuple[Path, Path]) -> None:
    directory, _ = trained
    assert mf.load_run(directory).columns == ("mag", "colour")
    assert run("report", directory) == 0
    page = (directory / "report.html").read_text()
    assert "It is conditional on age. Densities and samples are of rows as measured" in page
    assert re.search("deconvolved Gaussian.*</td>", page)
    assert "full Gaussian" not in page
