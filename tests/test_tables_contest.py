"""The contest of kinds: what is in a stack, what it is worth, and how it ends."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import stats
from torch import Tensor

import maskedflow as mf
from maskedflow.tables import FittedTable, contest, flow_training
from maskedflow.tables.flow_training import FlowTraining


def staff(n: int, seed: int = 0) -> pd.DataFrame:
    """Pay in round numbers that depends on age and team, of which some is missing."""
    rng = np.random.default_rng(seed)
    team = rng.choice(["a", "b", "c"], n)
    age = rng.integers(20, 65, n)
    pay = np.exp(rng.normal(10 + 0.5 * (team == "a") + 0.01 * age, 0.3))
    step = np.where(rng.random(n) < 0.6, 1000, np.where(rng.random(n) < 0.7, 100, 1))
    pay = np.round(pay / step) * step
    height = rng.normal(170, 8, n) + 5 * (team == "b")
    height[rng.random(n) < 0.15] = np.nan
    return pd.DataFrame({"team": team, "age": age, "pay": pay.astype(int), "height": height})


def evenly(log_probs: Tensor, weight: Tensor | None = None) -> Tensor:
    """All kinds alike."""
    count = log_probs.shape[1]
    return torch.full((count,), 1 / count, dtype=torch.float64)


@pytest.fixture(scope="module")
def whole() -> tuple[mf.DensityEstimator, pd.DataFrame]:
    """An estimator in which every kind has a weight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest, "stacking_weights", evenly)
        table = staff(400)
        return mf.DensityEstimator(missing="model", work=20).fit(table), table


def test_every_kind_has_its_place(whole: tuple[mf.DensityEstimator, pd.DataFrame]) -> None:
    plans = whole[0].density_.plan["members"]
    assert "heaps" in whole[0].density_.plan
    assert sum("layers" in plan for plan in plans) > 1
    assert {plan["products"]["truncated"] for plan in plans if "products" in plan} == {True, False}
    assert any("chain" in plan for plan in plans)
    assert any(plan.get("tables") for plan in plans if "components" in plan)
    assert {"front": {"knots": plans[0]["front"]["knots"], "whiten": False}} in plans


def test_it_is_kept_in_a_file(
    whole: tuple[mf.DensityEstimator, pd.DataFrame], tmp_path: Any
) -> None:
    estimator, table = whole
    path = tmp_path / "t.safetensors"
    estimator.save(path)
    again = mf.DensityEstimator.load(path)
    rows = table[:40]
    assert np.array_equal(again.score_samples(rows), estimator.score_samples(rows))
    assert again.sample(5, random_state=0).equals(estimator.sample(5, random_state=0))
    assert estimator.score_samples(rows[7:8])[0] == estimator.score_samples(rows)[7]


@pytest.mark.slow
def test_probabilities_of_cells_are_one_in_all() -> None:
    x = pd.DataFrame({"pay": staff(400)["pay"] // 50 % 40 * 50, "team": staff(400)["team"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest, "stacking_weights", evenly)
        estimator = mf.DensityEstimator(work=2, schema={"pay": {"low": 0, "high": 2000}}).fit(x)
    every = itertools.product(range(2001), ["a", "b", "c"])
    cells = pd.DataFrame(every, columns=["pay", "team"])
    step = next(column.step for column in estimator.schema_.columns if column.name == "pay")
    total = np.exp(estimator.score_samples(cells)).sum() * step
    assert total == pytest.approx(1, abs=0.02)


def test_draws_are_as_round_as_the_rows(whole: tuple[mf.DensityEstimator, pd.DataFrame]) -> None:
    estimator, table = whole
    drawn = estimator.sample(4000, random_state=0)
    for step in (1000, 100):
        share = (table["pay"] % step == 0).mean()
        assert (drawn["pay"] % step == 0).mean() == pytest.approx(share, abs=0.06)
    assert drawn["height"].isna().mean() == pytest.approx(0.15, abs=0.06)
    assert drawn["age"].between(15, 70).all()


def test_residuals_of_its_own_draws_are_uniform(
    whole: tuple[mf.DensityEstimator, pd.DataFrame],
) -> None:
    estimator, _ = whole
    u = estimator.pit(estimator.sample(250, random_state=1))
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4


@pytest.mark.slow
def test_nothing_is_lost_to_independent_columns() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "price": rng.choice([99, 199, 250, 300, 499, 500, 999, 1000], 1200)
            + 1000 * rng.integers(0, 5, 1200),
            "size": np.round(rng.gamma(2, 20, 1200)) * 5,
            "kind": rng.choice(list("xyz"), 1200),
        }
    )
    train, test = table[:900], table[900:]
    estimator = mf.DensityEstimator(work=5).fit(train)
    total = np.zeros(len(test))
    for name in table:
        total += _frequencies(train[name], test[name])
    gaps = (
        estimator.score_samples(test)
        - total
        + sum(np.log(column.step) for column in estimator.schema_.valued)
    )
    assert gaps.mean() > -0.15


