r"""Flows as density estimators of `sbi <https://sbi.readthedocs.io>`_.

Each function returns a builder, to be passed as `density_estimator`:

.. code-block:: python

    from sbi.inference import NPE

    trainer = NPE(prior, density_estimator=mf.interop.sbi.nsf())
    trainer.append_simulations(theta, x).train()
    samples = trainer.build_posterior().sample((100_000,), x=x_o)

The same builder is for NPE, whose estimator is a density of parameters :math:`q(\theta \mid x)`,
for NLE, whose estimator is one of data :math:`q(x \mid \theta)`, for all their rounds and for
truncated proposals. Called by hand, `builder(theta, x)` gives the former. A density costs a pass of
each transform's network, and samples a sweep, which takes about as long.

What the functions have in common, by sbi's own names:

- `z_score_theta` and `z_score_x` say how parameters and data are brought to a standard scale:
  "independent", each number by its own mean and standard deviation; "structured", all by the same;
  or "none". What the density is of may be "transform_to_unconstrained" instead, by a bijection from
  the support of `x_dist`, the prior in NPE: then no sample leaves it.
- `hidden_features` is the width of the two hidden layers of each network, or the widths of all.
- `num_transforms` is the number of transforms.
- `embedding_net` makes a vector of what is conditioned on, whatever its shape, and is trained too.
- Further keywords go to the flow.

Where sbi is not installed they raise an ImportError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.flows import MAF, NSF, Flow
from maskedflow.transforms import (
    LazyComposedTransform,
    LazyTransform,
    LULinear,
    Standardize,
    UnconditionalTransform,
)

from .density_estimator import FlowEstimator, register

__all__ = ["maf", "modern", "nsf"]

ZScore = Literal["independent", "structured", "transform_to_unconstrained", "none"] | None


def maf(
    z_score_theta: ZScore = "independent",
    z_score_x: ZScore = "independent",
    hidden_features: int | Sequence[int] = 50,
    num_transforms: int = 5,
    embedding_net: nn.Module | None = None,
    x_dist: Distribution | None = None,
    **kwargs: Any,
) -> Builder:
    """Builds masked autoregressive flows, see :class:`maskedflow.flows.MAF`.

    An affine flow of one number is no more than a Gaussian: of one, this is :func:`nsf`.

    References:
        Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
    """
    flow = _sized(_affine, hidden_features, num_transforms, kwargs)
    return Builder(flow, z_score_theta, z_score_x, embedding_net, x_dist)


def nsf(
    z_score_theta: ZScore = "independent",
    z_score_x: ZScore = "independent",
    hidden_features: int | Sequence[int] = 50,
    num_transforms: int = 5,
    num_bins: int = 8,
    embedding_net: nn.Module | None = None,
    x_dist: Distribution | None = None,
    **kwargs: Any,
) -> Builder:
    """Builds neural spline flows, autoregressive ones, see :class:`maskedflow.flows.NSF`.

    The splines have `num_bins` bins each.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    """
    flow = _sized(NSF, hidden_features, num_transforms, {"bins": num_bins, **kwargs})
    return Builder(flow, z_score_theta, z_score_x, embedding_net, x_dist)


def modern(
    z_score_theta: ZScore = "independent",
    z_score_x: ZScore = "independent",
    hidden_features: int | Sequence[int] = 64,
    num_transforms: int = 3,
    num_bins: int = 8,
    embedding_net: nn.Module | None = None,
    x_dist: Distribution | None = None,
    **kwargs: Any,
) -> Builder:
    """Builds what does best on tables: splines, residual networks, linear layers between."""
    layers = {"residual": True, "between": LULinear, "bins": num_bins, **kwargs}
    flow = _sized(NSF, hidden_features, num_transforms, layers)
    return Builder(flow, z_score_theta, z_score_x, embedding_net, x_dist)


def _affine(features: int, context: int, **kwargs: Any) -> Flow:
    return (MAF if features > 1 else NSF)(features, context, **kwargs)


def _sized(
    flow: Callable[..., Flow], hidden: int | Sequence[int], transforms: int, kwargs: dict[str, Any]
) -> Callable[[int, int], Flow]:
    """A flow of so many features and context features, all else given."""
    widths = (hidden, hidden) if isinstance(hidden, int) else tuple(hidden)
    return partial(flow, hidden_features=widths, transforms=transforms, **kwargs)


@dataclass(frozen=True)
class Builder:
    """Builds an estimator from the simulations that it is to be trained with.

    Args:
        flow: Makes a flow of so many features and context features.
        z_score_theta: How parameters are brought to a standard scale.
        z_score_x: How data are.
        embedding_net: Makes a vector of what is conditioned on; flattened if None.
        x_dist: The distribution whose support is transformed to an unconstrained space.
    """

    flow: Callable[[int, int], Flow]
    z_score_theta: ZScore
    z_score_x: ZScore
    embedding_net: nn.Module | None
    x_dist: Distribution | None

    def __post_init__(self) -> None:
        register()

    def __call__(self, theta: Tensor, x: Tensor) -> FlowEstimator:
        """Builds the estimator of theta given x, or of x given theta for a trainer of NLE.

        Args:
            theta: Parameters, with shape (n, *).
            x: Data, with shape (n, *).
        """
        from sbi.inference.trainers.nle.nle_base import LikelihoodEstimatorTrainer

        modelled, given = (theta, self.z_score_theta), (x, self.z_score_x)
        # sbi calls builders with (theta, x), and does not say which of them is conditioned on.
        if isinstance(sys._getframe(1).f_locals.get("self"), LikelihoodEstimatorTrainer):
            modelled, given = given, modelled
        front, embedding = self._front(*modelled), self._embedding(*given)
        rows, conditions = modelled[0], given[0]
        with torch.no_grad():
            context = embedding(conditions[:2]).shape[1]
        flow = self.flow(rows[0].numel(), context)
        transform = cast(LazyComposedTransform, flow.transform)
        steps = [*front, *cast(Iterable[LazyTransform], transform.transforms)]
        whole = Flow(steps, flow.base, embedding)
        return FlowEstimator(whole, rows.shape[1:], conditions.shape[1:])

    def _front(self, rows: Tensor, z_score: ZScore) -> list[LazyTransform]:
        """What comes before the flow."""
        from sbi.utils import mcmc_transform
        from sbi.utils.sbiutils import CallableTransform, z_score_parser, z_standardization

        if z_score == "transform_to_unconstrained":
            if self.x_dist is None:
                raise ValueError(
                    "x_dist: expected the distribution to transform to an unconstrained space "
                    "from, such as the prior, got None"
                )
            return [UnconditionalTransform(CallableTransform(mcmc_transform(self.x_dist)))]
        standardizes, structured = z_score_parser(z_score)
        if not standardizes:
            return []
        rows = rows.flatten(1)
        mean, std = z_standardization(rows, structured)
        return [Standardize(mean.expand_as(rows[0]).clone(), std.expand_as(rows[0]).clone())]

    def _embedding(self, conditions: Tensor, z_score: ZScore) -> nn.Module:
        """What makes a vector of a condition."""
        from sbi.utils.sbiutils import standardizing_net, z_score_parser

        standardizes, structured = z_score_parser(z_score)
        first = [standardizing_net(conditions, structured)] if standardizes else []
        net = [] if self.embedding_net is None else [self.embedding_net]
        return nn.Sequential(*first, *net, nn.Flatten())
