"""IAF: MAF with its directions exchanged, cheap in both of them, with gradients in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from family import FLOWS, masked_steps
from maskedflow.kernels import Code, job
from oracles import autograd_ladjs, jacobian
from strategies import SMOOTH, Case, cases

FEATURES, TRANSFORMS = 40, 3


def pair(case: Case, **options: Any) -> tuple[mf.flows.Flow, mf.flows.Flow]:
    """A MAF and an IAF with the same weights."""
    maf, iaf = case.build(mf.flows.MAF, **options), case.build(mf.flows.IAF, **options)
    for ours, theirs in zip(masked_steps(iaf), masked_steps(maf), strict=True):
        ours.load_state_dict(theirs.state_dict())
    return maf, iaf


@given(cases())
def test_each_transform_is_mafs_inverted(case: Case) -> None:
    maf, iaf = pair(case)
    x, c = case.x(4), case.c(4)
    for ours, theirs in zip(iaf.transform.transforms, maf.transform.transforms, strict=True):
        torch.testing.assert_close(ours(c).inv(x), theirs(c)(x), **case.tolerance)
        torch.testing.assert_close(ours(c)(x), theirs(c).inv(x), **case.tolerance)


def reference_log_prob(flow: mf.flows.Flow, x: Tensor, c: Tensor | None) -> Tensor:
    """The log-density by the plain loop, which autograd sees all of."""
    total = torch.zeros(x.shape[:-1], dtype=x.dtype)
    for step in flow.transform.transforms:
        inner = step.transform(c)
        x = inner.reference_inverse(x)
        total = total - inner.meta(x).call_and_ladj(x)[1]
    return total + flow.base(None).log_prob(x)


@pytest.mark.parametrize("name", ["IAF", "IAF, spline"])
@given(cases(activations=SMOOTH, dtype=st.just(torch.float64)))
def test_gradients_of_the_log_density_are_those_of_the_reference_loop(
    name: str, case: Case
) -> None:
    flow = FLOWS[name](case)
    x, c = case.x(5).requires_grad_(), case.c(5)
    leaves = [x, *flow.parameters()]
    if c is not None:
        leaves.append(c.requires_grad_())
    weight = case.draw(5, seed=6)
    found = flow(c).log_prob(x)
    expected = reference_log_prob(flow, x, c)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)
    ours, theirs = (
        torch.autograd.grad((weight * log_prob).sum(), leaves, materialize_grads=True)
        for log_prob in (found, expected)
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-6)


def test_the_log_density_passes_gradcheck() -> None:
    case = Case(features=3, context=1, hidden_features=(5,))
    flow = case.build(mf.flows.IAF)
    x, c = case.x(2).requires_grad_(), case.c(2)
    assert c is not None
    assert torch.autograd.gradcheck(lambda x, c: flow(c).log_prob(x), (x, c.requires_grad_()))


def test_the_log_determinant_with_and_without_gradients_is_the_same() -> None:
    case = Case(features=5)
    flow = case.build(mf.flows.IAF)
    x = case.x(4)
    z, ladj = flow().transform.call_and_ladj(x)
    with torch.no_grad():
        z_plain, ladj_plain = flow().transform.call_and_ladj(x)
    assert ladj.requires_grad
    torch.testing.assert_close(z, z_plain)
    torch.testing.assert_close(ladj, ladj_plain)
    torch.testing.assert_close(ladj, autograd_ladjs(flow().transform, x))
    flow.requires_grad_(False)  # nothing to learn: x alone has gradients, or nothing has
    assert not flow().log_prob(x).requires_grad
    x.requires_grad_()
    (found,) = torch.autograd.grad(flow().log_prob(x).sum(), x)
    expected = jacobian(lambda x: reference_log_prob(flow, x, None), x.detach())
    torch.testing.assert_close(found, expected.sum(dim=0))


# -- what each direction costs --------------------------------------------------------------------


def passes_of(flow: nn.Module) -> list[int]:
    """A list that grows with each pass of a network, also with those inside of a backward pass."""
    made: list[int] = []

    def counted(net: mf.nn.MaskedMLP) -> Callable[..., Any]:
        run = net.evaluate

        def count(*arguments: Any) -> Any:
            made.append(1)
            return run(*arguments)

        return count

    for step in masked_steps(flow):
        step.hyper.evaluate = counted(step.hyper)
    return made


def affine_that_no_kernel_knows(shift: Tensor, scale: Tensor) -> mf.transforms.Transform:
    return mf.transforms.MonotonicAffineTransform(shift, scale)


def uses_of(flow: mf.flows.Flow, x: Tensor) -> dict[str, Callable[[], Any]]:
    """What a flow is used for."""
    return {
        "log_prob": torch.no_grad()(lambda: flow().log_prob(x)),
        "sample": lambda: flow().sample((7,)),
        "rsample_and_log_prob": torch.no_grad()(lambda: flow().rsample_and_log_prob((7,))),
        "training": lambda: flow().log_prob(x).sum().backward(),
        "variational training": lambda: flow().rsample_and_log_prob((7,))[1].sum().backward(),
    }


def costs_of(
    count: Callable[[nn.Module, Callable[[], Any]], Any], **options: Any
) -> dict[tuple[str, str], Any]:
    """What is counted in each use of a MAF and of an IAF."""
    case = Case(features=FEATURES, transforms=TRANSFORMS, hidden_features=(FEATURES,))
    return {
        (name, use): count(flow, call)
        for name, flow in zip(("maf", "iaf"), pair(case, **options), strict=True)
        for use, call in uses_of(flow, case.x(7)).items()
    }


def test_passes_of_the_networks_in_each_direction() -> None:
    """A sweep makes no pass at all; as a loop, which is the usual way, it would make D."""

    def passes(flow: nn.Module, call: Callable[[], Any]) -> int:
        made = passes_of(flow)
        call()
        return len(made)

    counts = costs_of(passes, univariate=affine_that_no_kernel_knows)
    assert counts["maf", "log_prob"] == counts["iaf", "sample"] == TRANSFORMS
    assert counts["maf", "sample"] == counts["iaf", "log_prob"] == 0
    assert counts["maf", "rsample_and_log_prob"] == 0
    assert counts["iaf", "rsample_and_log_prob"] == TRANSFORMS
    assert counts["maf", "training"] == counts["iaf", "variational training"] == TRANSFORMS
    # With gradients a sweep in torch operations makes one for its slopes and one for its ladj.
    assert counts["iaf", "training"] == counts["maf", "variational training"] == 2 * TRANSFORMS
    # As one program, a whole flow makes none either way.
    assert not any(costs_of(passes).values())

    case = Case(features=FEATURES, transforms=TRANSFORMS, hidden_features=(FEATURES,))
    _, iaf = pair(case)
    made = passes_of(iaf)
    reference_log_prob(iaf, case.x(7), None)
    assert len(made) == TRANSFORMS * (FEATURES + 1)


def test_a_whole_flow_is_one_program_in_each_direction() -> None:
    """It uses each weight about once, there and back, whichever way it goes."""

    def programs(_: nn.Module, call: Callable[[], Any]) -> list[int]:
        with mock.patch.object(job, "run_panels", wraps=job.run_panels) as run:
            call()
        return [multiplications(one.args[0]) for one in run.call_args_list]

    def multiplications(program: Any) -> int:
        products = [one for one in program.operations if one.code is Code.PRODUCT]
        return sum(one.rows * one.columns for one in products)

    found = costs_of(programs)
    (pass_there,), (sweep_there,) = found["maf", "log_prob"], found["iaf", "log_prob"]
    assert found["iaf", "sample"] == found["iaf", "rsample_and_log_prob"] == [pass_there]
    assert found["maf", "sample"] == found["maf", "rsample_and_log_prob"] == [sweep_there]
    case = Case(features=FEATURES, transforms=TRANSFORMS, hidden_features=(FEATURES,))
    layers = [layer for step in masked_steps(case.build()) for layer in step.hyper.layers]
    weights = sum(int(layer.stairs.packed_mask().sum()) for layer in layers)
    for use in ("training", "variational training"):
        for name in ("maf", "iaf"):
            there, back = found[name, use]
            assert weights <= there < 1.5 * weights
            assert 0.5 * weights < back < 1.5 * weights


def test_the_representation_tells_the_cost() -> None:
    flow = mf.flows.IAF(3, transforms=2)
    assert "(density): 2 × sweep, (samples): 2 × pass" in repr(flow)
    assert "(density): 2 × pass, (samples): 2 × sweep" in repr(mf.flows.MAF(3, transforms=2))
    assert "(density): 3 × pass, (samples): 3 × pass" in repr(mf.flows.NICE(3))
    assert "sweep" in str(mf.flows.IAF.__doc__)


def test_iaf_learns_by_maximum_likelihood_and_as_a_posterior() -> None:
    """The first needs the sweep's gradients, the second is what IAF was made for."""
    torch.manual_seed(0)
    mean, factor = torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.0], [0.8, 0.5]])
    target = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    for way in ("likelihood", "posterior"):
        source = torch.Generator().manual_seed(0)
        flow = mf.flows.IAF(2, transforms=2, hidden_features=(8,), generator=source)
        optimizer = torch.optim.Adam(flow.parameters(), lr=3e-2)
        for _ in range(250):
            if way == "likelihood":
                loss = -flow().log_prob(target.sample((200,))).mean()
            else:
                x, log_prob = flow().rsample_and_log_prob((200,))
                loss = (log_prob - target.log_prob(x)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        x = target.sample((4_000,))
        with torch.no_grad():
            divergence = (target.log_prob(x) - flow().log_prob(x)).mean()
        assert divergence < 0.05


def test_a_second_derivative_through_a_sweep_is_a_clear_error() -> None:
    case = Case(features=3)
    flow = case.build(mf.flows.IAF)
    x = case.x(2).requires_grad_()
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(flow().log_prob(x).sum(), x, create_graph=True)
    # torch.func is shown plain operations, and has one.
    score = torch.func.grad(lambda x: flow().log_prob(x))
    hessian = torch.func.jacrev(score)(x[0].detach())
    assert torch.isfinite(hessian).all()
    torch.testing.assert_close(hessian, hessian.T)


def test_a_coupling_may_be_inverted_as_well() -> None:
    flow = mf.flows.IAF(6, passes=2, activation=nn.Tanh)
    x, log_prob = flow().rsample_and_log_prob((5,))
    torch.testing.assert_close(flow().log_prob(x), log_prob, atol=1e-4, rtol=1e-4)


def test_batch_norm_keeps_its_direction_and_is_calibrated() -> None:
    flow = mf.flows.IAF(3, transforms=2, batch_norm=True)
    rows = 4 + 3 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    mf.training.calibrate(flow, mf.data.Split(rows))
    flow.eval()
    with torch.no_grad():
        z = flow().transform(rows)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(dim=0), torch.ones(3), atol=1e-2, rtol=0)
