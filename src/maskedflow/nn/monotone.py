"""Networks that increase in each of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .dense import MLP, Linear


class MonotonicLinear(Linear):
    r"""A linear layer that increases in each input.

    .. math:: y = x |W|^T + b

    It takes what :class:`Linear` takes.

    Example:
        >>> layer = MonotonicLinear(3, 4)
        >>> bool((layer(torch.ones(3)) > layer(torch.zeros(3))).all())
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_weight(x, self.weight.abs())

    def tangent(self, x: Tensor) -> Tensor:
        """Maps a direction of x, without the bias."""
        return self.apply_weight(x, self.weight.abs(), bias=False)


class TwoWayELU(nn.ELU):
    r"""Applies :math:`\text{ELU}(x)` to the first half, :math:`-\text{ELU}(-x)` to the second.

    One half grows without bound to the right, the other to the left, so that a monotone network
    reaches every real number.

    Example:
        >>> TwoWayELU()(torch.tensor([-9.0, 9.0, -9.0, 9.0]))
        tensor([-0.9999,  9.0000, -9.0000,  0.9999])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        half = (input.shape[-1] + 1) // 2
        right, left = input[..., :half], input[..., half:]
        return torch.cat([super().forward(right), -super().forward(-left)], dim=-1)

    def slope(self, x: Tensor) -> Tensor:
        """The derivative at x."""
        half = (x.shape[-1] + 1) // 2
        inner = torch.cat([x[..., :half], -x[..., half:]], dim=-1)
        return torch.where(inner > 0, 1, self.alpha * inner.clamp(max=0).exp())


class MonotonicMLP(MLP):
    r"""A multi-layer perceptron whose Jacobian :math:`\partial y_j / \partial x_i` is positive.

    Its layers are :class:`MonotonicLinear` with :class:`TwoWayELU` between them, two hidden ones or
    more for a map onto the real line. It takes what :class:`MLP` takes, but no other activation.

    References:
        | Neural Autoregressive Flows (Huang et al., 2018), section 3.1
        | https://arxiv.org/abs/1804.00779

    Example:
        >>> net = MonotonicMLP(3, 4, [16, 32])
        >>> bool((torch.autograd.functional.jacobian(net, torch.zeros(3)) > 0).all())
        True
    """

    linear = MonotonicLinear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: Sequence[int] = (64, 64),
        *,
        bias: bool = True,
        stack: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            hidden_features,
            activation=TwoWayELU,
            bias=bias,
            stack=stack,
            generator=generator,
        )

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""The outputs and their derivatives :math:`\partial y_j / \partial x_1`, (*, C') both."""
        slope = torch.cat([torch.ones_like(x[..., :1]), torch.zeros_like(x[..., 1:])], dim=-1)
        for layer in self:
            if isinstance(layer, TwoWayELU):
                slope, x = slope * layer.slope(x), layer(x)
            else:
                linear = cast(MonotonicLinear, layer)
                slope, x = linear.tangent(slope), linear(x)
        return x, slope
