"""The report of a table's density."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from maskedflow.columns import to_rows
from maskedflow.columns.column import Column as TableColumn
from maskedflow.data.mixed import names_noticed
from maskedflow.tables import FittedTable, column_maps
from maskedflow.tables.matrix import Matrix, Tables
from maskedflow.tables.queries import residuals

from .format import percent
from .page import Page, write_report
from .section import Column, Subject, Weight, chosen_rows

_WORK = 15.0
"""What the fit of the Gaussian beside an estimator may do."""
_SEED = 209652396
"""The seed of this fit: what an estimator of `random_state=0` draws."""
_RESIDUALS = 2000
"""Most rows of which residuals are taken, evenly from all."""


def table_report(
    fitted: FittedTable,
    X: Any,
    path: str | Path,
    context: Any = None,
    train: Any = None,
    train_context: Any = None,
    name: str = "table",
    weights: tuple[Weight, Weight] = (None, None),
) -> Page:
    """Writes a page about a fitted table; see :meth:`maskedflow.DensityEstimator.report`.

    The `weights` say how much each row of `train`, and of `X`, counts.
    """
    if (train is None) != (train_context is None) and context is not None:
        raise ValueError(
            "train_context: expected the context of the rows of train, with train only"
        )
    tables = Tables(fitted.schema, None if fitted.given is None else fitted.given.schema)
    test, notes, places = tables.rows(X, context, "X")
    weight = None if weights[1] is None else weights[1][places]
    before, places = np.zeros((0, test.shape[1])), np.arange(0)
    if train is not None:
        before, _, places = tables.rows(train, train_context, "train")
    # Every tenth row, of an order at random, chooses among baselines.
    order = np.random.default_rng(0).permutation(len(before))
    fits, chooses = order[len(order) // 10 :], order[: len(order) // 10]
    mass = None if weights[0] is None else weights[0][places]
    counts = (None, None) if mass is None else (mass[fits], mass[chooses])
    subject = _subject(fitted, tables, test, name, notes, weight)
    parts = before[fits], before[chooses], test
    return write_report(subject, *parts, path, weights=(*counts, weight))


def _subject(
    fitted: FittedTable,
    tables: Tables,
    test: Matrix,
    name: str,
    notes: dict[str, str],
    weight: Weight,
) -> Subject:
    given = () if tables.given is None else tables.given.known.columns
    columns = tuple(map(column_of, (*tables.main.known.columns, *given)))

    def log_prob(rows: Matrix) -> Matrix:
        return fitted.log_prob(*tables.split(rows)).numpy()

    def sample(n: int, generator: torch.Generator) -> Matrix:
        seed = int(torch.randint(2**31, (), generator=generator))
        if tables.given is None:
            return tables.main.matrix(fitted.sample(n, seed=seed))
        # Each is given what a test row is given.
        chosen = test[chosen_rows(n, len(test), weight, generator).numpy()]
        drawn = tables.main.matrix(fitted.sample(n, tables.split(chosen)[1], seed=seed))
        return np.hstack([drawn, chosen[:, drawn.shape[1] :]])

    def latent(rows: Matrix) -> Matrix:
        some = rows[:: -(-len(rows) // _RESIDUALS)]
        found: Matrix = norm.ppf(residuals(fitted, *tables.split(some), seed=0))
        return found

    mixed = bool(tables.main.schema.coded or tables.main.schema.angular)
    return Subject(
        name,
        columns,
        log_prob,
        sample,
        given=len(given),
        latent=latent,
        residuals=fitted.schema.names,
        unbounded=None if mixed else partial(_unbounded, tables),
        baselines={"Gaussian given the codes": partial(_gaussian, tables)} if mixed else {},
        notes=tuple({**notes, **_notes(fitted)}.items()),
        schema=[
            (column.name, column.summary, column.note)
            for schema in fitted.schemas
            for column in schema.columns
        ],
        seen=lambda rows: fitted.seen(*tables.split(rows)),
        fitted=None if fitted.trace is None else fitted.trace.train.rows,
    )


def _unbounded(tables: Tables, rows: Matrix, seed: int) -> tuple[Matrix, Matrix]:
    """Numbers spread over the cells of their grids and mapped to the real line."""
    layout = tables.main.known.layout
    table, _ = tables.split(rows)
    noise = np.random.default_rng(seed).random((len(rows), len(layout.steps)))
    x = to_rows(tables.main.schema, table).values + torch.from_numpy(noise * layout.steps)
    y, ladj = column_maps(layout)().call_and_ladj(x)
    return y.numpy(), ladj.numpy()


def _gaussian(tables: Tables, train: Matrix, test: Matrix, weight: Weight) -> Matrix:
    """The log-density of a Gaussian of the numbers whose mean depends on all codes."""
    schema = tables.main.schema
    simple = FittedTable.fit(
        *tables.split(train), schema=schema, weight=weight, flow="gaussian", work=_WORK, seed=_SEED
    )
    return simple.log_prob(*tables.split(test)).numpy()


# ---------------------------------------------------------------------------------------- columns


def column_of(column: TableColumn) -> Column:
    """A column as a page writes it."""
    return Column(
        column.name,
        tuple(map(_level, column.levels)),
        ordered=column.ordered,
        step=column.step,
        atoms=column.atoms,
        date=column.text,
    )


def _level(level: Any) -> str:
    if isinstance(level, bool):
        return str(level).lower()
    return f"{level:.10g}" if isinstance(level, float) else str(level)


# ------------------------------------------------------------------------------------------ notes


def _notes(fitted: FittedTable) -> dict[str, str]:
    schema = fitted.schema
    kinds = Counter(column.kind for column in schema.columns).most_common()
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds)
    words = {"columns": f"{len(schema.columns)}: {counted}"}
    if noticed := names_noticed(schema):
        words["identifiers"] = "; ".join(noticed)
    if schema.fixed:
        fixed = ", ".join(f"{column.name} ({column.summary})" for column in schema.fixed)
        words["no part of the density"] = fixed
    if any(column.missing for column in schema.columns) or schema.missing != "error":
        words["missing values"] = {
            "model": "have a probability",
            "drop": "rows with some are left out",
            "error": "there are none",
        }[schema.missing]
    if fitted.given is not None:
        words["conditional on"] = ", ".join(fitted.context_columns)
    parts = [
        f"{factor} of {count} {word}{'s' if count > 1 else ''}"
        for factor, count, word in (
            ("probability", len(schema.coded), "code"),
            ("density", len(schema.angular), "angle"),
            ("density", len(schema.valued), "number"),
        )
        if count
    ]
    words["density"] = " times ".join(parts)
    words["density"] += ", in nats a row, per unit of those columns that have a number in it"
    members = _members(fitted)
    if members:
        words["numbers"] = members
    words["parameters"] = f"{fitted.parameters:,}, and what was computed from the rows"
    return words


def _members(fitted: FittedTable) -> str:
    """What is in the stack, with its weight."""
    stack = fitted.density.weights
    plans = fitted.density.plan.get("members", [])
    if stack is None or not plans:
        return ""
    weights: Counter[str] = Counter()
    for plan, weight in zip(plans, stack.tolist(), strict=True):
        weights[_member(plan)] += weight
    found = [f"{percent(weight)} {word}" for word, weight in weights.most_common()]
    return found[0].removeprefix("100% ") if len(found) == 1 else "a stack of " + ", ".join(found)


def _member(plan: dict[str, Any]) -> str:
    front, layers = plan["front"], plan.get("layers", "")
    ways = ["margins made normal"] if front["knots"] else []
    ways += ["columns whitened"] if front["whiten"] else []
    behind = f" ({', '.join(ways)})" if ways else ""
    if plan.get("chain"):
        return "chain of boosted trees"
    if plan.get("products"):
        kind = "forest" if plan["products"]["truncated"] else "kernels"
        return f"{kind}{behind}"
    if plan.get("components"):
        return f"mixture of {plan['components']} Gaussians{behind}"
    if not layers:
        return f"Gaussian{behind}" if front["whiten"] else "independent columns"
    kinds = {"a": "affine", "s": "spline"}
    counts = Counter(kinds[letter] for letter in layers).items()
    return f"flows of {' and '.join(f'{n} {kind}' for kind, n in counts)} layers{behind}"
