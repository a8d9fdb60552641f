"""Toy densities, splits, and the Gaussian yardstick."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from maskedflow import data

TOYS = ("moons", "circles", "checkerboard", "spirals", "rings", "8gaussians")


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_comes_from_its_generator_alone(name: str) -> None:
    first, again = (data.toy(name, 500, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (500, 2)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, data.toy(name, 500, torch.Generator().manual_seed(4)))
    assert first.abs().max() < 5
    assert (first.std(0) > 0.5).all()


@pytest.mark.parametrize(
    ("name", "radii"), [("circles", [1.5, 3.0]), ("rings", [0.75, 1.5, 2.25, 3.0])]
)
def test_circles_have_their_radii(name: str, radii: list[float]) -> None:
    points = data.toy(name, 4000, torch.Generator().manual_seed(0))
    distance = (points.norm(dim=1)[:, None] - torch.tensor(radii)).abs()
    assert distance.amin(1).mean() < 0.15
    shares = distance.argmin(1).bincount() / len(points)
    assert (shares - 1 / len(radii)).abs().max() < 0.05


def test_the_checkerboard_fills_eight_squares_of_one_colour() -> None:
    points = data.toy("checkerboard", 8000, torch.Generator().manual_seed(0))
    squares = points.div(2).floor().long() + 2
    assert int(squares.min()) == 0
    assert int(squares.max()) == 3
    assert (squares.sum(1) % 2 == 0).all()
    shares = (4 * squares[:, 0] + squares[:, 1]).bincount(minlength=16)
    assert int((shares > 800).sum()) == 8


def test_the_eight_gaussians_are_eight() -> None:
    points = data.toy("8gaussians", 8000, torch.Generator().manual_seed(0))
    turn = torch.atan2(points[:, 1], points[:, 0]) / (torch.pi / 4)
    shares = turn.round().long().remainder(8).bincount(minlength=8)
    assert (shares > 800).all()
    assert turn.sub(turn.round()).abs().mean() < 0.2


def test_bad_toys_are_named() -> None:
    with pytest.raises(ValueError, match="no toy density 'moon'; known: moons, circles"):
        data.toy("moon", 5)
    with pytest.raises(ValueError, match="n: expected a number of points >= 0, got -1"):
        data.toy("moons", -1)


def test_a_loaded_toy_is_standardised_by_its_preprocessing() -> None:
    moons = data.load("moons", seed=1)
    assert not torch.equal(moons.train.x, data.load("moons").train.x)
    assert moons.columns == ("x", "y")
    preprocessing = moons.preprocessing()
    assert preprocessing is not None
    z = preprocessing()(moons.train.x)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2))
    torch.testing.assert_close(preprocessing().inv(z), moons.train.x, atol=1e-5, rtol=1e-5)


def test_splits_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"x: expected shape \(n, features\), got \(4,\)"):
        data.Split(torch.zeros(4))
    with pytest.raises(ValueError, match=r"context: expected shape \(4, context\), got \(3, 1\)"):
        data.Split(x, torch.zeros(3, 1))
    good, wide = data.Split(x), data.Split(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="test: 3 features"):
        data.Dataset("a", good, good, wide, columns=("x", "y"))


def test_the_gaussian_is_the_one_of_torch() -> None:
    x = torch.randn(70_000, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 5
    mean, covariance = x.mean(0), torch.cov(x.T, correction=0)
    wanted = MultivariateNormal(mean, covariance).log_prob(x)
    torch.testing.assert_close(data.gaussian_log_likelihood(x, x), wanted)
    assert data.gaussian_log_likelihood(x.float(), x[:5].float()).dtype == torch.float64


def test_a_singular_covariance_is_named() -> None:
    x = torch.randn(100, 1).repeat(1, 2)
    with pytest.raises(ValueError, match="covariance of its 2 features over 100 rows is singular"):
        data.gaussian_log_likelihood(x, x)
