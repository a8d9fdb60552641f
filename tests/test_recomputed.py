"""Activation checkpointing: the same gradients, and less that is kept for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import maskedflow as mf
from maskedflow.data import Split
from maskedflow.flows import MAF, NSF, Flow
from maskedflow.training import TrainConfig, fit
from maskedflow.transforms import Dequantize
from maskedflow.transforms.normalization import batch_weighs
from maskedflow.transforms.recomputed import recomputing

SHAPE = {"hidden_features": [16], "transforms": 3}


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: MAF(3, 2, **SHAPE, **k),
        lambda **k: MAF(3, 2, batch_norm=True, **SHAPE, **k),
        lambda **k: NSF(3, 2, **SHAPE, **k),
        lambda **k: MAF(3, 2, base=mf.flows.base("made", 3, context=2), **SHAPE, **k),
    ],
    ids=["affine", "batch norm", "splines", "mixtures behind"],
)
def test_gradients_are_the_same(make: Callable[..., Flow]) -> None:
    flow = make(generator=torch.Generator().manual_seed(0)).double()
    x, weight = torch.randn(9, 3).double(), torch.rand(9).double()
    found: list[list[Tensor]] = []
    for recomputes in (False, True):
        c = torch.randn(9, 2, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        flow.zero_grad()
        with batch_weighs(weight), recomputing(recomputes):
            log_prob = flow(c).log_prob(x)
        log_prob.sum().backward()  # outside: weights of batch norm are those of before
        assert c.grad is not None
        slopes = [p.grad for p in flow.parameters() if p.grad is not None]
        found.append([log_prob.detach(), c.grad, *slopes])
    torch.testing.assert_close(found[1], found[0])


def test_less_is_kept() -> None:
    def kept() -> int:
        sizes = []
        pack = lambda tensor: sizes.append(tensor.numel()) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            flow().log_prob(x)
        return sum(sizes)

    flow, x = NSF(4, transforms=5), torch.randn(100, 4)
    whole = kept()
    with recomputing():
        assert kept() < whole / 10


def test_noise_in_front_is_drawn_once() -> None:
    x = torch.randint(0, 5, (50, 2)).float()
    maf = MAF(2, **SHAPE)
    flow = Flow([Dequantize(torch.ones(2)), *maf.transform.transforms], maf.base)
    slopes = []
    for recomputes in (False, True):
        flow.zero_grad()
        flow.transform.transforms[0].seed(0)
        with recomputing(recomputes):
            flow().log_prob(x).sum().backward()
        slopes.append([p.grad for p in flow.parameters()])
    torch.testing.assert_close(slopes[1], slopes[0])


def test_training_comes_out_the_same() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    split = Split(x, weight=torch.rand(200).double())
    found = []
    for recompute in (False, True):
        flow = MAF(3, transforms=2, batch_norm=True, generator=torch.Generator().manual_seed(0))
        config = TrainConfig(epochs=2, batch_size=50, lr=1e-3, recompute=recompute)
        found.append(fit(flow.double(), split, split, config).validation_nll)
    assert found[1] == pytest.approx(found[0], rel=1e-9)
