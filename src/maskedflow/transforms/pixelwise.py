"""One map of channels for all pixels of an image."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform as TorchTransform

from .base import Transform, call_and_ladj, check_features
from .lazy import LazyComposedTransform, LazyTransform

__all__ = ["Pixelwise", "PixelwiseTransform"]


class PixelwiseTransform(Transform):
    r"""Maps the channels of each pixel alike.

    .. math:: y_{:, p} = f(x_{:, p}), \qquad
        \log \left| \det \frac{\partial y}{\partial x} \right| =
        \sum_p \log \left| \det \frac{\partial f}{\partial x_{:, p}} \right|

    Images are flattened, channels first. Each direction costs one call of f for all pixels.

    Args:
        base: The transform f of C channels, with one event dimension.
        shape: The shape (C, H, W) of an image.

    Raises:
        ValueError: If x has not C H W features.

    Example:
        >>> import torch
        >>> from maskedflow.transforms import PermutationTransform
        >>> f = PixelwiseTransform(PermutationTransform(torch.tensor([1, 0])), (2, 1, 2))
        >>> f(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([3., 4., 1., 2.])
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, base: TorchTransform, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.base = base
        self.channels = shape[0]
        self.pixels = shape[1] * shape[2]

    def __repr__(self) -> str:
        return f"PixelwiseTransform({self.base}, pixels={self.pixels})"

    def _split(self, name: str, x: Tensor) -> Tensor:
        """The channels of each pixel, with shape (*, pixels, channels)."""
        check_features(name, x, self.channels * self.pixels)
        return x.reshape(*x.shape[:-1], self.channels, self.pixels).mT

    def _call(self, x: Tensor) -> Tensor:
        return _merge(self.base(self._split("x", x)))

    def _inverse(self, y: Tensor) -> Tensor:
        return _merge(self.base.inv(self._split("z", y)))

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = call_and_ladj(self.base, self._split("x", x))
        return _merge(y), ladj.sum(dim=-1)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x, ladj = call_and_ladj(self.base.inv, self._split("z", y))
        return _merge(x), ladj.sum(dim=-1)


def _merge(x: Tensor) -> Tensor:
    """From pixels and channels back to a flat image."""
    return x.transpose(-1, -2).flatten(-2)


class Pixelwise(LazyTransform):
    """Lazy transforms of channels, one after the other, for all pixels of an image alike.

    Around an :class:`~maskedflow.transforms.ActNorm` it standardises channels, over rows and
    pixels; around a linear map it is a 1 x 1 convolution.

    Args:
        shape: The shape (C, H, W) of an image.
        transforms: The lazy transforms of C channels.

    References:
        | Glow (Kingma and Dhariwal, 2018), sections 3.1 and 3.2
        | https://arxiv.org/abs/1807.03039

    Example:
        >>> import torch
        >>> from maskedflow.transforms import ActNorm
        >>> t = Pixelwise((3, 4, 4), ActNorm(3))
        >>> y = t()(torch.randn(10, 48)).reshape(10, 3, 16)
        >>> bool(y.mean(dim=(0, 2)).abs().max() < 1e-5)
        True
    """

    def __init__(self, shape: tuple[int, int, int], *transforms: LazyTransform) -> None:
        super().__init__()
        self.shape = shape
        self.transform = LazyComposedTransform(*transforms)

    def extra_repr(self) -> str:
        return f"shape={self.shape}"

    def forward(self, c: Tensor | None = None) -> PixelwiseTransform:
        return PixelwiseTransform(self.transform(c), self.shape)
