"""Commands that are killed, or told to stop, at any moment: nothing is lost, and nothing left.

    python benchmarks/faults/kills.py [--tries 20] [train search reproduce score sample report]

Each try stops a command, once by SIGKILL and once by SIGTERM in turn, when it has done a part of
its work that is drawn by chance, and starts it again: with `--resume` if it trains, and writing to
another file if it writes rows. It holds if the exit code is that of the signal and there was no
traceback, if after SIGTERM at once, and after the next command always, no partial file is left, and
if what comes of it is, byte for byte, what an undisturbed command made.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import asked, tell
from processes import BESIDE, SMALL, partial_files, start, write_rows

from maskedflow.training import checkpoint

EPOCHS = 40
MOST = 3
"""Of the tries that are wanted, how often as many are made: some end before they are killed."""


@dataclass(frozen=True)
class Kind:
    """A command that is killed.

    Args:
        words: The command, in a folder.
        again: The one that goes on.
        done: How much of its work is done, in units of any kind, after so many seconds.
        digest: What came of it.
    """

    words: Callable[[Path], list[object]]
    again: Callable[[Path], list[object]]
    done: Callable[[Path, float], float]
    digest: Callable[[Path], str]


def weights(path: Path) -> str:
    """A digest of the tensors of a file."""
    tensors = checkpoint.read(path)[0]
    whole = b"".join(tensors[key].contiguous().numpy().tobytes() for key in sorted(tensors))
    return hashlib.blake2b(whole, digest_size=16).hexdigest()


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def size(folder: Path) -> int:
    """Bytes of the file of rows that is being written."""
    return max((path.stat().st_size for path in folder.glob(f".*{BESIDE}")), default=0)


def kinds(shared: Path) -> dict[str, Kind]:
    """The commands by name; those that read a run read one in a folder of all."""
    table, few = write_rows(shared / "t.csv", 2000), write_rows(shared / "few.csv", 300)
    many, run = write_rows(shared / "many.csv", 300_000), shared / "t"

    def train(out: Path) -> list[object]:
        options = ["--flow", "maf", *SMALL, "--epochs", EPOCHS, "--patience", EPOCHS]
        return ["train", "--data", table, *options, "--out", out]

    def search(out: Path) -> list[object]:
        return ["train", "--data", few, "--flow", "auto", "--work", 3, "--no_report", "--out", out]

    def reproduce(out: Path) -> list[object]:
        return ["again", out / "runs", out / "results", "--epochs", 15]

    def rows(command: str, *options: object, name: str = "rows.csv") -> Callable[..., list[object]]:
        return lambda out: [command, run, *options, "-o", out / name]

    process = start(*train(shared))
    assert process.wait() == 0, process.communicate()
    score, sample = ("score", many), ("sample", "-n", 1_000_000)
    return {
        "train": Kind(
            train,
            lambda out: [*train(out), "--resume"],
            lambda out, _: lines(out / "t" / "logs" / "metrics.jsonl"),
            lambda out: weights(out / "t" / "checkpoints" / "best.safetensors"),
        ),
        "search": Kind(
            search,
            lambda out: [*search(out), "--resume"],
            lambda out, _: len(list((out / "few" / "members").glob("[!.]*.safetensors"))),
            lambda out: weights(out / "few" / "estimator.safetensors"),
        ),
        "reproduce": Kind(
            reproduce,
            reproduce,
            lambda out, _: lines(out / "runs" / "mnist-maf-5-fast" / "logs" / "metrics.jsonl"),
            lambda out: weights(out / "runs/mnist-maf-5-fast/checkpoints/best.safetensors"),
        ),
        **{
            words[0]: Kind(
                rows(*words),
                rows(*words, name="other.csv"),
                lambda out, _: size(out),
                lambda out: hashlib.sha256(next(out.glob("*.csv")).read_bytes()).hexdigest(),
            )
            for words in (score, sample)
        },
        "report": Kind(
            lambda out: ["report", shutil.copytree(run, out / "t", dirs_exist_ok=True)],
            lambda out: ["report", out / "t"],
            lambda _, seconds: seconds,
            lambda out: str((out / "t" / "report.html").read_text().endswith("</html>\n")),
        ),
    }


def undisturbed(kind: Kind, out: Path) -> tuple[float, str]:
    """How much work a command does, and what comes of it."""
    process, begun, most = start(*kind.words(out)), time.monotonic(), 0.0
    while process.poll() is None:
        most = max(most, kind.done(out, time.monotonic() - begun))
        time.sleep(0.002)
    assert process.returncode == 0, process.communicate()[1]
    return most, kind.digest(out)


def killed(name: str, kind: Kind, number: int, at: float, wanted: str, out: Path) -> str | None:
    """What did not hold of a command that is stopped, nothing if all did; None if it had ended."""
    process, begun = start(*kind.words(out)), time.monotonic()
    while process.poll() is None and kind.done(out, time.monotonic() - begun) < at:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.05))
    process.send_signal(number)
    text = process.communicate()[1]
    if process.returncode == 0 and not (name == "search" and "interrupted" in text):
        return None
    told = (143, -15, 0) if name == "search" else (143, -15)
    if process.returncode not in ((-9,) if number == signal.SIGKILL else told):
        return f"exit code {process.returncode}: {text[-300:]!r}"
    if "Traceback" in text:
        return f"a traceback: {text[-300:]!r}"
    if number == signal.SIGTERM and (left := partial_files(out)):
        return f"left {left}"
    process = start(*kind.again(out))
    text = process.communicate()[1]
    if process.returncode != 0:
        return f"then exit code {process.returncode}: {text[-300:]!r}"
    if left := partial_files(out):
        return f"then left {left}"
    return "" if kind.digest(out) == wanted else "another result"


def tried(name: str, kind: Kind, tries: int) -> Iterator[tuple[object, ...]]:
    """Kills a command so many times."""
    with tempfile.TemporaryDirectory() as folder:
        most, wanted = undisturbed(kind, Path(folder))
    count = 0
    for _ in range(MOST * tries):
        number = (signal.SIGKILL, signal.SIGTERM)[count % 2]
        at = random.uniform(0, most)
        with tempfile.TemporaryDirectory() as folder:
            wrong = killed(name, kind, number, at, wanted, Path(folder))
        if wrong is not None:
            count += 1
            yield f"{name}, {number.name} at {at / most:.0%}", not wrong, wrong
        if count == tries:
            return
    yield name, False, f"only {count} of {tries} tries were stopped before their end"


def main() -> int:
    wanted = asked(__doc__, tries=20)
    random.seed(0)
    with tempfile.TemporaryDirectory() as shared:
        found = wanted.of(kinds(Path(shared)))
        return tell(one for name, kind in found.items() for one in tried(name, kind, wanted.tries))


if __name__ == "__main__":
    sys.exit(main())
