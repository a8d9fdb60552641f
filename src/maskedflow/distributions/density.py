"""Densities that are a number, or minus infinity, wherever they are asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from maskedflow.staircase import is_traced
from maskedflow.transforms import BatchNorm, Dequantize
from maskedflow.transforms.base import require_tensor

from .base import Base

#: From here on the gradient of a log-density may be too large for single precision.
LARGE = 1e30
#: From here on the square of a number is.
LARGE_NUMBER = 1e18


@dataclass
class Origin:
    """What a distribution was made by and of, so that it can be made again.

    Args:
        module: The lazy module.
        make: Makes the distribution by the module, or a copy of it, and the inputs.
        inputs: Tensors whose leftmost dimensions are the batch's, such as the context.
        dims: How many dimensions the batch has.
    """

    module: nn.Module
    make: Callable[..., Density]
    inputs: tuple[Tensor, ...]
    dims: int

    def rows(self, batch: torch.Size) -> list[Tensor]:
        """The tensors, one for each row of a larger batch."""
        return [one.expand(*batch, *one.shape[self.dims :]) for one in self.inputs]


class Density(Base):
    r"""A distribution whose log-density is a finite number or :math:`-\infty` at each point.

    Subclasses define `density(value)`, of values that are not checked, and note by `made_by`
    what module made them of which context; `log_prob` comes free.

    Where the density is not finite, or very large, and the distribution is of single precision,
    those rows are computed again in double precision, by a copy of the module. What is not a number
    then either is :math:`-\infty`: on the way there a finite x has become larger than any number.
    Unless weights are not finite, which has to show: then it is NaN.

    Such a row leaves the others as they are, in value and gradient, and its own gradient is finite
    where it is. In training, batch normalization makes each row depend on all others, and nothing
    can be done.
    """

    origin: Origin | None = None

    def made_by(self, module: nn.Module, make: Callable[..., Density], *inputs: Tensor) -> Self:
        """Notes what made this distribution, see :class:`Origin`."""
        dims = len(self.batch_shape)
        if inputs or not dims:  # else a batch is the weights' own, and no row of it can be picked
            self.origin = Origin(module, make, inputs, dims)
        return self

    def density(self, value: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__}.density")

    def log_prob(self, value: Tensor) -> Tensor:
        r"""The log-density of each row of `value`, with shape (*, features), in nats.

        Each is a finite number, or :math:`-\infty` outside of the support, at infinity, and where
        the density is less than any number. The batch shapes of `value` and of the flow broadcast.

        Raises:
            ValueError: If `value` has the wrong number of features or holds NaN.
        """
        require_tensor("x", value)
        dims = len(self.event_shape)
        if dims and (value.ndim < dims or value.shape[-dims:] != self.event_shape):
            raise ValueError(
                f"x: expected shape (*, {', '.join(map(str, self.event_shape))}), "
                f"got {tuple(value.shape)}"
            )
        refuse_nan("x", value)
        return self.settled(value)

    def settled(self, value: Tensor) -> Tensor:
        """The same where it is finite, and what the class promises elsewhere."""
        log_prob = self.density(value)
        if is_traced():
            return log_prob
        learns = log_prob.requires_grad
        # A sum is one cheap pass; only a suspicious one is worth a closer look.
        if abs(log_prob.detach().sum().item()) < LARGE and (
            not learns or value.detach().abs().sum().item() < LARGE_NUMBER
        ):
            return log_prob
        if self.origin is None or _mixes_rows(self.origin.module):
            return log_prob
        batch = torch.broadcast_shapes(
            value.shape[: value.ndim - len(self.event_shape)], self.batch_shape
        )
        value = value.expand(*batch, *self.event_shape)
        single = _is_single(self.origin.module)
        lost = _large(log_prob, LARGE if single else math.inf, batch)
        if learns and single:
            lost = lost | _large(value, LARGE_NUMBER, batch)
        if log_prob.ndim == len(batch):  # no density reaches infinity, whatever clamps on the way
            lost = lost | _beyond(value, lost)
        if not lost.any():
            return log_prob
        found = self._found(log_prob, value, lost)
        if log_prob.requires_grad:
            log_prob = self._without(log_prob, value, lost)
        mask = _beside(lost, log_prob).expand_as(log_prob)
        filled = torch.zeros_like(log_prob).masked_scatter(mask, found)
        return torch.where(mask, filled, log_prob)

    def _found(self, log_prob: Tensor, value: Tensor, lost: Tensor) -> Tensor:
        """The log-densities of the rows that are lost, from double precision."""
        assert self.origin is not None
        origin, single = self.origin, _is_single(self.origin.module)
        rows = [value, *origin.rows(lost.shape)]
        module = _in_double(origin.module) if single else origin.module

        def again(lost: Tensor) -> Tensor:
            x, *inputs = (_double(part[lost]) for part in rows)
            return origin.make(module, *inputs).density(x).to(log_prob.dtype)

        with torch.no_grad():
            found = again(lost) if single else log_prob[lost]
            finite = found.isfinite()
            if log_prob.ndim == lost.ndim:
                finite &= ~_beyond(value, lost)[lost]
            nothing = -math.inf if _is_finite(origin.module) else math.nan
            found = torch.where(finite, found, nothing)
        if single and log_prob.requires_grad:
            # Only of rows that are finite throughout: others would spoil the gradient.
            known = finite.reshape(len(finite), -1).all(dim=-1)
            if known.any():
                place = lost.clone()
                place[lost] = known
                found = found.index_put((known,), again(place))
        return found

    def _without(self, log_prob: Tensor, value: Tensor, lost: Tensor) -> Tensor:
        """The log-densities with an ordinary row in place of each that is lost."""
        assert self.origin is not None
        origin, kept = self.origin, ~lost
        if not kept.any():  # anything with a graph, for a gradient of zero
            weights = (one for one in origin.module.parameters() if one.requires_grad)
            return next(weights, value).sum().to(log_prob).expand_as(log_prob)
        x, *ordinary = (part[kept][0] for part in (value, *origin.rows(lost.shape)))
        value = torch.where(_beside(lost, value), x.detach(), value)
        inputs = []
        for one, instead in zip(origin.inputs, ordinary, strict=True):
            # A context that some other row goes well with is left as it is.
            bad = ~kept.long().sum_to_size(one.shape[: origin.dims]).bool()
            inputs.append(torch.where(_beside(bad, one), instead.detach(), one))
        for module in origin.module.modules():
            if isinstance(module, Dequantize):
                module.rewind()
        made = origin.make(origin.module, *inputs) if inputs else self
        return made.density(value)


def _large(value: Tensor, largest: float, batch: torch.Size) -> Tensor:
    """Which rows hold a number that is not smaller."""
    return ~(value.detach().abs() < largest).reshape(*batch, -1).all(dim=-1)


def _beyond(value: Tensor, rows: Tensor) -> Tensor:
    """Which rows hold an infinity."""
    return value.isinf().reshape(*rows.shape, -1).any(dim=-1)


def _beside(rows: Tensor, value: Tensor) -> Tensor:
    """Rows with dimensions of size one for the event's."""
    return rows.reshape([*rows.shape, *[1] * (value.ndim - rows.ndim)])


