"""What a release writes, small, kept in tests/golden and opened for ever.

    python tests/golden_files.py 0.1.0

makes a folder of that name, with a file or a run of each kind beside its rows, and what all of them
answer: log-densities, and draws by a seed. A release adds a folder, and leaves the others alone.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.cli import main
from maskedflow.tables import angles, codes, contest, flow_training
from maskedflow.training import TrainConfig

GOLDEN = Path(__file__).parent / "golden"
ANSWERS = "answers.json"
SMALL = "--hidden_dim 8 --num_layers 2 --epochs 1 --batch_size 50 --lr 1e-2 --no_report".split()  # noqa: SIM905

Answers = dict[str, Any]

RUNS = {
    "numbers": "--flow maf --batch_norm --base mixture",
    "context": "--flow nsf --context c --base student-t --residual",
    "streamed": "--flow maf --stream --degrees random --start gaussian",
    "errors": "--flow maf --error a=c",
    "series": "--time when --window 4",
    "labels": "",
}
"""The runs of single flows, and the options of `maskedflow train` beside small ones."""

FLOWS: dict[str, Callable[[], nn.Module]] = {
    "made": lambda: mf.flows.MADE(3, 1, components=2, hidden_features=(8,)),
    "maf": lambda: mf.flows.MAF(3, 1, 2, hidden_features=(8,), batch_norm=True),
    "iaf": lambda: mf.flows.IAF(3, transforms=1, hidden_features=(8,)),
    "nice": lambda: mf.flows.NICE(4, transforms=2, hidden_features=(8,)),
    "realnvp": lambda: mf.flows.RealNVP(4, transforms=2, hidden_features=(8,)),
    "nsf": lambda: mf.flows.NSF(3, transforms=1, hidden_features=(8,)),
    "ncsf": lambda: mf.flows.NCSF(2, transforms=1, hidden_features=(8,)),
    "naf": lambda: mf.flows.NAF(2, transforms=1, hidden_features=(8,)),
    "unaf": lambda: mf.flows.UNAF(2, transforms=1, hidden_features=(8,)),
    "sospf": lambda: mf.flows.SOSPF(2, transforms=1, hidden_features=(8,)),
    "bpf": lambda: mf.flows.BPF(2, transforms=1, hidden_features=(8,)),
    "gf": lambda: mf.flows.GF(2, transforms=1),
    "gmm": lambda: mf.flows.GMM(2, components=3),
    "glow": lambda: mf.flows.Glow(4, transforms=2, image_shape=(1, 2, 2), hidden_features=(4,)),
    "pixelcnn": lambda: mf.flows.PixelCNN(
        9, components=2, image_shape=(1, 3, 3), hidden_features=(6, 6), kernel_size=3
    ),
}
"""Flows whose weights alone are in a file."""


def numbers(n: int = 100) -> pd.DataFrame:
    """Two numbers that hang together, and the standard deviations of the errors of one."""
    a, b, c = np.random.default_rng(0).normal(size=(3, n))
    return pd.DataFrame({"a": a, "b": a**2 + 0.3 * b, "c": 0.1 + 0.1 * c**2})


def mixed(n: int = 170) -> pd.DataFrame:
    """Columns of all kinds, with gaps."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=n)
    day = np.datetime64("2024-01-01") + rng.integers(0, 300, n)
    gaps = np.where(rng.random(n) < 0.2, np.nan, x + 0.5 * rng.normal(size=n))
    columns = {"x": x, "gaps": gaps, "income": np.round(np.exp(9 + x), -2), "day": day}
    columns |= {"kind": np.where(x > 0, "u", "v"), "flag": rng.random(n) < 0.3}
    return pd.DataFrame(columns | {"wind": (180 + 60 * x) % 360, "given": rng.normal(size=n)})


def wave(n: int = 60) -> pd.DataFrame:
    """A series of hours."""
    when = pd.date_range("2024-01-01", periods=n, freq="h")
    noise = np.random.default_rng(2).normal(size=n)
    return pd.DataFrame({"when": when, "load": np.sin(np.arange(n) / 4) + 0.1 * noise})


def digits() -> pd.DataFrame:
    """A few images as rows, with their classes."""
    test = mf.data.load("digits", labels=True).test[:4]
    names = [f"pixel_{k}" for k in range(64)] + [f"label_{k}" for k in range(10)]
    both = torch.cat([test.x.flatten(1).float(), test.context], dim=1)
    return pd.DataFrame(both.numpy().astype(int), columns=names)


