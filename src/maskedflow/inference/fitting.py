"""What inference of posteriors and of likelihoods have in common: densities that are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.data import Split
from maskedflow.data.dealing import deal
from maskedflow.flows import Flow
from maskedflow.training import History, TrainConfig, fit
from maskedflow.training.randomness import derive_seed

from .candidates import FlowBuilder, candidates
from .density import Front, ZScore, conditional_flow, moments
from .ensemble import Ensemble
from .prior import Prior
from .simulations import Simulations

VALIDATION = 0.1
"""The share of simulations that tells when to stop, and which flow is best."""


class Inference:
    """Inference by simulation with a trained density; its subclasses say of what.

    Attributes:
        prior: The prior.
        simulations: All simulations of the last fit and of earlier rounds; None before a fit.
        histories: What happened in the training of each member of the ensemble.
    """

    def __init__(
        self,
        prior: Distribution | Sequence[Distribution],
        flow: str | FlowBuilder,
        ensemble: int,
        config: TrainConfig | None,
        seed: int,
    ) -> None:
        if config is not None and not isinstance(config, TrainConfig):
            raise TypeError(f"config: expected a TrainConfig, got a {type(config).__name__}")
        if ensemble < 1:
            raise ValueError(f"ensemble: expected at least 1 member, got {ensemble}")
        self.prior, self.flow, self.ensemble = Prior(prior), flow, ensemble
        self.config, self.seed = config, seed
        candidates(flow, 1, 1, config)  # refuses what is no flow
        self.simulations: Simulations | None = None
        self.histories: tuple[History, ...] = ()

    def _add(self, theta: Any, x: Any, *, further: bool) -> Simulations:
        """Simulations, after those of earlier rounds if this is a further one."""
        simulations = Simulations.of(theta, x, self.prior)
        if further and self.simulations is not None:
            return self.simulations + simulations
        return simulations

    def _train(
        self,
        target: Tensor,
        context: Tensor,
        *,
        bounds: tuple[Tensor, Tensor] | None = None,
        z_score: ZScore = "independent",
        network: nn.Module | None = None,
        progress: bool = False,
    ) -> Ensemble:
        """Trains densities of a target given a context, each from its own seed on its own split."""
        front, scaled = Front.fit(target, bounds), moments(context, z_score)
        if front.support is not None:  # torch's own uniform draws may be on the lower bound
            target = front.support.inside(target)
        held = max(1, round(VALIDATION * len(target)))
        members: list[tuple[Flow, History]] = []
        choices: list[int] = []
        for member in range(self.ensemble):
            seed = derive_seed(self.seed, member) >> 1  # as a config's has to be
            train, validation = (
                Split(target[rows], context[rows], checked=True)
                for rows in deal([len(target) - held, held], seed=seed)
            )
            tried = []
            for build, config in candidates(self.flow, target.shape[1], len(train), self.config):
                flow = conditional_flow(build, front, scaled, network, seed)
                config = replace(config, seed=seed)
                tried.append((flow, fit(flow, train, validation, config, progress=progress)))
            losses = [history.best_validation_nll for _, history in tried]
            choices.append(losses.index(min(losses)))
            members.append(tried[choices[-1]])
        self.histories = tuple(history for _, history in members)
        return Ensemble([flow for flow, _ in members], choices)
