"""What the output of a decoder says of the data: p(x | z)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

from maskedflow.distributions import DiagNormal
from maskedflow.distributions.base import Shape
from maskedflow.distributions.elementwise import Elementwise

#: Log-scales are kept in [-10, 10], as those of the affine map are: no exponential overflows.
LOG_SCALE = 10.0


class _Bernoulli(Elementwise):
    """Independent features that are 0 or 1, given their log-odds. Draws take a generator."""

    has_rsample = False
    logits: Tensor

    def __init__(self, logits: Tensor) -> None:
        super().__init__(1, logits=logits)

    @property
    def mean(self) -> Tensor:
        """The probabilities of a 1."""
        return self.logits.sigmoid()

    def log_prob(self, value: Tensor) -> Tensor:
        if not bool(((value == 0) | (value == 1)).all()):
            wrong = value[(value != 0) & (value != 1)][0].item()
            raise ValueError(f"x: a Bernoulli likelihood expects zeros and ones, got {wrong:g}")
        return -softplus((1 - 2 * value) * self.logits).sum(dim=-1)

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return torch.bernoulli(
                self.mean.expand(self._extended(sample_shape)), generator=generator
            )


def gaussian(output: Tensor) -> DiagNormal:
    """The normal distribution of D features whose means and log-scales are side by side."""
    loc, log_scale = output.chunk(2, dim=-1)
    return DiagNormal(loc, log_scale.clamp(-LOG_SCALE, LOG_SCALE).exp())


#: By name: how many numbers a feature takes, and what makes the distribution of them.
LIKELIHOODS: dict[str, tuple[int, Callable[[Tensor], Distribution]]] = {
    "bernoulli": (1, _Bernoulli),
    "gaussian": (2, gaussian),
}
