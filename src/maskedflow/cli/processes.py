"""Processes that ``torchrun`` starts: together they do what one would, and one of them talks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

_store: Any = None
"""What all processes can write notes to, once there are several."""


@contextmanager
def joined() -> Iterator[None]:
    """Joins the others, if ``torchrun`` has started some; all but the first are silent meanwhile.

    Its environment variables say who they are; without them nothing is done.
    """
    global _store  # noqa: PLW0603 - asked for when everything else is over
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, size = next(rendezvous("env://"))
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
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
    """Whether this process is the one to say why all of them end: the first that asks."""
    if _store is None:
        return True
    try:
        return bool(_store.add("told", 1) == 1)
    except RuntimeError:  # the process that kept the notes is gone
        return True
