"""`results_summary.txt`: what a run is and how good it is, on one page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from maskedflow.data.fingerprint import unknown
from maskedflow.tables import FittedTable

from .config import DataConfig, FlowConfig, versions
from .evaluation import Evaluation, Mean
from .run import Run

__all__ = ["facts", "results_table", "summary", "told_distinct", "told_weights"]

_FEW_COPIES = 0.99
"""The share of distinct rows from which on copies are few."""


def results_table(evaluation: Evaluation) -> str:
    """The test results of the density and of something simpler, with two standard errors.

    Example:
        >>> flow, gaussian = Mean(-2.0, 0.25), Mean(-4.0, 0.5)
        >>> print(results_table(Evaluation(flow, gaussian, "full Gaussian", 100, 2, 0.1)))
        test set               flow            full Gaussian
        log-likelihood         -2.00 ± 0.25    -4.00 ± 0.50     nats per example
        NLL                    2.00 ± 0.25     4.00 ± 0.50      nats per example
        NLL                    2.89 ± 0.36     5.77 ± 0.72      bits per example
        BPD                    1.44 ± 0.18     2.89 ± 0.36      bits per dimension
    """
    means, what = (evaluation.density, evaluation.baseline), evaluation.unit
    bit = -1 / math.log(2)
    rows = [
        ("test set", "density" if what == "row" else "flow", evaluation.against, ""),
        _row("log-likelihood", means, 1, f"nats per {what}"),
        _row("NLL", means, -1, f"nats per {what}"),
        _row("NLL", means, bit, f"bits per {what}"),
    ]
    if evaluation.features is not None:
        rows.append(_row("BPD", means, bit / evaluation.features, "bits per dimension"))
    if evaluation.logit is not None:
        unit = "nats, in logit space as in the MAF paper"
        rows.append(_row("log-likelihood", evaluation.logit, 1, unit))
    wide = [max(len(row[i]) for row in rows) + 4 for i in (1, 2)]
    return "\n".join(f"{a:23}{b:{wide[0]}}{c:{wide[1]}}{d}".rstrip() for a, b, c, d in rows)


def summary(run: Run, evaluation: Evaluation) -> str:
    """The text of `results_summary.txt`.

    Args:
        run: The run.
        evaluation: What came of it.
    """
    config = run.config
    data, flow = config.data, config.flow
    evaluated = f"{evaluation.rows:,} rows in {evaluation.seconds:.1f} s"
    if evaluation.effective is not None:
        evaluated += f"; by their weights worth {evaluation.effective:,.1f}"
    if evaluation.unseen:
        evaluated += f"; {evaluation.unseen:,} left out, of an unseen context"
    known = {
        **facts(run),
        "evaluation": evaluated,
        "seen before": str(evaluation.seen or unknown()),
        "seed": data.seed if config.training is None else config.training.seed,
        "versions": _in_a_line(config.versions),
        "evaluated with": _in_a_line(versions()),
    }
    given = ", given the context." if data.context_columns else "."
    if flow is None:
        units = [
            "per unit of the",
            f"columns that have numbers, probabilities of the others{given}",
        ]
    elif data.time is not None:
        units = [
            "of the data in",
            "their own units, of each step given those before it and the calendar.",
        ]
    elif data.errors:
        units = [
            "of the data in",
            f"their own units, as they were measured, given their errors{given}",
        ]
    else:
        units = ["of the data in", f"their own units{given}"]
    lines = [run.name, "=" * len(run.name), "", results_table(evaluation), ""]
    lines += [f"± is two standard errors of the mean over the test rows. Densities are {units[0]}"]
    lines += [units[1], "", *(f"{key:16}{value}" for key, value in known.items())]
    if flow is None:
        lines += ["", str(cast(FittedTable, run.density).schema)]
    elif flow.note:
        lines += ["", f"note: {flow.note}"]
    return "\n".join(lines) + "\n"


def facts(run: Run) -> dict[str, str]:
    """What a run is, in words: its data, its density and how that was fitted."""
    config, data = run.config, run.config.data
    train, validation, test = data.rows
    shares = {"training": train, "validation": validation, "test": test}
    rows = ", ".join(f"{n:,} {what}" for what, n in shares.items() if n or config.flow)
    shared = {
        "data": data.dataset or data.file or "",
        "rows": rows + told_distinct(sum(data.rows), data.distinct),
        "features": _list(data.columns),
        "context": _list(data.context_columns) if data.context_columns else "none",
        **told_weights(data),
    }
    if data.errors:
        shared["errors"] = _list([f"{column} of {name}" for name, column in data.errors.items()])
    parameters = {"parameters": f"{run.density.parameters:,}"}
    if config.flow is not None:
        steps = ", ".join(p["kind"] for p in config.flow.preprocessing) or "none"
        flow = {"preprocessing": steps, "flow": _flow(config.flow)}
        return {**shared, **flow, **parameters, **_training(run.metrics)}
    assert config.search is not None
    search = config.search
    plans = cast(FittedTable, run.density).density.plan.get("members", ())
    members = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counted(plans).items())
    allowed = f"about {search.time_limit} s were allowed"
    if search.work is not None:  # which runs of early versions do not say
        allowed = f"for a work of {search.work:.3g}"
    return {
        **shared,
        "missing": search.missing,
        "flow": f"{search.flow}: {members or 'probabilities'}",
        **parameters,
        "fit": f"{search.seconds:.1f} s, {allowed}",
    }


def told_weights(data: DataConfig) -> dict[str, str]:
    """What is said of weights: the column, and the effective sample sizes; nothing of none."""
    if data.weights is None or data.effective is None:
        return {}
    parts = zip(data.effective, data.rows, ("training", "validation", "test"), strict=True)
    worth = ", ".join(f"{k:,.1f} of {n:,} {what} rows" for k, n, what in parts if n)
    return {"weights": f"{data.weights}; effective sample size {worth}"}


def counted(plans: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """What is stacked."""
    kinds = {"layers": "flow", "components": "mixture", "chain": "chain", "products": "kernel"}

    def kind(plan: Mapping[str, Any]) -> str:
        found = next((word for key, word in kinds.items() if plan.get(key)), "Gaussian")
        if found == "kernel" and plan["products"]["truncated"]:
            return "forest"
        independent = found == "Gaussian" and not plan["front"]["whiten"]
        return "set of margins" if independent else found

    return Counter(map(kind, plans))


def told_distinct(rows: int, distinct: int | None) -> str:
    """What is said of copies among rows, nothing if there are few.

    Example:
        >>> told_distinct(2000, 560)
        ': 560 of 2,000 rows distinct, copies on one side'
    """
    if distinct is None or distinct > _FEW_COPIES * rows:
        return ""
    return f": {distinct:,} of {rows:,} rows distinct, copies on one side"


def _row(
    name: str, means: tuple[Mean | None, ...], factor: float, unit: str
) -> tuple[str, str, str, str]:
    """A row of the results: two means in another unit."""
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
        *(f"{_listed(told[name])} {name}" for name in ("first", "between") if name in told),
        "batch norm" if told.get("batch_norm") else "",
        f"base {told['base']['name']}" if "base" in told else "",
    ]
    return ", ".join([config.name, *filter(None, parts)])


def _listed(names: str | list[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)


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


def _list(names: Sequence[str]) -> str:
    shown = names if len(names) <= 10 else (*names[:4], "...", names[-1])
    return f"{len(names)}: {', '.join(shown)}"


def _in_a_line(found: dict[str, str]) -> str:
    """Versions, in a line."""
    return ", ".join(f"{name} {number}" for name, number in found.items())
