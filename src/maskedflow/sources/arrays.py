"""Tables that are arrays of NumPy's: in memory, mapped from a file, or read slice by slice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from .source import ROWS, Source, Types

COARSE = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}
"""Units of NumPy's times that Arrow has not, and the finer ones it has."""

KINDS = "biufSUOmM"
"""The kinds of dtypes whose elements can be cells; objects are texts."""

WIDEST = 100_000
"""The most columns that an array of many dimensions is taken apart into."""

PACKED = 1100
"""How many bytes at most a byte of a file stands for: deflate packs zeros 1032 to 1."""


class UnreadableError(ValueError):
    """What is wrong with a file, in words that lack only its name."""


@contextmanager
def one_line(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever another library says of a file, damaged or not, into one line about it."""
    try:
        yield
    except UnreadableError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        reason = str(error).partition("\n")[0].strip() or type(error).__name__
        if isinstance(error, ValueError) and reason.startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: cannot be read as {kind}: {reason:.300}") from None


def partner(path: Path, library: str, what: str, extra: str) -> Any:
    """A library that reads a kind of file, imported only for one.

    Raises:
        ValueError: If it is not installed; the message says what to install.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: reading {what} needs {library.partition('.')[0]}; "
            f"pip install 'maskedflow[{extra}]'"
        ) from None


def check_announced(announced: int, path: Path) -> None:
    """Refuses arrays of more bytes than their file can hold, before memory is asked for."""
    stored = path.stat().st_size
    if announced > PACKED * stored:
        raise UnreadableError(
            f"expected a table of at most {PACKED * stored:,} bytes in a file of {stored:,}, "
            f"found one that announces {announced:,}"
        )


class Place(NamedTuple):
    """Where a column is: the array, and the element of each of its rows."""

    array: str
    element: tuple[int, ...] = ()


def places(
    array: str, shape: Sequence[int], labels: Sequence[Sequence[Any]] | None = None
) -> dict[str, Place]:
    """The columns of an array whose rows have some shape: `a`, or `a[0]`, `a[1]`, ...

    Example:
        >>> list(places("a", ())), list(places("a", (2, 2))), list(places("a", (2,), [["x", "y"]]))
        (['a'], ['a[0, 0]', 'a[0, 1]', 'a[1, 0]', 'a[1, 1]'], ['a[x]', 'a[y]'])
    """
    if not shape:
        return {array: Place(array)}
    if np.prod(shape, dtype=object) > WIDEST:
        raise UnreadableError(
            f"expected at most {WIDEST:,} columns, found {array!r} with {tuple(shape)} a row"
        )
    told = product(*(labels or [range(size) for size in shape]))
    return {
        f"{array}[{', '.join(map(str, label))}]": Place(array, element)
        for element, label in zip(np.ndindex(*shape), told, strict=True)
    }


def numbered(array: str, width: int) -> dict[str, Place]:
    """The columns x0, x1, ... of an array without names of its own."""
    return {f"x{i}": place for i, place in enumerate(places(array, (width,)).values())}


def native(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array in this machine's byte order, and no wider than doubles."""
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:  # long double
        with np.errstate(over="ignore"):
            x = x.astype(np.float64)
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def to_cells(x: np.ndarray[Any, Any], mask: np.ndarray[Any, Any] | None = None) -> pa.Array:
    """The cells of an array of one dimension in native order; what a mask covers is missing.

    Example:
        >>> to_cells(np.array([1, 2]), np.array([False, True])).to_pylist()
        [1, None]
    """
    if x.dtype.kind in "mM":
        unit = np.datetime_data(x.dtype)[0]
        x = x.astype(f"{x.dtype.kind}8[{COARSE.get(unit, unit)}]")
    return pa.array(x, mask=mask, from_pandas=True)


class SlicedSource(Source):
    """A table whose columns are elements of arrays, of which any rows can be read.

    Args:
        path: The file, as it was asked for.
        columns: Where each column is.
        count: The number of rows.
        beside: The columns that are read only if they are asked for.
        weights: The column of weights, one of these.
        bounds: The bounds of columns.
        notes: How it is read where that had to be guessed.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Place],
        count: int,
        *,
        beside: Collection[str] = (),
        weights: str | None = None,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.path, self._count = path, count
        empty = self._slices({place.array for place in columns.values()}, 0, 0)
        known = {name for name, x in empty.items() if _is_simple(x)}
        left_out = [name for name in empty if name not in known]
        self._places = {name: one for name, one in columns.items() if one.array in known}
        fields = [(name, _cells(empty, place).type) for name, place in self._places.items()]
        self._schema = pa.schema(fields)
        self.names = tuple(name for name in self._places if name not in beside)
        self.index = tuple(name for name in self._places if name in beside)
        self.weights, self.bounds = weights, dict(bounds or {})
        self.notes = tuple(notes)
        if left_out:
            self.notes += (
                f"left out of {path}, for their cells are neither numbers nor text: "
                f"{', '.join(left_out)}",
            )
        if not self.names:
            raise UnreadableError("expected at least one column of numbers or text, found none")

    def count(self) -> int:
        return self._count

    def pieces(self) -> list[int]:
        return list(range(0, max(1, self._count), ROWS))

    def place(self, row: int) -> tuple[Path, int]:
        return self.path, row + 1

    def types(self, columns: Sequence[str], given: Types | None = None) -> pa.Schema:
        return pa.schema([self._schema.field(name) for name in columns])

    def _read(
        self, columns: tuple[str, ...], types: Types, rows: int, first: int, last: int | None
    ) -> Iterator[pa.RecordBatch]:
        last = self._count if last is None else min(last, self._count)
        schema = self.types(columns)
        arrays = dict.fromkeys(self._places[name].array for name in columns)
        for start in range(first, last, rows):
            with one_line(self.path, "a table"):
                found = self._slices(arrays, start, min(start + rows, last))
                cells = [_cells(found, self._places[name]) for name in columns]
            yield pa.RecordBatch.from_arrays(cells, schema=schema)

    @abstractmethod
    def _slices(self, arrays: Collection[str], first: int, last: int) -> Mapping[str, Any]:
        """Rows of arrays: of NumPy's, masked where a cell is missing, or of Arrow's."""


class ArraySource(SlicedSource):
    """A table of arrays that are here, or mapped into memory; see :class:`SlicedSource`."""

    def __init__(self, path: Path, arrays: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        self._arrays = arrays
        super().__init__(path, *args, **kwargs)

    def _slices(self, arrays: Collection[str], first: int, last: int) -> Mapping[str, Any]:
        return {name: self._arrays[name][first:last] for name in arrays}


def _is_simple(x: Any) -> bool:
    """Whether elements of an array can be cells: numbers, texts, booleans, or times."""
    if isinstance(x, pa.Array):
        return not pa.types.is_nested(x.type)
    return x.dtype.kind in KINDS


def _cells(arrays: Mapping[str, Any], place: Place) -> pa.Array:
    """The cells of a column."""
    x = arrays[place.array]
    if isinstance(x, pa.Array):
        return x
    x = x[(slice(None), *place.element)]
    mask = np.ma.getmaskarray(x) if isinstance(x, np.ma.MaskedArray) else None
    x = np.ma.getdata(x)
    if x.dtype.kind == "S":
        x = np.char.decode(x, "utf-8")
    if x.dtype.kind == "O":
        return pa.array(x, pa.string(), mask=mask)
    return to_cells(native(x), mask)
