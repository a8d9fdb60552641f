"""Markov chains of an unnormalised density, which a flow straightens or proposes for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from maskedflow.distributions.base import draw_and_log_prob
from maskedflow.distributions.base import log_density as log_density_under
from maskedflow.flows.flow import check_sizes
from maskedflow.training.evaluation import BATCH_SIZE, frozen
from maskedflow.training.posterior import LogDensity
from maskedflow.transforms.base import require_tensor

from .chains import Chains
from .hamiltonian import Hamiltonian, Target, log_uniform


@torch.no_grad()
def hmc(
    log_density: LogDensity,
    start: Tensor,
    *,
    flow: nn.Module | Distribution | None = None,
    draws: int = 1000,
    warmup: int = 500,
    leapfrog_steps: int = 16,
    target_acceptance: float = 0.8,
    generator: torch.Generator | None = None,
) -> Chains:
    r"""Draws from an unnormalised density by Hamiltonian Monte Carlo, many chains at once.

    A proposal is the end of a path of leapfrog steps, at most `leapfrog_steps` and how many is
    drawn anew for each. Their size is adapted in the warm-up by dual averaging, so that a share of
    `target_acceptance` is accepted on average over the chains, and then stays.

    With a flow the paths are in its latent space. For its transform :math:`u = f(x)` the density
    there is

    .. math:: \log \tilde p(f^{-1}(u)) + \log \left| \det \partial f^{-1}(u) / \partial u \right|
        \quad \text{(nats)}.

    It is easier to walk in, the nearer the flow is to the density, since it is N(0, I) when they
    are the same. What comes out has the distribution :math:`\tilde p / Z` whatever the flow.

    Costs a log-density with gradient for each leapfrog step and chain; with a flow, a draw with
    gradients too.

    Args:
        log_density: The unnormalised log-density of points with shape (n, features), with shape
            (n,) and with gradients. A move to where it is not finite is rejected.
        start: Where the chains start, with shape (chains, features), in the data's own units.
        flow: A module whose call `flow()` gives a distribution with a `transform`, or that
            distribution; none if None.
        draws: Draws of each chain.
        warmup: Draws of each chain before those, which are left out.
        leapfrog_steps: The most leapfrog steps of a path.
        target_acceptance: The acceptance that the step size is adapted to.
        generator: Where draws come from.

    Raises:
        ValueError: If a size is less than 1, `start` has another shape or a log-density that is
            not finite, the log-density has another shape than (n,) or no gradient, or the flow has
            no transform of vectors.

    References:
        | MCMC using Hamiltonian dynamics (Neal, 2011), sections 3.2 and 4.2
        | https://arxiv.org/abs/1206.1901
        | The No-U-Turn Sampler (Hoffman and Gelman, 2014), section 3.2.1
        | https://arxiv.org/abs/1111.4246
        | NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport (Hoffman et
          al., 2019), section 3
        | https://arxiv.org/abs/1903.03704

    Example:
        >>> def log_density(x):
        ...     return -0.5 * ((x - 3) / torch.tensor([1.0, 5.0])).square().sum(dim=-1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> start = torch.randn(16, 2, generator=generator)
        >>> chains = hmc(log_density, start, draws=200, warmup=100, generator=generator)
        >>> bool((chains.flat().mean(dim=0) - 3).abs().max() < 0.5)
        True
    """
    check_sizes(draws=draws, warmup=warmup, leapfrog_steps=leapfrog_steps)
    if not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance: expected within 0 and 1, got {target_acceptance}")
    _check_points(start)
    with nullcontext() if flow is None else _fixed(flow, start) as distribution:
        transform = None if distribution is None else _transform(distribution)
        target = Target(log_density, transform)
        move = Hamiltonian(target, leapfrog_steps, target_acceptance, start.shape[-1])
        here = target.point(start if transform is None else transform(start))
        _check_start(here.log_density)
        kept = []
        for step in range(warmup + draws):
            here, accept = move(here, step < warmup, generator)
            if step >= warmup:
                kept.append((here.x, here.log_p, accept))
    return _chains(kept, target)


@torch.no_grad()
def flow_metropolis(
    log_density: LogDensity,
    flow: nn.Module | Distribution,
    start: Tensor,
    *,
    draws: int = 1000,
    warmup: int = 100,
    leapfrog_steps: int = 0,
    generator: torch.Generator | None = None,
) -> Chains:
    r"""Draws from an unnormalised density by Metropolis-Hastings with a flow's draws as proposals.

    A proposal x' of the flow q does not depend on where the chain is, and is accepted with
    probability

    .. math:: \min \left( 1, \frac{\tilde p(x')}{q(x')} \frac{q(x)}{\tilde p(x)} \right).

    So a chain goes from mode to mode at once, if the flow has draws of both. Where the flow has too
    few, at a point with a large :math:`\tilde p / q`, a chain stays for long: with `leapfrog_steps`
    it also makes a move of Hamiltonian Monte Carlo before each proposal. After each run the flow
    can be fitted to its draws, and the next run be made with that.

    Costs a draw with log-probability and a log-density for each proposal. With leapfrog steps, a
    log-density with gradient for each of them and a log-probability of the flow besides.

    Args:
        log_density: The unnormalised log-density of points with shape (n, features), with shape
            (n,); gradients are needed for leapfrog steps only. A move to where it is not finite
            is rejected.
        flow: A module whose call `flow()` gives a distribution that draws and has a `log_prob`, or
            that distribution.
        start: Where the chains start, with shape (chains, features): draws of the flow, for
            example.
        draws: Draws of each chain.
        warmup: Draws of each chain before those, which are left out, and in which the leapfrog
            steps' size is adapted.
        leapfrog_steps: The most leapfrog steps before each proposal; none if 0.
        generator: Where draws come from.

    Raises:
        ValueError: If a size is too small, `start` has another shape or a log-density that is not
            finite, or that of the flow is not, or the log-density has another shape than (n,).

    References:
        | Adaptive Monte Carlo augmented with normalizing flows (Gabrié et al., 2022), algorithm 1
        | https://arxiv.org/abs/2105.12603
        | Adaptation of the Independent Metropolis-Hastings Sampler with Normalizing Flow Proposals
          (Brofos et al., 2022), section 2
        | https://arxiv.org/abs/2110.13216

    Example:
        >>> from maskedflow.distributions import DiagNormal
        >>> def log_density(x):
        ...     return -0.5 * (x - 3).square().sum(dim=-1)
        >>> proposals = DiagNormal(torch.full((2,), 2.0), torch.full((2,), 2.0))
        >>> generator = torch.Generator().manual_seed(0)
        >>> start = proposals.sample((16,), generator)
        >>> chains = flow_metropolis(log_density, proposals, start, generator=generator)
        >>> bool((chains.flat().mean(dim=0) - 3).abs().max() < 0.1)
        True
    """
    if leapfrog_steps < 0:
        raise ValueError(f"leapfrog_steps: expected at least 0, got {leapfrog_steps}")
    check_sizes(draws=draws, warmup=warmup)
    _check_points(start)
    with _fixed(flow, start) as q:
        target = Target(log_density)
        move = Hamiltonian(target, leapfrog_steps, 0.8, start.shape[-1])
        x, log_p = start, target.log_p(start)
        log_weight = log_p - log_density_under(q, x)
        _check_start(log_weight)
        kept = []
        proposals = _proposals(target, q, len(start), warmup + draws, generator)
        for step, (new, new_p, new_weight) in enumerate(proposals):
            if leapfrog_steps:
                here, _ = move(target.point(x), step < warmup, generator)
                x, log_p = here.x, here.log_p
                log_weight = log_p - log_density_under(q, x)
            accept = log_uniform(log_weight, generator) < new_weight - log_weight
            x = torch.where(accept[:, None], new, x)
            log_p = torch.where(accept, new_p, log_p)
            log_weight = torch.where(accept, new_weight, log_weight)
            if step >= warmup:
                kept.append((x, log_p, accept))
    return _chains(kept, target)


def _proposals(
    target: Target, q: Distribution, chains: int, steps: int, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The proposals of each step, their log-densities and log-weights, of many steps at once."""
    most = max(1, BATCH_SIZE // chains)
    for done in range(0, steps, most):
        ahead = min(most, steps - done)
        x, log_q = draw_and_log_prob(q, (ahead * chains,), generator)
        log_p = target.log_p(x)
        log_weight = torch.where(log_q.isfinite(), log_p - log_q, -math.inf)
        yield from zip(
            *(one.unflatten(0, (ahead, chains)) for one in (x, log_p, log_weight)), strict=True
        )


@contextmanager
def _fixed(flow: nn.Module | Distribution, start: Tensor) -> Iterator[Distribution]:
    """What a flow makes, in evaluation mode and with parameters that take no gradients."""
    if isinstance(flow, nn.Module):
        learned = [one for one in flow.parameters() if one.requires_grad]
        with frozen(flow):
            try:
                yield _checked(flow.requires_grad_(False)(), start)
            finally:
                for one in learned:
                    one.requires_grad_()
    else:
        yield _checked(flow, start)


def _checked(distribution: object, start: Tensor) -> Distribution:
    if not isinstance(distribution, Distribution):
        kind = type(distribution).__name__
        raise TypeError(f"flow: expected a module or a distribution, got a {kind}")
    shapes = distribution.batch_shape, distribution.event_shape
    if shapes != ((), start.shape[1:]):
        batch, event = map(tuple, shapes)
        raise ValueError(
            f"flow: expected one distribution of start's {start.shape[-1]} features, got a batch "
            f"of shape {batch} of events of shape {event}"
        )
    return distribution


def _transform(distribution: Distribution) -> Transform:
    transform = getattr(distribution, "transform", None)
    if not isinstance(transform, Transform):
        kind = type(distribution).__name__
        raise ValueError(f"flow: expected a distribution with a transform, got a {kind}")
    return transform


def _check_points(start: Tensor) -> None:
    require_tensor("start", start)
    if start.ndim != 2 or not start.numel() or not start.is_floating_point():
        raise ValueError(
            f"start: expected real numbers of shape (chains, features), "
            f"got {start.dtype} of shape {tuple(start.shape)}"
        )


def _check_start(log_density: Tensor) -> None:
    wrong = (~log_density.isfinite()).nonzero()
    if len(wrong):
        raise ValueError(
            f"start: expected points of a finite log-density, of the flow too, "
            f"got {log_density[wrong[0]].item()} in chain {int(wrong[0])}"
        )


def _chains(kept: Sequence[tuple[Tensor, Tensor, Tensor]], target: Target) -> Chains:
    samples, log_p, accept = (torch.stack(one) for one in zip(*kept, strict=True))
    return Chains(samples, log_p, accept.double().mean(0), target.evaluations, target.gradients)
