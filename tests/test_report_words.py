"""What a report says of its numbers: findings in words, ticks, matrices, identifiers."""

from __future__ import annotations

import datetime as dt
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from evidence import evidence
from maskedflow.plot.ticks import InnerLocator, PlainFormatter, number_ticks
from maskedflow.report import Column, Subject, fan_panel, new_figure
from maskedflow.report.plots.figures import Picture, embed, name_ticks
from maskedflow.report.plots.matrices import Cells, matrix_shown
from maskedflow.report.sections.columns import Columns, Marginal, by_chance
from maskedflow.report.sections.correlations import Correlation
from maskedflow.report.sections.data import Data
from maskedflow.report.sections.extremes import Extreme, Extremes
from maskedflow.report.sections.latent import Latent
from maskedflow.report.sections.likelihood import Likelihoods
from maskedflow.report.sections.two_sample import TwoSample
from maskedflow.runs import Likelihood, Mean


def numbers(*names: str) -> Subject:
    return Subject(
        "s", tuple(map(Column, names)), lambda x: -x[:, 0], lambda n, g: np.zeros((n, 1))
    )


# -------------------------------------------------------------------------------------- findings


def test_a_name_that_no_font_can_write_is_no_warning() -> None:
    figure = new_figure(1, 1)
    figure.subplots().set_xlabel("名")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert embed(figure, "nothing").uri.startswith("data:image/png;base64,")


def test_a_classifier_in_words() -> None:
    age = [("age", Mean(0.6, 0.02))]
    told = TwoSample(Mean(0.611, 0.03), Mean(0.66, 0.03), 2000, age)
    assert told.finding == (
        "Samples differ from data in age; a classifier tells them apart 61% of the time"
        " (58 to 64%)."
    )
    ranked = TwoSample(Mean(0.51, 0.02), Mean(0.54, 0.02), 1200, [], "image")
    assert ranked.finding == (
        "Samples differ from data; of one sample and one image of data a classifier finds which is"
        " which 54% of the time (52 to 56%)."
    )
    alike = TwoSample(Mean(0.505, 0.0158), Mean(0.5, 0.018), 2000, [])
    assert alike.finding == "No difference found: 2,000 rows would have shown one of 3.2%."
    few = TwoSample(Mean(0.5, 0.3), Mean(0.5, 0.3), 12, [])
    assert few.finding == "No difference found, for which 12 rows are too few."


def test_correlations_in_words() -> None:
    one = Correlation(0.465, ("revenue", "area"), 0.496, 0.031, 0.11, 1, 1, (400, 2000))
    assert one.finding == (
        "Samples differ from data in the correlation of revenue and area, by −0.46"
        " (−0.57 to −0.36)."
    )
    alike = replace(one, largest=0.1, samples=0.396)
    assert alike.finding == (
        "No difference of correlation found: 400 rows would have shown one of 0.22."
    )
    # Of 190 pairs one is so far apart by chance.
    many = replace(one, largest=0.15, samples=0.346, pairs=190)
    assert many.finding.startswith("No difference")


def test_likelihoods_in_words() -> None:
    own, bits = Mean(1.0, 0.1), Mean(0.5, 0.1)

    def beside(value: float, error: float) -> str:
        other = Likelihood("full Gaussian", own, bits, Mean(value, error), 900, 400)
        return Likelihoods([Likelihood("flow", own, bits, None, 900, 400), other], []).finding

    assert beside(0.44, 0.08) == (
        "The density is better than the best of the others, full Gaussian, by 0.44 nats per row"
        " (0.36 to 0.52)."
    )
    assert beside(-0.44, 0.08).startswith("The density is worse than the best of the")
    assert beside(0.02, 0.08) == (
        "No difference from full Gaussian found: 400 rows would have shown one of 0.16 nats per"
        " row."
    )
    alone = Likelihoods([Likelihood("flow", own, bits, None, 900, 400)], [])
    assert alone.finding == ""


def test_columns_in_words() -> None:
    def marginal(name: str, distance: float, gaps: bool = False) -> Marginal:
        return Marginal(0, name, distance, 0.08, [], [], (0.0, 0.0), gaps=gaps)

    def told(*marginals: Marginal) -> str:
        return Columns(list(marginals), [], 0, 2000, False, 400).finding

    assert told(marginal("age", 0.05)) == (
        "No difference found: 400 rows would have shown one of 0.16."
    )
    assert told(marginal("age", 0.14), marginal("pay", 0.09), marginal("x", 0.01)) == (
        "Samples differ from data in age and pay, most in age, by a distance of 0.14"
        " (0.06 to 0.22)."
    )
    assert told(marginal("age", 0.01, gaps=True)) == "Shares of missing cells differ in age."


def test_random_numbers_in_words() -> None:
    fine = Latent(400, 3, False, 0, 0.07, 0.05, 0.1, ("z1", "z3"), (0.1, 0.12), [], [])
    fine = replace(fine, worst=[("z2", 0.0, 1.0, 0.04)])
    assert fine.finding == (
        "No difference from normal numbers found: 400 rows would have shown one of 0.2."
        " No dependence found: 400 rows would have shown a correlation of 0.24."
    )
    many = replace(fine, numbers=64, far=14)
    assert many.finding.startswith(
        "Not all are normal: 14 of 64 are further off than one in twenty would be by chance. No"
    )
    assert replace(many, far=7).finding == fine.finding
    off = replace(fine, worst=[("z2", 0.0, 1.0, 0.25)], correlation=0.5)
    assert off.finding == (
        "Not all are normal: z2 is off by a distance of 0.25 (0.15 to 0.35)."
        " They depend on each other: z1 and z3 correlate by 0.50 (0.40 to 0.58)."
    )


