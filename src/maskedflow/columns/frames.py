"""Any frame to a `pyarrow.Table`, and the form in which rows are given back.

pandas and Polars are imported only for an object that is theirs; xarray and astropy never.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import issparse

from maskedflow.sources.arrays import native, to_cells
from maskedflow.sources.parquet import index_columns, named

from .cells import LARGE, too_large
from .forms import Form, Kind, simple_cells

_FAILED = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError, TypeError)
_WANTED = "expected numbers, text, booleans, dates or times"


def kind_of(frame: Any) -> Kind:
    """What kind of frame this is: NumPy's, pandas', Polars' or Arrow's, or one of columns or rows.

    Example:
        >>> kind_of(np.zeros((3, 2))), kind_of({"a": [1]})
        ('numpy', 'mapping')
    """
    homes = _homes(frame)
    if homes & {"xarray", "pandas"}:
        return "pandas"
    if "polars" in homes:
        return "polars"
    if "pyarrow" in homes or hasattr(frame, "__arrow_c_stream__"):
        return "arrow"
    if isinstance(frame, Mapping):
        return "mapping"
    if isinstance(frame, list | tuple) and frame and isinstance(frame[0], Mapping):
        return "rows"
    return "records" if getattr(getattr(frame, "dtype", None), "names", None) else "numpy"


def to_arrow(frame: Any, name: str = "X", wanted: Collection[str] = ()) -> pa.Table:
    """Turns a frame into an Arrow table; see `read_frame`.

    Example:
        >>> to_arrow(np.array([[1.0, 2.0]])).column_names
        ['x0', 'x1']
        >>> to_arrow(np.ma.array([[1, -999]], mask=[[False, True]]))["x1"].null_count
        1
    """
    return read_frame(frame, name, wanted)[0]


def read_frame(frame: Any, name: str = "X", wanted: Collection[str] = ()) -> tuple[pa.Table, Form]:
    """Turns a frame into an Arrow table of simple cells, and tells its form.

    Args:
        frame: A pandas or Polars frame; a table, a batch or a stream of batches of Arrow's, or what
            else has `__arrow_c_stream__`; a 2-D array, or what NumPy makes one of, whose columns
            are then x0, x1, ...; a record array; a mapping from names to columns; a list of
            mappings; a 2-D `DataArray` of xarray, whose last coordinate names the columns. What a
            mask covers is missing. The row index of pandas is left behind, also in a table of
            Arrow's that pandas has made.
        name: What errors call it.
        wanted: Columns that are none of a row index, whatever pandas says.

    Raises:
        ValueError: If this is no table, has no column or two of one name, or a column mixes types
            or has one that nothing is known about; the message names the column.

    Warns:
        UserWarning: If a row index that has a name is left out, and nothing is said of wanted ones.
    """
    kind = kind_of(frame)
    raw = _SOURCES[kind](frame, name)
    if index := [one for one in index_columns(raw.schema) if one not in wanted]:
        raw = raw.drop_columns(index)
        if not wanted and (told := named(index)):
            warnings.warn(
                f"{name}: left out, the row index of a frame of pandas: {', '.join(told)}; to have "
                "it as a column, make the table after reset_index()",
                stacklevel=2,
            )
    names = raw.column_names
    if not names:
        raise ValueError(f"{name}: expected at least one column, found none")
    if kind in ("polars", "arrow"):  # what else others tell of their tables is not kept
        raw = raw.replace_schema_metadata(None)
    _refuse_twice(names, name)
    try:
        cells = [simple_cells(column, raw.column(column)) for column in names]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return pa.table(dict(zip(names, cells, strict=True))), Form(kind, _without_rows(raw))


def as_array(x: Any, name: str = "X") -> Any:
    """A 2-D array of NumPy's, masked if it was, from what can be one.

    A nested list becomes one of objects: so each of its columns is of a type of its own.

    Raises:
        ValueError: If nothing of two dimensions can be made of it.
    """
    if issparse(x):
        raise ValueError(f"{name}: expected a dense table, got a sparse one; pass its .toarray()")
    try:
        x = _dense(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: cannot be read as an array: {_line(error)}") from None
    if x.dtype.kind == "c":  # the words are those that scikit-learn looks for
        raise ValueError(f"{name}: {_WANTED}, found dtype {x.dtype}: Complex data not supported")
    if x.ndim != 2:
        raise ValueError(f"{name}: expected a table, an array of shape (n, D), got shape {x.shape}")
    return x


def weights_of(frame: Any) -> Any | None:
    """The weights of rows that are a level of a frame's index called "weights", or None.

    Samplers' tables keep them there, such as `anesthetic.Samples`.
    """
    index: Any = getattr(frame, "index", None) if "pandas" in _homes(frame) else None
    if "weights" not in getattr(index, "names", ()):
        return None
    return np.asarray(index.get_level_values("weights"), np.float64)


def _homes(frame: Any) -> set[str]:
    """The packages that an object's class and its bases are from."""
    return {base.__module__.partition(".")[0] for base in type(frame).__mro__}


