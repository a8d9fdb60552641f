"""Neural networks: masked layers and MADE's trunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskedflow.masks import Degrees, made_masks
from maskedflow.staircase import Staircase, Trunk, layer_sums, masked_product, slab_of, slab_size

from .arguments import activation_of, check_dtype, widths_of

#: Matrices of fewer entries are not cut into slabs: one product is faster than four.
SMALLEST_CUT = 2**17


class MaskedLinear(nn.Module):
    r"""A linear layer some of whose weights are zero, for good.

    .. math:: y = x (W \odot A)^T + b

    The parameter `weight` is a vector that holds the slabs of the staircase (see
    :class:`~maskedflow.staircase.Staircase`), so the masked weights are neither stored nor
    computed nor updated. `state_dict` holds the dense matrix under the same name.

    Args:
        adjacency: The mask :math:`A`, with shape (out_features, in_features).
        bias: Whether there is a bias :math:`b`.
        degree: The degree of each output, non-decreasing or non-increasing, with shape
            (out_features,); all alike if None.
        slab_size: How many degrees share a slab; all if None.

    Example:
        >>> layer = MaskedLinear(torch.ones(3, 3).tril(-1).bool())
        >>> torch.autograd.functional.jacobian(layer, torch.zeros(3))[0]
        tensor([0., 0., 0.])
        >>> layer.state_dict()["weight"].shape
        torch.Size([3, 3])
    """

    mask: Tensor
    degree: Tensor

    def __init__(
        self,
        adjacency: Tensor,
        bias: bool = True,
        *,
        degree: Tensor | None = None,
        slab_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if adjacency.ndim != 2:
            raise ValueError(f"adjacency: expected a matrix, got shape {tuple(adjacency.shape)}")
        self.out_features, self.in_features = adjacency.shape
        self.slab_size = slab_size
        if degree is None:
            degree = torch.ones(self.out_features, dtype=torch.long)
        self.register_buffer("mask", adjacency.bool())
        self.register_buffer("degree", degree)
        self._lay_out()
        self.bias = nn.Parameter(torch.zeros(self.out_features)) if bias else None
        self.reset_parameters(generator)

    def _lay_out(self) -> None:
        #: The degrees as plain numbers, which a trace cannot take from a buffer.
        self.degrees = self.degree.cpu().numpy().copy()
        size = self.slab_size
        slab = torch.zeros_like(self.degree) if size is None else slab_of(self.degree, size)
        self.stairs = Staircase(self.mask, slab.cpu())
        self.weight = nn.Parameter(torch.zeros(self.stairs.size, device=self.mask.device))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        r"""Draws weights and biases from :math:`U(\pm 1/\sqrt{n})`, n a row's unmasked inputs."""
        bound = self.mask.sum(dim=1).clamp(min=1).rsqrt()[:, None].cpu()
        weight = torch.empty(self.mask.shape).uniform_(-1, 1, generator=generator) * bound
        self.weight.copy_(self.stairs.pack(weight.to(self.weight)))
        if self.bias is not None:
            bias = torch.empty(self.out_features, 1).uniform_(-1, 1, generator=generator) * bound
            self.bias.copy_(bias[:, 0])

    def dense(self) -> Tensor:
        """The weight as a matrix, with shape (out_features, in_features). Differentiable."""
        if self.weight.ndim == 2:  # as in state_dict: torch.func.functional_call
            return self.weight * self.mask
        return self.stairs.unpack(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x, with shape (*, in_features), to y, with shape (*, out_features)."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x: expected shape (*, {self.in_features}), got {tuple(x.shape)}")
        return self.product(x, self.added_bias(None))

    def product(self, x: Tensor, bias: Tensor) -> Tensor:
        """The masked product with x, and a bias with shape (*, out_features) instead of its own."""
        if self.weight.ndim == 2:
            return nn.functional.linear(x, self.dense()) + bias
        return masked_product(x, self.weight, bias, self.stairs)

    def added_bias(self, added: Tensor | None) -> Tensor:
        """The bias, with something added to it."""
        bias = self.weight.new_zeros(self.out_features) if self.bias is None else self.bias
        return bias if added is None else bias + added

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        dense = self.dense()
        destination[prefix + "weight"] = dense if keep_vars else dense.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Takes the dense weight, and the layout of another mask of the same shape."""
        state = dict(state_dict)
        buffers: list[tuple[Tensor, Any]] = [(self.mask, state.get(prefix + "mask"))]
        buffers += [(self.degree, state.get(prefix + "degree"))]
        fits = all(new is not None and new.shape == old.shape for old, new in buffers)
        if fits and not all(torch.equal(old, new.to(old)) for old, new in buffers):
            for mine, new in buffers:
                mine.copy_(new)
            old = self.weight
            self._lay_out()
            self.weight = nn.Parameter(self.weight.to(old), old.requires_grad)
        weight = state.get(prefix + "weight")
        if weight is not None and weight.shape == self.mask.shape:
            state[prefix + "weight"] = self.stairs.pack(weight)
        super()._load_from_state_dict(state, prefix, *args)


class MaskedMLP(nn.Module):
    r"""A masked multi-layer perceptron, MADE's trunk.

    Its Jacobian :math:`\partial y_i / \partial x_j` is zero wherever :math:`A_{ij} = 0`, and its
    last layer starts small, so that what it parameterises starts near its value at zero.

    Args:
        adjacency: Whether output i may depend on input j, with shape
            (out_features, in_features + context).
        hidden_features: The width of each hidden layer, or of each residual block.
        activation: The constructor of the activation, which works element by element.
        residual: Whether hidden layers are residual blocks :math:`h + W_2 a(W_1 a(h))`.
        context: How many of the rightmost inputs are the context, given apart.
        generation: The generation of each input that is not context, see
            :func:`~maskedflow.masks.generations`.
        degrees: How hidden degrees are dealt, "sequential" or "random".
        widen: Whether too narrow layers are widened, with a warning, or kept, see
            :func:`~maskedflow.masks.made_masks`.

    References:
        | MADE (Germain et al., 2015), https://arxiv.org/abs/1502.03509
        | Residual blocks as in Neural Spline Flows (Durkan et al., 2019), section 3.1

    Example:
        >>> net = MaskedMLP(torch.ones(4, 3).tril(-1).bool(), [16, 16], activation=torch.nn.ELU)
        >>> net(torch.zeros(5, 3)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        adjacency: Tensor,
        hidden_features: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] | None = None,
        residual: bool = False,
        *,
        context: int = 0,
        generation: Tensor | None = None,
        degrees: Degrees = "sequential",
        widen: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if adjacency.ndim != 2:
            raise ValueError(f"adjacency: expected a matrix, got shape {tuple(adjacency.shape)}")
        self.out_features, inputs = adjacency.shape
        self.in_features = inputs - context
        self.activation = activation_of(activation)
        if hasattr(self.activation, "inplace"):
            setattr(self.activation, "inplace", False)  # noqa: B010 - pre-activations are read again
        widths, self.skips = _chain(widths_of(hidden_features), residual)
        self._trunk: Trunk | None = None

        seen = out_degree = None
        size = None
        if generation is not None:
            generation = generation.cpu()
            size = slab_size(len(generation), int(generation.max()))
            seen = torch.cat([generation, generation.new_zeros(context)])
            out_degree = generation.repeat_interleave(self.out_features // len(generation))
        made = made_masks(
            adjacency,
            widths,
            generation=seen,
            kind=degrees,
            widen=widen,
            given=hidden_features,
            generator=generator,
        )
        first, *rest = made.masks
        row_degrees = [*(made.degrees if generation is not None else [None] * len(widths))]
        row_degrees.append(out_degree)
        self.layers = nn.ModuleList(
            MaskedLinear(
                mask,
                degree=degree,
                slab_size=size if mask.numel() >= SMALLEST_CUT else None,
                generator=generator,
            )
            for mask, degree in zip((first[:, : self.in_features], *rest), row_degrees, strict=True)
        )
        self.context = (
            MaskedLinear(first[:, self.in_features :], bias=False, generator=generator)
            if context
            else None
        )
        with torch.no_grad():
            for name, parameter in self.layers[-1].named_parameters():
                parameter.mul_(1e-2 if name == "weight" else 0)
            if self.context is not None and not rest:
                self.context.weight.mul_(1e-2)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps x and the context c to the output, with shape (*, out_features)."""
        weights, biases = self.packed_parameters()
        if weights[0].ndim == 2:  # dense, as in state_dict: torch.func.functional_call
            return self.pre_activations(x, c)[-1]
        shape, rows, biases[0] = self.flat_batch(x, c)
        return self.evaluate(rows, weights, biases).view(*shape, self.out_features)

    def evaluate(self, x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
        """Maps rows x to outputs, given the parameters; the first bias may be one a row."""
        trunk = self.trunk
        if trunk.is_compiled(x) and weights[0].dtype == x.dtype:
            return trunk(x, weights, biases)
        return self._sums(x, biases[0])[-1]

    def packed_parameters(self) -> tuple[list[Tensor], list[Tensor]]:
        """The packed weight and the bias of each layer."""
        layers = self._linear
        weights: list[Tensor] = [layer.weight for layer in layers]
        return weights, [layer.added_bias(None) for layer in layers]

    @property
    def _linear(self) -> list[MaskedLinear]:
        return cast(list[MaskedLinear], list(self.layers))

    @property
    def trunk(self) -> Trunk:
        """The layers as a chain that can be evaluated at once."""
        # Looked up for each call, and nn.Module takes its time over an attribute.
        layers = self._modules["layers"]._modules.values()  # type: ignore[union-attr]
        known = self._trunk
        if known is not None and known.activation is self._modules["activation"]:
            for layer, stair in zip(layers, known.stairs, strict=True):
                if layer.__dict__["stairs"] is not stair:
                    break
            else:
                return known
        stairs = [layer.stairs for layer in self._linear]
        self._trunk = Trunk(stairs, self.skips, self.activation)
        return self._trunk

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trunk": None}

    def flat_batch(self, x: Tensor, c: Tensor | None) -> tuple[torch.Size, Tensor, Tensor]:
        """The shape of the batch of x and c, x in rows, and the first bias, one or in rows."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x: expected shape (*, {self.in_features}), got {tuple(x.shape)}")
        self._check_dtypes(x, c)
        bias = self._first_bias(c)
        shape = x.shape[:-1]
        if bias.ndim > 1:
            shape = torch.broadcast_shapes(shape, bias.shape[:-1])
            bias = bias.expand(*shape, -1).reshape(-1, bias.shape[-1])
            x = x.expand(*shape, -1)
        return shape, x.reshape(-1, self.in_features), bias

    def _check_dtypes(self, x: Tensor, c: Tensor | None) -> None:
        weight = self._linear[0].weight
        check_dtype("x", x, weight)
        if c is not None:
            check_dtype("c", c, weight)

    def pre_activations(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """What goes into the activation of each hidden layer, and last the output."""
        self._check_dtypes(x, c)
        return self._sums(x, self._first_bias(c))

    def _first_bias(self, c: Tensor | None) -> Tensor:
        return self._linear[0].added_bias(None if self.context is None else self.context(c))

    def _sums(self, x: Tensor, first: Tensor) -> list[Tensor]:
        layers = self._linear

        def product(layer: int, h: Tensor) -> Tensor:
            return layers[layer].product(h, layers[layer].added_bias(None) if layer else first)

        return layer_sums(x, len(layers), product, self.activation, self.skips)


def _chain(hidden_features: Sequence[int], residual: bool) -> tuple[list[int], frozenset[int]]:
    """The widths of the hidden layers, and those which add the one two below them."""
    if not residual:
        return list(hidden_features), frozenset()
    widths, skips = list(hidden_features[:1]), set()
    for width in hidden_features:
        if widths[-1] != width:
            widths.append(width)
        widths += [width, width]
        skips.add(len(widths) - 1)
    return widths, frozenset(skips)
