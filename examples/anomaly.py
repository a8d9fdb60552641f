"""Which images do not belong? Anomaly scores of a MAF beside scikit-learn's detectors.

Each detector sees one class of digits only, and then ranks test images of that class and of the
others. What is told is the area under the ROC curve: how often an image of another class looks
stranger than one of the same class.

A second part is the known failure: a density learned from raw pixels gives *simple* images a high
likelihood, though no digit looks like them.

    python examples/anomaly.py            # minutes, on MNIST; writes into docs/
    python examples/anomaly.py --quick    # seconds, on 8x8 digits; writes into maf_results/
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

import maskedflow as mf
from maskedflow import report
from maskedflow.data import Dataset, Split
from maskedflow.training import TrainConfig

ROOT = Path(__file__).parents[1]
DETECTORS = ("MAF", "GaussianMixture", "IsolationForest")
Rows = NDArray[np.float64]


def of_class(split: Split, label: int) -> Tensor:
    """The images of a class."""
    assert split.context is not None
    return split.x[split.context.argmax(dim=1) == label]


def maf_scores(parts: tuple[Rows, Rows, Rows], quick: bool) -> NDArray[np.float64]:
    """Gives log p of the rows to rank under a MAF fitted to the rows to learn from."""
    train, validation, test = (Split(torch.from_numpy(rows).float()) for rows in parts)
    maf = mf.flows.MAF(
        train.x.shape[1],
        transforms=3,
        hidden_features=(64, 64),
        generator=torch.Generator().manual_seed(0),
    )
    flow = mf.flows.Flow([mf.transforms.Standardize.fit(train.x), maf.transform], maf.base)
    config = TrainConfig(
        epochs=5 if quick else 25,
        batch_size=100,
        lr=2e-3,
        schedule="cosine",
        weight_decay=1e-4,
        patience=5,
    )
    mf.training.fit(flow, train, validation, config)
    return mf.training.evaluate(flow, test).numpy()


def scores(parts: tuple[Rows, Rows, Rows], quick: bool) -> dict[str, NDArray[np.float64]]:
    """How usual each detector finds the rows to rank."""
    learned = np.concatenate(parts[:2])  # these two need no validation rows
    mixture = GaussianMixture(10 if len(learned) > 1000 else 1, reg_covar=1e-3, random_state=0)
    forest = IsolationForest(random_state=0)
    return {
        "MAF": maf_scores(parts, quick),
        "GaussianMixture": mixture.fit(learned).score_samples(parts[2]),
        "IsolationForest": forest.fit(learned).score_samples(parts[2]),
    }


def components(data: Dataset, label: int, number: int) -> tuple[tuple[Rows, Rows, Rows], Rows]:
    """Principal components of one class, of the test images of all, and which of these are others.

    The components are those of the one class: what only the others have is not in them.
    """
    scale = (data.levels or 256) - 1
    own = [of_class(split, label).numpy() / scale for split in (data.train, data.validation)]
    pca = PCA(number, whiten=True, random_state=0).fit(own[0])
    assert data.test.context is not None
    strange = (data.test.context.argmax(dim=1) != label).numpy()
    rows = (*(pca.transform(part) for part in own), pca.transform(data.test.x.numpy() / scale))
    return rows, strange


def pixel_flow(data: Dataset, label: int, quick: bool) -> mf.flows.Flow:
    """A MAF of the raw pixels of a class, noise and logit included."""
    train, validation = (Split(of_class(s, label)) for s in (data.train, data.validation))
    maf = mf.flows.MAF(
        data.features,
        transforms=2 if quick else 5,
        hidden_features=(32,) if quick else (256,),
        batch_norm=True,
        widen=False,
        generator=torch.Generator().manual_seed(0),
    )
    preprocessing = data.preprocessing()
    assert preprocessing is not None
    flow = mf.flows.Flow([*preprocessing.transforms, *maf.transform.transforms], maf.base)
    config = TrainConfig(epochs=5 if quick else 20, batch_size=100, lr=2e-3, schedule="cosine")
    mf.training.fit(flow, train, validation, config)
    return flow


def pixels_under(flow: mf.flows.Flow, data: Dataset, label: int) -> dict[str, Tensor]:
    """Gives log p of several kinds of images under a flow of raw pixels, in nats."""
    x = data.test.x
    assert data.test.context is not None
    own = data.test.context.argmax(dim=1) == label
    kinds = {
        "the class": x[own],
        "other classes": x[~own],
        "the class at half contrast": x[own] // 2,
        "blank": torch.zeros_like(x[:200]),
        "noise": torch.randint(
            data.levels or 256, (200, data.features), generator=torch.Generator().manual_seed(0)
        ).byte(),
    }
    return {name: mf.training.evaluate(flow, Split(rows)) for name, rows in kinds.items()}


def auroc(usual: Tensor, strange: Tensor) -> float:
    """How often a strange image has the lower log-density."""
    truth = np.repeat([0, 1], [len(usual), len(strange)])
    return float(roc_auc_score(truth, -torch.cat([usual, strange]).numpy()))


def histogram(found: dict[str, Tensor], features: int, label: int, path: Path) -> None:
    """Draws the log-densities of the kinds of images; noise is too far off to show."""
    figure = report.new_figure(8, 3.6)
    axes = figure.subplots()
    bits = {name: -v / features / np.log(2) for name, v in found.items() if name != "noise"}
    low = min(float(v.min()) for v in bits.values())
    high = max(float(v.quantile(0.99)) for v in bits.values())
    edges = np.linspace(low, high, 80)
    colours = (report.DATA_COLOUR, report.SAMPLE_COLOUR, "#4d9a5b", "#9a4d8f")
    for (name, values), colour in zip(bits.items(), colours, strict=True):
        axes.hist(values.numpy(), edges, density=True, alpha=0.6, label=name, color=colour)
    axes.set_yscale("log")
    axes.set_xlabel(f"bits per pixel under a MAF of the pixels of class {label} (left: likely)")
    axes.set_ylabel("share")
    axes.legend(fontsize=8, frameon=False)
    report.save(figure, path, dpi=110)


def table(areas: dict[str, dict[str, float]], pixels: dict[str, list[float]]) -> str:
    """The numbers in Markdown."""
    lines = ["| class learned | " + " | ".join(DETECTORS) + " |", "|---|---|---|---|"]
    for label, row in areas.items():
        lines.append(f"| {label} | " + " | ".join(f"{row[name]:.3f}" for name in DETECTORS) + " |")
    mean = {name: np.mean([row[name] for row in areas.values()]) for name in DETECTORS}
    lines.append("| mean | " + " | ".join(f"{mean[name]:.3f}" for name in DETECTORS) + " |")
    lines += [
        "",
        "| raw pixels | bits per dimension, median | AUROC against the class |",
        "|---|---|---|",
    ]
    for name, (bpd, area) in pixels.items():
        told = "" if name == "the class" else f"{area:.3f}"
        bits = f"{bpd:.3f}" if bpd < 100 else f"{bpd:.0e}"
        lines.append(f"| {name} | {bits} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fits all detectors to each class, and the pixels of one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seconds, on small digits")
    parser.add_argument("--out", type=Path, help="where images/ and examples/ are written")
    args = parser.parse_args()
    out = args.out or ROOT / ("maf_results/examples" if args.quick else "docs")
    try:
        data = mf.data.load("digits" if args.quick else "mnist", labels=True)
    except FileNotFoundError as error:
        raise SystemExit(f"{error}; or try --quick, which needs no file") from None

    areas = {}
    for label in range(2 if args.quick else 10):
        parts, strange = components(data, label, 10 if args.quick else 30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mixture need not converge to the last digit
            found = scores(parts, args.quick)
        areas[str(label)] = {k: float(roc_auc_score(strange, -v)) for k, v in found.items()}
        print(label, areas[str(label)], flush=True)

    label = 8
    under = pixels_under(pixel_flow(data, label, args.quick), data, label)
    bit = data.features * float(np.log(2))
    pixels = {k: [-v.median().item() / bit, auroc(under["the class"], v)] for k, v in under.items()}
    histogram(under, data.features, label, out / "images/anomaly_pixels.png")

    text = table(areas, pixels)
    (out / "examples").mkdir(parents=True, exist_ok=True)
    result = {"areas": areas, "pixels": pixels}
    (out / "examples/anomaly.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    page = out / "examples/anomaly.md"
    if page.exists():
        between = r"(?<=<!-- numbers -->\n).*?(?=<!-- end -->)"
        old = page.read_text("utf-8")
        page.write_text(re.sub(between, lambda _: text, old, flags=re.DOTALL), "utf-8")
    print(text)


if __name__ == "__main__":
    main()
