"""Whitening, of marginals too, and how it is fitted."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

from maskedflow.tables import Whiten, WhitenTransform
from oracles import autograd_ladjs, check_inverse_pair

TIGHT = {"atol": 1e-9, "rtol": 1e-8}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factor(features: int, seed: int = 0) -> Tensor:
    return draw(features, features, seed=seed).tril(-1) + torch.diag(
        0.5 + draw(features, seed=seed + 1).abs()
    )


@given(st.integers(1, 5), st.integers(0, 9))
def test_the_transform_and_its_ladj(features: int, seed: int) -> None:
    f = WhitenTransform(draw(features, seed=seed), factor(features, seed))
    x = draw(2, 3, features, seed=seed + 2)
    check_inverse_pair(f, x, **TIGHT)
    torch.testing.assert_close(f.call_and_ladj(x[0])[1], autograd_ladjs(f, x[0]))
    gaussian = MultivariateNormal(f.loc, scale_tril=f.scale_tril)
    z, ladj = f.call_and_ladj(x)
    log_prob = -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=-1) + ladj
    torch.testing.assert_close(log_prob, gaussian.log_prob(x))


@given(st.integers(1, 4), st.integers(0, 9), st.sampled_from([torch.float32, torch.float64]))
def test_absent_features_leave_the_marginal(features: int, seed: int, dtype: torch.dtype) -> None:
    f = WhitenTransform(draw(features, seed=seed).to(dtype), factor(features, seed).to(dtype))
    covariance = f.scale_tril.double() @ f.scale_tril.double().T
    here = torch.tensor(list(itertools.product([True, False], repeat=features)))
    x = draw(len(here), features, seed=seed).to(dtype)
    z, ladj = f.call_partial(torch.where(here, x, 0), here)
    assert z.dtype == ladj.dtype == dtype
    assert (z[~here] == 0).all()
    tolerance = TIGHT if dtype == torch.float64 else {"atol": 1e-4, "rtol": 1e-4}
    for row, mask in enumerate(here):
        if mask.any():
            marginal = MultivariateNormal(f.loc[mask].double(), covariance[mask][:, mask])
            log_prob = -0.5 * (z[row, mask].double().square() + math.log(2 * math.pi)).sum()
            expected = marginal.log_prob(x[row, mask].double())
            torch.testing.assert_close(log_prob + ladj[row].double(), expected, **tolerance)
    torch.testing.assert_close(f.inverse_partial(z, here), torch.where(here, x, 0), **tolerance)


def test_fit_is_maximum_likelihood() -> None:
    x = draw(500, 3) @ factor(3).T + draw(3)
    whiten = Whiten.fit(x)
    torch.testing.assert_close(whiten.loc, x.mean(dim=0))
    covariance = x.T.cov(correction=0)
    torch.testing.assert_close(
        whiten.scale_tril @ whiten.scale_tril.T, covariance, rtol=1e-7, atol=1e-7
    )
    weight = torch.arange(500) % 2
    weighted = Whiten.fit(x, weight=weight)
    torch.testing.assert_close(weighted.scale_tril, Whiten.fit(x[1::2]).scale_tril)
    assert Whiten.fit(x.float()).loc.dtype == torch.float32


def test_fit_finds_the_regression_on_one_hot_contexts_too() -> None:
    x = draw(600, 2)
    group = torch.arange(600) % 3
    c = torch.cat([torch.nn.functional.one_hot(group, 3).double(), 1e3 + draw(600, 1, seed=5)], 1)
    shift = torch.tensor([[1.0, -2.0], [0.0, 5.0], [3.0, 3.0]]).double()[group]
    slope = 1e-3 * torch.tensor([2.0, -1.0]).double()
    x = 0.1 * x + shift + c[:, 3:] * slope
    whiten = Whiten.fit(x, c)
    z, ladj = whiten(c).call_and_ladj(x)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.T.cov(correction=0), torch.eye(2).double(), atol=1e-6, rtol=0)
    for level in range(3):
        mean = z[group == level].mean(dim=0)
        torch.testing.assert_close(mean, torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(ladj[:3], autograd_ladjs(whiten(c[0]), x[:3]))
    assert set(whiten.state_dict()) == {"loc", "scale_tril", "weight"}


def test_fit_with_missing_numbers_finds_what_was_there() -> None:
    true = factor(3, seed=3)
    x = draw(20_000, 3, seed=4) @ true.T + 5
    observed = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) > 0.3
    observed[:, 1] = x[:, 0] < 5.2  # missing at random: depends on a number that is there
    observed[:, 0] = True
    whiten = Whiten.fit(x.masked_fill(~observed, math.nan), observed=observed)
    torch.testing.assert_close(whiten.loc, torch.full((3,), 5.0).double(), atol=0.1, rtol=0)
    covariance = whiten.scale_tril @ whiten.scale_tril.T
    torch.testing.assert_close(covariance, true @ true.T, atol=0.1, rtol=0.05)
    # the mean of what is there is far away
    assert (x[:, 1][observed[:, 1]].mean() - 5).abs() > 0.2


def test_fit_maximises_the_likelihood_of_what_is_there() -> None:
    x = draw(200, 3, seed=4) @ factor(3, seed=3).T
    c = draw(200, 1, seed=6)
    x = x + c
    observed = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) > 0.3

    def mean_log_prob(whiten: Whiten) -> float:
        filled = torch.where(observed, x, 0)
        z, ladj = whiten(c).call_partial(filled, observed)
        log_prob = -0.5 * (z.square() + math.log(2 * math.pi) * observed).sum(dim=1) + ladj
        return log_prob.mean().item()

    best = Whiten.fit(x, c, observed)
    found = mean_log_prob(best)
    for seed in range(30):
        step = 0.03 * draw(3, seed=seed)
        assert mean_log_prob(Whiten(best.loc + step, best.scale_tril, best.weight)) < found
        turned = best.weight + 0.03 * draw(3, 1, seed=seed)
        assert mean_log_prob(Whiten(best.loc, best.scale_tril, turned)) < found
        scaled = best.scale_tril * (1 + 0.05 * draw(3, 1, seed=seed))
        assert mean_log_prob(Whiten(best.loc, scaled, best.weight)) < found


def test_nearly_collinear_constant_and_never_observed_columns_are_no_trouble() -> None:
    x = draw(300, 6)
    x[:, 2] = x[:, 0] + x[:, 1]
    x[:, 3] = 7.1
    x[:, 4] = 1e9 + 1e-3 * x[:, 0]
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:, 5] = False
    for mask in (None, observed):
        whiten = Whiten.fit(x, observed=mask)
        z, ladj = whiten().call_and_ladj(x)
        assert z.isfinite().all()
        assert ladj.isfinite().all()
        assert z[:, :5].abs().max() < 100
        scale = whiten.scale_tril.norm(dim=1)
        assert (whiten.scale_tril.diagonal() >= 0.99e-9**0.5 * scale).all()
    own = x[:, :2] @ torch.ones(2, 1).double()
    follows = Whiten.fit(own, x[:, :2])  # a feature that the context tells
    assert follows(x[:, :2])(own).isfinite().all()


def test_one_row_and_one_feature() -> None:
    whiten = Whiten.fit(torch.tensor([[3.0]]))
    assert whiten()(torch.tensor([3.0])).item() == 0
    assert whiten.scale_tril.item() == pytest.approx(1)


def test_mistakes_are_one_line() -> None:
    eye = torch.eye(2)
    with pytest.raises(ValueError, match=r"scale_tril: expected shape \(2, 2\), got \(3, 3\)"):
        Whiten(torch.zeros(2), torch.eye(3))
    with pytest.raises(ValueError, match="scale_tril: expected a lower triangle"):
        Whiten(torch.zeros(2), -eye)
    with pytest.raises(ValueError, match=r"weight: expected shape \(2, context\), got \(3, 1\)"):
        Whiten(torch.zeros(2), eye, torch.zeros(3, 1))
    whiten = Whiten(torch.zeros(2), eye, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"c: expected shape \(\*, 1\), got none"):
        whiten()
    with pytest.raises(ValueError, match=r"c: expected shape \(\*, 1\), got shape \(3,\)"):
        whiten(torch.zeros(3))
    with pytest.raises(ValueError, match="x: expected at least one row"):
        Whiten.fit(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="ridge: expected a positive number, got 0"):
        Whiten.fit(torch.zeros(2, 2), ridge=0)
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 2\)"):
        whiten(torch.zeros(1))(torch.zeros(3))


def test_a_large_ridge_leaves_the_variances_and_takes_the_correlations() -> None:
    x = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x @ torch.tensor([[3.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    factor = Whiten.fit(x, ridge=1e6).scale_tril
    torch.testing.assert_close(factor.diagonal(), x.std(dim=0, correction=0), rtol=1e-5, atol=0)
    assert factor[1, 0].abs() < 1e-4


def test_numbers_far_from_zero_have_their_own_deviation() -> None:
    """Of which a ridge is a share: at 4e12 doubles still tell thousandths."""
    x = draw(200, 2)
    x[:, 1] += x[:, 0] / 2
    near, far = (Whiten.fit(rows, ridge=0.1) for rows in (x, x - 4e12))
    torch.testing.assert_close(far.scale_tril, near.scale_tril, rtol=1e-4, atol=1e-4)
    weight = torch.ones(200, dtype=torch.float64)
    x[0], weight[0] = 7.0, 0.0
    x[1:, 0] = 0.1  # constant, but for a row that does not count
    found = Whiten.fit(x, weight=weight)
    torch.testing.assert_close(found.scale_tril[0, 0], found.scale_tril.new_ones(()))
