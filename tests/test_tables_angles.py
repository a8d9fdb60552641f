"""Densities of angles: periodic, exact, and no worse than one von Mises distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, vonmises
from torch import Tensor

from maskedflow.data import Split
from maskedflow.tables import Layout, build_density
from maskedflow.tables.angles import _concentrations, fit_angles
from maskedflow.tables.circular import AutoregressiveVonMises
from strategies import overwrite

CIRCLE = (torch.arange(240).double() + 0.5) / 240 * 2 * math.pi - math.pi


def angles(*present: int | None, context: int = 0) -> AutoregressiveVonMises:
    """A density far from its start."""
    generator = torch.Generator().manual_seed(0)
    made = AutoregressiveVonMises(present, context, 3, (8,), generator=generator)
    return overwrite(made.double(), 0.5)


def alike(x: Tensor) -> Split:
    return Split(x)


def test_the_density_of_angles_integrates_to_one() -> None:
    density = angles(None, None)
    grid = torch.cartesian_prod(CIRCLE, CIRCLE)
    log_prob = density().log_prob(grid).detach()
    assert float(log_prob.exp().mean()) * (2 * math.pi) ** 2 == pytest.approx(1, abs=1e-6)
    assert log_prob.std() > 0.3


def test_nothing_jumps_at_half_a_turn() -> None:
    density = angles(None, None, None)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double()
    for column in range(3):
        before, behind = x.clone(), x.clone()
        before[:, column], behind[:, column] = math.pi - 1e-9, 1e-9 - math.pi
        torch.testing.assert_close(density().log_prob(before), density().log_prob(behind))


def test_an_absent_angle_has_no_density_and_says_nothing() -> None:
    density = angles(0, None, context=1)
    x, other = torch.tensor([[0.3, 1.0]]), torch.tensor([[-2.0, 1.0]])
    absent, there = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    terms = density(absent).log_probs(x)
    assert terms[0, 0] == 0
    assert torch.equal(terms, density(absent).log_probs(other))
    assert not torch.equal(density(there).log_probs(x)[:, 1], terms[:, 1])
    assert (density(absent).sample((20,))[..., 0] == 0).all()


def test_draws_are_uniform_through_the_distribution_function() -> None:
    density = angles(None, None)
    x = density().sample((2000,), generator=torch.Generator().manual_seed(0))
    assert (x.abs() <= math.pi).all()
    for u in density().cdf(x).T:
        assert kstest(u.numpy(), "uniform").pvalue > 1e-3
    again = density().sample((2000,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    # the slope of the distribution function is the density
    at, step = torch.tensor([[0.5, 1.0]]).double(), 1e-6
    slope = (density().cdf(at + step) - density().cdf(at - step)) / (2 * step)
    both = density().log_probs(at).exp().detach()
    assert float(slope[0, 0]) == pytest.approx(float(both[0, 0]), rel=1e-4)


def test_concentrations_solve_their_equation() -> None:
    kappa = np.array([0.0, 1e-3, 0.5, 3.0, 40.0, 2000.0])
    apart = 1 - torch.special.i1e(torch.tensor(kappa)) / torch.special.i0e(torch.tensor(kappa))
    np.testing.assert_allclose(_concentrations(apart.numpy()), kappa, rtol=5e-3, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 50.0, 5e4])
def test_few_rows_are_as_well_described_as_by_one_von_mises_distribution(kappa: float) -> None:
    draws = np.random.default_rng(0)
    x, fresh = (torch.tensor(draws.vonmises(3.0, kappa, n))[:, None] for n in (80, 2000))
    stack, plan = fit_angles([None], alike(x), seed=0, work=60.0)
    of_best, loc, _ = vonmises.fit(x.numpy(), fscale=1)
    best = vonmises.logpdf(fresh.numpy(), of_best, loc=loc).mean()
    with torch.no_grad():
        assert float(stack().log_prob(fresh).mean()) > best - 0.05
        layout = Layout((), (), (None,), (), (), ())
        again = build_density(layout, {"context": 0, "angles": plan}).angles
        assert again is not None
        again.load_state_dict(stack.state_dict())
        torch.testing.assert_close(again().log_prob(fresh), stack().log_prob(fresh))


def test_angles_on_a_grid_get_no_spikes() -> None:
    x = torch.tensor(np.random.default_rng(0).integers(0, 36, 2000) / 36 * 2 * math.pi)[:, None]
    stack, _ = fit_angles([None], alike(x), seed=0, work=60.0)
    with torch.no_grad():
        assert stack().log_prob(CIRCLE[:, None]).abs().max() < 3


def test_a_plan_of_an_earlier_build_reads_radians() -> None:
    layout = Layout((), (), (None, None), (), (), ())
    density = build_density(layout, {"context": 0})
    assert density.angles is not None
    shapes = {tuple(value.shape) for value in density.angles.state_dict().values()}
    assert (64, 2) in shapes
    assert (64, 4) not in shapes


@pytest.mark.slow
def test_a_second_angle_is_told_from_the_first_one() -> None:
    draws = np.random.default_rng(0)
    first = draws.uniform(-math.pi, math.pi, 300)
    x = torch.tensor(np.stack([first, 2 * first + draws.vonmises(0, 20, 300)], axis=1))
    stack, plan = fit_angles([None, None], alike(x[:200]), seed=0, work=60.0)
    assert any(one["hidden"] for one in plan)
    # Of its own the second one is uniform, as the first: this is 1.3 nats better.
    with torch.no_grad():
        assert float(stack().log_prob(x[200:]).mean()) > -2 * math.log(2 * math.pi) + 0.8
