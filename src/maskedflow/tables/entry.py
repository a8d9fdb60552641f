"""What a search has tried: members of a kind, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .flow_training import FlowTraining
from .kinds import Kind
from .member import Member


@dataclass(eq=False)
class Entry:
    """What was tried: its members, and what they say of rows that they have not seen."""

    label: str
    members: list[Member]
    log_probs: list[Tensor]
    weight: float = field(default=0.0, init=False)


@dataclass(eq=False)
class Simple(Entry):
    """A kind that is no flow."""

    kind: Kind


@dataclass(eq=False)
class Trained(Entry):
    """A flow, of which there may be copies."""

    training: FlowTraining
