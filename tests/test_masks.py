"""Masks: the product of a network's masks is exactly what the order or the graph allows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.masks import check_autoregressive, degrees, generations, made_masks
from oracles import allowed, dependencies, generation_of, masks_reach
from strategies import SMOOTH, Case, cases, dags, orders, widths


def network_masks(
    adjacency: Tensor, hidden: Sequence[int], kind: str, seed: int = 0, **options: object
) -> tuple[Tensor, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        generator = torch.Generator().manual_seed(seed)
        return made_masks(adjacency, hidden, kind=kind, generator=generator, **options).masks


KINDS = st.sampled_from(["sequential", "random"])


def wide_enough(hidden: tuple[int, ...], features: int, kind: str) -> tuple[int, ...]:
    """Widths that leave no dependency out: of random degrees none is widened for an order."""
    return tuple(max(width, features) for width in hidden) if kind == "random" else hidden


@given(st.data(), st.integers(1, 8), widths(), KINDS, st.integers(0, 99))
def test_mask_product_of_an_order_is_exactly_what_it_allows(
    data: st.DataObject, features: int, hidden: tuple[int, ...], kind: str, seed: int
) -> None:
    order = data.draw(orders(features))
    passes = data.draw(st.none() | st.integers(1, features))
    expected = allowed(features, order, passes)
    masks = network_masks(expected, wide_enough(hidden, features, kind), kind, seed)
    assert torch.equal(masks_reach(masks), expected)


@given(st.data(), st.integers(1, 8), st.integers(0, 3), widths(), KINDS, st.integers(0, 99))
def test_mask_product_of_a_dag_with_context_columns_is_exactly_the_dag(
    data: st.DataObject, features: int, context: int, hidden: tuple[int, ...], kind: str, seed: int
) -> None:
    graph = data.draw(dags(features)) & ~torch.eye(features, dtype=torch.bool)
    flags = st.lists(st.booleans(), min_size=context, max_size=context)
    columns = torch.tensor([data.draw(flags) for _ in range(features)], dtype=torch.bool)
    adjacency = torch.cat([graph, columns.reshape(features, context)], dim=1)
    masks = network_masks(adjacency, wide_enough(hidden, features + 1, kind), kind, seed)
    assert torch.equal(masks_reach(masks), adjacency)


@given(st.integers(1, 6), st.integers(1, 6), widths(), st.integers(0, 2**16))
def test_mask_product_of_any_matrix_is_that_matrix(
    outputs: int, inputs: int, hidden: tuple[int, ...], seed: int
) -> None:
    adjacency = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed)) < 0.5
    assert torch.equal(masks_reach(network_masks(adjacency, hidden, "sequential")), adjacency)


@given(cases(activations=SMOOTH))
def test_a_flow_depends_on_exactly_what_order_and_passes_allow(case: Case) -> None:
    """Measured on the Jacobian of f, whose diagonal is the univariate's own slope."""
    hidden = wide_enough(case.hidden_features, case.features, case.degrees)
    case = case.but(dtype=torch.float64, hidden_features=hidden)
    transform = case.build(mf.flows.MADE)(case.c()).transform
    expected = allowed(case.features, case.order, case.passes)
    expected |= torch.eye(case.features, dtype=torch.bool)
    assert torch.equal(dependencies(transform, case.x(3)), expected)


@given(st.data(), st.integers(1, 6), st.integers(0, 3), widths(), KINDS, st.booleans())
def test_a_flow_of_a_dag_depends_on_exactly_its_edges(
    data: st.DataObject, features: int, context: int, hidden: tuple[int, ...], kind: str, skip: bool
) -> None:
    adjacency = data.draw(dags(features))
    if data.draw(st.booleans()):
        flags = st.lists(st.booleans(), min_size=context, max_size=context)
        columns = torch.tensor([data.draw(flags) for _ in range(features)], dtype=torch.bool)
        adjacency = torch.cat([adjacency, columns.reshape(features, context)], dim=1)
    hidden = wide_enough(hidden, features + 1, kind)
    case = Case(features, context, hidden_features=hidden, degrees=kind, residual=skip)
    flow = case.build(mf.flows.MADE, adjacency=adjacency)

    def whole(row: Tensor) -> Tensor:
        x, c = row.split([features, context])
        return flow(c if context else None).transform(x)

    if adjacency.shape[1] < features + context:  # every feature depends on an unnamed context
        adjacency = torch.cat([adjacency, torch.ones(features, context).bool()], dim=1)
    assert torch.equal(dependencies(whole, case.draw(3, features + context)), adjacency)


