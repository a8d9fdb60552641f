"""Logistic functions whose last digit does not depend on the number of threads.

Torch's own take another way at the end of each thread's share of a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sigmoid(x: Tensor) -> Tensor:
    r"""Computes :math:`1 / (1 + e^{-x})`.

    Example:
        >>> sigmoid(torch.tensor([-200.0, 0.0, 2.0]))
        tensor([0.0000, 0.5000, 0.8808])
    """
    below = x < 0
    least = torch.where(below, x, -x).exp()
    return torch.where(below, least, 1) / (1 + least)


def softplus(x: Tensor) -> Tensor:
    r"""Computes :math:`\log(1 + e^x)`.

    Example:
        >>> softplus(torch.tensor([-200.0, 0.0, 200.0]))
        tensor([  0.0000,   0.6931, 200.0000])
    """
    return x.clamp(min=0) + torch.where(x < 0, x, -x).exp().log1p()
