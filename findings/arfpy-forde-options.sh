#!/usr/bin/env bash
# arfpy 0.1.1: two documented options of `forde`, `oob` and `alpha`, raise on ordinary tables.
#
# Expected: `oob=True`, "only use out-of-bag samples for parameter estimation", and `alpha=1`, "Laplace
#           smoothing of categorical features", estimate like the defaults.
# Seen: the first reads an attribute that is never set, so it raises on any table; the second makes one
#       frame of all columns' levels, so it raises unless these are equally many in each column:
#
#   two numbers, {}: estimated
#   two numbers, {'oob': True}: AttributeError: 'arf' object has no attribute 'x'
#   three and two levels, {}: estimated
#   three and two levels, {'oob': True}: AttributeError: 'arf' object has no attribute 'x'
#   three and two levels, {'alpha': 1}: ValueError: All arrays must be of the same length
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
numbers = pd.DataFrame({"x": number, "y": rng.normal(number)})
kinds = pd.DataFrame({"x": number, "three": pd.Categorical(code), "two": pd.Categorical(code // 2)})


def outcome(table: pd.DataFrame, **options: object) -> str:
    np.random.seed(0)
    forest = arf(table, verbose=False, random_state=0)
    try:
        forest.forde(**options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "estimated"


cases = [
    ("two numbers", numbers, {}, "estimated"),
    ("two numbers", numbers, {"oob": True}, "AttributeError"),
    ("three and two levels", kinds, {}, "estimated"),
    ("three and two levels", kinds, {"oob": True}, "AttributeError"),
    ("three and two levels", kinds, {"alpha": 1}, "ValueError"),
]
same = True
for name, table, options, expected in cases:
    found = outcome(table, **options)
    same &= found.startswith(expected)
    print(f"{name}, {options}: {found}")
print("as seen" if same else "changed")
sys.exit(not same)
PYTHON
