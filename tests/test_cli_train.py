"""`maskedflow train`: the files of a run, the options, and going on after a stop."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import maskedflow as mf
from commands import SMALL, TREE, call, files, pair, run
from maskedflow.cli.options import TrainOptions
from maskedflow.cli.train import said
from maskedflow.runs.settings import DEFAULTS, settle

# -------------------------------------------------------------------------------------------- train


def test_a_run_leaves_exactly_its_tree(folder: Path) -> None:
    assert files(folder / "own") == {*TREE, "samples/own_samples.png"}
    log = (folder / "own" / "logs" / "training.log").read_text()
    assert "epoch 2" in log
    metrics = (folder / "own" / "logs" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == [1, 2]


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_a_known_data_set_trains(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(
        capsys,
        *("train", "--dataset", name, "--out", tmp_path, "--hidden_dim", 16, "--num_layers", 1),
        *("--epochs", 1, "--batch_size", 500, *(["--report"] if name == "digits" else [])),
    )
    assert code == 0
    tree = {*TREE, f"samples/{name}_samples.png"}
    assert files(tmp_path / name) == (tree | {"report.html"} if name == "digits" else tree)
    assert (f"report in {tmp_path / name / 'report.html'}" in out) == (name == "digits")
    assert "full Gaussian" in out
    assert "BPD" in out
    assert str(tmp_path / name) in out
    # Only digits has more features than a hidden layer has units.
    assert ("a hidden layer of 16 units" in err) == (name == "digits")
    summary = (tmp_path / name / "results_summary.txt").read_text()
    assert ("a hidden layer of 16 units" in summary) == (name == "digits")


def test_both_spellings_of_an_option_are_one(tmp_path: Path) -> None:
    data = pair(tmp_path)
    options = {"hidden_dim": 7, "num_layers": 1, "batch_size": 30, "time_limit": 60.0, "epochs": 1}
    recorded = []
    for separator, out in (("_", tmp_path / "x"), ("-", tmp_path / "y")):
        words = [w for k, v in options.items() for w in ("--" + k.replace("_", separator), v)]
        flag = f"--batch{separator}norm"
        assert run("train", "--data", data, "--out", out, *words, flag) == 0
        recorded.append(mf.load_run(out / "t").config)
    assert recorded[0] == recorded[1]
    assert options.items() <= recorded[0].options.items()
    assert recorded[0].options["batch_norm"] is True


def test_config_file_lies_below_the_command_line(tmp_path: Path) -> None:
    data = pair(tmp_path)
    config = tmp_path / "my.toml"
    config.write_text(
        f'data = "{data.as_posix()}"\nhidden-dim = 5\nepochs = 3\n'
        "num_layers = 1\nbatch_norm = true\n"
    )
    words = ("train", "--config", config, "--epochs", 1, "--no_batch_norm", "--out", tmp_path)
    assert run(*words) == 0
    found = mf.load_run(tmp_path / "t").config
    assert found.flow.arguments["hidden_features"] == [5, 5]
    assert found.flow.arguments["batch_norm"] is False
    assert found.training.epochs == 1


def test_a_runs_own_config_trains_the_same_again(folder: Path, tmp_path: Path) -> None:
    assert run("train", "--config", folder / "own" / "config.toml", "--out", tmp_path) == 0
    first, second = (
        load_file(root / "own" / "checkpoints" / "best.safetensors") for root in (folder, tmp_path)
    )
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_an_earlier_run_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pair(tmp_path)
    words = ("train", "--data", data, "--out", tmp_path, *SMALL)
    for seed in range(3):
        code, _, err = call(capsys, *words, "--seed", seed)
        assert (code, "earlier run" in err) == (0, seed > 0)
    seeds = [mf.load_run(tmp_path / name).config.training.seed for name in ("t.1", "t.2", "t")]
    assert seeds == [0, 1, 2]


def test_auto_trains_mnist_then_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[TrainOptions] = []
    monkeypatch.setattr(importlib.import_module("maskedflow.cli.train"), "_train", trained.append)
    assert run("train", "--auto", "--epochs", 7) == 0
    assert [options.dataset for options in trained] == ["mnist", "cifar10"]
    assert {options.epochs for options in trained} == {7}
    shapes = [
        tuple(settle(said(options))[name] for name in ("hidden_dim", "num_layers", "degrees"))
        for options in trained
    ]
    assert shapes == [(512, 5, "sequential"), (1024, 10, "random")]


def test_every_data_set_has_its_defaults() -> None:
    assert DEFAULTS.keys() == set(mf.data.NAMES)


def test_a_number_of_epochs_lifts_the_default_time_limit() -> None:
    assert settle({"dataset": "power"})["time_limit"] is not None
    assert settle({"dataset": "power", "epochs": 3})["time_limit"] is None
    assert settle({"dataset": "power", "epochs": 3, "time_limit": 5.0})["time_limit"] == 5.0


def test_made_is_one_transform(tmp_path: Path) -> None:
    data = pair(tmp_path)
    words = ("--flow", "made", "--epochs", 1, "--hidden_dim", 8)
    assert run("train", "--data", data, "--out", tmp_path, *words) == 0
    config = mf.load_run(tmp_path / "t").config
    assert (config.flow.name, "transforms" in config.flow.arguments) == ("MADE", False)


def test_tensorboard_shows_what_metrics_say(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = pair(tmp_path)
    words = ("train", "--data", data, "--out", tmp_path, "--tensorboard", "--hidden_dim", 8)
    words += ("--num_layers", 1, "--schedule", "constant")
    assert run(*words, "--epochs", 2) == 0
    assert run(*words, "--epochs", 3, "--resume") == 0
    logs = tmp_path / "t" / "logs"
    records = [json.loads(line) for line in (logs / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    events = EventAccumulator(str(logs)).Reload()
    assert set(events.Tags()["scalars"]) == records[0].keys() - {"epoch"}
    for name in events.Tags()["scalars"]:
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert told == [(r["epoch"], pytest.approx(r[name])) for r in records]


def test_without_tensorboard_one_line_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("maskedflow.cli.train")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    words = ("train", "--data", pair(tmp_path), "--out", tmp_path, "--tensorboard")
    code, _, err = call(capsys, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "maskedflow[tensorboard]" in err
    assert not (tmp_path / "t").exists()


# ------------------------------------------------------------------------------------------- resume


def weights(run_directory: Path) -> dict[str, torch.Tensor]:
    return load_file(run_directory / "checkpoints" / "latest.safetensors")


def test_resuming_with_more_epochs_is_training_longer(tmp_path: Path) -> None:
    data = pair(tmp_path, 100)
    words = ("train", "--data", data, "--schedule", "constant", "--hidden_dim", 8, "--seed", 3)
    assert run(*words, "--out", tmp_path / "x", "--epochs", 4) == 0
    assert run(*words, "--out", tmp_path / "y", "--epochs", 2) == 0
    # Everything but what is said here is taken from the run.
    short = ("train", "--data", data, "--out", tmp_path / "y", "--epochs", 4, "--resume")
    assert run(*short) == 0
    whole, resumed = weights(tmp_path / "x" / "t"), weights(tmp_path / "y" / "t")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole | resumed)
    assert mf.load_run(tmp_path / "y" / "t").config.training.seed == 3


def test_a_flow_is_not_resumed_as_a_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "--data", pair(tmp_path), "--out", tmp_path)
    assert run(*words, "--flow", "maf", *SMALL) == 0
    code, _, err = call(capsys, *words, "--flow", "auto", "--resume")
    assert (code, err.count("\n")) == (2, 1)
    assert f"--resume: {tmp_path / 't'} holds a single flow, --flow auto asks for a search" in err


def test_a_killed_run_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    data = pair(tmp_path, 300)
    words = ["train", "--data", str(data), "--hidden_dim", "32", "--num_layers", "2"]
    words += ["--batch_size", "20", "--schedule", "constant", "--patience", "100000"]
    killed = tmp_path / "x" / "t"
    long = ["--epochs", "100000", "--out", str(tmp_path / "x")]  # which no machine ends in time
    process = subprocess.Popen(
        [sys.executable, "-m", "maskedflow", *words, *long],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = killed / "logs" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "results_summary.txt").exists()

    epochs = metrics.read_text().count("\n") + 2
    for folder, resume in (("x", ["--resume"]), ("y", [])):
        assert run(*words, "--epochs", epochs, "--out", tmp_path / folder, *resume) == 0
    whole, resumed = weights(tmp_path / "y" / "t"), weights(killed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole | resumed)
    assert files(killed) == {*TREE, "samples/t_samples.png"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--hidden_dim", "9"], "hidden_features"),
        (["--lr", "0.5"], "lr"),
        (["--context", "c"], "columns"),
    ],
)
def test_a_resumed_run_keeps_its_flow(
    words: list[str], named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "own" / "config.toml").read_text()
    data = folder / "own.csv"
    code, _, err = call(capsys, "train", "--data", data, "--out", folder, "--resume", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert named in err
    assert (folder / "own" / "config.toml").read_text() == before


def test_resume_without_a_run_begins_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pair(tmp_path)
    code, _, err = call(capsys, "train", "--data", data, "--out", tmp_path, "--resume", *SMALL)
    assert (code, files(tmp_path / "t")) == (0, {*TREE, "samples/t_samples.png"})
    assert "beginning one" in err
