"""Chains of GetDist's and Cobaya's: `root.txt` or `root_1.txt`, ..., names and ranges beside them.

A row is a weight, minus the logarithm of the posterior, and the parameters. Parameters that are
derived from the others, which a density over all of them has no room for, are beside the columns.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskedflow.files import open_regular, read_text

from .arrays import ArraySource, Place, UnreadableError, one_line
from .source import Source

WEIGHT, MINUS_LOG = "weight", "minuslogpost"
"""Cobaya's names of the first two columns; GetDist's have none."""

FUNCTIONS = re.compile(r"(minuslog|chi2).*")
"""Cobaya's names of what is no parameter."""


def chain_files(path: Path) -> list[Path]:
    """The files of a root that is no file itself: one, or those of numbered parts; none of another.

    Example:
        >>> chain_files(Path("nowhere"))
        []
    """
    root = path.name.removesuffix(".txt")
    numbered: dict[int, Path] = {}
    for file in path.parent.glob("*.txt") if path.parent.is_dir() else ():
        if found := re.fullmatch(re.escape(root) + r"[._](\d+)\.txt", file.name):
            numbered[int(found[1])] = file
    whole = path.with_name(f"{root}.txt")
    return [whole] if whole.is_file() else [numbered[i] for i in sorted(numbered)]


def open_chain(path: Path, files: Sequence[Path]) -> Source:
    """Opens a chain, which is read whole."""
    root = files[0].with_name(files[0].name.removesuffix(".txt"))
    roots = [root, root.with_name(re.sub(r"[._]\d+$", "", root.name))]
    names, derived = _names(path, files[0], roots)
    rows = np.concatenate([_rows(file, len(names)) for file in files])
    ranges = next((r for r in map(_ranges, roots) if r is not None), {})
    with one_line(path, "a chain"):
        columns = {name: Place("x", (i,)) for i, name in enumerate(names)}
        fixed = {name for name, (low, high) in ranges.items() if low == high}
        beside = {*names[:2], *derived, *fixed}
        notes = []
        if derived:
            notes.append(
                f"parameters derived from the others are left out of the density of {path}: "
                f"{', '.join(derived)}"
            )
        return ArraySource(
            path,
            {"x": rows},
            columns,
            len(rows),
            beside=beside,
            weights=names[0],
            bounds={n: ends for n, ends in ranges.items() if n in columns and n not in beside},
            notes=notes,
        )


def _names(path: Path, file: Path, roots: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The names of all columns, and of those that are functions of others."""
    for root in roots:
        beside = root.with_name(f"{root.name}.paramnames")
        if beside.is_file():
            found = [line.split()[0] for line in read_text(beside).splitlines() if line.strip()]
            names = [name.removesuffix("*") for name in found]
            _refuse_twice(beside, [WEIGHT, MINUS_LOG, *names])
            derived = [name[:-1] for name in found if name.endswith("*")]
            return [WEIGHT, MINUS_LOG, *names], derived
    with open_regular(file) as opened:
        head = opened.readline(2**20).decode("utf-8", "replace").split()
    if len(head) < 4 or head[0] != "#" or head[1] != WEIGHT:
        raise ValueError(
            f"{path}: expected a chain of GetDist's, with names in {roots[-1].name}.paramnames or "
            f"a first line '# {WEIGHT} {MINUS_LOG} ...', found neither; a table of another kind "
            "is read from .csv"
        )
    _refuse_twice(file, head[1:])
    return head[1:], [name for name in head[3:] if FUNCTIONS.fullmatch(name)]


def _refuse_twice(file: Path, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{file}: expected each column name once, found {name!r} twice")


def _rows(file: Path, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    with one_line(file, "a chain"), open_regular(file) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no rows are told of below
        rows = np.loadtxt(opened, ndmin=2)
        if not rows.size:
            raise UnreadableError("expected at least one row, found none")
        if rows.shape[1] != width:
            raise UnreadableError(
                f"expected {width} numbers a row, weight, minus log posterior and "
                f"{width - 2} parameters, found {rows.shape[1]}"
            )
        return rows


def _ranges(root: Path) -> dict[str, tuple[float, float]] | None:
    """The bounds of a prior, infinite where there are none; None without a file of them."""
    file = root.with_name(f"{root.name}.ranges")
    if not file.is_file():
        return None
    found = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not (words := line.split()) or words[0].startswith("#"):
            continue
        try:
            low, high = (
                end if word == "N" else float(word)
                for word, end in zip(words[1:3], (-np.inf, np.inf), strict=True)
            )
        except ValueError:
            low, high = np.nan, np.nan
        if not low <= high:
            raise ValueError(
                f"{file}: line {number}: expected a name, a lower and an upper bound, "
                f"found {line.strip()!r:.100}"
            )
        found[words[0].removesuffix("*")] = (low, high)
    return {name: ends for name, ends in found.items() if ends != (-np.inf, np.inf)}
