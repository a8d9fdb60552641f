"""The one-sweep inverse: equal to the reference loop of a pass a generation, gradients too."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.kernels import Code, job
from maskedflow.sweep import Plan
from maskedflow.transforms import AutoregressiveTransform, MonotonicAffineTransform
from oracles import implicit_gradients, solve
from strategies import ACTIVATIONS, SMOOTH, UNIVARIATES, Case, cases, dags, overwrite

few = settings(max_examples=6)
every_univariate = pytest.mark.parametrize("univariate", UNIVARIATES.values(), ids=UNIVARIATES)

#: Activations with parameters, and such as no kernel is likely to know.
OTHER_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ELU(0.5)": lambda: nn.ELU(0.5),
    "LeakyReLU(0.3)": lambda: nn.LeakyReLU(0.3),
    "ELU(inplace)": lambda: nn.ELU(inplace=True),
    "ReLU(inplace)": lambda: nn.ReLU(inplace=True),
    "SiLU": nn.SiLU,
    "Softplus": nn.Softplus,
    "Softplus(beta=2)": lambda: nn.Softplus(beta=2),
    "Softplus(threshold=1)": lambda: nn.Softplus(threshold=1),
    "GELU": nn.GELU,
    "GELU(tanh)": lambda: nn.GELU(approximate="tanh"),
    "Sigmoid": nn.Sigmoid,
    "PReLU": nn.PReLU,
    "Mish": nn.Mish,
    "Hardtanh": nn.Hardtanh,
    "ReLU6": nn.ReLU6,
    "Identity": nn.Identity,
}


def reference_inverse(transform: Any, z: Tensor) -> Tensor:
    """Inverts a composition with the plain loop of passes in place of every sweep."""
    for part in reversed(transform.transforms):
        one = isinstance(part, AutoregressiveTransform)
        z = part.reference_inverse(z) if one else part.inv(z)
    return z


def rounding(case: Case) -> dict[str, float]:
    """What two orders of summation may differ by, after transforms that stretch."""
    if case.dtype == torch.float64:
        return {"atol": 1e-10, "rtol": 1e-9}
    return {"atol": 2e-4, "rtol": 2e-4}


def check_inverse(flow: mf.flows.Flow, z: Tensor, c: Tensor | None, case: Case) -> None:
    """The sweep's x and ladj are the reference loop's, with and without a graph."""
    transform = flow(c).transform
    expected = reference_inverse(transform, z)
    ladj = -transform.call_and_ladj(expected)[1]
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            x = transform.inv(z)
            y, found = transform.inv.call_and_ladj(z)
        torch.testing.assert_close(x, expected, **rounding(case), check_stride=False)
        torch.testing.assert_close(y, expected, **rounding(case))
        torch.testing.assert_close(found, ladj, **rounding(case))
        assert x.requires_grad == y.requires_grad == grad


@every_univariate
@few
@given(cases(), st.sampled_from([(), (1,), (5,), (2, 3), (0,)]))
def test_sweep_is_the_reference_loop(
    univariate: dict[str, Any], case: Case, batch: tuple[int, ...]
) -> None:
    flow = case.build(noise=0.2, **univariate)
    check_inverse(flow, case.x(*batch), case.c(*batch), case)


@settings(max_examples=20)
@given(cases(dtype=st.just(torch.float64)))
def test_sweep_solves_the_forward_map(case: Case) -> None:
    """Against Newton's method on the forward map, which knows of no order and no sweep."""
    flow = case.build(noise=0.2)
    transform, z = flow(case.c()).transform, case.x()
    expected = solve(transform, z, steps=case.transforms * case.features + 4)
    torch.testing.assert_close(transform.inv(z), expected, atol=1e-8, rtol=1e-8)


