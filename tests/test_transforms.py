"""Transforms: each is invertible, and its log-determinant is autograd's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import transforms as torch_transforms

from maskedflow.distributions import DiagNormal
from maskedflow.flows import MAF, Flow, UnconditionalDistribution
from maskedflow.transforms import (
    BatchNorm,
    ComposedTransform,
    DependentTransform,
    Dequantize,
    LazyComposedTransform,
    LazyTransform,
    Logit,
    MonotonicAffineTransform,
    PermutationTransform,
    Standardize,
    UnconditionalTransform,
    call_and_ladj,
)
from maskedflow.transforms.preprocessing import ScaleTransform
from maskedflow.transforms.whiten import WhitenTransform
from oracles import autograd_ladj, autograd_ladjs, check_inverse_pair

TIGHT = {"atol": 1e-8, "rtol": 1e-7}
LOOSE = {"atol": 1e-3, "rtol": 1e-3}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return TIGHT if dtype == torch.float64 else LOOSE


# -- compositions ---------------------------------------------------------------------------------


@st.composite
def parts(draw_: st.DrawFn, features: int, depth: int = 2) -> torch_transforms.Transform:
    """An invertible transform of vectors of reals: ours, torch's own, an inverse, a composition."""
    seed = draw_(st.integers(0, 999))
    kind = draw_(st.sampled_from(["affine", "order", "torch", "inverse", "nested"][: 3 + depth]))
    if kind == "order":
        return PermutationTransform(torch.tensor(draw_(st.permutations(range(features)))))
    if kind == "torch":
        return torch_transforms.AffineTransform(draw(features, seed=seed), -1.5)
    if kind == "inverse":
        return draw_(parts(features, depth - 1)).inv
    if kind == "nested":
        few = st.lists(parts(features, depth - 1), min_size=1, max_size=3)
        return ComposedTransform(*draw_(few))
    shift, scale = draw(features, seed=seed), draw(features, seed=seed + 1) / 3
    return DependentTransform(MonotonicAffineTransform(shift, scale), 1)


@given(st.data(), st.integers(1, 5), st.sampled_from([(), (3,), (2, 3)]))
def test_compositions(data: st.DataObject, features: int, batch: tuple[int, ...]) -> None:
    inner = data.draw(st.lists(parts(features), min_size=1, max_size=4))
    # A last permutation makes even a chain of element-wise maps one of vectors.
    transform = ComposedTransform(*inner, PermutationTransform(torch.arange(features)))
    assert transform.domain.event_dim == transform.codomain.event_dim == 1
    x = draw(*batch, features)
    check_inverse_pair(transform, x, **TIGHT)
    row = x.reshape(-1, features)[0]
    torch.testing.assert_close(
        transform.call_and_ladj(row)[1], autograd_ladj(transform, row), **TIGHT
    )
    assert transform.forward_shape(x.shape) == transform.inverse_shape(x.shape) == x.shape


def test_composition_applies_the_first_transform_first() -> None:
    add, double = (torch_transforms.AffineTransform(*p) for p in ((1.0, 1.0), (0.0, 2.0)))
    x = draw(3)
    torch.testing.assert_close(ComposedTransform(add, double)(x), 2 * (x + 1))
    torch.testing.assert_close(ComposedTransform(add, double).inv(x), x / 2 - 1)


def test_composition_of_single_values_keeps_their_dimensions_apart() -> None:
    transform = ComposedTransform(
        torch_transforms.ExpTransform(), MonotonicAffineTransform(torch.zeros(()), torch.ones(()))
    )
    _y, ladj = transform.call_and_ladj(torch.zeros(2, 3))
    assert transform.domain.event_dim == transform.codomain.event_dim == 0
    assert ladj.shape == (2, 3)
    assert (ladj == 1).all()