def _from_pandas(frame: Any, name: str) -> pa.Table:
    what = type(frame).__name__
    if "xarray" in _homes(frame):
        if getattr(frame, "ndim", 0) != 2:
            raise ValueError(
                f"{name}: expected a 2-D array, got a {what} of xarray; pass its .to_dataframe()"
            )
        frame = frame.to_pandas()
    if getattr(frame, "ndim", 0) != 2:
        raise ValueError(f"{name}: expected a frame, got a {what} of pandas")
    labels = list(frame.columns)
    raw = _from_columns(labels, [frame.iloc[:, i] for i in range(len(labels))], name)
    heads = [None if head is None else str(head) for head in frame.columns.names]
    return _telling(raw, columns=(heads, str(frame.columns.dtype)))


def _from_polars(frame: Any, name: str) -> pa.Table:
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    if not hasattr(frame, "columns"):
        raise ValueError(f"{name}: expected a frame, got a {type(frame).__name__} of Polars")
    for column, kind in frame.schema.items():
        if str(kind) == "Object":
            raise ValueError(f"{name}: column {column!r}: {_WANTED}, found Python's objects")
    return _from_stream(frame, name)


def _from_stream(frame: Any, name: str) -> pa.Table:
    try:
        return frame if isinstance(frame, pa.Table) else pa.table(frame)
    except _FAILED as error:
        raise ValueError(f"{name}: cannot be read as a table: {_line(error)}") from None


def _from_array(frame: Any, name: str) -> pa.Table:
    columns = as_array(frame, name).T
    return _from_columns([f"x{i}" for i in range(len(columns))], columns, name)


def _from_rows(rows: Sequence[Mapping[Any, Any]], name: str) -> pa.Table:
    labels = list(dict.fromkeys(label for row in rows for label in row))
    return _from_columns(labels, [[row.get(label) for row in rows] for label in labels], name)


def _from_records(frame: Any, name: str) -> pa.Table:
    if hasattr(frame, "as_array"):  # a table of astropy's
        frame = frame.as_array()
    if frame.ndim != 1:
        raise ValueError(f"{name}: expected records of shape (n,), got shape {frame.shape}")
    labels = list(frame.dtype.names)
    raw = _from_columns(labels, [frame[label] for label in labels], name)
    return _telling(raw, masked=isinstance(frame, np.ma.MaskedArray))


_SOURCES: dict[Kind, Callable[[Any, str], pa.Table]] = {
    "pandas": _from_pandas,
    "polars": _from_polars,
    "arrow": _from_stream,
    "mapping": lambda frame, name: _from_columns(list(frame), frame.values(), name),
    "rows": _from_rows,
    "records": _from_records,
    "numpy": _from_array,
}


def _from_columns(labels: Sequence[Any], columns: Iterable[Any], name: str) -> pa.Table:
    """A table of columns of any kind, which tells its labels and the columns' dtypes."""
    names = [str(label) for label in labels]
    _refuse_twice(names, name)
    cells: list[Any] = []
    fields = []
    for column, values in zip(names, columns, strict=True):
        found, dtype = _cells(values, f"{name}: column {column!r}")
        if cells and len(found) != len(cells[0]):
            raise ValueError(
                f"{name}: column {column!r}: expected {len(cells[0])} rows as in {names[0]!r}, "
                f"found {len(found)}"
            )
        cells.append(found)
        fields.append(pa.field(column, found.type, metadata=dtype))
    raw = pa.table(cells, schema=pa.schema(fields))
    return raw if names == list(labels) else _telling(raw, labels=[_plain(one) for one in labels])


