"""Convolutions that keep an image's size, given a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import activation_of, widths_of
from .dense import Linear


class Convolution(nn.Module):
    r"""A convolution whose output has the size of its input, zero beyond the edges.

    Args:
        in_channels: The number of input channels.
        out_channels: The number of output channels.
        kernel_size: The side k of the window, odd.

    Example:
        >>> Convolution(3, 8)(torch.zeros(5, 3, 4, 6)).shape
        torch.Size([5, 8, 4, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        r"""Draws weights and biases from :math:`U(\pm 1/\sqrt{C k^2})`."""
        bound = max(self.weight[0].numel(), 1) ** -0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def extra_repr(self) -> str:
        out_channels, in_channels, kernel_size, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel_size}"

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, with shape (N, C, H, W), to y, with shape (N, C', H, W)."""
        if not self.weight.shape[1]:  # torch's convolution of no channels has no output channels
            return self.bias[:, None, None].expand(len(x), -1, *x.shape[-2:])
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class ConvNet(nn.Module):
    r"""A convolutional network that keeps an image's size, zero to begin with.

    .. math:: h_1 = a(K_1 * x + V c), \qquad h_{l + 1} = a(K_{l + 1} * h_l)

    Windows are 3 x 3 in the first and the last layer and 1 x 1 between them. The last layer starts
    at zero. The context is a bias of the first layer's channels, the same for all pixels.

    Args:
        in_channels: The number of input channels.
        out_channels: The number of output channels.
        context: The number of context features.
        hidden_features: The channels of each hidden layer.
        activation: The constructor of the activation; :class:`torch.nn.ReLU` if None.

    References:
        Glow (Kingma and Dhariwal, 2018), section 3.3, https://arxiv.org/abs/1807.03039

    Example:
        >>> net = ConvNet(2, 4, context=3, hidden_features=[16, 16])
        >>> net(torch.randn(5, 2, 8, 8), torch.randn(3)).abs().max().item()
        0.0
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        context: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = [in_channels, *widths_of(hidden_features), out_channels]
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            Convolution(before, after, 3 if i in (0, last) else 1, generator=generator)
            for i, (before, after) in enumerate(pairwise(widths))
        )
        self.activation = activation_of(activation)
        self.steer = None
        if context:
            self.steer = Linear(context, widths[1], bias=False, generator=generator)
        # Without a hidden layer the context reaches the output at once.
        ends: list[nn.Module | None] = [self.layers[-1], None if hidden_features else self.steer]
        for end in filter(None, ends):
            for parameter in end.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps images x, with shape (*, C, H, W), given c, with shape (*, context)."""
        h = _batched(self.layers[0], x)
        if self.steer is not None:
            h = h + self.steer(cast(Tensor, c))[..., None, None]
        for layer in self.layers[1:]:
            h = _batched(layer, self.activation(h))
        return h


def _batched(layer: nn.Module, x: Tensor) -> Tensor:
    """A convolution of images in a batch of any shape."""
    batch, image = x.shape[:-3], x.shape[-3:]
    y: Tensor = layer(x.reshape(prod(batch), *image))
    return y.reshape(*batch, *y.shape[1:])
