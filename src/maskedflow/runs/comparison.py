"""Runs on the same data, row by row beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from maskedflow import data
from maskedflow.data import Dataset, Seen

from .evaluation import Mean, scorable, score_test
from .run import Run

__all__ = ["Compared", "Likelihood", "compare_runs"]


FEW = 1000
"""Rows that are scored once before the clock runs."""


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of test rows under one of several densities.

    Args:
        name: Which; of a run its folder, of a class of rows the class.
        nll: The mean negative log-likelihood, in nats.
        bpd: The same in bits a feature.
        behind: How much larger the NLL is than that of the first density, row by row; None of that.
        fitted: The number of training rows.
        rows: The number of test rows.
    """

    name: str
    nll: Mean
    bpd: Mean
    behind: Mean | None
    fitted: int
    rows: int

    @classmethod
    def of(
        cls,
        name: str,
        features: int,
        log_prob: Tensor,
        first: Tensor | None = None,
        fitted: int = 0,
        weight: Tensor | None = None,
        **more: Any,
    ) -> Self:
        """That of rows with these log-densities, and weights, beside those of the first density."""
        nll = Mean.of(-log_prob, weight)
        bpd = nll.scaled(1 / (features * math.log(2)))
        behind = None if first is None else Mean.of(first - log_prob, weight)
        return cls(name, nll, bpd, behind, fitted, len(log_prob), **more)


@dataclass(frozen=True)
class Compared(Likelihood):
    """A run among others.

    Args:
        parameters: The number of its parameters.
        training: Seconds of its training; None if the log is gone.
        scoring: Seconds to score 1,000 test rows.
        seen: How many of the test rows it was trained on; None if that is not known.
        effective: The number of rows of equal weight that the test rows are worth; None if they
            have none.
    """

    parameters: int
    training: float | None
    scoring: float
    seen: Seen | None = None
    effective: float | None = None


def compare_runs(
    runs: Sequence[Run],
    dataset: Dataset | None = None,
    *,
    data_dir: Path | None = None,
    weights: str | None = None,
) -> list[Compared]:
    r"""Scores the same test rows with several runs, the best first.

    Differences are paired, :math:`d_i = \log p_{best}(x_i) - \log p(x_i)`: rows that are hard for
    one density are hard for all, so the mean of d is known far better than either NLL.

    Args:
        runs: The runs, at least two, of flows and of searches.
        dataset: The data of flows; each run loads its own if None.
        data_dir: Where data sets lie, if not where the runs found them.
        weights: The column that says how much each test row counts, if another than in training.

    Raises:
        ValueError: If there are fewer, they are of different data, or there are no test rows.
    """
    if len(runs) < 2:
        raise ValueError(f"runs: expected at least two to compare, got {len(runs)}")
    first = _rows(runs[0])
    for run in runs[1:]:
        for what, value in _rows(run).items():
            if value != first[what] and not (what == "weights" and weights):
                raise ValueError(
                    f"{run.directory}: its {what} is {_short(value)}, that of {runs[0].directory} "
                    f"is {_short(first[what])}; expected runs on the same data"
                )
    asked: dict[str, Any] = {"data_dir": data_dir, "weights": weights}
    found = [_compared(run, dataset, asked) for run in runs]
    (best, most, weight), *rest = sorted(found, key=lambda one: _nll(one[0]))
    return [best, *(replace(one, behind=Mean.of(most - x, weight)) for one, x, _ in rest)]


def _compared(
    run: Run, dataset: Dataset | None, asked: dict[str, Any]
) -> tuple[Compared, Tensor, Tensor | None]:
    """What is to be said of a run, and the log-likelihoods and weights of the test rows."""
    config = run.config
    own = run.dataset(**asked) if dataset is None or config.flow is None else dataset
    test = scorable(run, own)
    if config.data.window is None:
        few = test.context if test.context is None else test.context[:FEW]
        run.density.log_prob(test.x[:FEW], few)  # the first time is the slowest
    log_prob, seconds = score_test(run, own, test)
    trained = None if config.search is None else config.search.seconds
    if run.metrics:
        trained = sum(record["seconds"] for record in run.metrics)
    found = Compared.of(
        str(run.directory),
        len(run.columns),
        log_prob,
        fitted=config.data.rows[0],
        weight=test.weight,
        effective=None if test.weight is None else test.effective,
        parameters=run.density.parameters,
        training=trained,
        scoring=seconds / len(log_prob) * 1000,
        seen=run.density.seen(own.test.x, own.test.context),
    )
    return found, log_prob, test.weight


def _nll(one: Compared) -> float:
    return math.inf if math.isnan(one.nll.value) else one.nll.value


def _rows(run: Run) -> dict[str, Any]:
    """What tells which rows are held out, and what they hold."""
    source = run.config.data
    names = ("dataset", "file", "stream", "time", "dealing", "weights")
    told = {name: getattr(source, name) for name in names}
    if source.time is None and (source.dataset is None or data.describe(source.dataset).built_in):
        told["seed"] = source.seed
    train, validation, test = source.rows
    return {
        **told,
        "columns": sorted(source.columns),
        "context": sorted((*source.context_columns, *source.errors.values())),
        "rows": (train + validation, test),
    }


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
