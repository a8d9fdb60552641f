"""The training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskedflow.data import Split
from maskedflow.files import exclusive
from maskedflow.transforms import BatchNorm
from maskedflow.transforms.normalization import batch_weighs
from maskedflow.transforms.part import part_of_batch
from maskedflow.transforms.recomputed import recomputing

from .batches import (
    Training,
    bounds,
    in_memory,
    input_like,
    largest,
    order_of,
    shuffled,
    take,
    weight_of,
)
from .calibration import calibrate
from .checkpoint import load, load_moments, read_latest, save, write_latest
from .config import TrainConfig
from .device import Device, device_of, move
from .distributed import Ranks, begin_together
from .evaluation import evaluate, seconds_for, takes_integers
from .history import History, RunLog, StopReason
from .progress import ProgressBar
from .randomness import noise_of, seed_step
from .rows import Rows, check_context, splits_of
from .start import start_at
from .state import Pace, TrainingState
from .step import step_if_finite
from .units import warn_of_units
from .whole import WholeSteps, awaits_batch

SNAPSHOT_STEPS = 100
"""Steps between two snapshots: where a roll-back returns to and a checkpoint may be written.

Counted in steps, because a resumed run must have its snapshots where the first one had them.
"""

LOOK_SECONDS = 0.05
"""About as long nobody looks at steps that are taken in one call."""

CHECKPOINT_SECONDS = 60.0
"""Within an epoch, a snapshot is written to disk when the last one there is older."""

SKIPS_IN_A_ROW = 5
"""Steps with a non-finite loss or gradient, one after the other, that lead to a roll-back."""

ROLLBACKS = 3
"""Roll-backs that are tried before training stops with an error."""


class NonFiniteError(ValueError):
    """The loss, its gradient or the weights stopped being finite, and roll-backs did not help."""


def fit(
    flow: nn.Module,
    train: Rows | Training,
    validation: Rows | None = None,
    config: TrainConfig | None = None,
    *,
    directory: str | Path | None = None,
    resume: bool = False,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = False,
    tensorboard: bool = False,
    stopped: Callable[[], bool] | None = None,
    device: Device | None = None,
    ranks: Ranks | None = None,
) -> History:
    r"""Fits a flow to data by maximum likelihood.

    Adam descends the mean negative log-likelihood of mini-batches,

    .. math:: L = -\frac{1}{|B|} \sum_{i \in B} w_i \log p(x_i \mid c_i) \quad \text{(nats)},

    over freshly shuffled epochs, after :func:`start_at` has set what waits for the training rows.
    Weights of rows are exact: those of the training rows are divided by their mean, 1 if there are
    none. Batch norms of the flow, and what the first batch sets, go by them too; those of an
    embedding network know of none. Rows of weight 0 are left out. After each epoch batch-norm
    statistics are set from all training rows, and the validation NLL is computed; the weights of
    the best epoch are in the flow when `fit` returns, and the flow is in evaluation mode.

    Steps whose loss or gradient is not finite are left out. Several in a row lead back to the last
    good weights and optimizer moments, at half the learning rate.

    Where a group of :mod:`torch.distributed` has been initialised, its processes train together, as
    one would: all call `fit` with the same rows and settings, each computes its part of every
    batch, the first one's first weights are everybody's, and it alone writes.

    Args:
        flow: A module whose call `flow(c)` gives a distribution with `log_prob`.
        train: The training rows, in the data's own units: a tensor or NumPy array x with shape
            (n, features), a pair (x, context), or a :class:`~maskedflow.data.Split`; or those of a
            table that stays on disk, see :func:`maskedflow.data.open_streamed`, of which a sample
            sets batch-norm statistics. Contexts have shape (n, context), or any (n, ...) that the
            flow's embedding network takes.
        validation: The rows that decide when to stop and which weights to keep, alike. If None, a
            tenth of the training rows, dealt by the seed of `config`, copies of a row on one side.
            Their mean goes by their weights.
        config: The settings; those of `TrainConfig()` if None.
        directory: Where `checkpoints/{best,latest}.safetensors` and `logs/{training.log,
            metrics.jsonl}` are written; `None` writes nothing.
        resume: Whether to go on from `latest.safetensors`. The result is then bit for bit that of
            a run that was never stopped. Where there is no checkpoint yet, training starts at the
            beginning.
        metadata: JSON-serializable values for the header of the checkpoints.
        progress: Whether to draw a progress bar, on a terminal or in a notebook.
        tensorboard: Whether to write TensorBoard's event files beside `metrics.jsonl`.
        stopped: Asked after steps whether to end, with a last validation; None never does.
        device: Where the flow is moved, and stays: "cpu", "cuda", "mps", a `torch.device`, or
            "auto", which is CUDA where there is one and else the CPU; None leaves it where it is.
            Rows stay where they are, and follow batch by batch. Results by seed are those of one
            device.
        ranks: The processes that train together; if None, all of an initialised group.

    Returns:
        Training and validation NLL, learning rate and wall time of each epoch.

    Raises:
        TypeError: If something else than a module, rows and settings is given.
        ValueError: If the data are empty or not finite, if validation rows have another shape than
            training rows, if the checkpoint to resume from is damaged or of another configuration,
            if another process trains in the directory, if processes that train together were given
            other data or settings, if the device is not there or cannot hold the flow's float64, or
            if no validation NLL was ever finite.
        ConnectionError: If one of them has ended.
        NonFiniteError: If roll-backs did not bring back a finite loss.

    Warns:
        UserWarning: If columns of numbers, or of a context, come far from mean 0 and deviation 1 to
            the first network of a flow.

    References:
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017)
        https://arxiv.org/abs/1705.07057

    Example:
        >>> import maskedflow as mf
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = mf.flows.MAF(2, hidden_features=(16,))
        >>> history = fit(flow, x[:900], x[900:], TrainConfig(epochs=1))
        >>> history.stopped_because
        'epochs'
    """
    if not isinstance(flow, nn.Module):
        raise TypeError(f"flow: expected a torch.nn.Module, got a {type(flow).__name__}")
    config = TrainConfig() if config is None else config
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config: expected a TrainConfig, got a {type(config).__name__}")
    if device is not None:
        move(flow, device_of(device))
    train, validation = splits_of(train, validation, config.seed)
    check_context(flow, train)
    if resume and directory is None:
        raise ValueError("directory: expected the folder to resume from, got None")
    root = None if directory is None else Path(directory)
    ranks = Ranks(weight_of(flow).device) if ranks is None else ranks
    writes = root is not None and ranks.is_first
    log = RunLog(root / "logs" if root is not None and writes else None, tensorboard)
    run = _Run(flow, train, validation, config, root, log, dict(metadata or {}), ranks)
    run.is_stopped = stopped or run.is_stopped
    bar = ProgressBar(progress and ranks.is_first, config, len(run.bounds))
    lock = exclusive(root) if root is not None and writes else nullcontext()
    drawing = [run.device] if run.device.type == "cuda" else []
    # Torch's own generator is put back, afterwards, to where the caller had it.
    with lock, torch.random.fork_rng(drawing), torch.enable_grad(), closing(log):
        if ranks.is_first:
            warn_of_units(flow, run.sample)
        try:
            run.start(resume)
            with bar:
                while (reason := run.stop_reason()) is None:
                    run.train_epoch(bar)
                    run.finish_epoch(bar)
        finally:
            if run.whole is not None:
                run.whole.release()
    return run.finish(reason)


class _Run:
    """One call of `fit`: the flow, its optimizer, and where the training is."""

    def __init__(
        self,
        flow: nn.Module,
        train: Training,
        validation: Split,
        config: TrainConfig,
        root: Path | None,
        log: RunLog,
        metadata: dict[str, Any],
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        self.flow, self.train, self.validation, self.config = flow, train, validation, config
        self.sample = in_memory(train)
        self.noise = noise_of(flow)
        self.has_batch_norm = any(isinstance(module, BatchNorm) for module in flow.modules())
        merge = any(isinstance(module, BatchNorm | _BatchNorm) for module in flow.modules())
        self.bounds = bounds(len(train), config.batch_size, merge=merge)
        self.integers = takes_integers(flow, self.sample)
        self.whole: WholeSteps | None = None
        self.is_stopped: Callable[[], bool] = bool
        self.device = weight_of(flow).device
        self.nll = torch.compile(self._nll) if config.compile else self._nll

        checkpoints = None if root is None else root / "checkpoints"
        self.best_path = checkpoints and checkpoints / "best.safetensors"
        self.latest_path = checkpoints and checkpoints / "latest.safetensors"
        self.log, self.metadata = log, metadata
        sizes = {"training": len(train), "validation": len(validation)}
        self.data = {f"number of {name} rows": size for name, size in sizes.items()}

        self.state = TrainingState()
        self.skips_in_a_row = 0
        self.best_weights: dict[str, Tensor] | None = None
        self.good: tuple[dict[str, Tensor], dict[str, Any]]
        self.started = self.written = time.monotonic()

    def start(self, resume: bool) -> None:
        """Begins, or goes back to the checkpoint."""
        found = resume and self.latest_path is not None and self.latest_path.exists()
        if resumed := bool(self.ranks.decide(found)):
            self.read_checkpoints()
        else:
            if self.best_path is not None and self.ranks.is_first:
                self.best_path.unlink(missing_ok=True)  # of an earlier run in this folder
            start_at(self.flow, self.sample)
            self.make_optimizer()
            self.log.start([], 0)
            what = f"{sum(p.numel() for p in self.parameters)} parameters on {len(self.train)} rows"
            self.log.line(f"training {what}, {len(self.bounds)} steps an epoch")
            self.log.line(repr(self.config))
        self.pace = Pace(self.config, self.state, len(self.bounds))
        self.flow.train()
        if awaits_batch(self.flow):
            self.initialize()
        told = f"{self.data}, step {self.state.step} and {self.config}"
        self.gradients = begin_together(self.ranks, self.flow, self.parameters, told)
        if not self.integers:
            rows = max(-(-(end - start) // self.ranks.size) for start, end in self.bounds)
            arguments = self.optimizer, self.train, self.config, self.like, rows
            self.whole = WholeSteps.of(self.flow, *arguments, self.ranks, self.gradients)
        if not self.is_finite():
            raise ValueError("flow: expected finite weights to start from, got nan or inf")
        self.started = time.monotonic() - self.state.epoch_seconds
        if self.config.limit is not None and not self.state.records:
            splits = (self.validation, self.sample) if self.has_batch_norm else (self.validation,)
            self.state.validation_seconds = seconds_for(self.flow, *splits)
        self.take_snapshot(write=not resumed)

    def read_checkpoints(self) -> None:
        """Brings back what `latest` and `best` hold, and the log as it was then."""
        assert self.latest_path is not None
        assert self.best_path is not None
        self.state, log_size, moments = read_latest(
            self.latest_path, self.flow, config=self.config, data=self.data
        )
        # only now: a masked layer that is loaded with another mask gets a new parameter
        self.make_optimizer()
        load_moments(self.flow, self.optimizer, moments)
        if self.state.best_epoch > 0:
            latest = _clone(self.flow.state_dict())
            load(self.best_path, self.flow)
            self.best_weights = _clone(self.flow.state_dict())
            self.flow.load_state_dict(latest)
        self.log.start(self.state.records, log_size)
        self.log.line(f"resumed in epoch {self.state.epoch} after {self.state.batch} batches")

    def make_optimizer(self) -> None:
        self.parameters = [p for p in self.flow.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("flow: expected a parameter to train, got none")
        self.like = input_like(self.flow)
        decay = self.config.weight_decay
        self.optimizer = torch.optim.Adam(self.parameters, weight_decay=decay, fused=True)

    @torch.no_grad()
    def initialize(self) -> None:
        """Has the first batch set what waits for it: a program only reads."""
        state, seed = self.state, self.config.seed
        following = self.bounds[state.batch : state.batch + 1]
        _, batch = next(shuffled(self.train, following, seed, state.epoch))
        seed_step(self.noise, self.device, seed, state.epoch, state.batch)
        x, c = take(batch, slice(None), self.like, self.integers)
        self._nll(x, c, batch.weight, len(x))

    def stop_reason(self) -> StopReason | None:
        """Why no further epoch is trained, or None."""
        state = self.state
        if not state.records:
            return None
        if state.epoch > self.config.epochs:
            return "epochs"
        if state.step >= self.pace.steps:
            return "time_limit" if self.config.steps is None else "steps"
        if state.epoch - 1 - state.best_epoch >= self.config.patience:
            return "patience"
        if self.ranks.decide(self.is_stopped()):
            return "interrupted"
        return "time_limit" if self.ranks.decide(self.pace.out_of_time) else None

    def finish(self, reason: StopReason) -> History:
        """Puts the best weights into the flow."""
        self.restore_best()
        state = self.state
        if self.best_weights is None:
            raise self.stopped("no validation NLL was finite; look at the validation rows")
        self.log.line(
            f"stopped by {reason} after {state.seconds:.1f} s, "
            f"best validation {state.best_nll:.6f} in epoch {state.best_epoch}"
        )
        # An epoch that ends early was cut short by the clock, whatever else stops the training.
        cut = reason == "time_limit" or state.step % len(self.bounds) > 0
        return History(
            tuple(state.records),
            state.best_epoch,
            reason,
            steps=state.step if cut else self.pace.steps,
            lr_steps=self.config.lr_steps or self.pace.steps,
        )

    def restore_best(self) -> None:
        if self.best_weights is not None:
            self.flow.load_state_dict(self.best_weights)
        self.flow.eval()

    def train_epoch(self, bar: ProgressBar) -> None:
        """Takes the steps of an epoch that are left, as long as there is time."""
        self.flow.train()
        for _ in self.taken_many() if self.whole and self.whole.many else self.taken_singly():
            state = self.state
            bar.step(state.epoch, state.batch, state.train_nll)
            ends = self.pace.out_of_time or self.is_stopped()
            if state.step >= self.pace.steps or self.ranks.decide(ends):
                break

    def taken_singly(self) -> Iterator[None]:
        """Takes the steps of an epoch one by one."""
        bounds = self.bounds[self.state.batch :]
        shares = [self.ranks.share(*each) for each in bounds]
        batches = shuffled(self.train, shares, self.config.seed, self.state.epoch)
        for (start, end), (rows, batch) in zip(bounds, batches, strict=True):
            with part_of_batch(self.ranks.part(start, end)):
                self.take_one(rows, batch, end - start)
            yield

    def take_one(self, rows: Tensor, batch: Split, count: int) -> None:
        """Takes a step on rows of a batch, which has so many in all."""
        key = self.config.seed, self.state.epoch, self.state.batch
        seed_step(self.noise, self.device, *key, rank=self.ranks.rank)
        rate = self.rate(0)
        if self.whole is not None:
            loss, norm = self.whole.take_one(batch, rate, count)
            if math.isfinite(loss) and math.isfinite(norm):
                self.took(loss, count, rate)
                return
            seed_step(self.noise, self.device, *key, rank=self.ranks.rank)
        self.take_step(rows, batch, rate, count)

    def taken_many(self) -> Iterator[None]:
        """Takes the steps of an epoch, as many in a call as nobody looks in between."""
        assert self.whole is not None
        assert isinstance(self.train, Split)
        state = self.state
        order = order_of(len(self.train), self.config.seed, state.epoch)
        seconds = math.inf  # of a step
        while state.batch < len(self.bounds):
            most = min(
                len(self.bounds) - state.batch,
                SNAPSHOT_STEPS - state.batch % SNAPSHOT_STEPS,
                self.pace.steps - state.step,
                self.pace.unseen,
            )
            count = self.ranks.decide(max(1, min(most, int(LOOK_SECONDS / seconds))))
            bounds = self.bounds[state.batch : state.batch + count]
            rates = [self.rate(ahead) for ahead in range(count)]
            before = time.monotonic()
            found = [*zip(*self.whole.take(order, bounds, rates), bounds, rates, strict=False)]
            seconds = max((time.monotonic() - before) / len(found), 1e-9)
            for loss, norm, (start, end), rate in found:
                if math.isfinite(loss) and math.isfinite(norm):
                    self.took(loss, end - start, rate)
                else:
                    first, last = self.ranks.share(start, end)
                    rows = order[first:last]
                    with part_of_batch(self.ranks.part(start, end)):
                        self.take_step(rows, self.train[rows], rate, end - start)
            yield

    def rate(self, ahead: int) -> float:
        """The learning rate of a step that is so many ahead."""
        return self.state.lr_scale * self.config.lr_at(self.state.step + ahead, self.pace.steps)

    def take_step(self, rows: Tensor, batch: Split, rate: float, count: int) -> None:
        """Takes a step through torch, or skips it."""
        self.optimizer.zero_grad(set_to_none=True)
        nll = self.nll(*take(batch, slice(None), self.like, self.integers), batch.weight, count)
        nll.backward()
        if self.gradients is not None:
            nll = self.gradients.take(self.parameters, nll.detach())
        loss, finite = step_if_finite(self.optimizer, nll, rate, self.config.clip)
        if finite:
            self.took(loss, count, rate)
        else:
            self.count_step(rate)
            self.skip(loss, rows, batch)
            self.note_pace()

    def took(self, loss: float, rows: int, rate: float) -> None:
        """Takes note of a step that was taken."""
        state = self.state
        self.count_step(rate)
        self.skips_in_a_row = 0
        state.loss_sum += loss * rows
        state.rows += rows
        if state.batch % SNAPSHOT_STEPS == 0:
            late = time.monotonic() - self.written > CHECKPOINT_SECONDS
            self.take_snapshot(write=late)
        self.note_pace()

    def count_step(self, rate: float) -> None:
        state = self.state
        state.lr = rate
        state.batch += 1
        state.step += 1
        state.epoch_seconds = time.monotonic() - self.started

    def note_pace(self) -> None:
        if self.pace.step():
            self.state.planned = self.ranks.decide(self.state.planned)
            self.log.line(f"there is time for {self.pace.steps} steps")

    def _nll(self, x: Tensor, c: Tensor | None, weight: Tensor | None, count: int) -> Tensor:
        with batch_weighs(weight), recomputing(self.config.recompute):
            log_prob: Tensor = self.flow(c).log_prob(x)
        return -(log_prob if weight is None else weight.to(log_prob) * log_prob).sum() / count

    def finish_epoch(self, bar: ProgressBar) -> None:
        """Validates, keeps the weights if they are the best, writes log and checkpoints."""
        state = self.state
        before = time.monotonic()
        if self.has_batch_norm:
            calibrate(self.flow, self.sample, ranks=self.ranks)
        log_prob = evaluate(self.flow, self.validation, ranks=self.ranks)
        nll = -self.validation.mean(log_prob)
        state.validation_seconds = time.monotonic() - before
        state.epoch_seconds = time.monotonic() - self.started
        better = nll < state.best_nll  # never true of nan
        if better:
            state.best_nll, state.best_epoch = nll, state.epoch
            self.best_weights = _clone(self.flow.state_dict())
            if self.best_path is not None and self.ranks.is_first:
                best = {"epoch": state.epoch, "validation_nll": nll}
                save(self.best_path, self.flow, {**self.metadata, "best": best})
        self.log.record(state.finish_epoch(nll), better)
        if not math.isfinite(nll):
            bad = (~log_prob.isfinite()).nonzero().flatten().tolist()
            self.log.line(f"validation: {len(bad)} rows are not finite, the first is {bad[0]}")
        bar.validated(nll, state.best_nll)
        self.started = time.monotonic()
        if self.skips_in_a_row == 0:
            self.take_snapshot(write=True)

    def is_finite(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self.parameters)

    def take_snapshot(self, write: bool) -> None:
        """Remembers weights and moments as good, and writes them to disk if `write`."""
        if not self.is_finite():
            self.roll_back("the weights are not finite")
            return
        self.good = (_clone(self.flow.state_dict()), copy.deepcopy(self.optimizer.state_dict()))
        if write and self.latest_path is not None and self.ranks.is_first:
            write_latest(
                self.latest_path,
                self.flow,
                self.optimizer,
                self.state,
                config=self.config,
                data=self.data,
                log_size=self.log.size,
                metadata=self.metadata,
            )
            self.written = time.monotonic()

    def skip(self, loss: float, rows: Tensor, batch: Split) -> None:
        """Counts a step that was not taken."""
        self.state.skipped += 1
        self.skips_in_a_row += 1
        what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        self.log.line(f"{self.place()}: {what}, step skipped ({self.skips_in_a_row} in a row)")
        if self.skips_in_a_row == SKIPS_IN_A_ROW:
            self.roll_back(what, f" ({largest(batch, rows)})" if len(rows) else "")

    def roll_back(self, what: str, where: str = "") -> None:
        """Returns to the last good weights at half the learning rate, or gives up."""
        state = self.state
        if state.rollbacks == ROLLBACKS:
            self.restore_best()
            raise self.stopped(
                f"{what} after {ROLLBACKS} roll-backs{where}; try a lower lr than "
                f"{self.config.lr:g}, or look for extreme values in the data"
            )
        weights, moments = self.good
        self.flow.load_state_dict(weights)
        self.optimizer.load_state_dict(copy.deepcopy(moments))
        self.skips_in_a_row = 0
        state.rollbacks += 1
        state.lr_scale /= 2
        self.log.line(
            f"{self.place()}: {what}, back to the last good weights ({state.rollbacks} of "
            f"{ROLLBACKS}) at {state.lr_scale:g} times the learning rate"
        )

    def stopped(self, why: str) -> NonFiniteError:
        """The error that ends the training, written to the log too."""
        self.log.line(f"{self.place()}: stopped, {why}")
        return NonFiniteError(f"training stopped in {self.place()}: {why}")

    def place(self) -> str:
        return f"epoch {self.state.epoch}, batch {self.state.batch} of {len(self.bounds)}"


def _clone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
