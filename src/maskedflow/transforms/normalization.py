"""Normalization as a step of a flow, by batches or from the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from maskedflow.chain import Step
from maskedflow.kernels import Map

from .base import Transform, VectorTransform, check_features
from .lazy import LazyTransform, elementwise_step
from .part import current_part
from .preprocessing import ScaleTransform

_WEIGHT: ContextVar[Tensor | None] = ContextVar("weight", default=None)


@contextmanager
def batch_weighs(weight: Tensor | None) -> Iterator[None]:
    """Weighs the rows of the batches that are normalised meanwhile; all alike if None.

    A context, since weights belong to a batch as a whole: no density takes them.

    Args:
        weight: How much each row counts, with shape (n,), not all 0.

    Example:
        >>> norm = BatchNorm(1)
        >>> with batch_weighs(torch.tensor([3.0, 1.0])):
        ...     norm()(torch.tensor([[0.0], [4.0]])).detach().round(decimals=2)
        tensor([[-0.5800],
                [ 1.7300]])
    """
    token = _WEIGHT.set(weight)
    try:
        yield
    finally:
        _WEIGHT.reset(token)


def weighted_moments(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""The biased variance and the mean over the first axis, as :func:`torch.var_mean` gives them.

    .. math:: m = \frac{\sum_i w_i x_i}{\sum_i w_i}, \qquad
        v = \frac{\sum_i w_i (x_i - m)^2}{\sum_i w_i}

    Of fewer weights than rows each counts for as many rows as it takes: the steps of a window. Of
    a part of a batch, they are those of the whole.
    """
    part = current_part()
    if weight is None and part is None:
        return torch.var_mean(x, dim=0, correction=0)
    weight = x.new_ones(len(x)) if weight is None else weight
    summed = (lambda total: total) if part is None else part.sum
    share = (weight.double() / summed(weight.double().sum())).to(x)
    steps = len(x) // max(len(share), 1)
    share = share.repeat_interleave(steps) / max(steps, 1)
    share = share.view(-1, *(1,) * (x.ndim - 1))
    mean = summed((share * x).sum(dim=0))
    return summed((share * (x - mean).square()).sum(dim=0)), mean


