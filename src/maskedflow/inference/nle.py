"""Neural likelihood estimation: from simulations to the likelihood, and on to the posterior."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from maskedflow.training import TrainConfig

from .candidates import FlowBuilder
from .fitting import Inference
from .likelihood import LikelihoodPosterior
from .stored import load_density


class NLE(Inference):
    r"""Neural likelihood estimation: a flow of the data, given the parameters.

    It is fitted by maximum likelihood, :math:`\max_q \mathrm{E} \log q(x \mid \theta)`, whatever
    the parameters were drawn from. Its posterior is for any number of independent observations;
    what the flow gets wrong adds up over them.

    Args:
        prior: The prior, as of :class:`NPE`.
        flow: The flow, as of :class:`NPE`; its features are those of an observation.
        ensemble: How many flows are trained, the mixture of which is the likelihood.
        config: The settings of the training, whose seed is not used; our own if None.
        seed: The seed of all that is drawn.

    Raises:
        TypeError: If the prior is no distribution, the flow neither a name nor a function, or the
            settings no `TrainConfig`.
        ValueError: If the prior's support is none of intervals, half-lines and lines, a name is
            unknown, or the ensemble is empty.

    References:
        Sequential Neural Likelihood (Papamakarios et al., 2019), https://arxiv.org/abs/1805.07226

    Example:
        >>> import torch
        >>> from torch.distributions import Uniform
        >>> prior = Uniform(-torch.ones(2), torch.ones(2))
        >>> theta = 2 * torch.rand(200, 2) - 1
        >>> x = theta + 0.1 * torch.randn(200, 2)
        >>> posterior = NLE(prior, config=TrainConfig(epochs=1)).fit(theta, x)
        >>> posterior.potential(theta, x=torch.zeros(10, 2)).shape
        torch.Size([200])
    """

    def __init__(
        self,
        prior: Distribution | Sequence[Distribution],
        flow: str | FlowBuilder = "auto",
        *,
        ensemble: int = 1,
        config: TrainConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior, flow, ensemble, config, seed)

    def fit(
        self, theta: Any, x: Any, *, proposal: Any = None, progress: bool = False
    ) -> LikelihoodPosterior:
        """Fits the likelihood to simulations.

        Rows whose numbers are not all finite are left out, with a warning. A tenth of the others
        validates. The likelihood is a density: of counts make continuous numbers before, by adding
        uniform noise to simulations and observations.

        Args:
            theta: The parameters, a tensor or an array, with shape (n, D).
            x: What the simulator made of each, with shape (n, features).
            proposal: What the parameters were drawn from in a further round, a posterior for
                example: they are added to those of earlier rounds. None begins anew.
            progress: Whether to draw a progress bar, on a terminal or in a notebook.

        Raises:
            ValueError: If shapes do not fit, parameters are outside of the prior's support, or
                fewer than two rows are finite.

        Warns:
            UserWarning: If most numbers of a column are there more than once.
        """
        simulations = self._add(theta, x, further=proposal is not None)
        if simulations.x.ndim != 2:
            raise ValueError(f"x: expected shape (n, features), got {tuple(simulations.x.shape)}")
        _warn_of_repeats(simulations.x)
        likelihood = self._train(simulations.x, simulations.theta, progress=progress)
        self.simulations = simulations
        features, dtype = simulations.x.shape[1], simulations.x.dtype
        return LikelihoodPosterior(self.prior, likelihood, features, dtype, self.seed)

    def load(self, path: str | Path) -> LikelihoodPosterior:
        """Reads the likelihood of a posterior that :meth:`LikelihoodPosterior.save` wrote.

        What is code is not in the file: this estimator has to have the same flow. It may have
        another prior of as many parameters.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or of another flow or other numbers of parameters.
        """
        likelihood, features, mean = load_density(path, self.flow, self.config)
        if mean.shape != (self.prior.features,):
            raise ValueError(
                f"{path}: expected a likelihood of {self.prior.features} parameters, "
                f"got one of {len(mean)}"
            )
        return LikelihoodPosterior(self.prior, likelihood, features, mean.dtype, self.seed)


def _warn_of_repeats(x: Tensor) -> None:
    """Warns of columns of counts and the like, whose likelihood is no density."""
    few = [i for i, column in enumerate(x.unbind(1)) if 2 * len(column.unique()) < len(column)]
    if few:
        warnings.warn(
            f"x: most numbers of column {few[0]} are there more than once, and have no density to "
            "learn; add noise to simulations and observations, x + torch.rand_like(x) if these "
            "are counts",
            stacklevel=3,
        )
