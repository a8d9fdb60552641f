"""What is known of a table: a column of every name, and what a missing value means."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from maskedflow.files import html_table
from maskedflow.sources.arrow_types import is_number, is_temporal, parsing_type

from .cells import is_missing, plain
from .column import KINDS, Arguments, Column
from .identifiers import are_names, are_numbered, is_unknown
from .kinds.fixed import Duplicate, Ignored
from .rows import Layout
from .toml import read_arguments, read_document, write_document

Bounds = Literal["inferred", "data"]
Missing = Literal["error", "drop", "model"]


@dataclass(frozen=True)
class Schema:
    """The columns of a table, and what is done about missing values.

    A schema prints as one line a column, with the reason. It is inferred from a table, and what it
    should know better is given by name:

    Args:
        columns: The columns, in order.
        missing: `"error"` refuses rows with missing values, `"drop"` fits without them, and
            `"model"` gives missingness of each column a probability.

    Raises:
        ValueError: If there is no column, a name is there twice, or `missing` is none of these.

    Example:
        >>> table = pa.table({"wind": [0.0, 90.0, 359.0], "kind": ["a", "b", "b"]})
        >>> schema = Schema.infer(table, overrides={"wind": {"kind": "angle", "period": 360}})
        >>> print(schema)
        wind  angle of period 360    declared
        kind  categorical, 2 levels  strings
        >>> Schema.from_toml(schema.to_toml()) == schema
        True
    """

    columns: tuple[Column, ...]
    missing: Missing = "error"

    def __post_init__(self) -> None:
        if self.missing not in get_args(Missing):
            raise ValueError(f"missing: expected 'error', 'drop' or 'model', got {self.missing!r}")
        if not self.columns:
            raise ValueError("columns: expected at least one")
        known: dict[str, Column] = {}
        for column in self.columns:
            if column.name in known:
                raise ValueError(f"columns: expected each name once, found {column.name!r} twice")
            known[column.name] = column
        for column in self.columns:
            if isinstance(column, Duplicate) and (
                column.of not in known or isinstance(known[column.of], Duplicate | Ignored)
            ):
                wanted = "expected a column that is no duplicate, and not left out"
                raise column.error(f"of: {wanted}, got {column.of!r}")

    def __str__(self) -> str:
        rows = [(column.name, column.summary, column.note) for column in self.columns]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(
            f"{name:<{widths[0]}}  {summary:<{widths[1]}}  {note}".rstrip()
            for name, summary, note in rows
        )

    def _repr_html_(self) -> str:
        """In a notebook: a line a column."""
        rows = [(column.name, column.summary, column.note) for column in self.columns]
        return html_table(("column", "kind", "reason"), rows)

    @classmethod
    def infer(
        cls,
        table: pa.Table,
        missing: Missing = "error",
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        bounds: Bounds = "inferred",
    ) -> Schema:
        """Tells a schema from a table.

        Angles are never inferred. Columns that only name the rows are left out.

        Args:
            table: The table; everything is told from all its rows.
            missing: What is done about missing values.
            overrides: For each column by name arguments of `Column` that are known, as in a file
                that `read_document` has read. The others are inferred.
            bounds: `"inferred"` bounds numbers only where that is obvious, `"data"` by the range
                of those in the table, or a tenth of the distance of neighbours beyond it where
                they are on no grid. All that is out of bounds has density 0.

        Raises:
            ValueError: If a column is of no known kind or contradicts what is given of it, a value
                is missing against `missing`, or there are no rows.
        """
        if bounds not in get_args(Bounds):
            raise ValueError(f"bounds: expected 'inferred' or 'data', got {bounds!r}")
        given = {name: read_arguments(name, known) for name, known in (overrides or {}).items()}
        for name in given:
            if name not in table.column_names:
                there = ", ".join(table.column_names)
                raise ValueError(f"schema: the table has no column {name!r}; it has {there}")
        if missing == "error":
            refuse_missing(table.drop_columns(ignored(given)))
        elif missing == "drop":
            table = table.filter(pa.array(complete(table, ignored(given))))
        if not table.num_rows:
            raise ValueError("expected rows to infer a schema from, found none without gaps")
        columns: dict[str, Column] = {}
        seen: dict[tuple[str, bytes], str] = {}
        for name in table.column_names:
            cells, known = table.column(name), given.get(name, {})
            if not {"kind", "levels"} & known.keys() and are_names(cells):
                columns[name] = _ignored(name, cells, "texts, all different: they name the rows")
                continue
            column = _infer_column(name, cells, known, bounds)
            if column.part is not None and "kind" not in known:
                first = seen.setdefault(_fingerprint(column, cells), name)
                if first != name:
                    note = "equal in all rows"
                    column = Column(name, "duplicate", cells.type, of=first, note=note)
            columns[name] = column
        numbered = [
            name
            for name, column in columns.items()
            if column.part == "values" and not given.get(name)
            if are_numbered(table.column(name))
        ]
        columns |= _numbered(table, columns, numbered)
        return cls(tuple(columns.values()), missing)

    def to_toml(self) -> str:
        """The schema as text that `from_toml` reads, and a person."""
        return write_document(self.columns, self.missing)

    @classmethod
    def from_toml(cls, text: str) -> Schema:
        """Reads what `to_toml` wrote. What is written by hand may leave much to `infer`.

        Raises:
            ValueError: If it is no such text, or a column is not complete.
        """
        missing, given = read_document(text)
        columns = []
        for name, arguments in given.items():
            for key in ("kind", "type"):
                if key not in arguments:
                    raise ValueError(f"column {name!r}: expected its {key}; or infer it from data")
            columns.append(_made({"name": name} | arguments))
        return cls(tuple(columns), missing or "error")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the columns that rows have to have: all that are not left out."""
        return tuple(one.name for one in self.columns if not isinstance(one, Ignored))

    @cached_property
    def coded(self) -> tuple[Column, ...]:
        """The columns that have a code, in the order of the codes."""
        return tuple(column for column in self.columns if column.has_code)

    @cached_property
    def valued(self) -> tuple[Column, ...]:
        """The columns that have a value, in the order of the values."""
        return tuple(column for column in self.columns if column.part == "values")

    @cached_property
    def angular(self) -> tuple[Column, ...]:
        """The columns that have an angle, in the order of the angles."""
        return tuple(column for column in self.columns if column.part == "angles")

    @property
    def free(self) -> tuple[Column, ...]:
        """The columns that the density is of."""
        return tuple(column for column in self.columns if column.part is not None)

    @property
    def fixed(self) -> tuple[Column, ...]:
        """The columns that are no part of the density: constants, duplicates, those left out."""
        return tuple(column for column in self.columns if column.part is None)

    @property
    def code_levels(self) -> tuple[int, ...]:
        """The number of levels of each code."""
        return tuple(column.code_levels for column in self.coded)

    @property
    def steps(self) -> tuple[float, ...]:
        """The width of the cells of each value, 0 if it is on no grid."""
        return tuple(column.width for column in self.valued)

    @cached_property
    def layout(self) -> Layout:
        """How the columns lie in `Rows`."""
        code = {column.name: i for i, column in enumerate(self.coded)}
        bounds = [column.bounds for column in self.valued]
        return Layout(
            levels=self.code_levels,
            value_state=tuple(code.get(column.name) for column in self.valued),
            angle_state=tuple(code.get(column.name) for column in self.angular),
            steps=self.steps,
            lows=tuple(low for low, _ in bounds),
            highs=tuple(high for _, high in bounds),
            log_units=sum(column.code_units[0] for column in self.free if not column.has_code),
            code_units=tuple(column.code_units for column in self.coded),
            origins=tuple(column.origin for column in self.valued),
            left_out=tuple(column.left_out for column in self.valued),
            edges=tuple(column.edge for column in self.valued),
        )

    @property
    def arrow_schema(self) -> pa.Schema:
        """The types to read these columns with from text, so that each block is parsed the same."""
        return pa.schema(
            (one.name, parsing_type(one.type)) for one in self.columns if one.name in self.needed
        )