def _cells(values: Any, column: str) -> tuple[Any, dict[str, str]]:
    """The cells of a column, and its dtype."""
    homes, dtype = _homes(values), getattr(values, "dtype", None)
    try:
        if "pandas" in homes and not isinstance(dtype, np.dtype):
            if str(dtype).startswith("Sparse"):
                raise ValueError(f"{column}: expected a dense column, found dtype {dtype}")
            return pa.array(values, from_pandas=True), _dtype_of_pandas(dtype)
        if "polars" in homes and str(dtype) != "Object":
            return values.to_arrow(), {}
        if "pyarrow" in homes:
            return values, {}
        x = _dense(values.to_numpy() if "pandas" in homes else values)
        return _array_cells(x, column)
    except _FAILED as error:
        wanted = "expected cells of one type"
        if isinstance(dtype, np.dtype) and dtype.kind != "O":
            wanted = f"{_WANTED}, found dtype {dtype}"
        raise ValueError(f"{column}: {wanted}: {_line(error)}") from None


def _array_cells(x: Any, column: str) -> tuple[Any, dict[str, str]]:
    """The cells of an array, and its dtype in the byte order of this machine."""
    if x.ndim != 1 or x.dtype.names:
        what = f"records of {', '.join(x.dtype.names)}" if x.dtype.names else f"shape {x.shape[1:]}"
        raise ValueError(f"{column}: expected one number or text in each row, found {what}")
    mask = np.ma.getmaskarray(x) if isinstance(x, np.ma.MaskedArray) else None
    x = np.ma.getdata(x)
    if x.dtype == object:
        hidden = np.zeros(len(x), np.bool_) if mask is None else mask
        cells = [
            None if gone or cell is np.ma.masked else cell
            for cell, gone in zip(x.tolist(), hidden, strict=True)
        ]
        for row, cell in enumerate(cells):
            if isinstance(cell, int) and not -LARGE < cell < LARGE:
                raise ValueError(f"{column}, row {row + 1}: {too_large(cell)}")
        return pa.array(cells, from_pandas=True), {"numpy": "object"}
    x = native(x)
    dtype = {"numpy": str(x.dtype)} if x.dtype.kind in "biufSUmM" else {}
    return to_cells(x, mask), dtype


def _dense(x: Any) -> Any:
    """An array of NumPy's, masked if it was."""
    if isinstance(x, torch.Tensor):
        known = x.dtype in (torch.float16, torch.float32, torch.float64)
        return (x if known or not x.is_floating_point() else x.float()).numpy(force=True)
    if isinstance(x, list | tuple):
        if any(isinstance(row, np.ma.MaskedArray) for row in x):
            return np.ma.array(x)
        plain = all(isinstance(row, list | tuple) or np.ndim(row) == 0 for row in x)
        return np.array(x, dtype=object if plain else None)
    return x if isinstance(x, np.ma.MaskedArray) else np.asarray(x)


def _dtype_of_pandas(dtype: Any) -> dict[str, str]:
    """What tells a dtype of pandas' own."""
    text = str(dtype)
    if text == "category":
        return {"pandas": text, "categories": str(dtype.categories.dtype)}
    if hasattr(dtype, "pyarrow_dtype"):
        return {"pandas": "arrow"}
    return {"pandas": f"string[{dtype.storage}]" if text == "string" else text}


def _telling(table: pa.Table, **told: Any) -> pa.Table:
    """The table with more metadata."""
    more = {key: json.dumps(value) for key, value in told.items()}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **more})


def _plain(label: Any) -> Any:
    """A label as JSON can hold it, as text if it is of an unknown sort."""
    if isinstance(label, tuple):
        return [_plain(part) for part in label]
    label = label.item() if isinstance(label, np.generic) else label
    return label if isinstance(label, str | int | float | None) else str(label)


def _without_rows(table: pa.Table) -> pa.RecordBatch:
    """No rows, in columns of the same types with the same categories."""
    arrays = []
    for cells in table.columns:
        empty = cells.chunk(0).slice(0, 0) if cells.num_chunks else pa.array([], cells.type)
        if pa.types.is_dictionary(cells.type):
            known = [chunk.dictionary for chunk in cells.chunks]
            if any(not one.equals(known[0]) for one in known):
                values = pa.concat_arrays(known).unique()
                make = pa.DictionaryArray.from_arrays
                empty = make(empty.indices, values, ordered=cells.type.ordered)
        arrays.append(empty)
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _refuse_twice(names: Sequence[str], name: str) -> None:
    for column, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"{name}: expected each column name once, found {column!r} twice")


def _line(error: BaseException) -> str:
    """The reason of an error on one line."""
    return " ".join(" ".join(map(str, error.args)).split())
