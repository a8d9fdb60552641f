"""Trains the same flows by one process and by three: `python tests/together.py FOLDER`.

Forked, so that they share one start of Python. What comes of each goes to FOLDER/<who>.npz.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

import maskedflow as mf
from maskedflow.data import Split, StreamedSplit, open_streamed, write_table
from maskedflow.tables.processes import searching
from maskedflow.tables.together import together
from maskedflow.training import Ranks, TrainConfig, calibrate, evaluate, fit
from maskedflow.transforms import ActNorm, BatchNorm, Dequantize, Whiten

SIZE = 3
CONFIG = TrainConfig(epochs=2, batch_size=15, lr=1e-2, seed=3)
"""With 92 rows, the last batch has two of them: one process has none."""


def rows(n: int = 92, seed: int = 0, context: int = 0, weighted: bool = False) -> Split:
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=source, dtype=torch.float64)
    c = torch.randn(n, context, generator=source, dtype=torch.float64)
    weight = 2 * torch.rand(n, generator=source, dtype=torch.float64)
    return Split(x, c if context else None, weight if weighted else None)


def maf(context: int = 0, **options: Any) -> mf.flows.Flow:
    options = {"transforms": 2, "hidden_features": (8, 8), "activation": nn.Tanh, **options}
    source = torch.Generator().manual_seed(0)
    return mf.flows.MAF(3, context, generator=source, **options).double()


def behind(first: Any) -> mf.flows.Flow:
    flow = maf()
    return mf.flows.Flow([first, *flow.transform.transforms], flow.base).double()


def watched(flow: Any) -> Any:
    """The same flow, whose steps go through torch."""
    flow.register_forward_pre_hook(lambda *_: None)
    return flow


def normed() -> mf.flows.Flow:
    """With batch norms whose shift does not begin at the best place, where no slope tells a way."""
    flow = maf(batch_norm=True)
    for module in flow.modules():
        if isinstance(module, BatchNorm):
            nn.init.constant_(module.beta, 0.3)
    return flow


def uncertain() -> mf.flows.Measured:
    """Of rows with errors, in cells: noise for each row, and for each draw of it."""
    return mf.flows.Measured(behind(Dequantize(0.5)), torch.zeros(3), torch.eye(3), draws=4)


def extreme() -> Split:
    """Rows of which two have no finite loss."""
    split = rows()
    split.x[[5, 60], 1] = 1e200
    return split


Case = tuple[Callable[[], nn.Module], Split, Split, TrainConfig]


def cases() -> dict[str, Case]:
    plain, judge = rows(), rows(21, 1)
    weighted = rows(context=2, weighted=True), rows(21, 1, context=2, weighted=True)
    errors = rows(context=3), rows(21, 1, context=3)
    for split in errors:
        split.context.abs_()
    clipped = replace(CONFIG, clip=0.05)
    return {
        "compiled": (maf, plain, judge, CONFIG),
        "torch": (lambda: watched(maf()), plain, judge, CONFIG),
        "weights": (lambda: maf(2), *weighted, clipped),
        "weights, torch": (lambda: watched(maf(2)), *weighted, clipped),
        "batch norm": (normed, plain, judge, CONFIG),
        "batch norm, weights": (normed, replace(weighted[0], context=None), judge, CONFIG),
        "batch norm, recomputed": (normed, plain, judge, replace(CONFIG, recompute=True)),
        "first batch": (lambda: maf(between=ActNorm), plain, judge, CONFIG),
        "training rows": (lambda: behind(Whiten.waiting(3)), plain, judge, CONFIG),
        "noise": (lambda: behind(Dequantize(0.5)), plain, judge, CONFIG),
        "noise, torch": (lambda: watched(behind(Dequantize(0.5))), plain, judge, CONFIG),
        "errors": (uncertain, *errors, CONFIG),
        "not finite": (maf, extreme(), judge, CONFIG),
        "not finite, torch": (lambda: watched(maf()), extreme(), judge, CONFIG),
        "shared memory": (lambda: maf(hidden_features=(320, 320)), plain, judge, CONFIG),
        "shared memory, torch": (
            lambda: watched(maf(hidden_features=(320, 320))),
            plain,
            judge,
            replace(CONFIG, clip=0.05),
        ),
        "single rows": (maf, rows(7), judge, replace(CONFIG, batch_size=1)),
    }


def outcome(flow: nn.Module, history: mf.training.History) -> np.ndarray:
    """Losses, steps that were left out, and all weights."""
    told = [*history.train_nll, *history.validation_nll, history.records[-1].skipped]
    weights = [v.double().flatten() for v in flow.state_dict().values()]
    return torch.cat([torch.tensor(told, dtype=torch.float64), *weights]).numpy()


def streamed(folder: Path) -> tuple[StreamedSplit, Split]:
    table = open_streamed(folder / "rows.parquet")
    assert table.streamed is not None
    return table.streamed, table.validation


def resumed(folder: Path, ranks: Ranks) -> Iterator[tuple[str, np.ndarray]]:
    """Goes on, with several processes and with one, where one and several have stopped."""
    for first, second in ((False, True), (True, False), (True, True)):
        root = folder / f"resumed {first} {second} {ranks.size}"
        for shared, epochs in ((first, 1), (second, 2)):
            who = ranks if shared else Ranks(alone=True)
            if shared or ranks.is_first:
                flow = maf()
                settings = replace(CONFIG, epochs=epochs)
                arguments = flow, rows(), rows(21, 1), settings
                history = fit(*arguments, directory=root, resume=True, ranks=who)
            ranks.wait()
        found = outcome(flow, history) if second or ranks.is_first else np.empty(0)
        yield f"resumed, {first} then {second}", found


def results(folder: Path) -> dict[str, np.ndarray]:
    """What comes of every case, in this process or with the others."""
    ranks, found = Ranks(), {}
    for name, (make, train, validation, config) in cases().items():
        flow = make()
        with torch.no_grad():  # those of the first process become everybody's
            for parameter in flow.parameters():
                parameter += 0.1 * ranks.rank
        found[name] = outcome(flow, fit(flow, train, validation, config))
    flow = mf.flows.MAF(2, generator=torch.Generator().manual_seed(0)).double()
    history = fit(flow, *streamed(folder), replace(CONFIG, epochs=1, batch_size=64))
    found["streamed"] = outcome(flow, history)

    flow = normed()
    calibrate(flow, rows(2500, context=0), ranks=ranks)
    log_prob = evaluate(flow, rows(2501), ranks=ranks)
    found["evaluation"] = log_prob.numpy()

    asked = count()
    stopped = fit(
        maf(), rows(), rows(21, 1), CONFIG, stopped=lambda: ranks.is_first and next(asked) >= 2
    )
    found["stopped"] = np.array(
        [stopped.records[-1].step, stopped.stopped_because == "interrupted"]
    )
    limited = replace(CONFIG, epochs=10**6, time_limit=0.3, patience=10**6)
    history = fit(watched(maf()), rows(), rows(21, 1), limited)
    found["time limit"] = np.array([history.steps, history.lr_steps, history.records[-1].step])
    found.update(resumed(folder, ranks))
    return found


def refusals() -> dict[str, str]:
    """What is said where processes cannot train together, and by one that is left alone."""
    ranks, found = Ranks(), {}
    flow = mf.flows.Flow(maf(4).transform, maf(4).base, nn.Sequential(nn.BatchNorm1d(4)))
    for name, make, config in (
        ("batch norm of torch's", flow.double, CONFIG),
        ("another rate", maf, replace(CONFIG, lr=1e-3 * (1 + ranks.rank))),
    ):
        context = 4 if name.startswith("batch") else 0
        try:
            fit(make(), rows(context=context), rows(21, 1, context=context), config)
        except (ValueError, ConnectionError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


HERE: list[float] = []
"""The numbers of which this process has taken the root."""


def root(number: float) -> float:
    HERE.append(number)
    return math.sqrt(number)


def searches() -> dict[str, np.ndarray]:
    """What the first process gets from calls that all make, and which were made here."""
    made, said = [], ""
    with searching(Ranks()) as first:
        if first:
            made += together([partial(root, number) for number in range(7)])
            try:
                together([partial(root, number) for number in (4.0, -1.0)])
            except ValueError as error:
                said = str(error)
            made += together([partial(root, number) for number in (16.0, 25.0)])
    return {"made": np.array(made), "said": np.array(said), "here": np.array(HERE)}


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    write_table(folder / "rows.parquet", ["a", "b"], [torch.randn(1000, 2).double()])
    children = {}
    for rank in range(SIZE):
        child = os.fork()
        if child == 0:
            distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=SIZE
            )
            np.savez(folder / f"rank {rank}.npz", **results(folder))
            np.savez(folder / f"searches {rank}.npz", **searches())
            told = refusals()
            np.savez(folder / f"refusals {rank}.npz", **{k: np.array(v) for k, v in told.items()})
            os._exit(0)
        children[child] = rank
    np.savez(folder / "alone.npz", **results(folder))
    for child, rank in children.items():
        assert os.waitpid(child, 0)[1] == 0, f"process {rank} failed"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
