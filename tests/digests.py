"""What flows of this process compute, as digests, and how many threads did it: a script.

OpenMP reads its settings when torch is loaded, so each choice of them needs a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import maskedflow as mf
from maskedflow.kernels import job, run, threads

__all__ = ["FLOWS", "ask_for_all", "digests"]

#: So small that torch adds up with one thread.
FLOWS: dict[str, Callable[[], mf.flows.Flow]] = {
    "MAF": lambda: mf.flows.MAF(8, transforms=1, hidden_features=(64, 64)),
    "NSF": lambda: mf.flows.NSF(5, transforms=1, hidden_features=(40, 40)).double(),
    "conditional": lambda: mf.flows.MAF(
        6, 3, transforms=1, hidden_features=(64, 64), residual=True, activation=torch.nn.SiLU
    ),
    # More parameters than are updated at a time.
    "wide": lambda: mf.flows.MAF(4, transforms=2, hidden_features=(160, 160)),
}
ROWS = 1000


def _digest(tensors: Sequence[Tensor]) -> str:
    """The first letters of a digest of all bits."""
    assert all(tensor.isfinite().all() for tensor in tensors)
    content = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:16]


def digests(name: str) -> dict[str, str]:
    """The digests of a flow's density, gradient and samples, and of its weights after a fit."""
    torch.manual_seed(0)
    flow = FLOWS[name]()
    like = next(flow.parameters())
    source = torch.Generator().manual_seed(1)
    features = flow.base().event_shape[0]
    x = torch.randn(ROWS, features, generator=source, dtype=like.dtype)
    c = torch.randn(ROWS, 3, generator=source) if name == "conditional" else None
    log_prob = flow(c).log_prob(x)
    gradient = torch.autograd.grad(log_prob.mean(), list(flow.parameters()))
    with torch.no_grad():
        z = torch.randn(ROWS, features, generator=source, dtype=like.dtype)
        samples = flow(c).transform.inv(z)
    mf.training.fit(
        flow,
        mf.data.Split(x, c),
        mf.data.Split(x[:500], None if c is None else c[:500]),
        mf.training.TrainConfig(epochs=1, batch_size=400),
    )
    return {
        f"{name} density": _digest([log_prob]),
        f"{name} gradient": _digest(gradient),
        f"{name} sample": _digest([samples]),
        f"{name} fit": _digest(list(flow.parameters())),
    }


def ask_for_all() -> None:
    """Has every call ask for all threads, whether they are worth it or not."""
    vars(threads)["Team"].size = lambda _, work, most: min(torch.get_num_threads(), most)


def main() -> None:
    """Prints the digests, and the largest team that was asked for and that came."""
    ask_for_all()
    teams = [(1, 1)]

    def noted(count: int, function: int, integers: Any) -> None:
        threads.run_on(count, function, integers)
        if len(integers) == run.SIZE:  # not of training steps
            teams.append((count, int(integers[run.Job.SLOT])))

    job.run_on = noted
    found = {what: digest for name in FLOWS for what, digest in digests(name).items()}
    asked, came = (max(sizes) for sizes in zip(*teams, strict=True))
    sys.stdout.write(json.dumps({"digests": found, "asked": asked, "came": came}))


if __name__ == "__main__":
    main()