def test_composition_changes_event_dims_with_its_parts() -> None:
    flat = torch_transforms.ReshapeTransform((2, 3), (6,))
    transform = ComposedTransform(torch_transforms.ExpTransform(), flat)
    assert (transform.domain.event_dim, transform.codomain.event_dim) == (2, 1)
    x = draw(4, 2, 3)
    y, ladj = transform.call_and_ladj(x)
    assert y.shape == (4, 6)
    torch.testing.assert_close(ladj, x.sum(dim=(1, 2)))
    back, inverse_ladj = transform.inv.call_and_ladj(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_ladj, -ladj)
    assert (transform.inv.domain.event_dim, transform.inv.codomain.event_dim) == (1, 2)
    assert transform.forward_shape((4, 2, 3)) == (4, 6)
    assert transform.inverse_shape((4, 6)) == (4, 2, 3)


def test_an_empty_composition_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="transforms"):
        ComposedTransform()


@given(st.sampled_from([0, 1, 2]))
def test_dependent_sums_the_ladj_of_the_rightmost_dimensions(dims: int) -> None:
    base = MonotonicAffineTransform(torch.zeros(2, 3), draw(2, 3, seed=5))
    transform = DependentTransform(base, dims)
    assert transform.domain.event_dim == transform.inv.codomain.event_dim == dims
    ladj = transform.call_and_ladj(draw(4, 2, 3))[1]
    expected = base.log_scale.expand(4, 2, 3)
    for _ in range(dims):
        expected = expected.sum(dim=-1)
    torch.testing.assert_close(ladj, expected)


@given(st.integers(1, 8).flatmap(lambda n: st.permutations(range(n))))
def test_permutation(order: list[int]) -> None:
    transform = PermutationTransform(torch.tensor(order))
    x = draw(3, len(order))
    check_inverse_pair(transform, x, **TIGHT)
    assert torch.equal(transform(x), x[:, order])
    assert torch.equal(transform.inv(transform(x)), x)
    assert (transform.call_and_ladj(x)[1] == 0).all()
    assert transform.domain.event_dim == 1


@pytest.mark.parametrize("order", [[0, 0], [1, 2], [0, 1, 3], [[0, 1]]])
def test_permutation_of_something_else_is_a_clear_error(order: list[int]) -> None:
    with pytest.raises(ValueError, match="order") as error:
        PermutationTransform(torch.tensor(order))
    assert "\n" not in str(error.value)


# -- lazy transforms ------------------------------------------------------------------------------


def test_lazy_compositions_nest_and_invert() -> None:
    lazy = LazyComposedTransform(
        Standardize(torch.ones(3), torch.full((3,), 2.0)),
        LazyComposedTransform(
            UnconditionalTransform(PermutationTransform, torch.tensor([2, 0, 1]), buffer=True),
            UnconditionalTransform(torch_transforms.ExpTransform),
        ),
    ).double()
    assert isinstance(lazy.transforms, nn.ModuleList)
    x = draw(4, 3)
    expected = ((x - 1) / 2)[:, [2, 0, 1]].exp()
    torch.testing.assert_close(lazy()(x), expected)
    torch.testing.assert_close(lazy.inv()(expected), x)
    torch.testing.assert_close(lazy.inv.inv()(x), expected)
    assert isinstance(lazy.inv, LazyTransform)
    torch.testing.assert_close(lazy().call_and_ladj(x)[1], autograd_ladjs(lazy(), x), **TIGHT)


def test_unconditional_registers_tensors_as_parameters_or_buffers() -> None:
    shift, scale = torch.ones(3), torch.zeros(3)
    learned = UnconditionalTransform(MonotonicAffineTransform, shift, scale)
    fixed = UnconditionalTransform(MonotonicAffineTransform, shift, scale, buffer=True)
    assert sum(p.numel() for p in learned.parameters()) == 6
    assert not list(fixed.parameters())
    assert len(learned.state_dict()) == len(fixed.state_dict()) == 2
    x = torch.randn(2, 3)
    torch.testing.assert_close(learned(torch.randn(5))(x), x + 1)  # a context is ignored
    learned()(x).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in learned.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in learned.parameters())
    assert learned.double()()(x.double()).dtype == torch.float64


