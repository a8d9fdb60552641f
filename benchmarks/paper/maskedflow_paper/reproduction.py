"""Making a row of the MAF paper's tables: training it, measuring it once, writing it down."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskedflow import training
from maskedflow.data import Dataset, ImageDataset, Split, gaussian_log_likelihood
from maskedflow.files import blame, check, exclusive, parse_json, read_text, write_text
from maskedflow.flows import Flow, Symmetrized
from maskedflow.nn import MaskedLinear, MaskedMLP
from maskedflow.recipes import SHAPES, recipe
from maskedflow.runs import FlowDensity, Mean, Run, RunConfig, load_run, train_run
from maskedflow.runs.config import versions
from maskedflow.runs.density import preprocessed
from maskedflow.runs.record import config_of
from maskedflow.tables import stacking_weights
from maskedflow.training.device import Device
from maskedflow.transforms import Dequantize, LazyComposedTransform, LazyTransform

from .patches import patch_symmetries
from .rows import AVERAGED, CELLED, MIRRORED, MODELS, Published, Row

__all__ = ["mark", "markdown_table", "read_results", "reproduce"]


def reproduce(
    row: Row,
    dataset: Dataset,
    directory: Path,
    results: Path,
    *,
    cells: Dataset | None = None,
    seed: int = 0,
    device: Device = "cpu",
) -> dict[str, Any]:
    """Makes a row, going on with what an interrupted run has left, and writes its results.

    Everything is chosen on the validation rows; the test rows are read once, at the end. A row that
    is finished is not made again.

    Args:
        row: The row.
        dataset: Its data, with class labels if it is conditional.
        directory: Where runs are kept.
        results: Where results are kept: `results/<dataset>/<model>.json`.
        cells: The corners of the cells that the noise in `dataset` fills, for those rows that are
            trained on them.
        seed: Seed of every random draw.
        device: Where the flow is trained and measured, as of :func:`maskedflow.training.fit`.

    Returns:
        The results, as they are written.

    Raises:
        ValueError: If `directory` holds a run of other settings under this row's name, another
            process makes this row, or a stack finds no runs of other rows.
    """
    path = results / row.dataset / f"{row.name}.json"
    known = _read(path) if path.is_file() else None
    if known is not None and known["recipe"] == row.recipe and known["seed"] == seed:
        return known
    start = time.monotonic()
    rows = _Rows(dataset, cells)
    if row.model == "gaussian":
        logit, ladj = _gaussian(row, dataset)
        facts: dict[str, Any] = {"settings": {}, "epochs": 0}
    elif not row.flow:
        logit, ladj, facts = _stack(row, rows, directory)
    else:
        with exclusive(directory / _run_name(row)):
            run, facts = _train(row, rows.of(row), directory, seed, device)
            logit, ladj = _measure(run, row, rows.of(row))
            if rows.of(row) is cells:
                facts["at_the_noise_of_test_rows"] = _at_its_noise(run, dataset)
    mean = Mean.of(logit)
    result = {
        "dataset": row.dataset,
        "model": row.model,
        "conditional": row.conditional,
        "recipe": row.recipe,
        "test_log_likelihood": mean.value,
        "two_standard_errors": mean.error,
    }
    if isinstance(dataset, ImageDataset):
        result["bits_per_pixel"] = -Mean.of(logit + ladj).value / (dataset.features * math.log(2))
    published = row.published
    result |= {
        "published": None if published is None else asdict(published),
        "mark": mark(mean, published),
        "seed": seed,
        "rows": dataset.rows,
        "quirks": dict(row.quirks),
        **facts,
        "evaluation_seconds": round(time.monotonic() - start, 1),
        "versions": versions(),
    }
    write_text(path, json.dumps(result, indent=1) + "\n")
    return result


def mark(mean: Mean, published: Published | None) -> str:
    """How a result compares with the published one: beyond both error bars, or within them.

    Example:
        >>> mark(Mean(0.2, 0.01), Published(0.14, 0.01)), mark(Mean(0.13, 0.01), None)
        ('better', '')
    """
    if published is None:
        return ""
    difference, error = mean.value - published.value, mean.error + published.error
    if abs(difference) <= error:
        return "within the error bars"
    return "better" if difference > 0 else "worse"


def read_results(results: Path) -> list[dict[str, Any]]:
    """All results in a folder."""
    return [_read(path) for path in sorted(results.glob("*/*.json"))]


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path)
    with blame(path, "not a result of this row"):
        return check(dict[str, Any], parse_json(text))


def markdown_table(found: list[dict[str, Any]]) -> str:
    """Results as a Markdown table, ours beside the published ones.

    Example:
        >>> print(markdown_table([]))
        | data set | model | recipe | ours, nats | paper | | bits/pixel | epochs | minutes |
        |---|---|---|---|---|---|---|---|---|
    """
    lines = [
        "| data set | model | recipe | ours, nats | paper | | bits/pixel | epochs | minutes |",
        "|" + "---|" * 9,
    ]
    for one in found:
        published, bits = one["published"], one.get("bits_per_pixel")
        digits = 2 if one["two_standard_errors"] < 0.995 else 1
        cells = [
            one["dataset"],
            one["model"] + (", conditional" if one["conditional"] else ""),
            "" if one["model"] == "gaussian" else one["recipe"],
            f"{one['test_log_likelihood']:.{digits}f} ± {one['two_standard_errors']:.{digits}f}",
            "" if published is None else f"{published['value']:g} ± {published['error']:g}",
            one["mark"].removesuffix(" the error bars"),
            "" if bits is None else f"{bits:.2f}",
            str(one["epochs"] or ""),
            f"{one['training_seconds'] / 60:.0f}" if "training_seconds" in one else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


_DIRECT = ("activation", "between", "bins", "first")
"""What a row's shape hands to the constructor as it is."""


