"""Where a flow computes."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

Device = torch.device | str
"""A device, or its name: "cpu", "cuda", "cuda:1", "mps"; or "auto"."""


def device_of(name: Device) -> torch.device:
    """Finds a device by its name, and that torch can compute there.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps" or another of torch's; or "auto", which is CUDA where
            there is one and else the CPU. It is never "mps", which has no float64.

    Raises:
        ValueError: If there is no such device here; the message has torch's reason.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"device: expected auto, cpu, cuda or mps, got {name!r}") from None
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {device} is not available; torch says: {reason}") from None
    return device


def move(flow: nn.Module, device: torch.device) -> None:
    """Moves a flow to a device, in place.

    Raises:
        ValueError: If a number of it is in float64 and the device has none.
    """
    if device.type == "mps":
        for name, tensor in chain(flow.named_parameters(), flow.named_buffers()):
            if tensor.dtype == torch.float64:
                raise ValueError(f"device: mps has no float64, which {name!r} is in; use cpu")
    flow.to(device)


def described(device: torch.device) -> str:
    """A device as records of runs name it, with its maker's name if it is a GPU of CUDA."""
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device}{name}"
