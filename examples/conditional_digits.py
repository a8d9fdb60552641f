"""Class-conditional densities of digits: a grid of samples, and the classifier of Bayes' rule.

A MAF learns p(x | y) of images x of a digit y. Samples of each class come from the one-sweep
inverse, and argmax_y log p(x | y) p(y) is a classifier, beside which stands a logistic regression.

    python examples/conditional_digits.py            # minutes, on MNIST; writes into docs/
    python examples/conditional_digits.py --quick    # seconds, on 8x8 digits; into maf_results/
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import maskedflow as mf
from maskedflow import report
from maskedflow.data import Dataset, Split
from maskedflow.training import TrainConfig

ROOT = Path(__file__).parents[1]
CLASSES = 10
ROWS = 250
"""Images scored at once, each under ten classes."""


def train(data: Dataset, quick: bool) -> mf.flows.Flow:
    """Fits p(x | y), in the data's own units."""
    generator = torch.Generator().manual_seed(0)
    maf = mf.flows.MAF(
        data.features,
        CLASSES,
        transforms=2 if quick else 5,
        hidden_features=(64,) if quick else (512, 512),
        batch_norm=not quick,
        widen=False,
        generator=generator,
    )
    preprocessing = data.preprocessing()
    assert preprocessing is not None
    flow = mf.flows.Flow([*preprocessing.transforms, *maf.transform.transforms], maf.base)
    config = TrainConfig(epochs=8, batch_size=100, lr=5e-3 if quick else 1e-3, schedule="cosine")
    start = time.process_time()
    mf.training.fit(flow, data.train, data.validation, config)
    print(f"trained in {time.process_time() - start:.0f} s of CPU time", flush=True)
    return flow


def class_log_probs(flow: mf.flows.Flow, x: Tensor) -> Tensor:
    """The log-density of each row under each class, in nats, with shape (n, 10).

    A batch of contexts broadcasts against a batch of images: ten classes are one call. Blocks of
    rows keep what one call holds in memory to some tens of megabytes.
    """
    for module in flow.modules():
        if isinstance(module, mf.transforms.Dequantize):
            module.seed(0)
    classes = torch.eye(CLASSES)
    with torch.no_grad():
        parts = [flow(classes).log_prob(rows.float()[:, None]) for rows in x.split(ROWS)]
    return torch.cat(parts).double()


def labels(split: Split) -> Tensor:
    """The class of each row."""
    assert split.context is not None
    return split.context.argmax(dim=1)


def bits_per_dimension(log_prob: Tensor, features: int) -> float:
    """The mean negative log-likelihood in bits a pixel."""
    return -log_prob.mean().item() / features / torch.tensor(2.0).log().item()


def logistic_regression(data: Dataset) -> tuple[float, float]:
    """The test accuracy of a logistic regression on all pixels, and its mean log p(y | x)."""
    scale = (data.levels or 256) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge to the last digit
        model = LogisticRegression(max_iter=100, C=0.1)
        model.fit(data.train.x.numpy() / scale, labels(data.train).numpy())
    probabilities = model.predict_proba(data.test.x.numpy() / scale)
    y = labels(data.test)
    found = torch.from_numpy(probabilities)[torch.arange(len(y)), y].log().mean().item()
    return (torch.from_numpy(probabilities).argmax(dim=1) == y).double().mean().item(), found


def sample_grid(flow: mf.flows.Flow, data: Dataset, path: Path) -> float:
    """Draws ten digits of each class, a row a class, and tells the seconds it took."""
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    with torch.no_grad():
        x = flow(torch.eye(CLASSES)).sample((CLASSES,), generator=generator)
    seconds = time.perf_counter() - start
    y = labels(data.test)
    pictures = [data.test.x[y == label][:CLASSES] for label in range(CLASSES)]
    assert data.image_shape is not None
    figure = report.new_figure(9, 5)
    left, right = figure.subplots(1, 2)
    levels = float(data.levels or 256)
    for axes, rows, title in (
        (left, torch.cat(pictures), "test images"),
        (right, x.transpose(0, 1).reshape(-1, data.features), "samples, a class a row"),
    ):
        report.image_grid(axes, rows.numpy(), data.image_shape, levels=levels, title=title)
    report.save(figure, path, dpi=110)
    return seconds


def table(result: dict[str, float]) -> str:
    """The numbers in Markdown."""
    return "\n".join(
        [
            "| on the test images | Bayes' rule with the MAF | logistic regression |",
            "|---|---|---|",
            f"| accuracy | {result['accuracy']:.2%} | {result['logistic accuracy']:.2%} |",
            f"| mean log p(y given x), nats | {result['log posterior']:.3f} | "
            f"{result['logistic log posterior']:.3f} |",
            f"| p(x given its own y), bits per dimension | {result['conditional bpd']:.3f} | |",
            f"| p(x), summed over classes, bits per dimension | {result['bpd']:.3f} | |",
            f"| 100 samples, seconds | {result['sampling seconds']:.3f} | |",
            "",
        ]
    )


def write(out: Path, name: str, result: dict[str, float], text: str) -> None:
    """Writes the numbers as JSON, and into the page of the example if there is one."""
    (out / "examples").mkdir(parents=True, exist_ok=True)
    (out / f"examples/{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    page = out / f"examples/{name}.md"
    if page.exists():
        between = r"(?<=<!-- numbers -->\n).*?(?=<!-- end -->)"
        old = page.read_text("utf-8")
        page.write_text(re.sub(between, lambda _: text, old, flags=re.DOTALL), "utf-8")
    print(text)


def main() -> None:
    """Trains, samples, classifies, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds, on small digits")
    parser.add_argument("--out", type=Path, help="where images/ and examples/ are written")
    args = parser.parse_args()
    out = args.out or ROOT / ("maf_results/examples" if args.quick else "docs")
    try:
        data = mf.data.load("digits" if args.quick else "mnist", labels=True)
    except FileNotFoundError as error:
        raise SystemExit(f"{error}; or try --quick, which needs no file") from None

    flow = train(data, args.quick)
    seconds = sample_grid(flow, data, out / "images/conditional_digits.png")

    y = labels(data.test)
    prior = labels(data.train).bincount(minlength=CLASSES).double()
    log_joint = class_log_probs(flow, data.test.x) + (prior / prior.sum()).log()
    log_posterior = log_joint.log_softmax(dim=1)
    own = torch.arange(len(y)), y
    accuracy, log_score = logistic_regression(data)
    conditional = log_joint[own] - (prior / prior.sum()).log()[y]
    result = {
        "accuracy": (log_joint.argmax(dim=1) == y).double().mean().item(),
        "log posterior": log_posterior[own].mean().item(),
        "logistic accuracy": accuracy,
        "logistic log posterior": log_score,
        "conditional bpd": bits_per_dimension(conditional, data.features),
        "bpd": bits_per_dimension(log_joint.logsumexp(dim=1), data.features),
        "sampling seconds": seconds,
    }
    write(out, "conditional_digits", result, table(result))


if __name__ == "__main__":
    main()
