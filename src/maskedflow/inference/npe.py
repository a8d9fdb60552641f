"""Neural posterior estimation: from simulations to the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.distributions import Distribution

from maskedflow.training import History, TrainConfig

from .density import FlowBuilder, Front, ZScore, conditional_flow, flow_builder, moments
from .fitting import fit_ensemble
from .posterior import DirectPosterior
from .prior import Prior
from .simulations import Simulations
from .truncated import TruncatedPrior


class NPE:
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
        flow_builder(flow)
        if ensemble < 1:
            raise ValueError(f"ensemble: expected at least 1 member, got {ensemble}")
        self.prior, self.flow, self.embedding = Prior(prior), flow, embedding
        self.ensemble, self.z_score_x = ensemble, z_score_x
        self.config, self.seed = config, seed
        self.simulations: Simulations | None = None
        self.histories: tuple[History, ...] = ()

    def fit(
        self, theta: Any, x: Any, *, proposal: TruncatedPrior | None = None, progress: bool = False
    ) -> DirectPosterior:
        if proposal is not None and not isinstance(proposal, TruncatedPrior):
            raise TypeError(
                f"proposal: expected posterior.truncated(x), got a {type(proposal).__name__}"
            )
        simulations = Simulations.of(theta, x, self.prior)
        if proposal is not None and self.simulations is not None:
            simulations = self.simulations + simulations
        theta, x = simulations.theta, simulations.x
        if x.ndim > 2 and self.embedding is None:
            raise ValueError(
                f"x: expected shape (n, features), or an embedding of simulations of shape "
                f"{tuple(x.shape[1:])}"
            )
        front = Front.fit(theta, (self.prior.low, self.prior.high))
        context = moments(x, self.z_score_x)
        density, self.histories = fit_ensemble(
            lambda seed: conditional_flow(self.flow, front, context, self.embedding, seed),
            theta,
            x,
            members=self.ensemble,
            config=self.config,
            seed=self.seed,
            progress=progress,
        )
        self.simulations = simulations
        return DirectPosterior(self.prior, density, x.shape[1:], theta.dtype)
