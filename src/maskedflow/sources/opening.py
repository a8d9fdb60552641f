"""Opening a table on disk, whatever kind of file it is."""

from __future__ import annotations

import os
from pathlib import Path

from .csv import CsvSource
from .parquet import ParquetSource
from .source import READABLE, Source


def open_source(path: str | os.PathLike[str] | Source) -> Source:
    r"""Opens a table on disk, of which nothing but names, types and sizes is read.

    Args:
        path: A `.csv` file with a header, a `.parquet` file, or a folder of `.parquet` files, which
            are one table in the order of their names; those that begin with `_` or `.` are not, by
            custom. What is open already is given back as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table, or names are missing or given twice, or the files of a folder
            have different columns.

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
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    files: tuple[Path, ...] = (path,)
    if path.is_dir():
        files = tuple(sorted(f for f in path.glob("*.parquet") if f.name[0] not in "_."))
        if not files:
            raise ValueError(
                f"{path}: expected a {' or '.join(READABLE)} file or a folder of .parquet files, "
                "found a folder without any"
            )
    elif path.suffix not in READABLE:
        raise ValueError(f"{path}: expected a file ending in {' or '.join(READABLE)}")
    is_csv = path.suffix == ".csv" and path.is_file()
    source = CsvSource(path) if is_csv else ParquetSource(path, files)
    for i, name in enumerate(source.names):
        if not name:
            raise ValueError(
                f"{source.path}: column {i + 1} has no name (a saved row index?); expected a "
                "header with a name for each column"
            )
        if name in source.names[:i]:
            raise ValueError(f"{source.path}: expected each column name once, found {name!r} twice")
    return source
