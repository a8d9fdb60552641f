"""TemporalMAF: against the loop over time that it replaces, and against processes we know."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import maskedflow as mf
from family import without_gradient
from generators import generator
from oracles import jacobian
from strategies import overwrite

GRU_AND_LSTM = pytest.mark.parametrize("rnn", ["gru", "lstm"])


def temporal(features: int = 2, context: int = 0, **kwargs: Any) -> mf.flows.TemporalMAF:
    """A small flow in float64 whose weights are of a fair size."""
    options = {"hidden_size": 6, "transforms": 2, "hidden_features": (12,), **kwargs}
    flow = mf.flows.TemporalMAF(
        features, context, activation=torch.nn.Tanh, generator=generator(0), **options
    ).double()
    return overwrite(flow, 0.3)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def by_loop(flow: mf.flows.TemporalMAF, x: Tensor, c: Tensor | None) -> Tensor:
    """The log-density of each step, one step after the other, each with a call of the network."""
    state, h = None, x.new_zeros(len(x), flow.hidden_size)
    found = []
    for t in range(x.shape[1]):
        known = h if c is None else torch.cat([h, c[:, t]], dim=1)
        found.append(flow.maf(known).log_prob(x[:, t]))
        step = x[:, t] if c is None else torch.cat([x[:, t], c[:, t]], dim=1)
        _, state = flow.rnn(step[:, None], state)
        h = (state[0] if isinstance(state, tuple) else state)[-1]
    return torch.stack(found, dim=1)


@GRU_AND_LSTM
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(("features", "context", "steps"), [(1, 0, 1), (2, 3, 9), (3, 0, 5)])
def test_one_evaluation_is_the_loop(
    rnn: str, num_layers: int, features: int, context: int, steps: int
) -> None:
    flow = temporal(features, context, rnn=rnn, num_layers=num_layers)
    x = normal(4, steps, features)
    c = normal(4, steps, context, seed=2) if context else None
    expected = by_loop(flow, x, c)
    d = flow(c, steps=steps)
    torch.testing.assert_close(d.log_prob_steps(x), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(d.log_prob(x), expected.sum(1), rtol=0, atol=1e-10)
    assert d.event_shape == (steps, features)


@GRU_AND_LSTM
def test_no_step_sees_a_later_one(rnn: str) -> None:
    flow = temporal(2, 1, rnn=rnn)
    x, c = normal(6, 2), normal(6, 1, seed=2)
    of_x = jacobian(lambda x: flow(c).log_prob_steps(x), x).abs().sum(-1)
    of_c = jacobian(lambda c: flow(c).log_prob_steps(x), c).abs().sum(-1)
    past = torch.ones(6, 6).bool().tril()
    for found in (of_x, of_c):
        assert torch.equal(found != 0, past)


def test_the_density_of_two_steps_integrates_to_one() -> None:
    flow = temporal(1)
    grid = torch.linspace(-12, 12, 241, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)[..., None]
    total = flow(steps=2).log_prob(x).exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(total.item() - 1) < 1e-4


@GRU_AND_LSTM
def test_samples_come_with_their_density_and_gradients(rnn: str) -> None:
    flow = temporal(2, 1, rnn=rnn)
    d = flow(normal(3, 4, 1))
    x, log_prob = d.rsample_and_log_prob((5,), generator(3))
    torch.testing.assert_close(d.log_prob(x), log_prob, rtol=0, atol=1e-10)
    assert torch.equal(x, d.rsample((5,), generator(3)))
    assert torch.equal(x.detach(), d.sample((5,), generator(3)))
    assert x.shape == (5, 3, 4, 2)
    x.square().sum().backward()
    assert not without_gradient(flow)
    flow.zero_grad()
    d.log_prob(x.detach()).sum().backward()
    assert not without_gradient(flow)


def linear(slope: float, scale: float) -> mf.flows.TemporalMAF:
    """A flow that is an AR(1) as nearly as its network is linear: h holds x, a little squeezed."""
    flow = temporal(1, hidden_size=1, transforms=1, hidden_features=(1,), rnn="gru")
    squeeze = 1e-4
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
        flow.rnn.weight_ih_l0[2] = squeeze
        flow.rnn.bias_ih_l0[1] = -40.0  # the update gate: nothing is kept
    layer = flow.maf.transform.transforms[0]
    layer.forward = lambda c: torch.distributions.AffineTransform(  # type: ignore[method-assign]
        -slope / scale * c / squeeze, 1 / scale, event_dim=1
    )
    return flow


def test_sampled_sequences_have_the_moments_of_an_autoregression() -> None:
    """The flow is made to be x_t = 0.8 x_{t-1} + 0.5 e_t; its samples' covariance is known."""
    slope, scale, steps = 0.8, 0.5, 6
    flow = linear(slope, scale)
    x = flow(steps=steps).sample((40_000,), generator(0))[..., 0]
    impulses = torch.zeros(steps, steps, dtype=torch.float64)
    for t in range(steps):
        for s in range(t + 1):
            impulses[t, s] = scale * slope ** (t - s)
    covariance = impulses @ impulses.T
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0.03, atol=0.01)
    normal_law = torch.distributions.MultivariateNormal(torch.zeros(steps).double(), covariance)
    expected = normal_law.log_prob(x[:100])
    found = flow(steps=steps).log_prob(x[:100, :, None])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    ahead = flow.forecast(torch.full((1, 1), 2.0).double(), 3).sample((40_000,), generator(1))
    means = 2.0 * slope ** torch.arange(1, 4, dtype=torch.float64)
    torch.testing.assert_close(ahead[..., 0].mean(0), means, rtol=0, atol=0.02)


