"""Rows measured with errors: the density without these, beside what is known exactly."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

import maskedflow as mf
from interruptions import interrupt
from maskedflow.data import Split, deconvolved_gaussian, measured_log_likelihood
from maskedflow.flows import GMM, MAF, Flow, Measured, UnconditionalDistribution
from maskedflow.flows.measured import EVALUATED
from maskedflow.training import TrainConfig, evaluate, fit
from maskedflow.transforms import Standardize

MEAN = torch.tensor([3.0, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Rows of the Gaussian without noise, and noise of N(0, I)."""
    x, noise = torch.randn(2, n, 2, dtype=torch.float64, generator=seeded())
    return (MEAN + x @ torch.linalg.cholesky(COVARIANCE).T).to(dtype), noise.to(dtype)


def turned(n: int, scale: float) -> Tensor:
    """A covariance a row, whose axes point anywhere."""
    a = torch.randn(n, 2, 2, dtype=torch.float64, generator=seeded(1))
    return scale**2 * (a @ a.mT + 0.1 * torch.eye(2))


def exact() -> UnconditionalDistribution:
    return UnconditionalDistribution(MultivariateNormal, MEAN, COVARIANCE)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("correlated", [False, True])
def test_density_is_the_convolution(scale: float, correlated: bool) -> None:
    x, noise = rows(500)
    if correlated:
        errors = turned(500, scale)
        y = x + (torch.linalg.cholesky(errors) @ noise[..., None])[..., 0]
    else:
        errors = 2 * scale * torch.rand(500, 2, dtype=torch.float64, generator=seeded(2))
        y = x + errors * noise
    truth = measured_log_likelihood(y, errors, MEAN, COVARIANCE)
    measured = Measured(exact(), MEAN, COVARIANCE, correlated=correlated)
    for mode, bias, spread in ((False, 3e-3, 0.02), (True, 0.015, 0.1)):
        off = (measured.train(mode)(errors).log_prob(y) - truth).detach()
        assert abs(off.mean()) < bias
        assert off.std() < spread


def test_draws_of_the_noise_alone_would_be_biased() -> None:
    """What the second kind of draws is for: with wide noise few of the first find x."""
    x, noise = rows(500)
    errors = torch.full((500, 2), 3.0, dtype=torch.float64)
    y = x + errors * noise
    truth = measured_log_likelihood(y, errors, MEAN, COVARIANCE)
    places = y + errors * torch.randn(16, 500, 2, dtype=torch.float64, generator=seeded(3))
    plain = exact()().log_prob(places).logsumexp(0) - math.log(16)
    assert (plain - truth).mean() < -0.5


def test_a_poor_gaussian_costs_draws_but_is_no_bias() -> None:
    x, noise = rows(500)
    y = x + noise
    errors = torch.ones_like(y)
    truth = measured_log_likelihood(y, errors, MEAN, COVARIANCE)
    elsewhere = Measured(exact(), MEAN + 2, 4 * COVARIANCE, draws=512).eval()
    assert abs((elsewhere(errors).log_prob(y) - truth).mean()) < 2e-3


def test_an_outlier_of_heavy_tails_is_no_surprise() -> None:
    flow = mf.flows.base("student-t", 1, df=2.0).double()
    y, error = torch.tensor([[30.0]]).double(), torch.ones(1, 1).double()
    found = Measured(flow, torch.zeros(1), torch.ones(1, 1)).eval()(error).log_prob(y)
    e = torch.linspace(-9, 9, 10_001).double()[:, None]
    whole = flow().log_prob(y - e) + Normal(0.0, 1.0).log_prob(e[:, 0])
    expected = whole.logsumexp(0) + math.log(18 / 10_000)
    torch.testing.assert_close(found[0], expected, atol=0.02, rtol=0)


def test_an_error_of_zero_is_none_and_other_features_are_exact() -> None:
    x, noise = rows(50)
    flow = exact()
    zero = Measured(flow, MEAN, COVARIANCE)(torch.zeros_like(x)).log_prob(x)
    torch.testing.assert_close(zero, flow().log_prob(x))
    singular = torch.zeros(50, 2, 2).double()
    singular[:, 0, 0] = 0.25
    y = x + noise * torch.tensor([0.5, 0.0])
    truth = measured_log_likelihood(y, singular, MEAN, COVARIANCE)
    one = Measured(flow, MEAN, COVARIANCE, features=[0]).eval()
    both = Measured(flow, MEAN, COVARIANCE, correlated=True).eval()
    for found in (
        one(torch.full((50, 1), 0.5).double()),
        both(singular),
        both(singular.flatten(1)),
    ):
        torch.testing.assert_close(found.log_prob(y), truth, atol=0.05, rtol=0)


