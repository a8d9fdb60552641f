"""Maps of one feature: their laws, their formulas by independent means, and their extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.integrate
import scipy.interpolate
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import maskedflow as mf
from maskedflow.transforms import (
    BernsteinTransform,
    BoundedBernsteinTransform,
    CircularRQSTransform,
    CircularShiftTransform,
    CosTransform,
    GaussianizationTransform,
    MonotonicAffineTransform,
    MonotonicRQSTransform,
    SignedPowerTransform,
    SinTransform,
    SoftclipTransform,
    SOSPolynomialTransform,
    Transform,
    UnconstrainedMonotonicTransform,
)
from maskedflow.transforms.univariate import UNIVARIATES
from oracles import check_inverse_pair
from strategies import overwrite

TIGHT = {"atol": 1e-8, "rtol": 1e-7}
LOOSE = {"atol": 1e-3, "rtol": 1e-3}

#: The constructor of a map, and the shapes of its parameters.
MAPS: dict[str, tuple[Callable[..., Transform], tuple[tuple[int, ...], ...]]] = {
    "affine": (MonotonicAffineTransform, ((), ())),
    "gaussian": (mf.transforms.MeanPrecisionTransform, ((), ())),
    "additive": (mf.transforms.AdditiveTransform, ((),)),
    "spline": (MonotonicRQSTransform, ((8,), (8,), (7,))),
    "Bernstein": (BernsteinTransform, ((7,),)),
    "bounded Bernstein": (BoundedBernsteinTransform, ((5,),)),
    "SOS": (SOSPolynomialTransform, ((3, 4),)),
    "constant SOS": (SOSPolynomialTransform, ((2, 1),)),
    "Gaussianization": (GaussianizationTransform, ((4,), (4,))),
    "integral": (lambda a: UnconstrainedMonotonicTransform(lambda u: 1.1 + (a * u).cos()), ((),)),
    "MNN": (mf.flows.MNN(3, hidden_features=[8, 8]).double(), ((3,),)),
    "UMNN": (mf.flows.UMNN(3, hidden_features=[8]).double(), ((3,), ())),
}
every_map = pytest.mark.parametrize(("kind", "shapes"), MAPS.values(), ids=MAPS.keys())


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def in_dtype(kind: Callable[..., Transform], dtype: torch.dtype) -> Callable[..., Transform]:
    return kind.to(dtype) if isinstance(kind, torch.nn.Module) else kind


@every_map
@pytest.mark.parametrize("batch", [(), (4,), (1, 4), (3, 1, 4)], ids=str)
def test_one_number_goes_through_a_batch_of_maps(
    kind: Callable[..., Transform], shapes: tuple[tuple[int, ...], ...], batch: tuple[int, ...]
) -> None:
    f = kind(*(draw(2, 4, *shape, seed=i) for i, shape in enumerate(shapes)))
    x = draw(*batch, seed=9)
    whole = x.expand(torch.broadcast_shapes(batch, (2, 4)))
    for way in (f, f.inv):
        for one, other in zip(
            mf.transforms.call_and_ladj(way, x),
            mf.transforms.call_and_ladj(way, whole),
            strict=True,
        ):
            torch.testing.assert_close(one, other)


@every_map
@given(
    st.sampled_from([(), (4,), (2, 4)]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 999),
)
def test_laws(
    kind: Callable[..., Transform],
    shapes: tuple[tuple[int, ...], ...],
    batch: tuple[int, ...],
    dtype: torch.dtype,
    seed: int,
) -> None:
    parameters = [
        draw(*batch, *shape, seed=seed + i, dtype=dtype) for i, shape in enumerate(shapes)
    ]
    transform = in_dtype(kind, dtype)(*parameters)
    assert transform.domain.event_dim == transform.codomain.event_dim == 0
    assert transform.bijective
    tolerance = TIGHT if dtype == torch.float64 else LOOSE
    x = 2 * draw(*batch, seed=seed + 9, dtype=dtype)
    check_inverse_pair(transform, x, **tolerance)
    x = x.requires_grad_()
    y, ladj = transform.call_and_ladj(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ladj, slope.log(), **tolerance)
    assert (slope > 0).all()
    in_dtype(kind, torch.float64)


@every_map
def test_gradcheck(kind: Callable[..., Transform], shapes: tuple[tuple[int, ...], ...]) -> None:
    parameters = [draw(3, *shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    x = draw(3, seed=7).requires_grad_()
    inputs = (x, *parameters)
    assert torch.autograd.gradcheck(lambda x, *p: kind(*p).call_and_ladj(x), inputs)
    assert torch.autograd.gradcheck(lambda y, *p: kind(*p).inv.call_and_ladj(y), inputs)


@every_map
def test_parameters_broadcast_against_values(
    kind: Callable[..., Transform], shapes: tuple[tuple[int, ...], ...]
) -> None:
    parameters = [draw(2, 1, 3, *shape, seed=i) for i, shape in enumerate(shapes)]
    x = draw(4, 3, seed=5)
    transform = kind(*parameters)
    y, ladj = transform.call_and_ladj(x)
    assert y.shape == ladj.shape == (2, 4, 3)
    for i in range(2):
        own = kind(*(p[i, 0] for p in parameters))
        torch.testing.assert_close(own.call_and_ladj(x), (y[i], ladj[i]))
    torch.testing.assert_close(transform.inv(y), x.expand(2, 4, 3), **TIGHT)


@every_map
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extremes_are_finite_and_so_are_their_gradients(
    kind: Callable[..., Transform], shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype
) -> None:
    values = torch.tensor([-1e6, -11, -10, -5, -math.pi, 0, math.pi, 5, 10, 11, 1e6], dtype=dtype)
    parameters = [
        draw(11, *shape, seed=i, dtype=dtype).requires_grad_() for i, shape in enumerate(shapes)
    ]
    for way in (lambda t: t, lambda t: t.inv):
        transform = way(in_dtype(kind, dtype)(*parameters))
        x = values.clone().requires_grad_()
        y, ladj = transform.call_and_ladj(x)
        found = torch.autograd.grad(y.sum() + ladj.sum(), [x, *parameters], allow_unused=True)
        for value in (y, ladj, *found):
            assert value is None or value.isfinite().all()
        back = transform.inv(y)
        assert ((back - values).abs() <= 2e-3 * (1 + values.abs())).all()
    in_dtype(kind, torch.float64)


# -- splines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3, 1e6])
def test_splines_of_any_parameters_are_as_precise_as_their_slopes_allow(
    scale: float, dtype: torch.dtype
) -> None:
    f = MonotonicRQSTransform(*(scale * draw(500, k, seed=k, dtype=dtype) for k in (8, 8, 7)))
    x = 5 * torch.linspace(-1, 1, 99, dtype=dtype)[:, None].expand(99, 500)
    y, ladj = f.call_and_ladj(x)
    assert ladj.isfinite().all()
    assert ((y >= -5.001) & (y <= 5.001)).all()
    back, back_ladj = f.inv.call_and_ladj(y)
    assert back_ladj.isfinite().all()
    # The rounding of x moves y by f', and that of y is its own.
    allowed = 10 * torch.finfo(dtype).eps * (5 + 5 * ladj.maximum(-back_ladj).exp())
    assert ((f(back) - y).abs() <= allowed).all()


def test_float32_splines_of_extreme_slopes_at_the_knots_go_there_and_back() -> None:
    slopes = torch.tensor([1e6, 0.0, 1e6, 0.0, 1e6, 0.0, 1e6])
    f = MonotonicRQSTransform(torch.zeros(8), torch.zeros(8), slopes)
    assert f.derivatives.max() > 900
    values = torch.linspace(-6, 6, 4001)
    for transform in (f, f.inv):
        y, ladj = transform.call_and_ladj(values)
        back, back_ladj = transform.inv.call_and_ladj(y)
        steepest = torch.maximum(-ladj, back_ladj).exp()
        assert ((back - values).abs() <= 1e-5 * (1 + steepest / 10)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(st.integers(0, 999))
def test_splines_at_their_bounds_and_far_outside(dtype: torch.dtype, seed: int) -> None:
    parameters = [(3 * draw(6, k, seed=seed + k, dtype=dtype)).requires_grad_() for k in (8, 8, 7)]
    edge = torch.tensor(5.0, dtype=dtype)
    inside = torch.nextafter(edge, torch.zeros_like(edge))
    values = torch.stack([edge, -edge, inside, -inside, 1e6 * edge, -1e6 * edge])
    for way in (lambda t: t, lambda t: t.inv):
        transform = way(MonotonicRQSTransform(*parameters))
        x = values.clone().requires_grad_()
        y, ladj = transform.call_and_ladj(x)
        torch.testing.assert_close(y, values, rtol=2e-6, atol=0)
        torch.testing.assert_close(ladj[-2:], torch.zeros(2, dtype=dtype))
        for gradient in torch.autograd.grad(y.sum() + ladj.sum(), [x, *parameters]):
            assert gradient.isfinite().all()


# -- circles --------------------------------------------------------------------------------------


@given(st.integers(0, 999))
def test_circular_splines_are_smooth_where_the_circle_closes(seed: int) -> None:
    f = CircularRQSTransform(*(draw(k, seed=seed + k) for k in (5, 5, 4)))
    x = torch.tensor([-1e-9, 1e-9, math.pi - 1e-9, -math.pi + 1e-9]).double()
    y, ladj = f.call_and_ladj(x)
    # Both pairs are neighbours on the circle, and so are their images, with the same slopes.
    distance = (y[::2] - y[1::2] + math.pi).remainder(2 * math.pi) - math.pi
    assert distance.abs().max() < 1e-5
    torch.testing.assert_close(ladj[::2], ladj[1::2], atol=1e-5, rtol=0)
    turned, turned_ladj = f.call_and_ladj(x + 6 * math.pi)
    torch.testing.assert_close(turned, y, atol=1e-6, rtol=0)
    torch.testing.assert_close(turned_ladj, ladj, atol=1e-5, rtol=0)
    x = math.pi * torch.linspace(-0.999, 0.999, 50).double()
    torch.testing.assert_close(f.inv(f(x)), x, **TIGHT)
    assert (f(x).abs() <= math.pi).all()


@pytest.mark.parametrize("features", [1, 2])
def test_a_density_on_the_circle_integrates_to_one(features: int) -> None:
    flow = overwrite(mf.flows.NCSF(features, transforms=2, hidden_features=[8]).double(), 0.4)
    axis = (torch.arange(300).double() + 0.5) / 300 * 2 * math.pi - math.pi
    grid = torch.cartesian_prod(*[axis] * features).view(-1, features)
    log_prob = flow().log_prob(grid).detach()
    total = log_prob.exp().mean() * (2 * math.pi) ** features
    assert abs(float(total) - 1) < 1e-3
    assert log_prob.std() > 0.1
    x = flow().sample((1000,))
    assert (x.abs() <= math.pi + 1e-4).all()


def test_elementary_maps() -> None:
    angles = math.pi * torch.linspace(0.01, 0.99, 20).double()
    check_inverse_pair(CosTransform(), angles, **TIGHT)
    check_inverse_pair(SinTransform(), angles - math.pi / 2, **TIGHT)
    x = 3 * draw(20)
    check_inverse_pair(SoftclipTransform(2.0), x, **TIGHT)
    check_inverse_pair(SignedPowerTransform(draw(20, seed=1)), x, **TIGHT)
    powers = SignedPowerTransform(torch.tensor([0.0, 1.0, -1.0]))  # at 0 their slopes are 1, 0, inf
    assert powers.call_and_ladj(torch.zeros(3))[1].exp().tolist() == [1, 0, math.inf]
    check_inverse_pair(CircularShiftTransform(9.0), x.clamp(-9, 9), **TIGHT)
    torch.testing.assert_close(CosTransform()(angles), -angles.cos())
    for t in (CosTransform(), SinTransform(), SoftclipTransform(2.0), CircularShiftTransform(9.0)):
        assert t.codomain.check(t(angles / 2)).all()
        assert repr(t)


def test_softclip_beyond_its_bound_has_a_finite_inverse() -> None:
    y = torch.tensor([-11.0, 11.0, 1e6], requires_grad=True)
    x, ladj = SoftclipTransform(11.0).inv.call_and_ladj(y)
    (gradient,) = torch.autograd.grad(x.sum() + ladj.sum(), y)
    for value in (x, ladj, gradient):
        assert value.isfinite().all()
    assert (x.sign() == y.sign()).all()
    assert (x.abs() > 1e6).all()


# -- formulas -------------------------------------------------------------------------------------


@given(st.integers(0, 999))
@settings(max_examples=5)
def test_integrals_are_scipys(seed: int) -> None:
    a = draw(3, 4, seed=seed)
    sos = SOSPolynomialTransform(a, slope=0.01)

    def squares(u: float) -> float:
        powers = (u / 10) ** np.arange(4)
        return float(((1 + a.numpy() @ powers) ** 2).mean() + 0.01)

    wave = UnconstrainedMonotonicTransform(lambda u: 1.1 + u.sin())
    for x in (-9.0, -0.3, 2.5, 10.0):
        expected = scipy.integrate.quad(squares, 0, x)[0]
        assert float(sos(torch.tensor(x, dtype=torch.float64))) == pytest.approx(
            expected, abs=1e-10
        )
        expected = 1.1 * x + 1 - math.cos(x)
        assert float(wave(torch.tensor(x, dtype=torch.float64))) == pytest.approx(
            expected, abs=1e-10
        )


@pytest.mark.parametrize("kind", [BernsteinTransform, BoundedBernsteinTransform])
def test_bernstein_polynomials_are_scipys(kind: type[BernsteinTransform]) -> None:
    f = kind(draw(6))
    polynomial = scipy.interpolate.BPoly(f.theta.numpy()[:, None], [-5, 5])
    x = np.linspace(-5, 5, 30)
    y, ladj = f.call_and_ladj(torch.from_numpy(x))
    np.testing.assert_allclose(y, polynomial(x), atol=1e-12)
    np.testing.assert_allclose(ladj.exp(), polynomial.derivative()(x), atol=1e-12)
    # Neither the slope nor the curvature breaks where the straight lines begin.
    np.testing.assert_allclose(polynomial.derivative(2)([-5, 5]), 0, atol=1e-12)
    assert len(f.theta) == f.order + 1


@pytest.mark.parametrize("bound", [2.0, 5.0])
def test_bounded_bernstein_is_the_identity_outside(bound: float) -> None:
    f = BoundedBernsteinTransform(draw(4), bound=bound)
    x = torch.tensor([-1e6, -bound, bound, 7.0]).double()
    y, ladj = f.call_and_ladj(x)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(ladj, torch.zeros(4).double(), atol=1e-12, rtol=0)


@given(st.integers(0, 999))
@settings(max_examples=5)
def test_gaussianization_makes_a_mixture_normal(seed: int) -> None:
    shift, scale = draw(4, seed=seed), draw(4, seed=seed + 1)
    f = GaussianizationTransform(shift, scale)
    x = torch.tensor([-3.0, -0.2, 0.0, 1.0, 4.0]).double()
    # In whichever tail is the smaller: beyond 8 sigma the other one rounds to 1.
    inner = x.numpy()[:, None] * scale.exp().numpy() + shift.numpy()
    below, above = scipy.stats.norm.cdf(inner).mean(1), scipy.stats.norm.sf(inner).mean(1)
    expected = np.where(below < 0.5, scipy.stats.norm.ppf(below), scipy.stats.norm.isf(above))
    usual = np.isfinite(expected)
    np.testing.assert_allclose(f(x)[usual], expected[usual], rtol=1e-9, atol=1e-9)


def test_gaussianization_of_one_component_is_affine_however_far() -> None:
    f = GaussianizationTransform(torch.tensor([0.5]), torch.tensor([0.7]))
    x = torch.tensor([-1e6, -20.0, 0.3, 20.0, 1e6])
    y, ladj = f.call_and_ladj(x)
    torch.testing.assert_close(y, x * math.exp(0.7) + 0.5, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ladj, torch.full((5,), 0.7), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [30.0, 1e3])
def test_gaussianization_has_finite_gradients_whatever_the_weights(size: float) -> None:
    flow = mf.flows.GF(3, transforms=2, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for step in flow.transform.transforms[::2]:
            for parameter in step.parameters():
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(20, 3, generator=generator, requires_grad=True)
    log_prob = flow().log_prob(x)
    log_prob[log_prob.isfinite()].sum().backward()
    for gradient in (x.grad, *(parameter.grad for parameter in flow.parameters())):
        assert gradient is not None
        assert gradient.isfinite().all()


def test_maps_by_name_are_those_of_the_library() -> None:
    for name, (kind, shapes) in UNIVARIATES.items():
        flow = mf.flows.MAF(3, transforms=1, univariate=name)
        step = flow.transform.transforms[0]
        assert (step.univariate, step.shapes) == (kind, shapes)
    with pytest.raises(ValueError, match=r"univariate: expected one of affine.*got 'cubic'"):
        mf.flows.RealNVP(3, univariate="cubic")


def test_a_new_monotone_network_has_slope_one_at_zero_and_no_offset() -> None:
    f = mf.flows.MNN(4)(torch.zeros(4))
    y, ladj = f.call_and_ladj(torch.zeros(()))
    torch.testing.assert_close(y, torch.zeros(()), atol=1e-5, rtol=0)
    torch.testing.assert_close(ladj, torch.zeros(()), atol=1e-4, rtol=0)


def test_monotone_networks_are_the_flows_own_and_take_its_generator() -> None:
    build = partial(mf.flows.NAF, 3, transforms=2, network={"hidden_features": [8]})
    one, two = (build(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    networks = [step.univariate for step in one.transform.transforms]
    assert networks[0] is not networks[1]
    assert {id(p) for n in networks for p in n.parameters()} <= {id(p) for p in one.parameters()}
