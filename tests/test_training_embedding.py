"""Training with a network that the context goes through first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.training.batches import bounds


def trained(embedding: nn.Module, c: Tensor, width: int) -> mf.flows.Flow:
    generator = torch.Generator().manual_seed(0)
    maf = mf.flows.MAF(2, width, transforms=1, hidden_features=(8,), generator=generator)
    flow = mf.flows.Flow(maf.transform, maf.base, embedding)
    x = torch.randn(len(c), 2, generator=generator)
    train, validation = mf.data.Split(x, c), mf.data.Split(x[:20], c[:20])
    mf.training.fit(flow, train, validation, mf.training.TrainConfig(epochs=1, batch_size=20))
    found = mf.training.evaluate(flow, train)
    assert found.shape == (len(c),)
    assert found.isfinite().all()
    return flow


def test_batch_norm_never_meets_a_batch_of_one_row() -> None:
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    flow = trained(norm, torch.randn(61, 3, generator=torch.Generator().manual_seed(0)), 4)
    assert not flow.training
    assert bounds(61, 20, merge=False) == [(0, 20), (20, 40), (40, 61)]
    assert bounds(3, 1, merge=False) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_series_and_images_are_contexts(dtype: torch.dtype) -> None:
    series = nn.Sequential(nn.Conv1d(1, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for network, shape in ((series, (1, 20)), (images, (3, 8, 8))):
        c = torch.ones(30, *shape).to(dtype)
        flow = trained(network, c, 4)
        assert flow(c[:3].float()).sample((5,)).shape == (5, 3, 2)


def test_token_ids_stay_integers_where_the_network_takes_them() -> None:
    ids = torch.randint(0, 5, (30, 3), generator=torch.Generator().manual_seed(0))
    trained(nn.Sequential(nn.Embedding(5, 2), nn.Flatten()), ids, 6)
    trained(nn.Linear(3, 4), ids, 4)  # which wants numbers


def test_a_context_that_cannot_be_is_told_by_its_place_or_shape() -> None:
    series = nn.Conv1d(1, 4, 3)
    with pytest.raises(ValueError, match=r"^c: expected shape \(\*, 4\), got \(20, 4, 18\)$"):
        trained(series, torch.zeros(30, 1, 20), 4)
    c = torch.zeros(30, 3, 8, 8)
    c[4, 2, 1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"train.context: .* got nan in row 4 at \[2, 1, 0\]$"):
        trained(nn.Flatten(), c, 192)
    with pytest.raises(ValueError, match=r"^context: expected shape \(5, context\), got \(4, 2\)$"):
        mf.data.Split(torch.zeros(5, 2), torch.zeros(4, 2))
