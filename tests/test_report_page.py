"""The report: its facts against independent answers, and the page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy.stats import multivariate_normal, norm

import maskedflow as mf
from browser import CHROMIUM, MISSING, Browser
from commands import call, pair, run, table, write_csv
from evidence import evidence
from maskedflow.report import (
    SECTIONS,
    Column,
    Evidence,
    Image,
    Section,
    Subject,
    run_report,
    write_report,
)
from maskedflow.report.sections.corner import corner_columns
from maskedflow.report.sections.latent import Latent
from maskedflow.report.sections.samples import nearest
from maskedflow.report.sections.two_sample import TwoSample
from mixed_tables import ANGLE, mixed
from small_runs import gaussian, trained

COVARIANCE = np.array([[1.0, 0.8, 0.0], [0.8, 2.0, 0.3], [0.0, 0.3, 0.5]])
NORMAL = multivariate_normal(np.zeros(3), COVARIANCE)


def rows(n: int, seed: int = 0) -> np.ndarray:
    factor = np.linalg.cholesky(COVARIANCE)
    found: np.ndarray = np.random.default_rng(seed).normal(size=(n, 3)) @ factor.T
    return found


def sample(n: int, generator: torch.Generator) -> np.ndarray:
    factor = torch.from_numpy(np.linalg.cholesky(COVARIANCE))
    drawn = torch.randn(n, 3, generator=generator, dtype=torch.float64) @ factor.T
    return drawn.numpy()


def truth(**changes: Any) -> Subject:
    """The density that made the rows, under the name of a tag."""
    factor = np.linalg.cholesky(COVARIANCE)
    known: dict[str, Any] = {
        "columns": tuple(Column(name) for name in ("<b>a", "b", "c")),
        "log_prob": NORMAL.logpdf,
        "sample": sample,
        "latent": lambda x: np.linalg.solve(factor, x.T).T,
        "notes": [("data", "<script>alert(1)</script>")],
    }
    return Subject("the <truth>", **{**known, **changes})


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of a table with contexts, of the plane, of images, of mixed tables."""
    folder = tmp_path_factory.mktemp("reports")
    given = write_csv(folder / "given.csv", ["a", "b", "c"], table())
    words = ("--hidden_dim", 8, "--num_layers", 1, "--epochs", 3, "--batch_size", 100)
    own = ("--data", given, "--context", "c"), ("--data", pair(folder, 200))
    for source in (*own, ("--dataset", "digits")):
        assert run("train", *source, "--out", folder, *words, "--report") == 0
    people = mixed(240)
    estimator = mf.DensityEstimator("gaussian", schema=ANGLE, missing="model", work=0.2)
    estimator.fit(people[:140]).report(people[140:], folder / "people.html", train=people[:140])
    write_report(_mixed(), _cells(300), _cells(300, 1), _cells(200, 2), folder / "mixed.html")
    found = {name: folder / name / "report.html" for name in ("given", "t", "digits")}
    return {**found, **{name: folder / f"{name}.html" for name in ("mixed", "people")}}


def _cells(n: int, seed: int = 0) -> np.ndarray:
    """A number, some of them missing, and a category."""
    rng = np.random.default_rng(seed)
    code = rng.integers(3, size=n)
    number = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n) + code)
    return np.stack([number, code], axis=1)


def _mixed() -> Subject:
    def log_prob(cells: np.ndarray) -> np.ndarray:
        here = ~np.isnan(cells[:, 0])
        number = norm.logpdf(np.where(here, cells[:, 0] - cells[:, 1], 0))
        scores: np.ndarray = np.where(here, number + np.log(0.9), np.log(0.1)) - np.log(3)
        return scores

    return Subject(
        "mixed",
        (Column("number"), Column("colour", ("red", "green", "blue"))),
        log_prob,
        lambda n, generator: _cells(n, int(torch.randint(2**31, (), generator=generator))),
    )


# ------------------------------------------------------------------------------------------ facts


