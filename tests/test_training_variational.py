"""Variational inference: targets that a flow can be, weights, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

import maskedflow as mf
from maskedflow.flows import IAF, MAF
from maskedflow.training import (
    ImportanceSample,
    NonFiniteError,
    VariationalConfig,
    fit_posterior,
    importance_sample,
)

LOG_Z = 1.7


def target(d: int = 3) -> MultivariateNormal:
    factor = torch.tensor([[0.5, 0.0, 0.0], [0.6, 1.0, 0.0], [-0.8, 0.4, 2.0]])[:d, :d]
    return MultivariateNormal(
        torch.tensor([1.0, -2.0, 3.0])[:d].double(), scale_tril=factor.double()
    )


def log_density(x: Tensor) -> Tensor:
    log_prob: Tensor = target(x.shape[-1]).log_prob(x.double())
    return log_prob + LOG_Z


def small(kind: type[MAF], seed: int = 0, features: int = 3) -> MAF:
    generator = torch.Generator().manual_seed(seed)
    return kind(
        features, transforms=2, hidden_features=(16,), activation=nn.Tanh, generator=generator
    )


@pytest.mark.parametrize("kind", [MAF, IAF])
def test_finds_a_gaussian_exactly(kind: type[MAF]) -> None:
    flow, generator = small(kind).double(), torch.Generator().manual_seed(0)
    history = fit_posterior(flow, log_density, VariationalConfig(400, 64, lr=0.03), generator)
    sample = importance_sample(flow, log_density, 5000, generator)
    assert sample.ess > 0.99 * 5000
    assert abs(sample.log_z - LOG_Z) < 3e-3
    assert abs(sample.log_z - LOG_Z) < 5 * sample.standard_error + 1e-4
    assert history.elbo[-1] == pytest.approx(LOG_Z, abs=0.05)
    assert history.elbo[0] < history.elbo[-1]
    torch.testing.assert_close(sample.mean, target().mean, atol=0.12, rtol=0)
    torch.testing.assert_close(sample.std, target().stddev, atol=0.1, rtol=0)
    assert not flow.training


def test_learns_where_no_gradients_are_wanted() -> None:
    found = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            generator = torch.Generator().manual_seed(0)
            config = VariationalConfig(3, 8)
            found.append(fit_posterior(small(MAF), log_density, config, generator).elbo)
    assert found[0] == found[1]


def test_at_the_target_there_is_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of draws, and yet all gradients are zero: along the paths nothing is left."""
    flow, same = small(MAF).double(), small(MAF).double()
    steps = []

    def spy(self: torch.optim.Adam) -> None:
        steps.append(
            max(p.grad.abs().max().item() for p in flow.parameters() if p.grad is not None)
        )

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    history = fit_posterior(flow, lambda x: same().log_prob(x) + 5, VariationalConfig(3, 4))
    assert history.elbo == pytest.approx([5, 5, 5])
    assert max(steps) < 1e-12
    fit_posterior(flow, log_density, VariationalConfig(1, 4))
    assert steps[-1] > 1e-3


def test_one_feature_and_float32() -> None:
    flow, generator = small(MAF, features=1), torch.Generator().manual_seed(0)
    fit_posterior(flow, log_density, VariationalConfig(300, 64, lr=0.03), generator)
    sample = importance_sample(flow, log_density, 2500, generator, batch_size=1000)
    assert sample.x.dtype == torch.float32
    assert sample.log_weights.dtype == torch.float64
    assert sample.log_weights.shape == (2500,)
    assert abs(sample.log_z - LOG_Z) < 0.01


def test_the_gradient_is_that_of_the_divergence() -> None:
    """The path gradient and the full one agree on average, here over very many draws."""
    flow = small(MAF).double()
    found = {}

    def record(name: str) -> None:
        found[name] = torch.cat([p.grad.flatten() for p in flow.parameters() if p.grad is not None])

    x, log_q = flow().rsample_and_log_prob((100_000,), torch.Generator().manual_seed(0))
    (log_q - log_density(x) / 4.0).mean().backward()
    record("full")
    step = torch.optim.Adam.step

    def spy(self: torch.optim.Adam) -> None:
        record("path")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spy)
        config = VariationalConfig(1, 100_000, temperature=4.0, clip=math.inf)
        flow.zero_grad()
        fit_posterior(flow, log_density, config, torch.Generator().manual_seed(0))
    assert torch.optim.Adam.step is step
    scale = found["full"].abs().max().item()
    torch.testing.assert_close(found["path"], found["full"], atol=0.04 * scale, rtol=0)


def test_takes_what_is_no_chain_of_transforms() -> None:
    gmm, generator = mf.flows.GMM(1, components=1), torch.Generator().manual_seed(0)
    fit_posterior(gmm, log_density, VariationalConfig(150, 32, lr=0.1), generator)
    assert abs(importance_sample(gmm, log_density, 1000, generator).log_z - LOG_Z) < 0.02


def test_temperature_falls_to_one_in_the_first_half() -> None:
    config = VariationalConfig(100, temperature=16.0)
    assert config.temperature_at(0) == pytest.approx(16)
    assert config.temperature_at(25) == pytest.approx(4)
    assert [config.temperature_at(step) for step in (50, 99)] == [1, 1]
    flow = small(MAF)
    history = fit_posterior(flow, log_density, VariationalConfig(4, 8, temperature=16.0))
    assert history.temperature == pytest.approx((16, 4, 1, 1))
    assert history.lr[0] > history.lr[-1]
    assert len(history.elbo) == 4
    assert history.skipped == 0


