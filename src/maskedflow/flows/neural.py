"""Flows whose maps of one feature are neural networks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskedflow.nn import MLP, Linear, MonotonicMLP
from maskedflow.transforms import (
    AdditiveTransform,
    ComposedTransform,
    MonotonicTransform,
    UnconstrainedMonotonicTransform,
)

from .autoregressive import MAF
from .flow import check_sizes


class MNN(nn.Module):
    r"""A monotone network of one feature, shaped by a signal.

    .. math:: f(x) = \text{MonotonicMLP}(x, s)

    One network serves all features: their signals tell them apart. It grows at least linearly in
    both directions, so it reaches every real number. A new one has f(0) = 0 and f'(0) = 1 where the
    signal is zero.

    Args:
        signal: The number of signals :math:`s`.
        kwargs: What :class:`~maskedflow.nn.MonotonicMLP` takes.

    References:
        | Neural Autoregressive Flows (Huang et al., 2018), section 3
        | https://arxiv.org/abs/1804.00779

    Example:
        >>> f = MNN(signal=2, hidden_features=[8])(torch.randn(5, 2))
        >>> x = torch.randn(5)
        >>> torch.allclose(f.inv(f(x)), x, atol=1e-4)
        True
    """

    def __init__(self, signal: int = 16, **kwargs: Any) -> None:
        super().__init__()
        self.network = MonotonicMLP(1 + signal, 1, **kwargs)
        with torch.no_grad():
            last = cast(Linear, self.network[-1])
            value, slope = self(torch.zeros(signal)).value_and_slope(torch.zeros(()))
            last.weight.div_(slope)
            if last.bias is not None:
                last.bias.sub_(value).div_(slope)

    def forward(self, signal: Tensor) -> MonotonicTransform:
        """Makes the map for a signal, with shape (*, signal)."""
        return _SignalTransform(self.network, signal)


class _SignalTransform(MonotonicTransform):
    """The map that a monotone network makes of one feature, given a signal."""

    def __init__(self, network: MonotonicMLP, signal: Tensor) -> None:
        super().__init__(partial(_with_signal, network, signal))
        self.network, self.signal = network, signal

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, slope = self.network.value_and_slope(_inputs(self.signal, x))
        return y[..., 0], slope[..., 0]


class UMNN(nn.Module):
    r"""An integral of a positive network of one feature, shaped by a signal.

    .. math:: f(x) = b + \int_0^x g(u) \, du, \quad \log g(u) = 7 \tanh(\text{MLP}(u, s) / 7)

    One network serves all features: their signals tell them apart. The slope is between
    :math:`e^{-7}` and :math:`e^7`; a new one is near the identity. It is a smooth function if the
    activation is one, for only then is the quadrature of the integral precise.

    Args:
        signal: The number of signals :math:`s`.
        kwargs: What :class:`~maskedflow.nn.MLP` takes. The activation is SiLU if there is none.

    References:
        | Unconstrained Monotonic Neural Networks (Wehenkel and Louppe, 2019)
        | https://arxiv.org/abs/1908.05164

    Example:
        >>> f = UMNN(signal=2, hidden_features=[8])(torch.randn(5, 2), torch.randn(5))
        >>> x = torch.randn(5)
        >>> torch.allclose(f.inv(f(x)), x, atol=1e-5)
        True
    """

    def __init__(self, signal: int = 16, **kwargs: Any) -> None:
        super().__init__()
        kwargs.setdefault("activation", nn.SiLU)
        self.integrand = MLP(1 + signal, 1, **kwargs)
        with torch.no_grad():
            for name, parameter in self.integrand[-1].named_parameters():
                parameter.mul_(1e-2 if name == "weight" else 0)

    def g(self, signal: Tensor, x: Tensor) -> Tensor:
        """The integrand, the slope of the map."""
        return (7 * torch.tanh(_with_signal(self.integrand, signal, x) / 7)).exp()

    def forward(self, signal: Tensor, constant: Tensor) -> ComposedTransform:
        """Makes the map for a signal, with shape (*, signal), and b, with shape (*,)."""
        integral = UnconstrainedMonotonicTransform(partial(self.g, signal))
        return ComposedTransform(integral, AdditiveTransform(constant))


def _with_signal(network: nn.Module, signal: Tensor, x: Tensor) -> Tensor:
    """A network of x and a signal, element by element."""
    y: Tensor = network(_inputs(signal, x))
    return y[..., 0]


def _inputs(signal: Tensor, x: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(x.shape, signal.shape[:-1])
    inputs = [x.expand(shape)[..., None], signal.expand(*shape, signal.shape[-1])]
    return torch.cat(inputs, dim=-1)


class NAF(MAF):
    r"""A neural autoregressive flow: the maps are monotone networks, see :class:`MNN`.

    Scoring costs one pass of each transform's networks, sampling one sweep, in which the inverse of
    a map is a search for a root.

    Args:
        signal: The number of signals of a monotone network.
        network: What :class:`MNN` takes.
        kwargs: What :class:`MAF` takes.

    References:
        Neural Autoregressive Flows (Huang et al., 2018), https://arxiv.org/abs/1804.00779

    Example:
        >>> flow = NAF(3, context=4, network={"hidden_features": [16]})
        >>> flow(torch.zeros(4)).rsample((5,)).shape
        torch.Size([5, 3])
    """

    _map: type[MNN | UMNN] = MNN
    _other_shapes: tuple[tuple[int, ...], ...] = ()

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        randperm: bool = False,
        signal: int = 16,
        network: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_sizes(signal=signal)
        univariate = self._map(signal, **{"generator": kwargs.get("generator"), **(network or {})})
        kwargs |= {"univariate": univariate, "shapes": [(signal,), *self._other_shapes]}
        super().__init__(features, context, transforms, randperm, **kwargs)


class UNAF(NAF):
    r"""An unconstrained neural autoregressive flow: the maps are integrals, see :class:`UMNN`.

    Scoring costs one pass of each transform's conditioner and 33 of its integrand, sampling one
    sweep, in which the inverse of a map is a search for a root.

    It takes what :class:`NAF` takes, but for `network`: what :class:`UMNN` takes.

    References:
        | Unconstrained Monotonic Neural Networks (Wehenkel and Louppe, 2019)
        | https://arxiv.org/abs/1908.05164

    Example:
        >>> flow = UNAF(3, context=4, network={"hidden_features": [16]})
        >>> flow(torch.zeros(4)).rsample((5,)).shape
        torch.Size([5, 3])
    """

    _map, _other_shapes = UMNN, ((),)
