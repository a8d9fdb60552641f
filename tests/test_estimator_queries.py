"""Questions to an estimator: some columns given others, residuals, tails."""

from __future__ import annotations

import re
from datetime import date
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
    # What is given may be a constant, or a duplicate beside what it repeats.
    for given, cannot in ((["unit"], [0]), (["town"], [1, 2]), (["city", "unit"], [0, 1])):
        asked = rows.assign(unit=["m", "cm", "cm", "cm"])
        nan = np.isnan(estimator.score_samples_given(asked, given, n_samples=300))
        assert np.flatnonzero(nan.all(axis=0)).tolist() == cannot
        assert np.flatnonzero(nan.any(axis=0)).tolist() == cannot
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
    context = pd.DataFrame({"group": rng.choice(["a", "b"], 3000), "t": rng.normal(size=3000)})
    middle = np.where(context["group"] == "a", -5.0, 5.0) + context["t"]
    x = np.stack([middle + rng.normal(size=3000), rng.normal(size=3000)], axis=1)
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
        ([True] + 6 * [False], "given: expected names or places of columns, got True"),
        (np.arange(7) < 1, "given: expected names or places of columns, got True"),
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


# -- which cell makes a row odd -------------------------------------------------------------------


def test_cells_of_a_gaussian_add_what_they_should(gaussian: DensityEstimator) -> None:
    (whiten,) = (one for one in gaussian.density_.modules() if isinstance(one, Whiten))
    factor = whiten.scale_tril.numpy()
    x = GAUSSIAN[:12].copy()
    x[3, 2] += 30.0
    # A factor of Cholesky's standardises each column given those before it.
    z = np.linalg.solve(factor, (x - whiten.loc.numpy()).T).T
    expected = stats.norm.logpdf(z) - np.log(factor.diagonal())
    found = gaussian.explain(x)
    assert found.dtype.names == ("x0", "x1", "x2", "x3", "log_prob", "standard_error", "reason")
    nats = np.stack([found[f"x{k}"] for k in range(4)], axis=1)
    np.testing.assert_allclose(nats.sum(axis=1), found["log_prob"], rtol=1e-12)
    np.testing.assert_array_equal(found["log_prob"], gaussian.score_samples(x))
    usual = np.arange(12) != 3
    assert (np.abs(nats - expected)[usual] < 4 * found["standard_error"][usual, None]).all()
    assert (found["standard_error"][usual] < 0.2).all()
    assert nats[3].argmin() == 2
    assert nats[3, 2] < -100
    assert (found["reason"] == "").all()
    more = gaussian.explain(x[usual], n_samples=3200)["standard_error"]
    assert np.median(more / found["standard_error"][usual]) < 0.4


def test_cells_of_categories_are_exact() -> None:
    rng = np.random.default_rng(0)
    first = rng.choice(["a", "b"], 600)
    table = pa.table({"first": first, "second": np.where(rng.random(600) < 0.8, first, "c")})
    estimator = DensityEstimator("gaussian", work=1).fit(table)
    found = estimator.explain(table.slice(0, 20))
    both = found["first"].to_numpy() + found["second"].to_numpy()
    np.testing.assert_allclose(both, estimator.score_samples(table.slice(0, 20)))
    assert not found["standard_error"].to_numpy().any()
    share = {one: np.exp(found["first"].to_numpy()[first[:20] == one][0]) for one in "ab"}
    assert sum(share.values()) == pytest.approx(1)


