"""GMM, compared with explicit mixtures, and where it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from clusters import clusters
from generators import generator
from maskedflow.flows import GMM

KINDS: list[dict[str, Any]] = [
    {"covariance_type": kind, "tied": tied}
    for kind in ("full", "diagonal", "spherical")
    for tied in (False, True)
]


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("features", [1, 3])
def test_gmm_is_the_mixture_of_its_components(
    options: dict[str, Any], context: int, features: int
) -> None:
    gmm = GMM(features, context, components=4, generator=generator(), **options).double()
    c = torch.randn(5, context, dtype=torch.float64) if context else None
    density = gmm(c)
    x = torch.randn(5, features, dtype=torch.float64)
    weights = density.logits.softmax(dim=-1)
    parts = []
    for k in range(4):
        covariance = torch.diag_embed(density.base.variance[..., k, :])
        if options["covariance_type"] == "full":
            covariance = density.base.covariance_matrix[..., k, :, :]
        normal = MultivariateNormal(density.base.mean[..., k, :], covariance)
        parts.append(weights[..., k] * normal.log_prob(x).exp())
    torch.testing.assert_close(density.log_prob(x), sum(parts).log())
    density.log_prob(x).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in gmm.parameters() if p.numel())
    gmm.zero_grad()
    gmm(c).rsample((5,), generator()).sin().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in gmm.parameters() if p.numel())
    assert gmm(c).sample((7,)).shape == (7, *([] if c is None else [5]), features)
    far = torch.full((features,), 1e6)
    assert gmm.float()(None if c is None else c.float()).log_prob(far).isfinite().all()
    if options["tied"]:
        assert (density.base.variance == density.base.variance[..., :1, :]).all()
    if options["covariance_type"] == "spherical":
        assert (density.base.variance == density.base.variance[..., :1]).all()


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("context", [0, 2])
def test_initialize_finds_clusters(options: dict[str, Any], context: int) -> None:
    x, means, covariances = clusters()
    gmm = GMM(2, context, components=3, generator=generator(), **options)
    start = gmm(torch.zeros(context) if context else None).log_prob(x).mean()
    gmm.initialize(x, "kmeans", generator=generator())
    with torch.no_grad():
        density = gmm(torch.zeros(context) if context else None)
    assert density.log_prob(x).mean() > start + 1
    found = density.base.mean
    match = torch.cdist(means, found).argmin(dim=1)
    tolerance = {"atol": 0.2, "rtol": 0.1}
    torch.testing.assert_close(found[match], means, **tolerance)
    shares = density.logits.softmax(dim=-1)[match]
    torch.testing.assert_close(shares, torch.tensor([1, 2, 3]) / 6, atol=0.02, rtol=0.02)
    if not options["tied"]:
        variances = covariances.diagonal(dim1=-2, dim2=-1)
        if options["covariance_type"] == "full":
            torch.testing.assert_close(
                density.base.covariance_matrix[match], covariances, atol=0.2, rtol=0.2
            )
        elif options["covariance_type"] == "spherical":
            variances = variances.mean(dim=-1, keepdim=True).expand(3, 2)
        torch.testing.assert_close(density.base.variance[match], variances, atol=0.2, rtol=0.2)


@pytest.mark.parametrize("strategy", ["random", "kmeans", "kmeans++"])
def test_a_start_comes_from_its_generator(strategy: Any) -> None:
    x, _, _ = clusters()
    before = torch.get_rng_state()
    states = []
    for seed in (0, 0, 1):
        gmm = GMM(2, components=5, generator=generator(seed))
        gmm.initialize(x, strategy, generator=generator(seed))
        states.append(gmm().base.mean.detach())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("strategy", ["random", "kmeans", "kmeans++"])
def test_a_start_knows_nothing_of_points_without_weight(
    options: dict[str, Any], strategy: Any
) -> None:
    x, _, _ = clusters()
    wild = torch.cat([torch.full((5, 2), 1e9), x])
    weight = torch.cat([torch.zeros(5), torch.ones(len(x))])
    starts = []
    for points, counts in ((x, torch.ones(len(x))), (wild, weight)):
        gmm = GMM(2, components=3, generator=generator(), **options)
        gmm.initialize(points, strategy, weight=counts, generator=generator())
        starts.append(gmm.state_dict())
    for name, value in starts[0].items():
        assert torch.equal(starts[1][name], value)
    with pytest.raises(ValueError, match="more rows than the 3 components, got 3"):
        gmm.initialize(wild[:8], strategy, weight=weight[:8])


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("strategy", ["random", "kmeans++"])
def test_a_start_from_few_or_equal_points_is_finite(options: dict[str, Any], strategy: Any) -> None:
    x = torch.cat([torch.randn(6, 3, generator=generator()), torch.zeros(3, 3)])
    gmm = GMM(3, components=6, **options)
    gmm.initialize(x, strategy, generator=generator())
    assert gmm().log_prob(x).isfinite().all()
    assert gmm().sample((5,)).isfinite().all()


@pytest.mark.parametrize(
    ("x", "strategy", "words"),
    [
        (torch.zeros(9, 2), "kmeans", "(N, 3)"),
        (torch.zeros(3), "kmeans", "(N, 3)"),
        (torch.zeros(2, 3), "kmeans", "more rows than the 2"),
        (torch.full((9, 3), torch.nan), "kmeans", "NaN"),
        (torch.zeros(9, 3), "best", "strategy"),
    ],
)
def test_a_start_that_cannot_be(x: Tensor, strategy: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"x|strategy") as error:
        GMM(3).initialize(x, strategy)
    assert words in str(error.value)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_no_rows_have_no_densities(options: dict[str, Any]) -> None:
    gmm = GMM(3, 2, **options)
    assert gmm(torch.zeros(0, 2)).log_prob(torch.zeros(0, 3)).shape == (0,)
    assert gmm(torch.zeros(0, 2)).log_prob(torch.zeros(5, 1, 3)).shape == (5, 0)
    assert gmm(torch.zeros(0, 2)).sample((5,)).shape == (5, 0, 3)


def test_mistakes_of_a_gmm() -> None:
    for name, value in (("features", 0), ("components", 0), ("covariance_type", "round")):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            GMM(**{"features": 2, name: value})
    with pytest.raises(ValueError, match="c: expected no context"):
        GMM(2)(torch.zeros(3))
    with pytest.raises(ValueError, match="c: expected a context"):
        GMM(2, context=3)()
    with pytest.raises(ValueError, match="NaN"):
        GMM(2, context=1)(torch.full((1,), torch.nan))


def test_gmm_under_vmap() -> None:
    gmm = GMM(2, context=3, components=3)
    x, c = torch.randn(4, 2), torch.randn(4, 3)
    mapped = torch.func.vmap(lambda x, c: torch.stack([x.sum(), gmm(c[None]).log_prob(x)[0]]))
    torch.testing.assert_close(mapped(x, c)[:, 1], gmm(c).log_prob(x))
