"""HDF5 files that h5py wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from file_runs import trained
from maskedflow.sources import open_source

h5py = pytest.importorskip("h5py")


def test_a_matrix_has_numbered_columns(rng: np.random.Generator, tmp_path: Path) -> None:
    x = rng.normal(size=(70_000, 3)).astype(">f4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("chain/samples", data=x, chunks=(1000, 3), compression="gzip")
    source = open_source(tmp_path / "x.h5")
    assert source.names == ("x0", "x1", "x2")
    batches = list(source.batches(["x2", "x0"], first=60_000))
    assert [batch.num_rows for batch in batches] == [10_000]
    np.testing.assert_array_equal(batches[0].column(0), x[60_000:, 2])
    assert str(source.types(["x0"]).field(0).type) == "float"


def test_records_have_fields(tmp_path: Path) -> None:
    kinds = [("n", ">i4"), ("x", ">f8"), ("s", "S3"), ("v", "<f4", (2,)), ("b", "?")]
    x = np.array([(1, 2.5, b"a", (1, 2), True), (2, 3.5, b"b", (3, 4), False)], dtype=kinds)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["records"] = x
    source = open_source(tmp_path / "r.h5")
    assert source.table(source.names).to_pydict() == {
        "n": [1, 2],
        "x": [2.5, 3.5],
        "s": ["a", "b"],
        "v[0]": [1.0, 3.0],
        "v[1]": [2.0, 4.0],
        "b": [True, False],
    }


def test_a_group_has_columns(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "g.hdf5", "w") as file:
        file["p/a"], file["p/b"] = np.arange(4.0), np.arange(4)
        file["p/s"] = np.array(["ü", "", "x", "y"], dtype=object)
        file["title"] = "no column"
    source = open_source(tmp_path / "g.hdf5")
    assert source.table(source.names).to_pydict() == {
        "a": [0.0, 1.0, 2.0, 3.0],
        "b": [0, 1, 2, 3],
        "s": ["ü", "", "x", "y"],
    }


def test_one_of_several_tables_is_named(rng: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "several.h5"
    with h5py.File(path, "w") as file:
        file["prior/a"], file["prior/b"] = np.arange(4.0), np.arange(4)
        file["samples"] = rng.normal(size=(5, 2))
    message = r"several.h5: expected one table, found /samples, /prior; choose by several.h5::/NAME"
    with pytest.raises(ValueError, match=message):
        open_source(path)
    assert open_source(f"{path}::/samples").names == ("x0", "x1")
    assert open_source(f"{path}::prior").names == ("a", "b")
    with pytest.raises(ValueError, match="has no '/none'; there is /samples, /prior"):
        open_source(f"{path}::/none")


def test_numbers_elsewhere_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.arange(8.0).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((4, 2))
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/x")
        file.create_dataset("raw", (4, 2), "f8", external=[(str(tmp_path / "secret"), 0, 64)])
        layout = h5py.VirtualLayout((4, 2), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4, 2))
        file.create_virtual_dataset("virtual", layout)
    with pytest.raises(ValueError, match="expected a dataset of rows and columns"):
        open_source(tmp_path / "links.h5")
    for name in ("link", "raw", "virtual"):
        with pytest.raises(ValueError, match=f"has no '/{name}'"):
            open_source(f"{tmp_path / 'links.h5'}::/{name}")


def test_what_is_no_table_is_told_in_one_line(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["x"] = np.zeros((1000, 2))
    (tmp_path / "cut.h5").write_bytes((tmp_path / "good.h5").read_bytes()[:3000])
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "classic.nc").write_bytes(b"CDF\x01" + bytes(100))
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("x", (10**12, 3), "f8", chunks=(1000, 3))
    with h5py.File(tmp_path / "pandas.h5", "w") as file:
        file.create_group("df").attrs["pandas_type"] = "frame"
    for name, message in {
        "cut.h5": "cannot be read as HDF5",
        "text.h5": "cannot be read as HDF5",
        "classic.nc": "cannot be read as HDF5",
        "huge.h5": "one that announces 24,000,000,000,000",
        "pandas.h5": "is a store of pandas",
    }.items():
        with pytest.raises(ValueError, match=rf"{name}: .*{message}") as caught:
            open_source(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_netcdf_attributes_mask_and_scale(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "packed.nc", "w") as file:
        file["n"] = np.array([1, -9, 3], dtype=np.int16)
        file["n"].attrs["_FillValue"] = np.int16(-9)
        file["t"] = np.array([10, -9, 30], dtype=np.int16)
        file["t"].attrs.update({"_FillValue": np.int16(-9), "scale_factor": 0.5, "add_offset": 1.0})
        file.create_group("empty")
    source = open_source(tmp_path / "packed.nc")
    assert source.table(["n", "t"]).to_pydict() == {"n": [1, None, 3], "t": [6.0, None, 16.0]}
    with pytest.raises(ValueError, match="expected datasets in '/empty', found none"):
        open_source(f"{tmp_path / 'packed.nc'}::/empty")


def test_a_flow_of_a_dataset(rng: np.random.Generator, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["theta"], file["y"] = rng.normal(size=(400, 2)), rng.normal(size=(300, 2))
    trained(Path(f"{tmp_path / 'x.h5'}::/theta"), tmp_path / "runs")
