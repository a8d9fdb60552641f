"""Whitening: the best Gaussian as the first layer of a flow."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import VectorTransform, check_features
from .lazy import LazyTransform

#: Steps of expectation-maximisation, and the change of a correlation that ends them earlier.
MOST_STEPS, SMALL_CHANGE = 50, 1e-4
#: The rows of a product with a matrix: with another number of them BLAS may sum in another order.
ROWS = 256
#: The numbers of a block of small matrices, one a row.
NUMBERS = 2**22


class WhitenTransform(VectorTransform):
    r"""The map :math:`f(x) = L^{-1} (x - m)` that makes a Gaussian a standard one.

    Of some features O of x it is :math:`f_O(x_O) = L_O^{-1} (x_O - m_O)`, with the Cholesky factor
    :math:`L_O` of :math:`(L L^T)_{OO}`: the same for the marginal of these features.

    Both directions cost a product with a matrix, :math:`O(D^2)`, and with absent features a
    triangular solve and a Cholesky factorisation for each pattern of absence, :math:`O(D^3)`.

    Args:
        loc: The mean :math:`m`, with shape (*, D).
        scale_tril: The lower-triangular factor :math:`L`, with a positive diagonal and shape
            (D, D).

    Example:
        >>> f = WhitenTransform(torch.zeros(2), torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
        >>> f.call_and_ladj(torch.tensor([2.0, 3.0]))
        (tensor([1., 2.]), tensor(-0.6931))
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__()
        self.loc, self.scale_tril = loc, scale_tril

    def __repr__(self) -> str:
        return f"WhitenTransform(features={len(self.scale_tril)})"

    def _call(self, x: Tensor) -> Tensor:
        check_features("x", x, len(self.scale_tril))
        eye = torch.eye(len(self.scale_tril), dtype=x.dtype, device=x.device)
        inverse: Tensor = torch.linalg.solve_triangular(self.scale_tril, eye, upper=False)
        return rowwise(x - self.loc, inverse)

    def _inverse(self, y: Tensor) -> Tensor:
        check_features("z", y, len(self.scale_tril))
        return y @ self.scale_tril.T + self.loc

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.scale_tril.diagonal().log().sum().expand(y.shape[:-1])

    def call_partial(self, x: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """Maps the features that are here, (*, D), of x, (*samples, *, D).

        Returns:
            The whitened features, 0 where they are absent, and the ladj of those that are here.
        """
        factor, ladj = self._factors(here)
        centred = torch.where(here, x - self.loc, 0)
        # All of a row's samples at once, as columns.
        samples = centred.shape[: centred.ndim - here.ndim].numel()
        columns = centred.reshape(samples, *here.shape).movedim(0, -1)
        z = torch.linalg.solve_triangular(factor, columns, upper=False).movedim(-1, 0)
        return z.reshape(centred.shape), ladj.expand(centred.shape[:-1])

    def inverse_partial(self, y: Tensor, here: Tensor) -> Tensor:
        """The inverse of :meth:`call_partial`."""
        factor, _ = self._factors(here)
        x = (factor @ torch.where(here, y, 0)[..., None])[..., 0]
        return torch.where(here, x + self.loc, 0)

    def _factors(self, here: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of each row's marginal, ones in place of what is absent, and its ladj."""
        patterns, which = here.reshape(-1, here.shape[-1]).unique(dim=0, return_inverse=True)
        # In double precision: a float32 covariance of nearly collinear features has no factor.
        factor = marginal_factors(self.scale_tril.double(), patterns)
        ladj = -factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        shape = here.shape[:-1]
        factor, ladj = factor.to(self.loc)[which], ladj.to(self.loc)[which]
        return factor.view(*shape, *factor.shape[-2:]), ladj.view(shape)


def rowwise(x: Tensor, matrix: Tensor) -> Tensor:
    """The products of rows with a matrix, :math:`x M^T`, each the same bits in any batch."""
    rows = x.reshape(-1, x.shape[-1])
    blocks = F.pad(rows, (0, 0, 0, -len(rows) % ROWS)).split(ROWS)
    made = torch.cat([aligned(block) @ matrix.T for block in blocks])
    return made[: len(rows)].view(*x.shape[:-1], len(matrix))


def aligned(x: Tensor) -> Tensor:
    """The same rows, which all begin at a multiple of 16 bytes: BLAS sums all of them alike then.

    Otherwise the last bits of a row's product with a matrix depend on where in its batch it is.
    """
    return F.pad(x, (0, -x.shape[-1] % 4))[..., : x.shape[-1]]


def marginal_factors(scale_tril: Tensor, patterns: Tensor) -> Tensor:
    """The Cholesky factors of the marginals of N(0, L L^T), with shape (P, D, D).

    The patterns say which features are there, with shape (P, D); ones are in place of the others.
    """
    both = patterns[:, :, None] & patterns[:, None, :]
    eye = torch.eye(len(scale_tril), dtype=scale_tril.dtype, device=scale_tril.device)
    return cast(Tensor, torch.linalg.cholesky(torch.where(both, scale_tril @ scale_tril.T, eye)))


class Whiten(LazyTransform):
    r"""Whitens the features: :math:`z = L^{-1} (x - m - B c)`.

    With :meth:`fit` a flow starts as the best Gaussian of its data, or as the best linear
    regression on the context with Gaussian residuals, and only has to learn what that leaves.

    Args:
        loc: The mean :math:`m`, with shape (D,).
        scale_tril: The lower-triangular factor :math:`L` of the covariance, with a positive
            diagonal and shape (D, D).
        weight: The matrix :math:`B` of a linear regression on the context, with shape
            (D, context); no regression, whatever the context, if None.

    Raises:
        ValueError: If the shapes do not fit, or :math:`L` is not such a factor.

    Example:
        >>> x = torch.randn(1000, 2) @ torch.tensor([[1.0, 1.0], [0.0, 0.1]])
        >>> z = Whiten.fit(x)()(x)
        >>> torch.allclose(z.T.cov(), torch.eye(2), atol=1e-2)
        True
    """

    loc: Tensor
    scale_tril: Tensor
    weight: Tensor | None

    is_fixed = is_rowwise = True

    def __init__(self, loc: Tensor, scale_tril: Tensor, weight: Tensor | None = None) -> None:
        super().__init__()
        features = len(loc)
        if scale_tril.shape != (features, features):
            raise ValueError(
                f"scale_tril: expected shape {(features, features)}, got {tuple(scale_tril.shape)}"
            )
        if scale_tril.triu(1).any() or not (scale_tril.diagonal() > 0).all():
            raise ValueError("scale_tril: expected a lower triangle with a positive diagonal")
        if weight is not None and (weight.ndim != 2 or len(weight) != features):
            raise ValueError(
                f"weight: expected shape ({features}, context), got {tuple(weight.shape)}"
            )
        self.register_buffer("loc", loc)
        self.register_buffer("scale_tril", scale_tril)
        self.register_buffer("weight", weight)

    def extra_repr(self) -> str:
        context = 0 if self.weight is None else self.weight.shape[1]
        return f"features={len(self.loc)}, context={context}"

    def forward(self, c: Tensor | None = None) -> WhitenTransform:
        if self.weight is None:
            return WhitenTransform(self.loc, self.scale_tril)
        if c is None or c.shape[-1:] != self.weight.shape[1:]:
            found = "none" if c is None else f"shape {tuple(c.shape)}"
            raise ValueError(f"c: expected shape (*, {self.weight.shape[1]}), got {found}")
        return WhitenTransform(self.loc + rowwise(c, self.weight), self.scale_tril)

    @classmethod
    def fit(
        cls,
        x: Tensor,
        c: Tensor | None = None,
        observed: Tensor | None = None,
        weight: Tensor | None = None,
        ridge: float = 1e-9,
    ) -> Whiten:
        r"""Fits mean, regression and covariance by maximum likelihood, in float64.

        Rows with absent features count with what they have: expectation-maximisation for a
        multivariate normal distribution. The ridge is added to the correlation matrix, so that no
        feature's standard deviation given the others is below :math:`\sqrt{\text{ridge}}` times
        its own, not of features that follow from others either. A constant feature is given the
        variance 1.

        Args:
            x: The rows, with shape (n, D).
            c: Their contexts, with shape (n, context), or none.
            observed: Whether each number is there, with shape (n, D); all if None.
            weight: How much each row counts, with shape (n,); all alike if None.
            ridge: What is added to the correlation matrix's diagonal, positive. The sum is divided
                by a ridge above 1: a large one leaves the variances and takes the correlations.

        Raises:
            ValueError: If there are no rows, or `ridge` is not positive.

        References:
            Little and Rubin, Statistical Analysis with Missing Data, section 11.2
        """
        if not len(x):
            raise ValueError("x: expected at least one row, got none")
        if not ridge > 0:
            raise ValueError(f"ridge: expected a positive number, got {ridge}")
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        observed = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        share = torch.ones(len(x)) if weight is None else weight
        share = share.to(x.device, torch.float64) / share.sum()
        loc, scale = _moments(torch.where(observed, x, 0).double(), observed, share)
        z = torch.where(observed, (x.double() - loc) / scale, 0)
        given = z.new_ones(len(z), 1)
        if c is not None:
            middle, spread = _moments(c.double(), torch.ones_like(c, dtype=torch.bool), share)
            given = torch.cat([given, (c.double() - middle) / spread], dim=1)
        coefficients, factor = _regress(z, given, observed, share, ridge)
        loc = loc + scale * coefficients[0]
        if c is None:
            return cls(loc.to(dtype), (scale[:, None] * factor).to(dtype))
        slopes = scale[:, None] * coefficients[1:].T / spread
        loc = loc - slopes @ middle
        return cls(loc.to(dtype), (scale[:, None] * factor).to(dtype), slopes.to(dtype))


def _moments(x: Tensor, observed: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of each column's numbers, 1 where it has no other than 0."""
    part = share[:, None] * observed
    part = part / part.sum(dim=0).clamp(min=torch.finfo(part.dtype).tiny)
    loc = (part * x).sum(dim=0)
    scale = (part * torch.where(observed, x - loc, 0).square()).sum(dim=0).sqrt()
    # The computed deviation of a constant need not be exactly zero.
    constant = scale <= 1e-12 * loc.abs()
    return loc, torch.where(constant, 1, scale)


def _regress(
    z: Tensor, given: Tensor, observed: Tensor, share: Tensor, ridge: float
) -> tuple[Tensor, Tensor]:
    """The coefficients of a regression on what is given, and the factor of the residuals."""
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    # One-hot vectors add up to the constant: of all solutions take nearly the shortest.
    normal = given.T @ (share[:, None] * given)
    normal = normal + 1e-9 * torch.eye(len(normal), dtype=z.dtype, device=z.device)
    coefficients, covariance = z.new_zeros(given.shape[1], z.shape[1]), eye
    for _ in range(1 if observed.all() else MOST_STEPS):
        filled, left = _expect(z, given @ coefficients, covariance, observed, share)
        coefficients = torch.linalg.solve(normal, given.T @ (share[:, None] * filled))
        residual = filled - given @ coefficients
        before, covariance = covariance, residual.T @ (share[:, None] * residual) + left
        covariance = (covariance + ridge * eye) / max(ridge, 1.0)
        if (covariance - before).abs().max() < SMALL_CHANGE:
            break
    constant = (z == 0).all(dim=0)
    return coefficients, torch.linalg.cholesky(covariance + torch.diag(constant.to(z)))


def _expect(
    z: Tensor, mean: Tensor, covariance: Tensor, observed: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """The rows, filled in by means given the rest of a row, and the mean covariance of that."""
    filled, left = z.clone(), torch.zeros_like(covariance)
    factor = torch.linalg.cholesky(covariance)
    rows = (~observed).any(dim=1).nonzero()[:, 0]
    for part in rows.split(max(1, NUMBERS // len(covariance) ** 2)):
        here = observed[part]
        patterns, which = here.unique(dim=0, return_inverse=True)
        there, away = patterns[:, :, None], ~patterns[:, None, :]
        cross = torch.where(there & away, covariance, 0)
        slopes = torch.cholesky_solve(cross, marginal_factors(factor, patterns))
        residual = torch.where(here, z[part] - mean[part], 0)
        guess = mean[part] + (residual[:, None] @ slopes[which])[:, 0]
        filled[part] = torch.where(here, z[part], guess)
        rest = torch.where(~there & away, covariance, 0) - cross.mT @ slopes
        mass = share.new_zeros(len(patterns)).index_add(0, which, share[part])
        left += torch.einsum("p,pij->ij", mass, rest)
    return filled, left
