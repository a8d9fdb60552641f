"""The lazy modules in one place, where code for zuko looks for them."""

from .flows.flow import Flow, LazyDistribution, UnconditionalDistribution
from .transforms.lazy import (
    LazyComposedTransform,
    LazyInverse,
    LazyTransform,
    Unconditional,
    UnconditionalTransform,
)

__all__ = [
    "Flow",
    "LazyComposedTransform",
    "LazyDistribution",
    "LazyInverse",
    "LazyTransform",
    "Unconditional",
    "UnconditionalDistribution",
    "UnconditionalTransform",
]
