"""Which rows go where: copies to one side, and all others where they have always gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commands import write_csv
from maskedflow.data import Dataset, open_mixed, open_streamed, open_table
from maskedflow.data.copies import copies
from maskedflow.data.dealing import deal
from maskedflow.runs import DataConfig, Run, RunConfig
from small_runs import config_of, gaussian


def chain(n: int, distinct: int, width: int = 3, seed: int = 0) -> np.ndarray:
    """Rows of a chain of Markov's, each there several times in a row."""
    rng = np.random.default_rng(seed)
    places = np.sort(np.append(np.arange(distinct), rng.integers(distinct, size=n - distinct)))
    found: np.ndarray = rng.normal(size=(distinct, width))[places]
    return found


def sides(dataset: Dataset) -> list[set[bytes]]:
    parts = (dataset.train, dataset.validation, dataset.test)
    return [{row.tobytes() for row in part.x.numpy()} for part in parts]


def apart(parts: list[set[bytes]]) -> bool:
    return sum(map(len, parts)) == len(set().union(*parts)) and all(parts)


@given(
    st.lists(st.integers(1, 9), min_size=4, max_size=60),
    st.tuples(st.integers(0, 5), st.integers(1, 5)),
    st.integers(0, 9),
)
def test_groups_stay_together(counts: list[int], held: tuple[int, int], seed: int) -> None:
    group = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    sizes = [max(len(group) - 5 * sum(held), 1), 5 * held[0], 5 * held[1]]
    if sum(sizes) != len(group):
        sizes = [len(group) - 2, 1, 1]
    parts = deal(sizes, seed, group)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(group)))
    found = [set(group[part.numpy()].tolist()) for part in parts]
    assert sum(map(len, found)) == len(counts)
    for part, size in zip(parts, sizes, strict=True):
        assert bool(len(part)) == bool(size)
    if max(counts) <= min(size for size in sizes if size):
        for part, size in zip(parts, sizes, strict=True):
            assert abs(len(part) - size) <= max(counts)


def test_tables_without_copies_are_dealt_as_ever(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(103, 2)).astype(np.float32)
    path = write_csv(tmp_path / "t.csv", ["a", "b"], torch.from_numpy(x))
    order = torch.randperm(103, generator=torch.Generator().manual_seed(4))
    found = open_table(path, seed=4)
    assert (found.dealing, found.distinct) == ("rows", None)
    for part, rows in zip(
        (found.train, found.validation, found.test), order.split([83, 10, 10]), strict=True
    ):
        np.testing.assert_allclose(part.x, x[rows], rtol=1e-6)


@pytest.mark.parametrize("context", [(), ("c",)])
def test_copies_are_on_one_side_of_every_kind_of_table(
    context: tuple[str, ...], tmp_path: Path
) -> None:
    rows = chain(2000, 500)
    rows[rows == rows[0, 0]] = 0.0
    rows[:1, 0] = -0.0
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(dict(zip("abc", rows.T, strict=True))), path)
    numbers = open_table(path, context=context, seed=3)
    assert apart(sides(numbers))
    assert (numbers.dealing, numbers.distinct) == ("values", 500)
    assert [abs(n - m) < 20 for n, m in zip(numbers.rows, (1600, 200, 200), strict=True)]
    # An estimator holds out the same rows.
    table = open_mixed(path, context=context, seed=3)
    assert (table.dealing, table.distinct) == ("values", 500)
    whole = table.test.table
    held_out = np.stack([whole.column(name).to_numpy() for name in "abc"], axis=1)
    test = torch.hstack(
        [part for part in (numbers.test.x, numbers.test.context) if part is not None]
    )
    np.testing.assert_array_equal(held_out.astype(np.float32), test.numpy())
    streamed = open_streamed(path, context=context, seed=3)
    assert apart(sides(streamed))


