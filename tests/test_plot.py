"""Pictures in one line: what is drawn, where, of which things."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Exponential, Independent, Normal

import maskedflow as mf
from conjugate import Conjugate
from maskedflow.inference import Coverage, PredictiveCheck, Ranks, sbc
from maskedflow.plot.figures import DATA_COLOUR, SAMPLE_COLOUR, bin_edges, limits_of, new_figure
from maskedflow.plot.samples import samples_of
from maskedflow.plot.triangle import POINTS, Layer
from maskedflow.posteriors import NamedDensity
from maskedflow.runs import Run
from small_runs import small_density

Rows = np.ndarray[Any, np.dtype[np.float64]]


class Posterior:
    """That of `Conjugate`, in sbi's words."""

    def sample(self, shape: tuple[int, ...], x: Tensor, show_progress_bars: bool = True) -> Tensor:
        assert not show_progress_bars
        return Conjugate().sample(shape, x)

    def log_prob(self, theta: Tensor, x: Tensor, norm_posterior: bool = True) -> Tensor:
        assert norm_posterior
        return Conjugate().log_prob(theta, x)


class Wrong:
    """A posterior with a log-density for each number."""

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(*shape, 2)

    def log_prob(self, theta: Tensor) -> Tensor:
        return theta


def legend_of(axes: Axes | Figure) -> list[str]:
    found = axes.legends if isinstance(axes, Figure) else [axes.get_legend()]
    return [text.get_text() for one in found if one is not None for text in one.get_texts()]


def curve_of(axes: Axes) -> tuple[Rows, Rows]:
    x, y = axes.lines[0].get_data()
    return np.asarray(x), np.asarray(y)


def area_of(stairs: Any) -> float:
    heights, edges, _ = stairs.get_data()
    return float((heights * np.diff(edges)).sum())


# ----------------------------------------------------------------------------------------- corner


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_corner_has_a_panel_for_each_column_and_pair(size: int, rng: Any) -> None:
    samples, data = rng.normal(size=(400, size)), rng.normal(2, 3, size=(300, size))
    figure = new_figure(4, 4)
    panels = mf.plot.corner(samples, data=data, truth=np.arange(size), fig=figure)
    assert panels.shape == (size, size)
    assert len(figure.axes) == size * (size + 1) // 2
    assert all((panels[i, j] is None) == (j > i) for i in range(size) for j in range(size))
    assert [axes.get_xlabel() for axes in panels[-1]] == [f"x{i}" for i in range(size)]
    for i in range(size):
        behind, over = panels[i, i].patches
        assert to_hex(behind.get_facecolor()) == DATA_COLOUR
        assert to_hex(over.get_edgecolor()) == SAMPLE_COLOUR
        assert area_of(behind) == pytest.approx(1, abs=0.03)
        assert area_of(over) == pytest.approx(1, abs=0.03)
        assert panels[i, i].lines[0].get_xdata() == [i, i]
        low, high = panels[i, i].get_xlim()
        assert low < np.quantile(data[:, i], 0.01) < np.quantile(data[:, i], 0.99) < high
        for j in range(i):
            axes = panels[i, j]
            assert axes.get_xlim() == panels[j, j].get_xlim()
            assert axes.get_ylim() == panels[i, i].get_xlim()
            points = np.asarray(axes.collections[0].get_offsets())
            np.testing.assert_array_equal(points, data[:, [j, i]])
            assert axes.lines[-1].get_xydata().tolist() == [[j, i]]
    assert legend_of(figure) == ["data", "samples", "truth"]
    figure.draw_without_rendering()
    for axes in figure.axes:  # ticks are apart from the ends, where labels would collide
        low, high = axes.get_xlim()
        ticks = (axes.get_xticks() - low) / (high - low)
        assert ((ticks > 0.1) & (ticks < 0.9)).all()
    frame = figure.bbox
    for axes in panels[-1]:
        box = axes.xaxis.label.get_window_extent()
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0


def test_samples_alone_are_filled_and_need_no_legend(rng: Any) -> None:
    figure = new_figure(4, 4)
    panels = mf.plot.corner(rng.normal(size=(500, 2)), fig=figure)
    assert panels[0, 0].patches[0].get_facecolor() == to_rgba(SAMPLE_COLOUR, 0.5)
    assert legend_of(figure) == []


