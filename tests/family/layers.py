"""Inverse flows, couplings, and flows with layers between their transforms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maskedflow.transforms import (
    ActNorm,
    AdditiveTransform,
    LULinear,
    MonotonicRQSTransform,
    Permutation,
    Residual,
    RotationTransform,
    UnconditionalTransform,
)

from .entry import OPTIONS, Entry

SPLINE: dict[str, Any] = {"univariate": MonotonicRQSTransform, "shapes": ((4,), (4,), (3,))}


def shuffled(features: int) -> Permutation:
    """A random permutation, the same in each run."""
    return Permutation(features, generator=torch.Generator().manual_seed(features))


def rotated(features: int) -> UnconditionalTransform:
    """A learned rotation; one feature cannot be rotated, so there is nothing to learn."""
    A = torch.zeros(features, features)
    return UnconditionalTransform(RotationTransform, A=A, buffer=features == 1)


def inverse(**options: Any) -> Entry:
    return Entry("IAF", options, lacks=frozenset({"second derivative"}))


def coupling(kind: str, **options: Any) -> Entry:
    # A context reaches each feature only where each is mapped: after two couplings.
    takes = OPTIONS - {"transforms", "order", "passes"}
    options = {"transforms": 2, **options}
    return Entry(kind, options, takes=takes, lacks=frozenset({"order"}))


FLOWS = {
    "IAF": inverse(),
    "IAF, spline": inverse(**SPLINE),
    "IAF, LU": inverse(between=LULinear),
    "IAF, batch norm": inverse(batch_norm=True),
    "NICE": coupling("NICE", univariate=AdditiveTransform, shapes=[()]),
    "RealNVP": coupling("RealNVP"),
    "RealNVP, spline": coupling("RealNVP", **SPLINE),
    "RealNVP of the paper": coupling("RealNVP", activation=(nn.Softplus, nn.Tanh), batch_norm=True),
    "MAF, residual": Entry("MAF", {"univariate": Residual()}),
    "MAF, residual spline": Entry(
        "MAF",
        {"univariate": Residual(MonotonicRQSTransform), "shapes": SPLINE["shapes"]},
        lacks=frozenset({"functional inverse"}),  # which would take minutes: roots, again and again
    ),
    "MAF, LU": Entry("MAF", {"between": LULinear}),
    "MAF, ActNorm": Entry("MAF", {"between": ActNorm}),
    "MAF, rotated": Entry("MAF", {"between": rotated}),
    "MAF, permuted": Entry("MAF", {"between": shuffled}, lacks=frozenset({"identity"})),
}
