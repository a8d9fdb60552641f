"""HDF5 files, netCDF and bilby's among them, through h5py: rows are read slice by slice.

Links to other files are not followed, and datasets whose numbers lie in others are not read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskedflow.files import parse_json

from .arrays import (
    ArraySource,
    Place,
    SlicedSource,
    UnreadableError,
    check_announced,
    numbered,
    one_line,
    partner,
    places,
)
from .bilby import KEYS, source_of_posterior
from .source import Source

MOST = 10_000
"""The most groups and datasets of a file that are looked at."""

POSTERIOR, DRAWS = "posterior", ("chain", "draw")
"""ArviZ's names, and bilby's, of what was sampled, and of the dimensions that rows are made of."""


def open_hdf5(path: Path, file: Path, member: str) -> Source:
    """Opens a table in an HDF5 file: the only one, a posterior, or the one that is named."""
    h5py = partner(path, "h5py", "HDF5", "hdf5")
    with one_line(path, "HDF5"), h5py.File(file, "r") as opened:
        nodes = _nodes(opened)
        for node in nodes.values():
            if "pandas_type" in node.attrs:
                raise UnreadableError(
                    "is a store of pandas (PyTables), whose layout is its own; write the frame "
                    "with to_parquet()"
                )
        named = member.strip("/")
        if member and named and named not in nodes:
            raise UnreadableError(f"has no {member!r}; there is {', '.join(_tables(nodes))}")
        if not named and POSTERIOR in nodes and KEYS in nodes:
            return _bilby(path, nodes, file)
        if not member and POSTERIOR in nodes and _drawn(nodes, POSTERIOR):
            named = POSTERIOR
        elif not member:
            found = _tables(nodes)
            if len(found) != 1:
                raise UnreadableError(
                    f"expected one table, found {', '.join(found)}; choose by {file.name}::/NAME"
                    if found
                    else "expected a dataset of rows and columns, or several of as many rows"
                )
            named = found[0].strip("/")
        if drawn := _drawn(nodes, named):
            return _flattened(path, drawn, file)
        datasets = {named: nodes[named]}
        if not hasattr(nodes[named], "dtype") and not (datasets := _datasets(nodes, named)):
            raise UnreadableError(f"expected datasets in {member!r}, found none")
        return Hdf5Source(path, file, datasets, h5py)


class Hdf5Source(SlicedSource):
    """Datasets of equally many rows: a matrix, records, or columns."""

    def __init__(self, path: Path, file: Path, datasets: Mapping[str, Any], h5py: Any) -> None:
        self._file, self._h5py, self.path = file, h5py, path
        check_announced(sum(_size(one) for one in datasets.values()), file)
        self._fields: dict[str, str] = {}  # of records: the dataset of each
        self._names = {name.rpartition("/")[2]: one.name for name, one in datasets.items()}
        (name, first), *others = datasets.items()
        lengths = {one.shape[:1] for one in datasets.values()}
        if len(lengths) > 1 or lengths == {()}:
            told = ", ".join(f"{name} {one.shape}" for name, one in datasets.items())
            raise UnreadableError(f"expected datasets of equally many rows, found {told}")
        short = name.rpartition("/")[2]
        columns: dict[str, Place] = {}
        if others or not (first.dtype.names or first.ndim == 2):
            for told, one in datasets.items():
                columns |= places(told.rpartition("/")[2], one.shape[1:])
        elif first.dtype.names:
            self._fields = dict.fromkeys(first.dtype.names, short)
            for field in first.dtype.names:
                columns |= places(field, first.dtype[field].shape)
        else:
            columns = numbered(short, first.shape[1])
        super().__init__(path, columns, len(first))

    def _slices(self, arrays: Collection[str], first: int, last: int) -> Mapping[str, Any]:
        with one_line(self.path, "HDF5"), self._h5py.File(self._file, "r") as opened:
            if self._fields:
                (dataset,) = self._names.values()
                rows = opened[dataset].fields(list(arrays))[first:last]
                return {name: rows[name] for name in arrays}
            return {name: _values(opened[self._names[name]], first, last) for name in arrays}


def _nodes(opened: Any) -> dict[str, Any]:
    """All groups and datasets by their paths, as far as they are in this file."""
    found = {"": opened}

    def visit(name: str, node: Any) -> bool | None:
        found[name] = node
        return True if len(found) > MOST else None

    if opened.visititems(visit):
        raise UnreadableError(f"has more than {MOST:,} groups and datasets")
    return {name: node for name, node in found.items() if not _is_elsewhere(node)}


def _is_elsewhere(node: Any) -> bool:
    """Whether the numbers of a dataset are in another file, or nobody knows where."""
    if not hasattr(node, "dtype"):
        return not hasattr(node, "keys")  # a named type
    return bool(node.is_virtual or node.external)


def _datasets(nodes: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The datasets of a group that have rows and are no mere coordinates."""
    return {
        name: node
        for name, node in nodes.items()
        if name.rpartition("/")[0] == group and name
        if hasattr(node, "dtype") and node.ndim and not node.is_scale
    }