def test_columns_are_chosen_named_and_found_in_frames(rng: Any) -> None:
    rows = rng.normal([0, 10, 100], size=(300, 3))
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    frame["word"] = "x"
    data = pl.DataFrame({"c": rows[:, 2], "a": rows[:, 0], "more": rows[:, 1], "b": rows[:, 1]})
    truth = {"c": 99.0, "b": 9.0}
    panels = mf.plot.corner(frame, data=data, truth=truth, columns=["c", 0], fig=new_figure(4, 4))
    assert [axes.get_xlabel() for axes in panels[-1]] == ["c", "a"]
    points = np.asarray(panels[1, 0].collections[0].get_offsets())
    np.testing.assert_array_equal(points, rows[:, [2, 0]])
    assert panels[0, 0].lines[0].get_xdata() == [99, 99]
    assert len(panels[1, 1].lines) == 0  # of which no truth is known
    found = mf.plot.corner(
        torch.as_tensor(rows), truth=[1, 2, None], columns=[1], names=["B"], fig=new_figure(4, 4)
    )
    assert found[0, 0].get_xlabel() == "B"
    assert found[0, 0].lines[0].get_xdata() == [2, 2]


def test_rows_count_by_their_weights(rng: Any) -> None:
    rows = np.concatenate([rng.normal(size=(500, 2)), rng.normal(9, 1, size=(500, 2))])
    weights = np.repeat([1.0, 0.0], 500)
    for given in (
        {"thing": rows, "weights": weights},
        {"thing": rows[:500], "data": rows, "data_weights": weights},
        {"thing": pd.DataFrame(rows).set_index(pd.Index(weights, name="weights"))},
    ):
        panels = mf.plot.corner(fig=new_figure(4, 4), **given)
        assert panels[0, 0].get_xlim()[1] < 5
        assert area_of(panels[0, 0].patches[0]) == pytest.approx(1, abs=0.02)
    assert limits_of(rows[:, 0], weights=weights)[1] < 5
    layer = Layer(rows, SAMPLE_COLOUR, weights=np.repeat([1.0, 3.0], 500))
    assert layer.size == pytest.approx((4 * 500) ** 2 / (10 * 500))
    axes = new_figure(3, 3).subplots()
    layer.points(axes, 0, 1)
    drawn = np.asarray(axes.collections[0].get_offsets())
    assert (drawn[:, 0] > 5).mean() == pytest.approx(0.75, abs=0.06)


def test_few_rows_are_points_and_many_are_thinned(rng: Any) -> None:
    panels = mf.plot.corner(rng.normal(size=(5, 2)), data=np.zeros((3, 2)), fig=new_figure(4, 4))
    assert len(panels[1, 0].collections) == 1
    panels = mf.plot.corner(
        rng.normal(size=(99, 2)), data=rng.normal(size=(9999, 2)), fig=new_figure(4, 4)
    )
    assert len(panels[1, 0].collections[0].get_offsets()) == POINTS


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    kind = rng.choice(["u", "v"], 200)
    return pd.DataFrame({"a": rng.normal(size=200), "kind": kind, "b": rng.normal(5, 2, 200)})


@pytest.fixture(scope="module")
def estimator(table: pd.DataFrame) -> mf.DensityEstimator:
    return mf.DensityEstimator("gaussian", work=0.1).fit(table)


@pytest.fixture(scope="module")
def given(table: pd.DataFrame) -> mf.DensityEstimator:
    return mf.DensityEstimator("gaussian", work=0.1).fit(table[["b"]], context=table[["kind"]])


NAMED = NamedDensity.of(Independent(Normal(torch.zeros(2), 1.0), 1), ["mass", "radius"])


def test_a_flow_in_training_is_drawn_as_it_would_be_used() -> None:
    flow = mf.flows.MAF(2, batch_norm=True).train()
    found = [samples_of(one, 50, 0).rows for one in (flow, copy.deepcopy(flow).eval())]
    np.testing.assert_array_equal(*found)
    assert flow.training


