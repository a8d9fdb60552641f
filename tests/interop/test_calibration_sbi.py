"""Our tests of posteriors on sbi's, beside sbi's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Independent, Normal

sbi = pytest.importorskip("sbi")

from sbi.diagnostics import check_tarp, run_sbc, run_tarp  # noqa: E402
from sbi.inference import NPE  # noqa: E402

import maskedflow as mf  # noqa: E402
from maskedflow.inference import expected_coverage, predictive_check, sbc, tarp  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # sbi's own


def simulator(theta: Tensor) -> Tensor:
    return theta + torch.randn_like(theta)


@pytest.fixture(scope="module")
def posterior() -> Any:
    torch.manual_seed(0)
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    theta = prior.sample((1000,))
    inference = NPE(prior, density_estimator="maf", show_progress_bars=False)
    inference.append_simulations(theta, simulator(theta)).train(max_num_epochs=10)
    return inference.build_posterior()


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    theta = torch.randn(150, 2, generator=torch.Generator().manual_seed(1))
    return theta, theta + torch.randn(150, 2, generator=torch.Generator().manual_seed(2))


def test_ranks_and_coverages_are_sbis(posterior: Any, pairs: tuple[Tensor, Tensor]) -> None:
    n = 500
    ours = sbc(posterior, *pairs, n=n)
    theirs, _ = run_sbc(*pairs, posterior, n, show_progress_bar=False)
    assert np.abs(ours.ranks / n - theirs.numpy() / n).max() < 6 * 0.5 / np.sqrt(n)
    few = [one[:10] for one in pairs]  # of which sbi normalises each density by 10,000 samples
    found = expected_coverage(posterior, *few, n=n)
    theirs, _ = run_sbc(*few, posterior, n, reduce_fns=posterior.log_prob, show_progress_bar=False)
    assert np.abs(found.credibility - (1 - theirs[:, 0].numpy() / n)).max() < 6 * 0.5 / np.sqrt(n)


def test_tarp_is_sbis(posterior: Any, pairs: tuple[Tensor, Tensor]) -> None:
    points = 3 * torch.randn(150, 2, generator=torch.Generator().manual_seed(3))
    found = tarp(posterior, *pairs, n=500, references=points)
    coverage, levels = run_tarp(
        *pairs, posterior, points, num_posterior_samples=500, num_bins=50, show_progress_bar=False
    )
    here = np.interp(levels.numpy(), found.levels, found.coverage)
    assert np.abs(here - coverage.numpy()).max() < 0.1
    assert found.atc == pytest.approx(check_tarp(coverage, levels)[0], abs=0.03)


def test_one_by_one_and_drawn(posterior: Any, pairs: tuple[Tensor, Tensor]) -> None:
    class Plain:
        sample, log_prob = posterior.sample, posterior.log_prob

    theta, x = (one[:40] for one in pairs)
    whole = expected_coverage(posterior, theta, x, n=300)
    single = expected_coverage(Plain(), theta, x, n=300)
    assert np.abs(whole.credibility - single.credibility).max() < 6 * 0.5 / np.sqrt(300)
    found = predictive_check(posterior, simulator, x[0], n=300)
    assert found.simulated.shape == (300, 2)
    panels = mf.plot.corner(posterior, x=x[0], truth=theta[0], n=300, fig=Figure())
    assert panels[1, 0].lines[-1].get_xydata() == pytest.approx(theta[:1].numpy())
    axes = mf.plot.density(posterior, x=x[0], points=50, ax=Figure().subplots())
    assert axes.collections[0].get_paths()
