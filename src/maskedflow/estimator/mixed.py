"""A mixed table from a file: its schema, the rows to fit, and the rows held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from maskedflow.data import open_source
from maskedflow.data.table import roles
from maskedflow.tables import Schema, complete, read_document, read_source
from maskedflow.tables.cells import is_missing
from maskedflow.tables.schema import Missing

__all__ = ["MixedTable", "deal", "open_mixed", "tell_schema"]

_TEST = 0.1
"""The share of the rows that tests, as of a table of numbers."""


@dataclass(frozen=True)
class MixedTable:
    """A table with columns of every kind, its rows dealt at random.

    Args:
        schema: What is known of the columns, told from all rows.
        train: The rows to fit, those of the context with them.
        test: The rows held out.
        context_columns: The columns to condition on; the others are the schema's.
        undeclared: Those of the context of which something was declared: an estimator infers what
            its context is, and nothing else.
    """

    schema: Schema
    train: pa.Table
    test: pa.Table
    context_columns: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()

    def parts(self, rows: pa.Table) -> tuple[pa.Table, pa.Table | None]:
        """The columns that have a density, and those that it is conditional on, if any."""
        given = rows.select(list(self.context_columns)) if self.context_columns else None
        return rows.select(list(self.schema.names)), given


def open_mixed(
    path: Path,
    *,
    context: Sequence[str] = (),
    schema: Path | None = None,
    missing: Missing | None = None,
    seed: int = 0,
) -> MixedTable:
    """Reads a table, tells its schema, and holds a tenth of its rows out.

    Args:
        path: A `.csv` or `.parquet` file, or a folder of `.parquet` files.
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
    features, given = roles(source, context)
    table = read_source(source)
    told, known = _read_schema(schema)
    undeclared = tuple(name for name in given if name in known)
    known = {name: column for name, column in known.items() if name not in given}
    with _naming(path):
        found = Schema.infer(table.select(list(features)), missing or told or "error", known)
        return replace(deal(table, found, given, seed), undeclared=undeclared)


def deal(
    table: pa.Table, schema: Schema, context_columns: tuple[str, ...], seed: int
) -> MixedTable:
    """Deals rows as `maskedflow.data.open_table` does, whose validating rows are fitted too.

    Raises:
        ValueError: If rows are few, or a context misses values.
    """
    table = table.select([*schema.names, *context_columns])
    if schema.missing == "drop":
        table = table.filter(pa.array(complete(table)))
    for name in context_columns if schema.missing != "model" else ():
        missing = is_missing(table.column(name))
        if missing.any():
            raise ValueError(
                f"column {name!r}, row {int(missing.argmax()) + 1}: missing; a context has to be "
                "known: fill it in, leave such rows out (--missing drop), or give what is missing "
                "an indicator (--missing model)"
            )
    n = table.num_rows
    test = int(_TEST * n)
    if not test:
        raise ValueError(f"test: {_TEST} of {n} rows is less than one row; expected 10 at least")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return MixedTable(
        schema, table.take(order[: n - test]), table.take(order[n - test :]), context_columns
    )


def tell_schema(path: Path, schema: Path | None = None, missing: Missing | None = None) -> Schema:
    """Tells the schema of a table in a file, and does not mind missing values unless told to.

    Args:
        path: The table.
        schema: A TOML file with what is known of the columns.
        missing: What becomes of missing values. If neither this nor the file says so, they are
            looked at, and the schema says "error".
    """
    told, known = _read_schema(schema)
    table = read_source(open_source(path))
    said = missing or told
    with _naming(path):
        found = Schema.infer(table, said or "model", known)
    return found if said else replace(found, missing="error")


def _read_schema(path: Path | None) -> tuple[Missing | None, Mapping[str, Mapping[str, Any]]]:
    if path is None:
        return None, {}
    if not path.is_file():
        raise FileNotFoundError(f"schema: {path}: no such file")
    with _naming(path):
        return read_document(path.read_text("utf-8"))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says in an error which file it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
