"""Runs of rows that were measured with errors, whose flow is the density without these."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from maskedflow.data import Dataset, Split, deconvolved_gaussian, measured_log_likelihood
from maskedflow.flows import Flow, Measured, TemporalMAF

from .config import DataConfig

__all__ = ["build_measured", "gaussian_baseline", "gaussian_of", "without_errors"]

Gaussian = tuple[Tensor, Tensor]
"""A mean and a covariance."""


def build_measured(
    flow: Flow | TemporalMAF, data: DataConfig, gaussian: Gaussian | None = None
) -> Measured | None:
    """The density of rows with their errors, around that of rows without; None if none has any.

    Args:
        flow: The flow.
        data: Which features have errors.
        gaussian: The mean and covariance of rows without errors; to be loaded if None.
    """
    if not data.errors:
        return None
    assert isinstance(flow, Flow)
    size = len(data.columns)
    features = [data.columns.index(name) for name in data.errors]
    return Measured(flow, *gaussian or (torch.zeros(size), torch.eye(size)), features=features)


def without_errors(split: Split, dataset: Dataset) -> Split:
    """The rows of a split, and their contexts alone."""
    size, c = dataset.context_features, split.context
    return replace(split, context=c[:, :size] if size and c is not None else None)


def gaussian_of(dataset: Dataset) -> Gaussian:
    """The mean and covariance of the training rows of a data set without their errors."""
    train = dataset.train
    return deconvolved_gaussian(train.x, _errors(dataset, train), train.weight)


def gaussian_baseline(dataset: Dataset, test: Split) -> Tensor:
    """The log-density of rows as measured, if they were Gaussian without errors, given contexts."""
    size, width = dataset.context_features, dataset.features
    rows, errors = [], []
    for split in (dataset.train, test):
        c = without_errors(split, dataset).context
        rows.append(split.x if c is None else torch.hstack([split.x, c]))
        errors.append(torch.nn.functional.pad(_errors(dataset, split), (0, size)))
    mean, covariance = deconvolved_gaussian(rows[0], errors[0], dataset.train.weight)
    log_prob = measured_log_likelihood(rows[1], errors[1], mean, covariance)
    if not size:
        return log_prob
    given = mean[width:], covariance[width:, width:]
    none = torch.zeros(len(test), size)
    return log_prob - measured_log_likelihood(rows[1][:, width:], none, *given)


def _errors(dataset: Dataset, split: Split) -> Tensor:
    """The standard deviation of each feature's error, 0 where it has none."""
    assert split.context is not None
    features = [dataset.columns.index(name) for name in dataset.errors]
    errors = torch.zeros_like(split.x)
    errors[:, features] = split.context[:, dataset.context_features :]
    return errors