def test_copies_of_mixed_rows_are_known_by_all_their_cells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n, again = 300, rng.integers(300, size=1000)
    word = rng.choice(["u", "v", None], n)
    x = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    day = np.datetime64("2024-01-01") + rng.integers(0, 400, n)
    table = pa.table({"word": word[again], "x": x[again], "y": rng.normal(size=n)[again]})
    table = table.append_column("day", pa.array(day[again]))
    pq.write_table(table, tmp_path / "t.parquet")
    found = open_mixed(tmp_path / "t.parquet", missing="model")
    train, test = ({str(row) for row in part.to_pylist()} for part in (found.train.x, found.test.x))
    assert found.distinct == len(train) + len(test) == len(set(again))
    assert abs(len(found.test) - 100) < 10


def test_equal_rows_are_no_copies_where_values_are_few(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    throws = rng.integers(1, 7, size=(1000, 2)).astype(float)
    assert copies(list(throws.T), list(throws.T)) is None
    # No rain on most days: such a day is not another one again, a shower is.
    rain = np.where(rng.random(1000) < 0.6, 0.0, rng.gamma(2.0, size=1000))
    rain[:3] = rain[3:6] = [0.3141592, 2.7182818, 1.4142135]
    group = copies([rain, throws[:, 0]], [rain])
    assert group is None or (group[rain == 0] == np.flatnonzero(rain == 0)).all()
    shower = copies([rain], [rain])
    assert shower is not None
    assert shower[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert (shower[rain == 0] == np.flatnonzero(rain == 0)).all()
    path = write_csv(tmp_path / "t.csv", ["a", "b"], torch.from_numpy(throws))
    for seed in (0, 1):
        now, then = open_table(path, seed=seed), open_table(path, seed=seed, dealing="rows")
        assert torch.equal(now.test.x, then.test.x)
    streamed = open_streamed(path)
    assert abs(len(streamed.test) - 100) < 40
    assert len(streamed.test.x.unique(dim=0)) > 20


@pytest.mark.parametrize("share", [0.15, 0.6, 0.95])
def test_a_row_that_is_much_of_the_table_trains(share: float, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(400, 3))
    rows[: int(400 * share)] = rows[0]
    path = write_csv(tmp_path / "t.csv", ["a", "b", "c"], torch.from_numpy(rows))
    found = open_table(path)
    assert apart(sides(found))
    assert (found.train.x[:, 0] == found.train.x[:, 0].mode().values).sum() == int(400 * share)
    others = 400 - int(400 * share)
    assert abs(len(found.test) - others / 10) <= 1


def test_too_few_distinct_rows_are_refused_in_one_line(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(2, 3)).repeat(50, axis=0)
    path = write_csv(tmp_path / "t.csv", ["a", "b", "c"], torch.from_numpy(rows))
    for opener in (open_table, open_mixed):
        with pytest.raises(ValueError, match=r"at least 3 distinct rows .*, found 2 in 100 rows$"):
            opener(path)
    with pytest.raises(ValueError, match="dealing: expected 'rows' or 'values', got 'hands'"):
        open_table(path, dealing="hands")  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
def test_an_earlier_run_gets_the_rows_that_it_had(stream: bool, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["a", "b", "c"], torch.from_numpy(chain(1000, 300)))
    opener = open_streamed if stream else open_table
    then, now = opener(path, seed=2, dealing="rows"), opener(path, seed=2)
    assert not apart(sides(then))
    for dataset in (then, now):
        data = DataConfig(dataset.columns, dataset.rows, file=str(path), seed=2, stream=stream)
        if dataset is now:
            data = DataConfig(**{**vars(data), "dealing": now.dealing, "distinct": now.distinct})
        config = config_of(gaussian(40))
        text = RunConfig("t", data, config.flow, config.training).to_toml()
        if dataset is then:
            text = text.replace('dealing = "rows"\n', "")  # such a record knew of no other way
            assert "dealing" not in text
        run = Run(tmp_path, RunConfig.from_toml(text), None)  # type: ignore[arg-type]
        assert torch.equal(run.dataset().test.x, dataset.test.x)
