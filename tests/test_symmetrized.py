"""The mean of a density over symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Distribution

import maskedflow as mf
from maskedflow.flows import MAF, Symmetrized

QUARTER = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
TURNS = torch.stack([torch.linalg.matrix_power(QUARTER, k) for k in range(4)])


def turned(context: int = 0) -> Symmetrized:
    """A flow of two features, averaged over quarter turns."""
    flow = MAF(2, context, hidden_features=(16,), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return Symmetrized(flow.double().eval(), TURNS.double())


def test_it_is_the_mean_and_does_not_change_under_its_group() -> None:
    symmetrized = turned()
    x = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    each = torch.stack([symmetrized.flow().log_prob(x @ one.T.double()) for one in TURNS])
    found = symmetrized().log_prob(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, each.exp().mean(dim=0).log())
    for image in symmetrized.images(x):
        torch.testing.assert_close(symmetrized().log_prob(image), found)
    assert (each.std(dim=0) > 0.01).all()
    assert (each.mean(dim=0) <= found).all()


def test_it_integrates_to_one() -> None:
    grid = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        total = turned()().log_prob(x).exp().sum() * (grid[1] - grid[0]) ** 2
    assert total.item() == pytest.approx(1, abs=2e-3)


def test_draws_are_those_of_the_flow_taken_back() -> None:
    symmetrized = turned()
    x = symmetrized().sample((20_000,), generator=torch.Generator().manual_seed(3))
    again = symmetrized().sample((20_000,), generator=torch.Generator().manual_seed(3))
    assert torch.equal(x, again)
    quarters = (2 * (x[:, 0] > 0) + (x[:, 1] > 0)).bincount() / 20_000
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.015, rtol=0)
    y = symmetrized.flow().sample((20_000,), generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(x.norm(dim=1).mean(), y.norm(dim=1).mean(), atol=0, rtol=0.05)


def test_a_context_makes_a_batch() -> None:
    symmetrized = turned(context=3)
    c = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert symmetrized(c).sample((4,)).shape == (4, 5, 2)
    x = symmetrized(c).sample()
    one = [symmetrized(c[i]).log_prob(x[i]) for i in range(5)]
    torch.testing.assert_close(symmetrized(c).log_prob(x), torch.stack(one))


def test_it_learns_by_the_images_of_rows() -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(800, 2, generator=generator) * 0.2 + torch.tensor([2.0, 0.0])
    symmetrized = Symmetrized(MAF(2, hidden_features=(32,), generator=generator), TURNS)
    images = symmetrized.images(x).flatten(0, 1)
    mf.training.fit(symmetrized.flow, images, config=mf.training.TrainConfig(epochs=30, lr=5e-3))
    with torch.no_grad():
        found = symmetrized().log_prob(x).mean().item()
    gaussian = -math.log(2 * math.pi * 2.04) - 1  # of all images
    truth = -math.log(2 * math.pi * 0.04) - 1 - math.log(4)
    assert gaussian + 1.5 < found < truth + 0.05


@pytest.mark.parametrize(
    ("symmetries", "message"),
    [
        (torch.eye(2), r"expected shape \(K, D, D\), got \(2, 2\)"),
        (torch.ones(3, 2, 1), r"expected shape \(K, D, D\), got \(3, 2, 1\)"),
        (torch.zeros(0, 2, 2), r"expected shape \(K, D, D\)"),
        (2 * torch.eye(2)[None], r"expected determinants of 1 or -1, got sizes \[4.0\]"),
    ],
)
def test_refused(symmetries: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Symmetrized(MAF(2), symmetries)


def test_a_row_meets_all_contexts() -> None:
    """As many contexts as symmetries are no reason to pair one with the other."""
    symmetrized = turned(context=3)
    c = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    x = torch.tensor([0.3, -1.0], dtype=torch.float64)
    one = [symmetrized(c[i]).log_prob(x) for i in range(4)]
    torch.testing.assert_close(symmetrized(c).log_prob(x), torch.stack(one))


def test_its_log_density_is_a_number_or_minus_infinity() -> None:
    flow = MAF(2, hidden_features=(8,), generator=torch.Generator().manual_seed(0)).eval()
    symmetrized = Symmetrized(flow, TURNS)
    x = torch.tensor([[0.3, -1.0], [math.inf, 0.0], [1e15, 0.0], [1e25, 0.0]])
    found, double = symmetrized().log_prob(x), symmetrized.double()().log_prob(x.double())
    assert found.isfinite().tolist() == [True, False, True, False]
    torch.testing.assert_close(found, double.float())
    with pytest.raises(ValueError, match=r"x: expected numbers, got NaN at index \[0, 1\]"):
        symmetrized().log_prob(torch.tensor([[0.0, math.nan]], dtype=torch.float64))


def test_draws_have_the_gradients_of_the_flow() -> None:
    """They are the flow's, turned back, so that the mean square of both has the same gradient."""
    symmetrized = turned()
    weights = list(symmetrized.flow.parameters())

    def gradient(distribution: Distribution) -> torch.Tensor:
        torch.manual_seed(8)
        loss = distribution.rsample((100,)).square().sum()
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, weights)])

    found = gradient(symmetrized())
    assert found.norm() > 1
    torch.testing.assert_close(found, gradient(symmetrized.flow()))
    assert not symmetrized().sample((2,)).requires_grad


def test_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"flow: expected 2 features, .* got shape \(3,\)"):
        Symmetrized(MAF(3), TURNS)()
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 2\), got \(5, 3\)"):
        Symmetrized(MAF(2), TURNS).images(torch.zeros(5, 3))