def _train(
    row: Row, dataset: Dataset, directory: Path, seed: int, device: Device
) -> tuple[Run, dict[str, Any]]:
    """Trains a row's flow, or goes on with its training."""
    settings = {**SHAPES, "num_layers": 5}
    settings |= {**recipe(row.flow).settings, **row.shape, **row.training, "seed": seed}
    settings |= {"flow": row.flow, "labels": row.conditional}
    direct = {name: row.shape[name] for name in _DIRECT if name in row.shape}
    direct |= {name: row.quirks[name] for name in ("univariate",) if name in row.quirks}
    config = config_of(dataset, settings, {"dataset": row.dataset}, **direct)
    config = replace(config, name=_run_name(row), options={})
    assert config.flow is not None
    assert config.training is not None
    place = directory / config.name
    if (place / "config.toml").is_file():
        then = RunConfig.read(place / "config.toml")
        if replace(then, versions=config.versions, level=None) != config:  # known since then
            raise ValueError(f"{place}: a run of other settings; move it, or name another --out")
    if (row.dataset, row.model) in MIRRORED:
        images = (dataset.train.x @ patch_symmetries().mT).flatten(0, 1)
        dataset = replace(dataset, train=Split(images))
    initialise = paper_initialisation if row.quirks.get("initialisation") == "normal" else None
    told: dict[str, Any] = {"initialise": initialise, "device": device}
    run, history = train_run(place, config, dataset, resume=True, progress=True, **told)
    return run, {
        "settings": {
            "flow": config.flow.name,
            **config.flow.arguments,
            **asdict(config.training),
        },
        "parameters": sum(parameter.numel() for parameter in run.flow.parameters()),
        "epochs": len(history.records),
        "best_epoch": history.best_epoch,
        "best_validation_log_likelihood": -history.best_validation_nll,
        "stopped_because": history.stopped_because,
        "training_seconds": round(sum(history.seconds), 1),
    }


def _run_name(row: Row) -> str:
    return f"{row.dataset}-{row.name}-{row.recipe}"


@dataclass(frozen=True)
class _Rows:
    """A data set, and the corners of the cells that its noise fills."""

    dataset: Dataset
    cells: Dataset | None

    def of(self, row: Row) -> Dataset:
        """What a row's flow is a density of."""
        if (row.dataset, row.model) not in CELLED:
            return self.dataset
        if self.cells is None:
            raise ValueError(f"cells: {row.dataset} {row.model} is trained on them; give them")
        return self.cells


