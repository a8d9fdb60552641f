"""The flows that the battery runs over: each module of this package has some, in `FLOWS`."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from torch import nn

import maskedflow as mf

from .entry import OPTIONS, Entry, Promise

__all__ = [
    "FLOWS",
    "OPTIONS",
    "Entry",
    "every_flow",
    "flows_that_promise",
    "masked_steps",
    "without_gradient",
]

FLOWS: dict[str, Entry] = {}
for _, name, _ in pkgutil.iter_modules(__path__):
    if name != "entry":
        FLOWS.update(importlib.import_module(f".{name}", __name__).FLOWS)


def flows_that_promise(*promises: Promise) -> pytest.MarkDecorator:
    """Runs a test with each flow that makes all of these promises."""
    chosen = {name: flow for name, flow in FLOWS.items() if flow.lacks.isdisjoint(promises)}
    return pytest.mark.parametrize("build", chosen.values(), ids=chosen.keys())


every_flow = flows_that_promise()


def masked_steps(flow: nn.Module) -> list[mf.flows.MaskedAutoregressiveTransform]:
    """The masked autoregressive transforms of a flow, the first first."""
    kind = mf.flows.MaskedAutoregressiveTransform
    return [module for module in flow.modules() if isinstance(module, kind)]


def without_gradient(flow: nn.Module) -> list[str]:
    """The names of parameters whose gradient is missing or zero throughout."""
    return [
        name
        for name, parameter in flow.named_parameters()
        if parameter.numel() and (parameter.grad is None or not parameter.grad.any())
    ]
