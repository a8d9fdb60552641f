"""The report of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from maskedflow import data
from maskedflow.data import Dataset, ImageDataset, MixedTable, SeriesDataset, Split, TableSplit
from maskedflow.distributions import DiagNormal, NormalizingFlow
from maskedflow.runs import FlowDensity, Likelihood, Run, evaluate_run
from maskedflow.runs.density import preprocessed
from maskedflow.runs.measured import gaussian_baseline
from maskedflow.tables import FittedTable
from maskedflow.training.randomness import noise_of, seed_noise

from .of_table import table_report
from .page import Page, seen_facts, write_page, write_report
from .plots.figures import embed
from .plots.runs import series_picture
from .section import Baseline, Column, Image, Rows, Subject, Weight, chosen_rows
from .sections.data import Data
from .sections.likelihood import Likelihoods
from .sections.samples import Forecasts

BATCH = 1000
FORECASTS = 500


def run_report(
    run: Run,
    dataset: Dataset | MixedTable,
    test: Split | TableSplit | None = None,
    path: Path | None = None,
) -> Path:
    """Writes the report of a run.

    Args:
        run: The run.
        dataset: The rows it was fitted to.
        test: Other rows to judge it by than the data set's own; a time series takes none.
        path: Where to; `report.html` in the run's folder if None.

    Returns:
        The file.

    Raises:
        ValueError: If there are no rows to judge it by.
    """
    path, density = path or run.directory / "report.html", run.density
    train: Any = dataset.train
    judged: Any = test or dataset.test
    if isinstance(density, FittedTable):
        rows = density.possible(judged)
        given = rows.context, train.x, train.context
        counts = _weight(train), _weight(rows)
        table_report(density, rows.x, path, *given, run.name, counts)
    elif isinstance(dataset, SeriesDataset):
        write_page(_series_page(run, dataset), path)
    else:
        assert isinstance(density, FlowDensity)
        assert isinstance(dataset, Dataset)
        parts = train, dataset.validation, judged
        before, chosen, last = (_rows(run, x) for x in parts)
        weights = _weight(train), _weight(dataset.validation), _weight(judged)
        labels = None if test is not None else _labels(run, dataset)
        subject = _subject(run, density, judged)
        if dataset.errors:
            gaussian = _deconvolved(dataset, density)
            subject = replace(subject, errors=tuple(dataset.errors.values()), gaussian=gaussian)
        write_report(subject, before, chosen, last, path, labels=labels, weights=weights)
    return path


def finite(drawn: Rows) -> Rows:
    """The draws that are finite numbers: of a flow of many layers some may have run away.

    Raises:
        ValueError: If there is none.
    """
    found = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(found):
        raise ValueError(f"samples: expected finite numbers, got none in {len(drawn)} draws")
    return found


def _subject(run: Run, density: FlowDensity, test: Split) -> Subject:
    """A run's density, whose samples are given the contexts of test rows."""
    features = len(run.columns)
    columns = tuple(Column(name) for name in run.columns)
    levels: tuple[str, ...] = ()
    if run.config.data.labels:
        levels = tuple(map(str, range(len(run.context_columns))))
    if levels:
        columns += (Column("class", levels),)
    else:
        given = *run.context_columns, *run.config.data.errors.values()
        columns += tuple(map(Column, given))
    image = run.config.data.image_shape

    def split(rows: Rows) -> Split:
        given = rows[:, features:]
        if levels:
            given = np.eye(len(levels))[given[:, 0].astype(int)]
        parts = (np.ascontiguousarray(part) for part in (rows[:, :features], given))
        x, c = (torch.from_numpy(part).to(density.dtype) for part in parts)
        return Split(x, c if c.shape[1] else None)

    def log_prob(rows: Rows) -> NDArray[np.float64]:
        whole = split(rows)
        found: NDArray[np.float64] = density.log_prob(whole.x, whole.context).numpy()
        return found

    def sample(n: int, generator: torch.Generator) -> Rows:
        if test.context is None:
            return finite(density.draw(n, None, generator).numpy())
        c = test.context[chosen_rows(n, len(test), _weight(test), generator)]
        return finite(_rows(run, Split(density.draw(n, c, generator), c)))

    def latent(rows: Rows) -> NDArray[np.float64]:
        whole = split(rows)
        seed_noise(noise_of(run.flow), 0)
        with torch.no_grad():
            parts = (whole[start : start + BATCH] for start in range(0, len(rows), BATCH))
            found = [_normal(run.flow(part.context), part.x) for part in parts]
        return torch.cat([z for z in found if z is not None]).double().numpy()

    def unbounded(rows: Rows, seed: int) -> tuple[Rows, NDArray[np.float64]]:
        y, ladj = preprocessed(density.front, split(rows), seed)
        return y.numpy(), ladj.numpy()

    return Subject(
        run.name,
        columns,
        log_prob,
        sample,
        given=len(columns) - features,
        latent=latent if density.measured is None and _is_normal(density, test) else None,
        unbounded=None if image is None else unbounded,
        notes=tuple(run.facts.items()),
        history=run.metrics,
        image=None if image is None else Image(image, run.config.data.levels or 256),
        seen=lambda rows: density.seen(split(rows).x, split(rows).context),
        fitted=run.config.data.rows[0],
    )


