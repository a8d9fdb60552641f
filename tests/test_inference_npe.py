"""Posteriors from simulations: exact cases, bounds, ensembles, rounds, and errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Beta,
    Distribution,
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)

import maskedflow as mf
from generators import generator
from maskedflow.inference import DirectPosterior, Prior
from maskedflow.inference.density import moments
from maskedflow.training import TrainConfig
from maskedflow.transforms import Probit

QUICK = TrainConfig(epochs=2, batch_size=100, lr=5e-3, schedule="cosine")
SQUARE = Uniform(-torch.ones(2), torch.ones(2))


def square(n: int, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Parameters in a square, and themselves with noise."""
    theta = 2 * torch.rand(n, 2, generator=generator(seed)) - 1
    return theta, theta + noise * torch.randn(n, 2, generator=generator(seed + 1))


@pytest.fixture(scope="module")
def posterior() -> DirectPosterior:
    return mf.NPE(SQUARE, "nsf", config=QUICK).fit(*square(500))


def test_conjugate_gaussian_is_recovered() -> None:
    """With prior N(0, 4) and noise N(0, 1) the posterior is N(0.8 x, 0.8), and so on."""
    theta = 2 * torch.randn(2000, 2, generator=generator())
    x = theta + torch.randn(2000, 2, generator=generator(1))
    prior = MultivariateNormal(torch.zeros(2), 4 * torch.eye(2))
    config = TrainConfig(epochs=10, batch_size=100, lr=5e-3, schedule="cosine")
    found = mf.NPE(prior, "maf", config=config).fit(theta, x)
    observed = torch.tensor([1.0, -2.0])
    drawn = found.sample((4000,), x=observed, generator=generator(2))
    torch.testing.assert_close(drawn.mean(dim=0), 0.8 * observed, atol=0.12, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), torch.full((2,), 0.8**0.5), atol=0.08, rtol=0)
    exact = Independent(Normal(0.8 * observed, 0.8**0.5), 1).log_prob(drawn)
    assert (exact - found.log_prob(drawn, x=observed)).mean().abs() < 0.05


def test_no_sample_leaves_the_support_and_the_density_integrates_to_one(
    posterior: DirectPosterior,
) -> None:
    at_edge = torch.tensor([1.2, -1.1])
    drawn = posterior.sample((20_000,), x=at_edge, generator=generator())
    assert bool((drawn.abs() <= 1).all())
    assert bool(posterior.log_prob(drawn, x=at_edge).isfinite().all())
    assert posterior.log_prob([[1.01, 0.0], [0.0, -2.0]], x=at_edge).tolist() == [-math.inf] * 2
    cells = (torch.arange(400) + 0.5) / 200 - 1
    grid = torch.cartesian_prod(cells, cells)
    mass = posterior.log_prob(grid, x=at_edge).exp().mean() * 4
    assert abs(mass.item() - 1) < 0.01


def test_one_bounded_parameter_integrates_to_one() -> None:
    theta = torch.rand(500, 1, generator=generator())
    found = mf.NPE(Uniform(0.0, 1.0), config=QUICK).fit(theta, theta.square())
    grid = (torch.arange(20_000)[:, None] + 0.5) / 20_000
    assert abs(found.log_prob(grid, x=[0.9]).exp().mean().item() - 1) < 0.005


def test_half_bounded_and_mixed_supports() -> None:
    parts = [
        Gamma(2.0, 1.0),
        Normal(torch.zeros(1), torch.ones(1)),
        Beta(2.0, 2.0),
        LogNormal(0.0, 1.0),
    ]
    prior = Prior(parts)
    assert prior.low.tolist() == [0, -math.inf, 0, 0]
    assert prior.high.tolist() == [math.inf, math.inf, 1, math.inf]
    theta = prior.sample((400,), generator())
    assert torch.equal(theta, prior.sample((400,), generator()))
    expected = sum(part.log_prob(theta[:, i : i + 1]).reshape(-1) for i, part in enumerate(parts))
    torch.testing.assert_close(prior.log_prob(theta), expected)
    found = mf.NPE(parts, "maf", config=QUICK).fit(theta, theta + 0.1)
    drawn = found.sample((5000,), x=theta[0], generator=generator())
    assert bool(prior.contains(drawn).all())
    assert bool(found.log_prob(drawn, x=theta[0]).isfinite().all())


