"""Counts effective samples of chains that a flow assists, beside plain Hamiltonian Monte Carlo.

    python benchmarks/proposals.py [--only NAME ...] [--quick]

On a banana, a funnel and a mixture in 20 dimensions, all with known moments. Flows are fitted by
reverse KL divergence; that of the mixture also to draws of tempered chains, for which it proposes
at a lower temperature then, and so on. Writes `benchmarks/results/proposals.{json,md}`, in
minutes; a run of less prints only. Seconds are those of one CPU core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pages import RESULTS, machine_table, markdown, number, write
from timing import machine
from torch import Tensor

import maskedflow as mf
from maskedflow.mcmc import Chains, flow_metropolis, hmc
from maskedflow.training import VariationalConfig, fit_posterior

CHAINS = 64
#: Steps of paths that are tried, of which the best counts.
PATHS, SHORT_PATHS = (8, 32, 128), (4, 16)
#: Temperatures of the mixture's chains, from one at which they mix to the target's own.
LADDER = (60.0, 20.0, 7.0, 2.5, 1.0)
#: The standard deviation of where its chains start: modes are not told, but are within reach.
WIDE = 8.0
PLAIN = "HMC"
#: Chains with a larger R-hat do not agree.
AGREE = 1.01

Run = Callable[[torch.Generator], Chains]


@dataclass(frozen=True)
class Target:
    """A density, exact draws of it, and how a flow is fitted to it.

    Args:
        name: Its name.
        log_density: The unnormalised log-density.
        draws: Exact draws, whose moments are the truth.
        looked_at: The number of features, the first ones, whose draws are counted.
        start: The standard deviation of the points from which chains start that know no flow.
        fit: Makes a flow, and counts the gradients, or densities, that it took.
    """

    name: str
    log_density: Callable[[Tensor], Tensor]
    draws: Callable[[int, torch.Generator], Tensor]
    looked_at: int
    start: float
    fit: Callable[[Target, bool], tuple[mf.flows.Flow, int]]


def banana() -> Target:
    """Two features, of which the second is bent along a parabola of the first (Haario, 1999)."""

    def log_density(x: Tensor) -> Tensor:
        first, second = x[:, 0], x[:, 1]
        bent = second - 0.1 * (first.square() - 25)
        return -0.5 * (first / 5).square() - 0.5 * bent.square()

    def draws(n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, 2, generator=generator)
        first = 5 * z[:, 0]
        return torch.stack([first, z[:, 1] + 0.1 * (first.square() - 25)], dim=1)

    return Target(
        "banana, 2 features", log_density, draws, 2, 1.0, partial(fit_reverse, features=2)
    )


def funnel() -> Target:
    """Neal's funnel in ten dimensions, of which the first is the others' log-variance."""

    def log_density(x: Tensor) -> Tensor:
        v, rest = x[:, 0], x[:, 1:]
        squares = (rest * (-v / 2).exp()[:, None]).square().sum(dim=-1)
        return -v.square() / 18 - 4.5 * v - 0.5 * squares

    def draws(n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, 10, generator=generator)
        v = 3 * z[:, :1]
        return torch.cat([v, z[:, 1:] * (v / 2).exp()], dim=1)

    return Target(
        "funnel, 10 features", log_density, draws, 1, 1.0, partial(fit_reverse, features=10)
    )


def mixture(tempered: bool) -> Target:
    """Four Gaussians in 20 dimensions, about 18 standard deviations apart, with weights 1 to 4."""
    centres = 3 * torch.randn(4, 20, generator=torch.Generator().manual_seed(7))
    share = torch.arange(1.0, 5.0) / 10

    def log_density(x: Tensor) -> Tensor:
        squares = (x[..., None, :] - centres).square().sum(dim=-1)
        return (share.log() - 0.5 * squares).logsumexp(dim=-1)

    def draws(n: int, generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(share, n, replacement=True, generator=generator)
        return centres[chosen] + torch.randn(n, 20, generator=generator)

    annealed = partial(fit_reverse, features=20, temperature=LADDER[0])
    how = "tempered chains" if tempered else "annealed reverse KL"
    name = f"mixture, 20 features, by {how}"
    return Target(name, log_density, draws, 20, WIDE, fit_tempered if tempered else annealed)


def fit_reverse(
    target: Target, quick: bool, *, features: int, temperature: float = 1.0
) -> tuple[mf.flows.Flow, int]:
    """A flow fitted by the reverse KL divergence, from its own draws."""
    generator = torch.Generator().manual_seed(0)
    maf = mf.flows.MAF(features, transforms=3, hidden_features=(64, 64), generator=generator)
    wide = torch.full((features,), target.start)
    first = mf.transforms.Standardize(torch.zeros(features), wide)
    flow = mf.flows.Flow([first, maf.transform], maf.base)
    config = VariationalConfig(20 if quick else 1500, lr=3e-3, temperature=temperature)
    fit_posterior(flow, target.log_density, config, generator)
    return flow, config.steps * config.batch_size


def fit_tempered(target: Target, quick: bool) -> tuple[mf.flows.Flow, int]:
    """A flow fitted to draws of chains, which it then proposes for at the next temperature."""
    generator = torch.Generator().manual_seed(0)
    x, spent = target.start * torch.randn(CHAINS, 20, generator=generator), 0
    flow = None
    for temperature in LADDER:

        def tempered(x: Tensor, temperature: float = temperature) -> Tensor:
            return target.log_density(x) / temperature

        options: dict[str, Any] = {"draws": 20 if quick else 150, "warmup": 100}
        if flow is None:
            found = hmc(tempered, x, leapfrog_steps=16, generator=generator, **options)
        else:
            options |= {"leapfrog_steps": 4, "generator": generator}
            found = flow_metropolis(tempered, flow, x, **options)
        spent += found.evaluations
        rows = found.flat()[torch.randperm(len(found.flat()), generator=generator)]
        flow = fit_draws(rows, quick, generator)
        x = found.samples[-1]
    assert flow is not None
    return flow, spent


def fit_draws(rows: Tensor, quick: bool, generator: torch.Generator) -> mf.flows.Flow:
    """A flow fitted by maximum likelihood."""
    train, validation = (
        mf.data.Split(rows[: -len(rows) // 10]),
        mf.data.Split(rows[-len(rows) // 10 :]),
    )
    first = mf.transforms.Standardize(train.x.mean(dim=0), train.x.std(dim=0))
    nsf = mf.flows.NSF(20, transforms=3, hidden_features=(64, 64), generator=generator)
    flow = mf.flows.Flow([first, nsf.transform], nsf.base)
    config = mf.training.TrainConfig(
        epochs=1 if quick else 25, batch_size=256, lr=2e-3, schedule="cosine"
    )
    mf.training.fit(flow, train, validation, config)
    return flow


def samplers(target: Target, flow: mf.flows.Flow, quick: bool) -> dict[str, list[Run]]:
    """What is compared, each with the settings of which the best counts."""
    density = target.log_density
    draws = 20 if quick else 400

    def paths(q: mf.flows.Flow | None, steps: int, generator: torch.Generator) -> Chains:
        x = flow().sample((CHAINS,), generator)
        if q is None:
            x = target.start * torch.randn(x.shape, generator=generator)
        options: dict[str, Any] = {"draws": draws, "warmup": draws // 2, "generator": generator}
        return hmc(density, x, flow=q, leapfrog_steps=steps, **options)

    def proposals(steps: int, generator: torch.Generator) -> Chains:
        x = flow().sample((CHAINS,), generator)
        options: dict[str, Any] = {"draws": 5 * draws, "leapfrog_steps": steps}
        return flow_metropolis(density, flow, x, generator=generator, **options)

    return {
        PLAIN: [partial(paths, None, steps) for steps in PATHS],
        "HMC in latent space": [partial(paths, flow, steps) for steps in SHORT_PATHS],
        "flow Metropolis": [partial(proposals, 0)],
        "flow Metropolis, 4 leapfrog steps": [partial(proposals, 4)],
    }


def measure(target: Target, quick: bool) -> dict[str, Any]:
    """Fits, runs all samplers and counts."""
    begun = time.process_time()
    flow, spent = target.fit(target, quick)
    result: dict[str, Any] = {
        "fit": {"evaluations": spent, "seconds": time.process_time() - begun},
        "samplers": {},
    }
    truth = target.draws(400_000, torch.Generator().manual_seed(99))[:, : target.looked_at]
    for name, settings in samplers(target, flow, quick).items():
        records = [record(run, truth, target.looked_at) for run in settings]
        result["samplers"][name] = max(records, key=worth)
        print(target.name, name, result["samplers"][name], flush=True)
    return result


def worth(one: dict[str, float]) -> tuple[bool, float]:
    """What makes settings better than others: chains that agree, and then their draws."""
    return one["rhat"] < AGREE, one["ess"] / one["evaluations"]


def record(run: Run, truth: Tensor, looked_at: int) -> dict[str, float]:
    """The least effective sample size of a feature, what it cost, and how far off moments are."""
    begun = time.process_time()
    chains = run(torch.Generator().manual_seed(1))
    seconds = time.process_time() - begun
    seen = Chains(
        chains.samples[..., :looked_at],
        chains.log_density,
        chains.acceptance,
        chains.evaluations,
        chains.gradients,
    )
    x, scale = seen.flat(), truth.std(dim=0)
    return {
        "ess": seen.ess().min().item(),
        "rhat": seen.rhat().max().item(),
        "acceptance": chains.acceptance.mean().item(),
        "evaluations": chains.evaluations,
        "gradients": chains.gradients,
        "seconds": seconds,
        "error_of_mean": ((x.mean(dim=0) - truth.mean(dim=0)) / scale).abs().max().item(),
        "error_of_std": (x.std(dim=0) / scale - 1).abs().max().item(),
    }


NOTE = f"""{CHAINS} chains, float32, one thread. ESS is the least bulk effective sample size of the
features looked at: of the funnel that is v alone, the logarithm of the others' variance. One in
brackets is not to be believed, since the chains do not agree (R-hat above {AGREE}). An *evaluation*
is the log-density at one point, with its gradient or without; all are counted, warm-up included.
The columns *with the fit* also count the evaluations and the seconds that the flow took, for as
many draws as these: the more draws, the less they matter. The errors are the largest of a mean, in
standard deviations, and of a standard deviation.

