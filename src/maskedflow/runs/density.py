"""A density that one can ask, whatever it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import pyarrow as pa
import torch
from torch import Tensor

from maskedflow.data import Seen, Split, Trace
from maskedflow.data.errors import check_errors
from maskedflow.data.split import columns_of
from maskedflow.data.windows import STEPS, stretches
from maskedflow.flows import Flow, Measured, TemporalMAF
from maskedflow.sources import Source
from maskedflow.sources.numbers import floats, numbers
from maskedflow.training import evaluate
from maskedflow.training.batches import weight_of
from maskedflow.training.randomness import noise_of, seed_noise
from maskedflow.transforms import LazyComposedTransform, LazyTransform, call_and_ladj

from .config import DataConfig, FlowConfig

__all__ = ["Density", "FlowDensity"]

ROWS = 1000
"""Rows computed at once."""

Rows = Any
"""Rows as a density takes them: a tensor of numbers, or an Arrow table of columns of every kind."""

Part = Any
"""Rows `x` with their `context`: :class:`~maskedflow.data.Split` or `TableSplit`."""


class Density(Protocol):
    """What can be asked of a fitted density, in nats and in the data's own units.

    A :class:`~maskedflow.tables.FittedTable` is one of Arrow tables, a :class:`FlowDensity` one of
    tensors. To write another, give it these members.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a density."""

    @property
    def context_columns(self) -> tuple[str, ...]:
        """The columns that it is conditional on."""

    @property
    def parameters(self) -> int:
        """The number of its parameters."""

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """The types in which these columns are read from a file."""

    def read(self, table: pa.Table, source: Source, start: int = 0) -> Part:
        """The rows, and their contexts, of a table that was read from a file."""

    def read_context(self, table: pa.Table, source: Source) -> Rows:
        """The contexts of a table that was read from a file."""

    def arrow(self, x: Rows, context: Rows | None = None) -> pa.Table:
        """Rows as a table to be written to a file, their contexts behind them."""

    def log_prob(
        self, x: Rows, context: Rows | None = None, *, start: int = 0, seed: int = 0
    ) -> Tensor:
        """Computes the log-density of each row, float64, shape (n,).

        Args:
            x: The rows.
            context: Their contexts.
            start: The number of rows before these, for errors.
            seed: Seed of the noise that values on a grid are filled with, where there is some.
        """

    def sample(self, n: int, context: Rows | None = None, *, seed: int) -> Rows:
        """Draws n rows, one for each context if there are contexts."""

    def possible(self, rows: Part) -> Part:
        """The rows that can be scored: those whose context could be when it was fitted."""

    def seen(self, x: Rows, context: Rows | None = None) -> Seen | None:
        """How many of some rows it was fitted to; None if that is not known."""


@dataclass(frozen=True, eq=False)
class FlowDensity:
    """The density of a flow over rows of numbers: a table's, images, or the steps of a series.

    Args:
        flow: The flow with its best weights, in evaluation mode and in the data's own units.
        config: How it is built.
        data: The rows that it was trained on.
        trace: What is remembered of the rows that it was trained on; None of an older run.
        measured: The density of rows with their errors; None if it was trained on none.
    """

    flow: Flow | TemporalMAF = field(repr=False)
    config: FlowConfig = field(repr=False)
    data: DataConfig = field(repr=False)
    trace: Trace | None = field(default=None, repr=False)
    measured: Measured | None = field(default=None, repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """A name for each feature."""
        return self.data.columns

    @property
    def context_columns(self) -> tuple[str, ...]:
        """A name for each context dimension, none for an unconditional flow."""
        return self.data.context_columns

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return sum(p.numel() for p in self.flow.parameters())

    @property
    def dtype(self) -> torch.dtype:
        """What rows and contexts have to be in: float64 where float32 would lose their digits."""
        return torch.float64 if self.config.wide else torch.float32

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The types in which its columns are read from a file: they are numbers."""
        return floats((*self.columns, *self.context_columns, *self.data.errors.values()))

    def read(self, table: pa.Table | pa.RecordBatch, source: Source, start: int = 0) -> Split:
        """The rows, and their contexts, of a table that was read from a file.

        Raises:
            ValueError: If a cell is no finite number; the message names file, column and row.
        """
        rows = numbers(table, tuple(self.types), source, start, self.dtype)
        errors = tuple(self.data.errors.values())
        check_errors(rows[:, rows.shape[1] - len(errors) :], errors, source, start)
        return self.split(rows)

    def read_context(self, table: pa.Table, source: Source) -> Tensor:
        """The contexts of a table that was read from a file."""
        return numbers(table, self.context_columns, source, 0, self.dtype)

    def arrow(self, x: Tensor, context: Tensor | None = None) -> pa.Table:
        """Rows as a table to be written to a file, their contexts behind them."""
        parts = [*x.unbind(1), *(() if context is None else context.unbind(1))]
        names = [*self.columns, *(() if context is None else self.context_columns)]
        return pa.Table.from_arrays([pa.array(part.numpy(force=True)) for part in parts], names)

    def split(self, rows: Tensor) -> Split:
        """Features, the context behind them, and errors last if there are some."""
        width = len(self.columns)
        return Split(rows[:, :width], rows[:, width:] if rows.shape[1] > width else None)

    @property
    def exact(self) -> FlowDensity:
        """The same density, of rows that come without errors."""
        return replace(self, data=replace(self.data, errors={}), measured=None)

    def of_rows(self, context: Tensor | None) -> Flow | TemporalMAF | Measured:
        """The density of rows as they come: as measured, if errors stand behind the context."""
        given = 0 if context is None else context.shape[1]
        exact = self.measured is None or given == len(self.context_columns)
        return self.flow if exact else cast(Measured, self.measured)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, *, start: int = 0, seed: int = 0
    ) -> Tensor:
        """Computes the log-density of each row, float64, shape (n,).

        Args:
            x: The rows, shape (n, features).
            context: Their contexts, shape (n, context), with errors behind them or without.
            start: The number of rows before these; it changes nothing here.
            seed: Seed of the noise that values on a grid are filled with.
        """
        return evaluate(self.of_rows(context), Split(x, context), ROWS, seed)

    def sample(self, n: int, context: Tensor | None = None, *, seed: int) -> Tensor:
        """Draws n rows, one for each context if there are some, as measured if with errors."""
        generator = torch.Generator(weight_of(self.flow).device)
        return self.draw(n, context, generator.manual_seed(seed))

    @torch.no_grad()
    def draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> Tensor:
        """The same, of the numbers of a generator on the flow's device."""
        if context is None:
            drawn: Tensor = self.flow().sample((n,), generator=generator)
        else:
            c = context.to(generator.device)
            drawn = self.of_rows(context)(c).sample((), generator=generator)
        drawn = drawn.cpu()
        levels = self.data.levels
        return drawn if levels is None else drawn.clamp(0, levels - 1)

    def possible(self, rows: Split) -> Split:
        """All of the rows."""
        return rows

    def seen(self, x: Tensor, context: Tensor | None = None) -> Seen | None:
        """How many of some rows it was trained on; None if that is not known."""
        split, what = Split(x, context), "rows" if self.data.image_shape is None else "images"
        if self.trace is None:
            return None
        if self.data.window is not None:
            if len(split) < STEPS:
                return None
            split, what = stretches(split), f"stretches of {STEPS} steps"
        return self.trace.seen(columns_of(split), what)

    @property
    def front(self) -> LazyComposedTransform | None:
        """The preprocessing, if there is any."""
        steps = len(self.config.preprocessing)
        if not steps:
            return None
        chain = list(cast(LazyComposedTransform, self.flow.transform).transforms)
        return LazyComposedTransform(*cast(list[LazyTransform], chain[:steps]))


def preprocessed(
    front: LazyComposedTransform | None, split: Split, seed: int
) -> tuple[Tensor, Tensor]:
    """The rows as the first masked transform sees them, and the ladj of getting there.

    Args:
        front: The preprocessing; none if None.
        split: The rows.
        seed: Seed of the dequantization noise.
    """
    if front is None:
        return split.x, torch.zeros(len(split), dtype=torch.float64)
    seed_noise(noise_of(front), seed)
    y, ladj = torch.empty(split.x.shape), torch.empty(len(split), dtype=torch.float64)
    device = next((buffer.device for buffer in front.buffers()), split.x.device)
    with torch.no_grad():
        for start in range(0, len(split), ROWS):
            rows = slice(start, start + ROWS)
            x = split.x[rows].to(device)
            x = x if x.dtype == torch.float64 else x.float()
            y[rows], ladj[rows] = call_and_ladj(front(), x)
    return y, ladj
