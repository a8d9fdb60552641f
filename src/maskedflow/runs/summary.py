"""`results_summary.txt`: what a run is and how good it is, on one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from maskedflow.data.fingerprint import unknown

from .config import FlowConfig, versions
from .evaluation import Evaluation, Mean
from .run import Run

__all__ = ["facts", "results_table", "summary", "told_distinct"]

_FEW_COPIES = 0.99
"""The share of distinct rows from which on copies are few."""


def results_table(evaluation: Evaluation) -> str:
    """The test results of flow and Gaussian, a line each, with two standard errors.

    Example:
        >>> flow, gaussian = Mean(-2.0, 0.25), Mean(-4.0, 0.5)
        >>> print(results_table(Evaluation(flow, gaussian, None, None, 100, 2, 0.1)))
        test set               flow            full Gaussian
        log-likelihood         -2.00 ± 0.25    -4.00 ± 0.50     nats per example
        NLL                    2.00 ± 0.25     4.00 ± 0.50      nats per example
        NLL                    2.89 ± 0.36     5.77 ± 0.72      bits per example
        BPD                    1.44 ± 0.18     2.89 ± 0.36      bits per dimension
    """
    means = (evaluation.flow, evaluation.gaussian)
    bit = -1 / math.log(2)
    lags = evaluation.lags
    what, other = ("example", "full Gaussian") if lags is None else ("step", f"linear AR({lags})")
    rows = [
        ("test set", "flow", other, ""),
        result_row("log-likelihood", means, 1, f"nats per {what}"),
        result_row("NLL", means, -1, f"nats per {what}"),
        result_row("NLL", means, bit, f"bits per {what}"),
        result_row("BPD", means, bit / evaluation.features, "bits per dimension"),
    ]
    if evaluation.logit_flow is not None:
        logit = (evaluation.logit_flow, evaluation.logit_gaussian)
        rows.append(
            result_row("log-likelihood", logit, 1, "nats, in logit space as in the MAF paper")
        )
    return laid_out(rows)


def laid_out(rows: Sequence[tuple[str, str, str, str]]) -> str:
    """Rows of a name, two results and a unit, as lines of a table."""
    wide = [max(len(row[i]) for row in rows) + 4 for i in (1, 2)]
    return "\n".join(f"{a:23}{b:{wide[0]}}{c:{wide[1]}}{d}".rstrip() for a, b, c, d in rows)


def summary(run: Run, evaluation: Evaluation) -> str:
    """The text of `results_summary.txt`.

    Args:
        run: The run.
        evaluation: What came of it.
    """
    config = run.config
    data = config.data
    known = {
        **facts(run),
        "evaluation": f"{evaluation.rows:,} rows in {evaluation.seconds:.1f} s",
        "seen before": str(evaluation.seen or unknown()),
        "seed": config.training.seed,
        "versions": in_a_line(config.versions),
        "evaluated with": in_a_line(versions()),
    }
    lines = [run.name, "=" * len(run.name), "", results_table(evaluation), ""]
    lines += [
        "± is two standard errors of the mean over the test rows. Densities are of the data in"
    ]
    if data.time is not None:
        lines += ["their own units, of each step given those before it and the calendar."]
    else:
        lines += ["their own units" + (", given the context." if data.context_columns else ".")]
    lines += ["", *(f"{key:16}{value}" for key, value in known.items())]
    lines += ["", f"note: {config.flow.note}"] if config.flow.note else []
    return "\n".join(lines) + "\n"


def facts(run: Run) -> dict[str, str]:
    """What a run is, in words: its data, its flow and its training."""
    config, data = run.config, run.config.data
    parameters = sum(p.numel() for p in run.flow.parameters())
    rows = "{:,} training, {:,} validation, {:,} test".format(*data.rows)
    return {
        "data": data.dataset or data.file or "",
        "rows": rows + told_distinct(sum(data.rows), data.distinct),
        "features": _list(data.columns),
        "context": _list(data.context_columns) if data.context_columns else "none",
        "preprocessing": ", ".join(p["kind"] for p in config.flow.preprocessing) or "none",
        "flow": _flow(config.flow),
        "parameters": f"{parameters:,}",
        **_training(run.metrics),
    }


def told_distinct(rows: int, distinct: int | None) -> str:
    """What is said of copies among rows, nothing if there are few.

    Example:
        >>> told_distinct(2000, 560)
        ': 560 of 2,000 rows distinct, copies on one side'
    """
    if distinct is None or distinct > _FEW_COPIES * rows:
        return ""
    return f": {distinct:,} of {rows:,} rows distinct, copies on one side"


def result_row(
    name: str, means: tuple[Mean | None, ...], factor: float, unit: str
) -> tuple[str, str, str, str]:
    """A row of :func:`laid_out`: two means in another unit."""
    flow, gaussian = (_text(None if mean is None else mean.scaled(factor)) for mean in means)
    return name, flow, gaussian, unit


def _text(mean: Mean | None) -> str:
    return "singular" if mean is None else str(mean)


def _flow(config: FlowConfig) -> str:
    """What the flow is made of."""
    told = config.arguments
    hidden = " x ".join(map(str, told.get("hidden_features", ())))
    parts = [
        *(
            f"{told[name]} {name}"
            for name in ("transforms", "components", "passes")
            if name in told
        ),
        f"{told['univariate']} maps" if "univariate" in told else "",
        f"hidden layers {hidden}" if hidden else "",
        "residual" if told.get("residual") else "",
        f"{told['degrees']} degrees" if "degrees" in told else "",
        *(f"{told[name]} {name}" for name in ("first", "between") if name in told),
        "batch norm" if told.get("batch_norm") else "",
        f"base {told['base']['name']}" if "base" in told else "",
    ]
    return ", ".join([config.name, *filter(None, parts)])


def _training(metrics: list[dict[str, Any]]) -> dict[str, str]:
    if not metrics:
        return {"training": "its log is gone"}
    losses = [record["validation_nll"] for record in metrics]
    best = min(range(len(losses)), key=lambda i: math.inf if losses[i] is None else losses[i])
    seconds = sum(record["seconds"] for record in metrics)
    return {
        "training": f"{len(metrics)} epochs, {metrics[-1]['step']:,} steps in {seconds:.1f} s",
        "best epoch": f"{metrics[best]['epoch']}, validation NLL {losses[best]:.4f} nats",
    }


def _list(names: tuple[str, ...]) -> str:
    shown = names if len(names) <= 10 else (*names[:4], "...", names[-1])
    return f"{len(names)}: {', '.join(shown)}"


def in_a_line(found: dict[str, str]) -> str:
    """Versions, in a line."""
    return ", ".join(f"{name} {number}" for name, number in found.items())
