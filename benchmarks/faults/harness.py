"""Tries kinds of faults one after the other: says of each whether it held, and counts."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Asked:
    """What the command line asks for: kinds with one of these words in their names, so often."""

    parts: Sequence[str]
    tries: int

    def of(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        """Those of the kinds, all if no word is given."""
        words = self.parts or [""]
        found = {name: kind for name, kind in kinds.items() if any(word in name for word in words)}
        if not found:
            sys.exit(f"parts: expected words in {', '.join(kinds)}, got {' '.join(words)}")
        return found


def asked(document: str, tries: int | None = None) -> Asked:
    """Reads the command line, which has `--tries` if a harness tries each kind several times."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="only kinds whose names have one of these in them")
    if tries is not None:
        parser.add_argument("--tries", type=int, default=tries, help="tries of each kind")
    found = parser.parse_args()
    return Asked(found.parts, 1 if tries is None else found.tries)


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
