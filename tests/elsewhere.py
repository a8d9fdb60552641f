"""A device that is not the CPU, on any machine: numbers are there, and what mixes devices fails.

A tensor on it holds one of the CPU, which does its arithmetic in torch's own operations. What a GPU
would refuse is refused: operands on two devices, a generator of another device than the numbers,
and a compiled kernel that is given an address there; float64, too, if the device has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from maskedflow.kernels import job

#: One that torch has a name for, and builds of it have nothing behind.
DEVICE = torch.device("lazy", 0)

_aten = torch.ops.aten
_MOVES = (_aten._to_copy.default, _aten.copy_.default)
#: An index may be on the CPU, as CUDA has it.
_INDEXED = (
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
)


class There(Tensor):
    """A tensor on the device."""

    here: Tensor

    @staticmethod
    def __new__(cls: type[There], here: Tensor) -> There:
        one: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
        )
        one.here = here
        return one

    def __deepcopy__(self, memo: dict[int, Any]) -> There:
        one = There(self.here.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            one._is_param = True  # type: ignore[attr-defined]
        memo[id(self)] = one
        return one  # type: ignore[return-value]

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def tolist(self) -> Any:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _compute(func, args, kwargs or {})


def here(value: Any) -> Any:
    """A tensor on the CPU in place of one on the device."""
    return value.here if isinstance(value, There) else value


def is_there(device: Any) -> bool:
    return torch.device(device).type == DEVICE.type


def _compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    others = [one for one in tensors if not isinstance(one, There)]
    known = {id(one.here): one for one in tensors if isinstance(one, There)}
    device = kwargs.get("device")
    there = bool(known) if device is None else is_there(device)
    if func is _aten.copy_.default:
        there = isinstance(args[0], There)
    elif known and func not in _MOVES:
        if func in _INDEXED:
            others = [one for one in (args[0], *args[2:3]) if not isinstance(one, There)]
        for one in others:
            if one.ndim:  # a single number of the CPU goes with anything
                raise RuntimeError(f"{func}: shape {tuple(one.shape)} on the CPU, others elsewhere")
    if there and device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*tree_map(here, args), **tree_map(here, kwargs))

    def placed(one: Any) -> Any:
        if not there or not isinstance(one, Tensor) or any(one is other for other in others):
            return one
        return known[id(one)] if id(one) in known else There(one)

    return tree_map(placed, found)


class _Dispatch(TorchDispatchMode):
    """Makes tensors on the device where there are no operands."""

    def __init__(self, has_double: bool) -> None:
        super().__init__()
        self.has_double = has_double

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = _compute(func, args, kwargs or {})
        for one in tree_flatten(found)[0]:
            if isinstance(one, There) and one.dtype == torch.float64 and not self.has_double:
                raise TypeError(f"{func}: there is no float64 on this device")
        return found


class _Functions(TorchFunctionMode):
    """Looks at generators, and makes what torch makes without a dispatch."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        device, generator = kwargs.get("device"), kwargs.get("generator")
        if func is torch.tensor and device is not None and is_there(device):
            return func(*args, **{**kwargs, "device": "cpu"}).to(device)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(one) if isinstance(one, list) else one for one in index)
            args = (args[0], index, *args[2:])
        found = func(*args, **kwargs)
        drawn = generator is not None and isinstance(found, Tensor)
        if drawn and generator.device.type != found.device.type:
            raise RuntimeError(f"{func}: a generator on {generator.device} for {found.device}")
        return found


class _Generator(torch.Generator):
    """A generator of either device."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls)
        made.place = torch.device(device)  # type: ignore[attr-defined]
        return made  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        place: torch.device = self.place  # type: ignore[attr-defined]
        return place


def _addresses(known: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
    assert not any(isinstance(one, There) for one in tensors), "a kernel of the CPU, elsewhere"
    return known(tensors)


@contextmanager
def elsewhere(*, has_double: bool = True) -> Iterator[torch.device]:
    """Has the device be there meanwhile."""
    known = job.addresses
    with (
        patch.object(torch, "Generator", _Generator),
        patch.object(optimizer, "_get_fused_kernels_supported_devices", lambda: [DEVICE.type]),
        patch.object(job, "addresses", lambda tensors: _addresses(known, tensors)),
        _Functions(),
        _Dispatch(has_double),
    ):
        yield DEVICE
