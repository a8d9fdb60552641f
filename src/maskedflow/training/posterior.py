"""Posteriors: a flow is fitted to an unnormalised density, and its draws are weighted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from maskedflow.distributions.base import draw, draw_and_log_prob
from maskedflow.files import Finite, Positive, Size, check_fields

from .config import cosine
from .evaluation import BATCH_SIZE, frozen
from .loop import NonFiniteError
from .step import step_if_finite

LogDensity = Callable[[Tensor], Tensor]
"""An unnormalised log-density: of points with shape (n, features), shape (n,), in nats."""

SKIPS_IN_A_ROW = 20
"""Steps with a non-finite loss or gradient, one after the other, that end the training."""


@dataclass(frozen=True)
class VariationalConfig:
    r"""Settings of :func:`maskedflow.training.fit_posterior`.

    Args:
        steps: Steps of Adam.
        batch_size: Draws of the flow in a step.
        lr: Learning rate at the start; it falls to zero by half a cosine.
        temperature: The temperature T of the first step. It falls to 1 in the first half of the
            steps, by the same factor in each; 1 is no annealing.
        clip: Largest norm of the whole gradient, longer ones are scaled down; `inf` is no limit.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> VariationalConfig(temperature=0.5)
        Traceback (most recent call last):
        ...
        ValueError: temperature: expected at least 1, got 0.5
    """

    steps: Size = 2000
    batch_size: Size = 256
    lr: Positive = 5e-3
    temperature: Annotated[Finite, Ge(1)] = 1.0
    clip: Annotated[float, Gt(0)] = 10.0

    def __post_init__(self) -> None:
        check_fields(self)

    def temperature_at(self, step: int) -> float:
        """The temperature of a step, the first of which is 0."""
        return math.exp(math.log(self.temperature) * max(0.0, 1 - 2 * step / self.steps))

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        return self.lr * cosine(step / self.steps)


@dataclass(frozen=True)
class VariationalHistory:
    """What :func:`maskedflow.training.fit_posterior` returns, one number a step.

    Attributes:
        elbo: Mean of log-density, at temperature 1, less log-probability, in nats: an estimate of
            log Z less the reverse Kullback-Leibler divergence.
        temperature: The temperature of the target.
        lr: The learning rate.
        skipped: Steps left out because loss or gradient was not finite.
        seconds: Wall time of the whole training.
    """

    elbo: tuple[float, ...]
    temperature: tuple[float, ...]
    lr: tuple[float, ...]
    skipped: int
    seconds: float


@torch.enable_grad()
def fit_posterior(
    flow: nn.Module,
    log_density: LogDensity,
    config: VariationalConfig | None = None,
    generator: torch.Generator | None = None,
) -> VariationalHistory:
    r"""Fits a flow q to an unnormalised density :math:`\tilde p`, a posterior for example.

    Adam descends the reverse Kullback-Leibler divergence to :math:`\tilde p^{1/T}`, where the
    temperature T falls to 1,

    .. math:: L = \mathrm{E}_{x \sim q} \left[ \log q(x) - \tfrac{1}{T} \log \tilde p(x) \right]
        \quad \text{(nats)}.

    Its gradient goes along the draws' paths only: :math:`\nabla_\theta x \cdot \nabla_x (\log q -
    \frac{1}{T} \log \tilde p)`. What is left out is zero on average, and so is all noise when q is
    the target. A step costs a draw with gradients, and a density with gradients: for a MAF and for
    an IAF that is passes and sweeps, none of which is the usual loop over features.

    Reverse divergence prefers a q that misses a mode to one that has draws between modes. See
    :func:`importance_sample` for what came out, and for what it cannot show.

    Args:
        flow: A module whose call `flow()` gives a distribution with draws that have gradients. It
            is in evaluation mode: batch norms keep their statistics.
        log_density: The unnormalised log-density of points with shape (n, features), with shape
            (n,) and with gradients. It is finite on all of the space; map constrained parameters
            to it first, and count the log-determinant.
        config: The settings, the defaults if None.
        generator: Where draws come from.

    Returns:
        The bound on log Z, temperature and learning rate of each step.

    Raises:
        ValueError: If the log-density is NaN or infinite, has another shape than (n,), or has no
            gradient.
        NonFiniteError: If loss or gradient were not finite in many steps, one after the other.

    References:
        | Variational Inference with Normalizing Flows (Rezende and Mohamed, 2015), equation 20
        | https://arxiv.org/abs/1505.05770
        | Sticking the Landing (Roeder et al., 2017), section 3, https://arxiv.org/abs/1703.09194

    Example:
        >>> from maskedflow.flows import MAF
        >>> def log_density(x):
        ...     return -0.5 * (x - 3).square().sum(dim=-1)
        >>> flow = MAF(2, transforms=1, hidden_features=(8,))
        >>> history = fit_posterior(flow, log_density, VariationalConfig(steps=200, lr=0.05))
        >>> bool((flow().sample((1000,)).mean(dim=0) - 3).abs().max() < 0.2)
        True
    """
    config = config or VariationalConfig()
    parameters = [p for p in flow.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("flow: expected a parameter to train, got none")
    optimizer = torch.optim.Adam(parameters, fused=True)
    flow.eval()
    steps = []
    skipped = in_a_row = 0
    start = time.perf_counter()
    for step in range(config.steps):
        temperature, rate = config.temperature_at(step), config.lr_at(step)
        optimizer.zero_grad(set_to_none=True)
        x = draw(flow(), (config.batch_size,), generator)
        slope, bound = _slope(flow, log_density, x, temperature)
        (x * slope).sum().backward()
        value, finite = step_if_finite(optimizer, bound, rate, config.clip)
        steps.append((value, temperature, rate))
        if finite:
            in_a_row = 0
            continue
        skipped, in_a_row = skipped + 1, in_a_row + 1
        if in_a_row == SKIPS_IN_A_ROW:
            raise NonFiniteError(
                f"log_density: loss or gradient was not finite in {in_a_row} steps up to {step}; "
                f"is it finite everywhere, or lr {config.lr:g} too high?"
            )
    optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - start
    elbo, temperatures, rates = zip(*steps, strict=True)
    return VariationalHistory(elbo, temperatures, rates, skipped, seconds)


def _slope(
    flow: nn.Module, log_density: LogDensity, x: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """How the mean loss changes with each point, and the bound on log Z."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        log_q = flow().log_prob(x)
        log_p = check_log_density(log_density(x), x)
        if not log_p.requires_grad:
            raise ValueError("log_density: expected a function with gradients, got one without")
        loss = (log_q - log_p / temperature).mean()
        (slope,) = torch.autograd.grad(loss, x)
    return slope, (log_p - log_q).mean().detach()


@dataclass(frozen=True)
class ImportanceSample:
    r"""Draws of a flow q, weighted as draws of :math:`p(x) = \tilde p(x) / Z`.

    What they say holds where q has been. A mode that q never draws from shows neither in the
    effective sample size, which stays high, nor in the standard error: Z is then that of the modes
    that were found.

    Attributes:
        x: The draws, with shape (n, features).
        log_weights: :math:`\log w_i = \log \tilde p(x_i) - \log q(x_i)`, with shape (n,), in
            float64.

    Example:
        >>> sample = ImportanceSample(torch.zeros(4, 1), torch.tensor([0.0, 0.0, 0.0, -torch.inf]))
        >>> round(sample.ess, 3), round(sample.log_z, 3)
        (3.0, -0.288)
    """

    x: Tensor
    log_weights: Tensor

    @property
    def weights(self) -> Tensor:
        """The weights, whose sum is one, with shape (n,)."""
        return self.log_weights.double().softmax(dim=0)

    @property
    def ess(self) -> float:
        r"""The effective sample size :math:`(\sum w_i)^2 / \sum w_i^2`, from 1 to n.

        References:
            Monte Carlo theory, methods and examples (Owen, 2013), equation 9.13
            https://artowen.su.domains/mc/
        """
        return math.exp(-(2 * self.log_weights.log_softmax(dim=0)).logsumexp(dim=0).item())

    @property
    def log_z(self) -> float:
        r"""The estimate :math:`\log \frac{1}{n} \sum_i w_i` of log Z, in nats."""
        return self.log_weights.logsumexp(dim=0).item() - math.log(len(self.log_weights))

    @property
    def standard_error(self) -> float:
        r"""The standard error of `log_z`, in nats, by the delta method.

        .. math:: \frac{1}{\bar w} \sqrt{\frac{1}{n (n - 1)} \sum_i (w_i - \bar w)^2}
            = \sqrt{\frac{n / \mathrm{ESS} - 1}{n - 1}}
        """
        n = len(self.log_weights)
        return math.sqrt(max(n / self.ess - 1, 0.0) / (n - 1)) if n > 1 else math.inf

    @property
    def mean(self) -> Tensor:
        """The mean of p, with shape (features,), in float64."""
        return self.weights @ self.x.double()

    @property
    def std(self) -> Tensor:
        """The standard deviations of p, with shape (features,), in float64."""
        return (self.weights @ (self.x.double() - self.mean).square()).sqrt()


def importance_sample(
    flow: nn.Module,
    log_density: LogDensity,
    n: int,
    generator: torch.Generator | None = None,
    batch_size: int = BATCH_SIZE,
) -> ImportanceSample:
    """Draws from a flow and weighs the draws as those of an unnormalised density.

    Costs n draws with their log-probabilities, and n evaluations of the density.

    Args:
        flow: A module whose call `flow()` gives a distribution that draws and has a `log_prob`.
        log_density: The unnormalised log-density.
        n: The number of draws.
        generator: Where draws come from.
        batch_size: Draws computed at once.

    Raises:
        ValueError: If the log-density is NaN or infinite, or has another shape than (n,).
            Minus infinity is allowed: a weight of zero.

    Example:
        >>> from maskedflow.flows import MAF
        >>> def log_density(x):
        ...     return -0.5 * x.square().sum(dim=-1)
        >>> sample = importance_sample(MAF(2, transforms=1), log_density, 1000)
        >>> 1 < sample.ess < 1000
        True
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1 draw, got {n}")
    points, log_weights = [], []
    with frozen(flow):
        distribution = flow()
        for start in range(0, n, batch_size):
            shape = (min(batch_size, n - start),)
            x, log_q = draw_and_log_prob(distribution, shape, generator)
            log_p = check_log_density(log_density(x), x)
            points.append(x)
            log_weights.append(log_p.double() - log_q.double())
    return ImportanceSample(torch.cat(points), torch.cat(log_weights))


def check_log_density(values: Tensor, x: Tensor) -> Tensor:
    """Refuses values that are no log-densities of the points x.

    Raises:
        ValueError: If their shape is not that of the batch, or one is NaN or plus infinity.
    """
    if values.shape != x.shape[:-1]:
        raise ValueError(
            f"log_density: expected shape {tuple(x.shape[:-1])} for x of shape {tuple(x.shape)}, "
            f"got {tuple(values.shape)}"
        )
    wrong = values.isnan() | (values == math.inf)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        where = ", ".join(f"{number:.4g}" for number in x[row, :8].tolist())
        rest = ", ..." if x.shape[-1] > 8 else ""
        raise ValueError(
            f"log_density: expected numbers below infinity, got {values[row].item()} "
            f"at x = ({where}{rest})"
        )
    return values
