"""Independent answers that the library's are compared with, made from its forward map only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Transform

Map = Callable[[Tensor], Tensor]


def generation_of(features: int, order: Sequence[int] | None, passes: int | None) -> Tensor:
    """The step of the inverse at which each feature is found: ranks in groups of equal size."""
    ranks = list(range(features)) if order is None else list(order)
    group = -(-features // (passes or features))
    return torch.tensor([rank // group for rank in ranks])


def allowed(features: int, order: Sequence[int] | None, passes: int | None) -> Tensor:
    """Whether feature i may depend on feature j: j is found in an earlier step."""
    generation = generation_of(features, order, passes)
    return generation[:, None] > generation[None, :]


def jacobian(f: Map, x: Tensor) -> Tensor:
    """The dense Jacobian dy/dx of one vector by autograd."""
    return torch.autograd.functional.jacobian(f, x, vectorize=False)


def autograd_ladj(f: Map, x: Tensor) -> Tensor:
    """The log-determinant at one vector: from the whole Jacobian, not from the library."""
    return torch.linalg.slogdet(jacobian(f, x)).logabsdet


def autograd_ladjs(f: Map, x: Tensor) -> Tensor:
    """The log-determinant at each row of a batch that f maps row by row."""
    return torch.stack([autograd_ladj(f, row) for row in x])


def dependencies(f: Map, x: Tensor) -> Tensor:
    """Whether output i depends on input j, at any row of x."""
    return torch.stack([jacobian(f, row) != 0 for row in x]).any(dim=0)


def solve(f: Map, z: Tensor, steps: int) -> Tensor:
    """Inverts an autoregressive map by Newton's method, which ends after a step a generation.

    Each step makes one more generation exact when the univariate map is affine, and converges
    quadratically when it is not.
    """
    x = torch.zeros_like(z)
    for _ in range(steps):
        residual = f(x) - z
        x = x - torch.linalg.solve(jacobian(f, x), residual)
    return x.detach()


def implicit_gradients(
    f: Map, x: Tensor, gradient: Tensor, wanted: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of a loss through x = f^-1(z), by the implicit function theorem.

    Args:
        f: The forward map, a function of the tensors in `wanted` too.
        x: One solution, a vector.
        gradient: dloss/dx.
        wanted: The leaves of f whose gradients are wanted.

    Returns:
        dloss/dz, and dloss/dleaf of each wanted leaf.
    """
    adjoint = torch.linalg.solve(jacobian(f, x).T, gradient)
    leaves = torch.autograd.grad(f(x.detach()), list(wanted), -adjoint, allow_unused=True)
    return adjoint, [
        torch.zeros_like(leaf) if grad is None else grad
        for leaf, grad in zip(wanted, leaves, strict=True)
    ]


def masks_reach(masks: Sequence[Tensor]) -> Tensor:
    """Whether output i can be reached from input j through the masks, first layer to last."""
    reach = masks[0].double()
    for mask in masks[1:]:
        reach = ((mask.double() @ reach) > 0).double()
    return reach > 0


def check_inverse_pair(transform: Transform, x: Tensor, **tolerance: float) -> None:
    """The laws of an invertible map with a log-determinant, at x (rows are independent)."""
    y, ladj = transform.call_and_ladj(x)
    event = transform.domain.event_dim
    assert ladj.shape == x.shape[: x.ndim - event]
    assert y.dtype == ladj.dtype == x.dtype
    torch.testing.assert_close(transform(x), y, rtol=0, atol=1e-6)
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), ladj, **tolerance)

    back, back_ladj = transform.inv.call_and_ladj(y)
    torch.testing.assert_close(back, x, **tolerance)
    torch.testing.assert_close(back_ladj, -ladj, **tolerance)
    torch.testing.assert_close(transform.inv(y), back, rtol=0, atol=1e-6)
    torch.testing.assert_close(transform.inv.inv(x), y, **tolerance)
    assert transform.inv.domain.event_dim == transform.codomain.event_dim
