"""What a training run does when it is not told otherwise, data set by data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from maskedflow.recipes import SHAPES, recipe
from maskedflow.training import TrainConfig

__all__ = ["DEFAULTS", "settle"]

PAPERS = ("weight_decay", "clip", "compile")
"""What no option changes."""

Defaults = dict[str, Any]

_ANY: Defaults = {
    **{name: value for name, value in asdict(TrainConfig()).items() if name not in PAPERS},
    **SHAPES,
    "schedule": "cosine",
    "flow": "maf",
    "labels": False,
}

_TOY = Defaults(hidden_dim=64, num_layers=8, epochs=50, batch_size=250, lr=5e-3)

OWN_TABLE = Defaults(hidden_dim=128, batch_size=500, epochs=50, lr=1e-3)
"""For a table of one's own."""

SERIES = Defaults(hidden_dim=64, num_layers=3, batch_size=32, epochs=50, lr=3e-3)
"""For a time series of one's own, whose batches are of windows."""

# Widths and depths are the MAF paper's or near them. Its learning rate, 1e-4 at batches of 100,
# would take days on a laptop: larger steps that cool down to zero get there in minutes.
DEFAULTS = {
    "mnist": Defaults(epochs=20, lr=1e-3, batch_norm=True),
    # Whitened pixels have heavy tails, and batch norm would take apart what the start has done.
    "cifar10": Defaults(
        hidden_dim=1024,
        num_layers=10,
        degrees="random",
        start="gaussian",
        base="marginals",
        epochs=10,
        batch_size=200,
        lr=3e-4,
    ),
    "digits": Defaults(hidden_dim=128, epochs=100, lr=1e-3),
    # 40 epochs are eleven minutes on two idle cores; the limit keeps busy ones within fifteen.
    "power": Defaults(hidden_dim=128, epochs=40, batch_size=1000, lr=2e-3, time_limit=780),
    "gas": Defaults(hidden_dim=128, epochs=25, batch_size=1000, lr=2e-3),
    "hepmass": Defaults(epochs=50, batch_size=500, lr=1e-3, batch_norm=True),
    "miniboone": Defaults(lr=3e-4),
    "bsds300": Defaults(epochs=20, batch_size=500, lr=1e-3, batch_norm=True),
    **dict.fromkeys(("moons", "circles", "checkerboard", "spirals", "rings", "8gaussians"), _TOY),
}
"""For the data sets that `maskedflow datasets` lists."""


def settle(asked: Mapping[str, Any], features: int | None = None) -> Defaults:
    """The options that were given, over the defaults of their flow, over those of their data set.

    Args:
        asked: What was asked for, by the names of the options; None is "not said".
        features: The number of features of a table of one's own. One alone gets splines: affine
            transforms would make it a Gaussian.

    Returns:
        The name of the flow, its shape, settings of its training, and whether images
        have their `labels` as a context.

    Raises:
        ValueError: If the flow is unknown, or an option is given that does not shape it.

    Example:
        >>> settle({"dataset": "moons", "lr": 0.01})["lr"], settle({"dataset": "moons"})["lr"]
        (0.01, 0.005)
    """
    dataset, series = asked.get("dataset"), asked.get("time") is not None
    defaults = _ANY | (OWN_TABLE if dataset is None else DEFAULTS.get(dataset, {}))
    if series:
        defaults = _ANY | SERIES
    elif features == 1 and dataset is None:
        defaults["flow"] = "nsf"
    given: Defaults = {key: asked[key] for key in _ANY if asked.get(key) is not None}
    flow = str((defaults | given)["flow"])
    chosen = recipe(flow)
    if series and flow not in ("maf", "made"):
        raise ValueError(f"--flow {flow}: with --time, expected maf or made")
    takes = chosen.shaped_by(conditional=bool(asked.get("context") or asked.get("labels")))
    for name in SHAPES:
        if name in given and name not in takes:
            raise ValueError(f"--{name} {given[name]}: --flow {flow} has none; leave it out")
    if "epochs" in given:  # whoever names a number of epochs wants them all
        defaults["time_limit"] = None
    return {**defaults, **chosen.settings, **given}
