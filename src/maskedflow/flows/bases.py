"""Bases by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from maskedflow.distributions import BoxUniform, StudentT

from .autoregressive import MADE
from .flow import LazyDistribution, UnconditionalDistribution, standard_normal
from .mixtures import GMM


def base(name: str, features: int, **kwargs: Any) -> LazyDistribution:
    """Makes a base, the distribution of a flow's latent.

    ============= ================================================================================
    name          what it is, and what it takes
    ============= ================================================================================
    ``normal``    N(0, I)
    ``mixture``   a :class:`GMM`, by default diagonal, and what it takes; its components start at
                  the clusters of the rows `x`, if given
    ``made``      a :class:`MADE` of mixtures, 10 `components` by default, and what it takes
    ``student-t`` Student's t-distributions, whose degrees of freedom start at `df`, 5 by default,
                  and learn if they are `learnable`, as by default
    ``uniform``   uniform on a box between `lower`, -1 by default, and `upper`, 1
    ============= ================================================================================

    The same for every context, unless a mixture's or a MADE's own `context` says otherwise.

    Args:
        name: Its name.
        features: The number of features.
        kwargs: What it takes.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> from maskedflow.flows import MAF
        >>> flow = MAF(3, context=2, base=base("student-t", 3, df=4.0))
        >>> flow(torch.zeros(2)).base
        StudentT(df: torch.Size([3]), loc: torch.Size([3]), scale: torch.Size([3]))
    """
    if name not in _BASES:
        raise ValueError(f"base: expected one of {', '.join(_BASES)}, got {name!r}")
    return _BASES[name](features, **kwargs)


def _mixture(
    features: int,
    context: int = 0,
    *,
    x: Tensor | None = None,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> LazyDistribution:
    kwargs = {"covariance_type": "diagonal", **kwargs}
    gmm = GMM(features, context, generator=generator, **kwargs)
    if x is not None:
        gmm.initialize(x, generator=generator)
    return gmm if context else UnconditionalDistribution(gmm)


def _made(
    features: int, context: int = 0, *, components: int = 10, **kwargs: Any
) -> LazyDistribution:
    made = MADE(features, context, components, **kwargs)
    return made if context else UnconditionalDistribution(made)


def _student_t(features: int, *, df: float = 5.0, learnable: bool = True) -> LazyDistribution:
    log_df = torch.full((features,), math.log(df))
    return UnconditionalDistribution(_positive_student_t, log_df, buffer=not learnable)


def _positive_student_t(log_df: Tensor) -> StudentT:
    return StudentT(log_df.exp())


def _uniform(features: int, *, lower: float = -1.0, upper: float = 1.0) -> LazyDistribution:
    bounds = (torch.full((features,), bound) for bound in (lower, upper))
    return UnconditionalDistribution(BoxUniform, *bounds, buffer=True)


_BASES: dict[str, Callable[..., LazyDistribution]] = {
    "normal": standard_normal,
    "mixture": _mixture,
    "made": _made,
    "student-t": _student_t,
    "uniform": _uniform,
}
