"""The density of rows of a mixed table."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import maskedflow as mf
from maskedflow.flows import LazyDistribution
from maskedflow.tables import (
    Layout,
    Rows,
    TableDensity,
)
from table_densities import MIXED, build, rows_of, some_rows

#: Thirteen numbers: no multiple of what a processor takes at a time.
WIDE = Layout((), (None,) * 13, (), (0.0,) * 13, (None,) * 13, (None,) * 13)


# -- what it is a density of ----------------------------------------------------------------------


def test_a_number_that_may_be_missing_or_an_atom_has_mass_one_in_all() -> None:
    layout = Layout((3,), (0,), (), (0.0,), (0.0,), (None,))
    density = build(layout)
    t = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    numbers = rows_of(layout, torch.zeros(8001, 1).long(), t.exp()[:, None])
    mass = torch.trapezoid((density.log_prob(numbers) + t).exp(), t).item()
    others = rows_of(layout, torch.tensor([[1], [2]]), torch.zeros(2, 1).double())
    assert 0.01 < mass < 0.99
    assert mass + density.log_prob(others).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_an_angle_and_a_whole_number_have_mass_one_in_all() -> None:
    layout = Layout((2,), (None,), (0,), (1.0,), (0.0,), (40.0,))
    density = build(layout)
    circle = math.pi * (2 * (torch.arange(400).double() + 0.5) / 400 - 1)
    whole = torch.arange(40).double()
    grid = torch.cartesian_prod(whole, circle)
    codes = torch.zeros(len(grid), 1).long()
    mass = density.log_prob(rows_of(layout, codes, grid[:, :1], grid[:, 1:])).exp().sum()
    mass = mass.item() * 2 * math.pi / 400
    ones = rows_of(layout, torch.ones(40, 1).long(), whole[:, None], torch.zeros(40, 1).double())
    assert 0.01 < mass < 0.99
    assert mass + density.log_prob(ones).exp().sum().item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("context", [0, 2])
def test_it_is_the_product_of_its_factors(context: int) -> None:
    density, rows = build(context=context), some_rows(40)
    c = torch.randn(40, context).double() if context else None
    empty = torch.zeros(40, 0).double() if c is None else c
    ones = [nn.functional.one_hot(k, n) for k, n in zip(rows.codes.T, MIXED.levels, strict=True)]
    turn = torch.cat([rows.angles.sin(), rows.angles.cos()], dim=1)
    turn[:, 0] *= rows.angles_observed[:, 0]
    turn[:, 2] *= rows.angles_observed[:, 0]
    given_angles = torch.cat([*ones, empty], dim=1)
    given_numbers = torch.cat([*ones, turn, empty], dim=1)
    assert density.categories is not None
    assert density.angles is not None
    assert density.numbers is not None
    expected = density.categories(c).log_prob(rows.codes)
    expected = expected + density.angles(given_angles).log_prob(rows.angles)
    numbers = density.numbers(given_numbers)
    cells = []
    for place in density.places[:, 1]:  # the second number is the whole one
        moved = rows.values.clone()
        moved[:, 1] += place
        cells.append(numbers.log_prob(moved).exp())
    expected = expected + torch.stack(cells).mean(dim=0).log()
    expected = expected + 0.25 + 0.5 * rows.angles_observed[:, 0]
    torch.testing.assert_close(density.log_prob(rows, c), expected, atol=1e-9, rtol=1e-9)


def test_the_places_are_midpoints_of_eighths_in_each_dimension() -> None:
    layout = replace(MIXED, steps=(2.0, 1.0, 0.5))
    places = build(layout).places
    eighths = (torch.arange(8).double() + 0.5) / 8
    for column in places.unbind(dim=1):
        assert torch.equal(column.sort().values, eighths)
    assert len(places.unique(dim=1).T) == 3
    assert torch.equal(build(replace(MIXED, steps=(0.0,) * 3)).places, torch.zeros(1, 3).double())


def test_a_cell_counts_with_its_mass() -> None:
    layout = Layout((), (None,), (), (0.5,), (None,), (None,))
    density = build(layout)
    values = torch.arange(-3, 3, 0.5, dtype=torch.float64)[:, None]
    assert density.numbers is not None
    within = (torch.arange(2000).double() + 0.5) / 4000
    fine = density.numbers().log_prob((values + within).view(-1, 1)).exp().view(len(values), -1)
    mass = density.log_prob(rows_of(layout, values=values)).exp()
    torch.testing.assert_close(mass, fine.mean(dim=1), rtol=5e-3, atol=0)


def test_what_is_absent_is_no_matter() -> None:
    density, rows = build(), some_rows(60)
    values = torch.where(rows.observed, rows.values, 123.0)
    angles = torch.where(rows.angles_observed, rows.angles, 2.0)
    assert not rows.observed.all()
    other = replace(rows, values=values, angles=angles)
    assert torch.equal(density.log_prob(other), density.log_prob(rows))


def test_the_impossible_has_no_density_whatever_it_is() -> None:
    density, rows = build(), some_rows(6)
    expected = density.log_prob(rows)
    impossible = torch.tensor([0, 1, 0, 1, 0, 0]).bool()
    nonsense = replace(
        rows,
        codes=rows.codes.masked_fill(impossible[:, None], -1),
        values=rows.values.masked_fill(impossible[:, None], math.nan),
        impossible=impossible,
    )
    found = density.log_prob(nonsense)
    assert (found[impossible] == -math.inf).all()
    assert torch.equal(found[~impossible], expected[~impossible])
    below = replace(rows, values=rows.values - torch.tensor([0.0, 0.0, 1e3]).double())
    assert (density.log_prob(below) == -math.inf).all()


# -- how it is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [MIXED, WIDE], ids=["mixed", "wide"])
@pytest.mark.parametrize("context", [0, 5])
def test_no_row_depends_on_others_bit_by_bit(context: int, layout: Layout) -> None:
    density, rows = build(layout, context), some_rows(600)
    if layout is WIDE:
        rows = rows_of(WIDE, values=torch.randn(600, 13).double())
    c = torch.randn(600, context).double() if context else None
    expected = density.log_prob(rows, c)
    assert expected.dtype == torch.float64
    generator = torch.Generator().manual_seed(0)
    for index in (
        torch.randperm(600, generator=generator),
        torch.arange(1),
        torch.arange(37, 338),
        torch.arange(600).repeat(2),
    ):
        part = None if c is None else c[index]
        assert torch.equal(density.log_prob(rows[index], part), expected[index])
    assert density.log_prob(rows[:0], None if c is None else c[:0]).shape == (0,)


def test_single_precision_is_close() -> None:
    density, rows = build(), some_rows(100)
    expected = density.log_prob(rows)
    found = density.float().log_prob(rows)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_in_training_noise_is_fresh_and_gradients_reach_everything() -> None:
    density, rows = build(context=1).train(), some_rows(60)
    c = torch.randn(60, 1).double()
    first, second = density.log_prob(rows, c), density.log_prob(rows, c)
    assert not torch.allclose(first, second)
    first.sum().backward()
    for name, parameter in density.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.ne(0).any(), name
    # on average the noise gives what the places give
    with torch.no_grad():
        mean = torch.stack([density.log_prob(rows, c).exp() for _ in range(400)]).mean(dim=0)
        torch.testing.assert_close(mean.log(), density.eval().log_prob(rows, c), atol=0.15, rtol=0)


def test_a_file_of_tensors_is_all_its_state(tmp_path: Path) -> None:
    density, rows = build(), some_rows(50)
    mf.training.save(tmp_path / "density.safetensors", density)
    other = build(noise=0.0)
    assert not torch.equal(other.log_prob(rows), density.log_prob(rows))
    mf.training.load(tmp_path / "density.safetensors", other)
    assert torch.equal(other.log_prob(rows), density.log_prob(rows))


# -- samples --------------------------------------------------------------------------------------


def test_samples_are_rows_of_the_table() -> None:
    density = build()
    rows = density.sample(5000, generator=torch.Generator().manual_seed(0))
    assert len(rows) == 5000
    again = density.sample(5000, generator=torch.Generator().manual_seed(0))
    for field in fields(Rows):
        assert torch.equal(getattr(rows, field.name), getattr(again, field.name))
    assert torch.equal(rows.observed[:, 0], rows.codes[:, 2] == 0)
    assert rows.observed[:, 1:].all()
    assert torch.equal(rows.angles_observed[:, 0], rows.codes[:, 1] == 0)
    assert (rows.values[~rows.observed] == 0).all()
    assert (rows.angles[~rows.angles_observed] == 0).all()
    assert ((rows.angles >= -math.pi) & (rows.angles < math.pi)).all()
    whole = rows.values[:, 1]
    assert torch.equal(whole, whole.floor())
    assert whole.min() >= 0
    assert whole.max() <= 9
    assert (rows.values[:, 2] > 0).all()
    assert rows.values.dtype == rows.angles.dtype == torch.float64
    assert not rows.impossible.any()
    assert density.log_prob(rows).isfinite().all()
    assert len(density.sample(0)) == 0


def test_samples_have_the_density() -> None:
    layout = Layout((2, 2), (1, None), (), (0.0, 1.0), (None, 0.0), (None, 6.0))
    density = build(layout)
    rows = density.sample(20_000, generator=torch.Generator().manual_seed(0))
    # the whole number and the codes, where the other number is missing
    for category in range(2):
        for whole in range(6):
            codes = torch.tensor([[category, 1]])
            one = rows_of(layout, codes, torch.tensor([[0.0, whole]]).double())
            expected = density.log_prob(one).exp().item()
            alike = (rows.codes == codes).all(dim=1) & (rows.values[:, 1] == whole)
            error = (expected / 20_000) ** 0.5
            assert alike.double().mean().item() == pytest.approx(
                expected, abs=5 * error + 0.02 * expected
            )
    # the mean of 1 / p(x) over samples within an interval is its volume, over codes and cells
    inside = (rows.values[:, 0].abs() < 1) & rows.observed[:, 0]
    inverse = torch.where(inside, density.log_prob(rows).neg().exp(), 0)
    spread = inverse.std().item() / len(inverse) ** 0.5
    assert inverse.mean().item() == pytest.approx(2 * 2 * 6, abs=5 * spread + 0.2)


def test_samples_depend_on_their_context() -> None:
    density = build(context=1, noise=0.5)
    generator = torch.Generator().manual_seed(0)
    both = density.sample(4000, torch.tensor([-3.0, 3.0]).repeat(2000)[:, None], generator)
    one = density.sample(2000, torch.tensor([3.0]), generator)
    first, second = both.codes[::2].double().mean(dim=0), both.codes[1::2].double().mean(dim=0)
    assert (first - second).abs().max() > 0.1
    torch.testing.assert_close(one.codes.double().mean(dim=0), second, atol=0.06, rtol=0)


# -- mistakes -------------------------------------------------------------------------------------


def test_mistakes_are_one_line() -> None:
    density = build()
    categories, angles, numbers = density.categories, density.angles, density.numbers
    factors: list[LazyDistribution | None] = [categories, angles, numbers]
    for k, name in enumerate(("categories", "angles", "numbers")):
        others = [None if i == k else factor for i, factor in enumerate(factors)]
        with pytest.raises(ValueError, match=f"{name}: got none, but the layout has"):
            TableDensity(MIXED, *others)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="numbers: got one, but the layout has 0 columns"):
        TableDensity(replace(MIXED, value_state=(), steps=()), categories, angles, numbers)
    with pytest.raises(ValueError, match="n: expected at least 0, got -1"):
        density.sample(-1)
    with pytest.raises(ValueError, match="c: expected no context"):
        density.log_prob(some_rows(3), torch.zeros(3, 2))
