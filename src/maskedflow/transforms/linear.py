"""Linear maps of all features whose log-determinant is cheap, permutations among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskedflow.chain import Linear, Permuted, Step, owner, version
from maskedflow.staircase import is_traced

from .base import ComposedTransform, VectorTransform, check_features
from .lazy import LazyTransform


class LULinearTransform(VectorTransform):
    r"""The linear map :math:`f(x) = L U x + b`, with U's diagonal one.

    .. math:: \log \left| \det \frac{\partial f}{\partial x} \right| = \sum_i \log |L_{ii}|

    Both directions cost :math:`O(D^2)` a row: two products, or two triangular solves.

    Args:
        LU: A matrix that holds L, its diagonal included, and U above that, with shape (*, D, D).
        bias: The shift :math:`b`, with shape (*, D); none if None.

    Raises:
        ValueError: If LU is not square, or x does not have D features.

    References:
        Glow (Kingma and Dhariwal, 2018), section 3.2, https://arxiv.org/abs/1807.03039

    Example:
        >>> f = LULinearTransform(torch.tensor([[2.0, 3.0], [0.0, 1.0]]))
        >>> f.call_and_ladj(torch.tensor([1.0, 1.0]))
        (tensor([8., 1.]), tensor(0.6931))
    """

    def __init__(self, LU: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        _check_square("LU", LU)
        self.L = LU.tril()
        self.U = LU.triu(1) + torch.eye(LU.shape[-1], dtype=LU.dtype, device=LU.device)
        self.bias = bias

    def __repr__(self) -> str:
        return f"LULinearTransform(features={self.L.shape[-1]})"

    def _call(self, x: Tensor) -> Tensor:
        check_features("x", x, self.L.shape[-1])
        y = _multiply(self.L, _multiply(self.U, x))
        return y if self.bias is None else y + self.bias

    def _inverse(self, y: Tensor) -> Tensor:
        check_features("z", y, self.L.shape[-1])
        y = y if self.bias is None else y - self.bias
        y = solve_triangular(self.L, y, upper=False)
        return solve_triangular(self.U, y, upper=True, unitriangular=True)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        ladj = self.L.diagonal(dim1=-2, dim2=-1).abs().log().sum(dim=-1)
        return ladj.expand(torch.broadcast_shapes(ladj.shape, x.shape[:-1]))


class RotationTransform(VectorTransform):
    r"""The rotation :math:`f(x) = \exp(A - A^T) x`, which keeps volumes.

    Making it costs a matrix exponential, :math:`O(D^3)`; both directions cost one product.

    Args:
        A: Any square matrix :math:`A`, with shape (*, D, D); zero is the identity.

    Raises:
        ValueError: If A is not square, or x does not have D features.

    References:
        | Cheap Orthogonal Constraints in Neural Networks (Lezcano-Casado and Martínez-Rubio, 2019)
        | https://arxiv.org/abs/1901.08428

    Example:
        >>> f = RotationTransform(torch.tensor([[0.0, torch.pi / 2], [0.0, 0.0]]))
        >>> f(torch.tensor([1.0, 2.0]))
        tensor([ 2.0000, -1.0000])

        As a step of a flow whose matrix is learned:

        >>> from maskedflow.transforms import UnconditionalTransform
        >>> UnconditionalTransform(RotationTransform, A=torch.zeros(3, 3))
        UnconditionalTransform(RotationTransform(features=3))
    """

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        _check_square("A", A)
        self.R = torch.linalg.matrix_exp(A - A.mT)

    def __repr__(self) -> str:
        return f"RotationTransform(features={self.R.shape[-1]})"

    def _call(self, x: Tensor) -> Tensor:
        check_features("x", x, self.R.shape[-1])
        return _multiply(self.R, x)

    def _inverse(self, y: Tensor) -> Tensor:
        check_features("z", y, self.R.shape[-1])
        return _multiply(self.R.mT, y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(torch.broadcast_shapes(self.R.shape[:-2], x.shape[:-1]))


class PermutationTransform(VectorTransform):
    r"""Reorders features: :math:`y_i = x_{o_i}`. Its Jacobian's determinant is one in size.

    Args:
        order: The permutation :math:`o`, with shape (D,).

    Raises:
        ValueError: If `order` is not a permutation, or x does not have D features.

    Example:
        >>> PermutationTransform(torch.tensor([2, 0, 1]))(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 1., 2.])
    """

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        order = torch.as_tensor(order)
        if not is_traced() and (
            order.ndim != 1
            or not torch.equal(order.sort().values, torch.arange(len(order)).to(order))
        ):
            raise ValueError(f"order: expected a permutation of 0..D-1, got {order.tolist()}")
        self.order = order

    def __repr__(self) -> str:
        order = self.order.tolist()
        if len(order) > 10:
            order = [*order[:5], "...", *order[-5:]]
        return f"PermutationTransform([{', '.join(map(str, order))}])"

    def _call(self, x: Tensor) -> Tensor:
        check_features("x", x, len(self.order))
        return x[..., self.order]

    def _inverse(self, y: Tensor) -> Tensor:
        check_features("z", y, len(self.order))
        return y[..., torch.argsort(self.order)]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


class Permutation(LazyTransform):
    """A fixed permutation between the layers of a flow, part of its state.

    Args:
        order: Where each output comes from, with shape (D,); drawn at random if None.

    Raises:
        ValueError: If `order` is not a permutation of the features.

    Example:
        >>> Permutation(3, order=[2, 1, 0])()(torch.tensor([1.0, 2.0, 3.0]))
        tensor([3., 2., 1.])
    """

    order: Tensor

    is_fixed = True

    def __init__(
        self,
        features: int,
        order: Sequence[int] | Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if order is None:
            order = torch.randperm(features, generator=generator)
        order = PermutationTransform(torch.as_tensor(order)).order
        if len(order) != features:
            raise ValueError(f"order: expected {features} features, got {len(order)}")
        self.register_buffer("order", order.clone())

    def extra_repr(self) -> str:
        return repr(self()).removeprefix("PermutationTransform(")[:-1]

    def forward(self, c: Tensor | None = None) -> PermutationTransform:
        return PermutationTransform(self.order)

    def steps(self) -> list[Step] | None:
        return _permuted(self, "order")


class LULinear(LazyTransform):
    r"""A learned linear map between the layers of a flow, the identity to begin with.

    .. math:: z = L U x + b, \qquad L_{ii} = \exp(W_{ii}), \quad
        \log \left| \det \frac{\partial z}{\partial x} \right| = \sum_i W_{ii}

    The triangles of one parameter W hold the rest of L and U. A triangular product cannot represent
    every matrix: a :class:`Permutation` before it, as in neural spline flows, lets it.

    Args:
        bias: Whether a shift :math:`b` is learned.

    References:
        Neural Spline Flows (Durkan et al., 2019), section 3.2, https://arxiv.org/abs/1906.04032

    Example:
        >>> from maskedflow.flows import MAF
        >>> flow = MAF(3, transforms=2, between=LULinear)
        >>> [type(step).__name__ for step in flow.transform.transforms]
        ['MaskedAutoregressiveTransform', 'LULinear', 'MaskedAutoregressiveTransform']
    """

    def __init__(self, features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, features))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def extra_repr(self) -> str:
        return f"features={len(self.weight)}, bias={self.bias is not None}"

    def forward(self, c: Tensor | None = None) -> LULinearTransform:
        return LULinearTransform(_with_slopes(self.weight), self.bias)

    def steps(self) -> list[Step] | None:
        return [_linear(self, bias=None if self.bias is None else "bias")]


class PLULinear(LazyTransform):
    r"""A learned linear map that mixes all features, a random rotation to begin with.

    .. math:: z = L U P x, \qquad L_{ii} = s_i \exp(W_{ii}), \quad
        \log \left| \det \frac{\partial z}{\partial x} \right| = \sum_i W_{ii}

    The permutation P and the signs s are those of the rotation, and stay; the triangles of one
    parameter W are learned. Both directions cost :math:`O(D^2)` a row. At each pixel of an image
    (see :class:`~maskedflow.transforms.Pixelwise`) it is the invertible 1 x 1 convolution of Glow.

    References:
        Glow (Kingma and Dhariwal, 2018), section 3.2, equation 10, https://arxiv.org/abs/1807.03039

    Example:
        >>> x = torch.randn(5, 3)
        >>> z = PLULinear(3)()(x)
        >>> torch.allclose(z.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
        True
    """

    order: Tensor
    sign: Tensor

    def __init__(self, features: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        noise = torch.randn(features, features, generator=generator, dtype=torch.float64)
        rotation = torch.linalg.qr(noise).Q
        # Of the transpose, whose lower factor has the unit diagonal that U is to have.
        P, lower, upper = torch.linalg.lu(rotation.mT)
        L, U = upper.mT, lower.mT
        slopes = L.diagonal()
        weight = L.tril(-1) + U.triu(1) + slopes.abs().log().diag()
        self.weight = nn.Parameter(weight.to(torch.get_default_dtype()))
        self.register_buffer("sign", slopes.sign().to(self.weight.dtype))
        self.register_buffer("order", P.argmax(dim=0))

    def extra_repr(self) -> str:
        return f"features={len(self.weight)}"

    def forward(self, c: Tensor | None = None) -> ComposedTransform:
        LU = _with_slopes(self.weight, self.sign)
        return ComposedTransform(PermutationTransform(self.order), LULinearTransform(LU))

    def steps(self) -> list[Step] | None:
        permuted = _permuted(self, "order")
        return None if permuted is None else [*permuted, _linear(self, sign="sign")]


def _linear(module: nn.Module, bias: str | None = None, sign: str | None = None) -> Linear:
    """The step of a module's `weight`, and of other tensors of these names."""
    weight = owner(module, "weight")
    others = [None if name is None else owner(module, name) for name in (bias, sign)]
    known: Linear | None = module.__dict__.get("_linear")
    if known is None or [known.weight, known.bias, known.sign] != [weight, *others]:
        known = module.__dict__["_linear"] = Linear(weight, *others)
    return known


def _permuted(module: nn.Module, name: str) -> list[Step] | None:
    """The step of a permutation that is a buffer; None if nobody may look at its numbers now."""
    order: Tensor = module._buffers[name]  # type: ignore[assignment]
    key = id(order), version(order)
    known, step = module.__dict__.get("_permuted", (None, None))
    if known != key:
        if is_traced():
            return None
        now = tuple(order.tolist())
        step = step if step is not None and step.order == now else Permuted(now)
        module.__dict__["_permuted"] = key, step
    return [step]


def _with_slopes(weight: Tensor, sign: Tensor | float = 1.0) -> Tensor:
    """The matrix with a diagonal of exponentials, times a sign each."""
    return weight.tril(-1) + weight.triu(1) + (sign * weight.diagonal().exp()).diag()


def _check_square(name: str, matrix: Tensor) -> None:
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name}: expected shape (*, D, D), got {tuple(matrix.shape)}")


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    if is_traced():  # ONNX has no ellipsis that broadcasts
        return (matrix @ x[..., None])[..., 0]
    return torch.einsum("...ij,...j->...i", matrix, x)


def solve_triangular(matrix: Tensor, value: Tensor, **kwargs: bool) -> Tensor:
    """Solves triangular systems, (*, D, D), for vectors, (*draws, *, D)."""
    draws = value.ndim + 1 - matrix.ndim
    # All draws as columns of one system: else the matrix would be copied for each.
    columns = value[..., None] if draws <= 0 else value.flatten(0, draws - 1).movedim(0, -1)
    x: Tensor = torch.linalg.solve_triangular(matrix, columns, **kwargs)
    x = x[..., 0] if draws <= 0 else x.movedim(-1, 0).unflatten(0, value.shape[:draws])
    return x
