"""Flows go through torch.export, with any number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf


class Score(nn.Module):
    """The log-density of a flow."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.flow(c).log_prob(x)


@pytest.mark.parametrize("name", ["MAF", "NICE", "RealNVP", "NSF", "NCSF", "NAF"])
def test_a_log_density_is_exported_for_any_number_of_rows(name: str) -> None:
    flow = getattr(mf.flows, name)(3, context=2, transforms=1, hidden_features=(8,)).eval()
    score = Score(flow)
    generator = torch.Generator().manual_seed(0)
    few, many = (
        (torch.randn(n, 3, generator=generator), torch.randn(n, 2, generator=generator))
        for n in (4, 7)
    )
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(score, few, dynamic_shapes=({0: rows}, {0: rows})).module()
    torch.testing.assert_close(exported(*many), score(*many))


def test_the_slope_of_a_monotone_network_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    for stack in (None, 2):
        network = mf.nn.MonotonicMLP(3, 2, [8, 8], stack=stack, generator=generator).double()
        shape = (5, 3) if stack is None else (5, stack, 3)
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        value, slope = network.value_and_slope(x)
        torch.testing.assert_close(value, network(x))
        x.requires_grad_()
        for output in range(2):
            (gradient,) = torch.autograd.grad(network(x)[..., output].sum(), x)
            torch.testing.assert_close(slope[..., output], gradient[..., 0])
