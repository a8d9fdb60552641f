"""A density fitted to a table: what one can ask of it, and how it is kept in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import with_config
from torch import Tensor
from typing_extensions import TypedDict

from maskedflow.columns import (
    Rows,
    Schema,
    as_declared,
    complete,
    ignored,
    to_arrow,
    to_rows,
    to_table,
)
from maskedflow.columns.schema import Bounds, Missing
from maskedflow.data import Fingerprint, Seen, TableSplit, Trace
from maskedflow.data.split import Array
from maskedflow.files import CLOSED, blame, check, parse_json
from maskedflow.sources import Source
from maskedflow.training import checkpoint
from maskedflow.transforms import Standardize

from .contest import Tell
from .context import check_context, context_matrix, strange_context
from .density import TableDensity
from .plan import Plan, build_density, numbers_of
from .search import fit_density

SPREAD = 1e150
"""The widest range of numbers, and one over the narrowest, whose squares are floats."""

_SCALE = checkpoint.EXTRA + "context."
"""What the names of the context's tensors begin with in a file."""

_TURNS = 4096.0
"""Parts of a radian that angles are told apart by: single and double precision turn differently."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """What a density is conditional on: columns, and what standardises their numbers."""

    schema: Schema
    scale: Standardize = field(repr=False)

    @classmethod
    def fit(
        cls, table: pa.Table, missing: Missing, index: NDArray[np.int64]
    ) -> tuple[Conditions, Rows]:
        """Infers what the columns are, whose rows were at `index` before, for errors; its rows."""
        with _in_context():
            with _at(index):
                schema = Schema.infer(table, missing)
                rows = to_rows(schema, table)
            check_spread(schema, rows, index)
        loc, scale = [], []
        for values, observed in zip(rows.values.T, rows.observed.T, strict=True):
            known = values[observed]
            loc.append(float(known.mean()) if len(known) else 0.0)
            spread = float(known.std(correction=0)) if len(known) else 0.0
            scale.append(spread if spread > 0 else 1.0)
        moments = (torch.tensor(each, dtype=torch.float64) for each in (loc, scale))
        return cls(schema, Standardize(*moments)), rows

    def matrix(self, table: pa.Table, start: int = 0) -> Tensor | None:
        """One-hot vectors, sines and cosines, standardised numbers; None if all are constant."""
        with _in_context():
            c = context_matrix(self.schema, table, self.scale(), start)
        return c if c.shape[1] else None


@dataclass(frozen=True, eq=False)
class FittedTable:
    r"""The density of a table's rows, given a context or not, in the table's own units.

    Tables are Arrow's, with the columns of the schema by their names; densities are in nats.

    Args:
        schema: What the columns are.
        density: The density of their rows of numbers, in double precision.
        given: What it is conditional on; None if nothing.
        trace: Hashes by which rows that it was fitted to are known again; None if they are lost.

    Example:
        >>> table = pa.table({"x": np.random.default_rng(0).normal(size=100)})
        >>> fitted = FittedTable.fit(table, flow="gaussian")
        >>> fitted.log_prob(table).shape, fitted.sample(3, seed=0).column_names
        (torch.Size([100]), ['x'])
    """

    schema: Schema
    density: TableDensity = field(repr=False)
    given: Conditions | None = None
    trace: Trace | None = field(default=None, repr=False)

    @classmethod
    def fit(
        cls,
        x: pa.Table,
        context: pa.Table | None = None,
        *,
        schema: Schema | Mapping[str, Mapping[str, Any]] | None = None,
        missing: Missing = "error",
        bounds: Bounds = "inferred",
        weight: NDArray[np.float64] | None = None,
        flow: str = "auto",
        time_limit: float | None = None,
        work: float | None = None,
        seed: int = 0,
        tell: Tell | None = None,
        directory: Path | None = None,
    ) -> FittedTable:
        """Infers a schema and fits a density, as :class:`maskedflow.DensityEstimator` does.

        Of the rows of `x`, each given one of `context`, each counts as `weight` says, shape (n,).
        A whole schema says itself what becomes of missing values. Of the search `tell` is told,
        and `directory` keeps what it has fitted so far, as in :func:`fit_density`.

        Raises:
            ValueError: If a cell cannot be what its column is; the message names both.
        """
        if context is not None and context.num_rows != x.num_rows:
            raise ValueError(f"context: {context.num_rows} rows, expected {x.num_rows} as in X")
        missing = schema.missing if isinstance(schema, Schema) else missing
        weight = np.ones(x.num_rows) if weight is None else weight
        kept = weight > 0
        if missing == "drop":
            kept &= complete(x, ignored(schema))
            kept &= True if context is None else complete(context)
        index = kept.nonzero()[0]
        x = x.take(index)
        with _at(index):
            if not isinstance(schema, Schema):
                schema = Schema.infer(x, missing, schema, bounds)
            rows = to_rows(schema, x)
        check_spread(schema, rows, index)
        given = c = contexts = None
        if context is not None:
            context = context.take(index)
            given, contexts = Conditions.fit(context, missing, index)
            c = given.matrix(context)
        found = fit_density(
            schema.layout,
            rows,
            c,
            weight=torch.from_numpy(weight[index]),
            flow=flow,
            time_limit=time_limit,
            work=work,
            seed=seed,
            tell=tell,
            directory=directory,
        )
        # As it is built from a file: the same numbers in another memory layout round differently.
        fitted = cls(schema, _built(schema, found.plan, found.state_dict()), given)
        return replace(fitted, trace=Trace(Fingerprint.of(*fitted._identity(rows, contexts))))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a density."""
        return self.schema.needed

    @property
    def context_columns(self) -> tuple[str, ...]:
        """The columns that it is conditional on."""
        return () if self.given is None else self.given.schema.needed

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """What the columns are, and those of the context, if there are any."""
        return (self.schema,) if self.given is None else (self.schema, self.given.schema)

    @property
    def is_interrupted(self) -> bool:
        """Whether its search was interrupted, and it is the best that was found until then."""
        return bool(self.density.plan.get("interrupted", False))

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return sum(p.numel() for p in self.density.parameters())

    def encode(
        self, x: pa.Table, context: pa.Table | None = None, start: int = 0
    ) -> tuple[Rows, Tensor | None]:
        """The rows of a table as numbers, counted from `start`, and their contexts as a matrix.

        Raises:
            ValueError: If a cell cannot be what its column is; the message names both.
        """
        rows = to_rows(self.schema, x, start)
        return rows, self.condition(context, len(rows), start)

    def condition(self, context: pa.Table | None, rows: int, start: int = 0) -> Tensor | None:
        """So many contexts as a matrix; None if there are none, or all are constant."""
        if (context is None) != (self.given is None):
            got = "none" if context is None else "one"
            raise ValueError(f"context: got {got}, unlike in fit")
        if context is None or self.given is None:
            return None
        if context.num_rows != rows:
            raise ValueError(f"context: {context.num_rows} rows, expected {rows}")
        return self.given.matrix(context, start)

    @torch.no_grad()
    def log_prob(
        self, x: pa.Table, context: pa.Table | None = None, *, start: int = 0, seed: int = 0
    ) -> Tensor:
        """Computes the log-density of each row, float64, shape (n,).

        Minus infinity is that of a row which cannot be; where rows with missing values are dropped,
        theirs is NaN. Errors count rows from `start`. No noise is needed, whatever the seed.

        Raises:
            ValueError: If a cell cannot be what its column is; the message names both.
        """
        x, context, dropped = self.without_gaps(x, context)
        if dropped.all():
            return torch.full((len(dropped),), torch.nan, dtype=torch.float64)
        found: Tensor = self.density.log_prob(*self.encode(x, context, start))
        return found.masked_fill(torch.from_numpy(dropped), torch.nan)

    def without_gaps(
        self, x: pa.Table, context: pa.Table | None = None
    ) -> tuple[pa.Table, pa.Table | None, NDArray[np.bool_]]:
        """Rows and contexts, and which are dropped: others are in their places, so all keep theirs.

        None is, unless rows with missing values are dropped.
        """
        known = np.ones(x.num_rows, np.bool_)
        if self.schema.missing == "drop":
            known = complete(x, ignored(self.schema))
            known &= True if context is None else complete(context)
            filled = np.where(known, np.arange(x.num_rows), known.argmax())
            x, context = x.take(filled), None if context is None else context.take(filled)
        return x, context, ~known

    def sample(self, n: int, context: pa.Table | None = None, *, seed: int) -> pa.Table:
        """Draws n rows, one for each context if there are contexts, in the columns' own types."""
        generator = torch.Generator().manual_seed(seed)
        return to_table(self.schema, self.density.sample(n, self.condition(context, n), generator))

    def possible(self, rows: TableSplit) -> TableSplit:
        """The rows that can be scored: those whose context has categories that were there."""
        if self.given is None or rows.context is None:
            return rows
        return rows.filter(~strange_context(self.given.schema, rows.context))

    def seen(self, x: pa.Table, context: pa.Table | None = None) -> Seen | None:
        """How many of some rows it was fitted to; None if that is not known."""
        if self.trace is None:
            return None
        contexts = None
        if context is not None and self.given is not None:
            contexts = to_rows(self.given.schema, context, strict=False)
        columns, _ = self._identity(to_rows(self.schema, x), contexts)
        return self.trace.seen(columns)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The types to read each column in, those of the context too."""
        return {column.name: column.type for one in self.schemas for column in one.arrow_schema}

    def read(self, table: pa.Table, source: Source, start: int = 0) -> TableSplit:
        """The rows, and their contexts, of a table that was read from a file."""
        table = to_arrow(as_declared(source, table, self.schemas, start), wanted=list(self.types))
        x, given = (list(names) for names in (self.columns, self.context_columns))
        return TableSplit(table.select(x), table.select(given) if given else None)

    def read_some(self, table: pa.Table, source: Source, start: int = 0) -> TableSplit:
        """The same of rows that may miss columns, and cells whatever the schema says."""
        schemas = [replace(self.schema, missing="model"), *self.schemas[1:]]
        table = as_declared(source, table, schemas, start)
        table, given = to_arrow(table, wanted=table.column_names), list(self.context_columns)
        x = [name for name in self.columns if name in table.column_names]
        return TableSplit(table.select(x), table.select(given) if given else None)

    def read_context(self, table: pa.Table, source: Source) -> pa.Table:
        """The contexts of a table that was read from a file.

        Raises:
            ValueError: If a category was not there when this was fitted.
        """
        table = as_declared(source, table, self.schemas)
        try:
            table = to_arrow(table, "context", self.context_columns)
            if self.given is not None:
                check_context(self.given.schema, table)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from None
        return table

    def arrow(self, x: pa.Table, context: pa.Table | None = None) -> pa.Table:
        """Rows as a table to be written to a file, their contexts behind them."""
        return TableSplit(x, context).table

    def _identity(self, rows: Rows, contexts: Rows | None) -> tuple[list[Array], list[Array]]:
        """What makes a row, the same from all kinds of frames, and its quantities."""
        columns, numbers = list[Array](), list[Array]()
        for schema, some in zip(self.schemas, (rows, contexts), strict=False):
            if some is None:
                continue
            with np.errstate(over="ignore"):  # what is too large for float32 is all alike
                values = [
                    x if step else x.astype(np.float32)
                    for x, step in zip(some.values.numpy().T, schema.steps, strict=True)
                ]
            angles = list(np.rint(_TURNS * some.angles.numpy()).T)
            observed = [*some.observed.numpy().T, *some.angles_observed.numpy().T]
            columns += [*some.codes.numpy().T, *values, *angles, some.impossible.numpy()]
            pairs: Any = zip((*values, *angles), observed, strict=True)
            numbers += [np.where(there, x, np.nan) for x, there in pairs]
        return columns, numbers

    def __reduce__(self) -> tuple[Any, ...]:
        numbers = {name: value.numpy() for name, value in self.density.state_dict().items()}
        return _unpickled, (self.schema, self.density.plan, numbers, self.given, self.trace)

    def save(self, path: str | Path, face: Mapping[str, Any] | None = None) -> None:
        """Writes it, and what an estimator keeps beside it, to one safetensors file.

        It is written beside `path` first; missing folders are made.
        """
        header = {
            **(face or {}),
            "schema": self.schema.to_toml(),
            "context_schema": None if self.given is None else self.given.schema.to_toml(),
            "plan": self.density.plan,
            "trace": None if self.trace is None else self.trace.to_plain(),
        }
        tensors = dict(self.density.state_dict())
        if self.given is not None:
            scale = self.given.scale.state_dict()
            tensors |= {_SCALE + name: value for name, value in scale.items()}
        text = checkpoint.to_json({"estimator": header})
        checkpoint.write(path, tensors, {checkpoint.METADATA: text})

    @classmethod
    def load(cls, path: str | Path) -> FittedTable:
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is truncated, or not what :meth:`save` wrote.
        """
        return cls.load_with_face(path, dict[str, Any])[0]

    @classmethod
    def load_with_face(cls, path: str | Path, kind: Any) -> tuple[FittedTable, Any]:
        """The same, and what an estimator kept beside it, as `kind` of which it has to be."""
        path = Path(path)
        tensors, entries = checkpoint.read(path)
        with blame(path, "expected a saved DensityEstimator"):
            header = check(_Header, parse_json(entries[checkpoint.METADATA]))["estimator"]
            own = {key: header.pop(key) for key in _OWN if key in header}
            face = check(kind, header)
            kept = check(_Fitted, own)
            schema, context = Schema.from_toml(kept["schema"]), kept["context_schema"]
            given = None
            if context is not None:
                scale = (tensors[_SCALE + name] for name in ("loc", "scale"))
                given = Conditions(Schema.from_toml(context), Standardize(*scale))
            announced = numbers_of(schema.layout, kept["plan"])
            stored = sum(tensor.numel() for tensor in tensors.values())
            if announced > stored:
                wanted = f"of {announced:,} numbers at least"
                raise ValueError(f"plan: {wanted}, the file has {stored:,}")
            trace = Trace.from_plain(kept.get("trace"))
            density = build_density(schema.layout, kept["plan"])
        checkpoint.load_weights(path, density, tensors)
        return cls(schema, density.eval(), given, trace), face


