"""The tables and image patches of the MAF paper, preprocessed as its authors' public code does.

POWER, GAS, HEPMASS and MINIBOONE are standardised and BSDS300 is scaled here, by protocol: their
published log-likelihoods are in these units. Mean and deviation come from the training split only
(the authors' code lets the validation split, and for GAS the test split, have a say; the effect is
below the published digits).

References:
    | Masked Autoregressive Flow (Papamakarios et al., 2017), appendix D
    | https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import torch
from numpy.typing import NDArray
from PIL import Image

from maskedflow.sources.source import one_line_errors

from .dataset import Dataset
from .discrete import Cells
from .split import Split
from .table import column_names, read_table

POWER_FILE = "household_power_consumption.txt"
_POWER_METERS = ("Global_active_power", "Voltage", *(f"Sub_metering_{i}" for i in (1, 2, 3)))
_POWER_COLUMNS = (*_POWER_METERS, "minute_of_day")
_POWER_STEPS = np.array([1e-3, 1e-2, 1.0, 1.0, 1.0, 0.0])
GAS_TEXT, GAS_CONVERTED = "ethylene_CO.txt", "ethylene_CO.csv"
HEPMASS_FILES = ("1000_train.csv", "1000_test.csv")
MINIBOONE_FILE = "data.npy"
BSDS300_FOLDERS = ("images/train", "images/test")

PATCH = 8
PROTOCOL_SEED = 42  # the paper's code uses it throughout; one protocol, one data set

Floats = NDArray[np.float64]


def power(folder: Path) -> Dataset:
    """Reads POWER from UCI's text file: 6 features of a household's electricity, minute by minute.

    Rows with a missing value are dropped. Shuffling and the noise that hides the meters' rounding
    follow from seed 42 as in the paper's code; the minute of the day gets no noise.
    """
    measured, noise = _power(folder)
    return _standardized("power", _tenths(measured + noise * _POWER_STEPS), _POWER_COLUMNS)


def power_cells(folder: Path) -> Dataset:
    r"""The rows of :func:`power` as they were measured: the corners of cells that its noise fills.

    They are in the same units. `cells` has the steps of the meters; a flow that was trained with
    fresh noise has :math:`P(x) / \prod_i s_i` for the density of POWER's rows, see
    :class:`maskedflow.transforms.Dequantize`.
    """
    measured, noise = _power(folder)
    noisy = _tenths(measured + noise * _POWER_STEPS)[0]
    mean, deviation = noisy.mean(axis=0), noisy.std(axis=0)
    corners = _tenths((measured - mean) / deviation)
    ends = (torch.from_numpy(end(corners[0], axis=0)) for end in (np.min, np.max))
    cells = Cells(torch.from_numpy(_POWER_STEPS / deviation), *ends)
    return replace(_parts("power", corners, _POWER_COLUMNS), cells=cells)


def _power(folder: Path) -> tuple[Floats, Floats]:
    """What was measured, and the paper's noise, uniform on [0, 1)."""
    path = folder / POWER_FILE
    with one_line_errors(path, "expected UCI's household power file, found"):
        table = pacsv.read_csv(
            path,
            parse_options=pacsv.ParseOptions(delimiter=";"),
            convert_options=pacsv.ConvertOptions(
                include_columns=("Time", *_POWER_METERS),
                column_types={"Time": pa.time32("s")} | dict.fromkeys(_POWER_METERS, pa.float64()),
                null_values=["?", ""],
            ),
        )
    table = table.drop_null()
    minute = table["Time"].cast(pa.int32()).to_numpy() // 60
    rng = np.random.RandomState(PROTOCOL_SEED)
    # Draws what the paper's `rng.shuffle(rows)` draws, without moving rows one by one.
    order = rng.permutation(table.num_rows)
    columns = [*(table[name].to_numpy() for name in _POWER_METERS), minute]
    # The paper's code draws the noise of the voltage first, then the power's, then the meters'.
    voltage, watts = rng.rand(len(order)), rng.rand(len(order))
    meters = rng.rand(len(order), 3)
    noise = np.column_stack([watts, voltage, meters, np.zeros(len(order))])
    return np.column_stack(columns)[order].astype(np.float64), noise


