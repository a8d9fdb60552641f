"""Scoring a file of any size, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskedflow.data import Split, iter_batches
from maskedflow.training import evaluate

from .run import Run
from .series import score_file

__all__ = ["score_batches"]

ROWS = 10_000
"""Rows scored at once."""


def score_batches(run: Run, path: Path, rows: int = ROWS) -> Iterator[Tensor]:
    """Computes log p(row) of each row of a file, in nats, in bounded memory.

    Args:
        run: The run.
        path: A `.csv` or `.parquet` table with the run's columns, those of the context too, in any
            order and among any others; or a `.npy` array of rows, the features in the run's order
            and the context behind them, as `maskedflow sample` writes; or of images. For a time
            series, a table with its column of times: each row is scored given those before it.
        rows: The most rows scored at once.

    Yields:
        The log-densities of the next rows, float64, shape (<= rows,).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a cell is no finite number, or the array has another
            width.
    """
    if run.config.data.time is not None:
        yield score_file(run, path)
        return
    names = (*run.columns, *run.context_columns)
    blocks = (
        _npy(path, len(names), rows) if path.suffix == ".npy" else iter_batches(path, names, rows)
    )
    for number, block in enumerate(blocks):
        x, c = block[:, : len(run.columns)], block[:, len(run.columns) :]
        # Each block has noise of its own, which does not depend on the blocks before it.
        yield evaluate(run.flow, Split(x, c if run.context_columns else None), seed=number)


def _npy(path: Path, width: int, rows: int) -> Iterator[Tensor]:
    """Reads an array block by block; one of objects, which would be a pickle, is refused."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array of numbers: {error}") from None
    if array.ndim < 2 or np.prod(array.shape[1:]) != width:
        raise ValueError(f"{path}: expected rows of {width} numbers, found shape {array.shape}")
    for start in range(0, len(array), rows):
        block = torch.from_numpy(np.array(array[start : start + rows], np.float32))
        block = block.reshape(len(block), width)
        if not block.isfinite().all():
            row, column = (~block.isfinite()).nonzero()[0].tolist()
            raise ValueError(
                f"{path}: row {start + row + 1}, column {column + 1}: expected a finite number, "
                f"found {block[row, column].item()}"
            )
        yield block
