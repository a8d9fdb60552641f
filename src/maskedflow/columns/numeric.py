"""What a column of numbers is: codes, a grid, atoms, bounds. A wrong bound costs more than none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .grid import TOLERANCE, Grid, decimals_of, find_grid

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
Found = dict[str, Any]

FEW = 30
"""The most levels of numbers that are taken for codes."""
SEEN = 5
"""How often each of these has to occur: then hardly any level is still unseen."""
SHARED = 3
"""The rows that share a value, on average, if a grid of decimals is no accident of few digits."""
ATOM, ATOM_ROWS, ATOM_PEAK = 0.05, 10, 5
"""The least share and the least number of rows at an atom, and how far it towers over others."""
HEAPED = 0.01
"""The share of rows at numbers that ten rows or more have, if a fine grid of decimals matters."""
ROWS, POSITIVE_GAIN, BOUNDED_GAIN = 50, 0.2, 0.1
"""The rows, and the nats a row nearer to normal on a bounded scale, that suggest bounds."""
FULL_ROWS, FULL_SHARE = 8, 0.3
"""The rows of a cell, on average, and the share of these in the first and in the last cell, if a
grid ends there: one more cell of as many rows would not have been missed."""
EDGE, EDGE_ROWS, EDGE_SHARE = 0.02, 5, 0.01
"""The part of the range of most rows that is looked at where numbers may end, the fewest rows in it
that tell, and the least share of numbers on no grid that are at the very end."""
LEAST, FAR = 10, 3
"""How many of the least rows tell that 0 is out of reach, and how many times as far as they spread
it is from the least one: of n more rows with an exponential tail a thousandth of one is there."""
UNSEEN, UNSEEN_ANYWHERE = 3.0, 8.0
"""How many rows would lie beyond an end, decaying as they do towards it, if it is one: of a natural
limit, and of any number."""
SCALES = (1.0, 5.0, 7.0, 10.0, 100.0)
"""Where ratings, shares and percentages end, which begin at 0 or 1."""
FINEST = 1000
"""The most numbers of as many decimals in a step: where it has more, it was told in other units."""
NEIGHBOURS, FREE = 5, 0.1
"""How many rows tell how far apart neighbours are where numbers end, and what is left free there,
in units of that: less than a tenth of a row would lie there."""
UNITS = (1.0, 100.0)
"""Shares and percentages: where intervals that numbers may fill are likely to end."""


def guess_numbers(x: Numbers, kind: pa.DataType, missing: bool) -> Found:
    """Arguments of a `Column` for numbers of which nothing is known, less any missing ones."""
    values, counts = _counted(x)
    if len(values) == 1:
        value = plain_numbers(values)[0]
        if not missing:
            return {"kind": "constant", "value": value, "note": "the same in all rows"}
        return {"kind": "ordinal", "levels": (value,), "note": "one value"}
    grid = _useful_grid(values, counts, kind)
    two = len(values) == 2 and len(x) >= ATOM_ROWS
    few = len(values) <= FEW and counts.min() >= SEEN
    if two or (few and not (grid and grid.step < 1)):
        note = f"{len(values)} numbers, each in at least {counts.min():,} rows"
        return {"kind": "ordinal", "levels": tuple(plain_numbers(values)), "note": note}
    atoms = _atoms(values, counts, grid)
    if grid:
        note = f"on a grid, {len(values):,} values in {len(x):,} rows"
        unit = _unit(grid, x, kind)
        found: Found = {"kind": "discretised", "step": grid.step, "origin": grid.origin}
        found["unit"] = unit
    else:
        note = f"{len(values):,} values in {len(x):,} rows"
        found = {"kind": "continuous"}
    ordinary = x[~np.isin(x, atoms)]
    bounds, why = _bounds(ordinary, grid.step if grid else 0.0)
    if grid and not bounds and _is_full(ordinary, grid.step):
        bounds = {"low": float(ordinary.min()), "high": float(ordinary.max())}
        why = "as many rows at both ends as between; "
    if not bounds:
        bounds, why = _natural_limits(x, atoms, grid.step if grid else 0.0)
    found |= bounds
    if bounds and not grid:
        atoms = _with_ends(atoms, values, bounds.values())
    if atoms:
        shares = (f"{100 * np.mean(x == atom):.2g}% at {atom:g}" for atom in atoms)
        note += "; " + ", ".join(shares)
    return found | {"atoms": atoms, "note": why + note}


def specify_numbers(
    name: str, kind: str, x: Numbers, type_: pa.DataType, given: Mapping[str, Any]
) -> Found:
    """What else is to be known of numbers whose kind is given, less any missing ones."""
    found: Found = {}
    if kind == "positive" and "low" not in given:
        found["low"] = 0.0
    if kind == "bounded" and "low" not in given and "high" not in given:
        high = next((high for high in UNITS if x.min() >= 0 and x.max() <= high), None)
        if high is None:
            raise ValueError(
                f"column {name!r}: a bounded column needs a bound, low or high or both"
            )
        found |= {"low": 0.0, "high": high}
    grid = _grid(name, kind, x, type_, given)
    if grid:
        found |= {"step": grid.step, "origin": grid.origin}
        if "step" not in given:
            found["unit"] = _unit(grid, x, type_)
    if "atoms" not in given:
        values, counts = _counted(x)
        atoms = _atoms(values, counts, grid or _useful_grid(values, counts, type_))
        if not grid:
            ends = {**found, **given}
            atoms = _with_ends(atoms, values, [ends.get("low"), ends.get("high")])
        found["atoms"] = atoms
    return found


def plain_numbers(x: Numbers) -> list[int | float]:
    """Numbers of Python's, integers where they are integral."""
    return [int(value) if value.is_integer() else value for value in x.tolist()]


