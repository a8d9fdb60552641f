"""Weights and metadata, or a whole training, in one safetensors file: data, never code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import safetensors
import safetensors.torch
import torch
from annotated_types import Interval
from pydantic import with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from maskedflow.files import CLOSED, Count, atomic, blame, check, open_regular, parse_json

from .config import TrainConfig
from .state import TrainingState

METADATA = "maskedflow"
"""Key of the header entry that holds the JSON metadata and marks the file as ours."""

CHECKSUM = "checksum"
"""Key of the header entry by which a change of anything else in the file is noticed."""

HEADER, KEYS = 2**24, 100_000
"""Bytes of the longest header that is read or written, and its most names."""

_T = TypeVar("_T")
_Length = Annotated[int, Interval(ge=0, lt=2**63)]

EXTRA = "/"
"""A tensor with this in its name is no weight; `state_dict` keys cannot contain it."""

TRAINING = "training"
"""Key of the header entry that holds the JSON of config, state and data sizes."""

MOMENTS = f"optimizer{EXTRA}"
"""Prefix of the optimizer's tensors: `optimizer/<kind>/<parameter>`."""

Moments = dict[str, dict[str, Tensor]]
"""The optimizer's tensors, by parameter and kind."""

FREE = ("epochs", "patience", "time_limit", "steps", "lr_steps")
"""Settings that may change on resuming: they say when to stop, not how to train."""


