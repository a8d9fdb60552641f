"""Flows of rows some of whose features are absent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import ExpTransform

import maskedflow as mf
from maskedflow.chain import Chain, Descent
from maskedflow.data import Split
from maskedflow.distributions import BoxUniform, StudentT
from maskedflow.flows import UnconditionalDistribution
from maskedflow.tables import PartialFlow, Whiten
from maskedflow.tables.plan import build_layers
from maskedflow.training import TrainConfig, evaluate, fit
from maskedflow.transforms import (
    ActNorm,
    BatchNorm,
    Dequantize,
    LazyComposedTransform,
    LULinear,
    Permutation,
    Standardize,
    UnconditionalTransform,
)
from oracles import jacobian
from strategies import UNIVARIATES, SinhArcsinh, overwrite

TIGHT = {"atol": 1e-8, "rtol": 1e-7}


def parts(
    features: int, context: int, seed: int = 0, noise: float = 0.4, **kwargs: Any
) -> list[Any]:
    """Layers of every kind, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(features, features, generator=generator).tril(-1)
    factor += torch.diag(0.5 + torch.rand(features, generator=generator))
    maf = mf.flows.MAF(
        features,
        context,
        transforms=2,
        hidden_features=(12,),
        activation=nn.Tanh,
        randperm=True,
        generator=generator,
        **kwargs,
    )
    element = mf.flows.ElementWiseTransform(features, context, generator=generator)
    standardize = Standardize(
        torch.randn(features, generator=generator), 0.5 + torch.rand(features, generator=generator)
    )
    weight = 0.3 * torch.randn(features, context, generator=generator)
    layers = [
        standardize,
        Whiten(torch.randn(features, generator=generator), factor, weight),
        LazyComposedTransform(maf.transform, Permutation(features, generator=generator)),
        UnconditionalTransform(SinhArcsinh, *torch.zeros(3, features)),
        element,
    ]
    layers = nn.ModuleList(layers).double()
    overwrite(layers, noise, seed)
    return list(layers)


def patterns(features: int, always: int = 0) -> Tensor:
    """Every pattern of what is there; the first few features always are."""
    choices = [[1.0]] * always + [[0.0, 1.0]] * (features - always)
    return torch.tensor(list(itertools.product(*choices)), dtype=torch.float64)


def normal(features: int) -> UnconditionalDistribution:
    return mf.flows.MAF(features, transforms=1).base.double()


univariates = st.sampled_from(sorted(UNIVARIATES))


@given(st.integers(1, 5), st.integers(0, 99), univariates)
def test_with_everything_there_it_is_the_plain_flow(
    features: int, seed: int, univariate: str
) -> None:
    layers = parts(features, features, seed, **UNIVARIATES[univariate])
    partial = PartialFlow(layers, normal(features), present=range(features))
    plain = mf.flows.Flow(layers, normal(features))
    x, c = torch.randn(7, features).double(), torch.ones(7, features).double()
    torch.testing.assert_close(partial(c).log_prob(x), plain(c).log_prob(x), **TIGHT)
    torch.testing.assert_close(partial(c[0]).log_prob(x), plain(c[0]).log_prob(x), **TIGHT)
    assert partial(c[0]).log_prob(x[0]).shape == ()

    draws = [
        flow(c).sample((2,), generator=torch.Generator().manual_seed(1))
        for flow in (partial, plain)
    ]
    torch.testing.assert_close(*draws, atol=1e-6, rtol=1e-6)

    always = PartialFlow(layers, normal(features), present=[None] * features)
    assert torch.equal(always(c).log_prob(x), plain(c).log_prob(x))


