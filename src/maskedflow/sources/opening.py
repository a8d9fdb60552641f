"""Opening a table on disk, whatever kind of file it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .bilby import open_result
from .chains import chain_files, open_chain
from .csv import CsvSource
from .fits import open_fits
from .hdf5 import open_hdf5
from .numpy_files import open_npy, open_npz
from .parquet import ParquetSource
from .source import Source

_READERS: dict[str, Callable[[Path, Path, str], Source]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".json": open_result,
    ".fits": open_fits,
    ".fit": open_fits,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".nc": open_hdf5,
}

READABLE = (".csv", ".parquet", ".txt", *_READERS)
"""The endings of files that are tables."""

PART = "::"
"""What is between a file and the table in it that is meant."""


def open_source(path: str | os.PathLike[str] | Source) -> Source:
    r"""Opens a table on disk, of which no more than needed is read.

    Args:
        path: A `.csv` file with a header, a `.parquet` file, or a folder of `.parquet` files, which
            are one table in the order of their names; those that begin with `_` or `.` are not, by
            custom. A chain of GetDist's or Cobaya's, `root.txt` or its root; a `.json` result of
            bilby's; arrays in `.npy` and `.npz`; tables in `.fits`, `.h5`, `.hdf5` and `.nc`, of
            which one is meant by `file.h5::/name`. What is open already is given back as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table, or names are missing or given twice, or the files of a folder
            have different columns, or a library that reads such files is not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "heights.csv"
        >>> path.write_text("age,height\n" + 5 * "40,172.5\n")
        56
        >>> source = open_source(path)
        >>> source.names, [batch.num_rows for batch in source.batches(["age"], rows=2)]
        (('age', 'height'), [2, 2, 1])
    """
    if isinstance(path, Source):
        return path
    source = _opened(Path(path))
    names = (*source.names, *source.index)
    for i, name in enumerate(names):
        if not name:
            raise ValueError(
                f"{source.path}: column {i + 1} has no name (a saved row index?); expected a "
                "header with a name for each column"
            )
        if name in names[:i]:
            raise ValueError(f"{source.path}: expected each column name once, found {name!r} twice")
    return source


def _opened(path: Path) -> Source:
    if path.is_dir():
        files = tuple(sorted(f for f in path.glob("*.parquet") if f.name[0] not in "_."))
        if not files:
            raise ValueError(
                f"{path}: expected a {_listed()} file or a folder of .parquet files, "
                "found a folder without any"
            )
        return ParquetSource(path, files)
    name, _, part = (str(path), "", "") if path.exists() else str(path).partition(PART)
    file = Path(name)
    if not file.exists():
        if chain := chain_files(file):  # of a root
            return open_chain(path, chain)
        raise FileNotFoundError(f"{file}: no such file")
    if part and file.suffix not in _READERS:
        raise ValueError(f"{path}: expected no {part!r} behind {PART}, for {file} is one table")
    match file.suffix:
        case ".csv":
            return CsvSource(path)
        case ".parquet":
            return ParquetSource(path, (path,))
        case ".txt":
            return open_chain(path, [path])
        case suffix if suffix in _READERS:
            return _READERS[suffix](path, file, part)
    raise ValueError(f"{path}: expected a file ending in {_listed()}")


def _listed() -> str:
    return f"{', '.join(READABLE[:-1])} or {READABLE[-1]}"