@few
@given(
    cases(context=st.integers(1, 3)),
    st.sampled_from(
        [((4,), ()), ((), (4,)), ((4, 1), (1, 5)), ((3,), (2, 3)), ((2, 1, 2), (3, 1))]
    ),
)
def test_batches_of_contexts(case: Case, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    flow = case.build(noise=0.2)
    check_inverse(flow, case.x(*shapes[0]), case.c(*shapes[1]), case)


@few
@given(st.data(), st.integers(1, 7), st.integers(0, 2), st.booleans(), st.booleans())
def test_dag(
    data: st.DataObject, features: int, context: int, residual: bool, random: bool
) -> None:
    adjacency = data.draw(dags(features))
    if context and data.draw(st.booleans()):
        source = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
        columns = torch.rand(features, context, generator=source) < 0.5
        adjacency = torch.cat([adjacency, columns], dim=1)
    case = Case(
        features,
        context,
        hidden_features=(7, 12),
        residual=residual,
        degrees="random" if random else "sequential",
    )
    flow = case.build(noise=0.2, adjacency=adjacency)
    check_inverse(flow, case.x(3), case.c(3), case)
    check_gradients(flow, case)


@pytest.mark.parametrize("activation", OTHER_ACTIVATIONS.values(), ids=OTHER_ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_any_activation(
    activation: Callable[[], nn.Module], dtype: torch.dtype, residual: bool
) -> None:
    case = Case(4, 1, transforms=1, hidden_features=(9, 9), activation=activation, dtype=dtype)
    flow = case.but(residual=residual).build()
    check_inverse(flow, case.x(50), case.c(50), case)
    # Far out, where shortcuts of a kernel would show; the map itself stays tame.
    flow.transform.transforms[0].hyper.layers[-1].weight.data.mul_(0.03)
    check_inverse(flow, 30 * case.x(50), case.c(50), case)
    if dtype == torch.float64:
        check_gradients(flow, case)


class DoubleTanh(nn.Tanh):
    """A subclass of an activation that a kernel knows, which is another function."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Steeper(MonotonicAffineTransform):
    """A subclass of a map that a kernel knows, which is another map: its slope is doubled."""

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__(2 * shift, scale + 0.7)


class Cubic(MonotonicAffineTransform):
    """A subclass that overrides the map itself: y = (exp(a) x + b)^3 + (exp(a) x + b)."""

    def _call(self, x: Tensor) -> Tensor:
        t = super()._call(x)
        return t**3 + t

    def _inverse(self, y: Tensor) -> Tensor:
        root = (y.square() / 4 + 1 / 27).sqrt()
        plus, minus = y / 2 + root, y / 2 - root
        t = plus.abs().pow(1 / 3) * plus.sign() + minus.abs().pow(1 / 3) * minus.sign()
        return super()._inverse(t)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        t = super()._call(x)
        return super().log_abs_det_jacobian(x, t) + (3 * t.square() + 1).log()

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self._call(x)
        return y, self.log_abs_det_jacobian(x, y)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x = self._inverse(y)
        return x, -self.log_abs_det_jacobian(x, y)


LOOKALIKES: dict[str, dict[str, Any]] = {
    "activation": {"activation": DoubleTanh},
    "constructor": {"univariate": Steeper},
    "map": {"univariate": Cubic},
    "partial": {"univariate": functools.partial(MonotonicAffineTransform, slope=0.9)},
    "lambda": {"univariate": lambda b, a: MonotonicAffineTransform(b, a, slope=0.9)},
    "swapped": {"univariate": lambda a, b: MonotonicAffineTransform(b, a)},
    "additive": {"univariate": mf.transforms.AdditiveTransform, "shapes": [()]},
}


@pytest.mark.parametrize("options", LOOKALIKES.values(), ids=LOOKALIKES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_only_looks_like_something_known(options: dict[str, Any], dtype: torch.dtype) -> None:
    case = Case(4, 1, hidden_features=(9,), dtype=dtype)
    flow = case.build(**options)
    check_inverse(flow, case.x(20), case.c(20), case)
    if dtype == torch.float64:
        check_gradients(flow, case)


class Doubled(nn.Module):
    """A conditioner that the sweep does not know."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return 2 * self.network(x, c)


class HalvedMLP(mf.nn.MaskedMLP):
    """A subclass of the conditioner that the sweep knows, which is another network."""

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return super().forward(x, c) / 2


def test_an_unknown_conditioner_falls_back_to_the_loop() -> None:
    case = Case(3, 1, order=(2, 0, 1))
    flow = case.build()
    first, second = flow.transform.transforms
    first.hyper = Doubled(first.hyper)
    second.hyper.__class__ = HalvedMLP
    check_inverse(flow, case.x(5), case.c(5), case)
    check_gradients(flow, case)


def test_any_function_makes_an_autoregressive_transform() -> None:
    """As in zuko: `meta` and `passes`, and nothing to sweep through."""

    def meta(x: Tensor) -> mf.transforms.Transform:
        before = torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], dim=-1)
        maps = MonotonicAffineTransform(before.sin(), before.cos())
        return mf.transforms.DependentTransform(maps, 1)

    transform = AutoregressiveTransform(meta, 5)
    x = Case(5).x(4)
    z, ladj = transform.call_and_ladj(x)
    back, inverse_ladj = transform.inv.call_and_ladj(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_ladj, -ladj)