def test_seeds_reproduce() -> None:
    def weights(seed: int, touch: int) -> Tensor:
        torch.manual_seed(touch)
        flow = small(MAF)
        generator = torch.Generator().manual_seed(seed)
        fit_posterior(flow, log_density, VariationalConfig(3, 8), generator)
        x = importance_sample(flow, log_density, 2, generator).x
        return torch.cat([*(p.detach().flatten() for p in flow.parameters()), x.flatten()])

    assert torch.equal(weights(0, touch=1), weights(0, touch=2))
    assert not torch.equal(weights(0, touch=1), weights(1, touch=1))


def test_the_weights_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    log_weights = 300 + torch.randn(1000, generator=generator, dtype=torch.float64)
    x = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    sample = ImportanceSample(x, log_weights)
    w = (log_weights - 300).exp()
    assert sample.ess == pytest.approx((w.sum().square() / w.square().sum()).item())
    assert sample.log_z == pytest.approx(300 + w.mean().log().item())
    assert sample.standard_error == pytest.approx((w.std() / 1000**0.5 / w.mean()).item())
    mean = (w[:, None] * x).sum(0) / w.sum()
    torch.testing.assert_close(sample.mean, mean)
    spread = (w[:, None] * (x - mean).square()).sum(0) / w.sum()
    torch.testing.assert_close(sample.std, spread.sqrt())
    equal = ImportanceSample(x, torch.zeros(1000))
    assert equal.ess == pytest.approx(1000)
    assert equal.standard_error == pytest.approx(0, abs=1e-6)
    one = torch.full((1000,), -math.inf)
    one[3] = 2.0
    assert ImportanceSample(x, one).ess == pytest.approx(1)


def test_the_standard_error_is_that_of_repetitions() -> None:
    generator = torch.Generator().manual_seed(0)
    proposal = Normal(torch.zeros((), dtype=torch.float64), 1.5)
    found, errors = [], []
    for _ in range(400):
        x = 1.5 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
        weights = (-0.5 * x.square() - proposal.log_prob(x))[:, 0]
        sample = ImportanceSample(x, weights)
        found.append(sample.log_z)
        errors.append(sample.standard_error)
    spread = torch.tensor(found).std().item()
    assert torch.tensor(errors).mean().item() == pytest.approx(spread, rel=0.15)
    assert torch.tensor(found).mean().item() == pytest.approx(0.5 * math.log(2 * math.pi), abs=0.01)


def test_a_missed_mode_shows_in_log_z_only() -> None:
    """Effective sample size does not see what the flow never draws."""

    def two(x: Tensor) -> Tensor:
        sides = torch.stack([-0.5 * (x - 30).square(), -0.5 * (x + 30).square()])
        return (sides.sum(-1) - 0.5 * math.log(2 * math.pi) - math.log(2)).logsumexp(0)

    flow, generator = small(MAF, features=1), torch.Generator().manual_seed(1)
    fit_posterior(flow, two, VariationalConfig(400, 32, lr=0.1), generator)
    sample = importance_sample(flow, two, 1000, generator)
    assert sample.ess > 900
    assert sample.log_z == pytest.approx(-math.log(2), abs=0.02)


def test_what_is_no_log_density_is_refused() -> None:
    flow = small(MAF)
    config = VariationalConfig(2, 8)
    with pytest.raises(ValueError, match=r"log_density: expected numbers .* got nan at x = \("):
        fit_posterior(flow, lambda x: (x - 100).sum(-1).log(), config)
    with pytest.raises(ValueError, match="got inf at x ="):
        importance_sample(flow, lambda x: x.sum(-1) * 0 + math.inf, 10)
    with pytest.raises(ValueError, match=r"expected shape \(8,\) .* got \(8, 3\)"):
        fit_posterior(flow, lambda x: -x.square(), config)
    with pytest.raises(ValueError, match="expected a function with gradients"):
        fit_posterior(flow, lambda x: -x.detach().square().sum(-1), config)
    with pytest.raises(NonFiniteError, match="not finite in 20 steps"):
        fit_posterior(flow, lambda x: x.sum(-1) - math.inf, VariationalConfig(50, 8))
    with pytest.raises(ValueError, match="n: expected at least 1 draw"):
        importance_sample(flow, log_density, 0)
    with pytest.raises(ValueError, match="flow: expected a parameter to train"):
        fit_posterior(small(MAF).requires_grad_(False), log_density, config)


def test_steps_with_infinite_loss_are_left_out() -> None:
    flow, generator = small(MAF, features=1), torch.Generator().manual_seed(0)

    def cut(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] < 1.5, -0.5 * x[:, 0].square(), -math.inf)

    history = fit_posterior(flow, cut, VariationalConfig(20, 8), generator)
    assert 0 < history.skipped < 20
    assert all(p.isfinite().all() for p in flow.parameters())
    sample = importance_sample(flow, cut, 1000, generator)
    assert sample.log_z < 0.5 * math.log(2 * math.pi)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("steps", 0), ("batch_size", 0), ("lr", 0.0), ("temperature", 0.9), ("clip", 0.0)],
)
def test_settings_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting}: expected"):
        VariationalConfig(**{setting: value})  # type: ignore[arg-type]


def test_public() -> None:
    assert {"fit_posterior", "importance_sample", "ImportanceSample"} <= set(mf.training.__all__)
    assert mf.models.__all__ == ["VAE", "ConditionalNormal", "LatentVariable"]