# -- preprocessing --------------------------------------------------------------------------------


def check_preprocessing(lazy: LazyTransform, x: Tensor) -> None:
    """Round trip and log-determinant of a map of data x, with shape (n, features), to latents."""
    transform = lazy()
    _y, ladj = transform.call_and_ladj(x)
    total = ladj.flatten(1).sum(dim=1) if ladj.ndim > 1 else ladj
    torch.testing.assert_close(total, autograd_ladjs(transform, x), **TIGHT)
    check_inverse_pair(transform, x, **TIGHT)


@given(st.integers(1, 5), st.integers(0, 99))
def test_standardize(features: int, seed: int) -> None:
    loc, scale = draw(features, seed=seed), draw(features, seed=seed + 1).exp()
    lazy = Standardize(loc, scale)
    x = 3 * draw(4, features, seed=seed + 2)
    torch.testing.assert_close(lazy()(x), (x - loc) / scale)
    check_preprocessing(lazy, x)
    assert not list(lazy.parameters())
    assert set(lazy.state_dict()) == {"loc", "scale"}


@pytest.mark.parametrize("batch", [(), (1,), (3, 1)], ids=str)
def test_one_row_goes_through_a_batch_of_maps(batch: tuple[int, ...]) -> None:
    loc, x = torch.randn(2, 4), torch.randn(*batch, 4)
    factor = torch.eye(4) + 0.1 * torch.ones(4, 4).tril()
    for f in (ScaleTransform(loc, 0.1 * loc), WhitenTransform(loc, factor)):
        for way in (f, f.inv):
            one, other = (call_and_ladj(way, part) for part in (x, x.expand(*batch[:-1], 2, 4)))
            torch.testing.assert_close(one, other)


def test_standardize_takes_plain_numbers() -> None:
    x = torch.tensor([[0.0, 128.0, 256.0]])
    y, ladj = Standardize(0, 256)().call_and_ladj(x)
    torch.testing.assert_close(y, torch.tensor([[0.0, 0.5, 1.0]]))
    torch.testing.assert_close(ladj.sum(), torch.tensor(-3 * math.log(256)))


def test_standardize_fits_mean_and_deviation() -> None:
    x = 5 + 3 * draw(1000, 4)
    lazy = Standardize.fit(x)
    y = lazy.double()()(x)
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(4).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=0), torch.ones(4).double(), atol=1e-3, rtol=0)
    assert isinstance(lazy, Standardize)


def test_standardize_fits_large_offsets_in_float32() -> None:
    x = 1e6 + draw(5000, 1, dtype=torch.float32)
    y = Standardize.fit(x)()(x)
    assert abs(float(y.double().mean())) < 0.1
    assert 0.9 < float(y.double().std()) < 1.1


def test_standardize_fits_whole_numbers() -> None:
    x = torch.arange(256, dtype=torch.uint8)[:, None]
    y = Standardize.fit(x)()(x.float())
    assert abs(float(y.mean())) < 1e-5
    assert abs(float(y.std()) - 1) < 1e-2


def test_standardize_by_a_constant_column_is_an_error_that_names_it() -> None:
    x = draw(10, 500)
    x[:, 123] = 7.0
    with pytest.raises(ValueError, match="123") as error:
        Standardize.fit(x)
    assert len(str(error.value)) < 200