@pytest.mark.usefixtures("blank")
def test_the_true_density_passes_every_test(tmp_path: Path) -> None:
    page = write_report(truth(), rows(2000), rows(500, 1), rows(1500, 2), tmp_path / "r.html")
    own, full, mixture, kernels = page.likelihood.found
    assert own.nll.value == pytest.approx(-NORMAL.logpdf(rows(1500, 2)).mean())
    assert own.nll.error == pytest.approx(2 * NORMAL.logpdf(rows(1500, 2)).std() / 1500**0.5, 1e-2)
    assert own.bpd.value == pytest.approx(own.nll.value / 3 / np.log(2))
    assert full.name == "full Gaussian"
    for other in (full, mixture, kernels):
        assert other.behind is not None
        # The truth can be beaten by chance only; pairs make that chance small.
        assert (
            -other.behind.error
            < other.behind.value
            == pytest.approx(other.nll.value - own.nll.value)
        )
    assert full.behind is not None
    assert full.behind.error < own.nll.error / 4
    assert (page.numbers.numbers, page.numbers.far) == (3, 0)
    for mean in (page.test.accuracy, page.test.auc):
        assert abs(mean.value - 0.5) < 1.5 * mean.error
    assert page.correlations.largest < 2 * page.correlations.by_chance
    assert page.columns.outliers == 0
    assert all(one.distance < 0.08 for one in page.columns.marginals)
    order = np.argsort(NORMAL.logpdf(rows(1500, 2)))
    assert page.extremes.least[0].log_prob == pytest.approx(NORMAL.logpdf(rows(1500, 2)[order[0]]))
    assert page.extremes.most[0].log_prob == pytest.approx(NORMAL.logpdf(rows(1500, 2)[order[-1]]))


@pytest.mark.usefixtures("blank")
def test_a_wrong_density_is_found_out(tmp_path: Path) -> None:
    def independent(n: int, generator: torch.Generator) -> np.ndarray:
        drawn = torch.randn(n, 3, generator=generator, dtype=torch.float64).numpy()
        drawn[0] = 1e9  # and one is far away, one overflows
        drawn[1] = np.inf
        return np.asarray(drawn * np.sqrt(np.diag(COVARIANCE)))

    # What takes features for independent believes in correlated numbers behind them.
    wrong = truth(sample=independent, latent=lambda x: 0.7 * x / np.sqrt(np.diag(COVARIANCE)))
    page = write_report(wrong, rows(1000), rows(500, 1), rows(1000, 2), tmp_path / "r.html")
    assert page.numbers.far == 3
    assert page.numbers.correlation == pytest.approx(0.8 / 2**0.5, abs=0.05)
    assert page.numbers.worst[0][2] == pytest.approx(0.7, abs=0.05)
    assert page.test.auc.value - page.test.auc.error > 0.6
    assert page.correlations.pair == ("<b>a", "b")
    assert page.correlations.samples == pytest.approx(0, abs=0.08)
    assert page.columns.outliers == 4
    assert "are 4 of 2,000 samples" in _text(tmp_path / "r.html")


@pytest.mark.usefixtures("blank")
def test_large_tests_are_sampled_and_few_rows_are_enough(tmp_path: Path) -> None:
    several = truth(log_prob=lambda x: np.zeros(len(x)), latent=None)
    page = write_report(several, rows(50), rows(20), rows(10_500), tmp_path / "r.html")
    assert page.rows == (10_000, 10_500)
    assert "10,000 of 10,500 test rows" in _text(tmp_path / "r.html")
    page = write_report(several, rows(4), rows(3), rows(1), tmp_path / "r.html")
    assert page.rows == (1, 1)
    assert page.test is None
    with pytest.raises(ValueError, match="no test rows"):
        write_report(several, rows(4), rows(3), rows(0), tmp_path / "r.html")


@pytest.mark.usefixtures("blank")
def test_one_column(tmp_path: Path) -> None:
    one = Subject(
        "one",
        (Column("x"),),
        lambda x: np.asarray(norm.logpdf(x[:, 0])),
        lambda n, g: torch.randn(n, 1, generator=g).numpy(),
        latent=lambda x: x,
    )
    parts = (np.random.default_rng(seed).normal(size=(200, 1)) for seed in range(3))
    page = write_report(one, *parts, path=tmp_path / "r.html")
    assert (page.correlations, page.samples) == (None, None)
    assert "Samples beside data" not in _text(tmp_path / "r.html")


def test_a_wide_table_shows_the_columns_that_hang_together() -> None:
    subject = truth(columns=tuple(Column(str(i)) for i in range(20)))
    cells = np.random.default_rng(0).normal(size=(500, 20))
    cells[:, [3, 17]] = cells[:, [17, 17]] + 0.1 * cells[:, [3, 4]]
    shown = corner_columns(subject, cells)
    assert len(shown) == 8
    assert {3, 17} <= set(shown)


def test_categories_and_gaps(reports: dict[str, Path]) -> None:
    text = _text(reports["mixed"])
    assert "independent columns" in text
    assert re.search(r"colour 0\.0\d\d", text)
    assert re.search(r"number 0\.\d+ .*\d+\.\d%", text)
    assert "green" in text
    test = TwoSample.of(evidence(_mixed(), _cells(500), np.roll(_cells(500, 1), 1, axis=0)))
    assert test is not None
    assert abs(test.auc.value - 0.5) < 1.5 * test.auc.error


