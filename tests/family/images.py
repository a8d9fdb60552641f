"""Flows of images, whose features a case spreads over channels and pixels."""

from __future__ import annotations

from typing import Any

import maskedflow as mf
from strategies import Case

from .entry import Entry


class Images(Entry):
    """A flow of images: of 2 x 2 pixels where the features allow, else of a single pixel."""

    def __call__(self, case: Case, noise: float = 0.3, **more: Any) -> mf.flows.Flow:
        side = 1 if case.features % 4 else 2
        shape = (case.features // side**2, side, side)
        return super().__call__(case, noise, image_shape=shape, **more)


FLOWS = {
    "Glow": Images(
        "Glow",
        # A context reaches each feature only where each is mapped.
        {"transforms": 2, "hidden_features": (6,)},
        takes=frozenset({"activation", "generator"}),
        lacks=frozenset({"identity", "order"}),
    ),
}
