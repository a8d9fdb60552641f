"""Text that is not read as it lies on disk: compressed, from standard input, or not in UTF-8."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

STDIN = Path("-")
"""What stands for standard input, and for standard output where something is written."""

GZIP = b"\x1f\x8b"

BLOCK = 2**20
"""Characters that are recoded at once."""


class Copy:
    """A temporary file, gone when this is."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(".csv", "maskedflow-")
        os.close(descriptor)
        self.path = Path(name)
        weakref.finalize(self, self.path.unlink, missing_ok=True)


def unpacked(path: Path, encoding: str | None) -> Copy | None:
    """A copy of a file as plain UTF-8 text on disk; None if it is that already.

    What reads tables begins at any row, which neither a pipe nor a compressed file can.

    Raises:
        ValueError: If the file is damaged or in another encoding, or standard input is a terminal.
    """
    is_plain = encoding is None or encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    with _opened(path) as file:
        is_packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if is_plain and not is_packed and path != STDIN:
            return None
        copy = Copy()
        try:
            source = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_packed else file
            with copy.path.open("wb") as target:
                if is_plain:
                    shutil.copyfileobj(source, target)
                else:
                    _recode(source, str(encoding), target)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise ValueError(f"{path}: expected a CSV file, found a damaged gzip file") from None
        except UnicodeError:
            raise ValueError(f"{path}: not all of it is {encoding} text (--encoding)") from None
    return copy


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file whose reading may begin again."""
    if path != STDIN:
        with path.open("rb") as file:
            yield file
        return
    if sys.stdin.isatty():
        raise ValueError(f"{path}: expected a table on standard input, found a terminal")
    with tempfile.TemporaryFile() as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.seek(0)
        yield kept


def _recode(source: IO[bytes], encoding: str, copy: IO[bytes]) -> None:
    with io.TextIOWrapper(source, encoding, newline="") as text:
        while block := text.read(BLOCK):
            copy.write(block.encode())
