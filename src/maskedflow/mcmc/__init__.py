"""Markov chains and other draws of unnormalised densities, with flows as proposals and as maps."""

from .chains import Chains
from .samplers import flow_metropolis, hmc

__all__ = [
    "Chains",
    "flow_metropolis",
    "hmc",
]
