"""Posterior predictive checks: would the posterior's parameters have made such an observation?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maskedflow.posteriors.faces import quietly

from .calibration import SIGNIFICANT, names_of
from .draws import check_number, seeded

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class PredictiveCheck:
    """An observation beside what its posterior predicts.

    Args:
        names: What the statistics are called.
        observed: Those of the observation, shape (S,).
        simulated: Those of simulations of parameters from the posterior, shape (n, S).
    """

    names: tuple[str, ...]
    observed: Numbers
    simulated: Numbers = field(repr=False)

    @property
    def quantiles(self) -> Numbers:
        """The share of simulations below the observation, equal ones by half, shape (S,)."""
        below, equal = self.simulated < self.observed, self.simulated == self.observed
        found: Numbers = (below + equal / 2).mean(0)
        return found

    @property
    def p_values(self) -> Numbers:
        r"""The chance of something as far out in the simulations, on either side, shape (S,).

        .. math:: p = 2 \min\Big(\frac{1 + \#\{s \le o\}}{n + 1}, \frac{1 + \#\{s \ge o\}}{n + 1}
            \Big)

        of simulations s and the observation o, one at most.
        """
        at_most, at_least = self.simulated <= self.observed, self.simulated >= self.observed
        fewer = 1 + np.minimum(at_most.sum(0), at_least.sum(0))
        found: Numbers = np.minimum(1, 2 * fewer / (len(self.simulated) + 1))
        return found

    def __str__(self) -> str:
        head = f"the observation beside {len(self.simulated):,} simulations of its posterior"
        each = zip(self.names, self.observed, self.quantiles, self.p_values, strict=True)
        lines = [
            f"{name}: {value:.4g} is above {share:.1%} of the simulations, p = {p:.2g}"
            + (", not as predicted" if p < SIGNIFICANT / len(self.names) else "")
            for name, value, share, p in each
        ]
        return "\n".join([head, *lines])


def predictive_check(
    posterior: Any,
    simulator: Callable[[Tensor], ArrayLike | Tensor],
    x: ArrayLike | Tensor,
    *,
    n: int = 1000,
    statistics: Callable[[Tensor], ArrayLike | Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> PredictiveCheck:
    r"""Draws parameters from the posterior given x, simulates, and compares with x.

    .. math:: \tilde x \sim p(\tilde x \mid x_o) = \int p(\tilde x \mid \theta) \,
        q(\theta \mid x_o) \, d\theta

    Something is wrong with the model or the posterior if :math:`x_o` is far out among the
    :math:`\tilde x`. That it is not says little: the data are used twice.

    Args:
        posterior: What has `sample(shape, x=...)`: ours, or sbi's.
        simulator: From parameters (n, D) to simulations (n, ...).
        x: The observation, shape (...) or (1, ...).
        n: How many simulations there are.
        statistics: From simulations (n, ...) to what is compared, (n, S). If None, all numbers.
        names: What the statistics are called.
        seed: Seed of all that torch draws, in the simulator too.

    Raises:
        ValueError: If shapes do not fit, or a simulation is not finite.

    References:
        | Posterior Predictive Assessment of Model Fitness via Realized Discrepancies (Gelman, Meng
          & Stern, 1996)

    Example:
        >>> class Exact:  # the posterior is N(x / 2, 1 / 2)
        ...     def sample(self, shape, x):
        ...         return x / 2 + torch.randn(*shape, 1) / 2**0.5
        >>> def simulator(theta):
        ...     return theta + torch.randn_like(theta)
        >>> print(predictive_check(Exact(), simulator, torch.tensor([8.0]), names=["x"]))
        the observation beside 1,000 simulations of its posterior
        x: 8 is above 99.9% of the simulations, p = 0.004, not as predicted
    """
    check_number(n)
    observed = torch.as_tensor(x)
    with seeded(seed):
        simulated = torch.as_tensor(simulator(quietly(posterior.sample, (n,), x=observed)))
        if observed.shape[:1] == (1,) and observed.ndim == simulated.ndim:
            observed = observed[0]
        if simulated.shape != (n, *observed.shape):
            raise ValueError(
                f"simulator: expected simulations of shape {(n, *observed.shape)}, as x is, got"
                f" {tuple(simulated.shape)}"
            )
        both = torch.cat([observed[None].to(simulated), simulated])
        values = torch.as_tensor(both if statistics is None else statistics(both))
    found = values.reshape(n + 1, -1).double().numpy(force=True)
    if not np.isfinite(found).all():
        row = int((~np.isfinite(found)).any(1).argmax())
        what = f"simulation {row}" if row else "the observation"
        raise ValueError(f"simulator: expected finite numbers, got {found[row]} of {what}")
    return PredictiveCheck(names_of(names, found.shape[1], "statistic"), found[0], found[1:])