def test_errors_stand_behind_the_context() -> None:
    flow = MAF(2, context=3, hidden_features=(8,), generator=seeded())
    x, c = torch.randn(2, 10, 3, generator=seeded())
    y, errors = x[:, :2], torch.zeros(10, 2)
    measured = Measured(flow, torch.zeros(2), torch.eye(2))
    found = measured(torch.hstack([c, errors])).log_prob(y)
    torch.testing.assert_close(found, flow(c).log_prob(y))
    assert found.dtype == torch.float32


def test_samples_are_as_measured() -> None:
    flow = Flow([Standardize(MEAN, torch.tensor([1.0, 2.0]))], mf.flows.base("normal", 2))
    errors = turned(1, 1.0).expand(20_000, 2, 2)
    made = Measured(flow.double(), MEAN, COVARIANCE, correlated=True)(errors)
    y = made.sample((), seeded())
    expected = torch.diag(torch.tensor([1.0, 4.0])) + errors[0]
    torch.testing.assert_close(torch.cov(y.T), expected, atol=0.2, rtol=0.05)
    assert made.sample((3,), seeded()).shape == (3, 20_000, 2)


def test_a_row_is_scored_alike_beside_any_others() -> None:
    x, noise = rows(40, torch.float32)
    errors = torch.rand(40, 2, generator=seeded())
    flow = MAF(2, hidden_features=(8,), generator=seeded())
    measured, split = Measured(flow, MEAN, COVARIANCE), Split(x + errors * noise, errors)
    whole = evaluate(measured, split)
    torch.testing.assert_close(evaluate(measured, split, batch_size=7, seed=5), whole)
    torch.testing.assert_close(evaluate(measured, split[:3]), whole[:3])
    assert measured.eval().points(split.x).shape == (EVALUATED * 16, 40, 2)


@pytest.mark.parametrize("correlated", [False, True])
def test_fit_recovers_the_covariance_without_noise(correlated: bool) -> None:
    x, noise = rows(2500, torch.float32)
    if correlated:
        errors = turned(2500, 1.0).float()
        y = x + (torch.linalg.cholesky(errors) @ noise[..., None])[..., 0]
    else:
        errors = 2 * torch.rand(2500, 2, generator=seeded(2))
        y = x + errors * noise
    found = deconvolved_gaussian(y, errors)  # by maximum likelihood
    flow = GMM(2, components=1)
    flow.initialize(y)  # much too wide
    measured = Measured(flow, *found, correlated=correlated)
    config = TrainConfig(epochs=10, batch_size=250, lr=0.05, schedule="cosine")
    fit(measured, Split(y, errors), Split(y, errors), config)
    drawn = flow().sample((100_000,), seeded())
    torch.testing.assert_close(torch.cov(drawn.T).double(), found[1], atol=0.04, rtol=0)
    assert torch.cov(y.T).diagonal().min() > 2
    torch.testing.assert_close(found[1], COVARIANCE, atol=0.1, rtol=0)


def test_two_peaks_come_out_as_by_extreme_deconvolution() -> None:
    weights = torch.tensor([0.3, 0.7])
    truth = MixtureSameFamily(Categorical(weights), Normal(torch.tensor([-1.0, 1.0]), 0.3))
    torch.manual_seed(0)
    x, errors = truth.sample((3000,)), 0.8 * torch.rand(3000, 1) + 0.2
    y = x[:, None] + errors * torch.randn(3000, 1)
    known = extreme_deconvolution(y[:, 0], errors[:, 0])

    config = TrainConfig(epochs=15, batch_size=200, lr=0.03, schedule="cosine")
    flow = GMM(1, components=2, generator=seeded())
    flow.initialize(y, generator=seeded())
    ignoring = GMM(1, components=2, generator=seeded())
    ignoring.initialize(y, generator=seeded())
    fit(ignoring, Split(y), Split(y[:500]), config)
    fit(
        Measured(flow, *deconvolved_gaussian(y, errors)),
        Split(y, errors),
        Split(y[:500], errors[:500]),
        config,
    )
    fresh = truth.sample((20_000,))
    behind, other, peer = (  # KL divergences from the truth
        (truth.log_prob(fresh) - log_prob).mean().item()
        for log_prob in (
            flow().log_prob(fresh[:, None]).detach(),
            ignoring().log_prob(fresh[:, None]).detach(),
            known.log_prob(fresh),
        )
    )
    assert behind < 0.02
    assert other > 0.15
    assert abs(behind - peer) < 0.01


def extreme_deconvolution(y: Tensor, errors: Tensor) -> MixtureSameFamily:
    """Two Gaussians by EM (Bovy, Hogg and Roweis, 2011), equations 16 and 17 in one dimension."""
    weights, means, variances = torch.tensor([[0.5, 0.5], [-2.0, 2.0], [1.0, 1.0]])
    for _ in range(200):
        total = variances + errors[:, None] ** 2
        log_prob = weights.log() + Normal(means, total.sqrt()).log_prob(y[:, None])
        share = log_prob.softmax(dim=1)
        x = means + variances / total * (y[:, None] - means)
        count = share.sum(0)
        weights, means = count / len(y), (share * x).sum(0) / count
        left = variances - variances**2 / total
        variances = (share * ((x - means) ** 2 + left)).sum(0) / count
    return MixtureSameFamily(Categorical(weights), Normal(means, variances.sqrt()))


