"""Rows that weigh differently: weights are exact, and only their ratios matter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from commands import SMALL, run, undrawn
from maskedflow.chain import Descent
from maskedflow.data import (
    Split,
    TableSplit,
    choose_kde,
    choose_mixture,
    conditional_gaussian,
    gaussian_log_likelihood,
    independent,
    open_streamed,
    open_table,
    write_table,
)
from maskedflow.data.split import effective, location_and_scale
from maskedflow.data.weighted_mixture import WeightedMixture
from maskedflow.flows import GMM, MAF, Flow
from maskedflow.report import Column, Evidence, Subject
from maskedflow.report.section import proportional
from maskedflow.report.sections.likelihood import Likelihoods
from maskedflow.runs import Mean, load_run
from maskedflow.runs.prepare import prepare
from maskedflow.training import History, TrainConfig, calibrate, evaluate, fit
from maskedflow.transforms import ActNorm, BatchNorm
from maskedflow.transforms.normalization import batch_weighs

CONFIG = TrainConfig(epochs=3, batch_size=1000, lr=1e-2)

N = 40
COUNTS = torch.randint(0, 4, (N,), generator=torch.Generator().manual_seed(1))
"""Whole weights, some of them 0."""


def rows(context: int = 0) -> Split:
    source = torch.Generator().manual_seed(0)
    x = 2 + torch.randn(N, 3, generator=source, dtype=torch.float64)
    c = torch.randn(N, context, generator=source, dtype=torch.float64) if context else None
    return Split(x, c)


def weighed(split: Split, weight: Tensor) -> Split:
    return Split(split.x, split.context, weight)


def repeated(split: Split) -> Split:
    """Each row as often as it counts."""
    return split[torch.arange(len(split)).repeat_interleave(COUNTS)]


def maf(context: int = 0, front: Any = None, **options: Any) -> Flow:
    source = torch.Generator().manual_seed(0)
    flow = MAF(3, context, transforms=2, hidden_features=(8,), generator=source, **options)
    steps = [] if front is None else [front]
    return Flow([*steps, *flow.transform.transforms], flow.base).double()


def trained(flow: Any, split: Split, config: TrainConfig = CONFIG) -> History:
    return fit(flow, split, split, config)


# -- a split ---------------------------------------------------------------------------------------


def test_means_moments_and_their_errors_are_those_of_repeated_rows() -> None:
    one, other = weighed(rows(2), COUNTS), repeated(rows(2))
    for name in ("moments", "context_moments"):
        for ours, theirs in zip(getattr(one, name), getattr(other, name), strict=True):
            torch.testing.assert_close(ours, theirs)
    values = rows().x[:, 0]
    assert one.mean(values) == pytest.approx(other.x[:, 0].mean().item(), rel=1e-12)
    values[COUNTS == 0] = -torch.inf  # a density may be 0 where no weight is
    assert math.isfinite(one.mean(values))
    assert one.effective == pytest.approx(COUNTS.sum() ** 2 / COUNTS.square().sum())
    assert effective(1e-200 * torch.rand(9, dtype=torch.float64)) <= 9
    assert (rows().effective, one[:3].weight.tolist()) == (N, COUNTS[:3].tolist())
    assert one.in_float32().weight is COUNTS


def test_the_error_of_a_weighted_mean() -> None:
    source = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 2000, 100, generator=source, dtype=torch.float64)
    found = [Mean.of(one, weight) for one, weight in zip(x, w.exp(), strict=True)]
    spread = torch.tensor([one.value for one in found]).std().item()
    told = torch.tensor([one.error for one in found]).square().mean().sqrt().item()
    assert told == pytest.approx(2 * spread, rel=0.05)
    alike = Mean.of(x[0], torch.full((100,), 0.3))
    assert alike.value == pytest.approx(Mean.of(x[0]).value)
    assert alike.error == pytest.approx(Mean.of(x[0]).error)
    assert math.isnan(Mean.of(x[0, :2], torch.tensor([1.0, 0.0])).error)


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.ones(3, 1), r"^weight: expected shape \(3,\), got \(3, 1\)$"),
        (
            torch.tensor([1.0, -1, 1]),
            r"^weight: expected finite numbers from 0, got -1.0 in row 1$",
        ),
        (torch.tensor([1.0, 1, math.nan]), r"got nan in row 2$"),
        (torch.tensor([math.inf, 1, 1]), r"got inf in row 0$"),
    ],
)
def test_bad_weights_are_refused(weight: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Split(torch.zeros(3, 2), weight=weight)


# -- training --------------------------------------------------------------------------------------


def test_none_may_train_on_weights_of_zero_alone() -> None:
    with pytest.raises(ValueError, match=r"^train\.weight: expected one above 0 at least, got 0"):
        trained(maf(), weighed(rows(), torch.zeros(N)))


FLOWS: dict[str, Callable[[], Flow]] = {
    "compiled": maf,
    "conditional": lambda: maf(2),
    "batch norm": lambda: maf(batch_norm=True),
    "act norm": lambda: maf(front=ActNorm(3)),
}


@pytest.mark.parametrize("name", FLOWS)
def test_whole_weights_train_as_repeated_rows(name: str) -> None:
    """In a step of all rows, whose loss, gradient and statistics are the same to rounding."""
    split, make = rows(2 if name == "conditional" else 0), FLOWS[name]
    one, other = make(), make()
    config = replace(CONFIG, epochs=1)
    ours = trained(one, weighed(split, 0.3 * COUNTS), config)
    theirs = trained(other, repeated(split), config)
    assert ours.train_nll == pytest.approx(theirs.train_nll, rel=1e-12)
    assert ours.validation_nll == pytest.approx(theirs.validation_nll, rel=1e-6)
    one, other = make().train(), make().train()
    found = []
    for flow, part in ((one, weighed(split, COUNTS.double())), (other, repeated(split))):
        with batch_weighs(part.weight):
            log_prob = flow(part.context).log_prob(part.x)
        (part.mass @ log_prob / part.mass.sum()).backward()
        found.append([p.grad for p in flow.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_mini_batches_weigh_alike_in_compiled_steps_and_through_torch() -> None:
    split = weighed(rows(2), torch.rand(N, generator=torch.Generator().manual_seed(2)))
    config = TrainConfig(epochs=2, batch_size=7, lr=1e-2)
    one, other = maf(2), maf(2)
    other.register_forward_pre_hook(lambda *_: None)  # so that its steps go through torch
    with mock.patch.object(Descent, "take", autospec=True, side_effect=Descent.take) as take:
        ours = trained(one, split, config)
        assert take.called
    theirs = trained(other, split, config)
    assert ours.train_nll == pytest.approx(theirs.train_nll, rel=1e-9)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("factor", [0.25, 3.7e5, 1e-30])
def test_only_ratios_of_weights_matter(factor: float) -> None:
    weight = torch.rand(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours, theirs = (trained(maf(), weighed(rows(), w)) for w in (weight, factor * weight))
    if factor == 0.25:  # which rounds nothing
        assert ours.validation_nll == theirs.validation_nll
    assert ours.validation_nll == pytest.approx(theirs.validation_nll, rel=1e-9)
    alike = trained(maf(), weighed(rows(), torch.full((N,), factor)))
    assert alike.train_nll == trained(maf(), rows()).train_nll


def test_batch_norms_know_weights() -> None:
    x, w = rows().x, COUNTS.double()
    mean = (w @ x) / w.sum()
    variance = (w @ (x - mean).square()) / w.sum()
    norm, act = BatchNorm(3).double(), ActNorm(3).double()
    with batch_weighs(w):
        norm()(x)
        act()(x)
    torch.testing.assert_close(norm.mean, mean)
    torch.testing.assert_close(norm.variance, variance)
    torch.testing.assert_close(act.loc.detach(), mean)
    torch.testing.assert_close(act.log_scale.detach(), 0.5 * variance.log())
    windows = x.view(10, 4, 3)  # steps of a window count as it does
    with batch_weighs(w[:10]):
        other = BatchNorm(3).double()
        other()(windows)
    moments = location_and_scale(x, w[:10].repeat_interleave(4))
    torch.testing.assert_close(other.mean, moments[0])
    flow = maf(batch_norm=True)
    calibrate(flow, weighed(rows(), w), batch_size=7)
    again = maf(batch_norm=True)
    calibrate(again, repeated(rows()))
    torch.testing.assert_close(evaluate(flow, rows()), evaluate(again, rows()))


# -- what densities start at, and are compared with ------------------------------------------------


def test_gaussians_are_fitted_to_weighted_moments() -> None:
    split, w = rows(2), COUNTS.double()
    x, c = split.x, split.context
    assert c is not None
    mean = (w @ x) / w.sum()
    covariance = ((w[:, None] * (x - mean)).T @ (x - mean)) / w.sum()
    wanted = multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(x.numpy())
    np.testing.assert_allclose(gaussian_log_likelihood(x, x, w).numpy(), wanted)
    other = repeated(split)
    assert other.context is not None
    found = conditional_gaussian((x, x), (c, c), w)
    again = conditional_gaussian((other.x, x), (other.context, c))
    assert found is not None
    assert again is not None
    torch.testing.assert_close(found, again)


def test_mixtures_and_kernels_are_those_of_repeated_rows() -> None:
    x, w = rows().x.numpy(), COUNTS.double().numpy()
    twice = repeated(rows()).x.numpy()
    kept = COUNTS.numpy() > 0
    one = WeightedMixture(1, 0.0).fit(x[kept], sample_weight=w[kept])
    np.testing.assert_allclose(one.means[0], twice.mean(0))
    np.testing.assert_allclose(one.covariances[0], np.cov(twice.T, bias=True))
    two = WeightedMixture(2, 1e-5).fit(x[kept], sample_weight=w[kept])
    assert np.average(two.score_samples(x), weights=w) > np.average(one.score_samples(x), weights=w)
    ours = choose_kde(x, x, (w, w)).score_samples(x)
    np.testing.assert_allclose(ours, choose_kde(twice, twice).score_samples(x), rtol=2e-3)
    assert choose_mixture(x, x, 0, (w, w)).name.startswith("mixture of")


def test_independent_columns_have_weighted_shares() -> None:
    import pyarrow as pa

    from maskedflow.columns import Column as Kind

    column = Kind("", "categorical", pa.string(), levels=("a", "b"))
    x = np.array([[0.0], [0.0], [1.0]])
    found = np.exp(independent([column], x, x[1:], np.array([1.0, 0.0, 1.0])))
    np.testing.assert_allclose(found, 0.5)


def test_components_start_at_weighted_clusters() -> None:
    x = torch.cat([torch.randn(50, 2) / 10 + 3 * k for k in range(2)])
    weight = torch.tensor([3.0, 1.0]).repeat_interleave(50)
    gmm = GMM(2, components=2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gmm.initialize(x, weight=weight, generator=torch.Generator().manual_seed(0))
    share = gmm.phi[0].softmax(0).sort().values
    torch.testing.assert_close(share.detach(), torch.tensor([0.25, 0.75]))


def test_rows_are_drawn_in_proportion() -> None:
    w = np.random.default_rng(0).exponential(size=1000)
    counts = sum(np.bincount(proportional(w, seed), minlength=1000) for seed in range(200)) / 200
    number = len(proportional(w, 0))
    assert number == round(effective(torch.from_numpy(w)))
    np.testing.assert_allclose(counts, number * w / w.sum(), atol=0.2)


def test_a_report_weighs_likelihoods_and_looks_at_rows_in_proportion() -> None:
    x, w = rows().x[:, :2].numpy(), COUNTS.double().numpy()
    subject = Subject("s", (Column("a"), Column("b")), lambda x: -x[:, 0], lambda n, _: x[:n])
    log_prob = -x[:, 0]
    evidence = Evidence(subject, x, x, x, log_prob, x, weights=(w, w, w))
    first, gaussian, *_ = Likelihoods.of(evidence).found
    assert first.nll == Mean.of(torch.from_numpy(-log_prob), torch.from_numpy(w))
    wanted = gaussian_log_likelihood(*2 * [torch.from_numpy(x)], torch.from_numpy(w))
    assert gaussian.nll.value == pytest.approx(-(w @ wanted.numpy()) / w.sum())
    assert len(evidence.data) == round(effective(COUNTS))
    assert (w[evidence.places] > 0).all()


# -- tables and the command line -------------------------------------------------------------------


def tilted(folder: Path, a: float = 0.8, n: int = 1000) -> Path:
    """A standard normal whose weights, exp(a x), make its first column N(a, 1)."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = folder / "tilted.csv"
    write_table(path, ["x", "y", "w"], [torch.cat([x, (a * x[:, :1]).exp()], dim=1)])
    return path


