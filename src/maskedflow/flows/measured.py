"""The density of what is measured, with known errors, by a flow of what there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.quasirandom import SobolEngine

from maskedflow.distributions import refuse_nan
from maskedflow.distributions.base import Base, Shape, draw, log_density
from maskedflow.transforms import BatchNorm, check_features
from maskedflow.transforms.logistic import softplus
from maskedflow.transforms.noisy import Noisy
from maskedflow.transforms.part import current_part, part_of_batch

from .flow import LazyDistribution

EVALUATED = 8
"""How many times as many draws an evaluation takes as a step of training."""

_EPS = 2.0**-53


class Measured(Noisy, LazyDistribution):
    r"""The density of rows that are measured with known Gaussian errors.

    A measured row is :math:`y = x + e` with :math:`e \sim N(0, S)`, where each row has an S of its
    own, and the flow is the density p of x, which has no noise:

    .. math::

        p(y \mid S) = \int p(x) \, N(y \mid x, S) \, dx
        \approx \frac{1}{K} \sum_{k=1}^K p(x_k) \frac{N(y \mid x_k, S)}{q(x_k)},
        \qquad q(x) = \frac{N(x \mid y, S) + g(x)}{2}

    Half of the K draws are of the noise alone, half of g, what a Gaussian of mean m and covariance
    V, in the place of p, would say of x given y; so the draws find x where the noise is wide, and
    no weight is more than twice the density. They are quasi-random: in training shifted anew for
    each row, in evaluation 8 K, shifted by its own numbers, so that it depends on no other.

    The mean is unbiased and its logarithm is not: in expectation it is too small by
    :math:`\operatorname{var}(w) / 2 K p(y)^2` or so, w being a term of the sum. Trained by
    :func:`maskedflow.training.fit`, the flow is the noise-free density. Training it on y plus drawn
    noise would do the opposite, and convolve p with the noise a second time.

    The errors stand behind the context, in `Split(y, hstack([c, errors]))`: E standard deviations,
    or the numbers of an E x E covariance, row by row. Without a context `Split(y, covariances)`
    with shape (n, E, E) will do. An error of zero is none. A density costs K of the flow's, in one
    batch, and O(E³ + D² E).

    Args:
        flow: The lazy distribution of x.
        loc: The mean m of x, with shape (D,), about: see
            :func:`maskedflow.data.deconvolved_gaussian`.
        covariance: The covariance V, with shape (D, D).
        features: The indices of the E features that have errors; all D if None.
        correlated: Whether the errors of a row come as a covariance.
        draws: The draws K of a row in training, an even number.

    Raises:
        ValueError: If a shape is another one, V is not positive definite, features are not among
            those of x, draws are odd, or the flow has a batch norm, which would see the draws.

    References:
        | Importance Weighted Autoencoders (Burda et al., 2016), equation 8
        | https://arxiv.org/abs/1509.00519
        | Optimally Combining Sampling Techniques (Veach and Guibas, 1995), section 3.1
        | https://doi.org/10.1145/218380.218498

    Example:
        >>> from maskedflow.flows import MAF
        >>> measured = Measured(MAF(2), torch.zeros(2), torch.eye(2))
        >>> y, errors = torch.randn(5, 2), torch.rand(5, 2)
        >>> measured(errors).log_prob(y).shape
        torch.Size([5])
    """

    loc: Tensor
    covariance: Tensor

    def __init__(
        self,
        flow: LazyDistribution,
        loc: Tensor,
        covariance: Tensor,
        *,
        features: Sequence[int] | None = None,
        correlated: bool = False,
        draws: int = 16,
    ) -> None:
        super().__init__()
        loc, covariance = torch.as_tensor(loc), torch.as_tensor(covariance)
        size = len(loc)
        chosen = tuple(range(size) if features is None else features)
        if covariance.shape != (size, size):
            raise ValueError(
                f"covariance: expected shape ({size}, {size}), got {tuple(covariance.shape)}"
            )
        if torch.linalg.cholesky_ex(covariance.double()).info:
            raise ValueError("covariance: expected a positive definite matrix")
        if not chosen or len({*chosen} & {*range(size)}) < len(chosen):
            raise ValueError(f"features: expected distinct indices below {size}, got {chosen}")
        if draws < 2 or draws % 2:
            raise ValueError(f"draws: expected an even number, got {draws}")
        norms = BatchNorm, nn.modules.batchnorm._BatchNorm
        if any(isinstance(part, norms) for part in flow.modules()):
            raise ValueError("flow: expected none with batch norm, whose rows would be the draws")
        self.flow, self.draws = flow, draws
        self.features, self.correlated = chosen, correlated
        self.register_buffer("loc", loc.double())
        self.register_buffer("covariance", covariance.double())

    def forward(self, c: Tensor | None = None) -> MeasuredDistribution:
        """Makes the distribution of measured rows, given the errors behind the context.

        Raises:
            ValueError: If errors are missing, negative or not finite, or a covariance is not
                symmetric and positive semidefinite.
        """
        size = len(self.features)
        width = size**2 if self.correlated else size
        if c is None:
            raise ValueError(f"c: expected the errors of {size} features, got none")
        if self.correlated and c.ndim > 2 and c.shape[-2:] == (size, size):
            c = c.flatten(-2)
        refuse_nan("c", c, infinite=False)
        if c.shape[-1] < width:
            raise ValueError(f"c: expected {width} numbers of errors, got {c.shape[-1]}")
        given, errors = c.split([c.shape[-1] - width, width], dim=-1)
        root = _root(errors.unflatten(-1, (size, size))) if self.correlated else _diagonal(errors)
        noise = root.new_zeros(*root.shape[:-2], len(self.loc), size)
        noise[..., self.features, :] = root
        return MeasuredDistribution(self, self.flow(given if given.shape[-1] else None), noise)

    def points(self, y: Tensor) -> Tensor:
        """Quasi-random numbers of N(0, I) for rows y, with shape (draws, *rows, E)."""
        size, number = len(self.features), self.draws * (1 if self.training else EVALUATED)
        if self.training:
            shift = self.uniform((*y.shape[:-1], size), torch.float64).to(y.device)
        else:
            # As good as random, but of the row alone: errors that all rows share would not average
            # out, and mislead the choice of weights.
            away = (y.detach().double() - self.loc) / self.covariance.diagonal().sqrt()
            shift = away @ _multipliers(len(self.loc), size).to(away)
        u = (_sobol(size, number).view(-1, *[1] * (y.ndim - 1), size).to(shift) + shift) % 1
        normal: Tensor = torch.special.ndtri(u.clamp(_EPS, 1 - _EPS))
        return normal


class MeasuredDistribution(Base):
    """The distribution of measured rows, each with errors of its own.

    Args:
        module: What it was made by.
        flow: The distribution of rows without noise.
        noise: A root L of the errors' covariance :math:`L L^T`, with shape (*batch, D, E).
    """

    has_rsample = True

    def __init__(self, module: Measured, flow: Distribution, noise: Tensor) -> None:
        super().__init__(noise.shape[:-2], noise.shape[-2:-1])
        self.module, self.flow, self.noise = module, flow, noise

    def log_prob(self, value: Tensor) -> Tensor:
        r"""The log-density of each row of `value`, with shape (*, D), in nats.

        It is :math:`-\infty` at infinity.

        Raises:
            ValueError: If `value` has the wrong number of features or holds NaN.
        """
        check_features("x", value, len(self.module.loc))
        refuse_nan("x", value)
        far = value.isinf()
        log_prob = self._log_prob(value.masked_fill(far, 0))
        return torch.where(far.any(dim=-1), -math.inf, log_prob)

    def _log_prob(self, value: Tensor) -> Tensor:
        x, log_ratio = self.draws(value)
        part = current_part()
        with part_of_batch(None if part is None else part._replace(axis=1)):  # behind draws
            log_weight = log_density(self.flow, x) + log_ratio
        return log_weight.logsumexp(dim=0) - math.log(len(x))

    def draws(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Draws of x given y, :math:`x_k = y - L \epsilon_k`, and log N(y | x, S) / q(x).

        Half of the :math:`\epsilon` are N(0, I), half are what a Gaussian makes of them given y:
        of precision :math:`I + L^T V^{-1} L`, a formula that no exact feature troubles.
        """
        L, away = self.noise, (y.double() - self.module.loc)[..., None]
        factor = torch.linalg.cholesky(self.module.covariance)
        scaled = torch.linalg.solve_triangular(factor, L, upper=False)
        pull = scaled.mT @ torch.linalg.solve_triangular(factor, away, upper=False)
        one = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
        root = torch.linalg.cholesky(one + scaled.mT @ scaled)
        mean = torch.cholesky_solve(pull, root)

        shape = torch.broadcast_shapes(y.shape[:-1], L.shape[:-2])
        normal = self.module.points(y).to(L).expand(-1, *shape, -1).movedim(0, -1)
        plain, other = normal.chunk(2, dim=-1)
        moved = mean + torch.linalg.solve_triangular(root.mT, other, upper=True)
        epsilon = torch.cat([plain, moved], dim=-1)
        squares = epsilon.square() - (root.mT @ (epsilon - mean)).square()
        determinant = root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1, keepdim=True)
        odds = 0.5 * squares.sum(dim=-2) + determinant  # log g(x) - log N(x | y, S)
        x = y[..., None] - L @ epsilon
        log_ratio = math.log(2) - softplus(odds)
        return x.movedim(-1, 0).to(y), log_ratio.movedim(-1, 0).to(y)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows as they would be measured."""
        further = self.batch_shape[: len(self.batch_shape) - len(self.flow.batch_shape)]
        x = draw(self.flow, (*sample_shape, *further), generator)
        shape = *x.shape[:-1], self.noise.shape[-1], 1
        epsilon = torch.randn(shape, dtype=x.dtype, device=x.device, generator=generator)
        return x + (self.noise.to(x) @ epsilon)[..., 0]


@cache
def _multipliers(features: int, size: int) -> Tensor:
    """Numbers so large that a product's fraction is as good as random."""
    generator = torch.Generator().manual_seed(0)
    return 1e6 * (1 + torch.rand(features, size, dtype=torch.float64, generator=generator))


@cache
def _sobol(size: int, number: int) -> Tensor:
    """The first points of a scrambled Sobol sequence, within the unit cube."""
    return SobolEngine(size, scramble=True, seed=0).draw(number, dtype=torch.float64)


def _diagonal(errors: Tensor) -> Tensor:
    if (errors < 0).any():
        index = (errors < 0).nonzero()[0].tolist()
        raise ValueError(f"errors: expected numbers >= 0, got {errors[*index]:g} at index {index}")
    return errors.double().diag_embed()


def _root(covariance: Tensor) -> Tensor:
    """A square root of covariances, which may be singular."""
    covariance = covariance.double()
    values, vectors = torch.linalg.eigh(covariance)
    size = covariance.abs().amax(dim=(-2, -1), keepdim=True)
    wrong = ((covariance - covariance.mT).abs() > 1e-5 * size).any(dim=(-2, -1))
    wrong |= (values < -1e-5 * size[..., 0]).any(dim=-1)
    if wrong.any():
        raise ValueError(
            "errors: expected symmetric covariances without negative eigenvalues, got another one "
            f"at index {wrong.nonzero()[0].tolist()}"
        )
    root: Tensor = vectors * values.clamp(min=0).sqrt()[..., None, :]
    return root
