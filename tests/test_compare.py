"""`maskedflow compare`: the same rows, differences in pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from commands import SMALL, call, files, pair, run
from maskedflow.report import comparison_picture
from maskedflow.runs import compare_runs
from maskedflow.training import evaluate
from small_runs import gaussian, trained


@pytest.mark.parametrize("context", [False, True])
def test_differences_are_of_the_same_rows(context: bool, tmp_path: Path) -> None:
    dataset = gaussian(400, context)
    runs = [trained(tmp_path / str(n), dataset, epochs=n) for n in (1, 6)]
    best, other = compare_runs(runs, dataset)
    assert (best.name, other.name) == (str(tmp_path / "6"), str(tmp_path / "1"))
    scores = [evaluate(found.flow, dataset.test) for found in runs]
    apart = scores[1] - scores[0]
    assert best.behind is None
    assert other.behind is not None
    assert other.behind.value == pytest.approx(apart.mean().item())
    assert other.behind.error == pytest.approx(2 * apart.std().item() / len(apart) ** 0.5)
    assert best.nll.value == pytest.approx(-scores[1].mean().item())
    assert best.bpd.value == pytest.approx(best.nll.value / dataset.features / 0.693147, 1e-4)
    assert best.parameters == sum(p.numel() for p in runs[1].flow.parameters())
    figure = comparison_picture([best, other])
    assert [axes.get_title() for axes in figure.axes] == [
        "NLL (nats)",
        f"behind {best.name} (nats)",
    ]


def test_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pair(tmp_path)
    for out, seed in (("x", 0), ("y", 0)):
        words = ("train", "--data", data, "--out", tmp_path / out, *SMALL, "--seed", seed)
        assert run(*words) == 0
    one, two = tmp_path / "x" / "t", tmp_path / "y" / "t"
    code, out, _ = call(capsys, "compare", one, two, "-o", tmp_path / "c" / "both.md")
    assert code == 0
    assert str(one) in out.replace("\n", "")
    text = (tmp_path / "c" / "both.md").read_text()
    assert text.count("\n|") == 3
    assert "](both.png)" in text
    assert {"both.md", "both.png"} == files(tmp_path / "c")


def test_what_cannot_be_compared_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pair(tmp_path)
    for name, words in (("x", ()), ("y", ("--seed", 1)), ("z", ("--context", "a"))):
        options = ("--out", tmp_path / name, *SMALL, *words)
        assert run("train", "--data", data, *options) == 0
    first = tmp_path / "x" / "t"
    for others, named in (((), "two"), (("y",), "seed"), (("z",), "columns")):
        runs = [tmp_path / name / "t" for name in others]
        code, _, err = call(capsys, "compare", first, *runs)
        assert (code, err.count("\n")) == (2, 1)
        assert named in err
    code, _, err = call(capsys, "compare", first, first, "-o", tmp_path / "c.txt")
    assert (code, err.count("\n")) == (2, 1)


def test_series_are_compared_step_by_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).cumsum(0).tolist()
    lines = ["when,a", *(f"{i},{row[0]}" for i, row in enumerate(rows))]
    data = tmp_path / "s.csv"
    data.write_text("\n".join(lines) + "\n")
    words = ("train", "--data", data, "--time", "when", "--window", 12, "--hidden_dim", 8)
    for seed in (0, 1):
        options = ("--out", tmp_path / str(seed), "--num_layers", 1, "--lr", 0.001 + seed / 100)
        assert run(*words, "--epochs", 2, *options) == 0
    code, out, _ = call(capsys, "compare", tmp_path / "0" / "s", tmp_path / "1" / "s")
    assert code == 0
    assert out.count("±") == 5
