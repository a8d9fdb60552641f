"""A mixed table from a file: its schema, the rows to fit, and the rows held out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from maskedflow.columns import Schema, complete, ignored, read_document, read_source
from maskedflow.columns.cells import is_missing
from maskedflow.columns.schema import Missing
from maskedflow.files import html_facts, read_text
from maskedflow.sources import Source, open_source
from maskedflow.sources.arrow_types import is_number, is_temporal
from maskedflow.sources.numbers import weights_of

from .dealing import Dealing, deal_rows
from .split import Array, effective
from .table import File

_TEST = 0.1
"""The share of the rows that tests, as of a table of numbers."""


@dataclass(frozen=True)
class TableSplit:
    """The rows of one part of a table: columns `x` that have a density, and its context, if any.

    Each counts as `weight` says, float64, shape (n,); all alike if None.
    """

    x: pa.Table
    context: pa.Table | None = None
    weight: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.x.num_rows)

    @property
    def effective(self) -> float:
        """The number of rows of equal weight that are worth as much."""
        return float(len(self)) if self.weight is None else effective(self.weight)

    @property
    def context_columns(self) -> tuple[str, ...]:
        """The names of the context's columns."""
        return () if self.context is None else tuple(self.context.column_names)

    @property
    def table(self) -> pa.Table:
        """All columns, those of the context last."""
        table = self.x
        if self.context is not None:
            for field, cells in zip(self.context.schema, self.context.columns, strict=True):
                table = table.append_column(field, cells)
        return table

    def filter(self, kept: NDArray[np.bool_]) -> TableSplit:
        """Some of the rows."""
        mask = pa.array(kept)
        return TableSplit(
            self.x.filter(mask),
            None if self.context is None else self.context.filter(mask),
            None if self.weight is None else self.weight[torch.from_numpy(kept)],
        )


@dataclass(frozen=True)
class MixedTable:
    """A table with columns of every kind, its rows dealt at random.

    The schema is told from all rows. Dealing is "values" if copies of a row went to one side, of
    which `distinct` is the number without copies, and "rows" if each was dealt by itself. Notes say
    what should be known before this table is modelled, a sentence each.
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
        return self.schema.needed

    @property
    def context_columns(self) -> tuple[str, ...]:
        """Those that it is conditional on."""
        return self.train.context_columns

    @property
    def rows(self) -> tuple[int, int, int]:
        """The number of training, validation and test rows; what validates is fitted, too."""
        return len(self.train), 0, len(self.test)

    def _repr_html_(self) -> str:
        """In a notebook: how many rows, and what each column is taken for."""
        facts = {
            "rows": f"{len(self.train):,} to fit, {len(self.test):,} to test",
            "context": ", ".join(self.context_columns),
            "notes": "; ".join(self.notes),
        }
        return html_facts(self.name, facts) + self.schema._repr_html_()


def open_mixed(
    path: File,
    *,
    table: pa.Table | None = None,
    context: Sequence[str] = (),
    weights: str | None = None,
    schema: Path | None = None,
    missing: Missing | None = None,
    seed: int = 0,
) -> MixedTable:
    """Reads a table, tells its schema, and holds a tenth of its rows out.

    Args:
        path: A file or a folder as :func:`open_source` takes it.
        table: Its columns, where they have been read already.
        context: The columns to condition on.
        weights: The column that says how much each row counts, as in
            :func:`maskedflow.data.open_table`.
        schema: A TOML file with what is known of the columns.
        missing: What becomes of missing values, whatever the schema says; "error" if neither does.
        seed: Which rows are held out: the same as of a table of numbers.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If one cannot be read, a cell cannot be what its column is, a context column is
            unknown, or rows are few.
    """
    source = open_source(path).weighed_by(weights)
    features, given = source.roles(context)
    told, known = _read_schema(schema)
    table = read_source(source, declared=known) if table is None else table
    notes = [
        f"--schema: what it says of {n!r} does not count in --context" for n in given if n in known
    ]
    known = {**_bounded(source), **known}
    known = {n: column for n, column in known.items() if n not in (*given, source.weights)}
    weight = weights_of(source, table)
    with _naming(source.path):
        whole = TableSplit(
            table.select(list(features)), table.select(list(given)) if given else None, weight
        )
        found = Schema.infer(whole.x, missing or told or "error", known)
        if not found.free:
            raise ValueError("all columns are constant or repeat another; expected some that vary")
        notes = [*source.notes, *notes, *names_noticed(found)]
        return deal_mixed(source.name, whole, found, seed, notes=tuple(notes))


def names_noticed(schema: Schema) -> list[str]:
    """Notes on columns that were not declared to be left out, and are."""
    return [
        f"{one.name} is left out: {one.note}; a kind in the schema (--schema) keeps it"
        for one in schema.columns
        if one.kind == "ignore" and not one.note.startswith("declared")
    ]


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
    context_columns = whole.context_columns
    left = set(ignored(schema)) & set(whole.table.column_names)  # a run does not read them again
    table, weight = whole.table.drop_columns(sorted(left)), whole.weight
    if schema.missing == "drop":
        kept = complete(table)
        table = table.filter(pa.array(kept))
        weight = None if weight is None else weight[torch.from_numpy(kept)]
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
        given = chosen.select(list(context_columns)) if context_columns else None
        counts = None if weight is None else weight[rows]
        return TableSplit(chosen.select(list(schema.needed)), given, counts)

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


def infer_schema(path: File, schema: Path | None = None, missing: Missing | None = None) -> Schema:
    """Infers the schema of a table in a file, whatever values it misses.

    Where neither `missing` nor `schema`, a TOML file with what is known of the columns, says what
    becomes of missing values, these are looked at, and the schema says "error".
    """
    told, known = _read_schema(schema)
    source = open_source(path)
    names = [name for name in source.names if name != source.weights]
    table = read_source(source, names, declared=known)
    known = {**_bounded(source), **known}
    said = missing or told
    with _naming(source.path):
        found = Schema.infer(table, said or "model", known)
    return found if said else replace(found, missing="error")


def _bounded(source: Source) -> dict[str, Mapping[str, Any]]:
    """What the file itself says of its columns: where they end."""
    return {
        name: {
            "note": "bounds of the prior, from the file",
            **{
                key: end
                for key, end in zip(("low", "high"), ends, strict=True)
                if math.isfinite(end)
            },
        }
        for name, ends in source.bounds.items()
    }


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
