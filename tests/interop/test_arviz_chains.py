"""Effective sample sizes and R-hat are those of ArviZ."""

from __future__ import annotations

import pytest
import torch

from maskedflow.mcmc import Chains

az = pytest.importorskip("arviz")


@pytest.mark.parametrize("draws", [101, 1000])
@pytest.mark.parametrize("slope", [-0.4, 0.0, 0.7, 0.95])
def test_diagnostics_agree(draws: int, slope: float) -> None:
    generator = torch.Generator().manual_seed(draws)
    x = torch.randn(draws, 6, 1, generator=generator, dtype=torch.float64)
    for t in range(1, draws):
        stays = torch.rand(6, 1, generator=generator) < 0.3  # ties, as of rejected moves
        x[t] = torch.where(stays, x[t - 1], x[t] + slope * x[t - 1])
    chains = Chains(x, x[..., 0], torch.ones(6), draws * 6, 0)
    table = x[..., 0].T.numpy()
    # ArviZ adds one more correlation than the pairs have.
    assert chains.ess().item() == pytest.approx(float(az.ess(table, method="bulk")), rel=0.05)
    assert chains.rhat().item() == pytest.approx(float(az.rhat(table, method="rank")), rel=1e-9)
