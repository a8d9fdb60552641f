"""How CSV files are written: the options of all commands that read tables."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from .output import note

if TYPE_CHECKING:
    from maskedflow.sources import Dialect, Source

CSV = Group(
    "CSV files",
    help="Where a file's beginning does not tell how it is written. Compressed ones, .csv.gz, are "
    "read as they are, and - is standard input.",
    sort_key=90,
)

Table = Annotated[Path, Parameter(allow_leading_hyphen=True)]
"""A file to read; - is standard input."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """How a CSV file is written; ``None`` is "not said"."""

    delimiter: Annotated[
        str | None,
        Parameter(group=CSV, help="What separates columns: a character, such as ';', or tab."),
    ] = None
    decimal: Annotated[
        Literal[".", ","] | None,
        Parameter(group=CSV, help="What separates decimals: . or a comma."),
    ] = None
    encoding: Annotated[
        str | None,
        Parameter(group=CSV, help="Such as latin-1, cp1252 or utf-16. [default: utf-8]"),
    ] = None
    header: Annotated[
        bool | None,
        Parameter(
            group=CSV,
            negative="--no_header",
            help="The first line has the names of columns, whatever it looks like; or has none, "
            "and they are x0, x1, ...",
        ),
    ] = None
    date_format: Annotated[
        str | None,
        Parameter(group=CSV, help="How dates are written, such as %d/%m/%Y for 31/12/2024."),
    ] = None


def dialect_of(options: CsvOptions | None) -> "Dialect | None":
    """What was said of how CSV files are written, if anything."""
    from maskedflow.sources import Dialect

    return None if options is None else Dialect.of(asdict(options))


def opened(file: Path, options: CsvOptions | None) -> "Source | Path":
    """A table as it is said to be written, and what was guessed of it told; an array as it is."""
    from maskedflow.sources import open_source

    dialect = dialect_of(options)
    if file.suffix == ".npy" and dialect is None:
        return file  # maybe one of images, which is no table
    source = open_source(file, dialect)
    for one in source.notes:
        note(one)
    return source
