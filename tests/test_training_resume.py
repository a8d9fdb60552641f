"""A resumed training ends, bit for bit, where an uninterrupted one does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import maskedflow as mf
from interruptions import (
    CONFIG,
    TRAIN,
    VALIDATION,
    everything,
    interrupt,
    interrupt_compiled,
)
from maskedflow.data import Split
from maskedflow.training import History, TrainConfig, fit, load


@pytest.fixture(autouse=True)
def _frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskedflow.training.loop.SNAPSHOT_STEPS", 3)
    monkeypatch.setattr("maskedflow.training.loop.CHECKPOINT_SECONDS", -1.0)


def assert_same(one: Path, other: Path) -> None:
    """Compares all that two runs left, but for wall times."""
    for name in ("best", "latest"):
        first, second = (load_file(d / f"checkpoints/{name}.safetensors") for d in (one, other))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert metrics(one) == metrics(other)
    assert epochs_in_log(one) == epochs_in_log(other)


def metrics(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "logs/metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


def epochs_in_log(directory: Path) -> list[str]:
    lines = (directory / "logs/training.log").read_text().splitlines()
    return [line.split("  ")[1].split(" nats")[0] for line in lines if "  epoch" in line]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, History]]:
    directory = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskedflow.training.loop.SNAPSHOT_STEPS", 3)
        yield directory, fit(everything(), TRAIN, VALIDATION, CONFIG, directory=directory)


@pytest.mark.parametrize("at", [0, 2, 5, 7, 8, 9, 20])  # seven steps an epoch
def test_interrupted_at_a_step(
    at: int, uninterrupted: tuple[Path, History], tmp_path: Path
) -> None:
    flow = everything()
    interrupt(flow, at)
    with pytest.raises(KeyboardInterrupt):
        fit(flow, TRAIN, VALIDATION, CONFIG, directory=tmp_path)
    resumed = everything(seed=99)  # the weights to start from are in the checkpoint
    history = fit(resumed, TRAIN, VALIDATION, CONFIG, directory=tmp_path, resume=True)
    expected, expected_history = uninterrupted
    assert_same(tmp_path, expected)
    assert history.validation_nll == expected_history.validation_nll
    assert history.best_epoch == expected_history.best_epoch
    best = everything()
    load(expected / "checkpoints/best.safetensors", best)
    for key, value in best.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_killed_process(uninterrupted: tuple[Path, History], tmp_path: Path) -> None:
    """A real process, killed by SIGKILL in the middle of the second epoch."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
import maskedflow.training.loop as loop
from interruptions import CONFIG, TRAIN, VALIDATION, everything, interrupt
torch.set_num_threads({torch.get_num_threads()})
loop.SNAPSHOT_STEPS, loop.CHECKPOINT_SECONDS = 3, -1.0
flow = everything()
interrupt(flow, 12, kill=True)
loop.fit(flow, TRAIN, VALIDATION, CONFIG, directory={str(tmp_path)!r})
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert len(metrics(tmp_path)) == 1
    fit(everything(), TRAIN, VALIDATION, CONFIG, directory=tmp_path, resume=True)
    assert_same(tmp_path, uninterrupted[0])
    assert "resumed in epoch 2 after 3 batches" in (tmp_path / "logs/training.log").read_text()


