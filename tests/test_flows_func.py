"""The battery, third part: every flow under torch.func, and second derivatives."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from family import Entry, every_flow, flows_that_promise
from strategies import SMOOTH, Case, cases, few, overwrite


@every_flow
@few
@given(cases())
def test_vmap_over_x_and_context(build: Entry, case: Case) -> None:
    flow = build(case)
    x, c = build.x(case, 4), case.c(4)
    expected = flow(c).log_prob(x)
    if c is None:
        mapped = torch.func.vmap(lambda x: flow().log_prob(x))(x)
    else:
        mapped = torch.func.vmap(lambda x, c: flow(c).log_prob(x))(x, c)
    torch.testing.assert_close(mapped, expected, **case.tolerance)
    if c is not None:  # one x under many contexts
        mapped = torch.func.vmap(lambda c: flow(c).log_prob(x[0]))(c)
        torch.testing.assert_close(mapped, flow(c).log_prob(x[0]), **case.tolerance)


@flows_that_promise("inverse", "functional inverse")
@few
@given(cases(dtype=st.just(torch.float64)))
def test_vmap_over_the_inverse(build: Entry, case: Case) -> None:
    flow = build(case)
    z, c = build.x(case, 4), case.c(4)
    expected = flow(c).transform.inv(z)
    if c is None:
        mapped = torch.func.vmap(flow().transform.inv)(z)
    else:
        mapped = torch.func.vmap(lambda z, c: flow(c).transform.inv(z))(z, c)
    torch.testing.assert_close(mapped, expected, **case.tolerance)


@flows_that_promise("inverse")
@few
@given(cases(dtype=st.just(torch.float64), activations=SMOOTH))
def test_functional_jacobians_and_scores(build: Entry, case: Case) -> None:
    flow = build(case)
    x, c = build.x(case, 3), case.c()
    transform = flow(c).transform
    jacobians = torch.func.vmap(torch.func.jacrev(transform))(x)
    ladj = transform.call_and_ladj(x)[1]
    torch.testing.assert_close(torch.linalg.slogdet(jacobians).logabsdet, ladj)
    scores = torch.func.vmap(torch.func.grad(lambda x: flow(c).log_prob(x)))(x)
    y = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(flow(c).log_prob(y).sum(), y)
    torch.testing.assert_close(scores, expected)


@every_flow
def test_gradients_of_each_example_and_ensembles(build: Entry) -> None:
    case = Case(features=3, context=2)
    flow = build(case)
    x, c = build.x(case, 4), case.c(4)
    assert c is not None
    parameters = {k: v.detach() for k, v in flow.named_parameters()}

    class Score(nn.Module):
        def __init__(self, flow: nn.Module) -> None:
            super().__init__()
            self.flow = flow

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            return self.flow(c).log_prob(x)

    score = Score(flow)
    named = {f"flow.{k}": v for k, v in parameters.items()}

    def one(p: dict[str, Tensor], x: Tensor, c: Tensor) -> Tensor:
        return torch.func.functional_call(score, p, (x, c))

    each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(named, x, c)
    flow.zero_grad()
    flow(c).log_prob(x).sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(each[f"flow.{name}"].sum(dim=0), parameter.grad)

    members = [build(case), overwrite(build(case), 0.2, seed=8)]
    stacked, buffers = torch.func.stack_module_state([Score(m) for m in members])
    together = torch.func.vmap(
        lambda p, b: torch.func.functional_call(score, (p, b), (x, c)), randomness="error"
    )(stacked, buffers)
    expected = torch.stack([m(c).log_prob(x) for m in members])
    torch.testing.assert_close(together, expected)


@flows_that_promise("second derivative")
@few
@given(cases(dtype=st.just(torch.float64), activations=SMOOTH, features=st.integers(1, 2)))
def test_second_derivatives(build: Entry, case: Case) -> None:
    """Score matching and curvature need the gradient of a gradient."""
    flow = build(case)
    c = case.c()
    x = build.x(case, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: flow(c).log_prob(x), (x,))
