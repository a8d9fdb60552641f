"""Measuring a run on the rows of its table that were held out, beside something simpler."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from maskedflow.columns.column import VALUES
from maskedflow.data import Seen, gaussian_log_likelihood
from maskedflow.data.fingerprint import unknown
from maskedflow.report import independent
from maskedflow.runs import Mean
from maskedflow.runs.config import versions
from maskedflow.runs.summary import in_a_line, laid_out, result_row, told_distinct
from maskedflow.tables import Rows, Schema, to_rows

from .matrix import Side
from .mixed import MixedTable
from .report import column_of
from .run import TableRun

__all__ = [
    "TableEvaluation",
    "evaluate_table",
    "table_results",
    "table_summary",
]


@dataclass(frozen=True)
class TableEvaluation:
    """Mean log-likelihoods of the rows held out, in nats, in the table's own units.

    Args:
        estimator: That of the estimator.
        baseline: That of the simpler density; None if a covariance is singular.
        against: What the simpler density is.
        rows: The number of rows.
        unseen: The rows more that were left out, as their context was not there before.
        seconds: Wall time of the estimator's part.
        seen: How many of the rows the estimator was fitted to; None if that is not known.
    """

    estimator: Mean
    baseline: Mean | None
    against: str
    rows: int
    unseen: int
    seconds: float
    seen: Seen | None = None


def evaluate_table(run: TableRun, table: MixedTable) -> TableEvaluation:
    """Measures a run on the rows held out.

    Where all columns are numbers that are always there, one Gaussian with a full covariance stands
    beside it, given the context if there is one. Else it is
    :func:`~maskedflow.report.independent`.

    Raises:
        ValueError: If no row can be scored.
    """
    test = run.scorable(table.test)
    if not test.num_rows:
        raise ValueError(f"{run.name}: no row that was held out has a context that was there")
    start = time.monotonic()
    log_prob = torch.from_numpy(run.log_prob(test))
    seconds = time.monotonic() - start
    if all(map(_numeric, run.schemas)):
        against = "full Gaussian"
        baseline = _gaussian(run.schemas, table.train, test)
    else:
        against = "independent columns"
        baseline = _independent(run.schema, table.train, test)
    return TableEvaluation(
        estimator=Mean.of(log_prob),
        baseline=None if baseline is None else Mean.of(baseline),
        against=against,
        rows=len(log_prob),
        unseen=table.test.num_rows - test.num_rows,
        seconds=seconds,
        seen=run.seen(test),
    )


def _numeric(schema: Schema) -> bool:
    """Whether a row is a point of a space: all columns are numbers, always there, without atoms."""
    free = [column for column in schema.columns if column not in schema.fixed]
    return bool(free) and all(c.kind in VALUES and not c.has_code for c in free)


def _gaussian(schemas: tuple[Schema, ...], train: pa.Table, test: pa.Table) -> Tensor | None:
    """The log-density of a Gaussian given the context, None if it is singular."""
    parts = [[_middles(one, to_rows(one, rows)) for one in schemas] for rows in (train, test)]
    try:
        joint = gaussian_log_likelihood(*(torch.hstack(part) for part in parts))
        if len(schemas) == 1:
            return joint
        return joint - gaussian_log_likelihood(*(part[1] for part in parts))
    except ValueError:
        return None


def _middles(schema: Schema, rows: Rows) -> Tensor:
    """Numbers, and of those on a grid the middles of their cells."""
    return rows.values + torch.tensor(schema.steps, dtype=torch.float64) / 2


def _independent(schema: Schema, train: pa.Table, test: pa.Table) -> Tensor:
    """The log-density of rows whose columns have nothing to do with each other."""
    side = Side(schema)
    columns = tuple(map(column_of, side.known.columns))
    return torch.from_numpy(independent(columns, side.matrix(train), side.matrix(test)))


def table_results(evaluation: TableEvaluation) -> str:
    """The results, a line each, with two standard errors.

    Example:
        >>> found = TableEvaluation(Mean(-2.0, 0.25), Mean(-4.0, 0.5), "full Gaussian", 9, 0, 0.1)
        >>> print(table_results(found))
        test rows              estimator       full Gaussian
        log-likelihood         -2.00 ± 0.25    -4.00 ± 0.50     nats per row
        NLL                    2.00 ± 0.25     4.00 ± 0.50      nats per row
        NLL                    2.89 ± 0.36     5.77 ± 0.72      bits per row
    """
    means = (evaluation.estimator, evaluation.baseline)
    return laid_out(
        [
            ("test rows", "estimator", evaluation.against, ""),
            result_row("log-likelihood", means, 1, "nats per row"),
            result_row("NLL", means, -1, "nats per row"),
            result_row("NLL", means, -1 / math.log(2), "bits per row"),
        ]
    )


def table_summary(run: TableRun, evaluation: TableEvaluation) -> str:
    """The text of `results_summary.txt`.

    Args:
        run: The run.
        evaluation: What came of it.
    """
    options, (fitted, held_out) = run.config.options, run.config.rows
    context = ", ".join(run.context_columns)
    known = {
        "data": options["data"],
        "rows": f"{fitted:,} fitted, {held_out:,} test"
        + told_distinct(fitted + held_out, run.config.distinct),
        "columns": f"{len(run.columns):,}, below",
        "context": f"{len(run.context_columns)}: {context}" if context else "none",
        "missing": run.schema.missing,
        "flow": f"{options['flow']}: {_members(run) or 'probabilities'}",
        "parameters": f"{sum(p.numel() for p in run.estimator.density_.parameters()):,}",
        "fit": f"{run.config.seconds:.1f} s, {_allowed(options)}",
        "evaluation": f"{evaluation.rows:,} rows in {evaluation.seconds:.1f} s",
        "seen before": str(evaluation.seen or unknown()),
        "seed": options["seed"],
        "versions": in_a_line(run.config.versions),
        "evaluated with": in_a_line(versions()),
    }
    if evaluation.unseen:
        known["evaluation"] += f"; {evaluation.unseen:,} left out, of an unseen context"
    lines = [run.name, "=" * len(run.name), "", table_results(evaluation), ""]
    lines += [
        "± is two standard errors of the mean over the test rows. Densities are per unit of the",
        "columns that have numbers, probabilities of the others"
        + (", given the context." if context else "."),
        "",
    ]
    lines += [f"{key:16}{value}" for key, value in known.items()]
    return "\n".join([*lines, "", str(run.schema)]) + "\n"


def _members(run: TableRun) -> str:
    """What is stacked."""
    kinds = Counter(
        "flow" if "layers" in one else "mixture" if "components" in one else "Gaussian"
        for one in run.estimator.density_.plan.get("members", ())
    )
    return ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in kinds.items())


def _allowed(options: Mapping[str, Any]) -> str:
    """What the search was allowed: runs of earlier versions had a time limit alone."""
    if options.get("work") is None:
        return f"about {options['time_limit']:g} s were allowed"
    return f"for a work of {options['work']:.3g}"
