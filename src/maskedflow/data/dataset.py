"""What a data set is: three splits in the data's own units, and how they are standardised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskedflow.files import html_facts, html_table
from maskedflow.files.markup import MOST
from maskedflow.transforms import (
    Dequantize,
    LazyComposedTransform,
    LazyTransform,
    Logit,
    Narrow,
    Standardize,
)

from .bounded import bounds_map
from .dealing import Dealing
from .discrete import Cells
from .fingerprint import Fingerprint, Trace
from .split import Split, columns_of, location_and_scale
from .streamed import StreamedSplit
from .windows import cut, stretches

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """A data set of numbers, split three ways, with what is needed to model it.

    Args:
        name: The name it was loaded by.
        train: The rows that everything is fitted on, preprocessing included.
        validation: The rows that decide when to stop.
        test: The rows that are reported.
        columns: A name for each feature.
        context_columns: A name for each context dimension.
        standardize: Whether `preprocessing` standardises the features. False for the paper's
            tables: protocol standardises (or, BSDS300, scales) them, and these are their units.
        dealing: "values" if copies of a row went to one side, "rows" if each was dealt by itself.
        distinct: The number of distinct rows, if some are copies of others.
        cells: The cells of the features whose values are on grids, which `preprocessing` fills with
            noise; None if there are none, or values are to be left as they are.
        bounds: The lowest and highest value of features on no grid, by name, that no sample leaves.
        notes: What should be known before this table is modelled, a sentence each.
        errors: Of features that were measured with errors the columns of their standard
            deviations, which stand behind the context in the splits.

    Raises:
        ValueError: If the splits or the names disagree about the number of features.

    Example:
        >>> split = Split(torch.randn(10, 2))
        >>> Dataset("mine", split, split, split, columns=("a", "b")).features
        2
    """

    name: str
    train: Split
    validation: Split
    test: Split
    columns: tuple[str, ...]
    context_columns: tuple[str, ...] = ()
    standardize: bool = True
    dealing: Dealing = "rows"
    distinct: int | None = None
    cells: Cells | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in _PARTS:
            split: Split = getattr(self, part)
            width = 0 if split.context is None else split.context.shape[1]
            names = len(self.context_columns) + len(self.errors)
            if split.x.shape[1] != len(self.columns) or width != names:
                raise ValueError(
                    f"{part}: {split.x.shape[1]} features and {width} context columns, "
                    f"but {len(self.columns)} and {names} names"
                )

    @property
    def features(self) -> int:
        """The number of features."""
        return len(self.columns)

    @property
    def training(self) -> Split | StreamedSplit:
        """All training rows, in memory or on disk."""
        return self.train

    def epochs(self) -> tuple[Split | StreamedSplit, Split]:
        """What is trained on, and what validates: the rows."""
        return self.training, self.validation

    @property
    def record(self) -> dict[str, Any]:
        """What the record of a run says of this kind of data, beyond columns and rows."""
        return {}

    def fingerprints(self) -> Trace:
        """What is to be remembered of the rows that train and validate."""
        return Trace(_fingerprint(self.train), _fingerprint(self.validation))

    @property
    def context_features(self) -> int:
        """The number of context dimensions, 0 for an unconditional data set."""
        return len(self.context_columns)

    @property
    def rows(self) -> tuple[int, int, int]:
        """The number of training, validation and test rows, those on disk too."""
        return len(self.training), len(self.validation), len(self.test)

    def _repr_html_(self) -> str:
        """In a notebook: how many rows of what columns, and what is known of them."""
        names = (*self.columns, *self.context_columns)
        cells = [part for part in (self.train.x, self.train.context) if part is not None]
        x = torch.hstack(cells)[:, : min(MOST, len(names))].double()
        numbers = torch.stack([x.mean(0), x.std(0), *x.aminmax(dim=0)], dim=1).tolist()
        rows: list[tuple[str, ...]] = [
            (name, *(f"{number:.4g}" for number in found))
            for name, found in zip(names, numbers, strict=False)
        ]
        rows += [(name,) for name in names[MOST:]]
        facts = {
            "rows": "{:,} to train, {:,} to validate, {:,} to test".format(*self.rows),
            "features": f"{self.features:,}",
            "context": ", ".join(self.context_columns),
            "notes": "; ".join(self.notes),
        }
        heading = "column", "mean", "deviation", "lowest", "highest"
        return html_facts(self.name, facts) + html_table(heading, rows)

    def without_context(self) -> Dataset:
        """The same data set with its context left out."""
        splits = {part: replace(getattr(self, part), context=None) for part in _PARTS}
        return replace(self, **splits, context_columns=(), errors={})

    def in_float32(self) -> Self:
        """The same data set with rows and contexts rounded to float32."""
        return replace(self, **{part: getattr(self, part).in_float32() for part in _PARTS})

    def preprocessing(self) -> LazyComposedTransform | None:
        """The transforms from data to roughly standard units, fitted on the training split only.

        Rows are standardised, after uniform noise in those columns whose values are on a grid, and
        after a map of bounded ones to the line; None means that nothing is to be done.

        Example:
            >>> import maskedflow as mf
            >>> f = mf.data.load("moons").preprocessing()
            >>> y, ladj = f().call_and_ladj(mf.data.load("moons").train.x)
            >>> bool(y.mean().abs() < 1e-4), tuple(ladj.shape)
            (True, (10000,))
        """
        steps: list[LazyTransform] = [] if self.cells is None else [self.cells.dequantize()]
        if not self.standardize:
            return LazyComposedTransform(*steps) if steps else None
        # Copies: a flow may load other numbers in their place.
        loc, scale = (moment.clone() for moment in self.training.moments)
        if self.cells is not None:
            loc, scale = self.cells.moments(loc, scale)
        if self.bounds:
            bounds = bounds_map(self.bounds, self.columns, loc.dtype)
            steps.append(bounds)
            bounded = torch.tensor([name in self.bounds for name in self.columns])
            mapped = location_and_scale(bounds()(self.train.x), self.train.weight)
            loc = torch.where(bounded, mapped[0], loc)
            scale = torch.where(bounded, mapped[1], scale)
        steps.append(Standardize(loc, scale))
        if self.train.x.dtype == torch.float64:
            steps.append(Narrow())
        return LazyComposedTransform(*steps)

    def embedding(self) -> nn.Module | None:
        """The map applied to a context before the network sees it, fitted on the training split.

        Numbers are standardised; None means that there is no context, or nothing is to be done.

        Example:
            >>> x = torch.randn(100, 1)
            >>> split = Split(x, 5 + 3 * x)
            >>> embedding = Dataset("a", split, split, split, ("x",), ("c",)).embedding()
            >>> round(embedding(split.context).std().item(), 1)
            1.0
        """
        size = self.context_features
        if not size:
            return None
        moments = self.training.context_moments
        return ContextStandardizer(*(moment[:size].clone() for moment in moments))


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """Images, a row each, whose context may be one-hot class labels.

    Args:
        image_shape: `(channels, height, width)`; features are channel-first.
        levels: The number of values a pixel takes: 256 for 8 bits.
        alpha: The `alpha` of the logit transform, `logit(alpha + (1 - 2 alpha) x)`.
    """

    image_shape: tuple[int, int, int] = field(kw_only=True)
    levels: int = field(kw_only=True)
    alpha: float = field(kw_only=True)

    @property
    def record(self) -> dict[str, Any]:
        """The shape of an image, and the number of values of a pixel."""
        return {"image_shape": self.image_shape, "levels": self.levels}

    def preprocessing(self) -> LazyComposedTransform:
        """Uniform noise, a division by the number of levels, and the logit transform."""
        zeros = torch.zeros(self.features)
        return LazyComposedTransform(
            Dequantize(1.0),
            Standardize(zeros, torch.full_like(zeros, self.levels)),
            Logit(self.alpha),
        )

    def embedding(self) -> None:
        """None: labels are left as they are."""


@dataclass(frozen=True)
class SeriesDataset(Dataset):
    """A time series, whose rows are in the order of time; `window` steps are trained on at once.

    The `times` of all rows are datetime64[ns] or float64.
    """

    window: int = field(kw_only=True)
    times: NDArray[Any] = field(kw_only=True, compare=False)

    @property
    def record(self) -> dict[str, Any]:
        """The steps of a window."""
        return {"window": self.window}

    def epochs(self) -> tuple[Split, Split]:
        """Windows of the training and of the validation rows: each row is in four, or nearly."""
        stride = -(-self.window // 4)
        return cut(self.train, self.window, stride), cut(self.validation, self.window, stride)

    def fingerprints(self) -> Trace:
        """What is to be remembered of stretches of the rows that train and validate."""
        parts = (stretches(split) for split in (self.train, self.validation))
        return Trace(*map(_fingerprint, parts))


@dataclass(frozen=True)
class StreamedDataset(Dataset):
    """A table on disk, but for `validation`, `test` and a sample `train` of all the training rows.

    All of them are `streamed`.
    """

    streamed: StreamedSplit = field(kw_only=True)

    @property
    def training(self) -> StreamedSplit:
        """All training rows."""
        return self.streamed

    @property
    def record(self) -> dict[str, Any]:
        """That the table stays on disk."""
        return {"stream": True}

    def in_float32(self) -> Self:
        """The same data set with rows and contexts rounded to float32."""
        return replace(super().in_float32(), streamed=self.streamed.in_float32())

    def fingerprints(self) -> Trace:
        """What is to be remembered of the rows that train and validate."""
        return Trace(self.streamed.fingerprint, _fingerprint(self.validation))


def _fingerprint(split: Split) -> Fingerprint:
    columns = columns_of(split)
    return Fingerprint.of(columns, columns)


class ContextStandardizer(nn.Module):
    r"""Brings a context to zero mean and unit variance, `(c - loc) / scale`.

    Mean and standard deviation have shape `(context,)`. In float64 they take such contexts, of
    which they leave numbers near zero in the flow's own dtype.

    Example:
        >>> ContextStandardizer(torch.tensor([1.0]), torch.tensor([2.0]))(torch.tensor([5.0]))
        tensor([2.])
    """

    is_fixed = True
    positive = ("scale",)
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)
        self.narrow = Narrow() if loc.dtype == torch.float64 else None

    def forward(self, c: Tensor) -> Tensor:
        y = (c - self.loc) / self.scale
        return y if self.narrow is None else cast(Tensor, self.narrow()(y))
