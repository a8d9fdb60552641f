"""What a run is, in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from maskedflow.tables import FittedTable

from .config import DataConfig, FlowConfig, RunConfig
from .density import Density

__all__ = ["facts", "told_distinct", "told_weights"]

_FEW_COPIES = 0.99
"""The share of distinct rows from which on copies are few."""


def facts(config: RunConfig, density: Density, metrics: list[dict[str, Any]]) -> dict[str, str]:
    """What a run is, in words: its data, its density and how that was fitted."""
    data = config.data
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
    parameters = {"parameters": f"{density.parameters:,}"}
    if config.flow is not None:
        steps = ", ".join(p["kind"] for p in config.flow.preprocessing) or "none"
        flow = {"preprocessing": steps, "flow": _flow(config.flow)}
        return {**shared, **flow, **parameters, **_training(metrics)}
    assert config.search is not None
    search = config.search
    plans = cast(FittedTable, density).density.plan.get("members", ())
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