@given(st.integers(1, 4), st.integers(0, 99), univariates)
def test_the_ladj_is_that_of_the_features_that_are_there(
    features: int, seed: int, univariate: str
) -> None:
    flow = PartialFlow(
        parts(features, features, seed, **UNIVARIATES[univariate]),
        normal(features),
        range(features),
    )
    for c in patterns(features):
        x = torch.randn(features).double()
        here = c != 0
        density = flow(c)
        if not here.any():
            assert density.log_prob(x).item() == 0
            continue

        def latent(there: Tensor, x: Tensor = x, c: Tensor = c, here: Tensor = here) -> Tensor:
            """The latent of the features that are there, layer by layer without this module."""
            full = torch.zeros_like(x).masked_scatter(here, there)
            for layer in flow.transform.transforms:
                for step in (
                    layer.transforms if isinstance(layer, LazyComposedTransform) else [layer]
                ):
                    if isinstance(step, LazyComposedTransform):
                        for inner in step.transforms:
                            full = torch.where(here, inner(c)(full), 0)
                    elif isinstance(step, Whiten):
                        mean = step.loc + step.weight @ c
                        covariance = (step.scale_tril @ step.scale_tril.T)[here][:, here]
                        root = torch.linalg.cholesky(covariance)
                        white = torch.linalg.solve(root, (full - mean)[here])
                        full = torch.zeros_like(full).masked_scatter(here, white)
                    elif isinstance(step, Permutation):
                        full, here = full[step.order], here[step.order]
                    else:
                        full = torch.where(here, step(c)(full), 0)
            return full[here]

        there = x[here]
        expected = -0.5 * (latent(there).square() + math.log(2 * math.pi)).sum()
        expected = expected + torch.linalg.slogdet(jacobian(latent, there)).logabsdet
        torch.testing.assert_close(density.log_prob(x), expected, **TIGHT)
        # what is absent is no matter, not even if it is no number
        torch.testing.assert_close(density.log_prob(x.masked_fill(~here, torch.nan)), expected)


@pytest.mark.parametrize("univariate", ["affine", "spline"])
def test_the_density_of_each_pattern_integrates_to_one(univariate: str) -> None:
    layers = parts(3, 3, seed=5, noise=0.2, **UNIVARIATES[univariate])
    flow = PartialFlow(layers, normal(3), range(3))
    t = torch.linspace(-5, 5, 251, dtype=torch.float64)  # x = sinh t, to see tails as well
    points = torch.stack([t.sinh(), t.cosh().log() + (t[1] - t[0]).log()], dim=1)
    for c in patterns(3):
        here = c != 0
        if here.sum() in (1, 2):
            grid = torch.cartesian_prod(*[torch.arange(len(t))] * int(here.sum()))
            x, log_cell = points[grid.view(len(grid), -1)].unbind(dim=-1)
            full = x.new_zeros(len(x), 3)
            full[:, here] = x
            with torch.no_grad():
                total = (flow(c).log_prob(full) + log_cell.sum(dim=1)).exp().sum().item()
            assert total == pytest.approx(1, abs=2e-3)


@given(st.integers(1, 5), st.integers(0, 99), univariates)
def test_samples_have_zeros_where_nothing_is_and_gradients(
    features: int, seed: int, univariate: str
) -> None:
    layers = parts(features, features, seed, **UNIVARIATES[univariate])
    flow = PartialFlow(layers, normal(features), range(features))
    c = patterns(features)
    here = c != 0
    x = flow(c).rsample((3,), generator=torch.Generator().manual_seed(seed))
    assert x.shape == (3, len(c), features)
    assert (x[:, ~here] == 0).all()
    # a row's draw does not depend on what is absent from others
    whole = flow(c[-1]).sample((3,), generator=torch.Generator().manual_seed(seed))
    alone = flow(c[-1:]).sample((3,), generator=torch.Generator().manual_seed(seed))[:, 0]
    torch.testing.assert_close(whole, alone)
    assert flow(c).log_prob(x).isfinite().all()
    x.sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_samples_have_the_density() -> None:
    flow = PartialFlow(parts(2, 2, seed=3), normal(2), range(2))
    for c in (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])):
        column = int(c.argmax())
        x = flow(c.double()).sample((20_000,), generator=torch.Generator().manual_seed(0))
        line = torch.linspace(-40, 40, 4001, dtype=torch.float64)
        points = torch.zeros(len(line), 2).double()
        points[:, column] = line
        with torch.no_grad():
            cdf = flow(c.double()).log_prob(points).exp().cumsum(0) * (line[1] - line[0])
        share = torch.searchsorted(x[:, column].sort().values, line) / len(x)
        assert (share - cdf).abs().max() < 0.02


