"""Tables of flags, counts and steps, and of numbers that float32 blurs."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import maskedflow as mf
from commands import SMALL, call, run, write_csv
from maskedflow.data.discrete import find_cells, needs_float64
from maskedflow.flows import NSF, Flow
from maskedflow.training import evaluate
from maskedflow.transforms import Dequantize

# ------------------------------------------------------------------------------------------ cells


@given(
    st.sampled_from([1.0, 0.5, 0.25, 0.1, 0.05, 0.01, 3.0, 60.0]),
    st.integers(-200, 200),
    st.integers(2, 40),
)
def test_the_grid_of_values_that_repeat_is_found(step: float, first: int, levels: int) -> None:
    values = np.round(step * (first + np.arange(levels)), 6)
    x = torch.from_numpy(np.repeat(values, 5)).float()[:, None]
    cells, without = find_cells(x, torch.randperm(len(x)), ["x"])
    assert (cells is not None, without) == (True, [])
    assert cells is not None
    assert cells.step.item() == pytest.approx(step)
    transform = cells.dequantize()
    assert transform.holds(x).all()
    y = transform()(x)
    assert ((y - x >= 0) & (y - x <= step)).all()
    assert torch.equal(transform().inv(x + 0.3 * step), x)
    far = torch.tensor([[-1e6], [1e6]])
    assert torch.equal(transform().inv(far)[:, 0], torch.stack([x.min(), x.max()]))


def test_what_is_continuous_stays_so() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=2000)
    columns = {
        "normal": normal,
        "rounded": normal.round(4),
        "row": np.arange(2000),
        "logs": np.log(rng.integers(1, 6, 2000)),
        "capped": np.maximum(normal, 0),
    }
    x = torch.from_numpy(np.stack(list(columns.values()), 1)).float()
    cells, without = find_cells(x, torch.randperm(len(x)), list(columns))
    assert cells is None
    assert without == ["logs", "capped"]


def discrete(n: int = 2000) -> pd.DataFrame:
    """A count, and a flag that follows from it."""
    k = np.random.default_rng(1).integers(0, 4, n)
    return pd.DataFrame({"flag": (k == 0).astype(int), "halves": k / 2})


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[mf.data.Dataset, Flow]:
    """Such a table, and a flow of it that was not trained."""
    path = tmp_path_factory.mktemp("discrete") / "t.csv"
    discrete().to_csv(path, index=False)
    dataset = mf.data.open_table(path)
    front = dataset.preprocessing()
    assert front is not None
    core = NSF(2, transforms=1, hidden_features=[8], generator=torch.Generator().manual_seed(0))
    return dataset, Flow([*front.transforms, *core.transform.transforms], core.base).eval()


def test_cells_have_probabilities_that_add_up_to_one(opened: tuple[mf.data.Dataset, Flow]) -> None:
    _, flow = opened
    grid = itertools.product(range(-8, 10), np.arange(-16, 20) / 2)
    x = torch.tensor(list(grid), dtype=torch.float32)
    assert flow().log_prob(x).exp().sum().item() * 0.5 == pytest.approx(1, abs=5e-3)


def test_a_row_scores_the_same_whatever_others_there_are(
    opened: tuple[mf.data.Dataset, Flow],
) -> None:
    dataset, flow = opened
    whole = evaluate(flow, dataset.test)
    order = torch.randperm(len(whole))
    mixed = evaluate(flow, mf.data.Split(dataset.test.x[order]), batch_size=7, seed=5)
    torch.testing.assert_close(mixed, whole[order], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(flow().log_prob(dataset.test.x).double(), whole)


def test_a_row_off_the_grid_is_impossible(opened: tuple[mf.data.Dataset, Flow]) -> None:
    _, flow = opened
    rows = mf.data.Split(torch.tensor([[0.0, 0.5], [0.5, 0.5], [1.0, 0.3], [2.0, 7.5]]))
    assert evaluate(flow, rows).isfinite().tolist() == [True, False, False, True]


@pytest.mark.parametrize("stream", [False, True])
def test_noise_in_the_cells_is_standardised(stream: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    discrete().to_csv(path, index=False)
    dataset = (mf.data.open_streamed if stream else mf.data.open_table)(path)
    front = dataset.preprocessing()
    assert front is not None
    assert isinstance(front.transforms[0], Dequantize)
    y = front()(dataset.train.x)
    assert y.mean(0).abs().max() < 0.05
    assert (y.std(0) - 1).abs().max() < 0.05
    as_they_are = (mf.data.open_streamed if stream else mf.data.open_table)(path, continuous=True)
    assert (as_they_are.cells, as_they_are.notes) == (None, ())


def test_a_run_on_flags_says_so_and_draws_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "t.csv"
    discrete(300).to_csv(data, index=False)
    words = ("train", "--data", data, "--out", tmp_path, *SMALL)
    code, _, err = call(capsys, *words)
    assert code == 0
    assert "note: flag, halves hold values on a grid and are dequantised" in err
    config = tomllib.loads((tmp_path / "t" / "config.toml").read_text())
    assert config["flow"]["preprocessing"][0] == {
        "kind": "Dequantize",
        "step": [1.0, 0.5],
        "low": [0.0, 0.0],
        "high": [1.0, 1.5],
    }
    assert run("sample", tmp_path / "t", "-n", 500, "-o", tmp_path / "s.csv") == 0
    drawn = pd.read_csv(tmp_path / "s.csv")
    assert set(drawn["flag"]) == {0.0, 1.0}
    assert set(drawn["halves"]) == {0.0, 0.5, 1.0, 1.5}
    assert run(*words, "--resume", "--patience", 9) == 0
    code, _, err = call(capsys, *words, "--continuous")
    assert (code, "dequantised" in err) == (0, False)
    assert mf.load_run(tmp_path / "t").config.flow.continuous


def test_a_run_from_before_goes_on_as_it_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "t.csv"
    discrete(300).to_csv(data, index=False)
    words = ("train", "--data", data, "--out", tmp_path)
    assert run(*words, *SMALL, "--continuous") == 0
    config = tmp_path / "t" / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("continuous")))
    code, _, err = call(capsys, *words, "--resume", "--patience", 9)
    assert (code, "dequantised" in err) == (0, False)


# ---------------------------------------------------------------------------------------- float64


def seconds(n: int = 500) -> np.ndarray:
    """Seconds around nought, and a number that hangs on them."""
    rng = np.random.default_rng(0)
    t = np.round(300 * rng.normal(size=n), 3)
    return np.stack([t, t / 300 + 0.1 * rng.normal(size=n)], axis=1)


@pytest.mark.parametrize(
    ("stream", "context"),
    [((), ("--context", "t")), (("--stream",), ())],
)
def test_an_offset_changes_nothing(
    stream: tuple[str, ...], context: tuple[str, ...], tmp_path: Path
) -> None:
    """GPS seconds: float32 tells those apart that differ by 128."""
    offset = 1.26e9
    found = []
    for name, shift in (("near", 0.0), ("far", offset)):
        data = write_csv(tmp_path / f"{name}.csv", ["t", "y"], seconds() + np.array([shift, 0.0]))
        words = ("train", "--data", data, "--out", tmp_path, *SMALL, *context, *stream)
        assert run(*words) == 0
        assert run("score", tmp_path / name, data, "-o", tmp_path / f"{name}.npy") == 0
        found.append(np.load(tmp_path / f"{name}.npy"))
    if stream:  # whose rows are dealt by their values, so that others are trained on
        assert abs((found[1] - found[0]).mean()) < 0.1
    else:
        np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    assert run("evaluate", tmp_path / "far") == 0
    given = ("--context", tmp_path / "far.csv") if context else ()
    assert run("sample", tmp_path / "far", "-n", 1, *given, "-o", tmp_path / "s.npy") == 0
    drawn = np.load(tmp_path / "s.npy")
    t = drawn[:, 1 if context else 0] - offset
    assert (t % 1 != 0).any()
    assert np.abs(t).max() < 5000


def test_float64_is_for_those_that_need_it() -> None:
    rng = np.random.default_rng(0)
    t = 1.26e9 + 300 * rng.normal(size=1000)
    columns = {
        "kelvin": (300 + 5 * rng.normal(size=1000), False),
        "years": (rng.integers(1990, 2020, 1000), False),
        "seconds": (t, True),
        "ids": (rng.choice([123_456_789, 123_456_790], 1000), True),
        "constant": (np.full(1000, 1e9), False),
    }
    order = torch.randperm(1000)
    for name, (values, needed) in columns.items():
        x = torch.from_numpy(values).double()[:, None]
        assert needs_float64(x, order) == needed, name
        if needed:
            assert needs_float64(x.float(), order), name


# --------------------------------------------------------------------------------- a single column


def test_one_column_gets_splines_unless_it_is_asked_for_a_gaussian(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "t.csv", ["x"], seconds()[:, 1:])
    words = ("train", "--data", data, "--out", tmp_path, *SMALL)
    code, _, err = call(capsys, *words)
    assert (code, mf.load_run(tmp_path / "t").config.flow.name) == (0, "NSF")
    assert "nsf was taken for one column" in err
    code, _, err = call(capsys, *words, "--flow", "maf")
    assert code == 0
    assert "note: affine transforms of one feature, however many, make a Gaussian" in err
    assert "make a Gaussian" in (tmp_path / "t" / "results_summary.txt").read_text()


def test_a_flow_that_cannot_be_built_leaves_the_earlier_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "t.csv", ["x"], seconds()[:, 1:])
    words = ("train", "--data", data, "--out", tmp_path, *SMALL[:4])
    assert run(*words, "--epochs", 1) == 0
    before = (tmp_path / "t" / "config.toml").read_text()
    code, _, err = call(capsys, *words, "--flow", "glow")
    assert (code, (tmp_path / "t.1").exists()) == (2, False)
    assert err.startswith("maskedflow: ") or "is back in" in err
    assert (tmp_path / "t" / "config.toml").read_text() == before
