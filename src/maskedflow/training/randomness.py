"""Every random draw of a training step follows from (seed, epoch, batch).

So a run that goes on in the middle of an epoch draws what it would have drawn, and no generator
state has to be kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from maskedflow.transforms.noisy import Noisy


def derive_seed(*key: int) -> int:
    """Mixes non-negative integers into one seed of 63 bits."""
    # numpy pads a short key with zeros; its length at the end keeps (s, 1) and (s, 1, 0) apart
    mixed = np.random.SeedSequence((*key, len(key))).generate_state(1, np.uint64)
    return int(mixed[0]) >> 1


def row_seed(row: Tensor, seed: int) -> int:
    """A seed that depends on the numbers of a row, and on another seed."""
    text = (row + 0.0).numpy().tobytes()  # -0.0 + 0.0 is 0.0
    digest = hashlib.blake2b(text, digest_size=7, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Has all that torch draws inside follow from a seed, and leaves its own state as it was."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def noise_of(flow: nn.Module) -> list[Noisy]:
    """The modules of a flow that add noise from a generator of their own."""
    return [module for module in flow.modules() if isinstance(module, Noisy)]


def seed_noise(noise: list[Noisy], *key: int) -> None:
    """Restarts the generators of the noise modules, each at its own seed."""
    for i, module in enumerate(noise):
        module.seed(derive_seed(*key, i))


def seed_step(noise: list[Noisy], device: torch.device, *key: int, rank: int = 0) -> None:
    """Restarts what a training step draws from: the noise, and torch's own generator (dropout).

    The latter draws for the rows that are here only: in each process of several something else.
    """
    seed_noise(noise, *key)
    seed = derive_seed(*key, rank) if rank else derive_seed(*key)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
