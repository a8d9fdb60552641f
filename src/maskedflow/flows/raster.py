"""Densities of images by masked convolutions: each pixel given those before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.nn import MaskedConvNet
from maskedflow.nn.raster import Shape, with_ones
from maskedflow.sweep import invert_raster
from maskedflow.transforms import (
    AutoregressiveTransform,
    DependentTransform,
    MonotonicMixtureTransform,
    check_features,
)
from maskedflow.transforms.waiting import Block, WaitingTransform, gathered

from .autoregressive import MixtureFlow
from .flow import Flow, check_context, check_sizes, costs, standard_normal
from .glow import check_shape

WIDEST, NARROWEST = 3.0, 0.1
"""Standard deviations of the first components, in those of what a regression leaves."""
RIDGE = 1e-4
"""What is added to the diagonal of a regression's correlations."""
IMAGES = 2_000
"""The images whose pixels are regressed on their neighbourhoods."""
BLOCK = 32
"""The images of a block of regressions."""


class MaskedConvTransform(WaitingTransform):
    r"""A lazy autoregressive transform of images whose conditioner is a masked convolution.

    Each channel of a pixel has, given those before it in raster order, a mixture of K Gaussians
    around a linear regression on its neighbourhood,

    .. math:: p(x_i \mid x_{<i}, c) =
        \sum_k w_{ik} \, \mathcal{N}(x_i \mid m_i + s \mu_{ik}, s^2 e^{-p_{ik}}), \quad
        (w, \mu, p, m) = \text{ConvNet}(x_{<i}, c)

    which is mapped to N(0, 1). Images are flattened, channels first. The forward direction costs
    one pass of the network, and so does the inverse, but for finding the roots of mixtures.

    Args:
        shape: The shape (C, H, W) of an image.
        components: The number of Gaussians K.
        kwargs: What :class:`maskedflow.nn.MaskedConvNet` takes: `hidden_features`, `kernel_size`,
            `activation`, `generator`.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> t = MaskedConvTransform((1, 4, 4), components=3, hidden_features=[8])
        >>> x = torch.randn(5, 16)
        >>> torch.allclose(t().inv(t()(x)), x, atol=1e-4)
        True
    """

    loc: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        components: int = 10,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_sizes(context, features=min(shape), components=components)
        self.shape, self.context, self.components = shape, context, components
        self.features = math.prod(shape)
        self.hyper = MaskedConvNet(shape, 3 * components, context, generator=generator, **kwargs)
        channels = shape[0]
        self.register_buffer("loc", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("spread", torch.ones(channels))
        logits, means, log_precisions = torch.zeros(3, channels, components)
        if components > 1:
            means.normal_(std=0.3, generator=generator)
            widths = torch.linspace(math.log(NARROWEST), math.log(WIDEST), components)
            log_precisions -= 2 * widths
        with torch.no_grad():
            start = torch.stack([logits, means, log_precisions], dim=1)
            self.hyper.last.bias.copy_(start.flatten())

    def extra_repr(self) -> str:
        return f"shape={self.shape}, components={self.components}"

    def _mixtures(self, phi: Tensor, mean: Tensor, channels: Tensor) -> MonotonicMixtureTransform:
        """The maps of numbers of some channels, given what the network makes of those before."""
        logits, means, log_precisions = phi.unbind(dim=-2)
        loc, scale, spread = (one[channels] for one in (self.loc, self.scale, self.spread))
        means = torch.addcmul((loc + scale * mean)[..., None], (scale * spread)[..., None], means)
        log_precisions = log_precisions - 2 * (scale * spread).log()[..., None]
        return MonotonicMixtureTransform(logits, means, log_precisions)

    def _images(self, x: Tensor) -> Tensor:
        """Rows as the network reads them, with shape (N, C, H, W)."""
        images = x.reshape(-1, *self.shape)
        return (images - self.loc[:, None, None]) / self.scale[:, None, None]

    def _batch(self, x: Tensor, c: Tensor | None) -> tuple[torch.Size, Tensor, Tensor | None]:
        """The shape of the batch of x and c, and both in rows."""
        check_features("x", x, self.features)
        if c is None:
            return x.shape[:-1], x.reshape(-1, self.features), None
        batch = torch.broadcast_shapes(x.shape[:-1], c.shape[:-1])
        rows = x.expand(*batch, -1).reshape(-1, self.features)
        return batch, rows, c.expand(*batch, -1).reshape(-1, self.context)

    def meta(self, c: Tensor | None, x: Tensor) -> TorchTransform:
        """Makes the transform of all features that are given each its predecessors in x."""
        batch, rows, c = self._batch(x, c)
        phi, mean = self.hyper(self._images(rows), c)
        phi = phi.flatten(3).mT.reshape(*batch, self.features, 3, self.components)
        channels = torch.arange(self.shape[0], device=x.device)
        channels = channels.repeat_interleave(self.shape[1] * self.shape[2])
        return DependentTransform(
            self._mixtures(phi, mean.reshape(*batch, self.features), channels), 1
        )

    def forward(self, c: Tensor | None = None) -> AutoregressiveTransform:
        check_context(c, self.context)
        return AutoregressiveTransform(
            partial(self.meta, c), self.features, partial(self._sweep, c)
        )

    def _sweep(self, c: Tensor | None, z: Tensor) -> tuple[Tensor, Tensor]:
        learned = (z, *self.parameters(), *(() if c is None else (c,)))
        if torch.is_grad_enabled() and any(one.requires_grad for one in learned):
            # The roots of mixtures have gradients, and a pass for each feature reaches them.
            x = AutoregressiveTransform(partial(self.meta, c), self.features).inv(z)
        else:
            x = self._raster(c, z)
        return x, -self.forward(c).call_and_ladj(x)[1]

    def _raster(self, c: Tensor | None, z: Tensor) -> Tensor:
        """The inverse, pixel after pixel."""
        batch, rows, c = self._batch(z, c)

        def solve(channel: int, phi: Tensor, mean: Tensor, z: Tensor) -> Tensor:
            channels = torch.tensor(channel, device=z.device)
            mixtures = self._mixtures(phi.unflatten(-1, (3, -1)), mean, channels)
            x: Tensor = mixtures.inv(z)
            return (x - self.loc[channel]) / self.scale[channel]

        images = invert_raster(self.hyper, solve, rows.reshape(-1, *self.shape), c)
        x = images * self.scale[:, None, None] + self.loc[:, None, None]
        return x.reshape(*batch, self.features)

    @property
    def is_waiting(self) -> bool:
        """Whether training rows are still to set where it begins."""
        return bool((self.hyper.direct.weight == 0).all())

    @property
    def enough(self) -> int:
        """How many images it wants."""
        return IMAGES

    @torch.no_grad()
    def start(self, blocks: Iterable[Block]) -> None:
        r"""Begins at the rows' linear regressions of a pixel's channels on what its window shows.

        All pixels share the coefficients, so that a few thousand images are plenty. With one
        component the flow then is the Gaussian of this kind with the greatest likelihood, and with
        more the same with heavier tails, which the network has to narrow where it can.

        Args:
            blocks: The rows.
        """
        x, weight = gathered(blocks)
        check_features("x", x, self.features)
        share = (weight / weight.sum()).double()
        images = x.double().reshape(len(x), self.shape[0], -1)
        loc = torch.einsum("n,nci->c", share, images) / images.shape[-1]
        variance = torch.einsum("n,nci->c", share, (images - loc[:, None]).square())
        scale = (variance / images.shape[-1]).sqrt()
        self.loc.copy_(loc)
        self.scale.copy_(torch.where(scale > 0, scale, 1))
        direct = self.hyper.direct
        inputs = direct.mask[0].numel()
        size = inputs + self.shape[0]
        moments = x.new_zeros(size, size, dtype=torch.float64)
        for block, part in zip(x.split(BLOCK), share.split(BLOCK), strict=True):
            read = self._images(block)
            windows = F.unfold(direct.padded(with_ones(read)), direct.mask.shape[2:])
            both = torch.cat([windows, read.flatten(2)], dim=1).double()
            both = both * (part / images.shape[-1]).sqrt()[:, None, None]
            both = both.transpose(0, 1).flatten(1)
            moments += both @ both.T
        for channel, mask in enumerate(direct.mask.flatten(1)):
            seen = mask.nonzero()[:, 0]
            square = moments[seen][:, seen] + RIDGE * torch.eye(len(seen)).to(moments)
            target = moments[seen, inputs + channel]
            slopes = torch.linalg.solve(square, target)
            left = moments[inputs + channel, inputs + channel] - slopes @ target
            weights = moments.new_zeros(inputs).index_put((seen,), slopes)
            direct.weight[channel] = weights.view(direct.mask.shape[1:])
            self.spread[channel] = left.clamp(min=RIDGE).sqrt()


class PixelCNN(Flow):
    r"""A density of images, pixel by pixel: MADE with masked convolutions for its masked MLP.

    It is one :class:`MaskedConvTransform`: mixtures of Gaussians around linear regressions. What
    pixels have in common is learned once, for all places, where a MADE learns it at each: on
    CIFAR-10 it is far ahead of a MAF of five layers, with a hundredth of its parameters.

    Scoring costs one pass of the network. A sample costs about the same, pixel after pixel, and the
    search for each mixture's root.

    Args:
        components: The number of Gaussians K in a conditional.
        image_shape: The shape (C, H, W) of an image.
        kwargs: What :class:`maskedflow.nn.MaskedConvNet` takes: `hidden_features`, `kernel_size`,
            `activation`.

    Raises:
        ValueError: If the shape does not fit the features.

    References:
        | Pixel Recurrent Neural Networks (van den Oord et al., 2016), section 3.5
        | https://arxiv.org/abs/1601.06759
        | MADE (Germain et al., 2015), https://arxiv.org/abs/1502.03509

    Example:
        >>> flow = PixelCNN(64, context=10, image_shape=(1, 8, 8), hidden_features=[16, 16])
        >>> flow(torch.eye(10)[3]).log_prob(torch.zeros(5, 64)).shape
        torch.Size([5])
    """

    passes_to = (MaskedConvTransform, MaskedConvNet)

    def __init__(
        self,
        features: int,
        context: int = 0,
        components: int = 10,
        *,
        image_shape: Sequence[int],
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        shape = check_shape(image_shape, features)
        step = MaskedConvTransform(shape, context, components, generator=generator, **kwargs)
        super().__init__([step], standard_normal(features))

    def extra_repr(self) -> str:
        return costs(self, MaskedConvTransform, "pass", "sweep")

    def distribution(self, c: Tensor | None) -> MixtureFlow:
        flow = super().distribution(c)
        return MixtureFlow(flow.transform, flow.base)
