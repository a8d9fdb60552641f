"""Compiled steps train as the plain loop does, to rounding, and wherever they are interrupted."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf
from interruptions import interrupt_compiled
from maskedflow.chain import Descent
from maskedflow.data import ContextStandardizer, Split
from maskedflow.training import History, NonFiniteError, TrainConfig, fit
from maskedflow.transforms import Dequantize, Logit, Narrow, Standardize
from test_training_resume import assert_same

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=1e-2, seed=3)


def rows(n: int, seed: int = 0, context: int = 0, dtype: torch.dtype = torch.float64) -> Split:
    """Numbers in (0, 8), and a context far from zero."""
    source = torch.Generator().manual_seed(seed)
    x = 8 * torch.rand(n, 3, generator=source, dtype=torch.float64)
    c = 5 + 3 * torch.randn(n, context, generator=source, dtype=torch.float64)
    return Split(x.to(dtype), c.to(dtype) if context else None)


def maf(context: int = 0, seed: int = 0, **options: Any) -> mf.flows.Flow:
    options = {"transforms": 2, "hidden_features": (8, 8), "activation": nn.Tanh, **options}
    source = torch.Generator().manual_seed(seed)
    return mf.flows.MAF(3, context, generator=source, **options).double()


def behind(*front: Any, context: int = 0, embedding: nn.Module | None = None) -> mf.flows.Flow:
    """A flow with preprocessing before it."""
    flow = maf(context)
    return mf.flows.Flow([*front, *flow.transform.transforms], flow.base, embedding).double()


def standardize() -> Standardize:
    return Standardize(torch.full((3,), 4.0), torch.tensor([2.0, 3.0, 1.0]))


def standardizer() -> ContextStandardizer:
    return ContextStandardizer(torch.full((2,), 5.0), torch.full((2,), 3.0))


def watched(flow: Any) -> Any:
    """The same flow, whose steps go through torch."""
    flow.register_forward_pre_hook(lambda *_: None)
    return flow


def weights(flow: nn.Module) -> list[Tensor]:
    """Dense, without what masks forbid."""
    return [value for value in flow.state_dict().values() if value.is_floating_point()]


def trained(flow: Any, config: TrainConfig, context: int, **options: Any) -> tuple[History, int]:
    """The history of a training, and how many calls took compiled steps in it."""
    splits = rows(90, 0, context, **options), rows(20, 1, context, **options)
    with mock.patch.object(Descent, "take", autospec=True, side_effect=Descent.take) as take:
        return fit(flow, *splits, config), take.call_count


FLOWS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "plain": (0, maf),
    "one transform": (0, lambda: maf(transforms=1)),
    "residual": (0, lambda: maf(residual=True, activation=nn.ReLU)),
    "context": (2, lambda: maf(2)),
    "order": (2, lambda: maf(2, order=[1, 2, 0])),
    "inverse": (2, lambda: mf.flows.IAF(3, 2, hidden_features=(8,), transforms=2).double()),
    "spline": (0, lambda: mf.flows.NSF(3, hidden_features=(8,), transforms=1).double()),
    "standardize": (0, lambda: behind(standardize())),
    "logit": (
        2,
        lambda: behind(Standardize(torch.zeros(3), torch.full((3,), 8.0)), Logit(0.05), context=2),
    ),
    "dequantize": (0, lambda: behind(Dequantize(), standardize())),
    "embedding": (2, lambda: behind(standardize(), context=2, embedding=standardizer())),
}
CONFIGS: dict[str, TrainConfig] = {
    "plain": CONFIG,
    "decay": replace(CONFIG, weight_decay=0.1),
    "clip": replace(CONFIG, clip=0.05),
    "cosine": replace(CONFIG, schedule="cosine"),
    "no clip": replace(CONFIG, clip=math.inf, batch_size=90),
    "steps": replace(CONFIG, schedule="cosine", steps=8),
}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((name, CONFIGS["plain"]) for name in FLOWS),
        *(("context", one) for one in CONFIGS.values()),
    ],
)
def test_trains_as_through_torch(name: str, config: TrainConfig) -> None:
    context, make = FLOWS[name]
    torch.manual_seed(0)
    ours, calls = trained(flow := make(), config, context)
    torch.manual_seed(0)
    theirs, none = trained(other := watched(make()), config, context)
    assert calls > 0
    assert none == 0
    assert ours.train_nll == pytest.approx(theirs.train_nll, rel=1e-9, abs=1e-9)
    assert ours.validation_nll == pytest.approx(theirs.validation_nll, rel=1e-8, abs=1e-8)
    assert ours.lr == theirs.lr
    assert (ours.steps, ours.best_epoch) == (theirs.steps, theirs.best_epoch)
    start = weights(make())
    for one, another, before in zip(weights(flow), weights(other), start, strict=True):
        torch.testing.assert_close(one, another, atol=1e-7, rtol=1e-6)
        assert one.shape == before.shape


def test_trains_as_through_torch_in_single_precision() -> None:
    def make() -> mf.flows.Flow:
        net = maf(2).float()
        scale = Standardize(torch.full((3,), 4.0).double(), torch.full((3,), 2.0).double())
        steps = [scale, Narrow(), *net.transform.transforms]
        return mf.flows.Flow(steps, net.base, ContextStandardizer(*torch.ones(2, 2).double()))

    ours, calls = trained(flow := make(), CONFIG, 2)
    theirs, none = trained(other := watched(make()), CONFIG, 2)
    assert (calls > 0, none) == (True, 0)
    assert ours.train_nll == pytest.approx(theirs.train_nll, rel=1e-4)
    for one, another in zip(weights(flow), weights(other), strict=True):
        torch.testing.assert_close(one, another, atol=1e-2, rtol=1e-2)


def test_noise_is_new_in_each_step() -> None:
    """So steps are taken one by one; rows that stay as they are go through in one call."""
    _, calls = trained(behind(Dequantize(), standardize()), CONFIG, 0)
    assert calls == 12  # six batches, twice
    _, calls = trained(behind(standardize()), CONFIG, 0)
    assert calls < 12


def test_frozen_parameters_stay() -> None:
    found = []
    for watch in (False, True):
        flow = maf(2)
        first, second = flow.transform.transforms
        first.requires_grad_(False)
        second.hyper.layers[0].bias.requires_grad_(False)
        before = [parameter.clone() for parameter in flow.parameters()]
        _, calls = trained(watched(flow) if watch else flow, CONFIG, 2)
        assert (calls > 0) != watch
        for parameter, start in zip(flow.parameters(), before, strict=True):
            if not parameter.requires_grad:
                assert parameter.grad is None
                torch.testing.assert_close(parameter, start.where(parameter != 0, 0.0))
        found.append(weights(flow))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-6)


def owns_memory(flow: nn.Module) -> bool:
    return all(
        parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
        for parameter in flow.parameters()
    )


def test_parameters_own_their_memory_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = maf()
    parameters = list(flow.parameters())
    trained(flow, CONFIG, 0)
    assert owns_memory(flow)
    assert all(a is b for a, b in zip(parameters, flow.parameters(), strict=True))
    interrupt_compiled(monkeypatch, 4)
    flow = maf()
    with pytest.raises(KeyboardInterrupt):
        trained(flow, CONFIG, 0)
    assert owns_memory(flow)
    assert not torch.equal(weights(flow)[0], weights(maf())[0])
    flow = maf()
    broken = Split(rows(90).x * 1e200)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="expects about 0 ± 1"), pytest.raises(NonFiniteError):
        fit(flow, broken, rows(20), replace(CONFIG, epochs=9))
    assert owns_memory(flow)


# -- interruptions --------------------------------------------------------------------------------


@pytest.fixture
def _frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskedflow.training.loop.SNAPSHOT_STEPS", 4)
    monkeypatch.setattr("maskedflow.training.loop.CHECKPOINT_SECONDS", -1.0)


KINDS: dict[str, tuple[int, Callable[..., mf.flows.Flow]]] = {
    "many": (2, lambda seed=0: maf(2, seed)),
    "singly": (0, lambda seed=0: behind(Dequantize(), standardize())),
}


@pytest.mark.usefixtures("_frequent")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 1, 3, 4, 5, 6, 11])  # six steps an epoch
def test_resumes_bit_for_bit(kind: str, at: int, tmp_path: Path) -> None:
    context, make = KINDS[kind]
    config = replace(CONFIG, schedule="cosine")
    splits = rows(90, 0, context), rows(20, 1, context)
    whole, part = tmp_path / "whole", tmp_path / "part"
    expected = fit(make(), *splits, config, directory=whole)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_compiled(patch, at)
        with pytest.raises(KeyboardInterrupt):
            fit(make(), *splits, config, directory=part)
    flow = make(seed=9)
    history = fit(flow, *splits, config, directory=part, resume=True)
    assert_same(whole, part)
    assert history.train_nll == expected.train_nll
    assert history.validation_nll == expected.validation_nll


@pytest.mark.usefixtures("_frequent")
def test_a_killed_process_resumes_bit_for_bit(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pytest, torch
import maskedflow.training.loop as loop
from interruptions import interrupt_compiled
from test_training_whole import CONFIG, maf, rows
torch.set_num_threads({torch.get_num_threads()})
loop.SNAPSHOT_STEPS, loop.CHECKPOINT_SECONDS = 4, -1.0
interrupt_compiled(pytest.MonkeyPatch(), 11, kill=True)
loop.fit(maf(2), rows(90, 0, 2), rows(20, 1, 2), CONFIG, directory={str(tmp_path / "part")!r})
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    splits = rows(90, 0, 2), rows(20, 1, 2)
    fit(maf(2), *splits, CONFIG, directory=tmp_path / "whole")
    fit(maf(2, 9), *splits, CONFIG, directory=tmp_path / "part", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "part")
    log = (tmp_path / "part" / "logs" / "training.log").read_text()
    assert "resumed in epoch 2 after 4 batches" in log


def test_the_size_of_a_call_is_of_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock decides how many steps a call takes, and nothing else."""
    found = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr("maskedflow.training.loop.LOOK_SECONDS", seconds)
        history, calls = trained(flow := maf(2), CONFIG, 2)
        found.append((history.train_nll, calls, weights(flow)))
    (ours, single, one), (theirs, many, other) = found
    assert single == 12
    assert many < 12
    assert ours == theirs
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# -- what is not finite ---------------------------------------------------------------------------


