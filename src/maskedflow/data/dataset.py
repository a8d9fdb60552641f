"""What a data set is: three splits in the data's own units, and how they are standardised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from maskedflow.transforms import (
    Dequantize,
    LazyComposedTransform,
    LazyTransform,
    Logit,
    Narrow,
    Standardize,
)

from .discrete import Cells
from .split import Dealing, Split
from .streamed import StreamedSplit


@dataclass(frozen=True)
class Dataset:
    """A data set, split three ways, with what is needed to model it.

    Args:
        name: The name it was loaded by.
        train: The rows that everything is fitted on, preprocessing included.
        validation: The rows that decide when to stop.
        test: The rows that are reported.
        columns: A name for each feature.
        context_columns: A name for each context dimension.
        image_shape: `(channels, height, width)` for images, whose features are channel-first.
        levels: The number of values a pixel takes (256 for 8 bits), for images.
        alpha: The `alpha` of the images' logit transform, `logit(alpha + (1 - 2 alpha) x)`.
        standardize: Whether `preprocessing` standardises the features. False for the paper's
            tables: protocol standardises (or, BSDS300, scales) them, and these are their units.
        window: For a time series, whose rows are in order, the steps of a window to train on.
        streamed: All training rows of a table that stays on disk; `train` is then a sample of them.
        dealing: "values" if copies of a row went to one side, "rows" if each was dealt by itself.
        distinct: The number of distinct rows, if some are copies of others.
        cells: The cells of the features whose values are on grids, which `preprocessing` fills with
            noise; None if there are none, or values are to be left as they are.
        notes: What should be known before this table is modelled, a sentence each.

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
    image_shape: tuple[int, int, int] | None = None
    levels: int | None = None
    alpha: float | None = None
    standardize: bool = True
    window: int | None = None
    streamed: StreamedSplit | None = None
    dealing: Dealing = "rows"
    distinct: int | None = None
    cells: Cells | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            split: Split = getattr(self, part)
            width = 0 if split.context is None else split.context.shape[1]
            if split.x.shape[1] != len(self.columns) or width != len(self.context_columns):
                raise ValueError(
                    f"{part}: {split.x.shape[1]} features and {width} context columns, "
                    f"but {len(self.columns)} and {len(self.context_columns)} names"
                )

    @property
    def features(self) -> int:
        """The number of features."""
        return len(self.columns)

    @property
    def training(self) -> Split | StreamedSplit:
        """All training rows, in memory or on disk."""
        return self.train if self.streamed is None else self.streamed

    @property
    def context_features(self) -> int:
        """The number of context dimensions, 0 for an unconditional data set."""
        return len(self.context_columns)

    def without_context(self) -> Dataset:
        """The same data set with its context left out."""
        train, validation, test = (
            replace(split, context=None) for split in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test, context_columns=())

    def in_float32(self) -> Dataset:
        """The same data set with rows and contexts rounded to float32."""
        train, validation, test = (
            split.in_float32() for split in (self.train, self.validation, self.test)
        )
        streamed = None if self.streamed is None else self.streamed.in_float32()
        return replace(self, train=train, validation=validation, test=test, streamed=streamed)

    def preprocessing(self) -> LazyComposedTransform | None:
        """The transforms from data to roughly standard units, fitted on the training split only.

        Images get uniform noise, a division by the number of levels and the logit transform;
        tables and toy densities are standardised, after uniform noise in those columns of a table
        whose values are on a grid; None means that nothing is to be done.

        Example:
            >>> import maskedflow as mf
            >>> f = mf.data.load("moons").preprocessing()
            >>> y, ladj = f().call_and_ladj(mf.data.load("moons").train.x)
            >>> bool(y.mean().abs() < 1e-4), tuple(ladj.shape)
            (True, (10000,))
        """
        if self.levels is not None and self.alpha is not None:
            zeros = torch.zeros(self.features)
            return LazyComposedTransform(
                Dequantize(1.0),
                Standardize(zeros, torch.full_like(zeros, self.levels)),
                Logit(self.alpha),
            )
        if not self.standardize:
            return None
        # Copies: a flow may load other numbers in their place.
        loc, scale = (moment.clone() for moment in self.training.moments)
        steps: list[LazyTransform] = []
        if self.cells is not None:
            steps, (loc, scale) = [self.cells.dequantize()], self.cells.moments(loc, scale)
        steps.append(Standardize(loc, scale))
        if self.train.x.dtype == torch.float64:
            steps.append(Narrow())
        return LazyComposedTransform(*steps)

    def embedding(self) -> nn.Module | None:
        """The map applied to a context before the network sees it, fitted on the training split.

        Numbers are standardised; one-hot labels are left as they are (None), as is no context.

        Example:
            >>> x = torch.randn(100, 1)
            >>> split = Split(x, 5 + 3 * x)
            >>> embedding = Dataset("a", split, split, split, ("x",), ("c",)).embedding()
            >>> round(embedding(split.context).std().item(), 1)
            1.0
        """
        if self.train.context is None or self.image_shape is not None:
            return None
        return ContextStandardizer(*(moment.clone() for moment in self.training.context_moments))


class ContextStandardizer(nn.Module):
    r"""Brings a context to zero mean and unit variance, `(c - loc) / scale`.

    Args:
        loc: The mean, shape `(context,)`. In float64 it takes such contexts, of which it leaves
            numbers near zero in the flow's own dtype.
        scale: The standard deviation, shape `(context,)`.

    Example:
        >>> ContextStandardizer(torch.tensor([1.0]), torch.tensor([2.0]))(torch.tensor([5.0]))
        tensor([2.])
    """

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
