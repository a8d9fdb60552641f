"""Measures densities of rows with errors: the bias of their draws, and what is recovered.

    OMP_NUM_THREADS=1 python benchmarks/errors.py [--epochs 12]

Everything is drawn from densities that are known. Writes `benchmarks/results/errors.{json,md}`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pages import RESULTS, machine_table, markdown, write
from timing import machine
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import maskedflow as mf
from maskedflow.data import Split, deconvolved_gaussian, measured_log_likelihood, toy
from maskedflow.flows import GMM, NSF, Flow, Measured, UnconditionalDistribution
from maskedflow.training import TrainConfig, evaluate, fit

NOISE = (0.3, 1.0, 3.0)
DRAWS = (2, 4, 8, 16)
ALONE = 1e12
"""Of a Gaussian as wide as that, its draws given a row are of the noise alone."""
PEAKS = (1, 2, 4, 8, 16)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = {
        "bias": [told(one) for one in biases()],
        "variance": [told(one) for one in variances()],
        "moons": [told(one) for one in moons(arguments.epochs)],
    }
    setting = machine(("torch",))
    text = report(found, setting)
    print(text)
    write(arguments.output / "errors.json", {"machine": setting, **found}, text)


def told(entry: dict[str, Any]) -> dict[str, Any]:
    """The same, printed on the way."""
    print(entry, file=sys.stderr, flush=True)
    return entry


def gaussian(features: int, n: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """A covariance with correlations of 0.4, measured rows, and errors that differ by row."""
    covariance = (0.4 + 0.6 * torch.eye(features)).double()
    x = torch.randn(n, features).double() @ torch.linalg.cholesky(covariance).T
    errors = noise * (0.5 + torch.rand(n, features).double())
    return covariance, x + errors * torch.randn(n, features), errors


def biases() -> Iterator[dict[str, Any]]:
    """How far log p(y) is from the truth where the flow is exact."""
    for features, noise in product((1, 2, 5), NOISE):
        covariance, y, errors = gaussian(features, 20_000, noise)
        mean = torch.zeros(features).double()
        truth = measured_log_likelihood(y, errors, mean, covariance)
        flow = UnconditionalDistribution(MultivariateNormal, mean, covariance)
        cases = [(f"{k} of noise alone", k, ALONE, True) for k in (16, 128)]
        cases += [(str(k), k, 1.0, True) for k in DRAWS] + [("evaluated", 16, 1.0, False)]
        for name, draws, width, training in cases:
            measured = Measured(flow, mean, width * covariance, draws=draws).train(training)
            with torch.no_grad():
                parts = zip(y.split(1000), errors.split(1000), strict=True)
                off = torch.cat([measured(e).log_prob(part) for part, e in parts]) - truth
            yield {"features": features, "noise": noise, "draws": name, "bias": off.mean().item()}


def variances() -> Iterator[dict[str, Any]]:
    """The variance of a Gaussian that is trained, over that of maximum likelihood."""
    config = TrainConfig(epochs=40, batch_size=1000, lr=0.03, schedule="cosine")
    for noise in NOISE:
        _, y, errors = gaussian(2, 10_000, noise)
        y, errors = y.float(), errors.float()
        mean, covariance = deconvolved_gaussian(y, errors)
        shared = {"features": 2, "noise": noise}
        observed = (torch.cov(y.T).diagonal() / covariance.diagonal()).mean().item()
        yield {**shared, "draws": "errors ignored", "ratio": observed}
        cases = [("16 of noise alone", 16, ALONE), *((str(k), k, 1.0) for k in DRAWS)]
        for name, draws, width in cases:
            flow = GMM(2, components=1)
            flow.initialize(y)
            rows = Split(y, errors)
            fit(Measured(flow, mean, width * covariance, draws=draws), rows, rows, config)
            with torch.no_grad():
                drawn = torch.cov(flow().sample((400_000,)).T).diagonal()
            ratio = (drawn / covariance.diagonal()).mean().item()
            yield {**shared, "draws": name, "ratio": ratio}


def moons(epochs: int) -> Iterator[dict[str, Any]]:
    """The NLL of fresh rows without noise, of two moons whose own width is 0.2."""
    config = TrainConfig(epochs=epochs, batch_size=250, lr=3e-3, schedule="cosine", patience=epochs)
    x, fresh = toy("moons", 10_000), toy("moons", 20_000)
    for noise in (0.2, 0.4, 0.8):
        errors = noise * (0.5 + torch.rand(len(x), 1)).expand(-1, 2)
        y = x + errors * torch.randn_like(x)
        again = y + errors * torch.randn_like(x)
        exact, seen, twice, both = Split(x), Split(y), Split(again), Split(y, errors)
        moments = deconvolved_gaussian(y, errors)
        for name, rows, draws in (
            ("rows without noise", exact, 0),
            ("errors ignored", seen, 0),
            ("noise drawn and added", twice, 0),
            *((f"Measured, {k} draws", both, k) for k in (4, 16)),
        ):
            start = time.process_time()
            flow = spline(y)
            density = Measured(flow, *moments, draws=draws) if draws else flow
            fit(density, rows[:9000], rows[9000:], config)
            seconds = time.process_time() - start
            nll = -evaluate(flow, Split(fresh)).mean().item()
            yield {"noise": noise, "trained on": name, "nll": nll, "seconds": seconds}
        start = time.process_time()
        peaks, mixture = best_mixture(y, errors)
        seconds = time.process_time() - start
        nll = -mixture.log_prob(fresh.double()).mean().item()
        name = f"extreme deconvolution, {peaks} Gaussians"
        yield {"noise": noise, "trained on": name, "nll": nll, "seconds": seconds}


def spline(y: Tensor) -> Flow:
    """A flow of splines, in units of the rows."""
    generator = torch.Generator().manual_seed(0)
    nsf = NSF(2, transforms=3, hidden_features=(64, 64), generator=generator)
    return Flow([mf.transforms.Standardize(y.mean(0), y.std(0)), nsf.transform], nsf.base)


def best_mixture(y: Tensor, errors: Tensor) -> tuple[int, MixtureSameFamily]:
    """Gaussians by extreme deconvolution, as many as validate best, and their number."""
    y, noise = y.double(), errors.double().square().diag_embed()
    fitted = {k: extreme_deconvolution(y[:9000], noise[:9000], k) for k in PEAKS}

    def validated(k: int) -> float:
        weights, means, covariances = fitted[k]
        whole = MultivariateNormal(means, covariances + noise[9000:, None])
        return float((weights.log() + whole.log_prob(y[9000:, None])).logsumexp(1).mean())

    best = max(PEAKS, key=validated)
    weights, means, covariances = fitted[best]
    return best, MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


def extreme_deconvolution(y: Tensor, noise: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances by EM (Bovy, Hogg and Roweis, 2011), equations 16 and 17."""
    weights, means = torch.full((k,), 1 / k).double(), y[torch.randperm(len(y))[:k]]
    covariances = torch.cov(y.T).expand(k, 2, 2) / k
    for _ in range(100):
        total = covariances + noise[:, None]
        log_prob = weights.log() + MultivariateNormal(means, total).log_prob(y[:, None])
        share = log_prob.softmax(dim=1)[..., None]
        gain = torch.linalg.solve(total, covariances.expand_as(total)).mT
        x = means + (gain @ (y[:, None] - means)[..., None])[..., 0]
        count = share.sum(0)
        weights, means = count[:, 0] / len(y), (share * x).sum(0) / count
        centred = (x - means)[..., None]
        left = covariances - gain @ covariances
        spread = (share[..., None] * (left + centred @ centred.mT)).sum(0)
        covariances = (spread + 1e-6 * torch.eye(2)) / count[..., None]
    return weights, means, covariances


