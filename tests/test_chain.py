"""A chain as one program: the numbers of its transforms one by one, whatever is done to them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

import maskedflow as mf
from family import masked_steps
from maskedflow.chain import Chain, Elementwise, Permuted, Step, owner
from maskedflow.distributions import ChainedFlow
from maskedflow.kernels import AS_IT_IS, ONES, ZEROS, Code, Map, Panel, job
from maskedflow.transforms import (
    AdditiveTransform,
    AutoregressiveTransform,
    DependentTransform,
    LazyTransform,
    MeanPrecisionTransform,
    MonotonicAffineTransform,
)
from strategies import ACTIVATIONS, SMOOTH, UNIVARIATES, Case, cases, overwrite

few = settings(max_examples=4)

#: The univariate maps that the kernel knows.
KNOWN: dict[str, dict[str, Any]] = {
    "affine": {},
    "gaussian": {"univariate": MeanPrecisionTransform},
    "additive": {"univariate": AdditiveTransform, "shapes": [()]},
    "spline": UNIVARIATES["spline"],
}
every_univariate = pytest.mark.parametrize("options", KNOWN.values(), ids=KNOWN)

#: Shapes of x, and of the context before its features: one for all, one a row, or broadcast.
BATCHES = [
    ((), ()),
    ((0,), ()),
    ((0,), (0,)),
    ((1,), (1,)),
    ((65,), ()),
    ((65,), (65,)),
    ((2, 3), (2, 3)),
    ((2, 1), (3,)),
]
batches = st.sampled_from(BATCHES)


class Shuffle(LazyTransform):
    """Features in another order, as a step of a chain."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.permutation = mf.transforms.Permutation(len(order), order)
        self._step = Permuted(tuple(order))

    def forward(self, c: Tensor | None = None) -> Any:
        return self.permutation(c)

    def steps(self) -> list[Step]:
        return [self._step]