def gas(folder: Path) -> Dataset:
    """Reads GAS: 8 of the 16 sensors in UCI's recording of ethylene and carbon monoxide.

    The authors' archive holds a pickle, which could run any code and is never opened here. Read is
    either that table converted to `ethylene_CO.csv` (the published rows), or UCI's own
    `ethylene_CO.txt`, of which a quarter of the rows is drawn as theirs was, but by our seed.
    """
    converted = folder / GAS_CONVERTED
    if converted.exists():
        names = column_names(converted)
        if not {"Time", "Meth", "Eth"} <= set(names):
            raise ValueError(
                f"{converted}: expected columns Time, Meth, Eth, R1 to R16, found "
                f"{', '.join(names)}"
            )
        sensors = tuple(name for name in names if name not in ("Time", "Meth", "Eth"))
        data = read_table(converted, sensors).double().numpy()
    else:
        data = _read_gas_text(folder / GAS_TEXT)
        sensors = tuple(f"R{i}" for i in range(1, data.shape[1] + 1))
        rng = np.random.RandomState(PROTOCOL_SEED)
        data = data[rng.permutation(len(data))[: round(0.25 * len(data))]]
    kept = _uncorrelated(data)
    return _standardized("gas", _tenths(data[:, kept]), tuple(sensors[i] for i in kept))


def _read_gas_text(path: Path) -> Floats:
    width = 3 + 16  # time and two concentrations, then the sensors
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how older NumPy reports stray text
        file.readline()
        try:
            values = np.fromfile(file, dtype=np.float64, sep=" ")
        except (ValueError, DeprecationWarning):
            raise ValueError(f"{path}: expected a header and numbers, found other text") from None
    if not len(values) or len(values) % width:
        raise ValueError(
            f"{path}: expected a header and rows of {width} numbers, found {len(values):,} numbers"
        )
    return values.reshape(-1, width)[:, 3:]


def _uncorrelated(data: Floats) -> list[int]:
    """Drops the first column that correlates above 0.98 with another, until none does."""
    close = np.asarray(np.corrcoef(data, rowvar=False) > 0.98)
    kept = list(range(data.shape[1]))
    while (crowded := np.flatnonzero(close[np.ix_(kept, kept)].sum(axis=1) > 1)).size:
        del kept[crowded[0]]
    return kept


def hepmass(folder: Path) -> Dataset:
    """Reads HEPMASS: the signal events of UCI's `1000` files, 21 of 27 features."""
    train, test = (_read_hepmass_csv(folder / name) for name in HEPMASS_FILES)
    # The test file has a stray last column; the training file says how many there are.
    test = test[:, : train.shape[1]]
    train, test = (part[part[:, 0] == 1, 1:] for part in (train, test))
    if not len(train) or not len(test):
        raise ValueError(
            f"{folder}: expected signal events, label 1 in the first column; found none"
        )
    # As in the paper's code: out goes a feature whose smallest value occurs more than five times.
    repeats = (train == train.min(axis=0)).sum(axis=0)
    kept = np.flatnonzero(repeats <= 5)
    train, test = train[:, kept], test[:, kept]
    held_out = int(0.1 * len(train))
    parts = train[: len(train) - held_out], train[len(train) - held_out :], test
    return _standardized("hepmass", parts, tuple(f"f{i}" for i in kept))


def _read_hepmass_csv(path: Path) -> Floats:
    # The header of the test file names fewer columns than its rows have: it is skipped.
    options = pacsv.ReadOptions(skip_rows=1, autogenerate_column_names=True)
    with one_line_errors(path, "expected a header and numbers, found"):
        table = pacsv.read_csv(path, read_options=options)
        return np.column_stack([column.cast(pa.float64()).to_numpy() for column in table.columns])