def test_cells_add_up_to_the_score_and_what_cannot_be_is_told(estimator: DensityEstimator) -> None:
    rows = mixed(9)
    rows.loc[2, ["city", "town"]] = "Paris"
    rows.loc[3, "income"] = -1.0
    rows.loc[4, "town"] = "Oslo" if rows.loc[4, "city"] != "Oslo" else "Rome"
    rows["visits"] = rows["visits"].astype(float)
    rows.loc[5, "unit"], rows.loc[5, "visits"] = "mm", 50.5
    rows.loc[6, "wind"] = np.nan
    rows.loc[7, "height"] = 1e200
    rows.index = pd.Index(list("abcdefghi"))
    found = estimator.explain(rows, n_samples=50)
    assert list(found.index) == list(rows.index)
    assert list(found.columns) == [*rows.columns, "log_prob", "standard_error", "reason"]
    np.testing.assert_array_equal(found["log_prob"], estimator.score_samples(rows))
    nats = found[list(rows.columns)].to_numpy()
    np.testing.assert_allclose(nats.sum(axis=1), found["log_prob"], rtol=1e-12)
    impossible = {(2, "city"), (3, "income"), (4, "town"), (5, "unit"), (5, "visits")}
    impossible |= {(6, "wind"), (7, "height")}
    where = {(int(i), rows.columns[j]) for i, j in np.argwhere(np.isneginf(nats))}
    assert where == impossible
    for row, told in {
        0: "",
        2: "column 'city': expected 'Bonn', 'Oslo' or 'Rome', found 'Paris'",
        3: "column 'income': expected numbers above 0, found -1.0",
        4: f"column 'town': expected {rows['city'].iloc[4]!r} as in 'city', which it repeats, "
        f"found {rows['town'].iloc[4]!r}",
        5: "column 'visits': expected steps of 1 from ",
        6: "column 'wind': expected a value, for none was missing in fit, found a missing value",
        7: "column 'height': the density of 1e+200 is too small for a float",
    }.items():
        assert found["reason"].iloc[row].startswith(told)
    assert found["reason"].iloc[5].endswith("; column 'unit': expected 'cm', found 'mm'")
    assert not found["reason"].iloc[0]
    # Other rows, and their order, do not matter.
    again = estimator.explain(rows.iloc[[8, 3, 0]], n_samples=50)
    pd.testing.assert_frame_equal(again, found.iloc[[8, 3, 0]])


def test_dates_and_scales_are_told_as_they_are_written() -> None:
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, 400), "D")
    table = pa.table(
        {
            "day": pa.array(days).cast(pa.date32()),
            "stars": rng.integers(1, 8, 400),
            "since": pa.array([19_000] * 400, pa.int32()).cast(pa.date32()),
        }
    )
    estimator = DensityEstimator("gaussian", bounds="data", work=0.5).fit(table)
    odd = table.slice(0, 1).to_pylist()[0]
    for name, cell, told in (
        ("day", date(2030, 1, 1), f"'day': expected at most {days.max().date()}, found 2030-01-01"),
        ("stars", 9, "'stars': expected one of 7 levels such as 1, 2, 3, found 9"),
        ("since", date(2024, 5, 1), "'since': expected 2022-01-08, found 2024-05-01"),
    ):
        rows = pa.Table.from_pylist([{**odd, name: cell}], schema=table.schema)
        found = estimator.explain(rows, n_samples=2)
        assert found["reason"].to_pylist() == [f"column {told}"]
        assert found[name].to_pylist() == [-np.inf]


def test_explanations_come_in_kind(gaussian: DensityEstimator) -> None:
    names = [f"x{k}" for k in range(4)]
    x = dict(zip(names, GAUSSIAN[:2].T, strict=True))
    estimator = DensityEstimator("gaussian").fit(x)
    for frame in (pa.table(x), pd.DataFrame(x), x, pa.table(x).to_pylist()):
        found = estimator.explain(frame, n_samples=2)
        assert type(found) is type(frame)
    with pytest.raises(ValueError, match="adds a column 'reason', which the table has; rename"):
        DensityEstimator("gaussian").fit({"reason": GAUSSIAN[:50, 0]}).explain({"reason": [0.0]})
    with pytest.raises(ValueError, match="n_samples: expected at least 2, got 1"):
        gaussian.explain(GAUSSIAN[:1], n_samples=1)


# -- draws of some columns given others -----------------------------------------------------------


@pytest.mark.parametrize("given", [[0], [3, 1]])
def test_draws_given_numbers_are_the_analytic_ones(
    given: list[int], gaussian: DensityEstimator
) -> None:
    (whiten,) = (one for one in gaussian.density_.modules() if isinstance(one, Whiten))
    loc, factor = whiten.loc.numpy(), whiten.scale_tril.numpy()
    covariance = factor @ factor.T
    rest = [k for k in range(4) if k not in given]
    slopes = np.linalg.solve(covariance[np.ix_(given, given)], covariance[np.ix_(given, rest)]).T
    left = covariance[np.ix_(rest, rest)] - slopes @ covariance[np.ix_(given, rest)]
    x = GAUSSIAN[:100].copy()
    x[:, rest] = np.nan
    drawn = gaussian.sample_given(x, n_samples=20, n_candidates=500, random_state=0)
    assert drawn.shape == (2000, 4)
    x = x.repeat(20, axis=0)
    np.testing.assert_array_equal(drawn[:, given], x[:, given])
    residual = drawn[:, rest] - loc[rest] - (x[:, given] - loc[given]) @ slopes.T
    z = np.linalg.solve(np.linalg.cholesky(left), residual.T)
    assert np.abs(z.mean(axis=1)).max() < 0.12
    assert np.abs(np.cov(z) - np.eye(len(rest))).max() < 0.15


