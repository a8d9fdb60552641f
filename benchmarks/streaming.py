"""Measures the memory and rate of scoring, sampling and training, with 1 and 10 million rows.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py FOLDER [--rows 1000000 10000000] [--rounds 3]

FOLDER takes the tables, six columns as CSV and as Parquet (2 GB), and one small run; those that are
there are used again. Each command is a process of its own, whose peak of resident memory is what
the system counts (`VmHWM`; on Linux only). Medians of some rounds. Writes
`benchmarks/results/streaming.{json,md}`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pages import RESULTS, machine_table, markdown, write
from timing import machine

COLUMNS = "abcdef"
BLOCK = 100_000
#: The rows that the run is trained on.
SMALL = 100_000
TRAIN = "--hidden_dim 32 --num_layers 3 --batch_size 5000 --lr 5e-3 --epochs 1 --no_report".split()  # noqa: SIM905
#: Runs a command line and tells the peak of its memory in kB.
CHILD = """
import sys
from maskedflow.cli import main
try:
    main(sys.argv[1:])
finally:
    lines = open("/proc/self/status").read().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def main() -> None:
    """Makes the tables, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where tables and results of commands go")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)

    small, run = folder / "small.parquet", folder / "small"
    tables(folder, [SMALL])
    (folder / f"{SMALL}.parquet").replace(small)
    # These compile what the others find in a cache.
    command("train", "--data", small, "--stream", "--out", folder, *TRAIN)
    command("score", run, small, "-o", folder / "out.csv")
    command("sample", run, "-n", SMALL, "-o", folder / "out.csv")
    tables(folder, arguments.rows)
    found: list[dict[str, Any]] = []
    for _, rows in product(range(arguments.rounds), arguments.rows):
        table = folder / f"{rows}.parquet"
        out = folder / "out"
        for name, words in {
            "score, Parquet": ("score", run, table, "-o", f"{out}.parquet"),
            "score, CSV": ("score", run, folder / f"{rows}.csv", "-o", f"{out}.csv"),
            "score, Parquet, all columns kept": (
                *("score", run, table, "--keep", "all", "-o", f"{out}.parquet"),
            ),
            "sample, Parquet": ("sample", run, "-n", rows, "-o", f"{out}.parquet"),
            "train from disk, one epoch": (
                *("train", "--data", table, "--stream", "--out", folder / "runs", *TRAIN),
            ),
        }.items():
            start = time.monotonic()
            peak = command(*words)
            seconds = time.monotonic() - start
            found.append({"what": name, "rows": rows, "peak_mb": peak / 1024, "seconds": seconds})
            print(found[-1], file=sys.stderr, flush=True)
    setting = machine(("torch", "pyarrow"))
    text = report(found, arguments.rows, setting)
    print(text)
    write(arguments.output / "streaming.json", {"machine": setting, "commands": found}, text)


def command(*words: object) -> int:
    """Runs a command of maskedflow, and gives its peak of resident memory in kB."""
    line = [sys.executable, "-c", CHILD, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr}")
    return int(done.stdout.split()[-1])


def tables(folder: Path, sizes: list[int]) -> None:
    """Makes the tables that are not there: six columns that hang together, rounded as data are."""
    for rows in sizes:
        paths = folder / f"{rows}.parquet", folder / f"{rows}.csv"
        if all(path.exists() for path in paths):
            continue
        print(f"making {rows:,} rows", file=sys.stderr, flush=True)
        rng = np.random.default_rng(0)
        mixing = rng.normal(size=(len(COLUMNS), len(COLUMNS)))
        schema = pa.schema([(name, pa.float64()) for name in COLUMNS])
        with (
            pq.ParquetWriter(paths[0], schema) as parquet,
            pacsv.CSVWriter(paths[1], schema) as csv,
        ):
            for start in range(0, rows, BLOCK):
                x = rng.normal(size=(min(BLOCK, rows - start), len(COLUMNS))) @ mixing
                x[:, 1:] += 0.3 * x[:, :-1] ** 2
                block = pa.RecordBatch.from_arrays(list(x.round(4).T.copy()), schema=schema)
                parquet.write_batch(block)
                csv.write_batch(block)


def report(found: list[dict[str, Any]], sizes: list[int], setting: dict[str, Any]) -> str:
    """A table of peaks and rates."""
    names = dict.fromkeys(entry["what"] for entry in found)
    lines = [["command", *(f"peak, {n:,} rows" for n in sizes), "ratio", "rows/s"]]
    for name in names:
        peaks, seconds = (
            [
                median(e[key] for e in found if (e["what"], e["rows"]) == (name, rows))
                for rows in sizes
            ]
            for key in ("peak_mb", "seconds")
        )
        rate = f"{float(format(sizes[-1] / seconds[-1], '.2g')):,.0f}"
        lines.append([name, *(f"{p:.0f} MB" for p in peaks), f"{peaks[-1] / peaks[0]:.2f}", rate])
    return "\n\n".join(
        (
            "# Memory and rate of streaming",
            "Six columns in float64. Peak resident memory of each command's process, most of it "
            "the libraries; rows a second\nof the whole command on the largest table. Medians of "
            "rounds. Training reads the table twice.",
            markdown(lines),
            machine_table(setting),
            "",
        )
    )


if __name__ == "__main__":
    main()
