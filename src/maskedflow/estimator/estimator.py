"""The scikit-learn face: a density estimator for tables as they are."""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from maskedflow.tables import (
    Schema,
    TableDensity,
    build_density,
    complete,
    fit_density,
    from_arrow,
    kind_of,
    number_context,
    read_document,
    to_arrow,
    to_rows,
    to_table,
)
from maskedflow.tables.frames import Kind
from maskedflow.tables.schema import Missing
from maskedflow.training import checkpoint
from maskedflow.transforms import Standardize

if TYPE_CHECKING:
    from maskedflow.report.page import Page

__all__ = ["DensityEstimator"]

_SCALE = checkpoint.EXTRA + "context."
"""What the names of the context's tensors begin with in a file."""

_REPEATED = 10
"""Whole weights are taken for repetitions up to this many, on average."""


class DensityEstimator(DensityMixin, BaseEstimator):  # type: ignore[misc]
    r"""Estimates the density of a table's rows, exactly, with columns of every kind.

    .. math:: p(\text{row} \mid c) = P(\text{codes} \mid c) \; p(\text{angles} \mid \cdot) \;
        p(\text{numbers} \mid \cdot)

    The columns' kinds are inferred (see :class:`~maskedflow.tables.Schema`): a category, or that a
    value is missing or sits at an atom, counts with its probability; numbers count with their
    density, in nats per row and per unit of the columns. With `flow="auto"` flows, Gaussians and
    mixtures are fitted and stacked (see :func:`~maskedflow.tables.fit_density`).

    Args:
        flow: What is tried: "auto", "gaussian", "maf" or "nsf".
        schema: What is known of the columns: a :class:`~maskedflow.tables.Schema`, a mapping from
            names to what to override, or the path of a TOML file with that.
        missing: What becomes of missing values: "error", "drop" (the rows, in `fit`) or "model". A
            schema that says so itself is followed instead.
        time_limit: About how many seconds `fit` may take.
        random_state: Seed of every random draw in `fit`.

    Attributes:
        schema_: The schema.
        density_: The fitted density, in double precision.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, if the table has names.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> estimator = DensityEstimator(flow="gaussian").fit(x)
        >>> estimator.score_samples(x).shape, estimator.sample(3, random_state=0).shape
        ((100,), (3, 2))
    """

    n_features_in_: int
    feature_names_in_: NDArray[Any]
    kind_: Kind
    schema_: Schema
    density_: TableDensity
    context_schema_: Schema | None
    context_scale_: Standardize | None

    def __init__(
        self,
        flow: str = "auto",
        *,
        schema: Schema | Mapping[str, Mapping[str, Any]] | str | Path | None = None,
        missing: str = "error",
        time_limit: float = 300.0,
        random_state: Any = 0,
    ) -> None:
        self.flow = flow
        self.schema = schema
        self.missing = missing
        self.time_limit = time_limit
        self.random_state = random_state

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, context: Any = None
    ) -> DensityEstimator:
        """Fits the density.

        Args:
            X: The table: an array, or a frame of pandas, Polars, Arrow or their like.
            y: Ignored.
            sample_weight: How much each row counts, with shape (n,). Whole weights repeat rows.
            context: A table of as many rows; the density of X is then conditional on it.

        Raises:
            ValueError: If a cell cannot be what its column is; the message names both.
        """
        known, missing = self._known()
        table = self._table(X, missing, reset=True)
        weight = np.ones(table.num_rows)
        if sample_weight is not None:
            weight = _check_sample_weight(
                sample_weight, np.zeros((table.num_rows, 1)), ensure_non_negative=True
            )
        given = None if context is None else to_arrow(context, "context")
        if given is not None and given.num_rows != table.num_rows:
            raise ValueError(f"context: {given.num_rows} rows, expected {table.num_rows} as in X")
        kept = weight > 0
        if missing == "drop":
            kept &= complete(table)
        index = kept.nonzero()[0]
        weight = weight[index]
        if repeated := _repeats(weight):
            index = index.repeat(weight.astype(np.int64))
        table = table.take(index)
        given = None if given is None else given.take(index)
        self.kind_ = kind_of(X)
        self.schema_ = known if isinstance(known, Schema) else Schema.infer(table, missing, known)
        rows = to_rows(self.schema_, table)
        self.context_schema_ = self.context_scale_ = None
        if given is not None:
            self.context_schema_ = Schema.infer(given)
            values = to_rows(self.context_schema_, given).values
            self.context_scale_ = Standardize(values.mean(0), _spread(values))
        density = fit_density(
            self.schema_.layout,
            rows,
            self._context(given, len(rows)),
            weight=None if repeated else torch.from_numpy(weight),
            flow=self.flow,
            time_limit=self.time_limit,
            seed=int(check_random_state(self.random_state).randint(2**31)),
        )
        # As it is built from a file: the same numbers in another memory layout round differently.
        self.density_ = build_density(self.schema_.layout, density.plan)
        self.density_.load_state_dict(density.state_dict())
        self.density_.eval()
        return self

    def score_samples(self, X: Any, context: Any = None) -> NDArray[np.float64]:
        """Computes the log-density of each row, in nats; what cannot be has minus infinity."""
        check_is_fitted(self)
        rows = to_rows(self.schema_, self._table(X, self.schema_.missing, reset=False))
        with torch.no_grad():
            c = self._context(None if context is None else to_arrow(context, "context"), len(rows))
            return self.density_.log_prob(rows, c).numpy()

    def score(self, X: Any, y: Any = None, context: Any = None) -> float:
        """Computes the mean log-density of the rows, in nats."""
        return float(self.score_samples(X, context).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None, context: Any = None) -> Any:
        """Draws rows, in the kind of frame that was given to `fit`.

        Args:
            n_samples: How many; of a conditional density, how many for each row of `context`.
            random_state: A seed, or NumPy's `RandomState`.
            context: The table of conditions.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31))
        if n_samples < 1:
            raise ValueError(f"n_samples: expected at least 1, got {n_samples}")
        given = None if context is None else to_arrow(context, "context")
        c = self._context(given, 0 if given is None else given.num_rows)
        if given is not None:
            n_samples = n_samples * given.num_rows
            c = None if c is None else c.repeat_interleave(n_samples // len(c), dim=0)
        rows = self.density_.sample(n_samples, c, torch.Generator().manual_seed(seed))
        return from_arrow(to_table(self.schema_, rows), self.kind_)

    def report(
        self,
        X: Any,
        path: str | Path,
        context: Any = None,
        *,
        train: Any = None,
        train_context: Any = None,
        name: str = "table",
    ) -> Page:
        """Writes a page about the density, one HTML file that needs no other.

        Args:
            X: Rows that it was not fitted to, to judge it by.
            path: The file; missing folders are made.
            context: Their context, if the density is conditional.
            train: The rows it was fitted to. Other densities are fitted to them, to be compared.
            train_context: The context of these.
            name: What the page calls it.

        Returns:
            What the page says.
        """
        from .report import estimator_report

        check_is_fitted(self)
        return estimator_report(self, X, path, context, train, train_context, name)

    def save(self, path: str | Path) -> None:
        """Writes the estimator to one safetensors file: plain values and tensors, no code.

        The file is written beside `path` and moved over it. Of the parameters, a `schema` is kept
        as `schema_`, which holds all of it, and a `random_state` only if it is a seed.

        Args:
            path: The file to write; missing folders are made.

        Example:
            >>> import tempfile
            >>> x = np.random.default_rng(0).normal(size=(100, 2))
            >>> estimator = DensityEstimator(flow="gaussian").fit(x)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     estimator.save(f"{folder}/x.safetensors")
            ...     again = DensityEstimator.load(f"{folder}/x.safetensors")
            >>> np.array_equal(again.score_samples(x), estimator.score_samples(x))
            True
        """
        check_is_fitted(self)
        seeded = isinstance(self.random_state, numbers.Integral)
        names = getattr(self, "feature_names_in_", None)
        given = self.context_schema_
        header = {
            "params": {
                "flow": str(self.flow),
                "missing": str(self.missing),
                "time_limit": float(self.time_limit),
                "random_state": int(self.random_state) if seeded else None,
            },
            "schema_given": self.schema is not None,
            "schema": self.schema_.to_toml(),
            "context_schema": None if given is None else given.to_toml(),
            "kind": self.kind_,
            "n_features_in": int(self.n_features_in_),
            "feature_names_in": None if names is None else list(names),
            "plan": self.density_.plan,
        }
        tensors = dict(self.density_.state_dict())
        if self.context_scale_ is not None:
            scale = self.context_scale_.state_dict()
            tensors |= {_SCALE + name: value for name, value in scale.items()}
        text = checkpoint.to_json({"estimator": header})
        checkpoint.write(path, tensors, {checkpoint.METADATA: text})

    @classmethod
    def load(cls, path: str | Path) -> DensityEstimator:
        """Reads what :meth:`save` wrote.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is truncated, or no estimator that :meth:`save` wrote.
        """
        tensors, entries = checkpoint.read(path)
        try:
            header = json.loads(entries[checkpoint.METADATA])["estimator"]
            schema, given = Schema.from_toml(header["schema"]), header["context_schema"]
            loaded = cls(**header["params"], schema=schema if header["schema_given"] else None)
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

    def _table(self, X: Any, missing: Missing, *, reset: bool) -> pa.Table:
        """X as an Arrow table, checked as scikit-learn does."""
        if kind_of(X) == "numpy":
            mixed = getattr(X, "dtype", None) == np.dtype(object)
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=None if mixed else "numeric",
                ensure_all_finite=True if missing == "error" else "allow-nan",
            )
            for cell in X.flat if mixed else ():
                if isinstance(cell, Mapping | list | tuple | set):
                    kind = type(cell).__name__
                    raise TypeError(f"X: each argument must be a string or a number, got a {kind}")
            table = to_arrow(X)
            # Of an array after a frame, scikit-learn warns; its columns go by their places.
            return table if reset else table.rename_columns(self.schema_.names)
        table = to_arrow(X)
        names = np.asarray(table.column_names, dtype=object)
        if reset:
            self.n_features_in_, self.feature_names_in_ = len(names), names
        elif list(names) != list(getattr(self, "feature_names_in_", names)):
            absent = [name for name in self.feature_names_in_ if name not in names]
            if absent:
                raise ValueError(f"X: has no column {absent[0]!r}, which was there in fit")
            table = table.select(list(self.feature_names_in_))
        if not table.num_rows:
            raise ValueError("X: expected at least one row, got 0 sample(s)")
        return table

    def _known(self) -> tuple[Schema | Mapping[str, Mapping[str, Any]] | None, Missing]:
        """What is given of the schema, and what becomes of missing values."""
        if self.missing not in get_args(Missing):
            choices = "expected 'error', 'drop' or 'model'"
            raise ValueError(f"missing: {choices}, got {self.missing!r}")
        missing: Any = self.missing
        if isinstance(self.schema, Schema):
            return self.schema, self.schema.missing
        if isinstance(self.schema, str | Path):
            path = Path(self.schema)
            if not path.is_file():
                raise FileNotFoundError(f"schema: {path}: no such file")
            told, known = read_document(path.read_text("utf-8"))
            return known, told or missing
        return self.schema, missing

    def _context(self, table: pa.Table | None, rows: int) -> Tensor | None:
        """A context as a matrix: one-hot vectors, sines and cosines, standardised numbers."""
        if (table is None) != (self.context_schema_ is None):
            got = "none" if table is None else "one"
            raise ValueError(f"context: got {got}, unlike in fit")
        if table is None or self.context_schema_ is None or self.context_scale_ is None:
            return None
        if table.num_rows != rows:
            raise ValueError(f"context: {table.num_rows} rows, expected {rows}")
        found = to_rows(self.context_schema_, table)
        if found.impossible.any():
            row = int(found.impossible.nonzero()[0]) + 1
            raise ValueError(f"context: row {row} has a value that was not there in fit")
        c = number_context(self.context_schema_.layout, found, self.context_scale_()(found.values))
        return None if c is None or not c.shape[1] else c  # constants say nothing

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if isinstance(density := state.get("density_"), TableDensity):
            numbers = {name: value.numpy() for name, value in density.state_dict().items()}
            state = {**state, "density_": (density.plan, numbers)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "density_" in state:
            plan, numbers = state["density_"]
            self.density_ = build_density(self.schema_.layout, plan)
            self.density_.load_state_dict(
                {name: torch.from_numpy(np.array(value)) for name, value in numbers.items()}
            )
            self.density_.eval()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        tags.input_tags.categorical = tags.input_tags.string = False
        return tags


def _spread(values: Tensor) -> Tensor:
    """Standard deviations, 1 for a constant."""
    spread = values.var(0, correction=0).sqrt() if values.numel() else values.new_zeros(0)
    return torch.where(spread > 0, spread, 1)


def _repeats(weight: NDArray[np.float64]) -> bool:
    """Whether weights are numbers of repetitions, and not too many."""
    whole = bool((weight == np.round(weight)).all())
    return whole and weight.sum() <= _REPEATED * len(weight)
