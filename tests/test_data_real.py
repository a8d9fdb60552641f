"""The real data sets: the Gaussian of the MAF paper comes out of our loaders."""

from __future__ import annotations

import pytest
import torch

from maskedflow import data

pytestmark = pytest.mark.slow


def load(name: str) -> data.Dataset:
    if data.describe(name).folder is None:
        try:
            data.load(name)
        except FileNotFoundError as error:
            pytest.skip(str(error))
    return data.load(name)


def published_sizes(name: str) -> tuple[int, int, int]:
    return data.describe(name).rows


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [
        ("power", -7.74, 0.03),
        ("gas", -3.58, 0.8),
        ("hepmass", -27.93, 0.03),
        ("miniboone", -37.24, 1.1),
        ("bsds300", 96.67, 0.3),
    ],
)
def test_the_gaussian_baseline_is_the_papers(name: str, published: float, tolerance: float) -> None:
    loaded = load(name)
    log_prob = data.gaussian_log_likelihood(loaded.train.x, loaded.test.x)
    assert log_prob.mean().item() == pytest.approx(published, abs=tolerance)
    for split, rows in zip(
        (loaded.train, loaded.validation, loaded.test), published_sizes(name), strict=True
    ):
        assert len(split) == pytest.approx(rows, rel=1e-4)


@pytest.mark.parametrize(("name", "published", "tolerance"), [("mnist", -1366.9, 2.0)])
def test_the_gaussian_baseline_of_images_is_the_papers(
    name: str, published: float, tolerance: float
) -> None:
    loaded = load(name)
    preprocessing = loaded.preprocessing()
    assert preprocessing is not None
    logit = preprocessing.double()()
    train, test = (logit(split.x.double()) for split in (loaded.train, loaded.test))
    log_prob = data.gaussian_log_likelihood(train, test)
    assert log_prob.mean().item() == pytest.approx(published, abs=tolerance)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_images_have_the_published_sizes_and_balanced_labels(name: str) -> None:
    description = data.describe(name)
    load(name)
    loaded = data.load(name, labels=True)
    sizes = tuple(len(s) for s in (loaded.train, loaded.validation, loaded.test))
    assert sizes == description.rows
    assert loaded.train.x.dtype == torch.uint8
    assert loaded.train.context is not None
    assert (loaded.train.context.mean(0) - 0.1).abs().max() < 0.02