@GRU_AND_LSTM
def test_the_mean_log_density_of_samples_is_minus_their_entropy(rnn: str) -> None:
    """E[grad log p] = 0 over the model's own samples: they are from the density that is scored."""
    flow = temporal(2, rnn=rnn)
    d = flow(steps=3)
    x = d.sample((20_000,), generator(0))
    parameters = list(flow.parameters())
    parts = [
        torch.cat([g.flatten() for g in torch.autograd.grad(d.log_prob(part).mean(), parameters)])
        for part in x.chunk(50)
    ]
    scores = torch.stack(parts)
    z = scores.mean(0) / (scores.std(0) / len(scores) ** 0.5)
    z = z[scores.std(0) > 1e-9]
    assert len(z) > 100
    assert z.abs().max() < 5
    assert 0.6 < z.square().mean() < 1.6


@GRU_AND_LSTM
def test_a_forecast_is_the_rest_of_the_sequence(rnn: str) -> None:
    flow = temporal(2, 1, rnn=rnn, num_layers=2)
    x, c = normal(3, 7, 2), normal(3, 7, 1, seed=2)
    ahead = flow.forecast(x[:, :4], c=c)
    assert (ahead.batch_shape, ahead.event_shape) == ((3,), (3, 2))
    whole = flow(c).log_prob_steps(x)
    torch.testing.assert_close(ahead.log_prob_steps(x[:, 4:]), whole[:, 4:], rtol=0, atol=1e-10)
    assert ahead.sample((5,), generator(0)).shape == (5, 3, 3, 2)
    one = flow.forecast(x[0, :4], c=c[0])
    torch.testing.assert_close(one.log_prob(x[0, 4:]), whole[0, 4:].sum(), rtol=0, atol=1e-10)


def test_padded_steps_contribute_nothing() -> None:
    flow = temporal(2, 1)
    x, c = normal(3, 5, 2), normal(3, 5, 1, seed=2)
    lengths = [5, 2, 1]
    expected = [flow(c[i, :n]).log_prob_steps(x[i, :n]) for i, n in enumerate(lengths)]
    for i, n in enumerate(lengths):
        x[i, n:], c[i, n:] = math.nan, math.inf
    x.requires_grad_()
    d = flow(c, lengths=lengths)
    found = d.log_prob_steps(x)
    for i, n in enumerate(lengths):
        torch.testing.assert_close(found[i, :n], expected[i], rtol=0, atol=1e-10)
        assert (found[i, n:] == 0).all()
    d.log_prob(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[1, 2:] == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in flow.parameters())
    samples, log_prob = d.rsample_and_log_prob((4,), generator(0))
    assert (samples[:, 1, 2:] == 0).all()
    torch.testing.assert_close(d.log_prob(samples), log_prob, rtol=0, atol=1e-10)
    none = flow(c[:0], lengths=torch.tensor(lengths[:0], dtype=torch.long))
    assert none.log_prob(x[:0]).shape == (0,)