def ignored(schema: Schema | Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """The names of the columns that a schema, or what is known of one, leaves out.

    Example:
        >>> ignored({"id": {"kind": "ignore"}, "age": {"low": 0}})
        ['id']
    """
    if isinstance(schema, Schema):
        return [name for name in schema.names if name not in schema.needed]
    return [name for name, known in (schema or {}).items() if known.get("kind") == "ignore"]


def complete(table: pa.Table, but: Collection[str] = ()) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows have no missing value, `but` in columns that do not count."""
    rows = np.ones(table.num_rows, np.bool_)
    for name, cells in zip(table.column_names, table.columns, strict=True):
        if name not in but:
            rows &= ~is_missing(cells)
    return rows


def refuse_missing(table: pa.Table, start: int = 0) -> None:
    """Raises a ValueError that names the first missing value of the first column with one."""
    for name, cells in zip(table.column_names, table.columns, strict=True):
        missing = is_missing(cells)
        if missing.any():
            raise ValueError(
                f"column {name!r}, row {start + int(missing.argmax()) + 1}: missing "
                f"({int(missing.sum()):,} of {len(missing):,} values are); fill it in, or choose "
                "missing = 'drop' or 'model' (--missing on the command line); NaN is missing"
            )


def _infer_column(
    name: str, cells: pa.ChunkedArray, given: Mapping[str, Any], bounds: Bounds = "inferred"
) -> Column:
    """Tells what a column is from its cells and from arguments of `Column` that are known.

    The kind may also be given as `integer`: a grid of step 1.
    """
    missing = is_missing(cells)
    given = dict(given)
    if given.get("kind") == "integer":
        given = {"step": 1.0, **given, "kind": "discretised"}
    elif "kind" not in given and (kind := _kind_by_arguments(given, cells.type)):
        given["kind"] = kind
    if not is_temporal(cells.type):
        Column.plain({"name": name} | given)
    if missing.all() and not ("kind" in given and "type" in given):  # nothing tells the rest
        return Column(name, "constant", cells.type, note="no row has a value")
    if "kind" in given:
        found = KINDS[given["kind"]].infer(name, cells, given) or {}
        found["note"] = "declared"
    else:
        found = _guess(name, cells)
    if missing.any() and not missing.all():
        found["note"] += f"; {100 * missing.mean():.2g}% missing"
    found = {"name": name, "type": cells.type, "missing": bool(missing.any())} | found | given
    if KINDS[found["kind"]].part is None:
        found["missing"] = False
    column = _made(found)
    if bounds == "data" and column.part == "values":
        column = column.within_range(cells, given)
    if given and column.part is not None:
        _check(column, cells)
    return column


def _made(arguments: Arguments) -> Column:
    """The column of these arguments, whose bounds are written as its cells are."""
    return Column(**KINDS[arguments["kind"]].plain(arguments))


def _ignored(name: str, cells: pa.ChunkedArray, why: str) -> Column:
    return Column(name, "ignore", cells.type, note=f"{len(cells):,} {why}")


def _numbered(
    table: pa.Table, columns: Mapping[str, Column], names: Sequence[str]
) -> dict[str, Column]:
    """Of columns that may be the numbers of rows those that others know nothing of, left out."""
    others = [
        (one, one.as_numbers(table.column(one.name)))
        for one in columns.values()
        if names and one.part is not None and one.name not in names
    ]
    found: dict[str, Column] = {}
    for name in names:
        if others and is_unknown(columns[name].as_numbers(table.column(name)), others):
            why = "whole numbers, all different, of which no other column knows anything"
            for one in columns.values():
                if name in (one.name, one.of):
                    found[one.name] = _ignored(one.name, table.column(one.name), why)
    return found


def _kind_by_arguments(given: Arguments, dtype: pa.DataType) -> str | None:
    """The kind that has such arguments, if they tell."""
    if is_temporal(dtype) and {"low", "high", "step"} & given.keys():
        return "date"
    if "period" in given:
        return "angle"
    if "levels" in given:
        strings = any(isinstance(level, str) for level in given["levels"])
        return "categorical" if strings else "ordinal"
    if "high" in given:
        return "bounded"
    if "low" in given:
        return "positive"
    return "discretised" if given.get("step") else None


def _guess(name: str, cells: pa.ChunkedArray) -> Arguments:
    """What the first kind says that recognises these cells; those made last are asked first."""
    for kind in reversed(KINDS):
        if found := KINDS[kind].infer(name, cells, {}):
            return found
    raise ValueError(
        f"column {name!r}: expected numbers, strings, booleans or dates, found type {cells.type}; "
        "leave the column out"
    )


def _check(column: Column, cells: pa.ChunkedArray) -> None:
    """Refuses what its own cells contradict."""
    impossible = column.encode(pa.table({column.name: cells})).impossible
    if impossible.any():
        row = int(impossible.argmax())
        raise ValueError(
            f"column {column.name!r}, row {row + 1}: expected {column.summary}, "
            f"found {cells[row].as_py()!r}"
        )


def _fingerprint(column: Column, cells: pa.ChunkedArray) -> tuple[str, bytes]:
    """What two columns share exactly if they are the same in all rows."""
    values = plain(column.name, column.type, cells)
    kind = values.type if is_number(column.type) else column.type
    numbers = values.to_numpy()
    if numbers.dtype == object:
        numbers = "\0".join("\1" if text is None else text for text in numbers).encode()
    return str(kind), hashlib.blake2b(numbers).digest()
