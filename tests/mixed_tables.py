"""A table with a column of every kind, and what is known of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: The schema that says which of its columns is an angle.
ANGLE = {"wind": {"kind": "angle", "period": 360}}


def mixed(n: int = 600) -> pd.DataFrame:
    """Rows whose columns know nothing of each other."""
    rng = np.random.default_rng(0)
    income = np.exp(rng.normal(size=n))
    income[rng.random(n) < 0.2] = 0.0
    height = rng.normal(170, 10, n)
    height[rng.random(n) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "income": income,
            "height": height,
            "wind": rng.uniform(0, 360, n),
            "visits": rng.integers(0, 500, n),
            "city": rng.choice(["Bonn", "Rome", "Oslo"], n),
            "member": rng.random(n) < 0.5,
            "born": pd.Timestamp("1990-01-01") + pd.to_timedelta(rng.integers(0, 9000, n), "D"),
            "unit": "cm",
        }
    )
