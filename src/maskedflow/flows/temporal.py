"""Densities of sequences: a MAF for each time step, given the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Size, Tensor, nn
from torch.distributions import Transform

from maskedflow.distributions import Density, NormalizingFlow, refuse_nan
from maskedflow.distributions.base import Shape
from maskedflow.transforms import (
    DependentTransform,
    IdentityTransform,
    LazyTransform,
    call_and_ladj,
)

from .autoregressive import MAF, MaskedAutoregressiveTransform
from .flow import LazyDistribution, check_sizes, costs

State = tuple[Tensor, ...]
"""The hidden state of a recurrent network, each part with shape (*, num_layers, hidden_size)."""


class TemporalMAF(LazyDistribution):
    r"""A density of sequences: a MAF for each time step, given a recurrent network's past.

    .. math:: \log p(x_{1:T} \mid c_{1:T}) = \sum_{t=1}^T \log p(x_t \mid h_t, c_t), \qquad
        h_{t+1} = \text{RNN}(h_t, [x_t, c_t]), \quad h_1 = 0

    Covariates :math:`c_t` are what is known of a step beforehand, like the hour or the weekday.
    They speak of their own step and, through the network, of later ones.

    A density costs one pass of the recurrent network over the sequence and one pass of the MAF over
    all steps as one batch; a sample costs, for each step, one sweep and one step of the network.

    Args:
        features: The number of features D of a step.
        context: The number of covariates of a step.
        steps: The number of steps T where a call does not say; none by default.
        rnn: The recurrent network, `gru` or `lstm`.
        hidden_size: The number of its units.
        num_layers: The number of its layers.
        preprocessing: A transform of a step's features, applied first: the recurrent network and
            the MAF see what comes of it, the density is of what goes in.
        embedding: A network that the covariates of a step go through first.
        kwargs: What :class:`MAF` takes, but for `batch_norm`: its statistics would tell a step of
            later ones.

    Raises:
        ValueError: If a size is below one, `rnn` is unknown, or `batch_norm` is asked for.

    References:
        | Multivariate Probabilistic Time Series Forecasting via Conditioned Normalizing Flows
          (Rasul et al., 2021), section 3, https://arxiv.org/abs/2002.06103

    Example:
        >>> flow = TemporalMAF(2, context=1)
        >>> hours = torch.linspace(0, 1, 24)[:, None]
        >>> x = flow(hours).sample((5,))
        >>> x.shape, flow(hours).log_prob(x).shape
        (torch.Size([5, 24, 2]), torch.Size([5]))
        >>> flow.forecast(x[:, :20], c=hours).sample((100,)).shape
        torch.Size([100, 5, 4, 2])
    """

    passes_to = (MAF, *MAF.passes_to)

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        randperm: bool = False,
        *,
        steps: int | None = None,
        rnn: Literal["gru", "lstm"] = "gru",
        hidden_size: int = 64,
        num_layers: int = 1,
        preprocessing: LazyTransform | None = None,
        embedding: nn.Module | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_sizes(context, features=features, hidden_size=hidden_size, num_layers=num_layers)
        if rnn not in ("gru", "lstm"):
            raise ValueError(f"rnn: expected 'gru' or 'lstm', got {rnn!r}")
        if kwargs.pop("batch_norm", False):
            raise ValueError("batch_norm: expected False, a step must not depend on later ones")
        self.features, self.context, self.steps = features, context, steps
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.preprocessing = preprocessing
        self.embedding = embedding
        kind = nn.GRU if rnn == "gru" else nn.LSTM
        # The constructor draws from the global generator, but not on the meta device.
        self.rnn = kind(
            features + context, hidden_size, num_layers, batch_first=True, device="meta"
        ).to_empty(device=torch.get_default_device())
        for weight in self.rnn.parameters():
            nn.init.uniform_(weight, -(hidden_size**-0.5), hidden_size**-0.5, generator=generator)
        self.maf = MAF(
            features, hidden_size + context, transforms, randperm, generator=generator, **kwargs
        )

    def extra_repr(self) -> str:
        return costs(self, MaskedAutoregressiveTransform, "pass", "sweep a step")

    def forward(
        self,
        c: Tensor | None = None,
        steps: int | None = None,
        lengths: Sequence[int] | Tensor | None = None,
    ) -> TemporalDistribution:
        """Makes the distribution of sequences, with events of shape (steps, features).

        Args:
            c: The covariates of each step, with shape (*, steps, context), or none.
            steps: The number of steps; that of `c`, or else the flow's, if None.
            lengths: Of sequences of unequal length, padded at their ends: the number of steps of
                each, with shape (*). What stands behind, NaN too, is not looked at.

        Raises:
            ValueError: If covariates are missing, needless, of another shape, or hold NaN, the
                number of steps is not known or below 1, or a length is not from 1 to `steps`.
        """
        if c is None and steps is None:
            steps = self.steps
        steps = self._steps(c, steps)
        ends = None if lengths is None else _lengths(lengths, steps)
        if c is not None:
            c = c if ends is None else _without_padding(c, ends)
            refuse_nan("c", c, infinite=False)
        return self._sequences(steps, c, ends)

    def forecast(
        self, past: Tensor, steps: int | None = None, c: Tensor | None = None
    ) -> TemporalDistribution:
        r"""Makes the distribution of what comes next, :math:`p(x_{P+1:P+T} \mid x_{1:P})`.

        It costs one pass of the recurrent network over the past; `sample((n,))` then draws n
        forecasts of the steps that follow.

        Args:
            past: The steps so far, with shape (*, past, features).
            steps: The number of steps that follow; those for which `c` is left over if None.
            c: The covariates of past and following steps, with shape (*, past + steps, context).

        Raises:
            ValueError: If the past has another shape or holds NaN, or as a call.
        """
        if past.ndim < 2 or past.shape[-1] != self.features or not past.shape[-2]:
            raise ValueError(
                f"past: expected shape (*, past, {self.features}), got {tuple(past.shape)}"
            )
        refuse_nan("past", past)
        length = past.shape[-2]
        total = self._steps(c, None if steps is None else length + steps, length)
        if c is not None:
            refuse_nan("c", c, infinite=False)
        return self._following(total, past, c)

    def _sequences(
        self, steps: int, c: Tensor | None = None, ends: Tensor | None = None
    ) -> TemporalDistribution:
        inputs = {name: part for name, part in (("c", c), ("ends", ends)) if part is not None}
        made = TemporalDistribution(self, steps, self._embed(c), self.initial_state(), ends)
        return made.made_by(
            self,
            lambda flow, *parts: flow._sequences(steps, **dict(zip(inputs, parts, strict=True))),
            *inputs.values(),
        )

    def _following(self, total: int, past: Tensor, c: Tensor | None = None) -> TemporalDistribution:
        length, inputs = past.shape[-2], (past,) if c is None else (past, c)
        c = self._embed(c)
        y = cast(Tensor, self.preprocess()(past))
        known = None if c is None else c[..., :length, :]
        _, state = self.encode(y, known, self.initial_state())
        following = None if c is None else c[..., length:, :]
        made = TemporalDistribution(self, total - length, following, state)
        return made.made_by(self, lambda flow, *parts: flow._following(total, *parts), *inputs)

    def preprocess(self) -> Transform:
        """The transform of a step's features that is applied first."""
        first = IdentityTransform() if self.preprocessing is None else self.preprocessing()
        return first if first.domain.event_dim else DependentTransform(first)

    def initial_state(self) -> State:
        """The hidden state before the first step."""
        weight = next(self.rnn.parameters())
        zeros = weight.new_zeros(self.num_layers, self.hidden_size)
        return (zeros,) if isinstance(self.rnn, nn.GRU) else (zeros, zeros)

    def encode(self, y: Tensor, c: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Runs the recurrent network over preprocessed steps, (*, steps, features), in one call.

        Returns:
            The output after each step, with shape (*, steps, hidden_size), and the state after all.
        """
        batch = torch.broadcast_shapes(y.shape[:-2], *(part.shape[:-2] for part in state))
        if c is not None:
            batch = torch.broadcast_shapes(batch, c.shape[:-2])
        parts = [y] if c is None else [y, c]
        x = torch.cat([part.expand(*batch, *part.shape[-2:]) for part in parts], dim=-1)
        states = [
            part.expand(*batch, *part.shape[-2:]).reshape(-1, *part.shape[-2:]).transpose(0, 1)
            for part in state
        ]
        before = tuple(part.contiguous() for part in states)
        outputs, last = self.rnn(
            x.reshape(-1, *x.shape[-2:]), before[0] if isinstance(self.rnn, nn.GRU) else before
        )
        ends = (last,) if isinstance(self.rnn, nn.GRU) else last
        return outputs.reshape(*batch, *outputs.shape[-2:]), tuple(
            part.transpose(0, 1).reshape(*batch, *part.shape[::2]) for part in ends
        )

    def conditional(self, h: Tensor, c: Tensor | None) -> NormalizingFlow:
        """The distribution of preprocessed steps, given the network's outputs and covariates."""
        if c is not None:
            batch = torch.broadcast_shapes(h.shape[:-1], c.shape[:-1])
            h = torch.cat([part.expand(*batch, part.shape[-1]) for part in (h, c)], dim=-1)
        return self.maf.unchecked(h)

    def _steps(self, c: Tensor | None, steps: int | None, past: int = 0) -> int:
        """The number of steps that are asked for, those of a past among them."""
        if c is None:
            if self.context:
                raise ValueError(f"c: expected shape (*, steps, {self.context}), got none")
            if steps is None:
                raise ValueError("steps: expected a number of steps, got none")
        elif not self.context:
            raise ValueError(f"c: expected no covariates, got shape {tuple(c.shape)}")
        elif c.ndim < 2 or c.shape[-1] != self.context or steps not in (None, c.shape[-2]):
            first = "steps" if steps is None else steps
            raise ValueError(
                f"c: expected shape (*, {first}, {self.context}), got {tuple(c.shape)}"
            )
        else:
            steps = c.shape[-2]
        if steps <= past:
            raise ValueError(f"steps: expected at least 1, got {steps - past}")
        return steps

    def _embed(self, c: Tensor | None) -> Tensor | None:
        return c if c is None or self.embedding is None else cast(Tensor, self.embedding(c))


class TemporalDistribution(Density):
    """The distribution of sequences that a :class:`TemporalMAF` makes.

    Args:
        flow: The flow.
        steps: The number of steps.
        c: The embedded covariates of each, with shape (*, steps, context), or none.
        state: The hidden state of the recurrent network beforehand.
        lengths: The number of steps of each sequence, with shape (*), or none: all.
    """

    has_rsample = True

    def __init__(
        self,
        flow: TemporalMAF,
        steps: int,
        c: Tensor | None,
        state: State,
        lengths: Tensor | None = None,
    ) -> None:
        self.flow, self.steps, self.c, self.state = flow, steps, c, state
        self.lengths = lengths
        shapes = [part.shape[:-2] for part in state]
        shapes += [] if c is None else [c.shape[:-2]]
        shapes += [] if lengths is None else [lengths.shape]
        super().__init__(torch.broadcast_shapes(*shapes), (steps, flow.features))

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"{type(self).__name__}({shapes})"

    def expand(self, batch_shape: Shape, _instance: Any = None) -> TemporalDistribution:
        c = None if self.c is None else self.c.expand(*batch_shape, *self.c.shape[-2:])
        state = tuple(part.expand(*batch_shape, *part.shape[-2:]) for part in self.state)
        lengths = None if self.lengths is None else self.lengths.expand(*batch_shape)
        new = TemporalDistribution(self.flow, self.steps, c, state, lengths)
        new.origin = self.origin
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of each sequence, in nats: the sum of :meth:`log_prob_steps`."""
        return self.log_prob_steps(value).sum(dim=-1)

    def density(self, value: Tensor) -> Tensor:
        y, ladj = call_and_ladj(self.flow.preprocess(), value)
        h = self.state[0][..., -1:, :].expand(*value.shape[:-2], 1, -1)
        if self.steps > 1:
            c = None if self.c is None else self.c[..., :-1, :]
            after, _ = self.flow.encode(y[..., :-1, :], c, self.state)
            h = torch.cat([h, after], dim=-2)
        return self._counted(self.flow.conditional(h, self.c).density(y) + ladj)

    def log_prob_steps(self, value: Tensor) -> Tensor:
        """The log-density of each step, given those before it, in nats, with shape (*, steps).

        It is zero behind a sequence's end. The sequences have shape (*, steps, features).

        Raises:
            ValueError: If the shape is another, or a step that counts holds NaN.
        """
        if value.ndim < 2 or value.shape[-2:] != self.event_shape:
            raise ValueError(
                f"x: expected shape (*, {self.steps}, {self.flow.features}), "
                f"got {tuple(value.shape)}"
            )
        batch = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        value = value.expand(*batch, *self.event_shape)
        if self.lengths is not None:
            value = _without_padding(value, self.lengths)
        refuse_nan("x", value)
        return self.settled(value)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws sequences that have gradients; they are zero behind their ends."""
        return self.rsample_and_log_prob(sample_shape, generator)[0]

    def rsample_and_log_prob(
        self, sample_shape: Shape = (), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws sequences that have gradients, and their log-densities, at no further price."""
        batch = Size((*sample_shape, *self.batch_shape))
        state = self.state
        h = state[0][..., -1, :].expand(*batch, -1)
        steps, log_probs = [], []
        for t in range(self.steps):
            c = None if self.c is None else self.c[..., t, :]
            y, log_prob = self.flow.conditional(h, c).rsample_and_log_prob((), generator)
            steps.append(y)
            log_probs.append(log_prob)
            after, state = self.flow.encode(
                y[..., None, :], None if c is None else c[..., None, :], state
            )
            h = after[..., 0, :]
        x, ladj = call_and_ladj(self.flow.preprocess().inv, torch.stack(steps, dim=-2))
        log_prob = self._counted(torch.stack(log_probs, dim=-1) - ladj).sum(dim=-1)
        if self.lengths is not None:
            x = torch.where(_present(self.lengths, self.steps)[..., None], x, 0)
        return x, log_prob

    def _counted(self, log_prob: Tensor) -> Tensor:
        """Zeros in place of what stands behind a sequence's end."""
        if self.lengths is None:
            return log_prob
        return torch.where(_present(self.lengths, self.steps), log_prob, 0)


def _lengths(lengths: Sequence[int] | Tensor, steps: int) -> Tensor:
    lengths = torch.as_tensor(lengths)
    if lengths.is_floating_point():
        raise ValueError(f"lengths: expected integers, got {lengths.dtype} {tuple(lengths.shape)}")
    wrong = lengths[(lengths < 1) | (lengths > steps)]
    if len(wrong):
        raise ValueError(f"lengths: expected 1 to {steps} steps, got {int(wrong[0])}")
    return lengths


def _present(lengths: Tensor, steps: int) -> Tensor:
    """Whether a step is before its sequence's end, with shape (*, steps)."""
    return torch.arange(steps, device=lengths.device) < lengths[..., None]


def _without_padding(value: Tensor, lengths: Tensor) -> Tensor:
    """The same sequences, padded with their first steps, which are sure to be in the support."""
    present = _present(lengths, value.shape[-2])[..., None]
    return torch.where(present, value, value[..., :1, :])
