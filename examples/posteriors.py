"""Variational inference on three posteriors: a funnel, a logistic regression, a ring of modes.

A flow is fitted to an unnormalised log-density, and importance sampling then says how good it is:
effective sample size and log Z. The funnel's Z is known; the logistic regression is compared with
a long run of Hamiltonian Monte Carlo; on the ring the plain recipe fails, without noticing it.

    python examples/posteriors.py            # minutes; writes into docs/
    python examples/posteriors.py --quick    # seconds; writes into maf_results/
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn.functional import softplus

import maskedflow as mf
from maskedflow import report
from maskedflow.training import (
    ImportanceSample,
    VariationalConfig,
    fit_posterior,
    importance_sample,
)

ROOT = Path(__file__).parents[1]
LogDensity = Callable[[Tensor], Tensor]
Results = dict[str, dict[str, float]]


def main() -> None:
    """Fits the three, prints the tables, and draws the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--out", type=Path, help="where images/ and examples/ are written")
    args = parser.parse_args()
    out = args.out or ROOT / ("maf_results/examples" if args.quick else "docs")

    results, texts = {}, {}
    for study in (funnel, regression, ring):
        results[study.__name__], texts[study.__name__] = study(args.quick, out)
        print(f"{study.__name__}\n\n{texts[study.__name__]}", flush=True)
    (out / "examples").mkdir(parents=True, exist_ok=True)
    (out / "examples/posteriors.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    page = out / "examples/posteriors.md"
    if page.exists():
        content = page.read_text("utf-8")
        for name, text in texts.items():
            between = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
            content = re.sub(between, rf"\g<1>{text}\g<2>", content, flags=re.DOTALL)
        page.write_text(content, "utf-8")


def fitted(
    flow: mf.flows.Flow,
    log_density: LogDensity,
    config: VariationalConfig,
    n: int,
    generator: torch.Generator,
) -> tuple[ImportanceSample, float]:
    """Fits a flow and draws from it; the CPU seconds are those of the fit."""
    start = time.process_time()
    fit_posterior(flow, log_density, config, generator)
    seconds = time.process_time() - start
    return importance_sample(flow, log_density, n, generator), seconds


def summary(sample: ImportanceSample, seconds: float) -> dict[str, float]:
    """What importance sampling says."""
    return {
        "ess": sample.ess / len(sample.x),
        "log_z": sample.log_z,
        "standard_error": sample.standard_error,
        "seconds": seconds,
    }


# --- a funnel, whose constant is known


def funnel(quick: bool, out: Path) -> tuple[Results, str]:
    """Neal's funnel in ten dimensions: the scale of nine of them is the exponential of the first.

    Radford Neal: Slice Sampling (2003), section 8.
    """
    log_z = 0.5 * math.log(2 * math.pi * 9) + 4.5 * math.log(2 * math.pi)

    def log_density(x: Tensor) -> Tensor:
        v, rest = x[..., 0], x[..., 1:]
        return (
            -v.square() / 18
            - 4.5 * v
            - 0.5 * (rest * torch.exp(-v / 2)[..., None]).square().sum(-1)
        )

    steps, n = (30, 1000) if quick else (2000, 50_000)
    results, drawn = {}, {}
    for kind in (mf.flows.MAF, mf.flows.IAF):
        generator = torch.Generator().manual_seed(0)
        flow = kind(10, transforms=3, hidden_features=(64, 64), generator=generator)
        config = VariationalConfig(steps, lr=3e-3)
        sample, seconds = fitted(flow, log_density, config, n, generator)
        results[kind.__name__] = summary(sample, seconds)
        drawn[kind.__name__] = sample.x
    lines = ["| flow | log Z | error of Z | ESS / n | CPU seconds |", "|---|---|---|---|---|"]
    lines.append(f"| the truth | {log_z:.4f} | | | |")
    for name, r in results.items():
        error = math.expm1(r["log_z"] - log_z)
        lines.append(
            f"| {name} | {r['log_z']:.4f} ± {2 * r['standard_error']:.4f} | {error:+.3%} | "
            f"{r['ess']:.3f} | {r['seconds']:.0f} |"
        )

    generator = torch.Generator().manual_seed(1)
    v = 3 * torch.randn(2000, generator=generator)
    truth = torch.stack([v, torch.randn(2000, generator=generator) * (v / 2).exp()], dim=1)
    figure = report.new_figure(9, 3.2)
    panels = {"the funnel": truth, **{f"{k}, draws": x[:2000, :2] for k, x in drawn.items()}}
    for axes, (title, x) in zip(
        figure.subplots(1, 3, sharex=True, sharey=True), panels.items(), strict=True
    ):
        colour = report.DATA_COLOUR if x is truth else report.SAMPLE_COLOUR
        axes.scatter(x[:, 1], x[:, 0], s=2, color=colour, linewidths=0)
        axes.set(xlim=(-30, 30), ylim=(-11, 11), title=title, xlabel="$x_1$")
    figure.axes[0].set_ylabel("v, the log of the others' variance")
    report.save(figure, out / "images/posteriors_funnel.png", dpi=100)
    return results, "\n".join(lines) + "\n"


# --- a logistic regression, beside Hamiltonian Monte Carlo


def regression(quick: bool, out: Path) -> tuple[Results, str]:
    """Thirty features of tumours, and whether they are benign; coefficients are N(0, 4)."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    x = torch.as_tensor(bunch.data)
    x = torch.cat([torch.ones(len(x), 1), (x - x.mean(0)) / x.std(0, correction=0)], dim=1)
    sign = 2 * torch.as_tensor(bunch.target).double() - 1
    signed = x.double() * sign[:, None]
    d, scale = x.shape[1], 2.0
    constant = -0.5 * d * math.log(2 * math.pi * scale**2)

    def log_density(w: Tensor) -> Tensor:
        return constant - 0.5 * (w / scale).square().sum(-1) - softplus(-w @ signed.T).sum(-1)

    mode, factor = laplace(log_density, d)
    gaussian = MultivariateNormal(mode, scale_tril=factor)
    chains, steps = (8, 100) if quick else (64, 3000)
    run = hamiltonian(log_density, mode, factor, chains, steps, torch.Generator().manual_seed(0))
    mean, std = run.mean((0, 1)), run.std((0, 1))
    within = run.var(0).mean(0)
    error = run.mean(0).std(0) / chains**0.5  # of the mean: chains are independent
    r_hat = (1 + run.mean(0).var(0) / within).sqrt().max().item()

    n = 1000 if quick else 50_000
    torch_draws = torch.randn(n, d, generator=torch.Generator().manual_seed(1), dtype=mode.dtype)
    points = mode + torch_draws @ factor.T
    approximation = ImportanceSample(points, log_density(points) - gaussian.log_prob(points))
    generator = torch.Generator().manual_seed(0)
    flow = mf.flows.MAF(d, transforms=3, hidden_features=(64, 64), generator=generator).double()
    config = VariationalConfig(30 if quick else 3000, lr=3e-3)
    sample, seconds = fitted(flow, log_density, config, n, generator)

    unweighted = ImportanceSample(sample.x, torch.zeros(n))
    plain = ImportanceSample(points, torch.zeros(n))
    moments = {
        "Laplace approximation": plain,
        "Laplace approximation, weighted": approximation,
        "MAF": unweighted,
        "MAF, weighted": sample,
    }
    rows = {
        "Laplace approximation, weighted": summary(approximation, 0.0),
        "MAF, weighted": summary(sample, seconds),
    }
    for name, other in moments.items():
        rows[name] = {
            **rows.get(name, {}),
            "largest_error_of_mean": ((other.mean - mean) / std).abs().max().item(),
            "largest_error_of_std": (other.std / std - 1).abs().max().item(),
        }
    rows["Hamiltonian Monte Carlo"] = {
        "largest_standard_error_of_mean": (error / std).max().item(),
        "r_hat": r_hat,
    }
    text = [
        "| against Hamiltonian Monte Carlo | means, in standard deviations | standard deviations | "
        "log Z | ESS / n |",
        "|---|---|---|---|---|",
    ]
    for name in moments:
        r = rows[name]
        cells = [name, f"{r['largest_error_of_mean']:.3f}", f"{r['largest_error_of_std']:.1%}"]
        if "log_z" in r:
            cells += [f"{r['log_z']:.4f} ± {2 * r['standard_error']:.4f}", f"{r['ess']:.3f}"]
        else:
            cells += ["", ""]
        text.append(f"| {' | '.join(cells)} |")
    text.append(
        f"\nThe reference is {chains} chains of {steps:,} draws. The standard error of its own "
        f"means is at most {(error / std).max():.4f} standard deviations, and the largest R-hat "
        f"{r_hat:.4f}. The flow took {seconds:.0f} CPU seconds."
    )

    figure = report.new_figure(9, 4)
    for axes, values, title in zip(
        figure.subplots(1, 2),
        ("mean", "std"),
        ("posterior means", "standard deviations"),
        strict=True,
    ):
        reference = mean if values == "mean" else std
        for label, other, marker, colour in (
            ("Laplace approximation", plain, "x", "0.4"),
            ("MAF, not weighted", unweighted, "o", report.SAMPLE_COLOUR),
        ):
            axes.plot(reference, getattr(other, values), marker, color=colour, ms=5, label=label)
        ends = [reference.min().item(), reference.max().item()]
        axes.plot(ends, ends, color="0.7", lw=1, zorder=0)
        axes.set(title=title, xlabel="Hamiltonian Monte Carlo")
        axes.legend(frameon=False)
    report.save(figure, out / "images/posteriors_regression.png", dpi=100)
    return rows, "\n".join(text) + "\n"


def laplace(log_density: LogDensity, d: int) -> tuple[Tensor, Tensor]:
    """The mode, by Newton's method, and the Cholesky factor of the inverse curvature there."""
    w = torch.zeros(d, dtype=torch.float64)
    for _ in range(30):
        w = w.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_density(w), w)
        curvature = -torch.autograd.functional.hessian(log_density, w)
        w = w + torch.linalg.solve(curvature, gradient)
    return w.detach(), torch.linalg.cholesky(torch.linalg.inv(curvature))