# ------------------------------------------------------------------------------------------ making


def make(folder: Path) -> None:
    """Writes all of it."""
    for name, options in RUNS.items():
        make_run(folder / name, {"series": wave, "labels": digits}.get(name, numbers)(), options)
    make_search(folder / "search")
    for name in ("estimator", "npe", "nle"):
        (folder / name).mkdir(parents=True)
        OTHERS[name][0](folder / name)
    for name, build in FLOWS.items():
        mf.training.save(folder / "flows" / f"{name}.safetensors", perturbed(build))
    answers = {name: ask(folder, name) for name in names(folder)}
    (folder / ANSWERS).write_text(json.dumps(answers, indent=1) + "\n")


def make_run(folder: Path, rows: pd.DataFrame, options: str) -> None:
    """A run of a single flow."""
    folder.mkdir(parents=True)
    rows.to_csv(folder / "rows.csv", index=False)
    data = ["--dataset", "digits", "--labels"] if not options else ["--data", f"{folder}/rows.csv"]
    command("train", *data, *options.split(), *SMALL, "--out", str(folder))
    run = folder / ("digits" if not options else "rows")
    forget(run, folder)


def make_search(folder: Path) -> None:
    """A run of a search, in which every kind has a weight, and flows are narrow."""
    folder.mkdir(parents=True)
    mixed().to_csv(folder / "rows.csv", index=False)
    (folder / "s.toml").write_text('[columns.wind]\nkind = "angle"\nperiod = 360\n')
    with few_and_narrow():
        words = ["--schema", str(folder / "s.toml"), "--missing", "model", "--context", "given"]
        words += ["--work", "2", "--no_report", "--data", str(folder / "rows.csv")]
        command("train", *words, "--out", str(folder))
    (folder / "s.toml").unlink()
    forget(folder / "rows", folder)


def make_estimator(folder: Path) -> None:
    rows = mixed()
    estimator = mf.DensityEstimator("gaussian", missing="model", work=0.2)
    estimator.fit(rows.drop(columns="given"), context=rows[["given"]])
    rows.to_csv(folder / "rows.csv", index=False)
    estimator.save(folder / "estimator.safetensors")


def make_npe(folder: Path) -> None:
    theta = prior().sample((200,), torch.Generator().manual_seed(0))
    npe().fit(theta, theta**2).save(folder / "posterior.safetensors")


def make_nle(folder: Path) -> None:
    theta = prior().sample((200,), torch.Generator().manual_seed(0))
    nle().fit(theta, theta + theta.flip(1) ** 2).save(folder / "likelihood.safetensors")


@contextmanager
def few_and_narrow() -> Iterator[None]:
    """Has a search weigh all kinds alike, and try one narrow flow: its file is small."""
    training = flow_training.FlowTraining
    settle = training.settle

    def settle_narrow(self: flow_training.FlowTraining, work: float) -> float:
        self.hidden = 8
        return settle(self, work)

    def evenly(log_probs: Tensor, weight: Tensor | None = None) -> Tensor:
        return torch.full(log_probs.shape[1:], 1 / log_probs.shape[1], dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contest, "stacking_weights", evenly)
        patch.setitem(contest.FLOWS, "auto", (("scores", "as"),))
        patch.setattr(training, "settle", settle_narrow)
        patch.setattr(angles, "_HIDDEN", (8, 8))
        patch.setattr(codes, "_HIDDEN", 8)
        yield


