"""Growing mixtures of Gaussians: what they find, with codes, contexts and absent features."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from clusters import clusters
from generators import generator
from maskedflow.tables.em import Sample, grow
from maskedflow.tables.mixture import MixtureOfRegressions


def sample(x: Tensor, c: Tensor | None = None) -> Sample:
    return Sample(x.double(), torch.ones(len(x)), None if c is None else c.double())


def mixture(
    *, slopes: bool = False, tables: bool = False, absent: bool = False
) -> MixtureOfRegressions:
    g = generator()
    factors = torch.randn(4, 3, 3, generator=g).tril()
    factors.diagonal(dim1=-2, dim2=-1).exp_()
    return MixtureOfRegressions(
        torch.randn(4, generator=g),
        2 * torch.randn(4, 3, generator=g),
        factors,
        torch.randn(4, 3, 5, generator=g) if slopes else None,
        torch.randn(4, 2, generator=g) if tables else None,
        (None, 0, 1) if absent else (),
    ).double()


KINDS = [
    {},
    {"slopes": True},
    {"tables": True},
    {"absent": True},
    {"slopes": True, "tables": True, "absent": True},
]


def context(n: int) -> Tensor:
    c = torch.randn(n, 5, dtype=torch.float64, generator=generator(1))
    c[:, :2] = (c[:, :2] > 0).double()
    return c


def expected(one: MixtureOfRegressions, x: Tensor, c: Tensor) -> Tensor:
    """The density of one row by its definition."""
    here = [i for i in range(3) if not one.present or (p := one.present[i]) is None or c[p]]
    weights, parts = one.logits, []
    if one.tables is not None:
        weights = weights + one.tables @ c[:2]
    for k in range(4):
        loc = one.loc[k] if one.slopes is None else one.loc[k] + one.slopes[k] @ c
        covariance = (one.scale_tril[k] @ one.scale_tril[k].T)[here][:, here]
        parts.append(MultivariateNormal(loc[here], covariance).log_prob(x[here]))
    return (weights.log_softmax(dim=0) + torch.stack(parts)).logsumexp(dim=0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_density_is_the_one_of_the_definition(kind: dict[str, bool]) -> None:
    one, c = mixture(**kind), context(150)
    made = one(c if kind else None)
    shape = () if kind else (150,)
    x = made.sample(shape, generator())
    assert torch.equal(made.sample(shape, generator()), x)
    truth = torch.stack([expected(one, *pair) for pair in zip(x, c, strict=True)])
    found = made.log_prob(x)
    torch.testing.assert_close(found, truth)
    part = one(c[9:70] if kind else None).log_prob(x[9:70])
    np.testing.assert_array_equal(part.numpy(), found[9:70].numpy())
    assert made.sample((2,)).shape == ((2, 150, 3) if kind else (2, 3))
    at = x.clone().requires_grad_()
    torch.testing.assert_close(made.log_prob(at), truth)
    assert torch.autograd.grad(made.log_prob(at).sum(), at)[0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_residuals_of_draws_are_uniform(kind: dict[str, bool]) -> None:
    one = mixture(**kind)
    made = one(context(1).expand(20_000, -1) if kind else None)
    x = made.sample(() if kind else (20_000,), generator=generator())
    u = torch.rand(len(x), dtype=torch.float64, generator=generator(1))
    residuals = made.residuals(x, u)
    absent = (x == 0).all(dim=0)
    assert (residuals[:, absent] == 0.5).all()
    levels = torch.linspace(0, 1, 21)[1:-1].double()
    shares = (residuals[:, ~absent, None] < levels).double().mean(dim=0)
    assert (shares - levels).abs().max() < 0.015
    wanted = torch.eye(int((~absent).sum()), dtype=torch.float64)
    torch.testing.assert_close(residuals[:, ~absent].T.corrcoef(), wanted, atol=0.03, rtol=0)


def test_known_clusters_are_found() -> None:
    x, means, covariances = clusters()
    grown = list(islice(grow(sample(x / 5), sample(clusters(1)[0] / 5)), 2))[-1].mixture
    truth = MixtureOfRegressions(
        torch.tensor([1.0, 2.0, 3.0]).log(), means, torch.linalg.cholesky(covariances)
    )
    test = clusters(2)[0]
    lost = truth().log_prob(test).mean() - grown().log_prob(test / 5).mean() + 2 * math.log(5)
    assert lost < 0.03


def test_weights_count_as_repetitions() -> None:
    x, _, _ = clusters()
    x = x / 5
    often = torch.arange(len(x)) % 3 + 1
    twice = Sample(x.double(), often.double())
    repeated = x.double().repeat_interleave(often, dim=0)
    one = next(grow(twice, twice)).mixture
    other = next(grow(sample(repeated), sample(repeated))).mixture
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_features_that_are_absent_by_chance_bias_nothing() -> None:
    """Rows of which the second feature is seen if the first is large: its mean is kept."""
    x, _, _ = clusters()
    x = x.double() / 5
    seen = (x[:, 0] > -1) | (torch.rand(len(x), generator=generator()) < 0.1)
    c = torch.stack([seen, ~seen], dim=1).double()
    hidden = torch.where(torch.stack([torch.ones_like(seen), seen], dim=1), x, 0)
    rows = sample(hidden, c)
    grown = list(islice(grow(rows, rows, present=(None, 0)), 2))[-1].mixture
    assert grown.present == (None, 0)
    drawn = grown(torch.tensor([1.0, 0.0]).double()).sample((20_000,), generator())
    torch.testing.assert_close(drawn.mean(dim=0), x.mean(dim=0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), x.T.cov(), atol=0.1, rtol=0.1)
    assert (x[seen, 1].mean() - x[:, 1].mean()).abs() > 0.1  # what the observed ones alone say


def test_codes_choose_components() -> None:
    """A uniform number whose range is the code's has no mass in another one's range."""

    def draw(n: int, seed: int) -> Sample:
        g = generator(seed)
        code = torch.randint(3, (n,), generator=g)
        x = torch.rand(n, 1, generator=g) + code[:, None]
        return sample(x - 1.5, torch.nn.functional.one_hot(code, 3))

    last = -math.inf
    for grown in grow(draw(3000, 0), draw(1000, 1), levels=3):
        if grown.score < last:
            break
        last, best = grown.score, grown.mixture
    assert last > -0.15
    there = best(torch.eye(3).double())
    drawn = there.sample((5000,), generator=generator())[..., 0] + 1.5
    outside = (drawn - torch.arange(3) - 0.5).abs() > 0.55
    assert outside.double().mean() < 0.03


def test_means_follow_a_context() -> None:
    def draw(n: int, seed: int) -> Sample:
        g = generator(seed)
        c, far = torch.randn(n, 1, generator=g), torch.rand(n, 1, generator=g).round()
        return sample(9 * far + (2 - 5 * far) * c + 0.01 * torch.randn(n, 1, generator=g), c)

    grown = next(grow(draw(500, 0), draw(500, 1), slopes=True))
    truth = -0.5 - 0.5 * math.log(2 * math.pi) - math.log(0.01) - math.log(2)
    assert grown.score > truth - 0.1
    assert grown.mixture.slopes is not None
    found = grown.mixture.slopes.flatten().sort().values
    torch.testing.assert_close(found, torch.tensor([-3.0, 2.0]).double(), atol=0.01, rtol=0)


def test_narrow_clusters_stay_as_narrow_as_they_are() -> None:
    x = torch.randn(600, 2, dtype=torch.float64, generator=generator())
    x[:200] *= 1e-4
    x[200:400] = 1e-3 * x[200:400] + 1
    grown = list(islice(grow(sample(x), sample(x)), 2))[-1].mixture
    widths = grown.scale_tril.diagonal(dim1=-2, dim2=-1).prod(dim=-1)
    for truth in (1e-8, 1e-6):
        assert ((widths / truth).log().abs() < 0.5).any()


def test_clusters_stay_as_long_as_they_are() -> None:
    """Needles that point anywhere, a hundred thousand times as long as thick, need no beads."""
    g = generator()
    turn = torch.linalg.qr(torch.randn(2, 3, 3, dtype=torch.float64, generator=g)).Q
    stretch = torch.tensor([1.0, 1e-5, 1e-5], dtype=torch.float64)
    z = torch.randn(3000, 3, dtype=torch.float64, generator=g) * stretch
    x = torch.where(torch.arange(3000)[:, None] < 1000, z @ turn[0], z @ turn[1] + 5)
    x = x[torch.randperm(3000, generator=g)]
    found = next(grow(sample(x[:2000]), sample(x[2000:])))
    entropy = 1.5 * (1 + math.log(2 * math.pi)) + stretch.log().sum()
    truth = -(math.log(3) - 2 / 3 * math.log(2)) - entropy
    assert found.score > truth - 0.1


@pytest.mark.parametrize("width", [0.0, 1e-7, 1e-4, 1e-2])
@pytest.mark.parametrize("features", [2, 3])
def test_clusters_without_extent_are_finite(features: int, width: float) -> None:
    """Of eight clusters, in which one column is constant, another a copy; some rows are rounded."""
    for seed in range(3):
        g = generator(seed)
        centres = torch.randn(8, features, dtype=torch.float64, generator=g)
        e = width * torch.randn(1000, features, dtype=torch.float64, generator=g)
        e[:, 0], e[:, 1] = 0, e[:, -1]
        x = centres[torch.randint(8, (1000,), generator=g)] + e
        x[::3] = (1000 * x[::3]).round() / 1000
        for grown in islice(grow(sample(x[:800]), sample(x[800:])), 7):
            assert math.isfinite(grown.score)


def test_few_rows_leave_tails_as_heavy_as_they_are() -> None:
    """Of new rows a hundredth is beyond what a component keeps to a hundredth."""
    x, judges, test = (torch.randn(n, 8, generator=generator(n)) for n in (400, 1000, 5000))
    grown = list(grow(sample(x), sample(judges)))[-1].mixture
    assert len(grown.logits) >= 4
    u = torch.rand(len(test), dtype=torch.float64, generator=generator())
    square = torch.special.ndtri(grown().residuals(test.double(), u)).square().sum(dim=1)
    assert (square > 20.09).double().mean() < 0.02


def test_few_rows_do_not_split() -> None:
    x = torch.randn(20, 5, generator=generator())
    assert [len(grown.mixture.loc) for grown in grow(sample(x), sample(x))] == [1]
    x = torch.zeros(100, 2)  # equal ones are finite
    for grown in grow(sample(x), sample(x)):
        assert math.isfinite(grown.score)


def test_old_mixtures_load() -> None:
    logits, loc, factors = torch.zeros(2), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3).clone()
    assert set(MixtureOfRegressions(logits, loc, factors).state_dict()) == {
        "logits",
        "loc",
        "scale_tril",
    }
    with pytest.raises(ValueError, match="c: expected a context"):
        mixture(tables=True)()
