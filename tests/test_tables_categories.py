"""The autoregressive categorical distribution."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskedflow.data import Split
from maskedflow.tables import AutoregressiveCategorical
from maskedflow.tables.codes import fit_categories, fit_tree
from maskedflow.training import TrainConfig, fit
from strategies import overwrite


def build(
    levels: list[int], context: int = 0, noise: float = 1.0, **kwargs: object
) -> AutoregressiveCategorical:
    made = AutoregressiveCategorical(levels, context, **{"hidden_features": (8, 8), **kwargs})
    return overwrite(made.double(), noise)


def every_row(levels: list[int]) -> Tensor:
    return torch.tensor(list(itertools.product(*map(range, levels))))


all_levels = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(all_levels, st.integers(0, 2), st.sampled_from([(8, 8), (), (8,)]), st.booleans())
def test_probabilities_sum_to_one_and_so_do_those_of_a_prefix(
    levels: list[int], context: int, hidden: tuple[int, ...], residual: bool
) -> None:
    categories = build(levels, context, hidden_features=hidden, residual=residual and bool(hidden))
    c = torch.randn(3, 1, context).double() if context else None
    rows = every_row(levels)
    terms = categories(c).log_probs(rows)
    assert terms.shape == ((3,) if context else ()) + rows.shape
    assert terms.dtype == torch.float64
    torch.testing.assert_close(categories(c).log_prob(rows), terms.sum(dim=-1))
    for columns in range(1, len(levels) + 1):
        # each prefix comes once for each completion
        repeats = math.prod(levels[columns:])
        total = terms[..., :columns].sum(dim=-1).exp().sum(dim=-1) / repeats
        torch.testing.assert_close(total, torch.ones_like(total))


@given(all_levels)
def test_a_term_depends_on_the_columns_before_it_alone(levels: list[int]) -> None:
    categories = build(levels)
    rows = every_row(levels)
    terms = categories().log_probs(rows)
    for column in range(len(levels)):
        for prefix in {tuple(row[: column + 1]) for row in rows.tolist()}:
            same = (rows[:, : column + 1] == torch.tensor(prefix)).all(dim=1)
            found = terms[same, column]
            torch.testing.assert_close(found, found[:1].expand_as(found))


def test_columns_are_no_independent_ones_and_see_the_context() -> None:
    categories = build([2, 3, 2], context=1)
    rows = every_row([2, 3, 2])
    terms = categories(torch.zeros(1).double()).log_probs(rows)
    assert len(terms[:, 2].unique()) == 12
    assert not torch.allclose(terms, categories(torch.ones(1).double()).log_probs(rows))


def test_gradients_reach_every_parameter_and_float_codes_are_fine() -> None:
    torch.manual_seed(0)
    categories = AutoregressiveCategorical([2, 3, 4], 2, hidden_features=(16,)).double()
    codes = torch.stack([torch.randint(level, (64,)) for level in (2, 3, 4)], dim=1)
    c = torch.randn(64, 2).double()
    log_prob = categories(c).log_prob(codes.float())
    assert torch.equal(log_prob, categories(c).log_prob(codes))
    log_prob.sum().backward()
    for name, parameter in categories.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.ne(0).any(), name


def test_samples_have_the_probabilities() -> None:
    levels = [2, 3, 2]
    categories = build(levels, noise=0.6)
    generator = torch.Generator().manual_seed(0)
    rows = categories().sample((100_000,), generator=generator)
    share = torch.tensor([(rows == row).all(dim=1).float().mean() for row in every_row(levels)])
    expected = categories().log_prob(every_row(levels)).exp().float()
    error = (expected * (1 - expected) / 100_000).sqrt()
    assert ((share - expected).abs() < 5 * error).all()
    assert rows.dtype == torch.int64

    given_context = build(levels, 2)(torch.randn(4, 1, 2).double())
    assert given_context.sample((5,)).shape == (5, 4, 1, 3)
    assert given_context.sample((0,)).shape == (0, 4, 1, 3)


def test_it_starts_at_the_frequencies_of_each_column() -> None:
    categories = AutoregressiveCategorical([2, 4], context=2)
    codes = torch.tensor([[0, 1]] * 6 + [[1, 1]] * 2 + [[1, 3]] * 2)
    categories.start_at(codes)
    terms = categories(torch.randn(2)).log_probs(codes).exp()
    expected = torch.tensor([6.5, 4.5])[codes[:, 0]] / 11
    torch.testing.assert_close(terms[:, 0], expected, rtol=2e-2, atol=0)
    expected = torch.tensor([0.25, 8.25, 0.25, 2.25])[codes[:, 1]] / 11
    torch.testing.assert_close(terms[:, 1], expected, rtol=2e-2, atol=0)

    half = AutoregressiveCategorical([2, 4], context=2)
    half.start_at(codes[::2].repeat(2, 1), weight=torch.ones(10))
    weighted = AutoregressiveCategorical([2, 4], context=2)
    weighted.start_at(codes, weight=2.0 * (torch.arange(10) % 2 == 0))
    assert torch.equal(half.hyper.layers[-1].bias, weighted.hyper.layers[-1].bias)


def test_it_learns_by_the_loop_of_any_flow() -> None:
    torch.manual_seed(0)
    first = torch.randint(3, (2000,))
    second = (first + (torch.rand(2000) < 0.1)) % 3
    split = Split(torch.stack([first, second], dim=1))
    categories = AutoregressiveCategorical([3, 3], hidden_features=(16,))
    categories.start_at(split.x)
    fit(categories, split, split, TrainConfig(epochs=15, batch_size=100, lr=2e-2))
    entropy = math.log(3) - 0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert -categories().log_prob(split.x).mean().item() < entropy + 0.03


def fitted(codes: Tensor, levels: list[int], weight: Tensor | None = None) -> Tensor:
    """The log-probabilities of all rows that there can be."""
    weight = torch.ones(len(codes)) if weight is None else weight
    made, _, _ = fit_categories(levels, Split(codes.double(), weight=weight.double()), 0, 3.0)
    with torch.no_grad():
        return made().log_prob(every_row(levels))


@pytest.mark.parametrize("hidden", [None, (8, 8)])
def test_tables_make_a_tree(hidden: tuple[int, int] | None) -> None:
    levels, parents = [2, 3, 2], (-1, 0, 0)
    made = overwrite(AutoregressiveCategorical(levels, 0, hidden, parents).double(), 1.0)
    assert made.tables is not None
    rows = every_row(levels)
    terms = made().log_probs(rows)
    assert terms.sum(dim=1).exp().sum().item() == pytest.approx(1)
    if hidden is None:
        table = made.tables.logits[8:].view(2, 2).log_softmax(dim=1)
        torch.testing.assert_close(terms[:, 2], table[rows[:, 0], rows[:, 2]])
    drawn = made().sample((20_000,), generator=torch.Generator().manual_seed(0))
    share = (drawn == rows[3]).all(dim=1).double().mean()
    assert share.item() == pytest.approx(terms[3].sum().exp().item(), abs=0.015)
    with pytest.raises(ValueError, match="parents: expected a place before"):
        AutoregressiveCategorical(levels, parents=(0, 1, -1))


def test_a_tree_takes_who_tells_most_and_nobody_who_tells_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(6, (400,), generator=generator) for _ in range(2))
    codes = torch.stack([a, b, a % 3], dim=1)
    parents, tables = fit_tree(codes, [6, 6, 3], torch.ones(400))
    assert parents == (-1, -1, 0)
    assert (tables[2].exp()[torch.arange(6), torch.arange(6) % 3] > 0.99).all()
    half = fit_tree(torch.cat([codes, codes[:50]]), [6, 6, 3], torch.ones(450))[1]
    twice = fit_tree(codes, [6, 6, 3], 1.0 + (torch.arange(400) < 50))[1]
    for one, other in zip(half, twice, strict=True):
        torch.testing.assert_close(one, other)


def test_dependence_is_found_and_independence_is_not_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    store = torch.randint(20, (600,), generator=generator)
    found = fitted(torch.stack([store, store % 4], dim=1), [20, 4]).exp().view(20, 4)
    assert found[torch.arange(20), torch.arange(20) % 4].sum() > 0.98

    flags = torch.randint(2, (300, 3), generator=generator)
    flags[:, 2] = flags[:, 0] ^ flags[:, 1]
    found = fitted(flags, [2, 2, 2]).exp()
    even = every_row([2, 2, 2]).sum(dim=1) % 2 == 0
    assert found[even].sum() > 0.97

    codes = torch.randint(3, (300, 3), generator=generator)
    counts = torch.stack([(codes[:, k, None] == torch.arange(3)).sum(0) for k in range(3)])
    shares = ((counts + 1 / 3) / 301).log()
    apart = shares[torch.arange(3), every_row([3, 3, 3])].sum(dim=1)
    gap = apart - fitted(codes, [3, 3, 3])
    assert (apart.exp() * gap).sum() < 0.03


def test_dummies_of_a_category_come_one_by_one() -> None:
    which = torch.randint(6, (500,), generator=torch.Generator().manual_seed(0))
    codes = torch.nn.functional.one_hot(which, 6)
    found = fitted(codes, [2] * 6).exp()
    assert found[every_row([2] * 6).sum(dim=1) == 1].sum() > 0.97


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"levels: expected .* got \[\]"):
        AutoregressiveCategorical([])
    with pytest.raises(ValueError, match=r"levels: expected .* got \[2, 0\]"):
        AutoregressiveCategorical([2, 0])
    categories = AutoregressiveCategorical([2, 3])
    with pytest.raises(ValueError, match=r"codes: expected 0\.\.2 in column 1, got 3"):
        categories().log_prob(torch.tensor([[0, 0], [1, 3]]))
    with pytest.raises(ValueError, match=r"codes: expected shape \(\*, 2\), got \(4, 3\)"):
        categories().log_prob(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="c: expected no context"):
        categories(torch.zeros(2))
    with pytest.raises(ValueError, match="c: expected a context"):
        AutoregressiveCategorical([2], context=1)()