def _deconvolved(dataset: Dataset, density: FlowDensity) -> tuple[str, Baseline]:
    """The Gaussian without errors beside rows that come with them."""

    def score(train: Rows, test: Rows, weight: Weight) -> Rows:
        fitted, judged = (density.split(torch.from_numpy(rows)) for rows in (train, test))
        mass = None if weight is None else torch.from_numpy(weight)
        fitted = replace(fitted, weight=mass)
        found: Rows = gaussian_baseline(replace(dataset, train=fitted), judged).numpy()
        return found

    return "deconvolved Gaussian", score


def _weight(rows: Split | TableSplit) -> Weight:
    return None if rows.weight is None else rows.weight.double().numpy()


def _normal(distribution: Distribution, x: Tensor) -> Tensor | None:
    """The standard normal numbers behind x; None if there are none."""
    while isinstance(distribution, NormalizingFlow):
        x, distribution = distribution.transform(x), distribution.base
    if not isinstance(distribution, DiagNormal) or x.ndim != 2:
        return None
    return (x - distribution.loc) / distribution.scale


def _is_normal(density: FlowDensity, test: Split) -> bool:
    c = None if test.context is None else test.context[:1]
    with torch.no_grad():
        return _normal(density.flow(c), test.x[:1].to(density.dtype)) is not None


def _rows(run: Run, split: Split) -> Rows:
    """Features and context side by side; of one-hot labels the class."""
    x: Rows = split.x.numpy()
    if split.context is None:
        return x
    c = split.context.argmax(1, keepdim=True) if run.config.data.labels else split.context
    return np.hstack([x, c.numpy().astype(x.dtype)])


def _labels(run: Run, dataset: Dataset) -> NDArray[np.int64] | None:
    """The class of each test image, which an unconditional run's data set leaves out."""
    source = run.config.data
    if not isinstance(dataset, ImageDataset) or source.dataset is None:
        return None
    context = dataset.test.context
    if context is None:
        again = data.load(source.dataset, source.data_dir, labels=True, seed=source.seed)
        context = again.test.context
    assert context is not None
    found: NDArray[np.int64] = context.argmax(1).numpy()
    return found


def _series_page(run: Run, dataset: SeriesDataset) -> Page:
    """The shorter page of a time series: its steps are no independent rows."""
    evaluation = evaluate_run(run, dataset)
    named = (run.name, evaluation.density), (evaluation.against, evaluation.baseline)
    steps, bit = run.config.data.rows[0], -1 / (len(run.columns) * np.log(2))
    found = [
        Likelihood(name, mean.scaled(-1), mean.scaled(bit), None, steps, evaluation.rows)
        for name, mean in named
        if mean is not None
    ]
    remarks = [] if len(found) == 2 else ["The regression is singular: no autoregression."]
    what = "forecasts of test steps as intervals around their median, beside what came"
    times = dataset.times[-len(dataset.test) :]
    figure = series_picture(run, dataset.test, FORECASTS, 0, times)
    sections = [
        Data(tuple(run.facts.items()), history=run.metrics, unit="step"),
        Likelihoods(found, remarks, unit="step"),
        Forecasts(embed(figure, f"{FORECASTS} {what}", dpi=140)),
    ]
    known = seen_facts(evaluation.seen, "steps")
    return Page(run.name, sections, "step", (len(dataset.test),) * 2, **known)
