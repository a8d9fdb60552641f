"""Glow: couplings of images by convolutions, and a flow of them at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.nn import ConvNet
from maskedflow.transforms import (
    ActNorm,
    CouplingTransform,
    DependentTransform,
    Head,
    LazyTransform,
    MonotonicAffineTransform,
    Pixelwise,
    PLULinear,
    SqueezeTransform,
    UnconditionalTransform,
)
from maskedflow.transforms.autoregressive import parts_of

from .flow import Flow, LazyDistribution, check_context, check_sizes, costs, standard_normal

Shape = tuple[int, int, int]


class ConvCouplingTransform(LazyTransform):
    r"""A lazy affine coupling of images: the first channels are kept, the others mapped given them.

    .. math:: z_a = x_a, \qquad z_b = x_b \exp(B \tanh(s / B)) + t, \quad
        (t, s) = \text{ConvNet}(x_a, c)

    No slope leaves :math:`[e^{-B}, e^B]`, and a new coupling is the identity. Images are flattened,
    channels first. Each direction costs one pass of the network.

    Args:
        shape: The shape (C, H, W) of an image. The first half of the channels, rounded down, are
            kept; a single channel is mapped given the context alone.
        bound: The largest log-slope B.
        kwargs: What :class:`maskedflow.nn.ConvNet` takes: `hidden_features`, `activation`,
            `generator`.

    Raises:
        ValueError: If the shape has a size below 1, or the bound is not positive.

    References:
        Glow (Kingma and Dhariwal, 2018), section 3.3, https://arxiv.org/abs/1807.03039

    Example:
        >>> t = ConvCouplingTransform((2, 4, 4))
        >>> x = torch.randn(5, 32)
        >>> torch.equal(t()(x), x)
        True
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        bound: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_sizes(context, features=min(shape))
        if not bound > 0:
            raise ValueError(f"bound: expected a positive number, got {bound}")
        self.shape, self.context, self.bound = shape, context, bound
        channels, *sides = shape
        kept = channels // 2
        self.kept = (kept, *sides)
        self._parts = parts_of(torch.arange(prod(shape)) < prod(self.kept))
        self.hyper = ConvNet(kept, 2 * (channels - kept), context, **kwargs)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, bound={self.bound}"

    def meta(self, c: Tensor | None, x_a: Tensor) -> TorchTransform:
        """Makes the transform of the channels that are mapped, given those that are kept."""
        phi = self.hyper(x_a.reshape(*x_a.shape[:-1], *self.kept), c).flatten(-3)
        shift, scale = phi.chunk(2, dim=-1)
        log_scale = self.bound * torch.tanh(scale / self.bound)
        return DependentTransform(MonotonicAffineTransform(shift, log_scale), 1)

    def forward(self, c: Tensor | None = None) -> CouplingTransform:
        check_context(c, self.context)
        return CouplingTransform(partial(self.meta, c), self._parts)


class Glow(Flow):
    r"""A flow of images: convolutional couplings at several scales.

    At each scale 2 x 2 pixels become channels (:class:`~maskedflow.transforms.SqueezeTransform`).
    Then come steps of three transforms: an :class:`~maskedflow.transforms.ActNorm` of channels, an
    invertible 1 x 1 convolution (:class:`~maskedflow.transforms.PLULinear`) and a
    :class:`ConvCouplingTransform`. Half of the channels then leave. They are Gaussian given those
    that stay, so what they leave as is

    .. math:: z_b = \frac{h_b - \mu(h_a, c)}{\sigma(h_a, c)}

    and :math:`h_a` goes on to the next scale. All latents together are N(0, I).

    Images are flattened, channels first: D = C H W. A class label is a context with one feature for
    each class. Scoring and sampling both cost one pass of each coupling's network.
    `flow(c).tempered(0.7)` samples at a temperature of 0.7, as the paper does, see
    :meth:`~maskedflow.distributions.NormalizingFlow.tempered`.

    Args:
        transforms: The number of steps at each scale.
        image_shape: The shape (C, H, W) of an image.
        scales: The number of scales; as many as the sides can be halved, but at most three, if
            None. An image with an odd side has a single scale, and is not squeezed.
        kwargs: What :class:`maskedflow.nn.ConvNet` takes: `hidden_features`, `activation`.

    Raises:
        ValueError: If the shape does not fit the features, or has sides that cannot be halved as
            often as there are scales.

    References:
        | Glow (Kingma and Dhariwal, 2018), https://arxiv.org/abs/1807.03039
        | RealNVP (Dinh et al., 2016), section 3.6, https://arxiv.org/abs/1605.08803

    Example:
        >>> flow = Glow(64, context=10, transforms=2, image_shape=(1, 8, 8), hidden_features=[16])
        >>> flow(torch.eye(10)[3]).log_prob(torch.zeros(5, 64)).shape
        torch.Size([5])
        >>> flow(torch.eye(10)).tempered(0.7).sample().shape  # an image of each class
        torch.Size([10, 64])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 8,
        *,
        image_shape: Sequence[int],
        scales: int | None = None,
        base: LazyDistribution | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        check_sizes(context, features=features, transforms=transforms)
        shape = check_shape(image_shape, features)
        sides = shape[1] | shape[2]
        halvings = (sides & -sides).bit_length() - 1  # how often both can be halved
        if scales is None:
            scales = min(max(halvings, 1), 3)
        if not 1 <= scales <= max(halvings, 1):
            raise ValueError(
                f"scales: expected 1 to {max(halvings, 1)} for images of {shape[1]} x {shape[2]} "
                f"pixels, got {scales}"
            )
        options = {"context": context, "generator": generator, **kwargs}
        steps = _scale(shape, scales, transforms, squeeze=halvings > 0, **options)
        super().__init__(steps, standard_normal(features) if base is None else base)

    def extra_repr(self) -> str:
        return costs(self, ConvCouplingTransform, "pass", "pass")


def _scale(
    shape: Shape, scales: int, transforms: int, *, squeeze: bool, **options: Any
) -> list[LazyTransform]:
    """The steps of a scale, and in a head those of the scales below it."""
    steps: list[LazyTransform] = []
    if squeeze:
        steps.append(UnconditionalTransform(SqueezeTransform, shape))
        channels, height, width = shape
        shape = (4 * channels, height // 2, width // 2)
    for _ in range(transforms):
        mixing = PLULinear(shape[0], generator=options["generator"])
        steps.append(Pixelwise(shape, ActNorm(shape[0]), mixing))
        steps.append(ConvCouplingTransform(shape, **options))
    if scales > 1:
        # The prior of what leaves is a coupling that reads what stays, by a single convolution.
        steps.append(ConvCouplingTransform(shape, **{**options, "hidden_features": ()}))
        rest = (shape[0] // 2, *shape[1:])
        below = _scale(rest, scales - 1, transforms, squeeze=True, **options)
        steps.append(Head(prod(rest), *below))
    return steps


def check_shape(image_shape: Sequence[int], features: int) -> Shape:
    """The shape of an image, or a ValueError if it does not have these features."""
    given: Any = image_shape
    shape = tuple(given) if isinstance(given, Sequence) else (given,)
    if len(shape) != 3 or min(shape) < 1 or prod(shape) != features:
        raise ValueError(
            f"image_shape: expected (channels, height, width) of {features} features, got {shape}"
        )
    return shape
