"""MADE with mixtures, MAF MoG, and bases by name, compared with explicit mixtures."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

import maskedflow as mf
from clusters import clusters
from generators import generator
from maskedflow.distributions import BoxUniform, MixtureOfGaussians, StudentT
from maskedflow.flows import GMM, MADE, MAF, UnconditionalDistribution, base
from strategies import Case, cases, few, overwrite


def build(case: Case, components: int = 3, noise: float = 0.4) -> MADE:
    made = case.build(MADE, noise, components=components)
    assert isinstance(made, MADE)
    return made


# -- MADE MoG -------------------------------------------------------------------------------------


def conditional(flow: MADE, feature: int, x: Tensor, c: Tensor | None) -> MixtureSameFamily:
    """p(x_i | x_<i, c) in torch's words, from the network's outputs."""
    (step,) = flow.transform.transforms
    # The network's features are in the order of the sweep, unless generations just descend.
    falls = bool((step.generation.diff() <= 0).all())
    order = torch.arange(x.shape[-1]) if falls else step.generation.argsort(stable=True)
    phi = step.hyper(x[..., order], c).unflatten(-1, (x.shape[-1], 3, -1))
    logits, means, log_precisions = phi[..., int((order == feature).nonzero()), :, :].unbind(-2)
    normals = Normal(means, torch.exp(-0.5 * log_precisions))
    return MixtureSameFamily(Categorical(logits=logits), normals)


@few
@given(cases(dtype=st.just(torch.float64)), st.integers(2, 5))
def test_density_is_the_product_of_the_conditional_mixtures(case: Case, components: int) -> None:
    flow = build(case, components)
    x, c = 2 * case.x(20), case.c(20)
    expected = sum(conditional(flow, i, x, c).log_prob(x[..., i]) for i in range(case.features))
    torch.testing.assert_close(flow(c).log_prob(x), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_are_those_of_the_loop_over_features(dtype: torch.dtype) -> None:
    case = Case(features=4, context=2, order=(2, 0, 3, 1), hidden_features=(12, 12), dtype=dtype)
    flow = overwrite(build(case), 0.6, seed=5)
    c = case.c()
    count = 6000
    with torch.no_grad():
        ours = flow(c).sample((count,), generator=generator())
        theirs = torch.zeros(count, 4, dtype=dtype)
        (step,) = flow.transform.transforms
        for i in step.generation.argsort():
            theirs[:, i] = conditional(flow, int(i), theirs, c).sample()
    for i in range(4):
        assert stats.ks_2samp(ours[:, i].numpy(), theirs[:, i].numpy()).pvalue > 1e-5
        for j in range(i):
            pairs = [sample[:, i] * sample[:, j] for sample in (ours, theirs)]
            assert stats.ks_2samp(*(pair.numpy() for pair in pairs)).pvalue > 1e-5
    # Each feature's place in its own conditional is uniform.
    with torch.no_grad():
        for i in range(4):
            share = conditional(flow, i, ours, c).cdf(ours[:, i])
            assert stats.kstest(share.double().numpy(), "uniform").pvalue > 1e-5


def test_a_million_deviations_away_it_is_the_mixture() -> None:
    flow = MADE(3, components=10, generator=generator())
    x = 1e6 * torch.tensor([[1.0, -1.0, 1.0], [0.0, 0.0, -1.0]])
    with torch.no_grad():
        exact = flow.double()().log_prob(x.double())
        found = flow.float()().log_prob(x)
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=0)


def test_mixtures_start_apart_and_one_gaussian_near_the_identity() -> None:
    def last(components: int, seed: int = 0) -> Tensor:
        made = MADE(99, 0, components, hidden_features=(128,), generator=generator(seed))
        (step,) = made.transform.transforms
        return step.hyper.layers[-1].bias.detach()

    assert not last(1).any()
    bias = last(5)
    assert bias.shape == (99 * 15,)
    assert abs(float(bias.mean())) < 0.1
    assert abs(float(bias.std()) - 1) < 0.1
    assert torch.equal(bias, last(5))
    assert not torch.equal(bias, last(5, seed=1))


def test_components_are_counted() -> None:
    with pytest.raises(ValueError, match="components: expected at least 1, got 0"):
        MADE(2, components=0)
    with pytest.raises(TypeError, match="univariate"):
        MADE(2, components=2, univariate=mf.transforms.MonotonicAffineTransform)


def test_mixtures_with_batch_norm() -> None:
    flow = MADE(2, components=3, batch_norm=True).train()
    assert flow().log_prob(torch.randn(50, 2)).isfinite().all()


@pytest.mark.parametrize("kind", ["MAF", "MADE", "IAF", "NICE", "RealNVP", "NSF"])
def test_other_flows_take_a_base_too(kind: str) -> None:
    flow = getattr(mf.flows, kind)(2, 1, base=base("made", 2, components=2))
    x, log_prob = flow(torch.zeros(1)).rsample_and_log_prob((5,))
    torch.testing.assert_close(flow(torch.zeros(1)).log_prob(x), log_prob, atol=1e-4, rtol=1e-4)


def test_mixtures_learn_two_modes_that_a_gaussian_cannot() -> None:
    x = torch.randn(800, 1, generator=generator()) * 0.3
    x = torch.cat([x - 2, x + 2])
    scores = []
    for components in (1, 3):
        flow = MADE(1, components=components, generator=generator(1))
        optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
        for _ in range(80):
            optimizer.zero_grad()
            loss = -flow().log_prob(x).mean()
            loss.backward()
            optimizer.step()
        scores.append(-loss.item())
    best = math.log(0.5) - math.log(0.3) - 0.5 * math.log(2 * math.pi * math.e)
    assert scores[1] > best - 0.1
    assert scores[0] < best - 0.5


# -- a flow as a base -----------------------------------------------------------------------------


@few
@given(cases(context=st.integers(0, 2), dtype=st.just(torch.float64)))
def test_maf_mog_is_a_maf_on_top_of_a_made(case: Case) -> None:
    made = build(case)
    flow = case.build(base=made)
    overwrite(made, 0.3, case.seed + 1)
    x, c = case.x(6), case.c(6)
    z, ladj = flow(c).transform.call_and_ladj(x)
    torch.testing.assert_close(flow(c).log_prob(x), made(c).log_prob(z) + ladj)
    y, log_prob = flow(c).rsample_and_log_prob((5,), generator=generator())
    torch.testing.assert_close(flow(c).log_prob(y), log_prob, atol=1e-7, rtol=1e-7)
    same = flow(c).transform.inv(made(c).sample((5,), generator=generator()))
    torch.testing.assert_close(y, same, atol=1e-7, rtol=1e-7)
    # As one flow with one more transform.
    whole = mf.flows.Flow([*flow.transform.transforms, *made.transform.transforms], made.base)
    torch.testing.assert_close(whole(c).log_prob(x), flow(c).log_prob(x))
    assert flow(c).expand((3, 6)).sample((2,)).shape == (2, 3, 6, case.features)


def test_a_base_sees_the_context_or_not() -> None:
    c = torch.randn(4, 2)
    for own in (2, 0):
        flow = overwrite(MAF(3, context=2, base=base("made", 3, context=own)), 0.3)
        density = flow(c)
        assert density.batch_shape == (4,)
        z = torch.zeros(3)
        assert (len(set(density.base.log_prob(z).tolist())) == 4) == bool(own)
        x, log_prob = density.rsample_and_log_prob((2,), generator=generator())
        torch.testing.assert_close(density.log_prob(x), log_prob, atol=1e-3, rtol=1e-3)


# -- bases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["normal", "mixture", "made", "student-t", "uniform"])
def test_bases_by_name(name: str) -> None:
    flow = MAF(3, context=2, base=base(name, 3))
    density = flow(torch.zeros(4, 2))
    x = density.sample((5,), generator=generator())
    assert x.shape == (5, 4, 3)
    assert torch.equal(x, density.sample((5,), generator=generator()))
    assert density.log_prob(x).shape == (5, 4)
    learns = bool(list(flow.base.parameters()))
    assert learns == (name in ("mixture", "made", "student-t"))


def test_what_bases_are() -> None:
    assert isinstance(base("uniform", 2, upper=3.0)(), BoxUniform)
    assert base("uniform", 2, upper=3.0)().upper.tolist() == [3.0, 3.0]
    student = base("student-t", 2, df=3.0)
    assert isinstance(student(), StudentT)
    torch.testing.assert_close(student().df, torch.tensor([3.0, 3.0]))
    assert not list(base("student-t", 2, learnable=False).parameters())
    assert isinstance(base("mixture", 2, context=3)(torch.zeros(3)), MixtureOfGaussians)
    with pytest.raises(ValueError, match=r"base: expected one of normal, .*, got 'cauchy'"):
        base("cauchy", 2)


def test_a_mixture_base_may_start_at_the_latent_of_data() -> None:
    x, means, _ = clusters()
    flow = MAF(2, base=base("mixture", 2, components=3, x=x, generator=generator()))
    found = flow.base().base.mean.detach()
    assert torch.cdist(means, found).amin(dim=1).max() < 0.3
    random = MAF(2, base=base("mixture", 2, components=3, generator=generator()))
    assert flow().log_prob(x).mean() > random().log_prob(x).mean() + 1


def test_degrees_of_freedom_learn_heavy_tails() -> None:
    """The likelihood of Cauchy's distribution is best at one degree of freedom."""
    x = StudentT(torch.ones(1)).sample((4000,), generator=generator())
    student = base("student-t", 1)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (-student().log_prob(x).mean()).backward()
        optimizer.step()
    assert abs(float(student().df.detach()) - 1) < 0.1


def test_an_unconditional_gmm_is_the_base_of_a_conditional_flow() -> None:
    flow = MAF(2, context=3, base=UnconditionalDistribution(GMM(2)))
    c = torch.randn(4, 3)
    flow(c).log_prob(torch.randn(4, 2)).sum().backward()
    assert all(p.grad is not None for p in flow.base.parameters())