class Scaled(LazyTransform):
    """An affine map of each feature by itself, as a step of a chain."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))
        self.scale = nn.Parameter(torch.zeros(features))

    def forward(self, c: Tensor | None = None) -> Any:
        return DependentTransform(MonotonicAffineTransform(self.shift, self.scale), 1)

    def steps(self) -> list[Step]:
        if "_step" not in self.__dict__:
            vectors = owner(self, "shift"), owner(self, "scale")
            self._step = Elementwise((Map.AFFINE, (10.0,)), vectors)
        return [self._step]


def mixed(case: Case) -> mf.flows.Flow:
    """A flow with steps of every kind, in both directions."""
    maf = case.build(transforms=2)
    first, second = maf.transform.transforms
    order = torch.randperm(case.features, generator=torch.Generator().manual_seed(case.seed))
    shuffle = Shuffle(order.tolist())
    scaled = [overwrite(Scaled(case.features).to(case.dtype), 0.3, case.seed) for _ in range(2)]
    steps = [scaled[0], first, shuffle, second.inv, scaled[1].inv, shuffle.inv]
    return mf.flows.Flow(steps, maf.base)


def evaluated(flow: Any, x: Tensor, c: Tensor | None) -> Tensor:
    """The log-density of a flow, transform by transform."""
    total: Any = 0
    for one in flow.transform.transforms:
        x, ladj = one(c).call_and_ladj(x)
        total = total + ladj
    log_prob: Tensor = flow.base().log_prob(x) + total
    return log_prob


def inverted(flow: Any, z: Tensor, c: Tensor | None) -> Tensor:
    """The data of latents, transform by transform, with no sweep."""
    for one in reversed(flow.transform.transforms):
        transform = one(c)
        plain = isinstance(transform, AutoregressiveTransform)
        z = transform.reference_inverse(z) if plain else transform.inv(z)
    return z


def close(
    found: Sequence[Tensor], expected: Sequence[Tensor], case: Case, slack: float = 1
) -> None:
    """The same but for rounding, which is as large as the largest numbers make it."""
    relative = slack * (1e-9 if case.dtype == torch.float64 else 3e-4)
    for one, other in zip(found, expected, strict=True):
        largest = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, atol=relative * (1 + largest), rtol=relative)


def gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor], **options: Any) -> list[Tensor]:
    """Of outputs with weights of their own, by leaves."""
    source = torch.Generator().manual_seed(7)
    loss: Any = 0
    for one in outputs:
        weight = torch.randn(one.shape, generator=source, dtype=torch.float64).to(one.dtype)
        loss = loss + (weight * one).sum()
    options = {"materialize_grads": True, "retain_graph": True, **options}
    return list(torch.autograd.grad(loss, leaves, **options))


def learned(flow: nn.Module) -> list[Tensor]:
    return [parameter for parameter in flow.parameters() if parameter.requires_grad]


def check(flow: Any, case: Case, shape: tuple[int, ...] = (5,), of_c: tuple[int, ...] = ()) -> None:
    """Densities, samples, and the gradients of both."""
    x, c = case.x(*shape).requires_grad_(), case.c(*of_c)
    leaves = [x, *learned(flow), *([] if c is None else [c.requires_grad_()])]
    found, expected = flow(c).log_prob(x), evaluated(flow, x, c)
    close([found], [expected], case)
    close(gradients([found], leaves), gradients([expected], leaves), case, slack=10)
    with torch.no_grad():
        close([flow(c).log_prob(x)], [expected], case)
    check_samples(flow, case, shape, c)


def check_samples(flow: Any, case: Case, shape: tuple[int, ...], c: Tensor | None) -> None:
    if c is not None:
        shape = shape[: max(len(shape) - c.ndim + 1, 0)]
    full = (*shape, *(() if c is None else c.shape[:-1]), case.features)
    z = torch.randn(full, dtype=case.dtype, generator=torch.Generator().manual_seed(3))
    z = flow.base().loc + flow.base().scale * z
    expected = inverted(flow, z, c)
    log_prob = evaluated(flow, expected, c)

    def again() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    sample, drawn = flow(c).sample(shape, again()), flow(c).rsample(shape, again())
    x, of_x = flow(c).rsample_and_log_prob(shape, again())
    close([sample, drawn, x, of_x], [expected.detach(), expected, expected, log_prob], case, 10)
    leaves = [*learned(flow), *([] if c is None or not c.requires_grad else [c])]
    if leaves:
        ours = gradients([x, of_x], leaves), gradients([drawn], leaves)
        theirs = gradients([expected, log_prob], leaves), gradients([expected], leaves)
        for one, other in zip(ours, theirs, strict=True):
            close(one, other, case, slack=100)


def is_chained(flow: Any, case: Case) -> bool:
    """Whether a flow is one program."""
    c = case.c(5)
    with mock.patch.object(job, "run_panels", wraps=job.run_panels) as run, torch.no_grad():
        distribution = flow(c)
        distribution.log_prob(case.x(5))
        distribution.rsample()
    return isinstance(distribution, ChainedFlow) and run.call_count == 2


# -- what is computed -----------------------------------------------------------------------------


@every_univariate
@few
@given(cases(), batches, st.integers(0, 2**16))
def test_densities_samples_and_gradients(
    options: dict[str, Any],
    case: Case,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    frozen: int,
) -> None:
    flow = case.build(noise=0.2, **options)
    for number, parameter in enumerate(flow.parameters()):
        parameter.requires_grad_(not frozen >> number % 17 & 1)
    assert is_chained(flow, case)
    check(flow, case, *shapes)


@settings(max_examples=12)
@given(cases(least_width=4), batches)
def test_steps_of_every_kind(case: Case, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    flow = mixed(case)
    x, c = case.x(*shapes[0]).requires_grad_(), case.c(*shapes[1])
    assert isinstance(flow(c), ChainedFlow)
    leaves = [x, *learned(flow), *([] if c is None else [c.requires_grad_()])]
    found, expected = flow(c).log_prob(x), evaluated(flow, x, c)
    close([found], [expected], case)
    close(gradients([found], leaves), gradients([expected], leaves), case, slack=10)
    check_samples(flow, case, shapes[0], c)


@every_univariate
@few
@given(
    cases(activations=SMOOTH, dtype=st.just(torch.float64)),
    st.sampled_from([shapes for shapes in BATCHES if 0 not in shapes[0]]),
)
def test_second_derivatives(
    options: dict[str, Any], case: Case, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    flow = case.build(noise=0.2, **options)
    x, c = case.x(*shapes[0]).requires_grad_(), case.c(*shapes[1])
    leaves = [x, *learned(flow), *([] if c is None else [c.requires_grad_()])]
    first = gradients([flow(c).log_prob(x)], leaves, create_graph=True)
    again = gradients([evaluated(flow, x, c)], leaves, create_graph=True)
    close(first, again, case)
    assert any(one.requires_grad for one in again)
    graph = [number for number, one in enumerate(again) if one.requires_grad]
    ours = gradients([first[number] for number in graph], leaves)
    theirs = gradients([again[number] for number in graph], leaves)
    close(ours, theirs, case, slack=100)


@given(cases(dtype=st.just(torch.float64), activations=SMOOTH))
@few
def test_second_derivatives_of_a_transform(case: Case) -> None:
    flow = case.build(noise=0.2)
    x, c = case.x(2, 3).requires_grad_(), case.c(3)
    leaves = [x, *learned(flow), *([] if c is None else [c.requires_grad_()])]
    found = flow(c).transform.call_and_ladj(x)
    z, ladj = x, torch.zeros(2, 3, dtype=x.dtype)
    for one in flow.transform.transforms:
        z, more = one(c).call_and_ladj(z)
        ladj = ladj + more
    first = gradients(found, leaves, create_graph=True)
    again = gradients([z, ladj], leaves, create_graph=True)
    close([*found, *first], [z, ladj, *again], case)
    graph = [number for number, one in enumerate(again) if one.requires_grad]
    ours = gradients([first[number] for number in graph], leaves)
    theirs = gradients([again[number] for number in graph], leaves)
    close(ours, theirs, case, slack=100)


def test_gradients_of_gradients_pass_gradgradcheck() -> None:
    case = Case(3, 2, hidden_features=(5,))
    flow = case.build()
    x, c = case.x(2).requires_grad_(), case.c(2)
    assert c is not None
    c.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, c: flow(c).log_prob(x), (x, c))
    assert torch.autograd.gradgradcheck(lambda x, c: flow(c).log_prob(x), (x, c))


def test_a_graph_outlives_other_calls() -> None:
    """What a backward pass needs is its own: no later call writes over it."""
    case = Case(4, 1, dtype=torch.float64)
    flow, xs = case.build(), [case.draw(70, 4, seed=seed).requires_grad_() for seed in (1, 2)]
    c = case.c()
    found = [flow(c).log_prob(x) for x in xs]
    flow(c).sample((200,))
    for x, one in zip(xs, found, strict=True):
        close(gradients([one], [x]), gradients([evaluated(flow, x, c)], [x]), case)
        close(gradients([flow(c).log_prob(x)], [x]), gradients([evaluated(flow, x, c)], [x]), case)


# -- what a chain is not --------------------------------------------------------------------------


def with_dequantize(case: Case) -> mf.flows.Flow:
    """Noise between transforms, of a seed that both evaluations get."""
    maf = case.build(transforms=4)
    first, second, *rest = maf.transform.transforms
    middle = mf.transforms.Dequantize()
    return mf.flows.Flow([first, second, middle, *rest], maf.base)


def affine_that_no_kernel_knows(shift: Tensor, scale: Tensor) -> mf.transforms.Transform:
    return MonotonicAffineTransform(shift, scale)


def one_unknown(case: Case, **options: Any) -> mf.flows.Flow:
    """Five transforms, the third of which the kernel does not know."""
    maf, other = case.build(transforms=4), case.build(transforms=1, **options)
    first, second, *rest = maf.transform.transforms
    return mf.flows.Flow([first, second, other.transform.transforms[0], *rest], maf.base)


def rotation(features: int) -> mf.transforms.LazyTransform:
    """A linear layer that the kernel does not know, its matrix not zero."""
    turn = torch.full((features, features), 0.1).triu(1)
    return mf.transforms.UnconditionalTransform(mf.transforms.RotationTransform, A=turn)


SPLIT: dict[str, Callable[[Case], mf.flows.Flow]] = {
    "activation": lambda case: one_unknown(case, activation=nn.Mish),
    "univariate": lambda case: one_unknown(case, univariate=affine_that_no_kernel_knows),
    "batch norm": lambda case: case.build(transforms=3, batch_norm=True),
    "rotation": lambda case: case.build(transforms=3, between=rotation),
    "everything": lambda case: case.build(transforms=2, activation=nn.Mish),
}


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_the_kernel_does_not_know_splits_the_chain(name: str, dtype: torch.dtype) -> None:
    case = Case(4, 2, dtype=dtype)
    flow = SPLIT[name](case).to(dtype)
    assert flow.chain is None
    assert not isinstance(flow(case.c()), ChainedFlow)
    if name == "batch norm":
        x, c = case.x(20).requires_grad_(), case.c(20)
        twin = copy.deepcopy(flow)
        found, expected = flow(c).log_prob(x), evaluated(twin, x, c)
        close([found], [expected], case)
        ours = gradients([found], [x, *flow.parameters()])
        close(ours, gradients([expected], [x, *twin.parameters()]), case, slack=10)
        for (key, one), other in zip(
            flow.state_dict().items(), twin.state_dict().values(), strict=True
        ):
            if "running" in key or "mean" in key or "var" in key:
                close([one], [other], case)
        flow.eval()
    check(flow, case, (20,), (20,))


def test_noise_in_the_middle_splits_the_chain() -> None:
    case = Case(3, 1)
    flow = with_dequantize(case)
    x, c = case.x(6).requires_grad_(), case.c(6)
    assert flow.chain is None
    leaves = [x, *learned(flow)]
    noise = flow.transform.transforms[2]
    noise.seed(5)
    found = flow(c).log_prob(x)
    noise.seed(5)
    expected = evaluated(flow, x, c)
    close([found], [expected], case)
    close(gradients([found], leaves), gradients([expected], leaves), case)
    with mock.patch.object(job, "run_panels", wraps=job.run_panels) as run, torch.no_grad():
        flow(c).log_prob(x)
    assert run.call_count == 2  # one before the noise, one after it


def test_an_embedding_comes_before_the_chain() -> None:
    case = Case(3, 2)
    maf = case.build()
    net = nn.Linear(4, 2).double()
    flow = mf.flows.Flow(maf.transform, maf.base, net)
    x, c = case.x(5), case.draw(5, 4, seed=3)
    leaves = list(flow.parameters())
    found, expected = flow(c).log_prob(x), evaluated(flow, x, net(c))
    assert isinstance(flow(c), ChainedFlow)
    close([found], [expected], case)
    close(gradients([found], leaves), gradients([expected], leaves), case)


def test_another_base_is_no_chain() -> None:
    case = Case(3)
    shifted = mf.flows.UnconditionalDistribution(
        mf.distributions.DiagNormal, torch.ones(3), torch.ones(3), buffer=True
    ).double()
    flow = case.build(base=shifted)
    assert flow.chain is None
    check(flow, case)
    plain = case.build()
    assert plain.chain is not None
    plain.base.loc.fill_(1.0)  # in place, after the chain was made
    check(plain, case)


# -- what may be done to a flow -------------------------------------------------------------------


def replaced(flow: Any, case: Case) -> Any:
    for step in masked_steps(flow):
        for layer in step.hyper.layers:
            layer.weight = nn.Parameter(layer.weight.detach() * 1.5)
            layer.bias = nn.Parameter(layer.bias.detach() + 0.1)
        if step.hyper.context is not None:
            step.hyper.context.weight = nn.Parameter(-step.hyper.context.weight.detach())


def strided(flow: Any, case: Case) -> Any:
    layer = masked_steps(flow)[0].hyper.layers[0]
    layer.bias = nn.Parameter(case.draw(2 * len(layer.bias), seed=9)[::2])


def expanded(flow: Any, case: Case) -> Any:
    layer = masked_steps(flow)[0].hyper.layers[0]
    layer.bias = nn.Parameter(torch.full((1,), 0.3, dtype=case.dtype).expand(len(layer.bias)))


def other_activation(flow: Any, case: Case) -> Any:
    masked_steps(flow)[0].hyper.activation = nn.SiLU()


def unknown_activation(flow: Any, case: Case) -> Any:
    masked_steps(flow)[0].hyper.activation = nn.Mish()


def other_alpha(flow: Any, case: Case) -> Any:
    for step in masked_steps(flow):
        step.hyper.activation = nn.ELU(0.5)
    check(flow, case)
    for step in masked_steps(flow):
        step.hyper.activation = nn.ELU(1.5)


def other_network(flow: Any, case: Case) -> Any:
    other = masked_steps(case.but(seed=5, hidden_features=(11,)).build())[0]
    masked_steps(flow)[0].hyper = other.hyper


def other_layer(flow: Any, case: Case) -> Any:
    hyper = masked_steps(flow)[0].hyper
    hyper.layers[0] = overwrite(copy.deepcopy(hyper.layers[0]), 0.3, seed=9)


def other_context(flow: Any, case: Case) -> Any:
    hyper = masked_steps(flow)[0].hyper
    hyper.context = overwrite(copy.deepcopy(hyper.context), 0.3, seed=9)


def other_step(flow: Any, case: Case) -> Any:
    flow.transform.transforms[0] = case.but(seed=6).build().transform.transforms[1]


def another_step(flow: Any, case: Case) -> Any:
    flow.transform.transforms.append(case.but(seed=6).build().transform.transforms[0])


def no_step(flow: Any, case: Case) -> Any:
    del flow.transform.transforms[0]


def loaded(flow: Any, case: Case) -> Any:
    flow.load_state_dict(case.but(seed=3).build().state_dict())


def loaded_order(flow: Any, case: Case) -> Any:
    flow.load_state_dict(case.but(seed=3, order=(2, 0, 3, 1)).build().state_dict())


def loaded_masks(flow: Any, case: Case) -> Any:
    flow.load_state_dict(case.but(seed=3, degrees="random").build().state_dict())


def in_place(flow: Any, case: Case) -> Any:
    overwrite(flow, 0.2, seed=8)


def steps_of_adam(flow: Any, case: Case) -> Any:
    """In groups, in a loop of one's own."""
    first, *rest = flow.parameters()
    groups = [{"params": [first], "lr": 0.1}, {"params": rest, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    twin = copy.deepcopy(flow)
    first, *rest = twin.parameters()
    groups = [{"params": [first], "lr": 0.1}, {"params": rest, "weight_decay": 0.1}]
    other = torch.optim.AdamW(groups, lr=0.01)
    x, c = case.x(30), case.c(30)
    for _ in range(3):
        for density, adam in (
            (lambda: flow(c).log_prob(x), optimizer),
            (lambda: evaluated(twin, x, c), other),
        ):
            adam.zero_grad()
            (-density().mean()).backward()
            adam.step()
        # Dense: what masks forbid is of no matter.
        ours, theirs = (
            [value for value in one.state_dict().values() if value.is_floating_point()]
            for one in (flow, twin)
        )
        close(ours, theirs, case, slack=100)


def tied(flow: Any, case: Case) -> Any:
    """One tensor as the parameter of two networks."""
    first, second = masked_steps(flow)
    second.hyper.layers[0].bias = first.hyper.layers[0].bias


def shared(flow: Any, case: Case) -> Any:
    """The same module twice in one chain."""
    flow.transform.transforms.append(flow.transform.transforms[0])


def shared_inverse(flow: Any, case: Case) -> Any:
    """The same module twice in one chain, once in the other direction."""
    flow.transform.transforms.insert(0, flow.transform.transforms[1].inv)
    flow.transform.transforms.append(flow.transform.transforms[1])


def frozen(flow: Any, case: Case) -> Any:
    flow.transform.transforms[0].requires_grad_(False)
    masked_steps(flow)[1].hyper.layers[-1].bias.requires_grad_(False)
    in_place(flow, case)


def all_frozen(flow: Any, case: Case) -> Any:
    flow.requires_grad_(False)
    in_place(flow, case)


class Doubled(nn.Module):
    """Makes a parameter of half of it."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def other_univariate(flow: Any, case: Case) -> Any:
    masked_steps(flow)[0].univariate = mf.transforms.MeanPrecisionTransform


def parametrized(flow: Any, case: Case) -> Any:
    layer = masked_steps(flow)[0].hyper.layers[0]
    parametrize.register_parametrization(layer, "weight", Doubled())


CHANGES = {
    change.__name__: change
    for change in (
        *(replaced, strided, expanded, other_activation, unknown_activation, other_alpha),
        *(other_network, other_layer, other_context, other_step, another_step, no_step),
        *(loaded, loaded_order, loaded_masks, in_place, steps_of_adam),
        *(tied, shared, shared_inverse, frozen, all_frozen, parametrized, other_univariate),
    )
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_after_the_first_call_is_noticed(change: Callable[[Any, Case], Any]) -> None:
    case = Case(4, 2)
    flow = case.build()
    x, c = case.x(5), case.c(5)
    before = flow(c).log_prob(x)
    flow(c).rsample().sum().backward()
    flow.zero_grad()
    change(flow, case)
    assert not torch.allclose(before, flow(c).log_prob(x))
    if change is shared_inverse:  # whose samples no plain loop knows
        x.requires_grad_()
        leaves = [x, *learned(flow)]
        found, expected = flow(c).log_prob(x), evaluated(flow, x, c)
        close([found], [expected], case)
        close(gradients([found], leaves), gradients([expected], leaves), case)
    else:
        check(flow, case, (5,), (5,))


def pickled(flow: Any) -> Any:
    return pickle.loads(pickle.dumps(flow))


def saved(flow: Any) -> Any:
    other = Case(4, 2, seed=9).build()
    other(Case(4, 2).c()).sample()
    other.load_state_dict(flow.state_dict())
    return other


COPIES = {"deepcopy": copy.deepcopy, "pickle": pickled, "state_dict": saved}


@pytest.mark.parametrize("made", COPIES.values(), ids=COPIES)
def test_copies_are_of_their_own(made: Callable[[Any], Any]) -> None:
    case = Case(4, 2)
    flow = case.build()
    x, c = case.x(5), case.c(5)
    before = flow(c).log_prob(x)
    flow(c).sample()
    other = made(flow)
    assert torch.equal(other(c).log_prob(x), before)
    overwrite(other, 0.3, seed=4)
    assert torch.equal(flow(c).log_prob(x), before)
    check(other, case)
    check(flow, case)


def test_a_distribution_is_pickled_and_copied() -> None:
    case = Case(4, 2)
    distribution = case.build()(case.c(5))
    x = case.x(5)
    expected = distribution.log_prob(x)
    for again in (copy.deepcopy(distribution), pickled(distribution)):
        close([again.log_prob(x)], [expected], case)


def test_another_dtype() -> None:
    case = Case(4, 2, dtype=torch.float32)
    flow = case.build()
    check(flow, case)
    check(flow.double(), case.but(dtype=torch.float64))
    check(flow.float(), case)
    with pytest.raises(ValueError, match="float64"):
        flow(case.c()).log_prob(case.x(3).double())


def test_a_flow_elsewhere_is_an_error() -> None:
    """Never an address that is none of this memory."""
    case = Case(3)
    flow = case.build()
    flow().sample()
    with pytest.raises((RuntimeError, NotImplementedError, ValueError)):
        flow.to("meta")().log_prob(case.x(2))


class LogProb(nn.Module):
    """The log-density of a flow, as functional_call takes it."""

    def __init__(self, flow: mf.flows.Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        log_prob: Tensor = self.flow(c).log_prob(x)
        return log_prob


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
def test_torch_func() -> None:
    case = Case(3, 2)
    flow = case.build()
    x, c = case.x(5), case.c(5)
    expected = flow(c).log_prob(x)

    def log_prob(x: Tensor, c: Tensor) -> Tensor:
        return flow(c).log_prob(x)

    close([torch.func.vmap(log_prob)(x, c)], [expected], case)
    scores = torch.func.vmap(torch.func.grad(log_prob))(x, c)
    leaf = x.clone().requires_grad_()
    close([scores], gradients_of_sum(flow(c).log_prob(leaf), leaf), case)
    jacobian = torch.func.jacrev(lambda x: flow(c).log_prob(x))(x)
    close([jacobian.diagonal(dim1=0, dim2=1).T], [scores], case)
    close([torch.func.jacfwd(lambda x: flow(c).log_prob(x))(x)], [jacobian], case)


def gradients_of_sum(total: Tensor, leaf: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total.sum(), leaf))


def test_functional_call_and_its_second_derivatives() -> None:
    """As in a step of meta-learning: the parameters are others, and gone when gradients come."""
    case = Case(3, 2)
    flow, other = case.build(), case.but(seed=4).build()
    x, c = case.x(5), case.c(5)
    module = LogProb(flow)
    names = [name for name, _ in module.named_parameters()]
    given = dict(zip(names, other.parameters(), strict=True))
    found = torch.func.functional_call(module, given, (x, c))
    expected = evaluated(other, x, c)
    close([found], [expected], case)
    leaves = list(other.parameters())
    first = gradients([found], leaves, create_graph=True)
    again = gradients([expected], leaves, create_graph=True)
    close(first, again, case)
    graph = [number for number, one in enumerate(again) if one.requires_grad]
    ours = gradients([first[number] for number in graph], leaves)
    theirs = gradients([again[number] for number in graph], leaves)
    close(ours, theirs, case, slack=100)
    check(flow, case)


def test_no_graph_where_none_is_wanted() -> None:
    case = Case(3, 1)
    flow, x, c = case.build(), case.x(4), case.c(4)
    with torch.no_grad():
        assert not flow(c).log_prob(x).requires_grad
        assert not flow(c).rsample().requires_grad
    assert flow(c).log_prob(x).requires_grad
    flow.requires_grad_(False)
    assert not flow(c).log_prob(x).requires_grad
    assert flow(c).log_prob(x.requires_grad_()).requires_grad


def test_errors_are_those_of_the_transforms() -> None:
    case = Case(3, 2)
    flow, c = case.build(), case.c()
    with pytest.raises(ValueError, match="expected"):
        flow(c).log_prob(case.draw(5, 4))
    with pytest.raises(ValueError, match=r"^c: expected"):
        flow(case.draw(3))().log_prob(case.x(5))
    with pytest.raises(ValueError, match=r"^c: expected"):
        flow().log_prob(case.x(5))


# -- programs -------------------------------------------------------------------------------------


class Walk:
    """Walks through programs: which rows are known, and what was done with each number of vectors.

    A row that is read must have been written: even where a mask's zero stands before it, nobody
    knows what is there, and zero times nan is nan.
    """

    def __init__(self, chain: Chain, height: int) -> None:
        self.known = np.zeros((2, height), bool)
        self.used = [np.zeros(held[name].numel(), int) for held, name in chain.owners]
        self.written = [np.zeros_like(one) for one in self.used]

    def read(self, panel: Panel, first: int, count: int = 1) -> None:
        assert self.known[panel, first : first + count].all()

    def write(self, panel: Panel, first: int, count: int = 1, step: int = 1) -> None:
        self.known[panel, first : first + count * step : step] = True

    def run(self, program: Any) -> None:
        for one in program.operations:
            self.step(one)

    def step(self, one: Any) -> None:
        values, slopes = Panel.VALUES, Panel.SLOPES
        phi = one.layer, one.rows * one.columns
        match one.code:
            case Code.FILL:
                if one.layer not in (ZEROS, ONES):
                    apart = one.column_step
                    self.used[one.layer][one.begin :: apart][: one.rows] += 1
                self.write(one.panel, one.out, one.rows, one.row_step)
                return
            case Code.PRODUCT:
                u, k = np.ogrid[: one.rows, : one.columns]
                places = one.offset + u * one.row_step + k * one.column_step
                np.add.at(self.used[one.layer], places, 1)
                self.read(one.panel, one.source, one.columns)
                if one.start == AS_IT_IS:
                    self.read(one.panel, one.out, one.rows)
                elif one.start != ZEROS:
                    self.used[one.start][one.begin : one.begin + one.rows] += 1
            case Code.COPY | Code.NEGATE | Code.ACTIVATE:
                self.read(one.panel, one.source, one.rows)
            case Code.ADD:
                self.read(one.panel, one.source, one.rows)
                self.read(one.panel, one.out, one.rows)
            case Code.SLOPE:
                self.read(slopes, one.source, one.rows)
                self.read(values, one.columns, one.rows)
                self.read(values, one.layer, one.rows)
            case Code.EVALUATE | Code.INVERT:
                self.read(values, one.source, one.rows)
                self.read(values, *phi)
                self.read(values, one.offset)
            case Code.DIFFERENTIATE | Code.SOLVE:
                self.read(values, one.out if one.code is Code.DIFFERENTIATE else one.source)
                self.read(values, *phi)
                self.read(slopes, one.source, one.rows)
                self.read(slopes, one.offset)
                self.write(slopes, *phi)
            case Code.NORMAL:
                self.read(values, one.source, one.rows)
                self.read(values, one.out)
                return
            case Code.NORMAL_SLOPE:
                self.read(values, one.source, one.rows)
                self.read(slopes, one.out)
                self.write(slopes, one.source, one.rows)
                return
            case Code.GRADIENT:
                u, k = np.ogrid[: one.rows, : one.columns]
                places = one.offset + u * one.row_step + k * one.column_step
                np.add.at(self.written[one.layer], places, 1)
                self.read(slopes, one.out, one.rows)
                self.read(values, one.source, one.columns)
                return
            case _:
                raise AssertionError(one)
        self.write(one.panel, one.out, one.rows)


def holes_of(program: Any, like: Sequence[Any]) -> list[Any]:
    found = [np.zeros(len(one), bool) for one in like]
    for vector, start, count in program.holes:
        found[vector][start : start + count] = True
    return found


def allowed_of(flow: Any, chain: Chain) -> list[Any]:
    """Which numbers of each vector masks allow."""
    masks = {
        id(layer._parameters): layer.stairs.packed_mask()
        for layer in flow.modules()
        if isinstance(layer, mf.nn.MaskedLinear)
    }
    return [
        masks[id(held)]
        if name == "weight" and id(held) in masks
        else np.ones(held[name].numel(), bool)
        for held, name in chain.owners
    ]


def check_programs(flow: Any, *, inverse: bool) -> None:
    chain = flow.chain
    allowed = allowed_of(flow, chain)
    for kept in (False, True):
        way = chain.way(inverse=inverse, kept=kept)
        places = way.places
        walk = Walk(chain, places.height)
        walk.write(Panel.VALUES, 0, chain.features)
        walk.write(Panel.VALUES, places.context, chain.context)
        walk.run(way.there)
        walk.read(Panel.VALUES, places.total)
        walk.read(Panel.VALUES, places.outputs, chain.features)
        for used, real, hole in zip(
            walk.used, allowed, holes_of(way.there, walk.used), strict=True
        ):
            assert (used[real] == 1).all()
            assert (hole >= ((used > 0) & ~real)).all()
            assert not (hole & real).any()
    for x_wanted in (False, True):
        for c_wanted in {False, chain.context > 0}:
            back = copy.deepcopy(walk)
            back.used = [np.zeros_like(one) for one in back.used]
            back.write(Panel.SLOPES, places.total)
            if not way.is_density:
                back.write(Panel.SLOPES, places.outputs, chain.features)
            program = way.back(x_wanted, c_wanted, True)
            back.run(program)
            if x_wanted:
                back.read(Panel.SLOPES, 0, chain.features)
            if c_wanted:
                back.read(Panel.SLOPES, places.context, chain.context)
            for used, real, hole in zip(
                back.used, allowed, holes_of(program, back.used), strict=True
            ):
                assert (used[real] <= 1).all()
                assert (hole >= ((used > 0) & ~real)).all()
                assert not (hole & real).any()
            gradient = way.gradients((True,) * len(chain.owners))
            back.run(gradient)
            for written, real, hole in zip(
                back.written, allowed, holes_of(gradient, back.written), strict=True
            ):
                assert (written[real] == 1).all()
                assert (written <= 1).all()
                assert ((written > 0) | hole).all()
                assert not (hole & real).any()
            assert len(str(program).splitlines()) == len(program.operations)
            assert str(gradient).count("\n") + 1 == len(gradient.operations)


@every_univariate
@few
@given(cases(), st.booleans())
def test_programs_use_each_weight_once(options: dict[str, Any], case: Case, inverse: bool) -> None:
    check_programs(case.build(**options), inverse=inverse)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_programs_of_large_flows(inverse: bool, residual: bool) -> None:
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0)).tolist()
    case = Case(70, 3, order=tuple(order), hidden_features=(90, 80), residual=residual)
    check_programs(case.build(), inverse=inverse)


@settings(max_examples=5)
@given(cases(), st.booleans())
def test_programs_of_steps_of_every_kind(case: Case, inverse: bool) -> None:
    check_programs(mixed(case), inverse=inverse)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("layer", [mf.transforms.LULinear, mf.transforms.PLULinear])
def test_programs_of_linear_layers(layer: Any, inverse: bool) -> None:
    flow = Case(9, 2, hidden_features=(12,)).build(between=layer)
    for step in flow.transform.transforms:
        if isinstance(step, layer):
            nn.init.normal_(step.weight, std=0.1)
    check_programs(flow, inverse=inverse)


def test_programs_are_pure_data() -> None:
    case = Case(4, 2)
    one, same = (case.build().chain.way(inverse=False, kept=True) for _ in range(2))
    other = case.build(mf.flows.MAF, hidden_features=(9,)).chain.way(inverse=False, kept=True)
    assert one.there == same.there
    assert one.there != other.there
    assert one.back(True, True, True) == same.back(True, True, True)
    again = pickle.loads(pickle.dumps(one.there))
    assert again == one.there
    assert (again.holes == one.there.holes).all()


def test_gradients_that_are_not_wanted_are_not_summed_up() -> None:
    chain = Case(4, 2).build().chain
    way = chain.way(inverse=False, kept=True)
    wanted = [number % 2 == 0 for number in range(len(chain.owners))]
    program = way.gradients(tuple(wanted))
    assert {one.layer for one in program.operations} == {n for n, want in enumerate(wanted) if want}
    assert all(wanted[vector] for vector in program.holes[:, 0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_stands_in_memory_is_of_no_matter(activation: Callable[[], nn.Module]) -> None:
    """Not even nan, where a call before has left some, or new memory holds it."""
    case = Case(
        9, 2, hidden_features=(12, 7), activation=activation, order=(4, 2, 0, 1, 3, 8, 5, 7, 6)
    )
    flow = case.build()
    x, c = case.x(40), case.c(40)
    with torch.no_grad():
        flow(c).log_prob(x * torch.inf)
        flow(c).transform.inv(x * torch.nan)
    init = job.Panels.__init__

    def spoilt(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        self.memory.fill_(torch.nan)

    with mock.patch.object(job.Panels, "__init__", spoilt):
        found = flow(c).log_prob(x)
        ours = gradients([found], learned(flow))
        drawn = flow(c).rsample(generator=torch.Generator().manual_seed(0))
        theirs = gradients([drawn], learned(flow))
    expected = flow(c).log_prob(x)
    assert torch.equal(found, expected)
    close(ours, gradients([expected], learned(flow)), case)
    again = flow(c).rsample(generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    close(theirs, gradients([again], learned(flow)), case)
