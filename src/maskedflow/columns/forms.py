"""The form of a frame, plain values that a file can hold, and rows given back in that form."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from .encodings import encoded_cells

__all__ = ["Form", "Kind", "from_arrow"]

Kind = Literal["numpy", "records", "mapping", "rows", "pandas", "polars", "arrow"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Form:
    """What a frame is, apart from its rows.

    Args:
        kind: A 2-D array, a record array, a mapping from names to arrays, a list of mappings, or
            a frame of pandas, Polars or Arrow.
        like: The frame without its rows: the types of its columns with their categories, and as
            metadata what Arrow has no types for, dtypes and labels that are no text. If None,
            rows are given back in the types they have.
    """

    kind: Kind
    like: pa.RecordBatch | None = None

    def to_text(self) -> str | None:
        """What it is like as text: a stream of Arrow's that has no rows, in base64."""
        if self.like is None:
            return None
        like = _relabelled(self.like, _storage)  # Arrow cannot read categories of an extension
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, like.schema) as stream:
            stream.write_batch(like)
        return base64.b64encode(sink.getvalue()).decode()

    @classmethod
    def from_text(cls, kind: Kind, text: str | None = None) -> Form:
        """Reads what `to_text` wrote.

        Raises:
            ValueError: If the text is no such stream, or there is no such kind.

        Example:
            >>> form = Form("arrow", pa.record_batch({"a": pa.array([], pa.int8())}))
            >>> Form.from_text("arrow", form.to_text()) == form
            True
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind: expected one of {', '.join(get_args(Kind))}, got {kind!r}")
        if text is None:
            return cls(kind)
        try:
            with pa.ipc.open_stream(base64.b64decode(text, validate=True)) as stream:
                like = stream.read_next_batch()
            like.validate(full=True)
        except (ValueError, OSError, StopIteration, NotImplementedError) as error:
            raise ValueError(f"like: expected a stream of Arrow's in base64: {error}") from None
        return cls(kind, like)

    def told(self, key: str) -> Any:
        """What is told of the whole frame under this key, or None."""
        metadata = (None if self.like is None else self.like.schema.metadata) or {}
        return json.loads(metadata.get(key.encode(), b"null"))

    def labels(self, names: list[str]) -> list[Hashable]:
        """The labels of columns whose names as text these are."""
        told = self.told("labels")
        if self.like is None or told is None:
            return list(names)
        labels = (tuple(one) if isinstance(one, list) else one for one in told)
        label_of = dict(zip(self.like.schema.names, labels, strict=True))
        return [label_of.get(name, name) for name in names]


def _relabelled(
    like: pa.RecordBatch, function: Callable[[pa.Array, pa.Field], pa.Array]
) -> pa.RecordBatch:
    """The batch with its dictionaries' values replaced."""
    arrays, fields = [], []
    for array, field in zip(like.columns, like.schema, strict=True):
        if pa.types.is_dictionary(field.type):
            values = function(array.dictionary, field)
            array = pa.DictionaryArray.from_arrays(
                array.indices, values, ordered=field.type.ordered
            )
        arrays.append(array)
        fields.append(field.with_type(array.type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, like.schema.metadata))


def _storage(values: pa.Array, field: pa.Field) -> pa.Array:
    return values.storage if isinstance(values.type, pa.BaseExtensionType) else values


def _extension(values: pa.Array, field: pa.Field) -> pa.Array:
    """Categories of pandas' that are intervals or periods, from what these are stored as."""
    told = (field.metadata or {}).get(b"categories", b"")
    stored = not isinstance(values.type, pa.BaseExtensionType)  # so in a file
    if not stored or not told.startswith((b"interval", b"period")):
        return values
    kind = pa.array(_pandas().array([], dtype=told.decode())).type
    return pa.ExtensionArray.from_storage(kind, values)