# -- many features: several blocks ----------------------------------------------------------------


@pytest.mark.parametrize("features", [17, 33, 100])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ordered": True},
        {"passes": 9},
        {"passes": 40, "ordered": True, "degrees": "random"},
        {"degrees": "random", "residual": True},
        {"residual": True, "hidden_features": (120, 130)},
        {"hidden_features": (120,), "context": 0},
        {"hidden_features": (120, 110, 130), "activation": nn.ReLU, "ordered": True},
        {"widen": False, "hidden_features": (10, 12)},
        {"widen": False, "hidden_features": (10, 12), "degrees": "random", "ordered": True},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_several_blocks(features: int, options: dict[str, Any]) -> None:
    options = dict(options)
    order, more = None, {}
    if options.pop("ordered", False):
        source = torch.Generator().manual_seed(features)
        order = tuple(torch.randperm(features, generator=source).tolist())
    if "widen" in options:
        more["widen"] = options.pop("widen")
    options.setdefault("context", 2)
    options.setdefault("hidden_features", (110, 120))
    case = Case(features, order=order, **options)
    flow = case.build(noise=0.08, **more)
    check_inverse(flow, case.x(4), case.c(4), case)
    if features in (33, 100):
        check_gradients(flow, case, batch=(3,))


def test_a_dag_of_several_blocks() -> None:
    source = torch.Generator().manual_seed(0)
    adjacency = torch.rand(40, 40, generator=source).tril(-1) > 0.7
    names = torch.randperm(40, generator=source)
    adjacency = adjacency[names][:, names] | torch.eye(40).bool()
    case = Case(40, 1, hidden_features=(60, 60))
    flow = case.build(noise=0.1, adjacency=adjacency)
    check_inverse(flow, case.x(4), case.c(4), case)
    check_gradients(flow, case, batch=(2,))


def test_a_chain_of_pairs_has_as_many_generations_as_its_longest_path() -> None:
    adjacency = torch.eye(20).bool() | torch.eye(20).roll(1, 0).bool().tril(-1)
    case = Case(20, hidden_features=(30,))
    flow = case.build(adjacency=adjacency, transforms=1)
    check_inverse(flow, case.x(4), None, case)
    hyper = flow.transform.transforms[0].hyper
    plan = Plan(hyper, hyper.trunk.kept)
    assert plan.generations == 20


