"""Mixtures of Gaussians as flows, where they start, and other bases by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from maskedflow.distributions import BoxUniform, MixtureOfGaussians, StudentT, refuse_nan
from maskedflow.nn import MLP, Linear

from .autoregressive import MADE
from .flow import (
    LazyDistribution,
    UnconditionalDistribution,
    check_context,
    check_keywords,
    check_sizes,
    standard_normal,
    unchecked,
)

__all__ = ["GMM"]

CovarianceType = Literal["full", "diagonal", "spherical"]
Strategy = Literal["random", "kmeans", "kmeans++"]


class GMM(LazyDistribution):
    r"""A mixture of Gaussians, whose parameters may depend on a context.

    .. math:: p(x \mid c) = \sum_{k=1}^K w_k(c) \, \mathcal{N}(x \mid \mu_k(c), \Sigma_k(c))

    Log-weights, means and the Cholesky factors of the covariances start as N(0, 1), or where
    :meth:`initialize` puts them. A density costs :math:`O(K D^2)`, or :math:`O(K D)` for
    covariances that are not full, and so does a sample.

    Args:
        components: The number of Gaussians K.
        covariance_type: "full", "diagonal" or "spherical".
        tied: Whether components share their covariance.
        epsilon: The smallest standard deviation.
        kwargs: What :class:`maskedflow.nn.MLP` takes, for the network of a context.

    Raises:
        ValueError: If `covariance_type` is unknown, or a number is too small.

    Example:
        >>> x = torch.cat([torch.randn(100, 2) - 5, torch.randn(100, 2) + 5])
        >>> gmm = GMM(2, components=2)
        >>> gmm.initialize(x, "kmeans")
        >>> gmm().mean.shape, bool(gmm().log_prob(x).mean() > -5)
        (torch.Size([2]), True)
    """

    passes_to = (MLP,)

    def __init__(
        self,
        features: int,
        context: int = 0,
        components: int = 2,
        covariance_type: CovarianceType = "full",
        tied: bool = False,
        epsilon: float = 1e-6,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_sizes(features=features, components=components)
        kinds = {"full": features, "diagonal": features, "spherical": 1}
        if covariance_type not in kinds:
            raise ValueError(
                f"covariance_type: expected one of {', '.join(kinds)}, got {covariance_type!r}"
            )
        self.features, self.context, self.components = features, context, components
        self.covariance_type, self.tied, self.epsilon = covariance_type, tied, epsilon
        covariances = 1 if tied else components
        self.shapes = [(components,), (components, features), (covariances, kinds[covariance_type])]
        if covariance_type == "full":
            self.shapes.append((covariances, features * (features - 1) // 2))
        if context:
            total = sum(map(prod, self.shapes))
            self.hyper = MLP(context, total, generator=generator, **kwargs)
            # Components that start alike would stay alike.
            nn.init.normal_(cast(Tensor, self.hyper[-1].bias), generator=generator)
        else:
            check_keywords(MLP, kwargs)
            self.phi = nn.ParameterList(
                torch.randn(shape, generator=generator) for shape in self.shapes
            )

    def extra_repr(self) -> str:
        return (
            f"features={self.features}, components={self.components}, "
            f"covariance_type={self.covariance_type!r}, tied={self.tied}"
        )

    def forward(self, c: Tensor | None = None) -> MixtureOfGaussians:
        """Makes the mixture for the context `c`, with shape (*, context), or none.

        Raises:
            ValueError: If a context is missing, needless, of another size, or not finite.
        """
        if c is not None:
            refuse_nan("c", c, infinite=False)
        return self.unchecked(c)

    def unchecked(self, c: Tensor | None) -> MixtureOfGaussians:
        check_context(c, self.context)
        origin = () if c is None else (c,)
        if c is None:
            phi = list(self.phi)
        else:
            parts = self.hyper(c).split([prod(shape) for shape in self.shapes], dim=-1)
            phi = [p.unflatten(-1, shape) for p, shape in zip(parts, self.shapes, strict=True)]
        logits, loc, diagonal, *lower = phi
        # The square of a larger one would be infinite.
        most = 0.5 * math.log(torch.finfo(diagonal.dtype).max)
        scale = diagonal.clamp(max=most).exp() + self.epsilon
        if lower:
            rows, columns = torch.tril_indices(self.features, self.features, -1, device=loc.device)
            factor = torch.diag_embed(scale)
            factor[..., rows, columns] = lower[0]
            mixture = MixtureOfGaussians(logits, loc, scale_tril=factor)
        else:
            mixture = MixtureOfGaussians(logits, loc, scale)
        return mixture.made_by(self, unchecked, *origin)

    @torch.no_grad()
    def initialize(
        self,
        x: Tensor,
        strategy: Strategy = "kmeans",
        *,
        weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Starts the components at clusters of data: their shares, means and covariances.

        With a context, the network starts near these values whatever the context.

        Args:
            x: The data, with shape (N, features).
            strategy: The clusters of "kmeans", or the points nearest to centres that are drawn
                far from each other, "kmeans++", or at "random".
            weight: How much each point counts, with shape (N,); all alike if None. Those of weight
                0 are left out.
            generator: Where draws come from; torch's own if None.

        Raises:
            ValueError: If the shape of `x` does not fit, there are no more points than components,
                one is NaN, or the strategy is unknown.
        """
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"x: expected shape (N, {self.features}), got {tuple(x.shape)}")
        if weight is not None:
            counts = weight.to(x.device) > 0
            x, weight = x[counts], weight.to(x)[counts]
        if len(x) <= self.components:
            raise ValueError(
                f"x: expected more rows than the {self.components} components, got {len(x)}"
            )
        refuse_nan("x", x)
        mass = x.new_ones(len(x)) if weight is None else weight
        mass = mass * mass.sum() / mass.square().sum()  # as many as they are worth
        centres = _centres(x, self.components, strategy, mass, generator)
        chosen = torch.cdist(x, centres).argmin(dim=-1)
        share = mass[:, None] * nn.functional.one_hot(chosen, self.components)
        count = share.sum(dim=0)
        means = torch.where(count[:, None] > 0, share.T @ x / count[:, None], centres)
        phi = [
            (count.clamp(min=1) / mass.sum()).log(),
            means,
            *self._scales(x, x - means[chosen], share),
        ]
        if self.context:
            last = cast(Linear, self.hyper[-1])
            last.weight.mul_(1e-2)
            cast(Tensor, last.bias).copy_(torch.cat([part.flatten() for part in phi]))
        else:
            for parameter, part in zip(self.phi, phi, strict=True):
                parameter.copy_(part)

    def _scales(self, x: Tensor, centred: Tensor, share: Tensor) -> list[Tensor]:
        """The parameters of the clusters' covariances, of points and these less their means."""
        count = share.sum(dim=0)
        if self.covariance_type == "full":
            scatter = torch.stack([(column[:, None] * centred).T @ centred for column in share.T])
            needed = self.features
        else:
            scatter, needed = share.T @ centred.square(), 1
        shape = (-1, *[1] * (scatter.ndim - 1))
        pooled = scatter.sum(dim=0, keepdim=True) / (count.sum() - self.components).clamp(min=1)
        if self.tied:
            covariance = pooled
        else:
            # A cluster of too few points has no covariance of its own.
            own = scatter / (count - 1).clamp(min=1).view(shape)
            covariance = torch.where((count > needed).view(shape), own, pooled)
        ridge = 1e-6 * x.var(dim=0).mean() + torch.finfo(x.dtype).tiny
        if self.covariance_type == "full":
            eye = torch.eye(self.features, dtype=x.dtype, device=x.device)
            factor = torch.linalg.cholesky(covariance + ridge * eye)
            rows, columns = torch.tril_indices(self.features, self.features, -1, device=x.device)
            return [factor.diagonal(dim1=-2, dim2=-1).log(), factor[..., rows, columns]]
        if self.covariance_type == "spherical":
            covariance = covariance.mean(dim=-1, keepdim=True)
        return [0.5 * (covariance + ridge).log()]