def _stack(row: Row, rows: _Rows, directory: Path) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """A mixture of the flows of all rows that were made, weighed by the validation rows.

    Of flows that are given classes too, if the row is. Or that of `modern` alone, averaged over
    symmetries.
    """
    models = ("modern",) if row.model == "symmetrized" else MODELS
    others = [
        replace(row, model=model, conditional=conditional)
        for conditional in sorted({False, row.conditional})
        for model in models
    ]
    places = [(other, directory / _run_name(other)) for other in others]
    runs = [
        (other, load_run(place))
        for other, place in places
        if (place / "checkpoints" / "best.safetensors").is_file()
    ]
    if len(runs) < min(2, len(others)):
        needed = "modern" if row.model == "symmetrized" else "at least two rows"
        raise ValueError(
            f"{row.model}: expected {needed} of {row.dataset} made in {directory} before, "
            f"found {', '.join(other.name for other, _ in runs) or 'none'}"
        )
    judged, tested, ladj = [], [], torch.zeros(())
    for other, run in runs:
        dataset, as_here = rows.of(other), replace(row, conditional=other.conditional)
        judged.append(_log_density(run, as_here, dataset.validation, dataset.context_features))
        logit, ladj = _measure(run, as_here, dataset)
        tested.append(logit)
    weights = stacking_weights(torch.stack(judged, dim=1))
    logit = (torch.stack(tested, dim=1) + weights.log()).logsumexp(dim=1)
    names = [other.name for other, _ in runs]
    shares = dict(zip(names, (round(weight, 4) for weight in weights.tolist()), strict=True))
    return logit, ladj, {"settings": {"weights": shares}, "epochs": 0}


@torch.no_grad()
def paper_initialisation(flow: Flow, generator: torch.Generator) -> None:
    r"""Draws weights from :math:`N(0, 1) / \sqrt{n + 1}`, n a layer's inputs, as the paper did.

    Biases are zero, but those that parameterise mixtures, N(0, 1).
    """
    for network in (module for module in flow.modules() if isinstance(module, MaskedMLP)):
        for layer in (module for module in network.modules() if isinstance(module, MaskedLinear)):
            weight = torch.empty(layer.mask.shape).normal_(generator=generator)
            weight /= math.sqrt(layer.in_features + 1)
            layer.weight.copy_(layer.stairs.pack(weight))
            if layer.bias is not None:
                layer.bias.zero_()
        last = cast(MaskedLinear, network.layers[-1])
        if network.out_features > 2 * network.in_features:
            cast(nn.Parameter, last.bias).normal_(generator=generator)


def _measure(run: Run, row: Row, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The test log-densities where the paper measures them, and the ladj from the data to there."""
    test = dataset.test
    log_prob = _log_density(run, row, test, dataset.context_features)
    ladj = preprocessed(cast(FlowDensity, run.density).front, test, seed=0)[1]
    return log_prob - ladj, ladj


def _log_density(run: Run, row: Row, split: Split, classes: int) -> Tensor:
    """The log-densities of rows in their own units, of images under a flow that is given classes.

    There all classes are alike: none is told.
    """
    if not row.conditional:
        averaged = (row.dataset, row.model) in AVERAGED
        flow = Symmetrized(run.flow, patch_symmetries()) if averaged else run.flow
        return training.evaluate(flow, replace(split, context=None))
    each = [
        training.evaluate(run.flow, Split(split.x, label.expand(len(split), -1)))
        for label in torch.eye(classes)
    ]
    return torch.stack(each).logsumexp(dim=0) - math.log(classes)


def _at_its_noise(run: Run, dataset: Dataset) -> float:
    """The mean test log-density of a flow of cells at the noise that fills those of the rows."""
    flow = cast(Flow, run.flow)
    cells, *transforms = cast(LazyComposedTransform, flow.transform).transforms
    assert isinstance(cells, Dequantize)
    within = Flow(cast(list[LazyTransform], transforms), flow.base)
    return Mean.of(training.evaluate(within, dataset.test)).value


def _gaussian(row: Row, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The same of full-covariance Gaussians, one a class if the class is given."""
    front = dataset.preprocessing()
    train, _ = preprocessed(front, dataset.train, seed=1)
    test, ladj = preprocessed(front, dataset.test, seed=0)
    if not row.conditional:
        return gaussian_log_likelihood(train, test), ladj
    labels = cast(Tensor, dataset.train.context).argmax(dim=1)
    each = [
        gaussian_log_likelihood(train[labels == label], test)
        for label in range(dataset.context_features)
    ]
    return torch.stack(each).logsumexp(dim=0) - math.log(len(each)), ladj
