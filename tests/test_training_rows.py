"""What `fit` takes for rows, and what it says of their units."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskedflow.data import Split, deconvolved_gaussian
from maskedflow.data.split import evenly_spaced
from maskedflow.flows import MAF, Flow, Measured
from maskedflow.training import TrainConfig, calibrate, evaluate, fit
from maskedflow.training.rows import splits_of
from maskedflow.training.units import warn_of_units
from maskedflow.transforms import ActNorm, BatchNorm, Logit, NormalScores, Standardize
from maskedflow.transforms.whiten import Whiten

CONFIG = TrainConfig(epochs=1, batch_size=50)


def normal(n: int, features: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed))


def maf(context: int = 0, **options: Any) -> MAF:
    source = torch.Generator().manual_seed(0)
    return MAF(2, context, transforms=2, hidden_features=(8,), generator=source, **options)


def test_tensors_arrays_pairs_and_splits_are_the_same_rows() -> None:
    x, c = normal(100), normal(100, 3, 1)
    swapped = x.numpy().astype(">f4")
    swapped.flags.writeable = False
    for pair in ((x, x[:20]), (x.numpy(), Split(x[:20])), (swapped, (x[:20], None))):
        found = fit(maf(), *pair, CONFIG)
        assert found.validation_nll == fit(maf(), Split(x), Split(x[:20]), CONFIG).validation_nll
    assert torch.equal(evaluate(maf(), x.numpy()), evaluate(maf(), Split(x)))
    expected = fit(maf(3), Split(x, c), Split(x[:20], c[:20]), CONFIG)
    found = fit(maf(3), (x.numpy(), c), (x[:20], c[:20].numpy()), CONFIG)
    assert found.validation_nll == expected.validation_nll
    assert fit(maf(), x[:20].requires_grad_(), x[:20]).records[0].step == 1  # settings by default


def test_a_tenth_validates_and_no_copy_of_a_row_is_on_the_other_side() -> None:
    x = normal(95)
    train, validation = splits_of(x, None, seed=3)
    assert isinstance(train, Split)
    assert (len(train), len(validation)) == (86, 9)
    assert sorted([*train.x[:, 0].tolist(), *validation.x[:, 0].tolist()]) == sorted(
        x[:, 0].tolist()
    )
    assert torch.equal(splits_of(x, None, seed=3)[1].x, validation.x)
    assert not torch.equal(splits_of(x, None, seed=4)[1].x, validation.x)
    train, validation = splits_of(x.repeat(5, 1), None, seed=0)
    assert isinstance(train, Split)
    assert not set(train.x[:, 0].tolist()) & set(validation.x[:, 0].tolist())
    config = TrainConfig(epochs=1, batch_size=50, seed=3)
    expected = fit(maf(), *splits_of(x, None, seed=3), config)
    assert fit(maf(), x, config=config).validation_nll == expected.validation_nll


def test_a_tenth_of_the_rows_that_count_validates() -> None:
    weight = torch.where(torch.arange(200) % 10 == 0, 2.0, 0.0)
    train, validation = splits_of(Split(normal(200), weight=weight), None, seed=0)
    assert (len(train), len(validation)) == (18, 2)
    assert validation.mean(torch.ones(2)) == 1
    with pytest.raises(ValueError, match="rows to train and to validate, got 1 in all"):
        splits_of(Split(normal(10), weight=weight[:10]), None, seed=0)


@pytest.mark.parametrize(
    ("error", "rows", "says"),
    [
        (TypeError, [[1.0, 2.0]], r"^train: expected a tensor or array of .* got list$"),
        (TypeError, normal(9).cfloat(), r"^train: expected real numbers, got torch.complex64$"),
        (TypeError, np.array([["a", "b"]]), r"got ndarray of <U1$"),
        (TypeError, (normal(9),) * 3, r"^train: expected a pair \(x, context\), got a tuple of 3$"),
        (TypeError, (None, normal(9)), r"^train: expected numbers x, got None$"),
        (ValueError, normal(9)[:, 0], r"^train.x: expected shape \(n, features\), got \(9,\)$"),
        (ValueError, (normal(9), normal(8)), r"^train.context: expected shape \(9, context\)"),
        (ValueError, normal(1), r"^train: expected rows to train and to validate, got 1 in all$"),
        (ValueError, np.ma.masked_greater(normal(9).numpy(), 0), r"^train: .* got masked cells$"),
    ],
)
def test_what_are_no_rows_is_said_in_one_line(error: Any, rows: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        fit(maf(), rows, None, CONFIG)


def test_what_is_no_flow_or_no_settings_is_told() -> None:
    with pytest.raises(TypeError, match=r"^flow: expected a torch.nn.Module, got a NoneType$"):
        fit(None, normal(9), None, CONFIG)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^config: expected a TrainConfig, got a dict$"):
        fit(maf(), normal(9), None, {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^train.context: expected shape \(n, context\), got \("):
        fit(maf(1), (normal(9), normal(9)[:, 0]), None, CONFIG)


def test_a_context_in_the_place_of_validation_rows_is_told() -> None:
    x, c = normal(9), normal(9, 3)
    wanted = r"^validation\.x: expected shape \(n, 2\) as in train, got shape \(n, 3\)$"
    with pytest.raises(ValueError, match=wanted):
        fit(maf(3), x, c, CONFIG)
    with pytest.raises(
        ValueError, match=r"^validation\.context: .* \(n, 3\) as in train, got none$"
    ):
        fit(maf(3), (x, c), x, CONFIG)


@pytest.mark.parametrize(
    ("loc", "scale", "says"),
    [(2000, 1, "column 0 is 2e"), (0, 1e3, "column 0 is"), (0, 1e-3, "column 0 is"), (0, 50, "")],
)
def test_warns_of_raw_units(loc: float, scale: float, says: str) -> None:
    x = normal(300) * torch.tensor([scale, 1.0]) + torch.tensor([float(loc), 0.0])
    context = torch.where(torch.arange(2) == 1, 1e5, 1.0) * normal(300)
    if not says:
        fit(maf(), x, x[:20], CONFIG)  # no warning, which would be an error
        return
    with pytest.warns(UserWarning, match=rf"^train: {says}[^,]*, where .* about 0 ± 1; ") as caught:
        fit(maf(), x, x[:20], CONFIG)
    assert caught[0].filename == __file__
    with pytest.warns(
        UserWarning, match=r"^train: column 0 [^,]*, context column 1 is .* 1\.\d+e\+05"
    ):
        fit(maf(2), (x, context), (x[:20], context[:20]), CONFIG)


def test_warns_of_units_in_more_rows_than_float32_can_count() -> None:
    x = torch.full((1, 2), 1e4).expand(2**24 + 4, 2)
    with pytest.warns(UserWarning, match=r"^train: column 0 is 1e\+04"):
        warn_of_units(maf(), Split(x))
    chosen = evenly_spaced(len(x), 500)
    assert chosen[[0, -1]].tolist() == [0, len(x) - 1]
    assert (chosen.diff().float() / (len(x) / 499) - 1).abs().max() < 1e-4
    assert evenly_spaced(3, 500).tolist() == [0, 1, 2]
    assert evenly_spaced(0, 500).tolist() == []


def test_a_flow_that_sees_to_units_itself_is_not_warned_of() -> None:
    x = 1e3 * normal(300).exp() + 5e4
    ends = torch.tensor([4e4, 4e4]), torch.tensor([1e5, 1e5])
    split = Split(x.clamp(max=9e4))
    first: list[list[Any]] = [
        [Standardize(*split.moments)],
        [Whiten.fit(split.x)],
        [NormalScores.fit(split.x)],
        [Standardize(ends[0], ends[1] - ends[0]), Logit(0.0)],
        [ActNorm(2)],
        [BatchNorm(2)],
    ]
    for steps in first:
        chain = maf()
        flow = Flow([*steps, *chain.transform.transforms], chain.base)
        fit(flow, split, split[:50], CONFIG)
    with pytest.warns(UserWarning, match="column 0"):
        fit(maf(), split, split[:50], CONFIG)


def test_a_flow_of_rows_with_errors_is_looked_at_too() -> None:
    errors = torch.full((300, 2), 1e3)  # which are no reason for a warning
    x = 1e4 * normal(300) + 5e4
    for first, warned in ([Standardize.fit(x)], False), ([], True):
        chain = maf()
        flow = Flow([*first, *chain.transform.transforms], chain.base)
        measured = Measured(flow, *deconvolved_gaussian(x.numpy(), errors.numpy()))
        with pytest.warns(UserWarning, match="column 0") if warned else nullcontext():
            fit(measured, (x, errors), (x[:50], errors[:50]), CONFIG)


def test_rows_with_several_log_densities_are_refused() -> None:
    told = r"x: expected a log-density for each row, got shape \(5, 1\) for rows of shape"
    with pytest.raises(ValueError, match=told):
        evaluate(MAF(2), Split(torch.zeros(5, 1, 2)))


def test_contexts_of_any_shape_train_evaluate_and_calibrate() -> None:
    """Images, with batch norms in the flow: all of it in raw units that only the network sees."""
    images = (255 * torch.rand(120, 1, 6, 6, generator=torch.Generator().manual_seed(0))).byte()
    x = normal(120) + images.double().mean((1, 2, 3)).sub(127)[:, None].float() / 10
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4))
    chain = maf(4, batch_norm=True)
    flow = Flow(chain.transform, chain.base, network)
    history = fit(flow, (x, images), (x[:30], images[:30]), CONFIG)
    judged = evaluate(flow, Split(x[:30], images[:30]))
    assert -judged.mean().item() == pytest.approx(history.validation_nll[-1], abs=1e-12)
    calibrate(flow, Split(x, images), batch_size=7)
    again = evaluate(flow, Split(x[:30], images[:30]))
    torch.testing.assert_close(again, judged, atol=1e-4, rtol=1e-4)