def _counted(x: Numbers) -> tuple[Numbers, Counts]:
    values, counts = np.unique(x + 0.0, return_counts=True)  # -0.0 + 0.0 is 0.0
    return values, counts


def _grid(
    name: str, kind: str, x: Numbers, type_: pa.DataType, given: Mapping[str, Any]
) -> Grid | None:
    """The grid of a column of a given kind: discretised ones must have one, continuous ones not."""
    if "step" in given or kind == "continuous":
        if not (step := given.get("step")):
            return None
        zero = float(x.min()) if Grid(given.get("unit") or step).between(x).any() else 0.0
        return Grid(step, given.get("origin", zero))
    values, counts = _counted(x)
    if kind != "discretised":
        return _useful_grid(values, counts, type_)
    grid = find_grid(values, _precision(type_)) if len(values) > 1 else Grid(1.0, float(x[0]))
    if grid is None:
        raise ValueError(f"column {name!r}: found no grid that its numbers are on; give its step")
    return grid


def _precision(kind: pa.DataType) -> float:
    """The relative precision of numbers of this type."""
    if pa.types.is_floating(kind) and kind.bit_width < 64:
        return float(np.finfo(kind.to_pandas_dtype()).eps)
    return 2.0**-52


def _useful_grid(values: Numbers, counts: Counts, kind: pa.DataType) -> Grid | None:
    """The grid of integers or exact decimals, or the one of floats that rows share."""
    rows = int(counts.sum())
    if len(values) < 2 or (grid := find_grid(values, _precision(kind))) is None:
        return None
    unit = 0.0
    if grid.step.is_integer() and grid.origin.is_integer():
        unit = 1.0
    elif pa.types.is_decimal(kind):
        unit = float(f"1e{-kind.scale}")
    if rows >= SHARED * len(values) or (unit and rows >= ROWS):
        return grid
    # So few numbers may have a common divisor by accident.
    if not unit and counts[counts >= ATOM_ROWS].sum() >= HEAPED * rows:
        unit = float(f"1e{-max(decimals_of(grid.step), decimals_of(grid.origin))}")
    return Grid(unit, grid.origin) if unit else None


def _unit(grid: Grid, x: Numbers, kind: pa.DataType) -> float:
    """The finest grid that such numbers may be on: whole ones, or of as many decimals."""
    if pa.types.is_decimal(kind):
        return float(f"1e{-kind.scale}")
    if grid.step.is_integer() and grid.origin.is_integer():
        return 1.0
    unit = float(f"1e{-max(decimals_of(grid.step), decimals_of(grid.origin))}")
    blurred = 4 * _precision(kind) * np.abs(x).max() > TOLERANCE / 2 * unit
    return grid.step if blurred or grid.step > FINEST * unit else unit


def _atoms(values: Numbers, counts: Counts, grid: Grid | None) -> tuple[float, ...]:
    """Values of many rows: on a grid, of far more than those beside; else, than all others."""
    frequent = (counts >= ATOM * counts.sum()) & (counts >= ATOM_ROWS)
    if grid:
        beside = np.zeros_like(counts)
        near = np.flatnonzero(np.diff(values) < 1.5 * grid.step)
        beside[near] = counts[near + 1]
        beside[near + 1] = np.maximum(beside[near + 1], counts[near])
    else:
        beside = counts[~frequent].max(initial=0)
    return tuple(values[frequent & (counts >= ATOM_PEAK * beside)].tolist())


def _with_ends(
    atoms: tuple[float, ...], values: Numbers, ends: Collection[float | None]
) -> tuple[float, ...]:
    """Adds the bounds that rows are at: these have a probability there, and no density."""
    at = {end for end in ends if end is not None and end in values}
    return tuple(sorted({*atoms, *at}))