def _tables(nodes: Mapping[str, Any]) -> list[str]:
    """The paths of what could be a table: groups of columns, matrices, and records."""
    found = []
    for group, node in nodes.items():
        if hasattr(node, "dtype"):
            continue
        datasets = _datasets(nodes, group)
        records = {name for name, one in datasets.items() if one.dtype.names and one.ndim == 1}
        lengths = {one.shape[0] for one in datasets.values()}
        if len(lengths) == 1 and len(datasets) > 1 and not records:
            found.append(f"/{group}")
        else:
            found += [
                f"/{name}"
                for name, one in datasets.items()
                if name in records or one.ndim == 2 or len(datasets) == 1
            ]
    return found


def _size(dataset: Any) -> int:
    return int(np.prod(dataset.shape, dtype=object)) * int(dataset.dtype.itemsize)


def _values(dataset: Any, first: int | None = None, last: int | None = None) -> Any:
    """Rows of a dataset, by netCDF's attributes masked, scaled and made true or false."""
    if dataset.dtype.kind == "O":
        is_text = (dataset.dtype.metadata or {}).get("vlen") in (str, bytes)
        return dataset.asstr()[first:last] if is_text else np.zeros(0, np.void)
    x = dataset[first:last]
    attributes = dataset.attrs
    if x.dtype.kind not in "biuf":
        return x
    if "_FillValue" in attributes:
        x = np.ma.array(x, mask=x == attributes["_FillValue"])
    if _text(attributes.get("dtype")) == "bool":
        return x.astype(np.bool_)
    if {"scale_factor", "add_offset"} & set(attributes):
        return x * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0)
    return x


def _dimensions(dataset: Any) -> list[str]:
    """The names of a dataset's dimensions, those of scales that it refers to."""
    return [one[0].name.rpartition("/")[2] if len(one) else "" for one in dataset.dims]


def _drawn(nodes: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The datasets of a group that have a value for each draw of each chain."""
    datasets = _datasets(nodes, group)
    return {name: one for name, one in datasets.items() if {*DRAWS} <= {*_dimensions(one)}}


def _flattened(path: Path, datasets: Mapping[str, Any], file: Path) -> Source:
    """The table of ArviZ's variables, a row for each draw, chain after chain; it is read whole."""
    check_announced(sum(_size(one) for one in datasets.values()), file)
    arrays: dict[str, Any] = {}
    columns: dict[str, Place] = {}
    for told, dataset in datasets.items():
        name, names = told.rpartition("/")[2], _dimensions(dataset)
        order = [names.index(one) for one in DRAWS]
        others = [i for i in range(len(names)) if i not in order]
        x = _values(dataset).transpose([*order, *others])
        arrays[name] = x.reshape(-1, *x.shape[2:])
        labels = [
            _labels(dataset.dims[i][0] if names[i] else None, dataset.shape[i]) for i in others
        ]
        columns |= places(name, x.shape[2:], labels)
    if len({len(x) for x in arrays.values()}) > 1:
        raise UnreadableError("expected as many draws of each variable")
    return ArraySource(path, arrays, columns, len(next(iter(arrays.values()))))


def _labels(scale: Any, size: int) -> list[Any]:
    """The coordinates along a dimension, numbers from 0 if it has none."""
    named = scale is not None and not _is_elsewhere(scale) and scale.shape == (size,)
    if not named or _text(scale.attrs.get("NAME")).startswith("This is a netCDF dimension but"):
        return list(range(size))
    values = np.asarray(_values(scale)).tolist()
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bilby(path: Path, nodes: Mapping[str, Any], file: Path) -> Source:
    """A result of bilby's, whose priors are JSON in a dataset."""
    datasets = _datasets(nodes, POSTERIOR)
    check_announced(sum(_size(one) for one in datasets.values()), file)
    columns = {name.rpartition("/")[2]: _values(one) for name, one in datasets.items()}
    if len({len(x) for x in columns.values()}) > 1:
        raise UnreadableError("expected columns of equally many rows in its posterior")
    keys = nodes[KEYS]
    names = [_text(key) for key in np.atleast_1d(keys[()]).tolist()]
    priors = None
    if "priors" in nodes and nodes["priors"].shape == ():
        text = _text(nodes["priors"][()])
        priors = parse_json(text) if text.startswith("{") else None
    return source_of_posterior(path, columns, names, priors)