def test_what_is_known_stays_and_what_is_not_is_drawn(estimator: DensityEstimator) -> None:
    rows = mixed(30)
    rows["height"] = rows["height"].where(rows.index % 2 == 0)
    rows["city"] = rows["city"].where(rows.index % 3 > 0)
    given = rows[["height", "city", "wind"]]
    drawn = estimator.sample_given(given, n_samples=3, random_state=1, n_candidates=100)
    assert list(drawn.columns) == list(mixed(1).columns)
    assert drawn.dtypes.equals(mixed(9).dtypes)
    again = given.loc[given.index.repeat(3)].reset_index(drop=True)
    for name in given.columns:
        known = again[name].notna()
        assert known.any()
        assert (drawn[name][known] == again[name][known]).all()
        assert drawn[name].notna().all()  # a cell that is missing stands for one that is there
    assert (drawn["town"] == drawn["city"]).all()
    assert (drawn["unit"] == "cm").all()
    assert np.isfinite(estimator.score_samples(drawn)).all()
    assert drawn["income"].nunique() > 30
    repeated = estimator.sample_given(given, n_samples=3, random_state=1, n_candidates=100)
    pd.testing.assert_frame_equal(repeated, drawn)
    # A column that is not there is drawn as it is in the table, with its gaps; all are exact.
    only = estimator.sample_given(rows[["town"]].iloc[[0]], n_samples=2000, random_state=0)
    assert (only["city"] == rows["town"].iloc[0]).all()
    assert 0.05 < only["height"].isna().mean() < 0.15
    some = estimator.sample(8000, random_state=3)
    alike = some[some["city"] == rows["town"].iloc[0]]
    for name in ("income", "visits", "wind"):
        assert stats.ks_2samp(only[name], alike[name]).pvalue > 1e-3


def test_an_atom_may_be_drawn_for_a_missing_cell(estimator: DensityEstimator) -> None:
    row = mixed(1).assign(income=np.nan)
    drawn = estimator.sample_given(row, n_samples=1000, random_state=0)
    assert (drawn.drop(columns="income") == row.drop(columns="income").iloc[0]).all(axis=None)
    given = [name for name in row.columns if name != "income"]
    found = estimator.score_samples_given(row.assign(income=0.0), given)
    assert (drawn["income"] == 0).mean() == pytest.approx(np.exp(found.log_density[0]), abs=0.07)


def test_draws_given_a_context() -> None:
    rng = np.random.default_rng(0)
    context = pa.table({"t": rng.normal(size=600)})
    x = np.stack([rng.normal(size=600), 5 * context["t"].to_numpy()], axis=1)
    x[:, 1] += x[:, 0] + 0.1 * rng.normal(size=600)
    table = pa.table({"a": x[:, 0], "b": x[:, 1]})
    estimator = DensityEstimator("gaussian").fit(table, context=context)
    drawn = estimator.sample_given(
        table.slice(0, 50).select(["b"]), context=context.slice(0, 50), random_state=0
    )
    assert drawn["b"].equals(table["b"].slice(0, 50))
    assert np.abs(drawn["a"].to_numpy() - x[:50, 0]).max() < 0.8


def test_draws_that_cannot_be_made_are_told(estimator: DensityEstimator) -> None:
    rows = mixed(3)[["city"]]
    with pytest.raises(ValueError, match=r"column 'city', row 2: expected 'Bonn', .*'Paris'"):
        estimator.sample_given(rows.assign(city=["Rome", "Paris", "Rome"]))
    with pytest.raises(ValueError, match="X: expected some of the columns income, height"):
        estimator.sample_given(rows.rename(columns={"city": "ctiy"}))
    with pytest.raises(ValueError, match="n_samples: expected at least 1, got 0"):
        estimator.sample_given(rows, n_samples=0)
    with pytest.raises(ValueError, match="n_candidates: expected at least 2, got 1"):
        estimator.sample_given(rows, n_candidates=1)
    far = mixed(1).assign(height=1e200)
    for given in (far.drop(columns="city").drop(columns="town"), far[["height"]]):
        with pytest.warns(UserWarning, match=r"1 of 1 rows: the candidates"):
            assert estimator.sample_given(given)["height"].tolist() == [1e200]
    with pytest.warns(UserWarning, match=r"of 3 rows: the candidates .* fewer than 50 draws"):
        estimator.sample_given(mixed(3)[["height"]], n_candidates=20)


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


@pytest.mark.slow
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
