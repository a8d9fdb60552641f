"""The maps of one feature that make a mixture of Gaussians normal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from maskedflow.kernels import Kernel, Map

from .base import UnivariateTransform
from .monotonic import find_root

LOG_2 = math.log(2)
LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


class MonotonicMixtureTransform(UnivariateTransform):
    r"""The map of one feature from a mixture of Gaussians to N(0, 1).

    .. math:: f(x) = \Phi^{-1}(F(x)), \quad
        F(x) = \sum_k w_k \, \Phi \left( e^{p_k / 2} (x - m_k) \right)

    So :math:`\log \phi(f(x)) + \log f'(x)` is the log-density of the mixture, and
    a mixture of one component is an affine map.

    Why N(0, 1), when F alone is uniform: in single precision F is 1 from 5.4 standard deviations
    on, where no sample could be told from another. Here both tails go by their logarithms. Of the
    two, we compute the smaller one, P, with the shares :math:`q_k` of the components in it, and

    .. math:: \log f'(x) = \log \sum_k q_k \, e^{p_k / 2} \frac{\phi(v_k)}{\Phi(v_k)}
        - \log \frac{\phi(t)}{\Phi(t)}, \quad \Phi(t) = P, \quad v_k = \pm e^{p_k / 2} (x - m_k),

    in which the squares have cancelled on paper, so that nothing large is left to cancel in
    numbers: it is as accurate at :math:`10^6` standard deviations as at one.

    The forward direction costs K scaled error functions. The inverse is Newton's method, bracketed
    by the least and the greatest :math:`m_k + e^{-p_k / 2} z`, between which the root always lies.
    It costs five to twenty such steps, as many as the slowest element of a batch needs; its
    gradients come from the implicit function theorem.

    Args:
        logits: The unnormalised log-weights :math:`\log w_k`, with shape (*, K).
        means: The means :math:`m_k`, with shape (*, K).
        log_precisions: The log-precisions :math:`p_k`, with shape (*, K).
        slope: The smallest :math:`e^{p_k / 2}`; the largest is its inverse.

    References:
        Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057

    Example:
        >>> f = MonotonicMixtureTransform(
        ...     torch.zeros(2), torch.tensor([-1.0, 1.0]), torch.zeros(2)
        ... )
        >>> z, ladj = f.call_and_ladj(torch.tensor([0.5, 100.0]))
        >>> z
        tensor([ 0.3078, 99.0070])
        >>> f.inv(z)
        tensor([  0.5000, 100.0000])
    """

    def __init__(
        self,
        logits: Tensor,
        means: Tensor,
        log_precisions: Tensor,
        slope: float = math.exp(-10),
    ) -> None:
        super().__init__()
        self.log_weights = logits.log_softmax(dim=-1)
        self.means = means
        self.bound = -math.log(slope)
        self.log_scales = (0.5 * log_precisions).clamp(-self.bound, self.bound)

    @property
    def kernel(self) -> Kernel | None:
        """What the compiled sweep calls this map, and its parameters."""
        shape = self.means.shape
        known = len(shape) == 1 and shape == self.log_weights.shape == self.log_scales.shape
        return (Map.MIXTURE, (self.bound,)) if known else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(components={self.log_weights.shape[-1]})"

    def _standardized(self, x: Tensor) -> Tensor:
        """Standard deviations from each mean to x, as far as their squares are finite."""
        v = (x[..., None] - self.means) * self.log_scales.exp()
        bound = 0.1 * math.sqrt(torch.finfo(v.dtype).max)
        return v.clamp(-bound, bound)

    def _tail(self, x: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probability below x, or above it where `sign` is -1, and its log-hazard."""
        log_cdf, log_hazard = normal_tail(sign[..., None] * self._standardized(x))
        shares = self.log_weights + log_cdf
        log_p = shares.logsumexp(dim=-1)
        rate = shares - log_p[..., None] + log_hazard + self.log_scales
        return log_p, rate.logsumexp(dim=-1)

    @torch.no_grad()
    def _side(self, x: Tensor) -> Tensor:
        """Where the mixture has its smaller tail: 1 below x, -1 above."""
        u = self._standardized(x)
        below = (self.log_weights.exp() * torch.special.ndtr(u)).sum(dim=-1)
        return torch.where(below < 0.5, 1, -1).to(u.dtype)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sign = self._side(x)
        log_p, log_hazard = self._tail(x, sign)
        t = normal_quantile_of_log(log_p)
        return sign * t, log_hazard - normal_tail(t)[1]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        sign = torch.where(y < 0, 1, -1).to(y.dtype)
        return self._tail(x, sign)[1] - normal_tail(sign * y)[1]

    def log_density(self, x: Tensor) -> Tensor:
        r"""The log-density of the mixture, :math:`\log \phi(f(x)) + \log f'(x)`, without f(x)."""
        terms = self.log_weights + self.log_scales - 0.5 * self._standardized(x).square()
        return terms.logsumexp(dim=-1) - 0.5 * math.log(2 * math.pi)

    def _inverse(self, y: Tensor) -> Tensor:
        # What is solved is an equation in s with s^2 / 2 = -log P, where P is the tail on the side
        # of y: far out, s is nearly linear in x.
        sign = torch.where(y < 0, 1, -1).to(y.dtype)
        target = sign * _root_of_log(normal_tail(sign * y)[0])

        def value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
            log_p, log_hazard = self._tail(x, sign)
            s = _root_of_log(log_p)
            return sign * s, -log_hazard.exp() / s

        with torch.no_grad():
            quantiles = self.means + y[..., None] * torch.exp(-self.log_scales)
            low, high = quantiles.amin(dim=-1), quantiles.amax(dim=-1)
            start = (self.log_weights.exp() * quantiles).sum(dim=-1).clamp(low, high)
            eps = 1e-4 * torch.exp(-self.log_scales.amax(dim=-1))
        return find_root(value_and_slope, target, low, high, eps, start)


