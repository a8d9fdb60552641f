"""Runs on the same table beside each other, those of flows and those of estimators."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedflow.runs import Compared, Run, compare_runs
from maskedflow.runs.comparison import compared, compared_flow, rank

from .run import TableRun

__all__ = ["compare_any"]


def compare_any(runs: Sequence[Run | TableRun], data_dir: Path | None = None) -> list[Compared]:
    """Scores the same test rows with several runs, the best first, with paired differences.

    A flow and an estimator can be compared if both are of the same table of numbers: the same rows
    are held out then.

    Args:
        runs: The runs, at least two.
        data_dir: Where data sets lie, if not where the first run found them.

    Raises:
        ValueError: If there are fewer, they are of different data, or there are no test rows.
    """
    flows = [run for run in runs if isinstance(run, Run)]
    if len(flows) == len(runs) and flows:
        return compare_runs(flows, flows[0].dataset(data_dir=data_dir))
    if len(runs) < 2:
        raise ValueError(f"runs: expected at least two to compare, got {len(runs)}")
    first = _rows(runs[0])
    for run in runs[1:]:
        for what, value in _rows(run).items():
            if value != first[what]:
                raise ValueError(
                    f"{run.directory}: its {what} is {value}, that of {runs[0].directory} is "
                    f"{first[what]}; expected runs on the same rows"
                )
    found: list[tuple[Compared, Tensor]] = []
    for run in runs:
        if isinstance(run, Run):
            found.append(compared_flow(run, run.dataset()))
        else:
            found.append(_compared(run))
    return rank(found)


def _rows(run: Run | TableRun) -> dict[str, Any]:
    """What tells which rows are held out, and what they hold."""
    if isinstance(run, TableRun):
        options = run.config.options
        told = {"file": options["data"], "seed": options["seed"], "stream": False, "time": None}
        rows: tuple[int, ...] = run.config.rows
    else:
        data = run.config.data
        told = {"file": data.file, "seed": data.seed, "stream": data.stream, "time": data.time}
        rows = data.rows
    told["dealing"] = run.config.dealing if isinstance(run, TableRun) else run.config.data.dealing
    names = {"columns": sorted(run.columns), "context": sorted(run.context_columns)}
    return {**told, **names, "rows": sum(rows)}


def _compared(run: TableRun) -> tuple[Compared, Tensor]:
    test = run.table().test
    run.log_prob(test.slice(0, 1000))  # the first time is the slowest
    start = time.perf_counter()
    log_prob = torch.from_numpy(run.log_prob(test))
    seconds = time.perf_counter() - start
    density, trained = run.estimator.density_, run.config.seconds
    facts = compared(run.directory, len(run.columns), density, trained, log_prob, seconds)
    return replace(facts, seen=run.seen(test)), log_prob
