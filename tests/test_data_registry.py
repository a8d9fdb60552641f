"""Data sets by name: where their files are looked for, what is said when not found, downloads."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskedflow import data
from maskedflow.data import registry


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _nothing_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor the user's cache has a say in these tests."""
    monkeypatch.delenv("MASKEDFLOW_DATA", raising=False)
    monkeypatch.setattr(registry, "_cache", lambda: tmp_path / "cache")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no data set 'cifar'; known: mnist, cifar10, digits"):
        data.load("cifar")


def test_labels_of_a_table_are_refused() -> None:
    with pytest.raises(ValueError, match="these have: mnist, cifar10, digits"):
        data.load("moons", labels=True)


@pytest.mark.parametrize("name", [n for n, s in registry.SOURCES.items() if s.files])
def test_missing_files_say_where_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MASKEDFLOW_DATA", str(tmp_path / "environment"))
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, tmp_path / "argument")
    message = str(caught.value)
    places = [str(tmp_path / place / name) for place in ("argument", "environment", "cache")]
    assert all(place in message for place in places)
    assert sorted(places, key=message.index) == places
    assert "https://" in message
    assert "\n" not in message


def write_miniboone(folder: Path, rows: np.ndarray) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "data.npy", rows)


def test_the_argument_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("MASKEDFLOW_DATA", str(tmp_path / "environment"))
    write_miniboone(tmp_path / "environment/miniboone", rng.normal(size=(100, 43)))
    assert data.describe("miniboone", tmp_path).folder == tmp_path / "environment/miniboone"
    write_miniboone(tmp_path / "argument/miniboone", rng.normal(size=(200, 43)))
    argument = tmp_path / "argument"
    assert data.describe("miniboone", argument).folder == argument / "miniboone"
    assert len(data.load("miniboone", argument).test) == 20
    assert len(data.load("miniboone").test) == 10


def test_every_data_set_is_described() -> None:
    for name in data.NAMES:
        description = data.describe(name)
        assert description.folder is None
        assert description.built_in == (not description.url)
        if description.built_in:
            loaded = data.load(name)
            assert loaded.features == description.features
            sizes = tuple(len(s) for s in (loaded.train, loaded.validation, loaded.test))
            assert sizes == description.rows


def test_no_download_without_a_known_checksum(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checksum is known for 'power'"):
        data.load("power", tmp_path, download=True)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves without a word on the terminal."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


def serve_miniboone(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, rows: np.ndarray, checksum: str = ""
) -> None:
    url, folder = server
    np.save(folder / "data.npy", rows)
    with tarfile.open(folder / "data.tar.gz", "w:gz") as tar:
        tar.add(folder / "data.npy", "data/miniboone/data.npy")
    checksum = checksum or f"md5:{md5((folder / 'data.tar.gz').read_bytes()).hexdigest()}"
    download = registry.Download(f"{url}/data.tar.gz", checksum, "data/miniboone/")
    source = replace(registry.SOURCES["miniboone"], downloads=(download,))
    monkeypatch.setitem(registry.SOURCES, "miniboone", source)


def test_a_download_is_checked_extracted_and_found_again(
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    serve_miniboone(server, monkeypatch, rng.normal(size=(100, 43)))
    with pytest.raises(FileNotFoundError, match="download=True"):
        data.load("miniboone")
    fetched = data.load("miniboone", download=True)
    assert data.describe("miniboone").folder == tmp_path / "cache/miniboone"
    assert [p.name for p in (tmp_path / "cache/miniboone").iterdir()] == ["data.npy"]
    assert torch.equal(data.load("miniboone").train.x, fetched.train.x)


def test_a_download_with_another_checksum_is_refused(
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    serve_miniboone(server, monkeypatch, rng.normal(size=(100, 43)), "md5:" + 32 * "0")
    with pytest.raises(ValueError, match="hash"):
        data.load("miniboone", download=True)
    assert not (tmp_path / "cache/miniboone").exists()
