"""A chain of transforms as one program: densities, samples and their gradients in one call."""

from .chain import Chain, chain_of
from .descent import Descent
from .steps import Conditioned, Elementwise, Inverted, Owner, Permuted, Step, owner

__all__ = ["Chain", "Conditioned", "Descent", "Elementwise", "Inverted", "Owner", "Permuted", "Step", "chain_of", "owner"]
