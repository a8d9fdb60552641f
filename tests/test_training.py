"""The training loop: what it learns, when it stops, and what it does when something breaks."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

import maskedflow as mf
from maskedflow.data import Split
from maskedflow.training import (
    EpochRecord,
    History,
    NonFiniteError,
    TrainConfig,
    evaluate,
    fit,
    progress,
)


class Gaussian(nn.Module):
    """The smallest flow: a diagonal Gaussian. It remembers the batches it was trained on."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.batches: list[Tensor] = []
        self.hook: Callable[[Tensor, Tensor], Tensor] | None = None

    def forward(self, c: Tensor | None = None) -> Distribution:
        return _Recorded(self)


class _Recorded(Independent):
    def __init__(self, flow: Gaussian) -> None:
        super().__init__(Normal(flow.loc, flow.log_scale.exp(), validate_args=False), 1)
        self.flow = flow

    def log_prob(self, x: Tensor) -> Tensor:
        log_prob = super().log_prob(x)
        if self.flow.training:
            self.flow.batches.append(x)
            if self.flow.hook is not None:
                log_prob = self.flow.hook(x, log_prob)
        return log_prob


def rows(n: int, features: int = 2, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    return Split(3 + 2 * torch.randn(n, features, generator=generator))


def weights(flow: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in flow.state_dict().values()])


def with_best(losses: list[float], patience: int) -> tuple[History, Gaussian]:
    """Trains with validation NLLs taken from a list instead of computed."""
    flow, values = Gaussian(), iter(losses)
    config = TrainConfig(epochs=len(losses), batch_size=10, lr=0.1, patience=patience)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "maskedflow.training.loop.evaluate",
            lambda flow, split, ranks: torch.tensor([-next(values)], dtype=torch.float64),
        )
        return fit(flow, rows(20), rows(5), config), flow


# --- what is learned


def test_finds_the_maximum_of_the_likelihood() -> None:
    flow, train = Gaussian(), rows(500)
    config = TrainConfig(epochs=40, batch_size=100, lr=0.2, schedule="cosine", weight_decay=0)
    history = fit(flow, train, train, config)
    torch.testing.assert_close(flow.loc, train.x.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(flow.log_scale.exp(), train.x.std(0), atol=0.05, rtol=0)
    assert history.stopped_because == "epochs"
    assert history.train_nll[-1] < history.train_nll[0]
    assert not flow.training


def test_is_adam_with_l2_and_clipping() -> None:
    train, config = rows(40), TrainConfig(epochs=3, batch_size=40, lr=0.1, weight_decay=0.1, clip=1)
    flow, plain = Gaussian(), Gaussian()
    fit(flow, train, rows(10, seed=1), config)
    adam = torch.optim.Adam(plain.parameters(), lr=0.1, weight_decay=0.1, fused=False)
    for _ in range(3):
        adam.zero_grad()
        (-plain().log_prob(train.x).mean()).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adam.step()
    torch.testing.assert_close(weights(flow), weights(plain), atol=1e-6, rtol=1e-5)


def test_maf_beats_a_gaussian_on_moons() -> None:
    generator = torch.Generator().manual_seed(0)
    x = mf.data.toy("moons", 3000, generator)
    train, validation = Split(x[:2500]), Split(x[2500:])
    flow = mf.flows.MAF(2, hidden_features=(32, 32), generator=generator)
    config = TrainConfig(epochs=8, lr=5e-3, schedule="cosine")
    history = fit(flow, train, validation, config)
    gaussian = -mf.data.gaussian_log_likelihood(train.x, validation.x).mean()
    assert history.best_validation_nll < gaussian - 0.3
    assert evaluate(flow, validation).mean().item() == -history.best_validation_nll


def test_the_last_partial_batch_is_used_and_every_row_once() -> None:
    flow, train = Gaussian(), Split(torch.arange(23.0).repeat(2, 1).T)
    fit(flow, train, rows(5), TrainConfig(epochs=2, batch_size=10))
    assert [len(batch) for batch in flow.batches] == [10, 10, 3, 10, 10, 3]
    first, second = torch.cat(flow.batches[:3])[:, 0], torch.cat(flow.batches[3:])[:, 0]
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(23))
    assert first.tolist() != second.tolist()


