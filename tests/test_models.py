"""The variational autoencoder: its bounds, beside a model whose likelihood is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

import maskedflow as mf
from maskedflow.data import Split
from maskedflow.flows import IAF, MAF
from maskedflow.models import VAE, ConditionalNormal
from maskedflow.models import vae as vae_module
from maskedflow.training import TrainConfig, evaluate, fit

D, L = 3, 2


class Linear(nn.Module):
    """Means W z and log-scales -0.5, the decoder of factor analysis."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z: Tensor) -> Tensor:
        loc = z @ self.weight.T
        return torch.cat([loc, torch.full_like(loc, -0.5)], dim=-1)


class Posterior(mf.flows.LazyDistribution):
    """The exact posterior of factor analysis, or one that is too wide."""

    def __init__(self, weight: Tensor, widened: float = 1.0) -> None:
        super().__init__()
        precision = torch.eye(L, dtype=weight.dtype) + math.e * weight.T @ weight
        self.covariance = torch.linalg.inv(precision)
        self.gain = math.e * self.covariance @ weight.T
        self.widened = widened

    def forward(self, c: Tensor | None = None) -> Distribution:
        assert c is not None
        return mf.distributions.mixtures.FullNormal(c @ self.gain.T, self.widened * self.covariance)


def factor_analysis(widened: float = 1.0) -> tuple[VAE, MultivariateNormal]:
    """A linear Gaussian VAE, and the distribution of its data."""
    weight = torch.tensor([[1.0, 0.5], [-0.7, 0.3], [0.2, -1.1]], dtype=torch.float64)
    posterior = Posterior(weight, widened)
    vae = VAE(
        D,
        L,
        posterior=posterior,
        encoder=nn.Identity(),
        decoder=Linear(weight),
        likelihood="gaussian",
    ).double()
    noise = math.exp(-1) * torch.eye(D, dtype=torch.float64)
    return vae, MultivariateNormal(torch.zeros(D, dtype=torch.float64), weight @ weight.T + noise)


def small(prior: bool, posterior: str, likelihood: str, seed: int = 0, features: int = D) -> VAE:
    generator = torch.Generator().manual_seed(seed)
    kind = {"IAF": IAF, "MAF": MAF}.get(posterior)
    return VAE(
        features,
        L,
        prior=MAF(L, transforms=2, hidden_features=(8,), generator=generator) if prior else None,
        posterior=None
        if kind is None
        else kind(
            L,
            context=6,
            transforms=2,
            hidden_features=(8,),
            base=ConditionalNormal(L, 6, generator=generator),
            generator=generator,
        ),
        likelihood=likelihood,  # type: ignore[arg-type]
        hidden_features=(7, 6),
        generator=generator,
    )


def rows(n: int, features: int = D) -> Tensor:
    return torch.bernoulli(
        torch.full((n, features), 0.4), generator=torch.Generator().manual_seed(5)
    )


# --- the bounds


def test_with_the_exact_posterior_every_draw_gives_the_exact_log_likelihood() -> None:
    vae, exact = factor_analysis()
    x = 2 * torch.randn(5, D, dtype=torch.float64)
    torch.testing.assert_close(vae.elbo(x), exact.log_prob(x))
    torch.testing.assert_close(vae.log_likelihood(x, samples=3), exact.log_prob(x))


def test_bounds_are_in_order_and_reach_the_log_likelihood() -> None:
    vae, exact = factor_analysis(widened=2.0)
    x = exact.sample((4,))
    generator = torch.Generator().manual_seed(0)
    truth = exact.log_prob(x)
    # E[ELBO] is below by KL(q || p), which has a closed form here, the same for each row.
    gap = 0.5 * L * (2.0 - 1 - math.log(2.0))
    elbo = vae.elbo(x, 20_000, generator)
    torch.testing.assert_close(elbo, truth - gap, atol=0.02, rtol=0)
    few = vae.log_likelihood(x.repeat(3000, 1), 3, generator).view(3000, 4).mean(dim=0)
    assert (elbo + 0.05 < few).all()
    assert (few < truth - 0.02).all()
    many = vae.log_likelihood(x, 100_000, generator)
    torch.testing.assert_close(many, truth, atol=0.01, rtol=0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_agrees_with_the_integral_over_the_latent(likelihood: str) -> None:
    vae = small(True, "IAF", likelihood).double()
    x = rows(4).double()
    ticks = torch.linspace(-8, 8, 400, dtype=torch.float64)
    z = torch.cartesian_prod(ticks, ticks)
    joint = vae.prior().log_prob(z)[:, None] + vae.decode(z[:, None]).log_prob(x)
    truth = joint.logsumexp(0) + 2 * (ticks[1] - ticks[0]).log()
    found = vae.log_likelihood(x, 50_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, truth, atol=0.02, rtol=0)
    assert (vae.elbo(x, 1000) < truth).all()


def test_the_bernoulli_likelihood_sums_to_one() -> None:
    vae = small(False, "none", "bernoulli").double()
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * D)
    log_prob = vae.decode(torch.randn(L, dtype=torch.float64)).log_prob(every)
    torch.testing.assert_close(log_prob.logsumexp(0).exp(), torch.ones((), dtype=torch.float64))
    found = vae.log_likelihood(every, 20_000).logsumexp(0).exp().item()
    assert found == pytest.approx(1, abs=0.01)


