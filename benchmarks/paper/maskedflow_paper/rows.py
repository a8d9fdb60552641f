"""The MAF paper's experiments: which rows its tables have, how they were trained, what came out.

Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "DATASETS",
    "IMAGES",
    "MODELS",
    "RECIPES",
    "STARTS",
    "Published",
    "Row",
    "models_of",
    "row",
]

RecipeName = Literal["paper", "fast"]

DATASETS = ("power", "gas", "hepmass", "miniboone", "bsds300", "mnist", "cifar10")
IMAGES = ("mnist", "cifar10")
RECIPES = ("paper", "fast")

#: The rows of the tables by name, and beyond the paper `modern`. Each is a flow of
#: :mod:`maskedflow.recipes` with settings of its own; or `modern` averaged over the symmetries of
#: its rows; or a `stack` of the flows of other rows.
MODELS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "gaussian": ("gaussian", {}),
    "made": ("made", {}),
    "made-mog": ("made-mog", {}),
    "realnvp-5": ("realnvp", {"num_layers": 5}),
    "realnvp-10": ("realnvp", {"num_layers": 10}),
    "maf-5": ("maf", {"num_layers": 5, "batch_norm": True}),
    "maf-10": ("maf", {"num_layers": 10, "batch_norm": True}),
    "maf-mog-5": ("maf-mog", {"num_layers": 5, "batch_norm": True}),
    "glow": ("glow", {"hidden_dim": 64, "hidden_layers": 2, "num_layers": 8}),
    "modern": ("modern", {"hidden_dim": 256, "hidden_layers": 2}),
    "symmetrized": ("", {}),
    "stack": ("", {}),
}

#: Rows whose data are cells that the paper's noise fills: a flow has their probabilities.
CELLED = (("power", "modern"),)

#: Rows trained on all symmetries of their patches, and rows that average densities over them.
MIRRORED = (("bsds300", "modern"),)
AVERAGED = (("bsds300", "symmetrized"), ("bsds300", "stack"))


@dataclass(frozen=True)
class Published:
    """A published test log-likelihood in nats, with two standard errors."""

    value: float
    error: float


def _table(text: str, columns: tuple[str, ...]) -> dict[tuple[str, str], Published]:
    found = {}
    for line in text.strip().splitlines():
        model, *cells = line.split()
        for column, cell in zip(columns, cells, strict=True):
            value, error = cell.split("±")
            found[column, model] = Published(float(value), float(error))
    return found


#: Papamakarios et al. (2017), tables 1 and 2, https://arxiv.org/abs/1705.07057
PUBLISHED = _table(
    """
    gaussian   -7.74±0.02 -3.58±0.75  -27.93±0.02 -37.24±1.07  96.67±0.25
    made       -3.08±0.03  3.56±0.04  -20.98±0.02 -15.59±0.50 148.85±0.28
    made-mog    0.40±0.01  8.47±0.02  -15.15±0.02 -12.27±0.47 153.71±0.28
    realnvp-5  -0.02±0.01  4.78±1.80  -19.62±0.02 -13.55±0.49 152.97±0.28
    realnvp-10  0.17±0.01  8.33±0.14  -18.71±0.02 -13.84±0.52 153.28±1.78
    maf-5       0.14±0.01  9.07±0.02  -17.70±0.02 -11.75±0.44 155.69±0.28
    maf-10      0.24±0.01 10.08±0.02  -17.73±0.02 -12.24±0.45 154.93±0.28
    maf-mog-5   0.30±0.01  9.59±0.02  -17.39±0.02 -11.68±0.44 156.36±0.28
    """,
    DATASETS[:5],
) | _table(
    """
    gaussian   -1366.9±1.4  2367±29
    made       -1380.8±4.8   147±20
    made-mog   -1038.5±1.8  -397±21
    realnvp-5  -1323.2±6.6  2576±27
    realnvp-10 -1370.7±10.1 2568±26
    maf-5      -1300.5±1.7  2936±27
    maf-10     -1313.1±2.0  3049±26
    maf-mog-5  -1100.3±1.6  2911±26
    """,
    IMAGES,
)

CONDITIONAL = _table(
    """
    gaussian   -1344.7±1.8  2030±41
    made       -1361.9±1.9   187±20
    made-mog   -1030.3±1.7  -119±20
    realnvp-5  -1326.3±5.8  2642±26
    realnvp-10 -1371.3±43.9 2475±25
    maf-5      -1302.9±1.7  2983±26
    maf-10     -1316.8±1.8  3058±26
    maf-mog-5  -1092.3±1.7  2936±26
    """,
    IMAGES,
)

#: Widths are the paper's, or among those that it chose from.
_NETWORKS: dict[str, dict[str, Any]] = {
    "power": {"hidden_dim": 100, "hidden_layers": 2},
    "gas": {"hidden_dim": 100, "hidden_layers": 2, "activation": "tanh"},
    "hepmass": {"hidden_dim": 512, "hidden_layers": 2},
    "miniboone": {"hidden_dim": 512, "hidden_layers": 2},
    "bsds300": {"hidden_dim": 512, "hidden_layers": 2},
    "mnist": {"hidden_dim": 1024, "hidden_layers": 2},
    "cifar10": {"hidden_dim": 1024, "hidden_layers": 1, "degrees": "random"},
}

#: Where a model has another of them: couplings have two networks a layer, and no masks to spare;
#: and what a ReLU makes of one image far from the others, layer after layer, has no bound.
_OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("bsds300", "realnvp-10"): {"hidden_layers": 1},
    ("cifar10", "maf-mog-5"): {"activation": "tanh"},
}

#: What a recipe without patience for months changes: the optimisation, and nothing else.
_FAST: dict[str, dict[str, Any]] = {
    "power": {"epochs": 30, "batch_size": 1000, "lr": 3e-3},
    "gas": {"epochs": 60, "batch_size": 1000, "lr": 3e-3},
    "hepmass": {"epochs": 40, "batch_size": 500, "lr": 1e-3},
    "miniboone": {"epochs": 100, "batch_size": 200, "lr": 5e-4},
    "bsds300": {"epochs": 20, "batch_size": 1000, "lr": 1e-3},
    "mnist": {"epochs": 20, "batch_size": 200, "lr": 1e-3},
    "cifar10": {"epochs": 1, "batch_size": 200, "lr": 3e-4},
}

#: Rows that take other steps than those of their data set.
_TRAINED: dict[tuple[str, str], dict[str, Any]] = {
    ("mnist", "made-mog"): {"epochs": 30, "batch_size": 100},
    ("mnist", "glow"): {"epochs": 12, "batch_size": 50},
    ("cifar10", "glow"): {"epochs": 2, "batch_size": 25, "lr": 1e-3},
}

#: Rows that start as the Gaussian, with direct connections from inputs to outputs, and their steps.
#: Batch norm would undo that start.
STARTS: dict[tuple[str, str], dict[str, Any]] = {
    ("bsds300", "made"): {"epochs": 8, "batch_size": 500, "lr": 2e-3},
    ("bsds300", "made-mog"): {"epochs": 5, "batch_size": 500, "lr": 2e-3},
    ("mnist", "made"): {"epochs": 15, "lr": 1e-3},
} | {
    ("cifar10", model): {}
    for model in MODELS
    if model not in ("gaussian", "glow", "modern", "symmetrized", "stack")
}

#: `modern` where it was tuned, on validation rows: the flow, its shape, and the optimisation.
_MODERN: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "power": (
        "modern",
        {"num_layers": 4, "hidden_dim": 128, "bins": 16, "first": "scores", "base": "made"},
        {"epochs": 50, "batch_size": 500, "lr": 2e-3},
    ),
    "bsds300": (
        "maf-mog",
        {
            "start": "gaussian",
            "residual": True,
            "between": "lu",
            "num_layers": 4,
            "hidden_dim": 512,
        },
        {"epochs": 2, "batch_size": 500, "lr": 2e-3},
    ),
    "mnist": (
        "pixelcnn",
        {"hidden_dim": 64, "hidden_layers": 4},
        {"epochs": 6, "batch_size": 8, "lr": 2e-3},
    ),
    "cifar10": (
        "pixelcnn",
        {"hidden_dim": 96, "hidden_layers": 3},
        {"epochs": 1, "batch_size": 4, "lr": 2e-3},
    ),
}


@dataclass(frozen=True)
class Row:
    """A row of the tables, and how to make it.

    Args:
        dataset: Its data set.
        model: Its model.
        recipe: "paper", the protocol to the letter, or "fast", another optimisation.
        conditional: Whether the class label of an image is given in training.
        flow: The flow's name in :mod:`maskedflow.recipes`; none of a stack.
        shape: The settings that shape the flow.
        training: What :class:`maskedflow.training.TrainConfig` takes.
        quirks: The paper's ways that this library does not share by default, by name.
    """

    dataset: str
    model: str
    recipe: RecipeName
    conditional: bool
    flow: str
    shape: Mapping[str, Any]
    training: Mapping[str, Any]
    quirks: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.model}-conditional" if self.conditional else self.model

    @property
    def published(self) -> Published | None:
        """What the paper has here."""
        table = CONDITIONAL if self.conditional else PUBLISHED
        return table.get((self.dataset, self.model))


def models_of(dataset: str) -> tuple[str, ...]:
    """The rows of a data set: Glow's of images, and averages where symmetries are known.

    Example:
        >>> models_of("mnist")[-3:], models_of("power")[-2:]
        (('glow', 'modern', 'stack'), ('modern', 'stack'))
    """
    others = {"glow": dataset in IMAGES, "symmetrized": (dataset, "symmetrized") in AVERAGED}
    return tuple(model for model in MODELS if others.get(model, True))


def row(dataset: str, model: str, recipe: RecipeName = "fast", *, conditional: bool = False) -> Row:
    """The row of a data set and a model.

    Raises:
        ValueError: If there is none.

    Example:
        >>> row("power", "maf-5").published
        Published(value=0.14, error=0.01)
        >>> row("power", "maf-5", "paper").training["batch_size"]
        100
        >>> row("power", "maf-7")
        Traceback (most recent call last):
        ...
        ValueError: model: expected one of gaussian, made, ..., stack, got 'maf-7'
    """
    for name, value, known in (
        ("dataset", dataset, DATASETS),
        ("model", model, models_of(dataset)),
        ("recipe", recipe, RECIPES),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if conditional and dataset not in IMAGES:
        raise ValueError(f"conditional: {dataset} has no class labels; {' and '.join(IMAGES)} have")
    flow, settings = MODELS[model]
    shape = {"degrees": "sequential", **_NETWORKS[dataset], **settings}
    shape |= _OWN.get((dataset, model), {})
    modern: dict[str, Any] = {}
    if model == "modern" and dataset in _MODERN:
        flow, tuned, modern = _MODERN[dataset]
        shape |= tuned
    quirks: dict[str, Any] = {}
    if recipe == "paper":
        training: dict[str, Any] = {
            "epochs": 1000,
            "batch_size": 100,
            "lr": 1e-3 if model in ("made", "made-mog") else 1e-4,
            "weight_decay": 1e-6,
            "schedule": "constant",
            "patience": 30,
            "clip": float("inf"),
        }
        if model != "modern":
            quirks["initialisation"] = "normal"
        if flow in ("made", "maf"):
            quirks["univariate"] = "gaussian"
    else:
        training = {**_FAST[dataset], "weight_decay": 1e-6, "schedule": "cosine", **modern}
        training |= _TRAINED.get((dataset, model), {})
        if (dataset, model) in STARTS:
            shape |= {"start": "gaussian", "batch_norm": False}
            training |= STARTS[dataset, model]
    return Row(dataset, model, recipe, conditional, flow, shape, training, quirks)
