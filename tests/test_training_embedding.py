"""Training with a network that the context goes through first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.training.batches import bounds
from maskedflow.transforms import IdentityTransform, UnconditionalTransform


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


class Last(nn.Module):
    """What a recurrent network says of a series, (n, steps, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.GRU(3, 4, batch_first=True)

    def forward(self, c: Tensor) -> Tensor:
        return self.network(c)[1][0]


class Ends(nn.Module):
    """The first and the last numbers of anything: nothing to learn, so that steps are whole."""

    is_fixed = True

    def forward(self, c: Tensor) -> Tensor:
        flat = c.flatten(1)
        return torch.hstack([flat[:, :2], flat[:, -2:]])


def families() -> dict[str, mf.flows.LazyDistribution]:
    shape = {"context": 4, "transforms": 1, "hidden_features": (8,)}
    made = mf.flows.MADE(3, 4, components=2, hidden_features=(8,))
    return {
        "MAF": mf.flows.MAF(3, **shape),
        "NSF": mf.flows.NSF(3, **shape),
        "coupling": mf.flows.RealNVP(3, **shape),
        "NAF": mf.flows.NAF(3, **shape),
        "MAF of mixtures": mf.flows.MAF(3, base=made, **shape),
        "GMM": mf.flows.GMM(3, 4, components=2, hidden_features=(8,)),
    }


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 6), nn.Flatten())


@pytest.mark.parametrize(
    ("name", "embedding", "shape", "dtype"),
    [
        *((name, Last, (5, 3), torch.float64) for name in families()),
        *((name, convolution, (2, 6, 6), torch.float32) for name in families()),
        ("MAF", Ends, (2, 6, 6), torch.float32),
        ("NSF", Ends, (5, 3), torch.float64),
    ],
)
def test_every_family_takes_contexts_of_any_shape(
    name: str, embedding: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    core, identity = families()[name], UnconditionalTransform(IdentityTransform)
    parts = (core.transform, core.base) if isinstance(core, mf.flows.Flow) else (identity, core)
    flow = mf.flows.Flow(*parts, embedding()).to(dtype)
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(40, *shape, dtype=dtype, generator=generator)
    x = torch.randn(40, 3, dtype=dtype, generator=generator) + c.flatten(1)[:, :1]
    rows, before = mf.data.Split(x, c), flow(c).log_prob(x).mean()
    mf.training.fit(flow, rows, rows, mf.training.TrainConfig(epochs=3, batch_size=10, lr=1e-2))
    after = mf.training.evaluate(flow, rows, batch_size=7)
    assert after.mean() > before
    torch.testing.assert_close(flow(c).log_prob(x).double(), after, atol=1e-4, rtol=1e-4)
    drawn = flow(c[:3]).sample((2,))
    assert (drawn.shape, drawn.dtype) == ((2, 3, 3), dtype)


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