def test_what_may_be_drawn(
    table: pd.DataFrame, estimator: mf.DensityEstimator, given: mf.DensityEstimator, tmp_path: Path
) -> None:
    flow = mf.flows.MAF(2, context=1)
    run = Run(tmp_path, None, small_density(flow))  # type: ignore[arg-type]
    cases: list[tuple[Any, dict[str, Any], list[str]]] = [
        (mf.flows.MAF(3), {}, ["x0", "x1", "x2"]),
        (flow, {"context": [1.0]}, ["x0", "x1"]),
        (flow, {"context": np.ones((1, 1))}, ["x0", "x1"]),  # in double precision
        (flow(torch.ones(1)), {}, ["x0", "x1"]),
        (small_density(flow), {"context": [1.0]}, ["a", "b"]),
        (Normal(0.0, 1.0), {}, ["x0"]),
        (Posterior(), {"x": [1.0, 2.0]}, ["x0", "x1"]),
        (Conjugate(), {"x": torch.ones(2)}, ["x0", "x1"]),
        (Wrong(), {}, ["x0", "x1"]),
        (NAMED, {}, ["mass", "radius"]),
        (estimator, {}, ["a", "b"]),
        (estimator.fitted_, {}, ["a", "b"]),
        (given, {"context": table[["kind"]][:1]}, ["b"]),
        (given, {"context": {"kind": "u"}}, ["b"]),
        (given, {"context": ["u"]}, ["b"]),
        (run, {"context": pl.DataFrame({"c": [1.0], "more": ["x"]})}, ["a", "b"]),
        (run, {"context": [1.0]}, ["a", "b"]),
        ([[1.0, 2.0], [3.0, 5.0]], {}, ["x0", "x1"]),
    ]
    before = torch.get_rng_state()
    for thing, options, names in cases:
        first, again, other = (samples_of(thing, 50, seed, **options).rows for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert isinstance(thing, list) or (first != other).any()
        panels = mf.plot.corner(thing, n=50, columns=[-1 + len(names)], fig=Figure(), **options)
        assert panels[0, 0].get_xlabel() == names[-1]
        assert first.shape == (2 if isinstance(thing, list) else 50, len(names))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("thing", "options", "message"),
    [
        ("run", {}, "thing: expected a flow, .* got a str"),
        (mf.DensityEstimator(), {}, "call its fit first"),
        (np.zeros((9, 2)), {"columns": ["a"]}, "columns: expected some of x0, x1, got 'a'"),
        (np.zeros((9, 2)), {"columns": [2]}, "got 2"),
        (np.zeros((9, 2)), {"columns": []}, "columns: expected 1 to 16 of the 2, got 0"),
        (np.zeros((9, 20)), {}, "columns: expected 1 to 16 of the 20, got 20"),
        (np.zeros((9, 2)), {"names": ["a"]}, "names: expected 2"),
        (np.zeros((9, 2)), {"truth": [1, 2, 3]}, "truth: expected 2 numbers, .* got 3"),
        (np.zeros((9, 2)), {"truth": {"y": 1}}, "truth: expected some of x0, x1, got 'y'"),
        (np.zeros((9, 2)), {"data": np.zeros((9, 3))}, "data: expected 2 columns .* got 3"),
        (np.zeros((9, 2)), {"weights": np.ones(8)}, "weights: expected one for each of the 9"),
        (np.zeros((9, 2)), {"weights": -np.ones(9)}, "weights: expected finite numbers"),
        (np.full((9, 2), np.nan), {}, "thing: expected rows of finite numbers, got none"),
        (np.zeros((9, 2)), {"x": [1.0]}, "x: expected none here: only posteriors have"),
        (mf.flows.MAF(2), {"weights": [1.0]}, "weights: expected none here: only samples"),
        (NAMED, {"context": [1.0]}, "context: expected none here: only flows"),
        (mf.flows.MAF(2), {"x": [1.0]}, "x: expected none"),
        (Normal(0.0, 1.0), {"context": [1.0]}, "context: expected none here: only flows"),
        (mf.flows.MAF(2, context=1), {}, "c: expected a context"),
        (mf.flows.MAF(2, context=1), {"context": np.zeros((3, 1), "f")}, "one context at a time"),
        (small_density(mf.flows.MAF(2, context=1)), {}, "context: expected one row of c"),
        (small_density(mf.flows.MAF(2, context=1)), {"context": [1, 2]}, "one row of c"),
        (small_density(mf.flows.MAF(2, context=1)), {"context": {"d": 1}}, "expected c, got d"),
        (small_density(mf.flows.MAF(2, context=1)), {"context": {"c": [1, 2]}}, "one row of c"),
        (small_density(mf.flows.MAF(2)), {}, "context: expected one row of c"),
        ({"a": ["x", "y"]}, {}, "thing: expected a column of numbers, got a"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    thing: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        mf.plot.corner(thing, fig=new_figure(4, 4), n=50, **options)
    assert "\n" not in str(caught.value)


def test_without_a_figure_it_is_pyplots() -> None:
    from matplotlib import pyplot as plt

    with mpl.rc_context({"backend": "agg"}):
        panels = mf.plot.corner(np.zeros((30, 2)) + np.arange(30)[:, None])
        axes = mf.plot.density(Normal(0.0, 1.0))
        assert panels[0, 0].figure.number in plt.get_fignums()
        plt.close(panels[0, 0].figure)
        plt.close(axes.figure)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 5), (-7, 33), (0, 40), (0, 95), (10, 9000)])
