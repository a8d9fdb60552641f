"""Dense layers, which may be stacks of independent ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .arguments import activation_of, widths_of


class Linear(nn.Module):
    r"""A linear layer, or a stack of independent ones that are each given their own input.

    .. math:: y = x W^T + b

    Args:
        in_features: The number of inputs C.
        out_features: The number of outputs C'.
        bias: Whether there is a bias :math:`b`.
        stack: The number S of layers in the stack; a single layer if None.

    Example:
        >>> Linear(3, 4)(torch.zeros(5, 3)).shape
        torch.Size([5, 4])
        >>> Linear(3, 4, stack=2)(torch.zeros(5, 2, 3)).shape
        torch.Size([5, 2, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        stack: int | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.stack = in_features, out_features, stack
        shape = (out_features,) if stack is None else (stack, out_features)
        self.weight = nn.Parameter(torch.empty(*shape, in_features))
        self.bias = nn.Parameter(torch.empty(shape)) if bias else None
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        r"""Draws weights and biases from :math:`U(\pm 1/\sqrt{C})`."""
        bound = max(self.in_features, 1) ** -0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def extra_repr(self) -> str:
        parts = [f"in_features={self.in_features}", f"out_features={self.out_features}"]
        parts.append(f"bias={self.bias is not None}")
        return ", ".join([*parts, f"stack={self.stack}"] if self.stack else parts)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, with shape (*, C) or (*, S, C), to y, with shape (*, C') or (*, S, C')."""
        return self.apply_weight(x, self.weight)

    def apply_weight(self, x: Tensor, weight: Tensor, *, bias: bool = True) -> Tensor:
        """Maps x with another weight, and with the bias or without."""
        added = self.bias if bias else None
        expected = (self.in_features,) if self.stack is None else (self.stack, self.in_features)
        # A stack broadcasts: one input may go to every layer.
        if x.shape[-1:] != expected[-1:]:
            sizes = ", ".join(map(str, expected))
            raise ValueError(f"x: expected shape (*, {sizes}), got {tuple(x.shape)}")
        if self.stack is None:
            return nn.functional.linear(x, weight, added)
        y = torch.einsum("...ij,...j->...i", weight, x)
        return y if added is None else y + added


class LayerNorm(nn.Module):
    r"""Standardises a vector, without parameters.

    .. math:: y = \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}}

    Args:
        dim: The dimension, or dimensions, of the vector.
        eps: The smallest variance :math:`\epsilon`.

    References:
        Layer Normalization (Ba et al., 2016), section 3, https://arxiv.org/abs/1607.06450

    Example:
        >>> LayerNorm()(torch.tensor([1.0, 2.0, 3.0]))
        tensor([-1.0000,  0.0000,  1.0000])
    """

    def __init__(self, dim: int | Iterable[int] = -1, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim = dim if isinstance(dim, int) else tuple(dim)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=self.dim, correction=1, keepdim=True)
        y: Tensor = (x - mean) / (variance + self.eps).sqrt()
        return y


class MLP(nn.Sequential):
    r"""A multi-layer perceptron: linear layers with activations between them.

    .. math:: h_{l + 1} = a(h_l W_l^T + b_l)

    Args:
        in_features: The number of inputs.
        out_features: The number of outputs.
        hidden_features: The width of each hidden layer.
        activation: The constructor of the activation; :class:`torch.nn.ReLU` if None.
        normalize: Whether a :class:`LayerNorm` follows each activation.
        bias: Whether layers have biases.
        stack: The number of networks in a stack, see :class:`Linear`; a single one if None.

    Example:
        >>> MLP(64, 1, [32], activation=nn.ELU)
        MLP(
          (0): Linear(in_features=64, out_features=32, bias=True)
          (1): ELU(alpha=1.0)
          (2): Linear(in_features=32, out_features=1, bias=True)
        )
    """

    #: The constructor of its layers.
    linear: type[Linear] = Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] | None = None,
        normalize: bool = False,
        *,
        bias: bool = True,
        stack: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        widths = [in_features, *widths_of(hidden_features), out_features]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            if layers:
                layers.append(activation_of(activation))
                layers += [LayerNorm()] if normalize else []
            layers.append(self.linear(before, after, bias, stack, generator=generator))
        super().__init__(*layers)
        self.in_features, self.out_features = in_features, out_features
