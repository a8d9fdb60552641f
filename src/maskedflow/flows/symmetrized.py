"""The density of rows whose symmetries are known, by a flow that knows of none."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from maskedflow.distributions.base import Shape, draw, log_density
from maskedflow.distributions.density import Density
from maskedflow.transforms import check_features

from .flow import LazyDistribution, unchecked

_SLACK = 1e-4
"""How far a symmetry's determinant may be from one in size."""


class Symmetrized(LazyDistribution):
    r"""The mean of a density over linear symmetries of its rows.

    A mirrored patch of an image is as likely as the patch, and so is a rotated molecule. An
    autoregressive flow reads the features in one order and does not know. Its mean over matrices
    :math:`A_k` that keep volumes does,

    .. math:: p(x \mid c) = \frac{1}{K} \sum_{k=1}^K p_0(A_k x \mid c),

    and has the same value at all :math:`A_j x` if they are a group. It is a mixture of K flows of
    other orders that share their weights. Trained is :math:`p_0`, on :meth:`images` of the rows:
    by Jensen's inequality no row's mean log-density over its images is above that of the mean. A
    density costs K of the flow's, a sample one of it and one solution, :math:`O(D^3)`.

    Args:
        flow: The lazy distribution :math:`p_0`.
        symmetries: The matrices :math:`A_k`, with shape (K, D, D) and determinants 1 or -1.

    Raises:
        ValueError: If the matrices have another shape, or change volumes.

    References:
        | Equivariant Flows (Köhler et al., 2020), https://arxiv.org/abs/2006.02425, build the
        | symmetry into the flow; here it is averaged, as by the Reynolds operator of a group.

    Example:
        >>> from maskedflow.flows import MAF
        >>> mirrored = Symmetrized(MAF(2), torch.stack([torch.eye(2), -torch.eye(2)]))
        >>> x = torch.tensor([[0.3, -1.0]])
        >>> mirrored.images(x)
        tensor([[[ 0.3000, -1.0000]],
        <BLANKLINE>
                [[-0.3000,  1.0000]]])
        >>> bool(mirrored().log_prob(x).isclose(mirrored().log_prob(-x)))
        True
    """

    symmetries: Tensor

    def __init__(self, flow: LazyDistribution, symmetries: Tensor) -> None:
        super().__init__()
        size = symmetries.shape[-1:]
        if symmetries.shape[1:] != size + size or not symmetries.numel():
            raise ValueError(f"symmetries: expected shape (K, D, D), got {tuple(symmetries.shape)}")
        volumes = torch.linalg.det(symmetries.double()).abs()
        if not torch.allclose(volumes, torch.ones_like(volumes), rtol=0, atol=_SLACK):
            raise ValueError(
                f"symmetries: expected determinants of 1 or -1, got sizes {volumes.tolist()}"
            )
        self.flow = flow
        self.register_buffer("symmetries", symmetries)

    @property
    def is_rowwise(self) -> bool:  # type: ignore[override]
        return self.flow.is_rowwise

    def images(self, x: Tensor) -> Tensor:
        r"""What the symmetries make of rows: :math:`A_k x`, with shape (K, \*, D) for (\*, D)."""
        check_features("x", x, self.symmetries.shape[-1])
        return torch.einsum("kij,...j->k...i", self.symmetries.to(x), x)

    def forward(self, c: Tensor | None = None) -> SymmetrizedDistribution:
        """Makes the distribution p(x | c), whose batch shape is that of `c`.

        Raises:
            ValueError: If the flow has other features than the symmetries.
        """
        flow = self.flow(c)
        if flow.event_shape != self.symmetries.shape[-1:]:
            raise ValueError(
                f"flow: expected {self.symmetries.shape[-1]} features, as the symmetries have, "
                f"got shape {tuple(flow.event_shape)}"
            )
        origin = () if c is None else (c,)
        return SymmetrizedDistribution(self, flow).made_by(self, unchecked, *origin)


class SymmetrizedDistribution(Density):
    """The distribution that a :class:`Symmetrized` makes for a context."""

    def __init__(self, made_by: Symmetrized, flow: Distribution) -> None:
        super().__init__(flow.batch_shape, flow.event_shape)
        self.module, self.flow, self.has_rsample = made_by, flow, flow.has_rsample

    def __repr__(self) -> str:
        return f"SymmetrizedDistribution(symmetries={len(self.module.symmetries)}, {self.flow})"

    def density(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        each = log_density(self.flow, self.module.images(value.expand(*shape, -1)))
        return each.logsumexp(dim=0) - math.log(len(each))

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws rows of the flow, and takes back a symmetry that is drawn for each.

        They have gradients where those of the flow have.
        """
        y = draw(self.flow, sample_shape, generator)
        symmetries = self.module.symmetries.to(y)
        k = torch.randint(len(symmetries), y.shape[:-1], generator=generator, device=y.device)
        x = torch.empty_like(y)
        for one, symmetry in enumerate(symmetries):
            x[k == one] = torch.linalg.solve(symmetry, y[k == one].mT).mT
        return x