def test_standardize_by_nothing_is_a_clear_error() -> None:
    for scale in (
        torch.tensor([1.0, 0.0]),
        torch.tensor([1.0, -1.0]),
        torch.tensor([1.0, math.nan]),
    ):
        with pytest.raises(ValueError, match="scale"):
            Standardize(torch.zeros(2), scale)


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.0])
def test_logit_is_the_papers_formula(alpha: float) -> None:
    x = torch.linspace(0.01, 0.99, 9, dtype=torch.float64).reshape(3, 3)
    transform = Logit(alpha)()
    squeezed = alpha + (1 - 2 * alpha) * x
    torch.testing.assert_close(transform(x), torch.log(squeezed) - torch.log1p(-squeezed), **TIGHT)
    check_preprocessing(Logit(alpha), x)


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_logit_log_determinant_is_the_papers_bits_per_pixel_term(alpha: float) -> None:
    """In logit space, the paper subtracts log s(z) + log(1 - s(z)) and adds log(1 - 2 alpha)."""
    x = torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, ladj = Logit(alpha)().call_and_ladj(x)
    inside = torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z)
    expected = (math.log(1 - 2 * alpha) - inside).sum(dim=1)
    total = ladj.sum(dim=1) if ladj.ndim > 1 else ladj
    torch.testing.assert_close(total, expected, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logit_is_finite_on_the_closed_interval(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 1.0, 0.5]], dtype=dtype)
    transform = Logit(1e-6)()
    y, ladj = transform.call_and_ladj(x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(ladj).all()
    torch.testing.assert_close(transform.inv(y), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("alpha", [-0.1, 0.5, 0.7, math.nan])
def test_logit_of_an_impossible_alpha_is_a_clear_error(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Logit(alpha)


@given(st.sampled_from([1.0, 0.25, 1e-3]), st.integers(0, 99))
def test_dequantize_adds_less_than_a_step_and_floors_back(step: float, seed: int) -> None:
    lazy = Dequantize(step)
    lazy.seed(seed)
    grid = torch.randint(0, 256, (50, 3), generator=torch.Generator().manual_seed(seed))
    x = grid.double() * step
    y, ladj = lazy().call_and_ladj(x)
    noise = (y - x) / step
    assert (noise >= -1e-9).all()
    assert (noise < 1 + 1e-9).all()
    assert noise.std() > 0.2  # uniform: 0.289
    assert abs(float(noise.mean()) - 0.5) < 0.15
    assert (ladj == 0).all()
    torch.testing.assert_close(lazy().inv(y), x, atol=1e-9, rtol=0)
    back, back_ladj = lazy().inv.call_and_ladj(y)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=0)
    assert (back_ladj == 0).all()


def test_dequantize_never_leaves_its_cell_in_float32() -> None:
    """255 + U can round up to 256 in single precision, which would be outside of [0, 256)."""
    lazy = Dequantize(1.0)
    x = torch.full((2_000, 100), 255.0)
    y = lazy()(x)
    assert (y < 256).all()
    assert (y >= 255).all()
    assert torch.equal(lazy().inv(y), x)


def test_dequantize_noise_is_seeded_fresh_and_its_own() -> None:
    lazy, x = Dequantize(), torch.zeros(4, 3)
    before = torch.get_rng_state()
    lazy.seed(1)
    first, second = lazy()(x), lazy()(x)
    lazy.seed(1)
    assert torch.equal(lazy()(x), first)
    assert torch.equal(lazy()(x), second)
    assert not torch.equal(first, second)
    lazy.seed(2)
    assert not torch.equal(lazy()(x), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_dequantize_features_with_steps_of_their_own() -> None:
    step = torch.tensor([1.0, 0.0, 0.01])
    lazy = Dequantize(step)
    x = torch.tensor([[3.0, 0.123456, 0.07]]).expand(200, 3)
    y, ladj = lazy().call_and_ladj(x)
    assert torch.equal(y[:, 1], x[:, 1])  # a continuous column is left alone
    for column in (0, 2):
        noise = (y - x)[:, column] / step[column]
        assert float(noise.min()) > -1e-4
        assert float(noise.max()) < 1 + 1e-4
        assert float(noise.std()) > 0.2
    assert (ladj == 0).all()
    torch.testing.assert_close(lazy().inv(y), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dequantize_keeps_the_dtype(dtype: torch.dtype) -> None:
    y, ladj = Dequantize()().call_and_ladj(torch.zeros(2, 3, dtype=dtype))
    assert y.dtype == ladj.dtype == dtype


def test_dequantize_by_a_negative_step_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="step"):
        Dequantize(-1.0)


def test_dequantize_copies_and_stores_no_weights() -> None:
    lazy = Dequantize()
    lazy.seed(3)
    other = copy.deepcopy(lazy)
    x = torch.zeros(2, 2)
    assert torch.equal(lazy()(x), other()(x))
    assert not list(lazy.parameters())


def test_a_density_of_discrete_values_knows_no_noise_however_a_flow_is_composed() -> None:
    """Preprocessing, a composition itself, comes before a flow's, or only the base behind it."""
    maf = MAF(2, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.tensor([[1.0, 4.0], [0.0, 2.0], [5.0, 5.0]])
    cells = Dequantize(1.0, low=torch.zeros(2), high=torch.full((2,), 5.0))
    scale = Standardize(2.5, 2.0)
    flat = Flow([cells, scale, *maf.transform.transforms], maf.base)
    expected = flat.eval()().log_prob(x)
    assert torch.equal(flat().log_prob(x), expected)
    composed = LazyComposedTransform(LazyComposedTransform(cells, scale), maf.transform)
    behind = Flow([LazyComposedTransform(cells, scale)], maf)
    nested = Flow([LazyComposedTransform(cells, scale), maf.transform], maf.base)
    for flow in (nested, Flow(composed, maf.base), Flow(composed.transforms[0], maf), behind):
        torch.testing.assert_close(flow.eval()().log_prob(x), expected)
        assert not torch.equal(flow.train()().log_prob(x), flow().log_prob(x))  # by noise
    alone = UnconditionalDistribution(DiagNormal, torch.full((2,), 3.0), torch.full((2,), 2.0))
    found = Flow([cells], alone).eval()().log_prob(x).exp()
    edges = torch.special.ndtr((torch.stack([x, x + 1]) - 3) / 2)
    torch.testing.assert_close(found, (edges[1] - edges[0]).prod(dim=-1), rtol=0.01, atol=0)
    assert torch.equal(Flow(cells, alone).eval()().log_prob(x).exp(), found)


def test_image_preprocessing_is_a_density_in_pixel_units() -> None:
    """Counted by hand: dequantise, divide by 256, logit."""
    scale = Standardize(torch.zeros(5), torch.full((5,), 256.0))
    lazy = LazyComposedTransform(Dequantize(1.0), scale, Logit(0.05)).double()
    x = torch.randint(0, 256, (6, 5), generator=torch.Generator().manual_seed(0)).double()
    lazy.transforms[0].seed(1)
    z, ladj = lazy().call_and_ladj(x)
    s = torch.sigmoid(z)
    inside = math.log(0.9) - s.log() - (1 - s).log()
    torch.testing.assert_close(ladj, (inside - math.log(256)).sum(dim=1), **TIGHT)
    torch.testing.assert_close(lazy().inv(z), x)
    assert lazy().domain.event_dim == 1


# -- batch normalisation --------------------------------------------------------------------------


def moved(features: int = 3, seed: int = 0) -> BatchNorm:
    """A batch norm away from its start: gain, shift and statistics all drawn."""
    layer = BatchNorm(features).double()
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed + i) / 3)
    layer.set_statistics(draw(features, seed=seed + 5), draw(features, seed=seed + 6).exp())
    return layer


@given(st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_batch_norm_evaluates_with_its_buffers_exactly(
    features: int, seed: int, fresh: bool
) -> None:
    layer = BatchNorm(features).double() if fresh else moved(features, seed)
    layer.eval()
    x = 2 * draw(5, features, seed=seed)
    check_preprocessing(layer, x)
    assert layer().domain.event_dim == 1
    # Row by row is the same: no statistic of the batch enters.
    torch.testing.assert_close(torch.cat([layer()(row[None]) for row in x]), layer()(x), **TIGHT)


def test_batch_norm_uses_the_given_statistics_as_they_are() -> None:
    layer, x = BatchNorm(2, eps=0.5).double(), draw(4, 2)
    mean, variance = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.25])
    layer.set_statistics(mean, variance)
    layer.eval()
    torch.testing.assert_close(layer()(x), (x - mean) / (variance + 0.5).sqrt(), **TIGHT)
    # They travel with the state.
    other = BatchNorm(2, eps=0.5).double().eval()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other()(x), layer()(x))


