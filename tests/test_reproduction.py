"""Rows of the paper's tables: what they are, and that they are made, kept and gone on with."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal

import maskedflow as mf
from commands import call, declare
from maskedflow.data.discrete import Cells
from maskedflow.runs import Mean
from maskedflow.runs.density import preprocessed
from maskedflow_paper.reproduction import (
    mark,
    markdown_table,
    paper_initialisation,
    read_results,
    reproduce,
)
from maskedflow_paper.rows import (
    CONDITIONAL,
    DATASETS,
    IMAGES,
    MODELS,
    PUBLISHED,
    STARTS,
    Row,
    models_of,
    row,
)

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
DIGITS = mf.data.load("digits", labels=True)


def small(model: str, *, conditional: bool = False, recipe: str = "fast", epochs: int = 1) -> Row:
    """A row of MNIST, shrunk to what digits can bear."""
    made = row("mnist", model, recipe, conditional=conditional)
    shape = {**made.shape, "hidden_dim": 64}
    return replace(made, shape=shape, training={**made.training, "epochs": epochs})


def over_classes(flow: torch.nn.Module) -> torch.Tensor:
    """The log-densities of test digits whose classes nobody tells, all of them alike."""
    x, total = DIGITS.test.x, torch.zeros(len(DIGITS.test), dtype=torch.float64)
    for label in torch.eye(10):
        c = label.expand(len(x), 10)
        total += mf.training.evaluate(flow, mf.data.Split(x, c)).exp() / 10
    return total.log()


def test_all_published_rows_are_there() -> None:
    ours = ("glow", "modern", "symmetrized", "stack")
    paper = [model for model in MODELS if model not in ours]
    assert set(PUBLISHED) == {(name, model) for name in DATASETS for model in paper}
    assert set(CONDITIONAL) == {(name, model) for name in IMAGES for model in paper}
    assert row("bsds300", "modern").published is None
    assert row("cifar10", "maf-5").shape["degrees"] == "random"


def test_the_recipes_differ_in_the_optimisation_only_and_some_in_the_start() -> None:
    for name in DATASETS:
        for model in models_of(name):
            fast, paper = row(name, model), row(name, model, "paper")
            shape = dict(paper.shape)
            if (name, model) in STARTS:
                shape |= {"start": "gaussian", "batch_norm": False}
            assert (fast.flow, fast.shape) == (paper.flow, shape)
            assert paper.training["batch_size"] == 100
            assert paper.training["patience"] == 30
            assert fast.training["schedule"] == "cosine"
            assert not fast.quirks


@pytest.mark.parametrize("model", ["made-mog", "maf-5", "realnvp-5"])
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_a_row_is_made_once(tmp_path: Path, model: str, recipe: str) -> None:
    one = small(model, recipe=recipe)
    digits = DIGITS.without_context()
    result = reproduce(one, digits, tmp_path / "runs", tmp_path / "results")
    path = tmp_path / "results" / "mnist" / f"{model}.json"
    assert json.loads(path.read_text("utf-8")) == json.loads(json.dumps(result))
    assert result["epochs"] == 1
    assert result["rows"] == (1437, 180, 180)
    assert result["versions"]["torch"] == torch.__version__
    run = mf.load_run(tmp_path / "runs" / f"mnist-{model}-{recipe}")
    log_prob = mf.training.evaluate(run.flow, digits.test)
    assert result["bits_per_pixel"] == pytest.approx(-log_prob.mean().item() / 64 / math.log(2))
    # Read, not made again: there are no data to make it from.
    again = reproduce(one, None, tmp_path / "none", tmp_path / "results")  # type: ignore[arg-type]
    assert again == json.loads(json.dumps(result))
    assert [found["model"] for found in read_results(tmp_path / "results")] == [model]
    assert f"| mnist | {model} | {recipe} |" in markdown_table([result])


def test_an_interrupted_row_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    one, digits = small("made", epochs=2), DIGITS.without_context()
    reproduce(one, digits, tmp_path / "runs", tmp_path / "a")
    (tmp_path / "a" / "mnist" / "made.json").unlink()  # as if killed before the results
    log = tmp_path / "runs" / "mnist-made-fast" / "logs" / "training.log"
    epochs = log.read_text("utf-8").count("epoch 2:")
    reproduce(one, digits, tmp_path / "runs", tmp_path / "a")
    assert "resumed" in log.read_text("utf-8")
    assert log.read_text("utf-8").count("epoch 2:") == epochs == 1
    with pytest.raises(ValueError, match="run of other settings"):
        reproduce(small("made", epochs=3), digits, tmp_path / "runs", tmp_path / "b")


def test_a_conditional_row_sums_over_classes(tmp_path: Path) -> None:
    one = small("made", conditional=True)
    result = reproduce(one, DIGITS, tmp_path / "runs", tmp_path / "results")
    assert (tmp_path / "results" / "mnist" / "made-conditional.json").is_file()
    flow = mf.load_run(tmp_path / "runs" / "mnist-made-conditional-fast").flow
    expected = -over_classes(flow).mean().item() / 64 / math.log(2)
    assert result["bits_per_pixel"] == pytest.approx(expected)


@pytest.mark.parametrize("conditional", [False, True])
def test_gaussians(tmp_path: Path, conditional: bool) -> None:
    data = DIGITS if conditional else DIGITS.without_context()
    result = reproduce(small("gaussian", conditional=conditional), data, tmp_path, tmp_path)
    front = DIGITS.preprocessing()
    train, _ = preprocessed(front, DIGITS.train, seed=1)
    test, _ = preprocessed(front, DIGITS.test, seed=0)
    labels = DIGITS.train.context.argmax(dim=1)
    parts = [train[labels == label] for label in range(10)] if conditional else [train]
    total = 0
    for part in parts:
        covariance = torch.cov(part.double().T, correction=0)
        gaussian = MultivariateNormal(part.double().mean(dim=0), covariance)
        total = total + gaussian.log_prob(test.double()).exp() / len(parts)
    assert result["test_log_likelihood"] == pytest.approx(total.log().mean().item(), rel=1e-5)
    assert not list(tmp_path.glob("mnist-*"))


def test_a_stack_is_a_mixture_of_other_rows(tmp_path: Path) -> None:
    digits = DIGITS.without_context()
    with pytest.raises(ValueError, match=r"at least two rows of mnist .* before, found none"):
        reproduce(small("stack"), digits, tmp_path / "runs", tmp_path / "results")
    for model in ("made", "maf-5"):
        reproduce(small(model), digits, tmp_path / "runs", tmp_path / "results")
    result = reproduce(small("stack"), digits, tmp_path / "runs", tmp_path / "results")
    weights = result["settings"]["weights"]
    flows = {m: mf.load_run(tmp_path / "runs" / f"mnist-{m}-fast").flow for m in ("made", "maf-5")}

    def stacked(split: mf.data.Split, shares: dict[str, float]) -> float:
        each = [
            mf.training.evaluate(flow, split) + torch.tensor(shares[m]).log()
            for m, flow in flows.items()
        ]
        return float(torch.stack(each).logsumexp(dim=0).mean())

    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    assert result["bits_per_pixel"] == pytest.approx(
        -stacked(digits.test, weights) / 64 / math.log(2), abs=1e-3
    )
    best = stacked(digits.validation, weights)
    for share in (0.01, 0.25, 0.5, 0.75, 0.99):
        assert stacked(digits.validation, {"made": share, "maf-5": 1 - share}) <= best + 1e-3


def test_a_stack_with_labels_mixes_flows_with_them_and_without(tmp_path: Path) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    reproduce(small("made", conditional=True), DIGITS, runs, results)
    reproduce(small("made"), DIGITS.without_context(), runs, results)
    result = reproduce(small("stack", conditional=True), DIGITS, runs, results)
    given, alone = (mf.load_run(runs / f"mnist-made{of}-fast").flow for of in ("-conditional", ""))
    parts = {
        "made": mf.training.evaluate(alone, mf.data.Split(DIGITS.test.x)),
        "made-conditional": over_classes(given),
    }
    weights = result["settings"]["weights"]
    assert list(weights) == list(parts)
    mixed = torch.stack([part + math.log(weights[name]) for name, part in parts.items()])
    expected = -mixed.logsumexp(dim=0).mean().item() / 64 / math.log(2)
    assert result["bits_per_pixel"] == pytest.approx(expected, abs=1e-3)


def test_patches_are_averaged_over_their_symmetries(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(400, 64, generator=generator).cumsum(dim=1) / 30
    x = (patches - patches.mean(dim=1, keepdim=True))[:, :-1]
    parts = [mf.data.Split(part) for part in (x[:300], x[300:350], x[350:])]
    data = mf.data.Dataset("bsds300", *parts, tuple(f"pixel_{i}" for i in range(63)))
    data = replace(data, standardize=False)

    def tiny(model: str) -> Row:
        made = row("bsds300", model)
        shape = {**made.shape, "hidden_dim": 70, "num_layers": 1}
        return replace(made, shape=shape, training={**made.training, "epochs": 1})

    places = tmp_path / "runs", tmp_path / "results"
    with pytest.raises(ValueError, match=r"expected modern of bsds300 .* before, found none"):
        reproduce(tiny("symmetrized"), data, *places)
    plain = reproduce(tiny("modern"), data, *places)
    mean = reproduce(tiny("symmetrized"), data, *places)
    run = mf.load_run(tmp_path / "runs" / "bsds300-modern-fast")
    log = (tmp_path / "runs" / "bsds300-modern-fast" / "logs" / "training.log").read_text()
    assert "on 2400 rows" in log
    turned = (patches - patches.mean(dim=1, keepdim=True))[350:].view(-1, 8, 8)
    images = [torch.rot90(one, k, (1, 2)) for one in (turned, turned.mT) for k in range(4)]
    with torch.no_grad():
        each = torch.stack([run.flow().log_prob(one.flatten(1)[:, :-1]) for one in images])
    averaged = each.logsumexp(dim=0) - math.log(8)
    assert plain["test_log_likelihood"] == pytest.approx(each[0].mean().item(), rel=1e-4)
    assert mean["test_log_likelihood"] == pytest.approx(averaged.mean().item(), rel=1e-4)
    assert mean["settings"]["weights"] == {"modern": 1}


def test_a_flow_of_cells_is_measured_on_them_and_at_the_noise_of_the_rows(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(4, (500, 6), generator=generator).float()
    noise = torch.rand(500, 6, generator=generator)

    def parted(x: torch.Tensor) -> mf.data.Dataset:
        parts = [mf.data.Split(part) for part in x.split((300, 100, 100))]
        return mf.data.Dataset("power", *parts, tuple("abcdef"), standardize=False)

    ends = torch.zeros(6, dtype=torch.float64), torch.full((6,), 3.0, dtype=torch.float64)
    cells = replace(parted(corners), cells=Cells(torch.ones(6, dtype=torch.float64), *ends))
    made = row("power", "modern")
    shape = {**made.shape, "num_layers": 1, "hidden_dim": 16}
    tiny = replace(made, shape=shape, training={**made.training, "epochs": 1})
    noisy, places = parted(corners + noise), (tmp_path / "runs", tmp_path / "results")
    with pytest.raises(ValueError, match="power modern is trained on them"):
        reproduce(tiny, noisy, *places)
    found = reproduce(tiny, noisy, *places, cells=cells)
    flow = mf.load_run(tmp_path / "runs" / "power-modern-fast").flow
    with torch.no_grad():
        within = flow.transform.transforms[0].places
        flow.transform.transforms[0].step.zero_()
        each = torch.stack([flow().log_prob(cells.test.x + place.float()) for place in within])
        at_noise = flow().log_prob(noisy.test.x).mean()
    in_cells = (each.logsumexp(dim=0) - math.log(8)).mean()
    assert found["test_log_likelihood"] == pytest.approx(in_cells.item(), rel=1e-4)
    assert found["at_the_noise_of_test_rows"] == pytest.approx(at_noise.item(), rel=1e-4)


def test_the_papers_first_weights() -> None:
    flow = mf.flows.MADE(30, components=4, hidden_features=(200,))
    paper_initialisation(flow, torch.Generator().manual_seed(0))
    first, last = flow.transform.transforms[0].hyper.layers
    used = first.dense()[first.mask]
    assert used.std().item() == pytest.approx(31**-0.5, rel=0.05)
    assert not first.dense()[~first.mask].any()
    assert not first.bias.any()
    assert last.bias.std().item() == pytest.approx(1, abs=0.1)


def test_marks() -> None:
    published = row("power", "maf-5").published
    assert mark(Mean(0.17, 0.01), published) == "better"
    assert mark(Mean(0.155, 0.01), published) == "within the error bars"
    assert mark(Mean(0.10, 0.01), published) == "worse"
    assert mark(Mean(0.10, 0.01), None) == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["moons"], "dataset: expected one of power, gas"),
        (["power", "--model", "maf-7"], "model: expected one of gaussian, made"),
        (["power", "--conditional"], "power has no class labels"),
        (["power", "--recipe", "slow"], "recipe"),
        (["power", "--data_dir", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_reproduced_is_said_in_a_line(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MASKEDFLOW_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    declare(tmp_path, **project["entry-points"]["maskedflow.commands"])
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = call(capsys, "reproduce", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