def test_the_conditional_gaussian_knows_its_conditions(reports: dict[str, Path]) -> None:
    text = _text(reports["given"])
    assert "It is conditional on c." in text
    assert "A mixture and kernels know no conditions." in text
    # The same rows, split and Gaussian as in the summary.
    summary = (reports["given"].parent / "results_summary.txt").read_text()
    flow, other = re.findall(r"-?[\d.]+ ± [\d.]+", summary.splitlines()[5])
    assert f"given {flow}" in text.replace("−", "-")
    assert f"full Gaussian {other}" in text.replace("−", "-")


def test_images_have_classes_and_neighbours(reports: dict[str, Path]) -> None:
    text = _text(reports["digits"])
    assert "By class" in text
    assert "test images that it was not trained on" in text
    assert len(re.findall(r"(?<= )[0-9] \d\.\d+ ± ", text)) == 10
    train = rows(40_000)
    found = nearest(train, rows(3, 1), 2)
    apart = ((rows(3, 1)[:, None] - train) ** 2).sum(-1)
    np.testing.assert_array_equal(found, np.argsort(apart, axis=1)[:, :2])


@pytest.mark.usefixtures("blank")
def test_labels_may_be_the_condition(tmp_path: Path) -> None:
    digits = mf.data.load("digits", labels=True)
    config_run = trained(tmp_path / "digits", digits)
    object.__setattr__(config_run.config.data, "dataset", "digits")
    object.__setattr__(config_run.config.data, "labels", True)
    text = _text(run_report(config_run, digits))
    assert "It is conditional on class." in text
    assert "By class" in text


@pytest.mark.usefixtures("blank")
def test_the_random_numbers_are_the_flows_own(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(4000, 5))
    facts = Latent.of(evidence(truth(latent=lambda x: x), z))
    assert facts is not None
    assert (facts.rows, facts.numbers) == (4000, 5)
    assert facts.by_chance == pytest.approx(0.034, abs=1e-3)
    dataset = gaussian(200)
    found = trained(tmp_path / "g", dataset, base={"name": "mixture", "components": 2})
    assert "own random numbers" not in _text(run_report(found, dataset))


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 2)])
def test_grey_and_colour_images(shape: tuple[int, int, int], tmp_path: Path) -> None:
    size = int(np.prod(shape))
    pixels = np.random.default_rng(0).integers(256, size=(80, size)).astype(np.uint8)
    subject = Subject(
        "noise",
        tuple(Column(f"p{i}") for i in range(size)),
        lambda x: np.zeros(len(x)),
        lambda n, g: torch.randint(256, (n, size), generator=g).numpy(),
        image=Image(shape, 256),
    )
    page = write_report(subject, pixels, pixels, pixels, tmp_path / "r.html")
    assert page.samples.nearest is not None
    assert page.likelihood.classes == []