def test_killed_between_the_log_and_the_checkpoint(
    uninterrupted: tuple[Path, History], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskedflow.training import loop

    write = loop.write_latest

    def fail(*args: Any, **kwargs: Any) -> None:
        if args[3].epoch == 3:
            raise KeyboardInterrupt
        write(*args, **kwargs)

    monkeypatch.setattr(loop, "write_latest", fail)
    with pytest.raises(KeyboardInterrupt):
        fit(everything(), TRAIN, VALIDATION, CONFIG, directory=tmp_path)
    assert len(metrics(tmp_path)) == 2
    monkeypatch.setattr(loop, "write_latest", write)
    fit(everything(), TRAIN, VALIDATION, CONFIG, directory=tmp_path, resume=True)
    assert_same(tmp_path, uninterrupted[0])  # no epoch is there twice


@pytest.mark.filterwarnings("ignore:train. column:UserWarning")  # a quarter of the rows is wild
@pytest.mark.parametrize("compiled", [False, True], ids=["torch", "compiled"])
def test_resumes_after_a_roll_back(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    x[::4] = 1e25  # most batches of four break
    split = Split(x)
    config = TrainConfig(epochs=2, batch_size=4, lr=1e-2)
    monkeypatch.setattr("maskedflow.training.loop.ROLLBACKS", 99)
    monkeypatch.setattr("maskedflow.training.loop.SKIPS_IN_A_ROW", 2)

    def flow(seed: int = 0) -> mf.flows.Flow:
        maf = mf.flows.MAF(2, hidden_features=(8,), generator=torch.Generator().manual_seed(seed))
        if not compiled:
            maf.register_forward_pre_hook(lambda *_: None)  # whose calls are watched
        return maf

    validation = Split(torch.zeros(5, 2))
    history = fit(flow(), split, validation, config, directory=tmp_path / "whole")
    assert history.records[-1].rollbacks > 2
    for at in range(1, 20, 3):
        broken, directory = flow(), tmp_path / str(at)
        with monkeypatch.context() as patch:
            if compiled:
                interrupt_compiled(patch, at)
            else:
                interrupt(broken, at)
            with pytest.raises(KeyboardInterrupt):
                fit(broken, split, validation, config, directory=directory)
        fit(flow(1), split, validation, config, directory=directory, resume=True)
        assert_same(tmp_path / "whole", directory)


def test_random_masks_come_from_the_checkpoint(tmp_path: Path) -> None:
    """Another mask gives a layer another parameter, and the optimizer must have that one."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    fit(everything(random=True), TRAIN, VALIDATION, CONFIG, directory=whole)
    flow = everything(random=True)
    interrupt(flow, 10)
    with pytest.raises(KeyboardInterrupt):
        fit(flow, TRAIN, VALIDATION, CONFIG, directory=part)
    flow = everything(seed=1, random=True)
    fit(flow, TRAIN, VALIDATION, CONFIG, directory=part, resume=True)
    assert_same(whole, part)


def test_more_epochs(uninterrupted: tuple[Path, History], tmp_path: Path) -> None:
    constant = replace(CONFIG, schedule="constant")
    fit(everything(), TRAIN, VALIDATION, constant, directory=tmp_path / "whole")
    first = replace(constant, epochs=1, patience=5)
    fit(everything(), TRAIN, VALIDATION, first, directory=tmp_path / "part")
    fit(everything(), TRAIN, VALIDATION, constant, directory=tmp_path / "part", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "part")


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    flow, again = everything(), everything(seed=1)
    history = fit(flow, TRAIN, VALIDATION, CONFIG, directory=tmp_path)
    before = (tmp_path / "checkpoints/latest.safetensors").read_bytes()
    assert fit(again, TRAIN, VALIDATION, CONFIG, directory=tmp_path, resume=True) == history
    assert (tmp_path / "checkpoints/latest.safetensors").read_bytes() == before
    for key, value in flow.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_nothing_to_resume_starts_at_the_beginning(
    uninterrupted: tuple[Path, History], tmp_path: Path
) -> None:
    fit(everything(), TRAIN, VALIDATION, CONFIG, directory=tmp_path, resume=True)
    assert_same(tmp_path, uninterrupted[0])


def test_starting_anew_forgets_the_old_run(tmp_path: Path) -> None:
    fit(everything(), TRAIN, VALIDATION, CONFIG, directory=tmp_path)
    flow = everything()
    interrupt(flow, 2)
    with pytest.raises(KeyboardInterrupt):
        fit(flow, TRAIN, VALIDATION, CONFIG, directory=tmp_path)
    assert metrics(tmp_path) == []
    assert not (tmp_path / "checkpoints/best.safetensors").exists()


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    fit(everything(), TRAIN, VALIDATION, CONFIG, directory=tmp_path)
    for change in ({"lr": 0.5}, {"batch_size": 8}, {"schedule": "constant"}, {"seed": 1}):
        (name,) = change
        config = replace(CONFIG, **change)
        with pytest.raises(ValueError, match=rf"^{name}: .*latest.safetensors was trained with"):
            fit(everything(), TRAIN, VALIDATION, config, directory=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"^number of training rows: .* with 120, got 30$"):
        fit(everything(), VALIDATION, VALIDATION, CONFIG, directory=tmp_path, resume=True)
    other = mf.flows.MAF(4, context=2, hidden_features=(8,))
    with pytest.raises(ValueError, match=r"^latest\.safetensors: "):
        fit(other, TRAIN, VALIDATION, CONFIG, directory=tmp_path, resume=True)


def test_optimizer_state_is_kept_by_parameter_name(tmp_path: Path) -> None:
    flow = everything()
    fit(flow, TRAIN, VALIDATION, CONFIG, directory=tmp_path)
    keys = load_file(tmp_path / "checkpoints/latest.safetensors").keys()
    names = {name for name, _ in flow.named_parameters()}
    for kind in ("exp_avg", "exp_avg_sq", "step"):
        prefix = f"optimizer/{kind}/"
        assert {key.removeprefix(prefix) for key in keys if key.startswith(prefix)} == names