def miniboone(folder: Path) -> Dataset:
    """Reads MINIBOONE: the electron neutrino events, 43 features, that the authors cleaned."""
    path = folder / MINIBOONE_FILE
    try:
        data = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path}: expected a NumPy array of numbers, found: {error}") from None
    if data.ndim != 2 or not np.issubdtype(data.dtype, np.floating):
        raise ValueError(f"{path}: expected a matrix of floats, found {data.dtype} {data.shape}")
    names = tuple(f"x{i}" for i in range(data.shape[1]))
    return _standardized("miniboone", _tenths(data.astype(np.float64)), names)


def bsds300(folder: Path, sizes: tuple[int, int, int] = (1_000_000, 50_000, 250_000)) -> Dataset:
    """Reads BSDS300: grey 8 x 8 patches of natural images, of zero mean, without the last pixel.

    A patch is anywhere in any image, with equal chances; training and validation patches come from
    the training images, test patches from the test images.
    """
    rng = np.random.default_rng(PROTOCOL_SEED)
    train_folder, test_folder = (folder / name for name in BSDS300_FOLDERS)
    fitted = _patches(_grey_images(train_folder), sizes[0] + sizes[1], rng)
    tested = _patches(_grey_images(test_folder), sizes[2], rng)
    parts = fitted[: sizes[0]], fitted[sizes[0] :], tested
    columns = tuple(f"pixel_{i}" for i in range(PATCH * PATCH - 1))
    train, validation, test = (Split(torch.from_numpy(part)) for part in parts)
    return Dataset("bsds300", train, validation, test, columns, standardize=False)


def _grey_images(folder: Path) -> list[NDArray[np.uint8]]:
    images = [np.asarray(Image.open(path).convert("L")) for path in sorted(folder.glob("*.jpg"))]
    if not images or any(min(image.shape) < PATCH for image in images):
        raise ValueError(f"{folder}: expected jpg images of at least {PATCH} x {PATCH} pixels")
    return images


def _patches(
    images: Sequence[NDArray[np.uint8]], n: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    pixels = np.concatenate([image.ravel() for image in images])
    heights, widths = np.array([image.shape for image in images]).T
    starts = np.concatenate([[0], np.cumsum(heights * widths)[:-1]])
    which = rng.integers(len(images), size=n)
    rows, columns = (rng.integers(sizes[which] - PATCH + 1) for sizes in (heights, widths))
    corners = starts[which] + rows * widths[which] + columns
    patches = np.empty((n, PATCH * PATCH - 1), np.float32)
    grid = np.arange(PATCH)
    for start in range(0, n, 65_536):  # blocks keep the index arrays small
        block = slice(start, start + 65_536)
        offsets = grid[:, None] * widths[which[block], None, None] + grid
        values = pixels[corners[block, None, None] + offsets].reshape(-1, PATCH * PATCH)
        values = (values + rng.random(values.shape, np.float32)) / 256
        patches[block] = (values - values.mean(axis=1, keepdims=True))[:, :-1]
    return patches


def _tenths(data: Floats) -> tuple[Floats, Floats, Floats]:
    """The last tenth of the rows to test, the last tenth of the rest to validate."""
    test = len(data) - int(0.1 * len(data))
    validation = test - int(0.1 * test)
    return data[:validation], data[validation:test], data[test:]


def _standardized(
    name: str, parts: tuple[Floats, Floats, Floats], columns: tuple[str, ...]
) -> Dataset:
    mean, deviation = parts[0].mean(axis=0), parts[0].std(axis=0)
    train, validation, test = ((part - mean) / deviation for part in parts)
    return _parts(name, (train, validation, test), columns)


def _parts(name: str, parts: tuple[Floats, Floats, Floats], columns: tuple[str, ...]) -> Dataset:
    rounded = (torch.from_numpy(part.astype(np.float32)) for part in parts)
    train, validation, test = map(Split, rounded)
    return Dataset(name, train, validation, test, columns, standardize=False)
