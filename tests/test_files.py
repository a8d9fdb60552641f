"""Files are written whole or not at all, locked while in use, and read as what they should be."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import SMALL, call, pair, run, table, write_csv
from maskedflow.files import (
    Positive,
    Size,
    atomic,
    blame,
    check,
    check_fields,
    exclusive,
    parse_json,
    parse_toml,
    read_text,
    write_text,
)
from maskedflow.training.history import RunLog


@contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """Has another thread hold a folder's lock."""
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(folder):
            ready.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


# ----------------------------------------------------------------------------------------- writing


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half" + "\ud800")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("below", ["b.txt", "c/b.txt"])
def test_a_file_in_the_place_of_a_folder_is_told(below: str, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    told = pytest.raises(NotADirectoryError, match=r"Not a directory.*a")
    with told:
        write_text(tmp_path / "a" / below, "new")
    with told, exclusive(tmp_path / "a" / Path(below).parent):
        pass


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in ("a", "another"):
        (tmp_path / f".{name}.txt.maskedflow.tmp").write_text("a long rest of something")
    (tmp_path / ".note.tmp").write_text("of another program")
    with atomic(tmp_path / "b.txt") as beside:  # of a living one
        write_text(tmp_path / "a.txt", "short")
        beside.write_text("long")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a.txt": "short", "b.txt": "long", ".note.tmp": "of another program"}


def test_writers_of_other_files_do_not_sweep_each_other(tmp_path: Path) -> None:
    def write(name: int) -> None:
        for _ in range(5):
            write_text(tmp_path / f"{name}.txt", str(name))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{k}.txt" for k in range(4)]


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*/a\.txt'"):
            write_text(tmp_path / "a.txt", "text")
    with pytest.raises(OSError, match=r"too long: '.*/x+'"):
        write_text(tmp_path / ("x" * 250), "text")
    log = RunLog(tmp_path / "logs")
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/logs/training\.log'"):
        log.line("an epoch")
    assert not list(tmp_path.glob("*.txt"))


def test_of_two_writers_the_second_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic(path) as beside:
        beside.write_text("first")
        with pytest.raises(ValueError, match=r"a\.txt: another process is writing this file"):
            write_text(path, "second")
    assert path.read_text() == "first"


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "run"
    with held_by_another(folder):
        with pytest.raises(ValueError, match=r"run: another process is writing"), exclusive(folder):
            pass
        moved = folder.rename(tmp_path / "moved")
        with exclusive(folder):  # a new one, under the same name
            assert folder.is_dir()
        assert moved.is_dir()
    with exclusive(folder), exclusive(folder):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]
    with exclusive(tmp_path / "made" / "empty"):
        pass
    assert not (tmp_path / "made").exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from maskedflow.files import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="another process"), exclusive(tmp_path):
            pass
        other.kill()
    with exclusive(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_second_training_ends_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "--data", pair(tmp_path), "--flow", "maf", "--out", tmp_path, *SMALL)
    assert run(*words) == 0
    with held_by_another(tmp_path / "t"):
        for more in ((), ("--resume",)):
            code, _, err = call(capsys, *words, *more)
            assert (code, err.count("\n")) == (2, 1)
            assert f"{tmp_path / 't'}: another process is writing into this folder" in err
    assert not (tmp_path / "t.1").exists()  # nothing was moved from under the first one


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_is_stopped_leaves_nothing(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = write_csv(tmp_path / "n.csv", ["a", "b", "c"], table())
    assert run("train", "--data", data, "--flow", "maf", "--out", tmp_path, *SMALL) == 0
    output = tmp_path / "scores" / "s.csv"
    output.parent.mkdir()

    def stopped(blocks: Iterator[Any], *_: object) -> Iterator[Any]:
        for block in blocks:
            yield block
            assert len(list(output.parent.iterdir())) == 1
            os.kill(os.getpid(), number)

    monkeypatch.setattr(sys.modules["maskedflow.cli.score"], "tracked", stopped)
    before = signal.getsignal(signal.SIGTERM)
    # A shell has jobs in its background ignore interrupts, and so would this process.
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found, _, err = call(capsys, "score", tmp_path / "n", data, "-o", output)
    finally:
        signal.signal(signal.SIGINT, interrupted)
    assert (found, err.count("\n")) == (code, 1)
    assert list(output.parent.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


# ----------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "expected a regular file"),
        (os.mkdir, "expected a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "expected a regular file"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
        (lambda path: path.write_bytes(b"1234567"), "at most 6 bytes"),
        (lambda path: path.write_bytes(b"\xff"), "expected text in UTF-8"),
    ],
)
def test_what_is_no_text_is_not_read(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "t")
    with pytest.raises((ValueError, FileNotFoundError), match=rf"/t: .*{message}"):
        read_text(tmp_path / "t", 6)


def test_a_link_to_a_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("β")
    (tmp_path / "link").symlink_to("t")
    assert read_text(tmp_path / "link") == "β"


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_json, "[" * 100_000 + "]" * 100_000),
        (parse_json, '{"a":' * 100_000 + "1" + "}" * 100_000),
        (parse_toml, "a = " + "[" * 100_000 + "]" * 100_000),
        (parse_toml, ".".join("a" * 10_000) + " = 1"),
        (parse_toml, "[" + ".".join("a" * 10_000) + "]"),
    ],
    ids=["lists", "tables", "TOML lists", "dotted", "dotted section"],
)
def test_deep_nests_are_no_recursion_errors(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse(text)


@dataclass
class Record:
    """Something with a value of each kind."""

    number: int
    share: float = 0.5
    names: tuple[str, ...] = ()
    inner: Record | None = None


def test_what_is_wrong_with_a_file_is_told_in_a_line_that_can_be_read() -> None:
    path = Path("a.toml")
    wanted = r"^a.toml: no run: expected a number, got xx"
    with pytest.raises(ValueError, match=wanted) as caught, blame(path, "no run"):
        raise ValueError("expected a number,\ngot " + 10_000 * "x")
    assert len(str(caught.value)) < 1100


def test_plain_values_become_a_record() -> None:
    values = {"number": 1, "share": 1, "names": ["a"], "inner": {"number": 2, "share": np.inf}}
    assert check(Record, values) == Record(1, 1.0, ("a",), Record(2, np.inf))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": "1"}, "number: expected an integer, got '1'"),
        ({"number": True}, "number: expected an integer, got True"),
        ({"number": 1.5}, "number: expected an integer, got 1.5"),
        ({"number": 1, "names": "a"}, "names: expected a list, got 'a'"),
        ({"number": 1, "inner": {}}, "inner.number: missing"),
        ([], "expected"),
        ({"number": {1, 2}}, "expected plain values"),
    ],
)
def test_values_of_another_type_are_named(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check(Record, values)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@dataclass(frozen=True)
class Settings:
    """Settings with bounds."""

    steps: Size = 1
    rate: Positive | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"steps": True}, "steps: expected an integer, got True"),
        ({"rate": -1}, "rate: expected a positive number, got -1"),
        ({"rate": np.inf}, "rate: expected a finite number, got inf"),
        ({"rate": "fast"}, "rate: expected a number, got 'fast'"),
    ],
)
def test_fields_that_are_not_what_their_annotations_say(
    values: dict[str, Any], message: str
) -> None:
    check_fields(Settings(3, 0.5))
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_fields(Settings(**values))
