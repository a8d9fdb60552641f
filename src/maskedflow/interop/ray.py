"""Runs on the machines of a Ray cluster, or on the cores of this one.

Workers read the run and the table, and write their parts, themselves: both lie where all machines
see them, and hardly anything goes through Ray's object store.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from maskedflow.runs.level import Tally
from maskedflow.runs.parts import Job, Part, write_part
from maskedflow.sources import Shard
from maskedflow.tables.together import by_one_thread, spread_by

__all__ = ["cluster", "searching", "write_parts"]


@contextmanager
def cluster() -> Iterator[Any]:
    """Connects to the cluster of Ray's that `RAY_ADDRESS` names, or starts one.

    That has this machine's cores, no dashboard, and ends with the context. Ray tells nobody of
    its use unless `RAY_USAGE_STATS_ENABLED` asks for it. What is connected already stays so.

    Yields:
        The module `ray`.

    Raises:
        ValueError: If Ray is not installed, does not start, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = import_module("ray")
    except ModuleNotFoundError:
        raise ValueError("ray: not here; pip install 'maskedflow[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(
            os.environ.get("RAY_ADDRESS", "local"),  # not another command's, which ends with it
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # of no type of its own where a slow machine is given up
        raise ValueError(f"ray: cannot start or be reached: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def write_parts(job: Job, parts: int, folder: Path) -> Iterator[Part]:
    """Writes parts of a job as :func:`maskedflow.runs.parts.write_in_turn`, one worker a core.

    Each worker opens the job once. The part of one that is lost is given to another.
    """
    with cluster() as ray:
        data = import_module("ray.data")
        data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        numbers = [{"number": number} for number in range(1, parts + 1)]
        workers = min(parts, int(ray.cluster_resources()["CPU"]))
        written = data.from_items(numbers, override_num_blocks=parts).map_batches(
            _Worker,
            fn_constructor_args=(job, parts, folder.absolute()),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        for row in written.iter_rows():
            yield _told(json.loads(row["part"]))


@contextmanager
def searching() -> Iterator[None]:
    """Has what searches do side by side done by Ray's workers, one a core; they find the same.

    Flows of a table's search are trained so, and members fitted again to other rows. The table goes
    to the workers with each of them, through Ray's object store.

    Raises:
        ValueError: As :func:`cluster`.
    """
    with cluster() as ray:
        remote = ray.remote(by_one_thread).options(num_cpus=1)

        def spread(calls: Sequence[Callable[[], Any]]) -> list[Any]:
            made = [remote.remote(call) for call in calls]
            try:
                found: list[Any] = ray.get(made)
            except BaseException:
                for one in made:
                    ray.cancel(one, force=True)
                raise
            return found

        with spread_by(spread):
            yield


class _Worker:
    """Writes parts, one after the other."""

    def __init__(self, job: Job, parts: int, folder: Path) -> None:
        torch.set_num_threads(1)
        self.open, self.parts, self.folder = lru_cache(job), parts, folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        shard = Shard(int(batch["number"][0]), self.parts)
        try:
            told = asdict(write_part(self.open(), shard, self.folder))
        except (ValueError, OSError) as error:  # what the user can put right, which none retries
            told = {"error": str(error)}
        return {"part": [json.dumps(told)]}


def _told(part: dict[str, Any]) -> Part:
    """What a worker tells of a part."""
    if "error" in part:
        raise ValueError(part["error"])
    tally = part.pop("tally")
    return Part(**part, tally=tally and Tally(**tally))
