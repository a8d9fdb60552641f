"""Bounded, heavy-tailed, mixed, joint and sorted distributions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import (
    Distribution,
    Exponential,
    ExpTransform,
    Gamma,
    HalfNormal,
    Independent,
    LogNormal,
    Normal,
    Poisson,
    Uniform,
)
from torch.distributions import StudentT as TorchStudentT

import maskedflow as mf
from generators import generator
from maskedflow.distributions import (
    BoxUniform,
    DiagNormal,
    GeneralizedNormal,
    Joint,
    Maximum,
    Minimum,
    Mixture,
    MixtureOfGaussians,
    Sort,
    StudentT,
    TopK,
    TransformedUniform,
    Truncated,
)

NORMALS = Normal(torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 1.0]))
#: A constructor of each, with a batch shape of (), and whether all of its parts are the library's.
OURS: dict[str, tuple[Callable[[], Distribution], bool]] = {
    "normal": (lambda: DiagNormal(torch.zeros(2), torch.ones(2)), True),
    "number": (lambda: DiagNormal(0.5, 2.0, ndims=0), True),
    "matrix": (lambda: DiagNormal(torch.zeros(3, 2), 2.0, ndims=2), True),
    "box": (lambda: BoxUniform(-torch.ones(3), torch.tensor([1.0, 2.0, 3.0])), True),
    "student": (lambda: StudentT(torch.tensor([1.0, 30.0]), 1.0, 2.0), True),
    "generalized": (lambda: GeneralizedNormal(1.5), True),
    "exp": (lambda: TransformedUniform(ExpTransform(), -1.0, 1.0), True),
    "truncated": (lambda: Truncated(Normal(0.0, 1.0), 1.0, 2.0), True),
    "half": (lambda: Truncated(Normal(0.0, 1.0), lower=0.5), True),
    "joint": (lambda: Joint(Uniform(0.0, 1.0), Normal(0.0, 1.0)), False),
    "joint of ours": (
        lambda: Joint(BoxUniform(torch.zeros(2), torch.ones(2)), GeneralizedNormal(3.0)),
        True,
    ),
    "mixture": (lambda: Mixture(NORMALS, torch.tensor([0.0, 1.0])), False),
    "mixture of boxes": (
        lambda: Mixture(BoxUniform(torch.zeros(3, 2), torch.rand(3, 2) + 1), torch.zeros(3)),
        True,
    ),
    "gaussians": (
        lambda: MixtureOfGaussians(torch.zeros(3), torch.randn(3, 2), torch.ones(3, 2)),
        True,
    ),
    "full gaussians": (
        lambda: MixtureOfGaussians(
            torch.zeros(3), torch.randn(3, 2), scale_tril=torch.eye(2) + torch.ones(2, 2).tril(-1)
        ),
        True,
    ),
    "sort": (lambda: Sort(Normal(0.0, 1.0), 3), False),
    "sort of ours": (lambda: Sort(GeneralizedNormal(2.0), 3, descending=True), True),
    "top": (lambda: TopK(Normal(0.0, 1.0), 2, 4), False),
    "minimum": (lambda: Minimum(Normal(0.0, 1.0), 3), False),
    "maximum": (lambda: Maximum(Truncated(Normal(0.0, 1.0), 1.0, 2.0), 3), True),
}
each = pytest.mark.parametrize(("make", "is_ours"), OURS.values(), ids=OURS.keys())


@each
def test_shapes(make: Callable[[], Distribution], is_ours: bool) -> None:
    d = make()
    for shape in ((), (5,), (2, 3), (0,), torch.Size([4]), [2]):
        x = d.sample(shape)
        assert x.shape == (*shape, *d.event_shape)
        assert d.log_prob(x).shape == tuple(shape)
        assert d.log_prob(x).isfinite().all()
    wide = d.expand((3, 2))
    assert type(wide) is type(d)
    assert wide.batch_shape == (3, 2)
    assert wide.event_shape == d.event_shape
    x = wide.sample((4,))
    assert x.shape == (4, 3, 2, *d.event_shape)
    torch.testing.assert_close(wide.log_prob(x), d.log_prob(x))
    assert len(set(x.flatten().tolist())) > 4
    assert type(d).__name__ in repr(d)
    assert not x.requires_grad


@each
def test_draws_come_from_the_generator(make: Callable[[], Distribution], is_ours: bool) -> None:
    d: Any = make()
    if not is_ours:
        with pytest.raises(ValueError, match=r"generator: a \w+ draws from torch's global"):
            d.sample((5,), generator=generator())
        return
    before = torch.get_rng_state()
    x = d.sample((20,), generator=generator())
    assert torch.equal(x, d.sample((20,), generator=generator()))
    assert not torch.equal(x, d.sample((20,), generator=generator(1)))
    if d.has_rsample:
        assert torch.equal(x, d.rsample((20,), generator=generator()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [make for make, _ in OURS.values()], ids=OURS.keys())
def test_the_density_is_that_of_the_draws(make: Callable[[], Distribution]) -> None:
    """Of a density p, E[q / p] is the mass of any q that is positive only where p is."""
    d = make()
    x = d.sample((20_000,)).double()
    rows = x.reshape(len(x), -1)
    low, high = rows.quantile(0.2, dim=0), rows.quantile(0.8, dim=0)
    inside = ((low < rows) & (rows < high)).all(dim=-1)
    if isinstance(d, Sort) and d.event_shape:  # a box with a corner cut off
        ties = rows.diff(dim=-1) if not d.descending else -rows.diff(dim=-1)
        assert (ties >= 0).all()
        grid = low + (high - low) * torch.rand(200_000, len(low), dtype=torch.float64)
        steps = grid.diff(dim=-1) if not d.descending else -grid.diff(dim=-1)
        volume = (high - low).prod() * (steps >= 0).all(dim=-1).double().mean()
    else:
        volume = (high - low).prod()
    ratio = inside.double() / d.log_prob(x.float()).double().exp()
    error = float(ratio.std()) / math.sqrt(len(x))
    assert abs(float(ratio.mean() - volume)) < 5 * error + 0.02 * float(volume)


def test_outside_of_the_support_the_density_is_zero() -> None:
    """Even where torch's own distributions raise an error, and inside of others."""
    assert (
        Joint(Uniform(0.0, 1.0), Normal(0.0, 1.0)).log_prob(torch.tensor([2.0, 0.0])) == -math.inf
    )
    both = Mixture(Uniform(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 6.0])), torch.zeros(2))
    expected = torch.tensor([math.log(0.5), math.log(0.5), -math.inf])
    torch.testing.assert_close(both.log_prob(torch.tensor([0.5, 5.5, 3.0])), expected)
    cut = Truncated(Exponential(1.0), 1.0, 2.0)
    found = cut.log_prob(torch.tensor([-1.0, 0.5, 1.5, 3.0]))
    assert (found > -math.inf).tolist() == [False, False, True, False]
    assert Truncated(Uniform(0.0, 1.0), upper=0.5).log_prob(torch.tensor(0.2)).exp() == 2
    box = BoxUniform(torch.zeros(2), torch.ones(2))
    x = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.5, 1.1]])
    assert box.log_prob(x).tolist() == [0.0, 0.0, -math.inf]
    assert Sort(Normal(0.0, 1.0), 2).log_prob(torch.tensor([1.0, 0.0])) == -math.inf
    gamma = mf.distributions.NormalizingFlow(ExpTransform().inv, Uniform(0.0, 1.0))
    assert gamma.log_prob(torch.tensor(10.0)) == -math.inf
    plain = Uniform(0.0, 1.0, validate_args=True)
    Joint(plain)
    with pytest.raises(ValueError, match="support"):  # the user's own is left alone
        plain.log_prob(torch.tensor(2.0))


