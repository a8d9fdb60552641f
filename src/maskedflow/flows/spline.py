"""Spline flows."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from maskedflow.distributions import BoxUniform
from maskedflow.transforms import CircularRQSTransform, MonotonicRQSTransform

from .autoregressive import MAF
from .flow import UnconditionalDistribution


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
        bins: The number of bins of a spline.
        slope: As of :class:`NSF`.
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
