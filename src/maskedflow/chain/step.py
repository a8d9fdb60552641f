"""What a part of a chain is: where its tensors are, and what it writes into programs."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from maskedflow.kernels import Code, Panel
from maskedflow.staircase import Program, Writer

#: Where a module keeps a tensor: it may be replaced, so it is looked up for each call.
Owner = tuple[dict[str, Any], str]


def owner(module: nn.Module, name: str) -> Owner:
    """Where a module keeps a parameter or a buffer."""
    held = module._parameters if name in module._parameters else module._buffers
    return held, name


def version(tensor: Tensor) -> object:
    """What is another after each change of a tensor's numbers, so that what they give may be kept.

    A tensor of inference mode counts no changes: its version is never the same twice.
    """
    return object() if tensor.is_inference() else tensor._version


def tensors(owners: Sequence[Owner]) -> list[Tensor | None]:
    """What is there now; None where a parametrization has taken a parameter away."""
    return [held.get(name) for held, name in owners]


@dataclass
class Rows:
    """Hands out the rows of a panel.

    Where a gradient follows, all are `kept`; otherwise some are handed out again.
    """

    kept: bool
    next: int = 0
    height: int = 0

    def take(self, count: int) -> int:
        """The first of so many rows."""
        first = self.next
        self.next += count
        self.height = max(self.height, self.next)
        return first

    def give_back(self, first: int) -> None:
        """Hands the rows from some row on out again, unless they are kept."""
        if not self.kept:
            self.next = first


class Place(NamedTuple):
    """Where a step finds what it works on.

    Its inputs, the context, the ladj and a row of ones are rows; its vectors are those of a job
    from `vector` on.
    """

    inputs: int
    context: int
    ladj: int
    ones: int
    vector: int


class Route(NamedTuple):
    """A step in one direction: the row of its outputs, and the programs there and back.

    The program `back` goes from slopes by the outputs to those by the inputs and the context, of
    which either may not be wanted; `gradients` are those of the vectors. Both are written when they
    are asked for.
    """

    outputs: int
    there: Program
    back: Callable[[bool, bool], Program]
    gradients: Callable[[], Program]


class Step(abc.ABC):
    """A transform that can be a part of a chain."""

    @property
    @abc.abstractmethod
    def owners(self) -> Sequence[Owner]:
        """Where its vectors are kept."""

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """The size of its inputs and outputs."""

    @property
    def context(self) -> int:
        """The size of the context; 0 if it takes none."""
        return 0

    @property
    def is_costly(self) -> bool:
        """Whether it is a layer of its own, such as a network, for which a chain is worth it."""
        return False

    @property
    def is_density(self) -> bool:
        """Whether it gives the log-density of its inputs, and no latents; and data, if inverted."""
        return False

    @abc.abstractmethod
    def latents(self, rows: Rows, place: Place) -> Route:
        """The way from data to latents."""

    @abc.abstractmethod
    def data(self, rows: Rows, place: Place) -> Route:
        """The way from latents to data."""

    def is_current(self) -> bool:
        """Whether it still is what its module does."""
        return True


class Numbers(NamedTuple):
    """Parameters of features that are in a vector: `each` has some, `apart` from the last one's.

    In place of a vector there may be zeros or ones.
    """

    vector: int
    each: int = 1
    apart: int = 1


def parameters(
    phi: int, features: int, vectors: Sequence[Numbers], ones: int
) -> tuple[Program, Callable[[], Program]]:
    """Has the rows of the features' parameters, from `phi` on, begin; the vectors' gradients."""
    writer, gradients = Writer(), Writer()
    step, row = sum(one.each for one in vectors), phi
    for vector, each, apart in vectors:
        for number in range(each):
            place = {"first": number, "apart": apart}
            writer.fill(Panel.VALUES, row + number, features, vector, step, **place)
        for feature in range(features if vector >= 0 else 0):
            gradients.write(
                Code.GRADIENT,
                Panel.SLOPES,
                row + feature * step,
                each,
                ones,
                columns=1,
                layer=vector,
                offset=feature * apart,
                row_step=1,
            )
        row += each
    return writer.done(), gradients.done