@pytest.mark.parametrize("univariate", sorted(UNIVARIATES))
def test_gradients_reach_every_parameter(univariate: str) -> None:
    flow = PartialFlow(parts(3, 3, **UNIVARIATES[univariate]), normal(3), range(3))
    c = patterns(3).repeat(8, 1)
    flow(c).log_prob(torch.randn(len(c), 3).double()).sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.ne(0).any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_away_everything_is_finite(dtype: torch.dtype) -> None:
    for kwargs in ({}, UNIVARIATES["spline"]):
        flow = PartialFlow(parts(3, 3, **kwargs), normal(3), range(3)).to(dtype)
        c = patterns(3).to(dtype)
        x = torch.full((len(c), 3), 1e6, dtype=dtype, requires_grad=True)
        log_prob = flow(c).log_prob(x)
        assert log_prob.dtype == dtype
        assert log_prob.isfinite().all()
        log_prob.sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())


def test_other_maps_and_bases() -> None:
    positive = UnconditionalTransform(lambda: ExpTransform().inv)
    base = UnconditionalDistribution(StudentT, torch.full((2,), 4.0), ndims=1)
    maf = mf.flows.MAF(2, 1, transforms=1)
    flow = PartialFlow([positive, maf.transform], base, [None, 0])
    x = torch.tensor([[0.5, 0.0], [0.5, 2.0]])
    log_prob = flow(torch.tensor([[0.0], [1.0]])).log_prob(x)
    assert log_prob.isfinite().all()
    angles = mf.flows.NCSF(2, 1)
    circular = PartialFlow(angles.transform, angles.base, [0, None])
    draws = circular(torch.tensor([0.0])).sample((50,))
    assert (draws[:, 0] == 0).all()
    assert (draws[:, 1] != 0).all()
    assert isinstance(angles.base(), BoxUniform)

    cells = PartialFlow([Dequantize(1.0), *flow.transform.transforms], base, [None, 0])
    drawn = cells(torch.tensor([1.0])).sample((5,))
    assert torch.equal(drawn, drawn.floor())


def test_the_training_loop_takes_it_as_it_is() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 2) @ torch.tensor([[1.0, 2.0], [0.0, 0.3]])
    c = (torch.rand(2000, 2) > 0.4).float()
    split = Split(x * c, c)
    whiten = Whiten.fit(x, observed=c.bool())
    spline = mf.flows.NSF(2, 2, transforms=2, hidden_features=(16,))
    flow = PartialFlow([whiten, spline.transform], spline.base, [0, 1])
    before = evaluate(flow, split).mean()
    history = fit(flow, split, split, TrainConfig(epochs=3, batch_size=200, lr=1e-3))
    assert evaluate(flow, split).mean() > before
    assert history.best_epoch >= 1
    # a density of one column alone is that of the column
    alone = flow(torch.tensor([1.0, 0.0])).log_prob(x)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0])
    assert (alone - expected).abs().mean() < 0.1

    torch.testing.assert_close(evaluate(flow, split), evaluate(copied(flow), split), rtol=0, atol=0)


def absent(features: int, letters: str = "aas", seed: int = 0) -> tuple[PartialFlow, Tensor]:
    """A flow of layers that a program computes, and contexts: the last number is any."""
    generator = torch.Generator().manual_seed(seed)
    layers = build_layers(features, features + 1, letters, 12, seed)
    layers.insert(1, Permutation(features, generator=generator))
    present = [None, *range(1, features)]
    flow = overwrite(PartialFlow(layers, normal(features), present).double(), 0.2, seed)
    there = torch.rand(60, features, generator=generator) < 0.6
    number = torch.randn(60, 1, generator=generator)
    return flow, torch.cat([there.double(), number.double()], dim=1)


@contextmanager
def through_torch() -> Iterator[None]:
    with mock.patch.object(Chain, "vectors", return_value=None):
        yield