def test_batches_and_covariates_broadcast() -> None:
    flow = temporal(2, 1)
    x, c = normal(4, 5, 2), normal(3, 1, 5, 1, seed=2)
    found = flow(c).log_prob(x)
    assert found.shape == (3, 4)
    for i in range(3):
        torch.testing.assert_close(found[i], flow(c[i].expand(4, 5, 1)).log_prob(x))
    wide = flow(c).expand((3, 4))
    torch.testing.assert_close(wide.log_prob(x), found)
    assert wide.sample((2,)).shape == (2, 3, 4, 5, 2)
    changed = flow(c + 0.1).log_prob(x)
    assert (changed != found).all()


def test_preprocessing_is_counted_and_covariates_are_embedded() -> None:
    loc, scale = torch.tensor([5.0, -3.0]).double(), torch.tensor([10.0, 0.1]).double()
    plain = temporal(2, 1)
    flow = mf.flows.TemporalMAF(
        2,
        1,
        hidden_size=6,
        transforms=2,
        hidden_features=(12,),
        activation=torch.nn.Tanh,
        preprocessing=mf.transforms.Standardize(loc, scale),
        embedding=mf.data.ContextStandardizer(torch.tensor([2.0]), torch.tensor([4.0])),
    ).double()
    flow.load_state_dict(plain.state_dict(), strict=False)
    x, c = normal(3, 4, 2), normal(3, 4, 1, seed=2)
    expected = plain(c).log_prob_steps(x) - scale.log().sum()
    own = flow(4 * c + 2).log_prob_steps(loc + scale * x)
    torch.testing.assert_close(own, expected)
    samples, log_prob = flow(4 * c + 2).rsample_and_log_prob((2,), generator(0))
    same, _ = plain(c).rsample_and_log_prob((2,), generator(0))
    torch.testing.assert_close(samples, loc + scale * same)
    torch.testing.assert_close(flow(4 * c + 2).log_prob(samples), log_prob)


def test_far_values_are_finite() -> None:
    flow = temporal(2)
    x = (1e6 * normal(2, 5, 2)).requires_grad_()
    log_prob = flow(steps=5).log_prob(x)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in flow.parameters())


