"""The snippets of the API page, in our words: code for zuko runs with one import changed."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import maskedflow as zuko
from maskedflow.transforms import MonotonicAffineTransform
from oracles import allowed, dependencies
from strategies import overwrite

RENAMED = "import maskedflow as zuko"


def test_signature_is_the_pages() -> None:
    parameters = list(inspect.signature(zuko.flows.MAF).parameters.items())[:4]
    assert [(name, p.default) for name, p in parameters] == [
        ("features", inspect.Parameter.empty),
        ("context", 0),
        ("transforms", 3),
        ("randperm", False),
    ]


def test_signature_of_one_transform_is_zukos() -> None:
    parameters = list(inspect.signature(zuko.flows.MaskedAutoregressiveTransform).parameters)
    names = [
        "features",
        "context",
        "passes",
        "order",
        "adjacency",
        "univariate",
        "shapes",
        "kwargs",
    ]
    assert parameters == names


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("GeneralCouplingTransform", ["features", "context", "mask", "univariate", "shapes"]),
        ("NICE", ["features", "context", "transforms", "randmask"]),
        ("RealNVP", ["features", "context", "transforms", "randmask"]),
        ("IAF", ["features", "context", "transforms", "randperm"]),
    ],
)
def test_signatures_of_couplings_and_inverse_flows(kind: str, names: list[str]) -> None:
    parameters = inspect.signature(getattr(zuko.flows, kind)).parameters
    assert list(parameters)[: len(names)] == names
    defaults = [p.default for p in parameters.values()][1 : len(names)]
    expected = [0, None, MonotonicAffineTransform, ((), ())] if "mask" in names else [0, 3, False]
    assert defaults == expected


def test_usage() -> None:
    flow = zuko.flows.MAF(features=3, transforms=3, hidden_features=[64, 64])
    dist = flow()
    samples = dist.sample((1000,))
    assert samples.shape == torch.Size([1000, 3])
    log_prob = dist.log_prob(samples)
    assert log_prob.shape == torch.Size([1000])
    assert torch.isfinite(log_prob).all()


def test_conditional_flow() -> None:
    flow = zuko.flows.MAF(features=3, context=4, transforms=3)
    c = torch.randn(4)
    x = flow(c).sample()
    log_p = flow(c).log_prob(x)
    assert x.shape == torch.Size([3])
    assert log_p.shape == torch.Size([])


@pytest.mark.parametrize("wrapped", [False, True])
def test_training_loop_with_a_real_loader(wrapped: bool) -> None:
    mixing = torch.randn(10, 10) / 3
    data = torch.randn(512, 10) @ mixing + 2
    dataloader: DataLoader[Tensor] = DataLoader(
        TensorDataset(data) if wrapped else data,  # type: ignore[arg-type]
        batch_size=64,
        shuffle=True,
    )
    flow = zuko.flows.MAF(features=10, transforms=5, hidden_features=[128, 128])
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    start = -flow().log_prob(data).mean().item()
    losses = []
    for _ in range(4):
        for batch in dataloader:
            x = batch[0] if wrapped else batch
            optimizer.zero_grad()
            loss = -flow().log_prob(x).mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert len(losses) == 4
    assert -flow().log_prob(data).mean().item() < start - 5


def test_coupling() -> None:
    flow = zuko.flows.MAF(features=100, transforms=3, passes=2)
    x = torch.randn(7, 100)
    log_prob = flow().log_prob(x)
    assert log_prob.shape == (7,)
    transform = flow().transform
    torch.testing.assert_close(transform.inv(transform(x)), x, atol=1e-4, rtol=1e-4)
    assert flow().sample((5,)).shape == (5, 100)
    first = overwrite(flow.double(), 0.1).transform.transforms[0]
    found = dependencies(first(), torch.randn(1, 100, dtype=torch.float64))
    halves = torch.zeros(100, 100).bool()
    halves[50:, :50] = True
    assert not (found & ~halves & ~torch.eye(100).bool()).any()
    assert found[50:, :50].all()


def test_custom_univariate() -> None:
    flow = zuko.flows.MAF(features=5, univariate=MonotonicAffineTransform, shapes=[(), ()])
    x = torch.randn(4, 5)
    assert flow().log_prob(x).shape == (4,)
    assert MonotonicAffineTransform is zuko.transforms.MonotonicAffineTransform


def test_custom_order_is_the_first_layers_as_given_and_reversed_in_the_next() -> None:
    order = torch.tensor([2, 0, 1, 3, 4])
    flow = zuko.flows.MAF(features=5, transforms=3, order=order, activation=torch.nn.Tanh)
    overwrite(flow.double(), 0.5)
    x = torch.randn(3, 5, dtype=torch.float64)
    layers = list(flow.transform.transforms)
    assert len(layers) == 3
    for layer, ranks in zip(layers, [order, 4 - order, order], strict=True):
        expected = allowed(5, ranks.tolist(), None) | torch.eye(5).bool()
        assert torch.equal(dependencies(layer(), x), expected)
    assert torch.equal(order, torch.tensor([2, 0, 1, 3, 4]))  # and is left alone


def test_methods_of_the_distribution() -> None:
    dist = zuko.flows.MAF(features=3)()
    assert isinstance(dist, torch.distributions.Distribution)
    assert isinstance(dist, zuko.distributions.NormalizingFlow)
    assert dist.rsample((2,)).requires_grad
    z, ladj = dist.transform.call_and_ladj(torch.randn(2, 3))
    assert z.shape == (2, 3)
    assert ladj.shape == (2,)


def test_the_pages_formula() -> None:
    """y_i = x_i exp(s_i) + t_i: affine in x_i, whose slope depends on those before it."""
    flow = zuko.flows.MADE(3, activation=torch.nn.Tanh)
    transform = overwrite(flow.double(), 0.5)().transform
    x = torch.randn(3, dtype=torch.float64)
    steps = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    y = torch.stack([transform(torch.cat([x[:2], x[2:] + step])) for step in steps])
    torch.testing.assert_close(y[2, 2] - y[1, 2], y[1, 2] - y[0, 2])
    other = transform(torch.cat([x[:1] + 1, x[1:]])) - y[0]
    assert (other != 0).all()


GLOBAL_STATE = f"""
import random
import numpy
import torch
from torch.distributions import Distribution, Transform