@settings(max_examples=10)
@given(st.integers(2, 6), st.text("as", min_size=1, max_size=3), st.integers(0, 99))
def test_a_program_computes_the_same(features: int, letters: str, seed: int) -> None:
    flow, c = absent(features, letters, seed)
    x = torch.randn(60, features).double().requires_grad_()
    c.requires_grad_()

    def computed() -> list[Tensor]:
        found = [flow(c).log_prob(x), flow(c).log_prob(torch.stack([x, 2 * x]))]
        found.append(flow(c).rsample((2,), torch.Generator().manual_seed(1)))
        assert not found[-1][..., 1:][:, c[:, 1:-1] == 0].any()
        leaves = [x, c, *flow.parameters()]
        weighted = [(one * one.detach().sin()).sum() for one in found]
        slopes = [
            torch.autograd.grad(one, leaves, materialize_grads=True, retain_graph=True)
            for one in weighted
        ]
        (slope,) = torch.autograd.grad(weighted[0], x, create_graph=True)
        second = torch.autograd.grad(slope.square().sum(), leaves, materialize_grads=True)
        return [*found, *(one for some in slopes for one in some), *second]

    ours = computed()
    assert flow.parts()[1] is not None
    with through_torch():
        theirs = computed()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            one, other, atol=1e-9 * (1 + float(other.detach().abs().max())), rtol=1e-9
        )


def test_a_program_trains_the_same() -> None:
    config = TrainConfig(epochs=3, batch_size=16, seed=2)

    def trained(watched: bool) -> tuple[Any, int]:
        flow, c = absent(4)
        if watched:
            flow.register_forward_pre_hook(lambda *_: None)
        split = Split(torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).double(), c)
        with mock.patch.object(Descent, "take", autospec=True, side_effect=Descent.take) as take:
            return fit(flow, split, split, config), take.call_count

    (ours, calls), (theirs, none) = trained(False), trained(True)
    assert calls > 0
    assert none == 0
    assert ours.train_nll == pytest.approx(theirs.train_nll, rel=1e-9)
    assert ours.validation_nll == pytest.approx(theirs.validation_nll, rel=1e-9)


def copied(flow: PartialFlow) -> PartialFlow:
    """A flow of the same parts that started elsewhere, with the state of this one."""
    whiten = Whiten(torch.zeros(2), torch.eye(2))
    spline = mf.flows.NSF(2, 2, transforms=2, hidden_features=(16,))
    other = PartialFlow([whiten, spline.transform], spline.base, [0, 1])
    other.load_state_dict(flow.state_dict())
    return other


@pytest.mark.parametrize(
    "layer",
    [
        lambda: LULinear(2),
        lambda: ActNorm(2),
        lambda: BatchNorm(2),
        lambda: mf.flows.IAF(2, transforms=1).transform,
        lambda: mf.flows.NICE(2, transforms=1).transform,
        lambda: LazyComposedTransform(Standardize(torch.zeros(2), torch.ones(2)), LULinear(2)),
    ],
)
def test_layers_that_mix_features_are_refused(layer: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"transforms: expected .* which mixes features"):
        PartialFlow([layer()], mf.flows.MAF(2).base, [0, None])


def test_mistakes_are_one_line() -> None:
    maf = mf.flows.MAF(2, 1)
    with pytest.raises(ValueError, match="transforms: expected at least one"):
        PartialFlow([], maf.base, [0, None])
    with pytest.raises(ValueError, match="present: expected 2 entries, got 1"):
        PartialFlow(maf.transform, maf.base, [0])
    with pytest.raises(ValueError, match="base: expected independent elements"):
        PartialFlow(maf.transform, mf.flows.GMM(2), [0, None])
    with pytest.raises(ValueError, match="base: expected independent elements"):
        PartialFlow(maf.transform, mf.flows.MADE(2), [0, None])
    flow = PartialFlow(maf.transform, maf.base, [None, 0])
    with pytest.raises(ValueError, match=r"c: expected a context that says .* got none"):
        flow()
    with pytest.raises(ValueError, match="c: expected numbers, got NaN"):
        flow(torch.tensor([torch.nan]))
    with pytest.raises(ValueError, match="x: expected numbers, got NaN"):
        flow(torch.ones(1)).log_prob(torch.tensor([0.0, torch.nan]))
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 2\), got \(3,\)"):
        flow(torch.ones(1)).log_prob(torch.zeros(3))
    with pytest.raises(ValueError, match="c: expected at least 2 features, got 1"):
        PartialFlow(maf.transform, maf.base, [None, 1])(torch.ones(1))