@pytest.mark.usefixtures("blank")
def test_a_section_of_ones_own(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Worst(Section):
        id, title = "worst", "The worst row"
        template = '<h2>Worst</h2>{% call scroll("x") %}{{ facts.log_prob|number }}{% endcall %}'
        log_prob: float

        @classmethod
        def of(cls, evidence: Evidence) -> Worst | None:
            least = float(evidence.log_prob.min())
            return cls(least) if least < -5 else None

    sections = (*SECTIONS[:2], Worst)
    parts, path = (rows(200), rows(50, 1), rows(300, 2)), tmp_path / "r.html"
    page = write_report(truth(), *parts, path, sections=sections)
    assert page.worst.log_prob == NORMAL.logpdf(rows(300, 2)).min()
    outline = _outline(path)
    hrefs = [attributes["href"] for tag, attributes in outline.tags if tag == "a"]
    assert hrefs == ["#likelihood", "#data", "#likelihood", "#worst"]  # one of them found something
    assert f"Worst −{-page.worst.log_prob:.4g}" in " ".join(outline.words)
    page = write_report(truth(log_prob=lambda x: np.zeros(len(x))), *parts, path, sections=sections)
    assert "Worst" not in _text(path)
    assert page.extremes is None
    with pytest.raises(AttributeError, match=r"^worse: expected a section"):
        _ = page.worse


# ----------------------------------------------------------------------------------- command line


@pytest.mark.usefixtures("blank")
def test_other_rows_can_be_reported_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pair(tmp_path, 200)
    words = ("--hidden_dim", 8, "--num_layers", 1, "--epochs", 1)
    assert run("train", "--data", data, "--out", tmp_path, *words) == 0
    assert not (tmp_path / "t" / "report.html").exists()
    other = write_csv(tmp_path / "other.csv", ["x", "b", "a"], table(57))
    code, out, _ = call(capsys, "report", tmp_path / "t", "--data", other)
    assert (code, out) == (0, f"report in {tmp_path / 't' / 'report.html'}\n")
    assert "57 test rows" in _text(tmp_path / "t" / "report.html")
    elsewhere = tmp_path / "pages" / "own.html"
    code, out, _ = call(capsys, "report", tmp_path / "t", "--data", data, "-o", elsewhere)
    assert (code, out) == (0, f"report in {elsewhere}\n")
    assert "160 of these 200 rows were trained on, and 20 chose when to stop." in _text(elsewhere)
    code, _, err = call(capsys, "report", tmp_path / "t", "-o", tmp_path / "page.pdf")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = call(capsys, "report", tmp_path / "t", "--data", tmp_path / "none.csv")
    assert (code, err.count("\n")) == (2, 1)


# --------------------------------------------------------------------------------------- the page


class _Outline(HTMLParser):
    """The text, the headings, the links and the pictures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] != "style":
            self.words += data.split()


def _outline(path: Path) -> _Outline:
    found = _Outline()
    found.feed(path.read_text("utf-8"))
    return found


def _text(path: Path) -> str:
    return " ".join(_outline(path).words)


NAMES = ("given", "t", "digits", "mixed", "people")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_and_in_order(name: str, reports: dict[str, Path]) -> None:
    page, size = _outline(reports[name]), reports[name].stat().st_size
    assert size < 3_000_000
    assert page.headings[0] == 1
    steps = np.diff(page.headings)
    assert steps.max() <= 1
    assert page.headings.count(1) == 1
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) >= 2
    for picture in pictures:
        assert str(picture["src"]).startswith("data:image/png;base64,")
        assert len(str(picture["alt"])) > 15
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        assert tag == "img" or "src" not in attributes
        assert not any(word.startswith("on") for word in attributes)
        href = attributes.get("href")
        if href is not None:
            assert tag == "a"
            assert href.startswith("https://arxiv.org/abs/") or href[1:] in ids


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_written_for_people(name: str, reports: dict[str, Path]) -> None:
    text = _text(reports[name])
    assert not re.findall(r"\d[eE][+-]?\d", text)
    assert not re.findall(r"[−-]0(?:\.0*)?(?![\d.])", text)
    long = re.findall(r".{40}(?<![\d.])\d{5,}(?!\d*/).{20}", text)
    assert not long


def test_matrices_have_names(reports: dict[str, Path]) -> None:
    page = _outline(reports["people"])
    titles = [a["title"] for tag, a in page.tags if tag == "th" and "title" in a]
    assert {"income", "height", "height missing", "city = Bonn"} <= set(titles)
    cells = [a["title"] for tag, a in page.tags if tag == "td" and "title" in a]
    assert any(re.fullmatch(r"income, height: [−]?0\.\d{3}", str(cell)) for cell in cells)


@pytest.mark.parametrize("name", ["given", "t", "digits"])
def test_a_run_leaves_a_picture(name: str, reports: dict[str, Path]) -> None:
    height, width, _ = imread(reports[name].parent / "samples" / f"{name}_samples.png").shape
    assert min(height, width) > 300


@pytest.mark.usefixtures("blank")
def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    write_report(truth(), rows(100), rows(100, 1), rows(100, 2), path)
    page = _outline(path)
    assert not {"script", "b", "truth"} & {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script>" in " ".join(page.words)
    assert "<b>a" in page.words
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with Browser() as found:
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_a_browser_shows_it(name: str, reports: dict[str, Path], browser: Browser) -> None:
    colours = set()
    for width, dark, media in (
        (1280, False, "screen"),
        (390, True, "screen"),
        (320, False, "screen"),
        (720, True, "print"),
    ):
        browser.open(reports[name], width, dark=dark, media=media)
        said = [e for e in browser.events if e[0].startswith(("Log.", "Runtime.c", "Runtime.ex"))]
        kinds = {method for method, _ in said} - {"Runtime.executionContextCreated"}
        assert kinds <= {"Runtime.executionContextsCleared"}, said
        asked = [
            event["request"]["url"].partition(":")[0]
            for method, event in browser.events
            if method == "Network.requestWillBeSent"
        ]
        assert asked.count("file") == 1
        assert set(asked) <= {"file", "data"}
        pictures = browser.value(
            "[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth,"
            " getComputedStyle(i).visibility])"
        )
        assert len(pictures) >= 2
        for complete, natural, shown, visibility in pictures:
            assert complete
            assert min(natural, shown) > 50
            assert visibility == "visible"
        wide = "[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
        page, body, window = browser.value(wide)
        assert max(page, body) <= window
        colours.add(browser.value("getComputedStyle(document.body).backgroundColor"))
        assert browser.value("document.title").endswith("a density report")
    assert len(colours) == 3  # light, dark, paper