def test_the_seed_decides_everything() -> None:
    def train(seed: int, touch: int) -> Tensor:
        torch.manual_seed(touch)  # the caller's generator must not matter
        x = torch.randint(0, 16, (64, 4), dtype=torch.uint8, generator=torch.Generator())
        generator = torch.Generator().manual_seed(0)
        net = nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.5))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_(generator=generator)
        maf = mf.flows.MAF(4, context=3, hidden_features=(16,), transforms=2, generator=generator)
        steps = [mf.transforms.Dequantize(), *maf.transform.transforms]
        flow = mf.flows.Flow(steps, maf.base, net)
        split = Split(x, x[:, :1] / 255)
        state = torch.get_rng_state()
        fit(flow, split, split, TrainConfig(epochs=2, batch_size=16, lr=1e-3, seed=seed))
        assert torch.equal(state, torch.get_rng_state())
        return weights(flow)

    assert torch.equal(train(0, touch=1), train(0, touch=2))
    assert not torch.equal(train(0, touch=1), train(1, touch=1))


def test_trains_where_no_gradients_are_wanted() -> None:
    """Through torch and by the kernel alike."""
    x, config = rows(60).x, TrainConfig(epochs=1)
    for options in ({}, {"batch_norm": True}):
        found = []
        for enabled in (True, False):
            flow = mf.flows.MAF(
                2, hidden_features=(8,), generator=torch.Generator().manual_seed(0), **options
            )
            with torch.set_grad_enabled(enabled):
                found.append(fit(flow, x, x[:20], config).validation_nll)
        assert found[0] == found[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype_of_the_flow(dtype: torch.dtype) -> None:
    flow = Gaussian().to(dtype)
    fit(flow, rows(20), rows(5), TrainConfig(epochs=1))
    assert flow.loc.dtype == dtype
    assert flow.batches[0].dtype == dtype
    assert evaluate(flow, rows(5)).dtype == torch.float64


def test_a_loss_in_double_precision_is_recorded_as_such() -> None:
    flow = Gaussian()
    flow.hook = lambda _, log_prob: log_prob.double() - 1 / 3
    loss = fit(flow, rows(20), rows(5), TrainConfig(epochs=1)).records[0].train_nll
    assert loss != torch.tensor(loss).float().item()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_loss_trains_alike() -> None:
    found = []
    for compiled in (False, True):
        flow = mf.flows.MAF(2, hidden_features=(8,), generator=torch.Generator().manual_seed(0))
        config = TrainConfig(epochs=2, batch_size=20, lr=1e-3, compile=compiled)
        found.append(fit(flow, rows(50), rows(10), config).validation_nll)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


# --- when it stops


def test_early_stopping_restores_the_best_weights() -> None:
    history, flow = with_best([5.0, 3.0, 4.0, 3.5, 9.0, 1.0], patience=3)
    assert history.stopped_because == "patience"
    assert history.validation_nll == [5.0, 3.0, 4.0, 3.5, 9.0]
    assert history.best_epoch == 2
    _, reference = with_best([5.0, 3.0], patience=3)
    assert torch.equal(weights(flow), weights(reference))


def test_nan_is_never_the_best() -> None:
    history, _ = with_best([math.nan, 3.0, math.nan, math.inf], patience=9)
    assert history.best_epoch == 2


class Clock:
    """A clock that goes on by a hundredth of a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.01
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_the_time_limit_ends_gracefully(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("maskedflow.training.loop.time", Clock())
    flow, validation = Gaussian(), rows(20, seed=1)
    config = TrainConfig(epochs=1000, batch_size=10, lr=0.1, schedule="cosine", time_limit=3.0)
    history = fit(flow, rows(1000), validation, config, directory=tmp_path)
    assert history.stopped_because == "time_limit"
    assert 2.5 < sum(history.seconds) <= 3.0
    assert history.records[-1].step % 100 != 0  # in the middle of an epoch
    assert history.lr[-1] < 0.001  # the schedule reached its end
    assert evaluate(flow, validation).mean().item() == -history.best_validation_nll
    assert (tmp_path / "checkpoints" / "latest.safetensors").exists()


def test_the_steps_that_there_was_time_for_repeat_a_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"epochs": 1000, "batch_size": 10, "lr": 0.1, "schedule": "cosine"}
    with monkeypatch.context() as patch:
        patch.setattr("maskedflow.training.loop.time", Clock())
        limited = fit(Gaussian(), rows(1000), rows(20), TrainConfig(**settings, time_limit=3.0))
    assert 100 < limited.steps < 400
    repeated = fit(Gaussian(), rows(1000), rows(20), TrainConfig(**settings, steps=limited.steps))
    assert repeated.stopped_because == "steps"
    assert (limited.lr_steps, repeated.lr_steps) == (limited.steps, limited.steps)
    assert repeated.lr == limited.lr
    assert repeated.validation_nll == limited.validation_nll


@pytest.mark.parametrize("slow", [3, 60, 100])
def test_a_training_that_the_clock_cuts_short_is_repeated(
    monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    # The step that takes long comes before there is a plan, or after it.
    settings = {"epochs": 1000, "batch_size": 10, "lr": 0.1, "schedule": "cosine"}
    x, flow = rows(70), Gaussian()
    clock = Clock()
    flow.register_forward_pre_hook(
        lambda module, _: clock.wait(100.0 * (len(module.batches) >= slow))
    )
    with monkeypatch.context() as patch:
        patch.setattr("maskedflow.training.loop.time", clock)
        limited = fit(flow, x, rows(20), TrainConfig(**settings, time_limit=3.0))
    assert limited.stopped_because == "time_limit"
    assert limited.steps < limited.lr_steps
    steps = {"steps": limited.steps, "lr_steps": limited.lr_steps}
    repeated = fit(Gaussian(), x, rows(20), TrainConfig(**settings, **steps))
    assert repeated.lr == limited.lr
    assert repeated.validation_nll == limited.validation_nll


def test_a_longer_time_limit_goes_on_from_a_shorter_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("maskedflow.training.loop.time", Clock())
    settings = {"epochs": 1000, "batch_size": 10, "lr": 0.1, "patience": 1000}
    splits = rows(70), rows(20)
    first = fit(Gaussian(), *splits, TrainConfig(**settings, time_limit=3.0), directory=tmp_path)
    longer = TrainConfig(**settings, time_limit=6.0)
    second = fit(Gaussian(), *splits, longer, directory=tmp_path, resume=True)
    assert second.steps > 1.5 * first.steps
    assert 5 < sum(second.seconds) <= 6


def test_a_tiny_time_limit_still_trains_a_step() -> None:
    flow = Gaussian()
    history = fit(flow, rows(20), rows(5), TrainConfig(batch_size=10, time_limit=1e-9))
    assert (history.stopped_because, len(flow.batches)) == ("time_limit", 1)


def test_cosine_goes_down_to_zero_over_all_steps() -> None:
    config = TrainConfig(epochs=4, batch_size=10, lr=1.0, schedule="cosine", clip=1e-9)
    history = fit(Gaussian(), rows(20), rows(5), config)
    done = [(epoch + 0.5) / 4 for epoch in range(4)]  # before the second of two steps
    expected = [(1 + math.cos(math.pi * t)) / 2 for t in done]
    assert history.lr == pytest.approx(expected)


# --- what is written


def test_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = fit(
        Gaussian(), rows(20), rows(5), TrainConfig(epochs=3), directory=tmp_path, progress=True
    )
    lines = (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()
    assert [EpochRecord(**json.loads(line)) for line in lines] == list(history.records)
    text = (tmp_path / "logs" / "training.log").read_text()
    assert all(f"  epoch {epoch}: train " in text for epoch in (1, 2, 3))
    assert capsys.readouterr() == ("", "")  # not a terminal
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"best.safetensors", "latest.safetensors", "training.log", "metrics.jsonl"}


def test_each_epoch_is_logged_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "maskedflow")
    fit(Gaussian(), rows(20), rows(5), TrainConfig(epochs=2))
    found = [record for record in caplog.records if record.message.startswith("epoch ")]
    assert [record.message[:8] for record in found] == ["epoch 1:", "epoch 2:"]
    assert {record.levelname for record in found} == {"DEBUG"}


def test_progress_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    fit(Gaussian(), rows(20), rows(5), TrainConfig(epochs=2), progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "validation" in shown


def test_without_a_directory_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(Gaussian(), rows(20), rows(5), TrainConfig(epochs=1))
    assert list(tmp_path.iterdir()) == []


# --- when something is not finite


def test_a_row_that_breaks_the_loss_is_skipped_and_counted(tmp_path: Path) -> None:
    x = rows(100).x
    x[17] = 1e30
    flow = Gaussian()
    config = TrainConfig(epochs=4, batch_size=10, lr=0.1)
    history = fit(flow, Split(x), rows(20, seed=1), config, directory=tmp_path)
    assert [record.skipped for record in history.records] == [1, 2, 3, 4]
    assert history.records[-1].rollbacks == 0
    assert all(map(math.isfinite, history.train_nll))
    assert weights(flow).isfinite().all()
    text = (tmp_path / "logs" / "training.log").read_text()
    assert text.count("the loss is inf, step skipped (1 in a row)") == 4


def test_non_finite_gradients_are_skipped() -> None:
    def steep(x: Tensor, log_prob: Tensor) -> Tensor:
        call = len(flow.batches)
        return log_prob + (flow.loc.sum() * 0).sqrt() if call == 2 else log_prob

    flow = Gaussian()
    flow.hook = steep  # the root of zero: a finite value, no finite slope
    history = fit(flow, rows(50), rows(5), TrainConfig(epochs=1, batch_size=10))
    assert history.records[-1].skipped == 1
    assert weights(flow).isfinite().all()


def breaks(first: int, last: int) -> Gaussian:
    """A flow whose loss is nan in some training calls, counted from 1."""

    def hook(x: Tensor, log_prob: Tensor) -> Tensor:
        return log_prob * math.nan if first <= len(flow.batches) <= last else log_prob

    flow = Gaussian()
    flow.hook = hook
    return flow


def test_rolls_back_to_the_last_good_weights_at_half_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskedflow.training.loop.SNAPSHOT_STEPS", 2)
    flow = breaks(4, 8)  # five in a row; weights and moments were kept after step 2
    config = TrainConfig(epochs=1, batch_size=10, lr=0.1)
    history = fit(flow, rows(100), rows(5), config, directory=tmp_path)
    assert (history.records[0].skipped, history.records[0].rollbacks) == (5, 1)
    assert history.lr == [0.05]
    plain = Gaussian()
    adam = torch.optim.Adam(plain.parameters(), weight_decay=config.weight_decay)
    for step, lr in ((1, 0.1), (2, 0.1), (9, 0.05), (10, 0.05)):
        adam.param_groups[0]["lr"] = lr
        adam.zero_grad()
        (-plain().log_prob(flow.batches[step - 1]).mean()).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), config.clip)
        adam.step()
    torch.testing.assert_close(weights(flow), weights(plain))
    assert "back to the last good weights (1 of 3)" in (tmp_path / "logs/training.log").read_text()


def test_weights_that_are_not_finite_are_rolled_back() -> None:
    def poison(x: Tensor, log_prob: Tensor) -> Tensor:
        if len(flow.batches) == 10:
            with torch.no_grad():
                flow.loc.fill_(math.inf)
        return log_prob if len(flow.batches) != 10 else flow.log_scale.sum() * x[:, 0]

    flow = Gaussian()
    flow.hook = poison
    history = fit(flow, rows(100), rows(5), TrainConfig(epochs=2, batch_size=10))
    assert [record.rollbacks for record in history.records] == [0, 1]
    assert history.best_epoch == 2


def test_gives_up_with_a_message_that_says_where_and_what_to_try(tmp_path: Path) -> None:
    x = rows(100).x
    x[:, 1] = 1e30
    with pytest.raises(NonFiniteError) as caught:
        fit(Gaussian(), Split(x), rows(5), TrainConfig(batch_size=10), directory=tmp_path)
    message = str(caught.value)
    assert message.startswith("training stopped in epoch 2, batch 10 of 10: the loss is inf after")
    assert "largest |x| is 1e+30, in training row" in message
    assert "column 1); try a lower lr than 0.0001" in message
    assert "\n" not in message
    assert "stopped, the loss is inf" in (tmp_path / "logs" / "training.log").read_text()


def test_the_best_weights_are_there_after_giving_up() -> None:
    flow = breaks(11, 10_000)
    with pytest.raises(NonFiniteError, match="3 roll-backs"):
        fit(flow, rows(100), rows(5), TrainConfig(batch_size=10, lr=0.1))
    reference = Gaussian()
    fit(reference, rows(100), rows(5), TrainConfig(batch_size=10, lr=0.1, epochs=1))
    assert torch.equal(weights(flow), weights(reference))


def test_a_validation_that_is_never_finite_is_an_error(tmp_path: Path) -> None:
    x = rows(5).x
    x[3] = 1e30
    with pytest.raises(NonFiniteError, match="no validation NLL was finite"):
        fit(Gaussian(), rows(20), Split(x), TrainConfig(epochs=2), directory=tmp_path)
    text = (tmp_path / "logs" / "training.log").read_text()
    assert "validation: 1 rows are not finite, the first is 3" in text
    line = (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["validation_nll"] is None  # JSON has no infinity


# --- bad input


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("batch_size", True),
        ("patience", -1),
        ("seed", -1),
        ("lr", 0),
        ("lr", math.nan),
        ("lr", "fast"),
        ("weight_decay", -1e-6),
        ("schedule", "linear"),
        ("clip", 0),
        ("time_limit", 0),
        ("time_limit", math.inf),
    ],
)
def test_settings_out_of_range(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{setting}: expected .*, got {value!r}$"):
        TrainConfig(**{setting: value})


def test_data_that_cannot_be_trained_on() -> None:
    config, good = TrainConfig(epochs=1), rows(20)
    x = good.x.clone()
    x[7, 1] = math.nan
    with pytest.raises(ValueError, match=r"^train\.x: expected finite .*nan in row 7, column 1$"):
        fit(Gaussian(), Split(x), good, config)
    with pytest.raises(ValueError, match=r"^validation\.context: .* inf in row 0, column 0$"):
        fit(Gaussian(), good, Split(good.x, torch.full((20, 1), math.inf)), config)
    with pytest.raises(ValueError, match=r"^validation: expected at least one row"):
        fit(Gaussian(), good, Split(good.x[:0]), config)


def test_a_flow_that_cannot_be_trained() -> None:
    flow = Gaussian().requires_grad_(False)
    with pytest.raises(ValueError, match=r"^flow: expected a parameter to train"):
        fit(flow, rows(20), rows(5), TrainConfig())
    flow = Gaussian()
    flow.loc.data.fill_(math.nan)
    with pytest.raises(ValueError, match=r"^flow: expected finite weights"):
        fit(flow, rows(20), rows(5), TrainConfig())
    with pytest.raises(ValueError, match=r"^directory: expected the folder to resume from"):
        fit(Gaussian(), rows(20), rows(5), TrainConfig(), resume=True)


def test_a_long_training_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "maskedflow")

    def told(seconds: float, **settings: int) -> str:
        clock = itertools.count(0, seconds)
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
        with progress.ProgressBar(False, TrainConfig(**settings), steps=450) as bar:
            for batch in range(1, 30):
                bar.step(1, batch, 0.0)
        text = caplog.text
        caplog.clear()
        return text

    assert "1.9 h to go" in told(1.5, epochs=10)
    assert "11 min an epoch" in told(1.5, epochs=10)
    assert told(1.5, epochs=10).count("to go") == 1
    assert "3 min to go" in told(1.5, epochs=10, steps=150)
    assert told(0.001, epochs=10) == ""


def test_colours_that_are_forced_make_no_terminal_of_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert progress.make_bar() is None
