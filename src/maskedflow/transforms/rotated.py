"""A learned linear map that starts as a random rotation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import ComposedTransform
from .lazy import LazyTransform
from .linear import LULinearTransform
from .permutation import PermutationTransform

__all__ = ["PLULinear"]


class PLULinear(LazyTransform):
    r"""A learned linear map that mixes all features, a random rotation to begin with.

    .. math:: z = L U P x, \qquad L_{ii} = s_i \exp(W_{ii}), \quad
        \log \left| \det \frac{\partial z}{\partial x} \right| = \sum_i W_{ii}

    The permutation P and the signs s are those of the rotation, and stay; the triangles of one
    parameter W are learned. Both directions cost :math:`O(D^2)` a row. At each pixel of an image
    (see :class:`~maskedflow.transforms.Pixelwise`) it is the invertible 1 x 1 convolution of Glow.

    Args:
        features: The number of features D.
        generator: Where the rotation is drawn from; torch's own if None.

    References:
        | Glow (Kingma and Dhariwal, 2018), section 3.2, equation 10
        | https://arxiv.org/abs/1807.03039

    Example:
        >>> x = torch.randn(5, 3)
        >>> z = PLULinear(3)()(x)
        >>> torch.allclose(z.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
        True
    """

    order: Tensor
    sign: Tensor

    def __init__(self, features: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        noise = torch.randn(features, features, generator=generator, dtype=torch.float64)
        rotation = torch.linalg.qr(noise).Q
        # Of the transpose, whose lower factor has the unit diagonal that U is to have.
        P, lower, upper = torch.linalg.lu(rotation.mT)
        L, U = upper.mT, lower.mT
        slopes = L.diagonal()
        weight = L.tril(-1) + U.triu(1) + slopes.abs().log().diag()
        self.weight = nn.Parameter(weight.to(torch.get_default_dtype()))
        self.register_buffer("sign", slopes.sign().to(self.weight.dtype))
        self.register_buffer("order", P.argmax(dim=0))

    def extra_repr(self) -> str:
        return f"features={len(self.weight)}"

    def forward(self, c: Tensor | None = None) -> ComposedTransform:
        weight = self.weight
        slopes = self.sign * weight.diagonal().exp()
        LU = weight.tril(-1) + weight.triu(1) + slopes.diag()
        return ComposedTransform(PermutationTransform(self.order), LULinearTransform(LU))
