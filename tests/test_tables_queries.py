"""Marginals of densities of mixed tables, and what these make of rows of their own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats
from torch import Tensor

import maskedflow as mf
from maskedflow.flows import Flow
from maskedflow.tables import (
    Column,
    Known,
    Layout,
    PartialFlow,
    Pieces,
    Points,
    Proposal,
    Rows,
    Schema,
    Stack,
    TableDensity,
    Whiten,
    log_marginal,
    pit,
    sample_unknown,
)
from maskedflow.tables.mixture import MixtureOfRegressions
from maskedflow.transforms import LazyComposedTransform, Permutation
from strategies import overwrite
from table_densities import MIXED, build, rows_of, some_rows

#: A category, the state of the first number; a number and a whole one of 0..9.
NUMBERS = Layout((3, 2), (1, None), (), (0.0, 1.0), (None, 0.0), (None, 10.0))
#: A category, the state of an angle; a positive number.
TURNS = Layout((2, 2), (None,), (1,), (0.0,), (0.0,), (None,), 0.0, ((0.0, 0.0), (0.3, 0.0)))
#: All kinds of columns, with states.
SCHEMA = Schema(
    (
        Column("colour", "categorical", pa.string(), levels=("red", "green", "blue")),
        Column("wind", "angle", pa.float64(), period=360.0, missing=True),
        Column("income", "positive", pa.float64(), low=0.0, atoms=(0.0,), missing=True),
        Column("one", "constant", pa.int64(), value=1),
        Column("count", "discretised", pa.int64(), step=1.0, low=0.0, high=9.0),
        Column("again", "duplicate", pa.string(), of="colour"),
        Column("height", "continuous", pa.float64()),
    ),
    "model",
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worse proposal takes less time to find, and is as right."""
    monkeypatch.setattr("maskedflow.tables.marginal.REFERENCE", 2**12)


def every(layout: Layout, columns: list[int]) -> Tensor:
    """All combinations of the levels of some codes, the others 0."""
    codes = torch.cartesian_prod(*(torch.arange(layout.levels[k]) for k in columns))
    codes = codes.view(-1, len(columns))
    full = torch.zeros(len(codes), len(layout.levels), dtype=torch.long)
    full[:, columns] = codes
    return full


# -- marginals ------------------------------------------------------------------------------------


def test_what_the_order_puts_first_is_exact() -> None:
    density, rows = build(), some_rows(30)
    assert density.categories is not None
    terms = density.categories().log_probs(rows.codes)
    for count in range(4):
        found = log_marginal(density, rows, Pieces(tuple(range(count))))
        torch.testing.assert_close(found.log_prob, terms[:, :count].sum(1).double())
        assert not found.standard_error.any()
        assert found.effective.isinf().all()
    found = log_marginal(density, rows, Pieces((0, 1, 2), (), (0, 1)))
    assert density.angles is not None
    turns = density.angles(density.angle_context(rows)).log_prob(rows.angles)
    torch.testing.assert_close(found.log_prob, terms.sum(1) + turns, atol=1e-9, rtol=1e-9)
    assert not found.standard_error.any()
    found = log_marginal(density, rows, Pieces((0, 1, 2), (0, 1, 2), (0, 1)))
    whole = density.log_prob(rows) - MIXED.units(rows.codes)
    torch.testing.assert_close(found.log_prob, whole)


def test_unknown_codes_are_summed_up() -> None:
    density, rows = build(), some_rows(30)
    found = log_marginal(density, rows, Pieces((1, 2)))
    both = [replace(rows, codes=rows.codes.clone()) for _ in range(2)]
    for level, each in enumerate(both):
        each.codes[:, 0] = level
    assert density.categories is not None
    each = [density.categories().log_prob(one.codes) for one in both]
    torch.testing.assert_close(found.log_prob, torch.logaddexp(*each))
    found = log_marginal(density, rows, Pieces((1, 2), (0, 1, 2), (0, 1)))
    each = [density.log_prob(one) - MIXED.units(one.codes) for one in both]
    torch.testing.assert_close(found.log_prob, torch.logaddexp(*each))
    assert not found.standard_error.any()