@pytest.mark.parametrize("rows", [127, 128, 129, 300, 4000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_number_of_rows(rows: int, dtype: torch.dtype) -> None:
    case = Case(35, 1, hidden_features=(40, 50), dtype=dtype)
    flow = case.build(noise=0.1)
    z, c = case.x(rows), case.c(rows)
    x = flow(c).transform.inv(z)
    torch.testing.assert_close(flow(c).transform(x), z, **case.tolerance)
    some = torch.tensor([0, rows // 2, rows - 2, rows - 1])
    assert c is not None
    alone = flow(c[some]).transform.inv(z[some])
    torch.testing.assert_close(x[some], alone, **rounding(case))


def test_gradients_of_many_rows() -> None:
    case = Case(35, 1, hidden_features=(40, 50))
    flow = case.build(noise=0.1)
    check_gradients(flow, case, batch=(700,), atol=1e-6)


def test_layouts_of_z() -> None:
    """Expanded, transposed, strided and reversed z are z all the same."""
    case = Case(4, 2)
    flow = case.build()
    z, c = case.x(6), case.c(6)
    assert c is not None
    expected = flow(c).transform.inv(z)
    layouts = [
        (z.t().contiguous().t(), c.t().contiguous().t()),
        (z.repeat_interleave(2, dim=0)[::2], c.repeat(1, 2)[:, :2]),
        (z.flip(0).flip(0), c),
    ]
    for zz, cc in layouts:
        torch.testing.assert_close(flow(cc).transform.inv(zz), expected)
    one = z[:1].expand(6, 4)
    torch.testing.assert_close(flow(c).transform.inv(one), flow(c).transform.inv(one.clone()))


def test_z_is_left_as_it_was() -> None:
    case = Case(4, 2)
    flow = case.build()
    z, c = case.x(5), case.c(5)
    before = z.clone()
    flow(c).transform.inv(z)
    x = flow(c).transform.inv(z.requires_grad_())
    kept = x.detach().clone()
    x.sum().backward()
    assert torch.equal(z, before)
    assert torch.equal(x, kept)


# -- gradients ------------------------------------------------------------------------------------


def graph_of(
    inverse: Callable[[Tensor], Tensor], z: Tensor, leaves: Sequence[Tensor], weight: Tensor
) -> list[Tensor]:
    loss = (inverse(z).sin() * weight).sum()
    found = torch.autograd.grad(loss, list(leaves), allow_unused=True)
    return [
        torch.zeros_like(leaf) if grad is None else grad
        for leaf, grad in zip(leaves, found, strict=True)
    ]


def check_gradients(
    flow: mf.flows.Flow, case: Case, batch: tuple[int, ...] = (4,), atol: float = 1e-7
) -> None:
    """Gradients of samples to weights, context and z are autograd's through the reference loop."""
    z = case.x(*batch).requires_grad_()
    c = case.c(*batch)
    if c is not None:
        c.requires_grad_()
    leaves = [z, *([] if c is None else [c]), *flow.parameters()]
    weight = case.draw(*batch, case.features, seed=7)
    transform = flow(c).transform
    ours = graph_of(transform.inv, z, leaves, weight)
    theirs = graph_of(lambda z: reference_inverse(transform, z), z, leaves, weight)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-6)


@every_univariate
@few
@given(
    cases(dtype=st.just(torch.float64)),
    st.sampled_from([(), (1,), (4,), (2, 2)]),
)
def test_gradients_are_the_reference_loops(
    univariate: dict[str, Any], case: Case, batch: tuple[int, ...]
) -> None:
    check_gradients(case.build(noise=0.2, **univariate), case, batch)


@few
@given(cases(dtype=st.just(torch.float64), activations=SMOOTH))
def test_gradients_are_those_of_the_implicit_function_theorem(case: Case) -> None:
    """From the forward map alone: an oracle that shares no code with either inverse."""
    flow = case.but(transforms=1).build(noise=0.2)
    z, c = case.x().requires_grad_(), case.c()
    leaves = list(flow.parameters())
    if c is not None:
        leaves.append(c.requires_grad_())
    transform = flow(c).transform
    x = transform.inv(z)
    weight = case.draw(case.features, seed=7)
    ours = torch.autograd.grad((x * weight).sum(), [z, *leaves], allow_unused=True)
    of_z, of_leaves = implicit_gradients(transform, x.detach(), weight, leaves)
    for a, b in zip(ours, [of_z, *of_leaves], strict=True):
        torch.testing.assert_close(torch.zeros_like(b) if a is None else a, b, atol=1e-8, rtol=1e-7)


@every_univariate
@few
@given(cases(dtype=st.just(torch.float64), context=st.integers(0, 2)))
def test_gradients_of_samples_and_their_densities(univariate: dict[str, Any], case: Case) -> None:
    flow = case.build(noise=0.2, **univariate)
    c = case.c(4)
    source = torch.Generator().manual_seed(3)
    x, log_prob = flow(c).rsample_and_log_prob((4,) if c is None else (), generator=source)
    leaves = list(flow.parameters())
    ours = torch.autograd.grad(x.sin().sum() + log_prob.square().sum(), leaves, allow_unused=True)

    again = torch.Generator().manual_seed(3)
    z = torch.randn(4, case.features, generator=again, dtype=torch.float64)
    y = reference_inverse(flow(c).transform, z)
    expected = flow(c).log_prob(y)
    torch.testing.assert_close(log_prob, expected)
    theirs = torch.autograd.grad(y.sin().sum() + expected.square().sum(), leaves, allow_unused=True)
    for leaf, a, b in zip(leaves, ours, theirs, strict=True):
        zero = torch.zeros_like(leaf)
        a, b = zero if a is None else a, zero if b is None else b
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("wanted", ["z", "c", "weights", "bias of the last layer"])
def test_gradients_to_one_thing_alone(wanted: str) -> None:
    case = Case(4, 2)
    flow = case.build().requires_grad_(wanted == "weights")
    z, c = case.x(3), case.c(3)
    assert c is not None
    if wanted == "bias of the last layer":
        leaves = [flow.transform.transforms[0].hyper.layers[-1].bias.requires_grad_()]
    elif wanted == "weights":
        leaves = list(flow.parameters())
    else:
        leaves = [(z if wanted == "z" else c).requires_grad_()]
    weight = case.draw(3, 4, seed=7)
    transform = flow(c).transform
    ours = graph_of(transform.inv, z, leaves, weight)
    theirs = graph_of(lambda z: reference_inverse(transform, z), z, leaves, weight)
    assert any(grad.any() for grad in ours)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-7)


def test_gradients_pass_gradcheck() -> None:
    case = Case(3, 1, order=(1, 2, 0), hidden_features=(5,))
    flow = case.build()
    z, c = case.x(2).requires_grad_(), case.c(2)
    assert c is not None
    assert torch.autograd.gradcheck(
        lambda z, c: flow(c).transform.inv.call_and_ladj(z), (z, c.requires_grad_())
    )


def test_gradients_accumulate_over_backward_passes() -> None:
    case = Case(4)
    flow = case.build()
    x = flow().transform.inv(case.x(3))
    x.sum().backward(retain_graph=True)
    once = [parameter.grad.clone() for parameter in flow.parameters()]
    x.sum().backward()
    for parameter, grad in zip(flow.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * grad)


def test_a_learned_base_gets_its_gradient_through_the_sweep() -> None:
    base = mf.flows.UnconditionalDistribution(
        mf.distributions.DiagNormal, torch.ones(3), torch.full((3,), 2.0)
    )
    case = Case(3)
    flow = case.build(base=base)
    x = flow().rsample((5,), generator=torch.Generator().manual_seed(0))
    assert x.dtype == torch.float64
    x.square().sum().backward()
    assert all(parameter.grad.all() for parameter in base.parameters())


def test_an_embedding_gets_its_gradient_through_the_sweep() -> None:
    case = Case(3, 2)
    maf = case.build()
    embedding = nn.Linear(4, 2).double()
    flow = mf.flows.Flow(maf.transform, maf.base, embedding)
    flow(torch.randn(5, 4).double()).rsample().square().sum().backward()
    assert all(parameter.grad.any() for parameter in embedding.parameters())


def test_a_second_derivative_is_right_or_refused() -> None:
    """Never silently wrong: what can be differentiated only once must say so."""
    case = Case(2, hidden_features=(4,))
    flow = case.build()
    z = case.x(1).requires_grad_()

    def penalty(x: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(x.square().sum(), z, create_graph=True)
        return first.square().sum() + z.square().sum()

    (right,) = torch.autograd.grad(penalty(reference_inverse(flow().transform, z)), z)
    try:
        (second,) = torch.autograd.grad(penalty(flow().transform.inv(z)), z)
    except RuntimeError as error:
        assert "twice" in str(error) or "derivative" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(second, right, atol=1e-8, rtol=1e-7)


def test_a_learned_univariate_gets_its_gradient_beside_a_frozen_network() -> None:
    step = mf.flows.MaskedAutoregressiveTransform(3, univariate=mf.transforms.Residual())
    overwrite(step, 0.5)
    step.hyper.requires_grad_(False)
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(step().inv(z).sin().sum(), list(step.univariate.parameters()))
    loop = torch.autograd.grad(
        step().reference_inverse(z).sin().sum(), list(step.univariate.parameters())
    )
    torch.testing.assert_close(found, loop, atol=1e-5, rtol=1e-5)


def test_iaf_training_through_the_inverse() -> None:
    """The inverse as the density direction: log_prob of an inverted flow has right gradients."""
    case = Case(4, 1, transforms=2)
    maf = case.build()
    flow = mf.flows.Flow([step.inv for step in maf.transform.transforms], maf.base)
    x, c = case.x(5), case.c(5)
    log_prob = flow(c).log_prob(x)
    parts = flow(c).transform.transforms
    z, ladj = x, torch.zeros(5, dtype=torch.float64)
    for part in parts:
        z = part.inv.reference_inverse(z)
        ladj = ladj - part.inv.call_and_ladj(z)[1]
    expected = maf.base().log_prob(z) + ladj
    torch.testing.assert_close(log_prob, expected)
    leaves = list(flow.parameters())
    ours = torch.autograd.grad(log_prob.sum(), leaves)
    theirs = torch.autograd.grad(expected.sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


# -- state ----------------------------------------------------------------------------------------


def test_sweep_follows_weights_however_they_change() -> None:
    case = Case(20, 1, hidden_features=(24, 24))
    flow = case.build(noise=0.1)
    z, c = case.x(4), case.c(4)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(3):
        check_inverse(flow, z, c, case)
        optimizer.zero_grad()
        flow(c).rsample().square().sum().backward()
        optimizer.step()
        check_inverse(flow, z, c, case)
        overwrite(flow, 0.1, seed=step)
        check_inverse(flow, z, c, case)
    other = case.but(seed=5, degrees="random").build(noise=0.1)
    check_inverse(other, z, c, case)
    other.load_state_dict(flow.state_dict())
    check_inverse(other, z, c, case)
    torch.testing.assert_close(other(c).transform.inv(z), flow(c).transform.inv(z))
    z32, c32 = z.float(), None if c is None else c.float()
    check_inverse(flow.float(), z32, c32, case.but(dtype=torch.float32))


def test_loading_another_order_is_followed_by_the_sweep() -> None:
    case = Case(6, order=(5, 0, 3, 1, 4, 2), hidden_features=(8,))
    flow = case.build()
    other = case.but(order=(0, 2, 4, 1, 3, 5), seed=4).build()
    z = case.x(4)
    other().sample((2,))
    other.load_state_dict(flow.state_dict())
    check_inverse(other, z, None, case)
    assert torch.equal(other().transform.inv(z), flow().transform.inv(z))


def test_sampling_leaves_no_graph_no_gradient_and_no_mode_behind() -> None:
    case = Case(5, 1)
    flow = case.build()
    c = case.c(3)
    x = flow(c).sample((2,))
    assert not x.requires_grad
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in flow.parameters())
    assert all(parameter.requires_grad for parameter in flow.parameters())


def test_sampling_leaves_torchs_threads_alone() -> None:
    before = torch.get_num_threads()
    mf.flows.MAF(6)().sample((2000,))
    assert torch.get_num_threads() == before


def test_sampling_warns_of_nothing() -> None:
    case = Case(20, 1, dtype=torch.float32, activation=nn.ReLU)
    flow = case.build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ACTIVATIONS:
            case.but(activation=kind).build()(case.c(2)).sample((3,))
        assert flow(case.c(2)).sample((3,)).shape == (3, 2, 20)


def test_nan_and_infinity_come_out_of_a_sweep_as_they_do_of_the_loop() -> None:
    case = Case(4, hidden_features=(6,))
    flow = case.but(activation=nn.ReLU).build()
    z = case.x(3)
    z[1, 2] = torch.nan
    z[2, 1] = torch.inf
    with torch.no_grad():
        transform = flow.transform.transforms[0]()
        found, expected = transform.inv(z), transform.reference_inverse(z)
    torch.testing.assert_close(found[0], expected[0])
    assert not torch.isfinite(found[1]).all()
    assert not torch.isfinite(found[2]).all()


# -- the plan -------------------------------------------------------------------------------------


def conditioner_of(case: Case, **more: Any) -> mf.nn.MaskedMLP:
    return case.build(mf.flows.MADE, **more).transform.transforms[0].hyper


def check_plan(conditioner: mf.nn.MaskedMLP) -> None:
    """Every weight is used exactly once, and nothing is read before it is known."""
    plan = Plan(conditioner, conditioner.trunk.kept)
    rows, layers = plan.layout, list(conditioner.layers)
    used = [np.zeros(layer.stairs.size, int) for layer in layers]
    allowed = [layer.stairs.packed_mask() for layer in layers]
    holes = [np.zeros(layer.stairs.size, bool) for layer in layers]
    for layer, start, count in plan.inverse.holes:
        holes[layer][start : start + count] = True
    known = np.zeros(rows.end, bool)
    finished = np.zeros(rows.end, bool)  # nothing may be added any more
    for one in plan.inverse.operations:
        out, source = slice(one.out, one.out + one.rows), one.source
        match one.code:
            case Code.PRODUCT:
                u, k = np.ogrid[: one.rows, : one.columns]
                places = one.offset + u * one.row_step + k * one.column_step
                real = allowed[one.layer][places]
                assert (real | holes[one.layer][places]).all()
                used[one.layer][places[real]] += 1
                assert known[source : source + one.columns][real.any(axis=0)].all()
                assert not finished[out].any()
            case Code.INVERT:
                assert (source, one.columns) == (one.out, plan.parameters)
                assert one.offset == plan.ladj >= rows.end
                assert not known[out].any()
                known[out] = True
                finished[one.layer : one.layer + one.rows * one.columns] = True
            case Code.ACTIVATE:
                finished[source : source + one.rows] = True
                assert not known[out].any()
                known[out] = True
            case Code.ADD:
                assert finished[source : source + one.rows].all()
    assert known[: plan.features].all()
    assert finished[rows.sums[-1] :].all()
    for count, real in zip(used, allowed, strict=True):
        assert (count == real).all()
    firsts, lasts = zip(*plan.blocks, strict=True)
    assert firsts == (1, *(last + 1 for last in lasts[:-1]))
    assert lasts[-1] == plan.generations
    assert str(plan).count("\n") + 1 == len(plan.inverse.operations)


@given(cases())
def test_plan_uses_every_weight_once(case: Case) -> None:
    check_plan(conditioner_of(case))


@pytest.mark.parametrize("features", [16, 33, 64, 200])
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
@pytest.mark.parametrize("passes", [None, 2, 20])
def test_plan_of_several_blocks(features: int, order: str, passes: int | None) -> None:
    source = torch.Generator().manual_seed(0)
    orders = {
        "ascending": range(features),
        "descending": range(features)[::-1],
        "random": torch.randperm(features, generator=source).tolist(),
    }
    case = Case(features, 1, order=tuple(orders[order]), passes=passes, hidden_features=(40, 50))
    conditioner = conditioner_of(case, noise=0)
    check_plan(conditioner)
    plan = Plan(conditioner, conditioner.trunk.kept)
    assert plan.generations == -(-features // -(-features // (passes or features)))


def test_plan_is_pure_data_that_compares() -> None:
    def plan_of(order: tuple[int, ...] | None) -> Plan:
        conditioner = conditioner_of(Case(20, order=order))
        return Plan(conditioner, conditioner.trunk.kept)

    plan, same, other = map(plan_of, (None, tuple(range(20)), tuple(range(20))[::-1]))
    assert plan.inverse == same.inverse
    assert plan.reverse == same.reverse
    assert plan.inverse != other.inverse


def affine_that_no_kernel_knows(shift: Tensor, scale: Tensor) -> MonotonicAffineTransform:
    return MonotonicAffineTransform(shift, scale)


@few
@given(cases(activations=[nn.ReLU, nn.Tanh, nn.ELU], dtype=st.just(torch.float64)))
def test_the_kernel_and_torch_run_the_same_programs(case: Case) -> None:
    """Samples and all their gradients, whichever of the two makes them."""
    z, c = case.x(70), case.c(70)
    found = []
    for options in ({}, {"univariate": affine_that_no_kernel_knows}):
        flow = case.build(mf.flows.MADE, noise=0.2, **options)
        leaf = z.clone().requires_grad_()
        with mock.patch.object(job, "run_panels", wraps=job.run_panels) as run:
            x, ladj = flow(c).transform.inv.call_and_ladj(leaf)
        codes = {one.code for call in run.call_args_list for one in call.args[0].operations}
        assert (Code.INVERT in codes) == (not options)
        (x.sin().sum() + x.square().sum()).backward()
        found.append([x, ladj, leaf.grad, *(p.grad for p in flow.parameters())])
    for kernel, torchs in zip(*found, strict=True):
        torch.testing.assert_close(kernel, torchs, atol=1e-9, rtol=1e-8)
