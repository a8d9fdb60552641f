"""Compiles functions for good: what was compiled is kept in Numba's cache, if that can be."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc

_log = logging.getLogger(__name__)
_jit: Any = numba.njit  # whose types miss some options
#: A product and a sum may become one instruction.
_njit: Any = _jit(nogil=True, error_model="numpy", fastmath={"contract"})


def compile_cached(function: Callable[[int], None], name: str, stamp: str) -> int:
    """The address of a compiled function of an integer, which the cache knows by a name.

    A file in the cache that is not as it was written, after a crash or on a full disk, is replaced.
    Without a place for a cache, the function is compiled for this process alone. The stamp stands
    for all that it is made from; with another one, it is compiled anew.
    """
    function.__qualname__ = name
    code: Any = CFunc(function, ((types.int64,), types.void), locals={}, options={})
    try:
        code._cache = _Cache(function, stamp)
    except RuntimeError:  # Numba has found nowhere to write
        _tell()
    code.compile()
    address: int = code.address
    return address


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles a function of arrays when it is called first, and keeps that in the same way.

    It runs on one thread, without Python's lock. What it calls has to be in its own file.
    """
    made: Any = _njit(function)
    try:
        made._cache = _Cache(function, "")
    except RuntimeError:  # Numba has found nowhere to write
        _tell()
    return made


class _Cache(FunctionCache):
    def __init__(self, function: Callable[..., Any], stamp: str) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Numba's own depends on what a function encloses, which no other process has."""
        return sig, codegen.magic_tuple()

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            _tell()


class _Files(IndexDataCacheFile):
    """The files of Numba's cache, with a digest at their end.

    Numba raises whatever pickle raises on a file that was cut, and on one with a hole LLVM ends the
    process. It also writes an index before what that points to; so the digest is of the stamp too,
    and nobody takes code of an earlier version for its own.
    """

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(content.getvalue() + self._digest(content.getvalue()))

    def _load_index(self) -> Any:
        return super()._load_index() if self._is_whole(self._index_path) else {}

    def _load_data(self, name: str) -> Any:
        path = self._data_path(name)
        if not self._is_whole(path):
            raise FileNotFoundError(path)  # which means "compile it"
        return super()._load_data(name)

    def _is_whole(self, path: str) -> bool:
        try:
            content = Path(path).read_bytes()
        except OSError:
            return False
        end = len(content) - hashlib.sha256().digest_size
        return end > 0 and self._digest(content[:end]) == content[end:]

    def _digest(self, content: bytes) -> bytes:
        return hashlib.sha256(f"{self._version} {self._source_stamp} ".encode() + content).digest()


@cache
def _tell() -> None:
    """Says once that compiled code is not kept."""
    _log.warning(
        "no place to keep compiled code, so each process compiles for seconds; "
        "NUMBA_CACHE_DIR names a folder"
    )
