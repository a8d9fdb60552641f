"""What an exported program has in place of operators that ONNX lacks gives torch's own numbers."""

from __future__ import annotations

import pytest
import torch

from maskedflow.interop.operators import erfcx, solve_triangular


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-7), (torch.float64, 1e-13)])
def test_erfcx_is_as_exact_near_zero_as_far_out(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.cat([torch.linspace(0, 12, 1001), torch.logspace(1, 17, 100)]).to(dtype)
    expected = torch.special.erfcx(x.double())
    torch.testing.assert_close(erfcx(x).double(), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unitriangular", [False, True])
def test_triangles_are_solved_row_after_row(upper: bool, left: bool, unitriangular: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 5, 5, generator=generator, dtype=torch.double) + 3 * torch.eye(5)
    a = a.triu() if upper else a.tril()
    b = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.double)
    how = {"upper": upper, "left": left, "unitriangular": unitriangular}
    torch.testing.assert_close(
        solve_triangular(a, b, **how), torch.linalg.solve_triangular(a, b, **how)
    )
