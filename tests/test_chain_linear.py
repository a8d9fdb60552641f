"""Linear maps, permutations and unconditional maps in programs, against torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskedflow.chain import Chain
from maskedflow.data import Split
from maskedflow.flows import MAF, NSF, ElementWiseTransform, Flow
from maskedflow.training import TrainConfig, fit
from maskedflow.training.whole import WholeSteps
from maskedflow.transforms import (
    ActNorm,
    LazyTransform,
    LULinear,
    MonotonicMixtureTransform,
    MonotonicRQSTransform,
    Permutation,
    PLULinear,
)

ROWS = 75  # more than a panel, and the last one not full

LAZY: dict[str, Callable[[int], LazyTransform]] = {
    "lu": LULinear,
    "lu without bias": partial(LULinear, bias=False),
    "plu": PLULinear,
    "permutation": Permutation,
    "affine": ElementWiseTransform,
    "gaussian": partial(ElementWiseTransform, univariate="gaussian"),
    "additive": partial(ElementWiseTransform, univariate="additive"),
    "splines": partial(
        ElementWiseTransform, univariate=MonotonicRQSTransform, shapes=[(5,), (5,), (4,)]
    ),
    "splines of one bin": partial(
        ElementWiseTransform, univariate=MonotonicRQSTransform, shapes=[(1,), (1,), (0,)]
    ),
}


def stirred(module: nn.Module) -> Any:
    """The module with random parameters in double precision, no product of them large."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) / (1 + len(parameter)))
    return module


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], sources: list[Tensor]) -> None:
    """Values are equal, and the gradients of a random sum of them."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weights = [torch.randn_like(one) for one in found]
    gradients = [
        torch.autograd.grad(several, sources, weights, allow_unused=True, materialize_grads=True)
        for several in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("features", [1, 2, 6, 13, 40])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", LAZY)
def test_a_step_does_what_its_transform_does(kind: str, inverse: bool, features: int) -> None:
    lazy = stirred(LAZY[kind](features))
    lazy = lazy.inv if inverse else lazy
    steps = lazy.steps()
    assert steps is not None
    assert lazy.steps() == steps  # the same, or a chain would be built anew for each call
    chain = Chain(steps)
    x = torch.randn(ROWS, features, dtype=torch.float64, requires_grad=True)
    for transform, direction in ((lazy(), False), (lazy().inv, True)):
        y = transform(x)
        ladj = transform.log_abs_det_jacobian(x, y)
        ladj = (ladj if ladj.ndim == 1 else ladj.sum(-1)).expand(ROWS)
        vectors = chain.vectors(x, None)
        assert vectors is not None
        with torch.no_grad():
            again = chain(x, None, vectors, inverse=direction)
        torch.testing.assert_close(again, (y, ladj), rtol=1e-9, atol=1e-9)
        found = chain(x, None, vectors, inverse=direction)
        agree(found, (y, ladj + 0 * x.sum()), [x, *lazy.parameters()])


@pytest.mark.parametrize("between", [LULinear, PLULinear, Permutation])
@pytest.mark.parametrize(("features", "context"), [(1, 0), (5, 0), (5, 2)])
def test_a_flow_is_one_program(
    between: Callable[[int], LazyTransform], features: int, context: int
) -> None:
    core = NSF(features, context, transforms=3, hidden_features=[16], between=between)
    own = [] if context else [ElementWiseTransform(features)]
    first = [ActNorm(features), *own, PLULinear(features)]
    flow = stirred(Flow([*first, *core.transform.transforms], core.base)).eval()
    assert flow.chain is not None
    c = torch.randn(ROWS, context, dtype=torch.float64, requires_grad=True) if context else None
    x = torch.randn(ROWS, features, dtype=torch.float64, requires_grad=True)
    sources = [*flow.parameters()] if c is None else [*flow.parameters(), c]
    whole, parts = flow(c), flow.distribution(c)
    agree((whole.log_prob(x),), (parts.log_prob(x),), [x, *sources])
    agree((whole.log_prob(x),), (parts.log_prob(x),), sources)
    shape = () if context else (ROWS,)
    drawn = [
        one.rsample_and_log_prob(shape, generator=torch.Generator().manual_seed(1))
        for one in (whole, parts)
    ]
    agree(*drawn, sources)


def test_a_layer_without_context_refuses_one() -> None:
    core = MAF(3, context=2, transforms=1, hidden_features=[8])
    flow = Flow([ElementWiseTransform(3), *core.transform.transforms], core.base)
    with pytest.raises(ValueError, match=r"^c: expected no context"):
        flow(torch.zeros(2)).log_prob(torch.zeros(3))


def test_some_parameters_are_not_learned() -> None:
    flow = stirred(MAF(6, transforms=2, hidden_features=[8], between=LULinear))
    linear = flow.transform.transforms[1]
    linear.weight.requires_grad_(False)
    x = torch.randn(ROWS, 6, dtype=torch.float64)
    learned = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    agree((flow().log_prob(x),), (flow.distribution(None).log_prob(x),), learned)


def test_a_flow_needs_no_network_to_be_one_program() -> None:
    spline = partial(LAZY["splines"], 4)
    flow = stirred(Flow([spline(), LULinear(4), spline()], MAF(4).base))
    assert flow.chain is not None
    x = torch.randn(ROWS, 4, dtype=torch.float64)
    agree((flow().log_prob(x),), (flow.distribution(None).log_prob(x),), [*flow.parameters()])


def test_a_program_follows_another_order() -> None:
    flow = stirred(MAF(5, transforms=2, hidden_features=[8], between=Permutation))
    other = stirred(MAF(5, transforms=2, hidden_features=[8], between=Permutation))
    x = torch.randn(ROWS, 5, dtype=torch.float64)
    before = flow().log_prob(x)
    flow.load_state_dict(other.state_dict())
    assert not torch.allclose(flow().log_prob(x), before)
    torch.testing.assert_close(flow().log_prob(x), other().log_prob(x))
    flow.transform.transforms[1].order = torch.tensor([4, 3, 2, 1, 0])
    torch.testing.assert_close(flow().log_prob(x), flow.distribution(None).log_prob(x))


def test_a_weight_need_not_be_dense() -> None:
    flow = stirred(MAF(5, transforms=2, hidden_features=[8], between=LULinear))
    x = torch.randn(ROWS, 5, dtype=torch.float64)
    linear = flow.transform.transforms[1]
    before = flow().log_prob(x)
    linear.weight.data = linear.weight.data.t().contiguous().t()
    torch.testing.assert_close(flow().log_prob(x), before)


def test_what_the_kernel_does_not_know_is_left_to_torch() -> None:
    shapes = [(3,), (3,), (3,)]
    mixtures = ElementWiseTransform(4, univariate=MonotonicMixtureTransform, shapes=shapes)
    conditional = ElementWiseTransform(4, context=2)
    assert mixtures.steps() is None
    assert conditional.steps() is None


def modern(features: int) -> Flow:
    torch.manual_seed(0)
    core = NSF(features, transforms=2, hidden_features=[16] * 2, residual=True, between=LULinear)
    return Flow([ActNorm(features), *core.transform.transforms], core.base).double()


Programs = list[WholeSteps | None]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    """What training finds when it looks for a program."""
    found: Programs = []
    of = WholeSteps.of

    def noted(*arguments: Any) -> WholeSteps | None:
        found.append(of(*arguments))
        return found[-1]

    monkeypatch.setattr(WholeSteps, "of", noted)
    return found


def test_a_program_is_trained_as_torch_trains(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(500, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 3
    train, validation = Split(x[:400]), Split(x[400:])
    config = TrainConfig(epochs=2, batch_size=64)
    whole, parts = modern(4), modern(4)
    history = fit(whole, train, validation, config)
    assert programs[0] is not None
    monkeypatch.setattr(WholeSteps, "of", lambda *_: None)
    expected = fit(parts, train, validation, config)
    for one, other in zip(history.records, expected.records, strict=True):
        assert one.train_nll == pytest.approx(other.train_nll, rel=1e-9)
        assert one.validation_nll == pytest.approx(other.validation_nll, rel=1e-9)
    torch.testing.assert_close(whole.state_dict(), parts.state_dict(), rtol=1e-6, atol=1e-8)


def test_a_batch_norm_is_trained_by_torch_after_an_evaluation_too(programs: Programs) -> None:
    x = torch.randn(200, 3)
    flow = MAF(3, transforms=2, hidden_features=[8], batch_norm=True).eval()
    fit(flow, Split(x[:150]), Split(x[150:]), TrainConfig(epochs=1, batch_size=50))
    assert programs == [None]
