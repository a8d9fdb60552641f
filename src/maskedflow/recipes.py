"""Flows by name, as plain values: what a command line can ask for and `config.toml` can record.

Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RECIPES", "SHAPES", "Recipe", "recipe"]

SHAPES: Mapping[str, Any] = {
    "base": "normal",
    "hidden_dim": 512,
    "num_layers": 5,
    "hidden_layers": 2,
    "degrees": "sequential",
    "residual": False,
    "batch_norm": False,
    "start": "identity",
}
"""The settings that shape some flows and not others, as they are if nothing is said."""

_NETWORK = ("hidden_dim", "hidden_layers")
_COUPLING = ("num_layers", *_NETWORK, "residual", "batch_norm", "base", "start")
_MASKED = (*_COUPLING, "degrees")

_MIXTURES = {"components": 10}


@dataclass(frozen=True)
class Recipe:
    """How a flow is built from the settings of a training run.

    Args:
        title: What it is, in a few words.
        constructor: Its constructor in `maskedflow.flows`.
        arguments: Keyword arguments that make it this flow.
        takes: The settings that shape it.
        given: Settings that shape it only where there is a context.
        settings: Where its settings differ from those of a data set.
        images: Whether it is for images only, whose shape it takes.
    """

    title: str
    constructor: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[str, ...] = _MASKED
    given: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: bool = False

    def shaped_by(self, conditional: bool) -> tuple[str, ...]:
        """The settings that shape it, with a context or without."""
        return (*self.takes, *self.given) if conditional else self.takes

    def build(
        self,
        features: int,
        context: int,
        settings: Mapping[str, Any],
        image_shape: tuple[int, int, int] | None = None,
    ) -> dict[str, Any]:
        """The keyword arguments of its constructor, as plain values.

        Args:
            features: The number of features.
            context: The number of context features.
            settings: The settings by name; those that do not shape it are left alone.
            image_shape: (channels, height, width) of images.

        Raises:
            ValueError: If it is for images, and there is no shape.
        """
        takes = self.shaped_by(context > 0)
        arguments: dict[str, Any] = {"features": features, "context": context}
        if "hidden_dim" in takes:
            arguments["hidden_features"] = [settings["hidden_dim"]] * settings["hidden_layers"]
        if "num_layers" in takes:
            arguments["transforms"] = settings["num_layers"]
        if "degrees" in takes:
            arguments |= {"degrees": settings["degrees"], "widen": False}
        for name in ("batch_norm", "residual"):
            if name in takes:
                arguments[name] = settings[name]
        base = settings["base"] if "base" in takes else "normal"
        if base != "normal":
            arguments["base"] = {"name": base}
        if base == "mixture":
            arguments["base"] |= _MIXTURES
        if base == "marginals":
            arguments["base"] |= {"components": 5}
        if base == "made":
            shared = ("context", "hidden_features", "degrees", "widen", "residual")
            same = {name: arguments[name] for name in shared if name in arguments}
            arguments["base"] |= _MIXTURES | same
        if self.images:
            if image_shape is None:
                raise ValueError(
                    f"flow: {self.constructor} expects images, got rows of {features} features"
                )
            arguments["image_shape"] = list(image_shape)
        arguments |= self.arguments
        if "start" in takes and settings["start"] == "gaussian":
            is_rgb = image_shape is not None and image_shape[0] == 3
            arguments["first"] = ["rgb", "whiten"] if is_rgb else "whiten"
        return arguments


_ONE = tuple(name for name in _MASKED if name != "num_layers")

#: Every flow that `maskedflow train --flow` knows.
RECIPES: dict[str, Recipe] = {
    "maf": Recipe("masked autoregressive flow, affine", "MAF"),
    "made": Recipe("one affine transform", "MADE", takes=_ONE),
    "made-mog": Recipe(
        "MADE, its conditionals mixtures of 10 Gaussians",
        "MADE",
        _MIXTURES,
        takes=_ONE,
        settings={"base": "normal"},
    ),
    "maf-mog": Recipe("MAF, its base such a MADE", "MAF", settings={"base": "made"}),
    "iaf": Recipe("inverse autoregressive flow: MAF the other way round", "IAF"),
    "nice": Recipe(
        "additive couplings, scales between them",
        "NICE",
        {"univariate": "additive", "between": "actnorm"},
        takes=_COUPLING,
    ),
    "realnvp": Recipe(
        "affine couplings, networks of shifts with ReLU and of scales with tanh",
        "RealNVP",
        {"activation": ["relu", "tanh"]},
        takes=_COUPLING,
        settings={"batch_norm": True},
    ),
    "nsf": Recipe("neural spline flow, autoregressive", "NSF"),
    "nsf-coupling": Recipe("neural spline flow of couplings", "NSF", {"passes": 2}),
    "naf": Recipe("neural autoregressive flow", "NAF", {"network": {"hidden_features": [16, 16]}}),
    "unaf": Recipe(
        "unconstrained neural autoregressive flow, of integrals",
        "UNAF",
        {"network": {"hidden_features": [16, 16]}},
    ),
    "sospf": Recipe("sum-of-squares polynomial flow", "SOSPF"),
    "bpf": Recipe("Bernstein polynomial flow", "BPF"),
    "gf": Recipe(
        "Gaussianization flow: features one by one, then turned",
        "GF",
        takes=("num_layers",),
        given=_NETWORK,
    ),
    "gmm": Recipe(
        "mixture of 10 Gaussians with full covariances", "GMM", _MIXTURES, takes=(), given=_NETWORK
    ),
    "gaussian": Recipe(
        "Gaussian with a full covariance", "GMM", {"components": 1}, takes=(), given=_NETWORK
    ),
    "glow": Recipe(
        "Glow, for images: convolutional couplings, num_layers of them at each scale",
        "Glow",
        takes=("num_layers", *_NETWORK),
        settings={"num_layers": 8, "hidden_dim": 64, "hidden_layers": 2, "lr": 1e-3},
        images=True,
    ),
    "pixelcnn": Recipe(
        "for images: each pixel given those before it, by masked convolutions; mixtures",
        "PixelCNN",
        takes=_NETWORK,
        settings={"hidden_dim": 96, "hidden_layers": 3, "batch_size": 8, "lr": 2e-3},
        images=True,
    ),
    "modern": Recipe(
        "what does best here: splines, residual networks, linear layers between",
        "NSF",
        {"first": "actnorm", "between": "lu"},
        settings={"num_layers": 3, "hidden_dim": 256, "residual": True, "batch_norm": False},
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of a flow.

    Raises:
        ValueError: If none has that name.

    Example:
        >>> recipe("maf").constructor
        'MAF'
        >>> recipe("mof")
        Traceback (most recent call last):
        ...
        ValueError: flow: expected auto or one of maf, made, ..., modern, got 'mof'
    """
    if name not in RECIPES:
        raise ValueError(f"flow: expected auto or one of {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]