# -- one by one -----------------------------------------------------------------------------------


def test_students_t_is_torchs() -> None:
    df, loc, scale = 3 * torch.rand(3, 4, 2) + 0.5
    ours, theirs = StudentT(df, loc, scale), Independent(TorchStudentT(df, loc, scale), 1)
    x = 10 * torch.randn(5, 4, 2)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.mean, theirs.mean, equal_nan=True)
    torch.testing.assert_close(ours.variance, theirs.variance, equal_nan=True)
    x = StudentT(torch.tensor([2.5]), 1.0, 3.0).sample((5000,), generator=generator())
    assert stats.kstest(x[:, 0].double().numpy(), stats.t(2.5, 1, 3).cdf).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_students_t_far_out_and_with_few_degrees_of_freedom(dtype: torch.dtype) -> None:
    df = torch.tensor([0.4, 1.0, 100.0], dtype=dtype, requires_grad=True)
    d = StudentT(df, torch.zeros(3, dtype=dtype))
    x = torch.full((3,), 1e6, dtype=dtype, requires_grad=True)
    log_prob = d.log_prob(torch.stack([x, -x]))
    assert log_prob.dtype == dtype
    assert log_prob.isfinite().all()
    gradients = torch.autograd.grad(log_prob.sum(), (x, df))
    assert all(g.isfinite().all() for g in gradients)
    assert d.sample((5000,)).isfinite().all()
    (gradient,) = torch.autograd.grad(d.rsample((50,)).sin().sum(), df)
    assert gradient.isfinite().all()
    assert gradient.all()