def perturbed(build: Callable[[], nn.Module]) -> nn.Module:
    """A flow that is not near the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = build()
        with torch.no_grad():
            for weight in flow.parameters():
                weight += 0.1 * torch.randn_like(weight)
    return flow


def forget(run: Path, folder: Path) -> None:
    """Leaves out what nothing is opened from, and where it was made."""
    shutil.rmtree(run / "samples")
    for path in (*run.rglob("latest.safetensors"), *run.rglob("training.log")):
        path.unlink()
    for path in (run / "config.toml", run / "results_summary.txt"):
        path.write_text(path.read_text().replace(f"{folder.resolve()}/", ""))


def command(*words: str) -> None:
    """Runs a command."""
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0, words  # noqa: PT017


# ------------------------------------------------------------------------------------------ asking


def names(folder: Path) -> list[str]:
    """What there is in the folder of a release."""
    flows = sorted(path.stem for path in folder.glob("flows/*.safetensors"))
    others = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return [*(name for name in others if name != "flows"), *(f"flows/{name}" for name in flows)]


def ask(folder: Path, name: str) -> Answers:
    """What something in the folder of a release answers."""
    if name.startswith("flows/"):
        return ask_flow(folder / f"{name}.safetensors")
    if name in OTHERS:
        return OTHERS[name][1](folder / name)
    return ask_run(folder / name)


def ask_run(folder: Path) -> Answers:
    """Of a run the scores of its rows, and draws, as the command line writes them."""
    run, rows = next(path for path in folder.iterdir() if path.is_dir()), folder / "rows.csv"
    config, output = mf.load_run(run).config.data, folder / "answer.csv"
    given = ["--context", str(rows)] if config.context_columns else []
    given = ["--data", str(rows), "--steps", "4"] if config.time else given
    answers = {}
    try:
        for what, words in {
            "scores": ["score", str(run), str(rows)],
            "draws": ["sample", str(run), "-n", "2", "--seed", "1", *given],
        }.items():
            command(*words, "-o", str(output))
            with output.open(newline="") as file:
                answers[what] = [[cell(text) for text in row] for row in csv.reader(file)][:20]
    finally:
        output.unlink(missing_ok=True)
    return answers


def ask_estimator(folder: Path) -> Answers:
    estimator = mf.DensityEstimator.load(folder / "estimator.safetensors")
    rows = pd.read_csv(folder / "rows.csv", parse_dates=["day"])[:10]
    given = rows[["given"]]
    scores = estimator.score_samples(rows.drop(columns="given"), context=given)
    draws = estimator.sample(1, random_state=1, context=given)
    draws["day"] = draws["day"].dt.strftime("%Y-%m-%d")
    return {"scores": scores.tolist(), "draws": json.loads(draws.to_json(orient="values"))}


def ask_npe(folder: Path) -> Answers:
    posterior = npe().load(folder / "posterior.safetensors").set_default_x(torch.tensor([0.2, 0.5]))
    theta = torch.tensor([[0.1, 0.2], [-0.5, 0.7]])
    return asked(posterior.log_prob(theta), posterior.sample((3,), generator=seeded()))


def ask_nle(folder: Path) -> Answers:
    posterior = nle().load(folder / "likelihood.safetensors")
    theta, x = torch.tensor([[0.1, 0.2], [-0.5, 0.7]]), torch.tensor([[0.2, 0.5], [0.1, 0.0]])
    return asked(
        posterior.potential(theta, x=x), posterior.likelihood(theta).sample((2,), seeded())
    )


def ask_flow(path: Path) -> Answers:
    flow: Any = FLOWS[path.stem]()
    mf.training.load(path, flow)
    flow.eval()
    c = torch.full((1,), 0.5) if path.stem in ("made", "maf") else None
    size = flow(c).event_shape.numel()
    x = torch.sin(1.7 * torch.arange(3 * size)).reshape(3, size)
    with torch.no_grad():
        return asked(flow(c).log_prob(x), flow(c).sample((2,), generator=seeded()))


def prior() -> Any:
    return mf.distributions.BoxUniform(-torch.ones(2), torch.ones(2))


def small(features: int, context: int) -> Any:
    return mf.flows.NSF(features, context, transforms=1, hidden_features=(8,))


def npe() -> Any:
    return mf.NPE(prior(), small, config=TrainConfig(epochs=2))


def nle() -> Any:
    return mf.NLE(prior(), small, config=TrainConfig(epochs=2))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def asked(scores: Tensor, draws: Tensor) -> Answers:
    return {"scores": scores.tolist(), "draws": draws.tolist()}


def cell(text: str) -> Any:
    """A number, if it is one."""
    try:
        return float(text)
    except ValueError:
        return text


OTHERS = {
    "estimator": (make_estimator, ask_estimator),
    "npe": (make_npe, ask_npe),
    "nle": (make_nle, ask_nle),
}
"""How what is no run is made, and asked."""


if __name__ == "__main__":
    make(GOLDEN / sys.argv[1])
