"""A mixture of linear regressions on a context."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedflow.distributions import MixtureOfGaussians
from maskedflow.flows import LazyDistribution
from maskedflow.flows.flow import check_context

__all__ = ["MixtureOfRegressions"]


class MixtureOfRegressions(LazyDistribution):
    r"""A lazy mixture of Gaussians whose means follow the context, each with slopes of its own.

    .. math:: p(x \mid c) = \sum_{k=1}^K w_k \, \mathcal{N}(x \mid \mu_k + B_k c, L_k L_k^T)

    A density costs :math:`O(K D (D + C))`, and so does a sample. Its numbers are buffers: they are
    fitted already.

    Args:
        logits: The logarithms of the weights, with shape (K,).
        loc: The means where the context is 0, with shape (K, D).
        scale_tril: The Cholesky factors :math:`L_k`, with shape (K, D, D).
        slopes: The slopes :math:`B_k`, with shape (K, D, C).

    References:
        | Hierarchical Mixtures of Experts and the EM Algorithm (Jordan and Jacobs, 1994)

    Example:
        >>> slopes = torch.tensor([[[1.0]], [[-1.0]]])
        >>> zeros = torch.zeros(2, 1)
        >>> mixture = MixtureOfRegressions(zeros[:, 0], zeros, torch.ones(2, 1, 1), slopes)
        >>> mixture(torch.tensor([2.0])).base.loc
        tensor([[ 2.],
                [-2.]])
    """

    logits: Tensor
    loc: Tensor
    scale_tril: Tensor
    slopes: Tensor

    def __init__(self, logits: Tensor, loc: Tensor, scale_tril: Tensor, slopes: Tensor) -> None:
        super().__init__()
        for name, value in (
            ("logits", logits),
            ("loc", loc),
            ("scale_tril", scale_tril),
            ("slopes", slopes),
        ):
            self.register_buffer(name, value)

    def extra_repr(self) -> str:
        components, features, context = self.slopes.shape
        return f"components={components}, features={features}, context={context}"

    def forward(self, c: Tensor | None = None) -> MixtureOfGaussians:
        """Makes the mixture for the context `c`, with shape (*, C)."""
        check_context(c, self.slopes.shape[-1])
        assert c is not None
        shift = torch.einsum("kdc,...c->...kd", self.slopes, c)
        factors = self.scale_tril.expand(*shift.shape, -1)
        return MixtureOfGaussians(
            self.logits.expand(shift.shape[:-1]), self.loc + shift, None, factors
        )
