"""What every transform can do: map, invert, and give its log-determinant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import ComposeTransform, IndependentTransform
from torch.distributions.transforms import Transform as TorchTransform

from .support import moved_inside, outside


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """Sums over the `dims` rightmost dimensions."""
    return value.flatten(-dims).sum(dim=-1) if dims > 0 else value


def call_and_ladj(transform: TorchTransform, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Applies any transform, a plain torch one too, and returns its log-determinant.

    Outside of the transform's domain the latter is :math:`-\infty`, since a density there is zero.

    Example:
        >>> from torch.distributions import ExpTransform
        >>> call_and_ladj(ExpTransform(), torch.zeros(1))
        (tensor([1.]), tensor([0.]))
        >>> call_and_ladj(ExpTransform().inv, torch.tensor([1.0, -1.0]))[1]
        tensor([-0., -inf])
    """
    if isinstance(transform, ComposedTransform | DependentTransform):
        return transform.call_and_ladj(x)  # whose parts come here, too
    if isinstance(transform, ComposeTransform) and transform.parts:
        return ComposedTransform(*transform.parts).call_and_ladj(x)
    if isinstance(transform, IndependentTransform):
        dims = transform.reinterpreted_batch_ndims
        return DependentTransform(transform.base_transform, dims).call_and_ladj(x)
    wrong = outside(transform.domain, x)
    if wrong is None:
        return _call_and_ladj(transform, x)
    y, ladj = _call_and_ladj(transform, moved_inside(transform.domain, x, wrong))
    return y, torch.where(wrong, -math.inf, ladj)


