"""The publishers' own file formats, in miniature, written by the tests themselves."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskedflow import data
from maskedflow.data import benchmarks, images


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def write_mnist(folder: Path, rng: np.random.Generator) -> np.ndarray:
    folder.mkdir(parents=True)
    train = rng.integers(256, size=(60, 28, 28))
    for name, values in zip(
        images.MNIST_FILES,
        (train, np.arange(60) % 10, rng.integers(256, size=(10, 28, 28)), np.arange(10)),
        strict=True,
    ):
        write_idx(folder / name, values)
    return train


# ---------------------------------------------------------------- images


def test_mnist_keeps_pixels_order_and_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    train = write_mnist(tmp_path / "mnist", rng)
    mnist = data.load("mnist", tmp_path, labels=True)
    assert [len(s) for s in (mnist.train, mnist.validation, mnist.test)] == [50, 10, 10]
    assert mnist.train.x.dtype == torch.uint8
    np.testing.assert_array_equal(mnist.train.x.numpy(), train[:50].reshape(50, -1))
    np.testing.assert_array_equal(mnist.validation.x.numpy(), train[50:].reshape(10, -1))
    assert mnist.train.context is not None
    assert mnist.train.context.argmax(1).tolist() == [i % 10 for i in range(50)]
    assert mnist.train.context.sum(1).eq(1).all()
    assert (mnist.image_shape, mnist.levels, mnist.alpha) == ((1, 28, 28), 256, 1e-6)
    assert mnist.embedding() is None
    assert data.load("mnist", tmp_path).context_features == 0


def test_image_preprocessing_is_the_papers_logit(tmp_path: Path, rng: np.random.Generator) -> None:
    write_mnist(tmp_path / "mnist", rng)
    mnist = data.load("mnist", tmp_path)
    preprocessing = mnist.preprocessing()
    assert preprocessing is not None
    x = mnist.train.x.double()
    # The two ends are left out: there float32's rounding of a buffer shows in the logit.
    inner = (x > 0) & (x < 255)
    y, ladj = preprocessing.double()().call_and_ladj(x)
    s = torch.sigmoid(y)
    u = 256 * (s - 1e-6) / (1 - 2e-6) - x
    assert ((u > -1e-6) & (u < 1 + 1e-6))[inner].all()
    assert u[inner].mean().sub(0.5).abs() < 0.01
    expected = (np.log(1 - 2e-6) - np.log(256) - s.log() - (1 - s).log()).sum(1)
    torch.testing.assert_close(ladj, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzipped", "gzipped IDX"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\1x"), "IDX file of bytes"),
        (gzip.compress(struct.pack(">HBBI", 0, 8, 1, 5) + b"1234"), "expected 5 bytes"),
    ],
    ids=["text", "floats", "short"],  # a zipped file holds the time, which a name must not
)
def test_a_bad_idx_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        images.read_idx(path)
    assert str(path) in str(caught.value)


def test_cifar10_is_channel_first_and_appends_flips(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pixels = rng.integers(256, size=(6, 10, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(10, size=(6, 10), dtype=np.uint8)
    (tmp_path / "cifar10/cifar-10-batches-bin").mkdir(parents=True)
    for file, batch, label in zip(images.CIFAR10_FILES, pixels, labels, strict=True):
        records = np.concatenate([label[:, None], batch.reshape(10, -1)], axis=1)
        records.tofile(tmp_path / "cifar10" / file)
    cifar = data.load("cifar10", tmp_path, labels=True)
    assert [len(s) for s in (cifar.train, cifar.validation, cifar.test)] == [90, 5, 10]
    train = cifar.train.x.reshape(90, 3, 32, 32)
    flat = pixels[:5].reshape(50, 3, 32, 32)
    np.testing.assert_array_equal(train[:45], flat[:45])
    np.testing.assert_array_equal(train[45:], flat[:45, :, :, ::-1])
    np.testing.assert_array_equal(cifar.validation.x, flat[45:].reshape(5, -1))
    assert cifar.train.context is not None
    assert torch.equal(cifar.train.context[:45], cifar.train.context[45:])
    assert cifar.alpha == 0.05


def test_a_cut_cifar_batch_is_refused(tmp_path: Path) -> None:
    np.zeros(3072, np.uint8).tofile(tmp_path / "cut.bin")
    with pytest.raises(ValueError, match="records of 3,073 bytes, found 3,072"):
        images.read_cifar_batch(tmp_path / "cut.bin")


def test_digits_are_split_by_seed() -> None:
    digits = data.load("digits")
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1437, 180, 180]
    assert (digits.image_shape, digits.levels) == ((1, 8, 8), 17)
    assert int(digits.train.x.max()) == 16
    assert torch.equal(digits.test.x, data.load("digits").test.x)
    assert not torch.equal(digits.test.x, data.load("digits", seed=1).test.x)
    every = torch.cat([digits.train.x, digits.validation.x, digits.test.x]).long().sum(0)
    other = data.load("digits", seed=1)
    assert torch.equal(
        every, torch.cat([other.train.x, other.validation.x, other.test.x]).long().sum(0)
    )


# ---------------------------------------------------------------- the paper's tables


def power_rows(rng: np.random.Generator, n: int) -> tuple[list[str], np.ndarray]:
    """Lines of UCI's file and the eight columns of the paper's code, both without missing rows."""
    values = np.round(rng.uniform(0, 9, size=(n, 7)), 3)
    minutes = rng.integers(1440, size=n)
    lines = [
        f"1/2/2007;{m // 60:02d}:{m % 60:02d}:00;" + ";".join(f"{v:.3f}" for v in row)
        for m, row in zip(minutes, values, strict=True)
    ]
    return lines, np.column_stack([values, minutes])


def power_of_the_paper(rows: np.ndarray) -> np.ndarray:
    """The protocol retold step by step: shuffle the rows, drop two columns, add the noise."""
    rng = np.random.RandomState(42)
    rows = rows.copy()
    rng.shuffle(rows)
    rows = np.delete(rows, [1, 3], axis=1)
    n = len(rows)
    voltage, active, meters = 0.01 * rng.rand(n, 1), 0.001 * rng.rand(n, 1), rng.rand(n, 3)
    return rows + np.hstack([active, voltage, meters, np.zeros((n, 1))])


def test_power_follows_the_papers_code(tmp_path: Path, rng: np.random.Generator) -> None:
    lines, rows = power_rows(rng, 200)
    missing = "1/2/2007;00:00:00;?;?;?;?;?;?;"
    header = (
        "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
        "Sub_metering_1;Sub_metering_2;Sub_metering_3"
    )
    (tmp_path / "power").mkdir()
    text = "\n".join([header, missing, *lines[:90], missing, *lines[90:], missing, ""])
    (tmp_path / "power" / benchmarks.POWER_FILE).write_text(text)
    power = data.load("power", tmp_path)
    expected = power_of_the_paper(rows)
    train, validation, test = expected[:162], expected[162:180], expected[180:]
    for split, part in ((power.train, train), (power.validation, validation), (power.test, test)):
        wanted = (part - train.mean(0)) / train.std(0)
        np.testing.assert_allclose(split.x.numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert power.columns[-1] == "minute_of_day"
    assert power.preprocessing() is None

    corners = benchmarks.power_cells(tmp_path / "power")
    steps = np.array([1e-3, 1e-2, 1, 1, 1, 0]) / train.std(0)
    for part, noisy in (("train", train), ("validation", validation), ("test", test)):
        x = getattr(corners, part).x.numpy()
        places = ((noisy - train.mean(0)) / train.std(0) - x)[:, :-1] / steps[:-1]
        assert places.min() > -1e-3
        assert places.max() < 1 + 1e-3
        assert places.std() == pytest.approx(12**-0.5, abs=0.05)
    assert corners.cells is not None
    np.testing.assert_allclose(corners.cells.step, steps)
    [dequantize] = corners.preprocessing().transforms
    torch.testing.assert_close(dequantize.low, corners.train.x.amin(0).double())


def test_a_foreign_power_file_is_named(tmp_path: Path) -> None:
    (tmp_path / benchmarks.POWER_FILE).write_text("a;b\n1;2\n")
    with pytest.raises(ValueError, match="UCI's household power file"):
        benchmarks.power(tmp_path)


def test_bsds300_patches_are_centred_pieces_of_the_images(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for folder, shape in zip(benchmarks.BSDS300_FOLDERS, ((20, 31), (31, 20)), strict=True):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            colours = rng.integers(256, size=(*shape, 3), dtype=np.uint8)
            Image.fromarray(colours).save(tmp_path / folder / f"{i}.jpg")
    bsds = benchmarks.bsds300(tmp_path, sizes=(500, 50, 70_000))
    assert [len(s) for s in (bsds.train, bsds.validation, bsds.test)] == [500, 50, 70_000]
    assert bsds.test.x.dtype == torch.float32
    grey = [
        np.asarray(Image.open(path).convert("L")).astype(float)
        for path in sorted((tmp_path / benchmarks.BSDS300_FOLDERS[0]).iterdir())
    ]
    windows = np.concatenate(
        [np.lib.stride_tricks.sliding_window_view(g, (8, 8)).reshape(-1, 64) for g in grey]
    )
    last = -bsds.train.x.sum(1, keepdim=True)  # the mean is zero, so 63 pixels give the 64th
    patches = torch.cat([bsds.train.x, last], 1).double().numpy()
    centred = (windows + 0.5) / 256
    centred -= centred.mean(1, keepdims=True)
    nearest = np.abs(patches[:, None] - centred[None]).max(-1).min(1)
    assert nearest.max() < 1 / 256  # every patch is some window, up to the noise
    assert len(np.unique(np.abs(patches[:, None] - centred[None]).max(-1).argmin(1))) > 300
    assert torch.equal(bsds.train.x, benchmarks.bsds300(tmp_path, sizes=(500, 50, 70_000)).train.x)


def test_bsds300_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected jpg images"):
        benchmarks.bsds300(tmp_path)


def test_hepmass_keeps_signal_and_drops_repeats(tmp_path: Path, rng: np.random.Generator) -> None:
    def rows(n: int) -> np.ndarray:
        values = rng.normal(size=(n, 27))
        values[:, 5] = rng.integers(3, size=n)  # its smallest value repeats
        return np.column_stack([np.arange(n) % 2, values])

    train, test = rows(400), rows(100)
    names = "# label," + ",".join(f"f{i}" for i in range(27))
    (tmp_path / "hepmass").mkdir()
    np.savetxt(tmp_path / "hepmass/1000_train.csv", train, "%.8e", ",", header=names, comments="")
    stray = np.column_stack([test, np.ones(len(test))])  # the published file's last column
    np.savetxt(tmp_path / "hepmass/1000_test.csv", stray, "%.8e", ",", header=names, comments="")
    hepmass = data.load("hepmass", tmp_path)
    assert [len(s) for s in (hepmass.train, hepmass.validation, hepmass.test)] == [180, 20, 50]
    assert hepmass.features == 26
    assert "f5" not in hepmass.columns
    kept = [i for i in range(1, 28) if i != 6]
    signal = train[1::2, kept]
    wanted = (test[1::2, kept] - signal[:180].mean(0)) / signal[:180].std(0)
    np.testing.assert_allclose(hepmass.test.x.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_miniboone_reads_the_authors_array(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.normal(size=(100, 43))
    (tmp_path / "miniboone").mkdir()
    np.save(tmp_path / "miniboone/data.npy", rows)
    miniboone = data.load("miniboone", tmp_path)
    parts = (miniboone.train, miniboone.validation, miniboone.test)
    assert [len(s) for s in parts] == [81, 9, 10]
    wanted = (rows[90:] - rows[:81].mean(0)) / rows[:81].std(0)
    np.testing.assert_allclose(miniboone.test.x.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_a_pickle_in_an_array_is_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match="expected a NumPy array of numbers"):
        benchmarks.miniboone(tmp_path)


def gas_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Time, two gases and 16 sensors, of which 3 and 9 repeat others but for a little noise."""
    rows = rng.normal(size=(n, 19))
    rows[:, 3 + 9] = rows[:, 3 + 3] + 1e-3 * rng.normal(size=n)
    return rows


