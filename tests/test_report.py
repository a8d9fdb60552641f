"""Pictures: what is drawn where."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

import maskedflow as mf
from maskedflow.data import Dataset, Split
from maskedflow.report import (
    DATA_COLOUR,
    SAMPLE_COLOUR,
    density_on_grid,
    density_panel,
    image_grid,
    new_figure,
    pair_grid,
    plane_limits,
    point_panel,
    run_picture,
    samples_picture,
    save,
    training_curve,
)
from maskedflow.report.of_run import finite
from maskedflow.report.plots.images import tile
from maskedflow.runs import Run
from small_runs import gaussian, trained


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def drawn(figure: Figure, path: Path) -> np.ndarray:
    save(figure, path, dpi=50)
    return np.asarray(imread(path))


def test_a_picture_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "p.png"
    image = drawn(new_figure(2, 1), path)
    assert image.shape[:2] == (50, 100)

    figure = new_figure(1, 1)
    figure.add_artist(_Failing())
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        save(figure, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["p.png"]


class _Failing(mpl.artist.Artist):
    def draw(self, *_: object) -> None:
        raise RuntimeError("cannot be drawn")


# ----------------------------------------------------------------------------------------- images


def test_images_are_laid_out_row_by_row() -> None:
    images = np.arange(5)[:, None, None, None] * np.ones((5, 1, 2, 3)) / 10
    sheet = tile(images, columns=3)
    assert sheet.shape == (5, 11, 1)
    assert sheet[0, 0, 0] == 0.0
    assert sheet[0, 4, 0] == 0.1
    assert sheet[3, 0, 0] == pytest.approx(0.3)
    assert sheet[2].min() == sheet[:, 3].min() == 1.0  # the gaps
    assert sheet[3:, 8:].min() == 1.0  # where there is no sixth image


def test_grey_and_colour_images(tmp_path: Path) -> None:
    figure = new_figure(4, 2)
    left, right = figure.subplots(1, 2)
    image_grid(left, np.full((4, 9), 8), (1, 3, 3), levels=17, title="grey")
    red = np.concatenate([np.full((4, 9), 255), np.zeros((4, 18))], axis=1)
    image_grid(right, red, (3, 3, 3), title="red")
    assert left.images[0].get_array() is not None
    pixels = drawn(figure, tmp_path / "p.png")[..., :3]
    grey, colour = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    assert (np.abs(grey - 0.5).max(axis=-1) < 0.02).mean() > 0.3
    assert (np.abs(colour - [1, 0, 0]).max(axis=-1) < 0.02).mean() > 0.3
    assert titles(figure) == ["grey", "red"]


def test_pixels_beyond_the_levels_are_clipped() -> None:
    axes = new_figure(1, 1).subplots()
    image_grid(axes, np.array([[-5.0, 300.0]]), (1, 1, 2))
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match="4 pixels"):
        image_grid(axes, np.zeros((3, 5)), (1, 2, 2))


# ------------------------------------------------------------------------------------------ plane


def test_the_density_integrates_to_one_and_lies_the_right_way_up() -> None:
    normal = torch.distributions.Normal(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.2]))
    limits = ((-1.0, 4.0), (-3.5, -0.5))
    density = density_on_grid(lambda x: normal.log_prob(x).sum(-1), limits, points=150)
    cell = (5.0 / 150) * (3.0 / 150)
    assert density.sum() * cell == pytest.approx(1, abs=1e-3)
    row, column = np.unravel_index(density.argmax(), density.shape)
    assert (-1 + 5 * (column + 0.5) / 150, -3.5 + 3 * (row + 0.5) / 150) == pytest.approx(
        (1.0, -2.0), abs=0.05
    )


def test_panels_of_the_plane_share_their_limits(rng: np.random.Generator) -> None:
    points = rng.normal(size=(2000, 2))
    points[0] = 1e6  # one wild point
    limits = plane_limits(points)
    assert limits[0][1] < 10
    left, right = new_figure(4, 2).subplots(1, 2)
    point_panel(left, points, limits, colour=DATA_COLOUR, title="data", names=("u", "v"))
    density_panel(right, np.ones((10, 10)), limits, title="density")
    assert left.get_xlim() == right.get_xlim() == limits[0]
    assert left.get_ylim() == right.get_ylim() == limits[1]
    assert (left.get_xlabel(), left.get_ylabel()) == ("u", "v")
    assert plane_limits(np.zeros((3, 2))) == ((-0.6, 0.6), (-0.6, 0.6))


# ------------------------------------------------------------------------------------------ pairs


def colours(axes: Axes) -> list[str]:
    return [to_hex(np.asarray(points.get_facecolor())[0]) for points in axes.collections]


@pytest.mark.parametrize("features", [1, 2, 3, 5])
def test_each_pair_of_columns_has_a_panel(
    features: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    figure = new_figure(5, 5)
    data, samples = rng.normal(size=(50, features)), rng.normal(size=(40, features))
    names = [f"column {i}" for i in range(features)]
    corner = pair_grid(figure, data, samples, names)
    assert (corner is None) == (features == 1)
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == features * (features + 1) // 2
    pairs = [axes for axes in panels if axes.collections]
    assert len(pairs) == features * (features - 1) // 2
    assert all(colours(axes) == [DATA_COLOUR, SAMPLE_COLOUR] for axes in pairs)  # samples above
    assert [axes.get_xlabel() for axes in panels[-features:]] == names
    assert drawn(figure, tmp_path / "p.png").std() > 0


def test_a_wide_table_shows_some_of_its_columns(rng: np.random.Generator) -> None:
    figure = new_figure(5, 5)
    names = [str(i) for i in range(30)]
    pair_grid(figure, None, rng.normal(size=(20, 30)), names, columns=4)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_xlabel() for axes in panels[-4:]] == ["0", "10", "19", "29"]


def test_samples_do_not_set_the_limits(rng: np.random.Generator) -> None:
    figure = new_figure(5, 5)
    pair_grid(figure, rng.normal(size=(50, 2)), np.full((3, 2), 1e9), ["a", "b"])
    assert all(axes.get_xlim()[1] < 10 for axes in figure.axes if axes.axison)


# ------------------------------------------------------------------------------------------ curve


def test_the_curve_marks_the_best_epoch_and_cuts_off_the_fall() -> None:
    axes = new_figure(3, 2).subplots()
    validation = [1e6, *np.linspace(3, 1, 18), 2.0]
    training_curve(axes, [1e6, *np.linspace(3, 1, 19)], validation)
    train, held_out, best = axes.lines
    assert [len(np.asarray(line.get_xdata())) for line in (train, held_out, best)] == [20, 20, 1]
    assert (np.asarray(best.get_xdata()).item(), np.asarray(best.get_ydata()).item()) == (19, 1.0)
    assert axes.get_ylim()[1] < 5


def test_a_curve_of_one_epoch_and_one_with_gaps(tmp_path: Path) -> None:
    for number, losses in enumerate(([2.0], [2.0, float("nan"), 1.0])):
        figure = new_figure(3, 2)
        training_curve(figure.subplots(), losses, losses)
        assert drawn(figure, tmp_path / f"{number}.png").std() > 0
    with pytest.raises(ValueError, match="1 and 2"):
        training_curve(new_figure(1, 1).subplots(), [1.0], [1.0, 2.0])


# ------------------------------------------------------------------------------- a run's picture


def test_images_are_shown_beside_samples(tmp_path: Path) -> None:
    dataset = mf.data.load("digits")
    run = trained(tmp_path / "digits", dataset)
    figure = run_picture(run, dataset.test, num_samples=9)
    assert titles(figure) == ["digits: test images", "samples", ""]
    assert figure.axes[0].images[0].get_array().shape == (3 * 9 - 1, 3 * 9 - 1)  # type: ignore[union-attr]
    assert len(figure.axes[2].lines) == 3
    assert drawn(figure, tmp_path / "p.png").std() > 0


@pytest.mark.parametrize("context", [False, True])
def test_the_plane_is_shown_as_data_density_and_samples(context: bool, tmp_path: Path) -> None:
    dataset = _plane(context)
    run = trained(tmp_path / "plane", dataset, epochs=2)
    figure = run_picture(run, dataset.test, num_samples=30)
    assert titles(figure) == ["plane: test data", "learned density", "samples", ""]
    data, density, samples, curve = figure.axes
    shown = [np.asarray(axes.collections[0].get_offsets()) for axes in (data, samples)]
    assert [points.shape for points in shown] == [(30, 2), (30, 2)]
    assert np.asarray(density.images[0].get_array()).min() >= 0
    assert len(curve.lines) == 3
    assert drawn(figure, tmp_path / "p.png").std() > 0


def _plane(context: bool) -> Dataset:
    def split(n: int) -> Split:
        return Split(torch.randn(n, 2), torch.randn(n, 1) if context else None)

    names = ("t",) if context else ()
    return Dataset("plane", split(200), split(50), split(50), ("x", "y"), context_columns=names)


@pytest.mark.parametrize("features", [1, 3])
def test_tables_are_shown_in_pairs(features: int, tmp_path: Path) -> None:
    def columns(split: Split) -> Split:
        return Split(split.x[:, :features])

    whole = gaussian(200)
    parts = [columns(s) for s in (whole.train, whole.validation, whole.test)]
    dataset = Dataset("g", parts[0], parts[1], parts[2], ("a", "b", "c")[:features])
    run = trained(tmp_path / "g", dataset)
    figure = run_picture(run, dataset.test)
    lines = [axes.lines for axes in figure.findobj(Axes) if axes.get_xlabel() == "epoch"]
    assert [len(line) for line in lines] == [3]
    assert drawn(figure, tmp_path / "p.png").std() > 0


def test_a_picture_without_the_log_has_no_curve(tmp_path: Path) -> None:
    dataset = gaussian(200)
    run = trained(tmp_path / "g", dataset)
    (tmp_path / "g" / "logs" / "metrics.jsonl").unlink()
    again = Run(run.directory, run.config, run.density)
    figure = run_picture(again, dataset.test)
    assert not [a for a in figure.findobj(Axes) if a.get_xlabel() == "epoch"]


def test_the_same_seed_draws_the_same_picture(tmp_path: Path) -> None:
    dataset = gaussian(200)
    run = trained(tmp_path / "g", dataset)
    images = [drawn(run_picture(run, dataset.test), tmp_path / f"{i}.png") for i in range(2)]
    np.testing.assert_array_equal(images[0], images[1])


@pytest.mark.parametrize("name", ["digits", "moons", "g"])
def test_samples_alone(name: str, tmp_path: Path) -> None:
    dataset = gaussian(200) if name == "g" else mf.data.load(name)
    run = trained(tmp_path / name, dataset)
    figure = samples_picture(run, run.flow().sample((10,)))
    assert drawn(figure, tmp_path / "p.png").std() > 0
    assert len(figure.axes) == {"digits": 1, "moons": 1, "g": 7}[name]
    assert not [axes for axes in figure.findobj(Axes) if not axes.has_data() and axes.axison]


def test_draws_that_ran_away_are_left_out() -> None:
    drawn = np.array([[1.0, 2.0], [np.inf, 0.0], [np.nan, 1.0], [3.0, 4.0]])
    assert finite(drawn).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match="samples: expected finite numbers, got none in 2 draws"):
        finite(drawn[1:3])
