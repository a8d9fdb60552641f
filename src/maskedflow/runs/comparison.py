"""Runs on the same data, row by row beside each other."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from maskedflow import data, training
from maskedflow.data import Dataset, Seen, Split

from .evaluation import Mean
from .run import Run
from .series import joined, score_series

__all__ = ["Compared", "compare_runs"]

_ROWS = 1000


@dataclass(frozen=True)
class Compared:
    """A run among others.

    Args:
        name: Its folder.
        nll: Its mean negative log-likelihood of the test rows, in nats.
        bpd: The same in bits a dimension.
        behind: How much larger its NLL is than that of the best run, row by row; None of that.
        parameters: The number of its parameters.
        training: Seconds of its training; None if the log is gone.
        scoring: Seconds to score 1,000 test rows.
        seen: How many of the test rows it was trained on; None if that is not known.
    """

    name: str
    nll: Mean
    bpd: Mean
    behind: Mean | None
    parameters: int
    training: float | None
    scoring: float
    seen: Seen | None = None


def compare_runs(runs: Sequence[Run], dataset: Dataset) -> list[Compared]:
    r"""Scores the same test rows with several runs, the best first.

    Differences are paired, :math:`d_i = \log p_{best}(x_i) - \log p(x_i)`: rows that are hard for
    one flow are hard for all, so the mean of d is known far better than either NLL.

    Args:
        runs: The runs, at least two.
        dataset: The data of the first.

    Raises:
        ValueError: If there are fewer, they are of different data, or there are no test rows.
    """
    if len(runs) < 2:
        raise ValueError(f"runs: expected at least two to compare, got {len(runs)}")
    if not len(dataset.test):
        raise ValueError(f"{dataset.name}: it has no test rows")
    for run in runs[1:]:
        _check_same(runs[0], run)
    return rank([compared_flow(run, dataset) for run in runs])


def compared_flow(run: Run, dataset: Dataset) -> tuple[Compared, Tensor]:
    """What is to be said of a run, and the log-likelihood of the test rows."""
    log_prob, seconds = score(run, dataset)
    training = sum(r["seconds"] for r in run.metrics) if run.metrics else None
    found = compared(run.directory, len(run.columns), run.flow, training, log_prob, seconds)
    return replace(found, seen=run.seen(dataset.test)), log_prob


def compared(
    directory: Path,
    features: int,
    density: nn.Module,
    training: float | None,
    log_prob: Tensor,
    seconds: float,
) -> Compared:
    """The same of any density that a folder holds."""
    nll = Mean.of(-log_prob)
    return Compared(
        name=str(directory),
        nll=nll,
        bpd=nll.scaled(1 / (features * math.log(2))),
        behind=None,
        parameters=sum(p.numel() for p in density.parameters()),
        training=training,
        scoring=seconds / len(log_prob) * 1000,
    )


def rank(found: list[tuple[Compared, Tensor]]) -> list[Compared]:
    """Runs and their log-likelihoods of the same rows, in order and with paired differences."""

    def nll(pair: tuple[Compared, Tensor]) -> float:
        value = pair[0].nll.value
        return math.inf if math.isnan(value) else value

    found = sorted(found, key=nll)
    (best, most), *rest = found
    return [best, *(replace(one, behind=Mean.of(most - other)) for one, other in rest)]


def score(run: Run, dataset: Dataset) -> tuple[Tensor, float]:
    """The log-likelihood of each test row, and the seconds that took."""
    window = run.config.data.window
    if window is not None:
        start = time.perf_counter()
        log_prob = score_series(run.flow, joined(dataset), window)
        share = len(dataset.test) / len(log_prob)
        return log_prob[-len(dataset.test) :], share * (time.perf_counter() - start)
    c = dataset.test.context
    few = Split(dataset.test.x[:_ROWS], None if c is None else c[:_ROWS])
    training.evaluate(run.flow, few, _ROWS)  # the first time is the slowest
    start = time.perf_counter()
    log_prob = training.evaluate(run.flow, dataset.test, _ROWS)
    return log_prob, time.perf_counter() - start


def _check_same(first: Run, other: Run) -> None:
    """Refuses runs whose test rows are not the same."""
    one, two = first.config.data, other.config.data
    names = ["dataset", "file", "columns", "context_columns", "rows", "time", "dealing"]
    if one.time is None and (one.dataset is None or data.describe(one.dataset).built_in):
        names.append("seed")  # which rows test
    for what in names:
        a, b = getattr(one, what), getattr(two, what)
        if a != b:
            raise ValueError(
                f"{other.directory}: its {what} is {_short(b)}, that of {first.directory} is "
                f"{_short(a)}; expected runs on the same data"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
