"""Weights and metadata in one safetensors file: data, never code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

METADATA = "maskedflow"
"""Key of the header entry that holds the JSON metadata and marks the file as ours."""

EXTRA = "/"
"""A tensor with this in its name is no weight; `state_dict` keys cannot contain it."""


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
        ValueError: If the file is truncated, was not written by :func:`save`, or holds other
            tensors than the flow has.

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
    load_weights(path, flow, tensors)
    return dict(json.loads(header[METADATA]))


def load_weights(path: str | Path, flow: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the tensors read from a file into a flow, after comparing names, dtypes and shapes."""
    name = Path(path).name
    weights = {key: tensor for key, tensor in tensors.items() if EXTRA not in key}
    expected = flow.state_dict()
    for key in weights:
        if key not in expected:
            raise ValueError(f"{name}: holds {key!r}, which the flow does not have")
    for key, tensor in expected.items():
        if key not in weights:
            raise ValueError(f"{name}: does not hold {key!r}, which the flow has")
        if weights[key].shape != tensor.shape or weights[key].dtype != tensor.dtype:
            raise ValueError(
                f"{name}: {key!r} is {_describe(weights[key])}, the flow expects "
                f"{_describe(tensor)}"
            )
    flow.load_state_dict(weights)


def write(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Writes tensors and header entries to a safetensors file, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    stored = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses two names for one memory: the second one is stored as a copy
        stored[key] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    # one fixed temporary name: what a killed process leaves behind is overwritten by the next
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(safetensors.torch.save(stored, dict(header)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not tell the file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and header entries of a safetensors file written by :func:`write`."""
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
    return tensors, header


def to_json(value: Any) -> str:
    """JSON text of metadata, or a `ValueError` that says what is not JSON."""
    try:
        return json.dumps(value)
    except TypeError as error:
        raise ValueError(
            f"metadata: expected JSON-serializable values, got one that is not ({error})"
        ) from None


def _check(path: Path) -> None:
    """Says what is wrong with a file that is missing, truncated or of another format."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > 100_000_000 or file.read(1) != b"{":
            raise ValueError(f"{path}: not a safetensors file, or truncated ({size} bytes)")
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        raise ValueError(
            f"{path}: truncated, its header has {len(text)} bytes where {length} are announced"
        )
    try:
        header = json.loads(text)
        end = max(
            (entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"),
            default=0,
        )
        expected = 8 + length + int(end)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise ValueError(f"{path}: not a safetensors file, its header is no table") from None
    if size < expected:
        raise ValueError(f"{path}: truncated, it has {size} bytes where {expected} are announced")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
