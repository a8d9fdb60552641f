"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .locks import open_locked


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives the name to write a file under, which is moved into its place in the end.

    Whoever reads the path finds the old file or the new one, whole. On an error the old one stays.
    The name is always the same, so what a killed process leaves behind is overwritten by the next.

    Args:
        path: The file to write, in a folder that exists.

    Yields:
        An empty file beside it.

    Raises:
        ValueError: If another process is writing it now.
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic(Path(folder) / "note.txt") as beside:
        ...         _ = beside.write_text("done")
        ...     [file.name for file in Path(folder).iterdir()]
        ['note.txt']
    """
    beside = path.with_name(f".{path.name}.tmp")
    lock = open_locked(beside, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    if lock is None:
        raise ValueError(f"{path}: another process is writing this file")
    with os.fdopen(lock, "r+b") as file:
        if os.name == "nt":
            file.close()  # Windows moves no file that is open
        try:
            os.truncate(beside, 0)
            yield beside
            if not file.closed:
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError as error:
            error.filename = error.filename or str(path)  # a full disk does not tell the file
            raise
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all; makes missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as beside:
        beside.write_text(text, "utf-8")
