"""What is left of compiled code after a crash, on a full disk, or where nobody may write."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core.ccallback import CFunc

from maskedflow.kernels import cache, entries
from maskedflow.kernels.cache import compile_cached
from maskedflow.kernels.run import integers


def set_to_seven(address: int) -> None:
    integers(address, 1)[0] = 7


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions that were compiled, and not read."""
    done: list[str] = []
    before = CFunc._compile_uncached

    def noted(self: Any) -> Any:
        done.append(self.__name__)
        return before(self)

    monkeypatch.setattr(CFunc, "_compile_uncached", noted)
    cache._tell.cache_clear()
    return done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled code goes."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answer(stamp: str = "first") -> int:
    """Compiles or reads the function, and calls it."""
    place = ctypes.c_int64(0)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compile_cached(set_to_seven, "seven", stamp))(
        ctypes.addressof(place)
    )
    return place.value


def cut(part: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(part * len(content))]


def with_hole(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(16) + content[middle + 16 :]


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "first byte": lambda content: content[:1],
    "half": cut(0.5),
    "nearly whole": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "hole": with_hole,
    "text": lambda content: b"not a pickle\n" * 99,
    "longer": lambda content: content + b"\0",
}


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_file_is_replaced(
    folder: Path, compiled: list[str], kind: str, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer() == 7
    assert answer() == 7
    assert compiled == ["set_to_seven"]
    (path,) = folder.glob(f"*/*.{suffix}")
    path.write_bytes(SPOILT[kind](path.read_bytes()))
    assert answer() == 7
    assert answer() == 7
    assert compiled == ["set_to_seven"] * 2
    assert not caplog.records


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_what_cannot_be_replaced_is_told_once(
    folder: Path, compiled: list[str], suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer() == 7
    (path,) = folder.glob(f"*/*.{suffix}")
    path.unlink()
    path.mkdir()
    assert answer() == 7
    assert answer() == 7
    assert len(compiled) == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert not [*folder.glob("*/*.tmp.*")]


def test_no_place_to_write_is_told_once(
    tmp_path: Path,
    compiled: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cache._Cache._impl_class, "_locator_classes", [])
    assert answer() == 7
    assert answer() == 7
    assert len(compiled) == 2
    assert len(caplog.records) == 1
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_code_of_another_version_is_not_taken(folder: Path, compiled: list[str]) -> None:
    """Not even where a crash left a new index beside the code of an old one."""
    assert answer("first") == 7
    (code,) = folder.glob("*/*.nbc")
    old = code.read_bytes()
    assert answer("second") == 7
    assert len(compiled) == 2
    code.write_bytes(old)
    assert answer("second") == 7
    assert len(compiled) == 3


def test_no_two_functions_have_the_same_name() -> None:
    # LLVM would link both to the first that is loaded, whose numbers are others.
    made = [one.py_func for one in entries.FUNCTIONS.values()]
    names = [(one.__module__, one.__qualname__) for one in made]
    assert len(set(names)) == len(names)
