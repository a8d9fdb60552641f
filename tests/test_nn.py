"""Masked layers: the dense masked product exactly, zero outside of the mask whatever is done."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.nn import MaskedLinear, MaskedMLP
from oracles import allowed, dependencies
from strategies import ACTIVATIONS, SMOOTH, overwrite, widths


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def adjacencies(draw_: st.DrawFn) -> Tensor:
    """Any boolean matrix: full, empty, triangular, or random; not only staircases."""
    rows, columns = draw_(st.integers(1, 9)), draw_(st.integers(1, 9))
    share = draw_(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    generator = torch.Generator().manual_seed(draw_(st.integers(0, 999)))
    mask = torch.rand(rows, columns, generator=generator) < share
    return mask.tril() if draw_(st.booleans()) else mask


def layer_of(adjacency: Tensor, bias: bool = True, seed: int = 3) -> MaskedLinear:
    return overwrite(MaskedLinear(adjacency, bias).double(), 1.0, seed)


def wide_layers(features: int) -> list[MaskedLinear]:
    """The layers of a conditioner so wide that its masks are cut into several slabs."""
    flow = mf.flows.MADE(features, hidden_features=(110, 130), generator=torch.Generator())
    return [m.double() for m in flow.modules() if isinstance(m, MaskedLinear)]


def dense_of(layer: MaskedLinear) -> Tensor:
    return layer.state_dict()["weight"]


@given(adjacencies(), st.booleans(), st.sampled_from([(), (1,), (5,), (2, 3), (0,)]))
def test_masked_linear_is_the_dense_masked_product(
    adjacency: Tensor, bias: bool, batch: tuple[int, ...]
) -> None:
    layer = layer_of(adjacency, bias)
    x = draw(*batch, adjacency.shape[1])
    weight = draw(*adjacency.shape, seed=8)
    layer.load_state_dict({**layer.state_dict(), "weight": weight})
    expected = x @ (weight * adjacency).T + (layer.bias if bias else 0)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=1e-12)


@given(adjacencies(), st.booleans())
def test_masked_linear_gradients_are_those_of_the_dense_masked_product(
    adjacency: Tensor, bias: bool
) -> None:
    layer = layer_of(adjacency, bias)
    x = draw(4, adjacency.shape[1]).requires_grad_()
    out = draw(4, adjacency.shape[0], seed=1)
    (layer(x).square() * out).sum().backward()

    weight = dense_of(layer).clone().requires_grad_()
    shift = layer.bias.detach().clone().requires_grad_() if bias else torch.zeros(())
    other = x.detach().clone().requires_grad_()
    ((other @ (weight * adjacency).T + shift).square() * out).sum().backward()

    torch.testing.assert_close(x.grad, other.grad, atol=1e-10, rtol=1e-10)
    if bias:
        torch.testing.assert_close(layer.bias.grad, shift.grad, atol=1e-10, rtol=1e-10)
    # The layout of the parameter is its own business; its gradient as a multiset is not.
    packed = layer.weight.grad[layer.weight.grad != 0].sort().values
    dense = weight.grad[adjacency & (weight.grad != 0)].sort().values
    torch.testing.assert_close(packed, dense, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("features", [33, 48, 100])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_staircase_of_several_slabs_is_the_dense_masked_product(
    features: int, number: int
) -> None:
    layer = overwrite(wide_layers(features)[number], 1.0)
    rows, columns = layer.mask.shape
    x = draw(6, columns).requires_grad_()
    weight = dense_of(layer).clone().requires_grad_()
    dense = x @ (weight * layer.mask).T + layer.bias
    torch.testing.assert_close(layer(x), dense, atol=1e-11, rtol=1e-11)

    out = draw(6, rows, seed=4)
    (ours,) = torch.autograd.grad((layer(x).sin() * out).sum(), x)
    (theirs,) = torch.autograd.grad((dense.sin() * out).sum(), x)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    (packed,) = torch.autograd.grad((layer(x).sin() * out).sum(), layer.weight)
    dense = x @ (weight * layer.mask).T + layer.bias
    (full,) = torch.autograd.grad((dense.sin() * out).sum(), weight)
    # A step along the gradient moves the dense weight as a step of the dense layer would.
    stepped = copy.deepcopy(layer)
    stepped.weight.data.sub_(packed)
    torch.testing.assert_close(dense_of(stepped), (weight - full).detach(), atol=1e-9, rtol=1e-9)


@given(adjacencies(), st.booleans())
def test_gradcheck_and_gradgradcheck(adjacency: Tensor, bias: bool) -> None:
    layer = layer_of(adjacency, bias)
    names = [name for name, p in layer.named_parameters() if p.numel()]
    tensors = [p.detach().clone().requires_grad_() for p in layer.parameters() if p.numel()]
    hidden = adjacency.shape[0]

    def f(x: Tensor, *parameters: Tensor) -> Tensor:
        chosen = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, chosen, (x,)).sin() * (1 + torch.arange(hidden))

    x = draw(2, adjacency.shape[1]).requires_grad_()
    # Entries that the packed layout holds but the mask forbids have gradient zero either way.
    assert torch.autograd.gradcheck(f, (x, *tensors))
    assert torch.autograd.gradgradcheck(f, (x, *tensors))


OPTIMIZERS = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@given(adjacencies())
def test_weights_outside_of_the_mask_stay_exactly_zero_under_an_optimizer(
    optimizer: Callable[..., torch.optim.Optimizer], adjacency: Tensor
) -> None:
    layer = layer_of(adjacency)
    stepping = optimizer(layer.parameters())
    start = dense_of(layer).clone()
    for step in range(3):
        stepping.zero_grad()
        layer(draw(5, adjacency.shape[1], seed=step)).square().sum().backward()
        stepping.step()
    dense = dense_of(layer)
    assert (dense[~adjacency] == 0).all()
    assert (dense[adjacency] != start[adjacency]).all()


def write_by_data(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.data.normal_()


def write_by_no_grad(layer: nn.Module) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()


def write_by_init(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.ones_(parameter)


def write_by_new_storage(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter)


def write_by_vector(layer: nn.Module) -> None:
    count = sum(parameter.numel() for parameter in layer.parameters())
    nn.utils.vector_to_parameters(torch.randn(count).double(), layer.parameters())


WRITERS = [
    write_by_data,
    write_by_no_grad,
    write_by_init,
    write_by_new_storage,
    write_by_vector,
]


@pytest.mark.parametrize("write", WRITERS)
@given(adjacencies())
def test_noise_written_over_the_parameters_never_opens_the_mask(
    write: Callable[[nn.Module], None], adjacency: Tensor
) -> None:
    layer = layer_of(adjacency)
    x = draw(3, adjacency.shape[1])
    layer(x)  # whatever is cached is of the old weights
    before = dense_of(layer).clone()
    write(layer)
    dense = dense_of(layer)
    assert (dense[~adjacency] == 0).all()
    assert (dense[adjacency] != before[adjacency]).all()
    torch.testing.assert_close(layer(x), x @ dense.T + layer.bias, atol=1e-12, rtol=1e-12)
    assert not (dependencies(layer, x) & ~adjacency).any()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_noise_over_a_staircase_of_several_slabs(
    write: Callable[[nn.Module], None], number: int
) -> None:
    layer = wide_layers(48)[number]
    x = draw(2, layer.in_features).requires_grad_()
    layer(x)
    write(layer)
    dense = dense_of(layer)
    assert (dense[~layer.mask] == 0).all()
    torch.testing.assert_close(layer(x), x @ dense.T + layer.bias, atol=1e-11, rtol=1e-11)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(gradient, dense.sum(0).expand(2, -1), atol=1e-11, rtol=1e-11)


def test_weight_decay_after_noise_was_written_stays_inside_the_mask() -> None:
    mask = torch.ones(6, 6).tril(-1).bool()
    layer = layer_of(mask)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    for step in range(4):
        write_by_data(layer)
        optimizer.zero_grad()
        layer(draw(5, 6, seed=step)).square().sum().backward()
        optimizer.step()
        assert (dense_of(layer)[~mask] == 0).all()
    assert not (dependencies(layer, draw(3, 6)) & ~mask).any()


@given(adjacencies())
def test_state_dict_holds_the_dense_weight_and_loads_back(adjacency: Tensor) -> None:
    layer, other = layer_of(adjacency, seed=1), layer_of(adjacency, seed=2)
    state = layer.state_dict()
    assert state["weight"].shape == adjacency.shape
    assert not state["weight"].requires_grad
    assert (state["weight"][~adjacency] == 0).all()
    assert not other.load_state_dict(state).missing_keys
    x = draw(3, adjacency.shape[1])
    assert torch.equal(other(x), layer(x))
    assert torch.equal(dense_of(other), dense_of(layer))


@given(adjacencies())
def test_loading_a_full_matrix_drops_what_is_outside_of_the_mask(adjacency: Tensor) -> None:
    layer = layer_of(adjacency)
    weight = draw(*adjacency.shape, seed=9)
    layer.load_state_dict({**layer.state_dict(), "weight": weight})
    assert torch.equal(dense_of(layer), weight * adjacency)


def test_loading_a_weight_of_another_shape_is_an_error() -> None:
    layer = MaskedLinear(torch.ones(3, 4).bool())
    with pytest.raises(RuntimeError, match="size mismatch"):
        layer.load_state_dict({**layer.state_dict(), "weight": torch.zeros(4, 3)})
    incomplete = {key: value for key, value in layer.state_dict().items() if key != "weight"}
    with pytest.raises(RuntimeError, match="weight"):
        layer.load_state_dict(incomplete)


def test_a_state_dict_is_a_picture_of_its_moment() -> None:
    layer = layer_of(torch.ones(3, 4).bool())
    copied = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.load_state_dict(
        {key: torch.zeros_like(value) for key, value in copied.items()}
        | {key: value for key, value in copied.items() if not value.is_floating_point()}
    )
    assert (dense_of(layer) == 0).all()
    layer.load_state_dict(copied)
    assert torch.equal(dense_of(layer), copied["weight"])


def test_loading_keeps_the_parameter_that_the_optimizer_holds() -> None:
    layer = layer_of(torch.ones(4, 4).tril().bool())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer.load_state_dict(layer_of(torch.ones(4, 4).tril().bool(), seed=7).state_dict())
    before = dense_of(layer).clone()
    layer(draw(3, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(dense_of(layer), before)


@pytest.mark.parametrize("copies", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@given(adjacency=adjacencies(), used=st.booleans())
def test_copies_are_equal_and_independent(
    copies: Callable[[MaskedLinear], MaskedLinear], adjacency: Tensor, used: bool
) -> None:
    layer = layer_of(adjacency)
    x = draw(3, adjacency.shape[1])
    if used:
        layer(x.requires_grad_()).sum().backward()
    y = layer(x).detach().clone()
    other = copies(layer)
    assert torch.equal(other(x), y)
    write_by_data(other)
    assert torch.equal(layer(x), y)
    torch.testing.assert_close(other(x), x @ dense_of(other).T + other.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moving_to_another_dtype_after_use(dtype: torch.dtype) -> None:
    layer = MaskedLinear(torch.ones(5, 4).tril().bool())
    layer(torch.randn(2, 4))
    layer = layer.double().to(dtype)
    y = layer(torch.randn(2, 4, dtype=dtype))
    assert y.dtype == dense_of(layer).dtype == dtype
    y.sum().backward()
    assert layer.weight.grad.dtype == dtype


def test_use_in_inference_mode_does_not_spoil_training() -> None:
    layer = layer_of(torch.ones(5, 4).tril().bool())
    x = draw(3, 4)
    with torch.inference_mode():
        y = layer(x)
    layer(x).sum().backward()
    assert torch.equal(layer(x), y.clone())
    assert layer.weight.grad is not None


@given(adjacencies())
def test_vmap_over_rows_and_over_an_ensemble(adjacency: Tensor) -> None:
    layers = [layer_of(adjacency, seed=seed) for seed in (1, 2)]
    x = draw(3, adjacency.shape[1])
    torch.testing.assert_close(torch.func.vmap(layers[0])(x), layers[0](x))
    stacked, buffers = torch.func.stack_module_state(layers)
    each = torch.func.vmap(
        lambda p, b: torch.func.functional_call(layers[0], (p, b), (x,)), randomness="error"
    )(stacked, buffers)
    torch.testing.assert_close(each, torch.stack([layer(x) for layer in layers]))


def test_bad_adjacency_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"adjacency.*\(3,\)"):
        MaskedLinear(torch.ones(3).bool())
    with pytest.raises(ValueError, match=r"adjacency.*\(2, 3, 4\)"):
        MaskedMLP(torch.ones(2, 3, 4).bool())


def test_wrong_input_width_is_a_clear_error() -> None:
    layer = MaskedLinear(torch.ones(3, 4).bool())
    with pytest.raises((ValueError, RuntimeError)):
        layer(torch.zeros(2, 5))


@given(
    st.integers(1, 6),
    widths(),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
    st.sampled_from(["sequential", "random"]),
    st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:.*hidden_features.*:UserWarning")
def test_mlp_depends_on_nothing_that_the_adjacency_forbids(
    features: int,
    hidden: tuple[int, ...],
    activation: Callable[[], nn.Module],
    residual: bool,
    kind: str,
    seed: int,
) -> None:
    adjacency = allowed(features, None, None)
    generator = torch.Generator().manual_seed(seed)
    net = MaskedMLP(
        adjacency, hidden, activation, residual, degrees=kind, generator=generator
    ).double()
    overwrite(net, 1.0, seed)
    found = dependencies(net, draw(4, features, seed=seed))
    assert not (found & ~adjacency).any()
    if activation in SMOOTH and kind == "sequential":  # random ones leave out what chance has it
        assert torch.equal(found, adjacency)


@given(st.integers(1, 5), st.integers(1, 5), widths(), st.booleans(), st.integers(0, 999))
@pytest.mark.filterwarnings("ignore:.*hidden_features.*:UserWarning")
def test_mlp_of_any_adjacency_depends_on_all_that_it_allows(
    outputs: int, inputs: int, hidden: tuple[int, ...], residual: bool, seed: int
) -> None:
    adjacency = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed)) < 0.5
    net = overwrite(MaskedMLP(adjacency, hidden, nn.Tanh, residual).double(), 0.7, seed)
    assert torch.equal(dependencies(net, draw(4, inputs, seed=seed)), adjacency)


@pytest.mark.parametrize("residual", [False, True])
def test_mlp_takes_zukos_positional_arguments(residual: bool) -> None:
    net = MaskedMLP(torch.ones(4, 3).bool(), [16, 32], nn.ELU, residual)
    assert net(torch.zeros(5, 3)).shape == (5, 4)
    assert net.in_features == 3
    assert net.out_features == 4


def test_residual_networks_differ_from_plain_ones_by_their_skips() -> None:
    plain = MaskedMLP(torch.ones(2, 3).bool(), (8, 8), nn.Tanh)
    residual = MaskedMLP(torch.ones(2, 3).bool(), (8, 8), nn.Tanh, residual=True)
    x = torch.randn(4, 3)
    for net in (plain, residual):
        overwrite(net, 0.0)
    hidden = [m for m in residual.modules() if isinstance(m, MaskedLinear)][1:-1]
    for layer in hidden:  # a residual network whose blocks are silent still sees its input
        layer.load_state_dict(
            {
                key: torch.zeros_like(value) if value.is_floating_point() else value
                for key, value in layer.state_dict().items()
            }
        )
    assert hidden
    assert (dependencies(residual, x)).all()
