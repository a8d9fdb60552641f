"""Neural posterior estimation: from simulations to the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
from annotated_types import Len
from pydantic import with_config
from torch import nn
from torch.distributions import Distribution
from typing_extensions import TypedDict

from maskedflow.files import CLOSED, Count, blame
from maskedflow.training import TrainConfig, load
from maskedflow.training.checkpoint import METADATA, metadata_of, read

from .candidates import FlowBuilder, candidates
from .density import Front, ZScore, conditional_flow, support_of
from .ensemble import Ensemble
from .fitting import Inference
from .posterior import DirectPosterior
from .truncated import TruncatedPrior


@with_config(CLOSED)
class _Recipe(TypedDict):
    """What the file of a posterior says of its flows."""

    choices: Annotated[list[Count], Len(min_length=1)]


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
        TypeError: If the prior is no distribution, or the flow neither a name nor a function.
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
            progress: Whether to draw a progress bar, if standard error is a terminal.

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
        tensors, header = read(path)
        recipe = metadata_of(path, header, METADATA, _Recipe)
        name = "embedding.loc" if self.embedding is None else "embedding.0.loc"
        with blame(Path(path), "not a posterior of this flow and this embedding"):
            choices = recipe["choices"]
            x = tensors[f"members.{len(choices) - 1}.{name}"]
            known = candidates(self.flow, self.prior.features, 1, self.config)
            zeros = torch.zeros(self.prior.features, dtype=x.dtype)
            support = support_of((self.prior.low, self.prior.high), x.dtype)
            front = Front(support, zeros, torch.ones_like(zeros))
            scaled = torch.zeros_like(x), torch.ones_like(x)
            build = partial(conditional_flow, front=front, context=scaled, network=self.embedding)
            density = Ensemble([build(known[one][0], seed=0) for one in choices], choices)
            load(path, density)
            if support is not None and any(
                not torch.equal(tensors[f"members.0.transform.transforms.0.bounds.{end}"], bound)
                for end, bound in (("low", self.prior.low.to(x)), ("high", self.prior.high.to(x)))
            ):
                raise ValueError("the prior's bounds are others")
        return DirectPosterior(self.prior, density, x.shape, x.dtype)