def test_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    x, noise = rows(60, torch.float32)
    errors = torch.rand(60, 2, generator=seeded())
    train = Split(x + errors * noise, errors)
    config = TrainConfig(epochs=2, batch_size=20, lr=1e-2, seed=3)

    def made() -> Measured:
        flow = MAF(2, transforms=1, hidden_features=(8,), generator=seeded())
        return Measured(flow, MEAN, COVARIANCE, draws=4)

    fit(made(), train, train, config, directory=tmp_path / "one")
    stopped = made()
    interrupt(stopped, at=4)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, train, train, config, directory=tmp_path / "two")
    fit(made(), train, train, config, directory=tmp_path / "two", resume=True)
    one, two = (load_file(tmp_path / f"{n}/checkpoints/latest.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_gaussian_is_deconvolved() -> None:
    x, noise = rows(6000)
    errors = 3 * torch.rand(6000, 2, dtype=torch.float64, generator=seeded(1))
    mean, covariance = deconvolved_gaussian(x + errors * noise, errors)
    torch.testing.assert_close(mean, MEAN, atol=0.1, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0.15, rtol=0)
    none, sample = deconvolved_gaussian(x, torch.zeros_like(x))
    torch.testing.assert_close(none, x.mean(0))
    torch.testing.assert_close(sample, torch.cov(x.T, correction=0))
    tiny, _ = torch.linalg.eigh(deconvolved_gaussian(noise, 2 + torch.zeros_like(noise))[1])
    assert (tiny > 0).all()  # more noise than there is variance
    with pytest.raises(ValueError, match=r"^errors: expected shape \(6000, 2\) or"):
        deconvolved_gaussian(x, errors[:, :1])


def test_a_weighted_gaussian_is_deconvolved_as_of_repeated_rows() -> None:
    x, noise = rows(400)
    errors = torch.rand(400, 2, dtype=torch.float64, generator=seeded(1))
    counts = torch.randint(0, 4, (400,), generator=seeded(2))
    y, again = x + errors * noise, torch.arange(400).repeat_interleave(counts)
    found = deconvolved_gaussian(y, errors, 0.1 * counts)
    for one, other in zip(found, deconvolved_gaussian(y[again], errors[again]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"covariance": torch.eye(3)}, r"^covariance: expected shape \(2, 2\), got \(3, 3\)$"),
        ({"covariance": -torch.eye(2)}, r"^covariance: expected a positive definite matrix$"),
        ({"features": (0, 2)}, r"^features: expected distinct indices below 2, got \(0, 2\)$"),
        ({"draws": 3}, "^draws: expected an even number, got 3$"),
        ({"flow": MAF(2, batch_norm=True)}, "^flow: expected none with batch norm"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object], message: str) -> None:
    given = {"flow": MAF(2), "loc": torch.zeros(2), "covariance": torch.eye(2)}
    with pytest.raises(ValueError, match=message):
        Measured(**(given | wrong))  # type: ignore[arg-type]


def test_rows_that_cannot_be() -> None:
    measured = Measured(exact(), MEAN, COVARIANCE).eval()(torch.ones(3, 2))
    y = torch.zeros(3, 2, dtype=torch.float64)
    y[1, 0] = -torch.inf
    found = measured.log_prob(y)
    assert found.isneginf().tolist() == [False, True, False]
    assert torch.equal(found[::2], measured.log_prob(torch.zeros_like(y))[::2])
    y[1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^x: expected numbers, got NaN at index \[1, 1\]$"):
        measured.log_prob(y)
    with pytest.raises(ValueError, match=r"^x: expected shape \(\*, 2\), got \(3, 1\)$"):
        measured.log_prob(y[:, :1])


def test_errors_that_cannot_be_are_refused() -> None:
    measured = Measured(exact(), MEAN, COVARIANCE)
    with pytest.raises(ValueError, match=r"^errors: .* >= 0, got -1 at index \[1, 0\]$"):
        measured(torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"^c: expected numbers, got NaN at index \[0, 1\]$"):
        measured(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match=r"^c: expected the errors of 2 features, got none$"):
        measured()
    with pytest.raises(ValueError, match=r"^c: expected 2 numbers of errors, got 1$"):
        measured(torch.ones(5, 1))
    full = Measured(exact(), MEAN, COVARIANCE, correlated=True)
    for matrix in ([[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]]):
        with pytest.raises(ValueError, match=r"^errors: expected symmetric .* at index \[1\]$"):
            full(torch.stack([torch.eye(2), torch.tensor(matrix)]))
