"""Mixtures of Gaussians of single features, fitted by expectation-maximisation."""

from __future__ import annotations

import torch
from torch import Tensor

#: Steps of expectation-maximisation: a start, which training goes on from.
STEPS = 12
#: The numbers of a block of responsibilities.
NUMBERS = 2**22
#: The smallest variance of a component, in those of its feature.
SMALLEST = 1e-4


def marginal_mixtures(
    x: Tensor, components: int, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Fits a mixture of Gaussians to each feature on its own.

    .. math:: p(x_i) = \sum_k w_{ik} \, \mathcal{N}(x_i \mid m_{ik}, e^{-p_{ik}})

    All components begin at a feature's mean, with standard deviations from a quarter of its own to
    four times that: what is centred and has heavy tails, as whitened features do, becomes a mixture
    of widths. Costs 12 steps of :math:`O(n D K)`.

    Args:
        x: The rows, with shape (n, D).
        components: The number of Gaussians K.
        weight: How much each row counts, with shape (n,); all alike if None.

    Returns:
        The log-weights, means and log-precisions, each with shape (D, K).

    Example:
        >>> x = torch.cat([torch.randn(5000, 1), 5 * torch.randn(5000, 1)])
        >>> logits, means, log_precisions = marginal_mixtures(x, 2)
        >>> (-0.5 * log_precisions).exp().round()
        tensor([[1., 5.]])
    """
    share = x.new_ones(len(x)) if weight is None else weight.to(x)
    share = share / share.sum()
    mean = share @ x
    variance = share @ (x - mean).square()
    least = SMALLEST * variance + torch.finfo(x.dtype).tiny
    widths = torch.logspace(-2, 2, components, 2, dtype=x.dtype, device=x.device)
    logits = x.new_zeros(components, x.shape[1])
    means = mean.expand_as(logits)
    variances = torch.maximum(widths.square()[:, None] * variance, least)
    rows = max(1, NUMBERS // logits.numel())
    for _ in range(STEPS):
        count, first, second = torch.zeros(3, *logits.shape, dtype=x.dtype, device=x.device)
        for block, part in zip(x.split(rows), share.split(rows), strict=True):
            apart = block - means[:, None]
            inner = apart.square() / variances[:, None] + variances.log()[:, None]
            mine = (logits[:, None] - 0.5 * inner).softmax(dim=0) * part[:, None]
            count += mine.sum(dim=1)
            first += (mine * apart).sum(dim=1)
            second += (mine * apart.square()).sum(dim=1)
        count = count.clamp(min=torch.finfo(x.dtype).tiny)
        step = first / count
        means = means + step
        variances = torch.maximum(second / count - step.square(), least)
        logits = count.log()
    return logits.T, means.T, -variances.T.log()
