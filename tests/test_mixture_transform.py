"""The map that makes a mixture of Gaussians normal, compared with the mixture itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from maskedflow.transforms import MonotonicAffineTransform, MonotonicMixtureTransform
from maskedflow.transforms.mixture import normal_quantile_of_log, normal_tail
from oracles import check_inverse_pair

DOUBLE = torch.float64


def parameters(count: int, components: int, spread: float, seed: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, count, components, generator=source, dtype=DOUBLE)
    return [noise[0], spread * noise[1], noise[2]]


def mixture_of(logits: Tensor, means: Tensor, log_precisions: Tensor) -> MixtureSameFamily:
    """The same mixture in torch's words."""
    normals = Normal(means, torch.exp(-0.5 * log_precisions))
    return MixtureSameFamily(Categorical(logits=logits), normals)


def log_normal(z: Tensor) -> Tensor:
    return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)


components = st.integers(1, 6)
spreads = st.sampled_from([0.1, 1.0, 5.0, 20.0])
seeds = st.integers(0, 999)


@given(components, spreads, seeds)
def test_density_is_the_mixtures(count: int, spread: float, seed: int) -> None:
    given = parameters(50, count, spread, seed)
    x = mixture_of(*given).sample((4,))
    z, ladj = MonotonicMixtureTransform(*given).call_and_ladj(x)
    expected = mixture_of(*given).log_prob(x)
    torch.testing.assert_close(log_normal(z) + ladj, expected, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(torch.special.ndtr(z), mixture_of(*given).cdf(x))


@given(components, spreads, seeds)
def test_there_and_back(count: int, spread: float, seed: int) -> None:
    given = parameters(200, count, spread, seed)
    f = MonotonicMixtureTransform(*given)
    z = torch.randn(200, dtype=DOUBLE)
    torch.testing.assert_close(f(f.inv(z)), z, atol=1e-11, rtol=1e-11)
    near = MonotonicMixtureTransform(*parameters(200, count, min(spread, 1.0), seed))
    check_inverse_pair(near, near.inv(z).detach(), atol=1e-9, rtol=1e-9)


@given(components, seeds)
def test_there_and_back_in_single_precision(count: int, seed: int) -> None:
    f = MonotonicMixtureTransform(*(p.float() for p in parameters(500, count, 2.0, seed)))
    x = f.inv(torch.randn(500))
    again = f.inv(f(x))
    assert x.dtype == again.dtype == torch.float32
    torch.testing.assert_close(again, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
@pytest.mark.parametrize("size", [10.0, 1e3, 1e6, 1e12])
def test_far_out_the_density_is_that_of_the_widest_component(
    dtype: torch.dtype, size: float
) -> None:
    given = [torch.tensor(p, dtype=dtype) for p in ([0.0, 0.0], [-1.0, 1.0], [0.0, 1.0])]
    x = torch.tensor([-size, size], dtype=dtype, requires_grad=True)
    f = MonotonicMixtureTransform(*given)
    z, ladj = f.call_and_ladj(x)
    log_prob = log_normal(z) + ladj
    expected = Normal(-1.0, 1.0).log_prob(x.double()) - math.log(2)
    relative = (10 if size == 10 else 4) * torch.finfo(dtype).eps
    if size > 10:
        torch.testing.assert_close(log_prob.double(), expected, rtol=relative, atol=0)
    else:
        exact = mixture_of(*(p.double() for p in given)).log_prob(x.double())
        torch.testing.assert_close(log_prob.double(), exact, rtol=relative, atol=0)
    torch.testing.assert_close(f.inv(z), x, rtol=10 * torch.finfo(dtype).eps, atol=0)
    (slope,) = torch.autograd.grad(log_prob.sum(), x)
    torch.testing.assert_close(slope, -(x.detach() + 1), rtol=1e-5 if size > 10 else 0.5, atol=0)


def test_the_largest_numbers_are_no_nan() -> None:
    f = MonotonicMixtureTransform(torch.zeros(3), torch.randn(3), torch.zeros(3))
    x = torch.tensor([3e38, -3e38, torch.inf], requires_grad=True)
    z, ladj = f.call_and_ladj(x)
    assert z.isfinite().all()
    (z + ladj).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@given(components, seeds)
def test_samples_are_the_mixtures(count: int, seed: int) -> None:
    """The Kolmogorov-Smirnov test, in single precision, at a level that fails once in 1e6 runs."""
    given = [p.expand(4000, -1) for p in parameters(1, count, 3.0, seed)]
    source = torch.Generator().manual_seed(seed)
    z = torch.randn(4000, generator=source)
    x = MonotonicMixtureTransform(*(p.float() for p in given)).inv(z)
    shares = mixture_of(*given).cdf(x.double())
    assert stats.kstest(shares.numpy(), "uniform").pvalue > 1e-6


@given(seeds)
def test_one_component_is_an_affine_map(seed: int) -> None:
    logits, means, log_precisions = parameters(30, 1, 2.0, seed)
    scale = 0.5 * log_precisions[:, 0]
    affine = MonotonicAffineTransform(-means[:, 0] * scale.exp(), scale)
    x = torch.randn(30, dtype=DOUBLE)
    mixed = MonotonicMixtureTransform(logits, means, log_precisions)
    for ours, theirs in zip(mixed.call_and_ladj(x), affine.call_and_ladj(x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@given(st.integers(1, 3), seeds)
def test_gradients_of_both_directions(count: int, seed: int) -> None:
    given = [p.requires_grad_() for p in parameters(2, count, 0.7, seed)]
    x = torch.randn(2, dtype=DOUBLE, requires_grad=True)

    def forward(x: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        return MonotonicMixtureTransform(*given).call_and_ladj(x)

    def inverse(z: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        return MonotonicMixtureTransform(*given).inv.call_and_ladj(z)

    assert torch.autograd.gradcheck(forward, (x, *given))
    assert torch.autograd.gradgradcheck(forward, (x, *given))
    assert torch.autograd.gradcheck(inverse, (x, *given))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own use
def test_forward_mode_and_vmap() -> None:
    given = parameters(3, 2, 0.7, seed=0)
    x = torch.randn(3, dtype=DOUBLE)

    def both(x: Tensor, *given: Tensor) -> Tensor:
        f = MonotonicMixtureTransform(*given)
        return torch.stack([*f.call_and_ladj(x), *f.inv.call_and_ladj(x)])

    arguments = tuple(range(4))
    for forward, reverse in zip(
        torch.func.jacfwd(both, arguments)(x, *given),
        torch.func.jacrev(both, arguments)(x, *given),
        strict=True,
    ):
        torch.testing.assert_close(forward, reverse, atol=1e-10, rtol=1e-10)
    mapped = torch.func.vmap(both, out_dims=1)(x, *given)
    torch.testing.assert_close(mapped, both(x, *given))


def test_extreme_parameters_stay_finite() -> None:
    logits, means = torch.tensor([0.0, 300.0, -300.0]), torch.tensor([0.0, 1e4, -1e4])
    f = MonotonicMixtureTransform(logits, means, torch.tensor([99.0, -99.0, 0.0]))
    z = torch.linspace(-6, 6, 50)
    x, ladj = f.inv.call_and_ladj(z)
    assert x.isfinite().all()
    assert ladj.isfinite().all()
    assert (x.diff() >= 0).all()


def test_tails_are_scipys() -> None:
    v = torch.cat([torch.linspace(-40, 8, 400), -torch.logspace(1.6, 6, 50)]).double()
    log_cdf, log_hazard = normal_tail(v)
    torch.testing.assert_close(
        log_cdf, torch.as_tensor(special.log_ndtr(v.numpy())), rtol=1e-13, atol=0
    )
    bulk = v > -30
    expected = stats.norm.logpdf(v[bulk].numpy()) - special.log_ndtr(v[bulk].numpy())
    torch.testing.assert_close(log_hazard[bulk], torch.as_tensor(expected), rtol=1e-9, atol=1e-11)
    # Mills' ratio, far out: phi / Phi is -v - 1 / v + ...
    far = v[v < -1000]
    torch.testing.assert_close(normal_tail(far)[1], (-far - 1 / far).log(), rtol=1e-12, atol=0)


def test_quantiles_of_logarithms_are_scipys() -> None:
    log_p = -torch.logspace(math.log10(math.log(2)), 12, 500, dtype=DOUBLE)
    found = normal_quantile_of_log(log_p)
    expected = torch.as_tensor(special.ndtri_exp(log_p.numpy()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    at = log_p[::50].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(normal_quantile_of_log, (at[:4],))
