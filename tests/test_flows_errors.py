"""The battery, fourth part: what every flow says to wrong input."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from family import Entry, every_flow
from strategies import Case, few


def shows(error: pytest.ExceptionInfo[ValueError], *names: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 200
    for name in names:
        assert name in message, f"{name!r} not in {message!r}"


BAD_X = [(torch.zeros(4), "(4,)"), (torch.zeros(5, 2), "(5, 2)"), (torch.zeros(()), "()")]


@every_flow
@pytest.mark.parametrize(("x", "shape"), BAD_X)
def test_x_of_the_wrong_shape(build: Entry, x: Tensor, shape: str) -> None:
    flow = build(Case(features=3, dtype=torch.float32))
    with pytest.raises(ValueError, match="x") as error:
        flow().log_prob(x)
    shows(error, "x", shape, "3")
    if "inverse" in build.lacks:
        return
    for f in (flow().transform, flow().transform.inv):
        with pytest.raises(ValueError, match="expected") as error:
            f.call_and_ladj(x)
        shows(error, shape, "3")


def test_x_of_the_wrong_width_with_one_feature() -> None:
    """Nothing of a one-feature flow depends on x: a wider x must not broadcast silently."""
    with pytest.raises(ValueError, match="x") as error:
        mf.flows.MAF(1)().log_prob(torch.zeros(5, 2))
    shows(error, "x", "(5, 2)", "1")


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("name", ["normal", "student-t"])
def test_a_base_of_another_width(name: str, width: int) -> None:
    flow = mf.flows.Flow([mf.flows.MAF(3).transform], mf.flows.base(name, width))
    with pytest.raises(ValueError, match=rf"x: expected shape \(\*, {width}\), got \(4, 3\)"):
        flow().log_prob(torch.zeros(4, 3))


@every_flow
def test_a_missing_context(build: Entry) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"\bc\b|context") as error:
        flow().log_prob(torch.zeros(5, 3))
    shows(error, "context", "2")
    with pytest.raises(ValueError, match=r"\bc\b|context"):
        flow().sample((2,))


@every_flow
def test_a_needless_context(build: Entry) -> None:
    flow = build(Case(features=3, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"\bc\b|context") as error:
        flow(torch.zeros(5, 2)).log_prob(torch.zeros(5, 3))
    shows(error, "context", "(5, 2)")


@every_flow
@pytest.mark.parametrize(("c", "shape"), [(torch.zeros(4), "(4,)"), (torch.zeros(5, 1), "(5, 1)")])
def test_a_context_of_the_wrong_shape(build: Entry, c: Tensor, shape: str) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    with pytest.raises(ValueError, match="c") as error:
        flow(c).log_prob(torch.zeros(5, 3))
    shows(error, "c", shape, "2")


@every_flow
def test_batches_that_do_not_broadcast(build: Entry) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    with pytest.raises((ValueError, RuntimeError)) as error:
        flow(torch.zeros(4, 2)).log_prob(torch.zeros(5, 3))
    assert "4" in str(error.value)
    assert "5" in str(error.value)


@every_flow
@given(st.integers(0, 4), st.integers(0, 2))
@few
def test_nan_in_x(build: Entry, row: int, column: int) -> None:
    flow = build(Case(features=3, dtype=torch.float32))
    x = torch.zeros(5, 3)
    x[row, column] = torch.nan
    with pytest.raises(ValueError, match="NaN") as error:
        flow().log_prob(x)
    shows(error, "x", str(row), str(column))


def test_nan_beside_infinities_in_x() -> None:
    x = torch.tensor([[torch.inf, 0.0], [-torch.inf, 0.0]])
    log_prob = mf.flows.MAF(2)().log_prob(x)
    assert log_prob.shape == (2,)
    assert not (log_prob > 0).any()
    x[1, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        mf.flows.MAF(2)().log_prob(x)


def test_large_finite_x_is_no_nan() -> None:
    """The sum of these overflows; none of them is NaN."""
    x = torch.full((4, 2), 3e38)
    assert mf.flows.MAF(2)().log_prob(x).shape == (4,)


@every_flow
def test_nan_in_the_context(build: Entry) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    c = torch.zeros(5, 2)
    c[2, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN") as error:
        flow(c).log_prob(torch.zeros(5, 3))
    shows(error, "c", "2", "1")
    with pytest.raises(ValueError, match="NaN"):
        flow(c).sample()


@every_flow
def test_what_is_no_tensor(build: Entry) -> None:
    flow = build(Case(features=3, context=2, dtype=torch.float32))
    for wrong, kind in ((np.zeros((5, 3)), "numpy.ndarray"), ([0.0] * 3, "list")):
        with pytest.raises(TypeError, match=rf"^x: expected a torch.Tensor, got a {kind}; "):
            flow(torch.zeros(2)).log_prob(wrong)
        with pytest.raises(TypeError, match=rf"^c: expected a torch.Tensor, got a {kind}; "):
            flow(wrong)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: mf.flows.NSF(2, bins=0), "bins: expected at least 1, got 0"),
        (lambda: mf.flows.NCSF(2, bins=0), "bins: expected at least 1, got 0"),
        (lambda: mf.flows.GF(2, components=0), "components: expected at least 1, got 0"),
        (lambda: mf.flows.SOSPF(2, polynomials=0), "polynomials: expected at least 1, got 0"),
        (lambda: mf.flows.SOSPF(2, degree=-1), "degree: expected at least 0, got -1"),
        (lambda: mf.flows.BPF(2, degree=-1), "degree: expected at least 0, got -1"),
        (lambda: mf.flows.NAF(2, signal=0), "signal: expected at least 1, got 0"),
        (lambda: mf.flows.UNAF(2, signal=0), "signal: expected at least 1, got 0"),
        (lambda: mf.flows.base("student-t", 2, df=0), "df: expected a positive number, got 0"),
        (
            lambda: mf.flows.base("uniform", 2, lower=1.0),
            "lower: expected less than upper, 1.0, got 1.0",
        ),
    ],
    ids=["nsf", "ncsf", "gf", "polynomials", "degree", "bpf", "naf", "unaf", "df", "uniform"],
)
def test_numbers_that_no_map_and_no_base_has(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        make()


@pytest.mark.parametrize("name", ["MAF", "NSF", "NCSF", "NICE", "RealNVP", "NAF", "MADE"])
def test_another_precision(name: str) -> None:
    flow = getattr(mf.flows, name)(3, context=2)
    x, c = torch.zeros(5, 3), torch.zeros(5, 2)
    told = r"expected a tensor of float32, as the parameters are, got one of float64; use "
    with pytest.raises(ValueError, match=rf"^x: {told}x.to\(torch.float32\), or flow.double\(\)$"):
        flow(c).log_prob(x.double())
    with pytest.raises(ValueError, match=rf"^c: {told}"):
        flow(c.double()).log_prob(x)


@pytest.mark.parametrize(
    "name", ["MAF", "NSF", "NCSF", "IAF", "NICE", "RealNVP", "NAF", "GF", "GMM", "TemporalMAF"]
)
def test_an_unknown_keyword_is_told_with_the_nearest_one(name: str) -> None:
    told = rf"^{name}: got an unknown keyword 'hidden_feature'; did you mean 'hidden_features'\?$"
    with pytest.raises(TypeError, match=told):
        getattr(mf.flows, name)(3, hidden_feature=[8])
    with pytest.raises(TypeError, match=rf"^{name}: got an unknown keyword 'qqq'$"):
        getattr(mf.flows, name)(3, qqq=1)


@pytest.mark.parametrize("flow", [mf.flows.MAF, mf.flows.NICE, mf.flows.RealNVP, mf.flows.PixelCNN])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"hidden_features": 8}, "hidden_features: expected whole numbers such as .*, got 8"),
        ({"hidden_features": (8, 0.5)}, "hidden_features: expected whole numbers"),
        ({"activation": "relu"}, "activation: expected a class such as .*, got 'relu'"),
        ({"activation": nn.ReLU()}, "activation: expected a class such as .*, got ReLU"),
    ],
)
def test_networks_of_another_kind_than_numbers_and_classes(
    flow: Callable[..., mf.flows.Flow], wrong: dict[str, Any], told: str
) -> None:
    shape: dict[str, Any] = {"image_shape": (1, 2, 2)} if flow is mf.flows.PixelCNN else {}
    with pytest.raises(TypeError, match=told):
        flow(4, **shape, **wrong)


def test_features_that_are_no_number() -> None:
    with pytest.raises(TypeError, match=re.escape("features: expected a whole number, got 3.5")):
        mf.flows.MAF(3.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"image_shape: expected \(channels, height, width\)"):
        mf.flows.Glow(4, image_shape=4)  # type: ignore[arg-type]
