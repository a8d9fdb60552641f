"""What every test shares: one thread, a known seed, and hypothesis at a moderate pace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from commands import SMALL, run, table, undrawn, write_csv

settings.register_profile(
    "default",
    deadline=None,
    max_examples=10,
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


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of the test's own, so that it draws the same whichever tests run."""
    return np.random.default_rng(0)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pages without drawings and with a quick baseline, for tests of what they say."""
    monkeypatch.setattr("maskedflow.report.of_table._WORK", 0.2)
    with undrawn():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a run on it (`own`), and one with a context (`given`)."""
    folder = tmp_path_factory.mktemp("runs")
    rows = table()
    own = write_csv(folder / "own.csv", ["a", "b", "c"], rows)
    given = write_csv(folder / "given.csv", ["a", "b", "c"], rows)
    assert run("train", "--data", own, "--out", folder, *SMALL) == 0
    assert run("train", "--data", given, "--context", "c", "--out", folder, *SMALL) == 0
    return folder