def test_pieces_do_not_change_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, _ = factor_analysis(widened=1.5)
    x = torch.randn(2, 4, D, dtype=torch.float64)
    whole = vae.log_likelihood(x, 40_000)
    monkeypatch.setattr(vae_module, "CHUNK", 3000 * D)
    pieces = vae.log_likelihood(x, 40_000)
    assert pieces.shape == (2, 4)
    torch.testing.assert_close(pieces, whole, atol=0.02, rtol=0)


# --- draws


def test_samples_have_the_distribution_of_the_data() -> None:
    vae, exact = factor_analysis()
    x = vae.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.T.cov(), exact.covariance_matrix, atol=0.06, rtol=0)
    binary = small(True, "none", "bernoulli")
    x = binary.sample(20_000, torch.Generator().manual_seed(0))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * D)
    found = (x[:, None] == every).all(-1).float().mean(0)
    with torch.no_grad():
        p = binary.log_likelihood(every, 20_000).exp()
    torch.testing.assert_close(found, p, atol=0.015, rtol=0)


def test_a_generator_decides_everything() -> None:
    x = rows(3)
    for posterior in ("none", "IAF", "MAF"):
        vae = small(True, posterior, "bernoulli")
        for draw in (vae.elbo, vae.log_likelihood):
            first, second = (draw(x, 5, torch.Generator().manual_seed(1)) for _ in range(2))
            assert torch.equal(first, second)
        draws = [vae().sample((2, 3), torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
        assert draws[0].shape == (2, 3, D)
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])


# --- as a module


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("posterior", ["none", "IAF", "MAF"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_gradients_reach_every_parameter(prior: bool, posterior: str, likelihood: str) -> None:
    vae = small(prior, posterior, likelihood)
    vae.elbo(rows(64), 4).mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_shapes_and_dtypes(dtype: torch.dtype) -> None:
    for features in (1, D):
        vae = small(True, "IAF", "gaussian", features=features).to(dtype)
        for shape in ((), (4,), (2, 4)):
            x = torch.randn(*shape, features, dtype=dtype)
            for value in (vae.elbo(x), vae.elbo(x, 3), vae.log_likelihood(x, 3), vae().log_prob(x)):
                assert value.shape == shape
                assert value.dtype == dtype
        assert vae.sample(4).shape == (4, features)
        assert vae.sample(4).dtype == dtype


def test_far_data_have_finite_bounds_and_gradients() -> None:
    vae = small(True, "IAF", "gaussian")
    value = vae.elbo(torch.full((2, D), 1e6)).sum()
    value.backward()
    assert value.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())


def test_fit_trains_it_and_weights_are_saved(tmp_path: Path) -> None:
    x = rows(400, 8)
    x[:, 1:] = x[:, :1]  # one bit, eight times
    split = Split(x)
    vae = small(True, "IAF", "bernoulli", features=8)
    fit(vae, split, split, TrainConfig(epochs=20, batch_size=50, lr=0.02, weight_decay=0))
    mean = x[:, 0].mean().item()
    entropy = -mean * math.log(mean) - (1 - mean) * math.log(1 - mean)
    assert -evaluate(vae, split).mean().item() < 4 * entropy  # independent bits: 8 times
    mf.training.save(tmp_path / "vae.safetensors", vae)
    other = small(True, "IAF", "bernoulli", 1, features=8)
    mf.training.load(tmp_path / "vae.safetensors", other)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(vae.elbo(x, 1, generators[0]), other.elbo(x, 1, generators[1]))


def test_mistakes_are_one_line() -> None:
    vae = small(False, "none", "bernoulli")
    mistakes = {
        r"x: expected shape \(\*, 3\), got \(4,\)": lambda: vae.elbo(torch.zeros(4)),
        r"x: expected shape \(\*, 3\), got \(5, 2\)": lambda: vae.log_likelihood(torch.zeros(5, 2)),
        "x: a Bernoulli likelihood expects zeros and ones, got 0.5": lambda: vae.elbo(
            torch.full((2, 3), 0.5)
        ),
        "n: expected at least 1 draw, got 0": lambda: vae.elbo(torch.zeros(3), 0),
        "samples: expected at least 1 draw, got 0": lambda: vae.log_likelihood(torch.zeros(3), 0),
        "likelihood: expected one of bernoulli, gaussian": lambda: VAE(3, 2, likelihood="x"),  # type: ignore[arg-type]
        r"prior: expected a distribution of shape \(2,\), got \(3,\)": lambda: VAE(
            3, 2, prior=MAF(3)
        ),
        "latent: expected at least 1, got 0": lambda: VAE(3, 0),
        "hidden_features: expected at least one layer": lambda: VAE(3, 2, hidden_features=()),
        "c: expected no context": lambda: vae(torch.zeros(1)),
    }
    for message, mistake in mistakes.items():
        with pytest.raises(ValueError, match=message):
            mistake()
