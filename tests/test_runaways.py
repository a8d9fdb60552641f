"""Draws whose own log-density is far below all training rows: said, and left out on request."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

import maskedflow as mf
from commands import call
from maskedflow.distributions import DiagNormal, HighestDensity
from maskedflow.runs import RunConfig, draw_batches, level_of, load_run, sample_batches, sample_run
from maskedflow.runs.run import Run
from maskedflow.sources import Shard
from small_runs import gaussian, small_density, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("runs") / "g", gaussian(400))


def raised(run: Run) -> Run:
    """The same run with a level that half of its draws are below."""
    x = run.density.sample(1001, seed=5)
    return replace(run, config=replace(run.config, level=float(run.density.log_prob(x).median())))


def test_the_highest_density_of_a_gaussian_is_a_ball() -> None:
    """In two dimensions that of the radius r has 1 - exp(-r^2 / 2) of the probability."""
    radius = 1.5
    generator = torch.Generator().manual_seed(0)
    base = DiagNormal(torch.zeros(2), torch.ones(2))
    inner = HighestDensity(base, -math.log(2 * math.pi) - radius**2 / 2, generator=generator)
    mass = 1 - math.exp(-(radius**2) / 2)
    assert abs(float(inner.mass) - mass) < 1.5 * float(inner.error) < 0.02
    x = inner.sample((20, 500), generator)
    assert x.shape == (20, 500, 2)
    squares = x.square().sum(dim=-1)
    assert squares.max() <= radius**2
    # The square of the radius is exponential, cut off.
    expected = 2 - radius**2 * (1 - mass) / mass
    assert abs(float(squares.mean()) - expected) < 0.03
    log_prob = inner.log_prob(torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.2, 1.2]]))
    normal = -math.log(2 * math.pi) - torch.tensor([0.0, 1.0]) - inner.mass.log()
    torch.testing.assert_close(log_prob[:2], normal)
    assert log_prob[2] == -math.inf
    assert torch.equal(
        inner.sample((5,), generator.manual_seed(1)), inner.sample((5,), generator.manual_seed(1))
    )


def test_each_context_has_a_region_of_its_own() -> None:
    torch.manual_seed(0)
    flow = mf.flows.MAF(2, context=1, transforms=1)
    inner = HighestDensity(flow(torch.tensor([[-3.0], [0.0], [3.0]])), -2.5, draws=2000)
    assert inner.mass.shape == inner.error.shape == (3,)
    x = inner.sample((200,))
    assert x.shape == (200, 3, 2)
    assert (inner.base.log_prob(x) >= -2.5).all()
    torch.testing.assert_close(inner.log_prob(x), inner.base.log_prob(x) - inner.mass.log())


def test_a_level_that_nothing_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level: expected one that some draws reach, got 5"):
        HighestDensity(mf.flows.MAF(2)(), 5.0, draws=100)
    with pytest.raises(ValueError, match="draws: expected at least 1, got 0"):
        HighestDensity(mf.flows.MAF(2)(), -3.0, draws=0)
    with pytest.raises(ValueError, match=r"x: expected numbers, got NaN at index \[1\]"):
        HighestDensity(DiagNormal(torch.zeros(2), torch.ones(2)), -9.0).log_prob(
            torch.tensor([0.0, math.nan])
        )


def test_a_run_records_how_low_is_far_below_its_training_rows(run: Run) -> None:
    rows = gaussian(400).train
    log_prob = run.density.log_prob(rows.x)
    assert run.config.level == pytest.approx(float(2 * log_prob.min() - log_prob.median()))
    assert load_run(run.directory).config.level == run.config.level
    weighed = replace(rows, weight=(log_prob > log_prob.median()).double())
    assert level_of(run.density, weighed) > run.config.level


def test_draws_that_are_too_low_are_counted(run: Run) -> None:
    expected = torch.cat([x for x, _ in sample_batches(run.density, 1500, seed=3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = torch.cat([x for x, _ in draw_batches(run, 1500, seed=3)])
    assert torch.equal(drawn, expected)
    with pytest.warns(UserWarning, match=r"^\d+ of 1,500 draws have a log-density below") as told:
        drawn = torch.cat([x for x, _ in draw_batches(raised(run), 1500, seed=3)])
    assert torch.equal(drawn, expected)
    low = int((run.density.log_prob(drawn) < raised(run).config.level).sum())
    assert int(str(told[0].message).split()[0]) == low > 600


def test_within_puts_others_in_the_places_of_draws_that_are_too_low(run: Run) -> None:
    run = raised(run)
    drawn = [x for x, _ in sample_batches(run.density, 1500, seed=3)]
    with pytest.warns(UserWarning, match="divided by their probability") as told:
        kept = torch.cat([x for x, _ in draw_batches(run, 1500, seed=3, within=True)])
    assert (run.density.log_prob(kept) >= run.config.level).all()
    high = run.density.log_prob(torch.cat(drawn)) >= run.config.level
    assert torch.equal(kept[high], torch.cat(drawn)[high])
    share, error = map(float, re.findall(r"(0\.\d+)", str(told[0].message)))
    assert 0.01 < error < 0.03
    assert abs(share - 0.5) < 0.05

    def rows(shard: Shard | None = None) -> pa.Table:
        schema, batches = sample_run(run, 2500, seed=3, shard=shard, within=True)
        with pytest.warns(UserWarning, match="took their places"):
            return pa.Table.from_batches(batches, schema=schema)

    assert rows().equals(pa.concat_tables([rows(Shard(1, 2)), rows(Shard(2, 2))]))


def test_within_keeps_each_row_with_its_context(tmp_path: Path) -> None:
    run = trained(tmp_path / "g", gaussian(200, context=True))
    run = replace(run, density=replace(run.density, flow=shifted(run)))
    run = replace(run, config=replace(run.config, level=-2.5))
    context = torch.tensor([[-50.0], [0.0], [50.0]])
    with pytest.warns(UserWarning, match="took their places"):
        ((x, c),) = draw_batches(run, 100, context, within=True)
    assert torch.equal(c, context.repeat_interleave(100, dim=0))
    assert ((x.mean(dim=1) - c[:, 0]).abs() < 5).all()


def shifted(run: Run) -> mf.flows.Flow:
    """A flow that is N(c, 1) in both features."""
    flow = small_density(mf.flows.MAF(2, context=1, transforms=1, hidden_features=())).flow
    layer = flow.transform.transforms[0].hyper
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
        layer.context.weight.copy_(torch.tensor([[-1.0], [0.0], [-1.0], [0.0]]).flatten())
    return flow.eval()


def test_where_nothing_is_high_enough_within_says_so(run: Run) -> None:
    run = replace(run, config=replace(run.config, level=1e3))
    with pytest.raises(ValueError, match="within: 100 draws of a row had a log-density below 1000"):
        next(draw_batches(run, 2, within=True))


def test_an_older_run_opens_and_counts_nothing(run: Run, tmp_path: Path) -> None:
    older = replace(run.config, level=None)
    assert RunConfig.from_toml(older.to_toml()) == older
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(next(draw_batches(replace(run, config=older), 10))[0]) == 10
    with pytest.raises(FileNotFoundError, match=r"somewhere\.csv"):
        next(draw_batches(replace(run, config=older), 10, within=True))


def test_drawn_images_have_pixels_of_their_range(tmp_path: Path) -> None:
    run = trained(tmp_path / "digits", mf.data.load("digits"))
    raw = run.flow().sample((500,))
    assert raw.min() < 0
    x = run.density.sample(500, seed=0)
    assert x.min() == 0
    assert x.max() == 16
    assert run.density.log_prob(x).isfinite().all()


def test_the_command_says_it(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run.directory / "config.toml"
    whole = record.read_text("utf-8")
    raised(run).config.write(record)
    words = ("sample", run.directory, "-n", 200, "-o", tmp_path / "s.csv")
    try:
        code, _, err = call(capsys, *words)
        assert code == 0
        assert "of 200 draws have a log-density below" in err
        code, out, err = call(capsys, *words, "--within")
        assert code == 0
        assert out.startswith("200 rows in")
        assert "took their places" in err
        code, _, err = call(capsys, *words, "--within", "--given", tmp_path / "x.csv")
        assert code == 2
        assert "--within" in err
    finally:
        record.write_text(whole, "utf-8")
