"""The battery, second part: flows that are saved, copied, moved, changed and expanded."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given

import maskedflow as mf
from family import FLOWS, Entry, every_flow, flows_that_promise, without_gradient
from strategies import Case, cases, few, overwrite


@every_flow
@few
@given(cases())
def test_state_dict_round_trip_into_a_flow_of_another_seed(build: Entry, case: Case) -> None:
    """Also where degrees and orders were random: they are part of the state."""
    flow = build(case)
    other = build(case.but(seed=case.seed + 1))
    x, c = build.x(case, 4), case.c(4)
    data = safetensors.torch.save({k: v.contiguous() for k, v in flow.state_dict().items()})
    other.load_state_dict(safetensors.torch.load(data))
    assert torch.equal(other(c).log_prob(x), flow(c).log_prob(x))
    source = torch.Generator().manual_seed(0)
    again = torch.Generator().manual_seed(0)
    torch.testing.assert_close(
        other(c).sample((2,), source), flow(c).sample((2,), again), **case.tolerance
    )


@every_flow
@pytest.mark.parametrize(("way", "used"), [("deepcopy", True), ("pickle", False)])
def test_whole_module_copies(build: Entry, way: str, used: bool) -> None:
    case = Case(features=4, context=2, order=(2, 0, 3, 1))
    flow = build(case)
    x, c = build.x(case, 4), case.c(4)
    if used:
        flow(c).log_prob(x).sum().backward()
        flow(c).sample()
    other = copy.deepcopy(flow) if way == "deepcopy" else pickle.loads(pickle.dumps(flow))
    expected = flow(c).log_prob(x)
    assert torch.equal(other(c).log_prob(x), expected)
    overwrite(other, 0.4, seed=9)
    assert torch.equal(flow(c).log_prob(x), expected)
    if "inverse" in build.lacks:
        return
    y, log_prob = other(c).rsample_and_log_prob()
    torch.testing.assert_close(other(c).log_prob(y), log_prob)


@flows_that_promise("inverse")
def test_nothing_stale_after_weights_change(build: Entry) -> None:
    case = Case(features=5, context=2, transforms=2)
    flow = build(case)
    c = case.c(3)
    for seed in range(3):
        overwrite(flow, 0.3, seed)
        x, log_prob = flow(c).rsample_and_log_prob((4,))
        torch.testing.assert_close(flow(c).log_prob(x), log_prob, atol=1e-7, rtol=1e-7)
        flow.zero_grad()
        (x.square().sum() + log_prob.sum()).backward()
        torch.optim.SGD(flow.parameters(), lr=1e-3).step()
        x, log_prob = flow(c).rsample_and_log_prob((4,))
        torch.testing.assert_close(flow(c).log_prob(x), log_prob, atol=1e-7, rtol=1e-7)


@every_flow
def test_moving_between_dtypes_after_use(build: Entry) -> None:
    case = Case(features=4, context=2, dtype=torch.float32)
    flow = build(case)
    x, c = build.x(case, 3), case.c(3)
    assert c is not None
    single = flow(c).log_prob(x)
    flow(c).sample()
    flow = flow.double()
    double = flow(c.double()).log_prob(x.double())
    assert double.dtype == flow(c.double()).sample().dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=1e-3)
    flow = flow.float()
    assert flow(c).sample().dtype == torch.float32
    torch.testing.assert_close(flow(c).log_prob(x), single)


@every_flow
def test_inference_mode_does_not_spoil_training(build: Entry) -> None:
    case = Case(features=4, context=2)
    flow = build(case)
    x, c = build.x(case, 3), case.c(3)
    with torch.inference_mode():
        expected = flow(c).log_prob(x)
        assert flow(c).sample((2,)).shape == (2, 3, 4)
    flow(c).log_prob(x).sum().backward()
    if "inverse" not in build.lacks:
        flow(c).rsample().sum().backward()
    assert not without_gradient(flow)
    torch.testing.assert_close(flow(c).log_prob(x), expected.clone())


@every_flow
def test_a_flow_copied_in_inference_mode_is_the_same(build: Entry) -> None:
    """Its tensors count no changes of their numbers then. A far row needs a copy, too."""
    case = Case(features=4, context=2)
    flow = build(case)
    x, c = build.x(case, 3), case.c(3)
    expected = flow(c).log_prob(x).detach()
    far = x.clone()
    far[0] = 1e25
    beyond = flow(c).log_prob(far).detach()
    with torch.inference_mode():
        assert torch.equal(flow(c).log_prob(far), beyond)
        twin = copy.deepcopy(flow)
        for _ in range(2):
            assert torch.equal(twin(c).log_prob(x), expected)
            assert twin(c).sample((2,)).shape == (2, 3, 4)


@every_flow
@few
@given(cases())
def test_expand(build: Entry, case: Case) -> None:
    flow = build(case)
    x, c = build.x(case, 4), case.c(4)
    distribution = flow(c)
    wide = distribution.expand((3, 4))
    assert wide.batch_shape == (3, 4)
    assert wide.event_shape == distribution.event_shape == (case.features,)
    expected = distribution.log_prob(x).expand(3, 4)
    torch.testing.assert_close(wide.log_prob(x), expected, **case.tolerance)
    samples = wide.sample((2,))
    assert samples.shape == (2, 3, 4, case.features)
    torch.testing.assert_close(
        wide.log_prob(samples), distribution.log_prob(samples), **case.tolerance
    )


#: Builds every flow anew, fills it from its file, and compares it with what was known.
FRESH = """
import pickle, sys
from pathlib import Path
import safetensors.torch, torch
import maskedflow as mf
from family import FLOWS
from strategies import Case

torch.set_num_threads(1)
folder = Path(sys.argv[1])
known = safetensors.torch.load_file(folder / "known.safetensors")
case = Case(features=4, context=2, order=(2, 0, 3, 1), seed=5)
for number, (name, build) in enumerate(FLOWS.items()):
    filled = build(case)
    mf.training.load(folder / f"{number}.safetensors", filled)
    pickled = pickle.loads((folder / f"{number}.pickle").read_bytes())
    for flow in (filled, pickled):
        found = flow(known["c"]).log_prob(known[f"{number} x"])
        assert torch.equal(found, known[f"{number} log_prob"]), name
"""


def test_a_fresh_process_opens_every_flow(tmp_path: Path) -> None:
    case = Case(features=4, context=2, order=(2, 0, 3, 1))
    c = case.c(6)
    assert c is not None
    known = {"c": c}
    for number, build in enumerate(FLOWS.values()):
        flow = build(case)
        x = build.x(case, 6)
        mf.training.save(tmp_path / f"{number}.safetensors", flow)
        (tmp_path / f"{number}.pickle").write_bytes(pickle.dumps(flow))
        known |= {f"{number} x": x, f"{number} log_prob": flow(c).log_prob(x).detach()}
    safetensors.torch.save_file(known, tmp_path / "known.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
