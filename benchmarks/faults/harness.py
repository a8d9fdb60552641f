"""Tries kinds of faults one after the other: says of each whether it held, and counts."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

Kind = TypeVar("Kind")


def chosen(document: str, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """The kinds whose names have one of the words of the command line in them, or all."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="only kinds whose names have one of these in them")
    parts = parser.parse_args().parts or [""]
    found = {name: kind for name, kind in kinds.items() if any(part in name for part in parts)}
    if not found:
        parser.error(f"expected parts of {', '.join(kinds)}")
    return found


def each(cases: Mapping[str, Callable[[], object]]) -> Iterator[tuple[object, ...]]:
    """Calls each case: it gives whether it held and what came, or it asserts what has to hold."""
    for name, case in cases.items():
        try:
            came = case()
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            yield name, False, f"{reason} ({Path(at.filename).name}:{at.lineno})"
        else:
            yield (name, *came) if isinstance(came, tuple) else (name, True)


def tell(found: Iterable[tuple[object, ...]]) -> int:
    """Prints what was tried, whether it held, and what came if that is given; 1 unless all held."""
    results = []
    for what, held, *came in found:
        print("held  " if held else "FAILED", ": ".join(map(str, (what, *came))), flush=True)
        results.append(bool(held))
    print(f"held {sum(results)} of {len(results)}")
    return int(not all(results))
