"""Whether rows are in units from which a flow learns."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from maskedflow.data import Split
from maskedflow.data.split import evenly_spaced
from maskedflow.flows import Flow, Measured
from maskedflow.transforms import ActNorm, BatchNorm

from .batches import input_like, take
from .calibration import chain_of
from .evaluation import frozen

LOOKED_AT = 500
"""Rows that are looked at."""

QUARTILES = 1.349
"""How far apart those of N(0, 1) are."""

FAR, LEAST, MOST = 10.0, 0.01, 100.0
"""How far from 0 a column may lie, in units or deviations, and its least and largest deviation.

Training begins near the identity, and the base is N(0, 1). Within these limits MAFs of three
transforms, after 1,000 steps at a learning rate of 1e-3, lose 0.1 nats of 4 at most; at a mean of
30 it is 2 nats, at a deviation of 1,000 it is 6, and at one of 1e-4 it is 15.
"""

NAMED = 3
"""The most columns that are named."""


def warn_of_units(flow: nn.Module, train: Split) -> None:
    """Warns of columns that are far from standard units where a flow's first network sees them.

    Before it a few hundred rows go through the transforms that are not learned, such as
    :class:`~maskedflow.transforms.Standardize` or :class:`~maskedflow.transforms.Logit`. Nothing is
    said of x if an :class:`~maskedflow.transforms.ActNorm` or a
    :class:`~maskedflow.transforms.BatchNorm` is the first that is learned, nor of contexts that a
    network of the user's goes through first, or that have measurement errors behind them.
    """
    if measured := isinstance(flow, Measured):
        flow = flow.flow
    if not isinstance(flow, Flow) or type(flow).unchecked is not Flow.unchecked:
        return
    z, c = take(train, evenly_spaced(len(train), LOOKED_AT), input_like(flow))
    c = None if measured else c
    told = []
    with frozen(flow):
        if c is not None and flow.embedding is not None:
            c = None if any(True for _ in flow.embedding.parameters()) else flow.embedding(c)
        if c is not None:
            told += _odd(c, "context column")
        for transform in chain_of(flow.transform):
            if isinstance(transform, ActNorm | BatchNorm):
                break
            if any(True for _ in transform.parameters()):
                told = _odd(z, "column") + told
                break
            z = transform(c)(z)
    if told:
        more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        warnings.warn(
            f"train: {', '.join(told[:NAMED])}{more}, where a flow expects about 0 ± 1; "
            "standardise them, x best in the flow: Flow([Standardize(mean, deviation), "
            "flow.transform], flow.base)",
            UserWarning,
            stacklevel=3,
        )


def _odd(values: Tensor, name: str) -> list[str]:
    """Says which columns are far from standard units, of which a few wild rows tell nothing."""
    rows = values.cpu().double().flatten(end_dim=-2)
    low, middle, high = (rows.quantile(share, dim=0) for share in (0.25, 0.5, 0.75))
    scale = (high - low) / QUARTILES
    odd = (
        ((scale > 0) & (scale < LEAST)) | (scale > MOST) | (middle.abs() > FAR * scale.clamp(min=1))
    )
    return [f"{name} {i} is {middle[i]:.3g} ± {scale[i]:.3g}" for i in odd.nonzero()[:, 0].tolist()]
