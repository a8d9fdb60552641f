"""Maps of one feature that go only part of the way."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform as TorchTransform

from .base import Transform, call_and_ladj
from .monotonic import MonotonicTransform
from .univariate import MonotonicAffineTransform


class ResidualTransform(MonotonicTransform):
    r"""A share of the way from x to an increasing map's value: again an increasing map.

    .. math:: g(x) = x + \alpha (f(x) - x), \qquad
        \log g'(x) = \log (1 - \alpha + \alpha f'(x))

    The forward direction costs what that of f costs. The inverse is found as a root.

    Args:
        base: The increasing map :math:`f` of one feature.
        share: The share :math:`\alpha`, from 0 to 1, which broadcasts against x.

    Example:
        >>> g = ResidualTransform(torch.distributions.ExpTransform(), torch.tensor(0.5))
        >>> g.call_and_ladj(torch.tensor(0.0))
        (tensor(0.5000), tensor(0.))
    """

    def __init__(self, base: TorchTransform, share: Tensor) -> None:
        super().__init__()
        self.base = base
        self.share = share

    def __repr__(self) -> str:
        return f"ResidualTransform({self.base})"

    def f(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.base(x), self.share)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = call_and_ladj(self.base, x)
        return torch.lerp(x, y, self.share), 1 + self.share * torch.expm1(ladj)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = call_and_ladj(self.base, x)
        return torch.lerp(x, y, self.share), torch.log1p(self.share * torch.expm1(ladj))


class Residual(nn.Module):
    r"""A `univariate` for any transform: maps that go a learned share :math:`\alpha` of the way.

    .. math:: z_i = x_i + \alpha (f(x_i \mid \phi_i) - x_i), \qquad \alpha \in (0, 1)

    Each transform learns a share of its own. The slope of its maps stays above
    :math:`1 - \alpha`, so that no layer can squeeze a feature to a point. Where f is affine the
    residual map is affine too: that is another parameterization, not a richer flow, and its inverse
    costs as little.

    Args:
        univariate: The constructor of the increasing map :math:`f`.
        share: The share to begin with.

    Raises:
        ValueError: If the share is not between 0 and 1.

    Example:
        >>> from maskedflow.flows import MAF
        >>> flow = MAF(3, transforms=2, univariate=Residual())
        >>> x = torch.randn(5, 3)
        >>> z, ladj = flow().transform.call_and_ladj(x)
        >>> torch.allclose(flow().transform.inv(z), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        univariate: Callable[..., TorchTransform] = MonotonicAffineTransform,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"share: expected a number between 0 and 1, got {share}")
        self.univariate = univariate
        self.logit = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    @property
    def share(self) -> Tensor:
        r"""The share :math:`\alpha`."""
        return torch.sigmoid(self.logit)

    def extra_repr(self) -> str:
        return f"(univariate): {getattr(self.univariate, '__name__', self.univariate)}"

    def forward(self, *phi: Tensor) -> Transform:
        """Makes the residual map of features whose own maps have the parameters `phi`."""
        base, share = self.univariate(*phi), self.share
        if type(base) is MonotonicAffineTransform:
            log_scale = torch.log1p(share * torch.expm1(base.log_scale))
            return MonotonicAffineTransform(share * base.shift, log_scale)
        return ResidualTransform(base, share)
