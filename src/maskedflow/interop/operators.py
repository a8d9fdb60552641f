"""Operators that ONNX lacks, or computes badly, made of others that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.polynomial import chebyshev
from torch import Tensor


def _log_share(u: Any) -> Any:
    t = (torch.from_numpy(u) + 1) / 2
    return (torch.special.erfcx(2 / t - 2) / t).log().numpy()


COEFFICIENTS: dict[torch.dtype, list[float]] = {
    torch.float32: chebyshev.chebinterpolate(_log_share, 12).tolist(),
    torch.float64: chebyshev.chebinterpolate(_log_share, 24).tolist(),
}
"""Those of P in :func:`erfcx`, as many as numbers of this kind can tell from more."""


def erfcx(x: Tensor) -> Tensor:
    r"""Computes :math:`e^{x^2} \operatorname{erfc}(x)` of numbers from zero on, however large.

    .. math:: e^{x^2} \operatorname{erfc}(x) = t \, e^{P(4 t - 2)}, \quad t = \frac{2}{2 + x},

    with a Chebyshev polynomial P. As a product of the two factors, the way ONNX's exporter has it,
    it is rounding errors from 4 on, and NaN from 10 on.

    References:
        Numerical Recipes (Press et al., 2007), section 6.2.2

    Example:
        >>> erfcx(torch.tensor([0.0, 1.0, 1e6]))
        tensor([1.0000e+00, 4.2758e-01, 5.6419e-07])
    """
    constant, *others = COEFFICIENTS[x.dtype]
    t = 2 / (2 + x)
    u = 4 * t - 2
    ahead, behind = torch.zeros_like(x), torch.zeros_like(x)
    for one in reversed(others):  # Clenshaw's recurrence
        ahead, behind = u * ahead - behind + one, ahead
    return t * (0.5 * u * ahead - behind + constant).exp()


def solve_triangular(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Solves a x = b, or x a = b if not `left`, row after row, as torch.linalg's does.

    Example:
        >>> a = torch.tensor([[2.0, 0.0], [1.0, 4.0]])
        >>> solve_triangular(a, torch.tensor([[2.0], [9.0]]), upper=False)
        tensor([[1.],
                [2.]])
    """
    if not left:
        return solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    size = a.shape[-1]
    x: list[Tensor] = []
    for row in reversed(range(size)) if upper else range(size):
        here = b[..., row : row + 1, :]
        if x:
            known = slice(row + 1, size) if upper else slice(0, row)
            here = here - a[..., row : row + 1, known] @ torch.cat(x, dim=-2)
        if not unitriangular:
            here = here / a[..., row : row + 1, row : row + 1]
        x = [here, *x] if upper else [*x, here]
    return torch.cat(x, dim=-2)


MADE_OF_OTHERS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.special_erfcx.default: erfcx,
    torch.ops.aten.linalg_solve_triangular.default: solve_triangular,
}
"""What becomes of an operator before a program is written as ONNX."""
