"""Reading files that may be anything: a pipe, a device, or far too long."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST = 2**22
"""Bytes of the longest text that is read."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, if it is one: a pipe or a device could be read without end.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is something else, or a link to something else.

    Example:
        >>> open_regular(Path("/dev/null"))
        Traceback (most recent call last):
        ...
        ValueError: /dev/null: expected a regular file
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a device may do something already
            raise ValueError(f"{path}: expected a regular file")
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{path}: expected a regular file")
    return file


def read_text(path: Path, most: int = MOST) -> str:
    """Reads a text in UTF-8, of at most so many bytes.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no regular file, too long, or no text.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path}: expected a text of at most {most:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8: {error}") from None
