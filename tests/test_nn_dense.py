"""Dense and monotone networks."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from maskedflow.nn import MLP, LayerNorm, Linear, MonotonicLinear, MonotonicMLP, TwoWayELU


@pytest.mark.parametrize("kind", [Linear, MonotonicLinear])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
def test_a_stack_is_its_layers_side_by_side(
    kind: type[Linear], bias: bool, batch: tuple[int, ...]
) -> None:
    stack = kind(3, 4, bias=bias, stack=2)
    x = torch.randn(*batch, 2, 3)
    assert stack(x).shape == (*batch, 2, 4)
    for number in range(2):
        one = kind(3, 4, bias)
        one.weight.data = stack.weight.data[number]
        if one.bias is not None and stack.bias is not None:
            one.bias.data = stack.bias.data[number]
        torch.testing.assert_close(stack(x)[..., number, :], one(x[..., number, :]))


def test_one_layer_is_torchs() -> None:
    ours, theirs = Linear(3, 4), nn.Linear(3, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)
    assert "stack=7" in repr(Linear(3, 4, stack=7))


def test_x_of_the_wrong_width_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 3\), got \(5, 2\)"):
        Linear(3, 4)(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"x: expected shape \(\*, 2, 3\), got \(2, 2\)"):
        Linear(3, 4, stack=2)(torch.zeros(2, 2))


def test_layers_of_a_perceptron() -> None:
    kinds = [type(layer) for layer in MLP(3, 4, [16, 32], activation=nn.ELU, normalize=True)]
    assert kinds == [Linear, nn.ELU, LayerNorm, Linear, nn.ELU, LayerNorm, Linear]
    assert [type(layer) for layer in MLP(3, 4, [])] == [Linear]
    assert [type(layer) for layer in MLP(3, 4, [5])] == [Linear, nn.ReLU, Linear]
    assert not any("bias" in name for name, _ in MLP(3, 4, bias=False).named_parameters())
    net = MLP(3, 4)
    assert (net.in_features, net.out_features) == (3, 4)
    assert MLP(3, 4, stack=2)(torch.zeros(5, 2, 3)).shape == (5, 2, 4)


@given(st.integers(0, 99))
def test_a_generator_draws_the_weights(seed: int) -> None:
    nets = [MLP(3, 4, generator=torch.Generator().manual_seed(seed)) for _ in range(2)]
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_layer_norm_standardises() -> None:
    x = 5 + 3 * torch.randn(4, 6, 7)
    y = LayerNorm((-2, -1))(x)
    torch.testing.assert_close(y.mean(dim=(1, 2)), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.std(dim=(1, 2)), torch.ones(4), atol=1e-4, rtol=0)


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(1, 9), max_size=3))
def test_monotone_networks_increase_in_every_input(
    inputs: int, outputs: int, hidden: list[int]
) -> None:
    net = MonotonicMLP(inputs, outputs, hidden).double()
    x = torch.randn(inputs, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(net, x)
    assert (jacobian > 0).all()
    stack = MonotonicMLP(inputs, outputs, hidden, stack=3)
    assert stack(torch.zeros(3, inputs)).shape == (3, outputs)


def test_monotone_networks_reach_every_number_with_slopes_that_last() -> None:
    net = MonotonicMLP(1, 1, [8, 8])
    y = net(torch.tensor([[-1e6], [0.0], [1e6]]))
    assert y[0] < -1e3
    assert y[2] > 1e3


def test_two_way_elu_of_an_odd_width() -> None:
    x = torch.tensor([-1.0, 2.0, -3.0])
    expected = torch.tensor([torch.expm1(x[0]), 2.0, -3.0])
    torch.testing.assert_close(TwoWayELU()(x), expected)
    assert TwoWayELU()(x[:1]).shape == (1,)


@pytest.mark.parametrize("net", [MLP(2, 3), MonotonicMLP(2, 3, stack=2)])
def test_networks_copy_and_pickle(net: nn.Module) -> None:
    x = torch.randn(2, 2)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), net(x))
        assert repr(other) == repr(net)
