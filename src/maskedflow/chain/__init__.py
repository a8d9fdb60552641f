"""A chain of transforms as one program: densities, samples and their gradients in one call."""

from .chain import Chain
from .descent import Descent
from .linear import Linear
from .network import is_known, is_watched
from .step import Owner, Step, owner, version
from .steps import Conditioned, Coupled, Elementwise, Inverted, Permuted

__all__ = [
    "Chain",
    "Conditioned",
    "Coupled",
    "Descent",
    "Elementwise",
    "Inverted",
    "Linear",
    "Owner",
    "Permuted",
    "Step",
    "is_known",
    "is_watched",
    "owner",
    "version",
]
