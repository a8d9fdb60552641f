"""A flow behind the methods of sbi's conditional density estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from maskedflow.distributions import NormalizingFlow
from maskedflow.flows import Flow


def register() -> None:
    """Has sbi know the estimator as one of its own, which no import of sbi at the top need do.

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

    Leading dimensions are samples and a batch, and the latter one broadcasts.

    Args:
        net: The flow, whose embedding takes conditions of their own shape.
        input_shape: The shape of an input.
        condition_shape: The shape of a condition.
    """

    def __init__(self, net: Flow, input_shape: Size, condition_shape: Size) -> None:
        super().__init__()
        self.net = net
        self.input_shape, self.condition_shape = Size(input_shape), Size(condition_shape)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        register()

    @property
    def embedding_net(self) -> nn.Module:
        """What makes a vector of a condition, after it is brought to a standard scale."""
        assert self.net.embedding is not None
        return self.net.embedding

    def log_prob(self, input: Tensor, condition: Tensor) -> Tensor:
        """The log-densities of inputs, with shape (sample, batch), in nats.

        Args:
            input: With shape (sample, batch, *input_shape), or without the former or both.
            condition: With shape (batch, *condition_shape), or (sample, batch, *condition_shape).

        Raises:
            ValueError: If an input or a condition is of another shape.
            RuntimeError: If the batches do not broadcast.
        """
        x = _led("input", input, self.input_shape).flatten(2)
        c = _led("condition", condition, self.condition_shape)
        try:
            shape = torch.broadcast_shapes(x.shape[:2], c.shape[:2])
        except RuntimeError:
            raise RuntimeError(
                "expected samples and batches of input and condition that are equal or 1, got "
                f"{tuple(x.shape[:2])} and {tuple(c.shape[:2])}"
            ) from None
        if len(c) == 1:  # each condition is embedded once, however many samples there are
            return self.net(c[0]).log_prob(x)
        x = x.expand(*shape, -1).flatten(0, 1)
        c = c.expand(*shape, *self.condition_shape).flatten(0, 1)
        return self.net(c).log_prob(x).view(shape)

    def loss(self, input: Tensor, condition: Tensor) -> Tensor:
        """The negative log-density of each input of a batch, with shape (batch,)."""
        return -self.log_prob(input, condition)[0]

    def sample(self, sample_shape: Sequence[int], condition: Tensor) -> Tensor:
        """Draws inputs, with shape (*sample_shape, batch, *input_shape), in a sweep.

        Args:
            sample_shape: The shape of the draws for each condition.
            condition: With shape (batch, *condition_shape), or without the former.
        """
        drawn = self._given(condition).sample(Size(sample_shape))
        return drawn.unflatten(-1, self.input_shape)

    def sample_and_log_prob(
        self, sample_shape: Sequence[int], condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draws inputs that have gradients, and their log-densities, at the price of the inputs."""
        drawn, log_prob = self._given(condition).rsample_and_log_prob(Size(sample_shape))
        return drawn.unflatten(-1, self.input_shape), log_prob

    def inverse_transform(self, input: Tensor, condition: Tensor) -> Tensor:
        """The latents of inputs, with shape (batch, *input_shape), which N(0, I) are to be."""
        shape = self.input_shape
        return self._given(condition).transform(input.flatten(-len(shape))).unflatten(-1, shape)

    def _given(self, condition: Tensor) -> NormalizingFlow:
        """The density given a batch of conditions."""
        samples = _led("condition", condition, self.condition_shape)
        if len(samples) > 1:
            raise ValueError(
                f"condition: expected shape (batch, {_listed(self.condition_shape)}), got "
                f"{tuple(condition.shape)}"
            )
        return self.net(samples[0])


def _led(name: str, value: Tensor, event: Size) -> Tensor:
    """The same with its missing leading dimensions, of samples and a batch."""
    missing = 2 + len(event) - value.ndim
    if not 0 <= missing <= 2 or value.shape[2 - missing :] != event:
        raise ValueError(
            f"{name}: expected shape (sample, batch, {_listed(event)}), got {tuple(value.shape)}"
        )
    return value[(None,) * missing]


def _listed(event: Size) -> str:
    return ", ".join(map(str, event))
