"""Training steps of a chain, many in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskedflow.kernels import Panel

from .chain import Chain, Way


class Descent:
    """Adam on the mean negative log-density of a chain, as torch's with a norm that is clipped.

    While it lasts, parameters and the optimizer's moments are parts of flat vectors, in place of
    memory of their own. A step costs no call of Python.

    Args:
        chain: A density.
        optimizer: A fused :class:`torch.optim.Adam` of one group, whose settings and moments are
            used. All its parameters are vectors of the chain, once each.
        clip: The largest norm of a gradient.
        rows: The most rows of a batch.
        shared: A vector for the gradient and, behind it, the loss, and what adds it up over all
            processes that take a part of each batch; None if there is but one.
    """

    def __init__(
        self,
        chain: Chain,
        optimizer: torch.optim.Adam,
        clip: float,
        rows: int,
        shared: tuple[Tensor, Callable[[], None]] | None = None,
    ) -> None:
        from maskedflow.kernels import job
        from maskedflow.kernels.steps import CHUNK, Setting

        (group,) = optimizer.param_groups
        self.chain, self.optimizer, self.rows = chain, optimizer, rows
        self.parameters: list[nn.Parameter] = group["params"]
        like = self.parameters[0].detach()
        self._edges = np.cumsum([0, *(one.numel() for one in self.parameters)]).tolist()
        many = self._edges[-1]
        self._shared = shared
        self._flat = [*torch.zeros(4, many, dtype=like.dtype)]
        if shared is not None:
            self._flat[1] = shared[0]
        self._flatten()
        found = chain.vectors(like.new_empty(1, chain.features), self._context(like))
        assert found is not None
        self._vectors = found
        way = chain.way(inverse=False, kept=True)
        places = {id(one): number for number, one in enumerate(self.parameters)}
        learned = [places.get(id(vector)) for vector in found]
        wanted = tuple(number is not None for number in learned)
        slopes = self._views(1)
        self._values = job.Panels(rows, way.places.height, like, kept=True)
        self._slopes = job.Panels(rows, way.places.height, like, kept=True)
        self._upstream, self._log_prob = torch.empty(2, rows, 1, dtype=like.dtype)
        self._parts = np.zeros(many // CHUNK + 1)
        self._settings = np.zeros(len(Setting))
        self._settings[: Setting.EPSILON + 1] = (
            clip,
            group["weight_decay"],
            *group["betas"],
            group["eps"],
        )
        self._way: Way = way
        self._program = way.there + way.back(False, False, True)
        self._gradients = way.gradients(wanted)
        targets = [v if n is None else slopes[n] for v, n in zip(found, learned, strict=True)]
        self._targets = job.addresses(targets)
        self._rows = job.addresses(self._flat)

    def _context(self, like: Tensor) -> Tensor | None:
        return like.new_empty(1, self.chain.context) if self.chain.context else None

    def _views(self, row: int) -> list[Tensor]:
        pairs = self._edges[:-1], self._edges[1:]
        return [
            self._flat[row][start:end].view(one.shape)
            for one, start, end in zip(self.parameters, *pairs, strict=True)
        ]

    def _flatten(self) -> None:
        """Brings parameters and moments into the vectors, unless they are there."""
        state: dict[Any, dict[str, Tensor]] = self.optimizer.state
        names = ("exp_avg", "exp_avg_sq")
        for row, name in ((0, None), (2, names[0]), (3, names[1])):
            for parameter, view in zip(self.parameters, self._views(row), strict=True):
                own = state[parameter]
                if not own:
                    own["step"] = torch.zeros(())
                    own.update({moment: torch.zeros_like(view) for moment in names})
                value = parameter.data if name is None else own[name]
                if value.data_ptr() != view.data_ptr():
                    view.copy_(value)
                if name is None:
                    parameter.data = view
                else:
                    own[name] = view

    def release(self) -> None:
        """Gives parameters and moments memory of their own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
            state = self.optimizer.state[parameter]
            state.update({name: value.clone() for name, value in state.items()})

    def take(
        self,
        x: Tensor,
        c: Tensor | None,
        order: Tensor | None,
        bounds: Sequence[tuple[int, int, int]],
        rates: Sequence[float],
        weight: Tensor | None = None,
    ) -> tuple[list[float], list[float]]:
        """Takes a step for each of the `bounds` of a batch, with its learning rate.

        The bounds are the first and last position of a batch's rows, in the `order` if there is
        one, and the number of rows in the whole batch, of which these may be a process's part. Each
        counts as much as its `weight`, once if there is none. The first step whose loss or gradient
        is not finite is not taken, and none after it.

        Returns:
            The loss of each step, and the norm of its gradient, as far as they were computed.
        """
        from maskedflow.kernels import job
        from maskedflow.kernels.steps import Steps

        self._flatten()
        steps = len(rates)
        losses, norms = np.zeros((2, steps))
        edges, speeds = np.array(bounds, np.int64).reshape(-1, 3), np.array(rates, np.float64)
        order = torch.arange(len(x)) if order is None else order
        counts = [self.optimizer.state[one]["step"] for one in self.parameters]
        loads = [(x, 0, Panel.VALUES)]
        if c is not None:
            loads.append((c, self._way.places.context, Panel.VALUES))
        total = self._way.places.total
        panels, _held = job.panels_job(
            self._program,
            job.addresses(self._vectors),
            self._values,
            self._slopes,
            loads=[*loads, (self._upstream, total, Panel.SLOPES)],
            stores=[(self._log_prob, total, Panel.VALUES)],
            ordered=len(loads),
        )
        sums = job.sums_job(self._gradients, self._targets, self._values, self._slopes)
        table = job.steps_job(
            x.element_size(),
            panels=panels.ctypes.data,
            sums=sums.ctypes.data,
            last=steps,
            taken=int(counts[0]),
            bounds=edges.ctypes.data,
            order=order.data_ptr(),
            rates=speeds.ctypes.data,
            losses=losses.ctypes.data,
            norms=norms.ctypes.data,
            upstream=self._upstream.data_ptr(),
            log_prob=self._log_prob.data_ptr(),
            numbers=self._rows.ctypes.data,
            many=self._edges[-1],
            parts=self._parts.ctypes.data,
            settings=self._settings.ctypes.data,
            weights=0 if weight is None else weight.data_ptr(),
        )

        def add_up() -> None:
            assert self._shared is not None
            flat, sum_ = self._shared
            step = table[Steps.DONE]
            flat[-1] = losses[step]
            sum_()
            losses[step] = flat[-1]

        job.take_steps(
            table,
            panels,
            sums,
            x.element_size(),
            team=self._program.team,
            work=(self._program.work + self._gradients.work) * (edges[:, 1] - edges[:, 0]),
            most=self._values.count,
            add_up=None if self._shared is None else add_up,
        )
        done = int(table[Steps.DONE])
        torch._foreach_add_(counts, done)
        tried = min(done + 1, steps)
        return losses[:tried].tolist(), norms[:tried].tolist()