HMC was run with {", ".join(map(str, PATHS))} leapfrog steps at most, in latent space with
{", ".join(map(str, SHORT_PATHS))}, and the best is shown. Its step size is adapted, its masses are
not. Without a flow it starts from N(0, I), on the mixture from N(0, {WIDE**2:g} I), as the tempered
chains do."""
HEAD = ("", "ESS / 1,000 evaluations", "with the fit", "ESS / s", "with the fit")


def report(results: dict[str, dict[str, Any]], setting: dict[str, str | int]) -> str:
    """All of it as Markdown."""
    sections = ["# Flows as proposals and as preconditioners", NOTE]
    for name, result in results.items():
        fit = result["fit"]
        rows = [[*HEAD, "acceptance", "R-hat", "error of mean", "of std"]]
        for sampler, one in result["samplers"].items():
            assisted = sampler != PLAIN
            for_fit, seconds = (fit["evaluations"], fit["seconds"]) if assisted else (0, 0.0)
            ess = one["ess"]
            shown = number if one["rhat"] < AGREE else lambda value: f"({number(value)})"
            rows.append(
                [
                    sampler,
                    shown(1000 * ess / one["evaluations"]),
                    shown(1000 * ess / (one["evaluations"] + for_fit)) if assisted else "",
                    shown(ess / one["seconds"]),
                    shown(ess / (one["seconds"] + seconds)) if assisted else "",
                    f"{one['acceptance']:.2f}",
                    f"{one['rhat']:.3f}",
                    f"{one['error_of_mean']:.3f}",
                    f"{one['error_of_std']:.1%}",
                ]
            )
        spent = f"The fit: {fit['evaluations']:,} evaluations, {fit['seconds']:.0f} s."
        sections += [f"## {name[0].upper()}{name[1:]}", markdown(rows), spent]
    return "\n\n".join([*sections, "## Machine", machine_table(setting)]) + "\n"


TARGETS = {
    "banana": banana,
    "funnel": funnel,
    "mixture": partial(mixture, tempered=True),
    "mixture-kl": partial(mixture, tempered=False),
}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in arguments.only:
        target = TARGETS[name]()
        results[target.name] = measure(target, arguments.quick)
    setting = machine(("torch",))
    text = report(results, setting)
    print(text)
    if not arguments.quick and set(arguments.only) == set(TARGETS):
        write(RESULTS / "proposals.json", {"machine": setting, "targets": results}, text)


if __name__ == "__main__":
    main()
