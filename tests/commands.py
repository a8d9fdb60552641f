"""Running a command in this process, and small tables to run it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from maskedflow.cli import main
from maskedflow.report.plots import plane
from maskedflow.report.plots.plane import density_on_grid

TREE = {
    "checkpoints/best.safetensors",
    "checkpoints/latest.safetensors",
    "config.toml",
    "logs/metrics.jsonl",
    "logs/training.log",
    "results_summary.txt",
}
SMALL = "--hidden_dim 8 --num_layers 2 --epochs 2 --batch_size 50 --lr 1e-2".split()  # noqa: SIM905


@contextmanager
def undrawn() -> Iterator[None]:
    """Figures are made and saved, but blank: drawing takes most of the time of a small run."""

    def save(_: Figure, file: Any, **__: object) -> None:
        Image.new("RGBA", (8, 8)).save(file, format="png")

    def coarse(log_prob: Any, limits: plane.Limits, _: int) -> np.ndarray:
        return density_on_grid(log_prob, limits, 8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        patch.setattr(plane, "density_on_grid", coarse)
        yield


def run(*arguments: object) -> int:
    """The exit code of a command; training writes a report, and draws, only if asked to."""
    words = [str(argument) for argument in arguments]
    quick = words[:1] in (["train"], ["evaluate"]) and "--report" not in words
    if quick and words[0] == "train":
        words.append("--no_report")  # which takes seconds
    with undrawn() if quick else nullcontext(), pytest.raises(SystemExit) as exit_:
        main(words)
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The exit code of a command, and what it wrote on standard output and standard error."""
    capsys.readouterr()
    code = run(*arguments)
    out, err = capsys.readouterr()
    return code, out, err


def declare(folder: Path, **commands: str) -> None:
    """What installing a package that has commands leaves in a folder of ``sys.path``."""
    info = folder / "declared-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1.0\n")
    lines = [f"{name} = {where}" for name, where in commands.items()]
    (info / "entry_points.txt").write_text("\n".join(["[maskedflow.commands]", *lines]) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: np.ndarray) -> Path:
    """A table in a file."""
    lines = [",".join(map(repr, row.tolist())) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


def table(n: int = 400) -> np.ndarray:
    """Three columns that hang together, the last one far from the origin."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    b = a**2 + 0.3 * rng.normal(size=n)
    return np.round(np.stack([a, b, 50 + 10 * a + rng.normal(size=n)], axis=1), 4)


def pair(folder: Path, n: int = 60) -> Path:
    """The first two of these columns in a file `t.csv`."""
    return write_csv(folder / "t.csv", ["a", "b"], table(n)[:, :2])


def files(directory: Path) -> set[str]:
    """All files below a folder."""
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
