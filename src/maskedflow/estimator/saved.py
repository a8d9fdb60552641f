"""An estimator in one file: plain values and tensors, no code."""

from __future__ import annotations

import json
import numbers
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskedflow.tables import Schema, build_density
from maskedflow.training import checkpoint
from maskedflow.transforms import Standardize

if TYPE_CHECKING:
    from .estimator import DensityEstimator

__all__ = ["read_estimator", "write_estimator"]

_SCALE = checkpoint.EXTRA + "context."
"""What the names of the context's tensors begin with in a file."""


def write_estimator(path: str | Path, estimator: DensityEstimator) -> None:
    """Writes a fitted estimator; see :meth:`DensityEstimator.save`."""
    seeded = isinstance(estimator.random_state, numbers.Integral)
    names = getattr(estimator, "feature_names_in_", None)
    given = estimator.context_schema_
    header = {
        "params": {
            "flow": str(estimator.flow),
            "missing": str(estimator.missing),
            **{
                name: None if value is None else float(value)
                for name, value in (("time_limit", estimator.time_limit), ("work", estimator.work))
            },
            "random_state": int(estimator.random_state) if seeded else None,
        },
        "schema_given": estimator.schema is not None,
        "schema": estimator.schema_.to_toml(),
        "context_schema": None if given is None else given.to_toml(),
        "kind": estimator.kind_,
        "n_features_in": int(estimator.n_features_in_),
        "feature_names_in": None if names is None else list(names),
        "plan": estimator.density_.plan,
    }
    tensors = dict(estimator.density_.state_dict())
    if estimator.context_scale_ is not None:
        scale = estimator.context_scale_.state_dict()
        tensors |= {_SCALE + name: value for name, value in scale.items()}
    text = checkpoint.to_json({"estimator": header})
    checkpoint.write(path, tensors, {checkpoint.METADATA: text})


def read_estimator(path: str | Path, kind: type[DensityEstimator]) -> DensityEstimator:
    """Reads what :func:`write_estimator` wrote; see :meth:`DensityEstimator.load`."""
    tensors, entries = checkpoint.read(path)
    try:
        header = json.loads(entries[checkpoint.METADATA])["estimator"]
        schema, given = Schema.from_toml(header["schema"]), header["context_schema"]
        loaded = kind(**header["params"], schema=schema if header["schema_given"] else None)
        loaded.schema_, loaded.kind_ = schema, header["kind"]
        loaded.n_features_in_ = header["n_features_in"]
        if header["feature_names_in"] is not None:
            loaded.feature_names_in_ = np.asarray(header["feature_names_in"], dtype=object)
        loaded.context_schema_ = loaded.context_scale_ = None
        if given is not None:
            loaded.context_schema_ = Schema.from_toml(given)
            scale = (tensors[_SCALE + name] for name in ("loc", "scale"))
            loaded.context_scale_ = Standardize(*scale)
        density = build_density(schema.layout, header["plan"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected a saved DensityEstimator, found another file of maskedflow "
            f"({type(error).__name__}: {reason})"
        ) from None
    checkpoint.load_weights(path, density, tensors)
    loaded.density_ = density.eval()
    return loaded
