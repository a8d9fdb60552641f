"""Inverse autoregressive flows."""

from __future__ import annotations

from typing import Any

from maskedflow.transforms import LazyComposedTransform, LazyInverse

from .autoregressive import MAF, MaskedAutoregressiveTransform

__all__ = ["IAF"]


class IAF(MAF):
    r"""An inverse autoregressive flow: MAF's transforms with their directions exchanged.

    .. math:: x_i = f(z_i \mid \phi_i), \quad \phi_i = \text{MADE}(z_{<i}, c)

    Sampling costs one pass of each transform's network. Scoring costs one sweep of it, which is
    about as cheap: the usual D passes, for which IAF is said to be unable to score data, are not
    needed. Training by maximum likelihood costs one pass and two sweeps, one in reverse; on
    its own samples, as a posterior, one pass. Its log-density has no second derivative, save by
    :mod:`torch.func`.

    Args:
        features: The number of features D.
        context: The number of context features.
        transforms: The number of autoregressive transforms.
        randperm: Whether each transform has a random order of its own.
        kwargs: What :class:`MAF` takes. Batch norms and layers in between keep their direction.

    References:
        | Inverse Autoregressive Flow (Kingma et al., 2016)
        | https://arxiv.org/abs/1606.04934

    Example:
        >>> import torch
        >>> flow = IAF(3, context=4)
        >>> x, log_prob = flow(torch.randn(4)).rsample_and_log_prob((5,))
        >>> x.shape, log_prob.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    density_cost, sample_cost = MAF.sample_cost, MAF.density_cost

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        randperm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, context, transforms, randperm, **kwargs)
        self.transform = LazyComposedTransform(
            *(
                LazyInverse(step) if isinstance(step, MaskedAutoregressiveTransform) else step
                for step in self.transform.transforms  # type: ignore[union-attr]
            )
        )
