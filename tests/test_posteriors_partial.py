"""Densities with named columns, their marginals and conditionals, beside closed forms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    Uniform,
)

import maskedflow as mf
from maskedflow.distributions import DiagNormal, Joint, MixtureOfGaussians
from maskedflow.flows import GMM, MADE, MAF, NSF, Flow
from maskedflow.posteriors import Conditional, NamedDensity, conditional, marginal
from maskedflow.tables import Bounds, FittedTable
from maskedflow.transforms import Narrow, Standardize
from strategies import overwrite

MEAN = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
FACTOR = torch.tensor(
    [[1.0, 0, 0, 0], [0.8, 0.5, 0, 0], [-0.3, 0.2, 2.0, 0], [0.1, -0.6, 0.7, 0.9]],
    dtype=torch.float64,
)
COVARIANCE = FACTOR @ FACTOR.T
NAMES = ("a", "b", "c", "d")


def gaussian() -> MultivariateNormal:
    return MultivariateNormal(MEAN, COVARIANCE)


def hidden(distribution: Distribution) -> Any:
    """The same, of which nobody knows what it is."""
    return SimpleNamespace(sample=distribution.sample, log_prob=distribution.log_prob)


def gaussian_given(index: list[int], value: Tensor) -> MultivariateNormal:
    rest = [i for i in range(4) if i not in index]
    slope = COVARIANCE[rest][:, index] @ torch.linalg.inv(COVARIANCE[index][:, index])
    covariance = COVARIANCE[rest][:, rest] - slope @ COVARIANCE[index][:, rest]
    return MultivariateNormal(MEAN[rest] + slope @ (value - MEAN[index]), covariance)


def random_flow(**kwargs: Any) -> Flow:
    """A flow of three columns in its own units, with weights that matter."""
    core = overwrite(MADE(3, activation=torch.nn.Tanh, hidden_features=(16,), **kwargs), 0.4)
    front = Standardize(torch.tensor([5.0, 0.0, -1.0]), torch.tensor([2.0, 1.0, 0.5]))
    return Flow([front, *core.transform.transforms], core.base).double()


def integrate(density: NamedDensity, first: Tensor) -> Tensor:
    """The marginal log-density of the first two of three columns, by the trapezoid rule."""
    axis = torch.linspace(-80, 80, 16001, dtype=torch.float64)
    rows = [torch.cat([row.expand(len(axis), 2), axis[:, None]], dim=1) for row in first]
    each = [density.log_prob(part).logsumexp(dim=0) for part in rows]
    return torch.stack(each) + (axis[1] - axis[0]).log()


def test_anything_becomes_named_columns() -> None:
    table = pa.table({"a": np.arange(50.0), "b": np.arange(50.0) % 7})
    fitted = FittedTable.fit(table, flow="gaussian", work=0.1)
    estimator = mf.DensityEstimator("gaussian", work=0.1).fit(np.arange(100.0).reshape(50, 2) % 13)
    for thing, names in (
        (MAF(2), ("x0", "x1")),
        (MAF(2)(), ("x0", "x1")),
        (hidden(MultivariateNormal(torch.zeros(2), torch.eye(2))), ("x0", "x1")),
        (fitted, ("a", "b")),
        (estimator, ("x0", "x1")),
        (SimpleNamespace(columns=("u", "v"), flow=MAF(2), context_columns=()), ("u", "v")),
    ):
        density = NamedDensity.of(thing)
        assert density.columns == names
        x = density.sample(20, seed=1)
        assert torch.equal(x, density.sample(20, seed=1))
        assert not torch.equal(x, density.sample(20, seed=2))
        log_prob = density.log_prob(x)
        assert log_prob.dtype == torch.float64
        assert log_prob.shape == (20,)
        turned = NamedDensity.of(thing, names[::-1])
        if turned.columns != names and not isinstance(thing, torch.nn.Module | Distribution):
            torch.testing.assert_close(turned.log_prob(x[:, [1, 0]]), log_prob)


def test_a_run_has_the_names_of_its_columns(tmp_path: Path) -> None:
    x = gaussian().sample((300,))
    mf.data.write_table(tmp_path / "chain.csv", list(NAMES), [x])
    from maskedflow.cli import main

    words = f"train --data {tmp_path}/chain.csv --flow gaussian --epochs 1 --no_report --context d"
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--out", str(tmp_path / "runs")])
    assert ended.value.code == 0
    run = mf.load_run(tmp_path / "runs" / "chain")
    density = NamedDensity.of(run, context={"d": 3.0})
    assert density.columns == ("a", "b", "c")
    rows = density.sample(5)
    expected = run.density.log_prob(rows, torch.full((5, 1), 3.0))
    torch.testing.assert_close(density.log_prob(rows), expected)
    assert marginal(density, ["c"]).exact
    with pytest.raises(ValueError, match="context: expected d, got e"):
        NamedDensity.of(run, context={"e": 3.0})


def test_a_distribution_of_a_number_has_one_column() -> None:
    density = NamedDensity.of(Normal(1.0, 2.0), ["a"])
    x = density.sample(10)
    assert x.shape == (10, 1)
    expected = Normal(1.0, 2.0).log_prob(x[:, 0])
    torch.testing.assert_close(density.log_prob(x), expected.double())


def test_a_posterior_is_one_given_an_observation() -> None:
    def given(x: Tensor) -> MultivariateNormal:
        return MultivariateNormal(MEAN + x, COVARIANCE)

    plain = SimpleNamespace(
        sample=lambda shape, x: given(x).sample(shape),
        log_prob=lambda theta, x: given(x).log_prob(theta),
    )
    for thing in (plain, SimpleNamespace(at=given, **vars(plain))):
        density = NamedDensity.of(thing, NAMES, x=torch.tensor(3.0))
        rows = density.sample(5)
        torch.testing.assert_close(density.log_prob(rows), given(torch.tensor(3.0)).log_prob(rows))
        assert marginal(density, ["c"], draws=500).exact == hasattr(thing, "at")


def test_draws_are_the_same_in_batches_and_leave_torchs_generator_alone() -> None:
    density = NamedDensity.of(gaussian(), NAMES)
    before = torch.get_rng_state()
    x = density.sample(25_000, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(x.mean(dim=0), MEAN, atol=0.06, rtol=0)
    torch.testing.assert_close(density.log_prob(x), gaussian().log_prob(x))


def test_a_log_density_has_gradients_where_rows_have() -> None:
    flow = MAF(2).train()
    density = NamedDensity.of(flow)
    x = torch.randn(5, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    assert slope.abs().sum() > 0
    assert not density.log_prob(x.detach()).requires_grad
    assert flow.training


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NamedDensity.of(3), "thing: expected a flow, a distribution, .* got a int"),
        (lambda: NamedDensity.of(MAF(2), ["a"]), "columns: expected 2 names, got 1"),
        (lambda: NamedDensity.of(MAF(2), ["a", "a"]), "columns: expected different names"),
        (lambda: NamedDensity.of(NORMALS), "thing: expected one of vectors"),
        (lambda: NamedDensity.of(Normal(torch.zeros(2), 1.0)), "got a batch of shape"),
        (lambda: marginal(MAF(2), ["x0", "y"]), "columns: expected some of x0, x1, got 'y'"),
        (lambda: marginal(MAF(2), []), "columns: expected at least one"),
        (lambda: conditional(MAF(2), {"x0": 1.0, "x1": 1.0}), "given: expected some of x0, x1"),
        (lambda: conditional(MADE(2), {"x0": float("nan")}), "given: expected a finite number"),
        (lambda: conditional(MADE(2), {"x0": "a"}), "given: .* number for 'x0', got a"),
        (lambda: MAF_AT.at({"x1": 0.0}), "given: expected x0, got x1"),
        (lambda: NamedDensity.of(MAF(2)).log_prob(torch.zeros(2)), r"x: expected shape \(n, 2\)"),
        (lambda: NamedDensity.of(MAF(2)).sample(0), "n: expected at least 1 draw"),
    ],
)
def test_mistakes_are_named(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


NORMALS = Independent(Normal(torch.zeros(2, 2), 1.0), 2)
MAF_AT = Conditional.of(MADE(2), ["x0"])


@pytest.mark.parametrize("components", [1, 3])
def test_the_first_columns_of_a_flow_are_exact(components: int) -> None:
    density = NamedDensity.of(random_flow(components=components), ["a", "b", "c"])
    first = marginal(density, ["b", "a"])
    assert first.exact
    x = density.sample(6)
    expected = integrate(density, x[:, :2])
    torch.testing.assert_close(first.log_prob(x[:, [1, 0]]), expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(first.sample(7, seed=4), density.sample(7, seed=4)[:, [1, 0]])


@pytest.mark.parametrize("components", [1, 3])
def test_the_last_columns_given_the_first_are_exact(components: int) -> None:
    density = NamedDensity.of(random_flow(components=components), ["a", "b", "c"])
    value = density.sample(1, seed=5)[0]
    last = conditional(density, {"a": value[0].item(), "b": value[1].item()})
    assert last.exact
    expected = density.log_prob(value[None]) - integrate(density, value[None, :2])
    torch.testing.assert_close(last.log_prob(value[None, 2:]), expected, atol=1e-6, rtol=1e-6)
    axis = torch.linspace(-60, 60, 24001, dtype=torch.float64)
    cdf = last.log_prob(axis[:, None]).exp().cumsum(dim=0) * (axis[1] - axis[0])
    drawn = last.sample(2000, seed=1)[:, 0]
    assert kstest(np.interp(drawn, axis, cdf), "uniform").pvalue > 1e-3


def test_other_columns_of_a_flow_are_not_exact_and_those_of_its_order_are() -> None:
    assert marginal(MADE(3, order=[2, 1, 0]), ["x2", "x1"]).exact
    assert marginal(MAF(3, transforms=2, order=[1, 0, 2]), ["x0"], draws=500).exact is False
    same = [MAF(3, transforms=1).transform, MAF(3, transforms=1).transform]
    assert marginal(Flow(same, MADE(3)), ["x0", "x1"]).exact
    assert marginal(MAF(3, adjacency=torch.eye(3)), ["x1"]).exact
    both = conditional(MADE(2), {"x1": 0.3})  # on a grid
    assert both.exact
    edges = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]
    torch.testing.assert_close(both.log_prob(edges).exp().sum() * 1e-3, torch.tensor(1.0).double())


def mixture() -> MixtureOfGaussians:
    factors = torch.stack([FACTOR, FACTOR.flip(0).tril() + torch.eye(4)]).double()
    return MixtureOfGaussians(
        torch.tensor([0.0, 0.7]).double(), torch.stack([MEAN, -MEAN]), scale_tril=factors
    )


def test_any_columns_of_gaussians_are_exact() -> None:
    index = [3, 1]
    some = marginal(NamedDensity.of(gaussian(), NAMES), ["d", "b"])
    assert some.exact
    x = some.sample(50)
    expected = MultivariateNormal(MEAN[index], COVARIANCE[index][:, index]).log_prob(x)
    torch.testing.assert_close(some.log_prob(x), expected)

    value = torch.tensor([2.0, -1.0], dtype=torch.float64)
    rest = conditional(NamedDensity.of(gaussian(), NAMES), {"d": 2.0, "b": -1.0})
    truth = gaussian_given(index, value)
    assert rest.exact
    x = rest.sample(20_000)
    torch.testing.assert_close(rest.log_prob(x), truth.log_prob(x))
    torch.testing.assert_close(x.mean(dim=0), truth.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(x.T.cov(), truth.covariance_matrix, atol=0.1, rtol=0.05)


def test_mixtures_of_gaussians_behind_maps_of_single_columns_are_exact() -> None:
    density = NamedDensity.of(mixture(), NAMES)
    components = [
        MultivariateNormal(loc[[0, 2]], (tril @ tril.T)[[0, 2]][:, [0, 2]])
        for loc, tril in zip(mixture().base.loc, mixture().base.scale_tril, strict=True)
    ]
    x = density.sample(30)[:, [0, 2]]
    logits = mixture().logits.log_softmax(dim=0)
    expected = torch.stack([one.log_prob(x) for one in components], dim=1).add(logits)
    some = marginal(density, ["a", "c"])
    torch.testing.assert_close(some.log_prob(x), expected.logsumexp(dim=1))

    rest = conditional(density, {"a": 0.2, "c": 0.1})
    onto = Conditional.of(hidden(mixture()), ["x0", "x2"]).at({"x0": 0.2, "x2": 0.1})  # a grid
    drawn = rest.sample(20_000, seed=1)
    torch.testing.assert_close(rest.log_prob(drawn[:100]), onto.log_prob(drawn[:100]))
    other = onto.sample(20_000, seed=2)
    torch.testing.assert_close(drawn.mean(dim=0), other.mean(dim=0), atol=0.08, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), other.T.cov(), atol=0.1, rtol=0.05)

    gmm = GMM(3, components=2)
    front = [Standardize(torch.full((3,), 1e7).double(), torch.ones(3).double()), Narrow()]
    flow = Flow(front, gmm)
    found = marginal(flow, ["x2"])
    assert found.exact
    assert found.sample(3).dtype == torch.float64
    total = 1e7 + torch.linspace(-60, 60, 12001).double()[:, None]
    assert abs(found.log_prob(total).exp().sum() * 0.01 - 1) < 1e-5


def test_columns_that_are_independent_are_exact() -> None:
    box = Independent(Uniform(torch.zeros(3), torch.tensor([1.0, 2.0, 4.0])), 1)
    joint = Joint(Normal(0.0, 1.0), Uniform(0.0, 2.0), Normal(1.0, 3.0))
    for thing in (box, joint, DiagNormal(torch.zeros(3), torch.tensor([1.0, 2.0, 4.0]))):
        density = NamedDensity.of(thing, ["a", "b", "c"])
        x = density.sample(10)
        one, two = marginal(density, ["b"]), marginal(density, ["c", "a"])
        assert one.exact
        assert two.exact
        total = one.log_prob(x[:, [1]]) + two.log_prob(x[:, [2, 0]])
        torch.testing.assert_close(total, density.log_prob(x))
        rest = conditional(density, {"b": 0.5})
        apart = rest.log_prob(x[:, [0, 2]]) - two.log_prob(x[:, [2, 0]])
        assert apart.abs().max() < 1e-5
        assert rest.sample(4).shape == (4, 2)
    with pytest.raises(ValueError, match="given: the density is zero there"):
        conditional(NamedDensity.of(box), {"x1": 3.0})


def test_a_column_with_gaps_is_none_of_numbers() -> None:
    table = pa.table({"a": np.arange(50.0) ** 2, "b": [None, *(np.arange(49.0) % 7)]})
    fitted = FittedTable.fit(table, flow="gaussian", missing="model", work=0.1)
    with pytest.raises(ValueError, match="thing: expected columns of numbers, got 'b' with gaps"):
        conditional(fitted, {"a": 4.0})


def test_integers_of_a_table_given_a_number_are_as_likely_as_the_table_says() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    k = np.rint(20 + 5 * a + rng.normal(size=400)).astype(np.int64)
    fitted = FittedTable.fit(pa.table({"a": a, "k": k}), flow="gaussian", work=0.1)
    every = np.arange(60)
    joint = fitted.log_prob(pa.table({"a": np.ones(60), "k": every}))
    found = conditional(fitted, {"a": 1.0})
    likely = joint - joint.logsumexp(dim=0)
    near = likely > -15
    log_prob = found.log_prob(torch.from_numpy(every[:, None]))
    torch.testing.assert_close(log_prob[near], likely[near], atol=1e-3, rtol=0)
    assert abs(found.sample(2000).mean() - likely.exp() @ torch.from_numpy(every).double()) < 0.15


def test_a_fit_to_draws_comes_near_to_a_gaussian() -> None:
    some = marginal(hidden(gaussian()), ["x1", "x3"], draws=10_000)
    assert not some.exact
    assert some.held_out is not None
    assert some.held_out.p_value > 1e-3
    truth = MultivariateNormal(MEAN[[1, 3]], COVARIANCE[[1, 3]][:, [1, 3]])
    x = truth.sample((4000,))
    assert (truth.log_prob(x) - some.log_prob(x)).mean() < 0.02  # KL in nats
    expected = -truth.entropy().item()
    assert abs(some.held_out.log_prob - expected) < 4 * some.held_out.standard_error + 0.02


def test_a_conditional_fit_serves_all_values() -> None:
    given = Conditional.of(hidden(gaussian()), ["x0"], draws=10_000)
    assert given.held_out is not None
    assert given.held_out.p_value > 1e-3
    for value in (0.0, 2.0):
        found = given.at({"x0": value})
        truth = gaussian_given([0], torch.tensor([value]).double())
        x = truth.sample((4000,))
        assert not found.exact
        assert (truth.log_prob(x) - found.log_prob(x)).mean() < 0.05
        torch.testing.assert_close(
            found.sample(8000).mean(dim=0).double(), truth.mean, atol=0.15, rtol=0
        )


def test_a_grid_finds_a_narrow_density_far_from_the_draws() -> None:
    covariance = torch.tensor([[1.0, 0.9999], [0.9999, 1.0]], dtype=torch.float64)
    narrow = MultivariateNormal(torch.zeros(2).double(), covariance)
    found = conditional(hidden(narrow), {"x0": 6.0})
    loc, scale = torch.tensor([6 * 0.9999, (1 - 0.9999**2) ** 0.5], dtype=torch.float64)
    truth = Normal(loc, scale)
    x = found.sample(5000)[:, 0]
    torch.testing.assert_close(found.log_prob(x[:, None]), truth.log_prob(x), atol=1e-6, rtol=1e-6)
    assert kstest(truth.cdf(x).numpy(), "uniform").pvalue > 1e-3


def test_splines_are_exact_in_their_order_too() -> None:
    flow = NSF(3, transforms=1)
    first = marginal(flow, ["x0"])
    assert first.exact
    axis = torch.linspace(-10, 10, 20001).double()[:, None]
    torch.testing.assert_close(
        first.log_prob(axis).exp().sum() * 1e-3, torch.tensor(1.0).double(), atol=1e-3, rtol=0
    )


def test_a_fit_stays_within_the_bounds_of_its_density() -> None:
    low, high = torch.tensor([0.0, 10.0, -torch.inf]), torch.tensor([1.0, torch.inf, torch.inf])
    inner = GMM(3, components=1, covariance_type="diagonal")
    flow = Flow([Bounds(low, high)], inner).double()
    density = hidden(flow())
    some = marginal(density, ["x1", "x0"], draws=3000)
    x = some.sample(20_000)
    assert not some.exact
    assert ((x > torch.tensor([10.0, 0.0])) & (x[:, [1]] < 1)).all()
    outside = torch.tensor([[9.9, 0.5], [11.0, 1.1], [11.0, -0.1]], dtype=torch.float64)
    assert (some.log_prob(outside) == -torch.inf).all()
    exact = marginal(flow, ["x1", "x0"])
    assert exact.exact
    assert (exact.log_prob(x) - some.log_prob(x)).mean().abs() < 0.1


def test_marginals_and_conditionals_have_gradients() -> None:
    density = NamedDensity.of(random_flow(), ["a", "b", "c"])
    first = marginal(density, ["a", "b"])
    last = conditional(density, {"a": 5.0, "b": 0.3})
    gridded = conditional(hidden(gaussian()), {"x0": 0.0, "x1": -2.0, "x3": 3.0})
    for some in (first, last, gridded):
        x = some.sample(4).double().requires_grad_()
        (slope,) = torch.autograd.grad(some.log_prob(x).sum(), x)
        for column in range(some.features):
            step = torch.zeros(some.features, dtype=torch.float64)
            step[column] = 1e-5
            rise = some.log_prob(x.detach() + step) - some.log_prob(x.detach() - step)
            torch.testing.assert_close(slope[:, column], rise / 2e-5, atol=1e-5, rtol=1e-5)