def save(path: str | Path, flow: nn.Module, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes the weights and buffers of a flow to a safetensors file.

    The file is written beside its final name and then renamed, so that whoever reads the path
    finds the old file or the new one, whole.

    Args:
        path: The file to write; missing folders are made.
        flow: The module whose `state_dict` is saved, in its own dtype.
        metadata: JSON-serializable values, kept as JSON in the file's header.

    Raises:
        ValueError: If the metadata is not JSON-serializable.
        OSError: If the file cannot be written; an existing file is then untouched.

    Example:
        >>> import tempfile
        >>> flow = nn.Linear(2, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/flow.safetensors", flow, {"columns": ["a", "b"]})
        ...     load(f"{folder}/flow.safetensors", flow)
        {'columns': ['a', 'b']}
    """
    write(path, flow.state_dict(), {METADATA: to_json(dict(metadata or {}))})


def load(path: str | Path, flow: nn.Module) -> dict[str, Any]:
    """Reads the weights and buffers saved by :func:`save` into a flow.

    The training checkpoint `latest.safetensors` can be loaded too: what it holds besides
    weights is ignored.

    Args:
        path: The file to read.
        flow: A module built as the saved one was; on an error it is left as it was.

    Returns:
        The metadata given to :func:`save`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated or changed, was not written by :func:`save`, holds
            other tensors than the flow has, or numbers that no flow can have.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/a.safetensors", nn.Linear(2, 2))
        ...     load(f"{folder}/a.safetensors", nn.Linear(2, 3))
        Traceback (most recent call last):
        ...
        ValueError: a.safetensors: 'weight' is float32 (2, 2), the flow expects float32 (3, 2)
    """
    tensors, header = read(path)
    metadata = metadata_of(path, header, METADATA, dict[str, Any])
    load_weights(path, flow, tensors)
    return metadata


def metadata_of(path: str | Path, header: Mapping[str, str], key: str, schema: type[_T]) -> _T:
    """What an entry of the header holds as JSON, checked against a schema."""
    with blame(Path(path), f"not a file whose {key!r} can be read"):
        return check(schema, parse_json(header[key]))


def load_weights(path: str | Path, flow: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the tensors read from a file into a flow, after comparing names, dtypes and shapes.

    Numbers have to be finite, and positive where a module lists their names as `positive`.
    """
    name = Path(path).name
    weights = {key: tensor for key, tensor in tensors.items() if EXTRA not in key}
    expected = flow.state_dict()
    for key in weights:
        if key not in expected:
            raise ValueError(f"{name}: holds {key!r}, which the flow does not have")
    for key, tensor in expected.items():
        if key not in weights:
            raise ValueError(f"{name}: does not hold {key!r}, which the flow has")
        found = weights[key]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise ValueError(
                f"{name}: {key!r} is {_describe(found)}, the flow expects {_describe(tensor)}"
            )
        # Bounds may be infinite, where the flow was made with such.
        if not (found.isfinite() | (found == tensor.to(found.device))).all():
            raise ValueError(f"{name}: {key!r} holds numbers that are not finite")
    for prefix, module in flow.named_modules():
        for key in getattr(module, "positive", ()):
            key = f"{prefix}.{key}" if prefix else key
            if key in weights and not (weights[key] > 0).all():
                raise ValueError(f"{name}: {key!r} holds numbers that are not positive")
    flow.load_state_dict(weights)


def write(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Writes tensors and header entries to a safetensors file, atomically, with a checksum."""
    path = Path(path)
    seen: set[int] = set()
    stored = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses two names for one memory: the second one is stored as a copy
        stored[key] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    with atomic(path) as beside:
        entries = {**header, CHECKSUM: _checksum(stored, header)}
        content = safetensors.torch.save(stored, entries)
        if int.from_bytes(content[:8], "little") > HEADER:
            raise ValueError(f"{path}: expected metadata of at most {HEADER:,} bytes")
        beside.write_bytes(content)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and header entries of a file written by :func:`write`, if it is whole."""
    path = Path(path)
    _check(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a valid safetensors file ({error})") from None
    if METADATA not in header:
        raise ValueError(f"{path}: not written by maskedflow (no {METADATA!r} in its header)")
    # Files of version 0.1.0 have no checksum.
    if header.pop(CHECKSUM, None) not in (None, _checksum(tensors, header)):
        raise ValueError(f"{path}: changed since it was written, its checksum is another")
    return tensors, header


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """A digest of names, dtypes, shapes and bytes of all tensors, and of the header's entries."""
    digest = hashlib.blake2b(digest_size=32)
    plain = [sorted(header.items()), [(key, _describe(tensors[key])) for key in sorted(tensors)]]
    digest.update(json.dumps(plain).encode())
    for key in sorted(tensors):
        numbers = tensors[key].reshape(-1)
        if numbers.stride(0) != 1:  # of a single number, whose bytes torch then takes for none
            numbers = numbers.clone(memory_format=torch.contiguous_format)
        digest.update(numbers.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def to_json(value: Any) -> str:
    """JSON text of metadata, or a `ValueError` that says what is not JSON."""
    try:
        return json.dumps(value)
    except TypeError as error:
        raise ValueError(
            f"metadata: expected JSON-serializable values, got one that is not ({error})"
        ) from None


@with_config(CLOSED)
class _Entry(TypedDict):
    """What a safetensors header says of a tensor."""

    dtype: str
    shape: list[_Length]
    data_offsets: tuple[_Length, _Length]


def _check(path: Path) -> None:
    """Says what is wrong with a file that is missing, truncated or of another format."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > HEADER or file.read(1) != b"{":
            raise ValueError(f"{path}: not a safetensors file, or truncated ({size} bytes)")
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        raise ValueError(
            f"{path}: truncated, its header has {len(text)} bytes where {length} are announced"
        )
    with blame(path, "not a safetensors file, whose header is a table"):
        if text.count(b'":') - text.count(b'\\":') > KEYS:  # of texts within, quotes are escaped
            raise ValueError(f"more than {KEYS:,} names")
        header = parse_json(text)
        check(dict[str, str], header.pop("__metadata__", {}))
        ends = [entry["data_offsets"][1] for entry in check(dict[str, _Entry], header).values()]
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise ValueError(f"{path}: truncated, it has {size} bytes where {expected} are announced")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


@with_config(CLOSED)
class _Training(TypedDict):
    """What the entry `TRAINING` holds."""

    config: dict[str, Any]
    data: dict[str, Any]
    state: TrainingState
    log_size: Count


def write_latest(
    path: Path,
    flow: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    *,
    config: TrainConfig,
    data: Mapping[str, Any],
    log_size: int,
    metadata: Mapping[str, Any],
) -> None:
    """Writes the training checkpoint, atomically."""
    tensors = flow.state_dict()
    for name, parameter in flow.named_parameters():
        for kind, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{MOMENTS}{kind}{EXTRA}{name}"] = tensor
    training = {
        "config": asdict(config),
        "data": dict(data),
        "state": asdict(state),
        "log_size": log_size,
    }
    write(path, tensors, {METADATA: to_json(dict(metadata)), TRAINING: to_json(training)})


def read_latest(
    path: Path, flow: nn.Module, *, config: TrainConfig, data: Mapping[str, Any]
) -> tuple[TrainingState, int, Moments]:
    """Reads the training checkpoint: its weights into the flow, state, size of the log, moments."""
    tensors, header = read(path)
    if TRAINING not in header:
        raise ValueError(f"{path}: holds weights only, cannot resume from it")
    training = metadata_of(path, header, TRAINING, _Training)
    then = training["config"] | training["data"]
    for name, value in {**asdict(config), **data}.items():
        before = then.get(name)
        if name not in FREE and before != value:
            raise ValueError(f"{name}: {path} was trained with {before!r}, got {value!r}")
    load_weights(path, flow, tensors)
    moments: Moments = {}
    with blame(path, "not a training checkpoint"):
        for key, tensor in tensors.items():
            if key.startswith(MOMENTS):
                kind, name = key.removeprefix(MOMENTS).split(EXTRA, 1)
                moments.setdefault(name, {})[kind] = tensor
    return training["state"], training["log_size"], moments


def load_moments(flow: nn.Module, optimizer: torch.optim.Optimizer, moments: Moments) -> None:
    """Gives each parameter its moments by name; the optimizer itself counts parameters."""
    names = {parameter: name for name, parameter in flow.named_parameters()}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {}
    for i, parameter in enumerate(trained):
        state = moments.get(names[parameter], {})
        for kind, tensor in state.items():
            if tensor.ndim > 0 and tensor.shape != parameter.shape:
                raise ValueError(
                    f"{names[parameter]}: the checkpoint's {kind} has shape "
                    f"{tuple(tensor.shape)}, the parameter has {tuple(parameter.shape)}"
                )
        if state:
            states[i] = state
    if len(states) != len(moments):
        raise ValueError("flow: other parameters are trained than in the checkpoint")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