def hamiltonian(
    log_density: LogDensity,
    mode: Tensor,
    factor: Tensor,
    chains: int,
    steps: int,
    generator: torch.Generator,
    leaps: int = 8,
) -> Tensor:
    """Hamiltonian Monte Carlo, in coordinates in which the Laplace approximation is N(0, I).

    The size of the leaps is adapted in a warm-up, whose draws are left out, and then fixed, but for
    a tenth of noise against periodic paths. Radford Neal: MCMC using Hamiltonian dynamics (2011),
    section 5.3, https://arxiv.org/abs/1206.1901

    Returns:
        The draws, with shape (steps, chains, d).
    """

    def value_and_slope(u: Tensor) -> tuple[Tensor, Tensor]:
        u = u.detach().requires_grad_()
        value = log_density(mode + u @ factor.T)
        return value.detach(), torch.autograd.grad(value.sum(), u)[0]

    options: dict[str, Any] = {"dtype": mode.dtype, "generator": generator}
    u = torch.randn(chains, len(mode), **options)
    value, slope = value_and_slope(u)
    draws, size, warm_up = [], 0.3, steps // 4
    for step in range(warm_up + steps):
        leap = size * (0.9 + 0.2 * torch.rand((), **options))
        momentum = torch.randn(u.shape, **options)
        energy = 0.5 * momentum.square().sum(-1) - value
        new, new_value, new_slope = u, value, slope
        for _ in range(leaps):
            momentum = momentum + 0.5 * leap * new_slope
            new = new + leap * momentum
            new_value, new_slope = value_and_slope(new)
            momentum = momentum + 0.5 * leap * new_slope
        drop = energy - 0.5 * momentum.square().sum(-1) + new_value
        accept = torch.rand(chains, **options).log() < drop
        u = torch.where(accept[:, None], new, u)
        value, slope = (
            torch.where(accept, new_value, value),
            torch.where(accept[:, None], new_slope, slope),
        )
        if step < warm_up:  # towards an acceptance of 80 %
            size *= math.exp((drop.exp().clamp(max=1).mean().item() - 0.8) / (1 + step) ** 0.5)
        else:
            draws.append(mode + u @ factor.T)
    return torch.stack(draws)


