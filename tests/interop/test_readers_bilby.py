"""Results that bilby wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from file_runs import trained
from maskedflow.sources import open_source

bilby = pytest.importorskip("bilby")
pd = pytest.importorskip("pandas")


@pytest.fixture
def result(rng: np.random.Generator) -> Any:
    prior = bilby.core.prior
    posterior = {
        "mass": rng.uniform(0, 5, 400),
        "spin": 10 ** rng.uniform(0, 1, 400),
        "phase": rng.normal(size=400),
        "fixed": np.ones(400),
        "log_likelihood": rng.normal(size=400),
    }
    priors = {
        "mass": prior.Uniform(0, 5),
        "spin": prior.LogUniform(1, 10),
        "phase": prior.Gaussian(0, 1),
        "fixed": 1.0,
    }
    return bilby.core.result.Result(
        label="event",
        posterior=pd.DataFrame(posterior),
        search_parameter_keys=["mass", "spin", "phase"],
        fixed_parameter_keys=["fixed"],
        priors=prior.PriorDict(priors),
    )


@pytest.mark.parametrize("kind", ["json", "hdf5"])
def test_columns_and_bounds_are_those_of_bilby(result: Any, kind: str, tmp_path: Path) -> None:
    result.save_to_file(filename=f"event.{kind}", outdir=str(tmp_path), extension=kind)
    source = open_source(tmp_path / f"event.{kind}")
    assert source.names == ("mass", "spin", "phase")
    assert set(source.index) == {"fixed", "log_likelihood"}
    assert source.bounds == {"mass": (0, 5), "spin": (1, 10)}
    assert source.weights is None
    table = source.table([*source.names, *source.index])
    for name in table.column_names:
        np.testing.assert_array_equal(table[name], result.posterior[name])


@pytest.mark.parametrize("kind", ["json", "hdf5"])
def test_a_flow_of_a_result_stays_within_its_priors(result: Any, kind: str, tmp_path: Path) -> None:
    result.save_to_file(filename=f"event.{kind}", outdir=str(tmp_path), extension=kind)
    trained(tmp_path / f"event.{kind}", tmp_path / "runs")
