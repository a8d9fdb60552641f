"""The form of a frame, plain values that a file can hold, and rows given back in that form.

A density knows simple cells: numbers, booleans, dates and times, strings, and dictionaries of
strings or integers. Runs and views are undone, an extension counts as what it is stored as, bytes
are text in UTF-8, and categories of another sort (intervals, numbers with decimals, dates) are told
by their text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
        labels = (tuple(one) if isinstance(one, list) else one for one in self.told("labels") or ())
        known = () if self.like is None else self.like.schema.names
        label_of = dict(zip(known, labels, strict=False))
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
    import pandas as pd

    kind = pa.array(pd.array([], dtype=told.decode())).type
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
            cells = _encoded_cells(cells, form.like.column(name))
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
    named = list(zip(table.column_names, columns, strict=True))
    dtypes = [(name, _dtype(table, name, "numpy") or column.dtype) for name, column in named]
    masked = bool(form.told("masked"))
    records: Array = np.zeros(len(table), dtypes)
    records = np.ma.array(records, mask=True) if masked else records
    for name, column in named:
        there = table.column(name).is_valid().to_numpy() if masked else np.s_[:]
        records[name][there] = column[there]
    return records


def _to_pandas(table: pa.Table, form: Form) -> Any:
    import pandas as pd

    names = table.column_names
    columns = [_to_series(table, name) for name in names]
    frame = pd.concat(map(pd.Series, columns), axis=1, keys=range(len(columns)))
    labels, (heads, dtype) = form.labels(names), form.told("columns")
    if len(heads) > 1:
        frame.columns = pd.MultiIndex.from_tuples(labels, names=heads)
        return frame
    frame.columns = pd.Index(labels, name=heads[0], tupleize_cols=False)
    with suppress(TypeError, ValueError):  # labels of a sort of which nothing but text is kept
        frame.columns = frame.columns.astype(dtype)
    return frame


def _to_series(table: pa.Table, name: str) -> Any:
    """A column as pandas keeps those of its dtype."""
    import pandas as pd

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


def simple_cells(name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells of a column, simple; of a type that has none, such as a list, as they are.

    Example:
        >>> simple_cells("a", pa.chunked_array([[b"u", None]])).type
        DataType(string)
    """
    kind, types = cells.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return simple_cells(name, _mapped(lambda chunk: chunk.storage, cells, kind.storage_type))
    if types.is_run_end_encoded(kind):
        return simple_cells(name, _mapped(pc.run_end_decode, cells, kind.value_type))
    if types.is_dictionary(kind):
        texts = pa.dictionary(kind.index_type, _told(kind.value_type), kind.ordered)
        if texts == kind:
            return cells
        return _mapped(lambda chunk: _dictionary(name, chunk, texts), cells, texts)
    if types.is_string_view(kind):
        return cells.cast(pa.string())
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return _text(name, cells) if binary or types.is_fixed_size_binary(kind) else cells


def _encoded_cells(cells: pa.ChunkedArray, like: pa.Array) -> pa.ChunkedArray:
    """Simple cells in the type, and with the categories, that others have had, if they fit."""
    kind = like.type
    if simple_cells("", pa.chunked_array([like.slice(0, 0)])).type != cells.type:
        return cells
    if isinstance(kind, pa.BaseExtensionType):
        stored = _encoded_cells(cells, like.storage)
        return _mapped(lambda chunk: pa.ExtensionArray.from_storage(kind, chunk), stored, kind)
    if pa.types.is_run_end_encoded(kind):
        values = _encoded_cells(cells, pa.array([], kind.value_type))
        return pc.run_end_encode(values, run_end_type=kind.run_end_type)
    if pa.types.is_dictionary(kind):
        known = _texts("", like.dictionary)
        index = pc.index_in(cells.cast(known.type), value_set=known).cast(kind.index_type)
        make = pa.DictionaryArray.from_arrays
        return _mapped(lambda part: make(part, like.dictionary, ordered=kind.ordered), index, kind)
    return cells.cast(kind)


def _mapped(
    function: Callable[[Any], pa.Array], cells: pa.ChunkedArray, kind: pa.DataType
) -> pa.ChunkedArray:
    return pa.chunked_array([function(chunk) for chunk in cells.chunks], kind)


def _text(name: str, cells: Any) -> Any:
    """Bytes as text."""
    try:
        return cells.cast(pa.string())
    except pa.ArrowNotImplementedError:
        raise ValueError(
            f"column {name!r}: expected categories that are text or numbers, found {cells.type}"
        ) from None
    except pa.ArrowInvalid:
        for row, cell in enumerate(cells.to_pylist()):
            try:
                (cell or b"").decode()
            except UnicodeDecodeError:
                raise ValueError(
                    f"column {name!r}, row {row + 1}: expected text in UTF-8, found {cell!r}"
                ) from None
        raise


def _told(kind: pa.DataType) -> pa.DataType:
    """The type in which categories of a type are told."""
    types = pa.types
    as_it_is = types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind)
    return kind if as_it_is else pa.string()


def _dictionary(name: str, chunk: pa.DictionaryArray, kind: pa.DictionaryType) -> pa.Array:
    texts = _texts(name, chunk.dictionary)
    return pa.DictionaryArray.from_arrays(chunk.indices, texts, ordered=kind.ordered)


def _texts(name: str, values: pa.Array) -> pa.Array:
    """Categories as text, or integers as they are."""
    kind = values.type
    if _told(kind) == kind:
        return values
    if isinstance(kind, pa.BaseExtensionType):  # such as intervals and periods, which pandas knows
        told = values.to_pandas() if "pandas" in str(kind) else values.to_pylist()
        texts = pa.array([None if value is None else str(value) for value in told], pa.string())
    else:
        texts = _text(name, values)
    if len(texts.unique()) < len(texts):
        raise ValueError(f"column {name!r}: expected categories whose text differs, found {kind}")
    return texts