def test_a_table_is_opened_by_its_weights(tmp_path: Path) -> None:
    path = tilted(tmp_path, n=200)
    table = open_table(path, weights="w")
    assert table.columns == ("x", "y")
    assert table.train.weight is not None
    torch.testing.assert_close(
        table.train.weight.log() / 0.8, table.train.x[:, 0].double(), atol=1e-5, rtol=1e-4
    )
    for wrong, says in (("z", r"^weights: .* no column 'z'"), ("x", r"column 'x', row \d+: .* -")):
        with pytest.raises(ValueError, match=says):
            open_table(path, weights=wrong)
    with pytest.raises(ValueError, match=r"^context: 'w' says how much rows count"):
        open_table(path, weights="w", context=["w"])
    with pytest.raises(ValueError, match=r"^weights: .* stays on disk .* got 'w'"):
        open_streamed(path, weights="w")


def test_a_feature_varies_where_rows_count(tmp_path: Path) -> None:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    counts = (torch.arange(200) % 2).float()
    x[counts > 0, 1] = 3.0
    write_table(tmp_path / "t.csv", ["x", "y", "w"], [torch.hstack([x, counts[:, None]])])
    with pytest.raises(ValueError, match=r"column 'y' is constant \(3 in all \d+ training rows\)"):
        open_table(tmp_path / "t.csv", weights="w")


