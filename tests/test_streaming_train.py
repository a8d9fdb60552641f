"""Training on a table that stays on disk: each row once an epoch, and the statistics of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import maskedflow as mf
from commands import SMALL, call, run, table
from maskedflow.data import Dataset, StreamedSplit, open_streamed
from maskedflow.training.batches import bounds

N = 200_000
COLUMNS = ("a", "row", "b")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in three pieces, one of whose columns tells the row."""
    path = tmp_path_factory.mktemp("streamed") / "t.parquet"
    rng = np.random.default_rng(0)
    values = (1e3 + rng.normal(size=N), np.arange(N), rng.exponential(size=N))
    pq.write_table(pa.table(dict(zip(COLUMNS, values, strict=True))), path, row_group_size=70_000)
    return path


@pytest.fixture(scope="module")
def opened(path: Path) -> Dataset:
    return open_streamed(path, context=["b"])


def streamed(dataset: Dataset) -> StreamedSplit:
    assert dataset.streamed is not None
    return dataset.streamed


def epoch(
    rows: StreamedSplit, seed: int, batch_size: int = 7001, first: int = 0
) -> list[torch.Tensor]:
    found = []
    for number, batch in rows.batches(bounds(len(rows), batch_size, merge=False)[first:], seed):
        assert torch.equal(batch.x[:, 1].long(), number)
        assert batch.context is not None
        found.append(torch.hstack([batch.x, batch.context]))
    return found


@pytest.mark.parametrize("buffer", [1, 2**23])
def test_an_epoch_visits_each_training_row_once(
    buffer: int, opened: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskedflow.data.streamed.BUFFER", buffer)
    rows = streamed(opened)
    batches = epoch(rows, seed=5)
    assert [len(batch) for batch in batches[:-1]] == [7001] * (len(batches) - 1)
    numbers = torch.cat(batches)[:, 1].long()
    held = torch.cat([opened.validation.x[:, 1], opened.test.x[:, 1]]).long()
    assert torch.equal(torch.cat([numbers, held]).sort().values, torch.arange(N))
    assert opened.rows == (len(numbers), len(opened.validation), len(opened.test))
    assert (numbers.diff() < 0).double().mean() > 0.4  # shuffled
    assert set(opened.train.x[:, 1].long().tolist()) <= set(numbers.tolist())


def test_the_seed_alone_decides_the_order(opened: Dataset) -> None:
    first, again, other = (torch.cat(epoch(streamed(opened), seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(first=st.integers(0, 22), small=st.booleans())
def test_an_epoch_goes_on_from_any_batch(opened: Dataset, first: int, small: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskedflow.data.streamed.BUFFER", 1 if small else 2**23)
        rows = streamed(opened)
        whole, rest = epoch(rows, 3), epoch(rows, 3, first=first)
    assert len(rest) == len(whole) - first
    assert all(torch.equal(a, b) for a, b in zip(whole[first:], rest, strict=True))


def test_statistics_are_those_of_all_training_rows(opened: Dataset) -> None:
    rows = torch.cat(epoch(streamed(opened), seed=0)).double()
    preprocessing, embedding = opened.preprocessing(), opened.embedding()
    assert preprocessing is not None
    assert embedding is not None
    x = preprocessing()(rows[:, :2].float()).double()
    assert x.mean(0).abs().max() < 1e-3
    torch.testing.assert_close(x.std(0), torch.ones(2).double(), atol=1e-4, rtol=1e-4)
    c = embedding(rows[:, 2:].float())
    torch.testing.assert_close(c.std(), torch.tensor(1.0), atol=1e-4, rtol=1e-4)


def test_a_tenth_validates_and_a_tenth_tests(path: Path, opened: Dataset) -> None:
    for split in (opened.validation, opened.test):
        assert abs(len(split) / N - 0.1) < 0.005
        assert abs(split.x[:, 1].mean() / N - 0.5) < 0.01
    again, other = open_streamed(path, context=["b"]), open_streamed(path, seed=1)
    assert torch.equal(again.test.x, opened.test.x)
    assert not torch.equal(other.test.x[:9, 0], opened.test.x[:9, 0])


def test_csv_and_parquet_deal_rows_alike(path: Path, opened: Dataset, tmp_path: Path) -> None:
    pacsv.write_csv(pq.read_table(path), tmp_path / "t.csv")
    found = open_streamed(tmp_path / "t.csv", context=["b"])
    assert torch.equal(found.test.x, opened.test.x)
    assert torch.equal(streamed(found).scale, streamed(opened).scale)
    numbers = torch.cat(epoch(streamed(found), seed=0))[:, 1]
    assert len(numbers.unique()) == len(streamed(opened))


def test_tables_that_cannot_be_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for values, message in (
        ([1.0] * 1000, "'a' is constant"),
        ([1.0, 2.0], "found 2 in all"),
        ([], "found 0 in all"),
        ([*range(500), float("nan")], "row 501"),
    ):
        pq.write_table(pa.table({"a": pa.array(values, pa.float64())}), path)
        with pytest.raises(ValueError, match=message):
            open_streamed(path)


def test_a_table_that_shrinks_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.arange(1000.0)}), path)
    rows = streamed(open_streamed(path))
    pq.write_table(pa.table({"a": np.arange(900.0)}), path)
    with pytest.raises(ValueError, match="has changed"):
        next(rows.batches([(0, 10)], seed=0))


# ------------------------------------------------------------------------------------ the command


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return mf.load_run(directory).flow.state_dict()


def test_a_table_on_disk_trains_evaluates_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for i, rows in enumerate(np.split(table(900), 3)):
        columns = dict(zip("abc", rows.T, strict=True))
        pq.write_table(pa.table(columns), folder / f"{i}.parquet")
    words = ("train", "--data", folder, "--stream", "--context", "c", *SMALL[:4], *SMALL[6:])
    words = (*words, "--schedule", "constant", "--out")
    _, trained, _ = call(capsys, *words, tmp_path / "long", "--epochs", 3)
    assert run(*words, tmp_path / "short", "--epochs", 1) == 0
    assert run("train", "--resume", *words[1:], tmp_path / "short", "--epochs", 3) == 0
    long, short = (weights(tmp_path / name / "own") for name in ("long", "short"))
    assert long.keys() == short.keys()
    assert all(torch.equal(long[name], short[name]) for name in long)

    code, evaluated, _ = call(capsys, "evaluate", tmp_path / "long" / "own")
    assert code == 0
    assert [line for line in evaluated.splitlines() if "nats" in line] == [
        line for line in trained.splitlines() if "nats" in line
    ]


def test_large_tables_stay_on_disk_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(dict(zip("abc", table(900).T, strict=True))), path)
    monkeypatch.setattr("maskedflow.data.streamed.SHARE", 1e9)
    words = ("train", "--data", path, "--out", tmp_path, *SMALL)
    code, _, errors = call(capsys, *words)
    assert (code, errors) == (0, f"note: {path} is large for this memory and stays on disk\n")
    assert mf.load_run(tmp_path / "t").config.data.stream
    code, _, errors = call(capsys, *words, "--no_stream")
    assert code == 0
    assert not mf.load_run(tmp_path / "t").config.data.stream