@given(st.data(), st.integers(1, 12))
def test_generations_group_ranks_in_equal_steps(data: st.DataObject, features: int) -> None:
    order = data.draw(orders(features))
    passes = data.draw(st.none() | st.integers(1, features))
    found = generations(features, order=order, passes=passes)
    assert torch.equal(found, generation_of(features, order, passes) + 1)
    assert int(found.max()) <= (passes or features)


@pytest.mark.parametrize("features", [2, 3, 8, 9])
def test_two_passes_are_a_coupling_in_halves(features: int) -> None:
    found = generations(features, passes=2)
    first, second = (int((found == g).sum()) for g in (1, 2))
    assert first + second == features
    assert first - second in (0, 1)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_degrees_deal_every_kind_when_there_are_units_enough(
    units: int, kinds: int, seed: int
) -> None:
    for kind in ("sequential", "random"):
        dealt = degrees(units, kinds, kind=kind, generator=torch.Generator().manual_seed(seed))
        assert dealt.shape == (units,)
        assert torch.equal(dealt, dealt.sort().values)
        assert 0 <= int(dealt.min()) <= int(dealt.max()) < kinds
        assert len(dealt.unique()) == min(units, kinds)


@given(st.integers(1, 40), st.integers(1, 12))
def test_sequential_degrees_share_units_evenly(units: int, kinds: int) -> None:
    counts = degrees(units, kinds).bincount(minlength=kinds)
    assert int(counts.max() - counts.min()) <= 1


def test_random_degrees_repeat_with_the_generator_and_differ_without() -> None:
    def deal(seed: int) -> Tensor:
        return degrees(50, 9, kind="random", generator=torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    assert torch.equal(deal(1), deal(1))
    assert not torch.equal(deal(1), deal(2))
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(3, 10))
def test_a_narrow_layer_is_widened_with_a_warning(features: int) -> None:
    adjacency = allowed(features, None, None)
    with pytest.warns(UserWarning, match="hidden_features"):
        made = made_masks(adjacency, [features - 2])
    assert torch.equal(masks_reach(made.masks), adjacency)


@given(st.integers(4, 40), st.integers(0, 99))
def test_a_narrow_layer_of_random_degrees_misses_some_nearest_predecessors(
    features: int, seed: int
) -> None:
    units = features // 2
    made = made_masks(
        allowed(features, None, None),
        [units, units],
        kind="random",
        generator=torch.Generator().manual_seed(seed),
    )
    assert [len(mask) for mask in made.masks] == [units, units, features]
    (degree, again) = made.degrees
    assert torch.equal(degree, again)
    assert len(degree.unique()) == units
    # A feature sees all features up to the last degree below its own generation.
    last = [max((m for m in degree.tolist() if m < i), default=0) for i in range(1, features + 1)]
    expected = torch.arange(1, features + 1) <= torch.tensor(last)[:, None]
    assert torch.equal(masks_reach(made.masks), expected)


def test_random_degrees_keep_the_seeds_width_without_a_warning() -> None:
    features, units = 192, 64  # a sixteenth of CIFAR-10's
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow = mf.flows.MAF(
            features,
            transforms=10,
            hidden_features=[units, units],
            degrees="random",
            generator=torch.Generator().manual_seed(0),
        )
    missing = torch.ones(features, features).tril(-1)
    for step in flow.transform.transforms:
        assert [layer.out_features for layer in step.hyper.layers] == [units, units, 2 * features]
        reach = masks_reach([layer.mask for layer in step.hyper.layers])[::2]
        missing = missing * ~(reach.tril(-1) | reach.triu(1).T)  # of the reversed order, too
    assert missing.mean() < 1e-3


