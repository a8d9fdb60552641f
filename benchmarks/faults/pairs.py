"""Two commands at once on one run folder or one file: one does its work, the other says so.

    python benchmarks/faults/pairs.py [--tries 10] [train search both resume reproduce score]

It holds if one ends with code 0 and the other with code 2 and one line that names the folder or the
file, and if then the run opens, nothing is set aside and no partial file is left.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import asked, tell
from processes import SMALL, partial_files, start, write_rows

import maskedflow as mf

Words = list[object]
Pair = Callable[[Path], tuple[Words, Words, str]]


def pairs(long: Path, many: Path, run: Path) -> dict[str, Pair]:
    """What is started in a folder, and what the second one names."""

    def train(out: Path, *more: object) -> Words:
        options = ["--flow", "maf", *SMALL, "--epochs", 60, "--patience", 60]
        return ["train", "--data", long, *options, "--out", out, *more]

    def search(out: Path) -> Words:
        return ["train", "--data", long, "--flow", "auto", "--work", 4, "--no_report", "--out", out]

    def reproduce(out: Path) -> Words:
        return ["again", out, out / "results", "--epochs", 60]

    def score(out: Path) -> Words:
        return ["score", run, many, "-o", out / "s.csv"]

    return {
        "train": lambda out: (train(out), train(out), "long"),
        "search": lambda out: (search(out), search(out), "long"),
        "both": lambda out: (train(out), search(out), "long"),
        "resume": lambda out: (train(out), train(out, "--resume"), "long"),
        "reproduce": lambda out: (reproduce(out), reproduce(out), "mnist-maf-5-fast"),
        "score": lambda out: (score(out), score(out), "s.csv"),
    }


def wrong(pair: tuple[Words, Words, str], out: Path) -> str:
    """What did not hold, nothing if all did."""
    *both, name = pair
    started = []
    for words in both:
        started.append(start(*words))
        time.sleep(random.uniform(0, 1))
    ends = [(process.communicate()[1], process.returncode) for process in started]
    codes = sorted(code for _, code in ends)
    if codes != [0, 2]:
        return f"exit codes {codes}: {[text[-200:] for text, _ in ends]}"
    told = next(text for text, code in ends if code == 2).splitlines()
    if "another process is writing" not in told[-1] or str(out / name) not in told[-1]:
        return f"said {told[-3:]}"
    if left := partial_files(out):
        return f"left {left}"
    if len(runs := [path for path in out.iterdir() if path.name != "results"]) != 1:
        return f"found {runs}"
    if (out / name).is_dir():
        mf.load_run(out / name)
    return ""


def tried(name: str, pair: Pair, tries: int) -> Iterator[tuple[object, ...]]:
    for _ in range(tries):
        with tempfile.TemporaryDirectory() as folder:
            found = wrong(pair(Path(folder)), Path(folder))
        yield name, not found, found


def main() -> int:
    wanted = asked(__doc__, tries=10)
    random.seed(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        long, many = write_rows(folder / "long.csv", 4000), write_rows(folder / "m.csv", 2_000_000)
        process = start(
            *("train", "--data", long, "--flow", "maf", *SMALL, "--epochs", 1, "--out", folder)
        )
        assert process.wait() == 0, process.communicate()
        found = wanted.of(pairs(long, many, folder / "long"))
        return tell(one for name, pair in found.items() for one in tried(name, pair, wanted.tries))


if __name__ == "__main__":
    sys.exit(main())
