"""Polynomial flows."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from maskedflow.transforms import (
    AdditiveTransform,
    BoundedBernsteinTransform,
    ComposedTransform,
    SOSPolynomialTransform,
)
from maskedflow.transforms.elementary import soft_clip

from .autoregressive import MAF

#: The bound of a polynomial's coefficients: features far away must not blow them up.
LARGEST = 20.0


def _shifted_polynomial(a: Tensor, constant: Tensor, slope: float) -> ComposedTransform:
    polynomial = SOSPolynomialTransform(soft_clip(a, LARGEST), slope)
    return ComposedTransform(polynomial, AdditiveTransform(constant))


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
        >>> import torch
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
        >>> import torch
        >>> BPF(3, degree=8)().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, features: int, context: int = 0, degree: int = 16, **kwargs: Any) -> None:
        super().__init__(
            features,
            context,
            univariate=BoundedBernsteinTransform,
            shapes=[(degree + 1,)],
            **kwargs,
        )
