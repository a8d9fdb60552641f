"""Masked convolutions: what they see, their inverse pixel after pixel, and where they start."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from commands import run
from generators import generator
from maskedflow.flows import MaskedConvTransform
from maskedflow.masks import window_mask
from maskedflow.nn import MaskedConvNet, MaskedConvolution
from maskedflow.transforms.waiting import Block
from oracles import autograd_ladjs, check_inverse_pair, dependencies
from strategies import overwrite

SHAPES = [(1, 3, 4), (3, 3, 2), (2, 1, 3), (1, 1, 1)]

Shape = tuple[int, int, int]


def images(shape: Shape, *batch: int, seed: int = 1) -> Tensor:
    return torch.randn(*batch, math.prod(shape), generator=generator(seed), dtype=torch.float64)


def transform(shape: Shape, context: int = 0, **options: object) -> MaskedConvTransform:
    """A small one in double precision, its weights moved away from where they start."""
    more = {"components": 2, "hidden_features": [7, 7], "kernel_size": 3, **options}
    lazy = MaskedConvTransform(shape, context, generator=generator(), **more).double()
    overwrite(lazy, 0.4)
    return lazy.eval()


def raster(shape: Shape) -> Tensor:
    """The rank of each feature: by pixels, and within them by channels."""
    channels, height, width = shape
    return torch.arange(math.prod(shape)).view(height * width, channels).T.flatten()


# --- what is seen ---


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 6),
    st.integers(1, 2),
    st.sampled_from([1, 3, 5]),
)
@settings(max_examples=15, deadline=None)
def test_features_depend_on_those_before_them(
    shape: Shape, width: int, layers: int, kernel_size: int
) -> None:
    net = MaskedConvNet(
        shape, 2, hidden_features=[width] * layers, kernel_size=kernel_size, generator=generator()
    ).double()
    overwrite(net, 0.5)
    x = images(shape, 2)

    def outputs(x: Tensor) -> Tensor:
        phi, mean = net(x.view(1, *shape))
        return torch.cat([phi.movedim(2, 0).flatten(1), mean.flatten(1)]).flatten()

    seen = dependencies(outputs, x).view(3, len(x[0]), len(x[0])).any(dim=0)
    rank = raster(shape)
    assert not (seen & (rank[:, None] <= rank)).any()


def test_all_of_a_window_is_seen() -> None:
    shape = (3, 3, 3)
    net = MaskedConvNet(shape, 1, hidden_features=[9], kernel_size=3, generator=generator())
    overwrite(net.double(), 0.5)
    x = images(shape, 2)
    rank = raster(shape)
    for number in range(2):  # the parameters, and the direct connections
        seen = dependencies(lambda x, n=number: net(x.view(1, *shape))[n].flatten(), x)
        for feature in (4, 13, 22):  # the colours of the pixel in the middle
            i = torch.arange(9)
            near = (i // 3 <= 1).repeat(3)
            assert torch.equal(seen[feature], near & (rank < rank[feature]))


def test_a_window_has_no_row_below_and_an_odd_side() -> None:
    assert window_mask(torch.zeros(2), torch.zeros(1), 5).shape == (2, 1, 3, 5)
    for side in (0, 2, -1):
        with pytest.raises(ValueError, match=rf"kernel_size: expected an odd .*, got {side}"):
            window_mask(torch.zeros(1), torch.zeros(1), side)


def test_masked_weights_stay_out_whatever_they_become() -> None:
    layer = MaskedConvolution(torch.tensor([0]), torch.tensor([1]), 3)
    nn.init.ones_(layer.weight)
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1:] = x[0, 0, 2] = 7.0
    assert layer(x)[0, 0, 1, 1] == layer.bias.item()


# --- the transform ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("components", [1, 3])
def test_round_trip_and_ladj(shape: Shape, context: int, components: int) -> None:
    lazy = transform(shape, context, components=components)
    x = images(shape, 3)
    c = torch.randn(3, context, generator=generator(), dtype=torch.float64) if context else None
    with torch.no_grad():
        check_inverse_pair(lazy(c), x, atol=1e-6, rtol=1e-6)
    one = None if c is None else c[0]
    torch.testing.assert_close(lazy(one).call_and_ladj(x)[1], autograd_ladjs(lazy(one), x))


@pytest.mark.parametrize("shape", SHAPES)
def test_pixel_after_pixel_is_what_passes_find(shape: Shape) -> None:
    lazy = transform(shape, 2, hidden_features=[6, 6, 6], kernel_size=5)
    c = torch.randn(4, 2, generator=generator(), dtype=torch.float64)
    z = images(shape, 4, seed=3)
    with torch.no_grad():
        found = lazy(c).inv(z)
        torch.testing.assert_close(found, lazy(c).reference_inverse(z), atol=1e-8, rtol=1e-8)


def test_samples_have_gradients_where_they_are_asked_for() -> None:
    lazy = transform((1, 2, 2))
    z = images((1, 2, 2), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: lazy().inv(z), z)
    lazy().inv.call_and_ladj(z)[1].sum().backward()
    assert lazy.hyper.first.weight.grad is not None


def test_contexts_and_rows_broadcast() -> None:
    lazy = transform((1, 2, 3), 2)
    x, c = images((1, 2, 3), 4, 1), torch.randn(3, 2, generator=generator(), dtype=torch.float64)
    z, ladj = lazy(c).call_and_ladj(x)
    assert z.shape == (4, 3, 6)
    assert ladj.shape == (4, 3)
    for i in range(3):
        torch.testing.assert_close(lazy(c[i]).call_and_ladj(x[:, 0])[1], ladj[:, i])
    with torch.no_grad():
        torch.testing.assert_close(lazy(c).inv(z), x.expand(4, 3, 6), atol=1e-6, rtol=1e-6)


# --- where it starts ---


def test_it_starts_as_the_regression_of_pixels_on_their_windows() -> None:
    """With one component: the same numbers as least squares, channel by channel, by hand."""
    n, height, width = 400, 3, 4
    x = torch.randn(n, 2, height, width, generator=generator(2), dtype=torch.float64)
    x = 0.3 * x.cumsum(dim=3) + x.flip(1)
    weight = torch.rand(n, generator=generator(3), dtype=torch.float64)
    share = (weight / weight.sum())[:, None, None, None] / (height * width)
    # Zeros stand beyond the edges of what is standardised: here that changes nothing.
    x = x - (share * x).sum(dim=(0, 2, 3), keepdim=True)
    x = x / (share * x.square()).sum(dim=(0, 2, 3), keepdim=True).sqrt()
    lazy = MaskedConvTransform((2, height, width), components=1, kernel_size=3).double()
    assert lazy.is_waiting
    lazy.start([Block(x.flatten(1), None, weight)])
    assert not lazy.is_waiting
    nn.init.zeros_(lazy.hyper.last.weight)
    found = lazy().call_and_ladj(x.flatten(1))

    padded = nn.functional.pad(torch.cat([x, torch.ones_like(x[:, :1])], dim=1), (1, 1, 1, 0))
    expected = torch.zeros(n, dtype=torch.float64)
    for channel in range(2):
        before, target = [], []
        for i in range(height):
            for j in range(width):
                above, left = padded[:, :, i, j : j + 3].flatten(1), padded[:, :, i + 1, j]
                own = [torch.ones(n, 1, dtype=torch.float64), x[:, :channel, i, j]]
                before.append(torch.cat([above, left, *own], dim=1))
                target.append(x[:, channel, i, j])
        root = weight.sqrt().repeat(height * width)[:, None]
        A, y = torch.cat(before), torch.cat(target)[:, None]
        slopes = torch.linalg.lstsq(root * A, root * y, driver="gelsd").solution
        residual = y - A @ slopes
        deviation = ((root * residual).square().sum() / root.square().sum()).sqrt()
        terms = -0.5 * (residual / deviation).square() - deviation.log()
        expected += terms.view(-1, n).sum(dim=0)
    log_prob = found[1] - 0.5 * found[0].square().sum(dim=1)
    torch.testing.assert_close(log_prob, expected, atol=0.02, rtol=0)  # a ridge apart


def test_a_constant_channel_starts_without_dividing_by_zero() -> None:
    lazy = MaskedConvTransform((1, 2, 2), hidden_features=[4], kernel_size=3)
    lazy.start([Block(torch.full((50, 4), 7.0), None, torch.ones(50))])
    assert lazy().call_and_ladj(torch.full((1, 4), 7.0))[1].isfinite().all()


# --- the flow ---


def test_the_density_is_that_of_its_transform_and_base() -> None:
    flow = mf.flows.PixelCNN(
        12, 2, image_shape=(3, 2, 2), components=4, hidden_features=[6, 6], generator=generator()
    ).double()
    c = torch.ones(2, dtype=torch.float64)
    x = images((3, 2, 2), 5)
    z, ladj = flow(c).transform.call_and_ladj(x)
    expected = ladj - 0.5 * z.square().sum(dim=1) - 6 * math.log(2 * math.pi)
    torch.testing.assert_close(flow(c).log_prob(x), expected)


def test_density_integrates_to_one() -> None:
    flow = mf.flows.PixelCNN(
        2, image_shape=(1, 1, 2), components=3, hidden_features=[6], kernel_size=3
    ).double()
    overwrite(flow.transform, 0.4)
    line = torch.linspace(-20, 20, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = flow().log_prob(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert abs(mass - 1) < 1e-3


def test_samples_are_those_of_the_generator_and_have_the_density() -> None:
    flow = mf.flows.PixelCNN(4, image_shape=(1, 2, 2), hidden_features=[5], generator=generator())
    first, second = (flow().sample((6,), generator=generator(4)) for _ in range(2))
    assert torch.equal(first, second)
    z = flow().transform(first)
    torch.testing.assert_close(z, torch.randn(6, 4, generator=generator(4)), atol=1e-4, rtol=1e-3)


def test_wrong_shapes_and_widths_are_named() -> None:
    with pytest.raises(ValueError, match=r"image_shape: expected .* of 12 features"):
        mf.flows.PixelCNN(12, image_shape=(3, 2, 3))
    with pytest.raises(ValueError, match=r"hidden_features: expected one width .* got \[4, 5\]"):
        mf.flows.PixelCNN(12, image_shape=(3, 2, 2), hidden_features=[4, 5])
    with pytest.raises(TypeError, match=r"kernel_sise.*did you mean 'kernel_size'"):
        mf.flows.PixelCNN(12, image_shape=(3, 2, 2), kernel_sise=3)
    with pytest.raises(ValueError, match="components: expected at least 1"):
        mf.flows.PixelCNN(12, image_shape=(3, 2, 2), components=0)
    with pytest.raises(ValueError, match=r"x: expected a tensor of float32, .* got one of float64"):
        mf.flows.PixelCNN(4, image_shape=(1, 2, 2))().log_prob(torch.zeros(3, 4).double())


def test_no_rows_have_no_densities() -> None:
    flow = mf.flows.PixelCNN(12, 2, image_shape=(3, 2, 2), hidden_features=[5, 5])
    c = torch.zeros(0, 2)
    assert flow(c).sample().shape == (0, 12)
    assert flow(c).log_prob(torch.zeros(0, 12)).shape == (0,)


def test_it_trains_from_the_command_line_and_opens_again(tmp_path: Path) -> None:
    small = "--hidden_dim 8 --hidden_layers 1 --epochs 1 --batch_size 300 --labels".split()  # noqa: SIM905
    assert run("train", "--dataset", "digits", "--flow", "pixelcnn", "--out", tmp_path, *small) == 0
    opened = mf.load_run(tmp_path / "digits")
    step = opened.flow.transform.transforms[-1]
    assert isinstance(step, MaskedConvTransform)
    assert not step.is_waiting
    x = opened.flow(torch.eye(10)[3]).sample((4,), generator=generator())
    assert x.shape == (4, 64)
    assert torch.equal(x, x.round())
    summary = (tmp_path / "digits" / "results_summary.txt").read_text("utf-8")
    assert "PixelCNN, hidden layers 8\n" in summary
