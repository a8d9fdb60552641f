"""One battery for every flow: what each of them promises, whatever its options."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from oracles import allowed, autograd_ladjs, check_inverse_pair, dependencies
from strategies import SMOOTH, UNIVARIATES, Case, cases, overwrite

Build = Callable[..., mf.flows.Flow]


def flow_with(kind: str, **options: Any) -> Build:
    def build(case: Case, noise: float = 0.3, **more: Any) -> mf.flows.Flow:
        flow = case.build(getattr(mf.flows, kind), noise, **options, **more)
        for module in flow.modules():
            if isinstance(module, mf.transforms.BatchNorm) and noise:
                mean, deviation = case.draw(2, case.features, seed=3)
                module.set_statistics(mean, deviation.exp())
        return flow.eval()

    return build


FLOWS: dict[str, Build] = {
    "MADE": flow_with("MADE"),
    "MAF": flow_with("MAF"),
    "MAF, batch norm": flow_with("MAF", batch_norm=True),
    "MAF, randperm": flow_with("MAF", randperm=True),
    **{
        f"MAF, {name}": flow_with("MAF", **options)
        for name, options in UNIVARIATES.items()
        if options
    },
}
every_flow = pytest.mark.parametrize("build", FLOWS.values(), ids=FLOWS.keys())
few = settings(max_examples=8)


@every_flow
@few
@given(cases(), st.sampled_from([(), (4,), (2, 3)]))
def test_round_trip(build: Build, case: Case, batch: tuple[int, ...]) -> None:
    flow = build(case, noise=0.2)
    x = case.x(*batch)
    check_inverse_pair(flow(case.c(*batch)).transform, x, **case.tolerance)


@every_flow
@few
@given(cases(dtype=st.just(torch.float64)))
def test_ladj_is_autograds(build: Build, case: Case) -> None:
    transform = build(case, noise=0.2)(case.c()).transform
    x = case.x(3)
    _, ladj = transform.call_and_ladj(x)
    torch.testing.assert_close(ladj, autograd_ladjs(transform, x), atol=1e-8, rtol=1e-8)
    z = case.draw(2, case.features, seed=4)
    _, ladj = transform.inv.call_and_ladj(z)
    torch.testing.assert_close(ladj, autograd_ladjs(transform.inv, z), atol=1e-7, rtol=1e-7)


@every_flow
@few
@given(cases(dtype=st.just(torch.float64)))
def test_the_jacobian_of_each_step_is_triangular_in_its_order(build: Build, case: Case) -> None:
    flow = build(case)
    x = case.x(3)
    steps = [
        step
        for step in flow.transform.transforms
        if isinstance(step, mf.flows.MaskedAutoregressiveTransform)
    ]
    assert len(steps) in (1, case.transforms)
    for number, step in enumerate(steps):
        found = dependencies(step(case.c()), x)
        assert found.diagonal().all()
        # Whatever the order, some permutation makes it triangular: no feature waits for itself.
        reach = found.double()
        for _ in range(case.features):
            reach = (reach @ found.double() > 0).double()
        assert not (reach.bool() & reach.bool().T & ~torch.eye(case.features).bool()).any()
        if build is not FLOWS["MAF, randperm"]:
            ranks = list(case.order or range(case.features))
            ranks = [case.features - 1 - rank for rank in ranks] if number % 2 else ranks
            expected = allowed(case.features, ranks, case.passes)
            assert not (found & ~expected & ~torch.eye(case.features).bool()).any()


@given(st.integers(2, 6), st.integers(0, 99))
def test_random_orders_differ_from_transform_to_transform(features: int, seed: int) -> None:
    case = Case(features=features, transforms=6, seed=seed)
    flow = case.build(randperm=True)
    found = [
        tuple(dependencies(step(), case.x(2)).sum(dim=1).tolist())
        for step in flow.transform.transforms
    ]
    assert all(sorted(ranks) == list(range(1, features + 1)) for ranks in found)
    assert features < 4 or len(set(found)) > 1


@every_flow
@few
@given(
    cases(
        features=st.just(1),
        context=st.integers(0, 1),
        activations=SMOOTH,
        dtype=st.just(torch.float64),
    )
)
def test_density_integrates_to_one_in_one_dimension(build: Build, case: Case) -> None:
    distribution = build(case)(case.c())
    samples = distribution.sample((2_000,), generator=torch.Generator().manual_seed(0))
    centre, width = samples.mean(), 15 * samples.std()
    grid = centre + width * torch.linspace(-1, 1, 40_001, dtype=torch.float64)[:, None]
    total = torch.trapezoid(distribution.log_prob(grid).exp(), grid[:, 0])
    assert abs(float(total.detach()) - 1) < 5e-3


@every_flow
@settings(max_examples=4)
@given(
    cases(
        features=st.just(2),
        context=st.integers(0, 1),
        activations=[nn.Tanh],
        dtype=st.just(torch.float64),
    )
)
def test_density_integrates_to_one_in_two_dimensions(build: Build, case: Case) -> None:
    flow = build(case.but(hidden_features=(6,)), noise=0.25)
    distribution = flow(case.c())
    samples = distribution.sample((4_000,), generator=torch.Generator().manual_seed(0))
    # Cells are sized by the bulk of the samples and reach past the last of them.
    low, high = samples.min(dim=0).values, samples.max(dim=0).values
    margin = 0.5 * (high - low)
    side = 350
    axes = [
        torch.linspace(float(a), float(b), side, dtype=torch.float64)
        for a, b in zip(low - margin, high + margin, strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        density = distribution.log_prob(grid).exp().reshape(side, side)
    total = torch.trapezoid(torch.trapezoid(density, axes[1]), axes[0])
    assert abs(float(total) - 1) < 1e-2


def sparse_gradients(flow: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in flow.named_parameters()
        if parameter.numel() and (parameter.grad is None or not parameter.grad.any())
    ]


@every_flow
@few
@given(cases(activations=SMOOTH, dtype=st.just(torch.float64)))
def test_gradients_reach_every_parameter(build: Build, case: Case) -> None:
    flow = build(case.but(degrees="sequential"))
    c = case.c(8)
    flow(c).log_prob(case.x(8)).sum().backward()
    assert not sparse_gradients(flow)
    flow.zero_grad()
    x = flow(c).rsample((8,), generator=torch.Generator().manual_seed(1))
    (x.sin() + x.square()).sum().backward()
    assert not sparse_gradients(flow)
    flow.zero_grad()
    x, log_prob = flow(c).rsample_and_log_prob((8,), torch.Generator().manual_seed(1))
    (log_prob.sum() + x.sin().sum()).backward()
    assert not sparse_gradients(flow)


@pytest.mark.parametrize("residual", [False, True])
def test_gradients_reach_every_single_weight_that_the_masks_allow(residual: bool) -> None:
    case = Case(features=5, context=2, transforms=2, residual=residual, hidden_features=(9, 9))
    flow = case.build()
    flow(case.c(16)).log_prob(case.x(16)).sum().backward()
    dense = {name: value for name, value in flow.state_dict().items() if "weight" in name}
    for name, parameter in flow.named_parameters():
        allowed_weights = dense.get(name, parameter)
        assert parameter.grad is not None
        assert int((parameter.grad != 0).sum()) == int((allowed_weights != 0).sum()), name


@every_flow
@few
@given(cases(context=st.integers(1, 3), activations=SMOOTH, dtype=st.just(torch.float64)))
def test_each_context_feature_changes_every_output(build: Build, case: Case) -> None:
    flow = build(case)
    x, c = case.x(), case.c()
    assert c is not None
    found = dependencies(lambda c: flow(c).transform(x), c[None])
    assert found.shape == (case.features, case.context)
    assert found.all()
    found = dependencies(lambda c: flow(c).transform.inv(x), c[None])
    assert found.all()


@every_flow
@few
@given(cases(features=st.just(1)))
def test_one_feature(build: Build, case: Case) -> None:
    flow = build(case)
    x, c = case.x(5), case.c(5)
    assert flow(c).log_prob(x).shape == (5,)
    assert flow(c).sample((2,)).shape == ((2, 1) if c is None else (2, 5, 1))
    check_inverse_pair(flow(c).transform, x, **case.tolerance)


@every_flow
@few
@given(cases())
def test_a_new_flow_is_near_the_identity(build: Build, case: Case) -> None:
    flow = build(case, noise=0)
    x = case.x(20)
    z, ladj = flow(case.c(20)).transform.call_and_ladj(x)
    assert (z - x).abs().max() < 0.3
    assert ladj.abs().max() < 0.3 * case.features


@every_flow
@few
@given(cases())
def test_state_dict_round_trip_into_a_flow_of_another_seed(build: Build, case: Case) -> None:
    """Also where degrees and orders were random: they are part of the state."""
    flow = build(case)
    other = build(case.but(seed=case.seed + 1))
    x, c = case.x(4), case.c(4)
    data = safetensors.torch.save({k: v.contiguous() for k, v in flow.state_dict().items()})
    other.load_state_dict(safetensors.torch.load(data))
    assert torch.equal(other(c).log_prob(x), flow(c).log_prob(x))
    source = torch.Generator().manual_seed(0)
    again = torch.Generator().manual_seed(0)
    torch.testing.assert_close(
        other(c).sample((2,), source), flow(c).sample((2,), again), **case.tolerance
    )


@every_flow
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_whole_module_copies(build: Build, way: str, used: bool) -> None:
    case = Case(features=4, context=2, order=(2, 0, 3, 1))
    flow = build(case)
    x, c = case.x(4), case.c(4)
    if used:
        flow(c).log_prob(x).sum().backward()
        flow(c).sample()
    other = copy.deepcopy(flow) if way == "deepcopy" else pickle.loads(pickle.dumps(flow))
    expected = flow(c).log_prob(x)
    assert torch.equal(other(c).log_prob(x), expected)
    overwrite(other, 0.4, seed=9)
    assert torch.equal(flow(c).log_prob(x), expected)
    y, log_prob = other(c).rsample_and_log_prob()
    torch.testing.assert_close(other(c).log_prob(y), log_prob)


@every_flow
def test_nothing_stale_after_weights_change(build: Build) -> None:
    case = Case(features=5, context=2, transforms=2)
    flow = build(case)
    c = case.c(3)
    for seed in range(3):
        overwrite(flow, 0.3, seed)
        x, log_prob = flow(c).rsample_and_log_prob((4,))
        torch.testing.assert_close(flow(c).log_prob(x), log_prob, atol=1e-7, rtol=1e-7)
        flow.zero_grad()
        (x.square().sum() + log_prob.sum()).backward()
        torch.optim.SGD(flow.parameters(), lr=1e-3).step()
        x, log_prob = flow(c).rsample_and_log_prob((4,))
        torch.testing.assert_close(flow(c).log_prob(x), log_prob, atol=1e-7, rtol=1e-7)


@every_flow
def test_moving_between_dtypes_after_use(build: Build) -> None:
    case = Case(features=4, context=2, dtype=torch.float32)
    flow = build(case)
    x, c = case.x(3), case.c(3)
    assert c is not None
    single = flow(c).log_prob(x)
    flow(c).sample()
    flow = flow.double()
    double = flow(c.double()).log_prob(x.double())
    assert double.dtype == flow(c.double()).sample().dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=1e-3)
    flow = flow.float()
    assert flow(c).sample().dtype == torch.float32
    torch.testing.assert_close(flow(c).log_prob(x), single)


@every_flow
def test_inference_mode_does_not_spoil_training(build: Build) -> None:
    case = Case(features=4, context=2)
    flow = build(case)
    x, c = case.x(3), case.c(3)
    with torch.inference_mode():
        expected = flow(c).log_prob(x)
        assert flow(c).sample((2,)).shape == (2, 3, 4)
    flow(c).log_prob(x).sum().backward()
    flow(c).rsample().sum().backward()
    assert not sparse_gradients(flow)
    torch.testing.assert_close(flow(c).log_prob(x), expected.clone())


# -- torch.func -----------------------------------------------------------------------------------


@every_flow
@few
@given(cases())
def test_vmap_over_x_and_context(build: Build, case: Case) -> None:
    flow = build(case)
    x, c = case.x(4), case.c(4)
    expected = flow(c).log_prob(x)
    if c is None:
        mapped = torch.func.vmap(lambda x: flow().log_prob(x))(x)
    else:
        mapped = torch.func.vmap(lambda x, c: flow(c).log_prob(x))(x, c)
    torch.testing.assert_close(mapped, expected, **case.tolerance)
    if c is not None:  # one x under many contexts
        mapped = torch.func.vmap(lambda c: flow(c).log_prob(x[0]))(c)
        torch.testing.assert_close(mapped, flow(c).log_prob(x[0]), **case.tolerance)


@every_flow
@few
@given(cases(dtype=st.just(torch.float64)))
def test_vmap_over_the_inverse(build: Build, case: Case) -> None:
    flow = build(case)
    z, c = case.x(4), case.c(4)
    expected = flow(c).transform.inv(z)
    if c is None:
        mapped = torch.func.vmap(flow().transform.inv)(z)
    else:
        mapped = torch.func.vmap(lambda z, c: flow(c).transform.inv(z))(z, c)
    torch.testing.assert_close(mapped, expected, **case.tolerance)


@every_flow
@few
@given(cases(dtype=st.just(torch.float64), activations=SMOOTH))
def test_functional_jacobians_and_scores(build: Build, case: Case) -> None:
    flow = build(case)
    x, c = case.x(3), case.c()
    transform = flow(c).transform
    jacobians = torch.func.vmap(torch.func.jacrev(transform))(x)
    ladj = transform.call_and_ladj(x)[1]
    torch.testing.assert_close(torch.linalg.slogdet(jacobians).logabsdet, ladj)
    scores = torch.func.vmap(torch.func.grad(lambda x: flow(c).log_prob(x)))(x)
    y = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(flow(c).log_prob(y).sum(), y)
    torch.testing.assert_close(scores, expected)


@every_flow
def test_gradients_of_each_example_and_ensembles(build: Build) -> None:
    case = Case(features=3, context=2)
    flow = build(case)
    x, c = case.x(4), case.c(4)
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


@every_flow
@settings(max_examples=5)
@given(cases(dtype=st.just(torch.float64), activations=SMOOTH, features=st.integers(1, 3)))
def test_second_derivatives(build: Build, case: Case) -> None:
    """Score matching and curvature need the gradient of a gradient."""
    flow = build(case)
    c = case.c()
    x = case.x(2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: flow(c).log_prob(x), (x,))


# -- where randomness comes from ------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"randperm": True}, {"degrees": "random"}], ids=str)
def test_a_generator_decides_the_new_flow(options: dict[str, Any]) -> None:
    def build(seed: int) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(seed)
        flow = mf.flows.MAF(5, 2, hidden_features=(16, 16), generator=source, **options)
        return flow.state_dict()

    before = torch.get_rng_state()
    first, second, other = build(1), build(1), build(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert any(not torch.equal(other[name], value) for name, value in first.items())


def test_without_a_generator_the_global_seed_decides() -> None:
    def build(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return overwrite(mf.flows.MAF(4, randperm=True), 0)().log_prob(torch.ones(4))

    assert torch.equal(build(3), build(3))
    assert not torch.equal(build(3), build(4))


# -- errors ---------------------------------------------------------------------------------------


def shows(error: pytest.ExceptionInfo[ValueError], *names: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 200
    for name in names:
        assert name in message, f"{name!r} not in {message!r}"


BAD_X = [(torch.zeros(4), "(4,)"), (torch.zeros(5, 2), "(5, 2)"), (torch.zeros(()), "()")]


@every_flow
@pytest.mark.parametrize(("x", "shape"), BAD_X)
def test_x_of_the_wrong_shape(build: Build, x: Tensor, shape: str) -> None:
    flow = build(Case(features=3, dtype=torch.float32))
    with pytest.raises(ValueError, match="x") as error:
        flow().log_prob(x)
    shows(error, "x", shape, "3")
    for f in (flow().transform, flow().transform.inv):
        with pytest.raises(ValueError, match="expected") as error:
            f.call_and_ladj(x)
        shows(error, shape, "3")


def test_x_of_the_wrong_width_with_one_feature() -> None:
    """Nothing of a one-feature flow depends on x: a wider x must not broadcast silently."""
    with pytest.raises(ValueError, match="x") as error:
        mf.flows.MAF(1)().log_prob(torch.zeros(5, 2))
    shows(error, "x", "(5, 2)", "1")


@every_flow
def test_a_missing_context(build: Build) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"\bc\b|context") as error:
        flow().log_prob(torch.zeros(5, 3))
    shows(error, "context", "2")
    with pytest.raises(ValueError, match=r"\bc\b|context"):
        flow().sample((2,))


@every_flow
def test_a_needless_context(build: Build) -> None:
    flow = build(Case(features=3, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"\bc\b|context") as error:
        flow(torch.zeros(5, 2)).log_prob(torch.zeros(5, 3))
    shows(error, "context", "(5, 2)")


@every_flow
@pytest.mark.parametrize(("c", "shape"), [(torch.zeros(4), "(4,)"), (torch.zeros(5, 1), "(5, 1)")])
def test_a_context_of_the_wrong_shape(build: Build, c: Tensor, shape: str) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    with pytest.raises(ValueError, match="c") as error:
        flow(c).log_prob(torch.zeros(5, 3))
    shows(error, "c", shape, "2")


@every_flow
def test_batches_that_do_not_broadcast(build: Build) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    with pytest.raises((ValueError, RuntimeError)) as error:
        flow(torch.zeros(4, 2)).log_prob(torch.zeros(5, 3))
    assert "4" in str(error.value)
    assert "5" in str(error.value)


@every_flow
@given(st.integers(0, 4), st.integers(0, 2))
@few
def test_nan_in_x(build: Build, row: int, column: int) -> None:
    flow = build(Case(features=3, dtype=torch.float32))
    x = torch.zeros(5, 3)
    x[row, column] = torch.nan
    with pytest.raises(ValueError, match="NaN") as error:
        flow().log_prob(x)
    shows(error, "x", str(row), str(column))


def test_nan_beside_infinities_in_x() -> None:
    x = torch.tensor([[torch.inf, 0.0], [-torch.inf, 0.0]])
    log_prob = mf.flows.MAF(2)().log_prob(x)
    assert log_prob.shape == (2,)
    assert not (log_prob > 0).any()
    x[1, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        mf.flows.MAF(2)().log_prob(x)


def test_large_finite_x_is_no_nan() -> None:
    """The sum of these overflows; none of them is NaN."""
    x = torch.full((4, 2), 3e38)
    assert mf.flows.MAF(2)().log_prob(x).shape == (4,)


@every_flow
def test_nan_in_the_context(build: Build) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    c = torch.zeros(5, 2)
    c[2, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN") as error:
        flow(c).log_prob(torch.zeros(5, 3))
    shows(error, "c", "2", "1")
    with pytest.raises(ValueError, match="NaN"):
        flow(c).sample()


# -- batch norm inside a flow -----------------------------------------------------------------


def test_batch_norm_follows_every_transform() -> None:
    flow = mf.flows.MAF(3, transforms=4, batch_norm=True)
    kinds = [type(step).__name__ for step in flow.transform.transforms]
    assert kinds == ["MaskedAutoregressiveTransform", "BatchNorm"] * 4


def test_batch_norm_in_training_normalises_the_latent_and_counts_it() -> None:
    flow = mf.flows.MAF(3, transforms=2, batch_norm=True).train()
    x = 50 + 20 * torch.randn(200, 3)
    transform = flow().transform
    z, ladj = transform.call_and_ladj(x)
    assert z.mean(dim=0).abs().max() < 1e-3
    assert (z.std(dim=0) - 1).abs().max() < 2e-2
    expected = -x.std(dim=0, correction=0).log().sum()
    assert (ladj.mean() - expected).abs() < 0.5


# -- wide flows: several slabs, several blocks ----------------------------------------------------


@pytest.mark.parametrize("features", [33, 48, 70])
@pytest.mark.parametrize("degrees", ["sequential", "random"])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_wide_flow(features: int, degrees: str, ordered: bool) -> None:
    source = torch.Generator().manual_seed(1)
    order = tuple(torch.randperm(features, generator=source).tolist()) if ordered else None
    case = Case(
        features=features,
        context=2,
        transforms=2,
        order=order,
        hidden_features=(100, 80),
        degrees=degrees,
    )
    flow = case.build(noise=0.1)
    x, c = case.x(3), case.c(3)
    transform = flow(c).transform
    check_inverse_pair(transform, x, atol=1e-7, rtol=1e-7)
    row = flow(None if c is None else c[0]).transform
    torch.testing.assert_close(row.call_and_ladj(x[:1])[1], autograd_ladjs(row, x[:1]))
    first = flow.transform.transforms[0]
    found = dependencies(first(c[0]), x[:1])
    expected = allowed(features, order, None) | torch.eye(features).bool()
    assert torch.equal(found, expected)


@given(cases(activations=SMOOTH, features=st.integers(2, 8), dtype=st.just(torch.float64)))
def test_orders_that_mix_every_feature_with_every_other(case: Case) -> None:
    """Two transforms in opposite orders let each latent depend on each feature."""
    assume(case.passes is None or case.passes == case.features)
    flow = case.but(transforms=2, passes=None, degrees="sequential").build()
    found = dependencies(flow(case.c()).transform, case.x(3))
    assert found.all()
