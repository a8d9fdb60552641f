"""Scores far out and outside of supports: a number or minus infinity, and no harm to other rows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Beta,
    ComposeTransform,
    Distribution,
    Exponential,
    ExpTransform,
    Gamma,
    Independent,
    SigmoidTransform,
    SoftmaxTransform,
    StickBreakingTransform,
    TanhTransform,
    constraints,
)
from torch.distributions.transforms import SoftplusTransform, Transform

import maskedflow as mf
from family import Entry, every_flow, flows_that_promise
from maskedflow.distributions.base import log_density, unvalidated
from maskedflow.transforms.support import moved_inside, outside
from strategies import Case, cases, few, overwrite

F, T = mf.flows, mf.transforms
DOUBLE = torch.float64


def is_score(log_prob: Tensor) -> bool:
    """Whether all are finite numbers or minus infinity."""
    return bool((log_prob.isfinite() | (log_prob == -math.inf)).all())


def gradients(log_prob: Tensor, *of: Tensor) -> list[Tensor]:
    """The gradients of what is finite."""
    total = log_prob[log_prob.isfinite()].sum()
    found = torch.autograd.grad(total, of, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def far(dtype: torch.dtype) -> st.SearchStrategy[float]:
    """Numbers from 10 on up to near the largest, of both signs, and infinities."""
    most = 37.0 if dtype == torch.float32 else 300.0
    size = st.floats(1.0, most).map(lambda power: 10.0**power) | st.just(math.inf)
    return st.tuples(size, st.sampled_from([1, -1])).map(math.prod)


@every_flow
@few
@given(cases(), st.data())
def test_a_row_far_out_has_a_score_and_harms_no_other(
    build: Entry, case: Case, data: st.DataObject
) -> None:
    noise = data.draw(st.sampled_from([0.3, 1.5]))
    flow = build(case, noise)
    x, c = build.x(case, 5), case.c(5)
    ordinary = flow(c).log_prob(x)
    place = data.draw(st.sampled_from([0, -1, slice(None)]))
    moved = x.clone()
    size = data.draw(far(case.dtype))
    moved[2, place] = size
    moved.requires_grad_()
    log_prob = flow(c).log_prob(moved)
    assert is_score(log_prob)
    others = [0, 1, 3, 4]
    assert torch.equal(log_prob[others], ordinary[others])
    # Wilder weights may overflow in any row; and nothing is wider than double precision.
    if noise == 0.3 and not 1e60 < abs(size) < math.inf:
        for gradient in gradients(log_prob, moved, *flow.parameters()):
            assert gradient.isfinite().all()
    with torch.no_grad():
        assert is_score(flow(c).log_prob(moved))
    moved = x.index_fill(0, torch.tensor([2]), math.inf)
    assert build.circular or flow(c).log_prob(moved)[2] == -math.inf


@every_flow
@few
@given(cases(features=st.integers(1, 4), context=st.integers(1, 2)), st.data())
def test_a_context_far_out(build: Entry, case: Case, data: st.DataObject) -> None:
    flow = build(case)
    x, c = build.x(case, 5), case.c(5)
    assert c is not None
    ordinary = flow(c).log_prob(x)
    moved = c.clone()
    moved[2] = data.draw(far(case.dtype).filter(math.isfinite))
    log_prob = flow(moved).log_prob(x)
    assert is_score(log_prob)
    others = [0, 1, 3, 4]
    assert torch.equal(log_prob[others], ordinary[others])
    moved[2] = math.inf
    with pytest.raises(ValueError, match=r"c: expected finite numbers, got inf at index \[2, 0\]"):
        flow(moved)


@every_flow
def test_weights_that_are_no_numbers_show(build: Entry) -> None:
    case = Case(features=3, dtype=torch.float32)
    flow, x = build(case), build.x(case, 4)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.fill_(math.nan)
    assert flow().log_prob(x).isnan().all() or not list(flow.parameters())


@flows_that_promise("line")
def test_single_precision_scores_as_double_does(build: Entry) -> None:
    """Where the sums of a network pass the largest number of single precision."""
    case = Case(features=3, dtype=torch.float32, activation=torch.nn.ReLU)
    flow = build(case)
    x = torch.tensor([[3e37, 1.0, -1.0], [3e37, -3e37, 3e37]])
    single = flow().log_prob(x)
    double = flow.double()().log_prob(x.double()).float()
    torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-5)


def test_heavy_tails_far_out_are_numbers_with_gradients() -> None:
    """A Cauchy density falls with the square, however far."""
    flow = F.MAF(2, transforms=1, base=F.base("student-t", 2, df=1.0, learnable=False))
    x = torch.tensor([[0.5, -0.5], [1e37, 0.0], [1e38, 0.0]])
    overwrite(flow, 1e-2)
    log_prob = flow().log_prob(x)
    assert log_prob.isfinite().all()
    step = log_prob[1] - log_prob[2]
    assert step.item() == pytest.approx(4 * math.log(10), abs=1e-3)  # both features are that far
    (of_x,) = gradients(flow().log_prob(x.requires_grad_()), x)
    assert of_x.isfinite().all()
    base = mf.distributions.StudentT(torch.ones(1, dtype=DOUBLE))
    away = torch.tensor([[1e200], [1e300]], dtype=DOUBLE)
    expected = -2 * away[:, 0].log() - math.log(math.pi)
    torch.testing.assert_close(base.log_prob(away), expected)


def test_gradients_from_double_precision_are_those_of_the_formula() -> None:
    flow = F.MAF(1, transforms=1, base=F.base("student-t", 1, df=3.0, learnable=False))
    x = torch.tensor([[1e38]], requires_grad=True)
    scale = flow.transform.transforms[0].hyper.layers[-1].bias
    with torch.no_grad():
        scale[1] = 5.0  # the slope e^5 takes 1e38 beyond the largest number
    found = gradients(flow().log_prob(x), scale)[0]
    # log p = a - (df + 1) log(e^a x) + ...
    assert found[1].item() == pytest.approx(1 - 4.0)


@pytest.mark.parametrize("training", [False, True])
def test_noise_is_the_same_for_the_other_rows(training: bool) -> None:
    maf = F.MAF(2)
    flow = F.Flow([T.Dequantize(), T.Standardize(0.0, 1e-30), maf.transform], maf.base)
    flow = flow.train(training)
    x = torch.tensor([[3.0, 5.0], [3e37, 3e37], [0.0, 1.0]])
    noise = flow.transform.transforms[0]
    noise.seed(1)
    ordinary = flow().log_prob(torch.where(x > 1e30, 1.0, x) * 1e-30)
    noise.seed(1)
    found = flow().log_prob(x * 1e-30)
    assert torch.equal(found[[0, 2]], ordinary[[0, 2]])
    noise.seed(1)
    flow().log_prob(x)
    after = noise.generator.get_state()
    noise.seed(1)
    with torch.no_grad():
        flow().log_prob(x)
    assert torch.equal(noise.generator.get_state(), after)


def test_batch_norm_in_training_is_left_alone() -> None:
    flow = F.MAF(2, batch_norm=True)
    flow().log_prob(torch.tensor([[1e30, 0.0], [0.0, 1.0]]))
    assert all(m.batches == 1 for m in flow.modules() if isinstance(m, T.BatchNorm))


SUPPORTS: dict[str, tuple[Transform, list[float], list[float]]] = {
    "sigmoid": (SigmoidTransform().inv, [0.3, 1.0], [1.5, -0.1, 1e37, math.inf]),
    "exp": (ExpTransform().inv, [0.3, 1e37], [-0.1, -1e37]),
    "tanh": (TanhTransform().inv, [0.3], [1.5, -1.0, 1.0]),
    "softplus": (SoftplusTransform().inv, [0.3], [-0.1]),
    "logit": (T.LogitTransform(0.0), [0.3], [0.0, 1.0, 1.1]),
    "squeezed logit": (T.LogitTransform(1e-3), [0.0, 0.5, 1.0], [-1e-3, 1.001, 7.0]),
    "cosine": (T.CosTransform(), [0.3], [-0.1, 4.0]),
    "soft clip": (T.SoftclipTransform(2.0).inv, [1.5], [-2.5, 3.0]),
    "scaled": (
        ComposeTransform([AffineTransform(0.0, 0.1), SigmoidTransform().inv]),
        [3.0, 9.0],
        [-0.1, 10.1],
    ),
}


@pytest.mark.parametrize("name", SUPPORTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outside_of_a_support(name: str, dtype: torch.dtype) -> None:
    front, inside, beyond = SUPPORTS[name]
    maf = F.MAF(2)
    flow = F.Flow([F.UnconditionalTransform(lambda: front), maf.transform], maf.base)
    flow = overwrite(flow.to(dtype), 0.3)
    x = torch.tensor([[v, inside[0]] for v in (*inside, *beyond)], dtype=dtype, requires_grad=True)
    log_prob = flow().log_prob(x)
    assert log_prob[: len(inside)].isfinite().all()
    assert (log_prob[len(inside) :] == -math.inf).all()
    for gradient in gradients(log_prob, x, *flow.parameters()):
        assert gradient.isfinite().all()
    mapped = torch.func.vmap(lambda x: flow().log_prob(x))(x)
    # Of -3e14 nats; the square of a large exponential has its error in float32 many times over.
    torch.testing.assert_close(mapped[: len(inside)], log_prob[: len(inside)], rtol=1e-4, atol=1e-5)
    assert not (mapped[len(inside) :] > -math.inf).any()


@pytest.mark.parametrize("front", [SoftmaxTransform(), StickBreakingTransform()])
def test_supports_of_whole_events(front: Transform) -> None:
    if isinstance(front, SoftmaxTransform):
        assert outside(front.codomain, torch.tensor([0.5, 0.6])) is not None
        return
    flow = mf.distributions.NormalizingFlow(
        front.inv, mf.distributions.DiagNormal(torch.zeros(2), torch.ones(2))
    )
    log_prob = flow.log_prob(torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.6]]))
    assert log_prob[0].isfinite()
    assert log_prob[1] == -math.inf


def test_pixels_out_of_range() -> None:
    maf = F.MAF(4)
    front = [T.Dequantize(), T.Standardize(0.0, 256.0), T.Logit(0.05)]
    flow = F.Flow([*front, maf.transform], maf.base)
    x = torch.tensor([[0.0, 255.0, 128.0, 3.0]]).repeat(5, 1)
    for row, pixel in enumerate((-1.0, 256.0, 1e37, -math.inf)):
        x[row, 2] = pixel
    log_prob = flow().log_prob(x.requires_grad_())
    assert (log_prob[:4] == -math.inf).all()
    assert log_prob[4].isfinite()
    (of_x,) = gradients(log_prob, x)
    assert of_x.isfinite().all()


def test_the_brightest_pixel_is_inside_whatever_its_noise() -> None:
    for levels in range(2, 300):
        scale = T.Standardize(0.0, float(levels))()
        brightest = torch.tensor([float(levels)]).nextafter(torch.zeros(1))
        assert T.Logit(1e-6)().base.domain.check(scale(brightest)).all(), levels


@pytest.mark.parametrize(
    "base", [Exponential(1.0), Gamma(2.0, 1.0), Beta(2.0, 3.0)], ids=lambda b: type(b).__name__
)
def test_torchs_own_bases_outside_of_their_supports(base: Distribution) -> None:
    free = unvalidated(base)
    assert log_density(free, torch.tensor(-2.0)) == -math.inf
    assert log_density(free, torch.tensor(0.3)) == base.log_prob(torch.tensor(0.3))
    joint = mf.distributions.Joint(base, base)
    assert joint.log_prob(torch.tensor([0.3, -1.0])) == -math.inf
    identity = T.IdentityTransform()
    wide = Independent(free.expand((2,)), 1)
    flow = mf.distributions.NormalizingFlow(identity, wide)
    assert flow.log_prob(torch.tensor([0.3, -1.0])) == -math.inf


def test_nothing_hides_nan() -> None:
    x = torch.tensor([[math.nan, 2.0], [0.5, 0.5], [0.5, math.nan]])
    found = outside(constraints.independent(constraints.unit_interval, 1), x)
    assert found is None
    front = F.UnconditionalTransform(lambda: SigmoidTransform().inv)
    maf = F.MAF(2)
    flow = F.Flow([T.Standardize(0.0, 1.0), front, maf.transform], maf.base)
    flow.transform.transforms[0].scale.fill_(math.nan)
    assert flow().log_prob(x[1:2]).isnan().all()


def test_a_constraint_that_torch_cannot_reach() -> None:
    class Odd(constraints.Constraint):
        def check(self, value: Tensor) -> Tensor:
            return value > 3

    x = torch.tensor([1.0, 4.0])
    wrong = outside(Odd(), x)
    assert wrong is not None
    assert wrong.tolist() == [True, False]
    assert torch.equal(moved_inside(Odd(), x, wrong), x)


@pytest.mark.parametrize("lengths", [None, [2, 3, 1, 3]])
@pytest.mark.parametrize("rnn", ["gru", "lstm"])
def test_sequences(rnn: str, lengths: list[int] | None) -> None:
    flow = F.TemporalMAF(2, context=1, steps=3, rnn=rnn, hidden_size=8, hidden_features=(8,))
    overwrite(flow, 0.5)
    generator = torch.Generator().manual_seed(0)
    x, c = (torch.randn(4, 3, size, generator=generator) for size in (2, 1))
    ordinary = flow(c, lengths=lengths).log_prob_steps(x)
    for size in (1e10, 1e25, 3e38):
        far_x, far_c = x.clone(), c.clone()
        far_x[1, 1] = torch.tensor([size, -size])
        far_c[2, 0] = size
        far_x.requires_grad_()
        log_prob = flow(far_c, lengths=lengths).log_prob_steps(far_x)
        assert is_score(log_prob)
        assert torch.equal(log_prob[[0, 3]], ordinary[[0, 3]])
        total = log_prob.sum(dim=-1)
        for gradient in gradients(total, far_x, *flow.parameters()):
            assert gradient.isfinite().all()
        assert is_score(flow.forecast(far_x[:, :2], c=far_c).log_prob(x[:, 2:]))


def test_expanded_tempered_and_broadcast_distributions() -> None:
    case = Case(features=3, context=2, dtype=torch.float32)
    flow = F.MAF(3, 2)
    overwrite(flow, 1.0)
    x, c = case.x(4), case.c(5)
    assert c is not None
    x[1, 0] = 3e38
    c[3] = -3e38
    for distribution in (flow(c), flow(c).expand((2, 5)), flow(c).tempered(0.5)):
        log_prob = distribution.log_prob(x[:, None, None])
        assert log_prob.shape == torch.broadcast_shapes((4, 1, 5), distribution.batch_shape)
        assert is_score(log_prob)
        assert log_prob[0, ..., 0].isfinite().all()
        for gradient in gradients(log_prob, *flow.parameters()):
            assert gradient.isfinite().all()
    assert flow(c[0]).log_prob(x[1]) == -math.inf


def test_a_batch_of_nothing_but_lost_rows_keeps_its_graph() -> None:
    """A training step on it is skipped for its loss, and no error."""
    flow = F.MAF(2)
    log_prob = flow().log_prob(torch.full((3, 2), 1e30))
    assert (log_prob == -math.inf).all()
    (-log_prob.mean()).backward()


def test_mixtures_by_themselves_and_as_bases() -> None:
    generator = torch.Generator().manual_seed(0)
    for kind in ("full", "diagonal", "spherical"):
        gmm = F.GMM(2, 2, covariance_type=kind, generator=generator, hidden_features=(8,))
        x, c = torch.randn(3, 2, generator=generator), torch.randn(3, 2, generator=generator)
        ordinary = gmm(c).log_prob(x)
        x[1], c[2] = 1e30, 3e38
        log_prob = gmm(c).log_prob(x)
        assert is_score(log_prob)
        assert log_prob[0] == ordinary[0]
        for gradient in gradients(log_prob, *gmm.parameters()):
            assert gradient.isfinite().all()


def test_an_embedding_that_overflows() -> None:
    embedding = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    flow = F.MAF(2, 2, base=F.base("made", 2, context=2, components=2))
    flow = F.Flow(flow.transform, flow.base, embedding)
    overwrite(flow, 5.0)
    c = torch.tensor([[1.0], [3e38], [-3e38]])
    assert is_score(flow(c).log_prob(torch.zeros(3, 2)))


def test_latent_variables() -> None:
    vae = mf.models.VAE(3, 2, prior=F.MAF(2), likelihood="gaussian", hidden_features=(8,))
    overwrite(vae, 1.0)
    x = torch.tensor([[0.1, 0.2, 0.3], [3e38, -3e38, 3e38]])
    assert is_score(vae().log_prob(x))


@given(st.floats(-5, 5), st.floats(0, 300))
def test_students_density_is_scipys(loc: float, power: float) -> None:
    import scipy.stats

    x = 10.0**power
    found = mf.distributions.StudentT(torch.tensor([3.0], dtype=DOUBLE), loc)
    if power < 150:
        expected = scipy.stats.t.logpdf(x, 3.0, loc)
        assert found.log_prob(torch.tensor([x], dtype=DOUBLE)).item() == pytest.approx(expected)
    else:
        assert found.log_prob(torch.tensor([x], dtype=DOUBLE)).isfinite()
