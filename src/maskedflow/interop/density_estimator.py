"""A flow behind the methods of sbi's conditional density estimators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from maskedflow.flows import Flow

from .packed import PackedFlow


def register() -> None:
    """Has sbi know the estimator as one of its own, so that this module does not import sbi.

    Raises:
        ImportError: If sbi is not installed.
    """
    try:
        from sbi.neural_nets.estimators import ConditionalDensityEstimator
    except ModuleNotFoundError as error:
        if error.name != "sbi":
            raise
        raise ImportError("sbi is not installed: pip install maskedflow[sbi]") from None
    ConditionalDensityEstimator.register(FlowEstimator)


class FlowEstimator(nn.Module):
    r"""The conditional density :math:`q(\text{input} \mid \text{condition})` of a flow, for sbi.

    Leading dimensions are samples and a batch, and either broadcasts.

    Args:
        flow: The flow, whose embedding takes conditions of their own shape.
        input_shape: The shape of an input.
        condition_shape: The shape of a condition.
    """

    def __init__(self, flow: Flow, input_shape: Size, condition_shape: Size) -> None:
        super().__init__()
        self.net = PackedFlow(flow)
        self.input_shape, self.condition_shape = Size(input_shape), Size(condition_shape)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        register()

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters: that of the flow, and those of the embedding."""
        # Trainers ask in each step, and the flow is a tree of modules that have none.
        if recurse:
            start = f"{prefix}." if prefix else ""
            yield f"{start}net.weights", self.net.weights
            yield from self.embedding_net.named_parameters(
                f"{start}net.flow.embedding", remove_duplicate=remove_duplicate
            )

    @property
    def embedding_net(self) -> nn.Module:
        """What makes a vector of a condition, from its standard scale on."""
        assert self.net.flow.embedding is not None
        return self.net.flow.embedding

    def log_prob(self, input: Tensor, condition: Tensor) -> Tensor:
        """The log-densities of inputs, with shape (sample, batch), in nats.

        Args:
            input: With shape (sample, batch, *input_shape), or without the first, or both.
            condition: With shape (sample, batch, *condition_shape), or without the first, or both.

        Raises:
            ValueError: If an input or a condition is of another shape.
            RuntimeError: If samples or batches do not broadcast.
        """
        x = _led("input", input, self.input_shape).flatten(2)
        c = _led("condition", condition, self.condition_shape)
        leading = x.shape[:2], c.shape[:2]
        for one, other in zip(*leading, strict=True):
            if one != other and 1 not in (one, other):
                raise RuntimeError(
                    "expected as many samples and rows of input as of condition, or 1, "
                    f"got {tuple(leading[0])} and {tuple(leading[1])}"
                )
        if len(c) == 1:  # each condition is embedded once, however many samples there are
            return self.net.log_prob(x, c[0])
        shape = torch.broadcast_shapes(*leading)
        x = x.expand(*shape, -1).flatten(0, 1)
        c = c.expand(*shape, *self.condition_shape).flatten(0, 1)
        return self.net.log_prob(x, c).view(shape)

    def loss(self, input: Tensor, condition: Tensor) -> Tensor:
        """The negative log-density of each input of a batch, with shape (batch,)."""
        x = _led("input", input, self.input_shape)[0].flatten(1)
        return -self.net.log_prob(x, self._batch(condition))

    def sample(self, sample_shape: Sequence[int], condition: Tensor) -> Tensor:
        """Draws inputs, with shape (*sample_shape, batch, *input_shape), in a sweep.

        Args:
            sample_shape: The shape of the draws for each condition.
            condition: With shape (batch, *condition_shape), or without the former.
        """
        drawn: Tensor = self.net(self._batch(condition)).sample(Size(sample_shape))
        return self._shaped(drawn)

    def sample_and_log_prob(
        self, sample_shape: Sequence[int], condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draws inputs that have gradients, and their log-densities, at the price of the inputs."""
        batch = self._batch(condition)
        drawn, log_prob = self.net.rsample_and_log_prob(Size(sample_shape), batch)
        return self._shaped(drawn), log_prob

    def inverse_transform(self, input: Tensor, condition: Tensor) -> Tensor:
        """The latents of a batch of inputs, which are N(0, I) if the density is the true one."""
        x = input.flatten(input.ndim - len(self.input_shape))
        latents: Tensor = self.net(self._batch(condition)).transform(x)
        return self._shaped(latents)

    def _shaped(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:-1], *self.input_shape)

    def _batch(self, condition: Tensor) -> Tensor:
        """A batch of conditions."""
        samples = _led("condition", condition, self.condition_shape)
        if len(samples) > 1:
            raise ValueError(
                f"condition: expected shape (batch, {_listed(self.condition_shape)}), "
                f"got {tuple(condition.shape)}"
            )
        return samples[0]


def _led(name: str, value: Tensor, event: Size) -> Tensor:
    """The same with those of its leading dimensions, samples and a batch, that it lacks."""
    lacking = 2 + len(event) - value.ndim
    if not 0 <= lacking <= 2 or value.shape[2 - lacking :] != event:
        raise ValueError(
            f"{name}: expected shape (sample, batch, {_listed(event)}), got {tuple(value.shape)}"
        )
    return value[(None,) * lacking]


def _listed(event: Size) -> str:
    return ", ".join(map(str, event))