def report(found: dict[str, list[dict[str, Any]]], setting: dict[str, Any]) -> str:
    """The page."""
    bias = [["features", "noise", *dict.fromkeys(one["draws"] for one in found["bias"])]]
    for key in dict.fromkeys((one["features"], one["noise"]) for one in found["bias"]):
        cells = [one for one in found["bias"] if (one["features"], one["noise"]) == key]
        bias.append([*map(str, key), *(f"{one['bias']:+.4f}" for one in cells)])
    ratios = [["noise", *dict.fromkeys(one["draws"] for one in found["variance"])]]
    for noise in NOISE:
        cells = [one for one in found["variance"] if one["noise"] == noise]
        ratios.append([str(noise), *(f"{one['ratio']:.3f}" for one in cells)])
    curves = [["noise", "trained on", "NLL of rows without noise", "CPU seconds"]]
    for one in found["moons"]:
        cells = [str(one["noise"]), one["trained on"], f"{one['nll']:.3f}", f"{one['seconds']:.0f}"]
        curves.append(cells)
    return "\n\n".join(
        (
            "# Rows measured with errors",
            "The mean error of log p(y), in nats, by K draws in training and by the 128 of an "
            "evaluation with K = 16,\nwhere the flow is the exact Gaussian. Noise is in standard "
            "deviations of what is measured, and half to one\nand a half of that by row.",
            markdown(bias),
            "The variance of a Gaussian that is trained, over that of maximum likelihood.",
            markdown(ratios),
            "Two moons, whose own width is 0.2, by a flow of three splines: the NLL of fresh rows "
            "without noise, in nats.",
            markdown(curves),
            machine_table(setting),
            "",
        )
    )


if __name__ == "__main__":
    main()
