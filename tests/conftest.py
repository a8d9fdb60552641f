"""What every test shares: one thread, a known seed, and hypothesis at a moderate pace."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    max_examples=20,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# The tensors here are tiny: more threads only wait for each other, above all under xdist.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _known_global_seed() -> None:
    """Each test starts from the same global generator, in whatever order tests run."""
    torch.manual_seed(0)