# --- eight modes on a ring


def ring(quick: bool, out: Path) -> tuple[Results, str]:
    """Eight Gaussians on a ring with weights 1 to 8, whose log Z is 0."""
    angle = torch.arange(8) * math.pi / 4
    centres = 6 * torch.stack([angle.cos(), angle.sin()], dim=-1)
    share = torch.arange(1.0, 9.0) / 36
    scale = 0.5

    def log_density(x: Tensor) -> Tensor:
        squares = ((x[..., None, :] - centres) / scale).square().sum(-1)
        constant = math.log(2 * math.pi * scale**2)
        return (share.log() - 0.5 * squares - constant).logsumexp(-1)

    def flow(wide: bool, mixture: bool, generator: torch.Generator) -> mf.flows.Flow:
        base = None
        if mixture:  # its components start where 500 points of N(0, I) have their clusters
            points = torch.randn(500, 2, generator=generator)
            base = mf.flows.base("mixture", 2, components=8, x=points, generator=generator)
        maf = mf.flows.MAF(
            2, transforms=4, hidden_features=(64, 64), base=base, generator=generator
        )
        first = mf.transforms.Standardize(torch.zeros(2), torch.full((2,), 6.0))
        return mf.flows.Flow([first, maf.transform], maf.base) if wide else maf

    recipes: dict[str, tuple[bool, bool, float]] = {
        "plain": (False, False, 1.0),
        "wide": (True, False, 1.0),
        "mixture base, wide": (True, True, 1.0),
        "annealed": (False, False, 50.0),
        "annealed, wide": (True, False, 50.0),
        "annealed, mixture base, wide": (True, True, 50.0),
    }
    steps, n = (20, 1000) if quick else (2500, 20_000)
    results: Results = {}
    figure = report.new_figure(10, 6.8)
    for axes, (name, (wide, mixture, temperature)) in zip(
        figure.subplots(2, 3).flat, recipes.items(), strict=True
    ):
        generator = torch.Generator().manual_seed(0)
        q = flow(wide, mixture, generator)
        config = VariationalConfig(steps, lr=3e-3, temperature=temperature)
        sample, seconds = fitted(q, log_density, config, n, generator)
        nearest = (sample.x[:, None] - centres).norm(dim=-1).argmin(dim=1)
        mass = torch.bincount(nearest, minlength=8) / n
        results[name] = summary(sample, seconds)
        results[name]["modes"] = int((mass > share / 4).sum())
        axes.scatter(
            *centres.T, s=600 * share, marker="o", facecolors="none", edgecolors=report.DATA_COLOUR
        )
        axes.scatter(*sample.x[:3000].T, s=2, color=report.SAMPLE_COLOUR, linewidths=0)
        axes.set(xlim=(-9, 9), ylim=(-9, 9), aspect="equal", title=name)
    report.save(figure, out / "images/posteriors_ring.png", dpi=90)
    lines = [
        "| recipe | modes found | log Z, in truth 0 | ESS / n | CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for name, r in results.items():
        lines.append(
            f"| {name} | {r['modes']} of 8 | {r['log_z']:.4f} ± {2 * r['standard_error']:.4f} | "
            f"{r['ess']:.3f} | {r['seconds']:.0f} |"
        )
    return results, "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
