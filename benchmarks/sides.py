"""The same flow in four libraries, each used as its documentation says.

A side is a function of a configuration that makes a flow, and gives its *cells*: calls without
arguments that do the work to be timed. A peer inverts an autoregressive transform in D passes, all
alike. Where that takes minutes, its cell does some of the passes of one transform.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import maskedflow as mf

__all__ = ["CELLS", "CONFIGURATIONS", "SIDES", "Cells", "Configuration", "make_ours"]

Cells = dict[str, Callable[[], object]]

CELLS = ("log_prob", "log_prob + backward", "train step", "sample", "rsample + backward")

#: So small that the steps that are timed leave a flow as it was.
LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Configuration:
    """A flow and the size of a batch.

    Args:
        name: What it is called.
        features: The number of features D.
        hidden: The widths of the hidden layers of each network.
        batch: The rows of a batch.
        transforms: The number of autoregressive transforms.
        sample_passes: The passes that a peer's `sample` does, of one transform; all of all if None.
        rsample_passes: The same for `rsample + backward`.
        whole: Sides whose `sample` does all passes nonetheless, once, and without a warm-up.
        cells: What is timed.
    """

    name: str
    features: int
    hidden: tuple[int, ...]
    batch: int
    transforms: int = 5
    sample_passes: int | None = None
    rsample_passes: int | None = None
    whole: tuple[str, ...] = ()
    cells: tuple[str, ...] = CELLS

    def passes(self, side: str, cell: str) -> int | None:
        """The passes of one transform that a cell does; None if it does all of all."""
        if side == "maskedflow" or (cell == "sample" and side in self.whole):
            return None
        return {"sample": self.sample_passes, "rsample + backward": self.rsample_passes}.get(cell)

    def scale(self, side: str, cell: str) -> float:
        """How much more the whole work is than what the cell does."""
        passes = self.passes(side, cell)
        return 1.0 if passes is None else self.transforms * self.features / passes


CONFIGURATIONS = (
    Configuration("POWER", 6, (100, 100), 1000),
    Configuration("BSDS300", 63, (512, 512), 1000, rsample_passes=63),
    Configuration("MNIST", 784, (1024,), 100, sample_passes=32, rsample_passes=32, whole=("zuko",)),
    Configuration("MNIST-1000", 784, (1024,), 1000, sample_passes=16, cells=("log_prob", "sample")),
    Configuration(
        "CIFAR-10", 3072, (1024,), 100, transforms=10, sample_passes=32, rsample_passes=16
    ),
)


def make_ours(shape: Configuration) -> mf.flows.MAF:
    """Our flow of a configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1,024 units are too few for 3,072 features, as elsewhere
        return mf.flows.MAF(
            shape.features, transforms=shape.transforms, hidden_features=shape.hidden, widen=False
        )


def ours(shape: Configuration) -> Cells:
    """The flow of this library."""
    flow = make_ours(shape)
    x = torch.randn(shape.batch, shape.features)
    draw = partial(_call_rsample, flow, shape.batch)
    # fused Adam, as in maskedflow.training.fit
    return _torch_cells(flow.parameters(), lambda: flow().log_prob(x), draw, draw, fused=True)


def zuko(shape: Configuration) -> Cells:
    """The same flow, mask for mask, wherever the network is wide enough."""
    from zuko.flows import MAF
    from zuko.transforms import AutoregressiveTransform

    flow = MAF(shape.features, transforms=shape.transforms, hidden_features=shape.hidden)
    x = torch.randn(shape.batch, shape.features)

    def draw(cell: str) -> Tensor:
        passes = shape.passes("zuko", cell)
        if passes is None:
            return _call_rsample(flow, shape.batch)
        meta = flow.transform.transforms[0]().meta
        return AutoregressiveTransform(meta, passes).inv(torch.randn_like(x))

    return _torch_cells(
        flow.parameters(),
        lambda: flow().log_prob(x),
        partial(draw, "sample"),
        partial(draw, "rsample + backward"),
    )


