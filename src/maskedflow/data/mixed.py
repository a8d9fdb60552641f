"""A mixed table from a file: its schema, the rows to fit, and the rows held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from maskedflow.columns import Schema, complete, read_document, read_source
from maskedflow.columns.arrow_types import is_number, is_temporal
from maskedflow.columns.cells import is_missing
from maskedflow.columns.schema import Missing
from maskedflow.files import read_text
from maskedflow.sources import open_source

from .split import Array, Dealing, deal_rows
from .table import File

__all__ = ["MixedTable", "TableSplit", "deal_mixed", "infer_schema", "open_mixed"]

_TEST = 0.1
"""The share of the rows that tests, as of a table of numbers."""


@dataclass(frozen=True)
class TableSplit:
    """The rows of one part of a table.

    Args:
        x: The columns that have a density.
        context: Those that it is conditional on, if any.
    """

    x: pa.Table
    context: pa.Table | None = None

    def __len__(self) -> int:
        return int(self.x.num_rows)

    def filter(self, kept: NDArray[np.bool_]) -> TableSplit:
        """Some of the rows."""
        mask = pa.array(kept)
        return TableSplit(
            self.x.filter(mask), None if self.context is None else self.context.filter(mask)
        )


@dataclass(frozen=True)
class MixedTable:
    """A table with columns of every kind, its rows dealt at random.

    Args:
        name: What it is called.
        schema: What is known of the columns, told from all rows.
        train: The rows to fit.
        test: The rows held out.
        dealing: "values" if copies of a row went to one side, "rows" if each was dealt by itself.
        distinct: The number of rows that are no copies of another one, if there are copies.
        notes: What should be known before this table is modelled, a sentence each.
    """

    name: str
    schema: Schema
    train: TableSplit
    test: TableSplit
    dealing: Dealing = "rows"
    distinct: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a density."""
        return self.schema.names

    @property
    def context_columns(self) -> tuple[str, ...]:
        """Those that it is conditional on."""
        given = self.train.context
        return () if given is None else tuple(given.column_names)

    @property
    def rows(self) -> tuple[int, int, int]:
        """The number of training, validation and test rows; what validates is fitted, too."""
        return len(self.train), 0, len(self.test)


def open_mixed(
    path: File,
    *,
    table: pa.Table | None = None,
    context: Sequence[str] = (),
    schema: Path | None = None,
    missing: Missing | None = None,
    seed: int = 0,
) -> MixedTable:
    """Reads a table, tells its schema, and holds a tenth of its rows out.

    Args:
        path: A `.csv` or `.parquet` file, or a folder of `.parquet` files.
        table: Its columns, where they have been read already.
        context: The columns to condition on.
        schema: A TOML file with what is known of the columns.
        missing: What becomes of missing values, whatever the schema says; "error" if neither does.
        seed: Which rows are held out: the same as of a table of numbers.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If one cannot be read, a cell cannot be what its column is, a context column is
            unknown, or rows are few.
    """
    source = open_source(path)
    features, given = source.roles(context)
    told, known = _read_schema(schema)
    table = read_source(source, declared=known) if table is None else table
    notes = [
        f"--schema: what it says of {n!r} does not count in --context" for n in given if n in known
    ]
    known = {name: column for name, column in known.items() if name not in given}
    with _naming(source.path):
        whole = TableSplit(
            table.select(list(features)), table.select(list(given)) if given else None
        )
        found = Schema.infer(whole.x, missing or told or "error", known)
        if not found.free:
            raise ValueError("all columns are constant or repeat another; expected some that vary")
        return deal_mixed(source.path.stem, whole, found, seed, notes=(*source.notes, *notes))


def deal_mixed(
    name: str,
    whole: TableSplit,
    schema: Schema,
    seed: int,
    dealing: Dealing = "values",
    notes: tuple[str, ...] = (),
) -> MixedTable:
    """Deals rows as `maskedflow.data.open_table` does, whose validating rows are fitted too.

    Raises:
        ValueError: If rows, or distinct ones, are few, or a context misses values.
    """
    table, context_columns = whole.x, []
    if whole.context is not None:
        context_columns = whole.context.column_names
        for given, cells in zip(context_columns, whole.context.columns, strict=True):
            table = table.append_column(given, cells)
    if schema.missing == "drop":
        table = table.filter(pa.array(complete(table)))
    for given in context_columns if schema.missing != "model" else ():
        missing = is_missing(table.column(given))
        if missing.any():
            raise ValueError(
                f"column {given!r}, row {int(missing.argmax()) + 1}: missing; a context has to be "
                "known: fill it in, leave such rows out (--missing drop), or give what is missing "
                "an indicator (--missing model)"
            )
    n = table.num_rows
    test = int(_TEST * n)
    if not test:
        raise ValueError(f"test: {_TEST} of {n} rows is less than one row; expected 10 at least")
    columns, numbers = _cells(table)
    parts, distinct = deal_rows(columns, numbers, [n - 2 * test, test, test], seed, dealing)
    train, validation, held_out = parts

    def part(rows: torch.Tensor) -> TableSplit:
        chosen = table.take(rows.numpy())
        given = chosen.select(context_columns) if context_columns else None
        return TableSplit(chosen.select(list(schema.names)), given)

    return MixedTable(
        name,
        schema,
        part(torch.cat([train, validation])),
        part(held_out),
        dealing="values" if distinct else "rows",
        distinct=distinct,
        notes=notes,
    )


def _cells(table: pa.Table) -> tuple[list[Array], list[Array]]:
    """The columns as numbers, as a table of numbers would be read, and those of quantities."""
    columns, numbers = [], []
    for cells in table.columns:
        if is_number(cells.type):
            with np.errstate(over="ignore"):
                found = cells.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)
        else:
            if not pa.types.is_dictionary(cells.type):
                cells = cells.dictionary_encode()
            codes = cells.unify_dictionaries().combine_chunks()
            found = codes.indices.fill_null(-1).to_numpy()
        columns.append(found)
        if is_number(cells.type) or is_temporal(cells.type):
            numbers.append(found)
    return columns, numbers


def infer_schema(path: Path, schema: Path | None = None, missing: Missing | None = None) -> Schema:
    """Infers the schema of a table in a file, whatever values it misses.

    Args:
        path: The table.
        schema: A TOML file with what is known of the columns.
        missing: What becomes of missing values. If neither this nor the file says so, they are
            looked at, and the schema says "error".
    """
    told, known = _read_schema(schema)
    source = open_source(path)
    table = read_source(source, declared=known)
    said = missing or told
    with _naming(path):
        found = Schema.infer(table, said or "model", known)
    return found if said else replace(found, missing="error")


def _read_schema(path: Path | None) -> tuple[Missing | None, Mapping[str, Mapping[str, Any]]]:
    if path is None:
        return None, {}
    text = read_text(path)
    with _naming(path):
        return read_document(text)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says in an error which file it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
