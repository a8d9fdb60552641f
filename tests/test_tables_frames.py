"""Frames of every kind: in, and back in the same kind."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse

from maskedflow.tables import from_arrow, kind_of, to_arrow


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
    pd.testing.assert_frame_equal(from_arrow(to_arrow(frame), "pandas"), frame)
    columns = pl.DataFrame({"x": [1, None], "y": pl.Series(["u", "v"], dtype=pl.Categorical)})
    assert from_arrow(to_arrow(columns), "polars").equals(columns)


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
        (sparse.csr_matrix(np.eye(2)), r"expected a table, .* got shape \(\)"),
        (np.ones((3, 0)), "X: expected at least one column"),
        (np.ones((2, 2)) * 1j, "X: column 0: Unsupported numpy type"),
        (np.array([[1, 2], ["a", 3]], object), "X: column 0: Could not convert 'a'"),
        (pd.Series([1.0]), "X: expected a frame, got a Series of pandas"),
        (pl.Series([1.0]), "X: expected a frame, got a Series of Polars"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "each column name once, found 'a' twice"),
        (pa.table([[1], [2]], names=["a", "a"]), "each column name once, found 'a' twice"),
        (pd.DataFrame({"a": [1, "x"]}), "cannot be read as a table: .* column a"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(frame: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        to_arrow(frame)
    assert "\n" not in str(caught.value)


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
