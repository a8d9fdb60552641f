"""Whitening: the best Gaussian as the first layer of a flow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from maskedflow.chain import version
from maskedflow.nn.arguments import check_dtype
from maskedflow.staircase import is_traced

from .base import VectorTransform, check_features
from .regression import marginal_factors, moments, regress, streamed_moments
from .waiting import Block, WaitingTransform

#: The rows of a product with a matrix: with another number of them BLAS may sum in another order.
ROWS = 256
#: What is added to the diagonal of a correlation matrix, so that it has a factor.
RIDGE = 1e-9


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
        inverse: Its inverse, if that is known; computed for each call otherwise, :math:`O(D^3)`.

    Example:
        >>> f = WhitenTransform(torch.zeros(2), torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
        >>> f.call_and_ladj(torch.tensor([2.0, 3.0]))
        (tensor([1., 2.]), tensor(-0.6931))
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor, inverse: Tensor | None = None) -> None:
        super().__init__()
        self.loc, self.scale_tril, self.inverse = loc, scale_tril, inverse

    def __repr__(self) -> str:
        return f"WhitenTransform(features={len(self.scale_tril)})"

    def _call(self, x: Tensor) -> Tensor:
        check_features("x", x, len(self.scale_tril))
        inverse = inverse_of(self.scale_tril) if self.inverse is None else self.inverse
        centred = x - self.loc
        check_dtype("x", centred, inverse)
        return rowwise(centred, inverse)

    def _inverse(self, y: Tensor) -> Tensor:
        check_features("z", y, len(self.scale_tril))
        return y @ self.scale_tril.T + self.loc

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(x.shape, y.shape)
        return -self.scale_tril.diagonal().log().sum().expand(shape[:-1])

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


def inverse_of(scale_tril: Tensor) -> Tensor:
    """The inverse of a lower-triangular matrix."""
    eye = torch.eye(len(scale_tril), dtype=scale_tril.dtype, device=scale_tril.device)
    return cast(Tensor, torch.linalg.solve_triangular(scale_tril, eye, upper=False))


def rowwise(x: Tensor, matrix: Tensor) -> Tensor:
    """The products of rows with a matrix, :math:`x M^T`, each the same bits in any batch.

    Not in a program, which takes any number of rows.
    """
    if is_traced():
        return x @ matrix.T
    rows = x.reshape(-1, x.shape[-1])
    blocks = F.pad(rows, (0, 0, 0, -len(rows) % ROWS)).split(ROWS)
    made = torch.cat([aligned(block) @ matrix.T for block in blocks])
    return made[: len(rows)].view(*x.shape[:-1], len(matrix))


def aligned(x: Tensor) -> Tensor:
    """The same rows, which all begin at a multiple of 16 bytes: BLAS sums all of them alike then.

    Otherwise the last bits of a row's product with a matrix depend on where in its batch it is.
    """
    return F.pad(x, (0, -x.shape[-1] % 4))[..., : x.shape[-1]]


class Whiten(WaitingTransform):
    r"""Whitens the features: :math:`z = L^{-1} (x - m - B c)`.

    With :meth:`fit` a flow starts as the best Gaussian of its data, or as the best linear
    regression on the context with Gaussian residuals, and only has to learn what that leaves.
    With :meth:`waiting` the training rows are those of :func:`maskedflow.training.fit`.

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
        self._inverse: tuple[Tensor | None, object, Tensor | None] = None, 0, None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inverse": (None, 0, None)}

    def extra_repr(self) -> str:
        context = 0 if self.weight is None else self.weight.shape[1]
        return f"features={len(self.loc)}, context={context}"

    def forward(self, c: Tensor | None = None) -> WhitenTransform:
        if self.weight is None:
            return WhitenTransform(self.loc, self.scale_tril, self.inverse)
        shift = rowwise(self._checked(c), self.weight)
        return WhitenTransform(self.loc + shift, self.scale_tril, self.inverse)

    def _checked(self, c: Tensor | None) -> Tensor:
        """The context, if it is what the regression takes."""
        assert self.weight is not None
        if c is None or c.shape[-1:] != self.weight.shape[1:]:
            found = "none" if c is None else f"shape {tuple(c.shape)}"
            raise ValueError(f"c: expected shape (*, {self.weight.shape[1]}), got {found}")
        return c

    @property
    def inverse(self) -> Tensor:
        """The inverse of the factor, computed once for as long as that stays."""
        factor = self.scale_tril
        if is_traced():
            return inverse_of(factor)
        now = version(factor)
        if self._inverse[0] is not factor or self._inverse[1] != now:
            self._inverse = factor, now, inverse_of(factor)
        return cast(Tensor, self._inverse[2])

    @classmethod
    def waiting(cls, features: int, context: int = 0) -> Whiten:
        """The identity, until :func:`maskedflow.training.fit` sets it by its training rows.

        Whether that has happened is part of its state.

        Args:
            features: The number of features.
            context: The number of context features to regress on.

        Example:
            >>> import maskedflow as mf
            >>> x = torch.randn(200, 2) @ torch.tensor([[1.0, 1.0], [0.0, 0.1]])
            >>> flow = mf.flows.Flow(Whiten.waiting(2), mf.flows.MAF(2))
            >>> mf.training.start_at(flow, mf.data.Split(x))
            >>> flow.transform.is_waiting
            False
        """
        weight = torch.zeros(features, context) if context else None
        made = cls(torch.zeros(features), torch.eye(features), weight)
        made.initialized = torch.tensor(False)
        return made

    @torch.no_grad()
    def start(self, blocks: Iterable[Block]) -> None:
        r"""Sets it to what :meth:`fit` finds for rows without gaps, by their moments alone.

        .. math:: B = S_{xc} S_{cc}^{-1}, \quad m = \bar{x} - B \bar{c}, \quad
            L L^T = S_{xx} - B S_{cx}

        Args:
            blocks: The rows.
        """

        def joint(x: Tensor, c: Tensor | None) -> Tensor:
            check_features("x", x, len(self.loc))
            return x if self.weight is None else torch.cat([x, self._checked(c)], dim=-1)

        mean, covariance = streamed_moments((joint(x, c), weight) for x, c, weight in blocks)
        variance, x = covariance.diagonal(), slice(len(self.loc))
        c = slice(len(self.loc), len(mean))
        constant = variance == 0
        scale = torch.where(constant, 1, variance).sqrt()
        correlation = covariance / scale / scale[:, None]
        eye = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        # One-hot vectors add up to the constant: of all solutions take nearly the shortest.
        slopes = torch.linalg.solve(correlation[c, c] + 1e-9 * eye[c, c], correlation[c, x]).T
        left = correlation[x, x] - slopes @ correlation[c, x] + RIDGE * eye[x, x]
        factor = torch.linalg.cholesky(left + torch.diag(constant[x].to(left)))
        slopes = slopes * scale[x, None] / scale[c]
        self.loc.copy_(mean[x] - slopes @ mean[c])
        self.scale_tril.copy_(scale[x, None] * factor)
        if self.weight is not None:
            self.weight.copy_(slopes)
        if self.initialized is not None:
            self.initialized.fill_(True)

    @classmethod
    def fit(
        cls,
        x: Tensor,
        c: Tensor | None = None,
        observed: Tensor | None = None,
        weight: Tensor | None = None,
        ridge: float = RIDGE,
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
        loc, scale = moments(torch.where(observed, x, 0).double(), observed, share)
        z = torch.where(observed, (x.double() - loc) / scale, 0)
        given = z.new_ones(len(z), 1)
        if c is not None:
            middle, spread = moments(c.double(), torch.ones_like(c, dtype=torch.bool), share)
            given = torch.cat([given, (c.double() - middle) / spread], dim=1)
        coefficients, factor = regress(z, given, observed, share, ridge)
        loc = loc + scale * coefficients[0]
        if c is None:
            return cls(loc.to(dtype), (scale[:, None] * factor).to(dtype))
        slopes = scale[:, None] * coefficients[1:].T / spread
        loc = loc - slopes @ middle
        return cls(loc.to(dtype), (scale[:, None] * factor).to(dtype), slopes.to(dtype))