def test_whole_numbers_are_in_the_middle_of_bins(low: int, high: int) -> None:
    values = np.arange(low, high + 1.0)
    limits = limits_of(values, tail=0)
    edges = bin_edges(values, limits, 40)
    assert (edges % 1 == 0.5).all()
    assert edges[0] < low <= high < edges[-1]
    assert min(len(values), 20) < len(edges) <= 41
    counts, _ = np.histogram(values, edges)
    assert len(set(counts[counts > 0][1:-1])) <= 1  # no comb
    inside = (limits[0] + 0.25, limits[0] + 0.3)
    assert len(bin_edges(values, inside, 40)) == 2  # and none in it
    np.testing.assert_array_equal(bin_edges(values + 0.5, (0, 4), 2), [0, 2, 4])


def test_counts_make_no_comb_in_any_picture(rng: Any) -> None:
    counts = rng.poisson([3, 50], size=(4000, 2))
    panels = mf.plot.corner(counts, fig=new_figure(4, 4))
    ax = mf.plot.density(Normal(3.0, 2.0), data=counts[:, 0], ax=new_figure(4, 3).subplots())
    found = PredictiveCheck(("a", "b"), np.array([2.0, 48.0]), counts.astype(float))
    checks = mf.plot.predictive(found, fig=new_figure(5, 2))
    bars = [one.patches[0] for one in (*panels.diagonal(), ax, *checks)]
    for one, size in zip(bars, [3, 50, 3, 3, 50], strict=True):
        heights, edges, _ = one.get_data()
        near = np.abs(edges[:-1] + edges[1:] - 2 * size) / 2 < size**0.5
        assert (heights[near] > 0).all()
        assert area_of(one) == pytest.approx(1, abs=0.02)
    paths = panels[1, 0].collections[0].get_paths()
    assert sum(len(path.vertices) > 0 for path in paths) <= 3


# ---------------------------------------------------------------------------------------- density


def test_a_curve_is_the_density(rng: Any) -> None:
    axes = new_figure(4, 3).subplots()
    data = rng.normal(1, 2, size=300)
    thing = Normal(torch.tensor(1.0, dtype=torch.float64), 2.0)
    assert mf.plot.density(thing, data=data, truth=[2.0], names=["a"], ax=axes) is axes
    x, y = curve_of(axes)
    assert y == pytest.approx(norm.pdf(x, 1, 2))
    assert np.trapezoid(y, x) == pytest.approx(1, abs=5e-3)
    assert area_of(axes.patches[0]) == pytest.approx(1, abs=0.02)
    assert axes.lines[1].get_xdata() == [2, 2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "density")
    assert legend_of(axes) == ["density", "data", "truth"]


def test_areas_of_the_plane_hold_their_share() -> None:
    """Those of a Gaussian with 80% are ellipses of radius √(-2 log 0.2)."""
    axes = new_figure(4, 3).subplots()
    thing = Independent(Normal(torch.tensor([1.0, -5.0]), torch.tensor([2.0, 0.1])), 1)
    limits = [(-9.0, 11.0), (-5.5, -4.5)]
    mf.plot.density(thing, limits=limits, truth=[1.0, -5.0], ax=axes)
    assert (axes.get_xlim(), axes.get_ylim()) == ((-9, 11), (-5.5, -4.5))
    paths = axes.collections[0].get_paths()
    assert len(paths) == 6
    outer = paths[2].vertices  # between 80% and 60%
    radius = np.hypot((outer[:, 0] - 1) / 2, (outer[:, 1] + 5) / 0.1)
    assert radius.max() == pytest.approx(np.sqrt(-2 * np.log(0.2)), abs=0.03)
    assert radius.min() == pytest.approx(0, abs=1e-9) or radius.min() == pytest.approx(
        np.sqrt(-2 * np.log(0.4)), abs=0.03
    )


def test_outside_of_its_support_a_density_is_zero() -> None:
    axes = mf.plot.density(Exponential(2.0), ax=new_figure(4, 3).subplots())
    x, y = curve_of(axes)
    assert y == pytest.approx(np.where(x < 0, 0, 2 * np.exp(-2 * x)), abs=1e-5)


