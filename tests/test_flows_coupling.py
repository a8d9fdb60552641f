"""Couplings: what they keep, what they cost, and that they are the couplings of the papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import maskedflow as mf
from maskedflow.transforms import AdditiveTransform, DependentTransform, MonotonicAffineTransform
from oracles import autograd_ladjs, check_inverse_pair, dependencies
from strategies import overwrite

TIGHT = {"atol": 1e-9, "rtol": 1e-8}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(least: int = 2, most: int = 7) -> st.SearchStrategy[list[bool]]:
    """Masks that keep some features and map some."""
    return st.lists(st.booleans(), min_size=least, max_size=most).filter(
        lambda mask: any(mask) and not all(mask)
    )


def calls(flow: nn.Module) -> list[nn.Module]:
    """A list that grows with each call of a conditioner."""
    made: list[nn.Module] = []
    for module in flow.modules():
        if isinstance(module, mf.nn.MaskedMLP):
            module.register_forward_hook(lambda net, *_: made.append(net))
    return made


@given(masks(), st.sampled_from([(), (4,), (2, 3)]))
def test_any_conditioner_and_mask(mask: list[bool], batch: tuple[int, ...]) -> None:
    kept = torch.tensor(mask)
    a, b = int(kept.sum()), int((~kept).sum())
    shifts, scales = draw(b, a, seed=1), draw(b, a, seed=2) / 3

    def meta(x_a: Tensor) -> mf.transforms.Transform:
        return DependentTransform(MonotonicAffineTransform(x_a @ shifts.T, x_a @ scales.T), 1)

    transform = mf.transforms.CouplingTransform(meta, kept)
    x = draw(*batch, len(mask), seed=3)
    y = transform(x)
    assert torch.equal(y[..., kept], x[..., kept])
    expected = x[..., ~kept] * (x[..., kept] @ scales.T).exp() + x[..., kept] @ shifts.T
    torch.testing.assert_close(y[..., ~kept], expected, **TIGHT)
    check_inverse_pair(transform, x, **TIGHT)
    rows = x.reshape(-1, len(mask))
    ladj = transform.call_and_ladj(rows)[1]
    torch.testing.assert_close(ladj, autograd_ladjs(transform, rows), **TIGHT)
    for f in (transform, transform.inv):
        with pytest.raises(ValueError, match="expected shape"):
            f.call_and_ladj(draw(3, len(mask) + 1))


@given(masks(), st.integers(0, 2), st.booleans())
def test_the_lazy_coupling_depends_on_what_it_keeps_only(
    mask: list[bool], context: int, separate: bool
) -> None:
    activation: Any = (nn.Tanh, nn.ELU) if separate else nn.Tanh
    lazy = mf.flows.GeneralCouplingTransform(
        len(mask), context, mask, hidden_features=(6,), activation=activation
    )
    overwrite(lazy.double(), 0.5)
    c = draw(context, seed=5) if context else None
    kept = torch.tensor(mask)
    found = dependencies(lazy(c), draw(3, len(mask)))
    expected = (~kept[:, None] & kept) | torch.eye(len(mask)).bool()
    assert torch.equal(found, expected)
    check_inverse_pair(lazy(c), draw(3, len(mask)), **TIGHT)


def test_the_default_mask_keeps_every_second_feature() -> None:
    lazy = mf.flows.GeneralCouplingTransform(5)
    assert lazy.mask.tolist() == [False, True, False, True, False]
    assert mf.flows.CouplingTransform is mf.flows.GeneralCouplingTransform


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ([True] * 3, "3 of 3"),
        ([False] * 3, "0 of 3"),
        ([True, False], "(2,)"),
        ([[True, False, True]], "(1, 3)"),
    ],
)
def test_masks_that_do_not_fit_are_clear_errors(mask: Any, found: str) -> None:
    with pytest.raises(ValueError, match="mask: expected") as error:
        mf.flows.GeneralCouplingTransform(3, mask=mask)
    assert found in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("features", [0, -1])
def test_no_features_are_a_clear_error(features: int) -> None:
    for kind in (mf.flows.GeneralCouplingTransform, mf.flows.NICE, mf.flows.RealNVP):
        with pytest.raises(ValueError, match="features: expected at least 1"):
            kind(features)


def test_an_activation_for_each_parameter_or_one_for_all() -> None:
    with pytest.raises(ValueError, match="activation: expected one for each of 2 parameters"):
        mf.flows.GeneralCouplingTransform(3, activation=(nn.ReLU,))


def test_masks_alternate_and_random_masks_are_part_of_the_state() -> None:
    flow = mf.flows.NICE(5, transforms=3)
    found = [step.mask.int().tolist() for step in flow.transform.transforms]
    assert found == [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]

    def random(seed: int) -> mf.flows.NICE:
        return mf.flows.NICE(9, randmask=True, generator=torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    first, again, other = random(0), random(0), random(1)
    assert torch.equal(torch.get_rng_state(), before)
    overwrite(first, 0.1)
    x = torch.randn(4, 9)
    state = [step.mask.tolist() for step in first.transform.transforms]
    assert state == [step.mask.tolist() for step in again.transform.transforms]
    assert state != [step.mask.tolist() for step in other.transform.transforms]
    other.load_state_dict(first.state_dict())
    assert torch.equal(other().log_prob(x), first().log_prob(x))
    back = other().transform.inv(other().transform(x))
    torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)


def test_the_couplings_of_nice_keep_volumes_and_are_sums() -> None:
    flow = mf.flows.NICE(4, univariate=AdditiveTransform, shapes=[()], activation=nn.Tanh)
    overwrite(flow.double(), 0.7)
    x = draw(5, 4)
    z, ladj = flow().transform.call_and_ladj(x)
    assert (ladj == 0).all()
    torch.testing.assert_close(autograd_ladjs(flow().transform, x), ladj, **TIGHT)
    assert (z - x).abs().max() > 0.1


def test_the_networks_of_the_paper_read_alike_and_activate_apart() -> None:
    """With Tanh and ReLU networks written out by hand, from their weights."""
    lazy = mf.flows.GeneralCouplingTransform(
        4, 1, [True, False, True, False], hidden_features=(5,), activation=(nn.ReLU, nn.Tanh)
    )
    overwrite(lazy.double(), 0.5)
    state = lazy.state_dict()
    x, c = draw(3, 4), draw(3, 1, seed=1)

    def network(number: int, activation: nn.Module) -> Tensor:
        def weight(name: str) -> Tensor:
            return state[f"hyper.{number}.{name}"]

        hidden = x[:, ::2] @ weight("layers.0.weight").T + weight("layers.0.bias")
        hidden = activation(hidden + c @ weight("context.weight").T)
        return hidden @ weight("layers.1.weight").T + weight("layers.1.bias")

    shift, log_scale = network(0, nn.ReLU()), network(1, nn.Tanh())
    z, ladj = lazy(c).call_and_ladj(x)
    torch.testing.assert_close(z[:, 1::2], x[:, 1::2] * log_scale.exp() + shift, **TIGHT)
    torch.testing.assert_close(ladj, log_scale.sum(dim=1), **TIGHT)
    assert torch.equal(z[:, ::2], x[:, ::2])


@pytest.mark.parametrize("kind", ["NICE", "RealNVP"])
def test_each_direction_is_one_call_of_each_network(kind: str) -> None:
    flow = getattr(mf.flows, kind)(6, context=2, transforms=4)
    made = calls(flow)
    density = flow(torch.zeros(2))
    density.log_prob(torch.randn(5, 6)).sum().backward()
    assert len(made) == 4
    made.clear()
    density.rsample((5,)).sum().backward()
    assert len(made) == 4
    made.clear()
    density.rsample_and_log_prob((5,))
    assert len(made) == 4


def test_two_passes_are_a_coupling_whose_first_half_is_mapped_too() -> None:
    masked = mf.flows.MaskedAutoregressiveTransform(4, passes=2, activation=nn.Tanh)
    overwrite(masked.double(), 0.5)
    found = dependencies(masked(), draw(3, 4))
    lazy = mf.flows.GeneralCouplingTransform(4, mask=[True, True, False, False])
    overwrite(lazy.double(), 0.5)
    assert torch.equal(found, dependencies(lazy(), draw(3, 4)))


def test_real_nvp_fits_what_a_gaussian_cannot() -> None:
    """One feature's scale depends on the other: the density gains what it should."""
    x = draw(2_000, 2)
    x[:, 1] *= (1.5 * x[:, 0]).exp()  # the log-likelihood under the truth is known
    truth = mf.distributions.DiagNormal(torch.zeros(2), torch.ones(2))
    whitened = torch.stack([x[:, 0], x[:, 1] * (-1.5 * x[:, 0]).exp()], dim=1)
    best = (truth.log_prob(whitened) - 1.5 * x[:, 0]).mean()
    flow = mf.flows.RealNVP(
        2, transforms=2, hidden_features=(16,), generator=torch.Generator().manual_seed(0)
    ).double()
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-2)
    for _ in range(150):
        loss = -flow().log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(float(-loss.detach() - best)) < 0.05