def test_unlikely_rows_in_words() -> None:
    row = Extreme(-9.0, 0.0, ["1"])
    more = Extremes(unlikely=0.05, least=[row], rows=(1000, 2000))
    assert more.finding == ("More test rows are unlikely than should be: 5.0% (4 to 6%), not 1%.")
    as_many = replace(more, unlikely=0.012)
    assert as_many.finding == (
        "As many test rows are unlikely as should be: 1,000 rows would have shown 2.5%."
    )


def test_what_is_by_chance_is_there_in_one_of_twenty_times(rng: np.random.Generator) -> None:
    n, m, times, levels = 150, 400, 120, 6
    bound, beyond = by_chance(n, m, 1), 0
    shares, far = by_chance(n, m, 1, levels), 0
    for _ in range(times):
        beyond += ks_2samp(rng.normal(size=n), rng.normal(size=m), method="asymp")[0] > bound
        counts = [np.bincount(rng.integers(levels, size=k), minlength=levels) / k for k in (n, m)]
        far += np.abs(counts[0] - counts[1]).sum() / 2 > shares
    assert beyond <= 0.08 * times
    assert far <= 0.08 * times
    # And no larger than it has to be: what is half as far is there by chance.
    assert by_chance(n, m, 20) < 1.6 * bound


# ----------------------------------------------------------------------------------------- ticks


@pytest.mark.parametrize(
    ("limits", "texts"),
    [
        ((-0.012, 0.011), ["−0.01", "0.00", "0.01"]),
        ((1700.0, 1950.0), ["1,700", "1,800", "1,900"]),
        ((9e8, 1.12e9), ["0.9", "1.0", "1.1"]),
        ((8e-6, 1.3e-5), ["8", "9", "10", "11", "12", "13"]),
        ((-2.0, 3.0), ["−2", "−1", "0", "1", "2", "3"]),
    ],
)
def test_ticks_are_few_and_plain(limits: tuple[float, float], texts: list[str]) -> None:
    axis = new_figure(3, 2).subplots().xaxis
    axis.set_view_interval(*limits, ignore=True)
    power = number_ticks(axis, 5)
    assert [label.get_text() for label in axis.get_ticklabels()] == texts
    places = [float(text.replace("−", "-").replace(",", "")) for text in texts]
    np.testing.assert_allclose(axis.get_majorticklocs(), np.array(places) * 10.0**power)


def test_ticks_leave_room_for_their_texts() -> None:
    axis = new_figure(3, 2).subplots().xaxis
    axis.set_view_interval(100_000, 900_000, ignore=True)
    number_ticks(axis, 5, characters=24)
    texts = [label.get_text() for label in axis.get_ticklabels()]
    assert 1 <= len(texts) <= 3
    assert all(text.endswith(",000") for text in texts)
    days = Column("day", date=lambda x: str(dt.date(2020, 1, 1) + dt.timedelta(round(x))))
    axis.set_view_interval(0, 20, ignore=True)
    name_ticks(axis, days, characters=26)
    texts = [label.get_text() for label in axis.get_ticklabels()]
    assert texts == ["2020-01-01", "2020-01-21"]


def test_a_tick_alone_and_ticks_inside() -> None:
    assert PlainFormatter()(1823.0) == "1,823"
    assert PlainFormatter()(-0.0) == "0"
    inner = InnerLocator(3).tick_values(0.0, 1000.0)
    assert all(120 <= tick <= 880 for tick in inner)


def test_the_axis_of_forecasts_is_in_dates() -> None:
    figure = new_figure(8, 3)
    axes = figure.subplots()
    times = np.datetime64("2024-12-30T20") + np.arange(96).astype("timedelta64[h]")
    samples = np.random.default_rng(0).normal(1800, 50, size=(20, 48))
    past = times[:48], np.full(48, 1800.0)
    fan_panel(axes, times[48:], samples, past=past, name="load")
    figure.canvas.draw()
    texts = [label.get_text() for label in axes.get_xticklabels()]
    assert 3 <= len(texts) <= 9
    assert "Jan" in texts
    assert axes.xaxis.get_offset_text().get_text() == "2025-Jan"
    assert all("," in text for text in (label.get_text() for label in axes.get_yticklabels()))


# -------------------------------------------------------------------------- matrices, identifiers


@pytest.mark.usefixtures("blank")
def test_a_large_matrix_is_a_picture_with_names() -> None:
    values = np.eye(50)
    values[3, 40] = values[40, 3] = -0.7
    names = [f"column {i}" for i in range(50)]
    found = matrix_shown(values, names, "Correlations.")
    assert isinstance(found, Picture)
    assert "is −0.700, of column 3 and column 40" in found.alt
    small = matrix_shown(values[:20, :20], names[:20], "Correlations.")
    assert isinstance(small, Cells)
    assert small.rows[0][0].text == ""  # too many for numbers, which are in the titles
    assert small.rows[0][0].title == "column 0, column 0: 1.000"


def test_columns_that_only_name_the_rows_get_a_remark(rng: np.random.Generator) -> None:
    rows = np.stack([rng.permutation(np.arange(7000.0, 7400.0)), rng.normal(size=400)], axis=1)
    data = Data.of(evidence(numbers("id", "x"), rows))
    assert data.identifiers == ["id"]
    assert data.finding.startswith("id only names the rows: whole numbers, all different")
    rows[:, 1] = rows[:, 0] + 10 * rng.normal(size=400)  # which another column knows of
    assert Data.of(evidence(numbers("id", "x"), rows)).finding == ""