def test_densities_of_flows_estimators_and_posteriors(
    table: pd.DataFrame, given: mf.DensityEstimator
) -> None:
    flow = mf.flows.MAF(1, context=2).double()
    for thing, options in (
        (given, {"context": table[["kind"]][:1]}),
        (flow, {"context": np.zeros(2)}),
        (Posterior(), {"x": [1.0]}),
        (Conjugate(), {"x": torch.ones(1)}),
    ):
        axes = mf.plot.density(thing, points=300, ax=new_figure(4, 3).subplots(), **options)
        line, heights = curve_of(axes)
        assert np.trapezoid(heights, line) == pytest.approx(1, abs=0.01)
    axes = mf.plot.density(NAMED, points=40, ax=new_figure(4, 3).subplots())
    assert axes.get_xlabel() == "mass"
    small = small_density(mf.flows.MAF(2, context=1))
    axes = new_figure(4, 3).subplots()
    mf.plot.density(small, context=[0.0], points=40, data=np.zeros((5, 2)), ax=axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")


@pytest.mark.parametrize(
    ("thing", "options", "message"),
    [
        (np.zeros((9, 2)), {}, r"thing: expected something with a log_prob"),
        (mf.flows.MAF(3), {}, "density of one or two numbers, got one of 3"),
        (Normal(torch.zeros(2), 1.0), {}, r"one distribution of vectors, got a batch"),
        (Wrong(), {}, r"a log-density a row, shape \(\d+,\)"),
        (Normal(0.0, 1.0), {"limits": [(1, 0)]}, "limits: expected 1 pairs"),
        (Normal(0.0, 1.0), {"names": ["a", "b"]}, "names: expected 1"),
        (Normal(0.0, 1.0), {"points": 1}, "points: expected at least 2, got 1"),
    ],
)
def test_what_has_no_picture_of_its_density(
    thing: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        mf.plot.density(thing, ax=new_figure(4, 3).subplots(), **options)


# ------------------------------------------------------------------------------------ calibration


def test_ranks_are_bars_with_a_verdict() -> None:
    theta = torch.randn(300, 2)
    found = sbc(Posterior(), theta, theta + torch.randn(300, 2), n=99, names=["a", "b"])
    figure = new_figure(5, 2)
    axes = mf.plot.ranks(found, fig=figure)
    assert list(axes) == figure.axes
    assert [one.get_title() for one in axes] == ["a: calibrated", "b: calibrated"]
    for one, counts in zip(axes, found.counts, strict=True):
        heights, edges, _ = one.patches[-1].get_data()
        assert heights.tolist() == counts.tolist()
        assert (edges[0], edges[-1]) == (0, 99)
        band = one.patches[0]
        inside = (band.get_y() <= heights) & (heights <= band.get_y() + band.get_height())
        assert inside.mean() > 0.9
    many = Ranks(tuple("abcdef"), np.zeros((50, 6), np.int64), 9, np.zeros((50, 6)))
    assert len(mf.plot.ranks(many, fig=new_figure(5, 4))) == 6


def test_coverages_are_curves_beside_the_diagonal(rng: Any) -> None:
    found = Coverage("balls", rng.random(200) ** 2)
    axes = mf.plot.coverage(found, ax=new_figure(4, 4).subplots())
    diagonal, curve = axes.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    np.testing.assert_array_equal(curve.get_ydata(), found.coverage)
    assert legend_of(axes) == ["balls"]
    both = mf.plot.coverage({"a": found, "b": found}, ax=new_figure(4, 4).subplots())
    assert legend_of(both) == ["a", "b"]
    assert len({line.get_color() for line in both.lines}) == 3


def test_predictions_are_histograms_with_the_observation(rng: Any) -> None:
    found = PredictiveCheck(("a", "b"), np.array([0.0, 30.0]), rng.normal(size=(200, 2)))
    axes = mf.plot.predictive(found, fig=new_figure(5, 2))
    assert [one.get_title() for one in axes] == [f"a: p = {found.p_values[0]:.2g}", "b: p = 0.01"]
    assert [one.lines[0].get_xdata()[0] for one in axes] == [0, 30]
    assert axes[1].get_xlim()[1] > 30
    many = PredictiveCheck(tuple("abcdefghijklmnopq"), np.zeros(17), np.zeros((5, 17)))
    with pytest.raises(ValueError, match="up to 16 statistics, got 17"):
        mf.plot.predictive(many, fig=new_figure(4, 4))
