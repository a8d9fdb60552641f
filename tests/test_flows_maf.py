"""MAF: its random orders, its batch norm, wide ones, and where its randomness comes from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import maskedflow as mf
from oracles import allowed, autograd_ladjs, check_inverse_pair, dependencies
from strategies import SMOOTH, Case, cases, overwrite


@given(st.integers(2, 6), st.integers(0, 99))
def test_random_orders_differ_from_transform_to_transform(features: int, seed: int) -> None:
    case = Case(features=features, transforms=6, seed=seed)
    flow = case.build(randperm=True)
    found = [
        tuple(dependencies(step(), case.x(2)).sum(dim=1).tolist())
        for step in flow.transform.transforms
    ]
    assert all(sorted(ranks) == list(range(1, features + 1)) for ranks in found)
    assert features < 4 or len(set(found)) > 1


@pytest.mark.parametrize("residual", [False, True])
def test_gradients_reach_every_single_weight_that_the_masks_allow(residual: bool) -> None:
    case = Case(features=5, context=2, transforms=2, residual=residual, hidden_features=(9, 9))
    flow = case.build()
    flow(case.c(16)).log_prob(case.x(16)).sum().backward()
    dense = {name: value for name, value in flow.state_dict().items() if "weight" in name}
    for name, parameter in flow.named_parameters():
        allowed_weights = dense.get(name, parameter)
        assert parameter.grad is not None
        assert int((parameter.grad != 0).sum()) == int((allowed_weights != 0).sum()), name


@pytest.mark.parametrize("options", [{}, {"randperm": True}, {"degrees": "random"}], ids=str)
def test_a_generator_decides_the_new_flow(options: dict[str, Any]) -> None:
    def build(seed: int) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(seed)
        flow = mf.flows.MAF(5, 2, hidden_features=(16, 16), generator=source, **options)
        return flow.state_dict()

    before = torch.get_rng_state()
    first, second, other = build(1), build(1), build(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert any(not torch.equal(other[name], value) for name, value in first.items())


def test_without_a_generator_the_global_seed_decides() -> None:
    def build(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return overwrite(mf.flows.MAF(4, randperm=True), 0)().log_prob(torch.ones(4))

    assert torch.equal(build(3), build(3))
    assert not torch.equal(build(3), build(4))


def test_batch_norm_follows_every_transform() -> None:
    flow = mf.flows.MAF(3, transforms=4, batch_norm=True)
    kinds = [type(step).__name__ for step in flow.transform.transforms]
    assert kinds == ["MaskedAutoregressiveTransform", "BatchNorm"] * 4


def test_batch_norm_in_training_normalises_the_latent_and_counts_it() -> None:
    flow = mf.flows.MAF(3, transforms=2, batch_norm=True).train()
    x = 50 + 20 * torch.randn(200, 3)
    transform = flow().transform
    z, ladj = transform.call_and_ladj(x)
    assert z.mean(dim=0).abs().max() < 1e-3
    assert (z.std(dim=0) - 1).abs().max() < 2e-2
    expected = -x.std(dim=0, correction=0).log().sum()
    assert (ladj.mean() - expected).abs() < 0.5


@pytest.mark.parametrize("features", [33, 48, 70])
@pytest.mark.parametrize("degrees", ["sequential", "random"])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_wide_flow(features: int, degrees: str, ordered: bool) -> None:
    source = torch.Generator().manual_seed(1)
    order = tuple(torch.randperm(features, generator=source).tolist()) if ordered else None
    case = Case(
        features=features,
        context=2,
        transforms=2,
        order=order,
        hidden_features=(100, 80),
        degrees=degrees,
    )
    flow = case.build(noise=0.1)
    x, c = case.x(3), case.c(3)
    transform = flow(c).transform
    check_inverse_pair(transform, x, atol=1e-7, rtol=1e-7)
    row = flow(None if c is None else c[0]).transform
    torch.testing.assert_close(row.call_and_ladj(x[:1])[1], autograd_ladjs(row, x[:1]))
    first = flow.transform.transforms[0]
    found = dependencies(first(c[0]), x[:1])
    expected = allowed(features, order, None) | torch.eye(features).bool()
    assert torch.equal(found, expected)


@given(cases(activations=SMOOTH, features=st.integers(2, 8), dtype=st.just(torch.float64)))
def test_orders_that_mix_every_feature_with_every_other(case: Case) -> None:
    """Two transforms in opposite orders let each latent depend on each feature."""
    assume(case.passes is None or case.passes == case.features)
    flow = case.but(transforms=2, passes=None, degrees="sequential").build()
    found = dependencies(flow(case.c()).transform, case.x(3))
    assert found.all()
