"""The layers between transforms: linear maps, permutations, normalisation, residual maps."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import ExpTransform

import maskedflow as mf
from maskedflow.transforms import (
    ActNorm,
    BatchNorm,
    LULinear,
    LULinearTransform,
    MonotonicAffineTransform,
    MonotonicRQSTransform,
    Permutation,
    Residual,
    ResidualTransform,
    RotationTransform,
)
from oracles import autograd_ladjs, check_inverse_pair
from strategies import overwrite

TIGHT = {"atol": 1e-9, "rtol": 1e-8}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


# -- linear maps ----------------------------------------------------------------------------------

batches = st.sampled_from([(), (3,), (2, 3)])


@given(st.integers(1, 6), batches, st.integers(0, 99), st.booleans())
def test_lu_linear_is_the_product(
    features: int, batch: tuple[int, ...], seed: int, shifted: bool
) -> None:
    LU = draw(features, features, seed=seed) + 2 * torch.eye(features)
    bias = draw(features, seed=seed + 1) if shifted else None
    transform = LULinearTransform(LU, bias)
    lower, upper = LU.tril(), LU - LU.tril() + torch.eye(features)
    x = draw(*batch, features, seed=seed + 2)
    matrix = lower @ upper
    expected = torch.stack([matrix @ row for row in x.reshape(-1, features)]).view(x.shape)
    torch.testing.assert_close(transform(x), expected + (bias if shifted else 0), **TIGHT)
    check_inverse_pair(transform, x, atol=1e-7, rtol=1e-7)
    ladj = transform.call_and_ladj(x)[1]
    torch.testing.assert_close(ladj, torch.linalg.slogdet(matrix).logabsdet.expand(batch))


@given(st.integers(1, 6), batches, st.integers(0, 99))
def test_rotation_is_orthogonal(features: int, batch: tuple[int, ...], seed: int) -> None:
    transform = RotationTransform(draw(features, features, seed=seed))
    x = draw(*batch, features, seed=seed + 2)
    y, ladj = transform.call_and_ladj(x)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), **TIGHT)
    assert torch.equal(ladj, torch.zeros(batch, dtype=torch.float64))
    check_inverse_pair(transform, x, **TIGHT)
    matrix = torch.autograd.functional.jacobian(transform, x.reshape(-1, features)[0])
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(()).double(), **TIGHT)


@pytest.mark.parametrize("kind", [LULinearTransform, RotationTransform])
def test_a_matrix_for_each_row(kind: type[LULinearTransform]) -> None:
    matrices = draw(4, 3, 3) + 2 * torch.eye(3)
    x = draw(2, 4, 3, seed=1)
    transform = kind(matrices)
    y, ladj = transform.call_and_ladj(x)
    for i in range(4):
        y_i, ladj_i = kind(matrices[i]).call_and_ladj(x[:, i])
        torch.testing.assert_close(y[:, i], y_i, **TIGHT)
        torch.testing.assert_close(ladj[:, i], ladj_i, **TIGHT)
    check_inverse_pair(transform, x, **TIGHT)
    assert transform.call_and_ladj(x[0, 0])[1].shape == (4,)  # one x under many matrices


@pytest.mark.parametrize("kind", [LULinearTransform, RotationTransform])
def test_what_is_no_square_matrix_is_a_clear_error(kind: type[LULinearTransform]) -> None:
    for shape in ((3,), (2, 3), (4, 2, 3)):
        with pytest.raises(ValueError, match=r"expected shape \(\*, D, D\)") as error:
            kind(torch.zeros(shape))
        assert str(shape) in str(error.value)
    for f in (kind(torch.eye(3)), kind(torch.eye(3)).inv):
        with pytest.raises(ValueError, match=r"expected shape \(\*, 3\), got \(5, 1\)"):
            f.call_and_ladj(torch.zeros(5, 1))


@given(st.integers(1, 5), st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_lu_linear_starts_as_the_identity_and_learns_any_part(
    features: int, dtype: torch.dtype, bias: bool
) -> None:
    layer = LULinear(features, bias=bias).to(dtype)
    x = draw(4, features, dtype=dtype)
    y, ladj = layer().call_and_ladj(x)
    assert torch.equal(y, x)
    assert (ladj == 0).all()
    assert y.dtype == ladj.dtype == dtype
    overwrite(layer, 0.5)
    torch.testing.assert_close(layer().call_and_ladj(x)[1], autograd_ladjs(layer(), x))
    (layer()(x).square().sum() + layer().call_and_ladj(x)[1].sum()).backward()
    assert all((p.grad != 0).all() for p in layer.parameters() if p.grad is not None)
    assert sum(p.numel() for p in layer.parameters()) == features * (features + bias)


def test_lu_linear_keeps_its_determinant_positive_wherever_its_weights_go() -> None:
    layer = overwrite(LULinear(3).double(), 20)
    matrix = torch.autograd.functional.jacobian(layer(), torch.zeros(3).double())
    assert torch.linalg.det(matrix) > 0
    torch.testing.assert_close(layer().call_and_ladj(draw(3))[1], layer.weight.diagonal().sum())


# -- permutations ---------------------------------------------------------------------------------


def test_a_random_permutation_is_drawn_from_the_generator_only() -> None:
    before = torch.get_rng_state()
    orders = [
        Permutation(20, generator=torch.Generator().manual_seed(seed)).order.tolist()
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(20))


def test_a_permutation_is_part_of_the_state() -> None:
    layer, other = (Permutation(9, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    x = draw(2, 9)
    assert not torch.equal(layer()(x), other()(x))
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(layer.state_dict())))
    assert torch.equal(layer()(x), other()(x))
    assert not list(layer.parameters())
    assert "..." not in repr(layer)
    assert "..." in repr(Permutation(11))


def test_a_given_order_is_copied() -> None:
    order = torch.tensor([1, 2, 0])
    layer = Permutation(3, order)
    order.zero_()
    assert layer.order.tolist() == [1, 2, 0]
    check_inverse_pair(layer(), draw(4, 3), **TIGHT)


def test_orders_that_do_not_fit_are_clear_errors() -> None:
    with pytest.raises(ValueError, match="order: expected 4 features, got 3"):
        Permutation(4, [0, 2, 1])
    with pytest.raises(ValueError, match="order: expected a permutation"):
        Permutation(3, [0, 1, 1])
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 3\), got \(2, 4\)"):
        Permutation(3, [0, 2, 1])()(torch.zeros(2, 4))


# -- ActNorm --------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(2, 9), st.sampled_from([torch.float32, torch.float64]))
def test_act_norm_standardizes_the_first_batch_only(
    features: int, rows: int, dtype: torch.dtype
) -> None:
    layer = ActNorm(features).to(dtype).train()
    x = 5 + 3 * draw(rows, features, dtype=dtype)
    y, ladj = layer().call_and_ladj(x)
    deviation = x.std(dim=0, correction=0)
    torch.testing.assert_close(y, (x - x.mean(dim=0)) / deviation, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ladj, -deviation.log().sum().expand(rows), atol=1e-4, rtol=1e-4)
    assert y.dtype == ladj.dtype == dtype
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    other = 100 * draw(rows, features, seed=7, dtype=dtype)
    y = layer()(other)
    layer.eval()
    assert torch.equal(layer()(other), y)
    assert all(torch.equal(state[name], value) for name, value in layer.state_dict().items())


def test_act_norm_is_the_identity_until_it_is_trained() -> None:
    layer = ActNorm(3).double().eval()
    x = 5 + draw(4, 3)
    y, ladj = layer().call_and_ladj(x)
    assert torch.equal(y, x)
    assert (ladj == 0).all()
    assert not layer.initialized
    layer.train()
    assert torch.equal(layer().inv(x), x)  # samples drawn in training do not initialize it
    assert not layer.initialized
    layer()(x)
    assert layer.initialized
    check_inverse_pair(layer(), x, **TIGHT)
    torch.testing.assert_close(layer().call_and_ladj(x)[1], autograd_ladjs(layer(), x), **TIGHT)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state"])
@pytest.mark.parametrize("trained", [False, True])
def test_the_flag_of_act_norm_survives(way: str, trained: bool) -> None:
    layer = ActNorm(2).train()
    if trained:
        layer()(5 + torch.randn(9, 2))
    if way == "state":
        other = ActNorm(2)
        other.load_state_dict(safetensors.torch.load(safetensors.torch.save(layer.state_dict())))
    else:
        other = copy.deepcopy(layer) if way == "deepcopy" else pickle.loads(pickle.dumps(layer))
    assert bool(other.initialized) == trained
    x = 100 + torch.randn(9, 2)
    y = other.train()()(x)
    assert bool((y.mean(dim=0).abs() < 1e-3).all()) != trained


def test_act_norm_refuses_a_first_batch_of_one_row() -> None:
    layer = ActNorm(2).train()
    for x in (torch.randn(1, 2), torch.randn(2)):
        with pytest.raises(ValueError, match="at least 2 rows, got 1") as error:
            layer()(x)
        assert "\n" not in str(error.value)
    assert not layer.initialized
    layer()(torch.randn(2, 2))
    assert layer()(torch.randn(1, 2)).shape == (1, 2)
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 2\), got \(4, 3\)"):
        ActNorm(2)().call_and_ladj(torch.zeros(4, 3))


def test_act_norm_of_a_constant_column_is_finite() -> None:
    layer = ActNorm(2).train()
    y, ladj = layer().call_and_ladj(torch.ones(5, 2))
    assert (y == 0).all()
    assert torch.isfinite(ladj).all()


def test_act_norm_learns() -> None:
    layer = ActNorm(3).double().train()
    x = draw(6, 3)
    y, ladj = layer().call_and_ladj(x)
    (y.pow(3).sum() + ladj.sum()).backward()
    assert all((p.grad != 0).all() for p in layer.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in layer.parameters())


def test_training_a_flow_with_act_norm_initializes_each_from_what_reaches_it() -> None:
    flow = mf.flows.MAF(3, transforms=3, between=ActNorm, hidden_features=(8,)).double().train()
    x = 20 + 9 * draw(200, 3)
    optimizer = torch.optim.SGD(flow.parameters(), lr=1e-3)
    loss = -flow().log_prob(x).mean()
    loss.backward()
    optimizer.step()
    norms = [m for m in flow.modules() if isinstance(m, ActNorm)]
    assert len(norms) == 2
    assert all(norm.initialized for norm in norms)
    assert loss < 30  # far from the 300 that raw values would cost under N(0, I)
    flow.eval()
    expected = flow().log_prob(x)
    assert torch.equal(flow().log_prob(x), expected)


# -- batch norm: what the flag, one feature, and the running average owe ---------------------------


@given(st.integers(1, 4), st.integers(2, 5), st.floats(0.05, 1))
def test_batch_norms_running_average_by_hand(features: int, steps: int, momentum: float) -> None:
    layer = BatchNorm(features, momentum=momentum).double().train()
    batches = [3 + 2 * draw(6, features, seed=seed) for seed in range(steps)]
    for batch in batches:
        layer()(batch)
    mean, variance = batches[0].mean(dim=0), batches[0].var(dim=0, correction=0)
    for batch in batches[1:]:
        mean = (1 - momentum) * mean + momentum * batch.mean(dim=0)
        variance = (1 - momentum) * variance + momentum * batch.var(dim=0, correction=0)
    torch.testing.assert_close(layer.mean, mean, **TIGHT)
    torch.testing.assert_close(layer.variance, variance, **TIGHT)
    assert layer.batches == steps
    # Loaded elsewhere, the next batch goes on with the average rather than starting it anew.
    other = BatchNorm(features, momentum=momentum).double().train()
    other.load_state_dict(layer.state_dict())
    layer()(batches[0])
    other()(batches[0])
    assert torch.equal(other.mean, layer.mean)


def test_the_averages_hold_no_graph_and_follow_the_dtype() -> None:
    layer = BatchNorm(1).train()
    for _ in range(2):
        layer()(draw(5, 1, dtype=torch.float32).requires_grad_())
    assert not layer.mean.requires_grad
    assert layer.mean.grad_fn is None
    layer.double()
    assert layer()(draw(5, 1)).dtype == layer.variance.dtype == torch.float64
    assert layer.batches == 3


def test_gradients_of_a_flow_through_the_statistics_of_its_batch_norms() -> None:
    flow = mf.flows.MAF(
        2, transforms=2, batch_norm=True, hidden_features=(4,), activation=nn.Tanh
    ).double()
    overwrite(flow, 0.3).train()
    x = draw(5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: flow().log_prob(x), (x,))


# -- residual maps --------------------------------------------------------------------------------

BASES: dict[str, Any] = {
    "affine": lambda n: MonotonicAffineTransform(draw(n, seed=1), draw(n, seed=2)),
    "spline": lambda n: MonotonicRQSTransform(
        draw(n, 5, seed=1), draw(n, 5, seed=2), draw(n, 4, seed=3)
    ),
}


@pytest.mark.parametrize("base", BASES)
@given(st.floats(1e-3, 0.999), st.integers(0, 99))
def test_a_residual_map_goes_the_share_of_the_way(base: str, share: float, seed: int) -> None:
    f = BASES[base](4)
    g = ResidualTransform(f, torch.tensor(share, dtype=torch.float64))
    x = 3 * draw(6, 4, seed=seed).requires_grad_()
    y, ladj = g.call_and_ladj(x)
    torch.testing.assert_close(y, (1 - share) * x + share * f(x), **TIGHT)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ladj, slope.log(), **TIGHT)
    assert (slope > 1 - share).all()
    check_inverse_pair(g, x.detach(), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("base", BASES)
def test_gradients_of_a_residual_maps_inverse(base: str) -> None:
    logit, y = draw(1, seed=5).requires_grad_(), draw(3, seed=6).requires_grad_()
    f = BASES[base](3)
    assert torch.autograd.gradcheck(
        lambda y, logit: ResidualTransform(f, logit.sigmoid()).inv.call_and_ladj(y), (y, logit)
    )


def test_an_affine_residual_map_is_the_affine_map_of_the_formula() -> None:
    residual = Residual(share=0.3).double()
    shift, scale, x = draw(5, seed=1), draw(5, seed=2), draw(5, seed=3)
    g = residual(shift, scale)
    assert isinstance(g, MonotonicAffineTransform)
    y, ladj = g.call_and_ladj(x)
    torch.testing.assert_close(y, x * (0.7 + 0.3 * scale.exp()) + 0.3 * shift, **TIGHT)
    torch.testing.assert_close(ladj, torch.log(0.7 + 0.3 * scale.exp()), **TIGHT)
    plain = ResidualTransform(MonotonicAffineTransform(shift, scale), residual.share)
    torch.testing.assert_close(g.inv(y), plain.inv(y), **TIGHT)
    # Neither what a tutorial keeps, nor a share of it.
    assert ((ladj - scale).abs() > 1e-3).any()
    assert ((ladj - 0.3 * scale).abs() > 1e-3).any()


def test_each_transform_learns_a_share_of_its_own() -> None:
    given = Residual(share=0.25)
    flow = mf.flows.MAF(3, transforms=2, univariate=given, hidden_features=(8,))
    shares = [m.share for m in flow.modules() if isinstance(m, Residual)]
    assert len(shares) == 2
    assert all(math.isclose(float(share.detach()), 0.25, rel_tol=1e-5) for share in shares)
    overwrite(flow, 0.3)
    assert float(given.share.detach()) == pytest.approx(0.25)
    flow().log_prob(torch.randn(9, 3)).sum().backward()
    gradients = [m.logit.grad for m in flow.modules() if isinstance(m, Residual)]
    assert all(grad is not None and grad != 0 for grad in gradients)
    names = [name for name in flow.state_dict() if name.endswith("univariate.logit")]
    assert len(names) == 2


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_an_impossible_share_is_a_clear_error(share: float) -> None:
    with pytest.raises(ValueError, match="share: expected a number between 0 and 1"):
        Residual(share=share)


def test_a_residual_of_a_plain_torch_transform() -> None:
    g = ResidualTransform(ExpTransform(), torch.tensor(0.5, dtype=torch.float64))
    check_inverse_pair(g, draw(5), **TIGHT)


# -- between the transforms of a flow -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MAF", "IAF", "NICE"])
def test_layers_stand_between_transforms_and_batch_norms_behind(kind: str) -> None:
    flow = getattr(mf.flows, kind)(3, transforms=3, between=LULinear, batch_norm=True)
    steps = [type(step).__name__ for step in flow.transform.transforms]
    assert steps[1:] == ["BatchNorm", "LULinear", steps[0]] * 2 + ["BatchNorm"]


def test_a_flow_without_transforms_is_a_clear_error() -> None:
    for kind in (mf.flows.MAF, mf.flows.NICE, mf.flows.IAF):
        with pytest.raises(ValueError, match="transforms: expected at least 1, got 0"):
            kind(3, transforms=0)