@pytest.mark.parametrize("context", [0, 2])
def test_a_number_given_alone_is_as_quadrature_says(context: int) -> None:
    """Unknown: a category, and a number that may be missing; given: a whole number."""
    density = build(NUMBERS, context)
    whole = torch.arange(0, 10, 3).double()
    c = torch.tensor([[0.5, -1.0]]).double().expand(4, -1) if context else None
    rows = rows_of(NUMBERS, torch.zeros(4, 2).long(), torch.stack([0 * whole, whole], dim=1))
    found = log_marginal(density, rows, Pieces(values=(1,)), c, n_samples=2000)
    t = torch.linspace(-40, 40, 801, dtype=torch.float64)
    expected = []
    for x in whole:
        values = torch.stack([t, x.expand(len(t))], dim=1)
        given = None if c is None else c[:1].expand(len(t), -1)
        mass = 0.0
        for code in every(NUMBERS, [0]):
            there = rows_of(NUMBERS, code.expand(len(t), -1), values)
            mass += torch.trapezoid(density.log_prob(there, given).exp(), t).item()
            gone = rows_of(NUMBERS, (code + torch.tensor([0, 1]))[None], values[:1])
            mass += density.log_prob(gone, None if c is None else c[:1]).exp().item()
        expected.append(math.log(mass))
    check(found.log_prob, found.standard_error, torch.tensor(expected))


def known(rows: Rows, codes: list[int], values: tuple[int, ...] = ()) -> Known:
    """What is known of rows: these codes, and these values."""
    masks = [torch.zeros(part.shape, dtype=torch.bool) for part in (rows.codes, rows.values)]
    for mask, places in zip(masks, (codes, values), strict=True):
        mask[:, list(places)] = True
    none = torch.zeros(rows.angles.shape, dtype=torch.bool)
    return Known(*masks, none, torch.full(rows.codes.shape, -1))


@pytest.mark.parametrize("given", [[0], [1], [0, 2]])
def test_codes_are_drawn_by_their_probabilities_given_others(given: list[int]) -> None:
    density, n = build(), 4000
    rows = some_rows(2)
    made, effective = sample_unknown(density, rows, known(rows, given), n=n)
    assert effective.isinf().all()
    assert torch.equal(made.codes[:n, given], rows.codes[:1, given].expand(n, -1))
    assert torch.equal(made.observed, density.build_rows(2 * n, made.codes).observed)
    rest = [k for k in range(3) if k not in given]
    levels = every(MIXED, rest)
    levels[:, given] = rows.codes[1, given]
    assert density.categories is not None
    share = density.categories().log_prob(levels).double().softmax(0)
    found = (made.codes[n:, None] == levels).all(dim=2).double().mean(dim=0)
    assert found.sum() == 1
    assert ((found - share).abs() < 4 * (share * (1 - share) / n).sqrt() + 1e-3).all()


def test_draws_given_a_number_have_the_right_codes_and_numbers() -> None:
    """Unknown: a category, and a number that may be missing; given: a whole number."""
    density, n = build(NUMBERS), 4000
    values = torch.tensor([[0.0, 3.0]]).double()
    rows = rows_of(NUMBERS, torch.zeros(1, 2).long(), values)
    made, effective = sample_unknown(density, rows, known(rows, [], (1,)), n=n)
    assert 50 < effective.item() <= 10 * n
    assert (made.values[:, 1] == 3).all()
    levels = every(NUMBERS, [0, 1])
    each = replace(density.build_rows(6, levels), values=values.expand(6, -1))
    joint = log_marginal(density, each, Pieces((0, 1), (1,)), n_samples=4000).log_prob
    share = joint.softmax(0)
    found = (made.codes[:, None] == levels).all(dim=2).double().mean(dim=0)
    worst = 5 * (share * (1 - share) / min(n, effective.item())).sqrt() + 0.01
    assert ((found - share).abs() < worst).all()
    # Numbers are as those of rows that happen to have what was given.
    there = made.codes[:, 1] == 0
    generator = torch.Generator().manual_seed(0)
    fresh = density.sample(20_000, None, generator)
    alike = fresh[(fresh.values[:, 1] == 3) & (fresh.codes[:, 1] == 0)]
    test = stats.ks_2samp(made.values[there, 0].numpy(), alike.values[:, 0].numpy())
    assert test.statistic < 0.1


