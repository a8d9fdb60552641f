"""Writing safely: a folder by one process at a time, a file whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from errno import ENOTDIR
from pathlib import Path

Inode = tuple[int, int]

_BESIDE = ".maskedflow.tmp"
"""How the names of files end that are being written: by them others know whose they are."""

_TRIES = 50
"""How often, a hundredth of a second apart, a file is asked for that others may only sweep."""

_HELD: ContextVar[frozenset[Inode]] = ContextVar("_HELD", default=frozenset())


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps others from writing into a folder: other processes, and other threads of this one.

    The folder itself is locked, so nothing is left in it, and a process that is killed leaves no
    lock behind. It is made when missing, and removed if it then is still empty in the end. Whoever
    holds it may ask for it again.

    Raises:
        ValueError: If another holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out, exclusive(Path(out) / "run"):
        ...     (Path(out) / "run").is_dir()
        True
    """
    if os.name == "nt" or _inode(folder) in _HELD.get():
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = open_locked(folder)
    if lock is None:
        raise ValueError(f"{folder}: another process is writing into this folder")
    held = _identity(os.fstat(lock))
    token = _HELD.set(_HELD.get() | {held})
    try:
        yield
    finally:
        _HELD.reset(token)
        if _inode(folder) == held:
            with suppress(OSError):  # one that is not empty
                for path in made:
                    path.rmdir()
        os.close(lock)


def open_locked(path: Path, flags: int | None = None) -> int | None:
    """Opens and locks a file with flags of :func:`os.open`, or a folder; None if another has it."""
    left = 0 if flags is None else _TRIES
    while True:
        if flags is None:
            _make(path)
        lock = os.open(path, os.O_RDONLY if flags is None else flags | os.O_CREAT, 0o666)
        taken = _lock(lock) is False
        if not taken and _identity(os.fstat(lock)) == _inode(path):
            return lock
        os.close(lock)  # what was there has been moved or removed since, if it was not taken
        if taken:
            if not left:
                return None
            left -= 1
            time.sleep(0.01)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock of an open file is ours now; None where there are no locks."""
    if os.name == "nt":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def sweep(folder: Path) -> None:
    """Removes what killed processes were writing in a folder; a living one holds a lock on it.

    Where there are no locks, nothing is removed.
    """
    for left in folder.glob(f".*{_BESIDE}"):
        with suppress(OSError):  # it is gone, or not ours
            lock = os.open(left, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _lock(lock) and _identity(os.fstat(lock)) == _inode(left):
                    left.unlink()
            finally:
                os.close(lock)


def _inode(path: Path) -> Inode | None:
    try:
        return _identity(path.stat())
    except FileNotFoundError:
        return None


def _identity(found: os.stat_result) -> Inode:
    return found.st_dev, found.st_ino


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives an empty file beside a path, to be moved there in the end; makes missing folders.

    Whoever reads the path finds the old file or the new one, whole. On an error the old one stays.
    What a killed process has left in the folder is removed.

    Raises:
        ValueError: If another process is writing it now.
        OSError: If it cannot be written; it names the path, also where a disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic(Path(folder) / "note.txt") as beside:
        ...         _ = beside.write_text("done")
        ...     [file.name for file in Path(folder).iterdir()]
        ['note.txt']
    """
    _make(path.parent)
    sweep(path.parent)
    beside = path.with_name(f".{path.name}{_BESIDE}")
    with named(path):
        lock = open_locked(beside, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    if lock is None:
        raise ValueError(f"{path}: another process is writing this file")
    with named(path), os.fdopen(lock, "r+b") as file:
        if os.name == "nt":
            file.close()  # Windows moves no file that is open
        try:
            os.truncate(beside, 0)
            yield beside
            if not file.closed:
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Has an error of the operating system name a file: that of a full disk names none.

    Example:
        >>> with named(Path("a.log")):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        ...
        OSError: [Errno 28] No space left on device: 'a.log'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).name.endswith(_BESIDE):
            error.filename = str(path)
            if error.filename2 is not None:
                del error.filename2
            if error.errno:
                error.strerror = os.strerror(error.errno)  # others put it in words of their own
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder beside a path, to be moved there in the end, as :func:`atomic` a file.

    On an error nothing is left. What a killed process leaves behind is removed by the next.

    Raises:
        ValueError: If there is something at the path, or another process is writing it now.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_folder(Path(folder) / "parts") as beside:
        ...         _ = (beside / "0.txt").write_text("done")
        ...     [str(file.relative_to(folder)) for file in Path(folder).rglob("*.txt")]
        ['parts/0.txt']
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path}: expected a folder that is new or empty, found something there")
    beside = path.with_name(f".{path.name}.tmp")
    with exclusive(beside):
        try:
            _clear(beside)
            yield beside
            os.replace(beside, path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def _make(folder: Path) -> None:
    """Makes a folder and those above it; of a file in its place says that it is no folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), str(folder)) from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all; makes missing folders."""
    with atomic(path) as beside:
        beside.write_text(text, "utf-8")
