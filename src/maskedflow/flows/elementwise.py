"""Transforms that map features one by one, and the flow that rotates between them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.chain import Elementwise, Step, owner
from maskedflow.kernels import Kernel, Map
from maskedflow.nn import MLP
from maskedflow.transforms import (
    AutoregressiveTransform,
    DependentTransform,
    GaussianizationTransform,
    LazyTransform,
    MonotonicAffineTransform,
    RotationTransform,
    UnconditionalTransform,
    check_features,
)
from maskedflow.transforms.univariate import UNIVARIATES

from .flow import Flow, check_context, check_keywords, check_sizes, standard_normal


class ConditionedTransform(LazyTransform):
    """A lazy transform that maps features by one `univariate`, each with parameters of its own."""

    def __init__(
        self,
        features: int,
        context: int,
        univariate: Callable[..., TorchTransform] | str,
        shapes: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        check_sizes(context, features=features)
        self.features, self.context = features, context
        if isinstance(univariate, str):
            if univariate not in UNIVARIATES:
                known = ", ".join(UNIVARIATES)
                raise ValueError(f"univariate: expected one of {known}, got {univariate!r}")
            univariate, shapes = UNIVARIATES[univariate]
        is_module = isinstance(univariate, nn.Module)
        self.univariate = copy.deepcopy(univariate) if is_module else univariate
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.sizes = [prod(shape) for shape in self.shapes]
        self.total = sum(self.sizes)
        self._known: tuple[object, Kernel | None] = None, None

    def parameters_of(self, phi: Tensor) -> list[Tensor]:
        """Cuts (*, features, total) into the parameters of the maps, (*, features, *shape) each."""
        if not any(self.shapes):
            return list(phi.unbind(dim=-1))
        return [
            part.reshape(*part.shape[:-1], *shape) if shape else part[..., 0]
            for part, shape in zip(phi.split(self.sizes, dim=-1), self.shapes, strict=True)
        ]

    def map_of(self, phi: Tensor, dims: int = 1) -> DependentTransform:
        """The map of features with parameters (*, features, total), the rightmost an event."""
        return DependentTransform(self.univariate(*self.parameters_of(phi)), dims)

    def kernel(self) -> Kernel | None:
        """What the kernel calls the univariate map; None if it does not know it, or a subclass."""
        made = self.univariate
        if self._known[0] is not made:
            self._known = made, self._kernel()
        return self._known[1]

    def _kernel(self) -> Kernel | None:
        made = self.univariate
        if isinstance(made, partial) and not made.args:
            made = made.func
        if not isinstance(made, type) or "kernel" not in vars(made):
            return None
        return getattr(self.univariate(*map(torch.zeros, self.shapes)), "kernel", None)

    def summary(self, name: str, values: Sequence[int]) -> str:
        """One line on the univariate, and on a property that each feature has."""
        univariate: Any = self.univariate
        if isinstance(univariate, nn.Module):
            univariate = type(univariate)
        shown = list(map(str, values))
        if len(shown) > 10:
            shown = [*shown[:5], "...", *shown[-5:]]
        title = getattr(univariate, "__name__", univariate)
        return f"(univariate): {title}, ({name}): [{', '.join(shown)}]"


class ElementWiseTransform(ConditionedTransform):
    r"""A lazy transform of each feature on its own, given the context.

    .. math:: z_i = f(x_i \mid \phi_i), \quad \phi = \text{MLP}(c)

    Without a context the parameters :math:`\phi` are learned, and start at N(0, 1). Both
    directions cost one pass of the network.

    Args:
        kwargs: What :class:`maskedflow.nn.MLP` takes.

    Example:
        >>> t = ElementWiseTransform(3, context=4)
        >>> x, c = torch.randn(3), torch.randn(4)
        >>> torch.allclose(t(c).inv(t(c)(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        univariate: Callable[..., TorchTransform] | str = MonotonicAffineTransform,
        shapes: Sequence[Sequence[int]] = ((), ()),
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, context, univariate, shapes)
        if context:
            self.hyper = MLP(context, features * self.total, generator=generator, **kwargs)
        else:
            check_keywords(MLP, kwargs)
            self.phi = nn.ParameterList(
                torch.randn(features, *shape, generator=generator) for shape in self.shapes
            )
        self._step: Elementwise | None = None

    def extra_repr(self) -> str:
        return self.summary("features", [self.features])

    def forward(self, c: Tensor | None = None) -> AutoregressiveTransform:
        check_context(c, self.context)
        if c is None:
            phi = list(self.phi)
        else:
            phi = self.parameters_of(self.hyper(c).unflatten(-1, (self.features, -1)))
        # No feature depends on another: one pass.
        return AutoregressiveTransform(partial(self.meta, self.univariate(*phi)), passes=1)

    def steps(self) -> list[Step] | None:
        kind = type(self)
        plain = kind.meta is ElementWiseTransform.meta and (
            kind.forward is ElementWiseTransform.forward
        )
        kernel = None if self.context else self.kernel()
        # A mixture of the kernel's gives a density, and no latents.
        if not plain or kernel is None or kernel[0] is Map.MIXTURE:
            return None
        owners = tuple(owner(self.phi, str(number)) for number in range(len(self.shapes)))
        step = self._step
        if step is None or step.vectors != owners or step.kernel != kernel:
            step = self._step = Elementwise(kernel, owners, is_costly=True)
        return [step]

    def meta(self, univariate: TorchTransform, x: Tensor) -> DependentTransform:
        """The transform of all features, which is the same for all x."""
        check_features("x", x, self.features)
        return DependentTransform(univariate, 1)


class GF(Flow):
    r"""A Gaussianization flow: each feature is made Gaussian, all are rotated, and again.

    The map of one feature takes a mixture of normal distributions to N(0, 1). Both directions
    cost one pass of each transform's network, if there is a context, and the inverse a search for a
    root of each feature.

    Args:
        components: The number of components of a mixture.
        kwargs: What :class:`ElementWiseTransform` takes.

    References:
        Gaussianization Flows (Meng et al., 2020), https://arxiv.org/abs/2003.01941

    Example:
        >>> flow = GF(3, context=4, transforms=2)
        >>> flow(torch.zeros(4)).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    passes_to = (ElementWiseTransform, MLP)

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        components: int = 8,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        check_sizes(transforms=transforms, components=components)
        steps: list[LazyTransform] = []
        for _ in range(transforms):
            if steps and features > 1:
                turn = torch.randn(features, features, generator=generator)
                steps.append(UnconditionalTransform(RotationTransform, A=turn))
            steps.append(
                ElementWiseTransform(
                    features,
                    context,
                    GaussianizationTransform,
                    [(components,), (components,)],
                    generator=generator,
                    **kwargs,
                )
            )
        super().__init__(steps, standard_normal(features))