def broken_rows(which: slice) -> Split:
    split = rows(90)
    split.x[which] = 1e200
    return split


@pytest.mark.filterwarnings("ignore:train. column:UserWarning")  # a quarter of the rows is wild
@pytest.mark.parametrize("which", [slice(17, 18), slice(0, 90, 7), slice(0, 90, 4)], ids=str)
def test_steps_that_are_not_finite_are_skipped_as_through_torch(
    which: slice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("maskedflow.training.loop.SNAPSHOT_STEPS", 5)
    monkeypatch.setattr("maskedflow.training.loop.SKIPS_IN_A_ROW", 3)
    monkeypatch.setattr("maskedflow.training.loop.ROLLBACKS", 99)
    config = replace(CONFIG, batch_size=4)
    found = []
    for name, flow in (("compiled", maf()), ("torch", watched(maf()))):
        with mock.patch.object(Descent, "take", autospec=True, side_effect=Descent.take) as take:
            history = fit(flow, broken_rows(which), rows(20, 1), config, directory=tmp_path / name)
        assert take.called == (name == "compiled")
        log = (tmp_path / name / "logs" / "training.log").read_text().splitlines()
        skips = [line.split("  ")[-1] for line in log if "skipped" in line or "back to" in line]
        found.append((history, skips, weights(flow)))
    (ours, skipped, one), (theirs, skips, other) = found
    assert skipped == skips
    assert skips
    for mine, record in zip(ours.records, theirs.records, strict=True):
        assert (mine.skipped, mine.rollbacks) == (record.skipped, record.rollbacks)
        assert mine.train_nll == pytest.approx(record.train_nll, rel=1e-8)
    assert (theirs.records[-1].rollbacks > 0) == (which.step is not None)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


# -- flows that go through torch ------------------------------------------------------------------


def mixture_base() -> mf.flows.Flow:
    return maf(base=mf.flows.GMM(3, components=2))


def learned_embedding() -> mf.flows.Flow:
    return behind(context=2, embedding=nn.Linear(2, 2))


OTHERS: dict[str, tuple[int, Callable[[], mf.flows.Flow]]] = {
    "batch norm": (0, lambda: maf(batch_norm=True)),
    "embedding": (2, learned_embedding),
    "base": (0, mixture_base),
    "activation": (0, lambda: maf(activation=nn.Mish)),
    "tied": (0, lambda: tied(maf())),
    "rotation": (0, lambda: maf(between=rotation)),
    "hook": (0, lambda: watched(maf())),
}


def rotation(features: int) -> mf.transforms.LazyTransform:
    """A linear layer that the kernel does not know, its matrix not zero."""
    turn = torch.full((features, features), 0.1).triu(1)
    return mf.transforms.UnconditionalTransform(mf.transforms.RotationTransform, A=turn)


def tied(flow: Any) -> Any:
    """The same transform twice."""
    flow.transform.transforms.append(flow.transform.transforms[0])
    return flow


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_covered_trains_through_torch(name: str) -> None:
    context, make = OTHERS[name]
    flow = make()
    before = [parameter.clone() for parameter in flow.parameters()]
    history, calls = trained(flow, replace(CONFIG, epochs=4), context)
    assert calls == 0
    assert min(history.train_nll[1:]) < history.train_nll[0]
    moved = [not torch.equal(a, b) for a, b in zip(before, flow.parameters(), strict=True)]
    assert all(moved)
    assert owns_memory(flow)


def test_hooks_of_the_flow_see_every_batch() -> None:
    flow, seen = maf(), []
    flow.register_forward_hook(lambda module, *_: seen.append(module.training))
    trained(flow, CONFIG, 0)
    assert seen.count(True) == 12


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_descent_is_torchs_adam(kind: torch.dtype) -> None:
    """Step by step, moments too."""
    flow, other = (maf(transforms=1).to(kind) for _ in range(2))
    x = (rows(40).x - 4).to(kind)
    adams = [
        torch.optim.Adam(one.parameters(), weight_decay=0.05, fused=True) for one in (flow, other)
    ]
    descent = Descent(flow.chain, adams[0], clip=0.3, rows=16)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    bounds, rates = [(0, 16, 16), (16, 32, 16), (32, 40, 8)], [0.1, 0.05, 0.2]
    losses, norms = descent.take(x, None, order, bounds, rates)
    descent.release()
    expected = []
    for (start, end, _), rate in zip(bounds, rates, strict=True):
        loss = -other().log_prob(x[order[start:end]]).mean()
        adams[1].zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(other.parameters(), 0.3)
        adams[1].param_groups[0]["lr"] = rate
        adams[1].step()
        expected.append((loss.item(), norm.item()))
    tolerance = {"rel": 1e-4 if kind == torch.float32 else 1e-10}
    assert [*zip(losses, norms, strict=True)] == [
        pytest.approx(one, **tolerance) for one in expected
    ]
    rounding = {"atol": 1e-4, "rtol": 1e-3} if kind == torch.float32 else {}
    for one, another in zip(weights(flow), weights(other), strict=True):
        torch.testing.assert_close(one, another, **rounding)
    for mine, theirs in zip(flow.parameters(), other.parameters(), strict=True):
        for name, value in adams[0].state[mine].items():
            torch.testing.assert_close(value, adams[1].state[theirs][name], **rounding)
    assert owns_memory(flow)
