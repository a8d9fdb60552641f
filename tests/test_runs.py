"""The record of a run, the flow built from it, and the numbers that a run is measured by."""

from __future__ import annotations

import math
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.data import ContextStandardizer, Dataset, Split
from maskedflow.recipes import RECIPES
from maskedflow.runs import (
    DataConfig,
    Evaluation,
    FlowConfig,
    Mean,
    Run,
    RunConfig,
    build_flow,
    describe,
    evaluate_run,
    load_run,
    results_table,
    sample_batches,
    score_batches,
    summary,
)
from maskedflow.runs.arguments import numbers_of
from maskedflow.runs.build import restore
from maskedflow.runs.settings import settle
from maskedflow.training import TrainConfig, checkpoint
from maskedflow.transforms import Dequantize, Logit, Standardize
from small_runs import config_of, gaussian, small_density, trained

# ----------------------------------------------------------------------------------------- record


names = st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True).map(tuple)


@given(
    columns=names,
    context=names | st.just(()),
    file=st.none() | st.text(min_size=1),
    image=st.none() | st.just((1, 28, 28)),
    time_limit=st.none() | st.floats(1e-3, 1e6),
    lr=st.floats(1e-9, 1.0),
)
def test_a_record_survives_its_file(
    columns: tuple[str, ...],
    context: tuple[str, ...],
    file: str | None,
    image: tuple[int, int, int] | None,
    time_limit: float | None,
    lr: float,
) -> None:
    config = RunConfig(
        "a name",
        DataConfig(
            columns=columns, context_columns=context, rows=(3, 2, 1), file=file, image_shape=image
        ),
        FlowConfig(
            "MAF",
            {"features": len(columns), "hidden_features": [3, 4]},
            preprocessing=({"kind": "Dequantize", "step": [1.0, 0.0]}, {"kind": "Logit"}),
        ),
        TrainConfig(lr=lr, time_limit=time_limit),
        options={"lr": lr, "file": file} if file else {},
    )
    assert RunConfig.from_toml(config.to_toml()) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("[versions]", "[versionen]"), "versions"),
        (("epochs = ", "epoch = "), "epoch"),
        (("epochs = 1", "epochs = 0"), "epochs"),
        (("name = ", "name "), "line"),
    ],
)
def test_a_damaged_record_is_named(change: tuple[str, str], named: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    config_of(gaussian(40)).write(path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError, match=named) as error:
        RunConfig.read(path)
    assert str(path) in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    "module",
    [
        Dequantize(1.0),
        Dequantize(torch.tensor([0.0, 0.5])),
        Standardize(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])),
        Standardize(0.0, 256.0),
        Logit(1e-6),
        ContextStandardizer(torch.tensor([1.0]), torch.tensor([3.0])),
    ],
    ids=lambda module: type(module).__name__,
)
def test_preprocessing_is_rebuilt(module: nn.Module) -> None:
    again = restore(**describe(module))
    again.load_state_dict(module.state_dict())
    assert type(again) is type(module)
    assert describe(again) == describe(module)
    x = torch.rand(5, 2)
    if isinstance(module, ContextStandardizer):
        assert torch.equal(again(x[:, :1]), module(x[:, :1]))
    else:
        assert torch.equal(again()(x), module()(x))


