"""The same flow in four libraries, each used as its documentation says.

A side is a function of a configuration that makes a flow, and gives its *cells*: calls without
arguments that do the work to be timed; none of a flow that it lacks. A peer inverts an
autoregressive transform in D passes, all alike. Where that takes minutes, its cell does some of the
passes of one transform.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import maskedflow as mf

__all__ = [
    "CELLS",
    "COMPILED",
    "CONFIGURATIONS",
    "LEARNING_RATE",
    "SIDES",
    "Cells",
    "Configuration",
    "make_ours",
]

Cells = dict[str, Callable[[], object]]

CELLS = ("log_prob", "log_prob + backward", "train step", "sample", "rsample + backward")

#: So small that the steps that are timed leave a flow as it was.
LEARNING_RATE = 1e-6

#: Splines are the identity beyond it.
BOUND = 5

#: zuko under torch.compile.
COMPILED = "zuko, compiled"


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
        context: The number of context features.
        bins: The bins of each spline; the maps are affine if 0.
        components: The components of each conditional of a base that is a MADE; it is N(0, I) if 0.
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
    context: int = 0
    bins: int = 0
    components: int = 0

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
    flow = partial(mf.flows.NSF, bins=shape.bins) if shape.bins else mf.flows.MAF
    base = None
    if shape.components:
        sizes = {"components": shape.components, "hidden_features": shape.hidden}
        base = mf.flows.base("made", shape.features, **sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1,024 units are too few for 3,072 features, as elsewhere
        return flow(
            shape.features,
            shape.context,
            transforms=shape.transforms,
            hidden_features=shape.hidden,
            widen=False,
            base=base,
        )


def ours(shape: Configuration) -> Cells:
    """The flow of this library."""
    flow = make_ours(shape)
    x, c = _rows(shape)
    draw = partial(_draw, flow, c, shape.batch)
    # fused Adam, as in maskedflow.training.fit
    return _torch_cells(flow.parameters(), lambda: flow(c).log_prob(x), draw, fused=True)


def zuko(shape: Configuration) -> Cells:
    """The same flow, mask for mask, wherever the network is wide enough."""
    from zuko.transforms import AutoregressiveTransform

    if shape.components:
        return {}
    flow = _make_zuko(shape)
    x, c = _rows(shape)

    def draw(cell: str) -> Tensor:
        passes = shape.passes("zuko", cell)
        if passes is None:
            return _draw(flow, c, shape.batch, cell)
        meta = flow.transform.transforms[0](c).meta
        return AutoregressiveTransform(meta, passes).inv(torch.randn_like(x))

    return _torch_cells(flow.parameters(), lambda: flow(c).log_prob(x), draw)


def compiled_zuko(shape: Configuration) -> Cells:
    """The flow of zuko, its density and its loss compiled by torch, if there is a C++ compiler."""
    if shape.components or shutil.which(os.environ.get("CXX", "g++")) is None:
        return {}
    torch.compiler.reset()  # what it saw with other sizes, it would compile for any size
    flow = _make_zuko(shape)
    x, c = _rows(shape)
    return _torch_cells(flow.parameters(), lambda: flow(c).log_prob(x), wrap=torch.compile)


def _make_zuko(shape: Configuration) -> nn.Module:
    from zuko.flows import MAF, NSF

    flow = partial(NSF, bins=shape.bins) if shape.bins else MAF
    return flow(
        shape.features, shape.context, transforms=shape.transforms, hidden_features=shape.hidden
    )


def nflows(shape: Configuration) -> Cells:
    """The nearest that nflows has: plain blocks in place of residual ones, widths all equal."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        ReversePermutation,
    )

    if shape.components:
        return {}
    splines = partial(
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        num_bins=shape.bins,
        tails="linear",
        tail_bound=BOUND,
    )
    transform = splines if shape.bins else MaskedAffineAutoregressiveTransform
    made = [
        transform(
            shape.features,
            shape.hidden[0],
            context_features=shape.context or None,
            num_blocks=len(shape.hidden) - 1,
            use_residual_blocks=False,
        )
        for _ in range(shape.transforms)
    ]
    steps = [step for one in made for step in (ReversePermutation(shape.features), one)]
    flow = Flow(CompositeTransform(steps), StandardNormal([shape.features]))
    x, c = _rows(shape)

    def draw(cell: str) -> Tensor:
        passes = shape.passes("nflows", cell)
        if passes is None:
            return flow.sample(shape.batch if c is None else 1, context=c)
        z, y = torch.randn_like(x), torch.zeros_like(x)
        for _ in range(passes):  # as the transform's own `inverse` does
            y, _ = made[0]._elementwise_inverse(z, made[0].autoregressive_net(y, c))
        return y

    return _torch_cells(flow.parameters(), lambda: flow.log_prob(x, context=c), draw)