def test_an_excluded_level_is_never_drawn() -> None:
    density = build()
    rows = some_rows(20)
    told = known(rows, [0])
    told.excluded[:, 2] = 0
    made, effective = sample_unknown(density, rows, told, n=50)
    assert effective.isinf().all()
    assert (made.codes[:, 2] != 0).all()
    levels = every(MIXED, [1, 2])
    levels[:, 0] = rows.codes[0, 0]
    assert density.categories is not None
    log_p = density.categories().log_prob(levels).double()
    share = torch.where(levels[:, 2] == 0, -math.inf, log_p).softmax(0)
    alike = made[made.codes[:, 0] == rows.codes[0, 0]]
    found = (alike.codes[:, None] == levels).all(dim=2).double().mean(dim=0)
    assert ((found - share).abs() < 5 * (share * (1 - share) / len(alike)).sqrt() + 1e-3).all()


def test_a_number_given_an_atom_or_a_category_has_its_cells_integrated() -> None:
    """Unknown: a category, and a whole number; given: a number, or that it is missing."""
    density = build(NUMBERS)
    x = torch.tensor([[0.3, 0.0], [-2.0, 0.0], [0.0, 0.0]]).double()
    codes = torch.tensor([[0, 0], [0, 0], [0, 1]])
    found = log_marginal(density, rows_of(NUMBERS, codes, x), Pieces((1,), (0,)), n_samples=4000)
    assert density.categories is not None
    t = torch.linspace(-1e-3, 10 + 1e-3, 20_001, dtype=torch.float64)[1:-1]
    for row in range(2):
        mass = 0.0
        for code in every(NUMBERS, [0]):
            values = torch.stack([x[row, 0].expand(len(t)), t], dim=1)
            there = rows_of(NUMBERS, code.expand(len(t), -1), values)
            zero = torch.zeros(1, 2).double()
            mass += torch.trapezoid(density.log_head(there, None, zero).exp(), t).item()
        check(found.log_prob[row], found.standard_error[row], torch.tensor(math.log(mass)))
    missing = every(NUMBERS, [0]) + torch.tensor([0, 1])
    expected = density.categories().log_prob(missing).logsumexp(0)
    assert found.log_prob[2].item() == pytest.approx(expected.item())
    assert found.standard_error[2] == 0


def test_an_unknown_angle_is_integrated_over_the_circle() -> None:
    density = build(TURNS)
    x = torch.tensor([[0.2], [1.0], [7.0]]).double()
    none = torch.zeros(3, 1).double()
    rows = rows_of(TURNS, torch.zeros(3, 2).long(), x, none)
    found = log_marginal(density, rows, Pieces(values=(0,)), n_samples=4000)
    circle = math.pi * (2 * (torch.arange(800).double() + 0.5) / 800 - 1)[:, None]
    expected = []
    for number in x:
        mass = 0.0
        for code in every(TURNS, [0]):
            there = rows_of(TURNS, code.expand(800, -1), number.expand(800, 1), circle)
            log_prob = density.log_prob(there) - TURNS.units(there.codes)
            mass += log_prob.exp().mean().item() * 2 * math.pi
            gone = rows_of(TURNS, (code + torch.tensor([0, 1]))[None], number[None], circle[:1])
            mass += density.log_prob(gone).exp().item()
        expected.append(math.log(mass))
    check(found.log_prob, found.standard_error, torch.tensor(expected))


def check(found: Tensor, error: Tensor, expected: Tensor) -> None:
    """Errors are small, and as large as they are said to be."""
    assert (error > 0).all()
    assert (error < 0.1).all()
    assert ((found - expected).abs() < 4.5 * error).all()


