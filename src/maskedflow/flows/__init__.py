r"""Flows: short constructors of transforms and a base.

What constructors have in common:

- `features` is the number of features D, and `context` that of context features.
- `transforms` is the number of transforms, and `randperm` says whether each has a random order of
  its own.
- `univariate` is the constructor of the map of one feature, or its name, "affine", "gaussian" or
  "additive"; of a module each transform takes a copy. `shapes` are those of its parameters, one
  tuple a parameter, and are known for a name.
- `base` is the lazy distribution of the latent, given the same context; N(0, I) if None.
- Random orders, masks and initial weights are drawn from `generator`, torch's own if None.
"""

# Not public here, but code for earlier versions of zuko looks for lazy transforms in this place.
from maskedflow.transforms.lazy import LazyComposedTransform as LazyComposedTransform
from maskedflow.transforms.lazy import LazyInverse as LazyInverse
from maskedflow.transforms.lazy import LazyTransform as LazyTransform
from maskedflow.transforms.lazy import UnconditionalTransform as UnconditionalTransform

from .autoregressive import IAF, MADE, MAF, MaskedAutoregressiveTransform
from .coupling import NICE, GeneralCouplingTransform, RealNVP
from .elementwise import GF, ElementWiseTransform
from .flow import Flow, LazyDistribution, UnconditionalDistribution
from .glow import ConvCouplingTransform, Glow
from .measured import Measured
from .mixtures import GMM, base
from .neural import MNN, NAF, UMNN, UNAF
from .polynomial import BPF, NCSF, NSF, SOSPF
from .raster import MaskedConvTransform, PixelCNN
from .symmetrized import Symmetrized
from .temporal import TemporalDistribution, TemporalMAF

#: The short name, which `transforms` has for what it makes: importable, but not public twice.
CouplingTransform = GeneralCouplingTransform

__all__ = [
    "BPF",
    "GF",
    "GMM",
    "IAF",
    "MADE",
    "MAF",
    "MNN",
    "NAF",
    "NCSF",
    "NICE",
    "NSF",
    "SOSPF",
    "UMNN",
    "UNAF",
    "ConvCouplingTransform",
    "ElementWiseTransform",
    "Flow",
    "GeneralCouplingTransform",
    "Glow",
    "LazyDistribution",
    "MaskedAutoregressiveTransform",
    "MaskedConvTransform",
    "Measured",
    "PixelCNN",
    "RealNVP",
    "Symmetrized",
    "TemporalDistribution",
    "TemporalMAF",
    "UnconditionalDistribution",
    "base",
]
