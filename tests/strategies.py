"""Hypothesis strategies: everything that may vary in an autoregressive flow, as one `Case`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import AffineTransform, constraints

import maskedflow as mf

SMOOTH = (nn.Tanh, nn.ELU, nn.SiLU, nn.Softplus)
ACTIVATIONS = (nn.ReLU, *SMOOTH)

#: For tests of every flow: many flows have a few cases each.
few = settings(max_examples=2)


@dataclass(frozen=True)
class Case:
    """One drawn flow: its options, its dtype, and the seed of its weights and data."""

    features: int = 3
    context: int = 0
    transforms: int = 2
    order: tuple[int, ...] | None = None
    passes: int | None = None
    hidden_features: tuple[int, ...] = (8, 8)
    activation: Callable[[], nn.Module] = nn.Tanh
    residual: bool = False
    degrees: str = "sequential"
    dtype: torch.dtype = torch.float64
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of MAF."""
        return {
            "transforms": self.transforms,
            "order": None if self.order is None else torch.tensor(self.order),
            "passes": self.passes,
            "hidden_features": self.hidden_features,
            "activation": self.activation,
            "residual": self.residual,
            "degrees": self.degrees,
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def build(
        self,
        kind: Callable[..., mf.flows.Flow] | None = None,
        noise: float = 0.3,
        takes: Collection[str] | None = None,
        **more: Any,
    ) -> mf.flows.Flow:
        """A flow of this case; with noise, its weights are far from the start near the identity.

        It gets those of the case's options that it takes, all by default. Widening of narrow
        layers is a warning of its own test, so it is silent here.
        """
        kind = mf.flows.MAF if kind is None else kind
        options = {k: v for k, v in self.options.items() if takes is None or k in takes}
        if kind is mf.flows.MADE:
            options.pop("transforms", None)
        options.update(more)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            flow = kind(self.features, self.context, **options)
        return overwrite(flow.to(self.dtype), noise, self.seed)

    def draw(self, *shape: int, seed: int = 1) -> Tensor:
        """Standard normal numbers in the case's dtype."""
        generator = torch.Generator().manual_seed(self.seed + seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype)

    def x(self, *batch: int) -> Tensor:
        """A batch of features."""
        return self.draw(*batch, self.features, seed=1)

    def c(self, *batch: int) -> Tensor | None:
        """A batch of contexts; None where the flow takes none."""
        return self.draw(*batch, self.context, seed=2) if self.context else None

    @property
    def tolerance(self) -> dict[str, float]:
        """What rounding allows: relative to the numbers at hand."""
        if self.dtype == torch.float64:
            return {"atol": 1e-8, "rtol": 1e-7}
        return {"atol": 2e-3, "rtol": 1e-3}

    def but(self, **changes: Any) -> Case:
        """The same case with some fields changed."""
        return replace(self, **changes)


def overwrite(module: nn.Module, noise: float, seed: int = 0) -> Any:
    """Overwrites every parameter with noise through `.data`, as users do; 0 keeps the start."""
    if noise:
        generator = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(noise * draw)
    return module


def dtypes() -> st.SearchStrategy[torch.dtype]:
    """Single and double precision."""
    return st.sampled_from([torch.float32, torch.float64])


@st.composite
def orders(draw: st.DrawFn, features: int) -> tuple[int, ...] | None:
    """The rank of each feature, or None for the library's own order."""
    return draw(st.none() | st.permutations(range(features)).map(tuple))


def widths(least: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    """The widths of one to three hidden layers, narrow ones too."""
    return st.lists(st.integers(least, 16), min_size=1, max_size=3).map(tuple)


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    features: st.SearchStrategy[int] | None = None,
    context: st.SearchStrategy[int] | None = None,
    activations: Sequence[Callable[[], nn.Module]] = ACTIVATIONS,
    dtype: st.SearchStrategy[torch.dtype] | None = None,
    least_width: int = 1,
) -> Case:
    """Any flow: 1 to 8 features, 0 to 3 context features, and every option."""
    size = draw(st.integers(1, 8) if features is None else features)
    return Case(
        features=size,
        context=draw(st.integers(0, 3) if context is None else context),
        transforms=draw(st.integers(1, 3)),
        order=draw(orders(size)),
        passes=draw(st.none() | st.integers(1, size)),
        hidden_features=draw(widths(least_width)),
        activation=draw(st.sampled_from(list(activations))),
        residual=draw(st.booleans()),
        degrees=draw(st.sampled_from(["sequential", "random"])),
        dtype=draw(dtypes() if dtype is None else dtype),
        seed=draw(st.integers(0, 2**16)),
    )


@st.composite
def dags(draw: st.DrawFn, features: int) -> Tensor:
    """A directed acyclic graph as zuko writes it: row i lists i's parents, and i itself."""
    below = torch.tensor(
        draw(
            st.lists(
                st.lists(st.booleans(), min_size=features, max_size=features),
                min_size=features,
                max_size=features,
            )
        )
    ).tril(-1)
    names = torch.tensor(draw(st.permutations(range(features))))
    return below[names][:, names] | torch.eye(features, dtype=torch.bool)


class SinhArcsinh(mf.transforms.Transform):
    """A univariate map that the library does not know: b + exp(a) sinh(exp(t) asinh(x))."""

    domain = constraints.real
    codomain = constraints.real
    sign = +1

    def __init__(self, shift: Tensor, scale: Tensor, tail: Tensor) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale.clamp(-2, 2)
        self.tail = tail.clamp(-0.5, 0.5)

    def _call(self, x: Tensor) -> Tensor:
        return self.shift + self.scale.exp() * torch.sinh(self.tail.exp() * torch.asinh(x))

    def _inverse(self, y: Tensor) -> Tensor:
        inner = (y - self.shift) * torch.exp(-self.scale)
        return torch.sinh(torch.asinh(inner) * torch.exp(-self.tail))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        inner = self.tail.exp() * torch.asinh(x)
        return self.scale + self.tail + inner.cosh().log() - 0.5 * torch.log1p(x.square())


def affine_of_a_vector(pair: Tensor, extra: Tensor) -> mf.transforms.Transform:
    """A univariate map with a parameter of shape (2,) and one of shape (1, 2)."""
    shift = pair[..., 0] + extra[..., 0, 0]
    return mf.transforms.MonotonicAffineTransform(shift, pair[..., 1] - extra[..., 0, 1])


def plain_torch_affine(shift: Tensor, scale: Tensor) -> AffineTransform:
    """A univariate map that is torch's own and knows nothing of `call_and_ladj`."""
    return AffineTransform(shift, scale.clamp(-5, 5).exp())


#: Custom univariates by name: the constructor and the shapes of its parameters.
UNIVARIATES: dict[str, dict[str, Any]] = {
    "affine": {},
    "mean, precision": {"univariate": mf.transforms.MeanPrecisionTransform},
    "sinh-arcsinh": {"univariate": SinhArcsinh, "shapes": ((), (), ())},
    "vector": {"univariate": affine_of_a_vector, "shapes": ((2,), (1, 2))},
    "spline": {"univariate": mf.transforms.MonotonicRQSTransform, "shapes": ((4,), (4,), (3,))},
    "torch": {"univariate": plain_torch_affine, "shapes": [(), ()]},
}
