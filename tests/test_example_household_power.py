"""The example on household power, quickly, on a made series."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "household_power.py"


def write_minutes(path: Path, hours: int) -> None:
    """A file like UCI's: one row a minute from 17:24 on, some without readings."""
    rng = np.random.default_rng(0)
    begin = np.datetime64("2006-12-16T17:24", "m")
    lines = ["Date;Time;Global_active_power;Global_reactive_power;Voltage"]
    for i in range(60 * hours):
        moment = (begin + i).astype(object)
        power = 1 + 0.5 * np.sin(2 * np.pi * i / 1440) + 0.3 * rng.random()
        values = f"{power:.3f};{0.1 * rng.random():.3f};{240 + rng.normal():.2f}"
        missing = i % 977 == 0 or 60_000 < i < 60_200
        lines.append(f"{moment:%d/%m/%Y;%H:%M:%S};{'?;?;?' if missing else values}")
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_quick_run(tmp_path: Path) -> None:
    write_minutes(tmp_path / "data" / "power" / "household_power_consumption.txt", 2600)
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE, "--quick", "--out", tmp_path / "out"],
        env={**os.environ, "MASKEDFLOW_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2,599 hours, 4 of them missing" in done.stdout
    page = (tmp_path / "out" / "examples" / "household_power.md").read_text()
    assert page.count("| TemporalMAF |") == 7
    assert "nan" not in page
    for name in ("fan", "pit"):
        assert (tmp_path / "out" / "images" / f"household_power_{name}.png").stat().st_size > 10_000
