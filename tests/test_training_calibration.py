"""Evaluation of many rows, and exact statistics for batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.data import Split
from maskedflow.training import TrainConfig, calibrate, evaluate, fit
from maskedflow.transforms import BatchNorm, Dequantize, LazyComposedTransform, Standardize


def rows(n: int, shift: float = 0.0, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(n, 2, generator=generator)
    x = torch.randn(n, 3, generator=generator).exp() + context[:, :1]
    return Split(x + shift, context)


def batch_normed(dtype: torch.dtype = torch.float64) -> mf.flows.Flow:
    """A conditional MAF whose weights are far from the identity, behind a nested composition."""
    generator = torch.Generator().manual_seed(0)
    maf = mf.flows.MAF(
        3, context=4, hidden_features=(8,), transforms=3, batch_norm=True, generator=generator
    )
    standardize = Standardize(torch.ones(3), torch.full((3,), 2.0))
    flow = mf.flows.Flow([standardize, maf.transform], maf.base, nn.Linear(2, 4)).to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return flow


def norms(flow: nn.Module) -> list[BatchNorm]:
    return [module for module in flow.modules() if isinstance(module, BatchNorm)]


def statistics(flow: nn.Module) -> Tensor:
    return torch.cat([torch.stack((norm.mean, norm.variance)) for norm in norms(flow)])


def flat(transform: nn.Module) -> list[nn.Module]:
    if isinstance(transform, LazyComposedTransform):
        return [leaf for inner in transform.transforms for leaf in flat(inner)]
    return [transform]


@torch.no_grad()
def in_one_batch(flow: mf.flows.Flow, split: Split) -> Tensor:
    """The statistics by their definition: all rows at once, every norm in training mode."""
    assert split.context is not None
    x = split.x.to(torch.float64)
    c = flow.embedding(split.context.to(torch.float64)) if flow.embedding else None
    found = []
    for leaf in flat(flow.transform):
        if isinstance(leaf, BatchNorm):
            found.append(torch.stack((x.mean(0), x.var(0, correction=0))))
        x = leaf.train()(c)(x)
    return torch.cat(found)


@pytest.mark.parametrize("batch_size", [7, 100, 1000])
def test_statistics_are_those_of_one_big_batch(batch_size: int) -> None:
    flow, split = batch_normed(), rows(100)
    assert len(norms(flow)) == 3
    calibrate(flow, split, batch_size=batch_size)
    found = statistics(flow)
    torch.testing.assert_close(found, in_one_batch(flow, split), atol=1e-12, rtol=1e-10)


def test_density_after_calibration_is_that_of_one_big_batch() -> None:
    flow, split = batch_normed(), rows(100)
    calibrate(flow, split, batch_size=13)
    calibrated = evaluate(flow, split, batch_size=17)
    assert split.context is not None
    with torch.no_grad():
        expected = flow.train()(split.context.double()).log_prob(split.x.double())
    torch.testing.assert_close(calibrated, expected, atol=1e-10, rtol=1e-10)


def test_large_numbers_do_not_cancel_in_float32() -> None:
    flow = mf.flows.MAF(1, hidden_features=(), transforms=1, batch_norm=True)
    x = 1e4 + torch.randn(3000, 1, generator=torch.Generator().manual_seed(0))
    steps = [BatchNorm(1), *flow.transform.transforms]
    flow = mf.flows.Flow(steps, flow.base)
    calibrate(flow, Split(x))
    first = norms(flow)[0]
    torch.testing.assert_close(first.variance, x.double().var(0, correction=0).float())


def test_modes_and_data_are_left_as_they_were() -> None:
    flow, split = batch_normed(), rows(50)
    before = split.x.clone()
    flow.train()
    flow.transform.eval()
    calibrate(flow, split)
    evaluate(flow, split)
    assert flow.training
    assert flow.embedding is not None
    assert flow.embedding.training
    assert not any(module.training for module in flow.transform.modules())
    assert torch.equal(split.x, before)


def test_without_batch_norm_nothing_happens() -> None:
    flow = mf.flows.MAF(3, hidden_features=(8,))
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    calibrate(flow, rows(10))
    assert all(torch.equal(before[key], value) for key, value in flow.state_dict().items())


def test_training_calibrates_on_training_rows_only() -> None:
    """The last mistake one wants: statistics that have seen the rows they are judged on."""
    train = rows(95)
    flow = batch_normed(torch.float32)
    config = TrainConfig(epochs=2, batch_size=10, lr=1e-3)
    fit(flow, train, rows(40, shift=100.0, seed=1), config)
    found = statistics(flow)
    calibrate(flow, train)
    assert torch.equal(found, statistics(flow))


def test_a_last_batch_of_one_row_does_not_break_batch_norm() -> None:
    flow = batch_normed(torch.float32)
    history = fit(flow, rows(41), rows(40, seed=1), TrainConfig(epochs=2, batch_size=10))
    assert [record.step for record in history.records] == [4, 8]
    assert history.records[-1].skipped == 0


def test_batch_norm_out_of_reach() -> None:
    flow = mf.flows.MAF(3, hidden_features=(8,))
    inner = LazyComposedTransform(BatchNorm(3))
    hidden = mf.flows.Flow([flow.transform, inner.inv], flow.base)
    with pytest.raises(ValueError, match=r"^flow: expected all BatchNorm in its chain"):
        calibrate(hidden, rows(10))
    with pytest.raises(ValueError, match=r"^flow: expected a Flow, got Sequential"):
        calibrate(nn.Sequential(BatchNorm(3)), rows(10))
    with pytest.raises(ValueError, match=r"^split: expected the training rows, got none"):
        calibrate(batch_normed(), Split(torch.zeros(0, 3)))


# --- evaluation


def test_evaluate_is_log_prob_row_by_row() -> None:
    flow, split = batch_normed(), rows(25)
    assert split.context is not None
    with torch.no_grad():
        expected = flow.eval()(split.context.double()).log_prob(split.x.double())
    found = evaluate(flow, split, batch_size=10)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert not found.requires_grad
    with pytest.raises(ValueError, match=r"^batch_size: expected at least 1, got 0$"):
        evaluate(flow, split, batch_size=0)


def test_evaluation_noise_is_fixed_by_its_seed() -> None:
    maf = mf.flows.MAF(3, hidden_features=(8,))
    flow = mf.flows.Flow([Dequantize(), *maf.transform.transforms], maf.base)
    split = Split(torch.randint(0, 5, (30, 3), dtype=torch.uint8))
    first = evaluate(flow, split)
    flow(None).log_prob(torch.zeros(4, 3))  # draws noise in between
    assert torch.equal(first, evaluate(flow, split))
    assert not torch.equal(first, evaluate(flow, split, seed=1))


def test_training_noise_is_fresh_in_every_step() -> None:
    maf = mf.flows.MAF(3, hidden_features=(8,))
    noise = Dequantize()
    flow = mf.flows.Flow([noise, *maf.transform.transforms], maf.base)
    seeds: list[int] = []
    restart = noise.seed
    noise.seed = lambda seed: (seeds.append(seed), restart(seed))[1]
    split = Split(torch.zeros(40, 3, dtype=torch.uint8))
    fit(flow, split, split, TrainConfig(epochs=3, batch_size=10))
    evaluation, training = seeds[4::5], [s for i, s in enumerate(seeds) if i % 5 != 4]
    assert len(set(evaluation)) == 1
    assert len(set(training)) == len(training) == 12