@pytest.mark.parametrize("df", [1.0, 199.0, 201.0, 1e4, 1e6, 1e8])
def test_students_t_in_single_precision_with_any_degrees_of_freedom(df: float) -> None:
    """Those that a flow's base learns of normal data are many."""
    x, known = torch.tensor([0.0, 1.3, -30.0]), torch.full((1,), df, requires_grad=True)
    found = StudentT(known).log_prob(x[:, None])
    expected = torch.as_tensor(stats.t(df).logpdf(x.numpy())).float()
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_normal_and_uniform_moments() -> None:
    normal = DiagNormal(torch.randn(3, 2), torch.rand(3, 2) + 1, ndims=2)
    same = Independent(Normal(normal.loc, normal.scale), 2)
    box = BoxUniform(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    equal = Independent(Uniform(box.lower, box.upper), 1)
    for ours, theirs in ((normal, same), (box, equal)):
        for name in ("mean", "variance", "stddev"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
        torch.testing.assert_close(ours.entropy(), theirs.entropy())
        x = theirs.sample((4,))
        torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
        assert ours.support.check(x).all()
    with pytest.raises(ValueError, match="ndims: expected at most the 1 dimensions"):
        DiagNormal(torch.zeros(2), 1.0, ndims=2)


def test_generalized_normal_is_between_laplaces_and_the_normal_one() -> None:
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(
        GeneralizedNormal(2.0).log_prob(x), Normal(0.0, math.sqrt(0.5)).log_prob(x)
    )
    laplace = torch.distributions.Laplace(0.0, 1.0)
    torch.testing.assert_close(GeneralizedNormal(1.0).log_prob(x), laplace.log_prob(x))
    beta = torch.tensor([0.7, 3.0])
    d = GeneralizedNormal(beta)
    for i, draws in enumerate(d.sample((5000,), generator=generator()).double().T):
        assert stats.kstest(draws.numpy(), stats.gennorm(float(beta[i])).cdf).pvalue > 1e-4


def test_truncated_is_scipys() -> None:
    d = Truncated(Normal(torch.tensor([0.0, 1.0]), 2.0), torch.tensor([-1.0, 3.0]), 4.0)
    assert d.batch_shape == (2,)
    x = d.sample((4000,), generator=generator())
    assert (d.lower <= x).all()
    assert (x <= d.upper).all()
    for i, (loc, low) in enumerate([(0.0, -1.0), (1.0, 3.0)]):
        theirs = stats.truncnorm((low - loc) / 2, (4 - loc) / 2, loc, 2)
        draws = x[:, i].double().numpy()
        assert stats.kstest(draws, theirs.cdf).pvalue > 1e-4
        torch.testing.assert_close(
            d.log_prob(x)[:, i].double(),
            torch.as_tensor(theirs.logpdf(draws)),
            atol=1e-4,
            rtol=1e-4,
        )
        torch.testing.assert_close(
            d.cdf(x)[:, i].double(), torch.as_tensor(theirs.cdf(draws)), atol=1e-4, rtol=1e-4
        )
    with pytest.raises(ValueError, match="interval of positive probability"):
        Truncated(Normal(0.0, 1.0), 2.0, 1.0)
    with pytest.raises(ValueError, match="base: expected a distribution of one number"):
        Truncated(DiagNormal(torch.zeros(2), torch.ones(2)))


@pytest.mark.parametrize(
    ("base", "theirs"),
    [
        (Exponential(1.0), stats.expon()),
        (Gamma(2.0, 1.0), stats.gamma(2)),
        (LogNormal(0.0, 1.0), stats.lognorm(1)),
        (HalfNormal(1.0), stats.halfnorm()),
    ],
    ids=["exponential", "gamma", "log-normal", "half-normal"],
)
def test_bounds_outside_of_the_support_cut_nothing_off(base: Distribution, theirs: Any) -> None:
    """There torch's distribution functions are no probabilities."""
    x = torch.tensor([-1.0, 0.5, 1.5, 4.0])
    below, density = (torch.as_tensor(f(x.numpy())).float() for f in (theirs.cdf, theirs.pdf))
    for low in (-math.inf, -1.0):
        cut = Truncated(base, low, 2.0)
        mass = torch.tensor(theirs.cdf(2.0)).float()
        torch.testing.assert_close(cut.log_prob(x).exp(), torch.where(x < 2, density / mass, 0))
        if not isinstance(base, Gamma):  # which has no quantiles
            assert (cut.sample((100,), generator()) <= 2).all()
    least, most = (kind(base, 3).log_prob(x).exp() for kind in (Minimum, Maximum))
    torch.testing.assert_close(least, 3 * density * (1 - below) ** 2)
    torch.testing.assert_close(most, 3 * density * below**2)


def test_order_statistics_against_counting() -> None:
    base = Normal(0.3, 1.5)
    x = torch.tensor([-1.0, 0.2, 2.0])
    expected = math.log(math.factorial(3)) + base.log_prob(x).sum()
    torch.testing.assert_close(Sort(base, 3).log_prob(x), expected)
    positive = [Sort(base, 3).log_prob(x[list(p)]) > -math.inf for p in permutations(range(3))]
    assert positive == [True, False, False, False, False, False]
    torch.testing.assert_close(Sort(base, 3, descending=True).log_prob(x.flip(0)), expected)
    # The first two of five: 5 * 4 ways to be first and second, and three above.
    top = TopK(base, 2, 5).log_prob(x[:2])
    above = 3 * torch.log(1 - base.cdf(x[1]))
    torch.testing.assert_close(top, math.log(20) + base.log_prob(x[:2]).sum() + above)
    draws = base.sample((4000, 5))
    for ours, theirs in (
        (Minimum(base, 5), draws.amin(dim=1)),
        (Maximum(base, 5), draws.amax(dim=1)),
    ):
        assert ours.event_shape == ()
        assert stats.ks_2samp(ours.sample((4000,)).numpy(), theirs.numpy()).pvalue > 1e-4
    assert (
        stats.kstest(
            Maximum(base, 5).sample((4000,)).double().numpy(),
            lambda x: stats.norm(0.3, 1.5).cdf(x) ** 5,
        ).pvalue
        > 1e-4
    )
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k: expected from 1 to n - 1 = 2, got {k}"):
            TopK(base, k, 3)
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        Sort(base, 0)


def test_joint_cuts_its_parts() -> None:
    parts = (Normal(0.0, 1.0), DiagNormal(torch.ones(2), torch.ones(2)), Gamma(2.0, 1.0))
    joint = Joint(*parts)
    assert joint.event_shape == (4,)
    x = joint.sample((3,))
    pieces = (x[:, 0], x[:, 1:3], x[:, 3])
    expected = sum(part.log_prob(piece) for part, piece in zip(parts, pieces, strict=True))
    torch.testing.assert_close(joint.log_prob(x), expected)
    assert Joint(Normal(torch.zeros(3), 1.0), Normal(0.0, 1.0)).batch_shape == (3,)
    counts = Joint(Poisson(torch.tensor(3.0)))  # draws without gradients
    assert counts.rsample((4,)).shape == (4, 1)
    with pytest.raises(ValueError, match="marginals: expected at least one"):
        Joint()
    with pytest.raises(ValueError, match=r"^x: expected shape \(\*, 4\), got \(3, 5\)$"):
        joint.log_prob(torch.zeros(3, 5))


def test_mixture_weights_decide_the_component() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    base = DiagNormal(100 * torch.arange(3.0)[:, None].expand(2, 3, 4), torch.ones(4))
    mixture = Mixture(base, logits)
    x = mixture.sample((4000,), generator=generator())
    assert x.shape == (4000, 2, 4)
    chosen = (x / 100).round()
    assert (chosen == chosen[..., :1]).all()
    shares = torch.stack([(chosen[..., 0] == k).float().mean(dim=0) for k in range(3)], dim=-1)
    torch.testing.assert_close(shares, logits.softmax(dim=-1), atol=0.03, rtol=0)
    for wrong in (torch.zeros(2), torch.tensor(0.0)):
        with pytest.raises(ValueError, match="logits: expected shape"):
            Mixture(base, wrong)


# -- mixtures of Gaussians ------------------------------------------------------------------------


def overlapping(full: bool) -> tuple[MixtureOfGaussians, list[Tensor]]:
    logits, loc = torch.tensor([0.0, 0.5]), torch.tensor([[-0.3, 0.2], [0.4, 0.0]])
    scale = torch.tensor([[1.0, 0.8], [0.7, 1.1]])
    leaves = [logits, loc, scale]
    if full:
        leaves[2] = torch.diag_embed(scale) + torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    leaves = [leaf.double().requires_grad_() for leaf in leaves]
    option = {"scale_tril" if full else "scale": leaves[2]}
    return MixtureOfGaussians(leaves[0], leaves[1], **option), leaves


@pytest.mark.parametrize("full", [False, True])
def test_gradients_of_draws_are_those_of_the_expectation(full: bool) -> None:
    """By the draws, and component by component: a weighted sum of ordinary draws' gradients."""
    d, leaves = overlapping(full)

    def loss(x: Tensor) -> Tensor:
        return x[..., 0].square() * x[..., 1] + x[..., 0] * x[..., 1] + x.cos().sum(dim=-1)

    count = 60_000
    found = torch.autograd.grad(loss(d.rsample((count,), generator())).mean(), leaves)
    each = loss(d.base.rsample((count,), generator=generator(1))).mean(dim=0)
    expected = torch.autograd.grad((d.logits.softmax(dim=-1) * each).sum(), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        theirs = theirs.tril() if ours.ndim == 3 else theirs
        torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_draws_move_with_scales_of_any_size(size: float) -> None:
    scale = torch.full((2, 3), size, requires_grad=True)
    x = MixtureOfGaussians(torch.zeros(2), torch.zeros(2, 3), scale).rsample((50,), generator())
    (slopes,) = torch.autograd.grad(x[:, 0].sum(), scale)
    torch.testing.assert_close(slopes.sum(), x[:, 0].detach().sum() / size, rtol=1e-3, atol=0)


@pytest.mark.parametrize("full", [False, True])
def test_moments_of_a_mixture_of_gaussians(full: bool) -> None:
    d, _ = overlapping(full)
    x = d.sample((100_000,), generator=generator())
    torch.testing.assert_close(x.mean(dim=0), d.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(x.var(dim=0), d.variance, atol=0.03, rtol=0)


def test_a_row_of_a_mixture_of_gaussians_is_by_itself() -> None:
    d, leaves = overlapping(full=True)
    x = d.sample((200,), generator=generator())
    with torch.no_grad():
        found, part = d.log_prob(x), d.log_prob(x[7:90])
    assert torch.equal(found[7:90], part)
    torch.testing.assert_close(d.log_prob(x).detach(), found)
    single = MixtureOfGaussians(
        *(leaf.detach().float() for leaf in leaves[:2]), None, leaves[2].detach().float()
    )
    again = single.log_prob(x.float())
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, found.float())


@pytest.mark.parametrize("full", [False, True])
def test_a_batch_of_mixtures_draws_each_its_own(full: bool) -> None:
    loc = torch.tensor([[0.0, 100.0], [200.0, 300.0]])[..., None]
    scale = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None]
    option = {"scale_tril": scale[..., None]} if full else {"scale": scale}
    d = MixtureOfGaussians(torch.zeros(2, 2), loc, **option)
    x = d.sample((4000,), generator=generator())[..., 0]
    assert x.shape == (4000, 2)
    for i in range(2):
        for k in range(2):
            mine = x[(x - loc[i, k]).abs() < 40]
            torch.testing.assert_close(mine.mean(), loc[i, k, 0], atol=0.3, rtol=0)
            torch.testing.assert_close(mine.std(), scale[i, k, 0], atol=0, rtol=0.1)


def test_a_mixture_of_gaussians_has_one_kind_of_scale() -> None:
    for options in ({}, {"scale": torch.ones(2, 1), "scale_tril": torch.ones(2, 1, 1)}):
        with pytest.raises(ValueError, match="scale, scale_tril: expected one of them"):
            MixtureOfGaussians(torch.zeros(2), torch.zeros(2, 1), **options)


def test_copies_are_independent() -> None:
    d = DiagNormal(torch.zeros(2), torch.ones(2))
    wide = copy.deepcopy(d).expand((3,))
    assert d.loc.shape == (2,)
    assert wide.loc.shape == (3, 2)