def test_gas_reads_ucis_text_and_drops_correlated_sensors(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "gas").mkdir()
    header = "Time (seconds), CO conc (ppm), Ethylene conc (ppm), sensor readings (16 channels)"
    np.savetxt(
        tmp_path / "gas/ethylene_CO.txt", gas_rows(rng, 400), "%.6f", header=header, comments=""
    )
    gas = data.load("gas", tmp_path)
    assert [len(s) for s in (gas.train, gas.validation, gas.test)] == [81, 9, 10]
    assert gas.columns == tuple(f"R{i}" for i in range(1, 17) if i != 4)
    torch.testing.assert_close(gas.train.x.mean(0), torch.zeros(15), atol=1e-6, rtol=0)


def test_gas_reads_the_converted_table(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = gas_rows(rng, 100)
    (tmp_path / "gas").mkdir()
    names = ["Time", "Meth", "Eth", *(f"R{i}" for i in range(1, 17))]
    path = tmp_path / "gas/ethylene_CO.csv"
    data.write_table(path, names, [torch.from_numpy(rows)])
    gas = data.load("gas", tmp_path)
    kept = [i for i in range(3, 19) if i != 6]
    wanted = (rows[90:, kept] - rows[:81, kept].mean(0)) / rows[:81, kept].std(0)
    np.testing.assert_allclose(gas.test.x.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_a_gas_table_without_its_columns_is_named(tmp_path: Path) -> None:
    data.write_table(tmp_path / "ethylene_CO.csv", ["Time", "R1"], [torch.zeros(3, 2)])
    with pytest.raises(ValueError, match=r"expected columns Time, Meth, Eth, .* found Time, R1"):
        benchmarks.gas(tmp_path)


def test_text_within_ucis_gas_numbers_is_an_error(tmp_path: Path) -> None:
    row = " ".join(["1.5"] * 19)
    (tmp_path / "ethylene_CO.txt").write_text(f"header\n{row}\nword {row}\n")
    with pytest.raises(ValueError, match="found other text"):
        benchmarks.gas(tmp_path)
    (tmp_path / "ethylene_CO.txt").write_text(f"header\n{row}\n1.5\n")
    with pytest.raises(ValueError, match="rows of 19 numbers, found 20"):
        benchmarks.gas(tmp_path)
