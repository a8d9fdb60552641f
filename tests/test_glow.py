"""Glow and its parts on small images: squeeze, pixelwise maps, couplings, scales, temperature."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from commands import run
from family import without_gradient
from generators import generator
from maskedflow.flows import ConvCouplingTransform, ElementWiseTransform
from maskedflow.transforms import (
    ActNorm,
    Head,
    HeadTransform,
    LULinear,
    PermutationTransform,
    Pixelwise,
    PixelwiseTransform,
    PLULinear,
    SqueezeTransform,
)
from oracles import autograd_ladjs, check_inverse_pair, dependencies
from strategies import overwrite

SHAPES = [(1, 4, 4), (3, 4, 4), (2, 2, 4), (1, 3, 3), (3, 1, 1), (1, 1, 1)]


def images(shape: tuple[int, int, int], *batch: int, seed: int = 1) -> Tensor:
    size = shape[0] * shape[1] * shape[2]
    return torch.randn(*batch, size, generator=generator(seed), dtype=torch.float64)


def glow(
    shape: tuple[int, int, int], context: int = 0, noise: float = 0.15, **options: object
) -> mf.flows.Flow:
    """A small Glow in double precision, its weights moved away from where they start."""
    features = shape[0] * shape[1] * shape[2]
    more = {"transforms": 2, "hidden_features": (6, 6), "activation": nn.Tanh, **options}
    flow = mf.flows.Glow(features, context, image_shape=shape, generator=generator(), **more)
    draws = generator(5)
    for parameter in flow.double().parameters():
        step = torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
        parameter.data.add_(noise * step)
    return flow.eval()


# --- the parts ---


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_squeeze_puts_each_block_into_channels(channels: int, height: int, width: int) -> None:
    shape = (channels, 2 * height, 2 * width)
    x = images(shape, 2)
    y = SqueezeTransform(shape)(x).reshape(2, 4 * channels, height, width)
    for image, squeezed in zip(x.reshape(2, *shape), y, strict=True):
        for i in range(height):
            for j in range(width):
                block = image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                assert torch.equal(squeezed[:, i, j], block.flatten())
    check_inverse_pair(SqueezeTransform(shape), x)
    unshuffled = nn.functional.pixel_unshuffle(x.reshape(2, *shape), 2)
    assert torch.equal(y, unshuffled)


def test_pixelwise_maps_pixels_one_by_one() -> None:
    shape = (3, 2, 2)
    lazy = PLULinear(3, generator=generator()).double()
    overwrite(lazy, 0.4)
    x = images(shape, 5)
    f = PixelwiseTransform(lazy(), shape)
    y, ladj = f.call_and_ladj(x)
    cells, mapped = x.reshape(5, 3, 4), y.reshape(5, 3, 4)
    for p in range(4):
        torch.testing.assert_close(mapped[:, :, p], lazy()(cells[:, :, p]))
    torch.testing.assert_close(ladj, autograd_ladjs(f, x))
    check_inverse_pair(f, x)


@pytest.mark.parametrize("pixels", [5, 6])
def test_pixelwise_maps_all_pixels_of_an_image_by_its_own_context(pixels: int) -> None:
    """Of as many images as pixels, too."""
    shape = (2, 1, pixels)
    lazy = Pixelwise(shape, ElementWiseTransform(2, context=3, generator=generator())).double()
    overwrite(lazy, 0.4)
    x, c = images(shape, 5), torch.randn(5, 3, dtype=torch.float64, generator=generator())
    y, ladj = lazy(c).call_and_ladj(x)
    for image, each, mapped, volume in zip(x, c, y, ladj, strict=True):
        one, alone = lazy(each).call_and_ladj(image)
        torch.testing.assert_close(mapped, one)
        torch.testing.assert_close(volume, alone)
    check_inverse_pair(lazy(c), x)


@pytest.mark.parametrize("features", [1, 2, 5, 48])
def test_plu_starts_as_a_rotation_and_mixes_everything(features: int) -> None:
    lazy = PLULinear(features, generator=generator(features)).double()
    eye = torch.eye(features, dtype=torch.float64)
    matrix = lazy()(eye).T
    # Weights are drawn in single precision.
    torch.testing.assert_close(matrix @ matrix.T, eye, atol=1e-5, rtol=0)
    assert (matrix.abs() > 1e-6).all()
    assert lazy().call_and_ladj(eye)[1].abs().max() < 1e-4
    overwrite(lazy, 0.3)
    x = torch.randn(3, features, generator=generator(), dtype=torch.float64)
    check_inverse_pair(lazy(), x)
    torch.testing.assert_close(lazy().call_and_ladj(x)[1], autograd_ladjs(lazy(), x))


def test_plu_takes_every_rotation_not_only_those_near_the_identity() -> None:
    signs = {float(PLULinear(3, generator=generator(s)).sign.prod()) for s in range(8)}
    orders = {tuple(PLULinear(3, generator=generator(s)).order.tolist()) for s in range(20)}
    assert signs == {-1.0, 1.0}
    assert len(orders) > 2


def test_head_leaves_the_rest_alone() -> None:
    linear = overwrite(LULinear(2).double(), 0.5)
    f = Head(2, linear)()
    x = images((5, 1, 1), 4)
    y, ladj = f.call_and_ladj(x)
    assert torch.equal(y[:, 2:], x[:, 2:])
    torch.testing.assert_close(y[:, :2], linear()(x[:, :2]))
    torch.testing.assert_close(ladj, autograd_ladjs(f, x))
    check_inverse_pair(f, x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("context", [0, 2])
def test_coupling_keeps_half_and_is_bounded(shape: tuple[int, int, int], context: int) -> None:
    lazy = ConvCouplingTransform(shape, context, hidden_features=(5,), bound=0.5).double()
    overwrite(lazy, 3.0)
    c = torch.randn(context, generator=generator(), dtype=torch.float64) if context else None
    x = images(shape, 3)
    z, ladj = lazy(c).call_and_ladj(x)
    kept = shape[0] // 2 * shape[1] * shape[2]
    assert torch.equal(z[:, :kept], x[:, :kept])
    assert (ladj.abs() <= 0.5 * (x.shape[1] - kept)).all()
    torch.testing.assert_close(ladj, autograd_ladjs(lazy(c), x))
    found = dependencies(lazy(c), x[:1])
    assert not (found[kept:, kept:] & ~torch.eye(x.shape[1] - kept).bool()).any()
    assert kept == 0 or found[kept:, :kept].any()


def test_a_new_coupling_is_the_identity() -> None:
    x = images((2, 2, 2), 3).float()
    for hidden in ((), (8,), (8, 8)):
        lazy = ConvCouplingTransform((2, 2, 2), 3, hidden_features=hidden)
        assert torch.equal(lazy(torch.ones(3))(x), x)


# --- the flow ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("context", [0, 2])
def test_round_trip_and_ladj(shape: tuple[int, int, int], context: int) -> None:
    flow = glow(shape, context)
    x = images(shape, 3)
    c = torch.randn(3, context, generator=generator(), dtype=torch.float64) if context else None
    check_inverse_pair(flow(c).transform, x, atol=1e-9, rtol=1e-9)
    one = None if c is None else c[0]
    transform = flow(one).transform
    z, ladj = transform.call_and_ladj(x)
    torch.testing.assert_close(ladj, autograd_ladjs(transform, x))
    torch.testing.assert_close(transform.inv.call_and_ladj(z)[1], autograd_ladjs(transform.inv, z))


def test_single_precision_round_trip_of_a_deep_flow() -> None:
    flow = mf.flows.Glow(768, image_shape=(3, 16, 16), transforms=6, generator=generator()).eval()
    for parameter in flow.parameters():
        draw = torch.randn(parameter.shape, generator=generator(2))
        parameter.data.add_(0.02 * draw)
    x = torch.randn(10, 768, generator=generator(3))
    z = flow().transform(x)
    assert (z - x).abs().max() > 0.1
    torch.testing.assert_close(flow().transform.inv(z), x, atol=1e-4, rtol=1e-4)


def test_density_integrates_to_one() -> None:
    """Over the four pixels of an image, by importance sampling from a wide Gaussian."""
    flow = glow((1, 2, 2), 1, noise=0.3)
    c = torch.ones(1, dtype=torch.float64)
    x = flow(c).sample((20_000,), generator=generator())
    proposal = torch.distributions.MultivariateNormal(x.mean(dim=0), 2 * x.T.cov())
    torch.manual_seed(1)
    draws = proposal.sample((100_000,))
    with torch.no_grad():
        weights = (flow(c).log_prob(draws) - proposal.log_prob(draws)).exp()
    error = weights.std() / len(weights) ** 0.5
    assert error < 0.02
    assert abs(weights.mean() - 1) < 4 * error


def test_half_of_the_channels_leave_at_each_scale() -> None:
    """What left at the first scale no longer changes: its latents are an affine map of it."""
    flow = mf.flows.Glow(64, image_shape=(1, 8, 8), transforms=1, generator=generator()).eval()
    squeeze, pixelwise, coupling, prior, head = flow.transform.transforms
    assert head.features == 32
    below = head.transform.transforms[-1]
    assert below.features == 16
    assert [m.features for m in flow.modules() if isinstance(m, Head)] == [32, 16]
    x = images((1, 8, 8), 2).float()
    h = coupling()(pixelwise()(squeeze()(x)))
    overwrite(prior, 0.3)
    z = flow().transform(x)
    assert torch.equal(z[:, 32:], prior()(h)[:, 32:])
    assert not torch.equal(z[:, 32:], h[:, 32:])


@pytest.mark.parametrize("context", [0, 3])
def test_gradients_reach_every_parameter(context: int) -> None:
    flow = glow((3, 4, 4), context)
    c = torch.randn(4, context, generator=generator(), dtype=torch.float64) if context else None
    flow(c).log_prob(images((3, 4, 4), 4)).sum().backward()
    assert not without_gradient(flow)
    flow.zero_grad()
    flow(c).rsample((4,), generator=generator()).square().sum().backward()
    assert not without_gradient(flow)


def test_the_class_changes_density_and_samples() -> None:
    flow = glow((1, 4, 4), 3)
    classes = torch.eye(3, dtype=torch.float64)
    x = images((1, 4, 4), 5)
    log_prob = flow(classes[:, None]).log_prob(x)
    assert log_prob.shape == (3, 5)
    for i in range(3):
        torch.testing.assert_close(log_prob[i], flow(classes[i]).log_prob(x))
    assert (log_prob[0] - log_prob[1]).abs().min() > 1e-3
    drawn = flow(classes).tempered(0).sample()
    assert (drawn[0] - drawn[1]).abs().min() > 1e-6


def test_temperature() -> None:
    flow = glow((1, 4, 4))
    mode = flow().transform.inv(torch.zeros(16, dtype=torch.float64))
    frozen = flow().tempered(0).sample((3,), generator=generator())
    torch.testing.assert_close(frozen, mode.expand(3, 16))
    z = flow().transform(flow().tempered(0.5).sample((4000,), generator=generator()))
    assert (z.std(dim=0) - 0.5).abs().max() < 0.03
    same = flow().tempered(1.0)
    x = images((1, 4, 4), 2)
    assert torch.equal(same.log_prob(x), flow().log_prob(x))
    # A base that is a flow is cooled as well, and one of another kind is refused.
    nested = mf.flows.MAF(2, base=mf.flows.MAF(2))().tempered(0)
    assert nested.sample((2,)).shape == (2, 2)
    with pytest.raises(ValueError, match="temperature: expected a Gaussian base, got a StudentT"):
        mf.flows.MAF(2, base=mf.flows.base("student-t", 2))().tempered(0.5)
    with pytest.raises(ValueError, match="temperature: expected a number from 0 on, got -1"):
        flow().tempered(-1)


def test_first_batch_standardises_channels_and_the_flag_is_saved(tmp_path: Path) -> None:
    options = {"image_shape": (2, 4, 4), "transforms": 2, "hidden_features": (4,)}
    flow = mf.flows.Glow(32, generator=generator(), **options)
    norms = [module for module in flow.modules() if isinstance(module, ActNorm)]
    assert [len(norm.loc) for norm in norms] == [8, 8, 16, 16]
    x = 7 + 3 * torch.randn(50, 32, generator=generator())
    flow.eval()().log_prob(x)
    assert not any(norm.initialized for norm in norms)
    flow.train()().log_prob(x)
    assert all(norm.initialized for norm in norms)
    squeezed = flow.transform.transforms[0]()(x).reshape(50, 8, 4)
    torch.testing.assert_close(norms[0].loc.data, squeezed.mean(dim=(0, 2)))

    mf.training.save(tmp_path / "glow.safetensors", flow)
    other = mf.flows.Glow(32, generator=generator(9), **options)
    mf.training.load(tmp_path / "glow.safetensors", other)
    y = torch.randn(6, 32, generator=generator(2))
    flow.eval()
    assert torch.equal(other.train()().log_prob(y), flow().log_prob(y))  # is not set anew
    assert torch.equal(other().transform.inv(y), flow().transform.inv(y))


def test_a_generator_makes_it_the_same_again_and_leaves_torchs_alone() -> None:
    before = torch.get_rng_state()
    first, second = (
        mf.flows.Glow(16, image_shape=(1, 4, 4), generator=generator(3)) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_trains_from_the_command_line_and_opens_again(tmp_path: Path) -> None:
    small = "--hidden_dim 8 --num_layers 1 --epochs 1 --batch_size 300 --labels".split()  # noqa: SIM905
    assert run("train", "--dataset", "digits", "--flow", "glow", "--out", tmp_path, *small) == 0
    opened = mf.load_run(tmp_path / "digits")
    assert opened.flow.transform.transforms[3].f is SqueezeTransform
    assert opened.config.flow.name == "Glow"
    assert opened.config.flow.note is None
    assert all(m.initialized for m in opened.flow.modules() if isinstance(m, ActNorm))
    label = torch.eye(10)[3]
    x = opened.flow(label).tempered(0.7).sample((4,), generator=generator())
    assert x.shape == (4, 64)
    assert torch.equal(x, x.round())
    images = opened.dataset().test.x[:5].float()
    assert opened.flow(label).log_prob(images).isfinite().all()
    summary = (tmp_path / "digits" / "results_summary.txt").read_text("utf-8")
    assert "Glow, 1 transforms, hidden layers 8 x 8\n" in summary


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (1, 4, 5)}, "image_shape: expected .* of 16 features, got .1, 4, 5."),
        ({"image_shape": (16,)}, "image_shape: expected"),
        ({"image_shape": (1, 4, 4), "scales": 3}, "scales: expected 1 to 2 for images of 4 x 4"),
        ({"image_shape": (1, 4, 4), "transforms": 0}, "transforms: expected at least 1, got 0"),
        ({"image_shape": (1, 4, 4), "context": -1}, "context"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mf.flows.Glow(16, **options)


def test_wrong_inputs() -> None:
    flow = mf.flows.Glow(16, 2, image_shape=(1, 4, 4))
    with pytest.raises(ValueError, match=r"c: expected a context of shape \(\*, 2\), got none"):
        flow()
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 16\), got \(5, 4\)"):
        flow(torch.zeros(2)).log_prob(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="shape: expected an even height and width"):
        SqueezeTransform((1, 3, 4))
    with pytest.raises(ValueError, match="bound: expected a positive number, got 0"):
        ConvCouplingTransform((2, 2, 2), bound=0)
    swap = PermutationTransform(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="x: expected at least 2 features"):
        HeadTransform(swap, 2)(torch.zeros(1))
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 8\)"):
        Pixelwise((2, 2, 2), PLULinear(2))()(torch.zeros(7))


@settings(max_examples=5)
@given(st.integers(0, 100))
def test_far_away_images_have_finite_densities_and_gradients(seed: int) -> None:
    flow = glow((3, 4, 4), 1, noise=0.1).float()
    x = 1e6 * torch.randn(4, 48, generator=generator(seed)).sign()
    x.requires_grad_()
    log_prob = flow(torch.ones(1)).log_prob(x)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert all(p.grad.isfinite().all() for p in (x, *flow.parameters()))
