#!/usr/bin/env bash
# torch 2.13.0, CPU: torch.sigmoid and softplus of the same numbers depend on the number of threads.
#
# Expected: a function of each element by itself gives the same bits, however a tensor is shared out.
# Seen: with one thread and with two, some elements differ in their last digit, a few of a million.
#       They lie at the end of a thread's share, where fewer numbers are left than a vector register
#       holds, and take another way there. exp, log and tanh give the same bits. So the density of a
#       flow behind a logit or with softplus scales is not the same on another machine.
# Exits 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.nn.functional import softplus

print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())


def differing(function) -> int:
    """How many elements differ between one thread and two, of a hundred tensors."""
    generator, count = torch.Generator().manual_seed(0), 0
    for size in range(70_000, 70_100):
        x = 3 * torch.randn(size, generator=generator)
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(function(x))
        count += int((found[0] != found[1]).sum())
    return count


depend = {"sigmoid": torch.sigmoid, "softplus": softplus}
do_not = {"exp": torch.exp, "tanh": torch.tanh}
counts = {name: differing(function) for name, function in {**depend, **do_not}.items()}
for name, count in counts.items():
    print(f"{name}: {count} of 7,004,950 elements differ")
as_seen = all(counts[name] for name in depend) and not any(counts[name] for name in do_not)
print("as seen" if as_seen else "changed")
sys.exit(0 if as_seen else 1)
PYTHON
