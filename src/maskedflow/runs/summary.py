"""`results_summary.txt`: what a run is and how good it is, on one page."""

from __future__ import annotations

import math
from typing import cast

from maskedflow.data.fingerprint import unknown
from maskedflow.tables import FittedTable

from .config import versions
from .evaluation import Evaluation, Mean
from .run import Run

__all__ = ["results_table", "summary"]


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
        **run.facts,
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


def _row(
    name: str, means: tuple[Mean | None, ...], factor: float, unit: str
) -> tuple[str, str, str, str]:
    """A row of the results: two means in another unit."""
    flow, gaussian = (_text(None if mean is None else mean.scaled(factor)) for mean in means)
    return name, flow, gaussian, unit


def _text(mean: Mean | None) -> str:
    return "singular" if mean is None else str(mean)


def _in_a_line(found: dict[str, str]) -> str:
    """Versions, in a line."""
    return ", ".join(f"{name} {number}" for name, number in found.items())
