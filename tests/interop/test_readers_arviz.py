"""Inference data of ArviZ's, as netCDF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from file_runs import trained
from maskedflow.sources import open_source

az = pytest.importorskip("arviz")
pytest.importorskip("h5py")
xr = pytest.importorskip("xarray")


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_draws_of_all_chains_are_rows(
    engine: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    pytest.importorskip(engine.replace("netcdf4", "netCDF4"))
    posterior = {
        "mu": rng.normal(size=(2, 50)),
        "theta": rng.normal(size=(2, 50, 3)),
        "m": rng.normal(size=(2, 50, 2, 2)).astype(np.float32),
        "k": rng.integers(0, 9, size=(2, 50)),
        "is_high": rng.random((2, 50)) > 0.5,
    }
    data = az.from_dict(
        posterior=posterior,
        sample_stats={"lp": rng.normal(size=(2, 50))},
        coords={"school": ["Choate", "Deer field", "Phillips"]},
        dims={"theta": ["school"]},
    )
    path = tmp_path / "eight.nc"
    data.to_netcdf(str(path), engine=engine)
    source = open_source(path)
    assert set(source.names) == {
        *("mu", "k", "is_high", "theta[Choate]", "theta[Deer field]", "theta[Phillips]"),
        *("m[0, 0]", "m[0, 1]", "m[1, 0]", "m[1, 1]"),
    }
    table = source.table(source.names)
    np.testing.assert_array_equal(table["mu"], posterior["mu"].reshape(-1))
    np.testing.assert_array_equal(table["theta[Phillips]"], posterior["theta"][..., 2].reshape(-1))
    np.testing.assert_array_equal(table["m[1, 0]"], posterior["m"][..., 1, 0].reshape(-1))
    types = {str(table[name].type) for name in ("m[0, 0]", "k", "is_high")}
    assert types == {"float", "int64", "bool"}
    assert open_source(f"{path}::/sample_stats").names == ("lp",)


def test_a_data_tree_is_read_alike(rng: np.random.Generator, tmp_path: Path) -> None:
    draws = xr.Dataset({"mu": (("draw", "chain", "d"), rng.normal(size=(20, 2, 2)))})
    xr.DataTree.from_dict({"posterior": draws}).to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    source = open_source(tmp_path / "tree.nc")
    assert source.names == ("mu[0]", "mu[1]")
    found = source.table(["mu[1]"])["mu[1]"]
    np.testing.assert_array_equal(
        found, draws["mu"][..., 1].transpose("chain", "draw").to_numpy().reshape(-1)
    )


def test_a_flow_of_draws(rng: np.random.Generator, tmp_path: Path) -> None:
    data = az.from_dict(posterior={"mu": rng.normal(size=(2, 200, 2))})
    data.to_netcdf(str(tmp_path / "draws.nc"))
    trained(tmp_path / "draws.nc", tmp_path / "runs")