def state():
    return (
        torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed(),
        torch.get_rng_state().tolist(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        Distribution._validate_args, dict(vars(Distribution)), dict(vars(Transform)),
        dict(vars(torch.distributions.transforms._InverseTransform)),
        random.getstate(), str(numpy.random.get_state()),
    )

before = state()
{RENAMED}
flow = zuko.flows.MAF(3, context=2, generator=torch.Generator())
flow(torch.zeros(2)).log_prob(torch.zeros(3))
flow(torch.zeros(2)).sample((5,), generator=torch.Generator())
zuko.nn, zuko.masks, zuko.transforms, zuko.distributions
assert state() == before, [i for i, (a, b) in enumerate(zip(state(), before)) if a != b]
"""


def test_import_and_use_never_change_global_state() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GLOBAL_STATE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "flows",
            "Flow MADE MAF MaskedAutoregressiveTransform IAF NICE RealNVP NSF NCSF SOSPF BPF NAF "
            "UNAF GF GeneralCouplingTransform LazyDistribution UnconditionalDistribution "
            "ElementWiseTransform Glow ConvCouplingTransform",
        ),
        (
            "lazy",
            "Flow LazyComposedTransform LazyDistribution LazyInverse LazyTransform Unconditional "
            "UnconditionalDistribution UnconditionalTransform",
        ),
        (
            "transforms",
            "MonotonicAffineTransform AutoregressiveTransform PermutationTransform BatchNorm "
            "ComposedTransform Standardize Logit Dequantize LazyTransform LazyComposedTransform "
            "UnconditionalTransform DependentTransform Transform CouplingTransform "
            "LULinearTransform LULinear RotationTransform Permutation ActNorm Residual "
            "ResidualTransform IdentityTransform AdditiveTransform MonotonicRQSTransform "
            "MonotonicTransform UnconstrainedMonotonicTransform SOSPolynomialTransform "
            "BernsteinTransform BoundedBernsteinTransform GaussianizationTransform "
            "CircularRQSTransform CircularShiftTransform SoftclipTransform SignedPowerTransform "
            "CosTransform SinTransform SqueezeTransform Pixelwise PixelwiseTransform Head "
            "HeadTransform PLULinear UnivariateTransform VectorTransform",
        ),
        (
            "distributions",
            "NormalizingFlow DiagNormal BoxUniform GeneralizedNormal Joint Maximum Minimum Mixture "
            "MixtureOfGaussians Sort StudentT TopK TransformedUniform Truncated",
        ),
        ("mixtures", "GMM"),
        (
            "nn",
            "MaskedLinear MaskedMLP Linear MLP MonotonicMLP MonotonicLinear TwoWayELU LayerNorm",
        ),
        ("masks", "made_masks degrees check_autoregressive"),
    ],
)
def test_public_names(module: str, names: str) -> None:
    room = getattr(zuko, module)
    missing = [name for name in names.split() if name not in room.__all__]
    assert not missing
    assert all(getattr(room, name).__doc__ for name in names.split())
    assert all(hasattr(room, name) for name in room.__all__)


def test_rooms_show_public_names_alone() -> None:
    import maskedflow.distributions
    import maskedflow.transforms.base

    for room in (zuko.flows, zuko.transforms, zuko.nn, maskedflow.distributions):
        assert dir(room) == sorted(room.__all__)
    assert "Any" in dir(maskedflow.transforms.base)  # no room


def test_lazy_modules_are_found_where_earlier_versions_of_zuko_have_them() -> None:
    for name in ("LazyTransform", "LazyInverse", "LazyComposedTransform", "UnconditionalTransform"):
        assert getattr(zuko.flows, name) is getattr(zuko.transforms, name)
        assert getattr(zuko.lazy, name) is getattr(zuko.transforms, name)
        assert name not in zuko.flows.__all__
    assert zuko.flows.CouplingTransform is zuko.flows.GeneralCouplingTransform


def test_torchs_transforms_are_found_where_zuko_has_them() -> None:
    from maskedflow.transforms import AffineTransform

    assert AffineTransform is torch.distributions.AffineTransform
    assert zuko.transforms.StackTransform is torch.distributions.StackTransform
    with pytest.raises(AttributeError, match="NoSuchTransform"):
        zuko.transforms.NoSuchTransform  # noqa: B018


def test_lazy_modules_tell_what_they_were_made_of() -> None:
    matrix = torch.eye(3)
    lazy = zuko.lazy.UnconditionalTransform(zuko.transforms.RotationTransform, matrix)
    assert torch.equal(lazy.args[0], matrix)
    assert lazy.kwargs == {}
    base = zuko.flows.MAF(3).base
    assert set(base.kwargs) == {"loc", "scale"}
    assert base.f is zuko.distributions.DiagNormal
    layer = zuko.flows.MaskedAutoregressiveTransform(4, passes=2, order=[3, 2, 1, 0])
    assert layer.order.tolist() == [1, 1, 0, 0]
    assert (layer.passes, layer.total) == (2, 2)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such"):
        zuko.no_such  # noqa: B018
    assert "flows" in dir(zuko)
