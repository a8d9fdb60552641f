"""Inference: draws from an unnormalised density, by Markov chains that a flow assists."""

from .chains import Chains
from .mcmc import flow_metropolis, hmc

__all__ = ["Chains", "flow_metropolis", "hmc"]
