"""A fitted table and a flow are densities that are asked alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import maskedflow as mf
from commands import run
from maskedflow.runs import Density, RunConfig, load_run, sample_run
from maskedflow.tables import FittedTable
from small_runs import gaussian, trained

WORDS = "--flow gaussian --work 1".split()  # noqa: SIM905


def people(n: int = 200, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    city = rng.choice(["a", "b"], n)
    height = rng.normal(size=n) + (city == "a")
    return pa.table({"height": height, "city": city, "age": rng.normal(size=n)})


@pytest.mark.parametrize("given", [[], ["age"], ["city", "age"]])
def test_a_fitted_table_is_what_the_estimator_fits(given: list[str], tmp_path: Path) -> None:
    table = people()
    x, c = table.drop_columns(given), table.select(given) if given else None
    estimator = mf.DensityEstimator("gaussian", work=1, random_state=3).fit(x, context=c)
    fitted = estimator.fitted_
    assert (fitted.columns, fitted.context_columns) == (tuple(x.column_names), tuple(given))
    scores = estimator.score_samples(x, context=c)
    np.testing.assert_array_equal(fitted.log_prob(x, c).numpy(), scores)
    fitted.save(tmp_path / "f.safetensors")
    again = FittedTable.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(again.log_prob(x, c).numpy(), scores)
    assert again.sample(20, None if c is None else c.slice(0, 20), seed=1).equals(
        fitted.sample(20, None if c is None else c.slice(0, 20), seed=1)
    )
    assert again.seen(x, c) == fitted.seen(x, c)
    face = mf.DensityEstimator.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(face.score_samples(x, context=c), scores)


def test_the_estimator_opens_the_folder_of_a_run(tmp_path: Path) -> None:
    mf.data.write_batches(tmp_path / "t.csv", people().schema, people().to_batches())
    assert run("train", "--data", tmp_path / "t.csv", "--out", tmp_path, *WORDS) == 0
    estimator = mf.DensityEstimator.load(tmp_path / "t")
    scores = load_run(tmp_path / "t").density.log_prob(people()).numpy()
    np.testing.assert_array_equal(estimator.score_samples(people()), scores)
    assert estimator.work_ == 1


def test_a_flow_and_a_table_are_asked_alike(tmp_path: Path) -> None:
    mf.data.write_batches(tmp_path / "t.csv", people().schema, people().to_batches())
    assert run("train", "--data", tmp_path / "t.csv", "--out", tmp_path, *WORDS) == 0
    trained(tmp_path / "g", gaussian(200))
    for name in ("t", "g"):
        opened = load_run(tmp_path / name)
        density: Density = opened.density
        schema, batches = sample_run(opened, 7)
        drawn = pa.Table.from_batches(batches)
        assert (drawn.num_rows, tuple(schema.names)) == (7, opened.columns)
        drawn.to_pandas().to_csv(tmp_path / "drawn.csv", index=False)
        rows = opened.read(tmp_path / "drawn.csv")
        log_prob = density.log_prob(rows.x, rows.context)
        assert (log_prob.shape, log_prob.dtype) == ((7,), torch.float64)
        assert density.parameters >= 0
    with pytest.raises(AttributeError, match="flow"):
        load_run(tmp_path / "t").flow  # noqa: B018


def test_a_record_is_of_a_flow_or_of_a_search(tmp_path: Path) -> None:
    config = trained(tmp_path / "g", gaussian(200)).config
    with pytest.raises(ValueError, match=r"\[flow\] and \[training\], or \[search\]"):
        RunConfig("g", config.data)
    with pytest.raises(ValueError, match=r"\[search\]"):
        RunConfig("g", config.data, config.flow)
