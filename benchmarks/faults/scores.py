"""Scores far out and outside of supports: tries every flow, base and preprocessing.

Each probe is a batch of eight rows, one of which is moved. It holds if its score is a finite number
or minus infinity, the seven others score the same bits as before, and the gradients of what is
finite are finite, unless it was the context that was moved: then they may be larger than any
number. Run by hand: ``python benchmarks/faults/scores.py``, about six minutes; with
parts of names behind it, only these flows.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from harness import asked
from torch import Tensor, nn
from torch.distributions import ExpTransform, SigmoidTransform, TanhTransform

import maskedflow as mf

F, T = mf.flows, mf.transforms
Make = Callable[[int], F.LazyDistribution]

D, HIDDEN = 4, (16, 16)
POWERS = {torch.float32: (1, 2, 5, 10, 15, 18, 19, 20, 30, 37), torch.float64: (2, 20, 100, 300)}

BASES = {
    "normal": {},
    "mixture": {"components": 3},
    "made": {"components": 3},
    "student-t": {"df": 3.0},
    "uniform": {"lower": -20.0, "upper": 20.0},
}


def flows() -> Iterator[tuple[str, Make]]:
    """Every flow by name: kinds, layers, bases, preprocessing."""
    wide = {"hidden_features": HIDDEN}
    plain = {
        "MADE": F.MADE, "MAF": F.MAF, "IAF": F.IAF, "RealNVP": F.RealNVP, "NICE": F.NICE,
        "NSF": F.NSF, "NCSF": F.NCSF, "NAF": F.NAF, "UNAF": F.UNAF, "SOSPF": F.SOSPF,
        "BPF": F.BPF,
    }  # fmt: skip
    for name, kind in plain.items():
        yield name, lambda context, kind=kind: kind(D, context, **wide)
    yield "MADE MoG", lambda context: F.MADE(D, context, components=3, **wide)
    yield "GF", lambda context: F.GF(D, context, **(wide if context else {}))
    yield "Glow", lambda context: F.Glow(D, context, 2, image_shape=(1, 2, 2), hidden_features=[8])
    yield "GMM", lambda context: F.GMM(D, context, 3, **(wide if context else {}))
    yield "coupling", lambda context: F.MAF(D, context, passes=2, **wide)
    for name, layer in {
        "batch norm": {"batch_norm": True},
        "ActNorm": {"between": T.ActNorm},
        "LULinear": {"between": T.LULinear},
        "residual": {"univariate": T.Residual()},
    }.items():
        yield f"MAF, {name}", lambda context, layer=layer: F.MAF(D, context, **layer, **wide)
    for (name, options), kind in itertools.product(BASES.items(), (F.MAF, F.NSF)):
        yield (
            f"{kind.__name__} on {name}",
            lambda context, name=name, options=options, kind=kind: kind(
                D, context, base=F.base(name, D, **options), **wide
            ),
        )
    steps = torch.linspace(-3, 3, 7).expand(D, 7)
    for name, front in {
        "Standardize": lambda: [T.Standardize(torch.zeros(D), torch.full((D,), 1e-3))],
        "NormalScores": lambda: [T.NormalScores(steps, steps, torch.ones(D, 7))],
        "Dequantize": lambda: [T.Dequantize(), T.Standardize(0.0, 16.0), T.Logit(0.05)],
        "Logit": lambda: [T.Logit(1e-6)],
        "open Logit": lambda: [T.Logit(0.0)],
        "sigmoid": lambda: [F.UnconditionalTransform(lambda: SigmoidTransform().inv)],
        "exp": lambda: [F.UnconditionalTransform(lambda: ExpTransform().inv)],
        "tanh": lambda: [F.UnconditionalTransform(lambda: TanhTransform().inv)],
        "soft clip": lambda: [F.UnconditionalTransform(lambda: T.SoftclipTransform(9.0).inv)],
    }.items():
        for kind in (F.MAF, F.NSF):

            def behind(
                context: int, front: Callable[[], list] = front, kind: type = kind
            ) -> F.Flow:
                flow = kind(D, context, **wide)
                return F.Flow([*front(), flow.transform], flow.base)

            yield f"{kind.__name__} behind {name}", behind


def trained(make: Make, context: int, dtype: torch.dtype, noise: float) -> nn.Module:
    """A flow after a few steps of training, its weights then perturbed."""
    torch.manual_seed(0)
    flow = make(context).to(dtype)
    x, c = data(64, dtype), data(64, dtype)[:, :context] if context else None
    adam = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(20):
        adam.zero_grad()
        loss = -flow(c).log_prob(x).mean()
        if loss.isfinite():
            loss.backward()
            adam.step()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(noise * torch.randn_like(weight))
    return flow.eval()


def data(n: int, dtype: torch.dtype) -> Tensor:
    """Rows inside of every support here."""
    return 0.1 + 0.8 * torch.rand(n, D, dtype=dtype)


def seeded(flow: nn.Module) -> nn.Module:
    """The flow, its noise as at the beginning."""
    for module in flow.modules():
        if isinstance(module, T.Dequantize):
            module.seed(0)
    return flow


def has_gradient(flow: nn.Module, log_prob: Tensor, *x: Tensor) -> bool:
    """Whether the gradients of what is finite are finite."""
    of = [*x, *(weight for weight in flow.parameters() if weight.requires_grad)]
    parts = torch.autograd.grad(log_prob[log_prob.isfinite()].sum(), of, allow_unused=True)
    return all(part is None or bool(part.isfinite().all()) for part in parts)


def wrong(flow: nn.Module, x: Tensor, c: Tensor | None, moved: Tensor, far: Tensor | None) -> str:
    """What does not hold, nothing if all does."""
    others = [0, 1, 2, 4, 5, 6, 7]
    try:
        ordinary = seeded(flow)(c).log_prob(x)
        moved = moved.clone().requires_grad_()
        found = seeded(flow)(far).log_prob(moved)
        finite = found.isfinite()
        if not (finite | (found == -math.inf)).all():
            return "NaN or infinity"
        if not torch.equal(found[others], ordinary[others]):
            return "other rows"
        # Of wild weights the gradients of ordinary rows may not be finite to begin with.
        if far is c and has_gradient(flow, ordinary) and not has_gradient(flow, found, moved):
            return "gradient"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:60]
    return ""


def main() -> int:
    """Tries all probes."""
    failed: Counter[tuple[str, str]] = Counter()
    tried = 0
    for name, make in asked(__doc__).of(dict(flows())).items():
        before = tried
        for context, dtype, noise in itertools.product((0, 2), POWERS, (0.05, 1.0)):
            flow = trained(make, context, dtype, noise)
            x = data(8, dtype)
            c = x[:, :context].clone() if context else None
            probes = []
            for power, sign in itertools.product(POWERS[dtype], (1, -1)):
                for place in (0, D - 1, slice(None)):
                    moved = x.clone()
                    moved[3, place] = sign * 10.0**power
                    probes.append((moved, c))
                if c is not None:
                    far = c.clone()
                    far[3] = sign * 10.0**power
                    probes.append((x, far))
            probes.append((x.clone().index_fill_(0, torch.tensor([3]), math.inf), c))
            for moved, far in probes:
                tried += 1
                if what := wrong(flow, x, c, moved, far):
                    failed[name, what] += 1
        lost = sum(count for (flow_name, _), count in failed.items() if flow_name == name)
        print(f"{name}: {tried - before - lost} of {tried - before}", flush=True)
    for (name, what), count in failed.items():
        print(f"  {name}: {what}, {count} times")
    print(f"held {tried - failed.total()} of {tried}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
