"""Lazy distributions: modules that make a distribution, given a context."""

from __future__ import annotations

import abc
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from maskedflow.chain import Chain, Step, version
from maskedflow.distributions import ChainedFlow, DiagNormal, NormalizingFlow, refuse_nan
from maskedflow.staircase import is_traced
from maskedflow.transforms import (
    BatchNorm,
    ComposedTransform,
    LazyComposedTransform,
    LazyTransform,
)
from maskedflow.transforms.lazy import Unconditional, steps_of
from maskedflow.transforms.recomputed import is_recomputing
from maskedflow.transforms.whiten import aligned

BLOCK = 256
"""The rows of a block, in which a row's density is the same, to the last bit, beside any others."""


class NamesKeywords(abc.ABCMeta):
    """The metaclass of flows, whose error about a keyword names the flow and the nearest one.

    Constructors hand their keywords on, to a network in the end: without this the error would be
    about that.
    """

    passes_to: tuple[type, ...] = ()
    """What takes the keywords that a constructor hands on."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, which `__call__` would hide."""
        made = next(vars(kind)["__init__"] for kind in cls.__mro__ if "__init__" in vars(kind))
        return inspect.Signature(list(inspect.signature(made).parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            found = re.search(r"(?:unexpected keyword argument|keyword) '(\w+)'", str(error))
            if found is None or found[1] not in kwargs:
                raise
            near = difflib.get_close_matches(found[1], _keywords(cls), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"{cls.__name__}: got an unknown keyword {found[1]!r}{hint}"
        raise TypeError(message)


def _keywords(cls: NamesKeywords) -> list[str]:
    found = {
        name: None
        for kind in (*cls.__mro__, *cls.passes_to)
        if "__init__" in vars(kind) and kind.__module__.startswith("maskedflow.")
        for name in inspect.signature(vars(kind)["__init__"]).parameters
    }
    return [name for name in found if name not in ("self", "args", "kwargs")]


class LazyDistribution(nn.Module, metaclass=NamesKeywords):
    r"""A module whose call makes the distribution p(x | c), given a context c.

    Subclasses define `forward`: c has shape (\*batch, context), and the distribution that batch
    shape. Its parameters are the module's, so that training, saving and moving them come free. A
    distribution that subclasses :class:`maskedflow.distributions.Density`, and notes by `made_by`
    what made it, is finite wherever double precision is.
    """

    #: Whether a row's density is the same, to the last bit, whatever other rows there are with it.
    is_rowwise = False

    @abc.abstractmethod
    def forward(self, c: Tensor | None = None) -> Distribution:
        """Makes the distribution for the context `c`, with shape (*, context), or none."""

    def log_probs_at(self, places: Tensor, c: Tensor | None = None) -> Tensor:
        """The log-densities, (M, n), at places of rows, (M, n, D), given c, (n, context).

        They are those of :meth:`Base.log_probs_at`, row by row as of :func:`in_blocks`.
        """
        rows = places.transpose(0, 1)
        return in_blocks(self, lambda made, x: made.log_probs_at(x.transpose(0, 1)).T, rows, c).T

    def unchecked(self, c: Tensor | None) -> Distribution:
        """Makes the distribution for a context that may not be finite."""
        return cast(Distribution, self(c))


def in_blocks(
    module: LazyDistribution,
    function: Callable[[Any, Tensor], Tensor],
    x: Tensor,
    c: Tensor | None,
) -> Tensor:
    """What a function makes of a module's distribution given c, (n, context), and rows x, (n, D).

    In evaluation mode nothing of a row's result is of other rows: unless the module `is_rowwise`,
    they go in blocks of the same size, and the last goes on with the first rows anew.
    """
    if module.is_rowwise or module.training or not len(x):
        return function(module(c), x)
    found = []
    for start in range(0, len(x), BLOCK):
        index = torch.arange(start, start + BLOCK, device=x.device) % len(x)
        found.append(function(module(None if c is None else aligned(c[index])), x[index]))
    return torch.cat(found)[: len(x)]


class UnconditionalDistribution(Unconditional, LazyDistribution):
    """A lazy distribution made by a constructor, whatever the context.

    Its arguments are those of :class:`~maskedflow.transforms.UnconditionalTransform`.

    Example:
        >>> UnconditionalDistribution(DiagNormal, torch.zeros(3), torch.ones(3), buffer=True)()
        DiagNormal(loc: torch.Size([3]), scale: torch.Size([3]))
    """

    positive = ("scale",)


def standard_normal(features: int) -> UnconditionalDistribution:
    """The base N(0, I)."""
    return UnconditionalDistribution(
        DiagNormal, loc=torch.zeros(features), scale=torch.ones(features), buffer=True
    )


def is_standard_normal(base: nn.Module) -> bool:
    """Whether a base is N(0, I), and its parameters are not learned."""
    if is_traced() or type(base) is not UnconditionalDistribution or base.f is not DiagNormal:
        return False
    buffers = base._buffers
    loc, scale = buffers.get("loc"), buffers.get("scale")
    if loc is None or scale is None or loc.ndim != 1:
        return False
    key = id(loc), version(loc), id(scale), version(scale)
    if base.__dict__.get("_standard", (None,))[0] != key:
        base.__dict__["_standard"] = key, bool((loc == 0).all()) and bool((scale == 1).all())
    return base.__dict__["_standard"][1]  # type: ignore[no-any-return]


class Flow(LazyDistribution):
    """A lazy normalizing flow: transforms from data to latent, and a base for the latent.

    Args:
        transform: A lazy transform, or a sequence of them, the first applied to the data.
        base: The lazy distribution of the latent.
        embedding: A network that the context goes through first.

    Example:
        >>> from maskedflow.flows import MAF
        >>> from maskedflow.transforms import Standardize
        >>> maf = MAF(2)
        >>> flow = Flow([Standardize(torch.zeros(2), 10 * torch.ones(2)), maf.transform], maf.base)
        >>> flow().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        transform: LazyTransform | Sequence[LazyTransform],
        base: LazyDistribution,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _register()
        if not isinstance(transform, LazyTransform):
            transform = LazyComposedTransform(*transform)
        self.transform = transform
        self.base = base
        self.embedding = embedding
        self._chain: Chain | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chain": None}

    def parts(self) -> tuple[list[LazyTransform], Chain | None]:
        """The transforms before those that are learned, and the rest as one program.

        The latter is None if the kernel does not know it, or the density is another one.
        """
        return self._plain_parts() if type(self).unchecked is Flow.unchecked else ([], None)

    def _plain_parts(self) -> tuple[list[LazyTransform], Chain | None]:
        """The same, where the density is that of its transform and its base."""
        transform = self.transform
        transforms = (
            cast(list[LazyTransform], list(transform.transforms))
            if isinstance(transform, LazyComposedTransform)
            else [transform]
        )
        front = []
        for one in transforms:
            if isinstance(one, BatchNorm) or any(True for _ in one.parameters()):
                break
            front.append(one)
        learned = transforms[len(front) :]
        rest = Flow(LazyComposedTransform(*learned), self.base) if learned else self.base
        return front, rest.chain if isinstance(rest, Flow) else None

    def through(
        self, front: Sequence[LazyTransform], x: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the program of its :meth:`parts` takes, and what its total lacks, if anything."""
        if not front:
            return x, None
        return ComposedTransform(*(one(c) for one in front)).call_and_ladj(x)

    @property
    def is_rowwise(self) -> bool:  # type: ignore[override]
        layers = self.embedding is None and _is_rowwise(self.transform)
        return layers and (self.base.is_rowwise or is_standard_normal(self.base))

    @property
    def chain(self) -> Chain | None:
        """The whole flow as one program; None if the kernel does not know all of it."""
        steps = self.steps()
        known = self._chain
        if steps is None:
            self._chain = None
        elif known is None or known.steps != tuple(steps):
            # Those that take a context take the same; a mixture's density is nobody's input.
            contexts = {step.context for step in steps if step.is_costly}
            fits = len(contexts) == 1 and not any(step.is_density for step in steps[:-1])
            self._chain = Chain(steps, is_normal=True) if fits else None
        return self._chain

    def steps(self) -> list[Step] | None:
        """What the kernel computes, to latents that are N(0, I); None if it does not know it."""
        modules = self._modules
        steps = steps_of(modules["transform"])
        base: Any = modules["base"]
        if steps is None:
            return None
        if type(base) is UnconditionalDistribution and is_standard_normal(base):
            fits = not steps or steps[-1].features == cast(Tensor, base._buffers["loc"]).numel()
            return steps if fits else None
        base = base.f if type(base) is UnconditionalDistribution else base
        if isinstance(base, Flow) and base.embedding is None:
            further = base.steps()
            return None if further is None else steps + further
        return None

    def forward(self, c: Tensor | None = None) -> NormalizingFlow:
        """Makes the distribution p(x | c), whose batch shape is that of `c`.

        Raises:
            ValueError: If a context is missing, needless, of another size, or not finite.
        """
        if c is not None:
            refuse_nan("c", c, infinite=False)
        return self.unchecked(c)

    def unchecked(self, c: Tensor | None) -> NormalizingFlow:
        origin = () if c is None else (c,)
        if c is not None and self.embedding is not None:
            c = cast(Tensor, self.embedding(c))
        chain = None if is_recomputing() else self.chain
        if chain is not None and chain.takes(c):
            whole = ChainedFlow(chain, c, self.distribution)
            return whole.made_by(self, unchecked, *origin)
        return self.distribution(c).made_by(self, unchecked, *origin)

    def distribution(self, c: Tensor | None) -> NormalizingFlow:
        """The distribution for a context that has been through the embedding, of its parts."""
        # What an embedding makes of a finite context need not be finite.
        base = self.base(c) if self.embedding is None else self.base.unchecked(c)
        transform = self.transform(c)
        return NormalizingFlow(transform, base if c is None else base.expand(c.shape[:-1]))


def _register() -> None:
    """Has flows be instances of zuko's class where that is loaded: pocomc takes nothing else."""
    if zuko := sys.modules.get("zuko.lazy"):
        zuko.Flow.register(Flow)


def unchecked(module: LazyDistribution, c: Tensor | None = None) -> Any:
    """Makes the distribution by a module, for a context that may not be finite."""
    return module.unchecked(c)


def _is_rowwise(transform: nn.Module) -> bool:
    """Whether a row's image is the same, to the last bit, whatever other rows there are."""
    if isinstance(transform, LazyComposedTransform):
        return all(map(_is_rowwise, transform.transforms))
    known = isinstance(transform, LazyTransform) and transform.is_rowwise
    return known or steps_of(transform) is not None


def check_sizes(context: int = 0, **sizes: int) -> None:
    """Refuses sizes below 1 or with a fraction, or a context of less than nothing."""
    given: dict[str, Any] = {**sizes, "context": context}
    for name, size in given.items():
        if not isinstance(size, Integral):
            raise TypeError(f"{name}: expected a whole number, got {size!r}")
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    if context < 0:
        raise ValueError(f"context: expected at least 0, got {context}")


def check_keywords(network: type[nn.Module], keywords: Iterable[str]) -> None:
    """Refuses keywords that a network, made with a context only, does not take, by a TypeError."""
    known = inspect.signature(network).parameters
    for name in keywords:
        if name not in known:
            raise TypeError(f"{network.__name__} got an unexpected keyword argument {name!r}")


def check_context(c: Tensor | None, context: int) -> None:
    """Refuses a context that is missing, needless or of another size, by a ValueError."""
    if c is None:
        if context:
            raise ValueError(f"c: expected a context of shape (*, {context}), got none")
    elif not context:
        raise ValueError(f"c: expected no context, got one of shape {tuple(c.shape)}")
    elif c.shape[-1:] != (context,):
        raise ValueError(f"c: expected shape (*, {context}), got {tuple(c.shape)}")


def interleave(
    transforms: Iterable[LazyTransform],
    features: int,
    *,
    batch_norm: bool = False,
    between: Callable[[int], LazyTransform] | None = None,
) -> list[LazyTransform]:
    """Puts a new layer between each transform and the next, and a batch norm behind each."""
    steps: list[LazyTransform] = []
    for transform in transforms:
        if steps and between is not None:
            steps.append(between(features))
        steps.append(transform)
        if batch_norm:
            steps.append(BatchNorm(features))
    if not steps:
        raise ValueError("transforms: expected at least 1, got 0")
    return steps


def costs(flow: nn.Module, kind: type[LazyTransform], density: str, samples: str) -> str:
    """One line on what each direction of a flow costs, for each of its transforms of a kind."""
    number = sum(isinstance(module, kind) for module in flow.modules())
    return f"(density): {number} × {density}, (samples): {number} × {samples}"
