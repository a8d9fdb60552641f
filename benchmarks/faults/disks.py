"""Disks that become full: whatever was being written is named in one line, and nothing is left.

    sudo python benchmarks/faults/disks.py [--tries 12] [train search report ...]

Each command writes to a file system in memory, of which more and more is free, until all fits. It
holds if it ends with code 2 and a line that names a file there, if no partial file is left, and if
a file that was to be replaced is as it was. To mount needs rights; without them the size of a file
is limited instead, by which logs and checkpoints fail, too.
"""

from __future__ import annotations

import contextlib
import io
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import asked, tell
from processes import SMALL, partial_files, write_rows

from maskedflow.cli import main as command

Words = Callable[[Path], list[object]]
DISK = 16 * 2**20
FAILED = re.compile(r"maskedflow: (.*): (No space left on device|File too large)$")


def kinds(table: Path, many: Path, run: Path, other: Path) -> dict[str, Words]:
    """The commands, and where on the disk they write."""

    def rows(name: str, *words: object) -> Words:
        return lambda disk: [*words, "-o", disk / name]

    score, sample = ("score", run, many), ("sample", run, "-n", 20_000)
    return {
        "train": lambda disk: [*_train(table), "--epochs", 3, "--out", disk],
        "search": lambda disk: [
            *("train", "--data", table, "--flow", "gaussian", "--work", 1, "--missing", "error"),
            *("--no_report", "--out", disk),
        ],
        "report": lambda disk: ["report", shutil.copytree(run, disk / "run", dirs_exist_ok=True)],
        "evaluate": lambda disk: [
            "evaluate",
            shutil.copytree(run, disk / "run", dirs_exist_ok=True),
        ],
        "schema": rows("s.toml", "schema", table),
        "compare": rows("c.md", "compare", run, other),
        **{f"score to {end}": rows(f"s.{end}", *score) for end in ("csv", "parquet", "npy")},
        **{
            f"sample to {end}": rows(f"s.{end}", *sample)
            for end in ("csv", "parquet", "npy", "png")
        },
    }


def _train(table: Path) -> list[object]:
    return ["train", "--data", table, "--flow", "maf", *SMALL]


@contextmanager
def full(disk: Path, free: int, mounted: bool) -> Iterator[None]:
    """A disk with so many bytes free, or files that may be no longer."""
    if mounted:
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        blocks = filler.stat().st_size - free
        with filler.open("r+b") as file:
            file.truncate(max(blocks, 0))
        try:
            yield
        finally:
            filler.unlink()
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_on(disk: Path, free: int, words: Words, mounted: bool) -> tuple[int, str]:
    """The exit code of a command on such a disk, and what it said on standard error."""
    errors = io.StringIO()
    said = [str(word) for word in words(disk)]
    with full(disk, free, mounted), contextlib.redirect_stderr(errors):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                command(said)
        except SystemExit as end:
            return int(str(end.code)), errors.getvalue()
    raise AssertionError("no exit code")


def tried(
    name: str, words: Words, disk: Path, tries: int, mounted: bool
) -> Iterator[tuple[object, ...]]:
    """Runs a command with more and more space, until it has enough."""
    free = 0
    for number in range(tries):
        target = Path(str(words(disk)[-1]))
        if target.suffix:
            target.write_text("as it was")
        code, text = run_on(disk, free, words, mounted)
        line = text.splitlines()[-1] if text else ""
        found = FAILED.match(line)
        what = f"{name}, {free >> 10} KiB free"
        if code == 0:
            yield what, True, "all fits"
            break
        left = partial_files(disk)
        kept = not target.suffix or target.read_text() == "as it was"
        held = code == 2 and found is not None and Path(found[1]).is_relative_to(disk)
        held = held and not left and kept and "Traceback" not in text
        yield what, held, f"{line} {left or ''}"
        _clear(disk)
        free = 4096 * 2**number
    _clear(disk)


def _clear(disk: Path) -> None:
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> int:
    wanted = asked(__doc__, tries=12)
    with tempfile.TemporaryDirectory() as place:
        folder, disk = Path(place), Path(place) / "disk"
        disk.mkdir()
        table, many = write_rows(folder / "t.csv", 300), write_rows(folder / "m.csv", 20_000)
        for out in ("one", "two"):
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
                words = [*_train(table), "--epochs", 1, "--out", folder / out]
                command([str(word) for word in words])
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        print(
            "on a disk that is full" if mounted else "with files that may not be long", flush=True
        )
        found = wanted.of(kinds(table, many, folder / "one" / "t", folder / "two" / "t"))
        try:
            return tell(
                one
                for name, kind in found.items()
                for one in tried(name, kind, disk, wanted.tries, mounted)
            )
        finally:
            if mounted:
                subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    sys.exit(main())
