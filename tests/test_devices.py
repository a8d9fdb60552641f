"""On another device, flows compute in plain torch what compiled programs compute on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import maskedflow as mf
from commands import SMALL, call, run, table
from elsewhere import elsewhere, here
from family import FLOWS, Entry
from maskedflow import flows, transforms
from maskedflow.runs import load_run
from maskedflow.training import TrainConfig, device_of, evaluate, fit
from maskedflow.training.device import move
from strategies import Case

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
QUICK = ("MAF, batch norm", "NSF")
"""Flows whose tests are not slow."""

catalogue = pytest.mark.parametrize(
    "build",
    [
        pytest.param(build, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, build in FLOWS.items()
    ],
)


def asked(flow: flows.Flow, x: Tensor, c: Tensor) -> dict[str, Tensor]:
    """Densities, their gradients, and draws of a seed, whatever the device."""
    found = {"log_prob": flow(c).log_prob(x)}
    found["log_prob"].mean().backward()
    gradients = {name: p.grad for name, p in flow.named_parameters() if p.grad is not None}
    generator = torch.Generator(x.device).manual_seed(3)
    with torch.no_grad():
        found["x"] = flow(c).sample((), generator)
    return {**found, **gradients}


@catalogue
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
def test_a_flow_is_the_same_elsewhere(build: Entry, dtype: torch.dtype) -> None:
    case = Case(features=4, context=2, hidden_features=(20, 20), dtype=dtype)
    flow, x, c = build(case), build.x(case, 9), case.c(9)
    assert c is not None
    other = copy.deepcopy(flow)
    expected = asked(flow, x, c)
    with elsewhere() as device:
        found = asked(other.to(device), x.to(device), c.to(device))
        assert all(one.device == device for one in found.values())
        torch.optim.Adam(other.parameters(), fused=True).step()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = TOLERANCE[dtype] * max(1.0, float(value.detach().abs().max()))
        close = {"atol": tolerance, "rtol": 0.0, "msg": lambda why, name=name: f"{name}: {why}"}
        torch.testing.assert_close(here(found[name]).detach(), value.detach(), **close)


K: dict[str, Any] = {"hidden_features": (8,), "transforms": 2}


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def standardized(x: Tensor) -> transforms.Standardize:
    return transforms.Standardize(x.mean(dim=0), x.std(dim=0))


X, C = rows(120, 3) @ rows(3, 3, seed=1), rows(120, 2, seed=2)
WIDE = X.double() + 1e9


def after(*layers: transforms.LazyTransform, **options: Any) -> flows.Flow:
    """A flow behind some layers."""
    maf = flows.MAF(3, **K, **options)
    return flows.Flow([*layers, maf.transform], maf.base)


def embedded() -> flows.Flow:
    """A flow whose context is a number of a class."""
    maf = flows.MAF(3, 4, **K)
    return flows.Flow(maf.transform, maf.base, nn.Sequential(nn.Flatten(0), nn.Embedding(5, 4)))


#: Flows and rows by what is set, drawn or cast on the way: the flow, its rows, and their contexts.
TRAINED: dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor | None]] = {
    "batch norm": (lambda: flows.MAF(3, 2, batch_norm=True, **K), X, C),
    "first batch": (lambda: flows.MAF(3, between=transforms.ActNorm, **K), X, None),
    "first rows": (
        lambda: after(
            transforms.Whiten.waiting(3, context=2),
            transforms.NormalScores.waiting(3),
            context=2,
        ),
        X,
        C,
    ),
    "marginals": (lambda: flows.MAF(3, base=flows.base("marginals", 3), **K), X, None),
    "noise": (
        lambda: after(transforms.Dequantize(1 / 8), transforms.Logit(0.05), batch_norm=True),
        (X.sigmoid() * 8).floor() / 8,
        None,
    ),
    "wide": (lambda: after(standardized(WIDE), transforms.Narrow()), WIDE, None),
    "embedding": (embedded, X, torch.arange(120)[:, None] % 5),
    "pixels": (lambda: flows.PixelCNN(12, image_shape=(3, 2, 2)), rows(120, 12), None),
    "autoencoder": (lambda: mf.models.VAE(3, 2), (X > 0).float(), None),
}


def trained(
    name: str,
    device: torch.device | str,
    weight: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The validation rows' log-densities after an epoch."""
    build, x, c = TRAINED[name]
    torch.manual_seed(0)
    flow = build().to(dtype)
    split = mf.data.Split(x, c, weight)
    fit(flow, split[:90], split[90:], TrainConfig(epochs=1, batch_size=32), device=device)
    assert all(p.device == torch.device(device) for p in flow.parameters())
    return evaluate(flow, split[90:])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_training_is_the_same_elsewhere(name: str) -> None:
    expected = trained(name, "cpu")
    with elsewhere() as device:
        found = trained(name, device)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_rows_stay_and_weights_follow() -> None:
    weight = rows(120, seed=5).abs()
    expected = trained("batch norm", "cpu", weight)
    with elsewhere() as device:
        found = trained("batch norm", device, weight)
    assert type(found) is Tensor
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch norm", "first batch", "embedding"])
def test_a_device_without_float64_is_enough(name: str) -> None:
    expected = trained(name, "cpu", dtype=torch.float32)
    with elsewhere(has_double=False) as device:
        found = trained(name, device, dtype=torch.float32)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.01)  # Adam enlarges rounding


