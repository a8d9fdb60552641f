"""Chains that GetDist wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from file_runs import trained
from maskedflow.sources import open_source

getdist = pytest.importorskip("getdist")


@pytest.fixture
def samples(rng: np.random.Generator) -> Any:
    x = np.stack([rng.beta(0.5, 3, 600), rng.gamma(2, 1, 600), rng.normal(size=600)], axis=1)
    return getdist.MCSamples(
        samples=x,
        weights=rng.uniform(0.5, 3, 600),
        loglikes=rng.normal(size=600),
        names=["omegam", "tau", "h"],
        labels=[r"\Omega_m", r"\tau", "h"],
        ranges={"omegam": [0, 1], "tau": [0, None]},
    )


def test_columns_weights_and_ranges_are_those_of_getdist(samples: Any, tmp_path: Path) -> None:
    samples.saveAsText(str(tmp_path / "chain"))
    source = open_source(tmp_path / "chain.txt")
    assert source.names == ("omegam", "tau", "h")
    assert source.bounds == {"omegam": (0, 1), "tau": (0, np.inf)}
    assert source.weights == "weight"
    again = getdist.loadMCSamples(str(tmp_path / "chain"), settings={"ignore_rows": 0})
    table = source.table([*source.names, "weight", "minuslogpost"])
    np.testing.assert_array_equal(np.stack(table.columns[:3], axis=1), again.samples)
    np.testing.assert_array_equal(table["weight"], again.weights)
    np.testing.assert_array_equal(table["minuslogpost"], again.loglikes)


def test_several_chains_are_one_table(rng: np.random.Generator, tmp_path: Path) -> None:
    chains = [rng.normal(size=(n, 2)) for n in (30, 20)]
    both = getdist.MCSamples(
        samples=chains, names=["a", "s8*"], weights=[np.ones(30), np.full(20, 2.0)]
    )
    both.saveAsText(str(tmp_path / "root"), chain_index=None)
    parts = np.split(np.loadtxt(tmp_path / "root.txt"), [30])
    (tmp_path / "root.txt").unlink()
    for number, rows in enumerate(parts, 1):
        np.savetxt(tmp_path / f"root_{number}.txt", rows)
    source = open_source(tmp_path / "root")
    assert source.names == ("a",)
    assert source.index == ("weight", "minuslogpost", "s8")
    assert source.count() == 50
    first = open_source(tmp_path / "root_1.txt")
    assert first.names == source.names
    assert first.count() == 30


def test_a_flow_of_a_chain_stays_within_its_ranges(samples: Any, tmp_path: Path) -> None:
    samples.saveAsText(str(tmp_path / "chain"))
    trained(tmp_path / "chain.txt", tmp_path / "runs")