class BatchNorm(LazyTransform):
    r"""Batch normalization with its log-determinant and its inverse.

    .. math:: y = e^{\gamma} \frac{x - m}{\sqrt{v + \epsilon}} + \beta, \qquad
        \log \left| \frac{\partial y}{\partial x} \right| =
        \sum_i \gamma_i - \tfrac{1}{2} \log(v_i + \epsilon)

    In training m and v are the batch's mean and (biased) variance. In evaluation, and in the
    inverse, they are those set by :meth:`set_statistics`, as the paper does from the whole training
    set (:func:`maskedflow.training.calibrate`); until then a running average over batches. Rows
    that :func:`.fit` gives weights count in all of them by these.

    Args:
        eps: The constant :math:`\epsilon`.
        momentum: The weight of a new batch in the running average.

    Raises:
        ValueError: In training, if a batch has fewer than two rows.

    References:
        | Masked Autoregressive Flow (Papamakarios et al., 2017), appendix B
        | https://arxiv.org/abs/1705.07057

    Example:
        >>> norm = BatchNorm(1)
        >>> y, ladj = norm().call_and_ladj(torch.tensor([[1.0], [3.0]]))
        >>> y
        tensor([[-1.0000],
                [ 1.0000]], grad_fn=<AddBackward0>)
    """

    positive = ("variance",)
    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.log_gamma = nn.Parameter(torch.zeros(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("batches", torch.tensor(0))

    def extra_repr(self) -> str:
        return f"features={len(self.beta)}, eps={self.eps}"

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Fixes the statistics that evaluation uses; `variance` is biased, without eps.

        Raises:
            ValueError: If their shape is not (features,).
        """
        for name, value in (("mean", mean), ("variance", variance)):
            if value.shape != self.beta.shape:
                raise ValueError(
                    f"{name}: expected shape {tuple(self.beta.shape)}, got {tuple(value.shape)}"
                )
        self.mean.copy_(mean)
        self.variance.copy_(variance)

    @torch.no_grad()
    def update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Brings a batch into the running average; the first batch becomes it."""
        weight = self.momentum if self.batches > 0 else 1.0
        self.mean.lerp_(mean.to(self.mean), weight)
        self.variance.lerp_(variance.to(self.variance), weight)
        self.batches += 1

    def forward(self, c: Tensor | None = None) -> Transform:
        return _BatchNormTransform(self)

    def steps(self) -> list[Step] | None:
        if self.training:  # a row depends on all others
            return None
        names = "mean", "variance", "log_gamma", "beta"
        return elementwise_step(self, (Map.NORMALIZE, (self.eps,)), *names)


class _BatchNormTransform(VectorTransform):
    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self.norm = norm

    def __repr__(self) -> str:
        return f"BatchNorm({self.norm.extra_repr()})"

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.norm
        check_features("x", x, len(norm.beta))
        if norm.training:
            rows = x.flatten(end_dim=-2) if x.ndim > 1 else x[None]
            part = current_part()
            if (count := len(rows) if part is None else part.batch) < 2:
                raise ValueError(
                    f"x: batch normalization in training expects at least 2 rows, got {count}"
                )
            variance, mean = weighted_moments(rows, _WEIGHT.get())
            norm.update_statistics(mean, variance)
        else:
            mean, variance = norm.mean, norm.variance
        log_slope = norm.log_gamma - 0.5 * torch.log(variance + norm.eps)
        y = (x - mean) * log_slope.exp() + norm.beta
        return y, log_slope.sum().expand(x.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.norm
        check_features("z", y, len(norm.beta))
        log_slope = norm.log_gamma - 0.5 * torch.log(norm.variance + norm.eps)
        x = (y - norm.beta) * torch.exp(-log_slope) + norm.mean
        return x, -log_slope.sum().expand(y.shape[:-1])


class ActNorm(LazyTransform):
    r"""A learned shift and scale that standardize the first batch of training.

    .. math:: y = (x - m) e^{-s}, \qquad
        \log \left| \det \frac{\partial y}{\partial x} \right| = -\sum_i s_i

    It is the identity until the first forward call in training sets m and :math:`e^s` to the mean
    and the (biased) standard deviation of the batch. From then on they are parameters like any
    other, and no statistic of a batch enters again. Whether that has happened is part of the state.

    Args:
        eps: The smallest standard deviation that a first batch may set.

    Raises:
        ValueError: If the first batch of training has fewer than two rows.

    References:
        Glow (Kingma and Dhariwal, 2018), section 3.1, https://arxiv.org/abs/1807.03039

    Example:
        >>> norm = ActNorm(1)
        >>> norm()(torch.tensor([[1.0], [3.0]])).detach()
        tensor([[-1.],
                [ 1.]])
        >>> norm()(torch.tensor([[5.0]])).detach()
        tensor([[3.]])
    """

    initialized: Tensor

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.loc = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.register_buffer("initialized", torch.tensor(False))

    def extra_repr(self) -> str:
        return f"features={len(self.loc)}, eps={self.eps}"

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Sets shift and scale so that the rows of x become standard.

        Args:
            x: Two rows or more, with shape (*, features).
        """
        check_features("x", x, len(self.loc))
        rows = x.reshape(-1, len(self.loc))
        if len(rows) < 2:
            raise ValueError(
                f"x: the first batch of an ActNorm in training expects at least 2 rows, "
                f"got {len(rows)}"
            )
        variance, mean = weighted_moments(rows, _WEIGHT.get())
        self.loc.copy_(mean)
        self.log_scale.copy_(variance.sqrt().clamp(min=self.eps).log())
        self.initialized.fill_(True)

    def forward(self, c: Tensor | None = None) -> Transform:
        return _ActNormTransform(self)

    def steps(self) -> list[Step] | None:
        if self.training and not self.initialized:
            return None
        return elementwise_step(self, (Map.SCALE, ()), "loc", "log_scale")


class _ActNormTransform(ScaleTransform):
    def __init__(self, norm: ActNorm) -> None:
        super().__init__(norm.loc, norm.log_scale)
        self.norm = norm

    def __repr__(self) -> str:
        return f"ActNorm({self.norm.extra_repr()})"

    def _call(self, x: Tensor) -> Tensor:
        if self.norm.training and not self.norm.initialized:
            self.norm.initialize(x)
        return super()._call(x)