def test_draws_on_a_bound_are_learnt_from() -> None:
    """Uniform draws of torch may be equal to the lower bound."""
    theta, x = square(200)
    theta[::7] = -1
    found = mf.NPE(SQUARE, config=QUICK).fit(theta, x)
    assert bool(found.log_prob(found.sample((50,), x=x[1]), x=x[1]).isfinite().all())


def test_a_mixture_is_a_prior_if_its_components_have_the_same_bounds() -> None:
    def mixture(components: Distribution) -> mf.inference.Prior:
        shares = torch.distributions.Categorical(torch.tensor([0.3, 0.7]))
        return mf.inference.Prior(torch.distributions.MixtureSameFamily(shares, components))

    prior = mixture(Normal(torch.tensor([-3.0, 3.0]), 0.5))
    assert (prior.low.tolist(), prior.high.tolist()) == ([-math.inf], [math.inf])
    assert prior.log_prob(torch.tensor([3.0])).exp().item() == pytest.approx(
        0.7 / math.sqrt(2 * math.pi) / 0.5
    )
    assert mixture(LogNormal(torch.tensor([0.0, 1.0]), 0.5)).low.tolist() == [0.0]
    with pytest.raises(ValueError, match=r"^prior: expected parameters in intervals"):
        mixture(Uniform(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 6.0])))


def test_a_prior_is_one_of_itself() -> None:
    prior = Prior([Uniform(2.0, 3.0), Gamma(2.0, 3.0)])
    again = mf.NPE(prior).prior
    assert (again.low.tolist(), again.high.tolist()) == ([2.0, 0.0], [3.0, math.inf])
    theta = prior.sample((5,))
    assert torch.equal(again.log_prob(theta), prior.log_prob(theta))


