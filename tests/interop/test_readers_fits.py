"""FITS tables that astropy wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from file_runs import trained
from maskedflow.sources import open_source

pytest.importorskip("astropy")

from astropy.io import fits
from astropy.table import MaskedColumn, Table


@pytest.fixture
def table(rng: np.random.Generator) -> Any:
    hidden = np.arange(200) % 5 == 0
    return Table(
        {
            "ra": rng.uniform(0, 360, 200),
            "mag": rng.normal(size=200).astype(np.float32),
            "n": MaskedColumn(np.arange(200, dtype=np.int16), mask=hidden),
            "flux": MaskedColumn(rng.normal(size=200), mask=hidden),
            "kind": MaskedColumn(["star", "galaxy"] * 100, mask=hidden),
            "ok": rng.random(200) > 0.5,
            "v": rng.normal(size=(200, 2, 2)),
            "count": np.arange(200, dtype=np.uint16),
        }
    )


@pytest.mark.parametrize("format_", ["fits", "fit"])
def test_columns_are_those_of_astropy(table: Any, format_: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{format_}"
    table.write(path, format="fits")
    source = open_source(path)
    vector = [f"v[{i}, {j}]" for i in range(2) for j in range(2)]
    assert source.names == ("ra", "mag", "n", "flux", "kind", "ok", *vector, "count")
    found = source.table(source.names)
    told = {name: str(found[name].type) for name in source.names if name[0] != "v"}
    assert told == {
        "ra": "double",
        "mag": "float",
        "n": "int16",
        "flux": "double",
        "kind": "string",
        "ok": "bool",
        "count": "uint16",
    }
    for name in told:
        assert found[name].to_pylist() == table[name].tolist()
    np.testing.assert_array_equal(found["v[1, 0]"], table["v"][:, 1, 0])


def test_rows_come_in_blocks(table: Any, tmp_path: Path) -> None:
    table.write(tmp_path / "table.fits")
    source = open_source(tmp_path / "table.fits")
    batches = list(source.batches(["n", "kind"], rows=64, first=64, last=190))
    assert [batch.num_rows for batch in batches] == [64, 62]
    assert batches[1].column(0).to_pylist() == table["n"][128:190].tolist()


def test_scaled_columns_and_their_nulls(tmp_path: Path) -> None:
    stored = np.array([0, 1, -99, 3], dtype=np.int16)
    hdu = fits.BinTableHDU.from_columns([fits.Column("t", "I", array=stored)])
    hdu.header.update({"TSCAL1": 0.5, "TZERO1": 10.0, "TNULL1": -99})
    hdu.writeto(tmp_path / "scaled.fits")
    found = open_source(tmp_path / "scaled.fits").table(["t"])["t"]
    assert found.to_pylist() == [10.0, 10.5, None, 11.5]


def test_ascii_tables(tmp_path: Path) -> None:
    columns = [
        fits.Column("n", "I5", null="-99", array=np.array([1, -99, 3])),
        fits.Column("x", "E12.4", array=np.array([0.5, 1.5, 2.5])),
        fits.Column("s", "A3", array=np.array(["abc", "", "de"])),
    ]
    fits.TableHDU.from_columns(columns).writeto(tmp_path / "ascii.fits")
    found = open_source(tmp_path / "ascii.fits").table(["n", "x", "s"]).to_pydict()
    assert found == {"n": [1, None, 3], "x": [0.5, 1.5, 2.5], "s": ["abc", None, "de"]}


def test_the_first_table_is_read_or_the_one_that_is_named(table: Any, tmp_path: Path) -> None:
    other = fits.BinTableHDU(Table({"t": np.arange(3.0)}), name="GTI")
    events = fits.BinTableHDU(table, name="EVENTS")
    image = fits.ImageHDU(np.zeros((2, 2)))
    path = tmp_path / "two.fits"
    fits.HDUList([fits.PrimaryHDU(), image, events, other]).writeto(path)
    assert open_source(path).count() == 200
    assert "GTI" in open_source(path).notes[0]
    assert open_source(f"{path}::GTI").names == open_source(f"{path}::3").names == ("t",)
    with pytest.raises(ValueError, match="expected one of EVENTS, GTI behind ::, found 'X'"):
        open_source(f"{path}::X")


def test_columns_that_differ_in_length_or_are_complex_are_left_out(tmp_path: Path) -> None:
    lists = np.array([np.arange(2.0), np.arange(3.0)], dtype=object)
    columns = [
        fits.Column("list", "PD()", array=lists),
        fits.Column("z", "M", array=np.array([1j, 2])),
        fits.Column("x", "D", array=np.array([1.0, 2.0])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "odd.fits")
    source = open_source(tmp_path / "odd.fits")
    assert source.names == ("x",)
    assert [note.rpartition(": ")[2] for note in source.notes] == ["list", "z"]


def test_what_is_damaged_is_told_in_one_line(table: Any, tmp_path: Path) -> None:
    table.write(tmp_path / "table.fits")
    whole = (tmp_path / "table.fits").read_bytes()
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "image.fits")
    (tmp_path / "cut.fits").write_bytes(whole[:-5760])
    (tmp_path / "lies.fits").write_bytes(
        whole.replace(b"NAXIS2  =                  200", b"NAXIS2  =           2000000000")
    )
    (tmp_path / "text.fits").write_text("hello")
    for name, message in {
        "image.fits": "expected a table among its extensions",
        "cut.fits": "is cut off",
        "lies.fits": "is cut off",
        "text.fits": "cannot be read as FITS",
    }.items():
        with pytest.raises(ValueError, match=rf"{name}: {message}") as caught:
            open_source(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_flow_of_a_catalogue(rng: np.random.Generator, tmp_path: Path) -> None:
    x = rng.normal(size=(400, 2)).astype(np.float32)
    Table({"ra": x[:, 0], "dec": x[:, 1]}).write(tmp_path / "stars.fits")
    trained(tmp_path / "stars.fits", tmp_path / "runs")
