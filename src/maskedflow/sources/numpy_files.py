"""`.npy` and `.npz`: arrays, records, and archives of arrays. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from .arrays import ArraySource, Place, UnreadableError, check_announced, numbered, one_line, places
from .source import Source

Array = np.ndarray[Any, np.dtype[Any]]


def open_npy(path: Path, file: Path, member: str) -> Source:
    """Opens an array, whose rows stay on disk until they are read."""
    with one_line(path, "an array of NumPy's"):
        if member:
            raise UnreadableError(f"expected no {member!r} behind ::, for an array has no parts")
        return source_of_arrays(path, {"x": np.load(file, mmap_mode="r", allow_pickle=False)})


def open_npz(path: Path, file: Path, member: str) -> Source:
    """Opens an archive of arrays, which are read whole."""
    with one_line(path, "an archive of NumPy's"), zipfile.ZipFile(file) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if member and member not in names:
            raise UnreadableError(f"expected one of {', '.join(names)} behind ::, found {member!r}")
        check_announced(sum(info.file_size for info in archive.infolist()), file)
        arrays = {name: _array(archive, names[name]) for name in ([member] if member else names)}
        return source_of_arrays(path, arrays)


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    """An array of an archive, once its header says no more than there is."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise UnreadableError(f"{name!r} holds objects of Python's, which are not read")
    if dtype.itemsize * int(np.prod(shape, dtype=object)) > size:
        raise UnreadableError(f"{name!r} announces more numbers than there are: shape {shape}")
    with archive.open(name) as file:
        return cast(Array, np.lib.format.read_array(cast(Any, file), allow_pickle=False))


def source_of_arrays(path: Path, arrays: Mapping[str, Array]) -> Source:
    """A table of arrays: of one, or of several with as many rows, or of one that is records."""
    if not arrays:
        raise UnreadableError("expected an array, found none")
    records = [name for name, x in arrays.items() if x.dtype.names]
    alike = all(x.ndim for x in arrays.values()) and len({len(x) for x in arrays.values()}) == 1
    if len(arrays) > 1 and (records or not alike):
        found = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
        raise UnreadableError(
            f"expected arrays of equally many rows, found {found}; choose one by {path.name}::NAME"
        )
    ((name, x), *others) = arrays.items()
    if records and x.ndim == 1:
        fields = {field: x[field] for field in cast(Any, x.dtype.names)}
        return source_of_fields(path, fields)
    if not others and x.ndim == 2:
        return ArraySource(path, arrays, numbered(name, x.shape[1]), len(x))
    if not others and x.ndim != 1:
        raise UnreadableError(f"expected an array of rows, shape (n, D), found shape {x.shape}")
    return source_of_fields(path, arrays)


def source_of_fields(path: Path, arrays: Mapping[str, Array]) -> Source:
    """A table whose columns are named after arrays."""
    columns: dict[str, Place] = {}
    for name, x in arrays.items():
        columns |= places(name, x.shape[1:])
    return ArraySource(path, arrays, columns, len(next(iter(arrays.values()))))