def from_arrow(table: pa.Table, form: Form | Kind) -> Any:
    """Turns an Arrow table into a frame of a form.

    An array has one dtype: that of its columns, or the one they have in common, or `object`. A
    missing number is NaN in it.

    Example:
        >>> from_arrow(pa.table({"a": [1, 2], "b": [0.5, None]}), "numpy")
        array([[1. , 0.5],
               [2. , nan]])
    """
    form = form if isinstance(form, Form) else Form(form)
    if form.kind == "pandas" and form.like is not None:
        form = Form("pandas", _relabelled(form.like, _extension))
    table = _encoded(table, form)
    if form.kind == "pandas":
        return table.to_pandas() if form.like is None else _to_pandas(table, form)
    if form.kind == "polars":
        import polars as pl

        return pl.from_arrow(table)
    if form.kind == "arrow":
        return table
    if form.kind == "rows":
        return table.to_pylist()
    names = table.column_names
    columns = [_to_numpy(table.column(name), _dtype(table, name, "numpy")) for name in names]
    if form.kind == "mapping":
        return dict(zip(form.labels(names), columns, strict=True))
    if form.kind == "records":
        return _to_records(table, form, columns)
    dtypes = {column.dtype for column in columns}
    if len(dtypes) > 1 and not all(dtype.kind in "biuf" for dtype in dtypes):
        columns = [column.astype(object) for column in columns]
    return np.stack(columns, axis=1)


def _encoded(table: pa.Table, form: Form) -> pa.Table:
    """The table in the types that the columns have had."""
    if form.like is None:
        return table
    columns, fields = [], []
    for name in table.column_names:
        cells, field = table.column(name), pa.field(name, table.schema.field(name).type)
        if name in form.like.schema.names:
            cells = encoded_cells(cells, form.like.column(name))
            told = form.like.schema.field(name)
            field = told if cells.type == told.type else field
        columns.append(cells)
        fields.append(field)
    return pa.table(columns, schema=pa.schema(fields))


def _dtype(table: pa.Table, name: str, *keys: str) -> str:
    """The first dtype that is told of a column under these keys; empty if there is none."""
    told = table.schema.field(name).metadata or {}
    return next((told[key.encode()].decode() for key in keys if key.encode() in told), "")


def _to_numpy(cells: pa.ChunkedArray, dtype: str) -> Array:
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    x: Array = cells.to_numpy()
    # A missing cell is NaN, NaT or None, which not every dtype has.
    return x.astype(dtype) if dtype not in ("", "object") and not cells.null_count else x


def _to_records(table: pa.Table, form: Form, columns: list[Array]) -> Array:
    names = table.column_names
    dtypes = [
        _dtype(table, name, "numpy") or column.dtype
        for name, column in zip(names, columns, strict=True)
    ]
    dtype = np.dtype(list(zip(names, dtypes, strict=True)))
    masked = bool(form.told("masked"))
    records: Array = np.zeros(len(table), dtype)
    records = np.ma.array(records, mask=True) if masked else records
    for name, column in zip(names, columns, strict=True):
        there = table.column(name).is_valid().to_numpy() if masked else np.s_[:]
        records[name][there] = column[there]
    return records


# ------------------------------------------------------------------------------------------ pandas


def _pandas() -> Any:
    return import_module("pandas")


def _to_pandas(table: pa.Table, form: Form) -> Any:
    pd, names = _pandas(), table.column_names
    columns = [_to_series(pd, table, name) for name in names]
    frame = pd.concat(map(pd.Series, columns), axis=1, keys=range(len(columns)))
    labels, (heads, dtype) = form.labels(names), form.told("columns")
    if len(heads) > 1:
        frame.columns = pd.MultiIndex.from_tuples(labels, names=heads)
        return frame
    frame.columns = pd.Index(labels, name=heads[0], tupleize_cols=False)
    try:
        frame.columns = frame.columns.astype(dtype)
    except (TypeError, ValueError):  # labels of a sort of which nothing but their text is kept
        return frame
    return frame


def _to_series(pd: Any, table: pa.Table, name: str) -> Any:
    """A column as pandas keeps those of its dtype."""
    cells, text = table.column(name), _dtype(table, name, "pandas", "numpy")
    if not text:
        return cells.to_pandas()
    if text == "category" and pa.types.is_dictionary(cells.type):
        array = cells.combine_chunks()
        categories = pd.Index(array.dictionary.to_pandas(), dtype=_dtype(table, name, "categories"))
        codes = array.indices.cast(pa.int64()).fill_null(-1).to_numpy()
        return pd.Categorical.from_codes(codes, categories, ordered=array.type.ordered)
    if text == "arrow":
        return pd.ArrowDtype(cells.type).__from_arrow__(cells)
    if text == "object":
        return pd.array(cells.to_pylist(), dtype=object)
    dtype = pd.api.types.pandas_dtype(text)
    if hasattr(dtype, "__from_arrow__"):
        return dtype.__from_arrow__(cells)
    values = cells.to_pandas()
    # Neither integers of NumPy's nor its booleans can be missing.
    return values if cells.null_count and dtype.kind in "biu" else values.astype(dtype)
