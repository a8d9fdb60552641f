"""The distribution of a flow: densities, samples and batches fit together."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import ExpTransform, Gamma, Independent, LogNormal, Normal, constraints

import maskedflow as mf
from generators import generator
from maskedflow.distributions import DiagNormal, NormalizingFlow
from oracles import autograd_ladj
from strategies import Case, cases, overwrite


def test_a_known_distribution_comes_out() -> None:
    flow = NormalizingFlow(ExpTransform().inv, Normal(0.3, 0.8))
    x = torch.tensor([0.1, 1.0, 5.0])
    torch.testing.assert_close(flow.log_prob(x), LogNormal(0.3, 0.8).log_prob(x))
    assert flow.event_shape == ()


def test_a_base_without_reparameterised_draws_still_samples() -> None:
    flow = NormalizingFlow(ExpTransform(), Gamma(2.0, 1.0))  # zuko's own example
    x, log_prob = flow.rsample_and_log_prob((5,))
    assert x.shape == log_prob.shape == (5,)
    torch.testing.assert_close(log_prob, flow.log_prob(x))


def test_diag_normal_is_the_product_of_normals() -> None:
    loc, scale = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    ours, theirs = DiagNormal(loc, scale), Independent(Normal(loc, scale), 1)
    x = torch.randn(5, 4, 3)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    assert ours.batch_shape == theirs.batch_shape
    assert ours.event_shape == theirs.event_shape
    assert ours.expand((2, 4)).log_prob(x[:, None]).shape == (5, 2, 4)
    assert ours.sample((7,)).shape == theirs.sample((7,)).shape
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)


@given(cases())
def test_log_prob_is_the_change_of_variables(case: Case) -> None:
    flow = case.but(dtype=torch.float64).build()
    c = case.but(dtype=torch.float64).c()
    x = case.but(dtype=torch.float64).x()
    transform = flow(c).transform
    z = transform(x)
    base = -0.5 * (z.square() + math.log(2 * math.pi)).sum()
    expected = base + autograd_ladj(transform, x)
    torch.testing.assert_close(flow(c).log_prob(x), expected, atol=1e-8, rtol=1e-8)


@given(cases(), st.sampled_from([(), (3,), (2, 3)]))
def test_log_prob_of_samples_is_their_log_prob(case: Case, shape: tuple[int, ...]) -> None:
    """With the sign right: a peer adds the log-determinant where it should subtract it."""
    distribution = case.build(noise=0.2)(case.c())
    x, log_prob = distribution.rsample_and_log_prob(shape)
    assert x.shape == (*shape, case.features)
    assert log_prob.shape == shape
    assert x.dtype == log_prob.dtype == case.dtype
    torch.testing.assert_close(log_prob, distribution.log_prob(x), **case.tolerance)


def test_log_prob_of_samples_is_right_about_a_scale() -> None:
    """By hand: x = 10 z has the density N(0, 100)."""
    base = mf.flows.UnconditionalDistribution(
        DiagNormal, torch.zeros(1), torch.ones(1), buffer=True
    )
    flow = mf.flows.Flow([mf.transforms.Standardize(torch.zeros(1), torch.full((1,), 10.0))], base)
    x, log_prob = flow().rsample_and_log_prob((50,))
    expected = Normal(0.0, 10.0).log_prob(x)[:, 0]
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(flow().log_prob(x), expected)
    assert 5 < float(x.std()) < 15


def test_samples_and_densities_agree_on_an_expectation() -> None:
    """The entropy two ways: the mean of -log p over samples, and by quadrature."""
    flow = Case(features=1, transforms=2, context=0).build(noise=0.5)
    x = flow().sample((20_000,), generator=generator(0))
    centre, width = float(x.mean()), 12 * float(x.std())
    grid = torch.linspace(centre - width, centre + width, 20_001, dtype=torch.float64)[:, None]
    log_p = flow().log_prob(grid)
    entropy = -(log_p.exp() * log_p).sum() * (grid[1, 0] - grid[0, 0])
    torch.testing.assert_close(-flow().log_prob(x).mean(), entropy, atol=0.03, rtol=0)


SHAPES = st.sampled_from(
    [
        # context batch, data batch
        ((), (5,)),
        ((4,), ()),
        ((4,), (4,)),
        ((4,), (6, 4)),
        ((4, 1), (5,)),
        ((2, 1, 3), (4, 3)),
        ((1,), (5,)),
    ]
)


@given(cases(context=st.integers(1, 3)), SHAPES)
def test_batches_of_contexts_broadcast_against_batches_of_x(
    case: Case, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    flow = case.build()
    c, x = case.c(*shapes[0]), case.x(*shapes[1])
    assert c is not None
    log_prob = flow(c).log_prob(x)
    expected = torch.broadcast_shapes(*shapes)
    assert log_prob.shape == expected
    every_x = x.expand(*expected, -1).reshape(-1, case.features)
    every_c = c.expand(*expected, -1).reshape(-1, case.context)
    one_by_one = [flow(cc).log_prob(xx) for xx, cc in zip(every_x, every_c, strict=True)]
    torch.testing.assert_close(log_prob.reshape(-1), torch.stack(one_by_one), **case.tolerance)


@given(cases(context=st.integers(1, 3)), st.sampled_from([(), (3,), (2, 3)]))
def test_samples_of_batches_of_contexts(case: Case, shape: tuple[int, ...]) -> None:
    flow = case.build(noise=0.2)
    c = case.c(*shape)
    assert c is not None
    distribution = flow(c)
    assert distribution.batch_shape == shape
    x, log_prob = distribution.rsample_and_log_prob((5,), generator=generator(3))
    assert x.shape == (5, *shape, case.features)
    assert log_prob.shape == (5, *shape)
    torch.testing.assert_close(log_prob, distribution.log_prob(x), **case.tolerance)
    z = torch.randn(5, *shape, case.features, generator=generator(3), dtype=case.dtype)
    torch.testing.assert_close(distribution.transform(x), z, **case.tolerance)


@given(cases(context=st.integers(0, 2)), st.sampled_from([(), (4,), (3, 4)]))
def test_expand(case: Case, shape: tuple[int, ...]) -> None:
    distribution = case.build(noise=0.2)(case.c())
    expanded = distribution.expand(shape)
    assert isinstance(expanded, NormalizingFlow)
    assert expanded.batch_shape == shape
    assert expanded.event_shape == distribution.event_shape == (case.features,)
    x = expanded.sample((2,))
    assert x.shape == (2, *shape, case.features)
    torch.testing.assert_close(expanded.log_prob(x), distribution.log_prob(x), **case.tolerance)
    y, log_prob = expanded.rsample_and_log_prob((2,))
    torch.testing.assert_close(log_prob, distribution.log_prob(y), **case.tolerance)


def test_independent_wraps_a_flow() -> None:
    flow = Case(features=2, context=1).build()
    c = torch.randn(3, 1, dtype=torch.float64)
    both = Independent(flow(c), 1)
    x = both.sample()
    torch.testing.assert_close(both.log_prob(x), flow(c).log_prob(x).sum())


@pytest.mark.parametrize("features", [1, 3])
def test_support_is_the_real_vectors(features: int) -> None:
    distribution = mf.flows.MAF(features)()
    support = distribution.support
    assert support.event_dim == 1
    x = torch.randn(4, features)
    x[1, 0] = torch.nan
    assert support.check(x).tolist() == [True, False, True, True]


def test_support_of_a_bounded_flow_is_where_the_data_may_be() -> None:
    maf = mf.flows.MAF(2)
    flow = mf.flows.Flow([mf.transforms.Logit(0.0), *maf.transform.transforms], maf.base)
    support = flow().support
    assert support.event_dim == 1
    inside = support.check(torch.tensor([[0.5, 0.5], [0.5, 1.5], [-0.1, 0.2]]))
    assert inside.tolist() == [True, False, False]
    samples = flow().sample((100,))
    assert support.check(samples).all()


@given(cases(), st.sampled_from([(), (3,)]))
def test_a_generator_repeats_samples_and_leaves_the_global_one_alone(
    case: Case, shape: tuple[int, ...]
) -> None:
    distribution = case.build()(case.c(*shape))
    before = torch.get_rng_state()
    x = distribution.sample((3,), generator=generator(5))
    assert torch.equal(x, distribution.sample((3,), generator=generator(5)))
    assert torch.equal(x, distribution.rsample((3,), generator=generator(5)))
    both, _ = distribution.rsample_and_log_prob((3,), generator=generator(5))
    torch.testing.assert_close(x, both.detach(), **case.tolerance)
    assert not torch.equal(x, distribution.sample((3,), generator=generator(6)))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_seed_decides() -> None:
    distribution = mf.flows.MAF(3)()
    torch.manual_seed(4)
    x = distribution.sample((5,))
    torch.manual_seed(4)
    assert torch.equal(x, distribution.sample((5,)))
    assert not torch.equal(x, distribution.sample((5,)))


def test_successive_draws_of_one_generator_differ() -> None:
    distribution, source = mf.flows.MAF(2)(), generator(0)
    first = distribution.sample((5,), generator=source)
    assert not torch.equal(first, distribution.sample((5,), generator=source))


@given(cases())
def test_dtype_is_kept_everywhere(case: Case) -> None:
    distribution = case.build()(case.c(4))
    log_prob = distribution.log_prob(case.x(4))
    x = distribution.sample((2,))
    y, log_q = distribution.rsample_and_log_prob((2,))
    assert {t.dtype for t in (log_prob, x, y, log_q)} == {case.dtype}


def test_float64_is_computed_in_float64() -> None:
    """A float32 accumulator anywhere shows as an error of 1e-7."""
    single = Case(features=6, transforms=3, dtype=torch.float32)
    flow = single.build()
    x = single.x(50)
    double = single.build().double()
    difference = double().log_prob(x.double()) - flow().log_prob(x).double()
    assert 0 < float(difference.detach().abs().max()) < 1e-3
    z, ladj = double().transform.call_and_ladj(x.double())
    expected = torch.stack([autograd_ladj(double().transform, row) for row in x.double()])
    assert float((ladj - expected).detach().abs().max()) < 1e-11
    assert float((double().transform.inv(z) - x.double()).detach().abs().max()) < 1e-11


def test_samples_have_no_graph_and_rsamples_have() -> None:
    distribution = Case(features=3).build()()
    assert not distribution.sample((2,)).requires_grad
    assert distribution.rsample((2,)).requires_grad
    assert all(t.requires_grad for t in distribution.rsample_and_log_prob((2,)))


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0,), torch.Size([4]), [2, 3]])
def test_any_sample_shape(shape: tuple[int, ...]) -> None:
    distribution = mf.flows.MAF(3, context=2)(torch.randn(4, 2))
    assert distribution.sample(shape).shape == (*shape, 4, 3)
    x, log_prob = distribution.rsample_and_log_prob(shape)
    assert x.shape == (*shape, 4, 3)
    assert log_prob.shape == (*shape, 4)


def test_an_empty_batch_has_an_empty_density() -> None:
    flow = mf.flows.MAF(3)
    assert flow().log_prob(torch.zeros(0, 3)).shape == (0,)
    conditional = mf.flows.MAF(3, context=2)
    assert conditional(torch.zeros(0, 2)).log_prob(torch.zeros(0, 3)).shape == (0,)


def test_a_custom_base_is_used() -> None:
    base = mf.flows.UnconditionalDistribution(
        DiagNormal, torch.full((2,), 3.0), torch.full((2,), 0.5)
    )
    flow = overwrite(mf.flows.MAF(2, base=base), 0)
    z = flow().transform(torch.randn(5, 2))
    x = flow().transform.inv(z)
    ladj = flow().transform.call_and_ladj(x)[1]
    expected = Normal(3.0, 0.5).log_prob(z).sum(dim=-1) + ladj
    torch.testing.assert_close(flow().log_prob(x), expected, atol=1e-4, rtol=1e-4)
    flow().log_prob(x).sum().backward()
    assert all(parameter.grad is not None for parameter in base.parameters())
    assert len(list(base.parameters())) == 2


def test_an_embedding_goes_before_every_transform_and_learns() -> None:
    maf = Case(features=2, context=3, dtype=torch.float32).build()
    embedding = nn.Linear(5, 3)
    flow = mf.flows.Flow(maf.transform, maf.base, embedding)
    x, c = torch.randn(4, 2), torch.randn(4, 5)
    torch.testing.assert_close(flow(c).log_prob(x), maf(embedding(c)).log_prob(x))
    flow(c).log_prob(x).sum().backward()
    assert embedding.weight.grad is not None
    assert (embedding.weight.grad != 0).any()
    assert flow(c).batch_shape == (4,)


def test_preprocessing_counts_in_the_density() -> None:
    maf = Case(features=2, dtype=torch.float32).build()
    loc, scale = torch.tensor([10.0, -5.0]), torch.tensor([2.0, 0.1])
    before = mf.transforms.LazyComposedTransform(mf.transforms.Standardize(loc, scale))
    flow = mf.flows.Flow([before, *maf.transform.transforms], maf.base)
    x = loc + scale * torch.randn(6, 2)
    expected = maf().log_prob((x - loc) / scale) - scale.log().sum()
    torch.testing.assert_close(flow().log_prob(x), expected)
    z = maf().sample((200,), generator=generator(1))
    torch.testing.assert_close(flow().sample((200,), generator=generator(1)), z * scale + loc)


def test_repr_names_transform_and_base() -> None:
    shown = repr(mf.flows.MAF(2)())
    assert "transform" in shown
    assert "base" in shown
    assert "DiagNormal" in shown


def entropy_loss(flow: nn.Module, seed: int) -> Tensor:
    x, log_prob = flow().rsample_and_log_prob((16,), generator=generator(seed))
    return (log_prob + x.square().sum(dim=-1)).mean()


def test_rsample_and_log_prob_trains_a_flow_to_a_target() -> None:
    """Variational inference of N(0, 1/2) in two dimensions: the KL divergence shrinks."""
    flow = mf.flows.MAF(2, transforms=1, hidden_features=(8,), generator=generator(0))
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.03)
    start = entropy_loss(flow, 999).item()
    for seed in range(60):
        optimizer.zero_grad()
        entropy_loss(flow, seed).backward()
        optimizer.step()
    assert entropy_loss(flow, 999).item() < start - 0.1
    assert flow().support.event_dim == 1
    assert isinstance(flow().support, constraints.Constraint)
