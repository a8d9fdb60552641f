"""Masked convolutions, which see the pixels before a pixel and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskedflow.masks import degrees, window_mask

from .arguments import activation_of, check_dtype, widths_of
from .dense import Linear

Shape = tuple[int, int, int]

LIFTED = 8
"""What a network makes of each channel of a pixel before it looks around."""
REACH = 3
"""The side of the windows of residual blocks."""


class MaskedConvolution(nn.Module):
    r"""A convolution of images that sees, of a pixel and those behind it, what its mask allows.

    The image keeps its size, with zeros beyond the edges.

    Args:
        outputs: The degree of each output channel, see :func:`~maskedflow.masks.window_mask`.
        inputs: The degree of each input channel.
        kernel_size: The side k of the window, odd.

    Example:
        >>> layer = MaskedConvolution(torch.tensor([0, 0]), torch.tensor([1]), 3)
        >>> layer(torch.zeros(5, 1, 4, 6)).shape
        torch.Size([5, 2, 4, 6])
    """

    mask: Tensor

    def __init__(
        self,
        outputs: Tensor,
        inputs: Tensor,
        kernel_size: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mask", window_mask(outputs, inputs, kernel_size))
        self.kernel_size, self.edge = kernel_size, kernel_size // 2
        self.weight = nn.Parameter(torch.empty(self.mask.shape))
        self.bias = nn.Parameter(torch.empty(len(outputs)))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        r"""Draws a channel's weights and its bias from :math:`U(\pm 1/\sqrt{n})`, n its inputs."""
        bound = self.mask.flatten(1).sum(dim=1).clamp(min=1).rsqrt()
        self.weight.uniform_(-1, 1, generator=generator).mul_(self.mask * bound.view(-1, 1, 1, 1))
        self.bias.uniform_(-1, 1, generator=generator).mul_(bound)

    def extra_repr(self) -> str:
        outputs, inputs = self.mask.shape[:2]
        return f"{inputs}, {outputs}, kernel_size={self.kernel_size}"

    @property
    def window(self) -> Tensor:
        """The weights, zero where they are masked, with shape (C', C, (k + 1) / 2, k)."""
        return self.weight * self.mask

    def padded(self, x: Tensor) -> Tensor:
        """Images with zeros beyond their edges, as far as windows reach."""
        return F.pad(x, (self.edge, self.edge, self.edge, 0)) if self.edge else x

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, with shape (N, C, H, W), to y, with shape (N, C', H, W)."""
        return F.conv2d(self.padded(x), self.window, self.bias)


class MaskedConvNet(nn.Module):
    r"""A convolutional network whose outputs at a pixel depend on the pixels before it.

    .. math:: h = K * a(E x) + V c, \qquad h \leftarrow h + B_2\, a(B_1 * a(h)), \qquad
        \phi = W a(h), \quad m = D * x

    The windows of K and D are k x k, those of residual blocks :math:`B_1` 3 x 3, of all others 1 x
    1. Pixels are in raster order, and the channels of a pixel one after the other: the parameters
    :math:`\phi` of channel g, and the number :math:`m`, depend on those before it at its pixel.
    A further input channel is one within the image, and zero beyond its edges.

    :math:`m` are MADE's direct connections from inputs to outputs; they start at zero.

    Args:
        shape: The shape (C, H, W) of an image.
        parameters: The number P of parameters of a channel.
        context: The number of context features, which all pixels see.
        hidden_features: The channels of each hidden layer, all alike: that of K, and behind it
            those of residual blocks.
        kernel_size: The side k of the first window.
        activation: The constructor of the activation a; :class:`torch.nn.SiLU` if None.

    Raises:
        ValueError: If the widths differ, or the kernel size is not odd.

    References:
        | Pixel Recurrent Neural Networks (van den Oord et al., 2016), section 3.5
        | MADE (Germain et al., 2015), section 4.3, https://arxiv.org/abs/1502.03509

    Example:
        >>> net = MaskedConvNet((3, 8, 8), parameters=2, hidden_features=[16, 16])
        >>> phi, mean = net(torch.randn(5, 3, 8, 8))
        >>> phi.shape, mean.shape
        (torch.Size([5, 3, 2, 8, 8]), torch.Size([5, 3, 8, 8]))
    """

    def __init__(
        self,
        shape: Shape,
        parameters: int,
        context: int = 0,
        hidden_features: Sequence[int] = (96, 96),
        kernel_size: int = 7,
        activation: Callable[[], nn.Module] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        hidden_features = widths_of(hidden_features)
        if len(set(hidden_features)) != 1 or min(hidden_features) < 1:
            raise ValueError(
                "hidden_features: expected one width or several that are all alike, "
                f"got {hidden_features}"
            )
        self.shape, self.parameters_each = shape, parameters
        channels, width = shape[0], hidden_features[0]
        colours = torch.arange(channels)
        seen = torch.cat([colours + 1, torch.zeros(1, dtype=torch.long)])  # and the ones
        lifted = (colours + 1).repeat_interleave(LIFTED)
        hidden = degrees(width, channels)

        def layer(outputs: Tensor, inputs: Tensor, kernel_size: int = 1) -> MaskedConvolution:
            return MaskedConvolution(outputs, inputs, kernel_size, generator=generator)

        self.activation = activation_of(activation, nn.SiLU)
        self.lift = layer(lifted, seen)
        self.first = layer(hidden, lifted, kernel_size)
        self.steer = None
        if context:
            self.steer = Linear(context, width, bias=False, generator=generator)
        self.blocks = nn.ModuleList(
            nn.ModuleList([layer(hidden, hidden, REACH), layer(hidden, hidden)])
            for _ in hidden_features[1:]
        )
        self.last = layer(colours.repeat_interleave(parameters), hidden)
        self.direct = layer(colours, seen, kernel_size)
        with torch.no_grad():
            # What they parameterise starts near its value at zero, as with a masked MLP.
            self.last.weight.mul_(0.1)
            for zeros in (self.last.bias, *self.direct.parameters()):
                zeros.zero_()

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps images x, with shape (N, C, H, W), given c, with shape (N, context) or (context,).

        Returns:
            The parameters, with shape (N, C, P, H, W), and the numbers m, with that of x.
        """
        check_dtype("x", x, self.first.weight)
        x = with_ones(x)
        h = self.first(self.activation(self.lift(x)))
        if self.steer is not None:
            c = cast(Tensor, c)
            check_dtype("c", c, self.first.weight)
            h = h + self.steer(c)[..., None, None]
        for around, within in self.pairs:
            h = h + within(self.activation(around(self.activation(h))))
        phi = self.last(self.activation(h))
        return phi.unflatten(1, (self.shape[0], self.parameters_each)), self.direct(x)

    @property
    def pairs(self) -> list[tuple[MaskedConvolution, MaskedConvolution]]:
        """The two layers of each residual block."""
        return [tuple(cast(nn.ModuleList, block)) for block in self.blocks]  # type: ignore[misc]


def with_ones(x: Tensor) -> Tensor:
    """Images with a further channel of ones."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