def _double(value: Tensor) -> Tensor:
    """The same numbers in double precision, whose gradient has a place in their own."""
    if not value.is_floating_point() or value.dtype == torch.float64:
        return value
    largest, value = torch.finfo(value.dtype).max, value.double()
    if value.requires_grad:
        value.register_hook(lambda gradient: gradient.clamp(-largest, largest))
    return value


def _is_single(module: nn.Module) -> bool:
    """Whether anything of it is in less than double precision, on a device that has that."""
    parts = (*module.parameters(), *module.buffers())
    return any(
        part.is_floating_point() and part.dtype != torch.float64 and part.device.type != "mps"
        for part in parts
    )


def _in_double(module: nn.Module) -> nn.Module:
    """A copy in double precision, whose gradients reach the parameters of the module itself."""
    memo = {id(part): _double(part) for part in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo)


def _is_finite(module: nn.Module) -> bool:
    """Whether all weights are finite; a buffer may be an infinite bound."""
    return all(weight.isfinite().all() for weight in module.parameters()) and not any(
        buffer.isnan().any() for buffer in module.buffers()
    )


def _mixes_rows(module: nn.Module) -> bool:
    """Whether a row's density depends on the other rows."""
    kinds = BatchNorm, nn.modules.batchnorm._BatchNorm
    return any(part.training and isinstance(part, kinds) for part in module.modules())


def refuse_nan(name: str, value: Tensor, *, infinite: bool = True) -> None:
    """Refuses a tensor that holds NaN, or anything infinite unless it may.

    Raises:
        TypeError: If it is not a tensor.
        ValueError: If it holds one, with its index.
    """
    require_tensor(name, value)
    # A sum is one cheap pass; only a suspicious one is worth a closer look.
    if is_traced() or math.isfinite(value.detach().sum().item()):
        return
    wrong = value.isnan() if infinite else ~value.isfinite()
    if wrong.any():
        index = wrong.nonzero()[0].tolist()
        found = value[tuple(index)].item()
        what = "numbers, got NaN" if math.isnan(found) else f"finite numbers, got {found:g}"
        raise ValueError(f"{name}: expected {what} at index {index}")
