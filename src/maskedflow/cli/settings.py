"""What a training run does when it is not told otherwise, data set by data set."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from maskedflow.recipes import recipe

from .options import TrainOptions

__all__ = ["DEFAULTS", "OWN_TABLE", "Settings", "settle"]


@dataclass(frozen=True)
class Settings:
    """The options of a training run that have a default."""

    flow: str = "maf"
    base: Literal["normal", "student-t", "mixture", "made"] = "normal"
    hidden_dim: int = 512
    num_layers: int = 5
    hidden_layers: int = 2
    degrees: Literal["sequential", "random"] = "sequential"
    residual: bool = False
    batch_norm: bool = False
    epochs: int = 100
    batch_size: int = 100
    lr: float = 1e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    patience: int = 30
    time_limit: float | None = None
    steps: int | None = None
    lr_steps: int | None = None
    labels: bool = False
    seed: int = 0


_TOY = Settings(hidden_dim=64, num_layers=8, epochs=50, batch_size=250, lr=5e-3)

OWN_TABLE = Settings(hidden_dim=128, batch_size=500, epochs=50, lr=1e-3)
"""For a table of one's own."""

SERIES = Settings(hidden_dim=64, num_layers=3, batch_size=32, epochs=50, lr=3e-3)
"""For a time series of one's own, whose batches are of windows."""

# Widths and depths are the MAF paper's or near them. Its learning rate, 1e-4 at batches of 100,
# would take days on a laptop: larger steps that cool down to zero get there in minutes.
DEFAULTS = {
    "mnist": Settings(epochs=20, lr=1e-3, batch_norm=True),
    "cifar10": Settings(
        hidden_dim=1024, num_layers=10, degrees="random", epochs=20, lr=5e-4, batch_norm=True
    ),
    "digits": Settings(hidden_dim=128, epochs=100, lr=1e-3),
    # 40 epochs are eleven minutes on two idle cores; the limit keeps busy ones within fifteen.
    "power": Settings(hidden_dim=128, epochs=40, batch_size=1000, lr=2e-3, time_limit=780),
    "gas": Settings(hidden_dim=128, epochs=25, batch_size=1000, lr=2e-3),
    "hepmass": Settings(epochs=50, batch_size=500, lr=1e-3, batch_norm=True),
    "miniboone": Settings(lr=3e-4),
    "bsds300": Settings(epochs=20, batch_size=500, lr=1e-3, batch_norm=True),
    **dict.fromkeys(("moons", "circles", "checkerboard", "spirals", "rings", "8gaussians"), _TOY),
}
"""For the data sets that `maskedflow datasets` lists."""


SHAPES = ("base", "hidden_dim", "num_layers", "hidden_layers", "degrees", "residual", "batch_norm")
"""The settings that shape some flows and not others."""


def settle(options: TrainOptions, features: int | None = None) -> Settings:
    """The options that were given, over the defaults of their flow, over those of their data set.

    Args:
        options: What was asked for.
        features: The number of features of a table of one's own. One alone gets splines: affine
            transforms would make it a Gaussian.

    Raises:
        ValueError: If the flow is unknown, or an option is given that does not shape it.
    """
    defaults = OWN_TABLE if options.dataset is None else DEFAULTS.get(options.dataset, Settings())
    if options.time is not None:
        defaults = SERIES
    elif features == 1 and options.dataset is None:
        defaults = replace(defaults, flow="nsf")
    names = {field.name for field in fields(Settings)}
    given = {k: v for k, v in asdict(options).items() if k in names and v is not None}
    flow = given.get("flow", defaults.flow)
    chosen = recipe(flow)
    if options.time is not None and flow not in ("maf", "made"):
        raise ValueError(f"--flow {flow}: with --time, expected maf or made")
    takes = chosen.shaped_by(conditional=bool(options.context or options.labels))
    for name in SHAPES:
        if name in given and name not in takes:
            raise ValueError(f"--{name} {given[name]}: --flow {flow} has none; leave it out")
    if "epochs" in given:  # whoever names a number of epochs wants them all
        defaults = replace(defaults, time_limit=None)
    return replace(defaults, **{**chosen.settings, **given})
