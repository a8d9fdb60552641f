"""Masked autoregressive flows, and inverse ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.chain import Chain, Conditioned, Step, is_known
from maskedflow.distributions import NormalizingFlow
from maskedflow.masks import generations, topological_generations
from maskedflow.nn import MaskedMLP
from maskedflow.staircase import is_traced
from maskedflow.sweep import invert
from maskedflow.transforms import (
    AutoregressiveTransform,
    ComposedTransform,
    DependentTransform,
    LazyComposedTransform,
    LazyInverse,
    LazyTransform,
    MonotonicAffineTransform,
    MonotonicMixtureTransform,
    check_features,
)

from .elementwise import ConditionedTransform
from .flow import (
    Flow,
    LazyDistribution,
    check_context,
    check_sizes,
    costs,
    interleave,
    standard_normal,
)
from .marginals import marginal_mixtures


class MaskedAutoregressiveTransform(ConditionedTransform):
    r"""A lazy autoregressive transform whose conditioner is a masked MLP.

    .. math:: z_i = f(x_i \mid \phi_i), \quad \phi_i = \text{MADE}(x_{<i}, c)

    The forward direction, data to latent, costs one pass of the network.

    Args:
        passes: The number of generations, see :func:`maskedflow.masks.generations`. D, fully
            autoregressive, if None; 2 is a coupling.
        order: The rank of each feature in the chain, with shape (D,); ascending if None.
        adjacency: Instead of an order and passes, the graph: whether feature i depends on feature
            j, ones on the diagonal, with shape (D, D) or (D, D + context).
        kwargs: What :class:`maskedflow.nn.MaskedMLP` takes: `hidden_features`, `activation`,
            `residual`, `degrees`, `widen`, `generator`. And `periodic=True` if features are angles
            in radians: the conditioner then reads their cosines and sines, so that nothing jumps
            at half a turn. An inverse costs a pass a generation.

    Raises:
        ValueError: If order, passes or adjacency do not fit the features.

    References:
        Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057

    Example:
        >>> t = MaskedAutoregressiveTransform(3, context=4)
        >>> x, c = torch.randn(3), torch.randn(4)
        >>> torch.allclose(t(c).inv(t(c)(x)), x, atol=1e-5)
        True
    """

    generation: Tensor

    def __init__(
        self,
        features: int,
        context: int = 0,
        passes: int | None = None,
        order: Sequence[int] | Tensor | None = None,
        adjacency: Tensor | None = None,
        univariate: Callable[..., TorchTransform] | str = MonotonicAffineTransform,
        shapes: Sequence[Sequence[int]] = ((), ()),
        **kwargs: Any,
    ) -> None:
        super().__init__(features, context, univariate, shapes)
        self.periodic = periodic = bool(kwargs.pop("periodic", False))
        if adjacency is None:
            generation = generations(features, order=order, passes=passes)
            depends = generation[:, None] > generation
            on_context = torch.ones(features, context, dtype=torch.bool)
        else:
            depends, on_context = _graph(adjacency, features, context)
            generation = topological_generations(depends)
        self.register_buffer("generation", generation)
        self._sort()
        ranks = torch.arange(features) if self._order is None else self._order
        read = [depends[ranks][:, ranks]] * (2 if periodic else 1)
        depends = torch.cat([*read, on_context[ranks]], dim=1)
        self.hyper = MaskedMLP(
            depends.repeat_interleave(self.total, dim=0),
            context=context,
            generation=None if periodic else generation[ranks],
            **kwargs,
        )
        self._chain: Chain | None = None
        self.register_load_state_dict_post_hook(MaskedAutoregressiveTransform._sort)  # type: ignore[no-untyped-call]

    def _sort(self, _: object = None) -> None:
        """Finds the order in which generations ascend, unless they do, or descend, as they are."""
        steps = self.generation.diff()
        monotone = bool((steps >= 0).all() or (steps <= 0).all())
        self._order = None if monotone else self.generation.argsort(stable=True)
        self._rank = None if self._order is None else self._order.argsort()
        self._chain = None
        self.passes = int(self.generation.max())

    @property
    def order(self) -> Tensor:
        """The step of an inverse at which each feature is found, from 0 on."""
        return self.generation - 1

    def extra_repr(self) -> str:
        return self.summary("generation", self.generation.tolist())

    def meta(self, c: Tensor | None, x: Tensor) -> TorchTransform:
        """Makes the transform of all features that are given each its predecessors in x."""
        check_features("x", x, self.features)
        x = x if self._order is None else x[..., self._order]
        phi = self.hyper(torch.cat([x.cos(), x.sin()], dim=-1) if self.periodic else x, c)
        phi = phi.view(*phi.shape[:-1], self.features, self.total)
        if self._rank is not None:
            phi = phi[..., self._rank, :]
        return self.map_of(phi)

    def forward(self, c: Tensor | None = None) -> AutoregressiveTransform:
        check_context(c, self.context)
        swept = type(self.hyper) is MaskedMLP and not self.periodic
        sweep = partial(self._sweep, c) if swept else None
        return AutoregressiveTransform(partial(self.meta, c), self.passes, sweep)

    def steps(self) -> list[Step] | None:
        known, hyper = self._chain, cast(MaskedMLP, self._modules["hyper"])
        kernel = self.kernel()
        if known is not None:
            step = cast(Conditioned, known.steps[0])
            if step.conditioner is hyper and step.kernel == kernel and step.is_current():
                return [step]
        kind = type(self)
        plain = kind.meta is MaskedAutoregressiveTransform.meta and (
            kind.forward is MaskedAutoregressiveTransform.forward
        )
        if not plain or self.periodic or kernel is None or not is_known(hyper):
            return None
        order = None if self._order is None else tuple(self._order.tolist())
        step = Conditioned(hyper, kernel, order)
        if not step.is_current():  # a parameter is computed from others
            return None
        self._chain = Chain([step])
        return [step]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chain": None}

    def _sweep(self, c: Tensor | None, z: Tensor) -> tuple[Tensor, Tensor]:
        check_features("z", z, self.features)
        if not is_traced() and self.steps() is not None and (chain := self._chain) is not None:
            vectors = chain.vectors(z, c, inverse=True)
            if vectors is not None:
                return chain(z, c, vectors, inverse=True)
        z = z if self._order is None else z[..., self._order]
        univariate = partial(self.map_of, dims=0)
        x, ladj = invert(self.hyper, univariate, z, c, list(self.parameters()))
        return (x if self._rank is None else x[..., self._rank]), ladj


def _graph(adjacency: Tensor, features: int, context: int) -> tuple[Tensor, Tensor]:
    """The dependencies on features, without the diagonal, and on the context."""
    adjacency = torch.as_tensor(adjacency).bool().cpu()
    if adjacency.shape not in ((features, features), (features, features + context)):
        raise ValueError(
            f"adjacency: expected shape {(features, features)} or {(features, features + context)},"
            f" got {tuple(adjacency.shape)}"
        )
    depends, on_context = adjacency[:, :features], adjacency[:, features:]
    if not depends.diagonal().all():
        raise ValueError("adjacency: expected ones on the diagonal")
    if on_context.shape[1] < context:
        on_context = torch.ones(features, context, dtype=torch.bool)
    return depends & ~torch.eye(features, dtype=torch.bool), on_context


class MAF(Flow):
    r"""A masked autoregressive flow.

    Scoring costs one pass of each transform's network.

    Args:
        order: The order of the first transform, ascending if None; reversed in the second and so
            on in turns, unless `randperm` draws an order for each.
        batch_norm: Whether a :class:`~maskedflow.transforms.BatchNorm` follows every transform.
        between: Makes a layer between a transform and the next, given the number of features:
            :class:`~maskedflow.transforms.LULinear`, for example.
        base: The lazy distribution of the latent, N(0, I) if None; see :func:`base` for others.
        kwargs: What :class:`MaskedAutoregressiveTransform` takes.

    References:
        | Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017)
        | https://arxiv.org/abs/1705.07057

    Example:
        >>> flow = MAF(3, context=4, transforms=3)
        >>> c = torch.randn(4)
        >>> x = flow(c).sample()
        >>> flow(c).log_prob(x).shape
        torch.Size([])
    """

    density_cost, sample_cost = "pass", "sweep"
    passes_to = (MaskedAutoregressiveTransform, MaskedMLP)

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        randperm: bool = False,
        *,
        order: Sequence[int] | Tensor | None = None,
        batch_norm: bool = False,
        between: Callable[[int], LazyTransform] | None = None,
        base: LazyDistribution | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        check_sizes(context, features=features)
        first = torch.arange(features) if order is None else torch.as_tensor(order)
        layers = []
        for number in range(transforms):
            if randperm:
                ranks = torch.randperm(features, generator=generator)
            else:
                ranks = features - 1 - first if number % 2 else first
            layers.append(
                MaskedAutoregressiveTransform(
                    features, context, order=ranks, generator=generator, **kwargs
                )
            )
        steps = interleave(layers, features, batch_norm=batch_norm, between=between)
        super().__init__(steps, standard_normal(features) if base is None else base)

    def extra_repr(self) -> str:
        return costs(self, MaskedAutoregressiveTransform, self.density_cost, self.sample_cost)


class MADE(MAF):
    r"""A masked autoencoder for distribution estimation: one transform.

    .. math:: p(x \mid c) = \prod_i \sum_{k=1}^K w_k(x_{<i}, c) \,
        \mathcal{N}(x_i \mid m_k(x_{<i}, c), e^{-p_k(x_{<i}, c)})

    Its conditionals are Gaussian, or mixtures of K Gaussians (see
    :class:`~maskedflow.transforms.MonotonicMixtureTransform`), whose weights, means and
    log-precisions start as N(0, 1). As the base of a MAF this is the paper's MAF MoG, with
    mixtures at its end for what affine maps do not reach.

    Scoring costs one pass of the network, a sample one sweep. Mixtures are scored without their
    latent, which would cost five times as much.

    Args:
        components: The number of Gaussians K in a conditional.
        kwargs: What :class:`MAF` takes.

    Raises:
        ValueError: If `components` is below 1.

    References:
        | MADE (Germain et al., 2015), https://arxiv.org/abs/1502.03509
        | Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057

    Example:
        >>> MADE(2)().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> mog = MADE(3, context=2, components=10, order=[2, 1, 0])  # reversed once more
        >>> maf_mog = MAF(3, context=2, transforms=5, base=mog)
        >>> maf_mog(torch.zeros(4, 2)).sample((5,)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        components: int = 1,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        check_sizes(components=components)
        if components > 1:
            mixtures = {"univariate": MonotonicMixtureTransform, "shapes": [(components,)] * 3}
            kwargs = dict(**mixtures, **kwargs)
        super().__init__(features, context, transforms=1, generator=generator, **kwargs)
        changed = any(kwargs.get(name) for name in ("batch_norm", "between", "base"))
        self._is_mixture = components > 1 and not changed
        self.components = components
        if components > 1:
            nn.init.normal_(self._last_bias, generator=generator)

    @property
    def _step(self) -> MaskedAutoregressiveTransform:
        step = cast(LazyComposedTransform, self.transform).transforms[0]
        return cast(MaskedAutoregressiveTransform, step)

    @property
    def _last_bias(self) -> Tensor:
        return cast(Tensor, self._step.hyper.layers[-1].bias)

    @torch.no_grad()
    def initialize(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Starts conditionals that are mixtures at those of each feature on its own.

        The network's last weights are small, so that it begins near its biases.

        Args:
            x: The data, with shape (n, features).
            weight: How much each row counts, with shape (n,); all alike if None.

        Raises:
            ValueError: If the conditionals are no mixtures.

        Example:
            >>> made = MADE(2, components=3)
            >>> made.initialize(torch.randn(1000, 2))
            >>> bool(made().log_prob(torch.randn(1000, 2)).mean() > -3)
            True
        """
        if self.components == 1:
            raise ValueError("components: expected at least 2 to start, got 1")
        phi = torch.cat(marginal_mixtures(x, self.components, weight), dim=1)
        order = self._step._order
        self._last_bias.copy_((phi if order is None else phi[order]).flatten())

    def distribution(self, c: Tensor | None) -> NormalizingFlow:
        flow = super().distribution(c)
        # A batch norm behind the network, or another base, leaves no mixture of the data.
        return MixtureFlow(flow.transform, flow.base) if self._is_mixture else flow

    def steps(self) -> list[Step] | None:
        steps = super().steps()
        return None if steps and steps[-1].is_density and not self._is_mixture else steps


class MixtureFlow(NormalizingFlow):
    """The distribution of one autoregressive transform whose conditionals are mixtures."""

    def density(self, value: Tensor) -> Tensor:
        (step,) = cast(ComposedTransform, self.transform).transforms
        mixtures = cast(DependentTransform, cast(AutoregressiveTransform, step).meta(value)).base
        log_prob = cast(MonotonicMixtureTransform, mixtures).log_density(value).sum(dim=-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))


class IAF(MAF):
    r"""An inverse autoregressive flow: MAF's transforms with their directions exchanged.

    .. math:: x_i = f(z_i \mid \phi_i), \quad \phi_i = \text{MADE}(z_{<i}, c)

    Sampling costs one pass of each transform's network. Scoring costs one sweep of it, which is
    about as cheap: the usual D passes, for which IAF is said to be unable to score data, are not
    needed. Training by maximum likelihood costs one pass and two sweeps, one in reverse; on
    its own samples, as a posterior, one pass. Its log-density has no second derivative, save by
    :mod:`torch.func`.

    Args:
        kwargs: What :class:`MAF` takes. Batch norms and layers in between keep their direction.

    References:
        Inverse Autoregressive Flow (Kingma et al., 2016), https://arxiv.org/abs/1606.04934

    Example:
        >>> flow = IAF(3, context=4)
        >>> x, log_prob = flow(torch.randn(4)).rsample_and_log_prob((5,))
        >>> x.shape, log_prob.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    density_cost, sample_cost = MAF.sample_cost, MAF.density_cost

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        randperm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, context, transforms, randperm, **kwargs)
        self.transform = LazyComposedTransform(
            *(
                LazyInverse(step) if isinstance(step, MaskedAutoregressiveTransform) else step
                for step in self.transform.transforms  # type: ignore[union-attr]
            )
        )