class GaussianizationTransform(MonotonicMixtureTransform):
    r"""Maps a mixture of K normal distributions of equal weights to one.

    .. math:: f(x) = \Phi^{-1} \left( \frac{1}{K} \sum_{k=1}^K \Phi(\exp(a_k) x + b_k) \right)

    with the distribution function :math:`\Phi` of N(0, 1). K = 1 is an affine map.

    Args:
        shift: The shifts :math:`b`, with shape (*, K).
        scale: The log-scales :math:`a`, with shape (*, K).

    References:
        Gaussianization (Chen and Gopinath, 2000), https://papers.nips.cc/paper/1856-gaussianization

    Example:
        >>> f = GaussianizationTransform(torch.tensor([-1.0, 1.0]), torch.zeros(2))
        >>> f(torch.tensor([1.0, 1e6]))
        tensor([6.3911e-01, 1.0000e+06])
    """

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        # The square of a larger scale would be infinite, that of a smaller one zero.
        most = 0.5 * math.log(torch.finfo(scale.dtype).max)
        means = -shift * torch.exp(-scale.clamp(-most, most))
        super().__init__(torch.zeros_like(scale), means, 2 * scale, slope=math.exp(-most))


def _root_of_log(log_p: Tensor) -> Tensor:
    # At a probability of one the root would have no slope; no root that is sought is near.
    return -(-2 * log_p.clamp(max=-torch.finfo(log_p.dtype).eps)).sqrt()


def normal_tail(v: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\log \Phi(v)` and :math:`\log \phi(v) - \log \Phi(v)`, both in nats.

    Below zero, :math:`\Phi(v) = \frac{1}{2} e^{-v^2 / 2} \operatorname{erfcx}(-v / \sqrt{2})`: the
    square is left out of the second result, which therefore is as accurate at -1e6 as at -1.

    Example:
        >>> normal_tail(torch.tensor(-1e6))
        (tensor(-5.0000e+11), tensor(13.8155))
    """
    below = v < 0
    log_scaled = torch.special.erfcx(-math.sqrt(0.5) * v.clamp(max=0)).log()
    log_upper = torch.log1p(-0.5 * torch.erfc(math.sqrt(0.5) * v.clamp(min=0)))
    half_square = 0.5 * v.square()
    log_cdf = torch.where(below, log_scaled - half_square - LOG_2, log_upper)
    log_hazard = torch.where(
        below, LOG_2 - LOG_SQRT_2_PI - log_scaled, -half_square - LOG_SQRT_2_PI - log_upper
    )
    return log_cdf, log_hazard


def normal_quantile_of_log(log_p: Tensor) -> Tensor:
    r"""The t for which :math:`\log \Phi(t)` is given, for probabilities up to a half.

    Example:
        >>> normal_quantile_of_log(torch.tensor([-5e11, -0.6931472]))
        tensor([-1000000.,        0.])
    """
    t: Tensor = _QuantileOfLog.apply(log_p)  # type: ignore[no-untyped-call]
    return t


class _QuantileOfLog(torch.autograd.Function):
    """Newton's method from the left, where the tangents of a concave function never overshoot."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        # Phi(t) is at most exp(-t^2 / 2) / 2.
        t = -(-2 * (log_p + LOG_2)).clamp(min=0).sqrt()
        for _ in range(5):
            log_cdf, log_hazard = normal_tail(t)
            t = t - (log_cdf - log_p) * torch.exp(-log_hazard)
        return t

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        return gradient * torch.exp(-normal_tail(t)[1])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (t,) = ctx.saved_tensors
        return tangent * torch.exp(-normal_tail(t)[1])
