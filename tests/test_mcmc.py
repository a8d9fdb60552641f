"""Markov chains keep their target: analytic moments, in the data's space and through a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

import maskedflow as mf
from maskedflow.distributions import DiagNormal
from maskedflow.flows import GMM, IAF, MAF
from maskedflow.mcmc import Chains, flow_metropolis, hmc
from strategies import overwrite

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
FACTOR = torch.tensor([[1.0, 0.0], [1.5, 0.5]], dtype=torch.float64)
TARGET = MultivariateNormal(MEAN, scale_tril=FACTOR)


def log_density(x: Tensor) -> Tensor:
    log_prob: Tensor = TARGET.log_prob(x.to(MEAN)) + 7
    return log_prob


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def bent(kind: type[MAF] = MAF) -> MAF:
    """A flow that is far from linear, and from the target."""
    flow = kind(2, transforms=2, hidden_features=(8,), activation=torch.nn.Tanh)
    return overwrite(flow.double(), 0.3)


def wide() -> DiagNormal:
    return DiagNormal(MEAN + 0.5, torch.full_like(MEAN, 2.5))


def agree(found: Chains, mean: Tensor, second: Tensor) -> None:
    """Means and mean products are those of the target, within their Monte-Carlo errors."""
    x = found.samples
    for values, expected in (
        (x, mean),
        (((x - mean)[..., None] * (x - mean)[..., None, :]).flatten(-2), second.flatten()),
    ):
        per_chain = values.mean(dim=0)
        error = per_chain.std(dim=0) / len(per_chain) ** 0.5  # chains are independent
        assert ((per_chain.mean(dim=0) - expected).abs() < 4.5 * error).all()


@pytest.mark.parametrize("flow", [None, bent, lambda: bent(IAF)], ids=["plain", "MAF", "IAF"])
def test_hamiltonian_paths_keep_the_target(flow: Callable[[], MAF] | None) -> None:
    start = MEAN + normal(128, 2) @ FACTOR.T
    made = flow and flow()
    options: dict[str, Any] = {"draws": 40, "warmup": 25, "leapfrog_steps": 6}
    found = hmc(log_density, start, flow=made, generator=seeded(), **options)
    assert (found.samples[-1] - start).norm(dim=-1).mean() > 1
    assert found.samples.shape == (40, 128, 2)
    assert found.samples.dtype == torch.float64
    agree(found, MEAN, FACTOR @ FACTOR.T)
    torch.testing.assert_close(found.log_density, log_density(found.samples))
    assert 0.6 < found.acceptance.mean() < 0.99
    assert found.acceptance.shape == (128,)
    assert found.evaluations == found.gradients


@pytest.mark.parametrize("steps", [0, 3])
def test_proposals_keep_the_target(steps: int) -> None:
    start = wide().sample((64,), seeded(2))
    found = flow_metropolis(
        log_density, wide(), start, draws=100, leapfrog_steps=steps, generator=seeded()
    )
    assert (found.rhat() < 1.2).all()
    agree(found, MEAN, FACTOR @ FACTOR.T)
    torch.testing.assert_close(found.log_density, log_density(found.samples))


def test_proposals_of_a_flow_with_few_draws_in_the_tails_are_mended_by_local_moves() -> None:
    narrow = DiagNormal(MEAN, torch.full_like(MEAN, 0.5))
    start = narrow.sample((64,), seeded(2))
    sizes = []
    for steps in (0, 4):
        found = flow_metropolis(
            log_density, narrow, start, draws=80, leapfrog_steps=steps, generator=seeded()
        )
        sizes.append(found.ess().min().item())
    assert sizes[1] > 3 * sizes[0]
    agree(found, MEAN, FACTOR @ FACTOR.T)


def test_detailed_balance_of_proposals() -> None:
    """From the target to the target, and a pair of draws is as likely as its reverse."""
    before = MEAN + normal(100_000, 2) @ FACTOR.T
    found = flow_metropolis(log_density, wide(), before, draws=1, warmup=1, generator=seeded())
    after = found.samples[0]
    assert 0.1 < (after != before).any(dim=-1).double().mean() < 0.9
    tests = [lambda x: x[:, 0], lambda x: x[:, 1].square(), lambda x: (x[:, 0] > 1.5).double()]
    for f in tests:
        change = f(after) - f(before)
        assert change.mean().abs() < 4.5 * change.std() / 100_000**0.5
        for g in tests:
            flux = f(before) * g(after) - g(before) * f(after)
            assert flux.mean().abs() <= 4.5 * flux.std() / 100_000**0.5


def test_proposals_go_from_mode_to_mode() -> None:
    """Shares of 0.2 and 0.8, ten standard deviations from each other."""

    def two(x: Tensor) -> Tensor:
        return torch.stack(
            [
                -0.5 * x.square() + torch.tensor(0.2).log(),
                -0.5 * (x - 10).square() + torch.tensor(0.8).log(),
            ]
        ).logsumexp(0)[:, 0]

    flow = DiagNormal(torch.tensor([5.0]), torch.tensor([6.0]))
    start = torch.zeros(32, 1)
    found = flow_metropolis(two, flow, start, draws=500, generator=seeded())
    assert found.samples.dtype == torch.float32
    assert (found.flat() > 5).double().mean().item() == pytest.approx(0.8, abs=0.03)
    assert found.rhat().item() < 1.05
    stuck = hmc(two, torch.tensor([[0.0], [10.0]] * 8), draws=50, warmup=50, generator=seeded())
    assert stuck.rhat().item() > 1.5


def test_moves_to_where_there_is_no_density_are_rejected() -> None:
    """Gamma variables: a logarithm of negative numbers is NaN, and its gradient too."""

    def gamma(x: Tensor) -> Tensor:
        return (2 * x.log() - x).sum(dim=-1)

    start = torch.full((64, 1), 3.0, dtype=torch.float64)
    options: dict[str, Any] = {"draws": 80, "generator": seeded()}
    three = start.new_tensor([3.0])
    found = hmc(gamma, start, warmup=50, leapfrog_steps=4, **options)
    agree(found, three, three)
    normal = DiagNormal(three, 2 * three / 3)
    found = flow_metropolis(gamma, normal, start, leapfrog_steps=2, **options)
    agree(found, three, three)


def test_step_sizes_are_adapted() -> None:
    scale = torch.logspace(-2, 0, 10, dtype=torch.float64)

    def stiff(x: Tensor) -> Tensor:
        return -0.5 * (x / scale).square().sum(dim=-1)

    for target in (0.8, 0.95):
        found = hmc(
            stiff,
            scale * normal(32, 10),
            draws=30,
            warmup=80,
            leapfrog_steps=10,
            target_acceptance=target,
            generator=seeded(),
        )
        assert found.acceptance.mean().item() == pytest.approx(target, abs=0.1)


def test_counts_are_those_of_the_calls() -> None:
    points = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal points
        points += len(x)
        return log_density(x)

    options: dict[str, Any] = {"draws": 5, "warmup": 3, "generator": seeded()}
    found = hmc(counted, normal(4, 2), **options)
    assert found.gradients == found.evaluations == points
    points = 0
    found = flow_metropolis(counted, wide(), normal(4, 2), **options)
    assert (found.evaluations, found.gradients) == (points, 0)
    assert points == 4 * (1 + 8)
    points = 0
    found = flow_metropolis(counted, wide(), normal(4, 2), leapfrog_steps=3, **options)
    assert found.evaluations == points
    assert found.gradients == points - 4 * (1 + 8)


@pytest.mark.parametrize("kind", ["hmc", "latent", "proposals", "mixed"])
def test_seeds_reproduce_and_nothing_else_changes(kind: str) -> None:
    flow = bent().train()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    start = normal(4, 2)

    def run(seed: int) -> Tensor:
        options: dict[str, Any] = {"draws": 3, "warmup": 2, "generator": seeded(seed)}
        if kind in ("hmc", "latent"):
            flows = flow if kind == "latent" else None
            return hmc(log_density, start, flow=flows, **options).samples
        steps = 2 if kind == "mixed" else 0
        return flow_metropolis(log_density, flow, start, leapfrog_steps=steps, **options).samples

    state = torch.get_rng_state()
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert flow.training
    assert all(p.requires_grad and p.grad is None for p in flow.parameters())
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


def test_densities_may_learn_and_no_graph_is_kept() -> None:
    learned = bent()
    for found in (
        hmc(learned().log_prob, normal(4, 2), draws=2, warmup=1),
        flow_metropolis(learned().log_prob, wide(), normal(4, 2), draws=2, leapfrog_steps=1),
    ):
        assert not found.samples.requires_grad
        assert not found.log_density.requires_grad
    assert all(p.grad is None for p in learned.parameters())


def test_what_is_given_a_context_is_a_distribution() -> None:
    """A flow of parameters given data; torch's own distributions draw from torch's generator."""
    posterior = MAF(2, context=3, hidden_features=(8,)).double()(normal(3))
    found = hmc(log_density, normal(8, 2), flow=posterior, draws=8, warmup=2)
    assert found.samples.isfinite().all()
    torchs = Independent(Normal(MEAN, 2.0), 1)
    found = flow_metropolis(log_density, torchs, normal(8, 2), draws=8)
    assert found.samples.isfinite().all()
    with pytest.raises(ValueError, match="generator: a Normal draws from torch's global"):
        flow_metropolis(log_density, torchs, normal(8, 2), generator=seeded())


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        (
            normal(4),
            {},
            r"start: expected real numbers of shape .* got torch.float64 of shape \(4,",
        ),
        (torch.ones(4, 2).long(), {}, "start: expected real numbers"),
        (normal(0, 2), {}, "start: expected real numbers"),
        (1e200 * normal(4, 2), {}, "start: .* a finite log-density.* in chain 0"),
        (normal(4, 2), {"draws": 0}, "draws: expected at least 1, got 0"),
        (normal(4, 2), {"warmup": 0}, "warmup: expected at least 1, got 0"),
        (normal(4, 2), {"leapfrog_steps": -1}, "leapfrog_steps: expected at least"),
        (normal(4, 3), {"flow": wide()}, "flow: expected one distribution of start's 3 features"),
        (normal(4, 2), {"flow": DiagNormal(normal(5, 2), 1.0)}, r"batch of shape \(5,\)"),
    ],
)
def test_wrong_arguments(start: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hmc(log_density, start, **options)
    with pytest.raises(ValueError, match=message):
        flow_metropolis(log_density, start=start, **{"flow": wide(), **options})


def test_wrong_densities_and_flows() -> None:
    start = normal(4, 2)
    with pytest.raises(ValueError, match=r"log_density: expected shape \(4,\) .* got \(4, 2\)"):
        hmc(lambda x: -x.square(), start)
    with pytest.raises(ValueError, match="log_density: expected a function with gradients"):
        hmc(lambda x: log_density(x.detach()), start)
    with pytest.raises(ValueError, match="flow: expected a distribution with a transform, got a M"):
        hmc(log_density, start, flow=GMM(2).double())
    with pytest.raises(TypeError, match="flow: expected a module or a distribution, got a int"):
        hmc(log_density, start, flow=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target_acceptance: expected within 0 and 1, got 1"):
        hmc(log_density, start, target_acceptance=1)
    with pytest.raises(TypeError, match=r"start: expected a torch.Tensor"):
        hmc(log_density, start.numpy())  # type: ignore[arg-type]


def test_public() -> None:
    assert mf.mcmc.__all__ == ["Chains", "flow_metropolis", "hmc"]
