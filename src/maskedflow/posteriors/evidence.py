"""The evidence, by importance sampling and by the learned harmonic mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskedflow.distributions import NormalizingFlow

from .inputs import log_shares, log_values, rows_of
from .named import NamedDensity
from .weights import ess, is_trusted, psis, warn_unless_trusted


@dataclass(frozen=True)
class Evidence:
    r"""An estimate of :math:`\log Z`, the logarithm of the integral of an unnormalised density.

    Attributes:
        log_z: The estimate, in nats.
        standard_error: Its standard error, in nats, by the delta method.
        ess: What the n weights are worth, in draws.
        khat: The shape of the tail of the weights, see :func:`psis`.
        n: The number of weights.
    """

    log_z: float
    standard_error: float
    ess: float
    khat: float
    n: int

    @property
    def is_trusted(self) -> bool:
        """Whether weights are worth fifty draws at least, and their tail is light enough."""
        return is_trusted(self.ess, self.khat, self.n)


def importance_evidence(
    log_density: Any, proposal: Any, n: int = 10_000, *, seed: int = 0, smooth: bool = False
) -> Evidence:
    r"""Estimates the evidence by draws of a proposal q, such as a flow fitted to the posterior.

    .. math:: Z = \mathrm{E}_{x \sim q} \left[ \frac{\tilde p(x)}{q(x)} \right]

    The proposal has to be wider than the posterior: a flow that was fitted with bounds, or that
    missed a tail or a mode, is not, and what q never draws is not counted, nor does a diagnostic
    see it.

    Args:
        log_density: The logarithm of likelihood times prior of rows (n, D), shape (n,).
        proposal: What :meth:`NamedDensity.of` takes.
        n: The number of draws.
        seed: Their seed.
        smooth: Whether the largest weights are smoothed by :func:`psis`: a little bias for less
            variance.

    Raises:
        ValueError: If the log-density is NaN, infinite, or of another shape.

    Warns:
        UserWarning: If the weights are worth fewer than 50 draws, or their tail is too heavy.

    References:
        | Monte Carlo theory, methods and examples (Owen, 2013), chapter 9
        | https://artowen.su.domains/mc/

    Example:
        >>> from maskedflow.distributions import DiagNormal
        >>> q = DiagNormal(torch.zeros(2), 1.2 * torch.ones(2))
        >>> found = importance_evidence(lambda x: -0.5 * x.square().sum(dim=1), q)
        >>> abs(found.log_z - math.log(2 * math.pi)) < 4 * found.standard_error < 0.1
        True
    """
    density = NamedDensity.of(proposal)
    x = density.sample(n, seed)
    weights = log_values("log_density", log_density, x, density.columns) - density.log_prob(x)
    found = _evidence(weights, smooth)
    advice = "fit the proposal better, or make it wider"
    warn_unless_trusted("log Z", found.ess, found.khat, n, advice)
    return found


def harmonic_evidence(
    samples: Tensor,
    log_density: Any,
    flow: Any,
    *,
    temperature: float = 0.8,
    weights: Any = None,
) -> Evidence:
    r"""Estimates the evidence by the learned harmonic mean, from samples of the posterior.

    .. math:: \frac{1}{Z} = \mathrm{E}_{x \sim p} \left[ \frac{\varphi_T(x)}{\tilde p(x)} \right]

    The target :math:`\varphi_T` is a flow that was fitted to the posterior, its Gaussian base with
    its variance times a temperature T < 1. It lies within the posterior then, where the original
    harmonic mean, whose target is the prior, has an infinite variance. The samples are to be others
    than those that the flow was fitted to, and independent: thin a chain first.

    Args:
        samples: Samples of the posterior, shape (n, D); of several chains, of equal length, shape
            (chains, n, D): the standard error is then that of the chains' means, whatever the
            correlation within a chain. Take ten chains at least for that.
        log_density: The logarithm of likelihood times prior at the samples, shape (n,) or
            (chains, n), as chains keep it; or a function of rows (n, D).
        flow: A flow, or what :meth:`NamedDensity.of` takes that is one, with a Gaussian base.
        temperature: The temperature T; 1 is the flow itself.
        weights: How much each sample counts, shape (n,) or (chains, n).

    Raises:
        ValueError: If it is no flow with a Gaussian base, T is not in (0, 1], shapes do not fit,
            or the log-density is minus infinity at a sample.

    Warns:
        UserWarning: If the weights are worth fewer than 50 draws, or their tail is too heavy.

    References:
        | Machine learning assisted Bayesian model comparison: learnt harmonic mean estimator
        | (McEwen et al., 2021), https://arxiv.org/abs/2111.12720
        | Learned harmonic mean estimation of the marginal likelihood with normalizing flows
        | (Polanska et al., 2023), https://arxiv.org/abs/2307.00048

    Example:
        >>> from maskedflow.flows import MAF
        >>> flow = MAF(2)  # here the samples are its own
        >>> x = flow().sample((4000,))
        >>> found = harmonic_evidence(x, lambda x: flow().log_prob(x).detach() + 3, flow)
        >>> abs(found.log_z - 3) < 5 * found.standard_error < 0.1
        True
    """
    if not 0 < temperature <= 1:
        raise ValueError(f"temperature: expected a number in (0, 1], got {temperature}")
    samples = torch.as_tensor(samples)
    chains, x = (len(samples), samples.flatten(0, 1)) if samples.ndim == 3 else (1, samples)
    _, x = rows_of(x, None, len(x), seed=0)
    target = _tempered(NamedDensity.of(flow), temperature)
    if not callable(log_density):
        log_density = torch.as_tensor(log_density).flatten()
    log_p = log_values("log_density", log_density, x, target.columns)
    if (log_p == -math.inf).any():
        row = int((log_p == -math.inf).nonzero()[0])
        raise ValueError(f"log_density: expected a finite number at sample {row}, got -inf")
    log_ratio = target.log_prob(x) - log_p
    weights = None if weights is None else torch.as_tensor(weights).flatten()
    counts = log_shares(weights, len(x)).softmax(dim=0) * len(x)
    found = _evidence(log_ratio + counts.log(), smooth=False)
    # The mean over samples of weight w has the variance of w (r - mean), for the w are random, too.
    ratio = (log_ratio - log_ratio.max()).exp()
    mean = (counts * ratio).mean()
    parts = counts * (ratio - mean) / mean
    parts = parts.reshape(chains, -1).mean(dim=1) if chains > 1 else parts
    error = parts.std().item() / math.sqrt(len(parts))
    found = Evidence(-found.log_z, error, found.ess, found.khat, found.n)
    advice = "lower the temperature, or fit the flow better"
    warn_unless_trusted("log Z", found.ess, found.khat, found.n, advice)
    return found


def _tempered(density: NamedDensity, temperature: float) -> NamedDensity:
    thing, c = density.origin or (None, None)
    if isinstance(thing, nn.Module) and isinstance(thing(c), NormalizingFlow):
        return NamedDensity.of(_Tempered(thing, temperature), density.columns, c)
    if isinstance(thing, NormalizingFlow):
        return NamedDensity.of(thing.tempered(math.sqrt(temperature)), density.columns)
    raise ValueError("flow: expected a normalizing flow, whose base can be narrowed, got none")


class _Tempered(nn.Module):
    """A flow whose Gaussian base has its variance times a temperature."""

    def __init__(self, flow: nn.Module, temperature: float) -> None:
        super().__init__()
        self.flow, self.scale = flow, math.sqrt(temperature)

    def forward(self, c: Tensor | None = None) -> NormalizingFlow:
        made: NormalizingFlow = self.flow(c)
        return made.tempered(self.scale)


def _evidence(log_weights: Tensor, smooth: bool) -> Evidence:
    n = len(log_weights)
    if log_weights.max() == -math.inf:
        raise ValueError("log_density: expected a number at some draw, got minus infinity at each")
    smoothed, khat = psis(log_weights)
    log_weights = smoothed if smooth else log_weights
    worth = ess(log_weights)
    error = math.sqrt(max(n / worth - 1, 0.0) / (n - 1)) if n > 1 else math.inf
    return Evidence(log_weights.logsumexp(dim=0).item() - math.log(n), error, worth, khat, n)