def nflows(shape: Configuration) -> Cells:
    """The nearest that nflows has: plain blocks in place of residual ones, widths all equal."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        ReversePermutation,
    )

    made = [
        MaskedAffineAutoregressiveTransform(
            shape.features,
            shape.hidden[0],
            num_blocks=len(shape.hidden) - 1,
            use_residual_blocks=False,
        )
        for _ in range(shape.transforms)
    ]
    steps = [step for one in made for step in (ReversePermutation(shape.features), one)]
    flow = Flow(CompositeTransform(steps), StandardNormal([shape.features]))
    x = torch.randn(shape.batch, shape.features)

    def draw(cell: str) -> Tensor:
        passes = shape.passes("nflows", cell)
        if passes is None:
            return flow.sample(shape.batch)
        z, y = torch.randn_like(x), torch.zeros_like(x)
        for _ in range(passes):  # as the transform's own `inverse` does
            y, _ = made[0]._elementwise_inverse(z, made[0].autoregressive_net(y))
        return y

    return _torch_cells(
        flow.parameters(),
        lambda: flow.log_prob(x),
        partial(draw, "sample"),
        partial(draw, "rsample + backward"),
    )


def _call_rsample(flow: nn.Module, rows: int) -> Tensor:
    draws: Tensor = flow().rsample((rows,))
    return draws


def _torch_cells(
    parameters: Iterable[nn.Parameter],
    log_prob: Callable[[], Tensor],
    sample: Callable[[], Tensor],
    rsample: Callable[[], Tensor],
    fused: bool | None = None,
) -> Cells:
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=fused)

    def descend(loss: Callable[[], Tensor], step: bool) -> None:
        optimizer.zero_grad()
        loss().backward()
        if step:
            optimizer.step()

    def nll() -> Tensor:
        return -log_prob().mean()

    calls = (
        torch.no_grad()(log_prob),
        partial(descend, nll, step=False),
        partial(descend, nll, step=True),
        torch.no_grad()(sample),
        partial(descend, lambda: rsample().square().mean(), step=False),
    )
    return dict(zip(CELLS, calls, strict=True))


def flowjax(shape: Configuration) -> Cells:
    """The same sizes, compiled by jax, between random permutations."""
    import equinox as eqx
    import jax
    import optax
    import paramax
    from flowjax.bijections import Affine, MaskedAutoregressive
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train.losses import MaximumLikelihoodLoss
    from flowjax.train.train_utils import step

    key = jax.random.key(0)
    width, depth = shape.hidden[0], len(shape.hidden)
    rows = (shape.batch, shape.features)
    flow = masked_autoregressive_flow(
        key,
        base_dist=Normal(jax.numpy.zeros(shape.features)),
        transformer=Affine(),
        flow_layers=shape.transforms,
        nn_width=width,
        nn_depth=depth,
    )
    one = MaskedAutoregressive(
        key, transformer=Affine(), dim=shape.features, nn_width=width, nn_depth=depth
    )
    x = jax.random.normal(key, rows)

    # As flowjax.train.fit_to_data does it.
    split = partial(
        eqx.partition,
        filter_spec=eqx.is_inexact_array,
        is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
    )
    params, static = split(flow)
    optimizer = optax.adam(LEARNING_RATE)
    state = None
    nll = MaximumLikelihoodLoss()

    def train() -> None:
        nonlocal params, state
        state = optimizer.init(params) if state is None else state
        params, state, loss = step(
            params, static, x, key=key, optimizer=optimizer, opt_state=state, loss_fn=nll
        )
        jax.block_until_ready((params, loss))

    def draw(cell: str, model: eqx.Module) -> jax.Array:
        passes = shape.passes("flowjax", cell)
        if passes is None:
            return model.sample(key, (shape.batch,))
        transform = paramax.unwrap(model)

        def invert(z: jax.Array) -> jax.Array:  # as the transform's own inverse does
            scan = partial(transform.inv_scan_fn, condition=None)
            return jax.lax.scan(scan, (z, 0), None, length=passes)[0][0]

        return jax.vmap(invert)(jax.random.normal(key, rows))

    def loss(params: eqx.Module, static: eqx.Module) -> jax.Array:
        return (draw("rsample + backward", eqx.combine(params, static)) ** 2).mean()

    def model_of(cell: str) -> eqx.Module:
        return flow if shape.passes("flowjax", cell) is None else one

    log_prob = eqx.filter_jit(lambda model, x: model.log_prob(x))
    nll_gradient = eqx.filter_jit(eqx.filter_grad(nll))
    sample = eqx.filter_jit(partial(draw, "sample"))
    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    halves = split(model_of("rsample + backward"))
    ready = jax.block_until_ready
    return {
        "log_prob": lambda: ready(log_prob(flow, x)),
        "log_prob + backward": lambda: ready(nll_gradient(params, static, x)),
        "train step": train,
        "sample": lambda: ready(sample(model_of("sample"))),
        "rsample + backward": lambda: ready(gradient(*halves)),
    }


SIDES: dict[str, Callable[[Configuration], Cells]] = {
    "maskedflow": ours,
    "zuko": zuko,
    "nflows": nflows,
    "flowjax": flowjax,
}
