"""Frames of every kind: in, and back in the same kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from scipy import sparse

import maskedflow as mf
from maskedflow.data import open_source
from maskedflow.tables import Form, from_arrow, kind_of, read_frame, to_arrow


class Stream:
    """A frame of which nothing is known but Arrow's protocol."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


TABLE = pa.table({"a": [1.5, None, 3.0], "b": ["u", "v", None], "c": [True, False, True]})


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda table: table, "arrow"),
        (lambda table: table.to_batches()[0], "arrow"),
        (lambda table: table.to_reader(), "arrow"),
        (Stream, "arrow"),
        (pl.from_arrow, "polars"),
        (lambda table: table.to_pandas(), "pandas"),
    ],
)
def test_every_frame_becomes_the_same_table(make: Any, kind: str) -> None:
    frame = make(TABLE)
    assert kind_of(frame) == kind
    table = to_arrow(frame)
    assert table.cast(TABLE.schema).equals(TABLE)


def test_frames_come_back_in_kind() -> None:
    frame = pd.DataFrame(
        {"x": [0.5, np.nan], "y": pd.Categorical(["u", "v"]), "z": pd.to_datetime(["2020", "2021"])}
    )
    pd.testing.assert_frame_equal(from_arrow(*read_frame(frame)), frame)
    columns = pl.DataFrame({"x": [1, None], "y": pl.Series(["u", "v"], dtype=pl.Categorical)})
    assert from_arrow(*read_frame(columns)).equals(columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_, object])
def test_arrays_come_back_with_their_dtype(dtype: Any) -> None:
    x = np.array([[1, 0], [0, 1], [1, 1]]).astype(dtype)
    table = to_arrow(np.asfortranarray(x))
    assert table.column_names == ["x0", "x1"]
    y = from_arrow(table, kind_of(x))
    assert y.dtype == (np.int64 if dtype is object else dtype)
    np.testing.assert_array_equal(x, y)


def test_an_array_of_objects_keeps_what_is_in_its_columns() -> None:
    x = np.array([[1.5, "a"], [None, "b"]], object)
    y = from_arrow(to_arrow(x), "numpy")
    assert y.dtype == object
    assert y[0].tolist() == [1.5, "a"]
    assert np.isnan(y[1, 0])


def test_tensors_and_lists_are_arrays() -> None:
    assert to_arrow(torch.ones(2, 3)).num_columns == to_arrow([[1, 2, 3]]).num_columns == 3


