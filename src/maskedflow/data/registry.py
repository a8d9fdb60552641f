"""Which data sets there are, where their files are looked for, and how they are fetched."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pooch
import torch

from maskedflow.files import atomic

from . import benchmarks, images
from .dataset import Dataset
from .split import Split
from .toy import TOYS, toy

TOY_SIZES = (10_000, 2_000, 2_000)
VARIABLE = "MASKEDFLOW_DATA"


@dataclass(frozen=True)
class Download:
    """A file to fetch: its address, its checksum, and, of an archive, its folder of files."""

    url: str
    checksum: str
    folder: str | None = None  # in the archive, with a slash; None if it is no archive


@dataclass(frozen=True)
class Description:
    """What is known of a data set.

    Its kind is `images`, `table`, `patches` or `toy`; a url, where it is published, is empty if it
    needs no file. `rows` train, validate and test, `labels` says whether there are class labels for
    a context, and the folder is where it is on this machine, or None.
    """

    name: str
    kind: str
    url: str
    features: int
    rows: tuple[int, int, int]
    labels: bool = False
    folder: Path | None = None
    # What its publisher ships, files that serve as well, and what reads them and fetches them.
    files: tuple[str, ...] = field(default=(), repr=False)
    instead: tuple[str, ...] = field(default=(), repr=False)
    read: Callable[[Path], Dataset] | None = field(default=None, repr=False)
    downloads: tuple[Download, ...] = field(default=(), repr=False)
    advice: str = field(default="", repr=False)

    @property
    def built_in(self) -> bool:
        """Whether it needs no file."""
        return self.read is None

    @property
    def downloadable(self) -> bool:
        """Whether `load(..., download=True)` can fetch it."""
        return bool(self.downloads)


_MNIST_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_UCI = "https://archive.ics.uci.edu/dataset"
_ARCHIVE = "https://zenodo.org/records/1161203"
_ARCHIVE_TAR = f"{_ARCHIVE}/files/data.tar.gz", "md5:9b9c9b0375315ad270eba4ce80c093ab"
_ARCHIVE_ADVICE = "; the folder data/ of data.tar.gz serves as it is (root, --data_dir)"

_KNOWN = (
    Description(
        "mnist",
        "images",
        "https://yann.lecun.com/exdb/mnist/",
        784,
        (50_000, 10_000, 10_000),
        files=images.MNIST_FILES,
        read=images.mnist,
        downloads=tuple(
            Download(f"{_MNIST_MIRROR}/{file}", f"md5:{md5}")
            for file, md5 in zip(images.MNIST_FILES, _MNIST_MD5, strict=True)
        ),
        labels=True,
    ),
    Description(
        "cifar10",
        "images",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        3072,
        (90_000, 5_000, 10_000),
        files=images.CIFAR10_FILES,
        read=images.cifar10,
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "md5:c32a1d4ab5d03f1284b67883e8d87530",
                folder="",
            ),
        ),
        labels=True,
    ),
    Description("digits", "images", "", 64, (1_437, 180, 180), labels=True),
    Description(
        "power",
        "table",
        f"{_UCI}/235",
        6,
        (1_659_917, 184_435, 204_928),
        files=(benchmarks.POWER_FILE,),
        read=benchmarks.power,
    ),
    Description(
        "gas",
        "table",
        f"{_UCI}/322",
        8,
        (852_174, 94_685, 105_206),
        files=(benchmarks.GAS_TEXT,),
        instead=(benchmarks.GAS_CONVERTED,),
        read=benchmarks.gas,
        advice=(
            "; the pickle in the authors' archive could run any code and is not opened: if you "
            "trust it, convert it elsewhere with pandas.read_pickle('ethylene_CO.pickle')"
            ".to_csv('ethylene_CO.csv', index=False) and put that there instead"
        ),
    ),
    Description(
        "hepmass",
        "table",
        _ARCHIVE,
        21,
        (315_123, 35_013, 174_987),
        files=benchmarks.HEPMASS_FILES,
        read=benchmarks.hepmass,
        downloads=(Download(*_ARCHIVE_TAR, folder="data/hepmass/"),),
        advice=_ARCHIVE_ADVICE,
    ),
    Description(
        "miniboone",
        "table",
        _ARCHIVE,
        43,
        (29_556, 3_284, 3_648),
        files=(benchmarks.MINIBOONE_FILE,),
        read=benchmarks.miniboone,
        downloads=(Download(*_ARCHIVE_TAR, folder="data/miniboone/"),),
        advice=_ARCHIVE_ADVICE,
    ),
    Description(
        "bsds300",
        "patches",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
        63,
        (1_000_000, 50_000, 250_000),
        files=benchmarks.BSDS300_FOLDERS,
        read=benchmarks.bsds300,
    ),
    *(Description(name, "toy", "", 2, TOY_SIZES) for name in TOYS),
)
SOURCES = {known.name: known for known in _KNOWN}
NAMES: tuple[str, ...] = tuple(SOURCES)


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    labels: bool = False,
    download: bool = False,
    seed: int = 0,
) -> Dataset:
    """Loads a data set by name, as the MAF paper splits and preprocesses it.

    Files are looked for in `root/name`, then `$MASKEDFLOW_DATA/name`, then the user's cache, in the
    publishers' own formats. The network is used only with `download=True`, and only for files whose
    checksum is known.

    Args:
        name: One of `NAMES`.
        root: The folder that holds a folder for each data set.
        labels: Whether the one-hot class label is the context (images only).
        download: Whether to fetch missing files to the user's cache.
        seed: Which toy points are drawn, and which digits go where; the others' protocol is fixed.

    Raises:
        ValueError: If no data set has this name, it has no labels, a file is not what it should be,
            or a download was asked for that cannot be checked.
        FileNotFoundError: If the files are nowhere; the message says where they were looked for and
            where to get them.

    Example:
        >>> digits = load("digits", labels=True)
        >>> digits.features, digits.context_features, len(digits.train)
        (64, 10, 1437)
    """
    source = _source(name)
    if labels and not source.labels:
        known = ", ".join(key for key, value in SOURCES.items() if value.labels)
        raise ValueError(f"labels: {name!r} has no class labels; these have: {known}")
    if name in TOYS:
        points = toy(name, sum(TOY_SIZES), torch.Generator().manual_seed(seed))
        train, validation, test = map(Split, points.split(TOY_SIZES))
        return Dataset(name, train, validation, test, columns=("x", "y"))
    if source.read is None:
        dataset: Dataset = images.digits(seed)
    else:
        folder = _find(source, root) or (_fetch(source) if download else None)
        if folder is None:
            raise FileNotFoundError(_how_to_get(source, root))
        dataset = source.read(folder)
    return dataset if labels else dataset.without_context()


def describe(name: str, root: str | os.PathLike[str] | None = None) -> Description:
    """Describes a data set without reading it, where :func:`load` looks for it.

    Raises:
        ValueError: If no data set has this name.

    Example:
        >>> describe("power").features, describe("moons").built_in
        (6, True)
    """
    source = _source(name)
    return replace(source, folder=_find(source, root))


def _source(name: str) -> Description:
    if name not in SOURCES:
        raise ValueError(f"name: no data set {name!r}; known: {', '.join(NAMES)}")
    return SOURCES[name]


def _cache() -> Path:
    return Path(pooch.os_cache("maskedflow"))


def _folders(name: str, root: str | os.PathLike[str] | None) -> list[Path]:
    """Every folder that may hold the data set, in the order they are tried."""
    roots = (root, os.environ.get(VARIABLE) or None, _cache())
    return [Path(base) / name for base in roots if base is not None]


def _find(source: Description, root: str | os.PathLike[str] | None) -> Path | None:
    for folder in _folders(source.name, root):
        for files in (source.files, source.instead):
            if files and all((folder / file).exists() for file in files):
                return folder
    return None


def _how_to_get(source: Description, root: str | os.PathLike[str] | None) -> str:
    folders = ", ".join(map(str, _folders(source.name, root)))
    download = ", or download it (download=True, --download)" if source.downloads else ""
    unset = "" if os.environ.get(VARIABLE) else f" (${VARIABLE} is not set)"
    return (
        f"data set {source.name!r} not found: looked for {', '.join(source.files)} in {folders}"
        f"{unset}; get it from {source.url} and put it in one of these{download}{source.advice}"
    )


def _fetch(source: Description) -> Path:
    """Downloads the files into the cache, each checked against its checksum."""
    folder = _cache() / source.name
    if not source.downloads:
        raise ValueError(
            f"download: no checksum is known for {source.name!r}, so it is not downloaded: get "
            f"{', '.join(source.files)} from {source.url} and put it in {folder}{source.advice}"
        )
    for download in source.downloads:
        target = folder if download.folder is None else _cache() / "downloads"
        file = pooch.retrieve(
            download.url, download.checksum, fname=download.url.rsplit("/", 1)[-1], path=target
        )
        if download.folder is not None:
            _extract(Path(file), download.folder, source.files, folder)
    return folder


def _extract(archive: Path, inside: str, files: tuple[str, ...], folder: Path) -> None:
    """Takes single files out of a tar archive; nothing else in it touches the disk."""
    with tarfile.open(archive) as tar:
        for file in files:
            target = folder / file
            content = tar.extractfile(inside + file)
            if content is None:
                raise ValueError(f"{archive}: expected a file {inside}{file}, found something else")
            with content, atomic(target) as beside, beside.open("wb") as sink:
                shutil.copyfileobj(content, sink)