def test_log_determinants_of_supports_are_those_of_autograd() -> None:
    low = torch.tensor([-1.0, 0.0, -math.inf, -math.inf], dtype=torch.float64)
    high = torch.tensor([2.0, math.inf, 3.0, math.inf], dtype=torch.float64)
    support = Probit(low, high)()
    x = torch.tensor([0.5, 0.3, -4.0, 1.5], dtype=torch.float64)
    y, ladj = support.call_and_ladj(x)
    jacobian = torch.autograd.functional.jacobian(support, x)
    torch.testing.assert_close(ladj, jacobian.diagonal().log().sum())
    back, back_ladj = support.inverse_and_ladj(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(back_ladj, -ladj)
    torch.testing.assert_close(y[0], torch.zeros((), dtype=torch.float64))
    assert support.call_and_ladj(x - 3)[1] == -math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_supports_hold_at_the_ends_of_the_line(dtype: torch.dtype) -> None:
    low, high = torch.tensor([0.1, 0.0], dtype=dtype), torch.tensor([0.7, math.inf], dtype=dtype)
    support = Probit(low, high)
    far = torch.tensor([[-50.0, -80.0], [50.0, 80.0], [0.0, 0.0]], dtype=dtype)
    x, ladj = support().inverse_and_ladj(far)
    assert bool(((low < x) & (x < high)).all())
    assert bool(ladj.isfinite().all())
    assert bool(support()(support.inside(torch.stack([low, high]))).isfinite().all())


def test_dtype_is_that_of_the_data_and_arrays_are_taken() -> None:
    theta, x = (part.double().numpy() for part in square(300))
    found = mf.NPE(SQUARE, "maf", config=QUICK).fit(theta, x)
    drawn = found.sample((7,), x=x[0])
    assert drawn.dtype == torch.float64
    assert found.log_prob(theta[:3], x=x[0]).dtype == torch.float64
    assert not found.log_prob(drawn, x=x[0]).requires_grad


def test_rows_that_are_not_finite_are_left_out_with_a_warning() -> None:
    theta, x = square(300)
    spoilt = x.clone()
    spoilt[[3, 5], 0] = torch.tensor([math.nan, math.inf])
    with pytest.warns(UserWarning, match="^2 of 300 simulations are not finite"):
        found = mf.NPE(SQUARE, "maf", config=QUICK).fit(theta, spoilt)
    kept = torch.ones(300).bool()
    kept[[3, 5]] = False
    other = mf.NPE(SQUARE, "maf", config=QUICK).fit(theta[kept], x[kept])
    assert torch.equal(found.log_prob(theta, x=x[0]), other.log_prob(theta, x=x[0]))


def test_the_same_seed_gives_the_same_posterior_and_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    runs = [mf.NPE(SQUARE, "maf", config=QUICK, seed=s).fit(*square(300)) for s in (3, 3, 4)]
    drawn = [run.sample((5,), x=torch.zeros(2), generator=generator()) for run in runs]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_data_are_standardised_within_the_density() -> None:
    theta, x = square(400)
    near = mf.NPE(SQUARE, "maf", config=QUICK).fit(theta, x)
    shifted = mf.NPE(SQUARE, "maf", config=QUICK).fit(theta, 1024 * x)
    expected = near.log_prob(theta, x=x[0])
    torch.testing.assert_close(shifted.log_prob(theta, x=1024 * x[0]), expected)


def test_a_series_goes_through_an_embedding() -> None:
    theta, x = square(300)
    series = x[:, :1, None] + 0.1 * torch.randn(300, 3, 8, generator=generator(5))
    first = nn.Conv1d(3, 4, 3)
    network = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    before = first.weight.clone()
    npe = mf.NPE(SQUARE, "maf", embedding=network, config=QUICK)
    found = npe.fit(theta, series)
    assert found.sample((4,), x=series[0]).shape == (4, 2)
    assert found.sample((4,), x=series[:1]).shape == (4, 2)
    assert found.log_prob_batched(theta[:6], series[:6]).shape == (6,)
    assert torch.equal(first.weight, before)
    trained: Any = found.density.members[0].embedding
    assert not torch.equal(trained[1][0].weight, before)
    scale = trained[0].scale
    assert bool((scale == scale[0, 0]).all())
    assert abs(scale[0, 0].item() - series.std().item()) < 1e-3


def test_batches_of_observations_are_those_one_by_one(posterior: DirectPosterior) -> None:
    _, x = square(5, seed=9)
    drawn = posterior.sample_batched((100,), x, generator())
    assert drawn.shape == (100, 5, 2)
    batch = posterior.log_prob_batched(drawn, x)
    single = torch.stack([posterior.log_prob(drawn[:, i], x=x[i]) for i in range(5)], dim=1)
    torch.testing.assert_close(batch, single, atol=1e-4, rtol=1e-4)


def test_ensemble_is_the_mixture_of_its_members() -> None:
    theta, x = square(300)
    found = mf.NPE(SQUARE, "maf", ensemble=3, config=QUICK).fit(theta, x)
    members = [member(x[:1]).log_prob(theta) for member in found.density.members]
    expected = torch.stack(members).logsumexp(dim=0) - math.log(3)
    torch.testing.assert_close(found.log_prob(theta, x=x[0]), expected)
    drawn = found.sample((20_000,), x=x[0], generator=generator())
    each = [member(x[0]).sample((20_000,), generator()) for member in found.density.members]
    expected = torch.stack(each).mean(dim=(0, 1))
    torch.testing.assert_close(drawn.mean(dim=0), expected, atol=0.03, rtol=0)
    assert found.sample_batched((6,), x[:4]).shape == (6, 4, 2)


def test_a_further_round_is_drawn_where_the_posterior_is() -> None:
    npe = mf.NPE(SQUARE, "nsf", config=TrainConfig(epochs=8, batch_size=50, lr=5e-3))
    theta, x = square(600, noise=0.1)
    observed = torch.tensor([0.5, 0.5])
    proposal = npe.fit(theta, x).truncated(observed, generator=generator())
    further = proposal.sample((300,), generator())
    assert torch.equal(further, proposal.sample((300,), generator()))
    assert bool(proposal.contains(further).all())
    assert (further - observed).abs().mean() < (theta - observed).abs().mean()
    log_prob = proposal.log_prob(torch.cat([further[:5], torch.tensor([[-0.9, -0.9]])]))
    torch.testing.assert_close(log_prob[:5], torch.full((5,), -math.log(4)))
    assert log_prob[5] == -math.inf
    new = further + 0.1 * torch.randn(300, 2, generator=generator(7))
    found = npe.fit(further, new, proposal=proposal)
    assert npe.simulations is not None
    assert len(npe.simulations.theta) == 900
    drawn = found.sample((2000,), x=observed, generator=generator())
    torch.testing.assert_close(drawn.mean(dim=0), observed, atol=0.1, rtol=0)


@pytest.mark.parametrize("of_prior", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_data", [torch.float32, torch.float64])
def test_rounds_have_the_precision_of_the_data(of_prior: torch.dtype, of_data: torch.dtype) -> None:
    prior = Uniform(-torch.ones(2, dtype=of_prior), torch.ones(2, dtype=of_prior))
    theta, x = (rows.to(of_data) for rows in square(200))
    for made in (mf.NPE(prior, "maf", config=QUICK), mf.NLE(prior, "maf", config=QUICK)):
        found = made.fit(theta, x)
        assert found.log_prob(theta, x=x[0]).dtype == found.sample((5,), x=x[0]).dtype == of_data
        if isinstance(found, DirectPosterior):
            region = found.truncated(x[0])
            assert region.sample((5,)).dtype == of_data
            assert bool(region.contains(region.sample((5,)).double()).all())


def test_a_region_that_the_prior_hardly_meets_is_drawn_from_the_posterior() -> None:
    prior = Prior(Uniform(-1000 * torch.ones(2), 1000 * torch.ones(2)))
    narrow = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    proposal = mf.inference.TruncatedPrior(prior, narrow, mass=0.9)
    drawn = proposal.sample((500,), None)
    radius = drawn.norm(dim=1)  # uniform on a disc, whose mean radius is 2/3 of its own
    assert radius.max() < 1.1 * math.sqrt(-2 * math.log(0.1))
    assert abs(radius.mean().item() / math.sqrt(-2 * math.log(0.1)) - 2 / 3) < 0.05


def test_mode_stays_within_bounds() -> None:
    theta = torch.rand(800, 1, generator=generator())
    config = TrainConfig(epochs=10, batch_size=50, lr=5e-3, schedule="cosine")
    found = mf.NPE(Uniform(0.0, 1.0), config=config).fit(
        theta, theta + 0.2 * torch.randn(800, 1, generator=generator(1))
    )
    mode = found.map([0.5], generator())
    assert mode.shape == (1,)
    grid = torch.linspace(0.001, 0.999, 999)[:, None]
    highest = found.log_prob(grid, x=[0.5]).max()
    assert found.log_prob(mode, x=[0.5]) > highest - 1e-3
    assert 0 < found.map([1.5], generator()).item() <= 1


def test_default_x_and_distribution(posterior: DirectPosterior) -> None:
    x = torch.tensor([0.2, 0.1])
    with pytest.raises(ValueError, match=r"^x: expected an observation, or one set by set_default"):
        mf.NPE(SQUARE, "maf", config=QUICK).fit(*square(100)).sample((1,))
    assert posterior.set_default_x(x) is posterior
    at = posterior.at()
    assert (at.batch_shape, at.event_shape) == ((), (2,))
    theta = at.sample((9,))
    assert torch.equal(at.log_prob(theta), posterior.log_prob(theta, x=x[None]))
    assert posterior.sample().shape == (2,)
    leaf = theta.clone().requires_grad_()
    posterior.log_prob(leaf).sum().backward()
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())


@pytest.mark.parametrize("arguments", [{"flow": "auto"}, {"flow": "maf", "ensemble": 2}])
def test_a_posterior_is_saved_and_read(tmp_path: Path, arguments: dict[str, Any]) -> None:
    theta, x = square(200)
    found = mf.NPE(SQUARE, config=QUICK, **arguments).fit(theta, x)
    found.save(tmp_path / "posterior.safetensors")
    again = mf.NPE(SQUARE, **arguments).load(tmp_path / "posterior.safetensors")
    assert torch.equal(again.log_prob(theta, x=x[0]), found.log_prob(theta, x=x[0]))
    other = Uniform(-2 * torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="the prior's bounds are others"):
        mf.NPE(other, **arguments).load(tmp_path / "posterior.safetensors")
    with pytest.raises(ValueError, match="not a density of this flow"):
        mf.NPE(Normal(torch.zeros(2), 1.0), **arguments).load(tmp_path / "posterior.safetensors")


def test_images_are_standardised_as_a_whole_where_a_pixel_is_always_the_same() -> None:
    x = 100 + 50 * torch.randn(40, 2, 3, generator=generator())
    x[:, 0, 0] = 0.0
    mean, scale = moments(x, "auto")
    torch.testing.assert_close(mean, x.mean().expand(2, 3))
    torch.testing.assert_close(scale, x.std(correction=0).expand(2, 3))
    mean, scale = moments(x, "independent")
    torch.testing.assert_close(mean, x.mean(dim=0))
    assert scale[0, 0] == 1
    assert torch.equal(moments(torch.full((4, 2, 3), 0.1), "structured")[1], torch.ones(2, 3))


def test_flows_are_named_or_made() -> None:
    theta, x = square(200)

    def build(features: int, context: int) -> mf.flows.LazyDistribution:
        return mf.mixtures.GMM(features, context, components=2, hidden_features=(8,))

    found = mf.NPE(SQUARE, build, config=QUICK).fit(theta, x)
    assert bool((found.sample((100,), x=x[0]).abs() <= 1).all())
    with pytest.raises(ValueError, match=r"^flow: expected one of auto, maf, nsf, modern, got 'm'"):
        mf.NPE(SQUARE, "m")
    with pytest.raises(ValueError, match=r"^z_score_x: expected one of auto, independent, struct"):
        mf.NPE(SQUARE, z_score_x="whole")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^embedding: expected a torch.nn.Module, got a str"):
        mf.NPE(SQUARE, embedding="cnn")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^config: expected a TrainConfig, got a dict"):
        mf.NPE(SQUARE, config={"epochs": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^flow: expected a function that makes a LazyDistr"):
        mf.NPE(SQUARE, lambda _, __: nn.Linear(2, 2), config=QUICK).fit(theta, x)  # type: ignore[arg-type,return-value]


class Unbounded:
    """A prior that does not say where it is."""

    batch_shape, event_shape = (), (2,)

    def sample(self, shape: Any) -> Tensor:
        return torch.zeros(*shape, 2)

    def log_prob(self, theta: Tensor) -> Tensor:
        return theta.sum(dim=-1)


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        (3, TypeError, "prior: expected a distribution with sample and log_prob, got a int"),
        (Unbounded(), ValueError, "prior: expected a distribution that knows its support, got"),
        (Normal, TypeError, "prior: expected a distribution, got the class Normal"),
        ([], ValueError, "prior: expected at least one distribution, got an empty list"),
        (
            Normal(torch.zeros(2, 2), 1.0),
            ValueError,
            r"prior: expected event shape \(D,\) and no batch, got batch shape \(2, 2\)",
        ),
        (
            Independent(Normal(torch.zeros(1, 2), 1.0), 1),
            ValueError,
            r"prior: expected event shape \(D,\) and no batch, got batch shape \(1,\)",
        ),
        (
            torch.distributions.Dirichlet(torch.ones(3)),
            ValueError,
            "prior: expected parameters in intervals, half-lines or lines, got the support",
        ),
    ],
)
def test_priors_that_are_none(prior: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        mf.NPE(prior)


@pytest.mark.parametrize(
    ("theta", "x", "message"),
    [
        (torch.zeros(5, 3), torch.zeros(5, 2), r"theta: expected shape \(n, 2\), as the prior's"),
        (torch.zeros(5, 2), torch.zeros(5, 0), r"x: expected numbers of each simulation, got \(5"),
        (torch.zeros(5, 2), torch.zeros(4, 2), "x: expected 5 simulations, one for each row of"),
        (torch.full((5, 2), 3.0), torch.zeros(5, 2), "theta: expected rows within the prior's sup"),
        (torch.zeros(1, 2), torch.zeros(1, 2), "theta: expected at least 2 rows to learn from"),
        (torch.zeros(5, 2), torch.zeros(5, 2, 3), r"x: expected shape \(n, features\), or an emb"),
    ],
)
def test_simulations_that_do_not_fit(theta: Tensor, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        mf.NPE(SQUARE).fit(theta, x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0], r"x: expected one observation of shape \(2,\), as the simulations, got \(1,\)"),
        ([1.0, math.nan], "x: expected finite numbers, got nan or inf in the observation"),
    ],
)
def test_observations_that_do_not_fit(
    posterior: DirectPosterior, x: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        posterior.sample((1,), x=np.array(x))


def test_parameters_that_do_not_fit(posterior: DirectPosterior) -> None:
    with pytest.raises(ValueError, match=r"^theta: expected shape \(\*, 2\), got \(3,\)"):
        posterior.log_prob(torch.zeros(3), x=torch.zeros(2))
    with pytest.raises(ValueError, match=r"^theta: expected numbers, got NaN"):
        posterior.log_prob([math.nan, 0.0], x=torch.zeros(2))
    with pytest.raises(TypeError, match=r"^sample_shape: expected a shape such as \(5,\), got 5"):
        posterior.sample(5, x=torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^proposal: expected posterior.truncated\(x\), got a"):
        mf.NPE(SQUARE).fit(*square(10), proposal=SQUARE)  # type: ignore[arg-type]
