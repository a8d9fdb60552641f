"""Columns as Arrow may keep them, and the simple cells that a density knows: there and back.

Simple are numbers, booleans, dates and times, strings, and dictionaries of strings or integers.
Runs and views are undone, an extension counts as what it is stored as, bytes are text in UTF-8, and
categories of another sort (intervals, numbers with decimals, dates) are told by their text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["encoded_cells", "simple_cells"]


def simple_cells(name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells of a column, simple; of a type that has none, such as a list, as they are.

    Args:
        name: The column's name, for errors.
        cells: The cells.

    Raises:
        ValueError: If bytes are no text in UTF-8, or two categories have the same text.

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
    return _text(name, cells) if _is_binary(kind) else cells


def encoded_cells(cells: pa.ChunkedArray, like: pa.Array) -> pa.ChunkedArray:
    """Simple cells in the type, and with the categories, that others have had.

    Args:
        cells: The cells, all of whose categories those others have.
        like: An array of that type.

    Returns:
        The cells as `simple_cells` would find them; as they are if they are simple in another way.

    Example:
        >>> like = pa.array(["u", "v", "w"]).dictionary_encode()
        >>> encoded_cells(pa.chunked_array([["w"]]).dictionary_encode(), like).chunk(0).indices[0]
        <pyarrow.Int32Scalar: 2>
    """
    kind = like.type
    if simple_cells("", pa.chunked_array([like.slice(0, 0)])).type != cells.type:
        return cells
    if isinstance(kind, pa.BaseExtensionType):
        stored = encoded_cells(cells, like.storage)
        return _mapped(lambda chunk: pa.ExtensionArray.from_storage(kind, chunk), stored, kind)
    if pa.types.is_run_end_encoded(kind):
        values = encoded_cells(cells, pa.array([], kind.value_type))
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


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


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