def _rows(shape: Configuration) -> tuple[Tensor, Tensor | None]:
    """A batch, and its contexts."""
    x = torch.randn(shape.batch, shape.features)
    return x, torch.randn(shape.batch, shape.context) if shape.context else None


def _draw(flow: nn.Module, c: Tensor | None, rows: int, cell: str) -> Tensor:
    density = flow(c)
    draw = density.sample if cell == "sample" else density.rsample
    draws: Tensor = draw((rows,) if c is None else ())
    return draws


def _torch_cells(
    parameters: Iterable[nn.Parameter],
    log_prob: Callable[[], Tensor],
    draw: Callable[[str], Tensor] | None = None,
    *,
    fused: bool | None = None,
    wrap: Callable[[Callable[[], Tensor]], Callable[[], Tensor]] = lambda call: call,
) -> Cells:
    """The cells of a flow of torch; none that draw if `draw`, of a cell's name, is not given."""
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=fused)

    def descend(loss: Callable[[], Tensor], step: bool) -> None:
        optimizer.zero_grad()
        loss().backward()
        if step:
            optimizer.step()

    def nll() -> Tensor:
        return -log_prob().mean()

    loss = wrap(nll)
    cells: Cells = {
        "log_prob": torch.no_grad()(wrap(log_prob)),
        "log_prob + backward": partial(descend, loss, step=False),
        "train step": partial(descend, loss, step=True),
    }
    if draw is None:
        return cells

    def size() -> Tensor:
        return draw("rsample + backward").square().mean()

    return cells | {
        "sample": torch.no_grad()(partial(draw, "sample")),
        "rsample + backward": partial(descend, size, step=False),
    }


def flowjax(shape: Configuration) -> Cells:
    """The same sizes, compiled by jax, between random permutations."""
    import equinox as eqx
    import jax
    import optax
    import paramax
    from flowjax.bijections import Affine, MaskedAutoregressive, RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train.losses import MaximumLikelihoodLoss
    from flowjax.train.train_utils import step

    if shape.components:
        return {}
    key = jax.random.key(0)
    width, depth = shape.hidden[0], len(shape.hidden)
    transformer = (
        # a bin more than inner knots
        RationalQuadraticSpline(knots=shape.bins - 1, interval=BOUND) if shape.bins else Affine()
    )
    flow = masked_autoregressive_flow(
        key,
        base_dist=Normal(jax.numpy.zeros(shape.features)),
        transformer=transformer,
        cond_dim=shape.context or None,
        flow_layers=shape.transforms,
        nn_width=width,
        nn_depth=depth,
    )
    one = MaskedAutoregressive(
        key, transformer=transformer, dim=shape.features, nn_width=width, nn_depth=depth
    )
    x = jax.random.normal(key, (shape.batch, shape.features))
    c = jax.random.normal(key, (shape.batch, shape.context)) if shape.context else None

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
            params, static, x, c, key=key, optimizer=optimizer, opt_state=state, loss_fn=nll
        )
        jax.block_until_ready((params, loss))

    def draw(cell: str, model: eqx.Module) -> jax.Array:
        passes = shape.passes("flowjax", cell)
        if passes is None:
            return model.sample(key, (shape.batch,) if c is None else (), condition=c)
        transform = paramax.unwrap(model)

        def invert(z: jax.Array) -> jax.Array:  # as the transform's own inverse does
            scan = partial(transform.inv_scan_fn, condition=None)
            return jax.lax.scan(scan, (z, 0), None, length=passes)[0][0]

        return jax.vmap(invert)(jax.random.normal(key, x.shape))

    def loss(params: eqx.Module, static: eqx.Module) -> jax.Array:
        return (draw("rsample + backward", eqx.combine(params, static)) ** 2).mean()

    def model_of(cell: str) -> eqx.Module:
        return flow if shape.passes("flowjax", cell) is None else one

    log_prob = eqx.filter_jit(lambda model, x, c: model.log_prob(x, c))
    nll_gradient = eqx.filter_jit(eqx.filter_grad(nll))
    sample = eqx.filter_jit(partial(draw, "sample"))
    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    halves = split(model_of("rsample + backward"))
    ready = jax.block_until_ready
    return {
        "log_prob": lambda: ready(log_prob(flow, x, c)),
        "log_prob + backward": lambda: ready(nll_gradient(params, static, x, c)),
        "train step": train,
        "sample": lambda: ready(sample(model_of("sample"))),
        "rsample + backward": lambda: ready(gradient(*halves)),
    }


SIDES: dict[str, Callable[[Configuration], Cells]] = {
    "maskedflow": ours,
    "zuko": zuko,
    COMPILED: compiled_zuko,
    "nflows": nflows,
    "flowjax": flowjax,
}
