"""Variational autoencoders of binarised MNIST: is a flow as prior, or as posterior, worth it?

Four models of equal size, in number of parameters, learn for an equal number of epochs, from three
seeds each: with N(0, I) as prior and a Gaussian posterior, with a MAF prior, with an IAF posterior,
and with both.

    python examples/vae.py            # minutes; writes into docs/
    python examples/vae.py --quick    # seconds, on digits of 8x8 pixels; writes into maf_results/
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import torch
from torch import Tensor

import maskedflow as mf
from maskedflow import report
from maskedflow.data import Split
from maskedflow.models import VAE, ConditionalNormal
from maskedflow.training import TrainConfig, fit

ROOT = Path(__file__).parents[1]
KINDS = (
    "N(0, I) prior, Gaussian posterior",
    "MAF prior",
    "IAF posterior",
    "MAF prior, IAF posterior",
)


def binarised(name: str) -> tuple[mf.data.Dataset, list[Split]]:
    """The images of a data set, each pixel 1 with the probability that its grey level says."""
    data = mf.data.load(name)
    generator = torch.Generator().manual_seed(0)
    splits = []
    for split in (data.train, data.validation, data.test):
        grey = split.x.float() / ((data.levels or 256) - 1)
        splits.append(Split(torch.bernoulli(grey.clamp(0, 1), generator=generator)))
    return data, splits


def build(kind: str, features: int, latent: int, width: int, seed: int) -> VAE:
    """One of the four models."""
    generator = torch.Generator().manual_seed(seed)
    prior = posterior = None
    if "MAF" in kind:
        prior = mf.flows.MAF(latent, transforms=3, hidden_features=(64, 64), generator=generator)
    if "IAF" in kind:
        posterior = mf.flows.IAF(
            latent,
            context=width,
            transforms=2,
            hidden_features=(64,),
            base=ConditionalNormal(latent, width, generator=generator),
            generator=generator,
        )
    return VAE(
        features,
        latent,
        prior=prior,
        posterior=posterior,
        hidden_features=(width,),
        generator=generator,
    )


def size(vae: VAE) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in vae.parameters())


def widths(features: int, latent: int, width: int) -> dict[str, int]:
    """The width of each model's hidden layers that gives it the size of the one with both flows."""
    goal = size(build(KINDS[-1], features, latent, width, seed=0))
    found = {}
    for kind in KINDS:
        found[kind] = min(
            range(width, width + 128),
            key=lambda w: abs(size(build(kind, features, latent, w, seed=0)) - goal),
        )
    return found


def main() -> None:
    """Trains, evaluates, prints the table, and draws samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds, on small images")
    parser.add_argument("--out", type=Path, help="where images/ and examples/ are written")
    args = parser.parse_args()
    out = args.out or ROOT / ("maf_results/examples" if args.quick else "docs")

    data, (train, validation, test) = binarised("digits" if args.quick else "mnist")
    seeds, epochs, latent, width = (1, 1, 4, 32) if args.quick else (3, 8, 16, 200)
    rows, draws = (50, 20) if args.quick else (1000, 500)
    results: dict[str, dict[str, list[float]]] = {}
    pictures: dict[str, Tensor] = {}
    for kind, hidden in widths(data.features, latent, width).items():
        result: dict[str, list[float]] = {"elbo": [], "log_likelihood": [], "seconds": []}
        for seed in range(seeds):
            vae = build(kind, data.features, latent, hidden, seed)
            config = TrainConfig(
                epochs, batch_size=200, lr=2e-3, schedule="cosine", weight_decay=0, seed=seed
            )
            start = time.process_time()
            fit(vae, train, validation, config)
            result["seconds"].append(time.process_time() - start)
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                elbo = torch.cat([vae.elbo(x, 10, generator) for x in test.x[:rows].split(200)])
            weighted = vae.log_likelihood(test.x[:rows], draws, generator)
            result["elbo"].append(elbo.double().mean().item())
            result["log_likelihood"].append(weighted.double().mean().item())
            print(
                f"{kind}, seed {seed}: {size(vae):,} parameters, ELBO {result['elbo'][-1]:.2f}, "
                f"log-likelihood {result['log_likelihood'][-1]:.2f} nats, "
                f"{result['seconds'][-1]:.0f} s",
                flush=True,
            )
            if seed == 0:
                with torch.no_grad():
                    pictures[kind] = vae.decode(vae.prior().sample((36,), generator)).mean
        results[kind] = result

    (out / "examples").mkdir(parents=True, exist_ok=True)
    (out / "examples/vae.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    page = out / "examples/vae.md"
    text = table(results)
    if page.exists():
        between = r"(<!-- numbers -->\n).*?(<!-- end -->)"
        content = page.read_text("utf-8")
        content = re.sub(between, rf"\g<1>{text}\g<2>", content, flags=re.DOTALL)
        page.write_text(content, "utf-8")
    print(text)

    assert data.image_shape is not None
    figure = report.new_figure(12, 3.4)
    for axes, (kind, pixels) in zip(figure.subplots(1, 4), pictures.items(), strict=True):
        report.image_grid(axes, pixels.numpy(), data.image_shape, levels=2, title=kind)
    report.save(figure, out / "images/vae_samples.png", dpi=100)


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """The results in Markdown: mean over seeds, and half of the range."""
    lines = [
        "| model | test ELBO | importance-weighted log-likelihood | gap | CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for kind, result in results.items():
        elbo, weighted, seconds = (
            torch.tensor(result[key]) for key in ("elbo", "log_likelihood", "seconds")
        )
        cells = [kind]
        for values in (elbo, weighted, weighted - elbo):
            cells.append(f"{values.mean():.2f} ± {(values.max() - values.min()) / 2:.2f}")
        lines.append(f"| {' | '.join([*cells, f'{seconds.median():.0f}'])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