def _call_and_ladj(transform: TorchTransform, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(transform, Transform):
        return transform.call_and_ladj(x)
    y = transform(x)
    if transform.domain.event_dim == 0:  # parameters may broadcast, torch's ladj may not
        x = x.expand(y.shape)
    return y, transform.log_abs_det_jacobian(x, y)


def require_tensor(name: str, value: object) -> None:
    """Refuses what is not a tensor, by a TypeError."""
    if not isinstance(value, Tensor):
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise TypeError(
            f"{name}: expected a torch.Tensor, got a {kind}; make one of it by torch.as_tensor"
        )


def check_features(name: str, value: Tensor, features: int) -> None:
    """Refuses a tensor whose last dimension is not the features.

    Raises:
        TypeError: If it is not a tensor.
        ValueError: If its shape is not (*, features).
    """
    require_tensor(name, value)
    if value.shape[-1:] != (features,):
        raise ValueError(f"{name}: expected shape (*, {features}), got {tuple(value.shape)}")


class Transform(TorchTransform):
    r"""An invertible map y = f(x) with the logarithm of its Jacobian's absolute determinant (ladj).

    To write one, subclass :class:`UnivariateTransform` or :class:`VectorTransform`, or this class
    with a `domain` and a `codomain`, and define

    - `_call(x)` and `log_abs_det_jacobian(x, y)`, or `call_and_ladj(x)` where one computation gives
      both;
    - `_inverse(y)`, or `inverse_and_ladj(y)` likewise.

    The event dimensions of the domain, none or the rightmost ones, are those that one point has.
    All dimensions left of them are a batch, with which parameters may broadcast: x has shape
    (\*batch, \*event), and the ladj, in nats, shape (\*batch). Calls, `inv`, `call_and_ladj` and
    `inverse_and_ladj`, compositions and densities come free. Transforms keep no cache.
    """

    bijective = True

    def __init__(self) -> None:
        super().__init__(cache_size=0)

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_ladj(y)[0]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns y = f(x) and :math:`\log |\det \partial y / \partial x|`, in nats."""
        y = self._call(x)
        return y, self.log_abs_det_jacobian(x, y)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns x = f^{-1}(y) and :math:`\log |\det \partial x / \partial y|`, in nats."""
        x = self._inverse(y)
        return x, -self.log_abs_det_jacobian(x, y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.call_and_ladj(x)[1]

    @property
    def inv(self) -> TorchTransform:
        """The inverse transform, from y to x."""
        return Inverse(self)

    def with_cache(self, cache_size: int = 1) -> TorchTransform:
        return self


class UnivariateTransform(Transform):
    """An increasing map of numbers, element by element, onto the real line unless it says so.

    Its ladj, the logarithm of the slope, has the shape of x. A flow takes it for its `univariate`,
    with the shapes of its parameters as `shapes`.
    """

    domain: constraints.Constraint = constraints.real
    codomain: constraints.Constraint = constraints.real
    sign = +1


class VectorTransform(Transform):
    """A map of vectors, the rightmost dimension, whose ladj has one dimension less than x."""

    domain: constraints.Constraint = constraints.real_vector
    codomain: constraints.Constraint = constraints.real_vector


class Inverse(Transform):
    """A transform with its directions exchanged."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def __repr__(self) -> str:
        return f"Inverse({self.transform})"

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.codomain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return self.transform.domain

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return self.transform.bijective

    @property
    def inv(self) -> TorchTransform:
        return self.transform

    def _call(self, x: Tensor) -> Tensor:
        return self.transform._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.transform._call(y)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.inverse_and_ladj(x)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.call_and_ladj(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.transform.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Any) -> Any:
        return self.transform.inverse_shape(shape)  # type: ignore[no-untyped-call]

    def inverse_shape(self, shape: Any) -> Any:
        return self.transform.forward_shape(shape)  # type: ignore[no-untyped-call]


class IdentityTransform(UnivariateTransform):
    """The transform f(x) = x."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityTransform)

    __hash__ = object.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


class ComposedTransform(Transform):
    r"""The composition :math:`f = f_n \circ \dots \circ f_1`, the first transform applied first.

    Args:
        transforms: The transforms :math:`f_i`, with one or more event dimensions, or none.
        pieces: The same map in other transforms, which are computed instead.

    Example:
        >>> from torch.distributions import ExpTransform
        >>> f = ComposedTransform(ExpTransform(), IdentityTransform())
        >>> f.call_and_ladj(torch.zeros(2))
        (tensor([1., 1.]), tensor([0., 0.]))
    """

    def __init__(
        self, *transforms: TorchTransform, pieces: Sequence[TorchTransform] | None = None
    ) -> None:
        super().__init__()
        if not transforms:
            raise ValueError("transforms: expected at least one")
        self.transforms = transforms
        self.pieces = transforms if pieces is None else tuple(pieces)
        dims = 0
        for transform in reversed(transforms):
            before, after = transform.domain.event_dim, transform.codomain.event_dim
            dims = before + max(dims - after, 0)
        self._domain_dim = self._codomain_dim = dims
        for transform in transforms:
            self._codomain_dim += transform.codomain.event_dim - transform.domain.event_dim

    def __repr__(self) -> str:
        lines = "\n".join(f"({i}): {t}" for i, t in enumerate(self.transforms))
        return "ComposedTransform(\n  " + lines.replace("\n", "\n  ") + "\n)"

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return _independent(self.transforms[0].domain, self._domain_dim)

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return _independent(self.transforms[-1].codomain, self._codomain_dim)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(transform.bijective for transform in self.transforms)

    @property
    def inv(self) -> TorchTransform:
        return ComposedTransform(
            *(transform.inv for transform in reversed(self.transforms)),
            pieces=[piece.inv for piece in reversed(self.pieces)],
        )

    def _call(self, x: Tensor) -> Tensor:
        for piece in self.pieces:
            x = piece(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        return cast(Tensor, self.inv(y))

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dims, total = self._domain_dim, None
        for piece in self.pieces:
            x, ladj = call_and_ladj(piece, x)
            ladj = sum_rightmost(ladj, dims - piece.domain.event_dim)
            total = ladj if total is None else total + ladj
            dims += piece.codomain.event_dim - piece.domain.event_dim
        return x, cast(Tensor, total)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return call_and_ladj(self.inv, y)

    def forward_shape(self, shape: Any) -> Any:
        for transform in self.transforms:
            shape = transform.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        for transform in reversed(self.transforms):
            shape = transform.inverse_shape(shape)
        return shape


class DependentTransform(Transform):
    """Treats the rightmost dimensions of a transform as one event: their ladj is summed.

    Args:
        base: The transform of single values.
        reinterpreted: The number of dimensions that become one event.
    """

    def __init__(self, base: TorchTransform, reinterpreted: int = 1) -> None:
        super().__init__()
        self.base = base
        self.reinterpreted = reinterpreted

    def __repr__(self) -> str:
        return f"DependentTransform({self.base}, {self.reinterpreted})"

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(self.base.domain, self.reinterpreted)

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(self.base.codomain, self.reinterpreted)

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return self.base.bijective

    @property
    def inv(self) -> TorchTransform:
        return DependentTransform(self.base.inv, self.reinterpreted)

    def _call(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.base(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return cast(Tensor, self.base.inv(y))

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = call_and_ladj(self.base, x)
        return y, sum_rightmost(ladj, self.reinterpreted)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x, ladj = call_and_ladj(self.base.inv, y)
        return x, sum_rightmost(ladj, self.reinterpreted)

    def forward_shape(self, shape: Any) -> Any:
        return self.base.forward_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self.base.inverse_shape(shape)


class PartTransform(VectorTransform):
    """A map of some part of a vector, or of a view of it.

    Subclasses define `_split`, which takes the part and what the others need of the rest, `_inner`,
    the transform of the part, with one event dimension or more, and `_merge`.
    """

    def _split(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _inner(self, rest: Tensor) -> TorchTransform:
        raise NotImplementedError

    def _merge(self, part: Tensor, rest: Tensor) -> Tensor:
        raise NotImplementedError

    def _call(self, x: Tensor) -> Tensor:
        part, rest = self._split("x", x)
        return self._merge(cast(Tensor, self._inner(rest)(part)), rest)

    def _inverse(self, y: Tensor) -> Tensor:
        part, rest = self._split("z", y)
        return self._merge(cast(Tensor, self._inner(rest).inv(part)), rest)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        part, rest = self._split("x", x)
        part, ladj = call_and_ladj(self._inner(rest), part)
        return self._merge(part, rest), ladj

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        part, rest = self._split("z", y)
        part, ladj = call_and_ladj(self._inner(rest).inv, part)
        return self._merge(part, rest), ladj


def _independent(constraint: constraints.Constraint, dims: int) -> constraints.Constraint:
    extra = dims - constraint.event_dim
    return constraints.independent(constraint, extra) if extra > 0 else constraint
