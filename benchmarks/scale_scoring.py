"""Measures scoring through Ray beside a single process of as many cores, and rows a core-second.

    python benchmarks/scale_scoring.py FOLDER [--rows 10000000] [--rounds 3]

FOLDER takes a table of six columns, a folder of Parquet files of a million rows, and runs of three
sizes; those that are there are used again. Each side is a command of its own, timed from its start
to its end: `score` with a thread for each core, and `score --engine ray` with a worker for each, by
turns. Once more a worker is killed in the middle. All folders have to be equal byte for byte.

Then one thread scores parts of the table with runs of three sizes, reading and writing files as
ever: what a row costs, and a billion. Writes `benchmarks/results/scale_scoring.{json,md}`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pages import RESULTS, machine_table, markdown, number, write
from timing import machine

from maskedflow.runs import load_run
from maskedflow.runs.parts import score_parts, write_part
from maskedflow.sources import Shard

COLUMNS = "abcdef"
FILE = 1_000_000
#: Units of a hidden layer, and transforms.
SIZES = {"small": (32, 3), "medium": (128, 5), "large": (512, 5)}
TRAIN = "--flow maf --batch_size 1000 --steps 20 --epochs 1 --no_stream --no_report".split()  # noqa: SIM905


def main() -> None:
    """Makes table and runs, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the table, runs and scores go")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, default="medium", help="of the run of both sides")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.absolute()
    table = make_table(folder / "tables" / f"{arguments.rows}", arguments.rows)
    runs = {name: make_run(folder, name) for name in SIZES}
    setting = machine(("torch", "pyarrow", "ray"))

    sides: dict[str, list[float]] = {"one process": [], "ray": []}
    digests = set()
    for turn in range(arguments.rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            seconds, digest = score(runs[arguments.size], table, folder, name)
            sides[name].append(seconds)
            digests.add(digest)
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    killed, digest = score(runs[arguments.size], table, folder, "ray", kill=True)
    digests.add(digest)
    if len(digests) != 1:
        raise SystemExit("the folders differ")
    ratio = median(sides["ray"]) / median(sides["one process"])

    torch.set_num_threads(1)
    rates = {name: rate(run, table, folder) for name, run in runs.items()}
    numbers = {name: load_run(run).density.parameters for name, run in runs.items()}
    found = {
        "machine": setting,
        "rows": arguments.rows,
        "size": arguments.size,
        "seconds": sides,
        "ratio": ratio,
        "killed": killed,
        "rates": rates,
    }
    text = report(found, numbers)
    print(text)
    write(arguments.output / "scale_scoring.json", found, text)


def make_table(folder: Path, rows: int) -> Path:
    """Writes six columns that hang together, if they are not there."""
    if folder.exists():
        return folder
    beside = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(len(COLUMNS), len(COLUMNS)))
    for start in range(0, rows, FILE):
        x = rng.normal(size=(min(FILE, rows - start), len(COLUMNS))) @ mixing
        x[:, 1:] += 0.3 * x[:, :-1] ** 2
        block = pa.table(dict(zip(COLUMNS, x.T.copy(), strict=True)))
        pq.write_table(block, beside / f"{start // FILE:05}.parquet", row_group_size=100_000)
    return beside.rename(folder)


def make_run(folder: Path, name: str) -> Path:
    """Trains a run for a few steps: what it says of a row costs the same."""
    run = folder / "runs" / name
    if not (run / "config.toml").exists():
        hidden, transforms = SIZES[name]
        table = make_table(folder / "tables" / name, 20_000)
        words = "train", "--data", table, "--out", run.parent, *TRAIN
        shape = "--hidden_dim", hidden, "--num_layers", transforms
        if command(*words, *shape, threads=1).wait():
            raise SystemExit(f"{name}: no run")
    return run


def command(*words: object, threads: int) -> subprocess.Popen[bytes]:
    """Begins a command of maskedflow."""
    line = [sys.executable, "-m", "maskedflow", *map(str, words)]
    settings = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, env=settings)


def score(
    run: Path, table: Path, folder: Path, name: str, *, kill: bool = False
) -> tuple[float, str]:
    """The seconds of a command, and a digest of the folder that it has written."""
    output = folder / "scores"
    shutil.rmtree(output, ignore_errors=True)
    words, threads = ["score", run, table, "-o", output], os.cpu_count() or 1
    if name == "ray":
        words, threads = [*words, "--engine", "ray"], 1
    start = time.monotonic()
    process = command(*words, threads=threads)
    if kill:
        kill_worker(process, output.with_name(f".{output.name}.tmp"))
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, words))}: failed")
    seconds = time.monotonic() - start
    told = sha256()
    for path in sorted(output.iterdir()):
        told.update(path.name.encode())
        told.update(path.read_bytes())
    return seconds, told.hexdigest()


def kill_worker(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kills a worker of a command when some parts are written."""
    while process.poll() is None:
        if len(list(folder.glob("*.parquet"))) >= 3:
            workers = [pid for pid, line in descendants(process.pid) if line.startswith("ray::Map")]
            os.kill(workers[0], signal.SIGKILL)
            print(f"killed a worker, {workers[0]}", file=sys.stderr, flush=True)
            return
        time.sleep(0.1)
    raise SystemExit("no worker was there to be killed: take more rows")


def descendants(process: int) -> list[tuple[int, str]]:
    """The processes below one, and their command lines; on Linux only."""
    parents, lines = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                told = (entry / "stat").read_text().rpartition(")")[2].split()
                lines[int(entry.name)] = (entry / "cmdline").read_bytes().decode()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(told[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return [(one, lines[one]) for one in sorted(found & lines.keys())]


def rate(run: Path, table: Path, folder: Path) -> float:
    """Rows a second of a core, in parts of 100,000 rows for at least ten seconds."""
    output = folder / "part"
    output.mkdir(exist_ok=True)
    piece, of = score_parts(run, table), max(1, load_rows(table) // 100_000)
    write_part(piece, Shard(1, of), output)  # which compiles what is not compiled yet
    rows, start = 0, time.perf_counter()
    for shard in range(1, of + 1):
        rows += write_part(piece, Shard(shard, of), output).num_rows
        if (seconds := time.perf_counter() - start) > 10:
            break
    shutil.rmtree(output)
    return rows / seconds


def load_rows(table: Path) -> int:
    """The rows of the table."""
    return sum(pq.read_metadata(path).num_rows for path in table.iterdir())


def report(found: dict[str, Any], parameters: dict[str, int]) -> str:
    """The two tables."""
    one, ray = (median(found["seconds"][name]) for name in ("one process", "ray"))
    ways = [["way", "seconds"], ["one process", number(one)], ["Ray", number(ray)]]
    ways.append(["Ray, a worker killed", number(found["killed"])])
    costs = [["run", "hidden units", "transforms", "parameters", "rows/s a core", "core hours"]]
    for name, rows in found["rates"].items():
        hidden, transforms = SIZES[name]
        hours = 1e9 / rows / 3600
        told = str(hidden), str(transforms), f"{parameters[name]:,}"
        costs.append([name, *told, f"{float(f'{rows:.2g}'):,.0f}", number(hours)])
    return (
        "\n\n".join(
            (
                "# Scoring through Ray",
                f"{found['rows']:,} rows of six columns, the {found['size']} run; whole commands "
                f"from start to end, medians.\nRay takes {found['ratio']:.2f} times as long as "
                "one process. All folders are equal byte for byte.",
                markdown(ways),
                "What a row costs one core, read from Parquet and its score written; and a billion "
                "rows.",
                markdown(costs),
                machine_table(found["machine"]),
            )
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