def test_training_goes_on_on_another_device(tmp_path: Path) -> None:
    def go(epochs: int, device: torch.device | str, resume: bool) -> mf.training.History:
        flow = flows.MAF(3, generator=torch.Generator().manual_seed(0), **K)
        config = TrainConfig(epochs=epochs, batch_size=32)
        folder = tmp_path / ("whole" if epochs == 2 and not resume else "parts")
        return fit(flow, X[:90], X[90:], config, directory=folder, resume=resume, device=device)

    whole = go(2, "cpu", resume=False)
    with elsewhere() as device:
        go(1, device, resume=False)
    again = go(2, "cpu", resume=True)
    assert len(again.records) == 2
    assert again.validation_nll == pytest.approx(whole.validation_nll, abs=1e-5)


def test_auto_is_a_device_that_is_here() -> None:
    assert device_of("auto").type in ("cpu", "cuda")
    assert device_of(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", 1.5])
def test_no_device(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^device: expected auto, cpu, cuda or mps, got"):
        device_of(name)


@pytest.mark.parametrize("name", ["cuda", "mps", "meta"])
def test_a_device_that_is_not_here(name: str) -> None:
    if name != "meta" and torch.get_device_module(name).is_available():
        pytest.skip(f"{name} is here")
    with pytest.raises(ValueError, match=f"^device: {name} is not available; torch says: .+"):
        fit(flows.MAF(3, **K), X, device=name)


def test_mps_has_no_float64() -> None:
    with pytest.raises(ValueError, match=r"^device: mps has no float64, which 'transform\..+' is"):
        move(flows.MAF(3, **K).double(), torch.device("mps"))


def test_the_commands_name_a_device(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "maskedflow: device: cuda is not available; torch says: "
    own = folder / "own"
    if torch.cuda.is_available():
        pytest.skip("cuda is here")
    for words in (
        ("train", "--data", folder / "own.csv", "--out", folder / "other", *SMALL),
        ("evaluate", own),
        ("score", own, folder / "own.csv", "-o", folder / "x.csv"),
        ("sample", own, "-n", 3, "-o", folder / "y.csv"),
    ):
        code, _, error = call(capsys, *words, "--device", "cuda")
        assert code == 2
        assert error.startswith(told)
        assert error.count("\n") == 1
    assert not (folder / "other").exists()
    assert run("score", own, folder / "own.csv", "-o", folder / "x.csv", "--device", "auto") == 0


def test_a_run_answers_elsewhere_as_here(folder: Path) -> None:
    own, given = load_run(folder / "own"), load_run(folder / "given")
    x = torch.tensor(table()[:20], dtype=torch.float32)
    expected = own.density.log_prob(x)
    drawn = given.density.sample(20, x[:, 2:], seed=4)
    with elsewhere() as device:
        found = own.to(device).density.log_prob(x)
        again = given.to(device).density.sample(20, x[:, 2:], seed=4)
        assert own.to("cpu").flow().log_prob(x).device.type == "cpu"
    assert type(again) is type(found) is Tensor
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, drawn, atol=1e-5, rtol=1e-5)