def test_weights_are_recorded_whatever_else_is_asked(tmp_path: Path) -> None:
    path = tilted(tmp_path, n=200)
    for more in ({}, {"flow": "maf"}, {"flow": "auto"}):
        table, config, _ = prepare({"data": path, "weights": "w", **more}, tmp_path / "t")
        assert config.data.weights == config.options["weights"] == "w"
        assert config.data.effective is not None
        assert config.data.effective[0] == pytest.approx(table.train.effective)


def test_the_rows_of_a_table_keep_their_weights() -> None:
    import pyarrow as pa

    split = TableSplit(pa.table({"a": [1, 2, 3]}), weight=torch.tensor([1.0, 2.0, 3.0]))
    kept = split.filter(np.array([True, False, True]))
    assert kept.weight is not None
    assert kept.weight.tolist() == [1.0, 3.0]
    assert kept.effective == pytest.approx(16 / 10)


@pytest.mark.parametrize(
    "options",
    [
        ["--flow", "maf", *SMALL],
        ["--flow", "gaussian", "--work", "0.2"],
        pytest.param(["--flow", "auto", "--work", "1"], marks=pytest.mark.slow),
    ],
)
def test_the_tilt_is_found_and_told(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tilted(tmp_path)
    out = tmp_path / "runs"
    with undrawn():
        assert run("train", "--data", path, "--weights", "w", *options, "--out", out) == 0
        assert "effective sample size" in capsys.readouterr().out
        folder = out / "tilted"
        found = load_run(folder)
        assert found.columns == ("x", "y")
        assert found.config.data.weights == "w"
        drawn: Any = found.density.sample(4000, seed=0)
        x = drawn[:, 0].numpy() if isinstance(drawn, Tensor) else drawn.column("x").to_numpy()
        assert x.mean() == pytest.approx(0.8, abs=0.15)
        assert x.std() == pytest.approx(1.0, abs=0.15)
        test = found.dataset().test
        assert test.weight is not None
        log_prob = found.density.log_prob(test.x)
        nll = -(test.weight @ log_prob) / test.weight.sum()
        told = f"effective sample size: {test.effective:,.1f} of 100 test rows"
        assert run("evaluate", folder) == 0
        output = capsys.readouterr().out
        assert told in output
        assert f"{nll:.2f} ±" in output
        assert "effective sample size" in (folder / "results_summary.txt").read_text()
        assert run("compare", folder, folder) == 0
        assert told in capsys.readouterr().out
        if options[1] == "auto":  # which takes longest
            assert run("report", folder) == 0
            assert told in capsys.readouterr().out
            page = (folder / "report.html").read_text()
            assert f"effective sample size is {round(test.effective)}" in page


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("-1", "a weight, 0 or more, found -1"),
        ("nan", "a missing value"),
        ("heavy", "found 'heavy'"),
    ],
)
def test_a_bad_weight_is_told_in_one_line(
    cell: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    lines = [f"{i % 7}.{i},{i % 5}.{i},1.5" for i in range(40)]
    lines[3] = f"3.5,2.5,{cell}"
    path.write_text("\n".join(["a,b,w", *lines]))
    for options in ([], ["--flow", "maf"], ["--flow", "auto"]):
        assert run("train", "--data", path, "--weights", "w", *options, "--out", tmp_path) == 2
        error = capsys.readouterr().err.strip()
        assert error.count("\n") == 0
        assert "column 'w', row 4: expected" in error
        assert says in error
        assert "--missing" not in error


def test_where_weights_cannot_be_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tilted(tmp_path, n=50)
    for options, says in (
        (["--data", path, "--stream"], "stays on disk (--stream), where no column of weights"),
        (["--data", path, "--time", "x"], "--weights w: expected --data FILE, no time series"),
        (["--dataset", "moons"], "--weights w: expected --data FILE"),
    ):
        assert run("train", *options, "--weights", "w", "--flow", "maf", "--out", tmp_path) == 2
        assert says in capsys.readouterr().err
