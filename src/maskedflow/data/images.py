"""MNIST, CIFAR-10 and scikit-learn's digits, from the files their publishers ship.

Pixels stay the integers they are, flattened channel-first; the context is the one-hot class label.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .dataset import ImageDataset
from .split import Split

CLASSES = 10
MNIST_FILES = tuple(
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
CIFAR10_FILES = tuple(
    f"cifar-10-batches-bin/{batch}.bin"
    for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)


# The best of 1e-6 .. 0.2 for a full Gaussian on the validation digits: 2.29 bits a pixel, against
# 2.34 at MNIST's 1e-6 and 2.46 at CIFAR-10's 0.05; and blank pixels stay within 5 of zero.
DIGITS_ALPHA = 0.01

Bytes = NDArray[np.uint8]


def mnist(folder: Path) -> ImageDataset:
    """Reads MNIST: 50,000 images to train, the last 10,000 of the training file to validate."""
    images, labels, test_images, test_labels = (read_idx(folder / name) for name in MNIST_FILES)
    if images.ndim != 3 or len(images) != len(labels):
        raise ValueError(f"{folder}: {images.shape} images do not go with {labels.shape} labels")
    held_out = len(images) // 6
    height, width = images.shape[1:]
    return _dataset(
        "mnist",
        (images[:-held_out], labels[:-held_out]),
        (images[-held_out:], labels[-held_out:]),
        (test_images, test_labels),
        shape=(1, height, width),
        levels=256,
        alpha=1e-6,
    )


def cifar10(folder: Path) -> ImageDataset:
    """Reads CIFAR-10: the last tenth of its training images validates, flips double the rest."""
    *batches, test = (read_cifar_batch(folder / name) for name in CIFAR10_FILES)
    images = np.concatenate([batch[0] for batch in batches])
    labels = np.concatenate([batch[1] for batch in batches])
    kept = int(0.9 * len(images))
    train = images[:kept]
    return _dataset(
        "cifar10",
        (np.concatenate([train, train[..., ::-1]]), np.tile(labels[:kept], 2)),
        (images[kept:], labels[kept:]),
        test,
        shape=(3, 32, 32),
        levels=256,
        alpha=0.05,
    )


def digits(seed: int = 0) -> ImageDataset:
    """Scikit-learn's 1,797 digits of 8 x 8 pixels and 17 levels, which need no file.

    `seed` decides which 180 images validate and which 180 test.
    """
    from sklearn.datasets import load_digits  # a second to import, and only needed here

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order].astype(np.uint8), labels[order].astype(np.uint8)
    parts = slice(-360), slice(-360, -180), slice(-180, None)
    return _dataset(
        "digits",
        *((images[part], labels[part]) for part in parts),
        shape=(1, 8, 8),
        levels=17,
        alpha=DIGITS_ALPHA,
    )


def read_idx(path: Path) -> Bytes:
    """Reads an array of bytes from a gzipped IDX file, the format of MNIST."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}: expected a gzipped IDX file, found {error}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: expected an IDX file of bytes, found header {content[:4]!r}")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], dtype=">u4").astype(int)
    if len(content) - start != shape.prod():
        raise ValueError(
            f"{path}: expected {shape.prod():,} bytes of data for shape {tuple(shape.tolist())}, "
            f"found {len(content) - start:,}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar_batch(path: Path) -> tuple[Bytes, Bytes]:
    """Reads images `(n, 3, 32, 32)` and labels `(n,)` from a CIFAR-10 binary batch."""
    content = np.fromfile(path, np.uint8)
    record = 1 + 3 * 32 * 32
    if not len(content) or len(content) % record:
        raise ValueError(
            f"{path}: expected records of {record:,} bytes, found {len(content):,} bytes in all"
        )
    records = content.reshape(-1, record)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _dataset(
    name: str,
    *parts: tuple[Bytes, Bytes],
    shape: tuple[int, int, int],
    levels: int,
    alpha: float,
) -> ImageDataset:
    splits = []
    for images, labels in parts:
        if labels.size and labels.max() >= CLASSES:
            raise ValueError(f"{name}: expected labels 0 to {CLASSES - 1}, found {labels.max()}")
        # Torch wants memory that it may write to, which a buffer of bytes is not.
        pixels = np.require(images.reshape(len(images), -1), requirements=["C", "W"])
        one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
        splits.append(Split(torch.from_numpy(pixels), torch.from_numpy(one_hot)))
    train, validation, test = splits
    return ImageDataset(
        name,
        train,
        validation,
        test,
        columns=tuple(f"pixel_{i}" for i in range(int(np.prod(shape)))),
        context_columns=tuple(f"label_{i}" for i in range(CLASSES)),
        image_shape=shape,
        levels=levels,
        alpha=alpha,
    )
