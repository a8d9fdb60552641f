"""Gaussianization flows."""

from __future__ import annotations

from typing import Any

import torch

from maskedflow.nn import MLP
from maskedflow.transforms import (
    GaussianizationTransform,
    LazyTransform,
    RotationTransform,
    UnconditionalTransform,
)

from .elementwise import ElementWiseTransform
from .flow import Flow, standard_normal

__all__ = ["GF"]


class GF(Flow):
    r"""A Gaussianization flow: each feature is made Gaussian, all are rotated, and again.

    The map of one feature takes a mixture of normal distributions to N(0, 1). Both directions
    cost one pass of each transform's network, if there is a context, and the inverse a search for a
    root of each feature.

    Args:
        features: The number of features D.
        context: The number of context features.
        transforms: The number of element-wise transforms.
        components: The number of components of a mixture.
        generator: Where initial parameters and rotations are drawn from; torch's own if None.
        kwargs: What :class:`ElementWiseTransform` takes.

    References:
        | Gaussianization Flows (Meng et al., 2020)
        | https://arxiv.org/abs/2003.01941

    Example:
        >>> flow = GF(3, context=4, transforms=2)
        >>> flow(torch.zeros(4)).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    passes_to = (ElementWiseTransform, MLP)

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        components: int = 8,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        if transforms < 1:
            raise ValueError(f"transforms: expected at least 1, got {transforms}")
        steps: list[LazyTransform] = []
        for _ in range(transforms):
            if steps and features > 1:
                turn = torch.randn(features, features, generator=generator)
                steps.append(UnconditionalTransform(RotationTransform, A=turn))
            steps.append(
                ElementWiseTransform(
                    features,
                    context,
                    GaussianizationTransform,
                    [(components,), (components,)],
                    generator=generator,
                    **kwargs,
                )
            )
        super().__init__(steps, standard_normal(features))
