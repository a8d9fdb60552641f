"""Flows go through torch.export, with any number of rows."""

from __future__ import annotations

import sys
from pathlib import Path

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


def test_a_sampler_uses_each_weight_once(tmp_path: Path) -> None:
    flow = mf.flows.MAF(6, context=2, transforms=2, hidden_features=(12, 12)).eval()
    mf.interop.export(flow, tmp_path / "flow.pt2", "sample")
    assert [file.name for file in tmp_path.iterdir()] == ["flow.pt2"]
    program = torch.export.load(tmp_path / "flow.pt2")
    products = [
        node.args[1].meta["val"].numel()
        for node in program.graph.nodes
        if node.target is torch.ops.aten.linear.default
    ]
    dense = sum(
        part.mask.numel() for part in flow.modules() if isinstance(part, mf.nn.MaskedLinear)
    )
    assert 0 < sum(products) <= dense
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 5):
        c = torch.randn(rows, 2, generator=generator)
        z = mf.interop.latents(flow, rows, c, generator=generator)
        x, log_prob = program.module()(z, c)
        torch.testing.assert_close(x, flow(c).transform.inv(z))
        torch.testing.assert_close(log_prob, flow(c).log_prob(x))


@pytest.mark.parametrize("what", ["log_prob", "sample"])
def test_a_flow_that_starts_as_the_gaussian_takes_any_number_of_rows(
    tmp_path: Path, what: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    maf = mf.flows.MAF(2, 1, transforms=1, hidden_features=(6,), generator=generator)
    flow = mf.flows.Flow([mf.transforms.Whiten.waiting(2, 1), *maf.transform.transforms], maf.base)
    x, c = (torch.randn(300, size, generator=generator) for size in (2, 1))
    mf.training.start_at(flow, mf.data.Split(3 * x + c, c))
    mf.interop.export(flow.eval(), tmp_path / "flow.pt2", what)  # type: ignore[arg-type]
    program = torch.export.load(tmp_path / "flow.pt2").module()
    for rows in (1, 300):
        if what == "log_prob":
            found = program(x[:rows], c[:rows])
            torch.testing.assert_close(found, flow(c[:rows]).log_prob(x[:rows]))
        else:
            y, log_prob = program(x[:rows], c[:rows])
            torch.testing.assert_close(y, flow(c[:rows]).transform.inv(x[:rows]))
            torch.testing.assert_close(log_prob, flow(c[:rows]).log_prob(y))


def test_what_cannot_be_exported_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, path = mf.flows.MAF(2, transforms=1, hidden_features=(4,)), tmp_path / "flow.onnx"
    with pytest.raises(ValueError, match=r"^path: expected .* \.pt2 or \.onnx, got 'flow\.pt'$"):
        mf.interop.export(flow, tmp_path / "flow.pt")
    with pytest.raises(ValueError, match=r"^what: expected 'log_prob' or 'sample', got 'mean'$"):
        mf.interop.export(flow, path, "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^c: expected shape \(5, context\), got \(4, 3\)$"):
        mf.interop.latents(mf.flows.MAF(2, 3), 5, torch.zeros(4, 3))
    with pytest.raises(TypeError, match=r"^flow: expected a flow of rows, got a Linear$"):
        mf.interop.export(nn.Linear(2, 2), path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^flow: sample has no program: it searches for roots"):
        mf.interop.export(mf.flows.NAF(2, transforms=1, hidden_features=(4,)), path, "sample")
    embedded = mf.flows.Flow(flow.transform, flow.base, nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"^context: expected the number of context features"):
        mf.interop.export(embedded, path)
    series = Path(__file__).with_name("golden") / "flow_series"
    with pytest.raises(TypeError, match=r"^flow: expected a flow of rows, .* of a time series$"):
        mf.interop.export(series, tmp_path / "flow.pt2")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"^onnx is not installed: pip install maskedflow\[onnx\]$"
    ):
        mf.interop.export(flow, path)
    assert not list(tmp_path.iterdir())


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
