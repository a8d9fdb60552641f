"""Maps that make heaped numbers smooth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskedflow.flows.flow import standard_normal
from maskedflow.tables import (
    Column,
    Heaps,
    Layout,
    PartialFlow,
    Schema,
    column_maps,
    first_steps,
    fit_heaps,
    to_rows,
)
from maskedflow.transforms import LazyComposedTransform, NormalScores
from oracles import autograd_ladjs


def rounded(x: Any, steps: Any) -> Any:
    return np.round(x / steps) * steps


def incomes(n: int, seed: int = 0) -> Any:
    """Log-normal incomes, the larger ones rounded more."""
    random = np.random.default_rng(seed)
    x = np.exp(random.normal(8.2, 0.8, n))
    small = random.choice([1, 10, 50, 100], n, p=[0.3, 0.3, 0.2, 0.2])
    return rounded(x, np.where(x < 3000, small, 10 * small))


def prices(n: int, seed: int = 0) -> Any:
    """Prices in cents, most of which end in .99 or .95."""
    random = np.random.default_rng(seed)
    x, kind = np.exp(random.normal(3, 1, n)), random.random(n)
    ends = np.where(kind < 0.5, 0.99, 0.95)
    return np.round(np.where(kind < 0.7, np.floor(x) + ends, x), 2)


def ages(n: int, seed: int = 0) -> Any:
    """Ages in years, some of them rounded, counted without 30 and 40."""
    x = rounded(np.random.default_rng(seed).gamma(9, 4, n), np.resize([1, 1, 10, 5], n))
    x = x[(x != 30) & (x != 40)]
    return x - (x > 30) - (x > 40)


def layout(step: float = 1.0, **kwargs: Any) -> Layout:
    low, high = kwargs.pop("low", None), kwargs.pop("high", None)
    return Layout((), (None,), (), (step,), (low,), (high,), **kwargs)


def fitted(plan: Layout, values: Any, weight: Tensor | None = None) -> Heaps | None:
    x = torch.as_tensor(values, dtype=torch.float64)[:, None]
    return fit_heaps(plan, x, torch.ones_like(x, dtype=torch.bool), weight)


def found(plan: Layout, values: Any, weight: Tensor | None = None) -> Heaps:
    heaps = fitted(plan, values, weight)
    assert heaps is not None
    return heaps


def margin(plan: Layout, heaps: Heaps | None, values: Any) -> PartialFlow:
    """Each column by itself, with normal scores."""
    x = torch.as_tensor(values, dtype=torch.float64)[:, None]
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = first_steps(plan, heaps)
    line = LazyComposedTransform(*steps)()(x + plan.steps[0] * noise)
    return PartialFlow([*steps, NormalScores.fit(line)], standard_normal(1), [None]).double()


def log_prob(flow: PartialFlow, plan: Layout, values: Any) -> Tensor:
    """The log-probabilities of cells: differences of the distribution function."""
    x = torch.as_tensor(values, dtype=torch.float64)[:, None]
    ends = [flow(None).transform(x + k * plan.steps[0])[:, 0] for k in (0, 1)]
    mass: Tensor = torch.special.ndtr(ends[1]) - torch.special.ndtr(ends[0])
    return mass.log()


COLUMNS: dict[str, tuple[Layout, Any]] = {
    "incomes": (layout(), incomes(2000)),
    "positive": (layout(low=0.0), incomes(2000)),
    "prices": (layout(0.01), prices(2000)),
    "signed": (
        layout(origins=(-7.0,)),
        rounded(np.random.default_rng(0).normal(0, 300, 2000), 50) + 7,
    ),
    "shares": (
        layout(low=0.0, high=101.0),
        rounded(100 * np.random.default_rng(0).beta(2, 2, 2000), [1, 5] * 1000),
    ),
    "below": (layout(high=1.0), -incomes(2000)),
    "atoms": (layout(left_out=((30, 40),)), ages(4000)),
}


@pytest.fixture(scope="module", params=COLUMNS)
def case(request: pytest.FixtureRequest) -> tuple[Layout, Any, Heaps]:
    plan, values = COLUMNS[request.param]
    return plan, values, found(plan, values)


def test_the_map_is_an_increasing_bijection(case: tuple[Layout, Any, Heaps]) -> None:
    plan, values, heaps = case
    step, (low,), (high,) = plan.steps[0], plan.lows, plan.highs
    f, random = heaps(), torch.Generator().manual_seed(0)
    cells = torch.as_tensor(values)[:500].double()
    cells = torch.cat([cells, cells + step, cells - 7 * step, 1000 * cells])
    within = torch.rand(cells.shape, generator=random, dtype=torch.float64)
    x = (cells + step * (0.01 + 0.98 * within))[:, None]
    inside = torch.ones_like(x, dtype=torch.bool)
    inside &= True if low is None else x > low
    inside &= True if high is None else x < high
    x = x[inside][:, None].unique(dim=0)
    y, ladj = f.call_and_ladj(x)
    assert (y.diff(dim=0) > 0).all()
    back, inverse_ladj = f.inverse_and_ladj(y)
    # A cell that hardly any row is in is so narrow that y tells places in it apart less well.
    tolerance = 1e-9 * step + 2.0**-48 * (y.abs() + x.abs()) * (1 + (-ladj[:, None]).exp())
    assert ((back - x).abs() <= tolerance).all()
    torch.testing.assert_close(inverse_ladj, -ladj)
    torch.testing.assert_close(ladj[:50], autograd_ladjs(f, x[:50]))
    if low is not None:
        assert (y > low).all()
    if high is not None:
        assert (y < high).all()


def test_bounds_stay_where_they_are(case: tuple[Layout, Any, Heaps]) -> None:
    plan, _, heaps = case
    f = heaps()
    for bound in (plan.lows[0], plan.highs[0]):
        if bound is not None:
            x = torch.tensor([[bound - 1e-3], [bound], [bound + 1e-3]], dtype=torch.float64)
            for made in (f(x)[1], f.inv(x)[1]):
                torch.testing.assert_close(made, x[1], rtol=0, atol=1e-9)
            outside = 0 if bound == plan.lows[0] else 2
            for made in (f(x)[outside], f.inv(x)[outside]):
                torch.testing.assert_close(made, x[outside], rtol=0, atol=1e-9)


def test_probabilities_of_cells_sum_up_to_one(case: tuple[Layout, Any, Heaps]) -> None:
    plan, values, heaps = case
    flow = margin(plan, heaps, values)
    step, (low,), (high,) = plan.steps[0], plan.lows, plan.highs
    spread = np.ptp(values)
    first = round((values.min() - spread if low is None else low) / step)
    end = round((values.max() + spread if high is None else high) / step)
    places = (torch.arange(8).double() + 0.5) / 8
    x = (torch.arange(first, end).double()[:, None] + places).flatten()[:, None] * step
    total = flow(None).log_prob(x).exp().sum() * step / 8
    # Of the tails a little is left; a density in a cell is not quite constant.
    assert abs(float(total) - 1) < 0.01


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_left_out_are_much_likelier(name: str) -> None:
    plan, values = COLUMNS[name]
    order = np.random.default_rng(1).permutation(len(values))
    rows, others = values[order[500:]], values[order[:500]]
    gain = log_prob(margin(plan, found(plan, rows), rows), plan, others).mean()
    gain -= log_prob(margin(plan, None, rows), plan, others).mean()
    least = {"shares": 0.1, "atoms": 0.05}.get(name, 1.0)
    assert gain > least


def test_heaps_are_as_likely_as_they_are() -> None:
    """Against the entropy of the distribution that incomes are drawn from."""
    plan, rows, others = layout(low=0.0), incomes(4000), incomes(4000, seed=1)
    many = incomes(2_000_000, seed=2)
    cells, counts = np.unique(many, return_counts=True)
    place = np.searchsorted(cells, others).clip(0, len(cells) - 1)
    known = cells[place] == others
    truth = np.log(counts[place] / len(many))
    score = log_prob(margin(plan, found(plan, rows), rows), plan, others).numpy()
    assert (truth - score)[known].mean() < 0.2


@pytest.mark.parametrize("name", ["incomes", "positive", "prices", "shares", "below", "atoms"])
def test_draws_are_round_as_often_as_rows(name: str) -> None:
    plan, values = COLUMNS[name]
    heaps, step = found(plan, values), plan.steps[0]
    drawn = margin(plan, heaps, values)(None).sample((5000,), generator=torch.Generator())
    cells, rows = (np.floor(x / step + 1e-6) for x in (drawn[:, 0].numpy(), values))
    for period in (5, 10, 100):
        share, wanted = (np.mean(x % period == 0) for x in (cells, rows))
        assert abs(share - wanted) < 0.03
    if name == "prices":
        assert abs(np.mean(cells % 100 == 99) - np.mean(rows % 100 == 99)) < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_smooth_numbers_stay_as_they_are(seed: int) -> None:
    random = np.random.default_rng(seed)
    for values in (
        np.round(random.normal(0, 40, 3000)),
        np.round(random.gamma(5, 20, 3000)),
        random.poisson(7, 3000),
        np.round(np.exp(random.normal(8, 1, 3000))),
        random.permutation(3000),
    ):
        assert fitted(layout(), values) is None


def test_continuous_ones_and_few_rows_stay_as_they_are() -> None:
    assert fitted(layout(0.0), incomes(1000)) is None
    assert fitted(layout(), incomes(30)) is None
    assert fitted(layout(), np.full(1000, 50.0)) is None
    assert fitted(layout(), incomes(1000) * 1e13) is None


def test_popular_numbers_are_found() -> None:
    random = np.random.default_rng(0)
    values = np.round(random.gamma(3, 400, 3000))
    values[:100], values[100:250] = 999, 1234
    heaps = found(layout(), values)
    most = heaps.popular[0][heaps.factors[0].argsort(descending=True)][:2]
    assert sorted(most.tolist()) == [999, 1234]
    flow = margin(layout(), heaps, values)
    share = log_prob(flow, layout(), [999.0, 1234.0]).exp()
    assert torch.allclose(share, torch.tensor([100, 150]).double() / 3000, rtol=0.15)


def test_what_no_row_had_keeps_a_density() -> None:
    values = rounded(incomes(1000), 100)
    flow = margin(layout(), found(layout(), values), values)
    assert (log_prob(flow, layout(), [1234.0, 99.0, 3001.0]) > math.log(1e-12)).all()


def test_cells_beyond_the_rows_are_as_wide_as_theirs() -> None:
    random = np.random.default_rng(0)
    values = random.choice(np.sort(random.choice(np.arange(20.0, 220.0), 30, replace=False)), 2000)
    first, end = values.min(), values.max() + 1
    x = torch.tensor([first - 20, first, end, end + 150], dtype=torch.float64)[:, None]
    slopes = found(layout(), values)()(x).diff(dim=0) / x.diff(dim=0)
    assert slopes[1] > 1.5
    torch.testing.assert_close(slopes, slopes[1].expand(3, 1), rtol=0.1, atol=0)
    atoms = layout(low=0.0, high=230.0, left_out=((225,),))
    heaps = found(atoms, values)
    cells = heaps.popular[0, heaps.popular[0] < 2**60]
    assert (cells.diff() > 0).all()
    assert set(range(int(end), 231)) <= set(cells.tolist())
    assert heaps.factors[0][heaps.popular[0] == 225] == 0
    assert (cells[0], cells[-1]) == (0, 230)


def test_weights_count_as_rows_do() -> None:
    values = np.concatenate([incomes(1000), np.arange(1000.0)])
    weight = torch.cat([torch.ones(1000), torch.zeros(1000)])
    alone, weighed = found(layout(), values[:1000]), found(layout(), values, weight)
    for name, table in alone.state_dict().items():
        assert torch.equal(table, weighed.state_dict()[name])


@given(st.lists(st.floats(-1e18, 1e18), min_size=1, max_size=20), st.booleans())
def test_any_number_has_an_image(numbers: list[float], inverse: bool) -> None:
    heaps = SIGNED
    f = heaps().inv if inverse else heaps()
    x = torch.tensor(sorted(numbers), dtype=torch.float64)[:, None]
    y, ladj = f.call_and_ladj(x)
    assert y.isfinite().all()
    assert ladj.isfinite().all()
    assert (y.diff(dim=0) >= 0).all()
    torch.testing.assert_close(f.inv(y), x, rtol=1e-9, atol=1e-3)


SIGNED = found(*COLUMNS["signed"])


def test_columns_are_mapped_side_by_side_and_rebuilt() -> None:
    names = ["incomes", "prices", "atoms"]
    size = min(len(COLUMNS[name][1]) for name in names)
    columns = [torch.as_tensor(COLUMNS[name][1][:size]).double() for name in names]
    smooth = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.stack([columns[0], smooth, columns[1], columns[2]], dim=1)
    none = (None,) * 4
    plan = Layout((), none, (), (1.0, 0.0, 0.01, 1.0), none, none, left_out=((), (), (), (30, 40)))
    heaps = fit_heaps(plan, x, torch.ones_like(x, dtype=torch.bool))
    assert heaps is not None
    assert heaps.columns.tolist() == [0, 2, 3]
    y, ladj = heaps().call_and_ladj(x + 0.001)
    assert torch.equal(y[:, 1], x[:, 1] + 0.001)
    total = torch.zeros(size, dtype=torch.float64)
    for k, name in ((0, "incomes"), (2, "prices"), (3, "atoms")):
        alone, own = found(COLUMNS[name][0], x[:, k])().call_and_ladj(x[:, [k]] + 0.001)
        torch.testing.assert_close(y[:, [k]], alone)
        total += own
    torch.testing.assert_close(ladj, total)
    again = Heaps.empty(**heaps.sizes)
    again.load_state_dict(heaps.state_dict())
    assert torch.equal(again()(x), heaps()(x))


def test_absent_numbers_are_left_out() -> None:
    plan, values = COLUMNS["incomes"]
    x = torch.as_tensor(values).double()[:, None].repeat(1, 2)
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[1::2, 1] = False
    none = (None, None)
    pair = Layout((2,), (None, 0), (), (1.0, 1.0), none, none)
    heaps = fit_heaps(pair, torch.where(observed, x, 0), observed)
    assert heaps is not None
    halved = found(plan, values[::2])
    assert torch.equal(heaps.popular[1][: halved.popular.shape[1]], halved.popular[0])
    flow = PartialFlow(first_steps(pair, heaps), standard_normal(2), [None, 0]).double()
    c = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    first = flow(c).log_prob(torch.tensor([[1000.0, 0.0]], dtype=torch.float64))
    other = flow(c).log_prob(torch.tensor([[1000.0, 77.0]], dtype=torch.float64))
    assert torch.equal(first, other)
    drawn = flow(c).sample((5,), generator=torch.Generator())
    assert (drawn[..., 1] == 0).all()


def test_a_schema_tells_which_number_a_cell_is() -> None:
    values = incomes(2000)
    values[:400] = 2000  # an atom, and what is above it is counted without it
    schema = Schema.infer(pa.table({"income": values}))
    (column,) = schema.columns
    assert isinstance(column, Column)
    assert 2000 in column.atoms
    rows = to_rows(schema, pa.table({"income": values}))
    here = rows.observed[:, 0]
    heaps = fit_heaps(schema.layout, rows.values, rows.observed)
    assert heaps is not None
    x = rows.values[here]
    ladj = heaps().call_and_ladj(x + 0.5)[1].numpy()
    numbers = values[here.numpy()]
    thousands = numbers % 1000 == 0
    assert np.median(ladj[thousands]) > 3 + np.median(ladj[numbers % 10 != 0])
    assert ladj[thousands].min() > np.median(ladj[numbers % 10 != 0])


def test_without_heaps_only_bounds_come_first() -> None:
    plan = layout(low=0.0)
    (only,) = first_steps(plan, None)
    assert only.state_dict().keys() == column_maps(plan).state_dict().keys()
