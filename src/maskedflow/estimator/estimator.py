"""The scikit-learn face: a density estimator for tables as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from maskedflow.data import Trace
from maskedflow.tables import (
    Form,
    Schema,
    TableDensity,
    build_density,
    complete,
    fit_density,
    from_arrow,
    read_frame,
    to_rows,
    to_table,
)
from maskedflow.transforms import Standardize

from .inputs import (
    check_draws,
    check_spread,
    context_of,
    context_table,
    fit_context,
    fitted_table,
    known_of,
    rows_of,
    weight_of,
)
from .queries import ConditionalScore, residuals, score_given, tail_shares
from .saved import read_estimator, write_estimator
from .trace import trace_of

if TYPE_CHECKING:
    from maskedflow.report.page import Page

__all__ = ["DensityEstimator"]


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
        random_state: Seed of every random draw in `fit`.

    Attributes:
        schema_: The schema.
        density_: The fitted density, in double precision.
        trace_: Hashes by which rows that it was fitted to are known again, no data.
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
    schema_: Schema
    density_: TableDensity
    context_schema_: Schema | None
    context_scale_: Standardize | None
    trace_: Trace | None

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
    ) -> None:
        self.flow = flow
        self.schema = schema
        self.missing = missing
        self.bounds = bounds
        self.time_limit = time_limit
        self.work = work
        self.random_state = random_state

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
            return self._fit(X, sample_weight, context)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, sample_weight: Any, context: Any) -> DensityEstimator:
        known, missing = known_of(self)
        table, self.form_ = fitted_table(self, X)
        weight = weight_of(X, sample_weight, table.num_rows)
        given = None if context is None else read_frame(context, "context")[0]
        if given is not None and given.num_rows != table.num_rows:
            raise ValueError(f"context: {given.num_rows} rows, expected {table.num_rows} as in X")
        kept = weight > 0
        if missing == "drop":
            kept &= complete(table)
            kept &= True if given is None else complete(given)
        index = kept.nonzero()[0]
        table = table.take(index)
        given = None if given is None else given.take(index)
        if isinstance(known, Schema):
            self.schema_ = known
        else:
            bounds: Any = self.bounds
            self.schema_ = Schema.infer(table, missing, known, bounds)
        rows = to_rows(self.schema_, table)
        check_spread(self.schema_, rows, index)
        self.context_schema_ = self.context_scale_ = contexts = None
        if given is not None:
            contexts = fit_context(self, given, missing, index)
        self.trace_ = trace_of(self, rows, contexts)
        density = fit_density(
            self.schema_.layout,
            rows,
            context_of(self, given, len(rows)),
            weight=torch.from_numpy(weight[index]),
            flow=self.flow,
            time_limit=self.time_limit,
            work=self.work,
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
        rows, c = rows_of(self, X, context)
        with torch.no_grad():
            return self.density_.log_prob(rows, c).numpy()

    def score(self, X: Any, y: Any = None, context: Any = None) -> float:
        """Computes the mean log-density of the rows, in nats, weighted as their index says."""
        scores = self.score_samples(X, context)
        there = (weight := weight_of(X, None, len(scores))) > 0
        return float(np.average(scores[there], weights=weight[there]))

    def sample(self, n_samples: int = 1, random_state: Any = None, context: Any = None) -> Any:
        """Draws rows, in the kind of frame that was given to `fit`, with its labels and dtypes.

        Arrays are in this machine's byte order, with NaN for what was masked.

        Args:
            n_samples: How many; of a conditional density, how many for each row of `context`.
            random_state: A seed, or NumPy's `RandomState`.
            context: The table of conditions.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31))
        check_draws(n_samples)
        given = context_table(self, context)
        c = context_of(self, given, 0 if given is None else given.num_rows)
        if given is not None:
            n_samples = n_samples * given.num_rows
            c = None if c is None else c.repeat_interleave(n_samples // len(c), dim=0)
        rows = self.density_.sample(n_samples, c, torch.Generator().manual_seed(seed))
        return from_arrow(to_table(self.schema_, rows), self.form_)

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
        return score_given(self, X, given, context, n_samples, random_state)

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
            constants and duplicates, which have none, and of rows of density 0.

        Example:
            >>> x = np.random.default_rng(0).normal(size=(100, 2))
            >>> u = DensityEstimator(flow="gaussian").fit(x).pit(x)
            >>> u.shape, bool((0 < u).all() and (u < 1).all())
            ((100, 2), True)
        """
        return residuals(self, X, context, random_state)

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
        return tail_shares(self, X, context, n_samples, random_state)

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
        write_estimator(path, self)

    @classmethod
    def load(cls, path: str | Path) -> DensityEstimator:
        """Reads what :meth:`save` wrote.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is truncated, or no estimator that :meth:`save` wrote.
        """
        return read_estimator(path, cls)

    @property
    def work_(self) -> float:
        """The work that was allowed in `fit`: `work=work_` finds the same density again."""
        check_is_fitted(self)
        return float(self.density_.plan["work"])

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