def _frequencies(train: Any, test: Any) -> Any:
    """The log-frequency of each value, half a row for one that was not there."""
    counts = train.value_counts()
    return np.log((test.map(counts).fillna(0).astype(float) + 0.5) / (len(train) + 50))


def test_an_interruption_ends_it_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: FlowTraining) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(FlowTraining, "turn", interrupt)
    table = mf.tables.to_arrow(staff(300).drop(columns="height"))
    fitted = FittedTable.fit(table, work=5)
    assert fitted.is_interrupted
    assert fitted.log_prob(table).isfinite().all()


def test_of_flows_that_take_much_to_build_the_smallest_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({name: rng.normal(size=100) for name in "abc"})
    monkeypatch.setattr(flow_training, "_SMALL", 0)

    def labels(building: float) -> list[str]:
        monkeypatch.setattr(flow_training, "_BUILDING", building)
        lines = list[str]()
        FittedTable.fit(table, work=2, tell=lambda share, line: lines.append(line))
        return [line.partition(":")[0] for line in lines if line.startswith("flow")]

    assert labels(4e-6) == ["flow margins sss"]
    assert labels(1.0) == []


def test_the_likeliest_flow_goes_on_though_none_has_a_weight_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As beside trees, which are done when flows have hardly begun."""

    def firstly(log_probs: Tensor, weight: Tensor | None = None) -> Tensor:
        return torch.eye(log_probs.shape[1], dtype=torch.float64)[0]

    monkeypatch.setattr(contest, "stacking_weights", firstly)
    x = np.random.default_rng(0).normal(size=(5_000, 2))
    x[:, 1] += x[:, 0] ** 2
    lines = list[str]()
    table = pa.table({"a": x[:, 0], "b": x[:, 1]})
    FittedTable.fit(table, work=4, tell=lambda share, line: lines.append(line))
    scores: dict[str, list[float]] = {}
    for line in lines:
        label, _, score = line.removesuffix(" nats").partition(": ")
        if label.startswith("flow"):
            scores.setdefault(label, []).append(float(score))
    best = max(scores, key=lambda label: scores[label][0])
    assert [label for label, found in scores.items() if len(found) > 1] == [best]


@pytest.mark.slow
def test_it_tells_how_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    shares, lines = list[float](), list[str]()
    table = mf.tables.to_arrow(staff(200).drop(columns="height"))
    FittedTable.fit(
        table, work=3, tell=lambda share, line: (shares.append(share), lines.append(line))
    )
    assert all(0 <= share <= 1 for share in shares)
    assert lines[0] == "categories"
    assert any(line.startswith("independent columns: -") for line in lines)
    mf.DensityEstimator(work=0.5, verbose=True).fit(staff(100).drop(columns="height"))
    assert "independent columns: -" in capsys.readouterr().out