def test_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear"):
        describe(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Whiten"):
        restore("Whiten")


# ---------------------------------------------------------------------------------------- load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "g"
    trained(directory, gaussian(200))
    return directory


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_norm": True},
        {"degrees": "random", "hidden_features": [5, 7], "transforms": 3},
        {"randperm": True, "transforms": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("context", [False, True])
def test_load_run_gives_the_trained_flow(
    arguments: dict[str, Any], context: bool, tmp_path: Path
) -> None:
    dataset = gaussian(200, context)
    run = trained(tmp_path / "g", dataset, **arguments)
    again = load_run(tmp_path / "g")
    assert again.config == run.config
    assert (again.name, again.columns, again.context_columns) == (
        "g",
        dataset.columns,
        dataset.context_columns,
    )
    x, c = dataset.test.x, dataset.test.context
    assert torch.equal(again.flow(c).log_prob(x), run.flow(c).log_prob(x))
    assert not any(module.training for module in again.flow.modules())
    assert [record["epoch"] for record in again.metrics] == [1]


def test_load_run_does_not_depend_on_the_seed_of_random_masks(tmp_path: Path) -> None:
    # Masks are part of the checkpoint: another torch may draw others from the same seed.
    dataset = gaussian(200)
    run = trained(tmp_path / "g", dataset, degrees="random", hidden_features=[5, 5])
    record = tmp_path / "g" / "config.toml"
    record.write_text(record.read_text().replace("seed = 0", "seed = 1"))
    again = load_run(tmp_path / "g")
    assert again.config.flow.seed == 1
    assert torch.equal(again.flow().log_prob(dataset.test.x), run.flow().log_prob(dataset.test.x))


def test_load_run_is_on_the_front_page_and_opens_no_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "g", gaussian(200))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    flow = mf.load_run(tmp_path / "g").flow
    assert flow().log_prob(torch.zeros(3)).isfinite()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.toml"):
        load_run(tmp_path)
    trained(tmp_path / "g", gaussian(200))
    (tmp_path / "g" / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"best\.safetensors"):
        load_run(tmp_path / "g")


def test_a_run_finds_its_rows_again_and_sees_when_they_changed(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = torch.randn(100, 2)
    mf.data.write_table(table, ["a", "b"], [rows])
    dataset = mf.data.open_table(table, seed=3)
    config = config_of(dataset)
    source = DataConfig(dataset.columns, dataset.rows, file=str(table), seed=3)
    run = Run(tmp_path, RunConfig("t", source, config.flow, config.training), nn.Identity())  # type: ignore[arg-type]
    assert torch.equal(run.dataset().test.x, dataset.test.x)
    mf.data.write_table(table, ["a", "b"], [rows[:90]])
    with pytest.raises(ValueError, match="rows"):
        run.dataset()
    mf.data.write_table(table, ["a", "c"], [rows])
    with pytest.raises(ValueError, match="columns"):
        run.dataset()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "seed", "a text"),
        ("training", "batch_size", True),
        ("data", "rows", [1, 2]),
        ("data", "columns", "a"),
        ("flow", "name", "annotations"),
        ("flow", "name", "Glow"),
        ("flow", "seed", -1),
        ("flow", "extra", 1),
        ("flow", "embedding", {"kind": "Linear"}),
        ("flow", "preprocessing", [{"kind": "Standardize"}]),
        ("flow", "preprocessing", [{"kind": "Standardize", "shapes": [[10**6, 10**6], [1]]}]),
        ("flow", "preprocessing", [{"kind": "Logit", "alpha": 0.5}]),
        ("arguments", "features", 10**6),
        ("arguments", "hidden_features", [10**6]),
        ("arguments", "hidden_features", [[16]]),
        ("arguments", "transforms", 10**5),
        ("arguments", "transforms", 1.5),
        ("arguments", "degrees", 1e15),
        ("arguments", "components", 10**9),
        ("arguments", "base", {"name": "mixture", "components": 10**9}),
        ("arguments", "base", {"name": "made", "hidden_features": [10**6, 10**6]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("earlier", [False, True], ids=["digest", "no digest"])
def test_a_record_of_something_else_is_refused_before_anything_is_built(
    earlier: bool, section: str, key: str, value: Any, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    best, record = Path("checkpoints") / "best.safetensors", tmp_path / "config.toml"
    tensors, header = checkpoint.read(folder / best)
    if earlier:  # builds before left no digest of the record
        header["maskedflow"] = "{}"
    checkpoint.write(tmp_path / best, tensors, header)
    document = tomllib.loads((folder / "config.toml").read_text())
    inner = document["flow"]["arguments"] if section == "arguments" else document[section]
    inner[key] = value
    record.write_text(tomli_w.dumps(document))
    with pytest.raises(ValueError, match=re.escape(str(record))) as error:
        load_run(tmp_path)
    assert "\n" not in str(error.value)


def test_columns_cannot_change_places_in_a_record(tmp_path: Path) -> None:
    trained(tmp_path / "g", gaussian(200))
    record = tmp_path / "g" / "config.toml"
    text = record.read_text()
    record.write_text(text.replace("somewhere.csv", "elsewhere.csv"))
    assert load_run(tmp_path / "g").config.data.file == "elsewhere.csv"
    record.write_text(re.sub(r'"a",(\s+)"b"', r'"b",\1"a"', text))
    with pytest.raises(ValueError, match=r"the columns of \[data\] are not those that .*best"):
        load_run(tmp_path / "g")


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_no_flow_is_taken_for_larger_than_it_is(name: str, conditional: bool) -> None:
    made = RECIPES[name]
    shape = (1, 4, 4) if made.images else None
    for features in (16,) if made.images else (1, 7):
        for base in ("normal", "student-t", "mixture", "made"):
            settings = {**settle({"flow": name}), "base": base, "hidden_dim": 12}
            arguments = made.build(features, 3 * conditional, settings, shape)
            flow = build_flow(FlowConfig(made.constructor, arguments))
            stored = sum(tensor.numel() for tensor in flow.state_dict().values())
            assert numbers_of(made.constructor, arguments) <= stored


# ------------------------------------------------------------------------- sampling and scoring


def test_samples_come_in_blocks_and_follow_their_context() -> None:
    density = small_density(mf.flows.MAF(2, context=1, transforms=1))
    context = torch.tensor([[1.0], [2.0], [3.0]])
    blocks = list(sample_batches(density, 4, context, rows=5))
    assert [len(x) for x, _ in blocks] == [5, 5, 2]
    found = torch.cat([c for _, c in blocks if c is not None])
    assert found.flatten().tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    again = torch.cat([x for x, _ in sample_batches(density, 4, context, rows=5)])
    assert torch.equal(again, torch.cat([x for x, _ in blocks]))
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        next(sample_batches(density, 0, context))


def test_scoring_does_not_depend_on_the_size_of_blocks(tmp_path: Path) -> None:
    run = trained(tmp_path / "g", gaussian(200))
    rows = gaussian(400).test.x
    np.save(tmp_path / "x.npy", rows.numpy())
    whole, parts = (torch.cat([*score_batches(run, tmp_path / "x.npy", n)]) for n in (10_000, 7))
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.float(), run.flow().log_prob(rows), atol=1e-5, rtol=1e-5)


def test_images_are_scored_from_an_array_of_images(tmp_path: Path) -> None:
    run = trained(tmp_path / "digits", mf.data.load("digits"))
    images = mf.data.load("digits").test.x
    np.save(tmp_path / "flat.npy", images.numpy())
    np.save(tmp_path / "square.npy", images.reshape(-1, 1, 8, 8).numpy())
    flat, square = (
        torch.cat([*score_batches(run, tmp_path / name)]) for name in ("flat.npy", "square.npy")
    )
    assert torch.equal(flat, square)
    assert torch.equal(flat, torch.cat([*score_batches(run, tmp_path / "flat.npy")]))


# ------------------------------------------------------------------------------------- evaluation


def test_a_mean_has_two_standard_errors() -> None:
    values = torch.randn(1000, dtype=torch.float64)
    mean = Mean.of(values)
    assert mean.value == pytest.approx(values.mean().item())
    assert mean.error == pytest.approx(2 * values.std().item() / math.sqrt(1000))
    assert mean.scaled(-2) == Mean(-2 * mean.value, 2 * mean.error)
    assert math.isnan(Mean.of(torch.ones(1)).error)


def test_a_table_is_measured_beside_its_gaussian(tmp_path: Path) -> None:
    dataset = gaussian(800)
    run = trained(tmp_path / "g", dataset, epochs=40)
    found = evaluate_run(run, dataset)
    expected = run.flow().log_prob(dataset.test.x).double().mean().item()
    assert found.density.value == pytest.approx(expected, abs=1e-4)
    # In the table's own units, although the Gaussian is fitted to standardised columns.
    direct = mf.data.gaussian_log_likelihood(dataset.train.x, dataset.test.x)
    assert found.baseline is not None
    assert found.baseline.value == pytest.approx(direct.mean().item(), abs=1e-3)
    assert (found.logit, found.rows, found.features) == (None, 200, 3)
    # The data are Gaussian: neither can be much better.
    assert abs(found.density.value - found.baseline.value) < 0.15


def test_a_conditional_gaussian_is_the_quotient_of_two(tmp_path: Path) -> None:
    dataset = gaussian(2000, context=True)
    found = evaluate_run(trained(tmp_path / "g", dataset, epochs=30), dataset)
    x, c = dataset.train.x.double(), dataset.train.context
    assert c is not None
    assert dataset.test.context is not None
    # The same by least squares: mean linear in c, covariance that of the residuals.
    design = torch.hstack([c.double(), torch.ones(len(c), 1).double()])
    slope = torch.linalg.lstsq(design, x).solution
    covariance = (x - design @ slope).T.cov(correction=0)
    test = torch.hstack([dataset.test.context.double(), torch.ones(len(dataset.test), 1).double()])
    normal = torch.distributions.MultivariateNormal(test @ slope, covariance)
    expected = normal.log_prob(dataset.test.x.double())
    assert found.baseline is not None
    assert found.baseline.value == pytest.approx(expected.mean().item(), abs=1e-3)
    assert abs(found.density.value - found.baseline.value) < 0.15


def test_images_are_measured_in_bits_and_in_logit_space(tmp_path: Path) -> None:
    dataset = mf.data.load("digits")
    run = trained(tmp_path / "digits", dataset)
    found = evaluate_run(run, dataset)
    assert found.baseline is not None
    assert found.logit is not None
    flow, gaussian = found.logit
    assert gaussian is not None
    # Both spaces are one map apart, whose log-determinant is the same for flow and Gaussian.
    apart = found.density.value - flow.value
    assert apart == pytest.approx(found.baseline.value - gaussian.value)
    # 17 levels without any model cost log2(17) bits; a Gaussian beats that.
    bits = -found.baseline.value / 64 / math.log(2)
    assert 1.5 < bits < math.log2(17)
    assert f"{bits:.2f}" in results_table(found)


def test_labelled_images_have_a_gaussian(tmp_path: Path) -> None:
    plain, labelled = mf.data.load("digits"), mf.data.load("digits", labels=True)
    found = [evaluate_run(trained(tmp_path / d.name, d), d) for d in (plain, labelled)]
    gaussians = [e.baseline.value for e in found if e.baseline is not None]
    assert len(gaussians) == 2
    assert gaussians[1] > gaussians[0] + 1  # a label tells a lot about a digit


def test_a_singular_covariance_is_no_error(tmp_path: Path) -> None:
    def doubled(split: Split) -> Split:
        return Split(split.x[:, :1].repeat(1, 2))

    parts = gaussian(200)
    splits = [doubled(s) for s in (parts.train, parts.validation, parts.test)]
    dataset = Dataset("d", splits[0], splits[1], splits[2], ("a", "a again"))
    found = evaluate_run(trained(tmp_path / "d", dataset), dataset)
    assert found.baseline is None
    assert "singular" in results_table(found)


def test_the_summary_says_what_a_run_is(tmp_path: Path) -> None:
    dataset = gaussian(200, context=True)
    run = trained(tmp_path / "g", dataset, epochs=3, batch_norm=True)
    text = summary(run, evaluate_run(run, dataset))
    parameters = sum(p.numel() for p in run.flow.parameters())
    for fact in (
        *("100 training, 50 validation, 50 test", "2: a, b", "1: c", f"{parameters:,}"),
        *("MAF, 2 transforms", "16", "batch norm", "3 epochs", "best epoch", "full Gaussian"),
        *(torch.__version__, "nats", "bits per dimension", "±", "Standardize"),
    ):
        assert fact in text
    assert all(len(line) <= 100 for line in text.splitlines())


@given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e3))
def test_results_are_printed_to_two_digits_of_their_error(value: float, error: float) -> None:
    mean = Mean(value, error)
    line = results_table(Evaluation(mean, None, "full Gaussian", 10, 2, 0.0)).splitlines()[1]
    shown, spread = (float(word.replace(",", "")) for word in line.split()[1:4:2])
    assert spread == pytest.approx(error, rel=0.06)
    assert shown == pytest.approx(value, abs=0.06 * error)


def test_evaluation_needs_test_rows(tmp_path: Path) -> None:
    dataset = gaussian(200)
    run = trained(tmp_path / "g", dataset)
    empty = Dataset(
        "g", dataset.train, dataset.validation, Split(torch.empty(0, 3)), dataset.columns
    )
    with pytest.raises(ValueError, match="no test rows"):
        evaluate_run(run, empty)


def test_build_flow_starts_near_the_gaussian_of_its_preprocessing() -> None:
    dataset = gaussian(400)
    config = config_of(dataset)
    flows = [build_flow(config.flow, dataset.preprocessing(), dataset.embedding()) for _ in "ab"]
    weights: list[dict[str, Tensor]] = [flow.state_dict() for flow in flows]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    nll = -flows[0]().log_prob(dataset.test.x).mean().item()
    independent = torch.distributions.Normal(dataset.train.x.mean(0), dataset.train.x.std(0))
    assert nll == pytest.approx(-independent.log_prob(dataset.test.x).sum(1).mean().item(), abs=0.5)
