"""Questions to an estimator: some columns given others, residuals, tails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats
from sklearn.exceptions import NotFittedError

from maskedflow import DensityEstimator
from maskedflow.tables import Whiten

FACTOR = np.array([[1.0, 0.0, 0.0, 0.0], [0.8, 0.5, 0, 0], [-1, 0.3, 0.7, 0], [0.2, 1, -0.5, 2]])
GAUSSIAN = 2.0 + np.random.default_rng(0).normal(size=(3000, 4)) @ FACTOR.T


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worse proposal takes less time to find, and is as right."""
    monkeypatch.setattr("maskedflow.tables.marginal.REFERENCE", 2**12)


def mixed(n: int = 1500) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    city = rng.choice(["Bonn", "Oslo", "Rome"], n, p=[0.2, 0.3, 0.5])
    income = np.exp(rng.normal(size=n) + (city == "Oslo"))
    income[rng.random(n) < 0.2] = 0.0
    height = rng.normal(170, 10, n) + 5 * (city == "Rome")
    visits = rng.poisson(np.clip(height - 100, 5, None))
    height[rng.random(n) < 0.1] = np.nan
    wind = (90 + 40 * rng.normal(size=n) + 90 * (city == "Rome")) % 360
    table = {"income": income, "height": height, "wind": wind, "visits": visits, "city": city}
    return pd.DataFrame({**table, "unit": "cm", "town": city})


@pytest.fixture(scope="module")
def estimator() -> DensityEstimator:
    known = {"wind": {"kind": "angle", "period": 360}}
    made = DensityEstimator("gaussian", schema=known, missing="model", work=1)
    return made.fit(mixed())


@pytest.fixture(scope="module")
def gaussian() -> DensityEstimator:
    return DensityEstimator("gaussian").fit(GAUSSIAN)


# -- some columns given others --------------------------------------------------------------------


@pytest.mark.parametrize("given", [[0], [3, 1], [1, 2, 3]])
def test_conditionals_of_a_gaussian_are_the_analytic_ones(
    given: list[int], gaussian: DensityEstimator
) -> None:
    (whiten,) = (one for one in gaussian.density_.modules() if isinstance(one, Whiten))
    loc, factor = whiten.loc.numpy(), whiten.scale_tril.numpy()
    covariance = factor @ factor.T
    rest = [k for k in range(4) if k not in given]
    slopes = np.linalg.solve(covariance[np.ix_(given, given)], covariance[np.ix_(given, rest)]).T
    left = covariance[np.ix_(rest, rest)] - slopes @ covariance[np.ix_(given, rest)]
    x = GAUSSIAN[:40]
    residual = x[:, rest] - loc[rest] - (x[:, given] - loc[given]) @ slopes.T
    expected = stats.multivariate_normal(cov=left).logpdf(residual)
    found = gaussian.score_samples_given(x, given)
    assert (found.standard_error > 0).all()
    assert (found.standard_error < 0.03).all()
    z = (found.log_density - expected) / found.standard_error
    assert 0.6 < np.sqrt((z**2).mean()) < 1.4
    more = gaussian.score_samples_given(x, given, n_samples=4000)
    assert np.allclose(more.standard_error / found.standard_error, 0.5, atol=0.15)


def test_a_category_given_all_else_has_exact_probabilities(estimator: DensityEstimator) -> None:
    rows = mixed(20)
    total = np.zeros(20)
    joint = {}
    for city in ("Bonn", "Oslo", "Rome"):
        each = rows.assign(city=city, town=city)
        given = [name for name in rows.columns if name not in ("city", "town")]
        found = estimator.score_samples_given(each, given)
        assert (found.standard_error == 0).all()
        total += np.exp(found.log_density)
        joint[city] = (found.log_density, estimator.score_samples(each))
    assert np.allclose(total, 1)
    # Bayes' rule: the odds are those of the joint density.
    for part in (0, 1):
        odds = joint["Bonn"][part] - joint["Rome"][part]
        assert np.allclose(odds, joint["Bonn"][0] - joint["Rome"][0])


