#!/usr/bin/env bash
# zuko 1.6.0: NCSF, "neural circular spline flow", is not continuous on the torus.
#
# Expected: a density of angles is the same at pi and at -pi, in each angle, since both are one point.
# Seen: each angle's own spline closes the circle, but the network that makes the spline of a later
#       angle reads the earlier ones as raw radians. So log_prob jumps where an earlier angle crosses
#       half a turn: the first at pi, and, since the next layer has the order reversed and circles
#       shifted by half a turn, the second at a point of its own. One angle alone is continuous.
# Exits 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5 zuko==1.6.0
"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

import torch
import zuko

print("zuko", zuko.__version__, "torch", torch.__version__)


def jump(features: int, column: int, points: int) -> float:
    """The largest difference of log-density between neighbours on a full turn of one angle."""
    flow = zuko.flows.NCSF(features, transforms=2, hidden_features=[32, 32]).double()
    x = torch.ones(points, features, dtype=torch.float64)
    x[:, column] = torch.linspace(-math.pi + 1e-9, math.pi - 1e-9, points, dtype=torch.float64)
    with torch.no_grad():
        log_p = flow().log_prob(x)
    return float((log_p - log_p.roll(1)).abs().max())


def jumps(features: int, column: int) -> bool:
    """Whether that difference stays as it is when neighbours are a hundred times nearer."""
    found = []
    for points in (1_000, 100_000):
        torch.manual_seed(0)
        found.append(jump(features, column, points))
    print(f"{features} angles, number {column + 1}: {found[0]:.4f} and {found[1]:.4f} nats")
    return found[1] > 0.5 * found[0]


print("between neighbours on a full turn, of 1,000 and of 100,000 points:")
seen = [jumps(1, 0), jumps(2, 0), jumps(2, 1)]
print("as seen" if seen == [False, True, True] else "changed")
sys.exit(seen != [False, True, True])
PYTHON
