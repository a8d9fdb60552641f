"""What commands say beside their results, on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskedflow.data import Seen


def note(text: str) -> None:
    """Says what should be known, and is no result."""
    print(f"note: {text}", file=sys.stderr)


def tell_seen(seen: Seen | None, where: str) -> None:
    """Warns of test rows that are no test, if there are some."""
    if seen is not None and (seen.trained or seen.validated):
        note(f"{where}: {seen}; of such rows the likelihood is too good")
