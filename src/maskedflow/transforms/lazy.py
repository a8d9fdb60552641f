"""Lazy transforms: modules that make a transform, given a context."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.chain import Chain, Elementwise, Inverted, Step, is_watched, owner
from maskedflow.kernels import Kernel

from .base import ComposedTransform
from .chained import ChainedTransform
from .recomputed import RecomputedTransform, is_recomputing


class LazyTransform(nn.Module, abc.ABC):
    r"""A module whose call makes the transform z = f(x | c), given a context c.

    Subclasses define `forward`: c has shape (\*batch, context), and the transform is one of vectors
    of features, whose parameters broadcast against the batch of x. It may ignore c. The parameters
    are the module's, so that training, saving and moving them come free, as does `inv`.
    """

    #: Whether it maps a row always alike, whatever is learned, and whatever the context is.
    is_fixed = False
    #: Whether torch maps a row to the same, to the last bit, whatever other rows there are with it.
    is_rowwise = False

    @abc.abstractmethod
    def forward(self, c: Tensor | None = None) -> TorchTransform:
        """Makes the transform for the context `c`, with shape (*, context), or none."""

    @property
    def inv(self) -> LazyTransform:
        """The lazy transform of the opposite direction."""
        return LazyInverse(self)

    def steps(self) -> list[Step] | None:
        """The same for the kernel, whatever the context; None if it cannot compute it as it is."""
        return None


def steps_of(module: nn.Module | None) -> list[Step] | None:
    """The steps of a lazy transform whose own call nobody wants."""
    if not isinstance(module, LazyTransform) or is_watched(module):
        return None
    return module.steps()


def elementwise_step(module: LazyTransform, kernel: Kernel, *names: str) -> list[Step] | None:
    """A map of features by vectors of a module; None unless each feature has a number of them."""
    owners = tuple(owner(module, name) for name in names)
    known = module.__dict__.get("_step")
    if known is None or known.vectors != owners or known.kernel != kernel:
        if any(held[name].ndim != 1 for held, name in owners):
            return None
        known = module.__dict__["_step"] = Elementwise(kernel, owners)
    return [known]


class LazyInverse(LazyTransform):
    """A lazy transform with its directions exchanged."""

    def __init__(self, transform: LazyTransform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, c: Tensor | None = None) -> TorchTransform:
        return cast(TorchTransform, self.transform(c).inv)

    def steps(self) -> list[Step] | None:
        steps = steps_of(self.transform)
        return None if steps is None else [Inverted.of(step) for step in reversed(steps)]

    @property
    def inv(self) -> LazyTransform:
        return self.transform


class LazyComposedTransform(LazyTransform):
    """The composition of lazy transforms, the first applied first."""

    def __init__(self, *transforms: LazyTransform) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self._chains: dict[tuple[Step, ...], Chain] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chains": {}}

    def forward(self, c: Tensor | None = None) -> TorchTransform:
        made = [transform(c) for transform in self.transforms]
        if is_recomputing():
            # Where nothing is learned nothing is kept, and noise is not drawn again.
            pieces = [
                RecomputedTransform(lazy, c, one)
                if any(parameter.requires_grad for parameter in lazy.parameters())
                else one
                for lazy, one in zip(self.transforms, made, strict=True)
            ]
            return ComposedTransform(*made, pieces=pieces)
        return ComposedTransform(*made, pieces=self._pieces(made, c))

    def _pieces(self, made: list[TorchTransform], c: Tensor | None) -> list[TorchTransform]:
        """The transforms, where those that follow each other in a chain are one."""
        pieces: list[TorchTransform] = []
        steps: list[Step] = []
        run: list[tuple[nn.Module, TorchTransform]] = []
        chains: dict[tuple[Step, ...], Chain] = {}

        def close() -> None:
            if any(step.is_costly for step in steps):
                chain = self._chains.get(tuple(steps)) or Chain(steps)
                chains[chain.steps] = chain
                lazies, parts = zip(*run, strict=True)
                plain = ComposedTransform(*parts)
                pieces.append(ChainedTransform(chain, c, plain, partial(_composed, lazies)))
            else:
                pieces.extend(one for _, one in run)
            steps.clear()
            run.clear()

        for lazy, transform in zip(self.transforms, made, strict=True):
            found = steps_of(lazy)
            if found is None or any(step.is_density for step in found):
                close()
                pieces.append(transform)
            else:
                steps += found
                run.append((lazy, transform))
        close()
        self._chains = chains
        return pieces

    def steps(self) -> list[Step] | None:
        found: list[Step] = []
        transforms = cast(nn.ModuleList, self._modules["transforms"])
        for transform in transforms._modules.values():
            steps = steps_of(transform)
            if steps is None:
                return None
            found += steps
        return found

    def __repr__(self) -> str:
        return repr(self.transforms).replace("ModuleList", type(self).__name__, 1)


def _composed(transforms: Sequence[nn.Module], c: Tensor | None) -> TorchTransform:
    return ComposedTransform(*(transform(c) for transform in transforms))


class Unconditional(nn.Module):
    """A module that calls a constructor with its tensors, whatever the context."""

    def __init__(
        self, f: Callable[..., Any], *args: Any, buffer: bool = False, **kwargs: Any
    ) -> None:
        super().__init__()
        self.f = f
        self._positional = tuple(f"_{i}" for i in range(len(args)))
        self._keywords = tuple(kwargs)
        for name, value in (*zip(self._positional, args, strict=True), *kwargs.items()):
            if not isinstance(value, Tensor):
                setattr(self, name, value)
            elif buffer or not value.is_floating_point():
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))

    @property
    def args(self) -> list[Any]:
        """The positional arguments."""
        return [getattr(self, name) for name in self._positional]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        return {name: getattr(self, name) for name in self._keywords}

    def forward(self, c: Tensor | None = None) -> Any:
        """Calls the constructor. The context is ignored."""
        return self.f(*self.args, **self.kwargs)

    def extra_repr(self) -> str:
        if isinstance(self.f, nn.Module):
            return ""
        with torch.no_grad():
            return repr(self())


class UnconditionalTransform(Unconditional, LazyTransform):
    """A lazy transform made by a constructor, whatever the context.

    Args:
        f: The constructor of the transform. If it is a module it becomes a submodule.
        args: Its positional arguments. Tensors become parameters, or buffers.
        buffer: Whether tensors become buffers.
        kwargs: Its keyword arguments, alike.

    Example:
        >>> from torch.distributions import ExpTransform
        >>> UnconditionalTransform(ExpTransform)()(torch.zeros(1))
        tensor([1.])
    """
