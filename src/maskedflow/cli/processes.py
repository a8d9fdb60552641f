"""Processes that ``torchrun`` starts: together they do what one would, and one of them talks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(days=1)
"""How long the others wait for one that works by itself, as a search does on its trees.

One that ends is missed at once: its connections close.
"""

_store: Any = None
"""What all processes can write notes to, once there are several."""


@contextmanager
def joined() -> Iterator[None]:
    """Joins the others, if ``torchrun`` has started some; all but the first are silent meanwhile.

    Its environment variables say who they are; without them nothing is done.
    """
    global _store  # noqa: PLW0603 - asked for when everything else is over
    if (rank := _rank()) is None:
        yield
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, _, size = next(rendezvous("env://"))
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
    )
    _store = store
    try:
        with ExitStack() as silence:
            if rank > 0:
                nowhere = silence.enter_context(open(os.devnull, "w"))
                silence.enter_context(redirect_stdout(nowhere))
                silence.enter_context(redirect_stderr(nowhere))
            yield
    finally:
        distributed.destroy_process_group()


def tells() -> bool:
    """Whether this process is the one to say why all of them end: the first that asks.

    Before they have met, it is the first of them: words of a command are wrong for all.
    """
    if _store is None:
        return not _rank()
    try:
        return bool(_store.add("told", 1) == 1)
    except RuntimeError:  # the process that kept the notes is gone
        return True


def _rank() -> int | None:
    """Which of the processes that ``torchrun`` has started this is; None if there is but one."""
    several = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ["RANK"]) if several else None