def test_conditionals_of_numbers_and_angles_integrate_to_one(estimator: DensityEstimator) -> None:
    """In the units of the columns, with what is missing or at an atom counted as a mass."""
    row = mixed(3).iloc[[2]]
    cases: dict[str, tuple[np.ndarray[Any, Any], list[float]]] = {
        "height": (np.linspace(100, 240, 281), [np.nan]),
        "income": (np.geomspace(1e-4, 1e4, 401), [0.0]),
        "wind": (np.linspace(0, 359, 360), []),
        "visits": (np.arange(0.0, 160.0), []),
    }
    for name, (values, masses) in cases.items():
        given = [one for one in row.columns if one != name]
        many = pd.concat([row] * (len(values) + len(masses)), ignore_index=True)
        many[name] = np.concatenate([values, masses])
        found = estimator.score_samples_given(many, given)
        density = np.exp(found.log_density)
        mass = density[len(values) :].sum()
        if name in ("wind", "visits"):
            mass += density.sum()
        else:
            mass += np.trapezoid(density[: len(values)], values)
        error = found.standard_error[0]
        assert (found.standard_error == error).all(), name  # one estimate for one condition
        assert 0 < error < 0.05, name
        assert abs(np.log(mass)) < 4 * error + 2e-3, name


def test_chains_of_conditionals_add_up(estimator: DensityEstimator) -> None:
    """p(a, b) = p(a) p(b | a): what is scored given nothing, and given all."""
    rows = mixed(25)
    nothing = estimator.score_samples_given(rows, [])
    assert np.array_equal(nothing.log_density, estimator.score_samples(rows))
    constant = estimator.score_samples_given(rows, ["unit"])
    assert np.array_equal(constant.log_density, nothing.log_density)
    for all_there in (list(rows.columns), [n for n in rows.columns if n not in ("unit", "city")]):
        found = estimator.score_samples_given(rows, all_there)
        assert (found.log_density == 0).all()
        assert (found.standard_error == 0).all()


def test_a_duplicate_is_as_good_as_what_it_repeats(estimator: DensityEstimator) -> None:
    rows = mixed(10)
    found = estimator.score_samples_given(rows, ["town", "height"], n_samples=300)
    for given in (["city", "height"], [4, 1], ["height", "unit", "city", "town"]):
        other = estimator.score_samples_given(rows, given, n_samples=300)
        assert np.array_equal(other.log_density, found.log_density)
        assert np.array_equal(other.standard_error, found.standard_error)


def test_rows_of_density_0_and_conditions_that_cannot_be(estimator: DensityEstimator) -> None:
    rows = mixed(4)
    rows.loc[1, "city"] = rows.loc[1, "town"] = "Paris"
    rows.loc[2, "town"] = "Oslo" if rows.loc[2, "city"] != "Oslo" else "Rome"
    rows.loc[3, "income"] = -1.0
    found = estimator.score_samples_given(rows, ["city"])
    assert np.isfinite(found.log_density[0])
    assert np.isnan(found.log_density[1])
    assert np.isnan(found.standard_error[1])
    assert (found.log_density[2:] == -np.inf).all()
    assert (found.standard_error[2:] == 0).all()
    assert np.isnan(estimator.pit(rows)[1:]).all()
    assert (estimator.tail_probability(rows, n_samples=50)[1:] == 0).all()


def test_what_cannot_be_trusted_is_told(estimator: DensityEstimator) -> None:
    rows = mixed(30)
    with pytest.warns(UserWarning, match=r"of 30 rows: the 20 draws .* worth fewer than 50"):
        estimator.score_samples_given(rows, ["height"], n_samples=20)


def test_a_row_has_the_same_answers_among_other_rows(estimator: DensityEstimator) -> None:
    rows = mixed(40)
    order = np.random.default_rng(1).permutation(40)
    given = ["visits", "city"]
    whole = estimator.score_samples_given(rows, given, n_samples=300)
    moved = estimator.score_samples_given(rows.iloc[order], given, n_samples=300)
    part = estimator.score_samples_given(rows[20:], given, n_samples=300)
    for one, other, some in zip(whole, moved, part, strict=True):
        assert np.array_equal(one[order], other)
        assert np.array_equal(one[20:], some)
    tail = estimator.tail_probability(rows, n_samples=300)
    assert np.array_equal(estimator.tail_probability(rows.iloc[order], n_samples=300), tail[order])
    assert np.array_equal(estimator.pit(rows)[:15], estimator.pit(rows[:15]), equal_nan=True)
    assert not np.array_equal(estimator.pit(rows), estimator.pit(rows, random_state=1))