def test_other_rows_do_not_matter() -> None:
    density, rows = build(), some_rows(12)
    given = Pieces((1, 2), (0,), (0,))
    found = log_marginal(density, rows, given, n_samples=200)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = log_marginal(density, rows[order], given, n_samples=200)
    alone = log_marginal(density, rows[5:6], given, n_samples=200)
    for part, other, one in zip(found, moved, alone, strict=True):
        assert torch.equal(part[order], other)
        assert torch.equal(part[5:6], one)
    other = log_marginal(density, rows, given, n_samples=200, seed=1)
    drawn = found.standard_error > 0
    assert drawn.any()
    assert (found.log_prob != other.log_prob)[drawn].all()
    # What is not given is no matter.
    hidden = replace(rows, values=rows.values + torch.tensor([0.0, 0.0, 1.0]))
    assert torch.equal(log_marginal(density, hidden, given, n_samples=200)[0], found.log_prob)


@pytest.mark.parametrize("given", [(), (0, 1)])
def test_a_proposal_is_a_density_that_it_draws_from(given: tuple[int, ...]) -> None:
    """The mean of the indicator of a box over q is its volume."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(3, (3000, 2), generator=generator)
    z = torch.randn(3000, 2, dtype=torch.float64, generator=generator).cumsum(dim=1)
    z[:, 1] += codes[:, 0]
    turns = torch.remainder(z[:, :1] + math.pi, 2 * math.pi) - math.pi
    proposal = Proposal(Points(codes, z, turns), (3, 3), seed=0)
    wanted = Pieces(tuple({0, 1} - set(given)), (1,), (0,))
    known = Points(codes[0], z[0], turns[0])
    drawn, log_q = proposal.draw(known, Pieces(given, (0,)), wanted, 200_000, generator)
    inside = ((drawn.values[:, 1] - z[0, 1]).abs() < 1) & (drawn.angles[:, 0].abs() < 1)
    weight = torch.where(inside, (-log_q).exp(), 0)
    volume = 2 * 2 * 9.0 ** (not given)
    error = weight.std() / len(weight) ** 0.5
    assert error < 0.1 * volume
    assert abs(weight.mean() - volume) < 4 * error
    assert (drawn.values[:, 0] == z[0, 0]).all()


# -- residuals ------------------------------------------------------------------------------------


def schemas_density() -> TableDensity:
    return build(SCHEMA.layout, noise=0.15)


def check_uniform(u: Tensor) -> None:
    """Each column is uniform, and no two are correlated; NaN is nowhere."""
    n, columns = u.shape
    for column in range(columns):
        assert stats.kstest(u[:, column].numpy(), "uniform").pvalue > 1e-3 / columns
    scores = torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
    # Of squares, too: a spread that depends on another column leaves no correlation.
    for part in (scores, scores.square()):
        off = torch.corrcoef(part.T).fill_diagonal_(0)
        assert off.abs().max() < 5 / n**0.5


def test_residuals_of_a_models_own_rows_are_uniform_and_independent() -> None:
    density = schemas_density()
    generator = torch.Generator().manual_seed(3)
    rows = density.sample(6000, generator=generator)
    u = pit(SCHEMA, density, rows, None, generator)
    fixed = [column.kind in ("constant", "duplicate") for column in SCHEMA.columns]
    assert u[:, fixed].isnan().all()
    check_uniform(u[:, [not one for one in fixed]])


def test_residuals_tell_a_wrong_model() -> None:
    density = schemas_density()
    generator = torch.Generator().manual_seed(3)
    rows = density.sample(2000, generator=generator)
    other: TableDensity = overwrite(schemas_density(), 0.3, seed=9)
    u = pit(SCHEMA, other, rows, None, generator)
    assert max(stats.kstest(u[:, k].numpy(), "uniform").statistic for k in (0, 1, 2, 4, 6)) > 0.1


def test_residuals_of_codes_lie_in_their_pieces() -> None:
    density = schemas_density()
    rows = density.sample(300, generator=torch.Generator().manual_seed(0))
    assert density.categories is not None
    share = density.categories().logits(rows.codes)[0].softmax(-1)
    u = pit(SCHEMA, density, rows, None, torch.Generator().manual_seed(0))[:, 0]
    ends = torch.cat([share.new_zeros(300, 1), share.cumsum(1)], dim=1)
    low, high = (ends.gather(1, rows.codes[:, :1] + k)[:, 0] for k in (0, 1))
    assert ((low <= u) & (u <= high)).all()


def test_residuals_of_a_gaussian_are_its_whitened_margins() -> None:
    layout = Layout((), (None,) * 2, (), (0.0,) * 2, (None,) * 2, (None,) * 2)
    schema = Schema(tuple(Column(name, "continuous", pa.float64()) for name in "ab"))
    loc, factor = torch.tensor([1.0, -1.0]), torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    flow = PartialFlow(Whiten(loc, factor), mf.flows.MAF(2).base, [None, None])
    density = TableDensity(layout, None, None, flow).double().eval()
    x = torch.tensor([[1.0, -1.0], [3.0, 0.0], [3.0, 1.0]]).double()
    u = pit(schema, density, rows_of(layout, values=x), None, torch.Generator())
    expected = stats.norm.cdf([[0, 0], [1, 0], [1, 2]])
    np.testing.assert_allclose(u.numpy(), expected)


def test_residuals_of_a_permuted_latent_are_in_the_order_of_the_columns() -> None:
    layout = Layout((), (None,) * 3, (), (0.0,) * 3, (None,) * 3, (None,) * 3)
    schema = Schema(tuple(Column(name, "continuous", pa.float64()) for name in "abc"))
    flow = PartialFlow(Permutation(3, [2, 0, 1]), mf.flows.MAF(3).base, [None] * 3)
    density = TableDensity(layout, None, None, flow).double().eval()
    x = torch.tensor([[-1.0, 0.0, 2.0]]).double()
    u = pit(schema, density, rows_of(layout, values=x), None, torch.Generator())
    np.testing.assert_allclose(u.numpy(), stats.norm.cdf(x.numpy()))


@pytest.mark.parametrize("step", [0.0, 1.5])
def test_residuals_of_a_stack_of_other_orders_and_a_mixture(step: float) -> None:
    layout = Layout((), (None,) * 3, (), (step, 0.0, 0.0), (None,) * 3, (None,) * 3)
    schema = Schema(
        (
            Column("a", "discretised" if step else "continuous", pa.float64(), step=step),
            *(Column(name, "continuous", pa.float64()) for name in "bc"),
        )
    )
    generator = torch.Generator().manual_seed(0)
    net = {"hidden_features": (16,), "generator": generator}
    maf = mf.flows.MAF(3, transforms=2, **net)
    layers = [maf.transform, Permutation(3, generator=generator)]
    flow = overwrite(PartialFlow(layers, maf.base, [None] * 3).double(), 0.3)
    loc = torch.tensor([[-2.0, 0.0, 1.0], [2.0, 1.0, 0.0]]).double()
    factors = (0.6 * torch.ones(2, 3, 3).tril().double()) * torch.tensor([1.0, 1.5])[:, None, None]
    mixture = MixtureOfRegressions(torch.tensor([0.3, -0.3]).double(), loc, factors)
    whiten = Whiten(torch.zeros(3).double(), torch.eye(3).double())
    members = [flow, Flow(LazyComposedTransform(whiten), mixture)]
    stack = Stack(members, torch.tensor([0.4, 0.6]))
    density = TableDensity(layout, None, None, stack).double().eval()
    rows: Rows = density.sample(5000, generator=generator)
    check_uniform(pit(schema, density, rows, None, generator))


def test_residuals_are_those_of_a_seed_whatever_rows_follow() -> None:
    density = schemas_density()
    rows = density.sample(700, generator=torch.Generator().manual_seed(0))
    rows.impossible[3] = True
    whole, part = (
        pit(SCHEMA, density, one, None, torch.Generator().manual_seed(1)).numpy()
        for one in (rows, rows[:300])
    )
    np.testing.assert_array_equal(whole[:300], part)
    assert np.isnan(whole[3]).all()
