"""Commands in processes of their own, for harnesses that kill them or start two at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PAPER = Path(__file__).parents[1] / "paper"
BESIDE = ".maskedflow.tmp"
SMALL = "--hidden_dim 16 --num_layers 2 --batch_size 50 --lr 1e-3 --no_report".split()  # noqa: SIM905

AGAIN = """
import sys
from dataclasses import replace
from pathlib import Path

from maskedflow.cli import app, main

def again(out: Path, results: Path, /, *, epochs: int) -> None:
    import maskedflow as mf
    from maskedflow_paper.reproduction import reproduce
    from maskedflow_paper.rows import row

    made = row("mnist", "maf-5", "fast")
    shape, training = {**made.shape, "hidden_dim": 64}, {**made.training, "epochs": epochs}
    made = replace(made, shape=shape, training=training)
    reproduce(made, mf.data.load("digits"), out, results)

app.command(again)
main(["again", *sys.argv[1:]])
"""
"""`maskedflow reproduce` of a row that is made of small images in seconds."""


def start(*words: object) -> subprocess.Popen[str]:
    """Starts a command, `again` or one of our own."""
    paths = os.pathsep.join(filter(None, (str(PAPER), os.environ.get("PYTHONPATH"))))
    code = ["-c", AGAIN] if words[0] == "again" else ["-m", "maskedflow", str(words[0])]
    return subprocess.Popen(
        [sys.executable, *code, *map(str, words[1:])],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_rows(path: Path, n: int) -> Path:
    """A table of three columns that hang together."""
    a, b, c = np.random.default_rng(0).normal(size=(3, n))
    rows = np.stack([a, a**2 + 0.3 * b, 50 + 10 * a + c], axis=1)
    np.savetxt(path, rows, "%.6g", ",", header="a,b,c", comments="")
    return path


def partial_files(folder: Path) -> list[str]:
    """What was being written, and is left."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f".*{BESIDE}"))
