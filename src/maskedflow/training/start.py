"""What training rows set before the first step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from maskedflow.data import Split
from maskedflow.flows import MADE, Flow
from maskedflow.transforms.waiting import Block, WaitingTransform, gathered

from .batches import check_finite, input_like, take
from .calibration import chain_of
from .evaluation import BATCH_SIZE, frozen
from .randomness import noise_of, seed_noise

ROWS = 5_000
"""The rows that mixtures start at."""


def start_at(flow: nn.Module, split: Split, batch_size: int = BATCH_SIZE, seed: int = 0) -> None:
    r"""Sets each layer of a flow that waits for training rows by these.

    With `Whiten.waiting` the flow is then, before its first step, as good as the Gaussian with the
    rows' mean and covariance: that of what the layer sees, after all earlier transforms, given the
    context if the layer takes one. With `NormalScores.waiting` behind that, each feature's error of
    prediction is normal on its own, which of a heavy-tailed one leaves the logarithm to a network.
    Networks behind them begin near the identity. Where the base is a MADE of mixtures, these then
    start at the marginals of what comes there, of 5,000 rows at most: tails that are heavier than a
    Gaussian's. A :class:`~maskedflow.flows.PixelCNN` starts at regressions of pixels on their
    neighbourhoods. :func:`fit` calls this; a layer that is set stays as it is.

    The rows go through the earlier transforms once, in batches, and sums are in float64: the cost
    is :math:`O(n D^2)` time, a minute for 90,000 rows of 3,072 features, and :math:`O(D^2)` memory.

    Args:
        flow: The flow. Without such a layer in its chain of transforms nothing is done.
        split: The training rows. Validation and test rows do not belong here.
        batch_size: Rows computed at once.
        seed: Seed of the dequantization noise.

    Raises:
        ValueError: If there are no rows, numbers that are not finite, or other features or contexts
            than a layer takes; or if a layer waits elsewhere than in the chain of a flow.

    References:
        MADE (Germain et al., 2015), section 4.2, has direct connections from inputs to outputs
        that learn the same; https://arxiv.org/abs/1502.03509

    Example:
        >>> import maskedflow as mf
        >>> x = torch.randn(200, 2) @ torch.tensor([[1.0, 1.0], [0.0, 0.1]])
        >>> whiten = mf.transforms.Whiten.waiting(2)
        >>> flow = mf.flows.Flow(whiten, mf.flows.MAF(2))
        >>> start_at(flow, mf.data.Split(x))
        >>> round(flow.transform()(x).var(dim=0).mean().item(), 1)
        1.0
    """
    chain = list(chain_of(flow.transform)) if isinstance(flow, Flow) else []
    waiting = [one for one in chain if isinstance(one, WaitingTransform) and one.is_waiting]
    for one in flow.modules():
        if isinstance(one, WaitingTransform) and one.is_waiting and one not in waiting:
            raise ValueError(
                f"flow: a {type(one).__name__} within the {type(flow).__name__} waits for training "
                "rows; call start_at with the flow that it is a layer of"
            )
    if not waiting:
        return
    assert isinstance(flow, Flow)
    check_finite(split, "split")
    with frozen(flow):
        for layer in waiting:
            seed_noise(noise_of(flow), seed)
            some = split if layer.enough is None else _some(split, layer.enough, seed)
            layer.start(_pushed(flow, chain[: chain.index(layer)], some, batch_size))
        mixtures = [m for m in flow.base.modules() if isinstance(m, MADE) and m.components > 1]
        if mixtures:
            x, weight = gathered(_pushed(flow, chain, _some(split, ROWS, seed), batch_size))
            for mixture in mixtures:
                mixture.initialize(x, weight)


def _some(split: Split, rows: int, seed: int) -> Split:
    """Some of the rows, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return split[torch.randperm(len(split), generator=generator)[:rows]]


def _pushed(flow: Flow, chain: list[nn.Module], split: Split, batch_size: int) -> Iterator[Block]:
    """Blocks of rows after some transforms."""
    like = input_like(flow)
    for first in range(0, len(split), batch_size):
        rows = slice(first, first + batch_size)
        x, c = take(split, rows, like)
        if c is not None and flow.embedding is not None:
            c = flow.embedding(c)
        for transform in chain:
            x = transform(c)(x)
        yield Block(x, c, split.mass[rows].to(x.device))
