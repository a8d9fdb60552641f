"""A run on a file, from training to scores and samples."""

from __future__ import annotations

from pathlib import Path

import pyarrow.csv as pacsv
import torch
from torch import Tensor

from commands import SMALL, run
from maskedflow import load_run
from maskedflow.sources import Source, open_source


def trained(path: Path, out: Path, *options: str) -> tuple[Source, Tensor]:
    """Trains a small flow on a file, scores the file by it, and gives it back with samples."""
    assert run("train", "--data", path, "--out", out, *SMALL, *options) == 0
    source = open_source(path)
    (directory,) = out.iterdir()
    scores = out / "scores.csv"
    assert run("score", directory, path, "-o", scores) == 0
    found = pacsv.read_csv(scores)
    assert found.column_names == ["log_prob"]
    assert found.num_rows == source.count()
    fitted = load_run(directory)
    assert fitted.columns == source.names
    assert len(fitted.dataset().train) == fitted.config.data.rows[0]
    x = fitted.flow().sample((5000,), generator=torch.Generator().manual_seed(0))
    for name, column in zip(fitted.columns, x.unbind(1), strict=True):
        low, high = source.bounds.get(name, (-torch.inf, torch.inf))
        assert low <= column.min()
        assert column.max() <= high
    return source, x
