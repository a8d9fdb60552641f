"""One battery for every flow: what each of them promises, whatever its options."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from family import Entry, every_flow, flows_that_promise, masked_steps, without_gradient
from oracles import allowed, autograd_ladjs, check_inverse_pair, dependencies
from strategies import SMOOTH, Case, cases, few


@flows_that_promise("inverse")
@few
@given(cases(), st.sampled_from([(), (4,), (2, 3)]))
def test_round_trip(build: Entry, case: Case, batch: tuple[int, ...]) -> None:
    flow = build(case, noise=0.2)
    x = build.x(case, *batch)
    check_inverse_pair(flow(case.c(*batch)).transform, x, **case.tolerance)


@flows_that_promise("inverse")
@few
@given(cases(dtype=st.just(torch.float64)))
def test_ladj_is_autograds(build: Entry, case: Case) -> None:
    transform = build(case, noise=0.2)(case.c()).transform
    x = build.x(case, 3)
    _, ladj = transform.call_and_ladj(x)
    torch.testing.assert_close(ladj, autograd_ladjs(transform, x), atol=1e-8, rtol=1e-8)
    z = build.x(case.but(seed=case.seed + 3), 2)
    _, ladj = transform.inv.call_and_ladj(z)
    torch.testing.assert_close(ladj, autograd_ladjs(transform.inv, z), atol=1e-7, rtol=1e-7)


@flows_that_promise("inverse")
@few
@given(cases(dtype=st.just(torch.float64)))
def test_the_jacobian_of_each_step_is_triangular_in_its_order(build: Entry, case: Case) -> None:
    flow = build(case)
    x = build.x(case, 3)
    steps = masked_steps(flow)
    for number, step in enumerate(steps):
        found = dependencies(step(case.c()), x)
        assert found.diagonal().all()
        # Whatever the order, some permutation makes it triangular: no feature waits for itself.
        reach = found.double()
        for _ in range(case.features):
            reach = (reach @ found.double() > 0).double()
        assert not (reach.bool() & reach.bool().T & ~torch.eye(case.features).bool()).any()
        if "order" not in build.lacks:
            ranks = list(case.order or range(case.features))
            ranks = [case.features - 1 - rank for rank in ranks] if number % 2 else ranks
            expected = allowed(case.features, ranks, case.passes)
            assert not (found & ~expected & ~torch.eye(case.features).bool()).any()
    assert "order" in build.lacks or len(steps) in (1, case.transforms)


@flows_that_promise("inverse")
@few
@given(cases(activations=SMOOTH, dtype=st.just(torch.float64)))
def test_the_sweep_is_the_reference_loop(build: Entry, case: Case) -> None:
    for step in masked_steps(build(case)):
        z = build.x(case, 3).requires_grad_()
        c = case.c(3)
        leaves = [z, *step.parameters()]
        if c is not None:
            leaves.append(c.requires_grad_())
        weight = case.draw(3, case.features, seed=4)
        found = []
        for inverse in (step(c).inv, step(c).reference_inverse):
            x = inverse(z)
            found.append([x, *torch.autograd.grad((weight * x).sum(), leaves, allow_unused=True)])
        for ours, theirs in zip(*found, strict=True):
            ours, theirs = (torch.zeros(()) if g is None else g for g in (ours, theirs))
            torch.testing.assert_close(ours, theirs.expand_as(ours), atol=1e-7, rtol=1e-6)


@flows_that_promise("line")
@few
@given(
    cases(
        features=st.just(1),
        context=st.integers(0, 1),
        activations=SMOOTH,
        dtype=st.just(torch.float64),
    )
)
def test_density_integrates_to_one_in_one_dimension(build: Entry, case: Case) -> None:
    distribution = build(case)(case.c())
    samples = distribution.sample((1_000,), generator=torch.Generator().manual_seed(0))
    # Fine in the middle and far-reaching: some tails are heavy.
    centre, width = samples.median(), samples.std().clamp(max=1e3)
    grid = centre + width * torch.linspace(-14, 14, 10_001, dtype=torch.float64).sinh()[:, None]
    total = torch.trapezoid(distribution.log_prob(grid).exp(), grid[:, 0])
    assert abs(float(total.detach()) - 1) < 5e-3


@flows_that_promise("line")
@settings(max_examples=2)
@given(
    cases(
        features=st.just(2),
        context=st.integers(0, 1),
        activations=[nn.Tanh],
        dtype=st.just(torch.float64),
    )
)
def test_density_integrates_to_one_in_two_dimensions(build: Entry, case: Case) -> None:
    flow = build(case.but(hidden_features=(6,)), noise=0.25)
    distribution = flow(case.c())
    samples = distribution.sample((2_000,), generator=torch.Generator().manual_seed(0))
    # Fine in the bulk of the samples, and reaching past the last of them: some tails are heavy.
    side = 200
    centre = samples.median(dim=0).values
    low, high = samples.quantile(torch.tensor([0.1, 0.9]).double(), dim=0)
    axes = [
        middle + unit * torch.linspace(-end, end, side, dtype=torch.float64).sinh()
        for middle, unit, end in zip(
            centre,
            (high - low) / 2,
            (2 * (samples - centre).abs().amax(dim=0) / (high - low) * 1.5).asinh().tolist(),
            strict=True,
        )
    ]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        parts = [distribution.log_prob(part).exp() for part in grid.split(10_000)]
    density = torch.cat(parts).reshape(side, side)
    total = torch.trapezoid(torch.trapezoid(density, axes[1]), axes[0])
    assert abs(float(total) - 1) < 1e-2


@every_flow
@few
@given(cases(activations=SMOOTH, dtype=st.just(torch.float64)))
def test_gradients_reach_every_parameter(build: Entry, case: Case) -> None:
    flow = build(case.but(degrees="sequential"))
    c = case.c(8)
    flow(c).log_prob(build.x(case, 8)).sum().backward()
    assert not without_gradient(flow)
    if "inverse" in build.lacks:
        return
    flow.zero_grad()
    x = flow(c).rsample((8,), generator=torch.Generator().manual_seed(1))
    (x.sin() + x.square()).sum().backward()
    assert not without_gradient(flow)
    flow.zero_grad()
    x, log_prob = flow(c).rsample_and_log_prob((8,), torch.Generator().manual_seed(1))
    (log_prob.sum() + x.sin().sum()).backward()
    assert not without_gradient(flow)


@every_flow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("context", [0, 2])
def test_extreme_inputs(build: Entry, dtype: torch.dtype, context: int) -> None:
    """A million standard deviations away, on both sides and in one feature or all."""
    case = Case(features=3, context=context, dtype=dtype)
    flow = build(case, noise=0.1)
    x = torch.cat([1e6 * torch.eye(3), 1e6 * torch.ones(1, 3)]).to(dtype)
    x = torch.cat([x, -x, x + case.x(4)]).requires_grad_()
    log_prob = flow(case.c(12)).log_prob(x)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    for leaf in (x, *flow.parameters()):
        assert leaf.grad is None or leaf.grad.isfinite().all()


@every_flow
@few
@given(cases(context=st.integers(1, 3), dtype=st.just(torch.float64)))
def test_a_batch_of_contexts_against_a_batch_of_x(build: Entry, case: Case) -> None:
    flow = build(case)
    x, c = build.x(case, 4), case.c(3, 1)
    assert c is not None
    found = flow(c).log_prob(x)
    assert found.shape == (3, 4)
    one_by_one = [[flow(own[0]).log_prob(row) for row in x] for own in c]
    expected = torch.stack([torch.stack(row) for row in one_by_one])
    torch.testing.assert_close(found, expected)
    assert flow(c).sample((2,)).shape == (2, 3, 1, case.features)


@flows_that_promise("inverse")
@few
@given(cases(context=st.integers(1, 3), activations=SMOOTH, dtype=st.just(torch.float64)))
def test_each_context_feature_changes_every_output(build: Entry, case: Case) -> None:
    flow = build(case)
    x, c = build.x(case), case.c()
    assert c is not None
    found = dependencies(lambda c: flow(c).transform(x), c[None])
    assert found.shape == (case.features, case.context)
    assert found.all()
    found = dependencies(lambda c: flow(c).transform.inv(x), c[None])
    assert found.all()


@every_flow
@few
@given(cases(features=st.just(1)))
def test_one_feature(build: Entry, case: Case) -> None:
    flow = build(case)
    x, c = build.x(case, 5), case.c(5)
    assert flow(c).log_prob(x).shape == (5,)
    assert flow(c).sample((2,)).shape == ((2, 1) if c is None else (2, 5, 1))
    if "inverse" in build.lacks:
        return
    check_inverse_pair(flow(c).transform, x, **case.tolerance)


@flows_that_promise("inverse", "identity")
@few
@given(cases())
def test_a_new_flow_is_near_the_identity(build: Entry, case: Case) -> None:
    flow = build(case, noise=0)
    x = build.x(case, 20)
    z, ladj = flow(case.c(20)).transform.call_and_ladj(x)
    assert (z - x).abs().max() < 0.3
    assert ladj.abs().max() < 0.3 * case.features
