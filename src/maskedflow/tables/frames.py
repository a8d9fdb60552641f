"""Any frame to a `pyarrow.Table`, and a table back to the kind of frame that was given.

pandas and Polars are imported only for an object that is theirs.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

__all__ = ["Kind", "from_arrow", "kind_of", "to_arrow"]

Kind = Literal["numpy", "pandas", "polars", "arrow"]

_NO_TABLE = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)


def kind_of(frame: Any) -> Kind:
    """What kind of frame this is: NumPy's, pandas', Polars' or Arrow's.

    Example:
        >>> kind_of(np.zeros((3, 2)))
        'numpy'
        >>> kind_of(pa.table({"a": [1]}))
        'arrow'
    """
    homes = {base.__module__.partition(".")[0] for base in type(frame).__mro__}
    for home in ("pandas", "polars"):
        if home in homes:
            return cast(Kind, home)
    return "arrow" if hasattr(frame, "__arrow_c_stream__") or "pyarrow" in homes else "numpy"


def to_arrow(frame: Any, name: str = "X") -> pa.Table:
    """Turns a frame into an Arrow table, whose columns keep their types.

    Args:
        frame: A pandas or Polars frame; a table, a batch or a stream of batches of Arrow's, or what
            else has `__arrow_c_stream__`; or a 2-D array, whose columns are then x0, x1, ... The
            row index of pandas is left behind.
        name: What errors call it.

    Raises:
        ValueError: If this is no table, has no column or two of one name, or a column mixes types.

    Example:
        >>> to_arrow(np.array([[1.0, 2.0]])).column_names
        ['x0', 'x1']
    """
    kind = kind_of(frame)
    try:
        if kind == "pandas":
            table = _from_pandas(frame, name)
        elif kind == "polars":
            table = _from_polars(frame, name)
        elif kind == "numpy":
            table = _from_array(np.asarray(frame), name)
        else:
            table = _from_stream(frame)
    except _NO_TABLE as error:
        reason = " ".join(map(str, error.args)).replace("\n", " ")
        raise ValueError(f"{name}: cannot be read as a table: {reason}") from None
    names = table.column_names
    if not names:
        raise ValueError(f"{name}: expected at least one column, found none")
    for i, column in enumerate(names):
        if column in names[:i]:
            raise ValueError(f"{name}: expected each column name once, found {column!r} twice")
    return table


def from_arrow(table: pa.Table, kind: Kind) -> Any:
    """Turns an Arrow table into the kind of frame that `kind_of` has told.

    An array has one dtype: that of its columns, or the one they have in common, or `object`. A
    missing number is NaN in it.

    Example:
        >>> from_arrow(pa.table({"a": [1, 2], "b": [0.5, None]}), "numpy")
        array([[1. , 0.5],
               [2. , nan]])
    """
    if kind == "pandas":
        return table.to_pandas()
    if kind == "polars":
        import polars as pl

        return pl.from_arrow(table)
    if kind == "arrow":
        return table
    columns = [column.to_numpy() for column in table.columns]
    dtypes = {column.dtype for column in columns}
    if len(dtypes) > 1 and not all(dtype.kind in "biuf" for dtype in dtypes):
        columns = [column.astype(object) for column in columns]
    return np.stack(columns, axis=1)


def _from_pandas(frame: Any, name: str) -> pa.Table:
    if getattr(frame, "ndim", 0) != 2:
        raise ValueError(f"{name}: expected a frame, got a {type(frame).__name__} of pandas")
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"{name}: expected each column name once, found {twice!r} twice")
    # The metadata speak of pandas' dtypes, which other frames of these columns need not have.
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def _from_polars(frame: Any, name: str) -> pa.Table:
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    if not hasattr(frame, "columns"):
        raise ValueError(f"{name}: expected a frame, got a {type(frame).__name__} of Polars")
    return frame.to_arrow()


def _from_stream(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    return pa.RecordBatchReader.from_stream(frame).read_all()


def _from_array(x: np.ndarray[Any, Any], name: str) -> pa.Table:
    if x.ndim != 2:
        raise ValueError(f"{name}: expected a table, an array of shape (n, D), got shape {x.shape}")
    columns = {}
    for i, column in enumerate(x.T):
        cells = column.tolist() if x.dtype == object else np.ascontiguousarray(column)
        try:
            columns[f"x{i}"] = pa.array(cells, from_pandas=True)
        except _NO_TABLE as error:
            raise ValueError(f"{name}: column {i}: {error}") from None
    return pa.table(columns)