def test_answers_depend_on_the_context() -> None:
    rng = np.random.default_rng(0)
    context = pd.DataFrame({"group": rng.choice(["a", "b"], 800), "t": rng.normal(size=800)})
    middle = np.where(context["group"] == "a", -5.0, 5.0) + context["t"]
    x = np.stack([middle + rng.normal(size=800), rng.normal(size=800)], axis=1)
    x[:, 1] += 0.5 * (x[:, 0] - middle)
    estimator = DensityEstimator("gaussian").fit(x, context=context)
    where, at = context[:50], x[:50]
    found = estimator.score_samples_given(at, [0], context=where)
    away = stats.norm(0.5 * (at[:, 0] - middle[:50]), 1).logpdf(at[:, 1])
    assert np.abs(found.log_density - away).mean() < 0.1
    assert (found.standard_error < 0.1).all()
    share = estimator.tail_probability(at, context=where)
    z = np.stack([at[:, 0] - middle[:50], away * 0], axis=1)
    z[:, 1] = at[:, 1] - 0.5 * z[:, 0]
    assert np.abs(share - stats.chi2(2).sf((z**2).sum(axis=1))).max() < 0.1
    order = np.arange(50)[::-1]
    moved = estimator.tail_probability(at[order], context=where.iloc[order])
    assert np.array_equal(moved, share[order])
    # Given another group's context, residuals are at an end.
    other = where.assign(group="b")
    assert (estimator.pit(at, context=other)[where["group"] == "a", 0] < 1e-3).all()


def test_mistakes_are_one_line(estimator: DensityEstimator) -> None:
    rows = mixed(3)
    for given, match in (
        (["ctiy"], "given: expected columns of X, got 'ctiy'"),
        ("city", "given: expected a list of columns, got the string 'city'"),
        ([7], r"given: expected places in 0\.\.6, got 7"),
    ):
        with pytest.raises(ValueError, match=match):
            estimator.score_samples_given(rows, given)
    with pytest.raises(ValueError, match="n_samples: expected at least 2, got 1"):
        estimator.score_samples_given(rows, ["city"], n_samples=1)
    with pytest.raises(ValueError, match="n_samples: expected at least 1, got 0"):
        estimator.tail_probability(rows, n_samples=0)
    with pytest.raises(ValueError, match=r"n_samples: expected a whole number, got 2\.5"):
        estimator.sample(2.5)  # type: ignore[arg-type]
    for question in ("pit", "tail_probability"):
        with pytest.raises(NotFittedError):
            getattr(DensityEstimator(), question)(rows)


# -- residuals and tails --------------------------------------------------------------------------


def test_residuals_of_rows_that_a_model_drew_are_uniform(estimator: DensityEstimator) -> None:
    rows = estimator.sample(3000, random_state=8)
    u = estimator.pit(rows)
    assert u.shape == (3000, 7)
    assert np.isnan(u[:, 5:]).all()
    for column in u[:, :5].T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    scores = stats.norm.ppf(u[:, :5].T)
    assert np.abs(np.corrcoef(scores) - np.eye(5)).max() < 5 / 3000**0.5


def test_tails_of_a_gaussian_are_those_of_chi_squared(gaussian: DensityEstimator) -> None:
    (whiten,) = (one for one in gaussian.density_.modules() if isinstance(one, Whiten))
    z = np.linalg.solve(whiten.scale_tril.numpy(), (GAUSSIAN[:300] - whiten.loc.numpy()).T)
    share = gaussian.tail_probability(GAUSSIAN[:300])
    assert np.abs(share - stats.chi2(4).sf((z**2).sum(axis=0))).max() < 0.02


def test_tails_of_rows_that_a_model_drew_are_uniform(estimator: DensityEstimator) -> None:
    share = estimator.tail_probability(estimator.sample(2000, random_state=4), n_samples=5000)
    assert stats.kstest(share, "uniform").pvalue > 1e-3
    assert stats.ks_2samp(share, np.random.default_rng(0).random(5000)).pvalue > 1e-3


def test_no_more_than_a_share_of_categories_is_in_its_tail() -> None:
    names = np.random.default_rng(0).choice(["a", "b", "c"], 3000, p=[0.9, 0.09, 0.01])
    estimator = DensityEstimator("gaussian", work=3).fit(pa.table({"name": names}))
    share = estimator.tail_probability(pa.table({"name": ["a", "b", "c", "d"]}))
    assert share[0] == 1
    assert 0.07 < share[1] < 0.13
    assert 0.003 < share[2] < 0.02
    assert share[3] == 0


# -- the documentation ----------------------------------------------------------------------------


def test_the_page_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "tables.md"
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        exec(compile(block, "tables.md", "exec"), names)
    assert "angle of period 360" in capsys.readouterr().out
    assert names["drawn"].shape == (5, 3)
    assert np.isfinite(names["log_density"]).all()
    assert (names["found"].standard_error >= 0).all()
    assert np.allclose(names["probability"].sum(axis=1), 1)
    assert names["u"].shape == (200, 3)
    assert names["share"][-1] < 0.05