@with_config(CLOSED)
class _Fitted(TypedDict):
    """What the header of a file says of the density; schemas are texts of their own."""

    schema: str
    context_schema: str | None
    plan: Plan
    trace: NotRequired[dict[str, Any] | None]


@with_config(CLOSED)
class _Header(TypedDict):
    estimator: dict[str, Any]


_OWN = tuple(_Fitted.__annotations__)


def _unpickled(
    schema: Schema,
    plan: dict[str, Any],
    numbers: Mapping[str, NDArray[Any]],
    given: Conditions | None,
    trace: Trace | None,
) -> FittedTable:
    state = {name: torch.from_numpy(np.array(value)) for name, value in numbers.items()}
    return FittedTable(schema, _built(schema, plan, state), given, trace)


def _built(schema: Schema, plan: Mapping[str, Any], state: Mapping[str, Tensor]) -> TableDensity:
    density = build_density(schema.layout, plan)
    density.load_state_dict(state)
    return density.eval()


def check_spread(schema: Schema, rows: Rows, index: NDArray[np.int64]) -> None:
    """Refuses numbers, of rows at `index` of a table, whose squares float64 cannot hold."""
    for column, x, observed in zip(
        schema.valued, rows.values.unbind(1), rows.observed.unbind(1), strict=True
    ):
        # Those with bounds are computed with on the real line, where they are near.
        if column.low is not None or column.high is not None or not observed.any():
            continue
        low, high = float(x[observed].min()), float(x[observed].max())
        if high - low > SPREAD:
            row = int(x.abs().argmax())
            raise ValueError(
                f"column {column.name!r}, row {index[row] + 1}: expected numbers less than "
                f"{SPREAD:g} apart, found {x[row]:g}; use another unit"
            )
        if 0 < high - low < 1 / SPREAD:
            raise column.error(
                f"expected numbers more than {1 / SPREAD:g} apart, found {low:g} to {high:g}; use "
                "another unit"
            )


@contextmanager
def _at(index: NDArray[np.int64]) -> Iterator[None]:
    """Says in an error at which place a row was before others were left out."""

    def before(row: re.Match[str]) -> str:
        return str(index[int(row[0]) - 1] + 1)

    try:
        yield
    except ValueError as error:
        raise ValueError(re.sub(r"(?<=['\"], row )\d+", before, str(error), count=1)) from None


@contextmanager
def _in_context() -> Iterator[None]:
    """Says in an error that it is about the context."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"context: {str(error).removeprefix('context: ')}") from None
