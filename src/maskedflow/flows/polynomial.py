"""Flows whose maps of one feature are splines or polynomials."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskedflow.distributions import BoxUniform
from maskedflow.transforms import (
    AdditiveTransform,
    BoundedBernsteinTransform,
    CircularRQSTransform,
    ComposedTransform,
    MonotonicRQSTransform,
    SOSPolynomialTransform,
)
from maskedflow.transforms.elementary import soft_clip

from .autoregressive import MAF
from .flow import UnconditionalDistribution, check_sizes

#: The bound of a polynomial's coefficients: features far away must not blow them up.
LARGEST = 20.0


def _shifted_polynomial(a: Tensor, constant: Tensor, slope: float) -> ComposedTransform:
    polynomial = SOSPolynomialTransform(soft_clip(a, LARGEST), slope)
    return ComposedTransform(polynomial, AdditiveTransform(constant))


def _check_degree(degree: int) -> None:
    if degree < 0:
        raise ValueError(f"degree: expected at least 0, got {degree}")


class SOSPF(MAF):
    r"""A sum-of-squares polynomial flow.

    Its maps are polynomials on :math:`[-10, 10]` and straight lines outside, so they reach every
    real number. Coefficients are squeezed into :math:`(-20, 20)`. Standardise the data first. Costs
    are those of :class:`MAF`, and the inverse of a map is a search for a root.

    Args:
        degree: The degree L of the polynomials that are squared.
        polynomials: The number K of polynomials.
        slope: The smallest slope of a map.
        kwargs: What :class:`MAF` takes.

    References:
        Sum-of-Squares Polynomial Flow (Jaini et al., 2019), https://arxiv.org/abs/1905.02325

    Example:
        >>> SOSPF(3, degree=2)().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        degree: int = 4,
        polynomials: int = 3,
        slope: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        check_sizes(polynomials=polynomials)
        _check_degree(degree)
        super().__init__(
            features,
            context,
            univariate=partial(_shifted_polynomial, slope=slope),
            shapes=[(polynomials, degree + 1), ()],
            **kwargs,
        )


class BPF(MAF):
    r"""A Bernstein polynomial flow, whose maps are the identity at :math:`|x| > 5`.

    Standardise the data first. Costs are those of :class:`MAF`, and the inverse of a map is a
    search for a root.

    Args:
        degree: One less than the number of parameters of a polynomial, which is of degree
            `degree + 5`.
        kwargs: What :class:`MAF` takes.

    References:
        | Deep transformation models (Sick et al., 2020), https://arxiv.org/abs/2004.00464
        | Short-Term Density Forecasting of Low-Voltage Load (Arpogaus et al., 2022)
        | https://arxiv.org/abs/2204.13939

    Example:
        >>> BPF(3, degree=8)().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, features: int, context: int = 0, degree: int = 16, **kwargs: Any) -> None:
        _check_degree(degree)
        super().__init__(
            features,
            context,
            univariate=BoundedBernsteinTransform,
            shapes=[(degree + 1,)],
            **kwargs,
        )


class NSF(MAF):
    r"""A neural spline flow: monotone rational-quadratic splines, the identity at :math:`|x| > 5`.

    Standardise the data first. `passes=2` makes it a coupling. Costs are those of :class:`MAF`.

    Args:
        bins: The number of bins of a spline.
        slope: The smallest slope at a knot, and the smallest ratio of two bins.
        kwargs: What :class:`MAF` takes.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Example:
        >>> flow = NSF(3, context=4, transforms=2, passes=2)
        >>> flow(torch.zeros(4)).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self, features: int, context: int = 0, bins: int = 8, slope: float = 1e-3, **kwargs: Any
    ) -> None:
        check_sizes(bins=bins)
        super().__init__(
            features,
            context,
            univariate=partial(MonotonicRQSTransform, slope=slope),
            shapes=[(bins,), (bins,), (bins - 1,)],
            **kwargs,
        )


class NCSF(MAF):
    r"""A neural circular spline flow, for features that are angles in :math:`[-\pi, \pi)`.

    Its transforms are splines on the circle, and its base is uniform. The conditioner reads cosines
    and sines of angles, so that the density is periodic in each of them and continuous at half a
    turn. Scoring costs one pass of each transform's network, a sample D passes.

    Args:
        bins: The number of bins of a spline; it and `slope` are as of :class:`NSF`.
        kwargs: What :class:`MAF` takes. With `periodic=False` the conditioner reads radians,
            as weights of earlier builds expect.

    References:
        | Normalizing Flows on Tori and Spheres (Rezende et al., 2020)
        | https://arxiv.org/abs/2002.02428

    Example:
        >>> flow = NCSF(2)
        >>> bool((flow().sample((100,)).abs() <= math.pi + 1e-5).all())
        True
    """

    sample_cost = "D passes"

    def __init__(
        self, features: int, context: int = 0, bins: int = 8, slope: float = 1e-3, **kwargs: Any
    ) -> None:
        check_sizes(bins=bins)
        kwargs.setdefault("periodic", True)
        # A little wider than the circle: rounding may take a latent past its end.
        bound = torch.full((features,), math.pi + 1e-5)
        kwargs.setdefault(
            "base", UnconditionalDistribution(BoxUniform, lower=-bound, upper=bound, buffer=True)
        )
        super().__init__(
            features,
            context,
            univariate=partial(CircularRQSTransform, slope=slope),
            shapes=[(bins,), (bins,), (bins - 1,)],
            **kwargs,
        )
