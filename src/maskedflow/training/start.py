"""What training rows set before the first step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maskedflow.data import Split
from maskedflow.flows import MADE, Flow
from maskedflow.transforms import Whiten

from .batches import input_like, take
from .calibration import chain_of
from .evaluation import BATCH_SIZE, frozen
from .randomness import noise_of, seed_noise

ROWS = 5_000
"""The rows that mixtures start at."""

COLUMNS = 512
"""The columns of a product; only the lower half of a symmetric matrix is computed."""

Block = tuple[Tensor, Tensor]
"""Some rows, and how much each counts."""


def start_at(flow: nn.Module, split: Split, batch_size: int = BATCH_SIZE, seed: int = 0) -> None:
    r"""Sets each layer of a flow that waits for training rows, `Whiten.waiting`, by these.

    The flow is then, before its first step, as good as the Gaussian with the rows' mean and
    covariance: that of what the layer sees, after all earlier transforms, given the context if the
    layer takes one. Networks behind it begin near the identity. Where the base is a MADE of
    mixtures, these then start at the marginals of what comes there, of 5,000 rows at most: tails
    that are heavier than a Gaussian's. :func:`fit` calls this; a layer that is set stays as it is.

    The rows go through the earlier transforms once, in batches, and sums are in float64: the cost
    is :math:`O(n D^2)` time, a minute for 90,000 rows of 3,072 features, and :math:`O(D^2)` memory.

    Args:
        flow: The flow. Without such a layer in its chain of transforms nothing is done.
        split: The training rows. Validation and test rows do not belong here.
        batch_size: Rows computed at once.
        seed: Seed of the dequantization noise.

    References:
        MADE (Germain et al., 2015), section 4.2, has direct connections from inputs to outputs
        that learn the same; https://arxiv.org/abs/1502.03509

    Example:
        >>> import maskedflow as mf
        >>> x = torch.randn(200, 2) @ torch.tensor([[1.0, 1.0], [0.0, 0.1]])
        >>> flow = mf.flows.Flow(Whiten.waiting(2), mf.flows.MAF(2))
        >>> start_at(flow, mf.data.Split(x))
        >>> round(flow.transform()(x).var(dim=0).mean().item(), 1)
        1.0
    """
    chain = list(chain_of(flow.transform)) if isinstance(flow, Flow) else []
    waiting = [one for one in chain if isinstance(one, Whiten) and one.is_waiting]
    if not waiting:
        return
    assert isinstance(flow, Flow)
    with frozen(flow):
        for layer in waiting:
            seed_noise(noise_of(flow), seed)
            before, given = chain[: chain.index(layer)], layer.weight is not None
            layer.set_moments(*_moments(_pushed(flow, before, split, given, batch_size)))
        mixtures = [m for m in flow.base.modules() if isinstance(m, MADE) and m.components > 1]
        if mixtures:
            generator = torch.Generator().manual_seed(seed)
            some = split[torch.randperm(len(split), generator=generator)[:ROWS]]
            pushed = [rows for rows, _ in _pushed(flow, chain, some, False, batch_size)]
            for mixture in mixtures:
                mixture.initialize(torch.cat(pushed), some.weight)


def _pushed(
    flow: Flow, chain: list[nn.Module], split: Split, given: bool, batch_size: int
) -> Iterator[Block]:
    """Blocks of rows after some transforms, and their contexts behind them if they are `given`."""
    like = input_like(flow)
    for first in range(0, len(split), batch_size):
        rows = slice(first, first + batch_size)
        x, c = take(split, rows, like)
        if c is not None and flow.embedding is not None:
            c = flow.embedding(c)
        for transform in chain:
            x = transform(c)(x)
        joint = torch.cat([x, c], dim=-1) if given and c is not None else x
        yield joint, split.mass[rows].to(x.device)


def _moments(blocks: Iterator[Block]) -> Block:
    """The weighted mean and the biased covariance, in float64."""
    mass, mean, scatter = 0.0, torch.zeros(()), torch.zeros(())
    for rows, weight in blocks:
        share = float(weight.sum())
        if share == 0:
            continue
        if mass == 0:
            mean = rows.new_zeros(rows.shape[1], dtype=torch.float64)
            scatter = torch.diag(mean)
        centre = weight @ rows.double() / share
        centred = rows.double() - centre
        weighed = weight[:, None] * centred
        apart = centre - mean
        # Chan, Golub and LeVeque (1983): sums about each block's own mean do not cancel.
        scatter.addr_(apart, apart, alpha=mass * share / (mass + share))
        for first in range(0, len(mean), COLUMNS):
            below, some = slice(first, None), slice(first, first + COLUMNS)
            scatter[below, some].addmm_(weighed[:, below].T, centred[:, some])
        mean += share / (mass + share) * apart
        mass += share
    lower = scatter.tril() / mass
    return mean, lower + lower.tril(-1).T
