"""Opening a table on disk, whatever kind of file it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .bilby import open_result
from .chains import chain_files, open_chain
from .csv import CsvSource
from .dialect import Dialect
from .fits import open_fits
from .hdf5 import open_hdf5
from .numpy_files import open_npy, open_npz
from .parquet import ParquetSource
from .source import Source
from .unpacked import STDIN

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

CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""The endings of CSV files."""

READABLE = (".csv", ".tsv", ".parquet", ".txt", *_READERS)
"""The endings of files that are tables."""

PART = "::"
"""What is between a file and the table in it that is meant."""


def open_source(path: str | os.PathLike[str] | Source, dialect: Dialect | None = None) -> Source:
    r"""Opens a table on disk, of which no more than needed is read.

    Args:
        path: A `.csv` or `.tsv` file with a header, which may be compressed, as `.csv.gz`, or come
            from standard input, as `-`; a `.parquet` file, or a folder of `.parquet` files, which
            are one table in the order of their names; those that begin with `_` or `.` are not, by
            custom. A chain of GetDist's or Cobaya's, `root.txt` or its root; a `.json` result of
            bilby's; arrays in `.npy` and `.npz`; tables in `.fits`, `.h5`, `.hdf5` and `.nc`, of
            which one is meant by `file.h5::/name`. What is open already is given back as it is.
        dialect: How a CSV file is written, as far as it is not to be told from its beginning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table, or names are missing or given twice, or the files of a folder
            have different columns, or a library that reads such files is not installed; if a
            dialect is given of what is no CSV file.

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
    source = _opened(Path(path), dialect)
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


def is_csv(path: Path) -> bool:
    """Whether a file is a CSV file, by its name; standard input and output are."""
    return path == STDIN or path.name.endswith(CSV)


def _opened(path: Path, dialect: Dialect | None) -> Source:
    if path == STDIN:
        return CsvSource(path, dialect)
    if dialect is not None and not is_csv(path):
        said = ", ".join(
            f"--{name}" for name, value in asdict(dialect).items() if value is not None
        )
        raise ValueError(f"{path}: is no CSV file, whose dialect could be said; leave out {said}")
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
    if is_csv(file):
        return CsvSource(path, dialect)
    match file.suffix:
        case ".parquet":
            return ParquetSource(path, (path,))
        case ".txt":
            return open_chain(path, [path])
        case suffix if suffix in _READERS:
            return _READERS[suffix](path, file, part)
    raise ValueError(f"{path}: expected a file ending in {_listed()}")


def _listed() -> str:
    return f"{', '.join(READABLE[:-1])} or {READABLE[-1]}"