@GRU_AND_LSTM
def test_construction_draws_from_its_generator_only(rnn: Any) -> None:
    before = torch.get_rng_state()
    one, other = (mf.flows.TemporalMAF(2, rnn=rnn, generator=generator(5)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == torch.float32
    assert next(one.rnn.parameters()).std() > 0.01


def test_saved_and_loaded(tmp_path: Path) -> None:
    flow, other = temporal(2, 1), temporal(2, 1)
    overwrite(other, 0.1)
    mf.training.save(tmp_path / "t.safetensors", flow)
    mf.training.load(tmp_path / "t.safetensors", other)
    x, c = normal(3, 4, 2), normal(3, 4, 1, seed=2)
    assert torch.equal(flow(c).log_prob(x), other(c).log_prob(x))


def test_training_comes_near_a_known_process() -> None:
    """x_t = 0.9 x_{t-1} + 0.5 e_t: no density scores it better than log N(0, 0.25) on average."""
    rng = np.random.default_rng(0)
    noise, x = rng.normal(size=(400, 20)), np.zeros((400, 20))
    x[:, 0] = noise[:, 0] * 0.5 / math.sqrt(1 - 0.81)
    for t in range(1, 20):
        x[:, t] = 0.9 * x[:, t - 1] + 0.5 * noise[:, t]
    rows = torch.from_numpy(x).float()[..., None]
    truth = torch.distributions.Normal(0.9 * rows[300:, :-1, 0], 0.5).log_prob(rows[300:, 1:, 0])
    flow = mf.flows.TemporalMAF(
        1, steps=20, transforms=1, hidden_size=16, hidden_features=(16,), generator=generator(0)
    )
    train, validation = mf.data.Split(rows[:250]), mf.data.Split(rows[250:300])
    config = mf.training.TrainConfig(epochs=20, batch_size=25, lr=1e-2, schedule="cosine")
    mf.training.fit(flow, train, validation, config)
    with torch.no_grad():
        found = flow().log_prob_steps(rows[300:])[:, 1:]
    gap = (truth - found).mean().item()
    marginal = torch.distributions.Normal(0, rows.std()).log_prob(rows[300:, 1:, 0])
    assert -0.01 < gap < 0.05
    assert (found - marginal).mean() > 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features: expected at least 1, got 0"),
        ({"hidden_size": 0}, "hidden_size: expected at least 1, got 0"),
        ({"num_layers": 0}, "num_layers: expected at least 1, got 0"),
        ({"rnn": "rnn"}, "rnn: expected 'gru' or 'lstm', got 'rnn'"),
        ({"batch_norm": True}, "batch_norm: expected False"),
    ],
)
def test_refused_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mf.flows.TemporalMAF(**{"features": 2, **arguments})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, g: g(), r"c: expected shape \(\*, steps, 3\), got none"),
        (lambda f, g: f(), r"steps: expected a number of steps, got none"),
        (lambda f, g: f(steps=0), r"steps: expected at least 1, got 0"),
        (lambda f, g: f(torch.zeros(4, 3)), r"c: expected no covariates, got shape \(4, 3\)"),
        (lambda f, g: g(torch.zeros(3)), r"c: expected shape \(\*, steps, 3\), got \(3,\)"),
        (lambda f, g: g(torch.zeros(4, 2)), r"c: expected shape \(\*, steps, 3\), got \(4, 2\)"),
        (lambda f, g: g(torch.zeros(4, 3), 5), r"c: expected shape \(\*, 5, 3\), got \(4, 3\)"),
        (lambda f, g: g(torch.full((4, 3), math.nan)), r"c: expected numbers, got NaN"),
        (lambda f, g: f(steps=4, lengths=[0, 4]), r"lengths: expected 1 to 4 steps, got 0"),
        (lambda f, g: f(steps=4, lengths=[5]), r"lengths: expected 1 to 4 steps, got 5"),
        (lambda f, g: f(steps=4, lengths=[1.5]), r"lengths: expected integers, got torch.float32"),
        (
            lambda f, g: f(steps=4).log_prob(torch.zeros(3, 2)),
            r"x: expected shape \(\*, 4, 2\), got \(3, 2\)",
        ),
        (
            lambda f, g: f(steps=1).log_prob(torch.full((1, 2), math.nan)),
            r"x: expected numbers, got NaN at index \[0, 0\]",
        ),
        (
            lambda f, g: f.forecast(torch.zeros(4, 1), 3),
            r"past: expected shape \(\*, past, 2\), got \(4, 1\)",
        ),
        (lambda f, g: f.forecast(torch.zeros(4, 2)), r"steps: expected a number of steps"),
        (lambda f, g: f.forecast(torch.zeros(4, 2), 0), r"steps: expected at least 1, got 0"),
        (
            lambda f, g: g.forecast(torch.zeros(4, 2), 2, torch.zeros(5, 3)),
            r"c: expected shape \(\*, 6, 3\), got \(5, 3\)",
        ),
        (
            lambda f, g: g.forecast(torch.zeros(4, 2), c=torch.zeros(4, 3)),
            r"steps: expected at least 1, got 0",
        ),
    ],
)
def test_a_mistake_is_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(mf.flows.TemporalMAF(2), mf.flows.TemporalMAF(2, 3))
    assert "\n" not in str(caught.value)
