"""What a flow of images at several scales is made of: images are flattened, channels first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions.transforms import Transform as TorchTransform

from .base import DependentTransform, PartTransform, VectorTransform, check_features
from .lazy import LazyComposedTransform, LazyTransform


class SqueezeTransform(VectorTransform):
    r"""Turns blocks of 2 x 2 pixels into channels: a permutation, so volumes are kept.

    .. math:: (C, H, W) \to (4C, H / 2, W / 2)

    Both directions cost one copy.

    Args:
        shape: The shape (C, H, W) of an image, with H and W even.

    Raises:
        ValueError: If a side is odd, or x does not have C H W features.

    References:
        RealNVP (Dinh et al., 2016), section 3.6, https://arxiv.org/abs/1605.08803

    Example:
        >>> f = SqueezeTransform((1, 2, 4))
        >>> f(torch.tensor([1, 2, 3, 4, 5, 6, 7, 8.0]))
        tensor([1., 3., 2., 4., 5., 7., 6., 8.])
    """

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


class PixelwiseTransform(PartTransform):
    r"""Maps the channels of each pixel alike.

    .. math:: y_{:, p} = f(x_{:, p}), \qquad
        \log \left| \det \frac{\partial y}{\partial x} \right| =
        \sum_p \log \left| \det \frac{\partial f}{\partial x_{:, p}} \right|

    Each direction costs one call of f for all pixels.

    Args:
        base: The transform f of C channels, with one event dimension.

    Raises:
        ValueError: If x does not have C H W features.

    Example:
        >>> from maskedflow.transforms import PermutationTransform
        >>> f = PixelwiseTransform(PermutationTransform(torch.tensor([1, 0])), (2, 1, 2))
        >>> f(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([3., 4., 1., 2.])
    """

    def __init__(self, base: TorchTransform, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.base = base
        self.channels = shape[0]
        self.pixels = shape[1] * shape[2]

    def __repr__(self) -> str:
        return f"PixelwiseTransform({self.base}, pixels={self.pixels})"

    def _split(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        check_features(name, x, self.channels * self.pixels)
        return x.reshape(*x.shape[:-1], self.channels, self.pixels).mT, x

    def _inner(self, rest: Tensor) -> TorchTransform:
        return DependentTransform(self.base, 1)

    def _merge(self, part: Tensor, rest: Tensor) -> Tensor:
        return part.transpose(-1, -2).flatten(-2)


class Pixelwise(LazyTransform):
    """Lazy transforms of channels, one after the other, for all pixels of an image alike.

    Around an :class:`~maskedflow.transforms.ActNorm` it standardises channels, over rows and
    pixels; around a linear map it is a 1 x 1 convolution.

    References:
        Glow (Kingma and Dhariwal, 2018), sections 3.1 and 3.2, https://arxiv.org/abs/1807.03039

    Example:
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
        c = None if c is None else c[..., None, :]  # the same for all pixels
        return PixelwiseTransform(self.transform(c), self.shape)


class HeadTransform(PartTransform):
    r"""Maps the first features, and leaves the others as they are.

    .. math:: y = [f(x_{1:n}), x_{n+1:D}]

    Args:
        base: The transform f of the first features, with one event dimension.
        features: The number n of features that it maps.

    Raises:
        ValueError: If x has fewer than n features.

    Example:
        >>> from maskedflow.transforms import PermutationTransform
        >>> f = HeadTransform(PermutationTransform(torch.tensor([1, 0])), 2)
        >>> f(torch.tensor([1.0, 2.0, 3.0]))
        tensor([2., 1., 3.])
    """

    def __init__(self, base: TorchTransform, features: int) -> None:
        super().__init__()
        self.base = base
        self.features = features

    def __repr__(self) -> str:
        return f"HeadTransform({self.base}, {self.features})"

    def _split(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-1] < self.features:
            raise ValueError(
                f"{name}: expected at least {self.features} features, got shape {tuple(x.shape)}"
            )
        return x[..., : self.features], x[..., self.features :]

    def _inner(self, rest: Tensor) -> TorchTransform:
        return self.base

    def _merge(self, part: Tensor, rest: Tensor) -> Tensor:
        # A batch of contexts may have widened the part.
        return torch.cat([part, rest.expand(*part.shape[:-1], rest.shape[-1])], dim=-1)


class Head(LazyTransform):
    """Lazy transforms of the first features, one after the other.

    In a flow of several scales, what goes on after a split.

    Args:
        features: The number of features that they map.

    References:
        RealNVP (Dinh et al., 2016), section 3.6, https://arxiv.org/abs/1605.08803

    Example:
        >>> from maskedflow.transforms import LULinear
        >>> Head(2, LULinear(2))()(torch.ones(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(self, features: int, *transforms: LazyTransform) -> None:
        super().__init__()
        self.features = features
        self.transform = LazyComposedTransform(*transforms)

    def extra_repr(self) -> str:
        return f"features={self.features}"

    def forward(self, c: Tensor | None = None) -> HeadTransform:
        return HeadTransform(self.transform(c), self.features)