def _bounds(x: Numbers, step: float) -> tuple[Found, str]:
    """Bounds that make ordinary numbers much more like normal ones, and what suggests them."""
    if len(x) < ROWS or x.min() == x.max():
        return {}, ""
    for high in UNITS:
        margin = 0.02 * high
        if x.min() < 0 or x.max() > high:
            continue
        inside = x[(x > 0) & (x < high)] if not step else x
        at_both_ends = min(np.mean(x <= margin), np.mean(x >= high - margin)) >= 0.01
        if at_both_ends and len(inside) >= ROWS:
            unit = (inside + step / 2) / (high + step)
            gain = _gain(unit, np.log(unit / (1 - unit)), -np.log(unit * (1 - unit)))
            if gain >= BOUNDED_GAIN:
                return {"kind": "bounded", "low": 0.0, "high": high}, "fill the range; "
    if x.min() > 0:
        gain = _gain(x, np.log(x), -np.log(x))
        if gain >= POSITIVE_GAIN:
            why = f"all above 0 and skewed ({gain:.2g} nats a row nearer to normal as logs); "
            return {"kind": "positive", "low": 0.0}, why
    return {}, ""


def _natural_limits(x: Numbers, atoms: Collection[float], step: float) -> tuple[Found, str]:
    """Bounds at 0 and at the end of a scale, if numbers go up to them and not beyond.

    Numbers on no grid have to be there exactly, which makes the bound an atom.
    """
    x = x[~np.isin(x, [*{*atoms} - {0.0, *SCALES}])]
    if len(x) < ROWS or x.min() < 0:
        return {}, ""

    def ends(end: float) -> bool:
        if not step:
            return bool(np.sum(x == end) >= max(EDGE_ROWS, EDGE_SHARE * len(x)))
        return rows_beyond(x, end, step)[0] >= UNSEEN

    first = float(x.min())
    found: Found = {}
    if first <= (_edge(x, step) if step else 0.0) and ends(first):
        found["low"] = 0.0
    high = float(x.max())
    if high in SCALES and ends(high):
        found["high"] = high
        if step:  # as a scale is known to begin somewhere
            found["low"] = 1.0 if high > 1 and first == 1 and ends(first) else 0.0
    why = "though many are near"
    least = np.sort(x)[:LEAST]
    if not found and step and first > FAR * max(least[-1] - first, step):
        found["low"], why = 0.0, "which is far below the least"
    if not found or (step and Grid(step, first).between(np.array([*found.values()])).any()):
        return {}, ""
    ways = {"low": "below", "high": "above"}
    note = " or ".join(f"{ways[key]} {end:g}" for key, end in sorted(found.items(), reverse=True))
    return found | ({} if step else {"kind": "bounded"}), f"none {note}, {why}; "


def rows_beyond(x: Numbers, end: float, step: float) -> tuple[float, float]:
    """How many rows would lie beyond an end, if they decayed as they do towards it.

    The second number is how far apart rows are there; both are 0 if too few tell.
    """
    width = _edge(x, step)
    place = np.abs(x - end) + step / 2
    near, before = np.sum(place < width), np.sum((width <= place) & (place < 2 * width))
    if near < EDGE_ROWS:
        return 0.0, 0.0
    ratio = near / (before + 1)
    return float(near * ratio / (1 - ratio)) if ratio < 1 else np.inf, float(width / near)


def _edge(x: Numbers, step: float) -> float:
    """How much of the range is looked at where numbers may end, whole steps of a grid."""
    low, high = np.quantile(x, (0.05, 0.95))
    width = EDGE * float(high - low)
    return step * max(round(width / step), 1) if step else width


def _is_full(x: Numbers, step: float) -> bool:
    """Whether the first and the last cell of a grid have rows as all others have."""
    if not len(x) or x.min() == x.max():
        return False
    mean = len(x) / (np.rint((x.max() - x.min()) / step) + 1)
    ends = min(np.sum(x == x.min()), np.sum(x == x.max()))
    return bool(mean >= FULL_ROWS and ends >= FULL_SHARE * mean)


def range_of(x: Numbers, step: float, atoms: Collection[float]) -> Found:
    """Bounds that leave nothing beyond the numbers that are there.

    Numbers on no grid cannot be at a bound: a tenth of the distance of neighbours is left free.
    """
    low, high = float(x.min()), float(x.max())
    values = np.unique(x)
    if not step and len(values) > 1:
        near = min(NEIGHBOURS, len(values) - 1)
        if low not in atoms:
            low -= FREE * float(values[near] - values[0]) / near
        if high not in atoms:
            high += FREE * float(values[-1] - values[-1 - near]) / near
    return {"low": low, "high": high}


def _gain(x: Numbers, y: Numbers, ladj: Numbers) -> float:
    """The log-likelihood a row of a normal distribution of y = f(x), less that of one of x."""
    with np.errstate(all="ignore"):
        gain = float(np.log(x.std()) - np.log(y.std()) + ladj.mean())
    return gain if np.isfinite(gain) else -np.inf
