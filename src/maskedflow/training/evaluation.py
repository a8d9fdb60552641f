"""Log-density of every row of a split."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskedflow.data import Split
from maskedflow.transforms import Dequantize
from maskedflow.transforms.part import part_of_batch

from .batches import input_like, take, weight_of
from .distributed import ALONE, Ranks
from .randomness import noise_of, seed_noise
from .rows import Rows, split_of

BATCH_SIZE = 1000
"""Rows of an evaluation batch: enough to be fast, few enough to stay in a processor's cache."""


def evaluate(
    flow: nn.Module,
    split: Rows,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    *,
    ranks: Ranks = ALONE,
) -> Tensor:
    r"""Computes :math:`\log p(x_i \mid c_i)` of each row, in nats.

    The flow is in evaluation mode meanwhile and then as it was before. Dequantization noise is
    restarted at `seed`: two calls with the same seed and batch size agree. A row that is not on the
    grid of columns whose range a `Dequantize` knows has minus infinity.

    Args:
        flow: A module whose call `flow(c)` gives a distribution with `log_prob`.
        split: The rows, in the data's own units, with their contexts: a tensor or array, a pair
            (x, context), or a :class:`~maskedflow.data.Split`, whose
            :meth:`~maskedflow.data.Split.mean` of what is returned goes by its weights.
        batch_size: Rows computed at once.
        seed: Seed of the dequantization noise.
        ranks: The processes that share the rows out, each of which gets all log-densities.

    Returns:
        The log-densities, shape (n,), as float64 on the CPU, so that their mean is exact to the
        precision of the flow.

    Raises:
        TypeError: If something else than rows is given.
        ValueError: If `batch_size` is less than 1 or the split's widths are not the flow's.

    Example:
        >>> import maskedflow as mf
        >>> evaluate(mf.flows.MAF(3), torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    split = split_of(split, "split")
    noise, like = noise_of(flow), input_like(flow)
    seed_noise(noise, seed)
    log_prob = torch.zeros(len(split.x), dtype=torch.float64)
    whole = takes_integers(flow, split)
    with frozen(flow):
        for rows, part in ranks.batches(len(log_prob), batch_size):
            x, c = take(split, rows, like, whole)
            with part_of_batch(part):
                found = flow(c).log_prob(x)
                if found.shape != x.shape[:1]:
                    raise ValueError(
                        f"x: expected a log-density for each row, got shape {tuple(found.shape)} "
                        f"for rows of shape {tuple(x.shape)}"
                    )
                log_prob[rows] = found
            for cells in noise:
                if isinstance(cells, Dequantize) and cells.low is not None:
                    log_prob[rows][~cells.holds(x).cpu()] = -torch.inf
    return ranks.sum_(log_prob)


def seconds_for(flow: nn.Module, *splits: Split) -> float:
    """Guesses how long evaluating the splits would take, from one batch of the largest one."""
    part = max(splits, key=len)[:BATCH_SIZE]
    evaluate(flow, part)  # the first time is always the slowest
    before = time.perf_counter()
    evaluate(flow, part)
    return (time.perf_counter() - before) * sum(-(-len(split) // BATCH_SIZE) for split in splits)


@contextmanager
def frozen(flow: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode is put back afterwards."""
    modes = [(module, module.training) for module in flow.modules()]
    flow.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def takes_integers(flow: nn.Module, split: Split) -> bool:
    """Whether a split's contexts are integers that the flow's embedding network takes as such."""
    embedding, c = getattr(flow, "embedding", None), split.context
    if embedding is None or c is None or c.is_floating_point():
        return False
    try:
        with frozen(embedding):
            embedding(c[:1].to(weight_of(flow).device))
    except (RuntimeError, TypeError, ValueError):  # it wants numbers
        return False
    return True