def _centres(
    x: Tensor,
    components: int,
    strategy: Strategy,
    mass: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Draws the centres of clusters of points that count for as much."""
    if strategy == "random":
        return x[torch.randperm(len(x), generator=generator)[:components].to(x.device)]
    from sklearn.cluster import KMeans, kmeans_plusplus

    rows, counts = x.cpu().numpy(), None if (mass == mass[0]).all() else mass.cpu().numpy()
    seed = int(torch.randint(2**31, (), generator=generator))
    if strategy == "kmeans":
        found = (
            KMeans(components, n_init=1, random_state=seed).fit(rows, None, counts).cluster_centers_
        )
    elif strategy == "kmeans++":
        found, _ = kmeans_plusplus(rows, components, sample_weight=counts, random_state=seed)
    else:
        raise ValueError(f"strategy: expected one of random, kmeans, kmeans++, got {strategy!r}")
    return torch.as_tensor(found, dtype=x.dtype, device=x.device)


def base(name: str, features: int, **kwargs: Any) -> LazyDistribution:
    """Makes a base, the distribution of a flow's latent.

    ============= ================================================================================
    name          what it is, and what it takes
    ============= ================================================================================
    ``normal``    N(0, I)
    ``mixture``   a :class:`GMM`, by default diagonal, and what it takes; its components start at
                  the clusters of the rows `x`, if given
    ``made``      a :class:`MADE` of mixtures, 10 `components` by default, and what it takes
    ``marginals`` mixtures of Gaussians of each feature on its own, 5 `components` by default: a
                  :class:`MADE` without edges, and what it takes
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
        ValueError: If the name is unknown, or a size or number is too small.

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
    if not df > 0:
        raise ValueError(f"df: expected a positive number, got {df}")
    log_df = torch.full((features,), math.log(df))
    return UnconditionalDistribution(_positive_student_t, log_df, buffer=not learnable)


def _positive_student_t(log_df: Tensor) -> StudentT:
    return StudentT(log_df.exp())


def _uniform(features: int, *, lower: float = -1.0, upper: float = 1.0) -> LazyDistribution:
    if not lower < upper:
        raise ValueError(f"lower: expected less than upper, {upper}, got {lower}")
    bounds = (torch.full((features,), bound) for bound in (lower, upper))
    return UnconditionalDistribution(BoxUniform, *bounds, buffer=True)


def _marginals(
    features: int, context: int = 0, *, components: int = 5, **kwargs: Any
) -> LazyDistribution:
    if not context:
        kwargs["hidden_features"] = [1]  # which nothing goes into: biases are all there is
    return _made(features, context, components=components, passes=1, **kwargs)


_BASES: dict[str, Callable[..., LazyDistribution]] = {
    "normal": standard_normal,
    "mixture": _mixture,
    "made": _made,
    "marginals": _marginals,
    "student-t": _student_t,
    "uniform": _uniform,
}
