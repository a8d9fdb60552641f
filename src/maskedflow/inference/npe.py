"""Neural posterior estimation: from simulations to the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from torch import nn
from torch.distributions import Distribution

from maskedflow.training import TrainConfig

from .candidates import FlowBuilder
from .density import ZScore
from .fitting import Inference
from .posterior import DirectPosterior
from .stored import load_density
from .truncated import TruncatedPrior


class NPE(Inference):
    r"""Neural posterior estimation: a flow of the parameters, given the data.

    It is fitted to pairs of parameters and simulations by maximum likelihood,

    .. math:: \max_q \; \mathrm{E}_{p(\theta) \, p(x \mid \theta)} \log q(\theta \mid x) ,

    which is the posterior where it can be. One fit is for all observations. The density is in the
    parameters' own units and none of it is outside of the prior's support: bounds are mapped to the
    line, parameters and data are standardised, all of it within the flow.

    Args:
        prior: The prior of D parameters: a distribution of vectors or of independent numbers, or
            a list of such.
        flow: `"nsf"`, `"maf"` or `"modern"`; a function of the numbers of features and of context
            that makes a lazy distribution; or `"auto"`: an NSF, and for more than one parameter
            also a MAF, whichever is better on the simulations that validate. Splines are better
            where posteriors have shapes, and affine maps where a simulator is nearly linear.
        embedding: A network that data of any shape (n, *shape) go through, to shape (n, size); it
            is copied, and trained along.
        ensemble: How many flows are trained, the mixture of which is the posterior.
        z_score_x: How data are standardised: `"independent"`, number by number, `"structured"`, as
            a whole, or `"none"`; `"auto"` is the first for vectors and the second for others.
        config: The settings of the training, whose seed is not used; our own if None.
        seed: The seed of weights, splits and batches.

    Raises:
        TypeError: If the prior is no distribution, the flow neither a name nor a function, the
            embedding no module, or the settings no `TrainConfig`.
        ValueError: If the prior's support is none of intervals, half-lines and lines, a name is
            unknown, or the ensemble is empty.

    References:
        | Automatic Posterior Transformation (Greenberg et al., 2019), section 2
        | https://arxiv.org/abs/1905.07488
        | Truncated proposals for scalable and hassle-free simulation-based inference
        | (Deistler et al., 2022), https://arxiv.org/abs/2210.04815

    Example:
        >>> import torch
        >>> from torch.distributions import Uniform
        >>> prior = Uniform(-torch.ones(2), torch.ones(2))
        >>> theta = 2 * torch.rand(200, 2) - 1
        >>> x = theta + 0.1 * torch.randn(200, 2)
        >>> posterior = NPE(prior, config=TrainConfig(epochs=1)).fit(theta, x)
        >>> posterior.sample((5,), x=torch.zeros(2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        prior: Distribution | Sequence[Distribution],
        flow: str | FlowBuilder = "auto",
        *,
        embedding: nn.Module | None = None,
        ensemble: int = 1,
        z_score_x: ZScore = "auto",
        config: TrainConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prior, flow, ensemble, config, seed)
        if z_score_x not in get_args(ZScore):
            known = ", ".join(get_args(ZScore))
            raise ValueError(f"z_score_x: expected one of {known}, got {z_score_x!r}")
        if embedding is not None and not isinstance(embedding, nn.Module):
            raise TypeError(
                f"embedding: expected a torch.nn.Module, got a {type(embedding).__name__}"
            )
        self.embedding, self.z_score_x = embedding, z_score_x

    def fit(
        self,
        theta: Any,
        x: Any,
        *,
        proposal: TruncatedPrior | None = None,
        progress: bool = False,
    ) -> DirectPosterior:
        """Fits the posterior to simulations.

        Rows whose numbers are not all finite are left out, with a warning. A tenth of the others
        validates. What is float64 gives a posterior in float64, whose networks are in float32.

        Args:
            theta: The parameters, a tensor or an array, with shape (n, D).
            x: What the simulator made of each, with shape (n, *shape).
            proposal: What the parameters were drawn from in a further round,
                `posterior.truncated(x)`: they are added to those of earlier rounds. None begins
                anew, with draws of the prior.
            progress: Whether to draw a progress bar, on a terminal or in a notebook.

        Raises:
            TypeError: If the proposal is no truncated prior, or something is no tensor.
            ValueError: If shapes do not fit, parameters are outside of the prior's support, or
                fewer than two rows are finite.
        """
        if proposal is not None and not isinstance(proposal, TruncatedPrior):
            raise TypeError(
                f"proposal: expected posterior.truncated(x), got a {type(proposal).__name__}"
            )
        simulations = self._add(theta, x, further=proposal is not None)
        shape = simulations.x.shape[1:]
        if len(shape) > 1 and self.embedding is None:
            raise ValueError(
                f"x: expected shape (n, features), or an embedding for simulations of shape "
                f"{tuple(shape)}"
            )
        density = self._train(
            simulations.theta,
            simulations.x,
            bounds=(self.prior.low, self.prior.high),
            z_score=self.z_score_x,
            network=self.embedding,
            progress=progress,
        )
        self.simulations = simulations
        return DirectPosterior(self.prior, density, shape, simulations.x.dtype)

    def load(self, path: str | Path) -> DirectPosterior:
        """Reads a posterior that :meth:`DirectPosterior.save` wrote.

        What is code is not in the file: this estimator has to be made as the one that fitted it.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or of another prior, flow or embedding.
        """
        bounds = self.prior.low, self.prior.high
        density, _, mean = load_density(
            path, self.flow, self.config, bounds=bounds, network=self.embedding
        )
        return DirectPosterior(self.prior, density, mean.shape, mean.dtype)
