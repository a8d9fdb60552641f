"""An estimator in one file: plain values and tensors, no code."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

import numpy as np
from annotated_types import Ge, Gt
from pydantic import with_config
from typing_extensions import TypedDict

from maskedflow.columns.frames import Kind
from maskedflow.columns.inference import Bounds
from maskedflow.columns.schema import Missing
from maskedflow.data import Trace
from maskedflow.files import CLOSED, Count, Finite, Name, Size, blame, check, parse_json
from maskedflow.tables import Form, Schema, build_density
from maskedflow.tables.plan import Plan, numbers_of
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
    trace: Trace | None = getattr(estimator, "trace_", None)
    header = {
        "params": {
            "flow": str(estimator.flow),
            "missing": str(estimator.missing),
            "bounds": str(estimator.bounds),
            **{
                name: None if value is None else float(value)
                for name, value in (("time_limit", estimator.time_limit), ("work", estimator.work))
            },
            "random_state": int(estimator.random_state) if seeded else None,
        },
        "schema_given": estimator.schema is not None,
        "schema": estimator.schema_.to_toml(),
        "context_schema": None if given is None else given.to_toml(),
        "kind": estimator.form_.kind,
        "like": estimator.form_.to_text(),
        "n_features_in": int(estimator.n_features_in_),
        "feature_names_in": None if names is None else list(names),
        "plan": estimator.density_.plan,
        "trace": None if trace is None else trace.to_plain(),
    }
    tensors = dict(estimator.density_.state_dict())
    if estimator.context_scale_ is not None:
        scale = estimator.context_scale_.state_dict()
        tensors |= {_SCALE + name: value for name, value in scale.items()}
    text = checkpoint.to_json({"estimator": header})
    checkpoint.write(path, tensors, {checkpoint.METADATA: text})


@with_config(CLOSED)
class _Params(TypedDict):
    flow: Name
    missing: Missing
    bounds: NotRequired[Bounds]
    time_limit: Annotated[Finite, Ge(0)] | None
    work: NotRequired[Annotated[Finite, Gt(0)] | None]
    random_state: Count | None


@with_config(CLOSED)
class _Estimator(TypedDict):
    """What the header says of an estimator; schemas are texts of their own."""

    params: _Params
    schema_given: bool
    schema: str
    context_schema: str | None
    kind: Kind
    like: NotRequired[str | None]
    n_features_in: Size
    feature_names_in: list[str] | None
    plan: Plan
    trace: NotRequired[dict[str, Any] | None]


@with_config(CLOSED)
class _Header(TypedDict):
    estimator: _Estimator


def read_estimator(path: str | Path, kind: type[DensityEstimator]) -> DensityEstimator:
    """Reads what :func:`write_estimator` wrote; see :meth:`DensityEstimator.load`."""
    path = Path(path)
    tensors, entries = checkpoint.read(path)
    with blame(path, "expected a saved DensityEstimator"):
        header = check(_Header, parse_json(entries[checkpoint.METADATA]))["estimator"]
        schema, given = Schema.from_toml(header["schema"]), header["context_schema"]
        names = header["feature_names_in"] or list(schema.names)
        if names != list(schema.names) or header["n_features_in"] != len(names):
            raise ValueError("feature_names_in, n_features_in: not those of the schema")
        loaded = kind(**header["params"], schema=schema if header["schema_given"] else None)
        loaded.schema_ = schema
        loaded.form_ = Form.from_text(header["kind"], header.get("like"))
        loaded.n_features_in_ = header["n_features_in"]
        if header["feature_names_in"] is not None:
            loaded.feature_names_in_ = np.asarray(header["feature_names_in"], dtype=object)
        loaded.context_schema_ = loaded.context_scale_ = None
        if given is not None:
            loaded.context_schema_ = Schema.from_toml(given)
            scale = (tensors[_SCALE + name] for name in ("loc", "scale"))
            loaded.context_scale_ = Standardize(*scale)
        announced = numbers_of(schema.layout, header["plan"])
        stored = sum(tensor.numel() for tensor in tensors.values())
        if announced > stored:
            raise ValueError(f"plan: of {announced:,} numbers at least, the file has {stored:,}")
        loaded.trace_ = Trace.from_plain(header.get("trace"))
        density = build_density(schema.layout, header["plan"])
    checkpoint.load_weights(path, density, tensors)
    loaded.density_ = density.eval()
    return loaded
