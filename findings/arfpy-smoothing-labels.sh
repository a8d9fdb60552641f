#!/usr/bin/env bash
# arfpy 0.1.1: smoothed probabilities of a category, `forde(alpha=1)`, depend on how it is spelled.
#
# Documented: `alpha` is a "pseudocount for Laplace smoothing of categorical features".
# Expected: each leaf's probabilities still sum to one, and the same column may be spelled 0, 1, 2 or
#           1, 2, 3 or a, b, c.
# Seen: only 0, 1, 2 is right. The levels' labels are joined to the column's codes, which start at 0,
#       and what finds no partner is dropped without an error or a warning:
#
#   [0, 1, 2], alpha=0: 3329 leaves, 100% sum to one, 0% have none
#   [0, 1, 2], alpha=1: 3329 leaves, 100% sum to one, 0% have none
#   [1, 2, 3], alpha=0: 3329 leaves, 100% sum to one, 0% have none
#   [1, 2, 3], alpha=1: 3329 leaves, 66% sum to one, 30% have none
#   ['a', 'b', 'c'], alpha=0: 3329 leaves, 100% sum to one, 0% have none
#   ['a', 'b', 'c'], alpha=1: 3329 leaves, 0% sum to one, 100% have none
#
# With NumPy 1.26, since arfpy calls `np.in1d`, which NumPy 2.4 no longer has. Exits 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    arfpy==0.1.1 numpy==1.26.4 pandas==2.2.3 scikit-learn==1.5.2 scipy==1.13.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
from arfpy.arf import arf

print(*(f"{name} {version(name)}" for name in ("arfpy", "numpy", "pandas", "scikit-learn")))
rng = np.random.default_rng(0)
code = rng.integers(0, 3, 1_000)
number = rng.normal(code)


def sums(labels: list, alpha: float) -> pd.Series:
    """The sum of the categories' probabilities in each leaf, zero where it has none."""
    table = pd.DataFrame({"number": number, "kind": pd.Categorical.from_codes(code, labels)})
    np.random.seed(0)
    forest = arf(table, verbose=False, random_state=0)
    found = forest.forde(alpha=alpha)["cat"].groupby(["tree", "nodeid"])["prob"].sum()
    leaves = pd.MultiIndex.from_frame(forest.bnds[["tree", "nodeid"]].drop_duplicates())
    return found.reindex(leaves, fill_value=0.0)


seen = []
for labels in ([0, 1, 2], [1, 2, 3], ["a", "b", "c"]):
    for alpha in (0, 1):
        found = sums(labels, alpha)
        good = np.isclose(found, 1).mean()
        none = (found == 0).mean()
        print(
            f"{labels}, alpha={alpha}: {len(found)} leaves, {good:.0%} sum to one, {none:.0%} have none"
        )
        seen.append("all" if good == 1 else "none" if none == 1 else "some")
same = seen == ["all", "all", "all", "some", "all", "none"]
print("as seen" if same else "changed")
sys.exit(not same)
PYTHON
