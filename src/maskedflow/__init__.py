"""Exact density estimation with masked autoregressive flows."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from . import (
        data,
        distributions,
        estimator,
        flows,
        inference,
        interop,
        lazy,
        masks,
        mcmc,
        models,
        nn,
        plot,
        posteriors,
        report,
        runs,
        tables,
        training,
        transforms,
    )
    from .estimator import DensityEstimator
    from .flows import mixtures
    from .inference import NLE, NPE
    from .runs import load_run

#: Modules and names that are imported when first used, so that importing the package is fast.
_LAZY = {
    **{name: name for name in ("distributions", "flows", "lazy", "masks", "nn", "transforms")},
    **{name: name for name in ("data", "inference", "mcmc", "models", "posteriors", "training")},
    **{name: name for name in ("estimator", "interop", "plot", "report", "runs", "tables")},
    "DensityEstimator": "estimator",
    "NLE": "inference",
    "NPE": "inference",
    "load_run": "runs",
    "mixtures": "flows",
}

__all__ = [
    "NLE",
    "NPE",
    "DensityEstimator",
    "data",
    "distributions",
    "estimator",
    "flows",
    "inference",
    "interop",
    "lazy",
    "load_run",
    "masks",
    "mcmc",
    "mixtures",
    "models",
    "nn",
    "plot",
    "posteriors",
    "report",
    "runs",
    "tables",
    "training",
    "transforms",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'maskedflow' has no attribute {name!r}")
    module = importlib.import_module(f".{_LAZY[name]}", __name__)
    return module if _LAZY[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """Has `dir` show the public names alone of each room, which an import sets here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and hasattr(value, "__all__"):
            value.__dict__["__dir__"] = lambda: list(value.__all__)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