@given(st.integers(1, 5), st.integers(2, 9), st.integers(0, 99))
def test_batch_norm_trains_with_the_statistics_of_the_batch(
    features: int, rows: int, seed: int
) -> None:
    layer = BatchNorm(features).double().train()
    x = 1 + 3 * draw(rows, features, seed=seed)
    y, ladj = layer().call_and_ladj(x)
    variance = x.var(dim=0, unbiased=False) + 1e-5  # biased, as in the paper
    torch.testing.assert_close(y, (x - x.mean(dim=0)) / variance.sqrt(), **TIGHT)
    torch.testing.assert_close(ladj, (-variance.log() / 2).sum().expand(rows), **TIGHT)


def test_batch_norm_gain_and_shift_are_learned_and_counted() -> None:
    layer = moved().train()
    x = draw(6, 3)
    y, ladj = layer().call_and_ladj(x)
    slope = (y[1] - y[0]) / (x[1] - x[0])  # affine in each feature once the batch is fixed
    assert (slope > 0).all()
    torch.testing.assert_close(ladj, slope.log().sum().expand(6), **TIGHT)
    (y.square().sum() - ladj.sum()).backward()
    gradients = [parameter.grad for parameter in layer.parameters()]
    assert sum(g.numel() for g in gradients) == 6
    assert all((g != 0).all() for g in gradients)


