"""Flows that begin as the Gaussian of their training rows."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import maskedflow as mf
from maskedflow.data import Split
from maskedflow.flows import MADE, MAF, Flow, PixelCNN
from maskedflow.flows.marginals import marginal_mixtures
from maskedflow.recipes import SHAPES, recipe
from maskedflow.runs import FlowConfig, build_flow
from maskedflow.runs.settings import settle
from maskedflow.training import TrainConfig, fit, start_at
from maskedflow.transforms import Dequantize, NormalScores, Permutation, Whiten
from small_runs import gaussian as dataset_of
from small_runs import trained

NEAR = {"atol": 1e-4, "rtol": 1e-5}
"""The ridge is 1e-9, of numbers some of which nearly follow from others."""


def rows(n: int, features: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, features, generator=torch.Generator().manual_seed(9))
    return torch.randn(n, features, generator=generator, dtype=torch.float64) @ mix.double() + 2


def gaussian(x: Tensor, weight: Tensor | None = None) -> MultivariateNormal:
    share = torch.ones(len(x)).double() if weight is None else weight
    share = share / share.sum()
    mean = share @ x
    return MultivariateNormal(mean, (share[:, None] * (x - mean)).T @ (x - mean))


def whitened(features: int = 3, context: int = 0) -> Flow:
    """A flow whose networks are the identity to begin with."""
    maf = MAF(features, context, transforms=2, hidden_features=[8])
    for step in maf.transform.transforms:
        torch.nn.init.zeros_(step.hyper.layers[-1].weight)
    return Flow([Whiten.waiting(features, context), *maf.transform.transforms], maf.base).double()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_flow_starts_as_the_gaussian_of_its_training_rows(weighted: bool) -> None:
    x, test = rows(2500), rows(50, seed=1)
    weight = torch.rand(2500).double() if weighted else None
    flow = whitened()
    assert flow.transform.transforms[0].is_waiting
    start_at(flow, Split(x, weight=weight), batch_size=999)
    assert not flow.transform.transforms[0].is_waiting
    torch.testing.assert_close(flow().log_prob(test), gaussian(x, weight).log_prob(test), **NEAR)
    sample = flow().sample((5,))
    torch.testing.assert_close(
        flow().log_prob(sample), gaussian(x, weight).log_prob(sample), **NEAR
    )
    before = copy.deepcopy(flow.state_dict())
    start_at(flow, Split(test))  # only once
    torch.testing.assert_close(flow.state_dict(), before, rtol=0, atol=0)


def test_it_is_the_regression_on_the_context() -> None:
    x, c = rows(3000), rows(3000, 2, seed=2)
    x = x + c @ rows(2, 3, seed=3)
    joint, given = gaussian(torch.hstack([x, c])), gaussian(c)
    flow = whitened(context=2)
    start_at(flow, Split(x, c))
    want = joint.log_prob(torch.hstack([x, c])) - given.log_prob(c)
    torch.testing.assert_close(flow(c).log_prob(x), want, **NEAR)
    fitted = Whiten.fit(x, c)
    torch.testing.assert_close(flow.transform.transforms[0].weight, fitted.weight)
    torch.testing.assert_close(flow.transform.transforms[0].scale_tril, fitted.scale_tril)


def test_training_sees_to_it_from_training_rows_alone(tmp_path: Path) -> None:
    x, validation = rows(400), 10 * rows(100, seed=1)
    flow = whitened()
    config = TrainConfig(epochs=2, batch_size=100, lr=1e-3)
    history = fit(flow, x, validation, config, directory=tmp_path / "a")
    layer = flow.transform.transforms[0]
    torch.testing.assert_close(layer.loc, x.mean(dim=0))
    assert history.records[0].train_nll == pytest.approx(
        -float(gaussian(x).log_prob(x).mean()), abs=0.1
    )
    assert all("loc" not in name for name, _ in flow.named_parameters())  # it is no parameter
    again = whitened()
    mf.training.load(tmp_path / "a" / "checkpoints" / "best.safetensors", again)
    torch.testing.assert_close(again().log_prob(x), flow().log_prob(x), rtol=0, atol=0)


def test_a_resumed_training_is_that_which_was_never_stopped(tmp_path: Path) -> None:
    def trained(folder: str, epochs: int, flow: Flow) -> Flow:
        config = TrainConfig(epochs=epochs, batch_size=100, lr=1e-3)
        fit(flow, x, rows(100, seed=1), config, directory=tmp_path / folder, resume=True)
        return flow

    x, first = rows(400), whitened()
    whole = trained("a", 3, copy.deepcopy(first))
    trained("b", 1, copy.deepcopy(first))
    resumed = trained("b", 3, copy.deepcopy(first))
    torch.testing.assert_close(whole.state_dict(), resumed.state_dict(), rtol=0, atol=0)


def test_it_is_behind_the_preprocessing_and_its_noise() -> None:
    x = torch.randint(0, 3, (2000, 2)).float()
    x[:, 1] += x[:, 0]
    flow = Flow([Dequantize(torch.ones(2)), Whiten.waiting(2)], MAF(2).base)
    start_at(flow, Split(x))
    z = flow.transform()(x)
    torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.05, rtol=0)


def test_a_constant_feature_and_nearly_collinear_ones() -> None:
    x = rows(500)
    x[:, 1] = 7.0
    x[:, 2] = x[:, 0] * (1 + 1e-12)
    flow = whitened()
    start_at(flow, Split(x))
    layer, fitted = flow.transform.transforms[0], Whiten.fit(x)
    torch.testing.assert_close(layer.loc, fitted.loc)
    assert layer.scale_tril[1, 1] == pytest.approx(1.0)
    assert 0 < layer.scale_tril[2, 2] < 1e-3


def test_a_constant_is_what_is_alike_in_all_rows_that_count() -> None:
    """In a stream, too, and however far from zero; 0.1 has a computed deviation of its own."""
    x, weight = rows(500), torch.ones(500, dtype=torch.float64)
    x[:, 0] -= 4e12
    x[:, 1] = 0.1
    x[0], weight[0] = 7.0, 0.0
    blocks = [(x[part], None, weight[part]) for part in torch.arange(500).split(70)]
    layer, fitted = Whiten.waiting(3).double(), Whiten.fit(x, weight=weight)
    layer.start(blocks)
    assert layer.loc[1] == 0.1
    torch.testing.assert_close(layer.loc, fitted.loc)
    torch.testing.assert_close(layer.scale_tril, fitted.scale_tril, rtol=1e-3, atol=1e-3)


def test_the_inverse_factor_is_made_once_for_as_long_as_the_factor_stays() -> None:
    whiten = Whiten.fit(rows(100))
    inverse = whiten.inverse
    assert whiten.inverse is inverse
    x = rows(5)
    y = whiten()(x)
    with torch.no_grad():
        whiten.scale_tril.mul_(2)
    torch.testing.assert_close(whiten()(x), y / 2)
    whiten.load_state_dict(Whiten.fit(rows(100)).state_dict())
    torch.testing.assert_close(whiten()(x), y)
    torch.testing.assert_close(copy.deepcopy(whiten).float()()(x.float()), y.float())


@pytest.mark.parametrize("flow", [whitened(context=2), PixelCNN(3, image_shape=(3, 1, 1))])
def test_rows_that_no_layer_can_start_at_are_refused(flow: Flow) -> None:
    before = copy.deepcopy(flow.state_dict())
    for x, message in [
        (rows(9)[:0], "split: expected at least one row, got none"),
        (rows(9) / 0, r"split.x: expected finite numbers, got -?inf in row 0, column 0"),
        (rows(9, 4), r"x: expected shape \(\*, 3\), got \(9, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            start_at(flow, Split(x, rows(9, 2)[: len(x)]))
    torch.testing.assert_close(flow.state_dict(), before, rtol=0, atol=0)


def test_a_missing_context_and_another_dtype_are_named() -> None:
    with pytest.raises(ValueError, match=r"c: expected shape \(\*, 2\), got none"):
        start_at(whitened(context=2), Split(rows(9)))
    with pytest.raises(ValueError, match=r"x: expected a tensor of float32, .* got one of float64"):
        whitened().float()().log_prob(rows(9))


def test_a_layer_that_waits_within_something_else_is_told() -> None:
    flow = Flow([Whiten.waiting(2)], MAF(2).base)
    mirrored = mf.flows.Symmetrized(flow, torch.stack([torch.eye(2), -torch.eye(2)]))
    x = torch.randn(50, 2)
    with pytest.raises(ValueError, match="a Whiten within the Symmetrized waits"):
        start_at(mirrored, Split(x))
    start_at(flow, Split(x))
    start_at(mirrored, Split(x))  # nothing is left to do


def test_mixtures_of_a_base_start_at_heavy_tails() -> None:
    generator = torch.Generator().manual_seed(0)
    width = torch.where(torch.rand(4000, 2, generator=generator) < 0.8, 1.0, 5.0)
    x = width * torch.randn(4000, 2, generator=generator)
    base = mf.flows.base("marginals", 2, components=3, generator=generator)
    flow = Flow(Whiten.waiting(2), base)
    start_at(flow, Split(x))
    normal = torch.distributions.Normal(0.0, 1.0)
    true = (
        torch.stack([math.log(0.8) + normal.log_prob(x), math.log(0.04) + normal.log_prob(x / 5)])
        .logsumexp(dim=0)
        .sum(dim=1)
    )
    assert flow().log_prob(x).mean() > true.mean() - 0.01
    assert flow().log_prob(x).mean() > gaussian(x.double()).log_prob(x.double()).mean() + 0.3
    with pytest.raises(ValueError, match="components"):
        MADE(2).initialize(x)


def test_a_made_of_mixtures_starts_in_its_own_order() -> None:
    x = torch.randn(2000, 2) * torch.tensor([1.0, 9.0]) + torch.tensor([0.0, 50.0])
    made = MADE(2, components=2, order=[1, 0], hidden_features=[4])
    made.initialize(x, weight=torch.ones(2000))
    assert made().log_prob(x).mean() > -math.log(9) - 2.9
    logits, means, log_precisions = marginal_mixtures(x, 2)
    assert logits.shape == means.shape == log_precisions.shape == (2, 2)
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(2))


def test_recipes_say_it_by_name() -> None:
    settings = {**SHAPES, "start": "gaussian", "hidden_dim": 8, "base": "marginals"}
    arguments = recipe("maf").build(12, 0, settings, (3, 2, 2))
    assert arguments["first"] == ["rgb", "whiten"]
    flow = build_flow(FlowConfig("MAF", arguments))
    order, whiten = flow.transform.transforms[:2]
    assert isinstance(order, Permutation)
    assert order.order.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert isinstance(whiten, Whiten)
    assert flow.chain is None  # the kernel begins behind it
    assert flow.parts()[1] is not None
    assert recipe("modern").build(5, 2, settings)["first"] == "whiten"
    assert "first" not in recipe("glow").build(12, 0, settings, (3, 2, 2))
    with pytest.raises(ValueError, match="three colours"):
        build_flow(FlowConfig("MAF", {"features": 4, "first": "rgb"}))


def test_normal_scores_wait_for_training_rows() -> None:
    x = rows(4000).exp()
    flow = Flow([Whiten.waiting(3), NormalScores.waiting(3)], MAF(3).base).double()
    start_at(flow, Split(x))
    whiten, scores = flow.transform.transforms
    fitted = NormalScores.fit(whiten()(x), knots=128)
    torch.testing.assert_close(flow.transform()(x), fitted()(whiten()(x)), atol=1e-6, rtol=1e-6)
    assert not scores.is_waiting


@pytest.mark.parametrize("context", [False, True])
def test_a_run_starts_so_and_is_read_again(tmp_path: Path, context: bool) -> None:
    dataset = dataset_of(800, context)
    first = {"first": ["whiten"], "base": {"name": "marginals", "components": 2}}
    run = trained(tmp_path / "g", dataset, **first)
    test = dataset.test
    score = mf.training.evaluate(run.flow, test).mean()
    x, c = dataset.train.x, dataset.train.context
    best = mf.data.conditional_gaussian((x, test.x), (c, test.context))
    assert best is not None
    assert abs(score - best.mean()) < 0.2
    again = mf.load_run(tmp_path / "g")
    torch.testing.assert_close(
        mf.training.evaluate(again.flow, test), mf.training.evaluate(run.flow, test), rtol=0, atol=0
    )


def test_cifar10_begins_so_and_keeps_the_seeds_architecture() -> None:
    settings = settle({"dataset": "cifar10"})
    told = ("hidden_dim", "num_layers", "degrees", "start", "base", "batch_norm")
    assert [settings[name] for name in told] == [
        1024,
        10,
        "random",
        "gaussian",
        "marginals",
        False,
    ]
    assert settle({"dataset": "cifar10", "flow": "made-mog"})["base"] == "normal"