@pytest.mark.parametrize("kind", ["sequential", "random"])
def test_a_wide_enough_layer_is_kept_without_a_warning(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = made_masks(allowed(6, None, None), [5, 7], kind=kind)  # type: ignore[arg-type]
    assert [len(mask) for mask in made.masks] == [5, 7, 6]


@pytest.mark.parametrize("kind", ["sequential", "random"])
def test_a_narrow_layer_kept_on_request_keeps_its_width_and_never_gains_a_dependency(
    kind: str,
) -> None:
    adjacency = allowed(8, None, None)
    made = made_masks(adjacency, [3, 2], kind=kind, widen=False)  # type: ignore[arg-type]
    reach = masks_reach(made.masks)
    assert [len(mask) for mask in made.masks] == [3, 2, 8]
    assert not (reach & ~adjacency).any()
    assert reach.any()


def test_flow_passes_the_warning_on_and_has_every_dependency() -> None:
    with pytest.warns(UserWarning, match="hidden_features"):
        flow = mf.flows.MADE(10, hidden_features=(4,), activation=nn.Tanh)
    masks = [m.mask for m in flow.modules() if isinstance(m, mf.nn.MaskedLinear)]
    expected = allowed(10, None, None).repeat_interleave(2, dim=0)
    assert torch.equal(masks_reach(masks), expected)


@pytest.mark.parametrize("residual", [False, True])
def test_the_warning_names_a_width_that_was_given(residual: bool) -> None:
    with pytest.warns(UserWarning, match="hidden_features") as warned:
        mf.flows.MADE(10, hidden_features=(4,), residual=residual)
    assert all("hidden_features[0]" in str(warning.message) for warning in warned)


def bad_message(error: pytest.ExceptionInfo[ValueError], *names: str) -> str:
    """Why an error message is not a good one; empty when it is."""
    message = str(error.value)
    if "\n" in message or not message:
        return f"expected one line, got {message!r}"
    missing = [name for name in names if name not in message]
    return f"expected {missing} in {message!r}" if missing else ""


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"order": [0, 1, 1, 3]}, ("order", "[0, 1, 1, 3]")),
        ({"order": [0, 1, 2]}, ("order", "(3,)")),
        ({"order": [1, 2, 3, 4]}, ("order", "[1, 2, 3, 4]")),
        ({"order": [-1, 0, 1, 2]}, ("order",)),
        ({"order": torch.tensor([0.9, 1.9, 2.9, 3.9])}, ("order",)),
        ({"order": torch.arange(4)[None]}, ("order", "(1, 4)")),
        ({"passes": 0}, ("passes", "0")),
        ({"passes": -1}, ("passes", "-1")),
        ({"degrees": "sorted"}, ("degrees", "sorted")),
        ({"hidden_features": (8, 0)}, ("hidden_features", "0")),
        ({"hidden_features": (-8,)}, ("hidden_features", "-8")),
        ({"adjacency": torch.ones(4, 4).bool()}, ("adjacency", "cycle")),
        ({"adjacency": torch.eye(4).bool().roll(1, 0) | torch.eye(4).bool()}, ("adjacency",)),
        ({"adjacency": torch.eye(3).bool()}, ("adjacency", "(3, 3)", "4")),
        ({"adjacency": torch.ones(4, 5).bool().tril()}, ("adjacency", "(4, 5)", "4")),
        ({"adjacency": torch.ones(4).bool()}, ("adjacency", "(4,)")),
    ],
)
@pytest.mark.parametrize("kind", ["MADE", "MAF"])
def test_bad_structure_is_one_clear_error(
    kind: str, options: dict[str, object], names: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=names[0]) as error:
        getattr(mf.flows, kind)(4, **options)
    assert not bad_message(error, *names)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0,), "features"), ((-2,), "features"), ((3, -1), "context")],
)
def test_bad_sizes_are_one_clear_error(arguments: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=name) as error:
        mf.flows.MAF(*arguments)
    assert not bad_message(error, name, str(arguments[-1]))


def test_no_transforms_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="transforms") as error:
        mf.flows.MAF(3, transforms=0)
    assert not bad_message(error, "transforms", "0")


@pytest.mark.parametrize("features", [2, 5])
def test_check_autoregressive_accepts_a_masked_network(features: int) -> None:
    adjacency = allowed(features, None, None)
    network = mf.nn.MaskedMLP(adjacency, (16, 16), nn.Tanh)
    assert check_autoregressive(network, adjacency) is None


@given(st.integers(2, 6), st.data())
def test_check_autoregressive_finds_one_forbidden_weight(
    features: int, data: st.DataObject
) -> None:
    class Broken(nn.Module):
        def __init__(self, network: nn.Module, i: int, j: int) -> None:
            super().__init__()
            self.network, self.i, self.j = network, i, j

        def forward(self, x: Tensor) -> Tensor:
            extra = torch.zeros(features, features)
            extra[self.i, self.j] = 1e-3
            return self.network(x) + x @ extra.T

    i = data.draw(st.integers(0, features - 1))
    j = data.draw(st.integers(i, features - 1))
    adjacency = allowed(features, None, None)
    network = Broken(mf.nn.MaskedMLP(adjacency, (16,), nn.Tanh), i, j)
    with pytest.raises(ValueError, match=f"output {i} .*input {j}"):
        check_autoregressive(network, adjacency)


def test_check_autoregressive_finds_a_network_of_another_order() -> None:
    network = mf.nn.MaskedMLP(allowed(4, (3, 2, 1, 0), None), (16,), nn.Tanh)
    with pytest.raises(ValueError, match="depends on"):
        check_autoregressive(network, allowed(4, None, None))


def test_check_autoregressive_leaves_no_gradients_and_the_global_generator_alone() -> None:
    adjacency = allowed(4, None, None)
    network = mf.nn.MaskedMLP(adjacency, (16,), nn.Tanh)
    before = torch.get_rng_state()
    check_autoregressive(network, adjacency)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), before)
