"""What a data set is: three splits in the data's own units, and how they are standardised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

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

if TYPE_CHECKING:
    from .split import Dealing
    from .streamed import StreamedSplit


@dataclass(frozen=True)
class Split:
    """The rows of one part of a data set.

    Args:
        x: The data in their own units, shape `(n, features)`: uint8 for images, float32 otherwise,
            or float64 where float32 would not tell numbers apart. Windows of a time series have
            shape `(n, steps, features)`.
        context: The condition of each row, shape `(n, context)` or `(n, steps, context)`, or None.
            For a flow with an embedding network any shape `(n, ...)`: series, images, token ids.

    Raises:
        ValueError: If `x` has another shape, or the numbers of rows differ.

    Example:
        >>> len(Split(torch.zeros(5, 2)))
        5
    """

    x: Tensor
    context: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x.ndim not in (2, 3):
            raise ValueError(f"x: expected shape (n, features), got {tuple(self.x.shape)}")
        if self.context is not None and self.context.shape[:1] != self.x.shape[:1]:
            raise ValueError(
                f"context: expected shape ({len(self.x)}, context), got {tuple(self.context.shape)}"
            )

    def __len__(self) -> int:
        return len(self.x)


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
        distinct: The number of rows that are no copies of another one, if there are copies.
        cells: The cells of the features whose values are on grids, which `preprocessing` fills with
            noise; None if no feature's are, or all shall have a continuous density.
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
    def context_features(self) -> int:
        """The number of context dimensions, 0 for an unconditional data set."""
        return len(self.context_columns)

    @property
    def rows(self) -> tuple[int, int, int]:
        """The number of training, validation and test rows, those on disk too."""
        train = self.train if self.streamed is None else self.streamed
        return len(train), len(self.validation), len(self.test)

    def without_context(self) -> Dataset:
        """The same data set with its context left out."""
        train, validation, test = (
            replace(split, context=None) for split in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test, context_columns=())

    def in_float32(self) -> Dataset:
        """The same data set with rows and contexts rounded to float32."""
        train, validation, test = (
            Split(split.x.float(), None if split.context is None else split.context.float())
            for split in (self.train, self.validation, self.test)
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
        if self.streamed is not None:
            (loc, scale), _ = self.streamed.moments
        else:
            loc, scale = location_and_scale(self.train.x)
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
        if self.streamed is not None:
            _, c = self.streamed.moments
            return ContextStandardizer(*c)
        return ContextStandardizer(*location_and_scale(self.train.context))


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


def location_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of each column, in float32 or x's own float64.

    A constant column gets scale 1: it is only centred, and nothing is divided by zero.

    Example:
        >>> location_and_scale(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        (tensor([2., 5.]), tensor([1., 1.]))
    """
    # Column by column: a float64 copy of a large table would double its memory twice over.
    moments = [torch.var_mean(column.double(), correction=0) for column in x.unbind(1)]
    variance, mean = (torch.stack(values) for values in zip(*moments, strict=True))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale = variance.sqrt().to(dtype)
    # The computed variance of a constant need not be exactly zero; a tiny one may round to it.
    scale[(x.amax(0) == x.amin(0)) | (scale == 0)] = 1
    return mean.to(dtype), scale
