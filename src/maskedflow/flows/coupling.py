"""Coupling flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions.transforms import Transform as TorchTransform

from maskedflow.chain import Coupled, Step, is_known
from maskedflow.nn import MaskedMLP
from maskedflow.transforms import (
    CouplingTransform,
    LazyTransform,
    MonotonicAffineTransform,
)
from maskedflow.transforms.autoregressive import parts_of

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

Activation = Callable[[], nn.Module]


class GeneralCouplingTransform(ConditionedTransform):
    r"""A lazy coupling: some features are kept, the others mapped given them.

    .. math:: z_a = x_a, \qquad z_b = f(x_b \mid \phi), \quad \phi = \text{MLP}(x_a, c)

    Each direction costs one pass of the network. A :class:`MaskedAutoregressiveTransform` with two
    passes is a coupling as well, whose first half is not kept but mapped given the context alone.

    Args:
        mask: Which features are kept, with shape (D,); every second, from the second on, if None. A
            single feature is always mapped.
        activation: The constructor of the activation. A sequence of them, one a parameter, makes a
            network of its own for each parameter, as RealNVP has for shifts and scales.
        kwargs: What :class:`maskedflow.nn.MaskedMLP` takes: `hidden_features`, `residual`,
            `generator`.

    Raises:
        ValueError: If the mask does not fit the features, or keeps all or none of them.

    References:
        | NICE (Dinh et al., 2014), https://arxiv.org/abs/1410.8516
        | RealNVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803

    Example:
        >>> t = GeneralCouplingTransform(3, context=4, mask=torch.tensor([True, False, False]))
        >>> x, c = torch.randn(3), torch.randn(4)
        >>> z = t(c)(x)
        >>> bool(z[0] == x[0]), torch.allclose(t(c).inv(z), x, atol=1e-5)
        (True, True)
    """

    mask: Tensor

    def __init__(
        self,
        features: int,
        context: int = 0,
        mask: Sequence[bool] | Tensor | None = None,
        univariate: Callable[..., TorchTransform] | str = MonotonicAffineTransform,
        shapes: Sequence[Sequence[int]] = ((), ()),
        *,
        activation: Activation | Sequence[Activation | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, context, univariate, shapes)
        self.register_buffer("mask", _check_mask(mask, features))
        self._take_mask()
        kept = int(self.mask.sum())
        if isinstance(activation, list | tuple):
            if len(activation) != len(self.shapes):
                raise ValueError(
                    f"activation: expected one for each of {len(self.shapes)} parameters, "
                    f"got {len(activation)}"
                )
            networks = list(zip(self.sizes, activation, strict=True))
        else:
            networks = [(self.total, activation)]
        # A single feature reads none: its network has one input that is masked.
        inputs = torch.tensor([kept > 0] * max(kept, 1) + [True] * context)
        self.hyper = nn.ModuleList(
            MaskedMLP(
                inputs.expand((features - kept) * size, -1),
                context=context,
                activation=each,
                **kwargs,
            )
            for size, each in networks
        )
        self.register_load_state_dict_post_hook(GeneralCouplingTransform._take_mask)  # type: ignore[no-untyped-call]

    def _take_mask(self, _: object = None) -> None:
        """Keeps indices as constants: they cannot depend on what torch.func maps over."""
        self._mask = self.mask.cpu().clone()
        self._parts = parts_of(self._mask)
        self._step: Coupled | None = None

    def extra_repr(self) -> str:
        return self.summary("mask", self._mask.int().tolist())

    def meta(self, c: Tensor | None, x_a: Tensor) -> TorchTransform:
        """Makes the transform of the features that are mapped, given those that are kept."""
        mapped = self.features - x_a.shape[-1]
        read = x_a if self.features > 1 else F.pad(x_a, (0, 1))
        parts = [net(read, c) for net in self.hyper]
        phi = torch.cat([part.unflatten(-1, (mapped, -1)) for part in parts], dim=-1)
        return self.map_of(phi)

    def forward(self, c: Tensor | None = None) -> CouplingTransform:
        check_context(c, self.context)
        return CouplingTransform(partial(self.meta, c), self._parts)

    def steps(self) -> list[Step] | None:
        step = self._step
        hyper = cast(tuple[MaskedMLP, ...], tuple(self.hyper.children()))
        kernel = self.kernel()
        if step is not None:
            same = step.conditioners == hyper and step.kernel == kernel
            if same and step.is_current():
                return [step]
        kind = type(self)
        plain = kind.meta is GeneralCouplingTransform.meta and (
            kind.forward is GeneralCouplingTransform.forward
        )
        if not plain or kernel is None or not all(map(is_known, hyper)):
            return None
        kept, mapped, _ = self._parts
        self._step = Coupled(hyper, kernel, tuple(kept.tolist()), tuple(mapped.tolist()))
        return [self._step]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_step": None}


def _check_mask(mask: Sequence[bool] | Tensor | None, features: int) -> Tensor:
    given = torch.arange(features) % 2 == 1 if mask is None else torch.as_tensor(mask).cpu().bool()
    if given.shape != (features,):
        raise ValueError(f"mask: expected shape ({features},), got {tuple(given.shape)}")
    if features == 1:
        return torch.zeros(1, dtype=torch.bool)
    kept = int(given.sum())
    if kept in (0, features):
        raise ValueError(
            f"mask: expected both features to keep and to map, got {kept} of {features} to keep"
        )
    return given


class NICE(Flow):
    r"""A flow of couplings: NICE where they are additive, RealNVP where they are affine.

    Scoring and sampling both cost one pass of each transform's network. Couplings are affine, as in
    RealNVP, unless `univariate` says otherwise.

    Args:
        randmask: Whether each coupling keeps a random half. If False, those with even and those
            with odd numbers are kept in turns.
        kwargs: `batch_norm` and `between`, as :class:`MAF` takes them, and what
            :class:`GeneralCouplingTransform` takes.

    References:
        | NICE (Dinh et al., 2014), https://arxiv.org/abs/1410.8516
        | RealNVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803

    Example:
        The additive couplings of NICE keep volumes:

        >>> from maskedflow.transforms import AdditiveTransform
        >>> flow = NICE(3, univariate=AdditiveTransform, shapes=[()])
        >>> flow().transform.call_and_ladj(torch.zeros(3))[1].detach()
        tensor(0.)
    """

    passes_to = (GeneralCouplingTransform, MaskedMLP)

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        randmask: bool = False,
        *,
        batch_norm: bool = False,
        between: Callable[[int], LazyTransform] | None = None,
        base: LazyDistribution | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        check_sizes(context, features=features)
        couplings = []
        for number in range(transforms):
            ranks = torch.arange(features)
            if randmask:
                ranks = torch.randperm(features, generator=generator)
            mask = ranks % 2 == number % 2
            couplings.append(
                GeneralCouplingTransform(features, context, mask, generator=generator, **kwargs)
            )
        steps = interleave(couplings, features, batch_norm=batch_norm, between=between)
        super().__init__(steps, standard_normal(features) if base is None else base)

    def extra_repr(self) -> str:
        return costs(self, GeneralCouplingTransform, "pass", "pass")


class RealNVP(NICE):
    """A flow of affine couplings.

    Args:
        kwargs: What :class:`NICE` takes.

    References:
        RealNVP (Dinh et al., 2016), https://arxiv.org/abs/1605.08803

    Example:
        With which the paper on MAF compares: a shift network with ReLUs, a scale network with
        tanh, and batch norm:

        >>> from torch.nn import ReLU, Tanh
        >>> flow = RealNVP(6, transforms=5, activation=(ReLU, Tanh), batch_norm=True)
        >>> flow().sample((2,)).shape
        torch.Size([2, 6])
    """
