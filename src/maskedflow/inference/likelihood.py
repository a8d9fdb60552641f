"""Posteriors whose likelihood is a flow: sampled by another flow, and corrected."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from maskedflow.distributions.base import Base, Shape
from maskedflow.training import ImportanceSample
from maskedflow.training.posterior import LogDensity

from .ensemble import Ensemble
from .posterior import Posterior, finite
from .prior import Prior
from .proposal import fit_proposal
from .resampling import resample
from .simulations import as_numbers
from .stored import save_density

EFFECTIVE = 20
"""Effective draws, on average, that each sample is one of."""

FEW = 100
"""Effective draws of those that weigh the proposal below which it is not to be trusted."""


class LikelihoodPosterior(Posterior):
    r"""A posterior by Bayes' theorem, of a likelihood that is a flow.

    .. math:: p(\theta \mid x_1, \dots, x_n) \propto p(\theta) \prod_i p(x_i \mid \theta)

    For each observation another flow is fitted to it, see :func:`.fit_proposal`, and is then
    corrected: its draws are resampled by their importance weights, which also give the evidence
    that normalises :meth:`log_prob`. This is done when an observation is first asked about, and
    kept for the last one.

    Args:
        prior: The prior.
        likelihood: The flows of the data, given the parameters.
        features: The numbers in an observation.
        dtype: The precision of parameters and data.
        seed: The seed of the fits.
    """

    def __init__(
        self, prior: Prior, likelihood: Ensemble, features: int, dtype: torch.dtype, seed: int
    ) -> None:
        super().__init__(prior, dtype)
        self.likelihood = likelihood.eval().requires_grad_(False)
        self.features, self.seed = features, seed
        self._last: tuple[Tensor, Corrected] | None = None

    def save(self, path: str | Path) -> None:
        """Writes the weights of the likelihood to a safetensors file: data, never code.

        The prior and the flow are code: :meth:`NLE.load` is told them again.
        """
        save_density(path, self.likelihood)

    def potential(self, theta: Any, x: Any = None) -> Tensor:
        r"""The log-prior and the log-likelihoods, with shape (*), in nats: not normalised."""
        return self._potential(self._parameters(theta), self._observed(x))

    def at(self, x: Any = None) -> Corrected:
        """The posterior of one or several independent observations, as a distribution.

        Args:
            x: The observations, with shape (features,) or (n, features).
        """
        observed = self._observed(x)
        if self._last is None or not torch.equal(self._last[0], observed):
            self._last = observed, self._fit(observed)
        return self._last[1]

    def _potential(self, theta: Tensor, x: Tensor) -> Tensor:
        rows = theta.reshape(-1, self.prior.features)
        inside = self.prior.contains(rows)
        # Outside the likelihood has not learnt anything.
        log_likelihood: Tensor = self.likelihood(rows).log_prob(x[:, None]).sum(dim=0)
        total = log_likelihood + self.prior.log_prob(rows).to(rows)
        return torch.where(inside, total, -math.inf).reshape(theta.shape[:-1])

    def _checked(self, x: Any) -> Tensor:
        value = as_numbers("x", x).to(self.dtype)
        value = value[None] if value.shape == (self.features,) else value
        if value.ndim != 2 or value.shape[1] != self.features or not len(value):
            raise ValueError(
                f"x: expected one or more observations, of shape ({self.features},) or "
                f"(n, {self.features}), got {tuple(value.shape)}"
            )
        return finite(value)

    def _fit(self, x: Tensor) -> Corrected:
        """Fits a flow to the posterior of an observation, and weighs its draws."""
        generator = torch.Generator().manual_seed(self.seed)
        potential = partial(self._potential, x=x)
        proposal, weighed = fit_proposal(self.prior, potential, x.dtype, generator)
        if weighed.ess < FEW:
            warnings.warn(
                f"the posterior's proposal has {weighed.ess:.0f} effective draws of "
                f"{len(weighed.x):,}: its samples and log_prob are not to be trusted",
                stacklevel=4,
            )
        return Corrected(proposal, potential, weighed)


class Corrected(Base):
    r"""A distribution that another has draws for, which are picked by their weights.

    Args:
        proposal: The distribution q.
        log_density: The logarithm of :math:`\tilde p`, of points with shape (*, D).
        weighed: Draws of q with their weights :math:`\tilde p / q`: their effective sample size
            says how good q is, their mean is the evidence.
    """

    def __init__(
        self, proposal: Distribution, log_density: LogDensity, weighed: ImportanceSample
    ) -> None:
        self.proposal, self.log_density, self.weighed = proposal, log_density, weighed
        super().__init__((), proposal.event_shape)

    @property
    def support(self) -> constraints.Constraint | None:
        return self.proposal.support

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density, normalised by the estimated evidence."""
        found: Tensor = self.log_density(value) - self.weighed.log_z
        return found

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws by sampling-importance-resampling, see :func:`.resample`."""
        shape = torch.Size(sample_shape)
        among = math.ceil(EFFECTIVE * len(self.weighed.x) / self.weighed.ess)
        found = resample(self.proposal, self.log_density, shape.numel(), among, generator)
        return found.reshape(*shape, *self.event_shape)
