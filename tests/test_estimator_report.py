"""The report of an estimator: mixed rows as numbers and back, and what the page says of them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import maskedflow as mf
from evidence import evidence
from maskedflow.report import Column, Subject, independent, write_report
from maskedflow.report.plots.matrices import Cells
from maskedflow.report.sections.columns import Columns
from maskedflow.report.sections.corner import corner_columns
from maskedflow.report.sections.correlations import Correlation, correlations
from maskedflow.report.sections.latent import Latent
from maskedflow.report.sections.two_sample import TwoSample
from maskedflow.tables import Schema, to_rows
from maskedflow.tables.matrix import Tables
from mixed_tables import ANGLE, mixed
from table_strategies import tables

# What pages look like is a matter of test_report_page.py.
pytestmark = pytest.mark.usefixtures("blank")


def page_text(path: Path) -> str:
    return " ".join(path.read_text("utf-8").split())


# ------------------------------------------------------------------------- tables and matrices


@settings(max_examples=10)
@given(st.data(), st.booleans())
def test_rows_become_numbers_and_come_back(data: st.DataObject, missing: bool) -> None:
    table, known = data.draw(tables(missing))
    schema = Schema.infer(table, "model" if missing else "error", known)
    own = Tables(schema, None)
    matrix, notes, places = own.rows(table, None, "X")
    assert notes == {}
    assert places.tolist() == list(range(table.num_rows))
    assert matrix.shape == (table.num_rows, len(schema.columns) - len(schema.fixed))
    again, context = own.split(matrix)
    assert context is None
    assert again.schema.names == table.schema.names
    before, after = to_rows(schema, table), to_rows(schema, again)
    assert torch.equal(before.codes, after.codes)
    assert torch.equal(before.values, after.values)
    assert torch.equal(before.observed, after.observed)
    turned = (before.angles - after.angles + torch.pi) % (2 * torch.pi) - torch.pi
    assert turned.abs().max() < 1e-9 if turned.numel() else True
    assert not after.impossible.any()


# ------------------------------------------------------------------------------- facts of columns


def subject(*columns: Column) -> Subject:
    return Subject("s", columns, lambda x: np.zeros(len(x)), lambda n, g: np.zeros((n, 1)))


def test_independent_columns_are_a_density(rng: np.random.Generator) -> None:
    """Probabilities and densities of all that a cell can be add up to one."""
    continuous = Column("a", atoms=(0.0,))
    train = np.where(rng.random(3000) < 0.2, 0.0, rng.gamma(2.0, size=3000))
    train[rng.random(3000) < 0.1] = np.nan
    grid = np.linspace(-50, 200, 400_001)[1:]  # without the atom
    total = np.exp(independent([continuous], train[:, None], grid[:, None])).sum()
    total *= grid[1] - grid[0]
    states = np.array([[0.0], [np.nan]])
    shares = np.exp(independent([continuous], train[:, None], states))
    assert shares == pytest.approx([(train == 0).mean(), np.isnan(train).mean()], abs=2e-3)
    assert total + shares.sum() == pytest.approx(1, abs=5e-3)

    counts = Column("n", step=0.5, atoms=(0.0,))
    train = rng.poisson(6, 3000) * 0.5
    cells = np.arange(-100, 200)[:, None] * 0.5
    log_prob = independent([counts], train[:, None], cells)
    assert 0.5 * np.exp(log_prob).sum() == pytest.approx(1, abs=1e-3)
    assert 0.5 * np.exp(log_prob[112]) == pytest.approx((train == 6).mean(), rel=0.3)

    both = (Column("x"), Column("y", ("u", "v", "w")))
    rows = np.stack([rng.normal(size=4000), rng.integers(2, size=4000)], axis=1)
    test = rows[:500]
    log_prob = independent(both, rows, test)
    truth = norm.logpdf(test[:, 0]) + np.log(0.5)
    assert log_prob.mean() == pytest.approx(truth.mean(), abs=0.03)
    missing = independent(both, rows, np.array([[0.0, 2.0]]))  # never seen, and yet possible
    assert np.isfinite(missing).all()


def test_correlations_of_pairs_that_are_there(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(400, 4))
    rows[:, 1] += rows[:, 0]
    rows[rng.random((400, 4)) < 0.3] = np.nan
    expected = pd.DataFrame(rows).rank().corr()
    np.testing.assert_allclose(correlations(rows), expected, atol=1e-9)
    apart = np.array([[1.0, np.nan, 1.0], [np.nan, 1.0, 2.0]])  # no row has both
    np.testing.assert_array_equal(correlations(apart)[0, 1:], [0.0, 0.0])


def test_categories_and_gaps_correlate_too(rng: np.random.Generator) -> None:
    colour = Column("colour", ("red", "green", "blue"))
    one = subject(Column("x"), colour, Column("grade", ("low", "mid", "high"), ordered=True))
    code = rng.integers(3, size=2000)
    x = rng.normal(size=2000) + 3.0 * (code == 1)
    x[(code == 2) & (rng.random(2000) < 0.5)] = np.nan
    data = np.stack([x, code, rng.integers(3, size=2000)], axis=1).astype(float)
    samples = np.stack([x, rng.permutation(code), data[:, 2]], axis=1)
    found = Correlation.of(evidence(one, data, samples))
    assert found is not None
    assert found.pair == ("x", "colour = green")
    assert found.data > 0.6
    assert abs(found.samples) < 0.1
    # x, x missing, three colours, the grade
    assert found.pairs == 15
    assert 4 <= found.beyond <= 8
    cells, apart = found.matrices
    assert isinstance(cells, Cells)
    assert list(cells.names)[:2] == ["x", "x missing"]
    assert (len(cells.rows), len(cells.rows[0]), cells.rows[0][0].text) == (6, 6, "1.00")
    assert cells.rows[0][3].title == f"x, colour = green: {found.data:.3f}"
    assert isinstance(apart, Cells)
    assert apart.rows[0][3].title == f"x, colour = green: −{found.data - found.samples:.3f}"
    assert found.finding.startswith("Samples differ from data in the correlation of x and colour")


def test_a_corner_plot_leaves_out_columns_that_are_hardly_there(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(500, 4))
    rows[:, 3] = rows[:, 0]
    rows[50:, 3] = np.nan
    rows[:, 1] = np.nan
    four = subject(*(Column(name) for name in "abcd"))
    assert corner_columns(four, rows) == [0, 2]


def test_a_column_in_its_own_words() -> None:
    day = Column("day", date=lambda x: str(dt.date(2020, 1, 1) + dt.timedelta(x)), step=1.0)
    assert day.text(31.0) == "2020-02-01"
    number = Column("rain", atoms=(0.0,))
    colour = Column("colour", ("red", "green"))
    days = np.arange(100.0)
    rain = np.where(days < 25, 0.0, days)
    rain[99] = np.nan
    data = np.stack([days, rain, days % 4 == 0], axis=1)
    columns = Columns.of(evidence(subject(day, number, colour), data))
    assert columns is not None
    found = {one.name: one for one in columns.marginals}
    assert found["day"].data == ["2020-01-05", "2020-02-19", "2020-04-04"]
    assert found["rain"].atoms == (0.25, 0.25)
    assert found["rain"].missing == pytest.approx((0.01, 0.01))
    assert found["colour"].data == ["red 75.0%, green 25.0%"]
    assert all(one.distance == 0 for one in found.values())


def test_a_classifier_says_which_columns_it_tells_by(rng: np.random.Generator) -> None:
    three = subject(Column("a"), Column("colour", ("x", "y", "z")), Column("c"))
    data = np.stack([rng.normal(size=800), rng.integers(3, size=800), rng.normal(size=800)], 1)
    samples = data[::-1].copy()
    samples[:, 0] = rng.normal(size=800)
    data[:, 0] = data[:, 0].round(1)  # which no distance shows
    found = TwoSample.of(evidence(three, data, samples))
    assert found is not None
    assert [name for name, _ in found.giveaways] == ["a"]
    assert found.giveaways[0][1].value > 0.7


def test_residuals_may_be_missing(rng: np.random.Generator) -> None:
    quantiles = norm.ppf((np.arange(1000) + 0.5) / 1000)
    z = np.stack([rng.permutation(quantiles) for _ in range(3)], axis=1)
    z[:, 2] *= 3
    z[:700, 2] = np.nan
    z[0, 0] = np.inf  # a residual of one
    gone = np.full((1000, 1), np.nan)
    names = ("a", "b", "c", "d")
    four = replace(subject(*map(Column, names)), latent=lambda x: x, residuals=names)
    found = Latent.of(evidence(four, np.hstack([z, gone])))
    assert found is not None
    assert (found.numbers, found.far, found.residuals) == (3, 1, True)
    name, _, spread, _ = found.worst[0]
    assert name == "c"
    assert spread == pytest.approx(3, abs=0.4)
    assert found.correlation < 0.15
    assert Latent.of(evidence(four, gone)) is None


# ----------------------------------------------------------------------------------------- pages


@pytest.fixture(scope="module")
def fitted() -> tuple[mf.DensityEstimator, pd.DataFrame]:
    table = mixed(900)
    table["cm"] = table["height"]
    estimator = mf.DensityEstimator("gaussian", schema=ANGLE, missing="model", work=0.2)
    return estimator.fit(table[:500]), table


def test_the_page_of_a_mixed_table(
    fitted: tuple[mf.DensityEstimator, pd.DataFrame], tmp_path: Path
) -> None:
    estimator, table = fitted
    test = table[500:].reset_index(drop=True)
    scores = estimator.score_samples(test)
    path = tmp_path / "new" / "r.html"
    page = estimator.report(test, path, train=table[:500], name="people")
    own, alone, gaussian = page.likelihood.found
    assert own.nll.value == pytest.approx(-scores.mean(), abs=1e-9)
    assert (alone.name, gaussian.name) == ("independent columns", "Gaussian given the codes")
    # Nothing depends on anything in this table, and the estimator is such a Gaussian.
    assert alone.nll.value == pytest.approx(own.nll.value, abs=0.6)
    assert gaussian.nll.value == pytest.approx(own.nll.value, abs=0.2)
    assert page.test is not None
    order = np.argsort(scores)
    least = test.iloc[order[0]]
    cells = dict(zip(page.extremes.columns, page.extremes.least[0].cells, strict=True))
    assert page.extremes.least[0].log_prob == pytest.approx(scores[order[0]])
    assert cells["city"] == least["city"]
    assert cells["born"] == str(least["born"].date())
    assert cells["member"] == str(least["member"]).lower()
    assert cells["visits"] == str(least["visits"])
    assert set(cells) == {"income", "height", "wind", "visits", "city", "member", "born"}
    assert page.extremes.least[0].tail < 0.02
    assert page.extremes.most[0].tail > 0.9
    assert page.extremes.unlikely < 0.05
    text = page_text(path)
    for words in (
        "unit (constant &#39;cm&#39;)",
        "cm (duplicate of height)",
        "angle of period 360",
    ):
        assert words in text
    marginals = {one.name: one for one in page.columns.marginals}
    assert marginals["height"].missing[0] == pytest.approx(test["height"].isna().mean())
    assert marginals["income"].atoms is not None
    assert marginals["income"].atoms[0] == pytest.approx((test["income"] == 0).mean())
    assert len(page.data.schema) == 9


def test_rows_that_cannot_be_are_counted(
    fitted: tuple[mf.DensityEstimator, pd.DataFrame], tmp_path: Path
) -> None:
    estimator, table = fitted
    test = table[500:700].copy()
    test.iloc[3, test.columns.get_loc("city")] = "Paris"
    page = estimator.report(test, tmp_path / "r.html")
    assert page.rows == (199, 199)
    assert dict(page.data.notes)["rows of density 0"].startswith("1 of 200, because of city (1)")
    assert np.isfinite(page.likelihood.found[0].nll.value)
    assert len(page.likelihood.found) == 1
    assert "need training rows" in page_text(tmp_path / "r.html")
    with pytest.raises(ValueError, match=r"^X: expected rows whose density is not 0, found none$"):
        estimator.report(test.assign(city="Paris"), tmp_path / "r.html")


@pytest.mark.parametrize("kind", ["numpy", "arrow", "pandas"])
def test_a_table_of_numbers_has_the_usual_baselines(
    kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(700, 2)) @ np.array([[1.0, 0.9], [0.0, 0.3]])
    x[:, 0] = np.exp(x[:, 0])
    frame = pd.DataFrame({"x0": x[:, 0], "x1": x[:, 1]})
    table = {"numpy": x, "arrow": pa.Table.from_pandas(frame), "pandas": frame}[kind]
    estimator = mf.DensityEstimator("gaussian").fit(table[:400])
    page = estimator.report(table[400:], tmp_path / "r.html", train=table[:400])
    own, gaussian, _, _ = page.likelihood.found
    # It is a Gaussian itself, of the logarithm of the first column.
    assert gaussian.nll.value == pytest.approx(own.nll.value, abs=0.05)
    assert len(page.samples.pictures) == 3


def test_a_conditional_density(tmp_path: Path, rng: np.random.Generator) -> None:
    city = rng.choice(["Bonn", "Oslo"], 600)
    given_ = pd.DataFrame({"city": city, "hour": rng.uniform(0, 24, 600), "one": 1})
    x = pd.DataFrame({"t": rng.normal(size=600) + 5 * (city == "Oslo"), "kind": city})
    x.loc[::9, "kind"] = "none"
    estimator = mf.DensityEstimator("gaussian", work=4).fit(x[:400], context=given_[:400])
    path = tmp_path / "r.html"
    test = (x[400:], path, given_[400:])
    page = estimator.report(*test, train=x[:400], train_context=given_[:400])
    assert page.given == ["city", "hour"]
    own, alone, _ = page.likelihood.found
    assert own.nll.value == pytest.approx(-estimator.score(x[400:], context=given_[400:]))
    assert alone.behind is not None
    assert alone.behind.value > 0.7  # it does not know the city
    assert "It is conditional on city, hour." in page_text(path)
    # Samples are given what test rows are.
    marginals = {one.name: one for one in page.columns.marginals}
    assert marginals["t"].distance < 0.15
    assert marginals["city"].distance < 0.1
    strange = given_[400:].assign(city="Rome")
    unseen = (
        r"^context: column 'city', row 1: expected a category that was there in fit, found 'Rome'$"
    )
    with pytest.raises(ValueError, match=unseen):
        estimator.report(x[400:], path, strange)
    with pytest.raises(ValueError, match=r"^context: got none, unlike in fit$"):
        estimator.report(x[400:], path)
    with pytest.raises(ValueError, match=r"^context: 5 rows, expected 200 as in X$"):
        estimator.report(x[400:], path, given_[:5])


def test_rows_with_gaps_are_left_out_where_fit_did(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    x = pd.DataFrame(rng.normal(size=(400, 3)), columns=list("abc"))
    x.iloc[::20, 1] = np.nan
    estimator = mf.DensityEstimator("gaussian", missing="drop").fit(x[:200])
    page = estimator.report(x[200:], tmp_path / "r.html", train=x[:200])
    assert page.rows == (190, 190)
    assert dict(page.data.notes)["rows with gaps"] == "10 of 200, left out"
    assert page.likelihood.found[1].name == "full Gaussian"


def test_categories_alone_and_a_single_row_have_a_page(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    x = pd.DataFrame({"a": rng.choice(list("xyz"), 80), "b": rng.choice(["p", "q"], 80)})
    estimator = mf.DensityEstimator("gaussian", work=0.2).fit(x[:50])
    for test, train in ((x[50:], x[:50]), (x[50:51], None)):
        page = estimator.report(test, tmp_path / "r.html", train=train)
        assert (page.samples, len(page.columns.marginals)) == (None, 2)


def test_nothing_but_constants_is_refused(tmp_path: Path) -> None:
    x = pd.DataFrame({"a": [1.0] * 30})
    estimator = mf.DensityEstimator("gaussian").fit(x)
    with pytest.raises(
        ValueError, match=r"^X: expected a column that is not constant, found none$"
    ):
        estimator.report(x, tmp_path / "r.html")


def test_a_failed_page_leaves_nothing_behind(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "r.html"
    path.mkdir()  # nothing can be moved over a folder
    one = Subject(
        "one",
        (Column("x"),),
        lambda x: np.asarray(norm.logpdf(x[:, 0])),
        lambda n, g: torch.randn(n, 1, generator=g).numpy(),
    )
    rows = rng.normal(size=(60, 1))
    with pytest.raises(IsADirectoryError):
        write_report(one, rows, rows, rows, path)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_two_numbers_that_may_be_missing_have_no_plane(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[::5, 1] = np.nan
    estimator = mf.DensityEstimator("gaussian", missing="model").fit(x)
    page = estimator.report(x, tmp_path / "page.html")
    assert not page.samples.pictures
    assert page.samples.corner is not None
