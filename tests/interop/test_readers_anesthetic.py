"""Samples of anesthetic's, in memory and as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskedflow as mf
from file_runs import trained
from maskedflow.sources import open_source

anesthetic = pytest.importorskip("anesthetic")

# What pandas 3 says to anesthetic 2.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def samples(rng: np.random.Generator) -> Any:
    x = rng.normal(size=(400, 2))
    logl = -0.5 * (x**2).sum(axis=1)
    born = np.concatenate([np.full(50, -np.inf), np.sort(logl)[:-50]])
    order = np.argsort(logl)
    return anesthetic.NestedSamples(
        x[order], columns=["a", "b"], labels=["$a$", "$b, c$"], logL=logl[order], logL_birth=born
    )


@pytest.mark.parametrize("labels", [True, False])
def test_csv_has_the_weights_and_the_parameters(samples: Any, labels: bool, tmp_path: Path) -> None:
    path = tmp_path / "nested.csv"
    (samples if labels else samples.drop_labels()).to_csv(path)
    source = open_source(path)
    assert source.names == ("a", "b")
    assert source.index == ("weights", "logL", "logL_birth", "nlive")
    assert source.weights == "weights"
    assert source.count() == len(samples)
    table = source.table(["a", "b", "weights", "logL"])
    np.testing.assert_array_equal(np.stack(table.columns[:2], axis=1), samples[["a", "b"]])
    np.testing.assert_array_equal(table["weights"], samples.get_weights())
    np.testing.assert_array_equal(table["logL"], samples["logL"])


def test_blocks_of_a_csv_begin_at_any_row(samples: Any, tmp_path: Path) -> None:
    samples.to_csv(tmp_path / "nested.csv")
    source = open_source(tmp_path / "nested.csv")
    (batch,) = source.batches(["a"], first=7, last=9)
    found = [float(cell) for cell in batch.column(0).to_pylist()]
    assert found == samples["a"].to_numpy()[7:9].tolist()


def test_an_estimator_takes_the_weights_of_samples(samples: Any) -> None:
    chosen = samples[["a", "b"]]
    estimator = mf.DensityEstimator("gaussian", work=0.1).fit(chosen)
    plain, weights = chosen.to_numpy(), samples.get_weights()
    given = mf.DensityEstimator("gaussian", work=0.1).fit(plain, sample_weight=weights)
    np.testing.assert_array_equal(estimator.score_samples(chosen), given.score_samples(plain))


def test_a_flow_of_samples(samples: Any, tmp_path: Path) -> None:
    samples.to_csv(tmp_path / "nested.csv")
    trained(tmp_path / "nested.csv", tmp_path / "runs")
