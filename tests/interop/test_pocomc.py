"""pocomc preconditions with our flows as it does with zuko's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import maskedflow as mf

pytest.importorskip("pocomc")


def test_snippet_finds_posterior_and_evidence(snippet: Callable[[str], dict[str, Any]]) -> None:
    names = snippet("pocomc")
    mean, precision = names["mean"], names["precision"]
    covariance = np.linalg.inv(precision + np.eye(3) / 9)
    samples, weights = names["samples"], names["weights"]
    found = weights @ samples
    n = 1 / (weights**2).sum()
    assert n > 500
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(found - covariance @ precision @ mean) < 4 * error).all()
    spread = (weights[:, None] * (samples - found)).T @ (samples - found)
    np.testing.assert_allclose(spread, covariance, atol=0.12)

    both = np.linalg.inv(precision) + 9 * np.eye(3)
    log_z = -0.5 * (np.linalg.slogdet(precision @ both)[1] + mean @ np.linalg.solve(both, mean))
    assert names["log_z"] == pytest.approx(log_z, abs=0.05)


@pytest.mark.parametrize("kind", [mf.flows.NSF, mf.flows.RealNVP])
def test_its_flow_is_ours(kind: Any) -> None:
    import pocomc

    flow = kind(2, transforms=2, hidden_features=(16,))
    wrapped = pocomc.Flow(2, flow)
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[1.0, 0.9], [0.0, 0.4]]
    )
    history = wrapped.fit(x, epochs=30, validation_split=0.5)
    assert history["val_loss"][-1] < history["val_loss"][0]
    u, ladj = wrapped.forward(x)
    back, back_ladj = wrapped.inverse(u)
    torch.testing.assert_close(back, x, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(back_ladj, -ladj, atol=1e-2, rtol=1e-2)
    drawn, log_prob = wrapped.sample(10)
    torch.testing.assert_close(wrapped.log_prob(drawn), log_prob, atol=1e-3, rtol=1e-3)


def test_zukos_own_flows_are_still_zukos() -> None:
    import zuko

    assert isinstance(mf.flows.MAF(2), zuko.flows.Flow)
    assert isinstance(zuko.flows.MAF(2), zuko.flows.Flow)
    assert not isinstance(mf.flows.GMM(2), zuko.flows.Flow)
    assert not isinstance(torch.nn.Linear(2, 2), zuko.flows.Flow)
    assert not isinstance(zuko.flows.MAF(2), mf.flows.Flow)
