"""Flows as density estimators of sbi: its shapes, its trainers, and its ways of saving."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import HalfNormal, MultivariateNormal

import maskedflow as mf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of sbi's own packages
    pytest.importorskip("sbi")
    from sbi.inference import NLE, NPE
    from sbi.neural_nets.embedding_nets import CNNEmbedding
    from sbi.neural_nets.estimators import ConditionalDensityEstimator
    from sbi.utils import BoxUniform, RestrictedPrior, get_density_thresholder

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

bridge = mf.interop.sbi
BUILDERS: dict[str, Callable[..., Any]] = {
    "maf": bridge.maf,
    "nsf": bridge.nsf,
    "modern": bridge.modern,
}
SMALL = {"hidden_features": 8, "num_transforms": 2}

each_builder = pytest.mark.parametrize("make", BUILDERS.values(), ids=BUILDERS)


@pytest.fixture(autouse=True)
def seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where trainers leave their logs
    torch.manual_seed(0)


def estimator_of(
    make: Callable[..., Any], input_shape: tuple[int, ...], condition_shape: tuple[int, ...]
) -> Any:
    options: dict[str, Any] = {}
    if len(condition_shape) > 1:
        net = CNNEmbedding(condition_shape, kernel_size=1)
        options = {"embedding_net": net, "z_score_x": "structured"}
    theta, x = torch.randn(50, *input_shape), torch.randn(50, *condition_shape)
    return make(**SMALL, **options)(3 + 2 * theta, x)


def test_neither_the_bridge_nor_its_room_imports_sbi() -> None:
    code = "import sys, maskedflow as mf; mf.interop.sbi.maf; assert 'sbi' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@each_builder
@pytest.mark.parametrize("input_shape", [(1,), (4,), (2, 3)])
@pytest.mark.parametrize("condition_shape", [(1,), (7,), (2, 1), (7, 7)])
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes(
    make: Callable[..., Any],
    input_shape: tuple[int, ...],
    condition_shape: tuple[int, ...],
    batch: int,
) -> None:
    estimator = estimator_of(make, input_shape, condition_shape)
    assert isinstance(estimator, ConditionalDensityEstimator)
    assert estimator.input_shape == input_shape
    assert estimator.condition_shape == condition_shape
    c = torch.randn(batch, *condition_shape)
    x = torch.randn(batch, *input_shape)
    loss = estimator.loss(x, condition=c)
    assert loss.shape == (batch,)
    for samples in (1, 3):
        inputs = x.expand(samples, *x.shape)
        log_prob = estimator.log_prob(inputs, condition=c)
        torch.testing.assert_close(log_prob, -loss.expand(samples, batch))
        torch.testing.assert_close(estimator.log_prob(x, c), log_prob[:1])
        given = c.expand(samples, *c.shape)
        torch.testing.assert_close(estimator.log_prob(inputs, given), log_prob)
    with torch.no_grad():
        torch.testing.assert_close(estimator.loss(x, c), loss)
    assert estimator.log_prob(x[:1].expand(2, 1, *input_shape), c).shape == (2, batch)
    assert estimator.log_prob(torch.randn(2, 6, *input_shape), c[:1]).shape == (2, 6)
    for shape in ((), (1,), (2, 3)):
        drawn = estimator.sample(shape, condition=c)
        assert drawn.shape == (*shape, batch, *input_shape)
        assert not drawn.requires_grad
    drawn, log_prob = estimator.sample_and_log_prob((4,), c)
    assert drawn.requires_grad
    torch.testing.assert_close(log_prob, estimator.log_prob(drawn, c), atol=1e-3, rtol=1e-3)


@each_builder
def test_a_condition_is_that_of_its_own_row(make: Callable[..., Any]) -> None:
    estimator = estimator_of(make, (2,), (7,))
    x, c = torch.randn(3, 5, 2), torch.randn(5, 7)
    together = estimator.log_prob(x, c)
    apart = [estimator.log_prob(x[:, i : i + 1], c[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1))
    drawn = estimator.sample((4000,), 3 * c[:2])
    for i in range(2):
        alone = estimator.sample((4000,), 3 * c[i : i + 1])
        assert (drawn[:, i] - alone[:, 0]).mean(dim=0).abs().max() < 0.25


@pytest.mark.parametrize(
    ("input_shape", "condition_shape", "error", "words"),
    [
        ((5, 3), (5, 7), ValueError, r"input: expected shape \(sample, batch, 2\), got \(5, 3\)"),
        ((5, 2), (5, 6), ValueError, "condition: expected shape"),
        ((1, 1, 5, 2), (5, 7), ValueError, "input: expected shape"),
        ((1, 5, 2), (4, 7), RuntimeError, r"got \(1, 5\) and \(1, 4\)"),
        ((3, 5, 2), (2, 5, 7), RuntimeError, r"got \(3, 5\) and \(2, 5\)"),
    ],
)
def test_wrong_shapes_are_told(
    input_shape: tuple[int, ...],
    condition_shape: tuple[int, ...],
    error: type[Exception],
    words: str,
) -> None:
    estimator = estimator_of(bridge.maf, (2,), (7,))
    with pytest.raises(error, match=words):
        estimator.log_prob(torch.randn(input_shape), torch.randn(condition_shape))
    with pytest.raises(ValueError, match="condition: expected shape"):
        estimator.sample((1,), torch.randn(2, 5, 7))


@each_builder
def test_gradients_are_those_of_the_flow(make: Callable[..., Any]) -> None:
    estimator = estimator_of(make, (3,), (4,)).double()
    x, c = torch.randn(6, 3).double().requires_grad_(), torch.randn(6, 4).double().requires_grad_()
    packed = estimator.net
    sources = [packed.weights, x, c]
    found = torch.autograd.grad(estimator.loss(x, c).mean(), sources)
    with packed.learning(packed.weights) as flow:
        expected = torch.autograd.grad(-flow(c).log_prob(x).mean(), sources)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(estimator.log_prob, (x, c))
    assert torch.autograd.gradgradcheck(lambda x: estimator.log_prob(x, c), (x,))


@each_builder
def test_an_optimizer_has_one_parameter_and_its_steps_reach_samples(
    make: Callable[..., Any],
) -> None:
    estimator = estimator_of(make, (2,), (3,))
    assert [name for name, _ in estimator.named_parameters()] == ["net.weights"]
    theta, x = torch.randn(200, 2), torch.randn(200, 3)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = estimator.loss(theta, x).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    drawn = estimator.sample((2000,), x[:1])[:, 0]
    assert drawn.mean(dim=0).abs().max() < 0.7
    assert (drawn.std(dim=0) - 1).abs().max() < 0.5


@pytest.mark.parametrize("embedded", [False, True])
def test_an_embedding_learns(embedded: bool) -> None:
    net = nn.Linear(5, 3) if embedded else None
    estimator = bridge.maf(embedding_net=net, **SMALL)(torch.randn(50, 2), torch.randn(50, 5))
    estimator.loss(torch.randn(9, 2), torch.randn(9, 5)).mean().backward()
    assert all(parameter.grad is not None for parameter in estimator.parameters())
    assert len(list(estimator.parameters())) == (3 if embedded else 1)
    assert estimator.embedding_net(torch.randn(9, 5)).shape == (9, 3 if embedded else 5)


def test_an_affine_flow_of_one_number_is_of_splines() -> None:
    """Two separate halves: a Gaussian has 1.42 nats, the truth 0.09."""
    theta = torch.randn(2000, 1).sign() + 0.1 * torch.randn(2000, 1)
    x = torch.randn(2000, 1)
    estimator = bridge.maf(num_transforms=2)(theta, x)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = estimator.loss(theta, x).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.4


@pytest.mark.parametrize("z_score", ["independent", "structured", "none", None])
def test_a_scale_is_part_of_the_density(z_score: str | None) -> None:
    """What is standardised is the same flow, with the Jacobian of that."""
    theta, x = 5 + torch.randn(500, 2) * torch.tensor([1.0, 10.0]), torch.randn(500, 3)
    torch.manual_seed(1)
    scaled = bridge.maf(z_score_theta=z_score, **SMALL)(theta, x)
    torch.manual_seed(1)
    plain = bridge.maf(z_score_theta="none", **SMALL)(theta, x)
    if z_score == "independent":
        loc, scale = theta.mean(dim=0), theta.std(dim=0)
    elif z_score == "structured":
        loc, scale = theta.mean(), theta.std(dim=1).mean().expand(2)
    else:
        loc, scale = torch.tensor(0.0), torch.ones(2)
    expected = plain.log_prob((theta - loc) / scale, x) - scale.log().sum()
    torch.testing.assert_close(scaled.log_prob(theta, x), expected, atol=1e-4, rtol=1e-4)


def test_what_a_scale_must_be() -> None:
    rows = torch.randn(20, 2)
    with pytest.raises(ValueError, match="z-scoring"):
        bridge.maf(z_score_theta="both")(rows, rows)
    with pytest.raises(ValueError, match="x_dist: expected the distribution"):
        bridge.maf(z_score_theta="transform_to_unconstrained")(rows, rows)


@each_builder
@pytest.mark.parametrize(
    "prior",
    [
        BoxUniform(torch.tensor([-1.0, 4.0]), torch.tensor([1.0, 5.0])),
        torch.distributions.Independent(HalfNormal(torch.ones(2)), 1),
        MultivariateNormal(torch.zeros(2), torch.eye(2)),
    ],
    ids=["box", "positive", "everywhere"],
)
def test_unconstrained_samples_stay_inside(make: Callable[..., Any], prior: Any) -> None:
    theta, x = prior.sample((300,)), torch.randn(300, 3)
    build = make(z_score_theta="transform_to_unconstrained", x_dist=prior, **SMALL)
    estimator = build(theta, x)
    drawn = estimator.sample((1000,), x[:1])[:, 0]
    assert prior.support.check(drawn).all()
    estimator.loss(theta, x).mean().backward()
    assert estimator.net.weights.grad.abs().max() > 0
    before = estimator.log_prob(theta, x)
    for other in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        torch.testing.assert_close(other.log_prob(theta, x), before)
    wide = estimator.double().log_prob(theta.double(), x.double())
    torch.testing.assert_close(wide.float(), before, atol=1e-3, rtol=1e-3)


@each_builder
def test_copies_and_other_dtypes_are_the_same_density_and_go_on_learning(
    make: Callable[..., Any],
) -> None:
    estimator = estimator_of(make, (2,), (3,))
    theta, x = torch.randn(20, 2), torch.randn(20, 3)
    estimator.loss(theta, x).mean().backward()
    estimator.sample((3,), x)
    expected = estimator.log_prob(theta, x)
    loaded = estimator_of(make, (2,), (3,))
    loaded.load_state_dict(estimator.state_dict())
    copies = [copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator)), loaded]
    for other in copies:
        torch.testing.assert_close(other.log_prob(theta, x), expected)
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        optimizer.zero_grad()
        other.loss(theta, x).mean().backward()
        optimizer.step()
        changed = other.log_prob(theta, x)
        assert not torch.allclose(changed, expected)
        with torch.no_grad():
            torch.testing.assert_close(other.log_prob(theta, x), changed)
    torch.testing.assert_close(estimator.log_prob(theta, x), expected)
    wide = estimator.to(torch.float64)
    found = wide.log_prob(theta.double(), x.double())
    assert found.dtype == wide.sample((2,), x.double()).dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(wide.float().log_prob(theta, x), expected, atol=1e-4, rtol=1e-4)


def test_orders_and_masks_come_with_a_state() -> None:
    theta, x = torch.randn(20, 5), torch.randn(20, 3)
    one, other = (bridge.maf(randperm=True, **SMALL)(theta, x) for _ in range(2))
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other.log_prob(theta, x), one.log_prob(theta, x))
    other.loss(theta, x).mean().backward()
    assert other.net.weights.grad.abs().max() > 0


def test_without_the_kernel_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = estimator_of(bridge.nsf, (2,), (3,))
    theta, x = torch.randn(20, 2), torch.randn(20, 3)
    expected = estimator.loss(theta, x)
    (gradient,) = torch.autograd.grad(expected.mean(), estimator.net.weights)
    monkeypatch.setattr(type(estimator.net), "_in_one_node", lambda *_: None)
    found = estimator.loss(theta, x)
    torch.testing.assert_close(found, expected)
    (other,) = torch.autograd.grad(found.mean(), estimator.net.weights)
    torch.testing.assert_close(other, gradient)


def test_what_is_not_finite_is_refused_or_lost() -> None:
    estimator = estimator_of(bridge.maf, (2,), (3,))
    theta, x = torch.zeros(2, 2), torch.zeros(2, 3)
    theta[1, 0] = math.inf
    assert estimator.log_prob(theta, x)[0, 1] == -math.inf
    theta[1, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        estimator.log_prob(theta, x)


def gaussian(theta: Tensor) -> Tensor:
    """Data of three numbers: the parameters with noise of variance 0.25, and their sum."""
    noisy = theta + 0.5 * torch.randn_like(theta)
    return torch.cat([noisy, noisy.sum(dim=1, keepdim=True)], dim=1)


PRIOR = MultivariateNormal(torch.zeros(2), torch.eye(2))
OBSERVED = torch.tensor([[0.5, -1.0, -0.5]])


def trained(trainer: Any, build: Any, rows: int = 1500, epochs: int = 25) -> Any:
    inference = trainer(PRIOR, density_estimator=build, show_progress_bars=False)
    theta = PRIOR.sample((rows,))
    inference.append_simulations(theta, gaussian(theta))
    inference.train(max_num_epochs=epochs, learning_rate=3e-3)
    return inference


def is_true_posterior(samples: Tensor) -> None:
    """Mean 0.8 x and variance 0.2."""
    torch.testing.assert_close(samples.mean(dim=0), 0.8 * OBSERVED[0, :2], atol=0.12, rtol=0)
    torch.testing.assert_close(samples.var(dim=0), torch.full((2,), 0.2), atol=0.09, rtol=0)


@pytest.mark.slow
@each_builder
def test_posteriors_and_their_further_rounds(make: Callable[..., Any]) -> None:
    inference = trained(NPE, make(**SMALL))
    posterior = inference.build_posterior().set_default_x(OBSERVED)
    samples = posterior.sample((2000,), show_progress_bars=False)
    is_true_posterior(samples)
    truth = MultivariateNormal(0.8 * OBSERVED[0, :2], 0.2 * torch.eye(2))
    difference = posterior.log_prob(samples) - truth.log_prob(samples)
    assert difference.abs().median() < 0.3
    batched = posterior.sample_batched((100,), OBSERVED.repeat(3, 1), show_progress_bars=False)
    assert batched.shape == (100, 3, 2)
    assert posterior.log_prob_batched(batched, OBSERVED.repeat(3, 1)).shape == (100, 3)
    assert posterior.map(num_iter=20, num_init_samples=50, show_progress_bars=False).shape[-1] == 2
    theta = posterior.sample((500,), show_progress_bars=False)
    inference.append_simulations(theta, gaussian(theta), proposal=posterior)
    inference.train(max_num_epochs=5, num_atoms=5)
    later = inference.build_posterior().sample((2000,), x=OBSERVED, show_progress_bars=False)
    torch.testing.assert_close(later.mean(dim=0), 0.8 * OBSERVED[0, :2], atol=0.25, rtol=0)


@pytest.mark.slow
@each_builder
def test_likelihoods(make: Callable[..., Any]) -> None:
    """The same builder: here parameters of another size are what is conditioned on."""
    inference = NLE(PRIOR, density_estimator=make(**SMALL), show_progress_bars=False)
    theta = PRIOR.sample((1500,))
    estimator = inference.append_simulations(theta, gaussian(theta)[:, :1]).train(
        max_num_epochs=30, learning_rate=3e-3
    )
    assert (estimator.input_shape, estimator.condition_shape) == ((1,), (2,))
    x, at = torch.ones(1, 1), torch.tensor([[1.0, 0.0]])
    truth = torch.distributions.Normal(1.0, 0.5).log_prob(x)
    torch.testing.assert_close(estimator.log_prob(x, at), truth, atol=0.25, rtol=0)
    posterior = inference.build_posterior(sample_with="rejection")
    samples = posterior.sample((20,), x=x, show_progress_bars=False)
    assert samples.shape == (20, 2)


@pytest.mark.slow
def test_truncated_rounds() -> None:
    inference = trained(NPE, bridge.nsf(**SMALL), rows=800, epochs=8)
    posterior = inference.build_posterior().set_default_x(OBSERVED)
    accept = get_density_thresholder(posterior, quantile=1e-2)
    proposal = RestrictedPrior(PRIOR, accept, sample_with="rejection")
    theta = proposal.sample((500,), show_progress_bars=False)
    inference.append_simulations(theta, gaussian(theta))
    inference.train(force_first_round_loss=True, max_num_epochs=15, learning_rate=3e-3)
    samples = inference.build_posterior().sample((2000,), x=OBSERVED, show_progress_bars=False)
    torch.testing.assert_close(samples.mean(dim=0), 0.8 * OBSERVED[0, :2], atol=0.25, rtol=0)


@each_builder
def test_posteriors_and_inference_objects_survive_pickling(make: Callable[..., Any]) -> None:
    inference = trained(NPE, make(**SMALL), rows=300, epochs=1)
    posterior = inference.build_posterior().set_default_x(OBSERVED)
    posterior.sample((5,), show_progress_bars=False)
    posterior.potential(torch.zeros(1, 2))
    other = pickle.loads(pickle.dumps(posterior))
    drawn = []
    for one in (posterior, other):
        torch.manual_seed(3)
        drawn.append(one.sample((50,), show_progress_bars=False))
    torch.testing.assert_close(*drawn)
    again = pickle.loads(pickle.dumps(inference))
    before = again._neural_net.log_prob(torch.zeros(1, 2), OBSERVED)
    again.train(resume_training=True, max_num_epochs=4)
    assert again._neural_net.log_prob(torch.zeros(1, 2), OBSERVED) != before


def test_a_trainer_of_likelihoods_gets_the_density_of_data() -> None:
    inference = trained(NLE, bridge.maf(z_score_x="none", **SMALL), rows=300, epochs=1)
    assert (inference._neural_net.input_shape, inference._neural_net.condition_shape) == (
        (3,),
        (2,),
    )
    assert not any(
        "loc" in name for name, _ in inference._neural_net.net.flow.transform.named_buffers()
    )
    posterior = inference.build_posterior(sample_with="importance")
    assert posterior.sample((5,), x=OBSERVED, show_progress_bars=False).shape == (5, 2)
