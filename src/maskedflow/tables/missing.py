"""Flows of rows some of whose features may be absent."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.chain import Chain, Conditioned, Permuted, Step
from maskedflow.distributions import Density, NormalizingFlow, refuse_nan
from maskedflow.distributions.base import Shape
from maskedflow.distributions.elementwise import Elementwise
from maskedflow.flows import (
    ElementWiseTransform,
    Flow,
    LazyDistribution,
    MaskedAutoregressiveTransform,
    UnconditionalDistribution,
)
from maskedflow.flows.flow import is_standard_normal, unchecked
from maskedflow.transforms import (
    AutoregressiveTransform,
    ComposedTransform,
    DependentTransform,
    Dequantize,
    IdentityTransform,
    LazyComposedTransform,
    LazyTransform,
    PermutationTransform,
    ScaleTransform,
    call_and_ladj,
    check_features,
)
from maskedflow.transforms.lazy import steps_of as program_of
from maskedflow.transforms.whiten import Whiten, WhitenTransform


class PartialFlow(Flow):
    r"""A lazy flow of x some of whose features may be absent, as the context says.

    With O the features that are observed, it is a density of these,

    .. math:: \log p(x_O \mid c) = \log p_Z(f_O(x_O)) + \log \left| \det
        \frac{\partial f_O(x_O)}{\partial x_O} \right| .

    Before each layer absent features are 0, and their terms are left out. An element-wise layer, or
    an autoregressive one, is then a bijection of the observed features: the conditioners see
    the constant 0 for the others, and the context, which says that they are absent. A
    :class:`Whiten` is that of the marginal.

    A density costs what it costs for a :class:`~maskedflow.flows.Flow`, and so does a sample. Where
    the kernel does not know a layer, a sample takes D passes of it if a feature is absent.

    Args:
        transforms: The lazy transforms, the first applied to the data: element-wise ones,
            autoregressive ones of any univariate map, permutations, and :class:`Whiten`.
        base: The lazy distribution of the latent, of independent elements, the same for each
            context.
        present: For each feature the dimension of the context that is 1 if it is observed and 0 if
            not; None if it always is.
        embedding: A network that the context goes through first.

    Raises:
        ValueError: If a layer mixes features in another way, or `base` is something else.

    Example:
        >>> from maskedflow.flows import MAF
        >>> maf = MAF(2, context=2)
        >>> flow = PartialFlow([maf.transform], maf.base, present=[None, 1])
        >>> x = torch.tensor([[0.3, 7.0], [0.3, -7.0]])
        >>> c = torch.tensor([[1.0, 0.0]])  # the second feature is absent
        >>> log_prob = flow(c).log_prob(x)
        >>> bool(log_prob[0] == log_prob[1])
        True
    """

    def __init__(
        self,
        transforms: LazyTransform | Sequence[LazyTransform],
        base: LazyDistribution,
        present: Sequence[int | None],
        embedding: nn.Module | None = None,
    ) -> None:
        if isinstance(transforms, LazyTransform):
            transforms = [transforms]
        if not transforms:
            raise ValueError("transforms: expected at least one")
        super().__init__(LazyComposedTransform(*transforms), base, embedding)
        for transform in steps_of(self.transform):
            if not _is_known(transform):
                raise ValueError(
                    f"transforms: expected element-wise or autoregressive ones, permutations or "
                    f"Whiten, got {type(transform).__name__}, which mixes features"
                )
        if not isinstance(base, UnconditionalDistribution) or elements_of(base()) is None:
            wanted = "expected independent elements whatever the context"
            raise ValueError(f"base: {wanted}, got {base}")
        features = base().event_shape.numel()
        if len(present) != features:
            raise ValueError(f"present: expected {features} entries, got {len(present)}")
        self.present = tuple(present)
        self._permutes = [_permutes(transform) for transform in steps_of(self.transform)]

    def extra_repr(self) -> str:
        return f"present={self.present}"

    def parts(self) -> tuple[list[LazyTransform], Chain | None]:
        """The layers before those that one program computes of observed features, and that one."""
        last = max((column for column in self.present if column is not None), default=None)
        if last is None:
            return self._plain_parts()
        front, steps, present = 0, list[Step](), self.present
        layers = list[LazyTransform](steps_of(self.transform))
        for number, layer in enumerate(layers):
            step = _of_observed(layer, present)
            if step is None and self._permutes[number]:
                return layers, None
            if step is None:
                front, steps = number + 1, []
                continue
            steps.append(step)
            if isinstance(step, Permuted):
                present = tuple(present[one] for one in step.order)
        contexts = {step.context for step in steps if step.is_costly}
        fits = len(contexts) == 1 and last < min(contexts) and self.embedding is None
        known = self._chain
        if not fits or not is_standard_normal(self.base):
            self._chain = None
        elif known is None or known.steps != tuple(steps):
            self._chain = Chain(steps, is_normal=True)
        return layers[:front], self._chain

    def through(
        self, front: Sequence[LazyTransform], x: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        observed = observed_features(self.present, c)
        if observed is None:
            return super().through(front, x, c)
        x, ladj, observed = call_observed(_made(front, c), torch.where(observed, x, 0), observed)
        return x, ladj + _lacking(observed, x)

    def unchecked(self, c: Tensor | None) -> NormalizingFlow | PartialDistribution:  # type: ignore[override]
        observed = observed_features(self.present, c)
        if observed is None:
            return super().unchecked(c)
        return PartialDistribution(self, cast(Tensor, c), observed).made_by(
            self, unchecked, cast(Tensor, c)
        )

    def distribution(self, c: Tensor | None) -> NormalizingFlow:
        base = self.base()  # the same for each context
        shape = () if c is None else c.shape[:-1]
        return NormalizingFlow(self.transform(c), base.expand(shape))


def observed_features(present: Sequence[int | None], c: Tensor | None) -> Tensor | None:
    """Whether each feature is observed, with shape (*, D); None if all of them always are."""
    last = max((column for column in present if column is not None), default=None)
    if last is None:
        return None
    if c is None:
        raise ValueError("c: expected a context that says which features are observed, got none")
    if c.shape[-1] <= last:
        raise ValueError(f"c: expected at least {last + 1} features, got {c.shape[-1]}")
    always = torch.tensor([column is None for column in present], device=c.device)
    return always | (c[..., [column or 0 for column in present]] != 0)


def _of_observed(layer: LazyTransform, present: tuple[int | None, ...]) -> Step | None:
    """An autoregressive layer, or a permutation, for the kernel; None if it does not know it."""
    match program_of(layer):
        case [Conditioned() as step]:
            return step.of_observed(present)
        case [Permuted() as step]:
            return step
    return None


def _made(layers: Sequence[LazyTransform], c: Tensor | None) -> TorchTransform:
    return ComposedTransform(*(one(c) for one in layers)) if layers else IdentityTransform()


def _lacking(observed: Tensor, like: Tensor) -> Tensor:
    """What N(0, I) gives for absent features, at 0, with the other sign."""
    constant = torch.full((), 0.5 * math.log(2 * math.pi), dtype=like.dtype, device=like.device)
    return constant * (~observed).sum(dim=-1)


class PartialDistribution(Density):
    """The distribution of a :class:`PartialFlow`, given a context, (*, C).

    Some of its features are `observed`, (*, D), and the others absent.
    """

    has_rsample = True

    def __init__(self, flow: PartialFlow, c: Tensor, observed: Tensor) -> None:
        self.observed, self.base = observed, flow.base()
        self._flow, self._c = flow, c
        self._elements = cast(Elementwise, elements_of(self.base))
        self._front, self._chain = flow.parts()
        if self._chain is None or not self._chain.takes(c):
            _ = self.transform  # it refuses a context of another size
        super().__init__(observed.shape[:-1], observed.shape[-1:])

    def __repr__(self) -> str:
        return f"PartialDistribution({self.transform}, {self.base})"

    @cached_property
    def transform(self) -> ComposedTransform:
        """The map of all features to latents."""
        embedding = self._flow.embedding
        c = self._c if embedding is None else cast(Tensor, embedding(self._c))
        return cast(ComposedTransform, self._flow.transform(c))

    @property
    def support(self) -> constraints.Constraint:
        """Where the density may be positive."""
        return self.transform.domain

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of the observed features of points, (*, D), in nats.

        Raises:
            ValueError: If the shape does not fit, or an observed feature is NaN.
        """
        check_features("x", value, self.observed.shape[-1])
        value = torch.where(self.observed, value, 0)
        refuse_nan("x", value)
        return self.settled(value)

    def density(self, value: Tensor) -> Tensor:
        chain, c = self._chain, self._c
        vectors = None if chain is None else chain.vectors(value, c)
        if chain is None or vectors is None:
            return self._density(self.transform, value, self.observed)
        x, lacking = self._flow.through(self._front, value, c)
        return chain(x, c, vectors, self._again)[1] + cast(Tensor, lacking)

    def _density(self, transform: TorchTransform, x: Tensor, observed: Tensor) -> Tensor:
        """The log-density, layer by layer."""
        x, observed = torch.broadcast_tensors(x, observed)
        z, ladj, observed = call_observed(transform, torch.where(observed, x, 0), observed)
        return torch.where(observed, self._elements.log_prob(z), 0).sum(dim=-1) + ladj

    def _again(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the program computes, of what comes out of the layers before."""
        rest = list(steps_of(self._flow.transform))[len(self._front) :]
        observed = cast(Tensor, observed_features(self._flow.present, c))
        observed = _moved(_made(self._front, c), observed)
        return x, self._density(_made(rest, c), x, observed) - _lacking(observed, x)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws points that have gradients, with absent features at 0."""
        shape = (*sample_shape, *self.batch_shape)
        z = self._elements.rsample(shape, generator=generator)
        observed = self.observed.expand(*shape, -1)
        chain, c = self._chain, self._c
        vectors = None if chain is None else chain.vectors(z, c, inverse=True)
        if chain is None or vectors is None:
            observed = _moved(self.transform, observed)
            return _invert(self.transform, torch.where(observed, z, 0), observed)
        front = _made(self._front, c)
        x, _ = chain(z, c, vectors, inverse=True)
        return _invert(front, x, _moved(front, observed))


def _moved(f: TorchTransform, observed: Tensor) -> Tensor:
    """What is observed of the features that come out."""
    for step in steps_of(f):
        if isinstance(step, PermutationTransform):
            observed = observed[..., step.order]
    return observed


def call_layers(
    steps: Sequence[LazyTransform], x: Tensor, c: Tensor | None, observed: Tensor
) -> tuple[Tensor, Tensor]:
    """Maps rows through some layers of a partial flow: the result, 0 where absent, and its ladj."""
    x = torch.where(observed, x, 0)
    return call_observed(LazyComposedTransform(*steps)(c), x, observed)[:2]


def call_observed(f: TorchTransform, x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps features, 0 where they are absent: the result, its ladj, and what of it is observed."""
    total = x.new_zeros(x.shape[:-1])
    for step in steps_of(f):
        if isinstance(step, PermutationTransform):
            x, observed = step(x), observed[..., step.order]
            continue
        if isinstance(step, WhitenTransform):
            x, ladj = step.call_partial(x, observed)
        else:
            y, ladjs = call_elements(step, x)
            x, ladj = torch.where(observed, y, 0), torch.where(observed, ladjs, 0).sum(dim=-1)
        total = total + ladj
    return x, total, observed


def call_elements(f: TorchTransform, x: Tensor) -> tuple[Tensor, Tensor]:
    """Maps each feature, with a ladj each."""
    if isinstance(f, AutoregressiveTransform):
        f = f.meta(x)
    if isinstance(f, ScaleTransform):
        return f(x), -f.log_scale.expand(x.shape)
    f = f.base if isinstance(f, DependentTransform) else f
    if f.domain.event_dim:  # Dequantize
        return f(x), torch.zeros_like(x)
    return call_and_ladj(f, x)


def _invert(f: TorchTransform, z: Tensor, observed: Tensor) -> Tensor:
    """The inverse for the observed features."""
    whole = bool(observed.all())
    for step in reversed(list(steps_of(f))):
        if isinstance(step, PermutationTransform):
            z, observed = step.inv(z), observed[..., step.order.argsort()]
        elif isinstance(step, WhitenTransform):
            z = step.inverse_partial(z, observed)
        elif isinstance(step, AutoregressiveTransform) and not whole:
            x = torch.zeros_like(z)
            for _ in range(step.passes):
                x = torch.where(observed, step.meta(x).inv(z), 0)
            z = x
        else:
            z = torch.where(observed, step.inv(z), 0)
    return z


def steps_of(f: Any) -> Iterator[Any]:
    """The transforms, or lazy ones, of a composition, those of compositions within it too."""
    if isinstance(f, ComposedTransform | LazyComposedTransform):
        for step in f.transforms:
            yield from steps_of(step)
    else:
        yield f


def _permutes(transform: LazyTransform) -> bool:
    try:
        return isinstance(transform(), PermutationTransform)
    except ValueError:  # it wants a context
        return False


def _is_known(transform: LazyTransform) -> bool:
    """Whether a transform, restricted to some features, is a bijection of these."""
    known = MaskedAutoregressiveTransform | ElementWiseTransform | Whiten | Dequantize
    if isinstance(transform, known):
        return True
    try:
        made = transform()
    except ValueError:  # it wants a context
        return False
    if isinstance(made, DependentTransform):
        return made.base.domain.event_dim == 0 and made.reinterpreted == 1
    # An ActNorm, of the first batch, makes a scaling of its own type.
    scales = type(made) is ScaleTransform
    return scales or isinstance(made, PermutationTransform) or made.domain.event_dim == 0


def elements_of(base: Distribution) -> Elementwise | None:
    """A distribution of independent elements as one of single elements; None if it is not one."""
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Elementwise):
        return None
    elements = copy.copy(base)
    elements.ndims = 0
    elements._take(base.parameters)
    return elements
