"""Exact batch-norm statistics: those of the whole training set, no running average."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maskedflow.data import Split
from maskedflow.flows import Flow
from maskedflow.transforms import BatchNorm, LazyComposedTransform
from maskedflow.transforms.part import part_of_batch

from .batches import input_like, take, weight_of
from .distributed import ALONE, Batches, Ranks
from .evaluation import BATCH_SIZE, frozen, takes_integers
from .randomness import noise_of, seed_noise


def calibrate(
    flow: nn.Module,
    split: Split,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    *,
    ranks: Ranks = ALONE,
) -> None:
    r"""Sets the mean and variance of every `BatchNorm` to those of its input over a whole split.

    .. math:: m = \frac{1}{n} \sum_i w_i h_i, \qquad v = \frac{1}{n} \sum_i w_i (h_i - m)^2

    where :math:`h_i` is row i after all earlier transforms, batch norms with their new statistics
    among them, and :math:`w_i` its weight over their mean, 1 if there are none. The rows go through
    the flow once, in batches; sums are in float64. What is between two batch norms is kept for all
    rows: the cost is one pass over the data and one copy of it in the flow's dtype.

    Args:
        flow: The flow. Without a `BatchNorm` nothing is done.
        split: The training rows. Validation and test rows do not belong here.
        batch_size: Rows computed at once.
        seed: Seed of the dequantization noise.
        ranks: The processes that share the rows out, and add up the sums.

    Raises:
        ValueError: If a `BatchNorm` is not one of the flow's chain of transforms, or the split is
            empty.

    References:
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017)
        https://arxiv.org/abs/1705.07057

    Example:
        >>> import maskedflow as mf
        >>> flow = mf.flows.MAF(3, batch_norm=True)
        >>> calibrate(flow, mf.data.Split(torch.randn(100, 3)))
    """
    wanted = sum(isinstance(module, BatchNorm) for module in flow.modules())
    if wanted == 0:
        return
    if len(split) == 0:
        raise ValueError("split: expected the training rows, got none")
    if not isinstance(flow, Flow):
        raise ValueError(f"flow: expected a Flow, got {type(flow).__name__} with a BatchNorm")
    chain = list(chain_of(flow.transform))
    norms = [i for i, transform in enumerate(chain) if isinstance(transform, BatchNorm)]
    if len(norms) != wanted:
        raise ValueError(
            f"flow: expected all BatchNorm in its chain of transforms, got {len(norms)} of {wanted}"
        )
    seed_noise(noise_of(flow), seed)
    with frozen(flow):
        values, batches = split.x, ranks.batches(len(split), batch_size)
        for start, end in zip([0, *norms], norms, strict=False):
            values = _push(flow, chain[start:end], split, values, batches)
            norm = chain[end]
            assert isinstance(norm, BatchNorm)
            norm.set_statistics(*_moments(values, split.mass, batches, ranks))


def chain_of(transform: nn.Module) -> Iterator[nn.Module]:
    """The transforms in the order in which data passes them."""
    if isinstance(transform, LazyComposedTransform):
        for inner in transform.transforms:
            yield from chain_of(inner)
    else:
        yield transform


def _push(
    flow: Flow, chain: list[nn.Module], split: Split, values: Tensor, batches: Batches
) -> Tensor:
    """All rows after some more transforms, given the rows before them."""
    first, whole = values is split.x, takes_integers(flow, split)
    weight, like = weight_of(flow), input_like(flow)
    pushed = torch.empty(split.x.shape, dtype=weight.dtype) if first else values
    for rows, part in batches:
        _, c = take(split, rows, like, whole)
        if c is not None and flow.embedding is not None:
            c = flow.embedding(c)
        x = values[rows].to(like if first else weight)
        with part_of_batch(part):
            for transform in chain:
                x = transform(c)(x)
        pushed[rows] = x
    return pushed


def _moments(values: Tensor, mass: Tensor, batches: Batches, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Weighted mean and biased variance over the rows, summed in float64."""
    parts = [(values[rows], mass[rows]) for rows, _ in batches]
    sums = torch.stack([weight @ part.double() for part, weight in parts]).sum(dim=0)
    mean = ranks.sum_(sums) / mass.sum()
    squares = torch.stack([weight @ (part - mean).square() for part, weight in parts]).sum(dim=0)
    return mean, ranks.sum_(squares) / mass.sum()
