"""Squeezing: an image of half the sides and four times the channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Transform, check_features

__all__ = ["SqueezeTransform"]


class SqueezeTransform(Transform):
    r"""Turns blocks of 2 x 2 pixels into channels: a permutation, so volumes are kept.

    .. math:: (C, H, W) \to (4C, H / 2, W / 2)

    Images are flattened, channels first. Both directions cost one copy.

    Args:
        shape: The shape (C, H, W) of an image, with H and W even.

    Raises:
        ValueError: If a side is odd, or x has not C H W features.

    References:
        | RealNVP (Dinh et al., 2016), section 3.6
        | https://arxiv.org/abs/1605.08803

    Example:
        >>> f = SqueezeTransform((1, 2, 4))
        >>> f(torch.tensor([1, 2, 3, 4, 5, 6, 7, 8.0]))
        tensor([1., 3., 2., 4., 5., 7., 6., 8.])
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        if height % 2 or width % 2:
            raise ValueError(f"shape: expected an even height and width, got {tuple(shape)}")
        self.blocks = (channels, height // 2, 2, width // 2, 2)
        self.features = channels * height * width

    def __repr__(self) -> str:
        channels, height, _, width, _ = self.blocks
        return f"SqueezeTransform({(channels, 2 * height, 2 * width)})"

    def _call(self, x: Tensor) -> Tensor:
        check_features("x", x, self.features)
        blocks = x.unflatten(-1, self.blocks)
        return torch.movedim(blocks, (-3, -1), (-4, -3)).flatten(-5)

    def _inverse(self, y: Tensor) -> Tensor:
        check_features("z", y, self.features)
        channels, height, _, width, _ = self.blocks
        blocks = y.unflatten(-1, (channels, 2, 2, height, width))
        return torch.movedim(blocks, (-4, -3), (-3, -1)).flatten(-5)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x = self._inverse(y)
        return x, self.log_abs_det_jacobian(x, y)