def test_numbers_for_names_become_text() -> None:
    assert to_arrow(pd.DataFrame([[1.0, 2.0]])).column_names == ["0", "1"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.ones(3), r"X: expected a table, an array of shape \(n, D\), got shape \(3,\)"),
        (sparse.csr_matrix(np.eye(2)), r"X: expected a dense table, got a sparse one"),
        (
            np.zeros(2, [("a", "f8"), ("at", "f8", 3)]),
            r"X: column 'at': expected one number .* \(3,",
        ),
        (np.zeros(2, [("a", [("b", "f8")])]), "X: column 'a': .* found records of b"),
        ({"a": [1, 2], "b": [1]}, "X: column 'b': expected 2 rows as in 'a', found 1"),
        ({"a": 1}, r"X: column 'a': expected one number or text in each row"),
        ([[1, 2], [3]], r"X: expected a table, .* got shape \(2,\)"),
        ([[1.5, 10**24]], "X: column 'x1', row 1: expected an integer below 2.53 .* found 1000000"),
        (pd.DataFrame({"s": [b"a", b"\xe9"]}), "X: column 's', row 2: expected text in UTF-8"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "X: column 'a': expected a dense"),
        (pd.DataFrame({"a": pd.Categorical([(1, 2)])}), "X: column 'a': expected categories that"),
        (pl.DataFrame({"a": pl.Series([{1}], dtype=pl.Object)}), "X: column 'a': .* objects"),
        (np.ones((3, 0)), "X: expected at least one column"),
        (np.ones((2, 2)) * 1j, "X: expected numbers, .* found dtype complex128"),
        (
            np.array([[1, 2], ["a", 3]], object),
            "X: column 'x0': expected cells of one type: Could not",
        ),
        (pd.Series([1.0]), "X: expected a frame, got a Series of pandas"),
        (pl.Series([1.0]), "X: expected a frame, got a Series of Polars"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "each column name once, found 'a' twice"),
        (pa.table([[1], [2]], names=["a", "a"]), "each column name once, found 'a' twice"),
        (pd.DataFrame({"a": [1, "x"]}), "X: column 'a': expected cells of one type"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(frame: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        to_arrow(frame)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------- what else is a table

X = np.random.default_rng(0).normal(size=(5, 2))
NAMES = {"a": X[:, 0], "b": X[:, 1]}


@pytest.mark.parametrize(
    "frame",
    [
        X.astype(">f8"),
        X.astype(np.longdouble),
        X.tolist(),
        torch.tensor(X, requires_grad=True),
        np.rec.fromarrays([X[:, 0].astype(">f8"), X[:, 1]], names="a,b"),
        NAMES,
        {"a": pl.Series(X[:, 0]), "b": torch.tensor(X[:, 1])},
        [{"a": a, "b": b} for a, b in X.tolist()],
        pd.DataFrame({"a": X[:, 0].astype(">f8"), "b": X[:, 1].astype(np.longdouble)}),
        pl.DataFrame(NAMES).lazy(),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_numbers_are_the_same_wherever_they_are_kept(frame: Any) -> None:
    table = to_arrow(frame)
    assert table.schema.types == [pa.float64()] * 2
    np.testing.assert_array_equal(np.stack([c.to_numpy() for c in table.columns], 1), X)


HIDDEN = np.array([[True, False], [False, False], [False, True], [False, False], [True, True]])


@pytest.mark.parametrize(
    "frame",
    [
        np.ma.array(np.where(HIDDEN, -999, X), mask=HIDDEN),
        np.ma.array(np.where(HIDDEN, -999, X).astype(">f4"), mask=HIDDEN),
        np.ma.array(X.astype(object), mask=HIDDEN),
        {
            "a": np.ma.array(X[:, 0], mask=HIDDEN[:, 0]),
            "b": np.where(HIDDEN[:, 1], np.nan, X[:, 1]),
        },
        np.ma.array([(1, 2.0)] * 5, [("a", "i8"), ("b", "f8")], mask=[*map(tuple, HIDDEN)]),
        [[np.ma.masked if h else 1.5 for h in row] for row in HIDDEN],
    ],
)
def test_what_is_masked_is_missing(frame: Any) -> None:
    table, form = read_frame(frame)
    missing = [column.is_null(nan_is_null=True).to_numpy() for column in table.columns]
    np.testing.assert_array_equal(np.stack(missing, 1), HIDDEN)
    back = from_arrow(table, form)
    if form.kind == "records":
        assert back.dtype == frame.dtype
        assert back.tolist() == frame.tolist()


PANDAS: dict[str, Any] = {
    "Int64": pd.array([1, None, 3], "Int64"),
    "boolean": pd.array([True, None, False], "boolean"),
    "Float32": pd.array([1.5, None, 3], "Float32"),
    "float16": np.array([1.5, 2, 3], "f2"),
    "objects": pd.Series([1, None, 3], dtype=object),
    "bytes": pd.Series([b"u", b"v", None], dtype=object),
    "string": pd.array(["u", None, "v"], "string[python]"),
    "arrow": pd.array([1, None, 3], "int64[pyarrow]"),
    "arrow text": pd.array(["u", None, "v"], pd.ArrowDtype(pa.string())),
    "arrow decimal": pd.array([1, None, 3], pd.ArrowDtype(pa.decimal128(9, 2))),
    "category": pd.Categorical(["u", None, "v"], ["v", "w", "u"], ordered=True),
    "ids": pd.Categorical([2**60 + 1, None, 2**60 + 2]),
    "floats": pd.Categorical([0.1, 0.5, 0.1]),
    "cut": pd.cut(np.array([-1.0, np.nan, 2.0]), [-2, 0, 1, 3]),
    "months": pd.PeriodIndex(["2020-01", None, "2021-01"], freq="M"),
    "quarters": pd.Categorical(pd.PeriodIndex(["2020Q1", None, "2021Q1"], freq="Q")),
    "moment": pd.DatetimeIndex(["2020-01-01", None, "2021-01-01"], tz="Europe/Berlin").as_unit("s"),
}


def test_dtypes_of_pandas_come_back_also_from_a_file() -> None:
    frame = pd.DataFrame(PANDAS)
    table, form = read_frame(frame)
    for one in (form, Form.from_text("pandas", form.to_text())):
        pd.testing.assert_frame_equal(from_arrow(table, one), frame)
        # A draw has no more categories than there were, and those in some order.
        part = from_arrow(table.slice(2), one)
        assert list(pd.concat([frame, part]).dtypes) == list(frame.dtypes)
    assert table["cut"].to_pylist() == ["(-2, 0]", None, "(1, 3]"]


def test_moments_of_a_zone_are_not_those_of_none() -> None:
    """The same moments of another zone are."""
    hours = pd.date_range("2024-01-01", periods=60, freq="37min", tz="Europe/Berlin")
    estimator = mf.DensityEstimator("gaussian").fit(pd.DataFrame({"at": hours}))
    expected = estimator.score_samples(pd.DataFrame({"at": hours}))
    moved = estimator.score_samples(pd.DataFrame({"at": hours.tz_convert("UTC")}))
    np.testing.assert_array_equal(moved, expected)
    words = r"column 'at': expected type timestamp\[\ws, tz=Europe/Berlin\], found timestamp"
    with pytest.raises(ValueError, match=words):
        estimator.score_samples(pd.DataFrame({"at": hours.tz_localize(None)}))


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1],
        pd.Index([5, 7], name="channel"),
        [0, "a"],
        pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"]),
        pd.date_range("2020", periods=2),
    ],
)
def test_labels_come_back_also_from_a_file(labels: Any) -> None:
    frame = pd.DataFrame(X)
    frame.columns = labels
    table, form = read_frame(frame)
    assert table.column_names == [str(label) for label in frame.columns]
    for one in (form, Form.from_text("pandas", form.to_text())):
        back = from_arrow(table, one).columns
        assert back.equals(frame.columns)
        assert back.names == frame.columns.names


def test_arrows_types_are_undone_and_come_back() -> None:
    text = pa.array(["u", None, "v"])
    columns = {
        "view": text.cast(pa.string_view()),
        "bytes": text.cast(pa.binary()).cast(pa.binary(1)),
        "runs": pc.run_end_encode(text),
        "extension": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
        "views": pa.DictionaryArray.from_arrays(
            pa.array([1, None, 0], pa.uint8()), text.drop_null().cast(pa.string_view())
        ),
        "halves": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array([0.5, None])),
    }
    given = pa.table(columns)
    table, form = read_frame(pa.concat_tables([given, given.slice(1)]))
    index = pa.uint8(), pa.int64()
    wanted = [pa.string()] * 3 + [pa.int8()] + [pa.dictionary(i, pa.string()) for i in index]
    assert table.schema.types == wanted
    assert table["halves"].is_null().to_pylist() == [False, True, False, True, False]
    back = from_arrow(table, Form.from_text("arrow", form.to_text()))
    assert back.schema == given.schema
    assert back.to_pylist()[:3] == given.to_pylist()


