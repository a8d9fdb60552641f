"""The scikit-learn face: a density estimator for tables as they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, get_args

import numpy as np
import pyarrow as pa
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from pydantic import with_config
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor
from typing_extensions import TypedDict

from maskedflow.columns import (
    Form,
    Schema,
    as_array,
    from_arrow,
    kind_of,
    read_document,
    read_frame,
    to_arrow,
    weights_of,
)
from maskedflow.columns.forms import Kind
from maskedflow.columns.schema import Bounds, Missing
from maskedflow.files import CLOSED, Count, Finite, Name, Size, read_text
from maskedflow.tables import ConditionalScore, FittedTable, TableDensity
from maskedflow.tables.explanation import check_names, explain
from maskedflow.tables.queries import (
    check_draws,
    residuals,
    sample_given,
    score_given,
    tail_shares,
)

if TYPE_CHECKING:
    from maskedflow.report import Page

__all__ = ["DensityEstimator"]

Numbers = NDArray[np.float64]


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
        bounds: "inferred" bounds numbers where that is obvious, "data" all of them by their range
            in `fit`: samples stay within it, and a row out of it has density 0. What `schema` says
            of a column counts more.
        time_limit: About how many seconds `fit` may take: it times a few steps and chooses `work`
            accordingly. None is no limit.
        work: How much `fit` may do, in units of about a second of one core, whatever `time_limit`
            says. If both are None it follows from the size of the table. What is fitted depends on
            the work, never on the clock.
        random_state: Seed of every random draw in `fit`; here and in the methods a number, or
            NumPy's `RandomState`.
        verbose: Whether `fit` prints what it tries, how likely rows that were left out are then,
            and about how many seconds are left. Ctrl-C ends it with what it has found by then.

    Attributes:
        fitted_: What was fitted: the density of Arrow tables, without scikit-learn.
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
    form_: Form
    fitted_: FittedTable

    def __init__(
        self,
        flow: str = "auto",
        *,
        schema: Schema | Mapping[str, Mapping[str, Any]] | str | Path | None = None,
        missing: str = "error",
        bounds: str = "inferred",
        time_limit: float | None = None,
        work: float | None = None,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.flow = flow
        self.schema = schema
        self.missing = missing
        self.bounds = bounds
        self.time_limit = time_limit
        self.work = work
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, context: Any = None
    ) -> DensityEstimator:
        """Fits the density.

        Args:
            X: The table: an array, records, a mapping from names to columns, or a frame of pandas,
                Polars, Arrow or their like. What is masked is missing, a row index is left out.
            y: Ignored.
            sample_weight: How much each row counts, with shape (n,). Only ratios matter: a row of
                twice the weight is the same row twice. If None, a level "weights" of the index of
                pandas says so, where samplers keep them.
            context: A table of as many rows; the density of X is then conditional on it.

        Raises:
            ValueError: If a cell cannot be what its column is; the message names both. The
                estimator is then what it was before.
        """
        before = dict(vars(self))
        try:
            known, missing = self._known()
            table, self.form_ = self._read(X, reset=True)
            bounds: Any = self.bounds
            self.fitted_ = FittedTable.fit(
                table,
                None if context is None else read_frame(context, "context")[0],
                schema=known,
                missing=missing,
                bounds=bounds,
                weight=weight_of(X, sample_weight, table.num_rows),
                flow=self.flow,
                time_limit=self.time_limit,
                work=self.work,
                seed=_seed(self.random_state),
                tell=_Printer() if self.verbose else None,
            )
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    @property
    def schema_(self) -> Schema:
        """What the columns are."""
        return self._fitted.schema

    @property
    def density_(self) -> TableDensity:
        """The density of rows of numbers."""
        return self._fitted.density

    @property
    def work_(self) -> float:
        """The work that was allowed in `fit`: `work=work_` finds the same density again."""
        return float(self.density_.plan["work"])

    def score_samples(self, X: Any, context: Any = None) -> Numbers:
        """Computes the log-density of each row, in nats; what cannot be has minus infinity."""
        rows = self._fitted.encode(*self._tables(X, context))
        with torch.no_grad():
            scores: Numbers = self.density_.log_prob(*rows).numpy()
        return scores

    def score(self, X: Any, y: Any = None, context: Any = None) -> float:
        """Computes the mean log-density of the rows, in nats, weighted as their index says."""
        scores = self.score_samples(X, context)
        there = (weight := weight_of(X, None, len(scores))) > 0
        return float(np.average(scores[there], weights=weight[there]))

    def sample(self, n_samples: int = 1, random_state: Any = None, context: Any = None) -> Any:
        """Draws rows, in the kind of frame that was given to `fit`, with its labels and dtypes.

        Columns of kind `ignore` are not there. Arrays, which have gaps in their places, are in this
        machine's byte order, with NaN for what was masked.

        Args:
            n_samples: How many; of a conditional density, how many for each row of `context`.
            random_state: A seed, or NumPy's `RandomState`.
            context: The table of conditions.
        """
        fitted, seed = self._fitted, _seed(random_state)
        check_draws(n_samples)
        given = self._context(context)
        if given is not None:
            given = given.take(np.repeat(np.arange(given.num_rows), n_samples))
            n_samples = given.num_rows
        drawn = fitted.sample(n_samples, given, seed=seed)
        if self.form_.kind == "numpy":  # whose columns go by their places
            gaps = {one.name: pa.nulls(n_samples, one.type) for one in self.schema_.columns}
            drawn = pa.table(gaps | dict(zip(drawn.column_names, drawn.columns, strict=True)))
        return from_arrow(drawn, self.form_)

    def sample_given(
        self,
        X: Any,
        n_samples: int = 1,
        random_state: Any = None,
        context: Any = None,
        n_candidates: int = 1000,
    ) -> Any:
        r"""Draws what is unknown of each row given what is known: imputation, several times.

        Columns that X has not are drawn as in :meth:`sample`: with `missing="model"` a cell of them
        may be missing. A cell that is missing in a column of X stands for one that is there and is
        not known: a value is drawn, whatever `missing` says.

        Draws are exact if all that is unknown comes last in the order of codes, angles and numbers,
        or if of what comes before only codes are unknown, of `n_candidates` combinations at most:
        so columns of categories may be given, the first ones at least, for nothing. Otherwise
        `n_candidates` rows are drawn from a proposal, and of these `n_samples` in proportion to
        their weights (see :func:`~maskedflow.tables.sample_unknown`); they cost a density each.

        Args:
            X: The table. Columns that were not there in `fit` are ignored.
            n_samples: The draws for each row.
            random_state: A seed, or NumPy's `RandomState`.
            context: The table of conditions.
            n_candidates: The candidates for each row that has to have some; ten for each draw at
                least.

        Returns:
            Complete rows in the kind of frame that was given to `fit`: `n_samples` for the first
            row, then those of the next one, and so on. What was known is as it was.

        Raises:
            ValueError: If X has none of the columns, or a cell that cannot be.

        Warns:
            UserWarning: If candidates are worth fewer than 50 draws, or than `n_samples`.

        References:
            Using the SIR Algorithm to Simulate Posterior Distributions (Rubin, 1988)

        Example:
            >>> x = np.random.default_rng(0).normal(size=(100, 2)) @ [[1.0, 2.0], [0.0, 1.0]]
            >>> estimator = DensityEstimator(flow="gaussian").fit(x)
            >>> drawn = estimator.sample_given([[1.0, np.nan]], n_samples=200, random_state=0)
            >>> bool((drawn[:, 0] == 1).all()), bool(1.5 < drawn[:, 1].mean() < 2.5)
            (True, True)
        """
        x, c = self._some_columns(X), self._context(context)
        seed = _seed(random_state)
        drawn = sample_given(self._fitted, x, c, n_samples, n_candidates, seed)
        return from_arrow(drawn, self.form_)

    def explain(
        self, X: Any, context: Any = None, n_samples: int = 200, random_state: Any = 0
    ) -> Any:
        r"""Computes the log-density of each cell given those before it: which makes a row odd?

        .. math:: \log p(\text{row}) = \sum_i \log p(x_i \mid x_{<i})

        Pieces of rows come in the order of the density: codes (categories, and for numbers whether
        they are missing or at an atom), angles, numbers, each in the order of the columns; a column
        of numbers that has both adds both. Codes are exact, and so are the last piece and the sum,
        which is the row's log-density. What lies between are differences of logarithms of marginal
        densities, which are estimated (see :func:`~maskedflow.tables.log_marginal`); an error of
        more than 0.3 nats may itself be too small. The cost is `n_samples` densities for each
        number and angle of each row.

        A cell that cannot be adds minus infinity, and is not given to the others.

        Args:
            X: The table.
            context: The table of conditions.
            n_samples: The draws for each marginal.
            random_state: A seed, or NumPy's `RandomState`.

        Returns:
            A frame of the kind of X, a record array if it is an array, with a row for each row of
            X: for each column of X nats, 0 of constants and duplicates; `log_prob`, the sum;
            `standard_error`, that of the least certain of these nats, 0 if all are exact; and
            `reason`, a text that says of a row that cannot be which cells are the reason, what was
            expected there, and what was found. It is empty of a row that can be.

        Raises:
            ValueError: If X has a column of one of these three names.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(100, 2))
            >>> estimator = DensityEstimator(flow="gaussian").fit(x)
            >>> found = estimator.explain([[0.0, 0.0], [0.0, 5.0]])
            >>> found.dtype.names
            ('x0', 'x1', 'log_prob', 'standard_error', 'reason')
            >>> bool(found["x1"][1] < -9 < -2 < found["x0"][1])
            True
        """
        check_names(self.schema_)
        x, c = self._tables(X, context)
        found = explain(self._fitted, x, c, n_samples, _seed(random_state))
        kind = kind_of(X)
        frame = from_arrow(found.table(self.schema_), "records" if kind == "numpy" else kind)
        if kind == "pandas" and hasattr(X, "index"):  # rows can be told apart as in X
            frame.index = X.index
        return frame

    def score_samples_given(
        self,
        X: Any,
        given: Sequence[str | int],
        context: Any = None,
        n_samples: int = 1000,
        random_state: Any = 0,
    ) -> ConditionalScore:
        r"""Computes the log-density of each row's other columns given some of them.

        .. math:: \log p(\text{others} \mid \text{given}) = \log p(\text{row}) -
            \log p(\text{given})

        The last term is exact if all that is unknown comes last in the order of codes, angles and
        numbers, or if it is codes only, of `n_samples` combinations at most: the probability of a
        category given all else is exact. Otherwise it is estimated by importance sampling, and
        its standard error is returned, too (see :func:`~maskedflow.tables.log_marginal`). The cost
        is `n_samples` densities for each distinct row of what is given.

        Args:
            X: The table, with all columns.
            given: The columns that are given, by name or place. Duplicates of these are given as
                well, and constants say nothing.
            context: The table of conditions.
            n_samples: The draws for each distinct row of what is given.
            random_state: A seed, or NumPy's `RandomState`. Of a seed a row's result is the same
                whatever other rows there are, except for their contexts.

        Returns:
            The log-densities, in nats per unit of the other columns, and their standard errors, 0
            where they are exact. Where the given part of a row cannot be, both are NaN.

        Warns:
            UserWarning: If estimates cannot be trusted since few draws hold most of the weight;
                it tells of how many rows.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(100, 2)) @ [[1.0, 2.0], [0.0, 1.0]]
            >>> estimator = DensityEstimator(flow="gaussian").fit(x)
            >>> found = estimator.score_samples_given(x[:3], given=[0])
            >>> found.log_density.shape, bool((found.standard_error < 0.05).all())
            ((3,), True)
        """
        x, c = self._tables(X, context)
        return score_given(self._fitted, x, given, c, n_samples, _seed(random_state))

    def pit(self, X: Any, context: Any = None, random_state: Any = 0) -> NDArray[np.float64]:
        r"""Computes PIT residuals, one a column: independent and uniform if the model is right.

        .. math:: u_k = F(k - 1) + v P(k), \qquad u_i = \Phi(z_i(x))

        of codes and of numbers, whose latent z is that of a member of the stack which is drawn in
        proportion to what it contributes to the density (see :func:`~maskedflow.tables.pit`). A
        column that may miss values or has atoms has one residual for this and its number. The
        residual of a column is given others, which are not the same in each row: it tells whether
        the joint density fits, not whether the column's margin does.

        Args:
            X: The table.
            context: The table of conditions.
            random_state: A seed, or NumPy's `RandomState`. Of a seed the first rows get the same
                whatever rows follow; in another order rows get other draws.

        Returns:
            The residuals, with shape (n, columns), in the order of the columns in `fit`; NaN of
            what is no part of the density, and of rows of density 0.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(100, 2))
            >>> u = DensityEstimator(flow="gaussian").fit(x).pit(x)
            >>> u.shape, bool((0 < u).all() and (u < 1).all())
            ((100, 2), True)
        """
        return residuals(self._fitted, *self._tables(X, context), _seed(random_state))

    def tail_probability(
        self, X: Any, context: Any = None, n_samples: int | None = None, random_state: Any = 0
    ) -> NDArray[np.float64]:
        r"""Computes how much of the model is no likelier than each row: small for an anomaly.

        .. math:: T(x) = P\left( p(X') \le p(x) \right), \qquad X' \sim p

        estimated by the share of draws. Of a row of the model T is uniform, as far as a density has
        no ties: where rows can be equal, as with categories alone, T is at most t with probability
        t at most, so that no more than a hundredth of good rows is below 0.01. Rows of density 0
        have 0. Densities are compared in the units of the columns; where numbers may be missing,
        other units can give another order of rows with and without them.

        Args:
            X: The table.
            context: The table of conditions.
            n_samples: The draws, 10,000 if None. Given contexts it is the draws for each distinct
                one, which is what they cost, and 500 if None. The standard error of a share T is
                :math:`\sqrt{T (1 - T) / n}`.
            random_state: A seed, or NumPy's `RandomState`. Of a seed a row's share is the same
                whatever other rows there are.

        References:
            | Computing and Graphing Highest Density Regions (Hyndman, 1996)

        Example:
            >>> x = np.random.default_rng(0).normal(size=(100, 2))
            >>> estimator = DensityEstimator(flow="gaussian").fit(x)
            >>> share = estimator.tail_probability([[0.0, 0.0], [4.0, 4.0]])
            >>> bool(share[0] > 0.9), bool(share[1] < 0.01)
            (True, True)
        """
        x, c = self._tables(X, context)
        return tail_shares(self._fitted, x, c, n_samples, _seed(random_state))

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
            X: Rows to judge it by. The page says whether it was fitted to some of them.
            path: The file; missing folders are made.
            context: Their context, if the density is conditional.
            train: The rows it was fitted to. Other densities are fitted to them, to be compared.
            train_context: The context of these.
            name: What the page calls it.

        Returns:
            What the page says.
        """
        from maskedflow.report import table_report  # matplotlib takes a while to load

        return table_report(self._fitted, X, path, context, train, train_context, name)

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
        fitted, names = self._fitted, getattr(self, "feature_names_in_", None)
        seeded = isinstance(self.random_state, int | np.integer)
        numbers = {"time_limit": self.time_limit, "work": self.work}
        face = {
            "params": {
                **{name: str(getattr(self, name)) for name in ("flow", "missing", "bounds")},
                **{name: None if x is None else float(x) for name, x in numbers.items()},
                "random_state": int(self.random_state) if seeded else None,
            },
            "schema_given": self.schema is not None,
            "kind": self.form_.kind,
            "like": self.form_.to_text(),
            "n_features_in": int(self.n_features_in_),
            "feature_names_in": None if names is None else list(names),
        }
        fitted.save(path, face)

    @classmethod
    def load(cls, path: str | Path) -> DensityEstimator:
        """Reads what :meth:`save` wrote, or what a run of `maskedflow train --flow auto` holds.

        Args:
            path: The file, or the run's folder.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is truncated, or no estimator that :meth:`save` wrote.
        """
        path = Path(path)
        path = path / "estimator.safetensors" if path.is_dir() else path
        fitted, face = FittedTable.load_with_face(path, _Face)
        columns = list(fitted.schema.names)
        names, count = face.get("feature_names_in", columns), face.get("n_features_in")
        if (names or columns) != columns or (count or len(columns)) != len(columns):
            wanted = "expected a saved DensityEstimator"
            found = "feature_names_in, n_features_in: not those of the schema"
            raise ValueError(f"{path}: {wanted}: {found}")
        loaded = cls(**face.get("params", {}))
        if face.get("schema_given"):
            loaded.schema = fitted.schema
        loaded.fitted_ = fitted
        loaded.form_ = Form.from_text(face.get("kind", "arrow"), face.get("like"))
        loaded.n_features_in_ = len(columns)
        if names is not None:
            loaded.feature_names_in_ = np.asarray(names, dtype=object)
        return loaded

    @property
    def _fitted(self) -> FittedTable:
        check_is_fitted(self)
        return self.fitted_

    def _tables(self, X: Any, context: Any) -> tuple[pa.Table, pa.Table | None]:
        """X and its context as Arrow tables, for a fitted estimator."""
        return self._table(X), self._context(context)

    def _table(self, X: Any) -> pa.Table:
        columns = self._fitted.columns
        if kind_of(X) == "numpy":
            # Of an array after a frame, scikit-learn warns; its columns go by their places.
            table = self._read(X, reset=False)[0].rename_columns(self.schema_.names)
            return table.select(list(columns))
        table = to_arrow(X, wanted=list(columns))
        for name in columns:
            if name not in table.column_names:
                raise ValueError(f"X: has no column {name!r}, which was there in fit")
        return _with_rows(table.select(list(columns)))

    def _some_columns(self, X: Any) -> pa.Table:
        """Those of the columns that X has, as an Arrow table."""
        columns = self._fitted.columns
        if kind_of(X) == "numpy":
            return self._table(X)
        table = to_arrow(X, wanted=list(columns))
        there = [name for name in columns if name in table.column_names]
        if not there:
            raise ValueError(f"X: expected some of the columns {', '.join(columns)}, found none")
        return _with_rows(table.select(there))

    def _context(self, context: Any) -> pa.Table | None:
        if context is None:
            return None
        return to_arrow(context, "context", self._fitted.context_columns)

    def _read(self, X: Any, *, reset: bool) -> tuple[pa.Table, Form]:
        """X as an Arrow table, and its form; in `fit` the columns are remembered."""
        if kind_of(X) != "numpy":
            table, form = read_frame(X)
            self.n_features_in_ = table.num_columns
            self.feature_names_in_ = np.asarray(table.column_names, dtype=object)
            return _with_rows(table), form
        # An array is checked as scikit-learn does; the schema tells which numbers it may hold.
        X = as_array(X)
        validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)
        for cell in X.flat if X.dtype == object else ():
            if isinstance(cell, Mapping | list | tuple | set):
                kind = type(cell).__name__
                raise TypeError(f"X: each argument must be a string or a number, got a {kind}")
        return read_frame(X)

    def _known(self) -> tuple[Schema | Mapping[str, Mapping[str, Any]] | None, Missing]:
        """What is given of the schema, and what becomes of missing values."""
        if self.missing not in get_args(Missing):
            raise ValueError(f"missing: expected 'error', 'drop' or 'model', got {self.missing!r}")
        missing: Any = self.missing
        if isinstance(self.schema, str | Path):
            said, known = read_document(read_text(Path(self.schema)))
            return known, said or missing
        if isinstance(self.schema, Mapping):  # labels that are no text are told as text
            return {str(name): known for name, known in self.schema.items()}, missing
        return self.schema, missing

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing != "error"
        tags.input_tags.categorical = tags.input_tags.string = False
        return tags


@with_config(CLOSED)
class _Params(TypedDict):
    flow: Name
    missing: Missing
    bounds: NotRequired[Bounds]
    time_limit: Annotated[Finite, Ge(0)] | None
    work: NotRequired[Annotated[Finite, Gt(0)] | None]
    random_state: Count | None


@with_config(CLOSED)
class _Face(TypedDict, total=False):
    """What a file keeps of an estimator beside its density; nothing in that of a run."""

    params: _Params
    schema_given: bool
    kind: Kind
    like: str | None
    n_features_in: Size
    feature_names_in: list[str] | None


def weight_of(X: Any, sample_weight: Any, rows: int) -> Numbers:
    """How much each row counts, as is told or as the index of X says; 1 if neither does."""
    kept = weights_of(X)
    if kept is not None and sample_weight is not None:
        raise ValueError(
            "sample_weight: expected none, for the index of X has a level of weights; "
            "X.reset_index(drop=True) leaves it out"
        )
    told = kept if sample_weight is None else sample_weight
    if told is None:
        return np.ones(rows)
    if isinstance(told, Tensor):
        told = told.double().numpy(force=True)
    if np.ma.is_masked(told):
        hidden = int(np.ma.getmaskarray(told).sum())
        raise ValueError(f"sample_weight: expected a weight for each row, found {hidden:,} masked")
    weight: Numbers = _check_sample_weight(told, np.zeros((rows, 1)), ensure_non_negative=True)
    return weight


def _with_rows(table: pa.Table) -> pa.Table:
    if not table.num_rows:
        raise ValueError("X: expected at least one row, got 0 sample(s)")
    return table


def _seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31))


class _Printer:
    """Prints how a search goes on."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, share: float, line: str) -> None:
        taken = time.monotonic() - self.start
        left = f", about {taken * (1 - share) / share:.0f} s left" if share else ""
        sys.stdout.write(f"{share:4.0%}  {line}{left}\n")
        sys.stdout.flush()