def test_batch_norm_gradients_flow_through_the_statistics() -> None:
    layer = moved().train()
    x = draw(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer().call_and_ladj(x), (x,))


def test_batch_norm_statistics_are_of_all_leading_dimensions() -> None:
    layer, x = BatchNorm(2).double().train(), 2 + draw(3, 4, 2)
    y, ladj = layer().call_and_ladj(x)
    assert ladj.shape == (3, 4)
    torch.testing.assert_close(y.reshape(12, 2), layer()(x.reshape(12, 2)), **TIGHT)


def test_batch_norm_of_constant_columns_is_finite() -> None:
    layer = BatchNorm(2).train()
    x = torch.ones(5, 2).requires_grad_()
    y, ladj = layer().call_and_ladj(x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(ladj).all()
    (y.sum() + ladj.sum()).backward()
    assert torch.isfinite(x.grad).all()


def test_batch_norm_of_one_row_in_training_is_a_clear_error() -> None:
    layer = BatchNorm(2).train()
    with pytest.raises(ValueError, match="2 rows"):
        layer()(torch.randn(1, 2))
    assert layer.eval()()(torch.randn(1, 2)).shape == (1, 2)


def test_batch_norm_variance_never_starts_at_zero() -> None:
    """A variance of 0 would make the first evaluation 300 times too large."""
    layer = BatchNorm(3).double().eval()
    x = draw(5, 3)
    y, ladj = layer().call_and_ladj(x)
    torch.testing.assert_close(y, x, atol=1e-4, rtol=1e-4)
    assert ladj.abs().max() < 1e-3
    layer.train()
    for seed in range(3):
        layer()(draw(8, 3, seed=seed))
    layer.eval()
    y, _ = layer().call_and_ladj(x)
    assert y.abs().max() < 10 * x.abs().max()


def test_batch_norm_statistics_are_never_trained_on_in_evaluation() -> None:
    layer = moved().eval()
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    layer().call_and_ladj(100 * draw(8, 3))
    layer().inv(100 * draw(8, 3))
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())


def test_batch_norm_statistics_of_another_size_are_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"mean.*3.*\(2,\)"):
        BatchNorm(3).set_statistics(torch.zeros(2), torch.ones(3))
