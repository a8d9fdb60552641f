"""Finding a density for the rows of a table, in an amount of work and from these rows alone."""

from __future__ import annotations

import math
import time
from dataclasses import fields
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskedflow.columns.rows import Layout, Rows
from maskedflow.data import Split

from .angles import fit_angles
from .checkpoints import Checkpoints, Finished, Step, identity_of
from .codes import fit_categories
from .contest import FLOWS, Contest, Tell
from .density import TableDensity, angle_context, number_context, present_columns
from .heaping import fit_heaps
from .plan import build_angles, build_categories, stack_of
from .task import Task
from .weighed import distinct_rows
from .work import Budget, default_work, work_within


def fit_density(
    layout: Layout,
    rows: Rows,
    c: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    flow: str = "auto",
    time_limit: float | None = None,
    work: float | None = None,
    seed: int = 0,
    tell: Tell | None = None,
    directory: str | Path | None = None,
) -> TableDensity:
    """Fits a density to the rows of a table.

    The values get a stack of densities: Gaussians, a mixture of them, and flows behind margins
    made normal or whitened columns. Their weights are those under which rows that they were not
    fitted to are likeliest (:func:`stacking_weights`); the kinds that weigh most are trained again,
    with other orders and without other rows. Categories get a tree of frequencies and a network
    beyond it.

    The search ends after an amount of work, counted in rows, weights and steps; so the density
    follows from the arguments, whatever else the machine does. One unit is about a second of a
    core. Equal rows count as one that weighs as much as all of them.

    Args:
        layout: What the columns are.
        rows: The rows.
        c: Their contexts, with shape (n, context), or none.
        weight: How much each row counts, with shape (n,); all alike if None. Only ratios matter.
        flow: What is tried, one of `FLOWS`.
        time_limit: About how many seconds it may take: a few steps are timed, and `work` is what
            this machine does in the time. No limit if None.
        work: The work that it may do, whatever `time_limit` says; if both are None it follows from
            the size of the table, 60 for 3,000 rows of 10 columns, and 20 to 300.
        seed: Seed of every random draw.
        tell: Called after each step of the search with the share of the work that is done, and what
            was found.
        directory: A folder for what was fitted so far: there the same search goes on that was
            killed, with the work that it was begun with. None keeps nothing.

    Ctrl-C ends the search with what it has found by then, which its `plan` says.

    Returns:
        The density, in double precision and evaluation mode, with its `plan`, of which `work` is
        what was allowed: given it, the same density is found again.

    Raises:
        ValueError: If `flow` is unknown, a limit is not positive and finite, or there are no rows
            that count; or if another search was begun in `directory`.

    Example:
        >>> x = torch.randn(50, 1, dtype=torch.float64)
        >>> observed = torch.ones(50, 1).bool()
        >>> none = torch.zeros(50, 0)
        >>> rows = Rows(none.long(), x, observed, none.double(), none.bool(), ~observed[:, 0])
        >>> layout = Layout((), (None,), (), (0.0,), (None,), (None,))
        >>> fit_density(layout, rows).log_prob(rows).shape
        torch.Size([50])
    """
    start = time.perf_counter()
    if flow not in FLOWS:
        raise ValueError(f"flow: expected one of {', '.join(FLOWS)}, got {flow!r}")
    limits: dict[str, Any] = {"time_limit": time_limit, "work": work}
    for name, limit in limits.items():
        if limit is not None and not (isinstance(limit, Real) and 0 < float(limit) < math.inf):
            raise ValueError(f"{name}: expected a positive number or None, got {limit!r}")
    columns = len(layout.levels) + len(layout.angle_state) + len(layout.value_state)
    rows, c, weight = distinct_rows(layout, rows, None if c is None else c.double(), weight)
    if not len(rows):
        raise ValueError("rows: expected at least one that is possible, got none")
    checkpoints = Checkpoints(None if directory is None else Path(directory))
    parts = [getattr(rows, field.name) for field in fields(rows)]
    identity = "" if directory is None else identity_of(layout, *parts, c, weight, flow, seed)

    def settle() -> float:
        if time_limit is not None:
            return work_within(time_limit, len(layout.value_state), since=start)
        return default_work(len(rows), columns)

    work = checkpoints.begin(identity, work, settle)
    categories = angles = numbers = None
    plan: dict[str, Any] = {"context": 0 if c is None else c.shape[1], "work": work}
    shares = bool(layout.levels) + bool(layout.angle_state) + 3 * bool(layout.value_state)
    share = work / max(shares, 1)
    budget = Budget(work)
    told = tell or (lambda share, line: None)
    if layout.levels:
        split = Split(rows.codes.double(), c, weight)
        try:
            done = checkpoints.once("categories", lambda: _code(layout, split, seed, share))
        except KeyboardInterrupt:  # ends with what there is
            done = Finished(Path("categories"), *_code(layout, split, seed, 0.0))
            budget.total, plan["interrupted"] = done.plain["spent"], True
            checkpoints = Checkpoints(None)  # of so little work nothing is worth keeping
        plan["categories"] = found = done.plain["plan"]
        categories = done.load(lambda: build_categories(layout.levels, plan["context"], found))
        budget.spent += done.plain["spent"]
        told(budget.share, "categories")
    if layout.angle_state:
        turns = Split(rows.angles, angle_context(layout, rows, c), weight)
        most = min(share, budget.left)
        done = checkpoints.once("angles", lambda: _turn(layout, turns, seed, most))
        plan["angles"] = done.plain["plan"]
        read = 0 if turns.context is None else turns.context.shape[1]
        angles = done.load(lambda: build_angles(layout, read, plan))
        budget.spent += share
        told(budget.share, "angles")
    if layout.value_state:
        given = number_context(layout, rows, c)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(rows.values.shape, dtype=torch.float64, generator=generator)
        ends = rows.values, rows.values + torch.tensor(layout.steps, dtype=torch.float64)
        heaps = fit_heaps(layout, rows.values, rows.observed, weight)
        if heaps is not None:
            plan["heaps"], spread = heaps.sizes, heaps().__call__
            ends = spread(ends[0]), spread(torch.nextafter(ends[1], ends[0]))
        x = torch.lerp(*ends, noise)
        task = Task(layout, Split(x, given, weight), ends, rows.observed, seed)
        contest = Contest(task, flow, budget, told, checkpoints)
        members, weights, plan["members"] = contest.run()
        numbers = stack_of(layout, members, weights, heaps)
        plan["given"] = task.given
        if contest.stopped.is_set():
            plan["interrupted"] = True
    density = TableDensity(layout, categories, angles, numbers)
    density.plan = plan
    return density.double().eval()


def _code(layout: Layout, rows: Split, seed: int, work: float) -> Step:
    """Fits a distribution to codes."""
    made, plan, spent = fit_categories(layout.levels, rows, seed, work)
    return {"plan": plan, "spent": spent}, made.state_dict()


def _turn(layout: Layout, rows: Split, seed: int, work: float) -> Step:
    """Fits a density to angles."""
    made, plan = fit_angles(present_columns(layout)[0], rows, seed, work)
    return {"plan": plan}, made.state_dict()