def test_kinds_of_text_in_arrays_come_back() -> None:
    for dtype in ("<U2", ">U2", "S2", "M8[h]"):
        x = np.array([["10", "11"], ["12", "13"]]).astype("i8").astype(dtype)
        back = from_arrow(*read_frame(x))
        assert back.dtype == x.dtype.newbyteorder("=")
        assert (back == x).all()


@pytest.mark.parametrize("name", [None, "id"])
def test_an_index_of_pandas_is_no_column(tmp_path: Path, name: str | None) -> None:
    frame = pd.DataFrame(NAMES).rename_axis(index=name)
    frame.iloc[[1, 2, 4]].to_parquet(tmp_path / "1.parquet")
    pd.DataFrame(NAMES).to_parquet(tmp_path / "2.parquet")
    source = open_source(tmp_path / "1.parquet")
    assert source.names == open_source(tmp_path).names == ("a", "b")
    assert ("id" in "".join(source.notes)) == (name == "id")
    index = name or "__index_level_0__"
    batch = next(source.batches(source.known([index], "keep")))
    assert batch.column(0).to_pylist() == [1, 2, 4]
    read = pq.read_table(tmp_path / "1.parquet")
    if name is None:
        assert to_arrow(read).column_names == ["a", "b"]
        assert to_arrow(pl.read_parquet(tmp_path / "1.parquet")).column_names == ["a", "b"]
    else:
        with pytest.warns(UserWarning, match="X: left out, the row index .*: id; to have it"):
            assert to_arrow(read).column_names == ["a", "b"]
    assert to_arrow(read, wanted=[index]).column_names == ["a", "b", index]


class DataArray:
    """As much of xarray's as is looked at; its stream of Arrow's has a row for each number."""

    __module__ = "xarray.core.dataarray"

    def __init__(self, x: Any) -> None:
        self.x, self.ndim = x, x.ndim

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame(self.x, columns=["a", "b"])

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.table({"value": self.x.ravel()}).__arrow_c_stream__(requested_schema)


def test_an_array_of_xarrays_has_its_coordinates_as_columns() -> None:
    assert to_arrow(DataArray(X)).column_names == ["a", "b"]
    with pytest.raises(ValueError, match=r"got a DataArray of xarray; pass its \.to_dataframe"):
        to_arrow(DataArray(X[:, 0]))
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(X, dims=("row", "feature"), coords={"feature": ["a", "b"]})
    assert to_arrow(array).equals(to_arrow(NAMES))
    with pytest.raises(ValueError, match="got a Dataset of xarray"):
        to_arrow(array.to_dataset("feature"))


ALONE = """
import sys

class Absent:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("pandas", "polars"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())

import numpy as np
from maskedflow.tables import Schema, from_arrow, to_arrow, to_rows, to_table

x = np.array([[0.5, np.nan], [2.0, 0.25], [7.75, 1.0]])
table = to_arrow(x)
schema = Schema.infer(table, "model")
y = from_arrow(to_table(schema, to_rows(schema, table)), "numpy")
assert np.array_equal(x, y, equal_nan=True)
"""


def test_other_libraries_are_needed_for_their_own_frames_only() -> None:
    subprocess.run([sys.executable, "-c", ALONE], check=True)
